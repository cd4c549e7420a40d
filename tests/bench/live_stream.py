"""The real IOC with a run under way on a stream of frames, for benchmarks and the soak."""

from __future__ import annotations

import contextlib
import sys
import time
from pathlib import Path

import psutil

TESTS = Path(__file__).parent.parent
if str(TESTS) not in sys.path:
    sys.path.insert(0, str(TESTS))

from support.ports import ServerPorts, environment  # noqa: E402
from support.processes import Child, Ioc, wait_for  # noqa: E402

ANGLES = 180
LOSSES = ("FramesMissed", "FramesDropped", "FramesRejected", "FramesDuplicate")
MIB = 1 << 20


def size_of(text: str) -> tuple[int, int]:
    """Rows and columns of "512x640"."""
    rows, cols = (int(part) for part in text.split("x"))
    return rows, cols


def rss_mib(process: psutil.Process) -> float:
    return process.memory_info().rss / MIB


class Detector(Child):
    """The pvapy sender of the tests; ids go on from burst to burst."""

    def __init__(self, ports: ServerPorts, rows: int, cols: int):
        options = ["--rows", str(rows), "--cols", str(cols)]
        super().__init__([str(TESTS / "pva" / "pvapy_sender.py"), *options], environment(ports))
        self.expect("ready")
        self.next_id = 1

    def do(self, line: str, limit_s: float = 120.0) -> None:
        self.say(line)
        self._answered(line, limit_s)

    def burst(self, count: int, hz: float, size: tuple[int, int] | None = None) -> float:
        """Send ``count`` frames, of another size than usual; the rate that was really reached."""
        began = time.monotonic()
        self.do(self._burst(count, hz, size))
        return count / (time.monotonic() - began)

    def begin_burst(self, count: int, hz: float) -> None:
        """Send ``count`` frames, without waiting for the end of it."""
        self.say(self._burst(count, hz, None))

    def _burst(self, count: int, hz: float, size: tuple[int, int] | None) -> str:
        line = f"burst {count} start={self.next_id} hz={hz:g}{_of_size(size)}"
        self.next_id += count
        return line

    def _answered(self, line: str, limit_s: float) -> None:
        answer = self.expect("", limit_s)
        if answer != f"ok {line}":
            raise RuntimeError(answer)


def _of_size(size: tuple[int, int] | None) -> str:
    return "" if size is None else f" rows={size[0]} cols={size[1]}"


def begin(
    ioc: Ioc, detector: Detector, angles: int = ANGLES, size: tuple[int, int] | None = None
) -> int:
    """Fields and angles, and the run waits for frames; the token of its end."""
    detector.do(f"dark value=0{_of_size(size)}")
    detector.do(f"flat value=60000{_of_size(size)}")
    detector.do(f"theta {40 * angles} step={180 / angles}")
    token = ioc.start()
    ioc.wait_status("Arming")
    wait_for(lambda: "Arming: asking" not in ioc.status(), 10)
    return token


def arm(ioc: Ioc, detector: Detector, hz: float = 100.0) -> None:
    """Fields, angles and a first half turn: afterwards the run is under way."""
    begin(ioc, detector)
    detector.burst(ANGLES + 20, hz)
    wait_for(lambda: ioc.status().startswith("Running"), 60, ioc.status())


def losses(ioc: Ioc) -> dict[str, int]:
    """Counters of frames that came to nothing."""
    return {name: ioc.get(name) for name in LOSSES}


def ioc_options(*more: str) -> list[str]:
    """Where the IOC finds what the detector serves."""
    options = (
        "--TOMO_SCAN= --IMAGE_P T:Image --THETA_PVA T:StreamTheta "
        "--DARK_PVA T:StreamDarkFields --FLAT_PVA T:StreamFlatFields"
    )
    return [*options.split(), *more]


class LiveStream:
    """Detector and IOC; frames come at ``hz`` for ``seconds``, with 0 none come after arming."""

    def __init__(self, folder: Path, rows: int, cols: int, hz: float, seconds: float):
        self.detector_ports = ServerPorts()
        with contextlib.ExitStack() as stack:
            self.detector = Detector(self.detector_ports, rows, cols)
            stack.callback(self.detector.close)
            self.ioc = Ioc(folder, *ioc_options(), reach=(self.detector_ports,))
            stack.callback(self.ioc.close)
            self.ioc.expect("Ready")
            for record in ("Center", "OrthoX", "OrthoY"):
                self.ioc.put(record, cols // 2, wait=True)
            self.ioc.put("OrthoZ", rows // 2, wait=True)
            arm(self.ioc, self.detector)
            if hz:
                self.detector.begin_burst(int(hz * seconds), hz)
            self._stack = stack.pop_all()

    def close(self) -> None:
        self._stack.close()
