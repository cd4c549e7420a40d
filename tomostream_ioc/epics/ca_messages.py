"""Channel Access messages as they come from a client that need not keep to the protocol."""

from __future__ import annotations

import asyncio
import os
import struct

import caproto as ca
from caproto._commands import Commands
from caproto._headers import ExtendedMessageHeader, MessageHeader

from tomostream_ioc.errors import ConfigError

_HEADER_BYTES, _EXTENSION_BYTES = 16, 8
_EXTENDED = 0xFFFF
_ALIGNMENT = 8
#: what EPICS_CA_MAX_ARRAY_BYTES is without the variable, in C and here
DEFAULT_MAX_ARRAY_BYTES = 16384
#: no record here takes as much
_MOST_ARRAY_BYTES = 2**20
#: a C server takes header and DBR metadata in addition
_OVERHEAD_BYTES = 1024


class BadMessageError(Exception):
    """A client broke the protocol: it is told ``status`` and disconnected, as a C IOC does."""

    def __init__(self, reason: str, status: ca.CAStatus = ca.CAStatus.ECA_INTERNAL):
        super().__init__(reason)
        self.status = status


def max_message_bytes() -> int:
    """Largest payload of a request, from EPICS_CA_MAX_ARRAY_BYTES. Raises ConfigError.

    As in C the variable can't lower the limit below 16 kB: requests other than puts of arrays fit
    in that. It raises it to 1 MB at most, where a C IOC has no end: sites set it to the size of
    their images, and none comes here over Channel Access.
    """
    text = os.environ.get("EPICS_CA_MAX_ARRAY_BYTES", "").strip()
    try:
        array_bytes = int(text) if text else DEFAULT_MAX_ARRAY_BYTES
    except ValueError:
        raise ConfigError(
            f"EPICS_CA_MAX_ARRAY_BYTES is {text!r}: it wants a number of bytes"
        ) from None
    return min(max(array_bytes, DEFAULT_MAX_ARRAY_BYTES), _MOST_ARRAY_BYTES) + _OVERHEAD_BYTES


async def read_message(reader: asyncio.StreamReader, limit_bytes: int) -> ca.Message:
    """The next request; memory is taken for what is there, never for what a length field claims.

    Raises BadMessageError for what can't be a request, EOFError when the client has gone.
    """
    head = await reader.readexactly(_HEADER_BYTES)
    command, payload_bytes = struct.unpack_from(">HH", head)
    if payload_bytes == _EXTENDED:
        head += await reader.readexactly(_EXTENSION_BYTES)
        payload_bytes = struct.unpack_from(">I", head, _HEADER_BYTES)[0]
        header = ExtendedMessageHeader.from_buffer_copy(head)
    else:
        header = MessageHeader.from_buffer_copy(head)
    kind = Commands[ca.CLIENT].get(command)
    if kind is None:
        raise BadMessageError(f"{command} is no request of Channel Access")
    if payload_bytes % _ALIGNMENT:
        raise BadMessageError(f"a payload of {payload_bytes} bytes is no multiple of 8")
    if payload_bytes > limit_bytes:
        raise BadMessageError(
            f"a message of {payload_bytes} bytes, at most {limit_bytes} are taken",
            ca.CAStatus.ECA_TOLARGE,
        )
    payload = bytearray(await reader.readexactly(payload_bytes)) if payload_bytes else bytearray()
    try:
        return kind.from_wire(header, memoryview(payload))
    except Exception as error:
        raise BadMessageError(f"a damaged {kind.__name__}: {error}") from error
