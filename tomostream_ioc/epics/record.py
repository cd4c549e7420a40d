"""A record and its fields: what put and processing do, alarms, monitors, links."""

from __future__ import annotations

import asyncio
import time
from typing import Any, ClassVar

from caproto import (
    AccessRights,
    AlarmSeverity,
    AlarmStatus,
    ChannelAlarm,
    ChannelType,
    TimeStamp,
)
from caproto.server import PVGroup, PvpropertyData

from tomostream_ioc.epics.access import OPEN, AccessSecurity, Grant
from tomostream_ioc.epics.channel import (
    DBE_ALARM,
    DBE_PROPERTY,
    EPICS_EPOCH_S,
    VALUE_LOG,
    Deferred,
    Wire,
)
from tomostream_ioc.epics.dbd import (
    PROCESS_PASSIVE,
    PROPERTIES,
    fields_of,
    menu_strings,
    security_level,
)
from tomostream_ioc.epics.field import Field
from tomostream_ioc.epics.wire import PutError
from tomostream_ioc.model.control import Alarm, Severity

_EPOCH = (0, 0)
_ALARM_STATUSES = menu_strings("menuAlarmStat")


class Record(Wire, PvpropertyData):
    """A record: VAL with its alarm and time stamp, its fields, and what processing does.

    ``fields`` are given by their EPICS names, as in a database file; ``value`` None leaves VAL
    undefined, ``macro`` takes it from the group's macro of that name. ``unit`` is for the table
    of PVs where the contract wants an empty EGU.
    """

    rtyp: ClassVar[str]
    default_value: Any = 0
    security: AccessSecurity = OPEN  # the group sets its own
    capacity: ClassVar[int] = 1

    def __init__(
        self,
        *,
        group,
        pvspec,
        value=None,
        fields_given=None,
        macro=None,
        unit="",
        client_access=AccessRights.READ | AccessRights.WRITE,
        **kwargs,
    ):
        kwargs.pop("record", None)
        kwargs.pop("alarm", None)
        kwargs.pop("max_length", None)
        preset = pvspec.value
        if macro is not None:
            preset = group.macros.get(macro)
        udf = preset is None
        self.specs = fields_of(self.rtyp)
        self.field_values: dict[str, Any] = {s.name: s.default for s in self.specs.values()}
        self._ioc: PVGroup = group
        self.unit = unit
        self._client_access = client_access
        self._pact = False
        self._outside: Alarm | None = None
        self._failure: tuple[str, int] | None = None  # of the last processing
        # STAT is UDF until first processed, also where the database gives VAL, as in C
        self._own_alarm = ChannelAlarm(
            status=AlarmStatus.UDF,
            severity=AlarmSeverity.INVALID_ALARM if udf else AlarmSeverity.NO_ALARM,
        )
        super().__init__(
            group=group,
            pvspec=pvspec,
            value=self.default_value if udf else preset,
            alarm=self._own_alarm,
            timestamp=_EPOCH,
            max_length=self.capacity,
            **kwargs,
        )
        self.reported_record_type = self.rtyp
        self.fields = {}
        self.field_values.update(
            NAME=self.pvname,
            DESC=pvspec.doc,
            RTYP=self.rtyp,
            UDF=int(udf),
            STAT=int(AlarmStatus.UDF),
            SEVR=int(self._own_alarm.severity),
            **{name: self._expanded(text) for name, text in (fields_given or {}).items()},
        )
        self.configure()
        if not udf:
            self._data["value"] = self.accept(preset)
        self.field_values.update(self.initial())

    def _expanded(self, value: Any) -> Any:
        """A field of the declaration, with the prefix of the records in it."""
        return value.replace("$(P)$(R)", self._ioc.prefix) if isinstance(value, str) else value

    @property
    def client_rights(self) -> AccessRights:
        return self._client_access

    def grant(self, address: str, user: str) -> Grant:
        return self.grant_of("VAL", address, user)

    def grant_of(self, field: str, address: str, user: str) -> Grant:
        """What access security gives to a client of a field; the group is that of ASG."""
        level = security_level(self.rtyp, field)
        return self.security.grant(self.field_values["ASG"], level, address, user)

    @property
    def is_writable(self) -> bool:
        """True for what users set, False for what only shows a state."""
        return AccessRights.WRITE in self._client_access

    # --- what the types say ---------------------------------------------------------------

    def configure(self) -> None:
        """Take over the fields that are metadata of VAL; called again when one has changed."""

    def accept(self, value: Any) -> Any:
        """The value as it is stored; raises PutError for what must not be."""
        raise NotImplementedError

    def from_wire(self, data: Any, data_type: ChannelType) -> Any:
        raise NotImplementedError

    def derive(self, old: Any, new: Any) -> dict[str, Any]:
        """Fields that follow from VAL (RVAL, OVAL, NORD ...); posted where changed."""
        return {}

    def initial(self) -> dict[str, Any]:
        """Fields that a record sets from VAL when it is initialised, before any processing."""
        return {}

    def connect(self) -> None:
        """Called when all records are there: links can be resolved."""

    def value_alarm(self) -> tuple[str, int]:
        """Status and severity that follow from VAL alone."""
        return "NO_ALARM", 0

    def changes(self, old: Any, new: Any) -> int:
        """Which monitors a new value is posted to."""
        return VALUE_LOG if old != new else 0

    def save_text(self) -> str:
        """VAL as autosave writes it."""
        return str(self.value)

    def accept_text(self, text: str) -> Any:
        """VAL from what autosave wrote; raises PutError."""
        raise NotImplementedError

    # --- fields ---------------------------------------------------------------------------

    def field(self, name: str) -> Any:
        return self.value if name == "VAL" else self.field_values[name]

    def get_field(self, field: str) -> Wire:
        if not field or field == "VAL":
            return self
        known = self.fields.get(field)
        if not isinstance(known, Field):
            known = self.fields[field] = Field(self, self.specs[field])
        return known

    async def set_field(self, name: str, value: Any, *, always: bool = False) -> None:
        """Store a field and post it where it changed."""
        if not always and self.field_values[name] == value:
            return
        self.field_values[name] = value
        field = self.fields.get(name)
        if isinstance(field, Field):
            await field.show(value)

    async def put_field(self, name: str, value: Any) -> None:
        """A put of a checked value to a field, with what follows from it."""
        if name == "PROC":
            await self.process()
            return
        self.check_field(name, value)
        await self.set_field(name, value, always=True)
        if name in PROPERTIES:
            self.configure()
            await self.publish(DBE_PROPERTY)
        elif name == "DESC":
            for observer in self.observers:  # PVA shows it beside the value, CA does not
                observer(DBE_PROPERTY)
        if name in PROCESS_PASSIVE and self.field_values["SCAN"] == 0:
            await self.process()

    def check_field(self, name: str, value: Any) -> None:
        """Raises PutError for a field value that this record can't live with."""

    # --- values ---------------------------------------------------------------------------

    async def client_put(self, data: Any, data_type: ChannelType) -> asyncio.Future[None] | None:
        if self.field_values["DISP"]:
            raise PutError("puts are disabled (DISP)")
        return await self.put(self.from_wire(data, data_type))

    async def put(self, value: Any) -> asyncio.Future[None] | None:
        """Store a value as if a client had put it, asking the group's putter first."""
        value = self.accept(value)
        outcome = await self.putter(self, value) if self.putter is not None else None
        if isinstance(outcome, Deferred):
            await self.store(self.accept(outcome.value))
            return outcome.done
        await self.store(value)
        return None

    async def write(self, value, *, flags=0, verify_value=True, update_fields=True, **metadata):
        """Store a value of the server's own: no putter is asked. Raises PutError."""
        await self.store(self.accept(value))

    async def store(self, value: Any) -> None:
        """Set VAL and process, as a put to a passive record does."""
        old, self._data["value"] = self.value, value
        self.field_values["UDF"] = 0
        await self._finish(old)

    async def process(self) -> None:
        """Process with the value that is there."""
        await self._finish(self.value)

    async def _finish(self, old: Any) -> None:
        """Time stamp, derived fields, alarms, monitors, forward link."""
        new = self.value
        await self.set_field("UDF", self.field_values["UDF"])
        self._stamp()
        derived = self.derive(old, new)
        flags = self.changes(old, new) | await self.update_alarm()
        if flags:
            await self.publish(flags)
        for name, value in derived.items():
            await self.set_field(name, value)
        await self._forward()

    def _stamp(self) -> None:
        now = divmod(time.time_ns() - EPICS_EPOCH_S * 10**9, 10**9)
        self._data["timestamp"] = TimeStamp(*now)

    async def _forward(self) -> None:
        target = self.linked(self.field_values["FLNK"])
        if target is None or self._pact:
            return
        self._pact = True
        try:
            await target[0].process()
        finally:
            self._pact = False

    def linked(self, link: str) -> tuple[Record, str] | None:
        """The record of this group, and its field, that a link names."""
        name, _, field = (link.split() or [""])[0].partition(".")
        record = self._ioc.pvdb.get(name) if name else None
        if not isinstance(record, Record) or (field or "VAL") not in {"VAL", *record.specs}:
            return None
        return record, field or "VAL"

    # --- alarms ---------------------------------------------------------------------------

    async def set_alarm(self, alarm: Alarm | None) -> None:
        """An alarm from outside (the run's), beside those that follow from the value."""
        if alarm == self._outside:
            return
        self._outside = alarm
        if flags := await self.update_alarm():
            await self.publish(flags)

    async def update_alarm(self) -> int:
        """Work out STAT, SEVR and AMSG, the worst first; DBE_ALARM if they changed, else 0."""
        candidates = [(*self.value_alarm(), "")]
        if self.field_values["UDF"]:
            candidates.insert(0, ("UDF", self.field_values["UDFS"], ""))
        if self._failure is not None:
            candidates.insert(0, (*self._failure, ""))
        if self._outside is not None:
            status = self._outside.status
            known = status if status in _ALARM_STATUSES else "SOFT"
            candidates.append((known, int(self._outside.severity), self._outside.message))
        status, severity, message = max(candidates, key=lambda candidate: candidate[1])
        if severity == Severity.NO_ALARM:
            status = "NO_ALARM"
        stat = _ALARM_STATUSES.index(status)
        told_anew = self.field_values["AMSG"] != message[:39]
        await self.set_field("AMSG", message[:39])
        if (stat, severity) == (int(self._own_alarm.status), int(self._own_alarm.severity)):
            return DBE_ALARM if told_anew else 0
        await self._own_alarm.write(status=stat, severity=severity, publish=False)
        await self.set_field("STAT", stat)
        await self.set_field("SEVR", severity)
        await self.set_field("ACKS", int(self._own_alarm.severity_to_acknowledge))
        return DBE_ALARM

    # --- autosave -------------------------------------------------------------------------

    def restore(self, value: Any) -> None:
        """Set VAL before the server runs: defined, not processed, nothing posted."""
        self._data["value"] = self.accept(value)
        self.field_values["UDF"] = self.field_values["SEVR"] = 0
        self._own_alarm._data["severity"] = AlarmSeverity.NO_ALARM
        self.field_values.update(self.initial())

    def restore_field(self, name: str, value: Any) -> None:
        """Set a field before the server runs; raises PutError."""
        self.check_field(name, value)
        self.field_values[name] = value
        self.configure()
