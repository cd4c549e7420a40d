"""Sizes of a scan and where the points of the three slice planes lie on the detector."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tomostream_ioc.errors import ParameterError
from tomostream_ioc.model.params import ReconParams


@dataclass(frozen=True, slots=True)
class ScanGeometry:
    """A parallel-beam scan: ``n_angles`` projections in 180 degrees of n_rows x n_cols pixels.

    Raises ValueError: a size that is not positive, or a single column (there is nothing to filter).
    """

    n_angles: int
    n_rows: int
    n_cols: int

    def __post_init__(self) -> None:
        for name, least in (("n_angles", 1), ("n_rows", 1), ("n_cols", 2)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}: must be at least {least}")

    @property
    def origin(self) -> int:
        """Index of object coordinate 0 along x and y."""
        return self.n_cols // 2

    @property
    def origin_row(self) -> int:
        """Detector row about which the z slice tilts."""
        return self.n_rows // 2

    def check(self, params: ReconParams) -> None:
        """Raises ParameterError: the axis or a slice lies outside the detector."""
        if not 0.0 <= params.center <= self.n_cols:
            raise ParameterError(
                f"center {params.center:g} is outside the detector: use 0..{self.n_cols}"
            )
        for name, size in (
            ("ortho_x", self.n_cols),
            ("ortho_y", self.n_cols),
            ("ortho_z", self.n_rows),
        ):
            value = getattr(params, name)
            if value != int(value) or not 0 <= value < size:
                raise ParameterError(f"{name} {value} is no slice: use 0..{size - 1}")


@dataclass(frozen=True, eq=False, slots=True)
class Views:
    """Filtered projections to back-project, and how.

    ``frames`` (k,) int64 are places in the ring of filtered frames; ``cos`` and ``sin`` (k,)
    float64 of their angles; ``weights`` (k,) float64, negative to take a projection out again.
    """

    frames: np.ndarray
    cos: np.ndarray
    sin: np.ndarray
    weights: np.ndarray

    @classmethod
    def at(
        cls, frames: np.ndarray, theta_rad: np.ndarray, weights: np.ndarray | float = 1.0
    ) -> Views:
        """Views at ``theta_rad`` (k,), with ``weights`` (k,) or the same for all."""
        return cls(
            np.asarray(frames, np.int64),
            np.cos(theta_rad),
            np.sin(theta_rad),
            np.full(len(frames), weights, np.float64),
        )

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, part: slice | np.ndarray) -> Views:
        return Views(self.frames[part], self.cos[part], self.sin[part], self.weights[part])

    def negative(self) -> Views:
        """The same views, to be taken out again."""
        return Views(self.frames, self.cos, self.sin, -self.weights)

    def __add__(self, other: Views) -> Views:
        return Views(
            np.concatenate((self.frames, other.frames)),
            np.concatenate((self.cos, other.cos)),
            np.concatenate((self.sin, other.sin)),
            np.concatenate((self.weights, other.weights)),
        )


@dataclass(frozen=True, eq=False, slots=True)
class PlaneLine:
    """Points of a vertical plane, seen from above: x, y (n_cols,) float64, in object coordinates.

    The plane is this line at every detector row, so one u per point and angle serves all rows.
    """

    x: np.ndarray
    y: np.ndarray

    def columns(self, views: Views, center: float) -> np.ndarray:
        """Detector column u (k, n_cols) where each point is projected, RECON.md "Geometry"."""
        return np.outer(views.cos, self.x) - np.outer(views.sin, self.y) + center


def y_slice_line(geometry: ScanGeometry, iy: int, rot_y_deg: float) -> PlaneLine:
    """The y slice: column i of it is point i of the line."""
    along = np.arange(geometry.n_cols) - float(geometry.origin)
    across = float(iy - geometry.origin)
    cos, sin = _cos_sin_deg(rot_y_deg)
    return PlaneLine(along * cos + across * sin, -along * sin + across * cos)


def x_slice_line(geometry: ScanGeometry, ix: int, rot_x_deg: float) -> PlaneLine:
    """The x slice: column j of it is point j of the line."""
    along = np.arange(geometry.n_cols) - float(geometry.origin)
    across = float(ix - geometry.origin)
    cos, sin = _cos_sin_deg(rot_x_deg)
    return PlaneLine(across * cos + along * sin, -across * sin + along * cos)


@dataclass(frozen=True, eq=False, slots=True)
class TiltedRows:
    """A z slice tilted about the y axis: its column i is at x[i], on detector row row[i].

    ``x`` in object coordinates, ``row`` fractional, both (n_cols,) float64; y is not changed.
    """

    x: np.ndarray
    row: np.ndarray


def z_slice_rows(geometry: ScanGeometry, iz: int, rot_z_deg: float) -> TiltedRows:
    """Where the columns of the tilted z slice are."""
    along = np.arange(geometry.n_cols) - float(geometry.origin)
    across = float(iz - geometry.origin_row)
    cos, sin = _cos_sin_deg(rot_z_deg)
    return TiltedRows(along * cos + across * sin, -along * sin + across * cos + geometry.origin_row)


def _cos_sin_deg(angle_deg: float) -> tuple[float, float]:
    angle_rad = np.deg2rad(angle_deg)
    return float(np.cos(angle_rad)), float(np.sin(angle_rad))
