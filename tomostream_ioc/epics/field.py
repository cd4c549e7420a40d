"""One field of a record, as a channel of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from caproto import AccessRights, ChannelType

from tomostream_ioc.epics import wire
from tomostream_ioc.epics.access import Grant
from tomostream_ioc.epics.channel import VALUE_LOG, Wire
from tomostream_ioc.epics.dbd import PROCESS_PASSIVE, FieldSpec
from tomostream_ioc.epics.wire import PutError

if TYPE_CHECKING:
    from tomostream_ioc.epics.record import Record


class Field(Wire):
    """One field of a record, made when a client first asks for it."""

    def __init__(self, record: Record, spec: FieldSpec):
        self.data_type = spec.data_type
        self.record, self.spec = record, spec
        super().__init__(
            value=record.field(spec.name),
            alarm=record.alarm,
            timestamp=(0, 0),
            max_length=1,
            reported_record_type=record.rtyp,
        )
        if spec.kind == "e":
            self._data["enum_strings"] = spec.menu

    @property
    def processes_when_put(self) -> bool:  # type: ignore[override]
        passive = self.record.field_values["SCAN"] == 0
        return self.spec.name == "PROC" or (passive and self.spec.name in PROCESS_PASSIVE)

    @property
    def text_precision(self) -> int:  # type: ignore[override]
        if self.spec.kind == "u":
            return 0
        precision = self.record.field_values.get("PREC", 0)
        own = self.spec.name in ("VAL", "OVAL", "PVAL")
        return precision if own or 0 < precision <= 15 else 15

    @property
    def long_string_max_length(self) -> int:
        return self.spec.size

    @property
    def epics_timestamp(self):
        return self.record.epics_timestamp

    @property
    def stamp_bytes(self) -> bytes:
        return self.record.stamp_bytes

    @property
    def client_rights(self) -> AccessRights:
        return AccessRights.READ if self.spec.read_only else self.record.client_rights

    def grant(self, address: str, user: str) -> Grant:
        return self.record.grant_of(self.spec.name, address, user)

    async def client_put(self, data: Any, data_type: ChannelType) -> None:
        if self.record.field("DISP") and self.spec.name != "DISP":
            raise PutError("puts are disabled (DISP)")
        await self.record.put_field(self.spec.name, self._from_wire(data, data_type))

    def _from_wire(self, data: Any, data_type: ChannelType) -> Any:
        match self.spec.kind:
            case "d":
                return wire.to_float(data, data_type)
            case "u":
                return float(wire.to_int(data, data_type, 0, 2**32 - 1))
            case "l":
                return wire.to_int(data, data_type)
            case "h":
                return wire.to_int(data, data_type, -(2**15), 2**15 - 1)
            case "c":
                return wire.to_int(data, data_type, 0, 255)
            case "e":
                return wire.to_enum(data, data_type, self.spec.menu)
            case _:
                return wire.to_text(data, data_type, self.spec.size)

    async def show(self, value: Any) -> None:
        """Take over and post a new value of the record's."""
        self._data["value"] = value
        await self.publish(VALUE_LOG)
