"""Worker threads for kernels that release the GIL."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import weakref
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

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

    Handing a kernel over takes some microseconds of the interpreter (decision 0031).

    The interpreter ends only when no piece is being worked on.
    """

    def __init__(self, heartbeat: Callable[[], None], n_threads: int | None = None):
        self.n_threads = n_threads or usable_cpus()
        self._heartbeat = heartbeat
        self._work: SimpleQueue[_Work | None] = SimpleQueue()
        self._threads = [
            threading.Thread(target=_serve, args=(self._work,), name=f"recon_{i}", daemon=True)
            for i in range(self.n_threads)
        ]
        self._end = weakref.finalize(self, _end, self._work, self._threads)
        for thread in self._threads:
            thread.start()

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
        Raises RuntimeError after `close`.
        """
        if not self._end.alive:
            raise RuntimeError("these workers have ended: they were closed, or the program ends")
        work = _Work(function, items, min(self.n_threads, len(items)))
        for _ in range(work.n_busy):
            self._work.put(work)
        while work.n_busy:
            try:
                if not work.wait(_HEARTBEAT_S) and interruptible and work.error is None:
                    self._heartbeat()
            except BaseException as error:  # noqa: BLE001 - Ctrl-C too: first they must have ended
                work.error = error
        error, work.error = work.error, None
        if error is not None:
            try:
                raise error
            finally:
                del error  # its traceback leads here: a circle would keep the arrays
        return work.results

    def split(self, n: int, function: Callable[[int, int], object]) -> None:
        """Call function(first, end) for pieces that together are 0..n; in the caller if n is 1."""
        if n == 1:  # the way to another thread would take longer
            function(0, 1)
            return
        n_pieces = min(n, self.n_threads * _PIECES)
        edges = [n * i // n_pieces for i in range(n_pieces + 1)] if n_pieces else []
        self.map(lambda i: function(edges[i], edges[i + 1]), range(n_pieces))

    def close(self) -> None:
        """End the threads; waits for what they are doing."""
        self._end()
        for thread in self._threads:
            thread.join()


class _Work:
    """One call of `map`: the threads take its items in turn until none is left, or one failed."""

    def __init__(self, function: Callable[[Any], Any], items: Sequence[Any], n_threads: int):
        self._function, self._items = function, items
        self._left = iter(range(len(items)))  # the next is one thread's alone: the GIL sees to it
        self._lock = threading.Lock()
        self._ended: SimpleQueue[None] = SimpleQueue()
        self.results: list[Any] = [None] * len(items)
        self.error: BaseException | None = None
        self.n_busy = n_threads

    def wait(self, most_s: float) -> bool:
        """Until one more thread has ended; False where none has in that time."""
        try:
            self._ended.get(timeout=most_s)
        except Empty:
            return False
        return True

    def do(self) -> None:
        try:
            for index in self._left:
                if self.error is not None:
                    break
                self.results[index] = self._function(self._items[index])
        except BaseException as error:  # noqa: BLE001 - raised where `map` was called
            self.error = error
        with self._lock:
            self.n_busy -= 1
        self._ended.put(None)


def _serve(queue: SimpleQueue[_Work | None]) -> None:
    _give_way()
    while (work := queue.get()) is not None:
        work.do()
        del work  # its arrays, that is: the next may be long in coming


def _end(queue: SimpleQueue[_Work | None], threads: Sequence[threading.Thread]) -> None:
    """Have them end when they have nothing left to do; as the program ends, wait for it.

    A daemon thread that comes back from a kernel when the interpreter is gone aborts the process
    where that kernel is in C++. Collected as garbage they have nothing to do, and nobody may wait.
    """
    for _ in threads:
        queue.put(None)
    if not threading.main_thread().is_alive():
        for thread in threads:
            if thread.ident is not None:  # it was started
                thread.join()
