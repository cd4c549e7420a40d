"""Speed of the GPU backend on this card, as one table: python tests/bench/bench_gpu.py

Full size by default: 2048 rows x 2448 columns, 1500 angles of uint16, slices of 2448 x 2448 and
2048 x 2448. Each part that fails prints its error and the rest goes on. Options:
  --upstream PATH   the same jobs by tomostream's CuPy solver; PATH holds tomostream/solver.py, or
                    is a git directory of it
  --profile         torch.profiler's table of an update and of a rebuild
  --tune            sizes of tiles and batches, and lengths of transforms
  --device, --rows, --columns, --angles, --seconds, --repeats, --only PART ...
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
import torch
from gpu_tuning import profile, tune
from gpu_upstream import Upstream

from tomostream_ioc.model.params import ReconParams
from tomostream_ioc.recon.devices import pinned_empty
from tomostream_ioc.recon.engine import OrthoEngine
from tomostream_ioc.recon.geometry import (
    ScanGeometry,
    Views,
    x_slice_line,
    y_slice_line,
    z_slice_rows,
)

_BATCH = 16


class Bench:
    """One engine with a full ring of random frames."""

    def __init__(self, options: argparse.Namespace):
        self.options = options
        self.cuda = options.device.startswith("cuda")
        self.n_rows, self.n, self.k = options.rows, options.columns, options.angles
        self.geometry = ScanGeometry(n_angles=self.k, n_rows=self.n_rows, n_cols=self.n)
        self.theta_deg = np.arange(self.k) * 180.0 / self.k
        self.copy_gbs = self.host_gbs = 0.0
        self.dark = np.full((self.n_rows, self.n), 100.0)
        self.flat = np.full((self.n_rows, self.n), 60000.0)
        began = time.perf_counter()
        library = "triton"
        self.engine: Any = OrthoEngine(self.geometry, "uint16", options.device, library=library)
        self.row("arming: memory and compiling", time.perf_counter() - began, "s")
        self.engine.set_dark(self.dark)
        self.engine.set_flat(self.flat)
        self.batches = pinned_empty((4, _BATCH, self.n_rows, self.n), "uint16")
        rng = np.random.default_rng(0)
        self.batches[0] = rng.integers(20000, 40000, self.batches.shape[1:], np.uint16)
        for i in range(1, len(self.batches)):
            self.batches[i] = np.roll(self.batches[0], 7 * i, -1)
        began = time.perf_counter()
        for i, first in enumerate(range(0, self.k, _BATCH)):
            self.push(i, first)
        self.sync()
        self.row("first filling, from pinned memory", time.perf_counter() - began, "s")
        began = time.perf_counter()
        self.engine.reconstruct(self.params())
        self.row("first slices (all is filtered)", time.perf_counter() - began, "s")
        print(f"  {self.engine.where}")

    def params(self, **changes: Any) -> ReconParams:
        values: dict[str, Any] = {
            "center": self.n / 2 + 0.3, "ortho_x": self.n // 3, "ortho_y": self.n // 2,
            "ortho_z": self.n_rows // 2,
        }  # fmt: skip
        return ReconParams(**values | changes)

    def push(self, i: int, first: int, theta_deg: float = 0.0) -> int:
        slots = np.arange(first, min(first + _BATCH, self.k))
        frames = self.batches[i % len(self.batches)][: len(slots)]
        self.engine.push(frames, self.theta_deg[slots] + theta_deg, slots)
        return len(slots)

    def sync(self) -> None:
        if self.cuda:
            torch.cuda.synchronize()

    def seconds(self, work: Callable[[], object], repeats: int | None = None) -> float:
        """Median time of ``work`` until the device has done it, after one run that is not counted.

        By the device's clock where there is one.
        """
        work()
        times = []
        for _ in range(repeats or self.options.repeats):
            self.sync()
            if self.cuda:
                begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
                begin.record()
                work()
                end.record()
                self.sync()
                times.append(begin.elapsed_time(end) / 1e3)
            else:
                began = time.perf_counter()
                work()
                times.append(time.perf_counter() - began)
        return median(times)

    def wall(self, work: Callable[[], object], repeats: int | None = None) -> float:
        """The same by the host's clock."""
        work()
        times = []
        for _ in range(repeats or self.options.repeats):
            self.sync()
            began = time.perf_counter()
            work()
            self.sync()
            times.append(time.perf_counter() - began)
        return median(times)

    def row(self, name: str, value: float, unit: str, note: str = "") -> None:
        print(f"  {name:46s} {value:11.3f} {unit:9s} {note}", flush=True)

    def gbs(self, name: str, seconds: float, n_bytes: float, note: str = "") -> None:
        rate = n_bytes / seconds / 1e9
        share = f"{100 * rate / self.copy_gbs:.0f} % of a copy" if self.copy_gbs else ""
        self.row(name, 1e3 * seconds, "ms", f"{rate:8.0f} GB/s {share} {note}")


def card(bench: Bench) -> None:
    """What the card and the bus can do."""
    n = 1 << 30 if bench.cuda else 1 << 20
    a = torch.empty(n, dtype=torch.uint8, device=bench.options.device)
    b = torch.empty_like(a)
    t = bench.seconds(lambda: b.copy_(a))
    bench.copy_gbs = 2 * n / t / 1e9
    bench.row("copy on the device", bench.copy_gbs, "GB/s", "read + written")
    host = torch.from_numpy(bench.batches).view(torch.uint8).view(-1)
    n = min(n, len(host))
    t = bench.seconds(lambda: a[:n].copy_(host[:n], non_blocking=True))
    bench.host_gbs = n / t / 1e9
    frames = bench.host_gbs * 1e9 / (2 * bench.n * bench.n_rows)
    bench.row("host to device, pinned", bench.host_gbs, "GB/s", f"= {frames:.0f} frames/s")
    out = torch.empty(n, dtype=torch.uint8, pin_memory=bench.cuda)
    t = bench.seconds(lambda: out.copy_(a[:n], non_blocking=True))
    bench.row("device to host, pinned", n / t / 1e9, "GB/s")


def rebuild(bench: Bench) -> None:
    """Three slices anew from the filtered ring, and all frames filtered anew."""
    engine, params = bench.engine, bench.params()

    def slices() -> None:
        engine._sums.invalidate()
        engine._sums.rebuild(params, engine._filtered.all, lambda: None)

    def shown() -> None:
        engine._sums.invalidate()
        engine.reconstruct(params)

    def refilter() -> None:
        engine._ring.stale[:] = True
        engine._refilter(params)

    bench.row("rebuild of three slices", 1e3 * bench.seconds(slices), "ms", "target 20")
    bench.row("  and onto the host", 1e3 * bench.wall(shown), "ms")
    bench.row("refiltering of the whole ring", 1e3 * bench.seconds(refilter, 3), "ms", "target 150")
    bench.row("slices onto the host", 1e3 * bench.wall(lambda: engine.reconstruct(params)), "ms")
    moved = [bench.params(ortho_z=z) for z in (bench.n_rows // 2, bench.n_rows // 2 - 1)]
    t = bench.wall(lambda: [engine.reconstruct(one) for one in moved]) / 2
    bench.row("z slice moved, on the host", 1e3 * t, "ms")


def kernels(bench: Bench) -> None:
    """Each kernel; bytes are what it must at least move."""
    engine, n, n_rows, k = bench.engine, bench.n, bench.n_rows, bench.k
    projector, chain = engine._backend.projector, engine._chain
    views = Views.at(np.arange(k), np.deg2rad(bench.theta_deg))
    center = bench.params().center
    z, vertical = projector.zeros(n, n), projector.zeros(n, n_rows)
    geometry = bench.geometry

    def updates(name: str, work: Callable[[], object], count: float, n_bytes: float) -> None:
        t = bench.seconds(work)
        bench.gbs(name, t, n_bytes, f"{count / t / 1e12:6.2f} TUPS")

    ring_bytes = 2.0 * k * n * n_rows
    updates(
        "z slice, all angles", lambda: projector.add_z(z, views, n_rows // 2, center),
        k * n * n, 32.0 * k * n + 2 * 8.0 * n * n,
    )  # fmt: skip
    for name, line in (
        ("y slice, all angles", y_slice_line(geometry, n // 2, 0.0)),
        ("x slice, all angles", x_slice_line(geometry, n // 3, 0.0)),
    ):
        u = line.columns(views, center)
        used = np.ptp(np.clip(u, 0, n - 1), axis=1).mean() / n  # share of the ring's columns
        updates(
            name, lambda line=line: projector.add_vertical(vertical, views, line, center),
            k * n * n_rows, used * ring_bytes,
        )  # fmt: skip
    tilted = z_slice_rows(geometry, n_rows // 2, 3.0)
    few = views[:: max(k // 128, 1)]
    t = bench.seconds(lambda: projector.add_tilted_z(z, few, tilted, center))
    bench.row("tilted z slice, all angles", 1e3 * t * k / len(few), "ms", "from every 12th")
    pair = views[:_BATCH].negative() + Views.at(
        np.arange(_BATCH), np.deg2rad(bench.theta_deg[:_BATCH] + 180.0)
    )
    line = y_slice_line(geometry, n // 2, 0.0)
    t = bench.seconds(lambda: projector.add_z(z, pair, n_rows // 2, center))
    bench.row("z slice, update by 16 frames", 1e3 * t, "ms")
    t = bench.seconds(lambda: projector.add_vertical(vertical, pair, line, center))
    bench.row("y slice, update by 16 frames", 1e3 * t, "ms")

    f = len(chain._values)
    slots = torch.arange(f, device=bench.options.device)
    transformed = chain._values.numel() * 8.0
    pixels = float(f * n * n_rows)
    spectrum = torch.fft.fft(chain._values)
    for name, work, n_bytes in (
        ("raw to logarithm", lambda: chain._to_logs(chain._raw, slots, f), 6 * pixels),
        ("Fourier transform", lambda: torch.fft.fft(chain._values), 2 * transformed),
        ("times the response", lambda: chain._multiply(spectrum), 2 * transformed),
        ("inverse", lambda: torch.fft.ifft(spectrum, norm="forward"), 2 * transformed),
        ("into the ring, transposed", lambda: chain._to_ring(spectrum, slots), 6 * pixels),
    ):
        bench.gbs(f"{name}, {f} frames", bench.seconds(work), n_bytes)
    engine._ring.stale[:] = True  # what was written there is no frame
    batch = np.arange(min(_BATCH, k))
    t = bench.seconds(lambda: chain.filter(batch, batch))
    bench.row("filtering of 16 frames", 1e3 * t, "ms", f"= {len(batch) / t:.0f} frames/s")
    engine.reconstruct(bench.params())


def stream(bench: Bench) -> None:
    """Batches of 16 from pinned memory, three slices updated, shown ten times a second."""
    engine, params = bench.engine, bench.params()
    slices = engine.reconstruct(params)
    for show_hz in (0.0, 10.0):
        n_frames = n_shown = turn = 0
        wait = waited = 0.0
        first = 0
        bench.sync()
        began = shown = time.perf_counter()
        while (now := time.perf_counter()) - began < bench.options.seconds:
            if first >= bench.k:
                first, turn = 0, turn + 1
            n_frames += bench.push(turn + first // _BATCH, first, 180.0 * turn)
            first += _BATCH
            if show_hz and now - shown >= 1 / show_hz:
                shown = now
                before = time.perf_counter()
                slices = engine.reconstruct(params)
                wait = time.perf_counter() - before
                waited += wait
                n_shown += 1
        bench.sync()
        t = time.perf_counter() - began
        rate = n_frames / t
        share = 2 * bench.n * bench.n_rows * rate / 1e9
        note = f"{share:.1f} GB/s"
        if bench.host_gbs:
            note += f", {100 * share / bench.host_gbs:.0f} % of the bus"
        if show_hz:
            note += (
                f"; slices at {n_shown / t:.1f} Hz, {1e3 * waited / max(n_shown, 1):.1f} ms each"
            )
            note += "; target 5000"
        bench.row(f"streaming, slices at {show_hz:.0f} Hz", rate, "frames/s", note)
    print(f"  CUDA graphs recorded: {engine._chain._replay.n_recorded}")
    assert np.isfinite(slices.z).all()


def host_cost(bench: Bench) -> None:
    """What a push costs the host alone: launches and bookkeeping."""
    engine = bench.engine
    taken = engine._chain.taken
    engine._chain.taken = lambda: None  # not waiting for the copy
    times = []
    try:
        for _ in range(8):
            bench.sync()
            began = time.perf_counter()
            bench.push(0, 0)
            times.append(time.perf_counter() - began)
    finally:
        engine._chain.taken = taken
    bench.sync()
    bench.row(
        "host's part of a push of 16", 1e3 * median(times), "ms", "the copy goes on meanwhile"
    )


def upstream(bench: Bench) -> None:
    """The same jobs by tomostream's solver, and how many times faster we are."""
    Upstream(bench, bench.options.upstream).compare()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--rows", type=int, default=2048)
    parser.add_argument("--columns", type=int, default=2448)
    parser.add_argument("--angles", type=int, default=1500)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--upstream")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--tune", action="store_true")
    parser.add_argument("--only", nargs="*")
    options = parser.parse_args()
    print(f"torch {torch.__version__}, triton {version('triton')}, cupy {version('cupy')}")
    if options.device.startswith("cuda"):
        torch.cuda.set_device(options.device)  # events and streams are the current device's
        print(torch.cuda.get_device_properties(options.device))
    print(f"{options.rows} x {options.columns}, {options.angles} angles, uint16")
    bench = Bench(options)
    parts: dict[str, Callable[[Bench], None]] = {
        "card": card, "rebuild": rebuild, "kernels": kernels, "stream": stream, "host": host_cost,
    }  # fmt: skip
    if options.upstream:
        parts["upstream"] = upstream
    if options.profile:
        parts["profile"] = profile
    if options.tune:
        parts["tune"] = tune
    failed = []
    for name, part in parts.items():
        if options.only and name not in options.only:
            continue
        print(f"{name}: {(part.__doc__ or '').splitlines()[0]}", flush=True)
        try:
            part(bench)
        except Exception:  # noqa: BLE001  a part that fails must not cost the others
            failed.append(name)
            traceback.print_exc(limit=-6, file=sys.stdout)
    bench.engine.release()
    print(f"failed: {', '.join(failed)}" if failed else "all parts done")


def version(package: str) -> str:
    try:
        return str(__import__(package).__version__)
    except ImportError:
        return "absent"


if __name__ == "__main__":
    main()
