"""Worker threads for kernels that release the GIL."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import TypeVar

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
_HEARTBEAT_S = 0.2
#: pieces of work per thread: the others go on where one is interrupted
_PIECES = 4
#: how much lower than the process's the priority of the threads is; the lowest there is
_NICE, _LOWEST = 5, 19


def usable_cpus() -> int:
    """CPUs that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _give_way() -> None:
    """Let threads that serve clients or take frames interrupt this one at once.

    A kernel runs for milliseconds, an answer takes a fraction of one: with the same priority it
    would wait for the end of a time slice. Linux has priorities of single threads; elsewhere
    nothing changes.
    """
    if sys.platform == "linux":
        own = threading.get_native_id()
        lower = os.getpriority(os.PRIO_PROCESS, own) + _NICE
        with contextlib.suppress(OSError):  # forbidden here: a pool must not break of that
            os.setpriority(os.PRIO_PROCESS, own, min(lower, _LOWEST))


class Workers:
    """A pool of ``n_threads`` threads, one per usable CPU unless told otherwise.

    While they work the caller calls ``heartbeat`` several times a second. What it raises is raised
    by `map` and `split`, when the pieces in hand are done; the others are left out.
    """

    def __init__(self, heartbeat: Callable[[], None], n_threads: int | None = None):
        self.n_threads = n_threads or usable_cpus()
        self._heartbeat = heartbeat
        self._pool = ThreadPoolExecutor(self.n_threads, "recon", initializer=_give_way)

    def beat(self) -> None:
        """Call the heartbeat between pieces of work that are short each; raises what it raises."""
        self._heartbeat()

    def map(
        self,
        function: Callable[[_Item], _Result],
        items: Sequence[_Item],
        interruptible: bool = True,
    ) -> list[_Result]:
        """All results, in order; no piece is being worked on any more when it returns or raises.

        Without ``interruptible`` there is no heartbeat: for what is short and must come to its end.
        """
        futures = [self._pool.submit(function, item) for item in items]
        try:
            while wait(futures, _HEARTBEAT_S, FIRST_EXCEPTION).not_done:
                failed = [f for f in futures if f.done() and f.exception() is not None]
                if failed:
                    break
                if interruptible:
                    self._heartbeat()
            return [future.result() for future in futures]
        finally:
            for future in futures:
                future.cancel()
            wait(futures)

    def split(self, n: int, function: Callable[[int, int], object]) -> None:
        """Call function(first, end) for pieces that together are 0..n."""
        n_pieces = min(n, self.n_threads * _PIECES)
        edges = [n * i // n_pieces for i in range(n_pieces + 1)] if n_pieces else []
        self.map(lambda i: function(edges[i], edges[i + 1]), range(n_pieces))

    def close(self) -> None:
        """End the threads; waits for what they are doing."""
        self._pool.shutdown()
