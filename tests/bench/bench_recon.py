"""Speed of the reconstruction on this machine, as a table: python tests/bench/bench_recon.py

Median and, in brackets, best of several runs: far apart where others use the machine. One update is
one pixel of a slice and one angle (GUPS = 1e9 updates/s).
Options: --device cpu|cuda[:k], --sizes 512x512 2048x2448, --angles, --batch, --repeats, and
--policy chunked (or another of recon.memory.Policy) for what streaming costs by it.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from statistics import median
from typing import NamedTuple

import numpy as np
import torch

from tomostream_ioc.model.params import ReconParams
from tomostream_ioc.recon.engine import OrthoEngine
from tomostream_ioc.recon.geometry import (
    ScanGeometry,
    Views,
    x_slice_line,
    y_slice_line,
    z_slice_rows,
)


class Times(NamedTuple):
    """Seconds."""

    median: float
    best: float

    def rate(self, amount: float) -> Times:
        return Times(amount / self.median, amount / self.best)

    def scaled(self, factor: float) -> Times:
        return Times(factor * self.median, factor * self.best)

    def __str__(self) -> str:
        return f"{self.median:9.2f} ({self.best:.2f})"


def seconds(work: Callable[[], object], repeats: int) -> Times:
    """Times of ``work``, after one run that is not counted."""
    work()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return Times(median(times), min(times))


class Bench:
    """One engine with a full ring."""

    def __init__(self, n_rows: int, n_cols: int, n_angles: int, device: str, policy: str):
        geometry = ScanGeometry(n_angles=n_angles, n_rows=n_rows, n_cols=n_cols)
        self.geometry = geometry
        self.engine = OrthoEngine(geometry, "uint16", device, policy=policy)
        rng = np.random.default_rng(0)
        self.engine.set_dark(np.full((n_rows, n_cols), 100.0))
        self.engine.set_flat(np.full((n_rows, n_cols), 50000.0))
        frame = rng.integers(20000, 40000, (n_rows, n_cols)).astype("uint16")
        self.frames = np.broadcast_to(frame, (n_angles, n_rows, n_cols))
        self.theta_deg = np.arange(n_angles) * 180.0 / n_angles
        self.params = ReconParams(n_cols / 2 - 0.5, n_cols // 2, n_cols // 2, n_rows // 2)
        for first in range(0, n_angles, 16):
            self.push(first, min(first + 16, n_angles))
        self.engine.reconstruct(self.params)

    def push(self, first: int, end: int) -> None:
        part = slice(first, end)
        self.engine.push(self.frames[part], self.theta_deg[part], np.arange(first, end))

    def kernels(self, repeats: int) -> dict[str, Times]:
        """GUPS of a full back-projection of each kind of slice."""
        geometry, projector = self.geometry, self.engine._backend.projector
        n, n_rows, k = geometry.n_cols, geometry.n_rows, geometry.n_angles
        views = Views.at(np.arange(k), np.deg2rad(self.theta_deg))
        z, vertical = projector.zeros(n, n), projector.zeros(n, n_rows)
        center = self.params.center
        y_line, x_line = y_slice_line(geometry, n // 3, 0.0), x_slice_line(geometry, n // 3, 0.0)
        few = views[: max(k // 16, 1)]
        rows = z_slice_rows(geometry, n_rows // 2, 5.0)

        def run(work: Callable[[], object], updates: int) -> Times:
            def finished() -> None:
                work()
                if torch.cuda.is_available():
                    torch.cuda.synchronize()

            return seconds(finished, repeats).rate(updates / 1e9)

        return {
            "z": run(lambda: projector.add_z(z, views, n_rows // 2, center), k * n * n),
            "y": run(
                lambda: projector.add_vertical(vertical, views, y_line, center), k * n * n_rows
            ),
            "x": run(
                lambda: projector.add_vertical(vertical, views, x_line, center), k * n * n_rows
            ),
            "tilted z": run(lambda: projector.add_tilted_z(z, few, rows, center), len(few) * n * n),
        }

    def stream(self, batch: int, repeats: int) -> dict[str, Times]:
        """Milliseconds of what happens while streaming."""
        engine = self.engine
        batch = min(batch, self.geometry.n_angles)
        slots = np.arange(batch)

        def change_filter() -> None:
            engine._key = None
            engine.reconstruct(self.params)

        def move_slice() -> None:
            self.params = replace(self.params, ortho_x=self.params.ortho_x ^ 1)
            engine.reconstruct(self.params)

        once = max(repeats // 3, 1)
        filtering = seconds(lambda: engine._chain.filter(slots, slots), repeats)
        pushing = seconds(lambda: self.push(0, batch), repeats)
        showing = seconds(lambda: engine.reconstruct(self.params), repeats)
        anew = seconds(change_filter, once)
        moving = seconds(move_slice, once)
        return {
            "filter/frame": filtering.scaled(1e3 / batch),
            "push/frame": pushing.scaled(1e3 / batch),
            "reconstruct": showing.scaled(1e3),
            "slice moved": moving.scaled(1e3),
            "refilter/frame": anew.scaled(1e3 / self.geometry.n_angles),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--sizes", nargs="*", default=["512x512", "1024x1024", "2048x2448"])
    parser.add_argument("--angles", type=int, default=128)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--policy", default="auto")
    options = parser.parse_args()
    for size in options.sizes:
        n_rows, n_cols = (int(number) for number in size.split("x"))
        bench = Bench(n_rows, n_cols, options.angles, options.device, options.policy)
        print(f"\n{n_cols} x {n_rows}, {options.angles} angles, {bench.engine.where}")
        if bench.engine.memory.policy != "chunked":  # all frames must be in the ring
            for name, gups in bench.kernels(options.repeats).items():
                print(f"  {name + ' slice':16s} {gups} GUPS")
        stream = bench.stream(options.batch, options.repeats)
        for name, ms in stream.items():
            print(f"  {name:16s} {ms} ms")
        rate = stream["push/frame"].rate(1e3)
        print(f"  {'stream':16s} {rate} frames/s")
        print(f"  {'':16s} {rate.scaled(n_rows * n_cols * 2 / 1e9)} GB/s of uint16")
        bench.engine.release()


if __name__ == "__main__":
    main()
