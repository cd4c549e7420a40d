"""A change of lens: pixel size, where the sample has to go, and who tells whom of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from tomostream_ioc.errors import LensError
from tomostream_ioc.model.binning import binned_shape
from tomostream_ioc.model.control import LensNames, Severity
from tomostream_ioc.model.params import ReconParams

#: axis -> record with the name of the motor that brings a point of the sample there
MOTOR_RECORDS = {
    "x": "SampleTomo0degPVName",
    "y": "SampleTomo90degPVName",
    "z": "SampleYPVName",
}
#: a motor's way per pixel from the middle to the point, as upstream's server has it
_DIRECTIONS = {"x": 1, "y": -1, "z": 1}


@dataclass(frozen=True, slots=True)
class Crossing:
    """Where the three slices cross: pixels of the detector's frame, from the middle of it.

    x and y count from the axis of rotation in the sample (index n // 2 of the z slice), z counts
    detector rows from row n_rows // 2.
    """

    x: float
    y: float
    z: float

    @classmethod
    def of(cls, params: ReconParams, frame_shape: tuple[int, int], binning: int) -> Crossing:
        """Of slices in frames (n_rows, n_cols) of the detector that are binned by ``binning``.

        Slices outside the frame are where they are shown: at its edge. Tilts are left out.
        """
        shape = binned_shape(frame_shape, binning)
        shown, _ = params.clipped(*shape)
        x, y, z = middle(shape)
        return cls(
            (shown.ortho_x - x) * binning,
            (shown.ortho_y - y) * binning,
            (shown.ortho_z - z) * binning,
        )


def middle(shape: tuple[int, int]) -> tuple[int, int, int]:
    """OrthoX, OrthoY and OrthoZ in the middle of frames (n_rows, n_cols)."""
    n_rows, n_cols = shape
    return n_cols // 2, n_cols // 2, n_rows // 2


def magnification(objective: str) -> float:
    """MCTOptics' CameraObjective as a number: ``10``, ``4.93`` or ``10X``, as people type it.

    Raises LensError: it is none, or not positive.
    """
    try:
        value = float(objective.strip().upper().removesuffix("X"))
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise LensError(f"CameraObjective is {objective!r}, no magnification")
    return value


def pixel_size_um(detector_pixel_um: float, objective: str, binning: float) -> float:
    """Size of a frame's pixel at the sample: detector pixel size / objective x binning.

    Raises LensError: one of them makes no sense.
    """
    for name, value in (("DetectorPixelSize", detector_pixel_um), ("the binning", binning)):
        if not (math.isfinite(value) and value > 0):
            raise LensError(f"{name} is {value:g}: it must be positive")
    return detector_pixel_um / magnification(objective) * binning


def sample_moves_mm(crossing: Crossing, pixel_um: float) -> dict[str, float]:
    """How far each motor has to go, in mm, so that the crossing comes to the middle.

    A point (x, y) of the sample is seen x cos(theta) - y sin(theta) columns from the axis (RECON.md
    "Geometry"): at 0 degrees x to the right, at 90 degrees y to the left. A positive way of the
    0-degree motor is taken to bring the image left at 0 degrees, one of the 90-degree motor left at
    90 degrees, and one of the vertical motor up, to lower rows; so +x, -y, +z, the signs of
    upstream's server. A motor that runs the other way is turned round in its own record (DIR).
    """
    return {
        axis: direction * getattr(crossing, axis) * pixel_um / 1000
        for axis, direction in _DIRECTIONS.items()
    }


@dataclass(frozen=True, slots=True)
class LensFault:
    """Why a change of lens can't be followed, or was not: an alarm for the record.

    ``only_sync``: it matters only while LensChangeSync is Yes.
    """

    record: str  # without prefix
    severity: Severity
    status: str  # EPICS alarm status name
    message: str
    only_sync: bool = True


@dataclass(frozen=True, slots=True)
class LensOutcome:
    """What came of a change of lens."""

    lens: str = ""  # the new one, as LensSelect names it
    moved_mm: Mapping[str, float] | None = None  # axis -> way, of motors that have arrived
    pixel_um: float | None = None  # of a frame of the detector, new lens; None: not known
    faults: tuple[LensFault, ...] = ()


class LensHandler(Protocol):
    """Told by the optics, from a thread of theirs. Must return fast, never raise."""

    def on_lens_change(self, lens: str) -> None:
        """A lens was selected; a call of `LensOptics.follow` is waited for."""
        ...

    def on_lens_step(self, text: str) -> None:
        """What is being done now, for ReconStatus."""
        ...

    def on_lens_done(self, outcome: LensOutcome) -> None:
        """The lens is there, or won't come; never missing after `LensOptics.follow`."""
        ...

    def on_lens_faults(self, faults: tuple[LensFault, ...]) -> None:
        """Everything that is wrong with the names at this moment."""
        ...


class LensOptics(Protocol):
    """Lens, sample motors and binning, of one run at a time."""

    def open(self, names: LensNames, handler: LensHandler) -> None:
        """Begin to watch, if there is a prefix of MCTOptics; never blocks."""
        ...

    def follow(self, crossing: Crossing | None) -> None:
        """After on_lens_change: move the sample by ``crossing`` (None: not), wait for the lens.

        Never blocks; the handler hears of the end, which comes within a time limit.
        """
        ...

    def close(self) -> None:
        """End it, whatever goes on; after it returns no handler is called any more."""
        ...
