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

log = logging.getLogger(__name__)

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
        self._unreadable = False  # the file may hold settings: it is not written over
        self._names: list[str] = []
        for request in request_files:
            for name in read_request(request, macros):
                if self._find(name) is None:
                    log.warning("%s asks for %s, which is no record here", request, name)
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

        Where the file can't be used, .savB is, then the newest of .sav0 to .sav2, then none; the
        log says which. A .sav or .savB that is broken or another IOC's is set aside, one that
        can't be read stays as it is. Nothing is put to the run. Returns a sentence for each value
        that was refused.
        """
        missed = False
        for path in self._candidates():
            try:
                values = self._parse(path)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                log.error("%s can't be read: %s", path, error.strerror or error)
                if path == self.path:
                    self._unreadable = True
                    log.error("so no settings are saved: make it readable, then start again")
            except ValueError as error:
                kept = self._set_aside(path) if path in (self.path, self._backup) else ""
                log.warning("%s is not used: %s%s", path, error, kept)
            else:
                if path != self.path:
                    log.warning("settings are restored from %s", path)
                return [
                    f"{name} is not restored: {reason}"
                    for name, text in values.items()
                    if (reason := self._restore_one(name, text)) is not None
                ]
            missed = True
        if missed:
            log.warning("no saved settings can be used: the defaults hold")
        return []

    @property
    def _backup(self) -> Path:
        """What the file was before the last save."""
        return self.path.with_name(FILE_NAME + "B")

    def _candidates(self) -> list[Path]:
        """The files that may hold settings, the best first."""
        older = [self.path.with_name(f"{FILE_NAME}{number}") for number in range(3)]
        # EPICS autosave writes these in turn, every minute: each of them may be the newest
        return [self.path, self._backup, *sorted(older, key=_changed_s, reverse=True)]

    def _parse(self, path: Path) -> dict[str, str]:
        """Raises OSError, or ValueError for a file that is broken or another IOC's."""
        values = parse_saved(path.read_text(encoding="latin-1"))
        if values and not any(name.startswith(self._group.prefix) for name in values):
            raise ValueError(f"it is another IOC's, nothing in it is {self._group.prefix}*")
        return values

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

    def _set_aside(self, path: Path) -> str:
        """Keep a file that can't be used, as the next save would write over it; says where."""
        stem = aside = f"{path.name}_bad_{time.strftime('%y%m%d-%H%M%S')}"
        number = 1
        while path.with_name(aside).exists():
            number += 1
            aside = f"{stem}_{number}"
        try:
            path.rename(path.with_name(aside))
        except OSError as error:
            self._unreadable = True
            return f"; it can't be set aside, so nothing is saved: {error.strerror or error}"
        return f"; it is kept as {aside}"

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
        """Save at once, as at exit; False where that failed or must not be."""
        return self._save(self._lines())

    def _save(self, lines: list[str]) -> bool:
        stamp = time.strftime("%y%m%d-%H%M%S")
        header = f"# autosave R5.3\tAutomatically generated - DO NOT MODIFY - {stamp}"
        with self._lock:
            if self._unreadable:  # restore() has said so
                return False
            try:
                content = "\n".join([header, *lines, _END, ""]).encode("latin-1")
                _write_whole(self.path, content, self._backup if self._is_good() else None)
            except OSError as error:
                complaint = f"settings can't be saved to {self.path}: {error.strerror or error}"
                if complaint != self._complaint:  # every 30 s the same would fill the log
                    log.error("%s", complaint)
                self._complaint = complaint
                return False
            self._complaint, self._written = "", lines
            return True

    def _is_good(self) -> bool:
        """True when what is there now is worth a backup."""
        try:
            return bool(self._parse(self.path))
        except (OSError, ValueError):
            return False


def _changed_s(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


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


def _write_whole(path: Path, content: bytes, backup: Path | None = None) -> None:
    """Replace a file so that at any moment, also after a crash, the old or the new one is whole.

    What it was before goes on as ``backup``, which is replaced in the same way.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if temporary.read_bytes() != content:
            raise OSError("what was read back is not what was written")
        if backup is not None:
            _keep(path, backup)
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


def _keep(path: Path, backup: Path) -> None:
    """Give the file a second name; ``path`` itself stays, so nothing is ever without a file."""
    link = backup.with_name(f".{backup.name}.{os.getpid()}.tmp")
    link.unlink(missing_ok=True)  # of a process that was killed, and had the same number
    try:
        link.hardlink_to(path)
    except OSError:  # a file system without hard links
        _write_whole(backup, path.read_bytes())
        return
    link.replace(backup)
    link.unlink(missing_ok=True)  # replace() does nothing where both are the same file already
