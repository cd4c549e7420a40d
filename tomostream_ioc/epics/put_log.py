"""Puts that are logged: denied, refused, and those that TRAPWRITE asks for. CA and PVA alike."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

_LINES_A_SECOND = 10
_LONGEST_VALUE = 80

log = logging.getLogger(__name__)


class PutLog:
    """Lines with address, user, PV and value. Of denied and refused puts, ten a second at most.

    A client can send such puts as fast as it likes; those that get no line are counted.
    """

    def __init__(self, clock_s: Callable[[], float] = time.monotonic):
        self._clock_s = clock_s
        self._second_began_s = clock_s()
        self._lines = 0

    def denied(self, name: str, value: Any, address: str, user: str, reason: str) -> None:
        """Access security does not let this client write."""
        self._not_done(logging.WARNING, "denied", name, value, address, user, reason)

    def refused(self, name: str, value: Any, address: str, user: str, reason: str) -> None:
        """The record does not take this value."""
        self._not_done(logging.INFO, "refused", name, value, address, user, reason)

    def trapped(self, name: str, value: Any, address: str, user: str) -> None:
        """Done, and the access security file wants to know."""
        shown = shortened(value)
        fields = _fields(name, shown, address, user)
        log.info("put: %s = %s by %r at %s", name, shown, user, address, extra=fields)

    def _not_done(
        self, level: int, what: str, name: str, value: Any, address: str, user: str, reason: str
    ) -> None:
        now_s = self._clock_s()
        if now_s - self._second_began_s >= 1.0:
            if self._lines > _LINES_A_SECOND:
                log.warning("%d more puts denied or refused", self._lines - _LINES_A_SECOND)
            self._second_began_s, self._lines = now_s, 0
        self._lines += 1
        if self._lines <= _LINES_A_SECOND:
            shown = shortened(value)
            log.log(
                level,
                "put %s (%s): %s = %s by %r at %s",
                *(what, reason, name, shown, user, address),
                extra=_fields(name, shown, address, user) | {"reason": reason},
            )


def _fields(name: str, value: str, address: str, user: str) -> dict[str, str]:
    """What a log in JSON has as fields of their own."""
    return {"pv": name, "value": value, "address": address, "user": user}


def shortened(value: Any) -> str:
    """A value in one line of a log, whatever a client has put into it."""
    try:
        count = len(value)
    except TypeError:
        count = 1
    else:
        value = value[:_LONGEST_VALUE]  # no text of a whole array for a few characters of it
        value = value[0] if count == 1 else value
    if hasattr(value, "tolist"):
        value = value.tolist()
    text = repr(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}..."
