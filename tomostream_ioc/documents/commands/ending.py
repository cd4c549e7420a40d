"""SIGTERM, SIGINT and SIGHUP end a command in order."""

from __future__ import annotations

import signal
import threading
from types import FrameType


class Ended(Exception):  # noqa: N818 - what it says is no error
    """A signal asked the program to end."""


class Ending:
    """``signal_name`` is "" until a signal came. The second one of a kind ends the program at once.

    raising : raise Ended where the program stands, for calls that can't be asked to return
    """

    def __init__(self, *, raising: bool = False):
        self.signal_name = ""
        self._asked = threading.Event()
        self._raising = raising
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._take)

    def __bool__(self) -> bool:
        return self._asked.is_set()

    def wait(self, timeout_s: float) -> bool:
        return self._asked.wait(timeout_s)

    def _take(self, number: int, _: FrameType | None) -> None:
        self.signal_name = signal.Signals(number).name
        self._asked.set()
        signal.signal(number, signal.SIG_DFL)
        if self._raising:
            raise Ended(self.signal_name)
