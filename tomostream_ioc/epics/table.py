"""The table of PVs: what --list-pvs prints and what the README shows, from the PVGroup itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields

from caproto import AccessRights

from tomostream_ioc.epics.dbd import STATES
from tomostream_ioc.epics.operation_records import IocRecords
from tomostream_ioc.epics.record import Record
from tomostream_ioc.epics.records import Waveform
from tomostream_ioc.epics.wire import double_to_string


@dataclass(frozen=True, slots=True)
class PvRow:
    """One record as a user sees it."""

    name: str
    type: str
    access: str
    units: str
    limits: str  # limits of a number, choices of an enum, longest text
    initial: str
    description: str


def pv_rows(prefix: str = "$(P)$(R)", macros: dict[str, str] | None = None) -> list[PvRow]:
    """Every record, in the order of its declaration; initial texts as the macros say."""
    named = {name: f"$({name})" for name in _macro_names()} if macros is None else macros
    records = IocRecords(prefix, macros=named)
    return [_row(record) for record in records.pvdb.values() if isinstance(record, Record)]


def _macro_names() -> list[str]:
    given = (prop.pvspec.cls_kwargs for prop in IocRecords._pvs_.values())
    return [kwargs["macro"] for kwargs in given if kwargs.get("macro")]


def _row(record: Record) -> PvRow:
    writable = AccessRights.WRITE in record.check_access(None, None)
    return PvRow(
        name=record.pvname,
        type=record.rtyp,
        access="read/write" if writable else "read",
        units=record.unit or record.field_values.get("EGU", ""),
        limits=_limits(record),
        initial=_initial(record),
        description=str(record.field_values["DESC"]),
    )


def _limits(record: Record) -> str:
    fields_ = record.field_values
    strings = record._data.get("enum_strings")
    if strings is not None:
        raws = [int(fields_.get(f"{state}VL", 0)) for state in STATES[: len(strings)]]
        shows_raw = record.rtyp == "mbbo" and raws != list(range(len(strings)))
        return ", ".join(
            f"{text} ({raw})" if shows_raw else text
            for text, raw in zip(strings, raws, strict=True)
        )
    if record.rtyp == "stringout":
        return "39 characters"
    if record.rtyp == "waveform":
        return f"{record.capacity} bytes"
    low, high = fields_["LOPR"], fields_["HOPR"]
    return f"{low:g}..{high:g}" if low != high else ""


def _initial(record: Record) -> str:
    strings = record._data.get("enum_strings")
    if strings is not None:
        return strings[record.value]
    if isinstance(record.value, float):
        return double_to_string(record.value, record.text_precision)
    return record.text if isinstance(record, Waveform) else str(record.value)


def as_text(rows: Sequence[PvRow]) -> str:
    """Aligned columns for a terminal."""
    table = [[field.name for field in fields(PvRow)], *(list(astuple(row)) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in table
    )


def as_markdown(rows: Sequence[PvRow]) -> str:
    """A Markdown table."""
    head = [field.name for field in fields(PvRow)]
    lines = [head, ["---"] * len(head), *(list(astuple(row)) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
