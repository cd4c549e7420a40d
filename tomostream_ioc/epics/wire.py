"""What clients send, made into record values; and the refusal of what must not be stored."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from caproto import CAStatus, ChannelType, native_type

from tomostream_ioc.errors import TomoStreamError

INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*([eE][+-]?\d+)?|\.\d+([eE][+-]?\d+)?)")
_HEX = re.compile(r"[+-]?0[xX][0-9a-fA-F]+")


class PutError(TomoStreamError):
    """A put that is not done; the text is a short reason, fit for the client."""

    def __init__(self, reason: str, status: CAStatus = CAStatus.ECA_PUTFAIL):
        super().__init__(reason)
        self.status = status


def _scalar(data: Any) -> Any:
    """The one element that came, for a record that holds one."""
    if len(data) != 1:
        raise PutError(f"{len(data)} values for a record that holds one")
    return data[0]


def _is_string(data_type: ChannelType) -> bool:
    return native_type(data_type) == ChannelType.STRING


def _number_of_text(raw: bytes) -> float | int:
    text = raw.decode("latin-1").strip()
    if _HEX.fullmatch(text):
        return int(text, 16)
    if not _NUMBER.fullmatch(text):
        raise PutError(f"{text[:20]!r} is not a number")
    try:
        return int(text)
    except ValueError:
        return float(text)


def _number(data: Any, data_type: ChannelType) -> float | int:
    raw = _scalar(data)
    if _is_string(data_type):
        number = _number_of_text(raw)
    else:
        number = raw.item() if isinstance(raw, np.generic) else raw
    if not math.isfinite(number):
        raise PutError(f"{number} is not a finite number")
    return number


def to_float(data: Any, data_type: ChannelType) -> float:
    """A finite float; raises PutError for text, NaN, infinity and arrays."""
    number = _number(data, data_type)
    try:
        return check_float(float(number))
    except OverflowError:
        raise PutError("number out of range") from None


def check_float(value: float) -> float:
    """Raises PutError for what is not a finite float."""
    value = float(value)
    if not math.isfinite(value):
        raise PutError(f"{value} is not a finite number")
    return value


def to_int(data: Any, data_type: ChannelType, low: int = INT32_MIN, high: int = INT32_MAX) -> int:
    """An integer in low..high; a fraction is cut off as in C, ``1e3`` is 1000."""
    return check_int(_number(data, data_type), low, high)


def check_int(value: float, low: int = INT32_MIN, high: int = INT32_MAX) -> int:
    """Raises PutError for what is outside low..high."""
    number = int(check_float(value))
    if not low <= number <= high:
        raise PutError(f"{value:g} is outside {low}..{high}")
    return number


def to_enum(data: Any, data_type: ChannelType, strings: Sequence[str]) -> int:
    """The index of a state that has a string; an unknown name or index is refused."""
    if _is_string(data_type):
        raw = _scalar(data)
        text = raw.decode("latin-1")
        if text and text in strings:
            return list(strings).index(text)
        if not text.isascii() or not text.isdigit():
            raise PutError(f"{text[:20]!r} is none of the choices")
        return check_enum(int(text), strings)
    return check_enum(_number(data, data_type), strings)


def check_enum(value: float | str, strings: Sequence[str]) -> int:
    """Raises PutError for an index without a string: libca clients abort on one."""
    if isinstance(value, str):
        if value not in strings or not value:
            raise PutError(f"{value[:20]!r} is none of the choices")
        return list(strings).index(value)
    index = int(value)
    if not 0 <= index < len(strings) or not strings[index]:
        raise PutError(f"{index} is none of the choices")
    return index


def to_text(data: Any, data_type: ChannelType, size: int) -> str:
    """A string that fits ``size`` bytes with its NUL; longer ones are refused, not cut."""
    native = native_type(data_type)
    if native == ChannelType.CHAR:
        raw = data.tobytes().partition(b"\0")[0]
    elif native == ChannelType.STRING:
        raw = bytes(_scalar(data))
    else:
        raw = f"{_number(data, data_type):g}".encode()
    return check_text(raw.decode("latin-1"), size)


def check_text(text: str, size: int) -> str:
    """Raises PutError for a string that is too long or has control characters."""
    if len(text) >= size:
        raise PutError(f"longer than {size - 1} characters")
    if any(ord(character) < 32 for character in text):
        raise PutError("control characters")
    return text


def to_bytes(data: Any, data_type: ChannelType, n_elements: int) -> bytes:
    """The bytes of an unsigned char array of at most ``n_elements``."""
    if len(data) > n_elements:
        raise PutError(f"longer than {n_elements} elements")
    if native_type(data_type) == ChannelType.CHAR:
        return data.tobytes()
    if _is_string(data_type):
        numbers = [_number_of_text(raw) for raw in data]
    else:
        numbers = np.asarray(data).tolist()
    return bytes(check_int(number, 0, 255) for number in numbers)


def double_to_string(value: float, precision: int) -> str:
    """A double as a string read shows it (cvtDoubleToString of EPICS base)."""
    if not math.isfinite(value) or precision > 8 or abs(value) > 1e7:
        if math.isfinite(value) and precision <= 8 and abs(value) <= 1e16:
            return f"{value:.{min(precision, 3)}f}"
        return f"{value:{min(precision, 17) + 7}.{min(precision, 17)}e}"
    return f"{value:.{precision}f}"
