"""Crystal maps of tracks: at the run's end as documents, and live as they grow."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from tomostream_ioc.documents.image_processor import FRAME
from tomostream_ioc.documents.results import MapsResult
from tomostream_ioc.documents.stage import OpenRun
from tomostream_ioc.documents.table_stage import TableRun, TableStage
from tomostream_ioc.documents.track_linker import PARTICLE, grid_of
from tomostream_ioc.tracking import CrystalMaps

log = logging.getLogger(__name__)

#: pixels of maps per event page: 16 MiB
_PAGE_PIXELS = 2 * 1024 * 1024


class MapRun(TableRun):
    """A run of tracks and the maps they make."""

    maps: CrystalMaps | None = None
    shown_at: float = float("-inf")


class CrystalMapper(TableStage):
    """Fills each track's mass into a grid of zeros at the points where it was seen.

    At the run's stop the stream "primary" has one event per track, brightest first: particle
    (int64), y, x (mean position in pixels), mass (of all its peaks) and map (the scan's shape,
    float64). The stream "total" has one event: total (mass of all peaks per point) and peaks (their
    number). While the run grows, `on_result` gets the maps so far, at most every
    ``live_interval_s``.

    max_maps : tracks that get a map, the brightest first; how many more there are is logged
    db : see Stage
    """

    stage_name = "crystal_mapper"
    needed = frozenset({FRAME, PARTICLE, "mass"})

    def __init__(self, *, max_maps: int = 1000, live_interval_s: float = 1.0, db: Any = None):
        super().__init__(db)
        self.max_maps = max_maps
        self.live_interval_s = live_interval_s

    def _parameters(self, start: Mapping[str, Any]) -> dict[str, Any]:
        grid = grid_of(start)
        if grid is None:
            return {"max_maps": self.max_maps}
        return {
            "max_maps": self.max_maps,
            "grid_shape": grid.shape,
            "grid_extents": grid.extents,
            "grid_snaking": grid.snaking,
            "grid_names": grid.names,
        }

    def _open(self, start: Mapping[str, Any]) -> MapRun:
        run = MapRun(start, self._derive(start))
        grid = grid_of(start)
        if grid is None:
            run.derived.problem("run has no grid (shape, or map_size) in its start document")
        else:
            run.maps = CrystalMaps(grid)
        return run

    def process(self, run: TableRun, frame: int, table: pd.DataFrame) -> None:
        run = _maps(run)
        if run.maps is None:
            return
        run.maps.add(table)
        now = time.monotonic()
        if self.on_result is not None and now - run.shown_at >= self.live_interval_s:
            self._show(run, run.maps, final=False)
            # from its end: maps that take long to make don't take all the time there is
            run.shown_at = time.monotonic()

    def _show(self, run: MapRun, maps: CrystalMaps, final: bool) -> None:
        stack = maps.maps(n=self.max_maps)
        self._give(MapsResult(run.derived.uid, stack, maps.total(), final))

    def _finish(self, run: OpenRun) -> None:
        super()._finish(run)
        run = _maps(run)
        maps = run.maps
        if maps is None:
            return
        for n, what in (
            (maps.outside, "peaks lie outside the grid"),
            (maps.unlinked, "peaks have no track"),
            (maps.dropped, "peaks are more than maps can hold"),
        ):
            if n:
                run.derived.problem(what, n)
        taken = run.taken or time.time()
        run.derived.event(
            {"total": maps.total(), "peaks": maps.peak_counts()}, taken, stream="total"
        )
        brightest = maps.brightest(self.max_maps)
        n_tracks = len(maps.particles())
        if n_tracks > len(brightest):
            log.warning(
                "%s: maps of the %d brightest of %d tracks",
                self.stage_name,
                len(brightest),
                n_tracks,
            )
        step = max(1, _PAGE_PIXELS // maps.grid.n_points)
        for first in range(0, len(brightest), step):
            stack = maps.maps(brightest[first : first + step])
            columns = {
                PARTICLE: stack.particles,
                "y": stack.y,
                "x": stack.x,
                "mass": stack.maps.reshape(len(stack), -1).sum(axis=1, dtype=np.float64),
                "map": stack.maps,
            }
            run.derived.page(columns, taken)
            self.counts.found += len(stack)
        if self.on_result is not None:
            self._show(run, maps, final=True)


def _maps(run: OpenRun) -> MapRun:
    if not isinstance(run, MapRun):
        raise TypeError(f"{type(run).__name__} has no maps")
    return run
