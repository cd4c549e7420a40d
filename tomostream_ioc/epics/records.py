"""The record types of this product, each as its C record behaves."""

from __future__ import annotations

import math
from typing import Any

from caproto import ChannelType

from tomostream_ioc.epics import wire
from tomostream_ioc.epics.channel import DBE_LOG, DBE_VALUE, VALUE_LOG
from tomostream_ioc.epics.dbd import STATES
from tomostream_ioc.epics.record import Record
from tomostream_ioc.epics.saved_file import array_elements, array_text, escape
from tomostream_ioc.epics.wire import PutError


def _raw_of(value: float) -> int:
    """RVAL of an ao without conversion: the nearest 32-bit integer."""
    rounded = math.floor(value + 0.5) if value >= 0 else math.ceil(value - 0.5)
    return min(max(rounded, wire.INT32_MIN), wire.INT32_MAX)


# status, and the field with its severity: the worst first
_LEVELS = (("HIHI", "HHSV"), ("LOLO", "LLSV"), ("HIGH", "HSV"), ("LOW", "LSV"))


class NumberRecord(Record):
    """A number with limits: display, alarm and drive limits, deadbands, alarm hysteresis."""

    def configure(self) -> None:
        get = self.field_values.get
        alarm_limits = [
            get(name) if self.data_type == ChannelType.LONG or get(severity) else math.nan
            for name, severity in (
                ("HIHI", "HHSV"),
                ("HIGH", "HSV"),
                ("LOW", "LSV"),
                ("LOLO", "LLSV"),
            )
        ]
        low, high = self.control_limits()
        self._data.update(
            units=get("EGU"),
            precision=get("PREC", 0),
            upper_disp_limit=get("HOPR"),
            lower_disp_limit=get("LOPR"),
            upper_alarm_limit=alarm_limits[0],
            upper_warning_limit=alarm_limits[1],
            lower_warning_limit=alarm_limits[2],
            lower_alarm_limit=alarm_limits[3],
            lower_ctrl_limit=low,
            upper_ctrl_limit=high,
        )
        self.text_precision = get("PREC", 0)

    def initial(self) -> dict[str, Any]:
        return dict.fromkeys(("MLST", "ALST", "LALM"), self.value)

    def control_limits(self) -> tuple[float, float]:
        return self.field_values["LOPR"], self.field_values["HOPR"]

    def drive(self, value: Any) -> Any:
        """Clipped to DRVL..DRVH where those are set."""
        low, high = self.field_values["DRVL"], self.field_values["DRVH"]
        return min(max(value, low), high) if high > low else value

    def value_alarm(self) -> tuple[str, int]:
        get, value = self.field_values.__getitem__, self.value
        for status, severity_field in _LEVELS:
            severity = get(severity_field)
            if not severity:
                continue
            limit = get(status)
            # inside the hysteresis an alarm that has come stays
            margin = max(get("HYST"), 0) if get("LALM") == limit else 0
            if value >= limit - margin if status[0] == "H" else value <= limit + margin:
                self.field_values["LALM"] = limit
                return status, severity
        self.field_values["LALM"] = value
        return "NO_ALARM", 0

    def changes(self, old: Any, new: Any) -> int:
        flags = 0
        for last, deadband, flag in (
            ("MLST", "MDEL", DBE_VALUE),
            ("ALST", "ADEL", DBE_LOG),
        ):
            if abs(new - self.field_values[last]) > self.field_values[deadband]:
                self.field_values[last] = new
                flags |= flag
        return flags


class Ao(NumberRecord):
    """Analogue output: a double."""

    rtyp = "ao"
    data_type = ChannelType.DOUBLE
    default_value = 0.0

    def control_limits(self) -> tuple[float, float]:
        return self.field_values["DRVL"], self.field_values["DRVH"]

    def accept(self, value: Any) -> float:
        return self.drive(wire.check_float(value))

    def from_wire(self, data: Any, data_type: ChannelType) -> float:
        return wire.to_float(data, data_type)

    def initial(self) -> dict[str, Any]:
        return {**super().initial(), "OVAL": self.value, "PVAL": self.value}

    def derive(self, old: float, new: float) -> dict[str, Any]:
        return {
            "PVAL": self.field_values["OVAL"],
            "OVAL": new,
            "ORAW": self.field_values["RVAL"],
            "RVAL": _raw_of(new),
        }

    async def process(self) -> None:
        self.field_values["UDF"] = 0  # a C ao that is processed is defined
        await super().process()

    def save_text(self) -> str:
        return f"{self.value:.14g}"

    def accept_text(self, text: str) -> float:
        return self.accept(wire.to_float([text.encode("latin-1", "replace")], ChannelType.STRING))


class Longout(NumberRecord):
    """Integer output, 32 bits; outside HOPR..LOPR is accepted, DRVH..DRVL clips."""

    rtyp = "longout"
    data_type = ChannelType.LONG

    def control_limits(self) -> tuple[float, float]:
        low, high = self.field_values["DRVL"], self.field_values["DRVH"]
        return (low, high) if high > low else super().control_limits()

    def accept(self, value: Any) -> int:
        return self.drive(wire.check_int(value))

    def from_wire(self, data: Any, data_type: ChannelType) -> int:
        return wire.to_int(data, data_type)

    def accept_text(self, text: str) -> int:
        return self.accept(wire.to_int([text.encode("latin-1", "replace")], ChannelType.STRING))


class EnumRecord(Record):
    """A choice: VAL is the index of its string."""

    data_type = ChannelType.ENUM

    @property
    def enum_strings(self) -> tuple[str, ...]:
        return self._data["enum_strings"]

    def string_fields(self) -> tuple[str, ...]:
        return ("ZNAM", "ONAM")

    def configure(self) -> None:
        strings = [self.field_values[name] for name in self.string_fields()]
        while strings and not strings[-1]:
            strings.pop()
        self._data["enum_strings"] = tuple(strings)

    def accept(self, value: Any) -> int:
        return wire.check_enum(value, self.enum_strings)

    def from_wire(self, data: Any, data_type: ChannelType) -> int:
        return wire.to_enum(data, data_type, self.enum_strings)

    def check_field(self, name: str, value: Any) -> None:
        if name in self.string_fields() and self.field_values[name] and not value:
            raise PutError("a choice needs a name")

    def value_alarm(self) -> tuple[str, int]:
        severity = self.field_values[("ZSV", "OSV")[self.value]]
        return ("STATE", severity) if severity else ("NO_ALARM", 0)

    def derive(self, old: int, new: int) -> dict[str, Any]:
        return {"ORAW": self.field_values["RVAL"], "RVAL": float(new), "MLST": new, "LALM": new}

    def accept_text(self, text: str) -> int:
        return self.from_wire([text.encode("latin-1", "replace")], ChannelType.STRING)


class Bo(EnumRecord):
    """Binary output."""

    rtyp = "bo"


class Bi(EnumRecord):
    """Binary input: without hardware it has no raw value."""

    rtyp = "bi"

    def derive(self, old: int, new: int) -> dict[str, Any]:
        return {"MLST": new, "LALM": new}


class Busy(EnumRecord):
    """Binary output of synApps whose put-callback ends when the work has ended."""

    rtyp = "busy"

    def derive(self, old: int, new: int) -> dict[str, Any]:
        return {**super().derive(old, new), "OVAL": new}


class Mbbo(EnumRecord):
    """A choice of up to sixteen; RVAL is the chosen state's xxVL."""

    rtyp = "mbbo"

    def string_fields(self) -> tuple[str, ...]:
        return tuple(f"{state}ST" for state in STATES)

    def configure(self) -> None:
        super().configure()
        self.field_values["SDEF"] = 1

    def state(self, index: int) -> tuple[int, str]:
        """Raw value and string of a choice."""
        return int(self.field_values[f"{STATES[index]}VL"]), self.enum_strings[index]

    def value_alarm(self) -> tuple[str, int]:
        severity = self.field_values[f"{STATES[self.value]}SV"]
        return ("STATE", severity) if severity else ("NO_ALARM", 0)

    def derive(self, old: int, new: int) -> dict[str, Any]:
        return {**super().derive(old, new), "RVAL": float(self.state(new)[0])}


class Stringout(Record):
    """A string of 39 characters."""

    rtyp = "stringout"
    data_type = ChannelType.STRING
    default_value = ""
    long_string_max_length = 40

    def accept(self, value: Any) -> str:
        return wire.check_text(str(value), 40)

    def from_wire(self, data: Any, data_type: ChannelType) -> str:
        return wire.to_text(data, data_type, 40)

    def initial(self) -> dict[str, Any]:
        return {"OVAL": self.value}

    def derive(self, old: str, new: str) -> dict[str, Any]:
        return {"OVAL": new}

    def changes(self, old: str, new: str) -> int:
        flags = super().changes(old, new)
        flags |= DBE_VALUE if self.field_values["MPST"] else 0
        return flags | (DBE_LOG if self.field_values["APST"] else 0)

    def save_text(self) -> str:
        return escape(self.value)

    def accept_text(self, text: str) -> str:
        return self.accept(text)


class Waveform(Record):
    """An array of unsigned characters, served as long text: reads are as long as what was put."""

    rtyp = "waveform"
    data_type = ChannelType.CHAR
    default_value = b""
    capacity = 256

    def preprocess_value(self, value: Any) -> bytes:
        return bytes(value)

    def configure(self) -> None:
        get = self.field_values.get
        self._data.update(
            units=get("EGU"),
            precision=get("PREC"),
            upper_disp_limit=get("HOPR"),
            lower_disp_limit=get("LOPR"),
            upper_ctrl_limit=get("HOPR"),
            lower_ctrl_limit=get("LOPR"),
        )
        self.field_values.update(NELM=float(self.capacity), FTVL=2)

    def accept(self, value: Any) -> bytes:
        if len(value) > self.capacity:
            raise PutError(f"longer than {self.capacity} elements")
        return bytes(value)

    def from_wire(self, data: Any, data_type: ChannelType) -> bytes:
        return wire.to_bytes(data, data_type, self.capacity)

    def derive(self, old: bytes, new: bytes) -> dict[str, Any]:
        return {"NORD": float(len(new))}

    def changes(self, old: bytes, new: bytes) -> int:
        # MPST and APST: Always (the default), whatever the value; On Change compares
        always = (self.field_values["MPST"] == 0, self.field_values["APST"] == 0)
        flags = DBE_VALUE if always[0] or old != new else 0
        return flags | (DBE_LOG if always[1] or old != new else 0)

    @property
    def text(self) -> str:
        """The text up to its NUL."""
        return self.value.partition(b"\0")[0].decode("utf-8", "replace")

    def save_text(self) -> str:
        return array_text(self.value)

    def accept_text(self, text: str) -> bytes:
        words = array_elements(text)
        if words is None:  # C writes an array of one element without braces, an empty one as ''
            words = [text] if text else []
        return self.accept(
            wire.to_bytes([w.encode() for w in words], ChannelType.STRING, self.capacity)
        )


__all__ = ["VALUE_LOG", "Ao", "Bi", "Bo", "Busy", "Longout", "Mbbo", "Stringout", "Waveform"]
