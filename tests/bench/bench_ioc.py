"""Frames/s without a lost frame through the whole IOC, beside a bare p4p monitor; latency.

    python tests/bench/bench_ioc.py [--sizes 512x512 1024x1024 2048x2448] [--runs 3] [--binning 2]

A pvapy process sends bursts of u16 frames at rates that are doubled, then bisected; the highest
rate at which no frame was missed or dropped counts. The bare monitor, which only counts, is
measured in the same run, so that the ratio holds on a machine whose speed drifts. Latency is the
time from the detector's time stamp of the newest frame in a slice to its arrival at a pvapy client.
Progress goes to standard error, the table to standard output.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from live_stream import Detector, arm, ioc_options, losses, size_of  # makes support importable
from support.ports import ServerPorts, environment
from support.processes import Child, Ioc, wait_for

TRIAL_S = 3.0
TRIALS = 12


def highest_lossless(
    start_hz: float, lost_in_burst: Callable[[int, float], tuple[int, float]]
) -> float:
    """The highest rate at which a burst lost nothing: doubled until one does, then bisected."""
    best, hz, too_high = 0.0, start_hz, 0.0
    for _ in range(TRIALS):
        lost, reached = lost_in_burst(max(int(hz * TRIAL_S), 60), hz)
        print(f"  asked {hz:.0f}, through {reached:.0f} frames/s, lost {lost}", file=sys.stderr)
        if lost:
            too_high = hz
        else:
            best = max(best, reached)
            if reached < 0.75 * hz:
                return best  # the sender, or what follows it, is at its limit
        if not too_high:
            hz *= 2
        elif not best:
            hz /= 2
        else:
            if too_high / best < 1.1:
                return best
            hz = (best * too_high) ** 0.5
    return best


def bare_rate(ports: ServerPorts, detector: Detector, depth: int, start_hz: float) -> float:
    channel = "T:Image"
    script = str(Path(__file__).parent / "bare_monitor.py")
    with_client = Child([script, channel, str(depth)], environment(reach=(ports,)))
    try:
        with_client.expect("ready")

        def counts() -> dict[str, int]:
            with_client.say("counts")
            return json.loads(with_client.expect("{"))

        def lost_in_burst(count: int, hz: float) -> tuple[int, float]:
            before = counts()["received"]
            rate = detector.burst(count, hz)
            settle(lambda: counts()["received"])
            return count - (counts()["received"] - before), rate

        return highest_lossless(start_hz, lost_in_burst)
    finally:
        with_client.close()


def settle(count: Callable[[], int]) -> None:
    """Wait until a count has stood still for half a second."""
    last, since = count(), time.monotonic()
    while time.monotonic() - since < 0.5:
        time.sleep(0.05)
        now = count()
        if now != last:
            last, since = now, time.monotonic()


def ioc_rate(ioc: Ioc, detector: Detector, start_hz: float) -> float:
    """From the first frame sent to slices that hold the last one, so that no queue flatters."""

    def lost_in_burst(count: int, hz: float) -> tuple[int, float]:
        lost_before, received_before = lost(), ioc.get("FramesReceived")
        began = time.monotonic()
        detector.burst(count, hz)
        last_id = detector.next_id - 1
        with contextlib.suppress(AssertionError):  # the last frame itself was lost
            wait_for(lambda: newest() == last_id, 20)
        took = time.monotonic() - began
        time.sleep(0.5)  # the counters are posted ten times a second
        never_came = count - (ioc.get("FramesReceived") - received_before)
        return max(lost() - lost_before, never_came), count / took

    def newest() -> int:
        return ioc.slices.get(ioc.recon + "Z")[1]["attributes"]["NewestId"]

    def lost() -> int:
        return sum(losses(ioc).values())

    return highest_lossless(start_hz, lost_in_burst)


def latency(ioc: Ioc, detector: Detector, hz: float) -> tuple[float, float]:
    """p50 and p99 in ms at that rate."""
    channel = ioc.recon + "Z"
    ioc.slices.monitor(channel)
    wait_for(lambda: ioc.slices.monitored(channel), 10)
    detector.burst(int(hz * 8), hz)
    seen = {post["data_time"]: post["at"] for post in reversed(ioc.slices.monitored(channel))}
    delays = sorted(1e3 * (at - stamp) for stamp, at in seen.items())[: len(seen)]
    delays = [delay for delay in delays if delay < 5000]
    return statistics.median(delays), delays[int(0.99 * (len(delays) - 1))]


def measure(
    rows: int, cols: int, latency_hz: float, binning: str, folder: Path
) -> dict[str, float]:
    ports = ServerPorts()
    frame_mb = rows * cols * 2 / 1e6
    start_hz = max(100.0 / frame_mb, 10.0)
    depth = min(max(int(512e6 / (frame_mb * 1e6)), 4), 1024)
    detector = Detector(ports, rows, cols)
    try:
        detector.do("frame 1")
        detector.next_id = 2
        bare = bare_rate(ports, detector, depth, start_hz)
        ioc = Ioc(folder, *ioc_options(), reach=(ports,))
        try:
            ioc.expect("Ready")
            ioc.put("StreamBinning", f"{binning}x", wait=True)
            arm(ioc, detector, min(start_hz / 2, 100))
            rate = ioc_rate(ioc, detector, start_hz)
            p50, p99 = latency(ioc, detector, min(latency_hz, 0.6 * max(rate, 1.0)))
        finally:
            ioc.close()
    finally:
        detector.close()
    return {"bare": bare, "ioc": rate, "gbs": rate * frame_mb / 1e3, "p50": p50, "p99": p99}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", nargs="+", default=["512x512", "1024x1024", "2048x2448"])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--binning", choices=["1", "2", "4"], default="1", help="StreamBinning")
    arguments = parser.parse_args()
    print("| rows x cols | IOC frames/s | GB/s | bare monitor frames/s | ratio | p50 ms | p99 ms |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for size in arguments.sizes:
        rows, cols = size_of(size)
        with tempfile.TemporaryDirectory() as folder:
            runs = [
                measure(rows, cols, 100.0, arguments.binning, Path(folder))
                for _ in range(arguments.runs)
            ]
        median = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        ratio = statistics.median(run["ioc"] / max(run["bare"], 1e-9) for run in runs)
        print(
            f"| {rows} x {cols} | {median['ioc']:.0f} | {median['gbs']:.2f} | "
            f"{median['bare']:.0f} | {ratio:.2f} | {median['p50']:.0f} | {median['p99']:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
