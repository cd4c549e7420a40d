"""Saves and restores records as EPICS autosave does: .req files say what, a .sav file keeps it."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from caproto import ChannelType

from tomostream_ioc.epics.dbd import FieldSpec
from tomostream_ioc.epics.group import TomoStreamGroup
from tomostream_ioc.epics.record import Record
from tomostream_ioc.epics.request_file import read_request
from tomostream_ioc.epics.save_status import OK, Condition, Report, SaveStatus
from tomostream_ioc.epics.saved_file import (
    Saved,
    escape,
    free_name,
    read_saved,
    remove_leftovers,
    saved_text,
    write_whole,
)
from tomostream_ioc.epics.wire import PutError, check_enum, check_float, check_int, check_text

log = logging.getLogger(__name__)

NAME = "auto_settings"
FILE_NAME = f"{NAME}.sav"
PERIOD_S = 30.0
SEQUENCE_PERIOD_S = 60.0
N_SEQUENCE_FILES = 3
BEAT_PERIOD_S = 1.0
# a command, or what follows the run: never restored, whoever saved it
NEVER_RESTORED = frozenset(
    {"StartRecon", "AbortRecon", "FindCenter", "Watchdog", "Status", "ServerRunning"}
)
_DATED = re.compile(re.escape(FILE_NAME) + r"_\d{6}-\d{6}(_\d+)?")


class Autosave:
    """Keeps what the request files name in ``<directory>/auto_settings.sav``.

    Beside it are .savB, the file before; .sav0 to .sav2, written in turn; and one file with a date
    for each start that found other settings. The request files are read at once: raises
    ConfigError. Restoring and saving never raise; what goes wrong is one line in the log, and in
    the SR_ records.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        request_files: Iterable[str | os.PathLike[str]],
        macros: Mapping[str, str],
        group: TomoStreamGroup,
    ):
        self.path = Path(directory) / FILE_NAME
        self.status = SaveStatus(group, NAME)
        self._group = group
        self._lock = threading.Lock()  # a save in a thread, and the last one at exit
        self._written: list[str] | None = None
        self._in_sequence: list[str] | None = None  # the lines that the newest of .sav0.. has
        self._next_number: int | None = None  # which of them is the next; None: the oldest
        self._unreadable = False  # the file may hold settings: it is not written over
        self._names: list[str] = []
        for request in request_files:
            for name in read_request(request, macros):
                if self._find(name) is None:
                    log.warning("%s asks for %s, which is no record here", request, name)
                elif name not in self._names:
                    self._names.append(name)

    def _find(self, name: str) -> tuple[Record, FieldSpec | None] | None:
        """The record that a PV names, and its field if that is not VAL.

        ``$`` behind the field of a string asks for all of it, which is what is saved in any case.
        """
        record_name, _, field = name.partition(".")
        record = self._group.records.get(record_name.removeprefix(self._group.prefix))
        if record is None or not record_name.startswith(self._group.prefix):
            return None
        is_long, field = field.endswith("$"), field.removesuffix("$")
        if field in ("", "VAL"):
            is_text = record.data_type == ChannelType.STRING
            return (record, None) if is_text or not is_long else None
        spec = record.specs.get(field)
        if spec is None or (is_long and spec.kind not in "SL"):
            return None
        return record, spec

    # --- restore --------------------------------------------------------------------------

    def restore(self) -> list[str]:
        """Set the records from the saved file, before the server runs.

        Where the file can't be used, .savB is, then the newest of .sav0 to .sav2, then none; the
        log and SR_rebootStatus say which. One that is broken or another IOC's is set aside, one
        that can't be read stays as it is. Nothing is put to the run. Returns a sentence for each
        value that was refused.
        """
        remove_leftovers(self.path)
        bad: list[str] = []
        for path in self._candidates():
            try:
                saved = self._parse(path)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                log.error("%s can't be read: %s", path, error.strerror or error)
                if path == self.path:
                    self._unreadable = True
                    log.error("so no settings are saved: make it readable, then start again")
            except ValueError as error:
                log.warning("%s is not used: %s%s", path, error, self._set_aside(path))
            else:
                return self._restore_from(path, saved, bad)
            bad.append(path.suffix)
        if bad:
            log.warning("no saved settings can be used: the defaults hold")
            report = Report(Condition.FAILURE, f"Defaults: bad {', '.join(bad)}")
        else:
            report = Report(Condition.WARNING, "Defaults: there is no .sav file")
        self.status.restored(report)
        return []

    def _restore_from(self, path: Path, saved: Saved, bad: list[str]) -> list[str]:
        """Restore from the first file that can be used; ``bad`` are those before it."""
        remarks: list[str] = []
        if path != self.path:
            log.warning("settings are restored from %s", path)
            why = f"bad {', '.join(bad)}" if bad else "no .sav"
            remarks.append(f"From {path.suffix}: {why}")
        if saved.n_not_connected:
            log.warning("%s: %d values had not been there to save", path, saved.n_not_connected)
            remarks.append(f"{saved.n_not_connected} not saved")
        refusals = [
            f"{name} is not restored: {reason}"
            for name, text in saved.values.items()
            if (reason := self._restore_one(name, text)) is not None
        ]
        if refusals:
            remarks.append(f"{len(refusals)} refused")
        if not self._keep_dated(path, saved):
            remarks.append("no dated copy")
        self.status.restored(Report(Condition.WARNING, "; ".join(remarks)) if remarks else OK)
        return refusals

    @property
    def _backup(self) -> Path:
        """What the file was before the last save."""
        return self.path.with_name(FILE_NAME + "B")

    def _sequence(self) -> list[Path]:
        return [self.path.with_name(f"{FILE_NAME}{number}") for number in range(N_SEQUENCE_FILES)]

    def _candidates(self) -> list[Path]:
        """The files that may hold settings, the best first."""
        newest_first = sorted(self._sequence(), key=_changed_s, reverse=True)
        return [self.path, self._backup, *newest_first]

    def _parse(self, path: Path) -> Saved:
        """Raises OSError, or ValueError for a file that is broken or another IOC's."""
        saved = read_saved(path)
        prefix = self._group.prefix
        if saved.values and not any(name.startswith(prefix) for name in saved.values):
            raise ValueError(f"it is another IOC's, nothing in it is {prefix}*")
        return saved

    def _restore_one(self, name: str, text: str) -> str | None:
        """Why a value is refused, or None."""
        found = self._find(name)
        if found is None:
            return "no such record or field here"
        record, spec = found
        if record.pvname.removeprefix(self._group.prefix) in NEVER_RESTORED:
            return "commands are never restored"
        if not record.is_writable:
            return "this record shows a state, it is no setting"
        try:
            if spec is None:
                value = record.accept_text(text)
                self._group.check_setting(record, value)
                record.restore(value)
            elif spec.read_only:
                return "this field is not writable"
            else:
                record.restore_field(spec.name, _field_of_text(spec, text))
        except (PutError, ValueError) as error:
            return str(error)
        return None

    def _set_aside(self, path: Path) -> str:
        """Keep a file that can't be used, as the next save would write over it; says where."""
        try:
            return f"; it is kept as {_moved_aside(path).name}"
        except OSError as error:  # tried again before anything is written over it
            return f"; it can't be set aside: {error.strerror or error}"

    def _keep_dated(self, path: Path, saved: Saved) -> bool:
        """Keep what was restored under the date of this start, unless the last such file has it."""
        try:
            dated = [one for one in self.path.parent.iterdir() if _DATED.fullmatch(one.name)]
            if dated and _values(max(dated, key=_changed_s)) == saved.values:
                return True
            write_whole(free_name(self.path), path.read_bytes())
        except OSError as error:
            log.warning("%s can't be copied: %s", path, error.strerror or error)
            return False
        return True

    # --- save -----------------------------------------------------------------------------

    def _lines(self) -> list[str]:
        lines = []
        for name in self._names:
            found = self._find(name)
            if found is not None:
                record, spec = found
                text = record.save_text() if spec is None else _text_of_field(record, spec)
                lines.append(f"{name} {text}")
        return lines

    async def run(
        self, period_s: float = PERIOD_S, sequence_period_s: float = SEQUENCE_PERIOD_S
    ) -> None:
        """Save every ``period_s`` when something has changed, until cancelled.

        Every ``sequence_period_s`` what was saved since goes into the next of .sav0 to .sav2. What
        fails is tried again in the next period.
        """
        start_s = time.monotonic()
        save_s, sequence_s = start_s + period_s, start_s + sequence_period_s
        while True:
            await self.status.beat()
            await asyncio.sleep(min(period_s, sequence_period_s, BEAT_PERIOD_S))
            try:
                if time.monotonic() >= save_s:
                    save_s = time.monotonic() + period_s
                    lines = self._lines()
                    if lines != self._written:
                        await asyncio.to_thread(self._save, lines)
                if time.monotonic() >= sequence_s:
                    sequence_s = time.monotonic() + sequence_period_s
                    await asyncio.to_thread(self.save_sequence)
            except Exception:
                log.exception("settings could not be saved")

    def save_now(self) -> bool:
        """Save at once, as at exit; False where that failed or must not be."""
        return self._save(self._lines())

    def _save(self, lines: list[str]) -> bool:
        with self._lock:
            if self._unreadable:  # restore() has said so
                self.status.saving_is(Report(Condition.FAILURE, "Not saved: .sav can't be read"))
                return False
            try:
                backup = self._backup if self._make_room(self.path) else None
                self._make_room(self._backup)
                write_whole(self.path, saved_text(lines).encode("ascii"), backup)
            except OSError as error:
                self._written = None  # try again, also where the old values come back
                self._failed(Condition.FAILURE, self.path, error)
                return False
            self._written = lines
            self.status.wrote(self.path.name)
            self._works(Condition.FAILURE)
            return True

    def save_sequence(self) -> bool:
        """Copy the file into the oldest of .sav0 to .sav2, if it has been saved since.

        False where that failed.
        """
        with self._lock:
            lines = self._written
            if lines is None or lines == self._in_sequence:
                return True
            files = self._sequence()
            if self._next_number is None:
                self._next_number = files.index(min(files, key=_changed_s))
            path = files[self._next_number]
            try:
                self._make_room(path)
                # no second name of the same file: a C IOC writes over the .sav in place
                write_whole(path, saved_text(lines).encode("ascii"))
            except OSError as error:
                self._failed(Condition.SEQUENCE_FAILED, path, error)
                return False
            self._in_sequence = lines
            self._next_number = (self._next_number + 1) % N_SEQUENCE_FILES
            self.status.wrote(path.name)
            self._works(Condition.SEQUENCE_FAILED)
            return True

    def _failed(self, condition: Condition, path: Path, error: OSError) -> None:
        cause = error.strerror or str(error)
        report = Report(condition, f"Can't write {path.suffix}: {cause}")
        if report != self.status.saving:  # every 30 s the same would fill the log
            log.error("settings can't be saved to %s: %s; it is tried again", path, cause)
        self.status.saving_is(report)

    def _works(self, condition: Condition) -> None:
        """What may have failed before has been done now."""
        known = self.status.saving.condition
        if known == condition:
            log.warning("settings are saved again")
        if known in (condition, Condition.NO_STATUS):
            self.status.saving_is(OK)

    def _make_room(self, path: Path) -> bool:
        """Set aside what is there if it is not a good file of this IOC's; True if it is.

        Raises OSError.
        """
        try:
            return bool(self._parse(path).values)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except (OSError, ValueError) as error:
            kept = _moved_aside(path)
            log.warning("%s is not a good file: %s; it is kept as %s", path, error, kept.name)
            return False


def _moved_aside(path: Path) -> Path:
    """Rename a file that can't be used; raises OSError."""
    return path.rename(free_name(path, "bad_"))


def _values(path: Path) -> dict[str, str] | None:
    """What a file holds, None where it is broken; raises OSError."""
    try:
        return read_saved(path).values
    except ValueError:
        return None


def _changed_s(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _text_of_field(record: Record, spec: FieldSpec) -> str:
    value = record.field(spec.name)
    return f"{value:.14g}" if spec.kind in "du" else escape(str(value))


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
            return check_enum(int(text) if text.strip().isdigit() else text, spec.menu)
        case _:
            return check_text(text, spec.size)
