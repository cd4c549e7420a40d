"""Puts and gets against our IOC while it reconstructs, beside the same records in a C IOC.

    python tests/bench/bench_ca.py [--hz 100] [--size 512x512] [--rounds 20] [--no-pva]

Our IOC reconstructs a stream of u16 frames that a pvapy process sends. A softioc serves the same
database as C records in a process of its own, on the same machine at the same time. One libca
client asks both in turn, a few times each, so that what else the machine does meets both. Then
50 monitors on 50 circuits follow Center of one, then of the other, while it is put. Then the same
questions over PV Access, where the C IOC answers by QSRV. Times are in ms.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from live_stream import TESTS, LiveStream, losses, size_of  # makes support importable
from support.ports import ServerPorts, environment
from support.processes import Child

BENCH = Path(__file__).parent
C_PREFIX = "ref:TomoStream:"
MACROS = "P=ref:,R=TomoStream:,TOMO_SCAN=,IMAGE_P=T:Image,DARK_PVA=,FLAT_PVA=,THETA_PVA=," + (
    "RECON_PVA=ref:Recon,MCT_OPTICS=,TOMO_0_DEG=,TOMO_90_DEG=,SAMPLE_Y=,ROI_PLUGIN=,CAM="
)
AT_A_TIME = 25  # questions to one side before the other's turn
MONITORS = 50


class Probe(Child):
    """A client that times its own questions: ca_probe.py or pva_probe.py."""

    def __init__(self, script: str, reach: tuple[ServerPorts, ...]):
        super().__init__([str(BENCH / script)], environment(reach=reach))

    def ask(self, do: str, *args: Any, limit_s: float = 120.0) -> Any:
        self.say(json.dumps({"do": do, "args": args}))
        answer = json.loads(self.expect("{", limit_s))
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer["value"]


@dataclass(frozen=True)
class Case:
    """One question: what to do with which record."""

    title: str
    do: str
    record: str
    values: tuple[float, ...] = ()

    def ask(self, probe: Probe, prefix: str, count: int) -> list[float]:
        values = [list(self.values)] if self.values else []
        return probe.ask(self.do, prefix + self.record, *values, count)


@dataclass
class Times:
    """Of one case on both sides, and the ratio of the medians of each round."""

    ours: list[float] = field(default_factory=list)
    c: list[float] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)

    def add(self, ours: list[float], c: list[float]) -> None:
        self.ours += ours
        self.c += c
        self.ratios.append(statistics.median(ours) / statistics.median(c))


def cases(cols: int) -> list[Case]:
    centers = tuple(cols / 2 + 0.25 * k for k in range(-8, 9))
    return [
        Case("put Center (ao)", "put", "Center", centers),
        Case("put FilterType (mbbo)", "put", "FilterType", (0, 1, 2, 3)),
        Case("put OrthoX (longout)", "put", "OrthoX", tuple(range(cols // 2, cols // 2 + 20))),
        Case("put CenterTweak (ao), which nobody acts upon", "put", "CenterTweak", centers),
        Case("get Center", "get", "Center"),
        Case("get FilterType", "get", "FilterType"),
        Case("get ReconStatus (CHAR[256])", "get", "ReconStatus"),
        # last: from now on the client follows Center
        Case("put Center to its monitor's event", "event", "Center", centers),
        Case("put Center, which the client follows", "put", "Center", centers),
    ]


def interleaved(probe: Probe, ours: str, questions: list[Case], rounds: int) -> dict[str, Times]:
    """A few questions to ours, a few to C, and so on; the first round warms up."""
    times = {case.title: Times() for case in questions}
    first = next(k for k, case in enumerate(questions) if case.do == "event")
    for part in (questions[:first], questions[first:]):
        for round_ in range(rounds + 1):
            for case in part:
                pair = [case.ask(probe, prefix, AT_A_TIME) for prefix in (ours, C_PREFIX)]
                if round_:
                    times[case.title].add(*pair)
    return times


def print_table(head: str, times: dict[str, Times]) -> None:
    print(f"\n| {head} | ours p50 | p99 | C p50 | p99 | p50 ratio |")
    print("| --- | --- | --- | --- | --- | --- |")
    for title, case in times.items():
        cells = [f"{share(side, q):.3f}" for side in (case.ours, case.c) for q in (0.5, 0.99)]
        ratio = share(case.ours, 0.5) / share(case.c, 0.5)
        low, high = share(case.ratios, 0.1), share(case.ratios, 0.9)
        cells.append(f"{ratio:.1f} ({low:.1f} to {high:.1f})")
        print(f"| {title} | {' | '.join(cells)} |", flush=True)


def share(times: list[float], quantile: float) -> float:
    return sorted(times)[min(int(quantile * len(times)), len(times) - 1)]


@dataclass
class Fanout:
    """Puts with 50 monitors: rate with and without completion, share of events that came."""

    waiting_hz: float
    flood_hz: float
    came: float
    flood_came: float


def fanout(probe: Probe, prefix: str, ports: ServerPorts, cols: int, count: int) -> Fanout:
    script = [str(BENCH / "ca_monitors.py"), prefix + "Center", str(MONITORS)]
    monitors = Child(script, environment(reach=(ports,)))
    values = [cols / 2 + 0.25 * k for k in range(-8, 9)]
    try:
        monitors.expect("ready")

        def counts(command: str = "counts") -> dict[str, list[float]]:
            monitors.say(command)
            return json.loads(monitors.expect("{"))

        def shown_by_all(last: float) -> int:
            """Events so far, once each monitor has the last value."""
            deadline = time.monotonic() + 5.0
            while set((now := counts())["newest"]) != {last}:
                if time.monotonic() > deadline:
                    raise RuntimeError(f"{prefix}Center: a monitor never showed {last}")
                time.sleep(0.05)
            return int(sum(now["counts"]))

        def from_zero() -> None:
            probe.ask("put", prefix + "Center", [0.0], 1)
            shown_by_all(0.0)
            counts("reset")

        last, all_events = values[(count - 1) % len(values)], MONITORS * count
        from_zero()
        took_s = sum(probe.ask("put", prefix + "Center", values, count)) / 1e3
        share_came = shown_by_all(last) / all_events
        from_zero()
        flood_s = probe.ask("flood", prefix + "Center", values, count)
        return Fanout(count / took_s, count / flood_s, share_came, shown_by_all(last) / all_events)
    finally:
        monitors.close()


@contextlib.contextmanager
def c_ioc(folder: Path) -> Iterator[ServerPorts]:
    """The same database as C records."""
    ports = ServerPorts()
    script = [str(TESTS / "pva" / "softioc_database.py"), str(folder), MACROS]
    child = Child(script, environment(ports))
    try:
        child.expect("ready")
        yield ports
    finally:
        child.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--hz", type=float, default=100.0, help="frames/s; 0: no stream")
    parser.add_argument("--size", default="512x512")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--fanout-rounds", type=int, default=3)
    parser.add_argument("--no-pva", action="store_true")
    arguments = parser.parse_args()
    rows, cols = size_of(arguments.size)
    questions = cases(cols)
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        c_ports = stack.enter_context(c_ioc(folder))
        stream = LiveStream(folder, rows, cols, arguments.hz, 1800)
        stack.callback(stream.close)
        ioc = stream.ioc
        lost_before, received_before = losses(ioc), ioc.get("FramesReceived")
        began = time.monotonic()

        both = (ioc.ports, c_ports)
        probe = Probe("ca_probe.py", both)
        stack.callback(probe.close)
        ca_times = interleaved(probe, ioc.prefix, questions, arguments.rounds)
        print_table("Channel Access", ca_times)
        probe.close()  # it follows Center

        probe = Probe("ca_probe.py", both)
        stack.callback(probe.close)
        rows_of_fanout = []
        for _ in range(arguments.fanout_rounds):
            for side, prefix, ports in (
                ("ours", ioc.prefix, ioc.ports),
                ("C", C_PREFIX, c_ports),
            ):
                rows_of_fanout.append((side, fanout(probe, prefix, ports, cols, 500)))
        print_fanout(rows_of_fanout)

        if not arguments.no_pva:
            pva = Probe("pva_probe.py", both)
            stack.callback(pva.close)
            print_table(
                "PV Access", interleaved(pva, ioc.prefix, questions, max(arguments.rounds // 2, 1))
            )
        took_s = time.monotonic() - began
        received = ioc.get("FramesReceived") - received_before
        lost = {key: count - lost_before[key] for key, count in losses(ioc).items()}
        print(f"\n{received / took_s:.1f} frames/s came in for {took_s:.0f} s; {lost}")
        if any(lost.values()):
            sys.exit("frames were lost")


def print_fanout(measured: list[tuple[str, Fanout]]) -> None:
    print(f"\n| {MONITORS} monitors | puts/s with completion | events | puts/s flood | events |")
    print("| --- | --- | --- | --- | --- |")
    for side in ("ours", "C"):
        runs = [run for name, run in measured if name == side]
        if runs:
            mid = {
                key: statistics.median(getattr(run, key) for run in runs)
                for key in ("waiting_hz", "flood_hz", "came", "flood_came")
            }
            print(
                f"| {side} | {mid['waiting_hz']:.0f} | {mid['came']:.1%} | "
                f"{mid['flood_hz']:.0f} | {mid['flood_came']:.1%} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
