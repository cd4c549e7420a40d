"""Request files of EPICS autosave (.req): which PVs are saved."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from tomostream_ioc.epics.database import expand, read_text
from tomostream_ioc.errors import ConfigError

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
