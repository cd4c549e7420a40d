"""Runs that users ask for, one after the other in a thread of their own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

_Request = TypeVar("_Request")


@dataclass(eq=False)
class Job(Generic[_Request]):
    """One run, from the request to its end."""

    run_id: int  # from 1 on
    request: _Request
    cancelled: bool = False


class JobThread(Generic[_Request]):
    """Does one job at a time; while a cancelled one comes to its end, the next may be asked for.

    ``pause`` waits for ``wake`` or a moment and does what is due without a job; ``work`` does one
    and looks at its ``cancelled``; ``ended`` tells of its end, when another can be asked for. All
    three are called from the thread and must not raise. The rest is for any thread.
    """

    def __init__(
        self,
        name: str,
        wake: threading.Event,
        pause: Callable[[], None],
        work: Callable[[Job[_Request]], None],
        ended: Callable[[int], None],
    ):
        self._wake = wake
        self._pause = pause
        self._work = work
        self._ended = ended
        self._lock = threading.Lock()
        self._job: Job[_Request] | None = None
        self._next: Job[_Request] | None = None
        self._last_id = 0
        self._closing = False
        self._thread = threading.Thread(target=self._main, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def last_id(self) -> int:
        """Of the newest job that was asked for; 0 before the first."""
        return self._last_id

    @property
    def busy(self) -> bool:
        """True while a job goes on or waits."""
        with self._lock:
            return self._job is not None or self._next is not None

    def ask(self, request: _Request) -> int:
        """The id of a new job, or of the one that goes on or waits and is not cancelled."""
        with self._lock:
            going = self._next or self._job
            if going is not None and not going.cancelled:
                return going.run_id
            self._last_id += 1
            self._next = Job(self._last_id, request)
            run_id = self._last_id
        self._wake.set()
        return run_id

    def cancel(self) -> None:
        """What goes on and what waits is to end.

        What waits still begins, so that `ended` tells of it, unless another is asked for first: the
        end of that one is the end of both.
        """
        with self._lock:
            for job in (self._job, self._next):
                if job is not None:
                    job.cancelled = True
        self._wake.set()

    def close(self) -> None:
        """Cancel, and begin no other job."""
        self._closing = True
        self.cancel()

    def join(self, timeout_s: float) -> bool:
        """Wait for the thread after `close`; False when it did not end in time."""
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _main(self) -> None:
        while not self._closing:
            self._pause()
            with self._lock:
                job = self._job = self._next
                self._next = None
            if job is None:
                continue
            self._work(job)
            with self._lock:
                self._job = None
            self._ended(job.run_id)
