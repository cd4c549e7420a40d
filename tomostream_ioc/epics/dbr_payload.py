"""Values of records as Channel Access sends them, packed without caproto's structures.

Those make a ctypes object, a numpy array and a copy of each for one number. Here is what clients
ask for again and again: DBR_x, DBR_STS_x and DBR_TIME_x of the channel's own type, and of strings.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from caproto import ChannelType

from tomostream_ioc.epics import wire
from tomostream_ioc.epics.channel import Wire

_STRING_BYTES = 40
_FAMILY = 7  # DBR_STRING to DBR_DOUBLE; DBR_STS_STRING is 7, DBR_TIME_STRING 14
_PLAIN, _STATUS, _TIME = range(3)
_ALARM = struct.Struct(">hh")
#: bytes between alarm or time stamp and the value, that align it
_GAP = {
    _STATUS: {ChannelType.CHAR: bytes(1), ChannelType.DOUBLE: bytes(4)},
    _TIME: {
        ChannelType.INT: bytes(2),
        ChannelType.ENUM: bytes(2),
        ChannelType.CHAR: bytes(3),
        ChannelType.DOUBLE: bytes(4),
    },
}
_NUMBERS: dict[ChannelType, Callable[..., bytes]] = {
    ChannelType.DOUBLE: struct.Struct(">d").pack,
    ChannelType.LONG: struct.Struct(">i").pack,
    ChannelType.INT: struct.Struct(">h").pack,
    ChannelType.CHAR: struct.Struct(">B").pack,
}
_ENUM = struct.Struct(">H").pack
_TYPES = {int(kind): kind for kind in ChannelType if kind < _FAMILY}


def payload_of(channel: Wire, data_type: int, count: int) -> tuple[bytes, int] | None:
    """Metadata and value, padded to a multiple of 8 bytes, and the number of elements in it.

    ``count`` 0 asks for all elements there are; of an array any number up to its capacity, filled
    up with zeros. None where caproto has to do it: other types, values that do not fit.
    """
    family, native = divmod(data_type, _FAMILY)
    if family > _TIME:
        return None
    kind = _TYPES[native]
    found = _value(channel, kind, count)
    if found is None:
        return None
    value, count = found
    if family:
        alarm: Any = channel.alarm
        head = _ALARM.pack(alarm.status, alarm.severity)
        if family == _TIME:
            head += channel.stamp_bytes
        value = head + _GAP[family].get(kind, b"") + value
    return value + bytes(-len(value) % 8), count


def _value(channel: Wire, kind: ChannelType, count: int) -> tuple[bytes, int] | None:
    own, value = channel.data_type, channel.value
    capacity = channel.max_length or 1
    if isinstance(value, bytes):
        if kind is not own or own is not ChannelType.CHAR:
            return None
        count = min(count, max(capacity, len(value))) if count else len(value)
        return value[:count].ljust(count, b"\0"), count
    if capacity > 1:
        return None
    if kind is ChannelType.STRING:
        text = _text(channel, own, value)
        return None if text is None else (text, 1)
    if kind is not own:
        return None
    try:
        if own is not ChannelType.ENUM:
            return _NUMBERS[own](value), 1
        if not 0 <= value < len(channel.choices):
            return None
        return _ENUM(value), 1
    except (struct.error, OverflowError, TypeError):
        return None


def _text(channel: Wire, own: ChannelType, value: Any) -> bytes | None:
    if own is ChannelType.STRING and isinstance(value, str):
        text = value
    elif own is ChannelType.DOUBLE:
        text = wire.double_to_string(value, channel.text_precision)
    elif own is ChannelType.ENUM:
        if not 0 <= value < len(channel.choices):
            return None
        text = channel.choices[int(value)]
    elif isinstance(value, int):
        text = str(value)
    else:
        return None
    try:
        return text.encode("latin-1")[:_STRING_BYTES].ljust(_STRING_BYTES, b"\0")
    except UnicodeEncodeError:
        return None
