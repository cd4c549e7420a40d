"""What the run's parts share: the status board, the parameters, and the job that goes on."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

from tomostream_ioc.errors import ArmingError
from tomostream_ioc.model.binning import Place, binned_shape, check_binning, rebinned_column
from tomostream_ioc.model.control import ChannelNames, MemoryUse, RunListener, RunStatus
from tomostream_ioc.model.counters import Counters
from tomostream_ioc.model.jobs import Job
from tomostream_ioc.model.lens import Crossing, middle
from tomostream_ioc.model.notices import Notices
from tomostream_ioc.model.params import ReconParams
from tomostream_ioc.model.rates import Rate
from tomostream_ioc.model.slices import SliceMeta, Slices
from tomostream_ioc.model.state import StateMachine

_BEAT_S = 0.5


class Cancelled(Exception):  # noqa: N818 - no error: the way out of a run that was aborted
    """The run was aborted or the program ends."""


#: one run, of what the names at its start say
RunJob = Job[ChannelNames]


class Board:
    """Everything that the records show of a run; written by its threads, read by any."""

    def __init__(self) -> None:
        self.machine = StateMachine()
        self.counters = Counters()
        self.notices = Notices()
        self.wake = threading.Event()  # set: there is something for the run's thread to do
        self.message = "Starting: preparing the kernels, up to a minute the first time"
        self.activity = ""  # what is done beside that, for a while
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
        self.memory = MemoryUse()
        self.center_confidence = 0.0
        self._latency_s = 0.0
        self._posted = 0
        self._frame_rate.reset()
        self._recon_rate.reset()

    def beat(self, job: RunJob | None = None) -> None:
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
        message = "; ".join(part for part in (self.message, self.activity) if part)
        passing = self.notices.text()
        return RunStatus(
            state=self.machine.state,
            run_id=run_id,
            message=f"{message}. {passing}" if passing and passing not in message else message,
            recon_time_s=self.recon_time_s,
            buffer_size=self.buffer_size,
            counts=counts,
            bad_pixels=self.bad_pixels,
            memory=self.memory,
            frame_rate_hz=self._frame_rate.update(counts.usable),
            recon_rate_hz=self._recon_rate.update(self._posted),
            latency_s=self._latency_s,
            center_confidence=self.center_confidence,
            heartbeat_s=self._heartbeat_s,
            alarms=self.notices.alarms(),
        )


class ParamStore:
    """The newest parameters; one frozen snapshot is used per reconstruction.

    The axis and the slices are in pixels of frames that are binned by ``binning``; so is the axis
    that was found, and it scales with Center.
    """

    def __init__(self, wake: threading.Event) -> None:
        self._wake = wake
        self._lock = threading.Lock()
        self._params: ReconParams | None = None
        self._binning = 1
        self._frame_shape: tuple[int, int] | None = None
        self._rebinned: _Rebinned | None = None
        self._found = 0.0
        self._found_binning = 1
        self.listener: RunListener | None = None

    @property
    def binning(self) -> int:
        return self._binning

    @property
    def frame_shape(self) -> tuple[int, int] | None:
        """(n_rows, n_cols) of the frames after binning; None before the first."""
        with self._lock:
            shape, binning = self._frame_shape, self._binning
        return None if shape is None else binned_shape(shape, binning)

    @property
    def center_found(self) -> float:
        """The axis that the last search has found; 0 before."""
        with self._lock:
            return self._found_now()

    def set_found(self, center: float, binning: int) -> float:
        """A search has found the axis in frames of that binning; returns `center_found`."""
        with self._lock:
            self._found, self._found_binning = center, binning
            return self._found_now()

    def _found_now(self) -> float:
        return rebinned_column(self._found, self._found_binning, self._binning)

    def put(self, params: ReconParams) -> None:
        """A user's change."""
        with self._lock:
            self._params = params
        self._wake.set()

    def change(self, params: ReconParams, binning: int) -> None:
        """The run's own change, for frames of that binning: the records follow."""
        with self._lock:
            if binning != self._binning:  # it was put in this very moment
                place = Place.of(params).rebinned(binning, self._binning, self._frame_shape)
                params = place.on(params)
            self._params = params
        if self.listener is not None:
            self.listener.params_changed(params)

    def set_center(self, center: float, binning: int) -> None:
        """The run's own change of the axis alone, in pixels of frames of that binning."""
        with self._lock:
            params = self._params
            if params is None:
                raise ArmingError("no parameters were set")
            if binning != self._binning:  # it was put in this very moment
                here = replace(Place.of(params), center=center)
                center = here.rebinned(binning, self._binning, self._frame_shape).center
            params = self._params = replace(params, center=center)
        if self.listener is not None:
            self.listener.params_changed(params)

    def crossing(self) -> Crossing | None:
        """Where the slices cross; None as long as no frame has come."""
        with self._lock:
            if self._params is None or self._frame_shape is None:
                return None
            return Crossing.of(self._params, self._frame_shape, self._binning)

    def follow_lens(self, axes: frozenset[str], pixel_um: float | None) -> None:
        """The slices across ``axes`` go to the middle, and the pixel has another size."""
        with self._lock:
            params = self._params
            if params is None:
                return
            if axes and self._frame_shape is not None:
                places = middle(binned_shape(self._frame_shape, self._binning))
                at = dict(zip("xyz", places, strict=True))
                params = replace(params, **{f"ortho_{axis}": at[axis] for axis in axes})
                self._rebinned = None
            if pixel_um is not None:
                params = replace(params, pixel_size_um=pixel_um)
            self._params = params
        if self.listener is not None:
            self.listener.params_changed(params)

    def get(self) -> ReconParams:
        return self.snapshot()[0]

    def snapshot(self) -> tuple[ReconParams, int]:
        """The parameters, and the binning that they hold for."""
        with self._lock:
            if self._params is None:
                raise ArmingError("no parameters were set")
            return self._params, self._binning

    def set_frame_shape(self, frame_shape: tuple[int, int], *, scale: bool) -> None:
        """The detector's (n_rows, n_cols) now; ``scale``: the parameters follow from the last."""
        with self._lock:
            last, self._frame_shape = self._frame_shape, frame_shape
            if last == frame_shape:
                return
            self._rebinned = None
            if not scale or last is None or self._params is None:
                return
            old, new = (binned_shape(shape, self._binning) for shape in (last, frame_shape))
            if self._found:
                found = replace(self._params, center=self._found_now()).rescaled(old, new)
                self._found, self._found_binning = found.center, self._binning
            params = self._params = self._params.rescaled(old, new)
        if self.listener is not None:
            self.listener.params_changed(params)

    def set_binning(self, binning: int) -> ReconParams | None:
        """A user's change of binning, and the parameters at the same place in the sample.

        Raises ParameterError: no such binning.
        """
        check_binning(binning)
        with self._lock:
            if self._params is not None and binning != self._binning:
                now, known = Place.of(self._params), self._rebinned
                if known is None or known.place != now:
                    known = _Rebinned(now, now, self._binning)
                # from where the user put it: back at the old binning it is there again
                place = known.origin.rebinned(known.binning, binning, self._frame_shape)
                if binning == known.binning:
                    place = known.origin
                self._rebinned = _Rebinned(place, known.origin, known.binning)
                self._params = place.on(self._params)
            self._binning = binning
            params = self._params
        self._wake.set()
        return params


@dataclass(frozen=True, slots=True)
class _Rebinned:
    """A place that follows from a change of binning, and the one that a user chose."""

    place: Place
    origin: Place
    binning: int  # of the origin
