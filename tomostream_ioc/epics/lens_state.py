"""What MCTOptics, the ROI plugin and the motors say, and what is wrong with their names."""

from __future__ import annotations

from tomostream_ioc.epics.lens_channels import Channels, FollowedChannel
from tomostream_ioc.epics.lens_motor import SampleMotor
from tomostream_ioc.errors import LensError
from tomostream_ioc.model.control import LensNames, Severity
from tomostream_ioc.model.lens import MOTOR_RECORDS, LensFault, pixel_size_um

MCT_RECORD = "MctOpticsPVPrefix"
_ROI_RECORD = "RoiPluginPVPrefix"
_DONE = "Done"  # MCTStatus when nothing goes on


class LensState:
    """The channels of one run. `open` first."""

    def __init__(self, channels: Channels, names: LensNames):
        self._channels = channels
        self._prefix = names.mct_optics_prefix.strip()
        self._roi_prefix = names.roi_plugin_prefix.strip()
        self._motor_names = {
            "x": names.sample_tomo_0deg.strip(),
            "y": names.sample_tomo_90deg.strip(),
            "z": names.sample_y.strip(),
        }
        self._mct: dict[str, FollowedChannel] = {}
        self._roi_binning: FollowedChannel | None = None
        self._name_faults: list[LensFault] = []
        self._lens_motor_name = ""
        self._lens_motor: FollowedChannel | None = None
        self.motors: dict[str, SampleMotor] = {}

    async def open(self) -> None:
        """Search for every channel that has a name. LensSelect last: the rest is told before."""
        for name in (
            "DetectorPixelSize",
            "CameraObjective",
            "CameraBinning",
            "MCTStatus",
            "LensMotorPVName",
            "LensSelect",
        ):
            try:
                self._mct[name] = await self._channels.add(self._prefix + name)
            except LensError as error:
                self._refuse(MCT_RECORD, f"MctOpticsPVPrefix: {error}", only_sync=False)
                return
        if not self._roi_prefix:
            self._refuse(_ROI_RECORD, "RoiPluginPVPrefix is empty: the binning is not known")
        else:
            try:
                self._roi_binning = await self._channels.add(f"{self._roi_prefix}BinX")
            except LensError as error:
                self._refuse(_ROI_RECORD, f"RoiPluginPVPrefix: {error}")
        for axis, name in self._motor_names.items():
            record = MOTOR_RECORDS[axis]
            if not name:
                self._refuse(record, f"{record} is empty: the sample can't be moved")
                continue
            try:
                self.motors[axis] = await SampleMotor.follow(self._channels, axis, name)
            except LensError as error:
                self._refuse(record, f"{record}: {error}")

    @property
    def select(self) -> FollowedChannel | None:
        return self._mct.get("LensSelect")

    async def name_lens_motor(self) -> FollowedChannel | None:
        """Follow the lens motor as MCTOptics names it now; it, if that is new."""
        known = self._mct.get("LensMotorPVName")
        name = known.text.removesuffix(".VAL") if known is not None else ""
        if name == self._lens_motor_name:
            return None
        self._lens_motor_name, self._lens_motor = name, None
        if name:
            self._lens_motor = await self._channels.add(f"{name}.DMOV")
        return self._lens_motor

    @property
    def lens_motor(self) -> FollowedChannel | None:
        """Done-moving of the lens motor; None where it has never answered."""
        motor = self._lens_motor
        return motor if motor is not None and motor.answered else None

    @property
    def lens_motor_name(self) -> str:
        return self._lens_motor_name or "the lens motor"

    @property
    def lens_moves(self) -> bool:
        motor = self.lens_motor
        return motor is not None and motor.connected and motor.number == 0

    @property
    def lens_stands(self) -> bool:
        motor = self.lens_motor
        return motor is not None and motor.connected and motor.number != 0

    def tells_of_motion(self, channel: FollowedChannel) -> bool:
        """These news mean that the lens motor moves, or that MCTOptics is at work."""
        if channel is self._lens_motor:
            return self.lens_moves
        return channel is self._mct.get("MCTStatus") and not self.mct_is_done

    @property
    def mct_is_done(self) -> bool:
        """True also where MCTOptics does not tell."""
        status = self._mct.get("MCTStatus")
        if status is None or not status.connected:
            return True
        return status.text in ("", _DONE)

    def pixel_um(self) -> float:
        """Size of a frame's pixel at the sample now. Raises LensError: it is not known."""
        detector, objective = self._mct.get("DetectorPixelSize"), self._mct.get("CameraObjective")
        for channel in (detector, objective, self._roi_binning):
            if channel is None or channel.value is None:
                name = "the binning" if channel is None else channel.name
                raise LensError(f"the pixel size is not known: {name} has no value")
        if detector is None or objective is None or self._roi_binning is None:
            raise LensError("the pixel size is not known")
        binning = self._roi_binning.number
        camera = self._mct.get("CameraBinning")
        if camera is not None and camera.connected and 0 <= camera.number <= 2:
            binning *= 2 ** int(camera.number)  # states 1x, 2x, 4x
        return pixel_size_um(detector.number, objective.text, binning)

    def faults(self) -> tuple[LensFault, ...]:
        """What does not answer, and names that can't."""
        found = list(self._name_faults)
        for name, only_sync in (
            ("LensSelect", False),
            ("LensMotorPVName", False),
            ("DetectorPixelSize", True),
            ("CameraObjective", True),
        ):
            channel = self._mct.get(name)
            if channel is not None and channel.missing:
                found.append(_silent(MCT_RECORD, channel, "is MCTOptics running", only_sync))
        motor_name = self._mct.get("LensMotorPVName")
        if motor_name is not None and motor_name.connected and motor_name.value == "":
            text = f"{motor_name.name} is empty: nobody can wait for the lens"
            found.append(LensFault(MCT_RECORD, Severity.MAJOR, "LINK", text, only_sync=False))
        if self._lens_motor is not None and self._lens_motor.missing:
            found.append(_silent(MCT_RECORD, self._lens_motor, "is that a motor", False))
        if self._roi_binning is not None and self._roi_binning.missing:
            found.append(_silent(_ROI_RECORD, self._roi_binning, "is the name right"))
        for axis, motor in self.motors.items():
            if motor.setpoint.missing:
                found.append(_silent(MOTOR_RECORDS[axis], motor.setpoint, "is the name right"))
        return tuple(found)

    def _refuse(self, record: str, message: str, *, only_sync: bool = True) -> None:
        self._name_faults.append(LensFault(record, Severity.MAJOR, "LINK", message, only_sync))


def _silent(
    record: str, channel: FollowedChannel, question: str, only_sync: bool = True
) -> LensFault:
    text = f"{channel.name} does not answer: {question}?"
    return LensFault(record, Severity.INVALID, "COMM", text, only_sync)
