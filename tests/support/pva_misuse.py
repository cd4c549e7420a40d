"""Clients over PVA that send without end, or only seem to; what another one notices of it."""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psutil
from p4p.client.thread import Context

from support import raw_pva
from support.processes import Ioc, wait_for
from support.raw_pva import RawPva, begin, claiming, get, message, put, size, start, text

MB = 1_000_000
#: the largest length that pvxs does not take for a small one, see docs/epics.md
HUGE = 0xFFFFFFF7
SLOWLY_S = 40.0
STILL_THERE = b"still there"


@dataclass
class Seen:
    more_bytes: int = 0  # the most that the IOC took beside what it had
    gets: int = 0


@contextmanager
def others_are_served(ioc: Ioc, context: Context) -> Iterator[Seen]:
    """What the IOC takes meanwhile; a get of another client that fails, fails the test."""
    process = psutil.Process(ioc.process.pid)
    before, seen, ended = process.memory_info().rss, Seen(), threading.Event()
    failures: list[Exception] = []

    def watch() -> None:
        while not ended.wait(0.005):
            seen.more_bytes = max(seen.more_bytes, process.memory_info().rss - before)

    def read() -> None:
        try:
            while not ended.wait(0.01):
                assert context.get(f"{ioc.prefix}Center", timeout=10) == 0
                seen.gets += 1
        except Exception as error:  # noqa: BLE001 - raised below, in the test's own thread
            failures.append(error)

    threads = [threading.Thread(target=work) for work in (watch, read)]
    for thread in threads:
        thread.start()
    try:
        yield seen
        wait_for(lambda: seen.gets > 2 or failures, 30, "gets of another client")
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    assert not failures


class BadClients:
    """How many clients the IOC has disconnected as bad, against how many there have been."""

    def __init__(self, ioc: Ioc):
        self._ioc = ioc
        self.expected = self.told()

    def told(self) -> int:
        return self._ioc.get("CA_BAD_CNT")

    @contextmanager
    def disconnected(self, count: int) -> Iterator[None]:
        """So many more are counted by the end."""
        yield
        self.expected += count
        self._ioc.wait_value("CA_BAD_CNT", self.expected)

    def last_told(self) -> int:
        """With those of just now."""
        time.sleep(1.5)  # the record tells it once a second
        return self.told()


def monitored(connection: RawPva, name: str) -> int:
    """A monitor that gets its updates; the channel's id."""
    sid = connection.channel(name)
    connection.send(begin(raw_pva.MONITOR, sid, 1))
    connection.until(raw_pva.MONITOR)
    connection.send(start(sid, 1))
    connection.until(raw_pva.MONITOR)
    return sid


# --- no end; each begins, and gives what is then to be sent for ever -----------------------------


def in_one_message(connection: RawPva) -> bytes:
    connection.send(claiming(raw_pva.CREATE, HUGE))
    return bytes(MB)


def in_parts(connection: RawPva) -> bytes:
    connection.send(message(raw_pva.CREATE, b"x", raw_pva.FIRST))
    return message(raw_pva.CREATE, bytes(60_000), raw_pva.MIDDLE) * 16


def in_parts_beside_a_monitor(connection: RawPva) -> bytes:
    """Updates go out meanwhile: that bytes are sent does not mean that anything is done."""
    monitored(connection, "sys:TomoStream:HEARTBEAT")
    return in_parts(connection)


def in_one_slow_message(connection: RawPva) -> bytes:
    connection.send(claiming(raw_pva.CREATE, HUGE))
    return bytes(10_000)


def in_slow_parts(connection: RawPva) -> bytes:
    connection.send(claiming(raw_pva.CREATE, 0, raw_pva.FIRST))
    return message(raw_pva.CREATE, b"ab", raw_pva.MIDDLE) * 1000


@dataclass
class Ending:
    """Of a connection whose client sent slowly."""

    sent_bytes: int = 0
    is_closed: bool = False
    took_s: float = 0.0


def send_slowly(connection: RawPva, begun: Callable[[RawPva], bytes]) -> Ending:
    """100 kB/s, until the server closes the connection or the limit is over."""
    part = begun(connection)

    def paced() -> bytes:
        time.sleep(0.1)
        return part

    began_s, ending = time.monotonic(), Ending()
    ending.sent_bytes = connection.send_without_end(paced, int(SLOWLY_S / 0.1) * len(part))
    ending.is_closed = connection.is_closed()
    ending.took_s = time.monotonic() - began_s
    return ending


# --- clients that are none of these ------------------------------------------------------------

OPERATIONS = 500  # of which each has one request at a time, as pvxs wants it


def flood(connection: RawPva, command: int, name: str, seconds: float) -> bytes:
    """As many requests as are answered in this time, 500 at once; an echo behind them.

    Requests of many megabytes, the puts refused as they hold no value.
    """
    sid = connection.channel(name)
    for ioid in range(OPERATIONS):
        connection.send(begin(command, sid, ioid))
        connection.until(command)
    # a mask that marks no field, as wide as a careless client's
    requests = [
        put(sid, ioid, size(1000) + bytes(1000)) if command == raw_pva.PUT else get(sid, ioid)
        for ioid in range(OPERATIONS)
    ]
    ended_s = time.monotonic() + seconds
    while time.monotonic() < ended_s:
        connection.send(*requests)
        for _ in requests:
            connection.until(command)
    connection.send(message(raw_pva.ECHO, STILL_THERE))
    return connection.until(raw_pva.ECHO)


ECHO_S = 15  # how often clients of pvxs say that they are there


def search_in_vain(connection: RawPva, name: str) -> bytes:
    """A search over TCP that finds nothing is not answered; all there is in between is echos.

    800 names each second, past two echos, from a client that has a channel here.
    """
    connection.channel(name)
    names = b"".join(
        struct.pack("<I", number) + text("no:such:" + "x" * 60) for number in range(800)
    )
    address = bytes(16) + struct.pack("<H", 5076)
    asked = struct.pack("<IB3x", 1, 0) + address + size(1) + text("tcp")
    search = message(raw_pva.SEARCH, asked + struct.pack("<H", 800) + names)
    answer = b""
    for second in range(1, 2 * ECHO_S + 1):
        connection.send(search)
        time.sleep(1)
        if second % ECHO_S == 0:
            connection.send(message(raw_pva.ECHO, STILL_THERE))
            answer = connection.until(raw_pva.ECHO)
    return answer
