"""Saves and restores records as EPICS autosave does: .req files say what, a .sav file keeps it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from tomostream_ioc.epics.database import expand, read_text
from tomostream_ioc.epics.dbd import FieldSpec
from tomostream_ioc.epics.group import TomoStreamGroup
from tomostream_ioc.epics.record import Record
from tomostream_ioc.epics.wire import PutError, check_enum, check_float, check_int, check_text
from tomostream_ioc.errors import ConfigError

logger = logging.getLogger(__name__)

FILE_NAME = "auto_settings.sav"
PERIOD_S = 30.0
# a command, or what follows the run: never restored, whoever saved it
NEVER_RESTORED = frozenset({"StartRecon", "AbortRecon", "Watchdog", "Status", "ServerRunning"})
_END = "<END>"
_MAX_DEPTH = 20


def read_request(
    path: str | os.PathLike[str], macros: Mapping[str, str], depth: int = 0
) -> list[str]:
    """The PV names (``record`` or ``record.FIELD``) that a request file asks to save.

    Comments and ``#controlPV`` lines name none; ``file "other.req", P=$(P)`` takes in another
    file from the same folder. Raises ConfigError with file:line.
    """
    names: list[str] = []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        place = f"{path}:{number}"
        text = line.partition("#")[0].strip()
        if not text:
            continue
        if depth > _MAX_DEPTH:
            raise ConfigError(f"{place}: request files take in each other without an end")
        words = text.split(None, 1)
        if words[0] == "file":
            other, given = _file_line(words[1] if len(words) > 1 else "", macros, place)
            names += read_request(Path(path).parent / other, given, depth + 1)
        else:
            names.append(expand(words[0], macros, place))
    return list(dict.fromkeys(names))


def _file_line(text: str, macros: Mapping[str, str], place: str) -> tuple[str, dict[str, str]]:
    """Name and macros of ``"other.req", P=$(P), R=x``; commas and spaces both divide."""
    if text.startswith('"'):
        name, _, rest = text[1:].partition('"')
    else:
        name, _, rest = text.replace(",", " ").partition(" ")
    if not name:
        raise ConfigError(f"{place}: 'file' without a file's name")
    given: dict[str, str] = {}
    for definition in rest.replace(",", " ").split():
        key, equals, value = definition.partition("=")
        if not equals:
            raise ConfigError(f"{place}: {definition!r} is not NAME=value")
        given[key] = expand(value.strip('"'), macros, place)
    return expand(name, macros, place), given


def parse_saved(text: str) -> dict[str, str]:
    """PV -> value of a .sav file; raises ValueError for a file that is not whole."""
    lines = text.split("\n")
    if _END not in lines:
        raise ValueError(f"no {_END}: the file is not whole")
    values: dict[str, str] = {}
    for number, line in enumerate(lines[: lines.index(_END)], start=1):
        if not line.strip() or line.startswith("#"):
            continue
        name, space, value = line.partition(" ")
        if not space or any(ord(character) < 32 for character in line):
            raise ValueError(f"line {number} is not 'PV value'")
        values[name] = value
    return values


class Autosave:
    """Keeps what the request files name in ``<directory>/auto_settings.sav``.

    The request files are read at once: raises ConfigError. Restoring and saving never raise;
    what goes wrong is one line in the log.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        request_files: Iterable[str | os.PathLike[str]],
        macros: Mapping[str, str],
        group: TomoStreamGroup,
    ):
        self.path = Path(directory) / FILE_NAME
        self._group = group
        self._lock = threading.Lock()  # a save in a thread, and the last one at exit
        self._written: list[str] | None = None
        self._complaint = ""
        self._names: list[str] = []
        for request in request_files:
            for name in read_request(request, macros):
                if self._find(name) is None:
                    logger.warning("%s asks for %s, which is no record here", request, name)
                elif name not in self._names:
                    self._names.append(name)

    def _find(self, name: str) -> tuple[Record, FieldSpec | None] | None:
        """The record that a PV names, and its field if that is not VAL."""
        record_name, _, field = name.partition(".")
        record = self._group.records.get(record_name.removeprefix(self._group.prefix))
        if record is None or not record_name.startswith(self._group.prefix):
            return None
        if field in ("", "VAL"):
            return record, None
        return (record, record.specs[field]) if field in record.specs else None

    # --- restore --------------------------------------------------------------------------

    def restore(self) -> list[str]:
        """Set the records from the saved file, before the server runs.

        Nothing is put to the run. Returns a sentence for each value that was refused; a file that
        can't be used at all is left out whole, set aside and logged.
        """
        try:
            values = parse_saved(self.path.read_text(encoding="latin-1"))
        except FileNotFoundError:
            return []
        except (OSError, ValueError) as error:
            logger.warning("%s is not used, the defaults hold: %s", self.path, error)
            if isinstance(error, ValueError):
                self._set_aside()
            return []
        refusals = [
            f"{name} is not restored: {reason}"
            for name, text in values.items()
            if (reason := self._restore_one(name, text)) is not None
        ]
        for refusal in refusals:
            logger.warning("%s: %s", self.path, refusal)
        return refusals

    def _restore_one(self, name: str, text: str) -> str | None:
        """Why a value is refused, or None."""
        found = self._find(name)
        if found is None:
            return "no such record or field here"
        record, spec = found
        if record.pvname.removeprefix(self._group.prefix) in NEVER_RESTORED:
            return "commands are never restored"
        try:
            if spec is None:
                record.restore(record.accept_text(text))
            elif spec.read_only:
                return "this field is not writable"
            else:
                record.restore_field(spec.name, _field_of_text(spec, text))
        except (PutError, ValueError) as error:
            return str(error)
        return None

    def _set_aside(self) -> None:
        """Keep a file that can't be used: the next save would write over it."""
        aside = self.path.with_name(f"{FILE_NAME}_bad_{time.strftime('%y%m%d-%H%M%S')}")
        with contextlib.suppress(OSError):
            self.path.replace(aside)
            logger.warning("%s is kept as %s", self.path, aside.name)

    # --- save -----------------------------------------------------------------------------

    def _lines(self) -> list[str]:
        lines = []
        for name in self._names:
            found = self._find(name)
            if found is not None:
                record, spec = found
                text = record.save_text() if spec is None else str(record.field(spec.name))
                lines.append(f"{name} {text}")
        return lines

    async def run(self, period_s: float = PERIOD_S) -> None:
        """Save every ``period_s`` when something has changed, until cancelled."""
        while True:
            await asyncio.sleep(period_s)
            lines = self._lines()
            if lines != self._written:
                await asyncio.to_thread(self._save, lines)

    def save_now(self) -> bool:
        """Save at once, as at exit; False where that failed."""
        return self._save(self._lines())

    def _save(self, lines: list[str]) -> bool:
        stamp = time.strftime("%y%m%d-%H%M%S")
        header = f"# autosave R5.3\tAutomatically generated - DO NOT MODIFY - {stamp}"
        with self._lock:
            try:
                _write_whole(self.path, "\n".join([header, *lines, _END, ""]).encode("latin-1"))
            except OSError as error:
                complaint = f"settings can't be saved to {self.path}: {error.strerror or error}"
                if complaint != self._complaint:  # every 30 s the same would fill the log
                    logger.error("%s", complaint)
                self._complaint = complaint
                return False
            self._complaint, self._written = "", lines
            return True


def _field_of_text(spec: FieldSpec, text: str) -> object:
    """A field's value from what was saved; raises PutError or ValueError."""
    match spec.kind:
        case "d":
            return check_float(float(text))
        case "u" | "l" | "h" | "c":
            bounds = {"u": (0, 2**32 - 1), "h": (-(2**15), 2**15 - 1), "c": (0, 255)}
            whole = check_int(float(text), *bounds.get(spec.kind, ()))
            return float(whole) if spec.kind == "u" else whole
        case "e":
            return check_enum(int(text), spec.menu)
        case _:
            return check_text(text, spec.size)


def _write_whole(path: Path, content: bytes) -> None:
    """Replace a file so that at any moment, also after a crash, the old or the new one is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if temporary.read_bytes() != content:
            raise OSError("what was read back is not what was written")
        temporary.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
