"""Live peak tracking: a thread that takes points from a source and searches them.

What does the work is loaded with the first run: trackpy and pandas take seconds, and most programs
never track a peak.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from tomostream_ioc.crystal.inbox import Inbox, ScanBegins, ScanEnds
from tomostream_ioc.crystal.points import Point
from tomostream_ioc.crystal.show import Show
from tomostream_ioc.errors import ArmingError, TomoStreamError, TrackingError
from tomostream_ioc.model.control import Severity
from tomostream_ioc.model.crystal import (
    CrystalListener,
    CrystalSink,
    CrystalState,
    CrystalStatus,
    PeakParams,
    PointSource,
    ScanSetup,
)
from tomostream_ioc.model.jobs import Job, JobThread
from tomostream_ioc.model.notices import Notices
from tomostream_ioc.model.rates import Rate

if TYPE_CHECKING:
    from tomostream_ioc.crystal.background import BackgroundTaker
    from tomostream_ioc.crystal.search import Found, Search
    from tomostream_ioc.tracking import ScanGrid

log = logging.getLogger(__name__)

_IDLE_TICK_S = 0.2
_STALL_S = 5.0
_STATUS, _FILE = "Crystal:Status", "Crystal:BackgroundFile"


class CrystalRunner:
    """Implements CrystalControl. `start_thread` first, `shutdown` last.

    ``sources`` has for each choice of Crystal:Source how to make one.
    """

    def __init__(self, sources: Mapping[str, Callable[[], PointSource]], sink: CrystalSink):
        self._sources = sources
        self._sink = sink
        self._show = Show(sink)
        self._notices = Notices()
        self._inbox = Inbox(self._notices)
        self._listener: CrystalListener | None = None
        self._lock = threading.Lock()
        # ---- under the lock
        self._status = CrystalStatus(message="Idle: put Crystal:Start to Acquire to begin")
        self._params = PeakParams()
        self._background_file: str | None = None  # to be read; None: nothing new
        self._taker: BackgroundTaker | None = None
        self._requests = 0
        # ---- the thread's own
        self._background: np.ndarray | None = None
        self._search: Search | None = None
        self._point_rate = Rate()
        self._frame_rate = Rate()
        self._jobs = JobThread[ScanSetup](
            "peak tracking", self._inbox.wake, self._wait, self._run, self._ended
        )

    # ---- CrystalControl, from any thread

    def set_listener(self, listener: CrystalListener) -> None:
        self._listener = listener

    def start(self, setup: ScanSetup) -> int:
        return self._jobs.ask(setup)

    def abort(self) -> None:
        self._jobs.cancel()

    def set_params(self, params: PeakParams) -> None:
        with self._lock:
            self._params = params

    def set_background_file(self, path: str) -> None:
        with self._lock:
            self._background_file = path
        self._inbox.wake.set()

    def take_background(self, n_frames: int) -> int:
        from tomostream_ioc.crystal.background import BackgroundTaker

        with self._lock:
            if self._taker is None:
                self._requests += 1
                self._taker = BackgroundTaker(self._requests, n_frames)
            request_id = self._taker.request_id
        if not self._jobs.busy:
            self._end_taking("No background: put Crystal:Start to Acquire first")
        return request_id

    def set_map(self, map_of: str, track: int) -> None:
        self._show.set_map(map_of, track)
        self._inbox.wake.set()

    def status(self) -> CrystalStatus:
        with self._lock:
            status = self._status
        return replace(
            status,
            message=self._notices.text() or status.message,
            counts=self._inbox.counts(status.counts),
            frame_rate_hz=self._frame_rate.update(self._inbox.received),
            point_rate_hz=self._point_rate.update(status.counts.points),
            map_track=self._show.track,
            alarms=self._notices.alarms(),
        )

    # ---- the thread

    def start_thread(self) -> None:
        self._jobs.start()

    def shutdown(self, timeout_s: float = 4.0) -> bool:
        """End the run and the thread; False when they did not end in time."""
        self._jobs.close()
        return self._jobs.join(timeout_s)

    def _wait(self) -> None:
        self._inbox.wait(_IDLE_TICK_S)
        self._read_background()
        self._show.refresh(self._search)

    def _run(self, job: Job[ScanSetup]) -> None:
        run_id, setup = job.run_id, job.request
        self._notices.clear()
        self._inbox.new_run(setup)
        self._set(CrystalStatus(state=CrystalState.STARTING, run_id=run_id, message="Starting"))
        source: PointSource | None = None
        try:
            source = self._sources[setup.source]()
            grid = _grid(setup)
            self._inbox.set_grid(grid)
            self._begin(grid)
            if self._search is not None:
                self._set_message(CrystalState.STARTING, "Starting: compiling, once after a change")
                self._search.warm_up()
            what = source.open(setup, self._inbox)
            self._set_message(CrystalState.RUNNING, f"Running: waiting for images of {what}")
            self._follow(job, what)
            self._end(CrystalState.IDLE, "Stopped")
        except ArmingError as error:
            self._notices.raise_alarm(_STATUS, Severity.MINOR, "STATE", str(error))
            self._end(CrystalState.IDLE, f"Not started: {error}")
        except Exception as error:
            # whatever a library throws: the records stay alive and say it
            log.exception("Peak tracking failed")
            text = str(error) if isinstance(error, TomoStreamError) else repr(error)
            self._notices.raise_alarm(_STATUS, Severity.MAJOR, "STATE", text)
            self._end(CrystalState.FAULT, f"Fault: {text}. Put Crystal:Start to try again")
        finally:
            if source is not None:
                source.close()
            self._inbox.end_run()

    def _ended(self, run_id: int) -> None:
        self._end_taking("The run ended before the background was taken")
        if self._listener is not None:
            self._listener.crystal_ended(run_id)

    def _follow(self, job: Job[ScanSetup], what: str) -> None:
        """Take one item after the other until the job is cancelled."""
        newest_s = time.monotonic()
        stalled = ended = False
        trouble = ""
        while not job.cancelled:
            self._read_background()
            item = self._inbox.take(_IDLE_TICK_S)
            self._show.refresh(self._search)
            if item is None:
                if trouble != self._inbox.trouble:
                    trouble = self._inbox.trouble
                    newest_s, stalled = time.monotonic(), bool(trouble) or ended
                    note = trouble or f"connected, waiting for images of {what}"
                    self._set_message(CrystalState.RUNNING, f"Running: {note}")
                elif not stalled and time.monotonic() - newest_s > _STALL_S:
                    stalled = True
                    self._set_message(CrystalState.RUNNING, f"Running: no images of {what} come")
                continue
            newest_s, stalled, ended, trouble = time.monotonic(), False, False, ""
            match item:
                case ScanBegins(grid=grid, note=note):
                    self._begin(grid)
                    self._set_message(CrystalState.RUNNING, note)
                case ScanEnds(note=note):
                    self._set_message(CrystalState.RUNNING, note)
                    stalled = ended = True  # no more images are no surprise
                case Point():
                    self._point(item, what)

    def _begin(self, grid: ScanGrid | None) -> None:
        """A new scan: tracks and maps begin anew, counts of the run go on."""
        from tomostream_ioc.crystal.search import Search

        if self._search is not None:
            self._search.close()
        with self._lock:
            params = self._params
        self._search = Search(params, grid)
        self._search.set_background(self._background)
        self._show.new_scan()

    def _point(self, point: Point, what: str) -> None:
        search = self._search
        if search is None:
            return
        with self._lock:
            params, taker = self._params, self._taker
        if taker is not None:
            self._take(taker, point)
        search.set_params(params)
        if search.fits(point.images.shape):
            self._notices.clear_alarm(_STATUS)
        else:
            self._notices.raise_alarm(
                _STATUS, Severity.MINOR, "STATE",
                "The background has another size than the images: nothing is subtracted",
            )  # fmt: skip
        try:
            found = search.find(point.images, point.number)
        except Exception as error:
            # one bad image must not end a scan; it is counted and said
            if not isinstance(error, TomoStreamError):
                log.exception("Point %d could not be searched", point.number)
            self._notices.say("search", f"Point {point.number} could not be searched: {error}")
            self._count(failed=1)
            return
        self._show.found(found, point, search)
        self._tell(found, point, search, what)

    def _tell(self, found: Found, point: Point, search: Search, what: str) -> None:
        n_peaks = len(found.peaks)
        total = "" if search.maps is None else f" of {search.maps.grid.n_points}"
        with self._lock:
            counts = self._status.counts
            self._status = replace(
                self._status,
                state=CrystalState.RUNNING,
                message=f"Running: point {point.number}{total} of {what}, {n_peaks} peaks, "
                f"{search.tracks} tracks",
                counts=replace(
                    counts,
                    points=counts.points + 1,
                    peaks=counts.peaks + n_peaks,
                    tracks=search.tracks,
                    oversized=search.oversized,
                    fallback=search.fallback,
                ),
                peaks_in_frame=n_peaks,
                latency_s=time.monotonic() - point.received_s,
                locate_s=found.locate_s,
                link_s=found.link_s,
                masked_pixels=search.masked_pixels,
            )

    # ---- background

    def _take(self, taker: BackgroundTaker, point: Point) -> None:
        try:
            background = taker.add(point.images, point.n_frames)
        except TrackingError as error:
            self._end_taking(f"No background: {error}")
            return
        if background is None:
            self._notices.say(
                "background", f"Taking the background: {taker.progress}", logging.INFO, answer=True
            )
            return
        self._use_background(background)
        self._end_taking(f"The background is the mean of {taker.progress.split()[0]} images")

    def _end_taking(self, message: str) -> None:
        with self._lock:
            taker, self._taker = self._taker, None
        if taker is None:
            return
        self._notices.say("background", message, logging.INFO, answer=True)
        if self._listener is not None:
            self._listener.background_ended(taker.request_id)

    def _read_background(self) -> None:
        """What a user named last; a file that can't be read leaves the last good one."""
        with self._lock:
            path, self._background_file = self._background_file, None
        if path is None:
            return
        try:
            background = _read(path) if path else None
        except TrackingError as error:
            self._notices.raise_alarm(_FILE, Severity.MAJOR, "READ", str(error))
            return
        self._notices.clear_alarm(_FILE)
        self._use_background(background)

    def _use_background(self, background: np.ndarray | None) -> None:
        self._background = background
        if self._search is not None:
            self._search.set_background(background)
        mean = 0.0 if background is None else float(np.nanmean(background))
        with self._lock:
            self._status = replace(self._status, background_mean=mean)

    # ---- status

    def _set(self, status: CrystalStatus) -> None:
        with self._lock:
            self._status = replace(status, background_mean=self._status.background_mean)
        self._frame_rate.reset()
        self._point_rate.reset()

    def _set_message(self, state: CrystalState, message: str) -> None:
        with self._lock:
            self._status = replace(self._status, state=state, message=message)

    def _count(self, failed: int) -> None:
        with self._lock:
            counts = self._status.counts
            counts = replace(counts, failed=counts.failed + failed)
            self._status = replace(self._status, counts=counts)

    def _end(self, state: CrystalState, message: str) -> None:
        # the maps and tracks of the scan stay to be looked at
        self._set_message(state, message)


def _read(path: str) -> np.ndarray:
    from tomostream_ioc.crystal.background import read_background

    return read_background(path)


def _grid(setup: ScanSetup) -> ScanGrid | None:
    """As the records say it; the rows are the slow axis."""
    if not setup.n_rows:
        return None
    from tomostream_ioc.tracking import ScanGrid

    return ScanGrid((setup.n_rows, setup.n_cols), snaking=(False, setup.snaking))
