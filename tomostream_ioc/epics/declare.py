"""How a record is declared in the PVGroup: by its EPICS names, as in a database file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar, cast

from caproto import AccessRights
from caproto.server import pvproperty

from tomostream_ioc.epics.dbd import STATES, fields_of
from tomostream_ioc.epics.record import Record

RecordT = TypeVar("RecordT", bound=Record)


def declare(
    record: type[RecordT],
    name: str,
    description: str,
    *,
    value: Any = None,
    macro: str | None = None,
    unit: str = "",
    read_only: bool = False,
    states: Sequence[tuple[int, str]] = (),
    **fields: Any,
) -> pvproperty[RecordT, Any]:
    """A record of the PVGroup.

    ``fields`` are EPICS fields by name, menus by their strings; ``states`` the raw value and the
    string of each choice of an mbbo. ``unit`` is what the table of PVs shows where EGU is empty.
    """
    for state, (raw, text) in zip(STATES, states, strict=False):
        fields |= {f"{state}VL": float(raw), f"{state}ST": text}
    return pvproperty(
        name=name,
        doc=description,
        dtype=cast(Any, record),
        value=value,
        alarm_group=name,  # one rejected put must not set alarms on other records
        fields_given=typed_fields(record.rtyp, fields),
        macro=macro,
        unit=unit or fields.get("EGU", ""),
        client_access=AccessRights.READ if read_only else AccessRights.READ | AccessRights.WRITE,
    )


def typed_fields(record_type: str, fields: dict[str, Any]) -> dict[str, Any]:
    """Field values as they are served, from what a declaration or a database file says.

    Raises KeyError or ValueError: no such field, or not a value for it.
    """
    specs = fields_of(record_type)
    typed: dict[str, Any] = {}
    for name, value in fields.items():
        spec = specs[name]
        if spec.kind == "e":
            typed[name] = spec.menu.index(value)
        elif spec.kind in "du":
            typed[name] = float(value)
        elif spec.kind in "lhc":
            typed[name] = int(value)
        else:
            typed[name] = str(value)
    return typed
