"""Crystal maps by track: where on the sample each Bragg peak shines, and how brightly.

Map of a track: ``map[particle][grid index of frame] = mass``, 0 elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from tomostream_ioc.errors import TrackingError
from tomostream_ioc.tracking.grid import ScanGrid

#: peaks that `CrystalMaps` keeps at most: 28 bytes each
MAX_PEAKS = 20_000_000
_FIRST_CAPACITY = 1024


@dataclass(frozen=True, eq=False)
class MapStack:
    """Maps of some peaks, with where on the sample and on the detector they are.

    maps : (n, *grid.shape) float64
    particles : (n,) int64, the tracks' numbers; for maps by window 0, 1, 2...
    y, x : (n,) float64, mean position on the detector in pixels, weighted by mass
    grid : the points; ``coordinates`` are theirs, per axis, slow axis first
    """

    maps: np.ndarray
    particles: np.ndarray
    y: np.ndarray
    x: np.ndarray
    grid: ScanGrid
    coordinates: tuple[np.ndarray, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "coordinates", self.grid.coordinates())

    def __len__(self) -> int:
        return len(self.particles)


class CrystalMaps:
    """Collects linked peaks as they come, and makes maps of them on demand.

    Peaks are kept as rows (one number each for track, point, mass, y and x): a map is filled only
    when it is asked for, so that thousands of tracks cost no more than their peaks. Not safe for
    several threads at once.
    """

    def __init__(self, grid: ScanGrid, max_peaks: int = MAX_PEAKS):
        self.grid = grid
        self._max = max_peaks
        self._n = 0
        self._particle = np.empty(0, np.int64)
        self._point = np.empty(0, np.int32)
        self._mass = np.empty(0, np.float64)
        self._place = np.empty((0, 2), np.float32)
        self._total = np.zeros(grid.n_points)
        self._peaks_per_point = np.zeros(grid.n_points, np.int64)
        #: peaks outside the grid, without a track or a finite mass, and beyond ``max_peaks``
        self.outside = self.unlinked = self.dropped = 0

    def __len__(self) -> int:
        """Peaks kept."""
        return self._n

    def add(self, table: pd.DataFrame) -> None:
        """Take rows of linked peaks: ``frame`` (from 1), ``particle``, ``mass``, perhaps y and x.

        Raises TrackingError: a column is missing.
        """
        missing = [name for name in ("frame", "particle", "mass") if name not in table.columns]
        if missing:
            raise TrackingError(f"The table of tracks has no column {', '.join(missing)}.")
        placed = {"y", "x"} <= set(table.columns)
        # column by column: choosing two of a table takes pandas longer than all the rest here
        place = (
            np.column_stack([table[name].to_numpy(np.float32) for name in ("y", "x")])
            if placed
            else None
        )
        self.add_peaks(
            table["frame"].to_numpy(),
            table["particle"].to_numpy(),
            table["mass"].to_numpy(np.float64),
            place,
        )

    def add_peaks(
        self,
        frames: np.ndarray,
        particles: np.ndarray,
        masses: np.ndarray,
        positions: np.ndarray | None = None,
    ) -> None:
        """As `add`, from arrays of one length; ``positions`` (n, 2) are y and x in pixels."""
        point = self.grid.flat_indices(frames)
        inside = point >= 0
        self.outside += int(np.count_nonzero(~inside))
        np.add.at(self._total, point[inside], np.nan_to_num(masses[inside], posinf=0, neginf=0))
        np.add.at(self._peaks_per_point, point[inside], 1)
        linked = inside & (particles >= 0) & np.isfinite(masses)
        self.unlinked += int(np.count_nonzero(inside & ~linked))
        rows = np.flatnonzero(linked)
        room = self._max - self._n
        if len(rows) > room:
            self.dropped += len(rows) - room
            rows = rows[:room]
        end = self._n + len(rows)
        self._reserve(end)
        new = slice(self._n, end)
        self._particle[new] = particles[rows]
        self._point[new] = point[rows]
        self._mass[new] = masses[rows]
        self._place[new] = np.nan if positions is None else positions[rows]
        self._n = end

    def total(self) -> np.ndarray:
        """Mass of all peaks per point, with or without a track, grid.shape float64."""
        return self._total.reshape(self.grid.shape).copy()

    def peak_counts(self) -> np.ndarray:
        """Number of peaks per point, grid.shape int64."""
        return self._peaks_per_point.reshape(self.grid.shape).copy()

    def particles(self) -> np.ndarray:
        """Numbers of the tracks there are, growing."""
        return np.unique(self._particle[: self._n])

    def brightest(self, n: int | None = None) -> np.ndarray:
        """Numbers of the ``n`` tracks of the largest total mass (None: of all), brightest first."""
        particles, inverse = np.unique(self._particle[: self._n], return_inverse=True)
        totals = np.bincount(inverse, self._mass[: self._n], len(particles))
        return particles[np.argsort(-totals, kind="stable")[:n]]

    def map(self, particle: int) -> np.ndarray:
        """Map of one track, grid.shape float64; all 0 for a track that isn't there."""
        return self.maps([particle]).maps[0]

    def maps(self, particles: Iterable[int] | None = None, n: int | None = None) -> MapStack:
        """Maps of the tracks ``particles``, or of the ``n`` brightest (None: of all).

        A track that comes twice to one point keeps what came last.
        """
        wanted = self.brightest(n) if particles is None else np.fromiter(particles, np.int64)
        order = np.argsort(wanted, kind="stable")
        ranked = wanted[order]
        if np.any(ranked[1:] == ranked[:-1]):
            raise TrackingError("A track is asked for twice among the maps.")
        kept = self._particle[: self._n]
        at = np.searchsorted(ranked, kept)
        rows = np.flatnonzero(np.isin(kept, ranked))
        slot = order[at[rows]]
        mass = self._mass[rows]
        maps = np.zeros((len(wanted), self.grid.n_points))
        maps[slot, self._point[rows]] = mass
        place = self._place[rows].astype(np.float64) * mass[:, np.newaxis]
        with np.errstate(invalid="ignore"):  # a track that isn't there has no place
            weight = np.bincount(slot, mass, len(wanted))
            y = np.bincount(slot, place[:, 0], len(wanted)) / weight
            x = np.bincount(slot, place[:, 1], len(wanted)) / weight
        return MapStack(maps.reshape(-1, *self.grid.shape), wanted, y, x, self.grid)

    def _reserve(self, n: int) -> None:
        if n <= len(self._particle):
            return
        capacity = max(n, 2 * len(self._particle), _FIRST_CAPACITY)
        for name in ("_particle", "_point", "_mass", "_place"):
            old = getattr(self, name)
            new = np.empty((capacity, *old.shape[1:]), old.dtype)
            new[: self._n] = old[: self._n]
            setattr(self, name, new)


def track_maps(features: pd.DataFrame, grid: ScanGrid, n: int | None = None) -> MapStack:
    """Maps of the ``n`` brightest tracks (None: of all) of a linked table, brightest first."""
    maps = CrystalMaps(grid)
    maps.add(features)
    return maps.maps(n=n)
