"""Figures of the engine: kernels alone, and what happens while streaming."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from tomostream_ioc.bench.timing import Times, seconds
from tomostream_ioc.model.params import ReconParams
from tomostream_ioc.recon.engine import OrthoEngine
from tomostream_ioc.recon.geometry import (
    ScanGeometry,
    Views,
    x_slice_line,
    y_slice_line,
    z_slice_rows,
)


class EngineBench:
    """One engine with a full ring of uint16 frames; ``device`` as OrthoEngine has it."""

    def __init__(self, n_rows: int, n_cols: int, n_angles: int, device: str, batch: int):
        self.geometry = ScanGeometry(n_angles=n_angles, n_rows=n_rows, n_cols=n_cols)
        self._batch = min(batch, n_angles)
        self.engine = OrthoEngine(self.geometry, "uint16", device)
        rng = np.random.default_rng(0)
        self.engine.set_dark(np.full((n_rows, n_cols), 100.0))
        self.engine.set_flat(np.full((n_rows, n_cols), 50000.0))
        shape = (self._batch, n_rows, n_cols)
        self._frames = rng.integers(20000, 40000, shape).astype("uint16")
        self._theta_deg = np.arange(n_angles) * 180.0 / n_angles
        self._turned_deg = 0.0
        self._next = 0
        self._params = ReconParams(n_cols / 2 - 0.5, n_cols // 2, n_cols // 2, n_rows // 2)
        for _ in range(0, n_angles, self._batch):
            self.push()
        self.engine.reconstruct(self._params)

    def push(self) -> None:
        """The next batch of the scan, half turn after half turn."""
        n = self.geometry.n_angles
        k = self._next + np.arange(self._batch)
        self._next += self._batch
        self.engine.push(self._frames, k * 180.0 / n, k % n)

    def kernels(self, repeats: int) -> dict[str, Times]:
        """1e9 updates (one pixel, one angle) per second of full back-projections."""
        geometry, projector = self.geometry, self.engine.projector
        n, n_rows, k = geometry.n_cols, geometry.n_rows, geometry.n_angles
        views = Views.at(np.arange(k), np.deg2rad(self._theta_deg))
        z, vertical = projector.zeros(n, n), projector.zeros(n, n_rows)
        center = self._params.center
        y_line, x_line = y_slice_line(geometry, n // 3, 0.0), x_slice_line(geometry, n // 3, 0.0)
        few = views[: max(k // 16, 1)]
        rows = z_slice_rows(geometry, n_rows // 2, 5.0)

        def run(work: Callable[[], object], updates: int) -> Times:
            return seconds(_finished(work), repeats).rate(updates / 1e9)

        def vertical_at(line):
            return lambda: projector.add_vertical(vertical, views, line, center)

        return {
            "z slice": run(lambda: projector.add_z(z, views, n_rows // 2, center), k * n * n),
            "y slice": run(vertical_at(y_line), k * n * n_rows),
            "x slice": run(vertical_at(x_line), k * n * n_rows),
            "tilted z": run(lambda: projector.add_tilted_z(z, few, rows, center), len(few) * n * n),
        }

    def streaming(self, repeats: int) -> dict[str, Times]:
        """Milliseconds: of a frame that is filtered, one that is pushed, and of showing slices."""
        engine, slots = self.engine, np.arange(self._batch)
        filters = ("Ramp", "Parzen")

        def change_filter() -> None:
            for filter_type in filters:
                engine.reconstruct(ReconParams(
                    self._params.center, self._params.ortho_x, self._params.ortho_y,
                    self._params.ortho_z, filter_type=filter_type,
                ))  # fmt: skip

        filtering = seconds(_finished(lambda: engine.chain.filter(slots, slots)), repeats)
        pushing = seconds(_finished(self.push), repeats)
        showing = seconds(lambda: engine.reconstruct(self._params), repeats)
        anew = seconds(change_filter, max(repeats // 3, 1))
        n_refiltered = len(filters) * self.geometry.n_angles
        return {
            "filter a frame": filtering.scaled(1e3 / self._batch),
            "push a frame": pushing.scaled(1e3 / self._batch),
            "show slices": showing.scaled(1e3),
            "new filter, per frame": anew.scaled(1e3 / n_refiltered),
        }


def _finished(work: Callable[[], object]) -> Callable[[], None]:
    """``work``, waited for where it goes on in the background."""

    def run() -> None:
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    return run
