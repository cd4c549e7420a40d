"""Fault 27 over Channel Access: damaged messages, and lengths that nobody could mean."""

from __future__ import annotations

import contextlib
import logging
import random
import socket
import struct
from collections.abc import Callable, Iterator

import psutil
import pytest
from ca_ioc import PREFIX, Client, Ioc, ca_environment
from support import raw_ca
from support.ports import free_port
from support.processes import wait_for
from support.raw_ca import RawConnection, claiming, create, hello, message, monitor, put, read

MB = 1_000_000
CENTER = f"{PREFIX}Center"
TOO_LARGE, BAD_COUNT = 72, 176  # ECA_TOLARGE, ECA_BADCOUNT


@pytest.fixture
def ioc(monkeypatch: pytest.MonkeyPatch) -> Iterator[Ioc]:
    for name, value in ca_environment(free_port()).items():
        monkeypatch.setenv(name, value)
    made = Ioc().start()
    yield made
    made.close()


@pytest.fixture
def client(ioc: Ioc) -> Client:
    """Another client, that must not notice anything."""
    other = ioc.client()
    assert other.put("Center", "5") == 1
    return other


@pytest.fixture
def raw(ioc: Ioc) -> Iterator[Callable[[], RawConnection]]:
    made: list[RawConnection] = []

    def connect() -> RawConnection:
        made.append(RawConnection(ioc.port))
        made[-1].send(hello())
        return made[-1]

    yield connect
    for connection in made:
        connection.close()


def resident() -> int:
    return psutil.Process().memory_info().rss


def bad_count(ioc: Ioc) -> int:
    return ioc.value("CA_BAD_CNT")


@pytest.mark.parametrize("claimed", [0xFFFFFFF8, 0x7FFFFFF8, 20_000], ids=["4 GB", "2 GB", "20 kB"])
def test_27_a_length_that_is_not_taken_ends_the_connection_at_once(
    ioc: Ioc, client: Client, raw: Callable[[], RawConnection], claimed: int
) -> None:
    bad = raw()
    sid = bad.channel(CENTER)
    before = resident()
    bad.send(claiming(raw_ca.WRITE, claimed, first=sid))
    _, payload, _ = bad.until(raw_ca.ERROR)
    assert b"too large" in payload
    assert bad.is_closed()
    assert resident() - before < 20 * MB
    wait_for(lambda: bad_count(ioc) == 1, what="the count of bad clients")
    assert client.get("Center") == 5
    assert client.put("Center", "6") == 1


def test_27_who_goes_on_sending_after_a_length_of_4_gb_fills_no_memory(
    ioc: Ioc, client: Client, raw: Callable[[], RawConnection]
) -> None:
    bad = raw()
    before = resident()
    bad.send(claiming(raw_ca.WRITE_NOTIFY, 0xFFFFFFF8))
    block = bytes(MB)
    sent = 0
    with contextlib.suppress(ConnectionError):
        while sent < 200 * MB:
            bad.send(block)
            sent += MB
    assert sent < 200 * MB
    assert resident() - before < 30 * MB
    assert client.get("Center") == 5


DAMAGED = {
    "no such command": message(77),
    "a response": message(13),
    "unknown channel": read(4711, 1),
    "unknown channel put": put(4711, "1"),
    "unknown channel monitor": monitor(4711, 1),
    "unknown channel cleared": message(raw_ca.CLEAR, first=4711, second=1),
    "unknown subscription": message(raw_ca.EVENT_CANCEL, kind=6, first=0, second=99),
    "length no multiple of 8": struct.pack(">HHHHII", raw_ca.WRITE, 3, 6, 1, 0, 0) + b"abc",
    "monitor without its mask": message(raw_ca.EVENT_ADD, kind=20, first=0, second=1),
    "http": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "tls": bytes.fromhex("16030100c8010000c40303") + bytes(100),
    "ones": b"\xff" * 256,
}


@pytest.mark.parametrize("damaged", DAMAGED.values(), ids=DAMAGED)
def test_27_a_damaged_message_ends_its_connection_and_no_other(
    ioc: Ioc, client: Client, raw: Callable[[], RawConnection], damaged: bytes
) -> None:
    bad = raw()
    bad.channel(CENTER)
    bad.send(damaged)
    assert bad.is_closed()
    wait_for(lambda: bad_count(ioc) == 1, what="the count of bad clients")
    assert client.get("Center") == 5
    assert client.put("Center", "6") == 1
    again = raw()
    assert again.channel(CENTER) >= 0


@pytest.mark.parametrize("name", ['.{"arr":{"s":"x"', ".{" + "[" * 12000, ".{}", ".NOFIELD", "$$"])
def test_27_a_channel_that_can_not_be_is_refused_and_the_others_stay(
    ioc: Ioc, raw: Callable[[], RawConnection], name: str
) -> None:
    odd = raw()
    sid = odd.channel(CENTER)
    odd.send(create(CENTER + name, 7))
    assert odd.next()[0] in (raw_ca.CREATE_FAILED, raw_ca.ACCESS_RIGHTS)
    odd.send(read(sid, 5))
    assert odd.until(raw_ca.READ_NOTIFY)[2][5] == 5
    assert bad_count(ioc) == 0


def test_27_a_count_of_4_billion_elements_is_refused(
    ioc: Ioc, client: Client, raw: Callable[[], RawConnection]
) -> None:
    """A monitor gets as many elements as it asks for, filled up with zeros: not 32 GB of them."""
    bad = raw()
    sid = bad.channel(f"{PREFIX}ReconStatus")
    before = resident()
    payload = struct.pack(">fffHH", 0.0, 0.0, 0.0, 1, 0)
    extended = struct.pack(">HHHHII", raw_ca.EVENT_ADD, 0xFFFF, 18, 0, sid, 1)
    bad.send(extended + struct.pack(">II", len(payload), 0xFFFFFFFF) + payload)
    _, _, header = bad.until(raw_ca.ERROR)
    assert header[5] == BAD_COUNT
    extended = struct.pack(">HHHHII", raw_ca.READ_NOTIFY, 0xFFFF, 18, 0, sid, 2)
    bad.send(extended + struct.pack(">II", 0, 0xFFFFFFFF))
    assert len(bad.until(raw_ca.READ_NOTIFY)[1]) < 1000
    assert resident() - before < 20 * MB
    assert client.get("Center") == 5


def test_27_half_a_message_is_waited_for_and_disturbs_nobody(
    client: Client, raw: Callable[[], RawConnection]
) -> None:
    bad = raw()
    sid = bad.channel(CENTER)
    whole = put(sid, "7")
    bad.send(whole[:21])
    assert client.put("Center", "6") == 1
    bad.send(whole[21:])
    wait_for(lambda: client.get("Center") == 7, what="the rest of the put")


def test_27_bad_clients_get_a_line_a_second_and_are_counted(
    ioc: Ioc, raw: Callable[[], RawConnection], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        for _ in range(100):
            bad = raw()
            bad.send(message(77))
            assert bad.is_closed()
        wait_for(lambda: bad_count(ioc) == 100, what="the count of bad clients")
    lines = [line for line in caplog.messages if "disconnected" in line]
    seconds = {record.created // 0.99 for record in caplog.records}
    assert 1 <= len(lines) <= len(seconds) + 2
    assert not [record for record in caplog.records if record.exc_info]
    wait_for(lambda: ioc.value("CA_CLNT_CNT") == 0, what="the count of clients")


def test_27_a_channel_that_is_cleared_takes_its_monitors_with_it(
    ioc: Ioc, client: Client, raw: Callable[[], RawConnection]
) -> None:
    """libca cancels monitors first; a client that does not had its connection die of it."""
    odd = raw()
    sid = odd.channel(CENTER, cid=1)
    odd.send(monitor(sid, 1))
    odd.until(raw_ca.EVENT_ADD)
    odd.send(message(raw_ca.CLEAR, first=sid, second=1))
    odd.until(raw_ca.CLEAR)
    assert client.put("Center", "8") == 1
    odd.send(message(raw_ca.ECHO))
    assert odd.next()[0] == raw_ca.ECHO  # and no update
    assert bad_count(ioc) == 0


# --- over UDP ---------------------------------------------------------------------------------


def search(name: str, search_id: int) -> bytes:
    return message(raw_ca.SEARCH, name.encode() + b"\0", 5, 13, search_id, search_id)


def found(answer: bytes) -> list[int]:
    """Search ids in a datagram, after its version."""
    ids, at = [], 0
    while at < len(answer):
        command, size, *_, second = raw_ca.HEADER.unpack_from(answer, at)
        if command == raw_ca.SEARCH:
            ids.append(second)
        at += raw_ca.HEADER.size + size
    return ids


@pytest.fixture
def udp(ioc: Ioc) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * MB)
        sock.settimeout(20.0)
        sock.connect(("127.0.0.1", ioc.port))
        yield sock


VERSION = message(raw_ca.VERSION, kind=1, count=13, first=4242)

GARBAGE = {
    "one byte": b"\0",
    "half a header": VERSION + bytes(7),
    "a name that breaks off": VERSION + search("Center" * 20, 1)[:40],
    "no such command": message(77, b"x" * 64),
    "a length past the end": raw_ca.HEADER.pack(raw_ca.SEARCH, 0xFFF8, 5, 13, 1, 1) + b"x" * 8,
    "an empty name": raw_ca.HEADER.pack(raw_ca.SEARCH, 0, 5, 13, 1, 1),
    "bytes that are no text": search("", 1)[:16] + b"\xff\xfe\xfd\xfc\xff\xff\xff\xff",
    "a bad filter": search(CENTER + '.{"arr":', 1),
    "a deep filter": search(CENTER + ".{" + "[" * 5000, 1),
    "65 kB of nothing": bytes(65000),
    "65 kB of ones": b"\xff" * 65000,
}


@pytest.mark.parametrize("datagram", GARBAGE.values(), ids=GARBAGE)
def test_27_garbage_by_udp_is_passed_over(udp: socket.socket, datagram: bytes) -> None:
    for _ in range(5):
        udp.send(datagram)
    udp.send(VERSION + search(CENTER, 17))
    # a bad filter shows only when the channel is made, as with a C IOC
    wait_for(lambda: found(udp.recv(65536)) == [17], what="the answer")


def test_27_what_is_searched_before_the_damage_is_answered(udp: socket.socket) -> None:
    udp.send(VERSION + search(CENTER, 1) + search("other:pv", 2) + search(CENTER, 3) + b"\x01")
    answer = udp.recv(65536)
    assert found(answer) == [1, 3]
    version = raw_ca.HEADER.unpack_from(answer)
    assert version == (raw_ca.VERSION, 0, 1, 13, 4242, 0)  # the client's sequence number


def test_27_a_datagram_of_2000_searches_is_answered_in_packets_that_fit(
    ioc: Ioc, udp: socket.socket
) -> None:
    names = ("Center", "RotX", "x", "OrthoZ.HOPR", "Center.NOFIELD")
    count = 2000
    udp.send(VERSION + b"".join(search(names[i % 5], i) for i in range(count))[: 65000 // 40 * 40])
    ours = b"".join(search(PREFIX + names[i % 5], i) for i in range(1300))
    udp.send(VERSION + ours[:65000])
    want = {i for i in range(1300) if i % 5 in (0, 1, 3)}
    got: set[int] = set()
    while len(got) < len(want) - 300:
        answer = udp.recv(65536)
        assert len(answer) <= 1472
        got |= set(found(answer))
    assert got <= want


# --- fuzz -------------------------------------------------------------------------------------


def conversation(sid: int) -> list[bytes]:
    """What a client says once its first channel has this id."""
    return [
        hello(),
        create(CENTER, 1),
        read(sid, 1),
        monitor(sid, 1),
        put(sid, "3"),
        raw_ca.put_notify(sid, "4", 2),
        create(f"{PREFIX}ReconStatus", 2),
        monitor(sid + 1, 2, kind=18),
        create(f"{PREFIX}FilterType", 3),
        raw_ca.put_notify(sid + 2, "Ramp", 3),
        create(f"{PREFIX}nothing", 4),
        message(raw_ca.EVENTS_OFF),
        message(raw_ca.EVENTS_ON),
        message(raw_ca.EVENT_CANCEL, kind=20, first=sid, second=1),
        message(raw_ca.CLEAR, first=sid, second=1),
        message(raw_ca.ECHO),
    ]


def mutated(chance: random.Random, parts: list[bytes]) -> bytes:
    parts = list(parts)
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(len(parts))
        if chance.random() < 0.2:
            del parts[at]
        elif chance.random() < 0.2:
            parts.insert(at, chance.choice(parts))
        else:
            part = bytearray(parts[at])
            # the header is where it hurts
            spot = chance.randrange(min(len(part), 24) if chance.random() < 0.8 else len(part))
            part[spot] = chance.choice((0, 1, 0x7F, 0xFF, chance.randrange(256)))
            parts[at] = bytes(part)
        if not parts:
            break
    whole = b"".join(parts)
    return whole[: chance.randrange(len(whole) + 1)] if chance.random() < 0.2 else whole


@pytest.mark.parametrize("seed", range(3))
def test_27_mutated_conversations_leave_a_server_that_serves(
    ioc: Ioc, client: Client, udp: socket.socket, seed: int
) -> None:
    chance = random.Random(seed)
    before = resident()
    open_ones: list[RawConnection] = []
    for _ in range(150):
        connection = RawConnection(ioc.port)
        open_ones.append(connection)
        with contextlib.suppress(ConnectionError):
            connection.send(mutated(chance, conversation(0)))
        if len(open_ones) > 20:
            open_ones.pop(chance.randrange(20)).close()
        udp.send(mutated(chance, [VERSION, search(CENTER, 1), search("x", 2), search(CENTER, 3)]))
    last = RawConnection(ioc.port)  # connections are accepted in their order
    last.send(hello(), message(raw_ca.ECHO))
    last.until(raw_ca.ECHO)
    for connection in (*open_ones, last):
        connection.close()
    server = ioc.server
    assert server is not None
    wait_for(lambda: len(server.circuits) == 1, what="all that they asked to be worked on")
    assert client.put("Center", "12.5") == 1
    assert client.get("Center") == 12.5
    wait_for(lambda: ioc.value("CA_CLNT_CNT") == 1, what="the clients to be gone")
    assert resident() - before < 60 * MB
    seen = client.monitor("RotX")
    assert client.put("RotX", "1.25") == 1
    assert client.seen(seen, at_least=2)[-1] == 1.25
    late = ioc.client()
    assert late.get("Center") == 12.5
