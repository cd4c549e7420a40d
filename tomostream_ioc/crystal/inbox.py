"""What a source brings, in a bounded queue, with every loss counted."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from tomostream_ioc.crystal.points import Point, PointBuilder
from tomostream_ioc.errors import TrackingError
from tomostream_ioc.model.control import Severity
from tomostream_ioc.model.crystal import CHANNEL_RECORDS, CrystalCounts, ScanSetup
from tomostream_ioc.model.frame import Frame
from tomostream_ioc.model.notices import Notices

if TYPE_CHECKING:
    from tomostream_ioc.tracking import ScanGrid

log = logging.getLogger(__name__)

#: bytes of images that may wait for the search; a single one always may
QUEUE_BYTES = 512 << 20


@dataclass(frozen=True, slots=True)
class ScanBegins:
    """Points that follow belong to a new scan."""

    grid: ScanGrid | None
    note: str


@dataclass(frozen=True, slots=True)
class ScanEnds:
    note: str


Item = Point | ScanBegins | ScanEnds


class Inbox:
    """A PointHandler whose items one thread takes. Where the queue is full, the new point is lost:
    dropping one that waits would make a hole in a track that could still be followed."""

    def __init__(self, notices: Notices, queue_bytes: int = QUEUE_BYTES):
        self.wake = threading.Event()
        self._notices = notices
        self._limit = queue_bytes
        self._lock = threading.Lock()
        self._items: deque[Item] = deque()
        self._bytes = 0
        self._counts = CrystalCounts()
        self._points = PointBuilder(1)
        self._grid: ScanGrid | None = None
        self._channel_record = CHANNEL_RECORDS["Detector"]
        self._trouble = ""

    @property
    def received(self) -> int:
        return self._counts.received

    @property
    def trouble(self) -> str:
        """Why no image can come; '' where the source is connected."""
        return self._trouble

    def counts(self, found: CrystalCounts) -> CrystalCounts:
        """``found`` by the search, with what has become of the images before it."""
        with self._lock:
            mine = self._counts
        return replace(
            found,
            received=mine.received,
            rejected=mine.rejected,
            missed=mine.missed,
            duplicate=mine.duplicate,
            dropped=mine.dropped,
        )

    # ---- the thread that takes

    def new_run(self, setup: ScanSetup) -> None:
        self.clear()
        with self._lock:
            self._counts = CrystalCounts()
            self._points = PointBuilder(setup.frames_per_point)
            self._channel_record = CHANNEL_RECORDS[setup.source]
            self._trouble = ""

    def end_run(self) -> None:
        """Its source is closed: nothing waits any more, and nobody misses a connection."""
        self.clear()
        self._notices.clear_alarm(self._channel_record)

    def clear(self) -> None:
        with self._lock:
            self._items.clear()
            self._bytes = 0

    def wait(self, timeout_s: float) -> None:
        self.wake.wait(timeout_s)
        self.wake.clear()

    def take(self, timeout_s: float) -> Item | None:
        """The next item; None where none comes in time, or something else woke the thread."""
        if not self._items:
            self.wait(timeout_s)
        with self._lock:
            if not self._items:
                return None
            item = self._items.popleft()
            if isinstance(item, Point):
                self._bytes -= item.images.nbytes
            return item

    # ---- PointHandler

    def on_frame(self, frame: Frame) -> None:
        with self._lock:
            taken = self._points.add(frame)
        self._add(
            received=int(not taken.state),
            missed=taken.missed,
            duplicate=taken.duplicate,
            rejected=int(taken.late),
        )
        if taken.late:
            self._notices.say("late", f"Image {frame.unique_id} came after its point was searched")
        if taken.restart:
            self._put(ScanBegins(self._grid, "Running: the detector counts anew, a new scan"))
        for point in taken.points:
            self._put(point)

    def on_point(self, images: np.ndarray, number: int, timestamp_s: float) -> None:
        n_frames = images.shape[0] if images.ndim == 3 else 1
        self._add(received=n_frames)
        self._put(Point(number, images, number, timestamp_s, time.monotonic(), n_frames))

    def on_scan(self, start: Mapping[str, object]) -> None:
        from tomostream_ioc.tracking import ScanGrid  # loaded with the first run

        try:
            grid = ScanGrid.from_start(start)
        except TrackingError as error:
            grid = None
            self._notices.say("grid", f"There will be no map: {error}")
        self._grid = grid
        shape = "" if grid is None else " of " + " x ".join(map(str, grid.shape)) + " points"
        self._put(ScanBegins(grid, f"Running: a scan{shape} has begun"))

    def on_scan_end(self, reason: str) -> None:
        self._put(ScanEnds(f"Running: the scan has ended{': ' + reason if reason else ''}"))

    def on_rejected(self, cause: str, reason: str, unique_id: int | None = None) -> None:
        missed = 0
        if unique_id is not None:
            with self._lock:
                missed = self._points.leave_out(unique_id)
        self._add(rejected=1, missed=missed)
        self._notices.say(cause, f"Image rejected: {reason}")

    def on_missed(self, count: int, reason: str) -> None:
        self._add(missed=count)
        self._notices.say("missed", reason)

    def on_connection(self, trouble: str) -> None:
        self._trouble = trouble
        if trouble:
            self._notices.raise_alarm(self._channel_record, Severity.INVALID, "COMM", trouble)
        else:
            self._notices.clear_alarm(self._channel_record)
        self.wake.set()

    # ----

    def set_grid(self, grid: ScanGrid | None) -> None:
        """The grid of a detector's scans, which say nothing of it themselves."""
        self._grid = grid

    def _put(self, item: Item) -> None:
        n_bytes = item.images.nbytes if isinstance(item, Point) else 0
        with self._lock:
            full = self._bytes > 0 and self._bytes + n_bytes > self._limit
            if not full:
                self._items.append(item)
                self._bytes += n_bytes
        if full:
            self._add(dropped=item.n_frames if isinstance(item, Point) else 0)
            self._notices.say("dropped", "Images come faster than peaks are found: some are lost")
        self.wake.set()

    def _add(self, **increments: int) -> None:
        with self._lock:
            new = {name: getattr(self._counts, name) + n for name, n in increments.items()}
            self._counts = replace(self._counts, **new)
