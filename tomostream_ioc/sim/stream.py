"""The sender: one thread that posts frames on an absolute schedule and retakes dark and flat."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import asdict, dataclass, field
from typing import Protocol

import numpy as np

from tomostream_ioc.sim.channels import Channels
from tomostream_ioc.sim.detector import bin_frame
from tomostream_ioc.sim.faults import FaultPlan
from tomostream_ioc.sim.schedule import ScanType, Schedule
from tomostream_ioc.sim.source import FieldKind, FrameSource

log = logging.getLogger(__name__)

_FRAME_TYPES: dict[FieldKind, str] = {"dark": "DarkField", "flat": "FlatField"}
_END_S = 1.5
_LARGEST_LAG_S = 0.5  # further behind, the schedule starts anew instead of sending a burst


@dataclass(frozen=True, slots=True)
class StreamSettings:
    """``rate_fps`` 0 sends as fast as possible; ``n_frames`` 0 never ends.

    ``settle_s`` is how long FrameType says DarkField or FlatField before the first and after the
    last such frame: the time a shutter takes, so that clients hear of it first.
    """

    rate_fps: float = 30.0
    n_frames: int = 0
    id_start: int = 1
    id_bits: int = 32
    n_turns: int = 20
    n_field_frames: int = 10
    settle_s: float = 0.2
    wait_for_client: bool = False
    start_delay_s: float = 0.0


class StreamListener(Protocol):
    """Told by the sender, from its own thread, in the order in which things happen."""

    def frame_type(self, name: str) -> None: ...
    def stream_message(self, text: str) -> None: ...
    def scan_started(self, scan_type: ScanType) -> None: ...
    def scan_ended(self, status: str) -> None: ...
    def retake_ended(self, kind: FieldKind) -> None: ...
    def binning_changed(self) -> None: ...


@dataclass(slots=True)
class StreamCounts:
    """``sent`` counts every post, doubled frames twice: projections and dark or flat frames."""

    sent: int = 0
    projections: int = 0
    fields: int = 0
    last_id: int = 0
    turns: float = 0.0
    rate_fps: float = 0.0
    late_s: float = 0.0  # largest delay against the schedule


@dataclass(slots=True)
class _Retake:
    kind: FieldKind
    frames_from_s: float  # time.monotonic(): FrameType is announced until then
    frames: list[np.ndarray] = field(default_factory=list)
    projections_from_s: float | None = None


class Stream:
    """Sends a scan. All public methods return at once and may be called from any thread."""

    def __init__(
        self,
        source: FrameSource,
        channels: Channels,
        plan: FaultPlan,
        settings: StreamSettings,
    ) -> None:
        self._source = source
        self._channels = channels
        self._plan = plan
        self._settings = settings
        self._listener: StreamListener
        self._rate_fps = settings.rate_fps
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._abort = threading.Event()
        self._start: ScanType | None = None
        self._retakes: list[FieldKind] = []
        self._binning_asked = 1
        self._binning = 1
        self._retake: _Retake | None = None
        self._serial = 0
        self._fields = {
            kind: source.averaged_field(kind, self._field_frames(kind)) for kind in _FRAME_TYPES
        }
        self._scanning = False
        self._theta_deg = np.empty(0)
        self._counts = StreamCounts()
        self._thread = threading.Thread(target=self._run, name="sim-sender")

    def open(self, scan_type: ScanType, listener: StreamListener) -> None:
        """Broadcast dark, flat and the angles, and start the thread; no frame is sent yet."""
        self._listener = listener
        self._broadcast_fields()
        self._source.prepare(self._broadcast_theta(scan_type), self._closing.is_set)
        if not self._closing.is_set():
            self._thread.start()

    def close(self, timeout_s: float = _END_S) -> None:
        self._closing.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def start_scan(self, scan_type: ScanType) -> None:
        """Begin with the first angle; nothing happens while a scan goes on."""
        with self._lock:
            if self._scanning and not self._abort.is_set():
                return
            self._start = scan_type
        self._wake.set()

    def abort_scan(self) -> None:
        with self._lock:
            self._start = None
            if self._scanning:
                self._abort.set()
        self._wake.set()

    def retake(self, kind: FieldKind) -> None:
        """Take dark or flat anew, in the stream; between scans it is only broadcast anew."""
        with self._lock:
            if kind not in self._retakes:
                self._retakes.append(kind)
        self._wake.set()

    def set_binning(self, binning: int) -> None:
        with self._lock:
            self._binning_asked = binning
        self._wake.set()

    def set_rate(self, rate_fps: float) -> None:
        with self._lock:
            self._rate_fps = rate_fps
        self._wake.set()

    @property
    def plan(self) -> FaultPlan:
        return self._plan

    @property
    def rate_fps(self) -> float:
        return self._rate_fps

    @property
    def shape(self) -> tuple[int, int]:
        """(n_rows, n_cols) of the unbinned frames."""
        return self._source.shape

    @property
    def center(self) -> float | None:
        """Column of the rotation axis in the unbinned frames, where it is known."""
        return self._source.center

    @property
    def binning(self) -> int:
        return self._binning

    @property
    def n_angles(self) -> int:
        """Length of the array of angles that was broadcast."""
        return self._theta_deg.size

    @property
    def counts(self) -> StreamCounts:
        return self._counts

    def report(self) -> dict[str, object]:
        """Totals since the process started; lost_ids are the first thousand."""
        lost_ids = [self._unique_id(k) for k in self._plan.lost[:1000]]
        return {**asdict(self._counts), **asdict(self._plan.totals), "lost_ids": lost_ids}

    # everything below runs in the sender's thread (or before it starts)

    def _run(self) -> None:
        while not self._closing.is_set():
            self._wake.wait()
            self._wake.clear()
            while self._apply_requests(scanning=False):
                pass
            with self._lock:
                scan_type, self._start = self._start, None
                if scan_type is not None:
                    self._scanning = True
                    self._abort.clear()
            if scan_type is not None:
                self._scan(scan_type)
                self._wake.set()  # look at what was asked meanwhile

    def _scan(self, scan_type: ScanType) -> None:
        self._source.prepare(self._broadcast_theta(scan_type), self._stopped)
        self._listener.scan_started(scan_type)
        if self._wait_for_client():
            self._send_frames()
        status = "Scan aborted" if self._stopped() else "Scan complete"
        with self._lock:  # first: who hears of the end may ask for the next scan at once
            self._scanning = False
        self._listener.scan_ended(status)

    def _send_frames(self) -> None:
        n_frames, k, sent_before = self._settings.n_frames, 0, self._counts.sent
        rate, first_s, k_first, began_s = self._rate_fps, time.monotonic(), 0, time.monotonic()
        while not self._stopped() and (n_frames == 0 or k < n_frames):
            now_s = time.monotonic()
            if rate != self._rate_fps:
                rate, first_s, k_first = self._rate_fps, now_s, k
            # absolute: an oversleep does not add up
            due_s = first_s + (k - k_first) / rate if rate > 0 else now_s
            if due_s > now_s:
                if self._wake.wait(due_s - now_s):
                    self._wake.clear()
                continue
            self._counts.late_s = max(self._counts.late_s, now_s - due_s)
            if now_s - due_s > _LARGEST_LAG_S:
                log.warning("sender is %.1f s behind %.4g fps: schedule anew", now_s - due_s, rate)
                first_s, k_first = now_s, k
            self._apply_requests(scanning=True)
            self._send(k)
            k += 1
            elapsed_s = time.monotonic() - began_s
            if elapsed_s > 0:
                self._counts.rate_fps = (self._counts.sent - sent_before) / elapsed_s
        for held in self._plan.flush():
            self._post_projection(held)
        self._end_retake(taken=False)

    def _stopped(self) -> bool:
        return self._closing.is_set() or self._abort.is_set()

    def _wait_for_client(self) -> bool:
        """False: stopped meanwhile."""
        ready_s: float | None = None
        while not self._stopped():
            if ready_s is None and (
                not self._settings.wait_for_client or self._channels.image.client_connected.is_set()
            ):
                ready_s = time.monotonic() + self._settings.start_delay_s
            if ready_s is not None and time.monotonic() >= ready_s:
                return True
            # an Event of p4p's thread and ours: looking at both by turns is enough here
            time.sleep(0.005)
        return False

    def _apply_requests(self, *, scanning: bool) -> bool:
        """Do what was asked meanwhile; True when a retake was begun."""
        with self._lock:
            binning = self._binning_asked
            asked = None
            if self._retakes and self._retake is None:
                asked = self._retakes.pop(0)
        if binning != self._binning:
            self._binning = binning
            self._broadcast_fields()
            self._listener.binning_changed()
        if asked is None:
            return False
        self._retake = _Retake(asked, time.monotonic() + self._settings.settle_s)
        if scanning:
            self._listener.stream_message(f"Capturing {asked} fields")
            self._listener.frame_type(_FRAME_TYPES[asked])
        else:
            self._retake.frames = self._field_frames(asked)
            self._end_retake(taken=True)
        return True

    def _send(self, k: int) -> None:
        frame = self._retake_frame()
        if frame is not None:
            for held in self._plan.flush():
                self._post_projection(held)
            self._counts.fields += 1
            self._post(k, frame)
            return
        for number in self._plan.send_order(k):
            self._post_projection(number)

    def _retake_frame(self) -> np.ndarray | None:
        """The dark or flat frame to send instead of a projection, while one is being retaken."""
        retake, now_s = self._retake, time.monotonic()
        if retake is None or now_s < retake.frames_from_s:
            return None
        if len(retake.frames) < self._settings.n_field_frames:
            retake.frames.append(self._source.field_frame(retake.kind, self._serial))
            self._serial += 1
            return retake.frames[-1]
        if retake.projections_from_s is None:
            retake.projections_from_s = now_s + self._settings.settle_s
        elif now_s >= retake.projections_from_s:
            self._end_retake(taken=True)
        return None

    def _end_retake(self, *, taken: bool) -> None:
        """Broadcast the new field, if it was taken whole, and say that the retake is over."""
        retake, self._retake = self._retake, None
        if retake is None:
            return
        self._listener.frame_type("Projection")
        if taken:
            self._fields[retake.kind] = self._source.averaged_field(retake.kind, retake.frames)
            self._broadcast_field(retake.kind)
        self._listener.stream_message("Done")
        self._listener.retake_ended(retake.kind)

    def _post_projection(self, k: int) -> None:
        turns = self._source.turns(k)
        self._counts.projections += 1
        self._counts.turns = turns
        self._post(k, self._source.projection(self._schedule.projection_index(k), turns))

    def _post(self, k: int, frame: np.ndarray) -> None:
        unique_id = self._unique_id(k)
        self._channels.image.post(bin_frame(frame, self._binning), unique_id, self._binning)
        self._counts.sent += 1
        self._counts.last_id = unique_id

    def _unique_id(self, k: int) -> int:
        """The id that a counter of id_bits shows; with 32 bits it turns negative at 2^31."""
        bits = self._settings.id_bits
        unique_id = (self._settings.id_start + k) & ((1 << bits) - 1)
        return unique_id - (1 << 32) if unique_id >= 1 << 31 else unique_id

    def _field_frames(self, kind: FieldKind) -> list[np.ndarray]:
        serials = range(self._serial, self._serial + self._settings.n_field_frames)
        self._serial = serials.stop
        return [self._source.field_frame(kind, serial) for serial in serials]

    def _broadcast_fields(self) -> None:
        for kind in _FRAME_TYPES:
            self._broadcast_field(kind)

    def _broadcast_field(self, kind: FieldKind) -> None:
        channel = self._channels.dark if kind == "dark" else self._channels.flat
        channel.post(bin_frame(self._fields[kind], self._binning))

    def _broadcast_theta(self, scan_type: ScanType) -> Schedule:
        self._schedule = self._source.schedule(scan_type)
        theta_deg = self._schedule.theta_deg(self._settings.n_turns)
        if not np.array_equal(theta_deg, self._theta_deg):  # clients need not arm again
            self._theta_deg = theta_deg
            self._channels.theta.post(theta_deg)
        return self._schedule
