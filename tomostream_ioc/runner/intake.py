"""The hot path from the transport's threads: order, angle and size, then one copy or binning."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tomostream_ioc.errors import FieldError, ThetaError
from tomostream_ioc.model.angles import ThetaSchedule
from tomostream_ioc.model.binning import binned_dtype, binned_shape
from tomostream_ioc.model.control import Severity
from tomostream_ioc.model.counters import Counters
from tomostream_ioc.model.frame import Frame
from tomostream_ioc.model.notices import Notices
from tomostream_ioc.model.sequence import Order, SequenceTracker
from tomostream_ioc.recon.binning import FrameBinner, binned_field
from tomostream_ioc.runner.staging import Allocate, StagingQueue, staging_depth

#: as many frames of one new size or type in a row are a change, fewer are stray frames
_SUSTAINED = 3

#: staged ids are index + epoch * EPOCH_IDS, so that they grow when a detector counts anew
EPOCH_IDS = 1 << 40
#: where an alarm on a field belongs
FIELD_RECORDS = {"dark": "DarkPVAName", "flat": "FlatPVAName"}
_TOMOSCAN_RECORD = "TomoScanPVPrefix"


@dataclass(frozen=True, slots=True, eq=False)
class ArmedScan:
    """What the frames of a run look like, and the queue they wait in."""

    frame_shape: tuple[int, int]  # (n_rows, n_cols) of the detector
    frame_dtype: np.dtype
    binning: int
    schedule: ThetaSchedule
    staging: StagingQueue

    @property
    def shape(self) -> tuple[int, int]:
        """(n_rows, n_cols) as they are staged."""
        return binned_shape(self.frame_shape, self.binning)

    @property
    def dtype(self) -> np.dtype:
        return binned_dtype(self.frame_dtype, self.binning)

    def __str__(self) -> str:
        binned = f", binned {self.binning}x" if self.binning > 1 else ""
        return _describe(self.shape, self.dtype) + binned

    def field(self, field: np.ndarray, kind: str) -> np.ndarray:
        """A dark or flat field of the detector's size as it fits the staged frames.

        Raises FieldError: it has another size, and is to be binned.
        """
        if self.binning == 1:
            return field
        if field.shape != self.frame_shape:
            raise FieldError(
                f"{kind} field has shape {field.shape}, the detector's frames have "
                f"{self.frame_shape} (rows, columns)"
            )
        return binned_field(field, self.frame_dtype, self.binning)


class Intake:
    """A StreamHandler for one run. Its callbacks come from the transport's threads.

    ``binning()`` is asked when the first frame of a scan comes. The run's thread looks at `scan`,
    `rearm_reason` and the fields; ``wake`` is set when there is something for it to do.
    """

    def __init__(
        self,
        counters: Counters,
        notices: Notices,
        wake: threading.Event,
        allocate: Allocate,
        binning: Callable[[], int],
    ):
        self._counters = counters
        self._notices = notices
        self._wake = wake
        self._allocate = allocate
        self._binning = binning
        self._lock = threading.Lock()
        self._tracker = SequenceTracker()
        self._frame_type = ""
        self._first_projid = 0
        self._reconnected = False
        self._epoch = 0  # grows when the detector counts anew
        self._schedule: ThetaSchedule | None = None
        self._scan: ArmedScan | None = None
        self._rearm_reason = ""
        self._stray: tuple[tuple[int, int], np.dtype] | None = None
        self._stray_count = 0
        self._fields: dict[str, np.ndarray] = {}
        self._changed_fields: set[str] = set()
        self._paused = False
        self._fields_before: frozenset[str] = frozenset()
        self.connected: dict[str, bool] = {}
        self.last_frame_s = 0.0  # time.monotonic(); 0 = none yet

    # ---- seen by the run's thread

    @property
    def scan(self) -> ArmedScan | None:
        return self._scan

    @property
    def has_theta(self) -> bool:
        return self._schedule is not None

    @property
    def frame_type(self) -> str:
        return self._frame_type

    @property
    def takes_fields(self) -> bool:
        """Dark or flat fields are being taken: the scan is on its way."""
        return self._frame_type not in ("Projection", "")

    def take_rearm_reason(self, scan: ArmedScan) -> str:
        """Why a run on this scan must arm again, '' when it need not."""
        with self._lock:
            reason, self._rearm_reason = self._rearm_reason, ""
            return reason if scan is not self._scan else ""

    def disarm(self, scan: ArmedScan) -> None:
        """The next frame arms anew, if frames still come for this scan."""
        with self._lock:
            if self._scan is scan:
                self._scan = self._stray = None

    def close(self) -> None:
        """The run has ended: give back frames and fields, whoever still refers to this.

        Clients of a network library do, in cycles that Python clears away much later.
        """
        with self._lock:
            self._scan = self._schedule = None
            self._fields.clear()
            self._changed_fields.clear()

    def pause(self) -> None:
        """The lens changes: frames are only counted (skipped) until `resume`. From any thread."""
        with self._lock:
            self._paused = True
            self._fields_before = frozenset(self._fields)

    def resume(self) -> ArmedScan | None:
        """Frames are of another lens now, and the next one arms anew; returns the scan so far."""
        with self._lock:
            self._paused = False
            scan, self._scan, self._stray = self._scan, None, None
            return scan

    @property
    def fields_before(self) -> frozenset[str]:
        """Dark and flat fields that were taken with the lens before."""
        return self._fields_before

    def field(self, kind: str) -> np.ndarray | None:
        """The newest dark or flat field, whatever its size."""
        with self._lock:
            return self._fields.get(kind)

    def take_changed_fields(self) -> dict[str, np.ndarray]:
        """The dark and flat fields that came since the last call."""
        with self._lock:
            changed = {kind: self._fields[kind] for kind in self._changed_fields}
            self._changed_fields.clear()
            return changed

    # ---- StreamHandler

    def on_frame(self, frame: Frame) -> None:
        with self._lock:
            if frame.initial and not self._tracker.started:
                return  # what the channel held before the run may be of another scan
            self._counters.add(received=1)
            self.last_frame_s = frame.received_s
            # Dark and flat frames take ids of the same count: follow them, too.
            index = self._follow(frame.unique_id)
            if index is None:
                return
            if self._paused or self._frame_type != "Projection":
                self._counters.add(skipped=1)
                return
            scan = self._scan or self._arm_for(frame)
            if scan is None:
                return
            if frame.shape != scan.frame_shape or frame.dtype != scan.frame_dtype:
                self._stray_frame(frame, scan)
                return
            self._stray = None
            place = scan.schedule.locate(index - 1 - self._first_projid)
            if place is None:
                self._reject(
                    "angle",
                    f"Frame {index} has no angle: theta holds {scan.schedule.theta_deg.size} "
                    f"angles from frame {self._first_projid + 1} on",
                )
                return
            theta_deg, slot = place
            if not scan.staging.put(
                frame.pixels,
                theta_deg,
                slot,
                self._epoch * EPOCH_IDS + index,
                frame.received_s,
                frame.timestamp_s,
            ):
                self._counters.add(dropped=1)
                self._notices.say("dropped", "Frames dropped: they come faster than they are used")
                return
        self._wake.set()

    def on_frame_rejected(self, cause: str, reason: str, unique_id: int | None = None) -> None:
        self._counters.add(received=1)
        with self._lock:
            self.last_frame_s = time.monotonic()
            if unique_id is not None and self._follow(unique_id) is None:
                return
            self._reject(cause, reason)

    def on_field(self, kind: str, field: np.ndarray) -> None:
        with self._lock:
            self._fields[kind] = field
            self._fields_before -= {kind}
            self._changed_fields.add(kind)
        self._wake.set()

    def on_field_rejected(self, kind: str, reason: str) -> None:
        kept = "; the last good one stays" if self.field(kind) is not None else ""
        self._notices.raise_alarm(FIELD_RECORDS[kind], Severity.MAJOR, "READ", f"{reason}{kept}")

    def on_theta(self, theta_deg: np.ndarray) -> None:
        try:
            schedule = ThetaSchedule.from_array(theta_deg)
        except ThetaError as error:
            self.on_theta_rejected(str(error))
            return
        self._notices.clear_alarm("ThetaPVAName")
        with self._lock:
            known = self._schedule
            if known is not None and np.array_equal(known.theta_deg, schedule.theta_deg):
                return
            self._schedule = schedule
            if self._scan is not None:
                self._detach("New theta array")
        self._wake.set()

    def on_theta_rejected(self, reason: str) -> None:
        kept = "; the last good array stays" if self.has_theta else ""
        self._notices.raise_alarm("ThetaPVAName", Severity.MAJOR, "READ", f"{reason}{kept}")
        self._wake.set()

    def on_frame_type(self, frame_type: str) -> None:
        with self._lock:
            self._frame_type = frame_type

    def on_first_projection_id(self, first_projid: int) -> None:
        with self._lock:
            self._first_projid = first_projid

    def on_connection(self, what: str, channel: str, connected: bool) -> None:
        with self._lock:
            known = self.connected.get(what)
            self.connected[what] = connected
            if what == "image":
                self._reconnected = connected and known is False
        if what == "tomoscan":
            if connected:
                self._notices.clear_alarm(_TOMOSCAN_RECORD)
            elif known:
                text = f"{channel} does not answer: FrameType may be old"
                self._notices.raise_alarm(_TOMOSCAN_RECORD, Severity.INVALID, "COMM", text)
        elif known is not None and known != connected:
            if connected:
                self._notices.say(f"connection {what}", f"{channel} is back", logging.INFO)
            else:
                self._notices.say(f"connection {what}", f"Lost {channel}: waiting for it")
        self._wake.set()

    # ---- with the lock held

    def _follow(self, unique_id: int) -> int | None:
        """The frame's unwrapped id, or None for one that was here already."""
        placed = self._tracker.place(unique_id, reconnected=self._reconnected)
        self._reconnected = False
        match placed.order:
            case Order.REPEATED_STATE:
                self._counters.add(received=-1)
                return None
            case Order.DUPLICATE:
                self._counters.add(duplicate=1)
                return None
            case Order.LATE:
                self._counters.add(disordered=1, missed=placed.missed)
            case Order.RESTART:
                self._epoch += 1
                self._notices.say("restart", f"The detector counts anew from frame {unique_id}")
            case Order.NEW if placed.missed:
                self._counters.add(missed=placed.missed)
        return placed.index

    def _reject(self, cause: str, reason: str) -> None:
        self._counters.add(rejected=1)
        self._notices.say(f"rejected {cause}", reason)

    def _arm_for(self, frame: Frame) -> ArmedScan | None:
        """The first frame tells size and type; frames wait while the engine is made."""
        if self._schedule is None:
            self._reject("theta", "Frame before the angles: no theta array has come yet")
            return None
        binning = self._binning()
        shape, dtype = binned_shape(frame.shape, binning), binned_dtype(frame.dtype, binning)
        if 0 in shape:
            self._reject(
                "binning",
                f"Frame of {_describe(frame.shape, frame.dtype)} can't be binned {binning}x: "
                "put StreamBinning to 1x",
            )
            return None
        depth = staging_depth(shape[0] * shape[1] * dtype.itemsize)
        write = np.copyto if binning == 1 else FrameBinner(frame.dtype, binning)
        staging = StagingQueue(depth, shape, dtype, self._allocate, write)
        self._scan = ArmedScan(frame.shape, frame.dtype, binning, self._schedule, staging)
        return self._scan

    def _stray_frame(self, frame: Frame, scan: ArmedScan) -> None:
        kind = (frame.shape, frame.dtype)
        self._stray_count = self._stray_count + 1 if kind == self._stray else 1
        self._stray = kind
        is_, was = (
            _describe(frame.shape, frame.dtype),
            _describe(scan.frame_shape, scan.frame_dtype),
        )
        self._reject("size", f"Frame of {is_} in a stream of {was}")
        if self._stray_count >= _SUSTAINED:
            self._detach(f"Frames are now {is_} instead of {was}")

    def _detach(self, reason: str) -> None:
        """The next frame arms anew; the run's thread hears why."""
        self._scan = None
        self._stray = None
        self._rearm_reason = reason
        self._wake.set()


def _describe(shape: tuple[int, int], dtype: np.dtype) -> str:
    return f"{shape[1]} x {shape[0]} {dtype}"
