"""Channel Access as bytes on a socket: what no library would send, and clients by the thousand."""

from __future__ import annotations

import struct

from support.raw_socket import RawSocket

HEADER = struct.Struct(">HHHHII")
VERSION, EVENT_ADD, EVENT_CANCEL, WRITE, SEARCH = 0, 1, 2, 4, 6
EVENTS_OFF, EVENTS_ON, ERROR, CLEAR = 8, 9, 11, 12
READ_NOTIFY, CREATE, WRITE_NOTIFY, CLIENT_NAME, HOST_NAME, ECHO = 15, 18, 19, 20, 21, 23
ACCESS_RIGHTS, CREATE_FAILED = 22, 26
STRING, DOUBLE, TIME_DOUBLE, CTRL_ENUM = 0, 6, 20, 31


def message(
    command: int,
    payload: bytes = b"",
    kind: int = 0,
    count: int = 0,
    first: int = 0,
    second: int = 0,
) -> bytes:
    payload += bytes(-len(payload) % 8)
    return HEADER.pack(command, len(payload), kind, count, first, second) + payload


def claiming(command: int, payload_bytes: int, kind: int = DOUBLE, first: int = 0) -> bytes:
    """An extended header whose payload never comes."""
    return HEADER.pack(command, 0xFFFF, kind, 0, first, 1) + struct.pack(">II", payload_bytes, 1)


def hello(user: str = "raw") -> bytes:
    return (
        message(VERSION, count=13)
        + message(HOST_NAME, b"somewhere\0")
        + message(CLIENT_NAME, user.encode() + b"\0")
    )


def create(name: str, cid: int) -> bytes:
    return message(CREATE, name.encode() + b"\0", first=cid, second=13)


def put(sid: int, text: str) -> bytes:
    return message(WRITE, text.encode().ljust(40, b"\0"), STRING, 1, sid, 1)


def put_notify(sid: int, text: str, ioid: int) -> bytes:
    return message(WRITE_NOTIFY, text.encode().ljust(40, b"\0"), STRING, 1, sid, ioid)


def read(sid: int, ioid: int, kind: int = DOUBLE, count: int = 1) -> bytes:
    return message(READ_NOTIFY, b"", kind, count, sid, ioid)


def monitor(sid: int, subscription: int, kind: int = TIME_DOUBLE, count: int = 0) -> bytes:
    payload = struct.pack(">fffHH", 0.0, 0.0, 0.0, 1 | 4, 0)
    return message(EVENT_ADD, payload, kind, count, sid, subscription)


class RawConnection(RawSocket):
    """One TCP connection; ``next`` gives each message as (command, payload, header)."""

    def next(self) -> tuple[int, bytes, tuple[int, ...]]:
        """(command, payload, header); ConnectionError when there is no more."""
        while True:
            if len(self.data) >= HEADER.size:
                header = HEADER.unpack_from(self.data)
                end = HEADER.size + header[1]
                if len(self.data) >= end:
                    return header[0], self.take(end)[HEADER.size :], header
            self.fill()

    def until(self, command: int) -> tuple[int, bytes, tuple[int, ...]]:
        while True:
            found = self.next()
            if found[0] == command:
                return found

    def channel(self, name: str, cid: int = 1) -> int:
        """The server's id of a channel."""
        self.send(create(name, cid))
        return self.until(CREATE)[2][5]
