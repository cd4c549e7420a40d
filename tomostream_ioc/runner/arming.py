"""From a start request to an engine that fits the stream: every wait is bounded and says why."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from tomostream_ioc.errors import ArmingError, EngineError, FieldError
from tomostream_ioc.model.control import Engine, Severity, StreamSource
from tomostream_ioc.model.notices import Notices
from tomostream_ioc.runner.board import Board, Cancelled, ParamStore, RunJob
from tomostream_ioc.runner.intake import FIELD_RECORDS, ArmedScan, Intake
from tomostream_ioc.runner.lens import LensSync

#: (n_angles, n_rows, n_cols, dtype, heartbeat) -> Engine; heartbeat may raise to cancel long work
EngineFactory = Callable[[int, int, int, np.dtype, Callable[[], None]], Engine]

_TICK_S = 0.2
#: asking over CA for names: short, as an abort has to wait for it
_NAMES_S = 3.0
#: dark and flat may come after the first image, and a run begins without them
_FIELD_WAIT_S = 1.0
#: users start the reconstruction before the scan: what a channel carries may take longer to come
#: than the channel
_SCAN_FACTOR = 3.0


@dataclass(frozen=True, slots=True, eq=False)
class Armed:
    """A scan and the engine made for it."""

    scan: ArmedScan
    engine: Engine


class Arming:
    """Arms runs; ``timeout_s`` bounds the wait for each channel."""

    def __init__(
        self,
        source: StreamSource,
        make_engine: EngineFactory,
        board: Board,
        params: ParamStore,
        lens: LensSync,
        timeout_s: float,
    ):
        self._source = source
        self._make_engine = make_engine
        self._board = board
        self._params = params
        self._lens = lens
        self._timeout_s = timeout_s

    def arm(self, job: RunJob, intake: Intake) -> Armed:
        """Subscribe, wait for angles and the first image, make the engine.

        Raises ArmingError with what did not come, Cancelled when the job was aborted.
        """
        self._board.message = "Arming: asking for the channels"
        with self._board.beating():
            channel = self._source.open(job.request, intake, min(self._timeout_s, _NAMES_S))
        self._board.beat(job)
        self._angles(job, intake)
        self._wait(
            job,
            lambda: intake.connected.get("image", False),
            self._timeout_s,
            f"Arming: waiting for {channel}",
            lambda: f"the image channel {channel} does not answer: is the PVA plugin enabled?",
        )
        scan = self._first_image(job, intake, channel, _SCAN_FACTOR * self._timeout_s)
        self._params.set_frame_shape(scan.frame_shape, scale=False)
        self._default_params(scan)
        return self._build(job, intake, scan)

    def rearm(self, job: RunJob, intake: Intake, reason: str) -> Armed:
        """Arm again after a change of size, type, binning or angles.

        Parameters scale with the size of the detector's frames; with the binning they have done so
        when it was put. Waits for the first image as long as the run is not aborted: between two
        scans the sample moves out, and dark and flat fields are taken.

        Raises EngineError when the new scan can't be had: the run ends in Fault.
        """
        self._board.notices.say("rearm", f"{reason}: starting anew")
        try:
            scan = self._first_image(job, intake, "the image channel", math.inf)
            self._params.set_frame_shape(scan.frame_shape, scale=True)
            return self._build(job, intake, scan)
        except ArmingError as error:
            raise EngineError(f"could not arm again after '{reason}': {error}") from error

    def _angles(self, job: RunJob, intake: Intake) -> None:
        """Wait for the channel; then as for an image, as tomoScan fills it when a scan begins."""
        channel, what = job.request.theta_pva, "Arming: waiting for angles"
        alarms, limit_s = self._board.notices.alarms, self._timeout_s

        def why() -> str:
            alarm = alarms().get("ThetaPVAName")
            if alarm is not None:
                return alarm.message
            if not intake.connected.get("theta", False):
                return f"the theta channel {channel} does not answer: is tomoScan running?"
            if intake.takes_fields:
                return f"FrameType is {intake.frame_type}"
            return f"no angles came from {channel}: has the scan started?"

        def answers() -> bool:
            return intake.has_theta or intake.connected.get("theta", False)

        def came() -> bool:
            return intake.has_theta or "ThetaPVAName" in alarms()

        self._wait(job, answers, limit_s, what, why)
        self._wait(
            job, came, _SCAN_FACTOR * limit_s, f"{what} from {channel}: start the scan", why,
            hold=lambda: intake.takes_fields,
        )  # fmt: skip
        self._wait(job, lambda: intake.has_theta, limit_s, f"{what} that can be used", why)

    def _first_image(self, job: RunJob, intake: Intake, channel: str, limit_s: float) -> ArmedScan:
        def why() -> str:
            if intake.takes_fields:
                return f"FrameType is {intake.frame_type}"
            return f"no image came from {channel}: is the detector acquiring?"

        while True:
            self._wait(
                job,
                lambda: intake.scan is not None and not self._lens.pending,
                limit_s,
                "Arming: waiting for the first projection",
                why,
                hold=lambda: intake.takes_fields,
            )
            scan = intake.scan
            if scan is None:  # size or angles changed in this very moment
                continue
            if scan.binning == self._params.binning:
                return scan
            intake.disarm(scan)
            self._board.counters.add(dropped=len(scan.staging))

    def _wait(
        self,
        job: RunJob,
        there: Callable[[], bool],
        limit_s: float,
        message: str,
        why: Callable[[], str],
        hold: Callable[[], bool] = lambda: False,
    ) -> None:
        """Until ``there``; the time limit begins anew as long as ``hold``."""
        deadline = time.monotonic() + limit_s
        while not there():
            self._board.beat(job)
            if self._lens.pending:  # nothing is shown that could be kept in view
                self._lens.follow(job, None, "Arming")
                deadline = time.monotonic() + limit_s
            if hold():
                deadline = time.monotonic() + limit_s
            self._board.message = f"{message} ({why()})" if hold() else message
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise ArmingError(f"{why()} (waited {limit_s:g} s)")
            self._board.sleep(min(left_s, _TICK_S))

    def _build(self, job: RunJob, intake: Intake, scan: ArmedScan) -> Armed:
        """Make the engine for the scan and give it the fields that fit."""
        n_rows, n_cols = scan.shape
        capacity = scan.schedule.capacity
        self._board.message = f"Arming: {capacity} angles of {scan}"
        try:
            with self._board.beating():  # pinning memory for a GPU takes seconds
                engine = self._make_engine(
                    capacity, n_rows, n_cols, scan.dtype, lambda: self._board.beat(job)
                )
        except (ValueError, MemoryError) as error:
            raise ArmingError(f"{n_cols} x {n_rows} frames can't be taken: {error}") from error
        try:
            self._first_fields(job, intake, scan, engine)
        except Cancelled:
            engine.release()
            raise
        self._board.buffer_size = f"0/{capacity}"
        self._board.memory = engine.memory
        if engine.memory.note:
            self._board.notices.say("memory", engine.memory.note)
        return Armed(scan, engine)

    def _first_fields(self, job: RunJob, intake: Intake, scan: ArmedScan, engine: Engine) -> None:
        deadline = time.monotonic() + _FIELD_WAIT_S
        while time.monotonic() < deadline and any(
            intake.field(kind) is None and intake.connected.get(kind, True)
            for kind in FIELD_RECORDS
        ):
            self._board.beat(job)
            self._board.sleep(0.05)
        intake.take_changed_fields()
        for kind in FIELD_RECORDS:
            field = intake.field(kind)
            if field is not None:
                set_field(engine, scan, self._board.notices, kind, field)

    def _default_params(self, scan: ArmedScan) -> None:
        """Parameters that were never set (0 at boot) start in the middle of the detector."""
        params = self._params.get()
        n_rows, n_cols = scan.shape
        notes = []
        if params.center == 0:
            params = replace(params, center=(n_cols - 1) / 2)
            notes.append(f"Center was 0: set to the middle, {params.center:g}")
        if (params.ortho_x, params.ortho_y, params.ortho_z) == (0, 0, 0):
            params = replace(params, ortho_x=n_cols // 2, ortho_y=n_cols // 2, ortho_z=n_rows // 2)
            notes.append("OrthoX/Y/Z were 0: set to the middle")
        if notes:
            self._board.notices.say("defaults", "; ".join(notes), logging.INFO)
            self._params.change(params, scan.binning)


def set_field(
    engine: Engine, scan: ArmedScan, notices: Notices, kind: str, field: np.ndarray
) -> bool:
    """Give the engine a dark or flat field; one that does not fit leaves an alarm."""
    record = FIELD_RECORDS[kind]
    try:
        (engine.set_dark if kind == "dark" else engine.set_flat)(scan.field(field, kind))
    except FieldError as error:
        has_one = kind == "flat" and engine.has_flat
        text = f"{error}; the last good one stays" if has_one else str(error)
        notices.raise_alarm(record, Severity.MAJOR, "READ", text)
        return False
    notices.clear_alarm(record)
    notices.say(f"new {kind}", f"New {kind} field", logging.INFO)
    return True
