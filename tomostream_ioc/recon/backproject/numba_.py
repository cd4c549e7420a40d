"""Back-projection on the CPU: numba kernels on threads."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tomostream_ioc.recon.geometry import PlaneLine, ScanGeometry, TiltedRows, Views
from tomostream_ioc.recon.kernels import line_length
from tomostream_ioc.recon.kernels.mean import add_frames
from tomostream_ioc.recon.kernels.output import scaled, scaled_transposed
from tomostream_ioc.recon.kernels.shear import add_sheared, resample
from tomostream_ioc.recon.kernels.tilted import add_tilted
from tomostream_ioc.recon.kernels.vertical import add_vertical, taps
from tomostream_ioc.recon.workers import Workers

#: tiles of sums: rows x columns of the z slice, points x rows of a vertical one. The latter reads
#: the ring from memory: long columns are what the prefetcher likes
_Z_TILE = (32, 1024)
_VERTICAL_TILE = (4, 2048)
#: views whose lines are resampled together; they are read once per tile
_VIEWS = 64


class NumbaBackProjector:
    """See BackProjector. ``ring`` (places, n_cols, n_rows) uint16 are the bits of float16."""

    def __init__(self, geometry: ScanGeometry, ring: np.ndarray, workers: Workers):
        self._geometry = geometry
        self._ring = ring
        self._workers = workers
        n = geometry.n_cols
        self._lines = np.empty((_VIEWS, line_length(n)), np.float32)
        self._column = np.empty((_VIEWS, n), np.int32)
        self._lower = np.empty((_VIEWS, n), np.float32)
        self._upper = np.empty((_VIEWS, n), np.float32)

    def zeros(self, n_first: int, n_second: int) -> np.ndarray:
        return np.zeros((n_first, n_second))

    def clear(self, sums: np.ndarray) -> None:
        sums[:] = 0.0

    def views_at_once(self) -> int:
        return _VIEWS

    def add_z(self, sums: np.ndarray, views: Views, row: int, center: float) -> None:
        flat = np.abs(views.cos) >= np.abs(views.sin)
        for group, transposed in ((views[flat], False), (views[~flat], True)):
            for i in range(0, len(group), _VIEWS):
                self._add_z_group(sums, group[i : i + _VIEWS], transposed, row, center)

    def _add_z_group(
        self, sums: np.ndarray, views: Views, transposed: bool, row: int, center: float
    ) -> None:
        """Views of one kind: x along the lines, or (``transposed``) y."""
        step = -views.sin if transposed else views.cos
        tan = views.cos / views.sin if transposed else views.sin / views.cos
        lines = self._lines[: len(views)]
        origin = self._geometry.origin
        n = self._geometry.n_cols

        def lay_out(first: int, end: int) -> None:
            resample(self._ring, views.frames, row, step, views.weights, center, lines, first, end)

        def add(first: int, end: int) -> None:
            add_sheared(lines, tan, origin, *_Z_TILE, transposed, sums, first, end)

        self._workers.split(len(views), lay_out)
        self._workers.split(_n_tiles((n, n), _Z_TILE), add)

    def add_tilted_z(self, sums: np.ndarray, views: Views, rows: TiltedRows, center: float) -> None:
        def add(first: int, end: int) -> None:
            add_tilted(
                self._ring, views.frames, views.cos, views.sin, views.weights, center,
                self._geometry.origin, rows.x, rows.row, sums, first, end,
            )  # fmt: skip

        self._workers.split(self._geometry.n_cols, add)

    def add_vertical(self, sums: np.ndarray, views: Views, line: PlaneLine, center: float) -> None:
        for i in range(0, len(views), _VIEWS):
            part = views[i : i + _VIEWS]
            self._add_columns(sums, part, line.columns(part, center))

    def _add_columns(self, sums: np.ndarray, views: Views, u: np.ndarray) -> None:
        """Detector columns u (k, n_cols), fractional, of the views into the points of sums."""
        k = len(views)
        column, lower, upper = self._column[:k], self._lower[:k], self._upper[:k]
        taps(u, views.weights, self._geometry.n_cols, column, lower, upper)

        def add(first: int, end: int) -> None:
            add_vertical(
                self._ring, views.frames, column, lower, upper, sums, *_VERTICAL_TILE, first, end
            )

        shape = (self._geometry.n_cols, self._geometry.n_rows)
        self._workers.split(_n_tiles(shape, _VERTICAL_TILE), add)

    def add_frames(self, sums: np.ndarray, views: Views) -> None:
        def add(first: int, end: int) -> None:
            add_frames(self._ring, views.frames, views.weights, sums, first, end)

        self._workers.split(self._geometry.n_cols, add)

    def over(self, n_places: int, n_rows: int) -> NumbaBackProjector:
        ring = np.zeros((n_places, self._geometry.n_cols, n_rows), np.uint16)
        return NumbaBackProjector(replace(self._geometry, n_rows=n_rows), ring, self._workers)

    def put(self, first: int, frames: np.ndarray) -> None:
        halves = frames.astype(np.float16).view(np.uint16)
        self._ring[first : first + len(frames), :, : frames.shape[2]] = halves

    def output(self, sums: np.ndarray, scale: float, transpose: bool) -> np.ndarray:
        out = np.empty_like(sums.T if transpose else sums, np.float32, order="C")
        copy = scaled_transposed if transpose else scaled
        self._workers.split(len(out), lambda first, end: copy(sums, scale, out, first, end))
        return out

    def release(self) -> None:
        self._ring = np.empty((0, 0, 0), np.uint16)


def _n_tiles(shape: tuple[int, int], tile: tuple[int, int]) -> int:
    return -(-shape[0] // tile[0]) * -(-shape[1] // tile[1])
