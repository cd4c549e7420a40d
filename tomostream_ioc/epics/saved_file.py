"""The .sav file of EPICS autosave: its text, and how it is written so that it is always whole.

The format is that of autosave R5.3: a header, lines of ``PV value``, ``<END>``. Strings are escaped
as in C, an array is ``@array@ { "1" "2" }`` and may go over several lines, ``#`` begins a line that
is not restored, and ``! 2 channel(s) not connected`` says that values are missing.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

END = "<END>"
_ARRAY = "@array@"
_LINE = re.compile(r"\s*(\S+)(?:[ \t](.*))?")
_ELEMENT = re.compile(r'"((?:\\.|[^"\\])*)"')
_ELEMENT_OR_ITS_BEGIN = re.compile(r'"(?:\\.|[^"\\])*(?:"|\\?$)')
# \ooo is of EPICS base before 7, which wrote what is not printable so
_ESCAPED = re.compile(r"\\(x[0-9a-fA-F]{1,2}|[0-7]{3}|0|.|$)", re.DOTALL)
_NAMED = {
    "a": "\a",
    "b": "\b",
    "f": "\f",
    "n": "\n",
    "r": "\r",
    "t": "\t",
    "v": "\v",
}
_LETTERS = {character: letter for letter, character in _NAMED.items()}


@dataclass(frozen=True, slots=True)
class Saved:
    """What a file holds: PV -> value, and how many PVs it says were not there to be saved."""

    values: dict[str, str] = field(default_factory=dict)
    n_not_connected: int = 0


def escape(text: str) -> str:
    """A string as the file has it: ASCII, on one line, never taken for an array."""
    escaped = "".join(map(_escape, text.encode("latin-1", "replace").decode("latin-1")))
    return "\\x40" + escaped[1:] if text.startswith(_ARRAY) else escaped


def _escape(character: str) -> str:
    if character in _LETTERS:
        return "\\" + _LETTERS[character]
    if character in "\\'\"":
        return "\\" + character
    return character if " " <= character <= "~" else f"\\x{ord(character):02x}"


def unescape(text: str) -> str:
    """The string that was escaped; a backslash before any other character is left out."""
    return _ESCAPED.sub(_unescaped, text)


def _unescaped(match: re.Match[str]) -> str:
    code = match[1]
    if code[:1] == "x" and len(code) > 1:
        return chr(int(code[1:], 16))
    if code == "0" or (len(code) == 3 and code.isdigit()):
        return chr(int(code, 8) & 0xFF)
    return _NAMED.get(code, code)


def array_text(elements: Iterable[object]) -> str:
    """An array as the file has it."""
    return " ".join((_ARRAY, "{", *(f'"{escape(str(element))}"' for element in elements), "}"))


def array_elements(text: str) -> list[str] | None:
    """The elements of what ``array_text`` or the C autosave wrote; None for what is no array."""
    if not text.startswith(_ARRAY) or not _is_closed(text):
        return None
    return [unescape(element) for element in _ELEMENT.findall(text.partition("{")[2])]


def _is_closed(text: str) -> bool:
    """Is there the brace that ends an array? One inside an element does not."""
    return "}" in _ELEMENT_OR_ITS_BEGIN.sub("", text.partition("{")[2])


def parse_saved(text: str) -> Saved:
    """What a .sav file holds; raises ValueError for one that is not whole."""
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    if END not in lines:
        raise ValueError(f"no {END}: the file is not whole")
    end = lines.index(END)
    if any(line.strip("\0 \t") for line in lines[end + 1 :]):
        raise ValueError(f"there is more behind {END}")
    values: dict[str, str] = {}
    n_not_connected = 0
    rest = iter(enumerate(lines[:end], start=1))
    for number, line in rest:
        found = _LINE.fullmatch(line)
        if not found:
            if line.strip():
                raise ValueError(f"line {number} is not 'PV value'")
            continue
        name, value = found[1], found[2] or ""
        is_array = value.startswith(_ARRAY)
        while is_array and not _is_closed(value):
            number, more = next(rest, (number, None))
            if more is None:
                raise ValueError(f"line {number}: an array without an end")
            value += more
        if name.startswith("!"):
            count = re.search(r"\d+", line)
            n_not_connected += int(count[0]) if count else 1
        elif not name.startswith("#"):
            if any(ord(character) < 32 and character != "\t" for character in name + value):
                raise ValueError(f"line {number} is not 'PV value'")
            values[name] = value if is_array else unescape(value)
    return Saved(values, n_not_connected)


def saved_text(lines: Iterable[str]) -> str:
    """A whole file of lines ``PV value``, whose values are escaped already."""
    stamp = time.strftime("%y%m%d-%H%M%S")
    header = f"# autosave R5.3\tAutomatically generated - DO NOT MODIFY - {stamp}"
    return "\n".join([header, *lines, END, ""])


def read_saved(path: Path) -> Saved:
    """Raises OSError, or ValueError for a file that is not whole."""
    return parse_saved(path.read_text(encoding="latin-1"))


def write_whole(path: Path, content: bytes, backup: Path | None = None) -> None:
    """Replace a file so that at any moment, also after a crash, the old or the new one is whole.

    What it was before goes on as ``backup``, which is replaced in the same way. Raises OSError:
    then ``path`` is what it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path)
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
    link = _temporary(backup)
    link.unlink(missing_ok=True)  # of a process that was killed, and had the same number
    try:
        link.hardlink_to(path)
    except OSError:  # a file system without hard links
        write_whole(backup, path.read_bytes())
        return
    link.replace(backup)
    link.unlink(missing_ok=True)  # replace() does nothing where both are the same file already


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def remove_leftovers(path: Path, age_s: float = 3600.0) -> None:
    """Remove what processes left that were killed while they wrote ``path``, or copies of it."""
    before_s = time.time() - age_s  # a younger one may be another IOC's, which writes it now
    for leftover in path.parent.glob(f".{path.name}*.tmp"):
        with contextlib.suppress(OSError):
            if leftover.lstat().st_mtime < before_s:
                leftover.unlink()


def free_name(path: Path, kind: str = "") -> Path:
    """A name beside ``path`` that no file has: its own, ``kind`` and the time."""
    stem = f"{path.name}_{kind}{time.strftime('%y%m%d-%H%M%S')}"
    name, number = stem, 1
    while os.path.lexists(path.with_name(name)):
        number += 1
        name = f"{stem}_{number}"
    return path.with_name(name)
