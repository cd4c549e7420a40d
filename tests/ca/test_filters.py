"""Filters behind a channel's name, beside a C IOC that serves the same database."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from ca_ioc import MACROS, PREFIX, Client, Ioc
from support import raw_ca
from support.c_database import c_ioc
from support.raw_ca import RawConnection, create, hello, message, monitor, put_notify, read

CHAR = 4
SIZES = {0: 40, 1: 2, 3: 2, CHAR: 1, 5: 4, 6: 8}
TEXT = b"abcdefghij"
FILTERS = [
    ".[0:3]",
    ".VAL[0:3]",
    ".VAL[2]",
    ".[-3:-1]",
    ".[1:]",
    ".[:2]",
    ".[:]",
    ".[]",
    ".[1:2:4]",
    ".[1:-1:3]",
    ".[0:0:2]",
    ".[::2]",
    ".[1::]",
    ".[8:20]",
    ".[11:12]",
    ".[3:1]",
    ".[0x1:2]",
    ".[ 0 : 3 ]",
    ".[0:1:2:3]",
    ".[x]",
    ".[",
    ".VAL[0:3]x",
    ".VAL.[0:3]",
    "[0:3]",
    '{"arr":{"s":1}}',
    '.{"arr":{"s":1,"e":3}}',
    '.VAL{"arr":{"s":1,"e":3}}',
    '.{"arr":{"s":"1"}}',
    '.{"arr":{"i":0}}',
    '.{"arr":{"q":1}}',
    '.{"arr":[]}',
    ".VAL{arr:{s:1,e:3}}",
    '.{"arr":{"s":1},}',
    '.{"arr":{"s":1,"e":3},"ts":{}}',
    '.[0:3]{"ts":{}}',
    '.{"dbnd":{"abs":1}}',
    '.{"dbnd":{"m":"rel","d":2}}',
    ".{dbnd:{abs:1}}",
    '.{"dbnd":{"m":"no","d":2}}',
    '.{"nope":{}}',
    ".{}",
    ".{",
    ".DESC[0:3]",
    ".DESC$[x]",
    ".HOPR[0]",
    ".NORD[0:3]",
]


@pytest.fixture(scope="module")
def c_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with c_ioc(tmp_path_factory.mktemp("softioc"), MACROS) as ports:
        yield ports.ca


@pytest.fixture
def connect() -> Iterator[Callable[[int], RawConnection]]:
    made: list[RawConnection] = []

    def to(port: int) -> RawConnection:
        made.append(RawConnection(port))
        made[-1].send(hello())
        return made[-1]

    yield to
    for connection in made:
        connection.close()


def next_of(connection: RawConnection, *commands: int) -> tuple[int, bytes, tuple[int, ...]]:
    while (answer := connection.next())[0] not in commands:
        pass
    return answer


def shown(connection: RawConnection, name: str) -> Any:
    """Type, and what a read and the first update of a monitor hold; None: no such channel."""
    connection.send(create(name, 1))
    command, _, header = next_of(connection, raw_ca.CREATE, raw_ca.CREATE_FAILED)
    if command == raw_ca.CREATE_FAILED:
        return None
    kind, sid = header[2], header[5]
    connection.send(read(sid, 1, kind, 0))
    _, payload, answer = connection.until(raw_ca.READ_NOTIFY)
    connection.send(monitor(sid, 1, kind))
    _, update, event = connection.until(raw_ca.EVENT_ADD)
    connection.send(message(raw_ca.EVENT_CANCEL, kind=kind, first=sid, second=1))
    # what is behind the values is what was in the buffer
    read_bytes, event_bytes = (SIZES[kind] * header[3] for header in (answer, event))
    return kind, answer[2:4], payload[:read_bytes], event[2:4], update[:event_bytes]


@pytest.mark.parametrize("suffix", FILTERS)
def test_a_filter_does_what_it_does_in_a_c_ioc(
    module_ioc: Ioc, c_port: int, connect: Callable[[int], RawConnection], suffix: str
) -> None:
    ports = module_ioc.port, c_port
    put = message(raw_ca.WRITE_NOTIFY, TEXT, CHAR, len(TEXT))
    for port in ports:
        connection = connect(port)
        sid = connection.channel(f"{PREFIX}Crystal:BackgroundFile")
        connection.send(put[:8] + sid.to_bytes(4, "big") + put[12:])
        connection.until(raw_ca.WRITE_NOTIFY)
    for record in ("Crystal:BackgroundFile", "Center", "FilterType", "TomoScanPVPrefix"):
        mine, theirs = (shown(connect(port), PREFIX + record + suffix) for port in ports)
        assert mine == theirs, record


def test_libca_gets_and_monitors_the_slice(module_ioc: Ioc) -> None:
    client: Client = module_ioc.client()
    assert client.put("Crystal:BackgroundFile", [*b"abcdefghij"], "CHAR") == 1
    assert client.get("Crystal:BackgroundFile.VAL[1:3]") == [98, 99, 100]
    seen = client.monitor("Crystal:BackgroundFile.[1:3]")
    assert client.put("Crystal:BackgroundFile", [*b"ABCDEFGHIJ"], "CHAR") == 1
    assert client.seen(seen, at_least=2)[-1] == [66, 67, 68]


def test_a_slice_of_a_long_string(module_ioc: Ioc) -> None:
    """A C IOC ends it with a NUL in place of the last character."""
    client: Client = module_ioc.client()
    assert bytes(client.get("Center.NAME$[4:8]")) == b"TomoS"
    assert bytes(client.get('Center.NAME${"arr":{"s":-7}}')) == b"Center\0"
    assert client.get('Center.{"ts":{}}') == client.get("Center")


FILTERED, PLAIN = 1, 2  # subscriptions
FAR = 1000.0  # passes each deadband below
FIELDS = (1, "HIGH"), (2, "HSV")


def follow(
    reader: RawConnection, filtered: list[float], until: Callable[[int, float], bool]
) -> None:
    """Take updates up to one that is told by its subscription and value."""
    while True:
        _, payload, header = reader.until(raw_ca.EVENT_ADD)
        (value,) = struct.unpack(">d", payload)
        if header[5] == FILTERED:
            filtered.append(value)
        if until(header[5], value):
            return


def put(writer: RawConnection, sid: int, value: str) -> None:
    writer.send(put_notify(sid, value, 1))
    writer.until(raw_ca.WRITE_NOTIFY)


def seen_behind(
    band: str, port: int, connect: Callable[[int], RawConnection], values: tuple[str, ...]
) -> list[float]:
    """What a monitor of RotX gets of these values, put one after the other, and of FAR."""
    writer, reader = connect(port), connect(port)
    written = writer.channel(f"{PREFIX}RotX")
    put(writer, written, values[0])
    seen: list[float] = []
    names = {FILTERED: f"{PREFIX}RotX.{{dbnd:{band}}}", PLAIN: f"{PREFIX}RotX"}
    sids = {number: reader.channel(name, number) for number, name in names.items()}
    reader.send(*(monitor(sid, number, raw_ca.DOUBLE) for number, sid in sids.items()))
    follow(reader, seen, lambda number, _: number == PLAIN)
    for value in (*map(float, values[1:]), FAR):
        put(writer, written, str(value))
        # each put has been told of before the next, but of two subscriptions in any order
        follow(reader, seen, lambda number, at, put=value: (number, at) == (PLAIN, put))
    if FAR not in seen:
        follow(reader, seen, lambda number, at: (number, at) == (FILTERED, FAR))
    return seen


@pytest.mark.parametrize(
    ("band", "values", "passed"),
    [
        ('{m:"abs",d:1.5}', ("0", "1", "2", "3", "4"), [0, 2, 4]),
        ('{"abs":1}', ("0", "1", "2.5", "3"), [0, 2.5]),
        ('{"rel":50}', ("4", "5", "6.5", "9", "10"), [4, 6.5, 10]),
    ],
)
def test_a_deadband_lets_through_what_it_does_in_a_c_ioc(
    module_ioc: Ioc,
    c_port: int,
    connect: Callable[[int], RawConnection],
    band: str,
    values: tuple[str, ...],
    passed: list[float],
) -> None:
    for port in (module_ioc.port, c_port):
        assert seen_behind(band, port, connect, values) == [*passed, FAR]


def test_a_deadband_lets_alarms_through_as_in_a_c_ioc(
    module_ioc: Ioc, c_port: int, connect: Callable[[int], RawConnection]
) -> None:
    for port in (module_ioc.port, c_port):
        writer = connect(port)
        high, severity = (writer.channel(f"{PREFIX}RotX.{name}", n) for n, name in FIELDS)
        put(writer, high, "10")
        put(writer, severity, "MINOR")
        try:
            seen = seen_behind('{"abs":100}', port, connect, ("0", "1", "20", "21", "2"))
        finally:
            put(writer, severity, "NO_ALARM")
        assert seen == [0, 20, 2, FAR]


def test_a_deadband_without_end_costs_its_own_channel_alone(
    module_ioc: Ioc, connect: Callable[[int], RawConnection]
) -> None:
    client = connect(module_ioc.port)
    client.send(create(f'{PREFIX}RotX.{{"dbnd":{{"abs":{"9" * 400}}}}}', 1))
    client.until(raw_ca.CREATE_FAILED)
    assert client.channel(f"{PREFIX}RotX", 2) >= 0  # and no end of the connection


@pytest.mark.parametrize("suffix", ['.{"ts":{"num":"sec"}}', '.{"utag":{}}', '.{"dec":{"n":2}}'])
def test_a_filter_that_is_not_known_here_is_refused(
    module_ioc: Ioc, connect: Callable[[int], RawConnection], suffix: str
) -> None:
    assert shown(connect(module_ioc.port), f"{PREFIX}Center{suffix}") is None
