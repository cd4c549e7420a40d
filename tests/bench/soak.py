"""The IOC under a stream and under bad clients for minutes: does it keep its memory and its pace?

    python tests/bench/soak.py [--minutes 10] [--hz 100] [--size 512x512]

While a run goes on: clients over CA and PVA that take one update a second, that monitor everything
and are then stopped (SIGSTOP: sockets that nobody reads), that are killed in the middle of it every
few seconds, connections that say nothing or half a message, and floods of puts over CA and PVA.
Once a second memory, counters, watchdog and heartbeat are read, and puts and gets are timed. The
exit code is 0 when memory is flat, no frame was lost and the watchdog was never late.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import socket
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
from bench_ca import Probe, share
from live_stream import LiveStream, losses, rss_mib, size_of  # makes support importable
from support.ports import LOOPBACK, environment
from support.processes import Child, wait_for

BENCH = Path(__file__).parent
#: the settled memory, which is that of the last two thirds, may grow by that
GROWTH_LIMIT_MIB_PER_MIN = 1.0
#: HEARTBEAT and Watchdog count seconds; one of it may fall between two samples
LATE_S = 2.0
KILL_EVERY_S = 5.0
SHOW_EVERY_S = 15.0
HALF_OPEN = 20


@dataclass(frozen=True)
class Sample:
    """One second of it."""

    at_s: float
    rss_mib: float
    heartbeat: int
    watchdog: float
    server_running: int
    put_ms: list[float]
    get_ms: list[float]
    n_sockets: int


class BadClients:
    """Starts them, and goes on killing some."""

    def __init__(self, stream: LiveStream):
        self._ioc = stream.ioc
        self._stack = contextlib.ExitStack()
        self._next_kill_s = 0.0
        self.killed = 0

    def start(self) -> None:
        for kind in ("ca-slow", "pva-slow", "ca-flood", "pva-flood"):
            self._client(kind)
        for kind in ("ca-all", "pva-all"):
            stopped = self._client(kind)
            stopped.process.send_signal(signal.SIGSTOP)
            self._stack.callback(os.kill, stopped.process.pid, signal.SIGCONT)
        halves = (b"", b"\0\1\0\0\0", b"\xca\2\0\0\0\0")  # nothing, half of a CA and PVA header
        for k in range(HALF_OPEN):
            port = (self._ioc.ports.ca, self._ioc.ports.pva)[k % 2]
            connection = socket.create_connection((LOOPBACK, port), 5.0)
            self._stack.enter_context(connection)
            connection.sendall(halves[k % len(halves)])

    def _client(self, kind: str) -> Child:
        script = [str(BENCH / "soak_client.py"), kind, self._ioc.prefix, self._ioc.recon]
        child = Child(script, environment(reach=(self._ioc.ports,)))
        self._stack.callback(child.close)
        child.expect("ready", 30.0)
        return child

    def kill_some(self) -> None:
        """Now and then: a client that has just subscribed to everything ends by SIGKILL."""
        if time.monotonic() < self._next_kill_s:
            return
        self._next_kill_s = time.monotonic() + KILL_EVERY_S
        kind = ("ca-all", "pva-all")[self.killed % 2]
        script = [str(BENCH / "soak_client.py"), kind, self._ioc.prefix, self._ioc.recon]
        child = Child(script, environment(reach=(self._ioc.ports,)))
        try:
            child.expect("ready", 30.0)
        finally:
            child.process.kill()
            child.close()
        self.killed += 1

    def close(self) -> None:
        self._stack.close()


class Soak:
    """Takes the samples and judges them."""

    def __init__(self, stream: LiveStream):
        self._ioc = stream.ioc
        self._process = psutil.Process(stream.ioc.process.pid)
        self._probe = Probe("ca_probe.py", (stream.ioc.ports,))
        self._began_s = time.monotonic()
        self.samples: list[Sample] = []

    def close(self) -> None:
        self._probe.close()

    def sample(self) -> Sample:
        name = self._ioc.prefix + "CenterTweak"
        sample = Sample(
            at_s=time.monotonic() - self._began_s,
            rss_mib=rss_mib(self._process),
            heartbeat=self._ioc.get("HEARTBEAT"),
            watchdog=self._ioc.get("Watchdog"),
            server_running=self._ioc.get("ServerRunning"),
            put_ms=self._probe.ask("put", name, [1.0, 2.0], 4),
            get_ms=self._probe.ask("get", name, 4),
            n_sockets=len(self._process.net_connections("tcp")),
        )
        self.samples.append(sample)
        return sample

    def growth_mib_per_min(self) -> float:
        """Slope of a line through the memory of the last two thirds."""
        settled = [s for s in self.samples if s.at_s > self.samples[-1].at_s / 3]
        slope = np.polyfit([s.at_s for s in settled], [s.rss_mib for s in settled], 1)[0]
        return float(slope * 60)

    def late_s(self) -> float:
        """The most by which HEARTBEAT, which counts seconds, fell behind between two samples."""
        pairs = zip(self.samples, self.samples[1:], strict=False)
        return max(b.at_s - a.at_s - (b.heartbeat - a.heartbeat) for a, b in pairs)

    def judge(self, lost: dict[str, int]) -> list[str]:
        """What has failed; empty for a good run."""
        failed = []
        if any(lost.values()):
            failed.append(f"frames were lost: {lost}")
        if self.growth_mib_per_min() > GROWTH_LIMIT_MIB_PER_MIN:
            failed.append(f"memory grows by {self.growth_mib_per_min():.2f} MiB a minute")
        if any(not sample.server_running for sample in self.samples):
            failed.append("ServerRunning was Stopped")
        if self.late_s() > LATE_S:
            failed.append(f"HEARTBEAT was late by {self.late_s():.1f} s")
        return failed


def show(sample: Sample, lost: dict[str, int]) -> None:
    print(
        f"{sample.at_s:5.0f} s  {sample.rss_mib:7.1f} MiB  watchdog {sample.watchdog:.0f}  "
        f"put {max(sample.put_ms):.1f} ms  {sample.n_sockets} sockets  lost {sum(lost.values())}",
        file=sys.stderr,
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--hz", type=float, default=100.0)
    parser.add_argument("--size", default="512x512")
    arguments = parser.parse_args()
    rows, cols = size_of(arguments.size)
    seconds = 60 * arguments.minutes
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        stream = LiveStream(Path(name), rows, cols, arguments.hz, seconds + 120)
        stack.callback(stream.close)
        soak = Soak(stream)
        stack.callback(soak.close)
        clients = BadClients(stream)
        stack.callback(clients.close)
        before, received = losses(stream.ioc), stream.ioc.get("FramesReceived")
        began, next_show_s = time.monotonic(), 0.0
        clients.start()
        next_s = time.monotonic()
        end_s = next_s + seconds
        while time.monotonic() < end_s:
            sample = soak.sample()
            if sample.at_s > next_show_s:
                next_show_s = sample.at_s + SHOW_EVERY_S
                show(sample, losses(stream.ioc))
            clients.kill_some()
            next_s += 1.0
            time.sleep(max(next_s - time.monotonic(), 0.0))
        took_s = time.monotonic() - began
        received = stream.ioc.get("FramesReceived") - received
        lost = {key: count - before[key] for key, count in losses(stream.ioc).items()}
        stream.ioc.put("AbortRecon", 1)
        wait_for(lambda: stream.ioc.get("StartRecon") == 0, 20, "the run to end")
        clients.close()
        code = stream.ioc.close()
    puts = [t for sample in soak.samples for t in sample.put_ms]
    gets = [t for sample in soak.samples for t in sample.get_ms]
    first, last = soak.samples[len(soak.samples) // 3], soak.samples[-1]
    print(
        f"{took_s / 60:.1f} min, {received / took_s:.1f} frames/s received, lost {lost}\n"
        f"memory {first.rss_mib:.1f} MiB after a third, {last.rss_mib:.1f} MiB at the end, "
        f"{soak.growth_mib_per_min():+.2f} MiB/min (limit {GROWTH_LIMIT_MIB_PER_MIN:g})\n"
        f"heartbeat late by at most {soak.late_s():.1f} s (limit {LATE_S:g}), "
        f"lowest watchdog {min(sample.watchdog for sample in soak.samples):.0f}\n"
        f"put p50 {share(puts, 0.5):.2f} p99 {share(puts, 0.99):.1f} max {max(puts):.0f} ms, "
        f"get p50 {share(gets, 0.5):.2f} p99 {share(gets, 0.99):.1f} max {max(gets):.0f} ms\n"
        f"{clients.killed} clients killed; exit code {code}, "
        f"{len(stream.ioc.lines)} lines of output"
    )
    failed = soak.judge(lost)
    if code:
        failed.append(f"the IOC ended with {code}")
    print("FAILED: " + "; ".join(failed) if failed else "passed", flush=True)
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
