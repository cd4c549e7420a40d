"""Peaks of successive frames linked into tracks: a whole table at once, or frame by frame.

The algorithm is Crocker and Grier's (J. Colloid Interface Sci. 179, 298, 1996) as trackpy has it:
of all ways to link the peaks of two frames, none moving farther than ``search_range``, the one with
the least sum of squared displacements, a peak without partner counting search_range squared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import min_weight_full_bipartite_matching
from trackpy.linking.linking import Linker
from trackpy.linking.utils import SubnetOversizeException
from trackpy.utils import guess_pos_columns

from tomostream_ioc.errors import TrackingError
from tomostream_ioc.tracking.grid import ScanGrid

#: what a peak gets that can't be linked, as its position is not finite
UNLINKED = -1
#: a group of peaks that compete for each other is solved up to this many; larger ones stay unlinked
MAX_GROUP = 3000


@dataclass(frozen=True, slots=True)
class LinkCounts:
    """What happened while linking."""

    frames: int = 0  #: frames linked, without those skipped
    skipped_frames: int = 0  #: frame numbers that were left out
    tracks: int = 0  #: tracks begun
    unlinked_peaks: int = 0  #: peaks whose position is not finite: they get particle -1
    large_groups: int = 0  #: groups too large for trackpy, linked by an assignment solver instead
    broken_groups: int = 0  #: groups larger than MAX_GROUP: all their tracks end, new ones begin


class OnlineLinker:
    """Gives each peak its track's number as soon as its frame is there.

    Parameters
    ----------
    search_range : pixels that a peak may move between frames; one number, or one per axis
    memory : frames in which a peak may be missing and still be the same; None takes it from
        ``grid`` (`ScanGrid.memory`, one or two rows), or 0 without one
    keywords : those of trackpy.link (predictor, adaptive_stop, adaptive_step, neighbor_strategy,
        link_strategy, dist_func, to_eucl)

    A frame number that is skipped counts as a frame without peaks. No crowd of peaks stops the
    scan: where trackpy refuses a group of peaks as too large (SubnetOversizeException), the same
    minimum is found by an assignment solver, up to MAX_GROUP peaks; larger groups stay unlinked.
    Both are counted. What is held grows with the peaks of the last ``memory`` frames, not with the
    run.

    Raises TrackingError: keywords that trackpy refuses.
    """

    def __init__(
        self,
        search_range: float | Sequence[float],
        memory: int | None = None,
        grid: ScanGrid | None = None,
        **keywords: Any,
    ):
        if memory is None:
            memory = grid.memory if grid is not None else 0
        if memory < 0 or memory != int(memory):
            raise TrackingError(f"memory is {memory}: a number of frames, 0 or more, is needed.")
        ranges = np.asarray(search_range, np.float64)
        if ranges.ndim > 1 or not np.all(np.isfinite(ranges)) or np.any(ranges <= 0):
            raise TrackingError(f"search_range is {search_range}: pixels above 0 are needed.")
        self._n_axes = ranges.size if ranges.ndim else None
        self._memory = int(memory)
        try:
            self._linker = _BoundedLinker(search_range, memory=self._memory, **keywords)
        except (TypeError, ValueError) as error:
            raise TrackingError(f"The peaks can't be linked like this: {error}") from error
        self._last: int | None = None
        self._n_frames = self._n_skipped = self._n_tracks = self._n_unlinked = 0

    @property
    def memory(self) -> int:
        return self._memory

    @property
    def counts(self) -> LinkCounts:
        return LinkCounts(
            self._n_frames,
            self._n_skipped,
            self._n_tracks,
            self._n_unlinked,
            self._linker.large_groups,
            self._linker.broken_groups,
        )

    def add(self, positions: np.ndarray, frame: int) -> np.ndarray:
        """Link the peaks of one frame to those of the frames before.

        ``positions`` (n, n_axes), usually of (y, x); n may be 0. ``frame`` is the frame's number,
        which must grow. Returns (n,) int64: tracks count from 0 in the order in which they begin,
        -1 for a position that is not finite.

        Raises TrackingError: a frame that doesn't come after the last one, or no positions.
        """
        coords = np.asarray(positions, np.float64)
        if coords.ndim != 2 or (self._n_axes is not None and coords.shape[1] != self._n_axes):
            axes = "n_axes" if self._n_axes is None else self._n_axes
            raise TrackingError(f"Positions are (n, {axes}), not of shape {coords.shape}.")
        frame = int(frame)
        if self._last is not None and frame <= self._last:
            raise TrackingError(
                f"Frame {frame} came after frame {self._last}: peaks are linked in order of frames."
            )
        good = np.isfinite(coords).all(axis=1)
        self._n_axes = coords.shape[1]
        if self._last is None:
            self._linker.init_level(coords[good], frame)
        else:
            skipped = frame - self._last - 1
            self._n_skipped += skipped
            # after memory + 1 empty frames nothing is left to remember
            for missing in range(frame - min(skipped, self._memory + 1), frame):
                self._linker.next_level(np.empty((0, coords.shape[1])), missing)
            self._linker.next_level(coords[good], frame)
        self._last = frame
        self._n_frames += 1
        self._n_unlinked += int(np.count_nonzero(~good))
        particles = np.full(len(coords), UNLINKED, np.int64)
        particles[good] = self._numbers()
        return particles

    def link(
        self, peaks: pd.DataFrame, frame: int, pos_columns: Sequence[str] | None = None
    ) -> pd.DataFrame:
        """A copy of one frame's ``peaks`` with the column ``particle``; else as `add`."""
        columns = _pos_columns(peaks, pos_columns)
        linked = peaks.copy()
        linked["particle"] = self.add(peaks[columns].to_numpy(np.float64), frame)
        return linked

    def _numbers(self) -> list[int]:
        """Numbers of the last frame's tracks.

        trackpy counts tracks in its class: two linkers at work would share, and reset, one count.
        """
        numbers = []
        level: Any = self._linker.hash
        for point in level.points:
            track = point.track
            if not hasattr(track, "number"):
                track.number = self._n_tracks
                self._n_tracks += 1
            numbers.append(track.number)
        return numbers


def link(
    features: pd.DataFrame,
    search_range: float | Sequence[float],
    memory: int | None = None,
    pos_columns: Sequence[str] | None = None,
    t_column: str = "frame",
    grid: ScanGrid | None = None,
    **keywords: Any,
) -> pd.DataFrame:
    """trackpy.link: a copy of ``features``, sorted by frame, with the column ``particle``.

    As `OnlineLinker` does it, whose parameters and bounds hold: ``memory`` None takes that of
    ``grid``, peaks without a finite position get -1, and no group of peaks is too large.

    Raises TrackingError: a column is missing, or keywords that trackpy refuses.
    """
    linked, _counts = link_and_count(
        features, search_range, memory, pos_columns, t_column, grid, **keywords
    )
    return linked


def link_and_count(
    features: pd.DataFrame,
    search_range: float | Sequence[float],
    memory: int | None = None,
    pos_columns: Sequence[str] | None = None,
    t_column: str = "frame",
    grid: ScanGrid | None = None,
    **keywords: Any,
) -> tuple[pd.DataFrame, LinkCounts]:
    """`link`, and what happened on the way."""
    columns = _pos_columns(features, pos_columns)
    if t_column not in features.columns:
        raise TrackingError(f"The table of peaks has no column {t_column!r} with frame numbers.")
    linker = OnlineLinker(search_range, memory, grid, **keywords)
    linked = features.copy()
    frames = linked[t_column].to_numpy()
    if frames.dtype.kind not in "ui":
        if len(frames) and not np.isfinite(frames.astype(np.float64)).all():
            raise TrackingError(f"The column {t_column!r} holds frame numbers that are not finite.")
        linked[t_column] = frames.astype(np.int64)
    order = np.argsort(linked[t_column].to_numpy(), kind="stable")
    linked = linked.iloc[order]
    positions = linked[columns].to_numpy(np.float64)
    numbers, first = np.unique(linked[t_column].to_numpy(), return_index=True)
    parts = np.split(positions, first[1:]) if len(numbers) else []
    particles = [linker.add(part, int(n)) for n, part in zip(numbers, parts, strict=True)]
    linked["particle"] = np.concatenate(particles) if particles else np.empty(0, np.int64)
    return linked, linker.counts


def _pos_columns(table: pd.DataFrame, pos_columns: Sequence[str] | None) -> list[str]:
    columns = guess_pos_columns(table) if pos_columns is None else list(pos_columns)
    missing = [name for name in columns if name not in table.columns]
    if missing:
        raise TrackingError(f"The table of peaks has no column {', '.join(map(repr, missing))}.")
    return columns


class _BoundedLinker(Linker):
    """trackpy's linker, which never gives up and whose time is bounded."""

    # trackpy's 30 let its branch and bound run for minutes where 10 take 20 ms (up to 28 peaks, one
    # or two per search range squared); the solver below finds the same minimum at once
    MAX_SUB_NET_SIZE = 10

    def __init__(self, search_range: Any, **keywords: Any):
        super().__init__(search_range, **keywords)
        self._solve_small = self.subnet_linker
        self.subnet_linker = self._solve
        self.large_groups = 0
        self.broken_groups = 0

    def _solve(self, sources: set, targets: set, search_range: float) -> tuple[list, list]:
        """Points to link, as two lists: None for a source that is lost or a target that is new."""
        if len(sources) < 2 and len(targets) < 2:
            return self._solve_small(sources, targets, search_range)
        candidates = {point: list(point.forward_cands) for point in sources}
        try:
            return self._solve_small(sources, targets, search_range)
        except SubnetOversizeException:
            pass  # which leaves marks in the candidates, but not in the sets
        if len(sources) + len(targets) > MAX_GROUP:
            self.broken_groups += 1
            return [*sources, *[None] * len(targets)], [*[None] * len(sources), *targets]
        self.large_groups += 1
        return _assign(candidates, list(targets), search_range)


def _assign(candidates: dict, targets: list, search_range: float) -> tuple[list, list]:
    """The least sum of squared displacements, as a sparse assignment problem.

    Each source takes one of its targets at the cost of the distance squared, or a column of its
    own at search_range squared, which means that it is lost. 1 is added to each cost, as the solver
    takes 0 for no edge; each source takes just one edge, so that this changes no choice.
    """
    column = {point: j for j, point in enumerate(targets)}
    rows, columns, costs = [], [], []
    sources = list(candidates)
    for i, source in enumerate(sources):
        for target, distance in candidates[source]:
            rows.append(i)
            columns.append(column[target])
            costs.append(1.0 + distance**2)
        rows.append(i)
        columns.append(len(targets) + i)
        costs.append(1.0 + search_range**2)
    shape = (len(sources), len(targets) + len(sources))
    graph = csr_matrix((costs, (rows, columns)), shape=shape)
    _all_sources, chosen = min_weight_full_bipartite_matching(graph)
    found = [targets[j] if j < len(targets) else None for j in chosen]
    new = set(targets).difference(found)
    return [*sources, *[None] * len(new)], [*found, *new]
