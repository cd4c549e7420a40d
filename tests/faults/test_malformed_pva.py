"""Fault 27 over PV Access: damaged messages, lengths that nobody could mean, and no end of them."""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psutil
import pytest
from p4p.client.thread import Context
from support import raw_pva
from support.ports import environment
from support.processes import Ioc, wait_for
from support.raw_pva import (
    ALL,
    RawPva,
    begin,
    claiming,
    create,
    credentials,
    get,
    message,
    put,
    size,
    start,
    text,
)

MB = 1_000_000
#: the largest length that pvxs does not take for a small one, see docs/epics.md
HUGE = 0xFFFFFFF7
SLOWLY_S = 40.0


@pytest.fixture(scope="module")
def ioc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ioc]:
    made = Ioc(tmp_path_factory.mktemp("ioc"))
    made.expect("Ready", 120.0)
    yield made
    made.close()


@pytest.fixture(scope="module")
def context(ioc: Ioc) -> Iterator[Context]:
    """A client that must not notice anything."""
    with Context("pva", conf=environment(reach=(ioc.ports,)), useenv=False) as made:
        yield made


@pytest.fixture
def raw(ioc: Ioc) -> Iterator[Callable[[], RawPva]]:
    made: list[RawPva] = []

    def connect() -> RawPva:
        made.append(RawPva(ioc.ports.pva))
        return made[-1].hello()

    yield connect
    for connection in made:
        connection.close()


@dataclass
class Seen:
    more_bytes: int = 0  # the most that the IOC took beside what it had
    gets: int = 0
    slowest_s: float = 0.0


@contextmanager
def others_are_served(ioc: Ioc, context: Context) -> Iterator[Seen]:
    """What the IOC takes meanwhile, and how another client fares: a failed get fails the test."""
    process = psutil.Process(ioc.process.pid)
    before, seen, ended = process.memory_info().rss, Seen(), threading.Event()
    failures: list[Exception] = []

    def watch() -> None:
        while not ended.wait(0.005):
            seen.more_bytes = max(seen.more_bytes, process.memory_info().rss - before)

    def read() -> None:
        try:
            while not ended.wait(0.01):
                began_s = time.monotonic()
                assert context.get(f"{ioc.prefix}Center", timeout=10) == 0
                seen.slowest_s = max(seen.slowest_s, time.monotonic() - began_s)
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


@contextmanager
def disconnecting(ioc: Ioc, count: int) -> Iterator[None]:
    """So many clients are counted as bad by the end."""
    before = ioc.get("CA_BAD_CNT")
    yield
    time.sleep(1.5)  # the record tells it once a second
    ioc.wait_value("CA_BAD_CNT", before + count)


def monitored(connection: RawPva, name: str) -> int:
    """A monitor that gets its updates; the channel's id."""
    sid = connection.channel(name)
    connection.send(begin(raw_pva.MONITOR, sid, 1))
    connection.until(raw_pva.MONITOR)
    connection.send(start(sid, 1))
    connection.until(raw_pva.MONITOR)
    return sid


# --- no end ------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("begun", [in_one_message, in_parts, in_parts_beside_a_monitor])
def test_27_who_sends_without_end_is_disconnected_and_fills_no_memory(
    ioc: Ioc, context: Context, raw: Callable[[], RawPva], begun: Callable[[RawPva], bytes]
) -> None:
    """100 MB/s, about what a network of 1 Gbit/s brings."""
    bad = raw()
    part = begun(bad)

    def paced() -> bytes:
        time.sleep(len(part) / (100 * MB))
        return part

    with disconnecting(ioc, 1), others_are_served(ioc, context) as seen:
        sent = bad.send_without_end(paced, 1000 * MB)
        assert bad.is_closed()
    assert sent < 500 * MB
    assert seen.more_bytes < 150 * MB


def test_27_as_fast_as_it_goes_it_ends_before_memory_does(
    ioc: Ioc, context: Context, raw: Callable[[], RawPva]
) -> None:
    process = psutil.Process(ioc.process.pid)
    before = process.memory_info().rss
    bad = raw()
    part = in_one_message(bad)
    with disconnecting(ioc, 1), others_are_served(ioc, context) as seen:
        sent = bad.send_without_end(lambda: part, 4000 * MB)
        assert bad.is_closed()
    assert sent < 3000 * MB
    if seen.more_bytes > 100 * MB:  # it is given back
        wait_for(lambda: process.memory_info().rss < before + seen.more_bytes / 2)


def test_27_a_connection_that_never_said_hello_is_no_other(ioc: Ioc, context: Context) -> None:
    bad = RawPva(ioc.ports.pva)
    bad.send(claiming(raw_pva.VALIDATION, HUGE))
    block = bytes(MB)
    with disconnecting(ioc, 1), others_are_served(ioc, context):
        assert bad.send_without_end(lambda: block, 3000 * MB) < 3000 * MB
        assert bad.is_closed()
    bad.close()


def test_27_many_that_hold_a_little_each_may_hold_64_mb_in_all(
    ioc: Ioc, context: Context, raw: Callable[[], RawPva]
) -> None:
    connections = [raw() for _ in range(60)]
    with others_are_served(ioc, context) as seen:
        for connection in connections:
            connection.send(claiming(raw_pva.CREATE, HUGE))
            connection.send_without_end(lambda: bytes(100_000), 3 * MB)
        closed = [connection.is_closed(0.05) for connection in connections]
        # what is left is less than 64 MB; each of these may have its 3 MB for ten seconds
        assert 15 < closed.count(True) < 55
    assert seen.more_bytes < 180 * MB


@pytest.mark.parametrize(
    "part", [bytes(10_000), b"\xca\x02\x30\x07" + struct.pack("<I", 2) + b"ab"]
)
def test_27_who_sends_slowly_is_disconnected_after_ten_seconds(
    ioc: Ioc, context: Context, raw: Callable[[], RawPva], part: bytes
) -> None:
    bad = raw()
    flags, length = (raw_pva.FIRST, 0) if part[0] else (0, HUGE)
    bad.send(claiming(raw_pva.CREATE, length, flags))
    part *= 10_000 // len(part)

    def paced() -> bytes:
        time.sleep(0.1)
        return part

    began_s = time.monotonic()
    with disconnecting(ioc, 1), others_are_served(ioc, context) as seen:
        assert bad.send_without_end(paced, int(SLOWLY_S / 0.1) * len(part)) < SLOWLY_S * MB
        assert bad.is_closed()
    assert time.monotonic() - began_s < SLOWLY_S
    assert seen.more_bytes < 20 * MB


def test_27_a_length_that_pvxs_takes_for_a_small_one_holds_nobody_up(
    ioc: Ioc, context: Context, raw: Callable[[], RawPva]
) -> None:
    """8 + 0xffffffff is 7 in 32 bits. With a monitor pvxs notices the end, and frees all."""
    bad = raw()
    monitored(bad, f"{ioc.prefix}HEARTBEAT")
    with disconnecting(ioc, 1), others_are_served(ioc, context) as seen:
        bad.send(claiming(raw_pva.CREATE, 0xFFFFFFFF))
        bad.socket.settimeout(SLOWLY_S)
        bad.send_without_end(lambda: bytes(MB), 100 * MB)
        assert bad.is_closed(SLOWLY_S)
    assert seen.more_bytes < 20 * MB

    process = psutil.Process(ioc.process.pid)
    wait_for(lambda: process.cpu_percent(0.5) < 60, 20, "pvxs to be done with it")


# --- damaged -----------------------------------------------------------------------------------

DAMAGED = {
    "http": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "tls": bytes.fromhex("16030100c8010000c40303") + bytes(100),
    "ones": b"\xff" * 256,
    "zeros": bytes(256),
    "a server's message": message(raw_pva.ECHO, b"", 0x40),
    "the middle of nothing": message(raw_pva.ECHO, b"abc", raw_pva.MIDDLE),
    "a part of something else": message(raw_pva.ECHO, b"abc", raw_pva.FIRST)
    + message(raw_pva.CREATE, b"abc", raw_pva.LAST),
    "a name that breaks off": message(raw_pva.CREATE, struct.pack("<HI", 1, 1) + size(4 * MB)),
    "a channel that is none": begin(raw_pva.GET, 4711, 1),
}


@pytest.mark.parametrize("damaged", DAMAGED.values(), ids=DAMAGED)
def test_27_a_damaged_message_ends_its_connection_and_no_other(
    ioc: Ioc, context: Context, raw: Callable[[], RawPva], damaged: bytes
) -> None:
    bad = raw()
    with others_are_served(ioc, context) as seen:
        bad.send(damaged)
        assert bad.is_closed()
    assert seen.more_bytes < 20 * MB
    assert raw().channel(f"{ioc.prefix}Center") != 0xFFFFFFFF


@pytest.mark.parametrize("passed_over", [message(77, b"x" * 50), message(0, b"x" * 50)])
def test_27_a_message_of_an_unknown_kind_is_passed_over(
    ioc: Ioc, raw: Callable[[], RawPva], passed_over: bytes
) -> None:
    odd = raw()
    odd.send(passed_over)
    assert odd.channel(f"{ioc.prefix}Center") != 0xFFFFFFFF


SIZES = {
    "a string of 4 GB": bytes((raw_pva.STRING,)) + size(0xFFFFFFFF),
    "4 billion strings": bytes((raw_pva.STRING_ARRAY,)) + size(0xFFFFFFFF),
    "4 billion structures": bytes((raw_pva.STRUCTURE_ARRAY, *ALL)) + size(0xFFFFFFFF),
    "4 billion fields": bytes((raw_pva.STRUCTURE, 0)) + size(0xFFFFFFFF),
    "a million fields": bytes((raw_pva.STRUCTURE, 0)) + size(MB),
    "a million numbers": bytes((0x4B,)) + size(MB),
    "no such type": b"\x7f",
    "a type of fixed length": b"\x30\x05",
    "a type that was never told": b"\xfe\x01\x00",
    "types in types": bytes((raw_pva.STRUCTURE, 0, 1, 1, 0x61)) * 5000,
}


@pytest.mark.parametrize("value", SIZES.values(), ids=SIZES)
def test_27_a_size_in_a_message_that_is_not_kept_ends_the_connection(
    ioc: Ioc, context: Context, value: bytes
) -> None:
    bad = RawPva(ioc.ports.pva)
    bad.until(raw_pva.VALIDATION)
    with others_are_served(ioc, context) as seen:
        bad.send(credentials(value))
        assert bad.is_closed()
    bad.close()
    assert seen.more_bytes < 60 * MB


def test_27_half_a_message_is_waited_for(ioc: Ioc, raw: Callable[[], RawPva]) -> None:
    slow = raw()
    whole = create(f"{ioc.prefix}Center")
    slow.send(whole[:11])
    time.sleep(0.5)
    slow.send(whole[11:])
    slow.until(raw_pva.CREATE)


# --- clients that are none of these ------------------------------------------------------------


OPERATIONS = 500  # of which each has one request at a time, as pvxs wants it


def ask_for(seconds: float, connection: RawPva, command: int, name: str) -> None:
    """As many requests as are answered in this time, 500 at once."""
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


def test_27_a_flood_of_puts_and_a_flood_of_gets_stay_connected(
    ioc: Ioc, context: Context, raw: Callable[[], RawPva]
) -> None:
    """Requests of many megabytes, the puts refused as they hold no value."""
    connections = [raw() for _ in range(2)]
    with disconnecting(ioc, 0), others_are_served(ioc, context) as seen:
        threads = [
            threading.Thread(target=ask_for, args=(14, connection, command, f"{ioc.prefix}Center"))
            for connection, command in zip(connections, (raw_pva.PUT, raw_pva.GET), strict=True)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for connection in connections:
            connection.send(message(raw_pva.ECHO, b"still there"))
            assert connection.until(raw_pva.ECHO) == b"still there"
    assert seen.more_bytes < 60 * MB


def test_27_who_searches_for_what_is_not_here_stays_connected(
    ioc: Ioc, raw: Callable[[], RawPva]
) -> None:
    """A search over TCP that finds nothing is not answered; clients send echos in between."""
    searching = raw()
    address = bytes(16) + struct.pack("<H", 5076)
    names = b"".join(
        struct.pack("<I", number) + text("no:such:" + "x" * 60) for number in range(800)
    )
    search = message(
        raw_pva.SEARCH,
        struct.pack("<IB3x", 1, 0)
        + address
        + size(1)
        + text("tcp")
        + struct.pack("<H", 800)
        + names,
    )
    with disconnecting(ioc, 0):
        for _ in range(14):
            searching.send(search * 9, message(raw_pva.ECHO, b"still there"))
            assert searching.until(raw_pva.ECHO) == b"still there"
            time.sleep(1)


def test_27_log_lines_name_the_client_and_are_few(ioc: Ioc, raw: Callable[[], RawPva]) -> None:
    count = len(ioc.lines)
    with disconnecting(ioc, 5):
        for _ in range(5):
            bad = raw()
            part = in_one_message(bad)
            bad.send_without_end(lambda part=part: part, 3000 * MB)
            assert bad.is_closed()
    lines = [line for line in ioc.lines[count:] if "pva_guard" in line]
    assert 1 <= len(lines) <= 5
    assert all("disconnected PVA client 127.0.0.1:" in line for line in lines)
    assert not [line for line in ioc.lines if "Traceback" in line]
