"""The running sums of the three slices: which are valid, for which geometry, and how to add."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
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

    ``stripes`` are those that have been subtracted from them, if any.
    """

    sums: Sums
    key: Hashable = None
    add: Add = field(default=lambda sums, views: None)
    transpose: bool = False
    stripes: StripeFrames | None = None
    add_stripes: Add = field(default=lambda sums, views: None)


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

    def mean_frame(self, total_weight: float) -> np.ndarray:
        """Mean over the ring of the filtered frames, (n_rows, n_cols) float32.

        It is kept for parameters with ring removal: `rebuild` comes first.
        """
        return self._projector.output(self._slices["mean"].sums, 1.0 / total_weight, True)

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

    def update_stripes(
        self, stripes: StripeFrames, views: Views, heartbeat: Callable[[], None]
    ) -> None:
        """Add views of stripes to every valid slice from which others of them are subtracted.

        Whatever ``heartbeat`` raises goes through and leaves these slices invalid.
        """
        slices = [one for one in self._slices.values() if one.stripes is stripes]
        valid = {one.key: one for one in slices if one.key is not None}
        for one in slices:
            one.key = None
        for one in valid.values():
            self._add_all(one.add_stripes, one.sums, views, heartbeat)
        for key, one in valid.items():
            one.key = key

    def subtract(
        self,
        params: ReconParams,
        stripes: dict[str, StripeFrames],
        heartbeat: Callable[[], None],
    ) -> None:
        """Bring about that of each slice these stripes are subtracted, and no others.

        ``params`` are those of the last `rebuild`. Whatever ``heartbeat`` raises goes through and
        leaves that slice invalid.
        """
        for name, one in self._slices.items():
            wanted = stripes.get(name)
            if one.stripes is wanted:
                continue
            key, one.key = one.key, None
            if one.stripes is not None:
                self._add_all(one.add_stripes, one.sums, one.stripes.views().negative(), heartbeat)
            if wanted is not None:
                # of a single row there is only row 0
                at = params if wanted.row is None else replace(params, ortho_z=0)
                one.add_stripes = self._wanted(at, wanted.projector)[name][1]
                self._add_all(one.add_stripes, one.sums, wanted.views(), heartbeat)
            one.stripes, one.key = wanted, key

    def _add_all(self, add: Add, sums: Sums, every: Views, heartbeat: Callable[[], None]) -> None:
        at_once = self._projector.views_at_once()
        for i in range(0, len(every), at_once):
            heartbeat()
            add(sums, every[i : i + at_once])

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
        wanted = self._wanted(params)
        if params.ring_removal == "None":
            self._slices.pop("mean", None)
        else:
            wanted["mean"] = ("mean", self._projector.add_frames, True)
            if "mean" not in self._slices:
                n, n_rows = self._geometry.n_cols, self._geometry.n_rows
                self._slices["mean"] = _Slice(self._projector.zeros(n, n_rows))
        for name, (key, add, transpose) in wanted.items():
            one = self._slices[name]
            if one.key == key:
                continue
            one.key = None
            one.add, one.transpose, one.stripes = add, transpose, None
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
            if name != "mean"
        }
        return Slices(**arrays)

    def _wanted(
        self, params: ReconParams, projector: BackProjector | None = None
    ) -> dict[str, tuple[Hashable, Add, bool]]:
        """Per slice: what its sums depend on, how to add views, whether sums are transposed.

        Views are of the ring of filtered frames, unless ``projector`` reads another one.
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
