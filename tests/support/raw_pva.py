"""PV Access as bytes on a socket: what no library would send."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable

from support.raw_socket import RawSocket

HEADER = struct.Struct("<BBBBI")
VALIDATION, ECHO, SEARCH, CREATE = 1, 2, 3, 7
VALIDATED, GET, PUT, MONITOR, DESTROY_REQUEST = 9, 10, 11, 13, 15
FIRST, LAST, MIDDLE, CONTROL = 0x10, 0x20, 0x30, 0x01  # flags: part of a message, or no message
STRING, STRING_ARRAY, STRUCTURE, STRUCTURE_ARRAY, NOTHING = 0x60, 0x68, 0x80, 0x88, 0xFF
#: a pvRequest that asks for everything
ALL = bytes((STRUCTURE, 0, 0))


def message(command: int, payload: bytes = b"", flags: int = 0) -> bytes:
    return claiming(command, len(payload), flags) + payload


def claiming(command: int, payload_bytes: int, flags: int = 0) -> bytes:
    """A header whose payload never comes."""
    return HEADER.pack(0xCA, 2, flags, command, payload_bytes)


def size(count: int) -> bytes:
    return bytes((count,)) if count < 254 else b"\xfe" + struct.pack("<I", count)


def text(string: str) -> bytes:
    return size(len(string)) + string.encode()


def credentials(value: bytes = bytes((NOTHING,)), method: str = "anonymous") -> bytes:
    """What a client answers when it is greeted; ``value`` is a type and its data."""
    return message(VALIDATION, struct.pack("<IHH", 0x10000, 0x7FFF, 0) + text(method) + value)


def create(name: str, cid: int = 1) -> bytes:
    return message(CREATE, struct.pack("<HI", 1, cid) + text(name))


def begin(command: int, sid: int, ioid: int, request: bytes = ALL) -> bytes:
    """Set up gets, puts or a monitor."""
    return message(command, struct.pack("<IIB", sid, ioid, 0x08) + request)


def get(sid: int, ioid: int) -> bytes:
    return message(GET, struct.pack("<IIB", sid, ioid, 0x40))


def put(sid: int, ioid: int, data: bytes) -> bytes:
    """``data`` is a mask of bits and the fields that it marks."""
    return message(PUT, struct.pack("<IIB", sid, ioid, 0) + data)


def start(sid: int, ioid: int) -> bytes:
    """Let updates of a monitor come."""
    return message(MONITOR, struct.pack("<IIB", sid, ioid, 0x44))


class RawPva(RawSocket):
    """One TCP connection to a PVA server; messages are read as (command, payload)."""

    def hello(self) -> RawPva:
        self.until(VALIDATION)
        self.send(credentials())
        self.until(VALIDATED)
        return self

    def next(self) -> tuple[int, bytes]:
        """ConnectionError when there is no more."""
        while True:
            if len(self.data) >= HEADER.size:
                _, _, flags, command, length = HEADER.unpack_from(self.data)
                end = HEADER.size + (0 if flags & CONTROL else length)
                if len(self.data) >= end:
                    whole = self.take(end)
                    if not flags & CONTROL:
                        return command, whole[HEADER.size :]
                    continue
            self.fill()

    def until(self, command: int) -> bytes:
        while True:
            found, payload = self.next()
            if found == command:
                return payload

    def channel(self, name: str, cid: int = 1) -> int:
        """The server's id of a channel."""
        self.send(create(name, cid))
        return struct.unpack_from("<I", self.until(CREATE), 4)[0]

    def send_without_end(self, part: Callable[[], bytes], most_bytes: int) -> int:
        """Send parts until the server closes the connection; how many bytes it took."""
        sent = 0
        with contextlib.suppress(OSError):
            while sent < most_bytes:
                data = part()
                self.send(data)
                sent += len(data)
        return sent
