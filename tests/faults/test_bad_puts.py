"""Fault 23: puts of nonsense to every record, over Channel Access (libca) and PV Access."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from p4p.client.thread import RemoteError
from records_ioc import PvaClient, RecordsIoc
from support.ports import ServerPorts, environment
from support.processes import wait_for

from tomostream_ioc.epics.operation_records import OperationRecords
from tomostream_ioc.epics.save_declarations import AutosaveRecords

NORMAL, NO_WRITE_ACCESS, BAD_COUNT = 1, "refused by libca: 376", "refused by libca: 176"
#: go on by themselves
MOVING = {
    "Watchdog",
    *(prop.pvspec.name for prop in OperationRecords._pvs_.values()),
    *(prop.pvspec.name for prop in AutosaveRecords._pvs_.values()),
}
NO_NUMBER = [("nan", "DOUBLE"), ("inf", "DOUBLE"), ("-inf", "DOUBLE"), ("nan", "STRING")]
NO_NUMBER += [("Inf", "STRING"), ("abc", "STRING"), ("", "STRING"), ("1e999", "STRING")]
NO_INTEGER = [(1e30, "DOUBLE"), (-3e9, "DOUBLE"), ("3000000000", "STRING"), ("1;2", "STRING")]
NO_CHOICE = [(-1, "SHORT"), (-1, "LONG"), (65535, "ENUM"), (16, "ENUM"), (99, "LONG")]
NO_CHOICE += [("nan", "DOUBLE"), (1e30, "DOUBLE"), ("No Such Choice", "STRING"), ("-1", "STRING")]
NO_TEXT = [("a\tb", "STRING"), ("\x07", "STRING")]
BAD: dict[str, list[tuple[Any, str]]] = {
    "ao": NO_NUMBER,
    "calcout": NO_NUMBER,
    "longout": NO_NUMBER + NO_INTEGER,
    **dict.fromkeys(("bo", "bi", "busy", "mbbo"), NO_CHOICE),
    "stringout": NO_TEXT,
    "waveform": [("text", "STRING"), (300, "LONG"), (-1, "LONG")],
}


@pytest.fixture
def ioc(monkeypatch: pytest.MonkeyPatch) -> Iterator[RecordsIoc]:
    ports = ServerPorts()
    for name, value in environment(serve=ports, reach=(ports,)).items():
        if name.startswith("EPICS_"):
            monkeypatch.setenv(name, value)
    made = RecordsIoc()
    made.start()
    wait_for(lambda: made.value("ServerRunning") == 1, what="Running")
    yield made
    made.close()


def state(ioc: RecordsIoc) -> dict[str, Any]:
    return {
        name: (record.value, *(record.field_values[field] for field in ("SEVR", "STAT", "UDF")))
        for name, record in ioc.group.records.items()
        if name not in MOVING
    }


def writable(ioc: RecordsIoc) -> dict[str, str]:
    """Name and type of the records that a client may put to."""
    return {
        name: record.rtyp
        for name, record in ioc.group.records.items()
        if record.client_rights & 2 and name != "Watchdog"
    }


def test_23_nonsense_over_ca_fails_and_changes_nothing_anywhere(ioc: RecordsIoc) -> None:
    client = ioc.client()
    assert client.put("Center", "5") == NORMAL
    before, calls = state(ioc), len(ioc.run.calls)
    records = writable(ioc)
    taken: list[Any] = []
    for name, rtyp in records.items():
        for value, dbr_type in BAD[rtyp]:
            status = client.put(name, value, dbr_type)
            if status == NORMAL or state(ioc) != before:
                taken.append((name, value, dbr_type, status))
                before = state(ioc)
        if rtyp != "waveform":
            assert client.put(name, [1.0, 2.0], "DOUBLE") == BAD_COUNT, name
    assert taken == []
    assert client.put("ReconStatus", [120] * 257, "CHAR") == BAD_COUNT
    assert state(ioc) == before
    assert len(ioc.run.calls) == calls
    assert client.put("Center", "6") == NORMAL


def test_23_nothing_puts_to_what_is_read_only(ioc: RecordsIoc) -> None:
    client, before = ioc.client(), state(ioc)
    shown = [name for name in ioc.group.records if name not in writable(ioc)]
    assert len(shown) > 20
    for name in shown:
        if name != "Watchdog":
            assert client.put(name, "1") == NO_WRITE_ACCESS, name
    assert state(ioc) == before


def test_23_nonsense_over_pva_fails_and_changes_nothing_anywhere(ioc: RecordsIoc) -> None:
    bad: dict[str, list[Any]] = {
        "ao": [float("nan"), float("inf"), float("-inf"), "abc"],
        "longout": ["abc", ""],
        "stringout": ["a\tb", "x" * 40, "x" * 100_000],
        "waveform": [[65] * 257, [65] * 1_000_000],
    }
    bad["calcout"] = bad["ao"]
    client = PvaClient()
    before, calls = state(ioc), len(ioc.run.calls)
    taken: list[Any] = []
    try:
        for name, rtyp in writable(ioc).items():
            values = [-1, 99, 2**31 - 1] if rtyp in ("bo", "bi", "busy", "mbbo") else bad[rtyp]
            for value in values:
                try:
                    if rtyp in bad:
                        client.put(name, value)
                    else:
                        client.choose(name, value)
                except (RemoteError, ValueError):  # by the server; by p4p before it is sent
                    if state(ioc) == before:
                        continue
                taken.append((name, str(value)[:20]))
                before = state(ioc)
        assert taken == []
        assert len(ioc.run.calls) == calls
        client.put("Center", 7.0)
        assert ioc.value("Center") == 7
    finally:
        client.close()
