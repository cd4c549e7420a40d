"""Peaks and tracks as NTTable, processed images and maps as NTNDArray, over PVA."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping

import numpy as np
from p4p import Value
from p4p.nt import NTTable
from p4p.server import StaticProvider
from p4p.server.raw import SharedPV

from tomostream_ioc.epics.ntndarray import image_value, mono_attributes
from tomostream_ioc.model.crystal import PeakTable

log = logging.getLogger(__name__)

_EMPTY = np.empty((0, 0), np.float32)
_MAX_INT32 = 2**31 - 1
#: p4p's codes of the columns; all others are double
_COLUMN_CODES = {"frame": "al", "unique_id": "al", "particle": "al"}
PEAK_COLUMNS = (
    "y", "x", "mass", "size", "ecc", "signal", "raw_mass", "ep", "frame", "unique_id",
)  # fmt: skip
TRACK_COLUMNS = (*PEAK_COLUMNS, "particle")


class PvaCrystal:
    """A CrystalSink: ``prefix`` + Peaks, Tracks, Processed and Map on a p4p server.

    A channel that nobody looks at costs nothing; who connects is given the newest result.
    """

    def __init__(self, prefix: str):
        self.provider = StaticProvider("crystal")
        self._peaks = _TableChannel(PEAK_COLUMNS)
        self._tracks = _TableChannel(TRACK_COLUMNS)
        self._processed = _ImageChannel()
        self._map = _ImageChannel()
        for name, channel in (
            ("Peaks", self._peaks),
            ("Tracks", self._tracks),
            ("Processed", self._processed),
            ("Map", self._map),
        ):
            self.provider.add(prefix + name, channel.pv)

    def close(self) -> None:
        self.provider.close()

    def peaks(self, table: PeakTable) -> None:
        self._peaks.show(table)

    def tracks(self, table: PeakTable) -> None:
        self._tracks.show(table)

    def processed(self, image: np.ndarray, unique_id: int, timestamp_s: float) -> None:
        self._processed.show(image, {"FrameId": unique_id}, timestamp_s)

    def crystal_map(self, image: np.ndarray, attributes: Mapping[str, object]) -> None:
        self._map.show(image, attributes)


class _Channel:
    """A SharedPV that is posted to while somebody looks at it."""

    def __init__(self, initial: Value):
        self._lock = threading.Lock()
        self._watched = False
        self._newest: Callable[[], Value] | None = None
        self.pv = SharedPV(handler=self, initial=initial)

    def offer(self, make: Callable[[], Value]) -> None:
        """The newest content: made now if it is looked at, else when the next client comes."""
        with self._lock:
            self._newest = make
            if self._watched:
                self._post()

    def _post(self) -> None:
        make, self._newest = self._newest, None
        if make is None:
            return
        try:
            self.pv.post(make())
        except Exception:  # one bad result must not end all others
            log.exception("A result of peak tracking could not be posted")

    # --- called by p4p, from threads of its own

    def onFirstConnect(self, _pv: SharedPV) -> None:  # noqa: N802 - p4p's name
        with self._lock:
            self._watched = True
            self._post()

    def onLastDisconnect(self, _pv: SharedPV) -> None:  # noqa: N802 - p4p's name
        with self._lock:
            self._watched = False


class _TableChannel(_Channel):
    def __init__(self, columns: tuple[str, ...]):
        self._columns = columns
        self._type = NTTable.buildType([(name, _COLUMN_CODES.get(name, "ad")) for name in columns])
        super().__init__(self._value(PeakTable({name: np.empty(0) for name in columns})))

    def show(self, table: PeakTable) -> None:
        self.offer(lambda: self._value(table))

    def _value(self, table: PeakTable) -> Value:
        value = Value(self._type, {"labels": list(self._columns)})
        for name in self._columns:
            dtype = np.int64 if name in _COLUMN_CODES else np.float64
            value[f"value.{name}"] = np.ascontiguousarray(table.columns[name], dtype)
        value["timeStamp.secondsPastEpoch"], value["timeStamp.nanoseconds"] = _stamp(
            table.timestamp_s or time.time()
        )
        return value


class _ImageChannel(_Channel):
    def __init__(self) -> None:
        self._unique_id = 0
        super().__init__(image_value(_EMPTY, 0, attributes=mono_attributes()))

    def show(
        self, image: np.ndarray, attributes: Mapping[str, object], timestamp_s: float = 0.0
    ) -> None:
        """``image`` is taken over as it is now: the caller may use its memory again."""
        self._unique_id = self._unique_id % _MAX_INT32 + 1
        unique_id = self._unique_id
        typed = {name: _typed(value) for name, value in attributes.items()}
        kept = np.array(image, np.float32)
        self.offer(
            lambda: image_value(
                kept, unique_id, attributes=mono_attributes(**typed), data_time_s=timestamp_s
            )
        )


def _typed(value: object) -> tuple[str, object]:
    """With p4p's code: viewers take integers of 32 bits."""
    if isinstance(value, int):
        return ("i", value) if abs(value) <= _MAX_INT32 else ("l", value)
    return ("d", value) if isinstance(value, float) else ("s", str(value))


def _stamp(posix_s: float) -> tuple[int, int]:
    seconds = int(posix_s)
    return seconds, int((posix_s - seconds) * 1e9)
