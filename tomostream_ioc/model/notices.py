"""What a user is told: log lines that cannot flood, a passing sentence, and alarms on records."""

from __future__ import annotations

import logging
import threading
import time

from tomostream_ioc.model.control import Alarm, Severity

log = logging.getLogger(__name__)

#: a passing sentence stays in ReconStatus that long
_SHOWN_S = 8.0
#: one log line per cause in that time
_LOG_EVERY_S = 1.0


class Notices:
    """Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._text = ""
        self._level = logging.NOTSET
        self._until = 0.0
        self._logged: dict[str, float] = {}
        self._held_back: dict[str, int] = {}
        self._alarms: dict[str, Alarm] = {}

    def say(
        self, cause: str, text: str, level: int = logging.WARNING, *, answer: bool = False
    ) -> None:
        """Show ``text`` in ReconStatus for a while and log it, once a second for each cause.

        A sentence does not take the place of a graver one, unless it is the ``answer`` to what a
        user has asked for.
        """
        now = time.monotonic()
        with self._lock:
            if answer or level >= self._level or now >= self._until:
                self._text, self._level = text, level
                self._until = now + _SHOWN_S
            if now - self._logged.get(cause, float("-inf")) < _LOG_EVERY_S:
                self._held_back[cause] = self._held_back.get(cause, 0) + 1
                return
            self._logged[cause] = now
            held_back = self._held_back.pop(cause, 0)
        more = f" ({held_back} more like it since the last line)" if held_back else ""
        log.log(level, "%s%s", text, more, extra={"cause": cause})

    def raise_alarm(
        self, record: str, severity: Severity, status: str, message: str, *, quiet: bool = False
    ) -> None:
        """Put an alarm on a record (name without prefix) and say why.

        ``quiet``: only log it, where the state's own sentence tells it as long as it lasts.
        """
        with self._lock:
            known = self._alarms.get(record)
            self._alarms[record] = Alarm(severity, status, message)
        if known is not None and known.message == message:
            return
        if quiet:
            log.warning("%s", message, extra={"cause": f"alarm {record}"})
        else:
            self.say(f"alarm {record}", message)

    def clear_alarm(self, record: str) -> bool:
        """True when there was one."""
        with self._lock:
            return self._alarms.pop(record, None) is not None

    def clear(self) -> None:
        """Forget sentence and alarms: a new run begins."""
        with self._lock:
            self._until = 0.0
            self._alarms.clear()

    def text(self) -> str:
        """The passing sentence, or '' when it has been shown long enough."""
        with self._lock:
            return self._text if time.monotonic() < self._until else ""

    def alarms(self) -> dict[str, Alarm]:
        with self._lock:
            return dict(self._alarms)
