"""Back-projection on the CPU: numba kernels on threads."""

from __future__ import annotations

import numpy as np

from tomostream_ioc.recon.geometry import PlaneLine, ScanGeometry, TiltedRows, Views
from tomostream_ioc.recon.kernels import line_length
from tomostream_ioc.recon.kernels.output import scaled, scaled_transposed
from tomostream_ioc.recon.kernels.shear import TILE_ROWS, add_sheared, resample
from tomostream_ioc.recon.kernels.shear_lanes import WIDE_STRIP
from tomostream_ioc.recon.kernels.tilted import add_tilted
from tomostream_ioc.recon.kernels.vertical import TILE_POINTS, add_vertical
from tomostream_ioc.recon.workers import Workers

#: views whose lines are resampled together; they are read once per tile
_VIEWS = 512
#: in pixels at the edge of the slice: views whose lines lie that close are one line
_SAME_LINE = 1e-6


class NumbaBackProjector:
    """See BackProjector. ``ring`` (places, n_cols, >= n_rows) uint16 are the bits of float16."""

    def __init__(self, geometry: ScanGeometry, ring: np.ndarray, workers: Workers):
        self._geometry = geometry
        self._ring = ring
        self._workers = workers
        n = geometry.n_cols
        self._lines = np.empty((_VIEWS, line_length(n)), np.float32)

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
        n, origin = self._geometry.n_cols, self._geometry.origin
        views, starts, tan = _by_tangent(views, transposed, n)
        step = -views.sin if transposed else views.cos
        lines = self._lines[: len(tan)]

        def lay_out(first: int, end: int) -> None:
            resample(
                self._ring, views.frames, starts, row, step, views.weights, center, lines,
                first, end,
            )  # fmt: skip

        def add(first: int, end: int) -> None:
            add_sheared(lines, tan, origin, transposed, sums, first, end)

        self._workers.split(len(tan), lay_out)
        self._workers.split(_n_tiles((n, n), (TILE_ROWS, WIDE_STRIP)), add)

    def add_tilted_z(self, sums: np.ndarray, views: Views, rows: TiltedRows, center: float) -> None:
        def add(first: int, end: int) -> None:
            add_tilted(
                self._ring, self._geometry.n_rows, views.frames, views.cos, views.sin,
                views.weights, center, self._geometry.origin, rows.x, rows.row, sums, first, end,
            )  # fmt: skip

        self._workers.split(self._geometry.n_cols, add)

    def add_vertical(self, sums: np.ndarray, views: Views, line: PlaneLine, center: float) -> None:
        def add(first: int, end: int) -> None:
            add_vertical(
                self._ring, views.frames, views.cos, views.sin, views.weights, center,
                line.x, line.y, sums, first, end,
            )  # fmt: skip

        self._workers.split(-(-self._geometry.n_cols // TILE_POINTS), add)

    def output(self, sums: np.ndarray, scale: float, transpose: bool) -> np.ndarray:
        out = np.empty_like(sums.T if transpose else sums, np.float32, order="C")
        copy = scaled_transposed if transpose else scaled
        self._workers.split(len(out), lambda first, end: copy(sums, scale, out, first, end))
        return out

    def release(self) -> None:
        self._ring = np.empty((0, 0, 0), np.uint16)


def _n_tiles(shape: tuple[int, int], tile: tuple[int, int]) -> int:
    return -(-shape[0] // tile[0]) * -(-shape[1] // tile[1])


def _by_tangent(
    views: Views, transposed: bool, n_cols: int
) -> tuple[Views, np.ndarray, np.ndarray]:
    """Views in groups of equal tangent (or cotangent), where the groups begin, their tangents.

    A frame and the one that replaces it half a turn later see the same lines through the slice, so
    their difference is back-projected at the price of one.
    """
    tan = views.cos / views.sin if transposed else views.sin / views.cos
    order = np.argsort(tan, kind="stable")
    tan = tan[order]
    first = np.ones(len(tan), bool)
    # against the first of a group, lest groups become chains
    reference = -np.inf
    for i, value in enumerate(tan):
        first[i] = abs(value - reference) * n_cols / 2 > _SAME_LINE
        reference = value if first[i] else reference
    starts = np.flatnonzero(first)
    return views[order], np.append(starts, len(tan)), tan[starts]
