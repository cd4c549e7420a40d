"""Results on their way to displays: tables at once, images and maps a few times a second."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from tomostream_ioc.crystal.points import Point
from tomostream_ioc.model.crystal import MAP_OF, CrystalSink, PeakTable

if TYPE_CHECKING:
    import pandas as pd

    from tomostream_ioc.crystal.search import Found, Search

_IMAGE_PERIOD_S = 0.1
_MAP_PERIOD_S = 0.25
_TOTAL, _BRIGHTEST, _TRACK = MAP_OF
_PEAK_COLUMNS = ("y", "x", "mass", "size", "ecc", "signal", "raw_mass", "ep", "frame")


class Show:
    """Feeds a CrystalSink; ``set_map`` may come from any thread, the rest from the run's."""

    def __init__(self, sink: CrystalSink):
        self._sink = sink
        self._lock = threading.Lock()
        self._wanted = (_TOTAL, 0)
        self._stale = False
        self._image_s = self._map_s = 0.0
        self.track = -1  # whose map is shown; -1 = total intensity

    def set_map(self, map_of: str, track: int) -> None:
        with self._lock:
            self._wanted = (map_of, track)
            self._stale, self._map_s = True, 0.0

    def new_scan(self) -> None:
        self._stale, self._map_s = True, 0.0

    def found(self, found: Found, point: Point, search: Search) -> None:
        """The results of one point."""
        peaks = _table(found.peaks, point, _PEAK_COLUMNS)
        self._sink.peaks(peaks)
        self._sink.tracks(_table(found.peaks, point, (*_PEAK_COLUMNS, "particle")))
        now_s = time.monotonic()
        if now_s - self._image_s >= _IMAGE_PERIOD_S:
            self._image_s = now_s
            self._sink.processed(found.image, point.unique_id, point.timestamp_s)
        self._stale = True
        self.refresh(search)

    def refresh(self, search: Search | None) -> None:
        """Show the map, if it has changed and it is time."""
        now_s = time.monotonic()
        with self._lock:
            if not self._stale or now_s - self._map_s < _MAP_PERIOD_S:
                return
            self._stale, self._map_s = False, now_s
            map_of, track = self._wanted
        if search is None or search.maps is None:
            self.track = -1
            return
        maps = search.maps
        if map_of == _BRIGHTEST:
            brightest = maps.brightest(1)
            track = int(brightest[0]) if len(brightest) else -1
        self.track = -1 if map_of == _TOTAL else track
        image = maps.total() if self.track < 0 else maps.map(self.track)
        self._sink.crystal_map(_plane(image), self._attributes(map_of, image))

    def _attributes(self, map_of: str, image: np.ndarray) -> Mapping[str, object]:
        return {"MapOf": map_of, "Track": self.track, "Points": int(image.size)}


def _plane(image: np.ndarray) -> np.ndarray:
    """float32 (n_rows, n_cols) of a map of any number of axes; the slow ones stand below each
    other."""
    return np.ascontiguousarray(image.reshape(-1, image.shape[-1]), np.float32)


def _table(peaks: pd.DataFrame, point: Point, names: tuple[str, ...]) -> PeakTable:
    columns = {
        name: peaks[name].to_numpy() if name in peaks else np.full(len(peaks), np.nan)
        for name in names
    }
    columns["unique_id"] = np.full(len(peaks), point.unique_id, np.int64)
    return PeakTable(columns, point.unique_id, point.timestamp_s)
