"""What a beamline has for a change of lens, as processes: MCTOptics, a ROI plugin and motors."""

from __future__ import annotations

from support.ports import ServerPorts, environment
from support.rig import Script

NAMES = {
    "MctOpticsPVPrefix": "M:MCT:",
    "SampleTomo0degPVName": "M:m17",
    "SampleTomo90degPVName": "M:m18",
    "SampleYPVName": "M:m3",
    "RoiPluginPVPrefix": "M:ROI1:",
}


class Optics:
    """Motors by caproto, MCTOptics and the ROI plugin by softioc."""

    def __init__(self, *options: str, speed: float = 20.0):
        self.motor_ports, self.mct_ports = ServerPorts(), ServerPorts()
        self._options = options
        self.motors = Script("motors_ioc.py", self.motor_ports, "--speed", str(speed))
        try:
            self.start_mct()
        except BaseException:
            self.motors.close()
            raise

    @property
    def reach(self) -> tuple[ServerPorts, ...]:
        return self.motor_ports, self.mct_ports

    def start_mct(self) -> None:
        env = environment(self.mct_ports, (self.motor_ports, self.mct_ports))
        self.mct = Script("softioc_optics.py", self.mct_ports, *self._options, env=env)

    def close(self) -> None:
        for child in (self.mct, self.motors):
            child.close()
