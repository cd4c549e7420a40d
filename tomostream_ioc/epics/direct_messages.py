"""The requests that clients send all the time, read and answered with struct alone.

A read and a put of a value make up nearly all that an IOC is asked. By way of caproto's objects
each costs several times the work of the record itself. What is not plain (see `read_answer` and
`direct_put`) still goes that way.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from caproto import CAStatus, ChannelType
from caproto._status import ensure_eca_value

from tomostream_ioc.epics.ca_messages import HEADER, Message
from tomostream_ioc.epics.channel import Wire
from tomostream_ioc.epics.dbr_payload import payload_of

EVENT_ADD, WRITE, READ_NOTIFY, WRITE_NOTIFY = 1, 4, 15, 19
_NORMAL = ensure_eca_value(CAStatus.ECA_NORMAL)
_LARGEST = 0xFFFE  # bytes of a payload, or elements, that a short header can hold
_STRING_BYTES = 40
_SCALARS: dict[int, struct.Struct] = {
    ChannelType.INT: struct.Struct(">h"),
    ChannelType.FLOAT: struct.Struct(">f"),
    ChannelType.ENUM: struct.Struct(">H"),
    ChannelType.LONG: struct.Struct(">i"),
    ChannelType.DOUBLE: struct.Struct(">d"),
}
_TYPES = {int(kind): kind for kind in ChannelType if kind <= ChannelType.DOUBLE}


def read_answer(request: Message, channel: Wire) -> bytes | None:
    """The answer to a READ_NOTIFY; None where it is not plain.

    Plain are the types of `payload_of`. More elements than there can be are as many as there can.
    """
    found = payload_of(channel, request.data_type, request.n_elements)
    if found is None:
        return None
    return message(READ_NOTIFY, request.data_type, found, request.second)


def message(command: int, data_type: int, content: tuple[bytes, int], client_id: int) -> bytes:
    """A READ_NOTIFY or EVENT_ADD to a client: ``content`` is payload and count of elements."""
    payload, count = content
    if len(payload) > _LARGEST or count > _LARGEST:
        head = HEADER.pack(command, 0xFFFF, data_type, 0, _NORMAL, client_id)
        return head + struct.pack(">II", len(payload), count) + payload
    return HEADER.pack(command, len(payload), data_type, count, _NORMAL, client_id) + payload


def put_answer(data_type: int, count: int, status: CAStatus, ioid: int) -> bytes:
    """The answer to a WRITE_NOTIFY."""
    return HEADER.pack(WRITE_NOTIFY, 0, data_type, count, ensure_eca_value(status), ioid)


@dataclass(frozen=True, slots=True)
class DirectPut:
    """A put as caproto's WriteRequest and WriteNotifyRequest show it, with the same names.

    ``data`` are Python numbers, byte strings, or a numpy array of bytes.
    """

    data: Any
    data_type: ChannelType
    ioid: int
    notify: bool
    header: bytes
    metadata: None = None


def direct_put(request: Message) -> DirectPut | None:
    """What a WRITE or WRITE_NOTIFY puts; None where it is not plain.

    Plain are one number, one string, and bytes, of the types without metadata.
    """
    kind, payload, count = _TYPES.get(request.data_type), request.payload, request.n_elements
    if kind is None or not payload or not count:
        return None
    if kind is ChannelType.CHAR:
        if count > len(payload):
            return None
        data = np.frombuffer(payload, np.uint8, count)
    elif count > 1:
        return None
    elif kind is ChannelType.STRING:
        data = (payload[:_STRING_BYTES].partition(b"\0")[0],)
    else:
        data = _SCALARS[kind].unpack_from(payload)  # there are 8 bytes at least
    return DirectPut(data, kind, request.second, request.command == WRITE_NOTIFY, request.header)
