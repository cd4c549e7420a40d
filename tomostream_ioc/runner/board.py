"""What the run's parts share: the status board, the parameters, and the job that goes on."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

from tomostream_ioc.errors import ArmingError
from tomostream_ioc.model.control import ChannelNames, RunListener, RunStatus
from tomostream_ioc.model.counters import Counters
from tomostream_ioc.model.params import ReconParams
from tomostream_ioc.model.slices import SliceMeta, Slices
from tomostream_ioc.model.state import StateMachine
from tomostream_ioc.runner.notices import Notices
from tomostream_ioc.runner.rates import Rate

_BEAT_S = 0.5


class Cancelled(Exception):  # noqa: N818 - no error: the way out of a run that was aborted
    """The run was aborted or the program ends."""


@dataclass(eq=False)
class Job:
    """One run, from the request to its end."""

    run_id: int
    names: ChannelNames
    cancelled: bool = False


class Board:
    """Everything that the records show of a run; written by its threads, read by any."""

    def __init__(self) -> None:
        self.machine = StateMachine()
        self.counters = Counters()
        self.notices = Notices()
        self.wake = threading.Event()  # set: there is something for the run's thread to do
        self.message = "Starting: preparing the kernels, up to a minute the first time"
        self.last_slices: tuple[Slices, SliceMeta] | None = None
        self._heartbeat_s = time.monotonic()
        self._frame_rate = Rate()
        self._recon_rate = Rate()
        self._clear_figures()

    def new_run(self) -> None:
        self.counters.reset()
        self.notices.clear()
        self._clear_figures()

    def _clear_figures(self) -> None:
        self.recon_time_s = 0.0
        self.buffer_size = "0/0"
        self.bad_pixels = 0
        self.center_found = 0.0
        self.center_confidence = 0.0
        self._latency_s = 0.0
        self._posted = 0
        self._frame_rate.reset()
        self._recon_rate.reset()

    def beat(self, job: Job | None = None) -> None:
        """Sign of life of the run's thread. Raises Cancelled when the job is to end."""
        self._heartbeat_s = time.monotonic()
        if job is not None and job.cancelled:
            raise Cancelled

    @contextlib.contextmanager
    def beating(self) -> Iterator[None]:
        """Signs of life during a call that blocks for seconds, and is known to end."""
        over = threading.Event()

        def beat() -> None:
            while not over.wait(_BEAT_S):
                self.beat()

        thread = threading.Thread(target=beat, name="beat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def sleep(self, most_s: float) -> None:
        """Wait for something to do."""
        self.wake.wait(most_s)
        self.wake.clear()

    def slices_posted(self, meta: SliceMeta, posted_s: float) -> None:
        self._posted += 1
        if meta.newest_received_s:
            self._latency_s = posted_s - meta.newest_received_s
        self.wake.set()

    def status(self, run_id: int) -> RunStatus:
        counts = self.counters.snapshot()
        message, passing = self.message, self.notices.text()
        return RunStatus(
            state=self.machine.state,
            run_id=run_id,
            message=f"{message}. {passing}" if passing and passing not in message else message,
            recon_time_s=self.recon_time_s,
            buffer_size=self.buffer_size,
            counts=counts,
            bad_pixels=self.bad_pixels,
            frame_rate_hz=self._frame_rate.update(counts.usable),
            recon_rate_hz=self._recon_rate.update(self._posted),
            latency_s=self._latency_s,
            center_found=self.center_found,
            center_confidence=self.center_confidence,
            heartbeat_s=self._heartbeat_s,
            alarms=self.notices.alarms(),
        )


class ParamStore:
    """The newest parameters; one frozen snapshot is used per reconstruction."""

    def __init__(self, wake: threading.Event) -> None:
        self._wake = wake
        self._params: ReconParams | None = None
        self.listener: RunListener | None = None

    def put(self, params: ReconParams) -> None:
        """A user's change."""
        self._params = params
        self._wake.set()

    def change(self, params: ReconParams) -> None:
        """The run's own change: the records follow."""
        self._params = params
        if self.listener is not None:
            self.listener.params_changed(params)

    def get(self) -> ReconParams:
        if self._params is None:
            raise ArmingError("no parameters were set")
        return self._params
