"""Filters behind the name of a CA channel: ``REC.VAL[0:3]``, ``REC.{"dbnd":{"abs":1}}``.

As in EPICS base 7: there is none without the point, both kinds may follow each other, and keys need
no quotes. caproto 1.3.0 reads fewer of them, takes the slice of a value that is no array, and its
deadband wants what our records lack. Base's utag, dec, and ts with arguments are refused.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

from caproto import ChannelFilter
from caproto._utils import ArrayFilter, parse_sync_filter

NO_FILTER = ChannelFilter(ts=None, dbnd=None, arr=None, sync=None)
_NAME = re.compile(r"([^.]*\.[^\[{]*)([\[{].*)", re.DOTALL)
_NUMBER = r"(-?(?:0[xX][0-9a-fA-F]+|\d+))?"
_SLICE = re.compile(rf"\[{_NUMBER}(?:(:){_NUMBER}(?::{_NUMBER})?)?\]")
_BARE_KEY = re.compile(r"([{,]\s*)([A-Za-z_]\w*)(?=\s*:)")
_LAST_COMMA = re.compile(r",(?=\s*[}\]])")


def split_filter(name: str) -> tuple[str, str]:
    """The name of record and field, and the filter's text behind it, often none."""
    found = _NAME.fullmatch(name)
    return (found[1], found[2]) if found else (name, "")


def parse_filter(text: str) -> ChannelFilter:
    """Raises ValueError: no filter, or one that is not known here."""
    arr = None
    if text.startswith("["):
        found = _SLICE.match(text)
        if found is None or found[0] == "[]":
            raise ValueError(f"{text} is no slice")
        arr, text = _slice(found), text[found.end() :]
    if not text:
        return NO_FILTER._replace(arr=arr)
    said = _json5(text)
    if not isinstance(said, dict) or not all(isinstance(each, dict) for each in said.values()):
        raise ValueError(f"{text} is no filter")
    if unknown := set(said) - {"arr", "dbnd", "ts", "sync"}:
        raise ValueError(f"no such filter: {', '.join(unknown)}")
    if said.get("ts"):
        raise ValueError("ts takes no arguments here")
    if "sync" in said and "dbnd" in said:
        raise ValueError("sync and dbnd do not go together here")
    if "arr" in said:
        arr = _array(**said["arr"])
    return ChannelFilter(
        ts=True if "ts" in said else None,
        dbnd=_deadband(**said["dbnd"]) if "dbnd" in said else None,
        arr=arr,
        sync=parse_sync_filter(said.get("sync")),
    )


def _slice(found: re.Match[str]) -> ArrayFilter:
    first, colon, second, third = found.groups()
    if colon is None:
        return _array(first, 1, first)
    if third is None and found[0].count(":") == 1:
        return _array(first or 0, 1, second or -1)
    return _array(first or 0, second or 1, third or -1)


def _array(s: Any = 0, i: Any = 1, e: Any = -1) -> ArrayFilter:
    start, step, end = (int(str(number), 0) for number in (s, i, e))
    return ArrayFilter(s=start, i=max(step, 1), e=end)


class Deadband:
    """Lets a number through that differs enough from the last one it let through.

    ``size`` is the difference, for ``mode`` rel in percent of the last. One for each channel.
    """

    def __init__(self, mode: str, size: float):
        if mode not in ("abs", "rel"):
            raise ValueError(f"no such deadband: {mode}")
        self._is_relative, self._size, self._band = mode == "rel", size, size
        self._last = math.nan

    def lets_through(self, value: Any) -> bool:
        """Whatever is no number passes."""
        try:
            number = float(value)
        except (TypeError, ValueError):
            return True
        if math.isfinite(number) and math.isfinite(self._last):
            passes = abs(number - self._last) > self._band
        else:
            passes = not (number == self._last or (math.isnan(number) and math.isnan(self._last)))
        if passes:
            self._last = number
            if self._is_relative:
                self._band = number * self._size / 100
        return passes


def _deadband(m: str = "abs", d: Any = 0, **sizes: Any) -> Deadband:
    if set(sizes) - {"abs", "rel"}:
        raise ValueError(f"no such deadband: {', '.join(sizes)}")
    for mode, size in sizes.items():
        m, d = mode, size
    return Deadband(m, float(d))


def _json5(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return json.loads(_LAST_COMMA.sub("", _BARE_KEY.sub(r'\1"\2"', text)))
