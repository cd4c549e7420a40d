"""The calcout record: reads its inputs, calculates, and writes its output link."""

from __future__ import annotations

import math
from typing import Any

from caproto import ChannelType

from tomostream_ioc.epics import wire
from tomostream_ioc.epics.calc import CalcError, Calculation
from tomostream_ioc.epics.channel import VALUE_LOG
from tomostream_ioc.epics.dbd import ARGUMENTS
from tomostream_ioc.epics.records import NumberRecord
from tomostream_ioc.epics.wire import PutError

_LOCAL, _NOT_CONNECTED, _CONSTANT = 2, 0, 3  # INAV, OUTV


def _with_modifiers(link: str) -> str:
    """A link as C shows it: the record's name and both modifiers; a constant stays."""
    words = link.split()
    if not words or _is_constant(link):
        return link.strip()
    process = next((w for w in words[1:] if w in ("PP", "NPP", "CP", "CPP", "CA")), "NPP")
    severity = next((w for w in words[1:] if w in ("MS", "NMS", "MSI", "MSS")), "NMS")
    return f"{words[0]} {process} {severity}"


def _is_constant(link: str) -> bool:
    try:
        float(link)
    except ValueError:
        return False
    return True


class Calcout(NumberRecord):
    """Calculation with output. A put to VAL sets and posts it; PROC, SCAN and A..L calculate."""

    rtyp = "calcout"
    data_type = ChannelType.DOUBLE
    default_value = 0.0
    processes_when_put = False

    def __init__(self, **kwargs):
        self._calculations: dict[str, Calculation | None] = {}
        super().__init__(**kwargs)

    def configure(self) -> None:
        super().configure()
        for name in (*(f"INP{a}" for a in ARGUMENTS), "OUT"):
            self.field_values[name] = _with_modifiers(self.field_values[name])
        for name in ("CALC", "OCAL"):
            self._compile(name)

    def initial(self) -> dict[str, Any]:
        return {**super().initial(), "PVAL": self.value}

    def connect(self) -> None:
        for name, flag in (*((f"INP{a}", f"IN{a}V") for a in ARGUMENTS), ("OUT", "OUTV")):
            link = self.field_values[name]
            if not link or _is_constant(link):
                self.field_values[flag] = _CONSTANT
            else:
                self.field_values[flag] = _LOCAL if self.linked(link) else _NOT_CONNECTED

    def _compile(self, name: str) -> None:
        try:
            self._calculations[name] = Calculation(self.field_values[name])
        except CalcError:
            self._calculations[name] = None

    def drive(self, value: Any) -> Any:
        return value

    def accept(self, value: Any) -> float:
        return wire.check_float(value)

    def from_wire(self, data: Any, data_type: ChannelType) -> float:
        return wire.to_float(data, data_type)

    def save_text(self) -> str:
        return f"{self.value:.14g}"

    def accept_text(self, text: str) -> float:
        return self.accept(wire.to_float([text.encode("latin-1", "replace")], ChannelType.STRING))

    @property
    def scan_period_s(self) -> float | None:
        """Seconds between scans, or None where SCAN is not periodic."""
        text = self.specs["SCAN"].menu[self.field_values["SCAN"]]
        return float(text.split()[0]) if text.endswith("second") else None

    async def put(self, value: Any) -> None:
        """Set and post VAL; nothing is calculated, no alarm and no time stamp changes."""
        self._data["value"] = self.accept(value)
        await self.set_field("UDF", 0)
        await self.publish(VALUE_LOG)

    async def put_field(self, name: str, value: Any) -> None:
        if name in ("CALC", "OCAL"):
            self.field_values[name] = value
            self._compile(name)
            failed = self._calculations[name] is None
            await self.set_field("CLCV" if name == "CALC" else "OCLV", -1 if failed else 0)
        await super().put_field(name, value)
        if name.startswith("INP") or name == "OUT":
            self.configure()
            self.connect()
            if _is_constant(value) and name != "OUT":
                await self.set_field(name[3:], float(value))

    async def process(self) -> None:
        if self._pact:
            return
        self._pact = True
        try:
            old = self.value
            self._failure = None
            await self._fetch()
            await self._calculate()
            if self._failure is None and self._is_output_due():
                await self._output()
        finally:
            self._pact = False
        await self.set_field("PVAL", self.value)
        await self._finish(old)

    async def _fetch(self) -> None:
        for argument in ARGUMENTS:
            target = self.linked(self.field_values[f"INP{argument}"])
            if target is None:
                continue
            value = target[0].field(target[1])
            if isinstance(value, (int, float)):
                await self.set_field(argument, float(value))
                await self.set_field(f"L{argument}", float(value))
            else:
                self._failure = ("LINK", 3)

    def _arguments(self) -> dict[str, float]:
        return {**{a: self.field_values[a] for a in ARGUMENTS}, "VAL": self.value}

    def _evaluate(self, name: str) -> float | None:
        calculation = self._calculations[name]
        try:
            value = calculation(self._arguments()) if calculation is not None else math.nan
        except CalcError:
            value = math.nan
        if math.isfinite(value):
            return value
        self._failure = ("CALC", 3)
        return None

    async def _calculate(self) -> None:
        value = self._evaluate("CALC")
        if value is not None:
            self._data["value"] = value
            self.field_values["UDF"] = 0

    def _is_output_due(self) -> bool:
        last, now = self.field_values["PVAL"], self.value
        due = (
            True,
            abs(last - now) > self.field_values["MDEL"],
            now == 0,
            now != 0,
            last != 0 and now == 0,
            last == 0 and now != 0,
        )
        return due[self.field_values["OOPT"]]

    async def _output(self) -> None:
        """Write OVAL to OUT; a value that the target refuses is a LINK alarm here."""
        value = self._evaluate("OCAL") if self.field_values["DOPT"] else self.value
        if value is None:
            return
        await self.set_field("POVL", self.field_values["OVAL"])
        await self.set_field("OVAL", value)
        target = self.linked(self.field_values["OUT"])
        if target is None:
            return
        record, field = target
        try:
            if field == "VAL":
                await record.put(value)
            else:
                await record.put_field(field, value)
        except PutError:
            self._failure = ("LINK", 3)
