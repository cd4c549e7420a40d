"""The run as the records see it: start, abort, parameters, status; and its thread."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np

from tomostream_ioc.errors import ArmingError, TomoStreamError
from tomostream_ioc.model.control import (
    ChannelNames,
    Engine,
    MemoryUse,
    RunListener,
    RunStatus,
    Severity,
    SliceSink,
    StreamSource,
)
from tomostream_ioc.model.jobs import JobThread
from tomostream_ioc.model.lens import LensOptics
from tomostream_ioc.model.params import ReconParams
from tomostream_ioc.model.slices import SliceMeta, Slices
from tomostream_ioc.model.state import RunState
from tomostream_ioc.runner.arming import Arming, EngineFactory
from tomostream_ioc.runner.board import Board, Cancelled, ParamStore, RunJob
from tomostream_ioc.runner.centering import Centering
from tomostream_ioc.runner.intake import FIELD_RECORDS, ArmedScan, Intake
from tomostream_ioc.runner.lens import LensSync
from tomostream_ioc.runner.staging import Allocate
from tomostream_ioc.runner.streaming import Streaming

log = logging.getLogger(__name__)

_IDLE_TICK_S = 0.2
_NOT_RUNNING = "no frames are being reconstructed: put StartRecon to Acquire first"
_NOT_YET = "the run is being armed or is paused: try again when ReconStatus says Running"


class Runner:
    """Implements RunControl. `start_thread` first, `shutdown` last.

    ``timeout_s`` bounds the wait for each channel while arming. ``allocate(shape, dtype)`` gives
    the memory that frames wait in (pinned where the engine is on a GPU). ``optics`` tell of changes
    of the lens.
    """

    def __init__(
        self,
        source: StreamSource,
        sink: SliceSink,
        make_engine: EngineFactory,
        *,
        timeout_s: float = 10.0,
        allocate: Allocate = np.empty,
        optics: LensOptics | None = None,
    ):
        self._source = source
        self._sink = sink
        self._allocate = allocate
        self._board = Board()
        self._params = ParamStore(self._board.wake)
        self._lens = LensSync(optics, self._board, self._params)
        self._arming = Arming(source, make_engine, self._board, self._params, self._lens, timeout_s)
        self._centering = Centering(self._board, self._params)
        self._streaming = Streaming(sink, self._board, self._params, self._centering, self._lens)
        self._engine: Engine | None = None
        self._jobs = JobThread[ChannelNames](
            "run", self._board.wake, self._wait, self._run, self._ended
        )
        sink.set_posted_listener(self._board.slices_posted)

    # ---- RunControl, from any thread

    def set_listener(self, listener: RunListener) -> None:
        self._params.listener = listener

    def start(self, names: ChannelNames, params: ReconParams) -> int:
        self._params.put(params)
        return self._jobs.ask(names)

    def abort(self) -> None:
        self._jobs.cancel()
        self._source.cancel()

    def set_params(self, params: ReconParams) -> None:
        self._params.put(params)

    def set_binning(self, binning: int) -> ReconParams | None:
        return self._params.set_binning(binning)

    def find_center(self) -> int:
        search_id = self._centering.request()
        state = self._board.machine.state
        if state is not RunState.RUNNING:
            not_yet = state in (RunState.ARMING, RunState.PAUSED)
            self._centering.refuse(_NOT_YET if not_yet else _NOT_RUNNING)
        return search_id

    def set_center_auto(self, on: bool) -> None:
        self._centering.auto = on
        self._board.wake.set()

    def set_lens_sync(self, on: bool) -> None:
        self._lens.set_sync(on)

    def set_output(self, channel: str) -> None:
        self._sink.set_output(channel)

    def set_crosshair(self, on: bool) -> None:
        self._sink.set_crosshair(on)

    def status(self) -> RunStatus:
        return replace(
            self._board.status(self._jobs.last_id),
            frame_shape=self._params.frame_shape,
            center_found=self._params.center_found,
        )

    def last_slices(self) -> tuple[Slices, SliceMeta] | None:
        """What was published last, in this run or an earlier one."""
        return self._board.last_slices

    def output_refused(self, reason: str) -> None:
        """The slices can't be served under the name that was put; '' when they can again."""
        if reason:
            self._board.notices.raise_alarm("ReconPVAName", Severity.MAJOR, "WRITE", reason)
        else:
            self._board.notices.clear_alarm("ReconPVAName")

    # ---- the thread

    def start_thread(self) -> None:
        self._board.message = "Idle: put StartRecon to Acquire to begin"
        self._jobs.start()

    def shutdown(self, timeout_s: float = 4.0) -> bool:
        """End the run and the thread; False when they did not end in time."""
        self._jobs.close()
        self._source.cancel()
        return self._jobs.join(timeout_s)

    def _wait(self) -> None:
        self._centering.refuse(_NOT_RUNNING)  # asked for in the very moment of the end
        self._board.sleep(_IDLE_TICK_S)
        self._board.beat()

    def _run(self, job: RunJob) -> None:
        board = self._board
        board.new_run()
        self._params.set_found(0.0, 1)
        self._centering.new_run()
        self._sink.set_alarm(None)
        intake = Intake(
            board.counters,
            board.notices,
            board.wake,
            self._allocate,
            binning=lambda: self._params.binning,
        )
        board.machine.to(RunState.ARMING)
        try:
            board.beat(job)
            self._lens.open(job.request.lens, intake)
            armed = self._arming.arm(job, intake)
            while True:
                self._engine = armed.engine
                board.machine.to(RunState.RUNNING)
                reason = self._streaming.stream(job, intake, armed)
                if self._lens.pending:
                    reason = self._pause(job, armed.scan)
                board.machine.to(RunState.ARMING)
                self._centering.stop(f"{reason}: starting anew")
                del armed  # its ring and its queue are not needed while the next ones are made
                self._release_engine()
                armed = self._arming.rearm(job, intake, reason)
        except Cancelled:
            self._end(RunState.IDLE, "Stopped")
        except ArmingError as error:
            if job.cancelled:
                self._end(RunState.IDLE, "Stopped")
            else:
                board.notices.raise_alarm("ReconStatus", Severity.MINOR, "STATE", str(error))
                self._end(RunState.IDLE, f"Not started: {error}")
        except Exception as error:
            # Whatever an engine, a driver or the GPU throws: the records stay alive and say it.
            log.exception("The run failed")
            ours = isinstance(error, TomoStreamError)
            text = str(error) if ours else f"{type(error).__name__}: {error}"
            board.notices.raise_alarm("ReconStatus", Severity.MAJOR, "STATE", text)
            self._end(RunState.FAULT, f"Fault: {text}. Put StartRecon to try again")
        finally:
            intake.close()
        self._centering.stop("the run has ended")

    def _ended(self, run_id: int) -> None:
        if self._params.listener is not None:
            self._params.listener.run_ended(run_id)

    def _pause(self, job: RunJob, scan: ArmedScan) -> str:
        """Until the lens is there; returns why the run must be armed again."""
        self._board.machine.to(RunState.PAUSED)
        self._centering.stop("the lens changes")
        reason = self._lens.follow(job, scan)
        self._centering.new_run()
        return reason

    def _end(self, state: RunState, message: str) -> None:
        if state is RunState.IDLE:
            self._board.machine.to(RunState.STOPPING)
        self._source.close()
        self._lens.close()
        self._release_engine()
        for record in (*FIELD_RECORDS.values(), "FrameRate", "TomoScanPVPrefix"):
            self._board.notices.clear_alarm(record)
        self._board.message = message
        self._board.machine.to(state)

    def _release_engine(self) -> None:
        engine, self._engine = self._engine, None
        if engine is None:
            return
        self._board.memory = MemoryUse()
        try:
            engine.release()
        except Exception:
            # A lost GPU may refuse even this; the run ends all the same.
            log.exception("The engine could not be released")
