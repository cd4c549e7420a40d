"""What the program says: lines, log and status line, to a terminal that may go away."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import sys
from datetime import UTC, datetime
from typing import TextIO

from pythonjsonlogger.json import JsonFormatter

from tomostream_ioc.model.control import RunStatus
from tomostream_ioc.model.state import RunState

#: what libraries tell of their own work
_CHATTER = ("caproto", "matplotlib", "numba", "tiled", "alembic", "httpx", "bluesky")


def say(text: str, end: str = "\n") -> None:
    """Print at once. A reader that has gone (a closed terminal, `| head`) is no error."""
    try:
        print(text, end=end, flush=True)
    except OSError:
        _mute(sys.stdout)


def on_terminal() -> bool:
    return sys.stdout is not None and sys.stdout.isatty()


def _mute(stream: TextIO) -> None:
    """Send what is still buffered, and all that follows, to nobody.

    Otherwise the interpreter complains once more when it flushes the stream at its end.
    """
    with contextlib.suppress(OSError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


class _LogHandler(logging.StreamHandler[TextIO]):
    """To standard error, while there is somebody who reads it."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        if isinstance(sys.exc_info()[1], OSError):
            _mute(self.stream)
        else:
            super().handleError(record)


def set_up_logging(level: str, log_format: str = "text") -> None:
    """Log to standard error: a line of text each, or with ``json`` an object of JSON each."""
    handler = _LogHandler(sys.stderr)
    if log_format == "json":
        handler.setFormatter(_json_formatter())
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=level, handlers=[handler])
    # libraries' chatter, as of servers about clients, is not the user's
    for name in (*_CHATTER, "asyncio"):
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLevelName(level)))


class _JsonFormatter(JsonFormatter):
    """Times as collectors of logs want them: UTC, ISO 8601, milliseconds."""

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802
        return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")


def _json_formatter() -> logging.Formatter:
    """time, level, part, thread and message; what a call adds by ``extra``; a traceback."""
    return _JsonFormatter(
        ["asctime", "levelname", "name", "threadName", "message"],
        rename_fields={
            "asctime": "time",
            "levelname": "level",
            "name": "part",
            "threadName": "thread",
            "exc_info": "traceback",
        },
    )


class StatusLine:
    """One line that moves on a terminal, one line a second elsewhere."""

    def __init__(self) -> None:
        self._terminal = on_terminal()
        self._shown = False

    @property
    def moves(self) -> bool:
        """Whether there is a terminal on which it moves."""
        return self._terminal

    def show(self, status: RunStatus) -> None:
        self.show_text(status_text(status))

    def show_text(self, text: str) -> None:
        if self._terminal:
            # a longer one would wrap, and the next could not take its place
            text = shortened(text, shutil.get_terminal_size().columns - 1)
            say(f"\r\x1b[K{text}", end="")
        else:
            say(text)
        self._shown = True

    def say(self, text: str) -> None:
        """A line of its own, above the one that moves."""
        self.end()
        self._shown = False
        say(text)

    def end(self) -> None:
        if self._terminal and self._shown:
            say("")


def status_text(status: RunStatus) -> str:
    """Rates and counts; while no slices are made, first of all why."""
    counts, state = status.counts, status.state.value
    frames = f"frames {counts.received} missed {counts.missed} dropped {counts.dropped}"
    if status.state is not RunState.RUNNING:
        reason = status.message
        return f"{reason if reason.startswith(state) else f'{state}: {reason}'} | {frames}"
    return (
        f"{state:8s} {status.frame_rate_hz:7.1f} frames/s {status.recon_rate_hz:5.1f} slices/s"
        f" | {frames} | ReconTime {1e3 * status.recon_time_s:6.1f} ms"
        f" | BufferSize {status.buffer_size}"
    )


def shortened(text: str, width: int) -> str:
    return text if len(text) <= width else text[: max(width - 3, 0)] + "..."
