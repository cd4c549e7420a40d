"""An asyncio event loop that lends its turn to other threads while it has nothing to do."""

from __future__ import annotations

import asyncio
import selectors
import threading
from collections.abc import Callable
from typing import Any


class LendableLoop(asyncio.SelectorEventLoop):
    """Whoever borrows a turn runs as one of the loop's callbacks, but in a thread of its own.

    To hand a piece of work over to a loop costs two changes of threads, and each waits for a core
    and for the interpreter: longer than most of that work takes. While the loop waits for something
    to happen none of its code runs, so another thread may run a callback in its place: one at a
    time, as ever. The loop must be entered by ``run_forever`` and the like from one thread only.
    """

    def __init__(self) -> None:
        # written by who has the turn alone: other threads use call_soon_threadsafe(), which wakes
        # the loop by itself
        self._is_lent = False
        self._has_more = False
        self._waiting = _LendingSelector()
        super().__init__(self._waiting)

    def borrow(self, function: Callable[..., object], *arguments: Any) -> bool:
        """Call this now, in the calling thread; False where the loop is busy: nothing was called.

        ``function`` must not block. It runs in no task, as every callback does. Raises what it
        raises; what it has left to the loop until then is done all the same.
        """
        # in debug mode a loop refuses to be used by other threads
        if self.get_debug() or not self._waiting.take_turn():
            return False
        self._is_lent, self._has_more = True, False
        asyncio._set_running_loop(self)
        try:
            function(*arguments)
        finally:
            asyncio._set_running_loop(None)
            self._is_lent = False
            if self._has_more:  # told now, as the loop may have been closed once it has its turn
                self.call_soon_threadsafe(_nothing)
            self._waiting.give_back()
        return True

    def call_soon(self, *args: Any, **kwargs: Any) -> asyncio.Handle:
        self._has_more = self._is_lent
        return super().call_soon(*args, **kwargs)

    def call_at(self, *args: Any, **kwargs: Any) -> asyncio.TimerHandle:
        self._has_more = self._is_lent
        return super().call_at(*args, **kwargs)


class _LendingSelector(selectors.DefaultSelector):
    """Gives the loop's turn away while it waits."""

    def __init__(self) -> None:
        super().__init__()
        self._turn = threading.Lock()
        self._turn.acquire()
        self._is_wanted = False

    def take_turn(self) -> bool:
        return not self._is_wanted and self._turn.acquire(blocking=False)

    def give_back(self) -> None:
        self._turn.release()

    def select(self, timeout: float | None = None) -> Any:
        if timeout is not None and timeout <= 0:
            return super().select(timeout)
        self._turn.release()
        try:
            events = super().select(timeout)
        finally:
            # who borrows one turn after the other must not keep the loop from its own
            self._is_wanted = True
            self._turn.acquire()
            self._is_wanted = False
        # of a file that a borrower has registered anew since then, the next select() tells
        now = self.get_map()
        return [event for event in events if now.get(event[0].fileobj) is event[0]]


def _nothing() -> None:
    """Called on the loop to have it look what there is to do."""
