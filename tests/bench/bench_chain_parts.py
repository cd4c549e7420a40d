"""CPU time of each step from a raw frame to three slices, and of less work than that.

    python tests/bench/bench_chain_parts.py [--size 2048x2448] [--rounds 15]

Milliseconds a frame in all threads together, medians (least) of rounds that do everything in turn,
so that a machine that others use disturbs all rows alike. Steps of the filter are differences
between kernels that stop after them. Below the slices: what the z slice alone would need of the
filter, how much less it is to store only columns that the y and the x slice through the middle
read, and what a slice costs that is moved, for each frame of the ring.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np

from tomostream_ioc.model.params import ReconParams
from tomostream_ioc.recon.chain import RING_SCALE
from tomostream_ioc.recon.chain.numba_ import NumbaFilterChain
from tomostream_ioc.recon.engine import OrthoEngine
from tomostream_ioc.recon.filters import fft_length, response
from tomostream_ioc.recon.geometry import ScanGeometry, Views, x_slice_line, y_slice_line
from tomostream_ioc.recon.kernels.compile import kernel
from tomostream_ioc.recon.kernels.fft import FftPlan, _backward, _forward
from tomostream_ioc.recon.kernels.fft_lanes import (
    SAMPLE,
    backward4_padded,
    filter4,
    forward4_padded,
    store_halves,
    transpose8,
)
from tomostream_ioc.recon.kernels.rows import log_transmission
from tomostream_ioc.recon.preprocess import TRANSMISSION_CEILING, TRANSMISSION_FLOOR
from tomostream_ioc.recon.workers import Workers

ANGLES, BATCH, BLOCK_ROWS, CHUNK = 64, 16, 64, 128
WHOLE, MOVE = "whole: push", "move the x slice"
LOGS, FORWARD, MULTIPLY, BACKWARD, STORE, FEWER_COLUMNS = range(1, 7)


@kernel
def steps(raw, offset, gain, plan, factors, frame, first, end, last_step, low, high):
    """As kernels.frame.filter_rows for good pixels, up to ``last_step``.

    Columns low..high are stored; with FEWER_COLUMNS the last pass, too, works for them alone.
    """
    radices, lengths, tables, starts, n_outer = plan
    n, n_fft, n_passes = raw.shape[1], len(factors), len(radices)
    quarter = n_fft // 4
    samples = np.empty((n_fft, SAMPLE), np.float32)
    data, bits = samples.reshape(-1), frame.reshape(-1)
    logs = np.zeros((SAMPLE, CHUNK), np.float32)
    flat_logs = logs.reshape(-1)
    seen = np.float32(0.0)
    for r0 in range(first, end, SAMPLE):
        for c0 in range(0, n, CHUNK):
            c1 = min(c0 + CHUNK, n)
            log_transmission(
                raw, r0, offset, gain, r0, SAMPLE, c0, c1,
                TRANSMISSION_FLOOR, TRANSMISSION_CEILING, logs,
            )  # fmt: skip
            for u in range(0, c1 - c0, 8):
                for r in range(0, SAMPLE, 8):
                    at = (c0 + u) * SAMPLE + r
                    transpose8(flat_logs, r * CHUNK + u, CHUNK, data, at, SAMPLE)
        samples[n : n_fft // 2] = np.float32(0.0)
        if last_step >= FORWARD:
            for j in range(quarter):
                forward4_padded(data, j, quarter, tables, 6 * j)
            for i in range(1, n_outer):
                for base in range(0, n_fft, lengths[i]):
                    _forward(data, base, lengths[i], radices[i], tables, starts[i])
            inner = lengths[n_outer] if n_outer < n_passes else 4
            for block in range(0, n_fft, inner):
                for i in range(n_outer, n_passes):
                    for base in range(block, block + inner, lengths[i]):
                        _forward(data, base, lengths[i], radices[i], tables, starts[i])
                if last_step >= MULTIPLY:
                    for sample in range(block, block + inner, 4):
                        filter4(data, sample, factors)
                if last_step >= BACKWARD:
                    for i in range(n_passes - 1, n_outer - 1, -1):
                        for base in range(block, block + inner, lengths[i]):
                            _backward(data, base, lengths[i], radices[i], tables, starts[i])
        if last_step >= BACKWARD:
            for i in range(n_outer - 1, 0, -1):
                for base in range(0, n_fft, lengths[i]):
                    _backward(data, base, lengths[i], radices[i], tables, starts[i])
            for j in range(quarter):  # it makes columns j and j + quarter
                wanted = low <= j < high or low <= j + quarter < high
                if wanted or last_step < FEWER_COLUMNS:
                    backward4_padded(data, j, quarter, tables, 6 * j)
        if last_step >= STORE:
            for u in range(low, high):
                store_halves(data, u, bits, u * frame.shape[1] + r0)
        seen += samples[n // 2, 0]  # nothing is left out as unused
    return seen


class Parts:
    """A full ring and what is done with it; the calls take BATCH frames."""

    def __init__(self, n_rows: int, n_cols: int):
        self.geometry = geometry = ScanGeometry(ANGLES, n_rows, n_cols)
        self.engine = OrthoEngine(geometry, "uint16", "cpu", library="numba")
        rng = np.random.default_rng(0)
        shape = (BATCH, n_rows, n_cols)
        self._frames = rng.integers(20000, 40000, shape).astype("uint16")
        self.engine.set_dark(np.full(shape[1:], 100.0))
        self.engine.set_flat(np.full(shape[1:], 50000.0))
        self._params = ReconParams((n_cols - 1) / 2, n_cols // 2, n_cols // 2, n_rows // 2)
        self._next = 0
        for _ in range(0, ANGLES, BATCH):
            self.push()
        self.engine.reconstruct(self._params)
        # of the engine's own sizes, for single kernels
        self._plan = FftPlan.of_length(fft_length(n_cols))
        self._factors = self._plan.in_order(-RING_SCALE * response("Parzen", self._plan.n_fft))
        self._gain = np.full(shape[1:], 1 / 49900.0, np.float32)
        self._offset = np.full(shape[1:], 100.0, np.float32)
        self._workers = Workers(lambda: None)
        self._y_line = y_slice_line(geometry, n_cols // 2, 0.0)
        self._x_line = x_slice_line(geometry, n_cols // 2, 0.0)
        projector = self.engine.projector
        self._flat_sums = projector.zeros(n_cols, n_cols)
        self._sums = projector.zeros(n_cols, n_rows)
        theta_rad = np.arange(BATCH) * np.pi / ANGLES
        places = np.arange(BATCH)
        new, old = Views.at(places, theta_rad + np.pi), Views.at(places + BATCH, theta_rad)
        self._views = old.negative() + new

    @property
    def _chain(self) -> NumbaFilterChain:
        chain = self.engine.chain
        if not isinstance(chain, NumbaFilterChain):
            raise RuntimeError("numba computes nothing here: the CPU does not convert float16")
        return chain

    def push(self) -> None:
        k = self._next + np.arange(BATCH)
        self._next += BATCH
        self.engine.push(self._frames, k * 180.0 / ANGLES, k % ANGLES)

    def store_raw(self) -> None:
        self._chain.store_raw(self._frames, np.arange(BATCH))

    def filter(self) -> None:
        self._chain.filter(np.arange(BATCH), np.arange(BATCH))

    def up_to(self, last_step: int, fewer_columns: bool = False, n_rows: int = 0) -> None:
        """The steps of the filter; of all rows, or of ``n_rows`` around the z slice."""
        n = self.geometry.n_cols
        plan = self._plan
        kernel_plan = (plan.radices, plan.lengths, plan.tables, plan.starts, plan.n_outer)
        raw, ring = self._chain._raw, self._chain._ring

        def block(first: int, end: int) -> None:
            for k in range(BATCH):
                low, high = self._columns(np.pi * k / BATCH) if fewer_columns else (0, n)
                steps(
                    raw[k], self._offset, self._gain, kernel_plan, self._factors, ring[k],
                    first, end, last_step, low, high,
                )  # fmt: skip

        if n_rows:
            first = self.geometry.n_rows // 2
            block(first, first + n_rows)
            return
        firsts = range(0, self.geometry.n_rows, BLOCK_ROWS)
        self._workers.map(lambda first: block(first, first + BLOCK_ROWS), firsts)

    def _columns(self, theta_rad: float) -> tuple[int, int]:
        """Those that the y and the x slice through the middle read at this angle."""
        n = self.geometry.n_cols
        half = max(abs(np.cos(theta_rad)), abs(np.sin(theta_rad))) * n / 2
        return max(int(n / 2 - half) - 1, 0), min(int(n / 2 + half) + 2, n)

    def add_z(self) -> None:
        row, center = self._params.ortho_z, self._params.center
        self.engine.projector.add_z(self._flat_sums, self._views, int(row), center)

    def add_y(self) -> None:
        self.engine.projector.add_vertical(
            self._sums, self._views, self._y_line, self._params.center
        )

    def add_x(self) -> None:
        self.engine.projector.add_vertical(
            self._sums, self._views, self._x_line, self._params.center
        )

    def move(self) -> None:
        """An x slice at another place from the whole ring."""
        center = self._params.center
        views = Views.at(np.arange(ANGLES), np.arange(ANGLES) * np.pi / ANGLES)
        self.engine.projector.add_vertical(self._sums, views, self._x_line, center)

    def close(self) -> None:
        self.engine.release()
        self._workers.close()


def cpu_ms(works: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of CPU time of each call, in all threads."""
    taken: dict[str, list[float]] = {name: [] for name in works}
    for k in range(rounds + 1):
        for name, work in works.items():
            began = time.process_time()
            work()
            if k:  # the first compiles
                taken[name].append(1e3 * (time.process_time() - began))
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", default="2048x2448")
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    n_rows, n_cols = (int(part) for part in arguments.size.split("x"))
    if n_rows % BLOCK_ROWS:
        parser.error(f"--size: rows must be a multiple of {BLOCK_ROWS}")
    parts = Parts(n_rows, n_cols)
    steps_of = {
        "dark, flat, logarithm": LOGS,
        "forward transform": FORWARD,
        "last pass, filter, first pass": MULTIPLY,
        "backward transform": BACKWARD,
        "store as float16": STORE,
    }
    fewer = {"store only columns that are read": STORE, "and the last pass": FEWER_COLUMNS}
    works: dict[str, Callable[[], object]] = {
        WHOLE: parts.push,
        "store raw": parts.store_raw,
        "filter": parts.filter,
        **{name: lambda step=step: parts.up_to(step) for name, step in steps_of.items()},
        "add to z slice": parts.add_z,
        "add to y slice": parts.add_y,
        "add to x slice": parts.add_x,
        f"filter {SAMPLE} rows": lambda: parts.up_to(STORE, n_rows=SAMPLE),
        **{name: lambda step=step: parts.up_to(step, True) for name, step in fewer.items()},
        MOVE: parts.move,
    }
    try:
        taken = cpu_ms(works, arguments.rounds)
    finally:
        parts.close()
    per_frame = {
        name: [ms / (ANGLES if name == MOVE else BATCH) for ms in values]
        for name, values in taken.items()
    }
    median, least = (
        {name: of(values) for name, values in per_frame.items()} for of in (statistics.median, min)
    )
    print(f"| {arguments.size} | CPU ms a frame (least) | least, % of whole |\n| --- | --- | --- |")
    last = list(steps_of)[-1]
    less_than = dict(zip(list(steps_of)[1:], steps_of, strict=False)) | dict.fromkeys(fewer, last)
    for name in works:
        before = less_than.get(name)
        figures = [of[name] - (of[before] if before else 0.0) for of in (median, least)]
        share = 100 * figures[1] / least[WHOLE]
        print(f"| {name} | {figures[0]:.2f} ({figures[1]:.2f}) | {share:.1f} |", flush=True)


if __name__ == "__main__":
    main()
