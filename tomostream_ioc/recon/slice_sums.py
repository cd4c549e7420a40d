"""The running sums of the three slices: which are valid, for which geometry, and how to add."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field

import numpy as np

from tomostream_ioc.model.params import ReconParams
from tomostream_ioc.model.slices import Slices
from tomostream_ioc.recon.backproject import BackProjector, Sums
from tomostream_ioc.recon.geometry import (
    ScanGeometry,
    Views,
    x_slice_line,
    y_slice_line,
    z_slice_rows,
)

Add = Callable[[Sums, Views], None]


@dataclass(slots=True, eq=False)
class _Slice:
    """Sums of one slice; ``key`` is the geometry that they are for, None when they are invalid."""

    sums: Sums
    key: Hashable = None
    add: Add = field(default=lambda sums, views: None)
    transpose: bool = False


class SliceSums:
    """Sums over the ring of the z, y and x slice, in float64 so that updates leave no drift."""

    def __init__(self, geometry: ScanGeometry, projector: BackProjector):
        n, n_rows = geometry.n_cols, geometry.n_rows
        self._geometry = geometry
        self._projector = projector
        self._slices = {
            "z": _Slice(projector.zeros(n, n)),
            "y": _Slice(projector.zeros(n, n_rows), transpose=True),
            "x": _Slice(projector.zeros(n, n_rows), transpose=True),
        }

    def invalidate(self) -> None:
        """The ring changed by other ways than `update`: rebuild at the next occasion."""
        for one in self._slices.values():
            one.key = None

    @property
    def any_valid(self) -> bool:
        """False: every slice will be rebuilt, so that there is no use in an `update`."""
        return any(one.key is not None for one in self._slices.values())

    def update(self, chunks: Iterable[Views]) -> None:
        """Add views (negative weights to subtract) to every slice that is valid."""
        valid = {one.key: one for one in self._slices.values() if one.key is not None}
        self.invalidate()  # unless it comes to its end
        for views in chunks:
            for one in valid.values():
                one.add(one.sums, views)
        for key, one in valid.items():
            one.key = key

    def rebuild(
        self,
        params: ReconParams,
        every: Callable[[], Iterable[Views]],
        heartbeat: Callable[[], None],
    ) -> None:
        """Back-project all views into the slices that are invalid or for another geometry.

        ``every`` gives them chunk by chunk; it is asked once for all slices, as it may have to
        filter them. Whatever ``heartbeat`` raises goes through and leaves those slices invalid.
        """
        begun: dict[Hashable, _Slice] = {}
        for name, (key, add, transpose) in self._wanted(params).items():
            one = self._slices[name]
            if one.key == key:
                continue
            one.key = None
            one.add, one.transpose = add, transpose
            self._projector.clear(one.sums)
            begun[key] = one
        if not begun:
            return
        for views in every():
            for one in begun.values():
                heartbeat()
                one.add(one.sums, views)
        for key, one in begun.items():
            one.key = key

    def release(self) -> None:
        """Give the memory back."""
        self._slices.clear()

    def output(self, scale: float) -> Slices:
        arrays: dict[str, np.ndarray] = {
            name: self._projector.output(one.sums, scale, one.transpose)
            for name, one in self._slices.items()
        }
        return Slices(**arrays)

    def _wanted(self, params: ReconParams) -> dict[str, tuple[Hashable, Add, bool]]:
        """Per slice: what its sums depend on, how to add views, whether sums are transposed."""
        center = float(params.center)  # kernels are compiled per type
        geometry, projector = self._geometry, self._projector
        y_line = y_slice_line(geometry, params.ortho_y, params.rot_y_deg)
        x_line = x_slice_line(geometry, params.ortho_x, params.rot_x_deg)

        def add_y(sums: Sums, views: Views) -> None:
            projector.add_vertical(sums, views, y_line, center)

        def add_x(sums: Sums, views: Views) -> None:
            projector.add_vertical(sums, views, x_line, center)

        def add_z(sums: Sums, views: Views) -> None:
            projector.add_z(sums, views, int(params.ortho_z), center)

        wanted: dict[str, tuple[Hashable, Add, bool]] = {
            "z": (("z", center, params.ortho_z, 0.0), add_z, False),
            "y": (("y", center, params.ortho_y, params.rot_y_deg), add_y, True),
            "x": (("x", center, params.ortho_x, params.rot_x_deg), add_x, True),
        }
        if params.rot_z_deg:
            rows = z_slice_rows(geometry, params.ortho_z, params.rot_z_deg)

            def add_tilted(sums: Sums, views: Views) -> None:
                projector.add_tilted_z(sums, views, rows, center)

            wanted["z"] = (("z", center, params.ortho_z, params.rot_z_deg), add_tilted, True)
        return wanted
