"""A real IOC between a detector by pvapy and a tomoScan by softioc: no sender is ours."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from support.ports import ServerPorts, environment
from support.processes import Child, Ioc, wait_for

PVA_TESTS = Path(__file__).parent.parent / "pva"
ROWS, COLS, ANGLES = 32, 48, 60
#: for --simulate, where what is scanned does not matter: the phantom's own size takes seconds
SMALL_SCAN = "--sim-arguments=--size 32 --angles 10"
FRAME_TYPES = {"Projection": 0, "FlatField": 1, "DarkField": 2}


@contextlib.contextmanager
def simulated(folder: Path, options: str) -> Iterator[Ioc]:
    """An IOC that reaches a simulated stream, which is a process of its own with these options."""
    ports = ServerPorts()
    arguments = ["-m", "tomostream_ioc.sim", "--P", "sys:", *options.split()]
    with contextlib.ExitStack() as parts:
        simulator = Child(arguments, environment(ports))
        parts.callback(simulator.close)
        ioc = Ioc(folder, reach=(ports,))
        parts.callback(ioc.close)
        simulator.expect("ready")
        ioc.expect("Ready")
        yield ioc


class Script(Child):
    """A sender whose commands are lines."""

    def __init__(
        self, script: str, ports: ServerPorts, *options: str, env: dict[str, str] | None = None
    ):
        super().__init__([str(PVA_TESTS / script), *options], env or environment(ports))
        self.expect("ready", 30.0)

    def do(self, line: str) -> None:
        self.say(line)
        while True:
            answer = self.expect("", 30.0)
            if answer.startswith(("ok", "error")):
                break
        assert answer == f"ok {line}"


class Rig:
    """Detector, tomoScan and IOC; frames are numbered from 1 in each run.

    ``more`` are further options of the IOC, ``timeout_s`` is how long a channel may take to answer,
    ``others`` are further servers that the IOC is to reach.
    """

    def __init__(
        self,
        folder: Path,
        *more: str,
        rows: int = ROWS,
        cols: int = COLS,
        timeout_s: float = 8,
        others: tuple[ServerPorts, ...] = (),
    ):
        self._size = rows, cols
        self.detector_ports = ServerPorts()
        self.tomoscan_ports = ServerPorts()
        self.start_detector()
        self.start_tomoscan()
        options = (
            "--TOMO_SCAN T:TS: --IMAGE_P T:TS:PvaPluginPVPrefix --THETA_PVA T:StreamTheta "
            "--DARK_PVA T:StreamDarkFields --FLAT_PVA T:StreamFlatFields "
            f"--timeout {timeout_s:g}"
        )
        self._folder = folder
        self._options = *options.split(), *more
        self._reach = self.detector_ports, self.tomoscan_ports, *others
        self.start_ioc()
        for record in ("Center", "OrthoX", "OrthoY"):
            self.ioc.put(record, cols // 2, wait=True)
        self.ioc.put("OrthoZ", rows // 2, wait=True)

    def start_ioc(self) -> None:
        """With the settings that the one before it has saved."""
        self.ioc = Ioc(self._folder, *self._options, reach=self._reach)
        self.ioc.expect("Ready")

    def start_detector(self) -> None:
        rows, cols = map(str, self._size)
        self.detector = Script(
            "pvapy_sender.py", self.detector_ports, "--rows", rows, "--cols", cols
        )

    def start_tomoscan(self) -> None:
        self.tomoscan = Script("softioc_tomoscan.py", self.tomoscan_ports)

    def scan(self, angles: int = ANGLES) -> None:
        """Fields and angles as at the start of a scan."""
        self.detector.do("dark value=0")
        self.detector.do("flat value=3000")
        self.detector.do(f"theta {10 * angles} step={180 / angles}")

    def run(self) -> int:
        """Start, with the first frame; the token of the busy put."""
        token = self.start()
        self.send(1)
        self.ioc.wait_status("1 of")
        return token

    def start(self) -> int:
        """Start, up to where the first frame may come."""
        token = self.ioc.start()
        self.ioc.wait_status("waiting for the first projection", 20)
        return token

    def send(self, *ids: int, **options: object) -> None:
        words = " ".join(f"{name}={value}" for name, value in options.items())
        for unique_id in ids:
            self.detector.do(f"frame {unique_id} {words}".strip())

    def abort(self) -> None:
        self.ioc.put("AbortRecon", 1)
        self.ioc.wait_value("StartRecon", 0)

    def counts(self, *names: str) -> tuple[int, ...]:
        return tuple(self.ioc.get(f"Frames{name}") for name in names)

    def wait_received(self, count: int) -> None:
        wait_for(lambda: self.ioc.get("FramesReceived") == count, 10, f"{count} frames received")

    def close(self) -> None:
        for child in (self.ioc, self.detector, self.tomoscan):
            child.close()
