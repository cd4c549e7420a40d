"""The grid of a scan: which point of the sample a frame belongs to."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tomostream_ioc.errors import TrackingError

#: more points than any scan has; a start document that says more is wrong
MAX_POINTS = 100_000_000


@dataclass(frozen=True, slots=True)
class ScanGrid:
    """Points of a scan, slowest axis first (C order).

    ``shape`` is the number of points per axis. ``extents`` holds the first and last coordinate per
    axis, or None where it isn't known. ``snaking`` is True for an axis that is traversed back and
    forth; the slowest axis can't be. ``names`` are the axes' names, empty when not known.

    Raises TrackingError: sizes below 1, too many points, or lengths that don't agree.
    """

    shape: tuple[int, ...]
    extents: tuple[tuple[float, float] | None, ...] = ()
    snaking: tuple[bool, ...] = ()
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        n_axes = len(self.shape)
        if not n_axes or any(n < 1 for n in self.shape):
            raise TrackingError(f"A scan of shape {self.shape} has no points.")
        if math.prod(self.shape) > MAX_POINTS:
            raise TrackingError(f"A scan of shape {self.shape} has more than {MAX_POINTS} points.")
        object.__setattr__(self, "extents", self.extents or (None,) * n_axes)
        object.__setattr__(self, "snaking", self.snaking or (False,) * n_axes)
        for name in ("extents", "snaking", "names"):
            values = getattr(self, name)
            if len(values) != n_axes and (values or name != "names"):
                raise TrackingError(
                    f"{name} has {len(values)} entries for the {n_axes} axes of shape {self.shape}."
                )
        for pair in self.extents:
            if pair is not None and not all(math.isfinite(end) for end in pair):
                raise TrackingError(f"The extents {self.extents} hold a value that is not finite.")

    @classmethod
    def from_start(cls, start: Mapping[str, Any]) -> ScanGrid:
        """The grid that a run's start document describes.

        ``shape``, or ``map_size`` (fast axis first, the only key that is), or ``num_points`` (one
        axis); ``extents`` and ``snaking`` where they are there, slow axis first; ``motors`` as
        names.
        Axes of one point are left out, of all three alike.

        Raises TrackingError: no size at all, or values that make no grid.
        """
        shape = _shape(start)
        extents = _extents(start.get("extents"), len(shape))
        snaking = _snaking(start.get("snaking"), len(shape))
        names = start.get("motors")
        if not isinstance(names, Sequence) or isinstance(names, str) or len(names) != len(shape):
            names = ()
        for name, values in (("extents", extents), ("snaking", snaking)):
            if len(values) != len(shape):
                raise TrackingError(
                    f"{name} of the start document has {len(values)} entries, the scan's shape"
                    f" {shape} has {len(shape)}."
                )
        kept = [axis for axis, n in enumerate(shape) if n != 1] or [len(shape) - 1]
        return cls(
            tuple(shape[axis] for axis in kept),
            tuple(extents[axis] for axis in kept),
            tuple(snaking[axis] for axis in kept),
            tuple(str(names[axis]) for axis in kept) if names else (),
        )

    @property
    def n_points(self) -> int:
        return math.prod(self.shape)

    @property
    def row_length(self) -> int:
        """Points of a row, along the fast axis."""
        return self.shape[-1]

    @property
    def memory(self) -> int:
        """Frames that a spot may be missing in: `tracking.linking`'s default, 0 without rows.

        The scan comes back to a column after a row's length; if it snakes, after anything up to
        nearly two of them: 2 (row_length - 1) frames lie between two visits of the first column.
        """
        if len(self.shape) == 1:
            return 0
        return 2 * (self.row_length - 1) if self.snaking[-1] else self.row_length

    def flat_indices(self, frames: np.ndarray) -> np.ndarray:
        """Positions in the flattened map of frames numbered from 1, int64; -1 outside the grid.

        A snaking axis turns round each time the axes slower than it go one step on, as in
        bluesky's `snake_cyclers`.
        """
        step = np.asarray(frames, np.int64) - 1
        inside = (step >= 0) & (step < self.n_points)
        step = np.where(inside, step, 0)
        flat = np.zeros_like(step)
        stride = self.n_points
        for n, snakes in zip(self.shape, self.snaking, strict=True):
            stride //= n
            walked = step // stride  # steps of this axis since the scan began
            index = walked % n
            if snakes:
                index = np.where(walked // n % 2 == 1, n - 1 - index, index)
            flat += index * stride
        return np.where(inside, flat, -1)

    def index(self, frame: int) -> tuple[int, ...]:
        """The point's index per axis. Raises TrackingError: the frame lies outside the grid."""
        flat = int(self.flat_indices(np.array([frame]))[0])
        if flat < 0:
            raise TrackingError(
                f"Frame {frame} lies outside the {self.n_points} points of the scan (from 1)."
            )
        return tuple(int(i) for i in np.unravel_index(flat, self.shape))

    def coordinates(self) -> tuple[np.ndarray, ...]:
        """Coordinates of the points per axis, float64; 0, 1, 2... along an axis without extents."""
        return tuple(
            np.arange(n, dtype=np.float64) if pair is None else np.linspace(pair[0], pair[1], n)
            for n, pair in zip(self.shape, self.extents, strict=True)
        )


def _shape(start: Mapping[str, Any]) -> tuple[int, ...]:
    for key in ("shape", "map_size", "num_points"):
        value = start.get(key)
        if value is None:
            continue
        sizes = np.atleast_1d(np.asarray(value))
        good = sizes.ndim == 1 and sizes.size and sizes.dtype.kind in "uif"
        if not good or not np.all(np.isfinite(sizes)) or np.any(sizes != np.floor(sizes)):
            raise TrackingError(f"{key} of the start document is {value!r}: no whole numbers.")
        shape = tuple(int(n) for n in sizes)
        return shape[::-1] if key == "map_size" else shape
    raise TrackingError(
        "The start document has no shape, map_size or num_points: which point of the sample a frame"
        " belongs to is not known."
    )


def _extents(value: Any, n_axes: int) -> tuple[tuple[float, float] | None, ...]:
    if value is None:
        return (None,) * n_axes
    try:
        return tuple(None if pair is None else (float(pair[0]), float(pair[1])) for pair in value)
    except (TypeError, ValueError, IndexError, KeyError) as error:
        raise TrackingError(
            f"extents of the start document is {value!r}: a pair of numbers per axis is needed."
        ) from error


def _snaking(value: Any, n_axes: int) -> tuple[bool, ...]:
    if value is None:
        return (False,) * n_axes
    if isinstance(value, (bool, np.bool_)):
        # one word for all: every axis but the slowest
        return (False,) + (bool(value),) * (n_axes - 1)
    if isinstance(value, str) or not isinstance(value, (Sequence, np.ndarray)):
        raise TrackingError(
            f"snaking of the start document is {value!r}: a bool per axis is needed."
        )
    return tuple(bool(snakes) for snakes in value)
