"""Records and fields as the normative types in which QSRV of a C IOC shows them over PVA."""

from __future__ import annotations

import struct
from functools import cache
from typing import Any

import numpy as np
from caproto import ChannelType
from p4p import Type, Value
from p4p.nt.common import alarm, timeStamp

from tomostream_ioc.epics.channel import (
    DBE_ALARM,
    DBE_LOG,
    DBE_PROPERTY,
    DBE_VALUE,
    EPICS_EPOCH_S,
    Wire,
)
from tomostream_ioc.epics.dbd import menu_strings
from tomostream_ioc.epics.record import Record
from tomostream_ioc.epics.wire import PutError

#: all that a client sees when it connects
WHOLE = DBE_VALUE | DBE_LOG | DBE_ALARM | DBE_PROPERTY

_STAMP = struct.Struct(">II")
_FORMS = ["Default", "String", "Binary", "Decimal", "Hex", "Exponential", "Engineering"]
_ENUM, _STRING, _LONG_TEXT, _BYTES = "enum", "s", "ab", "aB"
# kind of a field in the tables of dbd.py -> p4p's code; VAL has the kinds of its CA type
_CODES = {"d": "d", "l": "i", "u": "I", "h": "h", "c": "B", "e": _ENUM, "S": _STRING, "L": _STRING}
_VALUE_CODES = {
    ChannelType.DOUBLE: "d",
    ChannelType.LONG: "i",
    ChannelType.ENUM: _ENUM,
    ChannelType.STRING: _STRING,
    ChannelType.CHAR: _BYTES,
}
# what CA would send for a number of this code
_WIRE_TYPES = {"i": ChannelType.LONG, "h": ChannelType.LONG, "B": ChannelType.LONG}

# EPICS alarm status names -> alarm_t.status, as QSRV maps them: device, driver, record, database
_DEVICE = ("READ", "WRITE", "HIHI", "HIGH", "LOLO", "LOW", "STATE", "COS", "HWLIMIT")
_ALARM_STATUS = {
    **dict.fromkeys(_DEVICE, 1),
    **dict.fromkeys(("COMM", "TIMEOUT", "UDF"), 2),
    **dict.fromkeys(("CALC", "SCAN", "LINK", "SOFT", "BAD_SUB"), 3),
    **dict.fromkeys(("DISABLE", "SIMM", "READ_ACCESS", "WRITE_ACCESS"), 4),
}
_STATUS_NAMES = menu_strings("menuAlarmStat")


class Layout:
    """The structure of one channel, and what of it is sent when something has changed.

    ``name`` is a field of the record, VAL for its value, with a ``$`` a string as an array of
    characters. To be used on the event loop of the records. Raises KeyError: no such field.
    """

    def __init__(self, record: Record, name: str):
        self._record = record
        field = name.removesuffix("$")
        self.channel: Wire = record if field == "VAL" else record.get_field(field)
        self._code = code_of(record, name)
        # as in C: a field has the units of VAL where it is of the same type
        self._has_units = field == "VAL" or (
            self._code in "di" and self.channel.data_type == record.data_type
        )
        self.type = _type(self._code)

    def update(self, flags: int) -> Value:
        """What a publication with these flags (DBE_*) changes."""
        value = Value(self.type)
        if flags & ~DBE_PROPERTY:
            value["value.index" if self._code == _ENUM else "value"] = self._value()
            self._stamp(value)
        if flags & DBE_ALARM:
            value["alarm"] = self._alarm()
        if flags & DBE_PROPERTY:
            for name, content in self._properties().items():
                value[name] = content
            if self._code == _ENUM:
                value["value.choices"] = list(self.channel._data["enum_strings"])
        if flags == WHOLE and value.has("display.form"):
            value["display.form"] = {"index": 0, "choices": _FORMS}
        return value

    def put_data(self, sent: Value) -> tuple[Any, ChannelType]:
        """The value that a client sent, as it would have come over CA; raises PutError."""
        name = "value.index" if self._code == _ENUM else "value"
        if not sent.changed(name):
            raise PutError("only the value can be put")
        value = sent[name]
        if self._code in (_BYTES, _LONG_TEXT):
            return np.asarray(value).view(np.uint8), ChannelType.CHAR
        if self._code == _STRING:
            return [value.encode()], ChannelType.STRING
        return (value,), _WIRE_TYPES.get(self._code, ChannelType.DOUBLE)

    def _value(self) -> Any:
        value = self.channel.value
        match self._code:
            case "s":
                return _text(value)
            case "ab":
                return np.frombuffer(value.encode("latin-1") + b"\0", np.int8)
            case "aB":
                return np.frombuffer(value, np.uint8)
            case "d":
                return float(value)
            case _:
                return int(value)

    def _stamp(self, value: Value) -> None:
        seconds, nanoseconds = _STAMP.unpack(self._record.stamp_bytes)
        value["timeStamp.secondsPastEpoch"] = seconds + EPICS_EPOCH_S
        value["timeStamp.nanoseconds"] = nanoseconds
        value["timeStamp.userTag"] = 0

    def _alarm(self) -> dict[str, Any]:
        status = _STATUS_NAMES[int(self._record.status)]
        message = self._record.field("AMSG") or ("" if status == "NO_ALARM" else status)
        return {
            "severity": int(self._record.severity),
            "status": _ALARM_STATUS.get(status, 0),
            "message": _text(message),
        }

    def _properties(self) -> dict[str, Any]:
        display: dict[str, Any] = {"description": _text(self._record.field("DESC"))}
        content: dict[str, Any] = {"display": display}
        if self._code == _ENUM:
            return content
        own = self.channel is self._record
        display["units"] = (
            _text(self._record.field_values.get("EGU", "")) if self._has_units else ""
        )
        if self._code == "d":
            display["precision"] = self._record.field_values.get("PREC", 0)
        if self._code == _STRING or not own:
            return content
        get = self.channel._data.get
        display["limitLow"] = self._number(get("lower_disp_limit", 0))
        display["limitHigh"] = self._number(get("upper_disp_limit", 0))
        content["control"] = {
            "limitLow": self._number(get("lower_ctrl_limit", 0)),
            "limitHigh": self._number(get("upper_ctrl_limit", 0)),
        }
        if self._code != _BYTES:
            content["valueAlarm"] = {
                "lowAlarmLimit": self._number(get("lower_alarm_limit", 0)),
                "lowWarningLimit": self._number(get("lower_warning_limit", 0)),
                "highWarningLimit": self._number(get("upper_warning_limit", 0)),
                "highAlarmLimit": self._number(get("upper_alarm_limit", 0)),
            }
        return content

    def _number(self, limit: float) -> float | int:
        return limit if self._code == "d" else int(limit)


def code_of(record: Record, name: str) -> str:
    """p4p's code of VAL or of a field; raises KeyError where there is no such channel."""
    field, long_text = name.removesuffix("$"), name.endswith("$")
    if field == "VAL":
        code = _VALUE_CODES[record.data_type]
    else:
        spec = record.specs[field]
        code = _CODES[spec.kind]
        if long_text and spec.kind == "L":
            return code  # a link is a string with and without
    if long_text:
        if code != _STRING:
            raise KeyError(name)
        return _LONG_TEXT
    return code


def _text(value: str) -> str:
    """A string of the record: bytes to CA, UTF-8 to PVA, as in C, where clients sent that."""
    raw = value.encode("latin-1", "replace")
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return value


@cache
def _type(code: str) -> Type:
    number = code[-1]
    choices = ("S", "enum_t", [("index", "i"), ("choices", "as")])
    parts: list[tuple[str, Any]] = [
        ("value", choices if code == _ENUM else code),
        ("alarm", alarm),
        ("timeStamp", timeStamp),
    ]
    if code == _ENUM:
        parts.append(("display", ("S", None, [("description", "s")])))
        return Type(parts, id="epics:nt/NTEnum:1.0")
    if code == _STRING:
        parts.append(("display", ("S", None, [("description", "s"), ("units", "s")])))
        return Type(parts, id="epics:nt/NTScalar:1.0")
    limits = [("limitLow", number), ("limitHigh", number)]
    display = [("description", "s"), ("units", "s"), ("precision", "i"), ("form", choices)]
    levels = ("lowAlarm", "lowWarning", "highWarning", "highAlarm")
    value_alarm = [
        ("active", "?"),
        *((f"{level}Limit", number) for level in levels),
        *((f"{level}Severity", "i") for level in levels),
        ("hysteresis", "d"),
    ]
    parts += [
        ("display", ("S", None, [*limits, *display])),
        ("control", ("S", None, [*limits, ("minStep", number)])),
        ("valueAlarm", ("S", None, value_alarm)),
    ]
    array = "Array" if code.startswith("a") else ""
    return Type(parts, id=f"epics:nt/NTScalar{array}:1.0")
