"""Adding projections to slices: one interface, one file per library."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from tomostream_ioc.recon.geometry import PlaneLine, TiltedRows, Views

#: an array of the library, float64: sums over views of filtered projections times RING_SCALE
Sums = Any


class BackProjector(Protocol):
    """Reads the ring of filtered frames, [place, u, z], and adds views of it to sums.

    ``center`` is the detector column of the axis. Interpolation is linear in u for points of
    vertical and tilted planes; for the z slice see kernels.shear.
    """

    def zeros(self, n_first: int, n_second: int) -> Sums: ...

    def clear(self, sums: Sums) -> None: ...

    def add_z(self, sums: Sums, views: Views, row: int, center: float) -> None:
        """Detector row ``row`` into sums (n_cols, n_cols), axes y, x."""
        ...

    def add_tilted_z(self, sums: Sums, views: Views, rows: TiltedRows, center: float) -> None:
        """A z slice tilted about y into sums (n_cols, n_cols), axes x, y (not y, x)."""
        ...

    def add_vertical(self, sums: Sums, views: Views, line: PlaneLine, center: float) -> None:
        """The plane over a line into sums (n_cols, n_rows), axes point, z."""
        ...

    def add_frames(self, sums: Sums, views: Views) -> None:
        """Whole frames times their weights, at no angle, into sums (n_cols, n_rows)."""
        ...

    def over(self, n_places: int, n_rows: int) -> BackProjector:
        """A projector like this one over a ring of its own, with other numbers of frames and rows.

        For what is not in the engine's ring: see `put`.
        """
        ...

    def put(self, first: int, frames: np.ndarray) -> None:
        """Write frames (k, n_cols, n_rows), float, into the places from ``first`` on."""
        ...

    def output(self, sums: Sums, scale: float, transpose: bool) -> np.ndarray:
        """A new float32 numpy array of scale * sums, axes exchanged if ``transpose``."""
        ...

    def views_at_once(self) -> int:
        """How many views to add in one call so that it takes a fraction of a second."""
        ...

    def release(self) -> None: ...
