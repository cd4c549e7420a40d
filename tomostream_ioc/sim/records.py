"""The records of the simulated tomoScan IOC and of its PVA plugin, served by caproto."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from caproto import ChannelType, SkipWrite
from caproto.server import PVGroup, pvproperty

from tomostream_ioc.errors import ConfigError
from tomostream_ioc.sim.schedule import ScanType
from tomostream_ioc.sim.source import FieldKind, FrameSource
from tomostream_ioc.sim.stream import Stream

#: areaDetector's names of pixel types, in the order of DataType_RBV
_DATA_TYPES = {
    "int8": "Int8",
    "uint8": "UInt8",
    "int16": "Int16",
    "uint16": "UInt16",
    "int32": "Int32",
    "uint32": "UInt32",
    "int64": "Int64",
    "uint64": "UInt64",
    "float32": "Float32",
    "float64": "Float64",
}
_FRAME_TYPES = ("DarkField", "FlatField", "Projection")
_SCAN_TYPES = ("backforth", "continuous")
_BINNINGS = ("1x", "2x", "4x")
_COUNTS_PERIOD_S = 0.1


def _record(name: str, value: Any, **options: Any) -> Any:
    # a rejected put alarms every record of its alarm group: each gets its own
    return pvproperty(name=name, value=value, alarm_group=name, **options)


def _enum(name: str, choices: tuple[str, ...], value: str, record: str, **options: Any) -> Any:
    return _record(
        name, value, dtype=ChannelType.ENUM, enum_strings=choices, record=record, **options
    )


def _busy(name: str, on: str, **options: Any) -> Any:
    return _enum(name, ("Done", on), "Done", "bo", **options)


def _text(name: str, value: str = "") -> Any:
    return _record(name, value, dtype=ChannelType.CHAR, max_length=256, read_only=True)


def _integer(name: str, *, read_only: bool = True) -> Any:
    return _record(name, 0, record="longout", read_only=read_only)


def _real(name: str, **options: Any) -> Any:
    """An ao that clients may write only when ``put`` says what happens then."""
    return _record(name, 0.0, record="ao", precision=4, read_only="put" not in options, **options)


class PvaPluginRecords(PVGroup):
    """The few records of the areaDetector PVA plugin that tell what the image channel carries."""

    data_type = _enum("DataType_RBV", tuple(_DATA_TYPES.values()), "UInt16", "mbbi", read_only=True)
    array_size_0 = _integer("ArraySize0_RBV")
    array_size_1 = _integer("ArraySize1_RBV")
    unique_id = _integer("UniqueId_RBV")


class TomoScanRecords(PVGroup):
    """What the reconstruction reads of a tomoScan stream IOC, and what starts and stops the stream.

    The Sim records are this simulator's own: rates that can be put at any time, and totals. Busy
    records complete a put-callback when what they started has ended.
    """

    async def _put_start_scan(self, instance: Any, value: Any) -> None:
        scan_type: ScanType = self.scan_type.value
        await self._begin_busy(instance, value, lambda: self.stream.start_scan(scan_type))

    async def _put_abort_scan(self, instance: Any, value: Any) -> str:
        if value == "Yes":
            self.stream.abort_scan()
        return "No"

    async def _put_retake_dark(self, instance: Any, value: Any) -> None:
        await self._begin_busy(instance, value, lambda: self.stream.retake("dark"))

    async def _put_retake_flat(self, instance: Any, value: Any) -> None:
        await self._begin_busy(instance, value, lambda: self.stream.retake("flat"))

    async def _put_scan_type(self, instance: Any, value: Any) -> str:
        """Takes effect with the next StartScan."""
        if value not in _SCAN_TYPES:
            raise ConfigError(f"StreamScanType {value!r} does not exist: use one of {_SCAN_TYPES}")
        self._source.schedule(value)  # ConfigError: this source can't be scanned that way
        return value  # or caproto would store what the client sent: the index

    async def _put_binning(self, instance: Any, value: Any) -> str:
        if value not in _BINNINGS:
            raise ConfigError(f"StreamBinning {value!r} does not exist: use one of {_BINNINGS}")
        self.stream.set_binning(1 << _BINNINGS.index(value))
        return value

    async def _put_sim_rate(self, instance: Any, value: float) -> None:
        if not 0 <= value < math.inf:
            raise ConfigError(f"SimRate {value} is no rate: give frames/s, 0 for no limit")
        self.stream.set_rate(value)

    async def _put_sim_loss_rate(self, instance: Any, value: float) -> None:
        self.stream.plan.rates.loss = _probability(value)

    async def _put_sim_duplicate_rate(self, instance: Any, value: float) -> None:
        self.stream.plan.rates.duplicates = _probability(value)

    async def _put_sim_disorder_rate(self, instance: Any, value: float) -> None:
        self.stream.plan.rates.disorder = _probability(value)

    frame_type = _enum("FrameType", _FRAME_TYPES, "Projection", "mbbi", read_only=True)
    num_angles = _integer("NumAngles")
    rotation_start = _real("RotationStart")
    rotation_step = _real("RotationStep")
    first_projid = _integer("FirstProjid", read_only=False)
    scan_type = _enum("StreamScanType", _SCAN_TYPES, "continuous", "bo", put=_put_scan_type)
    stream_message = _text("StreamMessage", "Done")
    scan_status = _text("ScanStatus")
    retake_dark = _busy("StreamRetakeDark", "Capture", put=_put_retake_dark)
    retake_flat = _busy("StreamRetakeFlat", "Capture", put=_put_retake_flat)
    binning = _enum("StreamBinning", _BINNINGS, "1x", "mbbo", put=_put_binning)
    start_scan = _busy("StartScan", "Acquire", put=_put_start_scan)
    abort_scan = _enum("AbortScan", ("No", "Yes"), "No", "bo", put=_put_abort_scan)
    pva_plugin_prefix = _record("PvaPluginPVPrefix", "", record="stringout", read_only=True)
    pva_stream_prefix = _record("PvaStreamPVPrefix", "", record="stringout", read_only=True)

    sim_rate = _real("SimRate", put=_put_sim_rate)
    sim_loss_rate = _real("SimLossRate", put=_put_sim_loss_rate)
    sim_duplicate_rate = _real("SimDuplicateRate", put=_put_sim_duplicate_rate)
    sim_disorder_rate = _real("SimDisorderRate", put=_put_sim_disorder_rate)
    sim_sent = _integer("SimSent")
    sim_lost = _integer("SimLost")
    sim_duplicated = _integer("SimDuplicated")
    sim_disordered = _integer("SimDisordered")
    sim_sent_rate = _real("SimSentRate")
    sim_center = _real("SimCenter")
    sim_turns = _real("SimTurns")

    def __init__(self, prefix: str, stream: Stream, source: FrameSource) -> None:
        super().__init__(prefix=prefix)
        self.stream = stream
        self._source = source
        self.ended: dict[str, asyncio.Event] = {}

    async def _begin_busy(self, record: Any, value: Any, action: Callable[[], None]) -> None:
        """Show the record busy, start the action, and hold a put-callback until it has ended."""
        if value != record.enum_strings[1]:
            raise SkipWrite  # as on the real IOC: Done stops nothing
        ended = self.ended.setdefault(record.pvname, asyncio.Event())
        ended.clear()
        await record.write(value, verify_value=False)
        action()
        await ended.wait()
        raise SkipWrite  # end_busy has written Done

    async def end_busy(self, record: Any) -> None:
        await record.write("Done", verify_value=False)
        self.ended.setdefault(record.pvname, asyncio.Event()).set()


@dataclass(frozen=True, slots=True)
class RecordNames:
    """Prefixes: of the tomoScan records (P and R together), and of the PVA plugin.

    ``dark``, ``flat`` and ``theta`` are channels; '' = the name that tomoScan gives them.
    """

    tomoscan: str
    pva_plugin: str
    dark: str = ""
    flat: str = ""
    theta: str = ""

    @property
    def image(self) -> str:
        return f"{self.pva_plugin}Image"

    @property
    def channels(self) -> dict[str, str]:
        """The PVA channels by what they carry."""
        return {
            "image": self.image,
            "dark": self.dark or f"{self.tomoscan}StreamDarkFields",
            "flat": self.flat or f"{self.tomoscan}StreamFlatFields",
            "theta": self.theta or f"{self.tomoscan}StreamTheta",
        }


class Records:
    """Both groups, kept up to date from the sender (it is the sender's StreamListener)."""

    def __init__(
        self, names: RecordNames, stream: Stream, source: FrameSource, first_projid: int
    ) -> None:
        self.scan = TomoScanRecords(names.tomoscan, stream, source)
        self.plugin = PvaPluginRecords(prefix=names.pva_plugin)
        self._names = names
        self._stream = stream
        self._source = source
        self._first_projid = first_projid
        self._loop = asyncio.get_running_loop()
        # one queue: what the sender tells is written in the order in which it told it
        self._told: asyncio.Queue[Callable[[], Any]] = asyncio.Queue()

    @property
    def pvdb(self) -> dict[str, Any]:
        return {**self.scan.pvdb, **self.plugin.pvdb}

    async def set_up(self, scan_type: ScanType) -> None:
        """Values that stay, before the first client comes."""
        scan, rates = self.scan, self._stream.plan.rates
        await self._write(
            {
                scan.scan_type: scan_type,
                scan.first_projid: self._first_projid,
                scan.pva_plugin_prefix: self._names.pva_plugin,
                scan.pva_stream_prefix: self._names.tomoscan,
                scan.sim_rate: self._stream.rate_fps,
                scan.sim_loss_rate: rates.loss,
                scan.sim_duplicate_rate: rates.duplicates,
                scan.sim_disorder_rate: rates.disorder,
                scan.sim_center: math.nan if (c := self._source.center) is None else c,
                self.plugin.data_type: _DATA_TYPES[self._source.dtype.name],
            }
        )
        await self._show_angles(scan_type)
        await self._show_size()

    async def write_told(self) -> None:
        """Write what the sender tells; ends when cancelled."""
        while True:
            write = await self._told.get()
            await write()

    async def write_counts(self) -> None:
        """Write the counts ten times a second; ends when cancelled."""
        while True:
            await self._show_counts()
            await asyncio.sleep(_COUNTS_PERIOD_S)

    # StreamListener, called from the sender's thread

    def frame_type(self, name: str) -> None:
        self._tell(lambda: self._write({self.scan.frame_type: name}))

    def stream_message(self, text: str) -> None:
        self._tell(lambda: self._write({self.scan.stream_message: text}))

    def scan_started(self, scan_type: ScanType) -> None:
        async def write() -> None:
            await self._show_angles(scan_type)
            await self._write(
                {
                    self.scan.first_projid: self._first_projid,
                    self.scan.start_scan: "Acquire",
                    self.scan.scan_status: "Collecting projections",
                }
            )

        self._tell(write)

    def scan_ended(self, status: str) -> None:
        async def write() -> None:
            await self._show_counts()
            await self._write({self.scan.scan_status: status})
            await self.scan.end_busy(self.scan.start_scan)

        self._tell(write)

    def retake_ended(self, kind: FieldKind) -> None:
        record = self.scan.retake_dark if kind == "dark" else self.scan.retake_flat
        self._tell(lambda: self.scan.end_busy(record))

    def binning_changed(self) -> None:
        self._tell(self._show_size)

    def _tell(self, write: Callable[[], Any]) -> None:
        self._loop.call_soon_threadsafe(self._told.put_nowait, write)

    async def _show_angles(self, scan_type: ScanType) -> None:
        """NumAngles as in tomoScan: of one pass back or forth, or of the whole continuous scan."""
        schedule = self._source.schedule(scan_type)
        theta = schedule.pass_theta_deg
        n_angles = theta.size if scan_type == "backforth" else self._stream.n_angles
        step = (theta[-1] - theta[0]) / max(theta.size - 1, 1)
        await self._write(
            {
                self.scan.num_angles: n_angles,
                self.scan.rotation_start: float(theta[0]),
                self.scan.rotation_step: float(step),
            }
        )

    async def _show_size(self) -> None:
        n_rows, n_cols = self._source.shape
        binning = self._stream.binning
        await self._write(
            {
                self.plugin.array_size_0: n_cols // binning,
                self.plugin.array_size_1: n_rows // binning,
            }
        )

    async def _show_counts(self) -> None:
        counts, totals = self._stream.counts, self._stream.plan.totals
        scan = self.scan
        await self._write(
            {
                scan.sim_sent: counts.sent,
                scan.sim_lost: totals.lost,
                scan.sim_duplicated: totals.duplicated,
                scan.sim_disordered: totals.swapped,
                scan.sim_sent_rate: counts.rate_fps,
                scan.sim_turns: counts.turns,
                self.plugin.unique_id: counts.last_id,
            }
        )

    async def _write(self, values: Mapping[Any, Any]) -> None:
        for record, value in values.items():
            if record.value != value:
                await record.write(value, verify_value=False)


def _probability(value: float) -> float:
    if not 0 <= value <= 1:
        raise ConfigError(f"{value} is no probability: give 0 to 1")
    return value
