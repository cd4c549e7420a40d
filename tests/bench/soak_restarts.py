"""The IOC through restarts with changes of everything that memory is taken for: does it come back?

    python tests/bench/soak_restarts.py [--restarts 200] [--sizes 512x512 1024x1224 300x700]

Each run has another size of frames, StreamBinning or number of angles than the one before; every
second one has peak tracking beside it, every third is binned anew while it goes on. After each, in
Idle, memory, open files and threads of the process are read. The exit code is 0 when the second
half of the runs took no more memory than the first, but for GROWTH_LIMIT_MIB, no more files and no
more threads.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
from live_stream import Detector, begin, ioc_options, rss_mib, size_of  # makes support importable
from support.ports import ServerPorts
from support.processes import Ioc, wait_for

BINNINGS, ANGLES = ("1x", "2x", "4x"), (60, 90)
GROWTH_LIMIT_MIB = 64.0
SPARE_FRAMES = 20
SETTLE_S = 2.0  # what was freed is given back a second after the end
#: bytes of frames that are sent in a second, at most so many frames
BYTES_HZ, MOST_HZ = 120e6, 100.0


@dataclass(frozen=True)
class Scan:
    size: tuple[int, int]
    binning: str
    angles: int

    def __str__(self) -> str:
        return f"{self.size[0]}x{self.size[1]} {self.binning} {self.angles} angles"


@dataclass(frozen=True)
class Sample:
    """The process in Idle."""

    rss_mib: float
    n_files: int
    n_threads: int


class Restarts:
    """Runs, one after the other."""

    def __init__(self, ioc: Ioc, detector: Detector):
        self._ioc, self._detector = ioc, detector
        self._process = psutil.Process(ioc.process.pid)

    def run(self, scan: Scan, tracking: bool, binned_anew: bool) -> Sample:
        ioc = self._ioc
        self._detector.next_id = 1
        ioc.put("StreamBinning", scan.binning, wait=True)
        tokens = [self._start_tracking()] if tracking else []
        tokens.append(begin(ioc, self._detector, scan.angles, scan.size))
        self._half_turn(scan)
        if binned_anew:
            for binning in BINNINGS:
                ioc.put("StreamBinning", binning, wait=True)
                self._half_turn(scan)
        ioc.put("AbortRecon", 1)
        if tracking:
            ioc.put("Crystal:Abort", 1)
        for token in tokens:
            wait_for(lambda token=token: ioc.ca.put_done(token), 20, "the end of the run")
        time.sleep(SETTLE_S)
        return self.sample()

    def sample(self) -> Sample:
        process = self._process
        return Sample(rss_mib(process), process.num_fds(), process.num_threads())

    def _start_tracking(self) -> int:
        ioc = self._ioc
        token = ioc.ca.put_callback(f"{ioc.prefix}Crystal:Start", 1)
        wait_for(lambda: "waiting" in ioc.get("Crystal:Status", True), 100)
        return token

    def _half_turn(self, scan: Scan) -> None:
        """As many frames as fill the ring, and until most have come."""
        count = scan.angles + SPARE_FRAMES
        hz = min(BYTES_HZ / (2 * scan.size[0] * scan.size[1]), MOST_HZ)
        self._detector.burst(count, hz, scan.size)
        most = 0.8 * (self._detector.next_id - 1)
        counters = ("FramesReceived", "FramesMissed")  # a busy machine may lose some
        wait_for(lambda: sum(self._ioc.get(name) for name in counters) > most, 60, "frames")
        self._ioc.wait_status("Running", 60)


def judge(samples: list[Sample]) -> list[str]:
    """What has failed; empty for a good run."""
    half = len(samples) // 2
    first, second = samples[:half], samples[half:]
    failed = []
    grown = max(s.rss_mib for s in second) - max(s.rss_mib for s in first)
    if grown > GROWTH_LIMIT_MIB:
        failed.append(f"memory has grown by {grown:.0f} MiB")
    for name, count in (("files", "n_files"), ("threads", "n_threads")):
        before, now = (max(getattr(s, count) for s in part) for part in (first, second))
        if now > before:
            failed.append(f"{now} {name} instead of {before}")
    return failed


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--restarts", type=int, default=200)
    parser.add_argument("--sizes", nargs="+", default=["512x512", "1024x1224", "300x700"])
    arguments = parser.parse_args()
    if arguments.restarts < 2:
        parser.error("--restarts: the second half is compared to the first, give 2 or more")
    sizes = [size_of(size) for size in arguments.sizes]
    every = [Scan(*parts) for parts in itertools.product(sizes, BINNINGS, ANGLES)]
    # each comes in turn; neighbours differ in angles and in size, every second one in binning
    step = next(k for k in (7, 5, 11) if len(every) % k)
    samples: list[Sample] = []
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        ports = ServerPorts()
        detector = Detector(ports, *sizes[0])
        stack.callback(detector.close)
        ioc = Ioc(Path(name), *ioc_options("--CRYSTAL_PVA", "T:Image"), reach=(ports,))
        stack.callback(ioc.close)
        ioc.expect("Ready", 300.0)
        ioc.put("Crystal:MinMass", 1e9, wait=True)  # the frames are full of maxima
        restarts = Restarts(ioc, detector)
        for k in range(arguments.restarts):
            scan = every[k * step % len(every)]
            samples.append(restarts.run(scan, tracking=k % 2 == 1, binned_anew=k % 3 == 2))
            now = samples[-1]
            print(
                f"{k + 1:4d} {scan!s:24s} {now.rss_mib:7.1f} MiB, {now.n_files} files, "
                f"{now.n_threads} threads",
                file=sys.stderr,
                flush=True,
            )
        code = ioc.close()
    half = len(samples) // 2
    print(
        f"{len(samples)} runs: at most {max(s.rss_mib for s in samples[:half]):.0f} MiB in Idle in "
        f"the first half, {max(s.rss_mib for s in samples[half:]):.0f} MiB in the second; exit "
        f"code {code}"
    )
    failed = judge(samples) + ([f"the IOC ended with {code}"] if code else [])
    print("FAILED: " + "; ".join(failed) if failed else "passed", flush=True)
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
