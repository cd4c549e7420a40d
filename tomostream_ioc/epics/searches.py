"""Answers to CA name searches over UDP, where anybody may send anything."""

from __future__ import annotations

import asyncio
import re
import struct
from collections.abc import Callable, Collection
from typing import Any

_HEADER = struct.Struct(">HHHHII")  # command, payload bytes, type, count, two parameters
_VERSION, _SEARCH = 0, 6
_MINOR_VERSION = 13
_ASK_SENDER = 0xFFFFFFFF  # "connect to the address that this comes from"
_SEQUENCE_IS_VALID = 1
_MOST_ANSWERS = 60  # in a datagram that Ethernet need not split
_RECORD = re.compile(r"[^.{\[]*")


class SearchResponder(asyncio.DatagramProtocol):
    """Answers as a C IOC: silent for names that are not served, and for all that is no search.

    A datagram that breaks off is used up to there. ``is_served`` says whether a name is,
    ``records`` are the names of records, ``ignored`` the addresses that get no answer.
    """

    def __init__(
        self,
        is_served: Callable[[str], bool],
        records: Collection[str],
        tcp_port: Callable[[], int],
        ignored: Collection[str] = (),
    ):
        self._is_served, self._records = is_served, records
        self._tcp_port, self._ignored = tcp_port, frozenset(ignored)
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        if addr[0] in self._ignored:
            return
        for answer in self.answers(data):
            self._transport.sendto(answer, addr)

    def error_received(self, exc: Exception) -> None:
        """One who asked has gone, or a network is down: the next search may get through."""

    def answers(self, datagram: bytes) -> list[bytes]:
        """The datagrams that answer one."""
        sequence, found, at = None, [], 0
        while len(datagram) - at >= _HEADER.size:
            command, size, _, minor, first, second = _HEADER.unpack_from(datagram, at)
            at += _HEADER.size
            if command == _VERSION:
                sequence = first if minor >= 11 else 0  # older clients send none
            elif command == _SEARCH:
                if size > len(datagram) - at:
                    break
                name = datagram[at : at + size].split(b"\0", 1)[0].decode("latin-1")
                if self._has(name):
                    found.append(second)
            at += size
        version = (
            b""
            if sequence is None
            else _HEADER.pack(_VERSION, 0, _SEQUENCE_IS_VALID, _MINOR_VERSION, sequence, 0)
        )
        port = self._tcp_port()
        replies = [
            _HEADER.pack(_SEARCH, 8, port, 0, _ASK_SENDER, search_id)
            + struct.pack(">H6x", _MINOR_VERSION)
            for search_id in found
        ]
        return [
            version + b"".join(replies[begin : begin + _MOST_ANSWERS])
            for begin in range(0, len(replies), _MOST_ANSWERS)
        ]

    def _has(self, name: str) -> bool:
        record = _RECORD.match(name)
        # most searches are for other IOCs' names: tell them fast
        return record is not None and record[0] in self._records and self._is_served(name)
