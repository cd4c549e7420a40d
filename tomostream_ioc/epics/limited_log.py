"""Log lines that a client can cause as often as it likes: one per cause and second."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

_PERIOD_S = 1.0
_MOST_CAUSES = 1000


class LimitedLog:
    """What was held back is counted in the next line of the same cause."""

    def __init__(self, log: logging.Logger, clock_s: Callable[[], float] = time.monotonic):
        self._log, self._clock_s = log, clock_s
        self._causes: dict[str, tuple[float, int]] = {}  # cause -> last line, held back since

    def say(self, cause: str, text: str, *arguments: object, level: int = logging.WARNING) -> None:
        """Log ``text`` unless ``cause`` had a line within the last second."""
        more = self._turn(cause)
        if more is not None:
            self._log.log(level, f"{text}{more}", *arguments)

    def exception(self, cause: str, text: str, *arguments: object) -> None:
        """The same at level ERROR, with the exception that is being handled."""
        more = self._turn(cause)
        if more is not None:
            self._log.exception(f"{text}{more}", *arguments)

    def _turn(self, cause: str) -> str | None:
        """What to add to the line; None when it is not to be."""
        now_s = self._clock_s()
        last_s, held_back = self._causes.get(cause, (float("-inf"), 0))
        if now_s - last_s < _PERIOD_S:
            self._causes[cause] = last_s, held_back + 1
            return None
        if len(self._causes) >= _MOST_CAUSES:
            self._causes.clear()
        self._causes[cause] = now_s, 0
        return f" ({held_back} more like it)" if held_back else ""
