"""Frames to slices: the loop of a running reconstruction."""

from __future__ import annotations

import math
import time

import numpy as np

from tomostream_ioc.errors import ParameterError
from tomostream_ioc.model.binning import effective_params
from tomostream_ioc.model.control import Severity, SliceSink
from tomostream_ioc.model.params import ReconParams
from tomostream_ioc.model.slices import SliceMeta
from tomostream_ioc.runner.arming import Armed, set_field
from tomostream_ioc.runner.board import Board, ParamStore, RunJob
from tomostream_ioc.runner.centering import Centering
from tomostream_ioc.runner.intake import EPOCH_IDS, ArmedScan, Intake
from tomostream_ioc.runner.lens import LensSync
from tomostream_ioc.runner.staging import Batch

#: bytes of frames that the engine takes at once, and the most frames of them
_BATCH_BYTES = 160 << 20
_BATCH_MOST = 64
#: new slices at most that often, so that posting leaves time for frames; also while somebody
#: drags the centre: what is put faster than a screen shows would keep the processors from clients
_SLICES_EVERY_S = 0.03
#: share of the time that making slices may take while frames are waiting, and the longest pause
#: that follows from it: what takes long once (a new filter) must not hold the picture back after
_SLICES_SHARE = 0.2
_SLICES_PAUSE_S = 0.25
_IDLE_TICK_S = 0.2
_SINK_TICK_S = 0.002
_STALL_S = 5.0


class Streaming:
    """Takes frames from the intake while there are any, and shows slices in between."""

    def __init__(
        self,
        sink: SliceSink,
        board: Board,
        params: ParamStore,
        centering: Centering,
        lens: LensSync,
    ):
        self._sink = sink
        self._lens = lens
        self._centering = centering
        self._board = board
        self._params = params
        self._refused = ""  # why the parameters can't be shown
        self._clipped = ""  # what is shown otherwise than asked

    def stream(self, job: RunJob, intake: Intake, armed: Armed) -> str:
        """Run until the stream changes so that it must be armed again; returns why.

        Also returns when a lens was selected; frames that wait are left where they are.

        Raises Cancelled when the job was aborted, and whatever the engine raises.
        """
        scan, engine = armed.scan, armed.engine
        ring = _RingLog(scan.schedule.capacity)
        most = min(max(_BATCH_BYTES // _frame_bytes(scan), 1), _BATCH_MOST, ring.capacity)
        self._refused = self._clipped = ""
        shown: ReconParams | None = None
        fresh = False  # something came since the last slices
        pace = _Pace()
        reason = ""
        while True:
            self._board.beat(job)
            if self._lens.pending:
                return ""
            reason = reason or intake.take_rearm_reason(scan)
            params, binning = self._params.snapshot()
            if binning != scan.binning:
                intake.disarm(scan)
                reason = reason or f"Frames are now binned {binning}x"
            for kind, field in intake.take_changed_fields().items():
                fresh |= set_field(engine, scan, self._board.notices, kind, field)
            batch = scan.staging.take(most)
            push_s = 0.0
            if batch is not None:
                began_s = time.monotonic()
                engine.push(batch.frames, batch.theta_deg, batch.slots)
                push_s = time.monotonic() - began_s
                ring.add(batch)
                self._board.buffer_size = f"{len(batch)}/{ring.capacity}"
                scan.staging.done(batch)
                fresh = True
            elif reason:
                return reason
            # parameters of another binning would be of another place
            fits = binning == scan.binning
            searching = fits and self._centering.work(armed)
            began_s = time.monotonic()
            can_show = fits and engine.n_filled > 0
            changed = can_show and params != shown
            if pace.is_due(began_s, fresh=can_show and fresh and self._sink.idle, changed=changed):
                self._show(armed, params, ring)
                took_s = time.monotonic() - began_s
                self._board.recon_time_s = push_s + took_s
                shown, fresh = params, False
                pace.has_shown(began_s, took_s)
            elif batch is None and not searching:
                self._board.sleep(pace.wait_s(began_s, fresh=fresh, changed=changed))
            self._tell(intake, armed)

    def _show(self, armed: Armed, params: ReconParams, ring: _RingLog) -> None:
        """Reconstruct and hand on; parameters that can't be shown leave the last slices."""
        inside, notes = params.clipped(*armed.scan.shape)
        self._clipped = "; ".join(part for part in (*notes, params.phase_note) if part)
        try:
            slices = armed.engine.reconstruct(effective_params(inside, armed.scan.binning))
        except ParameterError as error:
            self._refused = str(error)
            return
        self._refused = ""
        self._board.bad_pixels = armed.engine.bad_pixels
        meta = ring.meta(inside, armed)
        self._board.last_slices = slices, meta
        self._sink.publish(slices, meta)

    def _tell(self, intake: Intake, armed: Armed) -> None:
        parts = ["Running"]
        self._tell_memory(armed)
        n_filled, capacity = armed.engine.n_filled, armed.scan.schedule.capacity
        if n_filled < capacity:
            parts.append(f"{n_filled} of {capacity} angles so far")
        if not armed.engine.has_flat:
            parts.append("no flat field yet, using a uniform one")
        if intake.fields_before:
            fields = " and ".join(sorted(intake.fields_before))
            parts.append(f"{fields} of the lens before: take new ones")
        if intake.frame_type != "Projection":
            parts.append(f"FrameType is {intake.frame_type}: waiting for projections")
        if self._refused:
            parts.append(f"the slices stand still: {self._refused}")
            self._board.notices.raise_alarm(
                "ReconStatus", Severity.MINOR, "STATE", self._refused, quiet=True
            )
        else:
            self._board.notices.clear_alarm("ReconStatus")
        parts += [part for part in (self._board.memory.note, self._lens.note) if part]
        if intake.connected.get("tomoscan") is False:
            parts.append("tomoScan does not answer: FrameType may be old")
        parts += [part for part in (self._watch(intake), self._clipped) if part]
        self._board.message = "; ".join(parts)

    def _tell_memory(self, armed: Armed) -> None:
        """Show the memory policy, and log a change of it while the run goes on."""
        memory = armed.engine.memory
        if memory != self._board.memory:
            self._board.memory = memory
            self._board.notices.say("memory", memory.note)

    def _watch(self, intake: Intake) -> str:
        """Name a lost connection or a stall, with an alarm; the last slices stay."""
        silent_s = time.monotonic() - intake.last_frame_s if intake.last_frame_s else 0.0
        if intake.connected.get("image") is False:
            severity, status = Severity.INVALID, "COMM"
            message = "the image channel is disconnected: waiting for it"
        elif silent_s > _STALL_S:
            severity, status = Severity.MINOR, "TIMEOUT"
            message = f"no frame for {_STALL_S:g} s: is the detector acquiring?"
        else:
            if self._board.notices.clear_alarm("FrameRate"):
                self._sink.set_alarm(None)
            return ""
        known = self._board.notices.alarms().get("FrameRate")
        if known is None or known.severity != severity:
            self._board.notices.raise_alarm("FrameRate", severity, status, message)
            self._sink.set_alarm(self._board.notices.alarms()["FrameRate"])
        return message


class _Pace:
    """When slices are due: as often as a screen shows them, and frames are not held up."""

    def __init__(self) -> None:
        self._fresh_s = self._change_s = 0.0  # of the next ones

    def is_due(self, now_s: float, *, fresh: bool, changed: bool) -> bool:
        """``fresh``: something came since the last slices; ``changed``: other parameters did."""
        return (fresh and now_s >= self._fresh_s) or (changed and now_s >= self._change_s)

    def has_shown(self, began_s: float, took_s: float) -> None:
        pause_s = min(took_s / _SLICES_SHARE, took_s + _SLICES_PAUSE_S)
        self._fresh_s = began_s + max(_SLICES_EVERY_S, pause_s)
        self._change_s = began_s + _SLICES_EVERY_S

    def wait_s(self, now_s: float, *, fresh: bool, changed: bool) -> float:
        """How long to sleep where there is nothing to do; short where the sink is not ready."""
        next_s = min(self._fresh_s if fresh else math.inf, self._change_s if changed else math.inf)
        return min(max(next_s - now_s, _SINK_TICK_S), _IDLE_TICK_S)


class _RingLog:
    """Which frames are in the ring, for the slices' attributes and the latency."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._ids = np.full(capacity, -1, np.int64)
        self._received_s = 0.0  # of the newest frame that is in no slices yet, else 0
        self._timestamp_s = 0.0

    def add(self, batch: Batch) -> None:
        self._ids[batch.slots] = batch.ids
        newest = int(np.argmax(batch.ids))
        self._received_s = float(batch.received_s[newest])
        self._timestamp_s = float(batch.timestamp_s[newest])

    def meta(self, params: ReconParams, armed: Armed) -> SliceMeta:
        filled = self._ids[self._ids >= 0]
        received_s, self._received_s = self._received_s, 0.0
        return SliceMeta(
            params=params,
            newest_id=int(filled.max()) % EPOCH_IDS,
            oldest_id=int(filled.min()) % EPOCH_IDS,
            newest_received_s=received_s,
            newest_timestamp_s=self._timestamp_s,
            n_angles=armed.engine.n_filled,
            capacity=self.capacity,
            binning=armed.scan.binning,
        )


def _frame_bytes(scan: ArmedScan) -> int:
    return scan.shape[0] * scan.shape[1] * scan.dtype.itemsize
