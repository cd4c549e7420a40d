"""Reads EPICS database files (.template, .db), substitutions files and their macros.

    for load in read_substitutions("db/tomoStream.substitutions"):
        load.template, load.macros          # one dbLoadRecords each
    records = read_database("db/tomoStream.template", {"P": "2bmb:", "R": "TomoStream:"})
    records["2bmb:TomoStream:Center"].fields["PREC"]

Every error is a ConfigError that begins with file:line.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from tomostream_ioc.errors import ConfigError

_TOKEN = re.compile(
    r"""(?P<space>[ \t\r]+|\#[^\n]*)
    |(?P<newline>\n)
    |"(?P<quoted>(?:[^"\\\n]|\\.)*)"
    |(?P<symbol>[{}(),=])
    |(?P<word>(?:\$\([^)\n]*\)|\$\{[^}\n]*\}|[^\s{}(),="\#])+)""",
    re.VERBOSE,
)
#: names of templates that are ours begin so
_OUR_TEMPLATES = "tomoStream"
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r"}
_MAX_DEPTH = 20  # of macros in macros, and of files in files


class TemplateLoad(NamedTuple):
    """One use of a template: the file as it is named, and its macros."""

    template: str
    macros: dict[str, str]


@dataclass(frozen=True, slots=True)
class RecordDefinition:
    """A record of a database file, its macros expanded."""

    name: str
    record_type: str
    fields: dict[str, str] = field(default_factory=dict)
    info: dict[str, str] = field(default_factory=dict)
    place: str = ""  # file:line


class _Token(NamedTuple):
    kind: str  # symbol, word or quoted
    text: str
    line: int


def read_text(path: str | os.PathLike[str]) -> str:
    """A file's text; raises ConfigError where it can't be read."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ConfigError(f"{path}:1: this is not a text file") from None
    except OSError as error:
        raise ConfigError(f"{path}: can't be read: {error.strerror}") from error


def expand(text: str, macros: Mapping[str, str], place: str = "", depth: int = 0) -> str:
    """``$(A)``, ``${A}`` and ``$(A=default)`` replaced; macros may name macros.

    Raises ConfigError: a macro is not defined, or not closed, or defined by itself.
    """
    parts: list[str] = []
    at = 0
    while (start := text.find("$", at)) >= 0:
        if text[start + 1 : start + 2] not in ("(", "{"):
            parts.append(text[at : start + 1])
            at = start + 1
            continue
        parts.append(text[at:start])
        end = _closing(text, start + 1, place)
        name, has_default, default = text[start + 2 : end].partition("=")
        name = expand(name, macros, place, depth + 1).strip()
        if depth > _MAX_DEPTH:
            raise ConfigError(f"{place}: macro {name} is defined by itself")
        if name in macros:
            parts.append(expand(macros[name], macros, place, depth + 1))
        elif has_default:
            parts.append(expand(default, macros, place, depth + 1))
        else:
            raise ConfigError(f"{place}: macro {name} is not defined")
        at = end + 1
    parts.append(text[at:])
    return "".join(parts)


def _closing(text: str, opening: int, place: str) -> int:
    pair = {"(": ")", "{": "}"}
    awaited: list[str] = []
    for index in range(opening, len(text)):
        character = text[index]
        if character in pair and (index == opening or text[index - 1] == "$"):
            awaited.append(pair[character])
        elif awaited and character == awaited[-1]:
            awaited.pop()
            if not awaited:
                return index
    raise ConfigError(f"{place}: macro in {text!r} is not closed")


class Reader:
    """The tokens of one file, one after the other."""

    def __init__(self, path: str | os.PathLike[str]):
        self.path = str(path)
        self._tokens = list(self._split(read_text(path)))
        self._at = 0

    def _split(self, text: str) -> Iterator[_Token]:
        line, at = 1, 0
        while at < len(text):
            match = _TOKEN.match(text, at)
            if match is None:
                what = (
                    "a string is not closed" if text[at] == '"' else f"{text[at]!r} is unexpected"
                )
                raise ConfigError(f"{self.path}:{line}: {what}")
            at = match.end()
            kind = match.lastgroup or ""
            if kind == "newline":
                line += 1
            elif kind == "quoted":
                yield _Token(kind, _unescaped(match.group(kind)), line)
            elif kind != "space":
                yield _Token(kind, match.group(kind), line)

    @property
    def done(self) -> bool:
        return self._at >= len(self._tokens)

    def place(self) -> str:
        """file:line of the token that was taken last."""
        line = self._tokens[max(self._at - 1, 0)].line if self._tokens else 1
        return f"{self.path}:{line}"

    def error(self, what: str) -> ConfigError:
        return ConfigError(f"{self.place()}: {what}")

    def peek(self) -> str:
        """The next symbol, or '' for a value or the end."""
        if self.done or self._tokens[self._at].kind != "symbol":
            return ""
        return self._tokens[self._at].text

    def skip(self, symbol: str) -> bool:
        """Take a symbol if it comes next."""
        if self.peek() != symbol:
            return False
        self._at += 1
        return True

    def expect(self, symbol: str) -> None:
        if not self.skip(symbol):
            found = "the end of the file" if self.done else repr(self._tokens[self._at].text)
            self._at = min(self._at + 1, len(self._tokens))
            raise self.error(f"{symbol!r} is missing before {found}")

    def value(self) -> str:
        """A word or a quoted string."""
        if self.done or self._tokens[self._at].kind == "symbol":
            found = "the end of the file" if self.done else repr(self._tokens[self._at].text)
            self._at = min(self._at + 1, len(self._tokens))
            raise self.error(f"a value is missing before {found}")
        self._at += 1
        return self._tokens[self._at - 1].text

    def values(self) -> list[str]:
        """``{ a, "b" c }``: the values, with or without commas; ``{`` comes next."""
        self.expect("{")
        found: list[str] = []
        while not self.skip("}"):
            found.append(self.value())
            self.skip(",")
        return found

    def definitions(self) -> dict[str, str]:
        """``{ A=1, B="x" }``: the macros; ``{`` comes next."""
        self.expect("{")
        found: dict[str, str] = {}
        while not self.skip("}"):
            name = self.value()
            self.expect("=")
            # A=, B=1: an empty value
            found[name] = "" if self.peek() in (",", "}") else self.value()
            self.skip(",")
        return found


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.)", lambda match: _ESCAPES.get(match.group(1), match.group(1)), text)


def read_substitutions(
    path: str | os.PathLike[str], macros: Mapping[str, str] | None = None
) -> list[TemplateLoad]:
    """The templates that a substitutions file loads, in order, one for each set of macros.

    ``macros``, then the environment, expand macros in file names and values; a relative file name
    is taken from the substitutions file's folder where the file is there. Raises ConfigError.
    """
    reader = Reader(path)
    outer = {**os.environ, **(macros or {})}
    common: dict[str, str] = {}
    loads: list[TemplateLoad] = []
    while not reader.done:
        keyword = reader.value()
        if keyword == "global":
            common |= reader.definitions()
        elif keyword == "file":
            template = _found(expand(reader.value(), outer, reader.place()), Path(path).parent)
            loads += [TemplateLoad(template, own) for own in _macro_sets(reader, common, outer)]
        else:
            raise reader.error(f"'file' or 'global' is expected, not {keyword!r}")
    return loads


def template_macros(path: str | os.PathLike[str]) -> dict[str, str]:
    """Macros of the tomoStream templates that a substitutions file loads, in its order.

    Raises ConfigError: it loads none, or can't be read.
    """
    macros: dict[str, str] = {}
    loads = [
        load
        for load in read_substitutions(path)
        if Path(load.template).name.startswith(_OUR_TEMPLATES)
    ]
    if not loads:
        raise ConfigError(f"{path} loads no {_OUR_TEMPLATES}*.template")
    for load in loads:
        macros |= load.macros
    return macros


def _found(template: str, folder: Path) -> str:
    """A template beside the substitutions file, or the name as it is."""
    beside = folder / template
    return str(beside) if beside.exists() else template


def _macro_sets(
    reader: Reader, common: dict[str, str], outer: Mapping[str, str]
) -> Iterator[dict[str, str]]:
    """The sets of macros of one ``file``: pattern { names } { values } ..., or { A=1 } ..."""
    reader.expect("{")
    names: list[str] | None = None
    while not reader.skip("}"):
        if reader.peek() != "{":
            keyword = reader.value()
            if keyword == "pattern":
                names = reader.values()
            elif keyword == "global":
                common = common | reader.definitions()
            else:
                raise reader.error(f"'pattern' or '{{' is expected, not {keyword!r}")
        elif names is None:
            yield _expanded(common | reader.definitions(), outer, reader.place())
        else:
            values = reader.values()
            if len(values) != len(names):
                raise reader.error(f"{len(values)} values for the pattern's {len(names)} names")
            own = common | dict(zip(names, values, strict=True))
            yield _expanded(own, outer, reader.place())


def _expanded(own: dict[str, str], outer: Mapping[str, str], place: str) -> dict[str, str]:
    """Macros whose values may name the others; ``P=$(P)`` means the one from outside."""
    return {
        name: expand(text, {**outer, **{k: v for k, v in own.items() if k != name}}, place)
        for name, text in own.items()
    }


def read_database(
    path: str | os.PathLike[str], macros: Mapping[str, str]
) -> dict[str, RecordDefinition]:
    """The records of a database file, by name, macros expanded.

    A record that comes twice is one: later fields are added. Raises ConfigError.
    """
    records: dict[str, RecordDefinition] = {}
    _read_into(records, Path(path), macros, 0)
    return records


def _read_into(
    records: dict[str, RecordDefinition], path: Path, macros: Mapping[str, str], depth: int
) -> None:
    reader = Reader(path)
    if depth > _MAX_DEPTH:
        raise ConfigError(f"{path}:1: this file includes itself")
    while not reader.done:
        keyword = reader.value()
        if keyword == "include":
            included = path.parent / expand(reader.value(), macros, reader.place())
            _read_into(records, included, macros, depth + 1)
        elif keyword in ("record", "grecord"):
            _read_record(reader, records, macros)
        else:
            raise reader.error(f"'record' is expected, not {keyword!r}")


def _read_record(
    reader: Reader, records: dict[str, RecordDefinition], macros: Mapping[str, str]
) -> None:
    record_type, name = _pair(reader, macros)
    place = reader.place()
    known = records.get(name)
    if known is not None and record_type not in ("*", known.record_type):
        raise reader.error(f"{name} is a {known.record_type} already, at {known.place}")
    record = known or RecordDefinition(name, record_type, place=place)
    records[name] = record
    reader.expect("{")
    while not reader.skip("}"):
        keyword = reader.value()
        if keyword not in ("field", "info"):
            raise reader.error(f"'field' or 'info' is expected, not {keyword!r}")
        key, value = _pair(reader, macros)
        (record.fields if keyword == "field" else record.info)[key] = value


def _pair(reader: Reader, macros: Mapping[str, str]) -> tuple[str, str]:
    """``(a, "b")``, expanded."""
    reader.expect("(")
    first = expand(reader.value(), macros, reader.place())
    reader.expect(",")
    second = expand(reader.value(), macros, reader.place())
    reader.expect(")")
    return first, second
