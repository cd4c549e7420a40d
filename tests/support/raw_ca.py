"""Channel Access as bytes on a socket: what no library would send, and clients by the thousand."""

from __future__ import annotations

import contextlib
import socket
import struct

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


class RawConnection:
    """One TCP connection; ``read_until`` gives each message as (command, payload, fields)."""

    def __init__(self, port: int, limit_s: float = 20.0):
        self.socket = socket.create_connection(("127.0.0.1", port), limit_s)
        self._data = b""

    def send(self, *parts: bytes) -> None:
        self.socket.sendall(b"".join(parts))

    def next(self) -> tuple[int, bytes, tuple[int, ...]]:
        """(command, payload, header); ConnectionError when there is no more."""
        while True:
            if len(self._data) >= HEADER.size:
                header = HEADER.unpack_from(self._data)
                end = HEADER.size + header[1]
                if len(self._data) >= end:
                    payload, self._data = self._data[HEADER.size : end], self._data[end:]
                    return header[0], payload, header
            got = self.socket.recv(65536)
            if not got:
                raise ConnectionError("closed by the server")
            self._data += got

    def until(self, command: int) -> tuple[int, bytes, tuple[int, ...]]:
        while True:
            found = self.next()
            if found[0] == command:
                return found

    def channel(self, name: str, cid: int = 1) -> int:
        """The server's id of a channel."""
        self.send(create(name, cid))
        return self.until(CREATE)[2][5]

    def is_closed(self, limit_s: float = 20.0) -> bool:
        """Whether the server closes the connection within the limit; what it sends is read."""
        self.socket.settimeout(limit_s)
        try:
            while self.socket.recv(65536):
                pass
        except TimeoutError:
            return False
        except OSError:
            pass
        return True

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.socket.close()
