"""The PVGroup against db/*.template, the specification, and what the C IOC served."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ca_ioc import MACROS, PREFIX, Ioc
from fake_run import FakeRun
from support.processes import wait_for

from tomostream_ioc.epics.database import RecordDefinition, read_database, read_substitutions
from tomostream_ioc.epics.declare import typed_fields
from tomostream_ioc.epics.group import TomoStreamGroup
from tomostream_ioc.epics.record import Record
from tomostream_ioc.epics.table import as_markdown, as_text, pv_rows
from tomostream_ioc.model.control import RunStatus

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared"
TEMPLATES = sorted((ROOT / "db").glob("*.template"))
ALL_MACROS = {"P": "ref:", "R": "TomoStream:", "CAMERA": "2bmSP2:", **MACROS}

# Where a record differs from what the C IOC served, and why that is meant.
DIFFERS = {
    "DESC": "the C database has none; here every record is described",
    "SSCN": "C serves the illegal index 65535, on which libca clients can abort; here Passive",
    "RTYP": "C calls it writable; it is not, here",
}
# The C IOC had been counting its watchdog down for a while when it was read.
COUNTING = {"VAL", "PVAL", "A", "LA", "LALM", "ALST", "MLST"}


@pytest.fixture
def group() -> TomoStreamGroup:
    return TomoStreamGroup(PREFIX, macros=ALL_MACROS, control=FakeRun())


@pytest.fixture
def definitions() -> dict[str, RecordDefinition]:
    found: dict[str, RecordDefinition] = {}
    for template in TEMPLATES:
        records = read_database(template, ALL_MACROS)
        assert not found.keys() & records.keys(), f"{template} repeats a record"
        found |= records
    return found


def reference() -> dict[str, Any]:
    path = SHARED / "reference" / "c_ioc_static.json"
    if not path.exists():
        pytest.skip(f"{path} is not there: the C reference can't be compared")
    return json.loads(path.read_text())


def given_fields(record: Record) -> dict[str, Any]:
    """The fields of the declaration that are not what the record type has anyway."""
    own = {"NAME", "DESC", "RTYP", "UDF", "STAT", "SEVR"}
    derived = {"INAV", "INBV", "OUTV", "OVAL", "PVAL", "RVAL", "MLST", "ALST", "LALM", "SDEF"}
    return {
        name: value
        for name, value in record.field_values.items()
        if name not in own | derived and value != record.specs[name].default
    }


def linked(fields: dict[str, Any]) -> dict[str, Any]:
    """Links with both modifiers, as a record shows them."""
    shown = dict(fields)
    for name, value in fields.items():
        if name in ("INPA", "INPB", "OUT") and value:
            words = value.split()
            process = "PP" if "PP" in words else "NPP"
            shown[name] = f"{words[0]} {process} NMS"
    return shown


def test_every_record_of_the_templates_is_served_as_it_is_written(
    group: TomoStreamGroup, definitions: dict[str, RecordDefinition]
) -> None:
    assert definitions.keys() == group.pvdb.keys()
    for name, definition in definitions.items():
        record = group.pvdb[name]
        assert isinstance(record, Record)
        fields = dict(definition.fields)
        assert record.rtyp == definition.record_type, name
        assert record.field_values["DESC"] == fields.pop("DESC"), name
        value = fields.pop("VAL", None)
        assert bool(record.field_values["UDF"]) == (value is None), name
        if value is not None:
            assert record.value == record.accept_text(value), name
        declared = given_fields(record)
        written = linked(typed_fields(record.rtyp, fields))
        for field, text in written.items():
            assert record.field_values[field] == text, f"{name}.{field}"
        assert declared.keys() <= written.keys(), f"{name}: not in its template"


def test_the_templates_hold_what_the_specification_says(
    definitions: dict[str, RecordDefinition],
) -> None:
    path = SHARED / "spec" / "tomoStream.template"
    if not path.exists():
        pytest.skip(f"{path} is not there: the specification can't be compared")
    specified = read_database(path, ALL_MACROS)
    ours = read_database(ROOT / "db" / "tomoStream.template", ALL_MACROS)
    assert list(ours) == list(specified)
    for name, definition in specified.items():
        assert ours[name].record_type == definition.record_type
        fields = {key: value for key, value in ours[name].fields.items() if key != "DESC"}
        assert fields == definition.fields, name


def test_every_record_is_described_and_has_its_own_alarm(group: TomoStreamGroup) -> None:
    alarms = {id(record.alarm) for record in group.records.values()}
    assert len(alarms) == len(group.records)
    for name, record in group.records.items():
        assert 3 < len(record.field_values["DESC"]) <= 40, name


def test_the_example_substitutions_load_every_template() -> None:
    loads = read_substitutions(ROOT / "db" / "tomoStream.substitutions")
    assert sorted(Path(load.template) for load in loads) == TEMPLATES
    macros = {name: value for load in loads for name, value in load.macros.items()}
    assert macros["RECON_PVA"] == "2bmb:TomoStream:StreamRecon"
    names = {name for load in loads for name in read_database(load.template, load.macros)}
    group = TomoStreamGroup(macros["P"] + macros["R"], macros=macros, control=FakeRun())
    assert names == group.pvdb.keys()
    for macro in MACROS:
        assert macros[macro] in {record.value for record in group.records.values()}


def test_the_table_has_every_record() -> None:
    rows = {row.name: row for row in pv_rows(PREFIX, ALL_MACROS)}
    assert len(rows) == 130
    center, dezinger = rows[f"{PREFIX}Center"], rows[f"{PREFIX}Dezinger"]
    assert (center.type, center.units, center.initial) == ("ao", "pixel", "0.000")
    assert (dezinger.limits, dezinger.initial) == (
        "None (0), Radius 2 (2), Radius 3 (3), Radius 4 (4)",
        "None",
    )
    assert rows[f"{PREFIX}FramesMissed"].access == "read"
    assert rows[f"{PREFIX}OrthoZ"].limits == "0..2448"
    assert as_text(list(rows.values())).count("\n") == len(rows)
    assert as_markdown(list(rows.values())).count("\n") == len(rows) + 2


def same(left: Any, right: Any) -> bool:
    """Equal, with NaN equal to NaN and the worker's texts of what JSON has not."""
    if isinstance(left, list) or isinstance(right, list):
        return (left or []) == (right or [])
    numbers = [math.nan if v in ("nan", "NaN") else v for v in (left, right)]
    if all(isinstance(number, float) and math.isnan(number) for number in numbers):
        return True
    return numbers[0] == numbers[1]


def test_records_and_fields_are_those_of_the_c_ioc(make_ioc: Callable[..., Ioc]) -> None:
    """Over Channel Access with the real libca, while nothing feeds records or watchdog."""
    expected = reference()
    ioc = make_ioc(_silence)
    client = ioc.client()
    wait_for(lambda: ioc.value("Watchdog") < -1, what="the watchdog's count")
    different: list[str] = []

    def compare(what: str, ours: Any, theirs: Any) -> None:
        if not same(ours, theirs):
            different.append(f"{what}: {ours!r}, in C {theirs!r}")

    for name, record in expected.items():
        value, seen = record["VAL"], client.describe(name)
        for key in ("type", "count", "read", "write", "severity", "status"):
            compare(f"{name} {key}", seen[key], value[key])
        compare(f"{name} epoch", seen["timestamp"] == 631152000.0, value["epoch_ts"])
        if name != "Watchdog":
            compare(f"{name} value", seen["value"], value["value"])
            if value["type"] != "CHAR":
                compare(f"{name} text", client.get_string(name), value["as_string"])
        control = {k: v for k, v in seen["ctrl"].items() if k not in ("status", "severity")}
        for key, limit in value["ctrl"].items():
            if key not in ("status", "severity"):
                compare(f"{name} {key}", control.get(key), limit)

    names = [
        f"{name}.{field}"
        for name, record in expected.items()
        for field, seen in record["fields"].items()
        if seen is not None and not (name == "Watchdog" and field in COUNTING)
    ]
    found = client.bulk(names)
    for full in names:
        name, field = full.split(".")
        theirs, ours = expected[name]["fields"][field], found[PREFIX + full]
        if field.rstrip("$") in DIFFERS:
            continue
        for key in ("type", "count", "write", "value"):
            if key != "value" or not field.endswith("$") or field == "NAME$":
                compare(f"{full} {key}", ours[key], theirs[key])
    assert not different, "\n".join(different)


def _silence(group: TomoStreamGroup) -> None:
    run = group.control
    assert isinstance(run, FakeRun)
    run.alive = False
    run.shown = RunStatus(message="", buffer_size="")
