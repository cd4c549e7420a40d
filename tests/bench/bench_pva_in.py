"""How fast frames come in over PVA: a bare p4p monitor that counts, against PvaSource that copies.

    .venv/bin/python tests/bench/bench_pva_in.py [--repeats 5]

The sender is pvapy in a process of its own, as fast as it goes; figures are medians over bursts.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue

import numpy as np
from p4p.client.raw import Context

TESTS = Path(__file__).parent.parent
sys.path.insert(0, str(TESTS))

from pva.pva_helpers import Recorder, Script, names  # noqa: E402
from support.ports import ServerPorts, environment  # noqa: E402
from support.processes import wait_for  # noqa: E402

from tomostream_ioc.epics.pva_source import PvaSource  # noqa: E402
from tomostream_ioc.model.frame import Frame  # noqa: E402

CASES = ((512, 512, 3000), (2048, 2448, 200))  # rows, cols, frames a burst
SLOTS = 16


class Tally:
    """Arrival of the frames of one burst."""

    def __init__(self) -> None:
        self.count = 0
        self.first_s = self.last_s = 0.0

    def add(self) -> None:
        self.last_s = time.monotonic()
        if not self.count:
            self.first_s = self.last_s
        self.count += 1

    @property
    def fps(self) -> float:
        return (self.count - 1) / (self.last_s - self.first_s) if self.count > 1 else 0.0


class Copying(Recorder):
    """Does with a frame what the run does: one copy into a slot that is there already."""

    def __init__(self, rows: int, cols: int) -> None:
        super().__init__()
        self.tally = Tally()
        self._slots = np.zeros((SLOTS, rows, cols), np.uint16)

    def on_frame(self, frame: Frame) -> None:
        if frame.shape == self._slots.shape[1:] and not frame.initial:
            np.copyto(self._slots[self.tally.count % SLOTS], frame.pixels)
            self.tally.add()


@contextmanager
def bare(rows: int, cols: int) -> Iterator[Callable[[], Tally]]:
    """p4p alone: pop and count."""
    wake: SimpleQueue[bool] = SimpleQueue()
    tallies = [Tally()]
    context = Context("pva", useenv=True, nt=False)
    depth = max((512 << 20) // (rows * cols * 2), 4)
    request = f"record[queueSize={depth}]"
    monitor = context.monitor("T:Image", lambda: wake.put(True), request=request)
    ready = threading.Event()

    def run() -> None:
        while wake.get():
            while (value := monitor.pop()) is not None:
                if not isinstance(value, Exception) and value["value"] is not None:
                    tallies[-1].add()
                ready.set()

    thread = threading.Thread(target=run)
    thread.start()
    ready.wait(10.0)

    def next_tally() -> Tally:
        tallies.append(Tally())
        return tallies[-1]

    yield next_tally
    wake.put(False)
    thread.join()
    monitor.close()
    context.close()


@contextmanager
def source(rows: int, cols: int) -> Iterator[Callable[[], Tally]]:
    made = PvaSource()
    handler = Copying(rows, cols)
    made.open(names(), handler, 0.2)
    wait_for(lambda: handler.connected("image"), what="connection")

    def next_tally() -> Tally:
        handler.tally = Tally()
        return handler.tally

    yield next_tally
    made.shutdown()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    print(f"{'frame':>12} {'receiver':>10} {'fps':>8} {'GB/s':>6} {'received':>9}  (median)")
    for rows, cols, count in CASES:
        for name, receiver in (("bare p4p", bare), ("PvaSource", source)):
            ports = ServerPorts()
            os.environ.update(environment(reach=(ports,)))
            sender = Script(
                "pvapy_sender.py", environment(ports), "--rows", str(rows), "--cols", str(cols)
            )
            rates, shares = [], []
            with receiver(rows, cols) as next_tally:
                for repeat in range(repeats + 1):  # the first one warms up
                    tally = next_tally()
                    sender.do(f"burst {count} start={1 + repeat * count}")
                    settle(tally)
                    if repeat:
                        rates.append(tally.fps)
                        shares.append(tally.count / count)
            sender.close()
            fps = statistics.median(rates)
            print(
                f"{rows:>5} x {cols:<4} {name:>10} {fps:8.0f} {fps * rows * cols * 2e-9:6.2f} "
                f"{statistics.median(shares):9.1%}"
            )


def settle(tally: Tally) -> None:
    """Until no frame has come for a moment."""
    seen = -1
    while tally.count != seen:
        seen = tally.count
        threading.Event().wait(0.3)


if __name__ == "__main__":
    main()
