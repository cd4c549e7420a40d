"""ReconParams: one frozen snapshot of everything that a user can turn, per reconstruction."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace

from tomostream_ioc.errors import ParameterError

FILTER_TYPES = ("Parzen", "Shepp-logan", "Ramp", "Butterworth")
DEZINGER_RADII = (0, 2, 3, 4)
RING_REMOVALS = ("None", "fw")


@dataclass(frozen=True, slots=True)
class ReconParams:
    """What to reconstruct and how.

    ``center`` is the detector column of the rotation axis (pixel centres count from 0);
    ``ortho_x/y/z`` are indices of the slices; ``rot_*_deg`` tilt the slice planes. Phase
    retrieval is off unless energy, distance, alpha and pixel size are all positive. ``dezinger`` is
    the radius in pixels, not the record's index.

    Raises ParameterError on NaN, infinity or a choice that does not exist.
    """

    center: float
    ortho_x: int
    ortho_y: int
    ortho_z: int
    rot_x_deg: float = 0.0
    rot_y_deg: float = 0.0
    rot_z_deg: float = 0.0
    filter_type: str = "Parzen"
    dezinger: int = 0
    ring_removal: str = "None"
    energy_kev: float = 0.0
    distance_mm: float = 0.0
    alpha: float = 0.0
    pixel_size_um: float = 0.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, (int, float)) and not math.isfinite(value):
                raise ParameterError(f"{field.name} is {value}: give a finite number")
        if self.filter_type not in FILTER_TYPES:
            raise ParameterError(
                f"filter_type {self.filter_type!r} does not exist: use one of {FILTER_TYPES}"
            )
        if self.dezinger not in DEZINGER_RADII:
            raise ParameterError(
                f"dezinger radius {self.dezinger} does not exist: use one of {DEZINGER_RADII}"
            )
        if self.ring_removal not in RING_REMOVALS:
            raise ParameterError(
                f"ring_removal {self.ring_removal!r} does not exist: use one of {RING_REMOVALS}"
            )

    @property
    def has_phase(self) -> bool:
        """True when phase retrieval is on."""
        return min(self.energy_kev, self.distance_mm, self.alpha, self.pixel_size_um) > 0

    @property
    def phase_note(self) -> str:
        """Why phase retrieval is off although alpha is set, else ''.

        Alpha is the switch: with 0 it is off on purpose, whatever the beamline keeps in the others.
        """
        if self.has_phase or self.alpha == 0:
            return ""
        values = {
            "Energy": self.energy_kev,
            "Distance": self.distance_mm,
            "Alpha": self.alpha,
            "PixelSize": self.pixel_size_um,
        }
        missing = " and ".join(record for record, value in values.items() if value <= 0)
        return f"no phase retrieval: set {missing} above 0, or Alpha to 0"

    def clipped(self, n_rows: int, n_cols: int) -> tuple[ReconParams, tuple[str, ...]]:
        """Slice indices brought inside the detector, and a sentence for each change."""
        notes: list[str] = []
        changes: dict[str, int] = {}
        for name, record, size in (
            ("ortho_x", "OrthoX", n_cols),
            ("ortho_y", "OrthoY", n_cols),
            ("ortho_z", "OrthoZ", n_rows),
        ):
            asked = getattr(self, name)
            shown = min(max(asked, 0), size - 1)
            if shown != asked:
                changes[name] = shown
                notes.append(f"{record} {asked} is outside 0..{size - 1}: showing {shown}")
        return (replace(self, **changes) if changes else self), tuple(notes)

    def rescaled(self, old: tuple[int, int], new: tuple[int, int]) -> ReconParams:
        """The same place in the sample after a change of frame size (n_rows, n_cols), as binning.

        Detector coordinates count from the centre of the first pixel, so a column c of the old grid
        lies at (c + 1/2) * new/old - 1/2 of the new one. OrthoX and OrthoY count from the axis,
        which is at index n // 2, whatever the detector does.
        """
        row_scale, col_scale = new[0] / old[0], new[1] / old[1]

        def from_axis(index: int) -> int:
            scaled = round((index - old[1] // 2) * col_scale) + new[1] // 2
            return min(max(scaled, 0), new[1] - 1)

        row = round((self.ortho_z + 0.5) * row_scale - 0.5)
        return replace(
            self,
            center=(self.center + 0.5) * col_scale - 0.5,
            ortho_x=from_axis(self.ortho_x),
            ortho_y=from_axis(self.ortho_y),
            ortho_z=min(max(row, 0), new[0] - 1),
        )
