"""What is read and answered with struct alone is, byte for byte, what caproto would make of it."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator
from typing import Any

import pytest
from ca_ioc import PREFIX, Client, Ioc
from support import raw_ca
from support.processes import wait_for
from support.raw_ca import RawConnection, hello, message, monitor, put_notify, read

from tomostream_ioc.epics import ioc_circuit
from tomostream_ioc.epics.bounded_circuit import BoundedCircuit
from tomostream_ioc.epics.ca_messages import Received
from tomostream_ioc.epics.dbr_payload import payload_of
from tomostream_ioc.epics.direct_messages import direct_put
from tomostream_ioc.epics.ioc_circuit import IocCircuit

STRING, INT, FLOAT, ENUM, CHAR, LONG, DOUBLE = range(7)
# a record of each type, and a field of each kind
CHANNELS = [
    "Center",
    "OrthoX",
    "FilterType",
    "StartRecon",
    "CenterAuto",
    "DarkPVAName",
    "ReconStatus",
    "CenterTweakUp",
    "Center.HOPR",
    "Center.PREC",
    "Center.DISP",
    "Center.SCAN",
    "Center.DESC",
    "Center.NAME",
    "OrthoX.HIGH",
    "FilterType.RVAL",
    "FilterType.ONST",
    "ReconStatus.NORD",
    "ReconStatus.VAL$",
    "DarkPVAName.VAL$",
    "DarkPVAName.",
    'ReconStatus.VAL{"arr":{"s":1,"e":3}}',
]
TYPES = range(40)  # 39 is none
PLAIN_VALUES: dict[int, list[bytes]] = {
    STRING: [text.ljust(40, b"\0") for text in (b"3", b"1.5", b"Ramp", b"", b"nan", b"0x10")]
    + [b"short\0\0\0", b"y" * 40, b"y" * 48],
    INT: [struct.pack(">h6x", number) for number in (0, 2, -1, 300)],
    FLOAT: [struct.pack(">f4x", number) for number in (0.1, 2.0, float("nan"), float("inf"))],
    ENUM: [struct.pack(">H6x", number) for number in (0, 3, 9)],
    CHAR: [struct.pack(">B7x", number) for number in (0, 1, 255)] + [b"a status", bytes(48)],
    LONG: [struct.pack(">i4x", number) for number in (2, -(2**31), 2**31 - 1)],
    DOUBLE: [struct.pack(">d", number) for number in (0.1, 2.0, -3e9, float("nan"), 1e300)],
}
WRITTEN = [
    "Center",
    "OrthoX",
    "FilterType",
    "CenterAuto",
    "DarkPVAName",
    "ReconStatus",
    "CenterTweakUp",
    "FramesReceived",
    "Center.HOPR",
    "Center.PREC",
    "Center.DISP",
    "Center.PRIO",
    "Center.DESC",
    "Center.NAME",
    "DarkPVAName.VAL$",
]


@pytest.fixture
def raw(module_ioc: Ioc) -> Iterator[RawConnection]:
    connection = RawConnection(module_ioc.port)
    connection.send(hello())
    yield connection
    connection.close()


@contextlib.contextmanager
def by_caproto() -> Iterator[None]:
    """Requests and updates go through caproto's objects."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(IocCircuit, "_answer_directly", BoundedCircuit._answer_directly)
        patch.setattr("tomostream_ioc.epics.monitors.payload_of", lambda *_: None)
        yield


def answers(raw: RawConnection, *requests: bytes) -> list[tuple[Any, ...]]:
    """All that comes until an echo that is sent behind the requests."""
    raw.send(*requests, message(raw_ca.ECHO))
    found = []
    while (answer := raw.next())[0] != raw_ca.ECHO:
        found.append(answer)
    return found


def with_updates(raw: RawConnection, *requests: bytes) -> list[tuple[Any, ...]]:
    """The same, and the updates that follow: answers go out before updates."""
    return [*answers(raw, *requests), *answers(raw)]


def channels(raw: RawConnection, names: list[str]) -> dict[str, int]:
    return {name: raw.channel(PREFIX + name, cid) for cid, name in enumerate(names)}


def test_reads_of_every_type_and_count_are_the_same(
    raw: RawConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    direct: list[bytes] = []

    def counted(*arguments: Any) -> bytes | None:
        answer = real(*arguments)
        direct.extend([answer] if answer else [])
        return answer

    real = ioc_circuit.read_answer
    monkeypatch.setattr(ioc_circuit, "read_answer", counted)
    for name, sid in channels(raw, CHANNELS).items():
        for kind in TYPES:
            requests = [read(sid, 100 + count, kind, count) for count in (0, 1, 2, 300)]
            found = answers(raw, *requests)
            with by_caproto():
                assert found == answers(raw, *requests), (name, kind)
            assert len(found) == 4, (name, kind)
            assert b"internal error" not in b"".join(each[1] for each in found), (name, kind)
    assert len(direct) > 300  # and most of what is asked of native types went that way


def value(ioc: Ioc, name: str) -> Any:
    """What a put has left, but for ReconStatus, which is soon what it was."""
    record, _, field = name.rstrip("$").partition(".")
    return None if name == "ReconStatus" else ioc.group.records[record].field(field or "VAL")


def test_puts_of_every_type_do_and_answer_the_same(module_ioc: Ioc, raw: RawConnection) -> None:
    module_ioc.run.show(message="")  # shown in ReconStatus, ten times a second
    wait_for(lambda: module_ioc.value("ReconStatus") == b"", what="no status")
    sids = channels(raw, WRITTEN)
    done = 0
    for name, sid in sids.items():
        for kind, payloads in {**PLAIN_VALUES, 8: [bytes(16)], 20: [bytes(24)]}.items():
            for payload in payloads:
                counts = (0, 1, 2, 5, 48) if kind in (STRING, CHAR) else (0, 1, 2)
                for count in counts:
                    whole = (payload, kind, count, sid, 9)
                    requests = [message(raw_ca.WRITE_NOTIFY, *whole), message(raw_ca.WRITE, *whole)]
                    reset(module_ioc)
                    found = answers(raw, *requests), value(module_ioc, name)
                    reset(module_ioc)
                    with by_caproto():
                        wanted = answers(raw, *requests), value(module_ioc, name)
                    assert found == wanted, (name, kind, payload, count)
                    done += found[0][0][2][4] == 1
    assert done > 100


def reset(ioc: Ioc) -> None:
    """To where each put begins; what runs in the server's thread does not touch these."""
    for name, record in ioc.group.records.items():
        if name in WRITTEN:
            record._data["value"] = record.default_value
    center = ioc.group.records["Center"]
    center.field_values.update(HOPR=0.0, PREC=2, DISP=0, PRIO=0, DESC="")


def change(ioc: Ioc, raw: RawConnection, name: str, sid: int, text: str) -> list[tuple[Any, ...]]:
    """Have the value changed; what comes of it."""
    if name != "ReconStatus":
        return with_updates(raw, put_notify(sid, "1", 7), put_notify(sid, text, 8))
    ioc.run.show(message=text)
    wait_for(lambda: ioc.value(name) == text.encode(), what=text)
    return with_updates(raw)


def test_updates_are_what_a_new_monitor_begins_with(module_ioc: Ioc, raw: RawConnection) -> None:
    """A monitor's first value is read by caproto, those that follow are packed."""
    names = ["Center", "OrthoX", "FilterType", "DarkPVAName", "ReconStatus"]
    for name, sid in channels(raw, names).items():
        status = name == "ReconStatus"
        for kind in (CHAR, DOUBLE, 11, 18, 32) if status else range(35):
            for count in (0, 1, 200) if status else (0, 1):
                opened = with_updates(raw, monitor(sid, 5, kind, count))
                text = {"FilterType": "2", "DarkPVAName": f"x:{kind}"}.get(name, str(10 + kind))
                posted = change(module_ioc, raw, name, sid, f"{text} {count}" if status else text)
                updates = [each for each in posted if each[0] == raw_ca.EVENT_ADD]
                again = with_updates(raw, monitor(sid, 6, kind, count))
                cancel = [
                    message(raw_ca.EVENT_CANCEL, kind=kind, count=count, first=sid, second=number)
                    for number in (5, 6)
                ]
                with_updates(raw, *cancel)
                assert len(opened) == len(again) == 1, (name, kind)
                if opened[0][0] == raw_ca.ERROR:
                    assert not updates
                    continue
                assert updates, (name, kind)
                assert updates[-1][1] == again[0][1], (name, kind, count)
                assert updates[-1][2][:5] == again[0][2][:5]


def test_a_type_that_is_none_is_left_to_caproto(module_ioc: Ioc) -> None:
    center, status = (module_ioc.group.records[name] for name in ("Center", "ReconStatus"))
    assert payload_of(center, STRING, 1) is not None
    assert payload_of(center, LONG, 1) is None
    assert payload_of(center, 34, 1) is None
    assert payload_of(status, STRING, 1) is None
    assert direct_put(_request(payload=bytes(8), data_type=DOUBLE, count=2)) is None
    assert direct_put(_request(payload=b"", data_type=DOUBLE, count=1)) is None
    assert direct_put(_request(payload=bytes(24), data_type=20, count=1)) is None
    assert direct_put(_request(payload=bytes(8), data_type=CHAR, count=9)) is None


def _request(payload: bytes, data_type: int, count: int) -> Any:
    received = Received(1000)
    received.add(message(raw_ca.WRITE, payload, data_type, count, 1, 2))
    return received.next_message()


def test_requests_in_any_pieces_are_the_same_requests(raw: RawConnection) -> None:
    sid = raw.channel(f"{PREFIX}Center")
    parts = [read(sid, number) for number in range(20)]
    parts.append(message(raw_ca.WRITE_NOTIFY, bytes(3000), CHAR, 2999, sid, 20))
    whole = b"".join(parts)
    together = answers(raw, whole)
    for size in (1, 15, 17, 100):
        for at in range(0, len(whole), size):
            raw.send(whole[at : at + size])
        assert answers(raw) == together
    assert [header[5] for _, _, header in together] == list(range(21))


def test_answers_keep_the_order_of_requests_of_both_ways(raw: RawConnection) -> None:
    """CTRL_DOUBLE is read by caproto, DOUBLE is not; a put-callback lies between."""
    sid = raw.channel(f"{PREFIX}Center")
    requests = [
        read(sid, 1, DOUBLE),
        read(sid, 2, 34),
        put_notify(sid, "7", 3),
        read(sid, 4, DOUBLE),
        read(sid, 5, 34),
    ]
    found = answers(raw, *requests)
    assert [header[5] for _, _, header in found] == [1, 2, 3, 4, 5]
    assert struct.unpack(">d", found[3][1]) == (7.0,)


def test_a_put_callback_that_waits_is_answered_at_its_end_and_not_after_the_channel(
    ioc: Ioc, client: Client
) -> None:
    wait_for(lambda: ioc.value("ServerRunning") == 1, what="Running")
    raw = RawConnection(ioc.port)
    raw.send(hello())
    first, second = (raw.channel(f"{PREFIX}StartRecon", cid) for cid in (1, 2))
    assert answers(raw, put_notify(first, "1", 11), put_notify(second, "1", 12)) == []
    answers(raw, message(raw_ca.CLEAR, first=first, second=1))
    assert client.get("StartRecon") == 1
    ioc.run.end()
    _, _, header = raw.until(raw_ca.WRITE_NOTIFY)
    assert (header[5], header[4]) == (12, 1)
    assert answers(raw) == []
    raw.close()
