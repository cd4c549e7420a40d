"""Channel Access messages as they come from a client that need not keep to the protocol."""

from __future__ import annotations

import os
import struct
from typing import NamedTuple

import caproto as ca
from caproto._commands import Commands
from caproto._headers import ExtendedMessageHeader, MessageHeader

from tomostream_ioc.errors import ConfigError

#: command, payload bytes, data type, count, two parameters
HEADER = struct.Struct(">HHHHII")
_EXTENSION = struct.Struct(">II")  # payload bytes, count
_HEADER_BYTES, _EXTENSION_BYTES = HEADER.size, _EXTENSION.size
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


class Message(NamedTuple):
    """One request: the fields of its header, whole header and payload as they came."""

    command: int
    data_type: int
    n_elements: int
    first: int  # "parameter 1": the server's id of the channel in most requests
    second: int  # "parameter 2": the client's id of the request in most requests
    header: bytes
    payload: bytes


class Received:
    """What has come from one client and is not worked on yet; bounded by one message.

    Memory is taken for what is there, never for what a length field claims.
    """

    def __init__(self, limit_bytes: int):
        self._limit_bytes = limit_bytes
        self._bytes = b""
        self._at = 0
        # what comes of a message in many pieces is put behind the rest once, when all is there
        self._pieces = bytearray()
        self._missing_bytes = 0

    def add(self, data: bytes) -> None:
        """Call it when ``next_message`` has given None: what is left is part of one message."""
        self._missing_bytes -= len(data)
        if self._pieces or self._missing_bytes > 0:
            self._pieces += data
            if self._missing_bytes > 0:
                return
            data = bytes(self._pieces)
            self._pieces = bytearray()
        rest = self._bytes[self._at :]
        self._bytes, self._at = rest + data if rest else data, 0

    def next_message(self) -> Message | None:
        """The next request, None until all of it is there. Raises BadMessageError."""
        if self._pieces:
            return None
        data, at = self._bytes, self._at
        there = len(data) - at
        if not there:
            self._bytes, self._at = b"", 0
        if there < _HEADER_BYTES:
            return self._wait_for(_HEADER_BYTES - there)
        command, size, data_type, count, first, second = HEADER.unpack_from(data, at)
        header_bytes = _HEADER_BYTES
        if size == _EXTENDED:
            header_bytes += _EXTENSION_BYTES
            if there < header_bytes:
                return self._wait_for(header_bytes - there)
            size, count = _EXTENSION.unpack_from(data, at + _HEADER_BYTES)
        if command not in Commands[ca.CLIENT]:
            raise BadMessageError(f"{command} is no request of Channel Access")
        if size % _ALIGNMENT:
            raise BadMessageError(f"a payload of {size} bytes is no multiple of 8")
        if size > self._limit_bytes:
            raise BadMessageError(
                f"a message of {size} bytes, at most {self._limit_bytes} are taken",
                ca.CAStatus.ECA_TOLARGE,
            )
        if there < header_bytes + size:
            return self._wait_for(header_bytes + size - there)
        begin = at + header_bytes
        self._at = begin + size
        header, payload = data[at:begin], data[begin : self._at]
        return Message(command, data_type, count, first, second, header, payload)

    def _wait_for(self, missing_bytes: int) -> None:
        self._missing_bytes = missing_bytes


def to_command(message: Message) -> ca.Message:
    """The request as an object of caproto's. Raises BadMessageError for what can't be one."""
    kind = Commands[ca.CLIENT][message.command]
    layout = MessageHeader if len(message.header) == _HEADER_BYTES else ExtendedMessageHeader
    header = layout.from_buffer_copy(message.header)
    try:
        return kind.from_wire(header, memoryview(bytearray(message.payload)))
    except Exception as error:
        raise BadMessageError(f"a damaged {kind.__name__}: {error}") from error
