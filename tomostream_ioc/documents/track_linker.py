"""Links peaks of successive frames into tracks, as they come."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from tomostream_ioc.documents.image_processor import FRAME
from tomostream_ioc.documents.peak_tracker import columns_of
from tomostream_ioc.documents.results import TracksResult
from tomostream_ioc.documents.stage import OpenRun
from tomostream_ioc.documents.table_stage import TableRun, TableStage
from tomostream_ioc.errors import TrackingError
from tomostream_ioc.tracking import OnlineLinker, ScanGrid

log = logging.getLogger(__name__)
PARTICLE = "particle"


class LinkRun(TableRun):
    """A run of peaks and what links them."""

    linker: OnlineLinker


class TrackLinker(TableStage):
    """Adds to each peak the column `particle`, the number of its track (int64, from 0).

    Links what passes through it: no database is needed, and none is read. A frame's peaks are
    linked, and come out as one event page, when the next frame's first peak or the run's stop is
    there; the result is that of linking the whole table at once.

    search_range : pixels that a peak may move between frames
    memory : frames in which it may be missing; None for what the scan's grid asks for, which is
        how long a spot is out of sight where a snaking scan turns; 0 for a run that is no grid
    db : see Stage
    keywords : any other of trackpy.link

    Raises TrackingError: parameters that can't be used.
    """

    stage_name = "track_linker"
    needed = frozenset({FRAME, "y", "x"})

    def __init__(
        self,
        search_range: Any = None,
        memory: int | None = None,
        *,
        db: Any = None,
        **keywords: Any,
    ):
        if search_range is None:
            raise TrackingError("TrackLinker needs search_range: pixels between frames, e.g. 50.")
        OnlineLinker(search_range, memory, None, **keywords)  # refuses what it can't use
        super().__init__(db)
        self.search_range = search_range
        self.memory = memory
        self.keywords = keywords

    def _linker(self, start: Mapping[str, Any]) -> OnlineLinker:
        return OnlineLinker(self.search_range, self.memory, grid_of(start), **self.keywords)

    def _parameters(self, start: Mapping[str, Any]) -> dict[str, Any]:
        memory = self._linker(start).memory
        return {"search_range": self.search_range, "memory": memory, **self.keywords}

    def _open(self, start: Mapping[str, Any]) -> LinkRun:
        run = LinkRun(start, self._derive(start))
        run.linker = self._linker(start)
        return run

    def process(self, run: TableRun, frame: int, table: pd.DataFrame) -> None:
        if not isinstance(run, LinkRun):
            raise TypeError(f"{type(run).__name__} has no linker")
        positions = np.column_stack([table[name].to_numpy(np.float64) for name in ("y", "x")])
        table[PARTICLE] = run.linker.add(positions, frame)
        run.derived.page(columns_of(table), run.taken)
        self.counts.found += len(table)
        self._give(TracksResult(run.derived.uid, frame, table))

    def _finish(self, run: OpenRun) -> None:
        super()._finish(run)
        if not isinstance(run, LinkRun):
            return
        counts = run.linker.counts
        if counts.unlinked_peaks:
            run.derived.problem("peaks have no finite position", counts.unlinked_peaks)
        if counts.broken_groups:
            run.derived.problem("crowds of peaks were too large to link", counts.broken_groups)
        log.info("%s: %s", self.stage_name, counts)


def grid_of(start: Mapping[str, Any]) -> ScanGrid | None:
    """The scan's grid, or None for a run that is none."""
    try:
        return ScanGrid.from_start(start)
    except TrackingError as error:
        log.info("run %s has no grid: %s", start.get("uid"), error)
        return None
