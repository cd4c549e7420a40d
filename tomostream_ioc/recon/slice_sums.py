"""The running sums of the three slices: which are valid, for which geometry, and how to add."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace

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
from tomostream_ioc.recon.stripe_frames import StripeFrames

Add = Callable[[Sums, Views], None]


@dataclass(slots=True, eq=False)
class _Slice:
    """Sums of one slice; ``key`` is the geometry that they are for, None when they are invalid.

    With ``stripes`` each frame enters the sums less its stripes.
    """

    sums: Sums
    key: Hashable = None
    add: Add = field(default=lambda sums, views: None)
    transpose: bool = False
    stripes: StripeFrames | None = None
    add_stripes: Add = field(default=lambda sums, views: None)

    def add_views(self, views: Views) -> None:
        """Add views of the ring, less their stripes."""
        self.add(self.sums, views)
        if self.stripes is not None:
            self.add_stripes(self.sums, self.stripes.views(views))


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

    def keep_mean(
        self, wanted: bool, views: Callable[[], Views], heartbeat: Callable[[], None]
    ) -> None:
        """Bring the sum of whole frames, for `mean_frame`, up to date, or give it up.

        Whatever ``heartbeat`` raises goes through and leaves it invalid.
        """
        if not wanted:
            self._slices.pop("mean", None)
            return
        if "mean" not in self._slices:
            sums = self._projector.zeros(self._geometry.n_cols, self._geometry.n_rows)
            self._slices["mean"] = _Slice(sums, add=self._projector.add_frames)
        mean = self._slices["mean"]
        if mean.key is None:
            self._add_all(mean, "mean", views, heartbeat)

    def mean_frame(self, total_weight: float) -> np.ndarray:
        """Mean over the ring of the filtered frames, (n_rows, n_cols) float32: see `keep_mean`."""
        return self._projector.output(self._slices["mean"].sums, 1.0 / total_weight, True)

    def invalidate(self) -> None:
        """The ring changed by other ways than `update`: rebuild at the next occasion."""
        for one in self._slices.values():
            one.key = None

    def update(self, views: Views) -> None:
        """Add views (negative weights to subtract) to every slice that is valid."""
        self._change(lambda one: one.add_views(views))

    def give_estimate(self, stripes: StripeFrames, views: Views, number: int) -> None:
        """Views of the ring that had other stripes have this estimate of them from now on."""
        before = stripes.views(views).negative()
        stripes.assign(views.frames, number)
        change = before + stripes.views(views)

        def add(one: _Slice) -> None:
            if one.stripes is stripes:
                one.add_stripes(one.sums, change)

        self._change(add)

    def _change(self, change: Callable[[_Slice], None]) -> None:
        """Change every slice that is valid."""
        valid = {one.key: one for one in self._slices.values() if one.key is not None}
        self.invalidate()  # unless it comes to its end
        for one in valid.values():
            change(one)
        for key, one in valid.items():
            one.key = key

    def rebuild(
        self,
        params: ReconParams,
        views: Callable[[], Views],
        heartbeat: Callable[[], None],
        stripes: dict[str, StripeFrames],
    ) -> None:
        """Back-project all ``views`` into the slices that are invalid or for another geometry.

        ``stripes``: what to subtract, for the slices z, y and x that are named. Whatever
        ``heartbeat`` raises goes through and leaves that slice invalid.
        """
        for name, (geometry_key, add, transpose) in self._wanted(params).items():
            one = self._slices[name]
            frames = stripes.get(name)
            key = (geometry_key, frames)
            if one.key == key:
                continue
            one.add, one.transpose, one.stripes = add, transpose, frames
            if frames is not None:
                # of a single row there is only row 0
                at = params if frames.row is None else replace(params, ortho_z=0)
                one.add_stripes = self._wanted(at, frames.projector)[name][1]
            self._add_all(one, key, views, heartbeat)

    def _add_all(
        self,
        one: _Slice,
        key: Hashable,
        views: Callable[[], Views],
        heartbeat: Callable[[], None],
    ) -> None:
        one.key = None
        self._projector.clear(one.sums)
        at_once = self._projector.views_at_once()
        every = views()
        for i in range(0, len(every), at_once):
            heartbeat()
            one.add_views(every[i : i + at_once])
        one.key = key

    def release(self) -> None:
        """Give the memory back."""
        self._slices.clear()

    def output(self, scale: float) -> Slices:
        arrays: dict[str, np.ndarray] = {
            name: self._projector.output(one.sums, scale, one.transpose)
            for name, one in self._slices.items()
            if name != "mean"
        }
        return Slices(**arrays)

    def _wanted(
        self, params: ReconParams, projector: BackProjector | None = None
    ) -> dict[str, tuple[Hashable, Add, bool]]:
        """Per slice: what its sums depend on, how to add views, whether sums are transposed.

        Views are of the ring of filtered frames, unless it is of another ``projector``.
        """
        center = float(params.center)  # kernels are compiled per type
        geometry, projector = self._geometry, projector or self._projector
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
