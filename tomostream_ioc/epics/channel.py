"""What every channel has, record or field: reading, posting and protected writing."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from caproto import (
    DBR_TYPES,
    AccessRights,
    CaprotoError,
    CAStatus,
    ChannelData,
    ChannelType,
    SubscriptionType,
    native_type,
    native_types,
)
from caproto._backend import backend
from caproto._constants import MAX_ENUM_STATES
from caproto._dbr import _LongStringChannelType, native_float_types
from caproto._utils import ConversionDirection

from tomostream_ioc.epics import wire
from tomostream_ioc.epics.access import Grant, Right
from tomostream_ioc.epics.wire import PutError

EPICS_EPOCH_S = 631_152_000  # 1990 as POSIX time
#: what monitors follow, as plain numbers: to combine two of Python's flags takes microseconds
DBE_VALUE = int(SubscriptionType.DBE_VALUE)
DBE_LOG = int(SubscriptionType.DBE_LOG)
DBE_ALARM = int(SubscriptionType.DBE_ALARM)
DBE_PROPERTY = int(SubscriptionType.DBE_PROPERTY)
VALUE_LOG = DBE_VALUE | DBE_LOG
_LIMIT_KEYS = tuple(
    f"{side}_{kind}_limit"
    for side in ("upper", "lower")
    for kind in ("disp", "alarm", "warning", "ctrl")
)
_RIGHTS = {
    Right.NONE: AccessRights.NO_ACCESS,
    Right.READ: AccessRights.READ,
    Right.WRITE: AccessRights.READ | AccessRights.WRITE,
}


@dataclass(frozen=True, slots=True)
class Deferred:
    """What a putter returns when the put ends later, or stores something else.

    ``value`` is stored at once instead of what was put; put-callbacks complete with ``done``.
    """

    value: Any
    done: asyncio.Future[None] | None = None


class Wire(ChannelData):
    """What record values and fields share: how they are read, posted and protected."""

    _data: dict[str, Any]
    text_precision: int = 0
    _posting: int = 0
    #: a put has effects beyond the value that is stored: it processes the record
    processes_when_put: bool = True

    def __init__(self, **kwargs):
        #: told of each publication, with its flags (DBE_*): the channels over PVA
        self.observers: list[Callable[[int], None]] = []
        super().__init__(**kwargs)

    @property
    def client_rights(self) -> AccessRights:
        """What a client that may do everything can do with it."""
        raise NotImplementedError

    def grant(self, address: str, user: str) -> Grant:
        """What access security gives to a client, see access.py."""
        raise NotImplementedError

    @property
    def choices(self) -> Sequence[str]:
        """The strings of an enum."""
        return self._data.get("enum_strings", ())

    @property
    def stamp_bytes(self) -> bytes:
        """The time stamp as it is sent: seconds and nanoseconds since 1990, big-endian."""
        return bytes(self._data["timestamp"])

    def may_read(self, address: str, user: str) -> bool:
        """Whether a client may; see ``grant``."""
        return self.grant(address, user).right >= Right.READ

    def check_access(self, hostname, username):
        """Rights of a client. ``hostname`` is its address: see IocCircuit and plain_address."""
        return _RIGHTS[self.grant(hostname or "", username or "").right] & self.client_rights

    async def client_put(self, data: Any, data_type: ChannelType) -> asyncio.Future[None] | None:
        """Store what a client sent; the future, if any, is done when the put has ended.

        Raises PutError with a short reason; nothing has changed then.
        """
        raise NotImplementedError

    async def auth_write(
        self, hostname, username, data, data_type, metadata, *, flags=0, user_address=None
    ):
        """A put by way of caproto's own circuit: waits for the end of it."""
        done = await self.authorised_put(hostname, username, data, data_type, metadata)
        if done is not None:
            await asyncio.shield(done)

    async def authorised_put(self, hostname, username, data, data_type, metadata):
        """Like client_put, after the check of access; handles alarm acknowledgement too."""
        if AccessRights.WRITE not in self.check_access(hostname, username):
            raise PutError("not writable", CAStatus.ECA_NOWTACCESS)
        if data_type in (ChannelType.PUT_ACKS, ChannelType.PUT_ACKT):
            await self.write_from_dbr(data, data_type, metadata)
            return None
        if data_type in (ChannelType.STSACK_STRING, ChannelType.CLASS_NAME):
            raise PutError("not a type to write")
        return await self.client_put(data, data_type)

    async def publish(self, flags: int) -> None:
        """Send to the monitors whose mask has one of ``flags`` (caproto sends to all)."""
        for observer in self.observers:
            observer(flags)
        self._content.clear()
        self._posting = flags
        try:
            for queue, by_sync in self._queues.items():
                await queue.post(self, self._eligible(by_sync.get(None, {})), flags)
                if len(by_sync) > 1:  # filters that wait for a state of the server's
                    await super().publish(flags)
        finally:
            self._posting = 0

    def _eligible(self, by_type: Mapping[str, set[Any]]) -> list[Any]:
        return [spec for specs in by_type.values() for spec in specs if spec.mask & self._posting]

    async def subscribe(self, queue, sub_spec, sub) -> None:
        """Take on a monitor; one of a type that the value can't be read as is refused."""
        try:
            await super().subscribe(queue, sub_spec, sub)
        except (CaprotoError, ValueError):
            await self.unsubscribe(queue, sub_spec)
            raise

    def _is_eligible(self, ss) -> bool:
        """For caproto's publish(), which is left those that wait for a state."""
        waits = ss.channel_filter.sync is not None
        return waits and bool(ss.mask & self._posting) and super()._is_eligible(ss)

    async def _read(self, data_type):
        whole = self._data
        try:
            if self.data_type == ChannelType.CHAR and isinstance(self.value, int):
                # caproto makes a string of bytes only; below it becomes the right one
                self._data = {**whole, "value": bytes([self.value])}
            metadata, values = await super()._read(data_type)
        except (CaprotoError, ValueError, OverflowError):
            if not self._posting:
                raise
            # a monitor of a number on a text that is none must not spoil the put of that text
            return self._zero(data_type)
        finally:
            self._data = whole
        if isinstance(data_type, _LongStringChannelType):
            # C counts the NUL of a long string
            return metadata, [*values, 0]
        native = native_type(data_type)
        if native == ChannelType.STRING:
            text = self._as_text()
            if text is not None:
                values = backend.convert_values(
                    values=text,
                    from_dtype=ChannelType.STRING,
                    to_dtype=ChannelType.STRING,
                    string_encoding="latin-1",
                    direction=ConversionDirection.TO_WIRE,
                )
        return metadata, values

    def _zero(self, data_type):
        """What a monitor gets whose type the value has no reading in."""
        values = backend.python_to_epics(native_type(data_type), [0])
        if data_type in native_types:
            return b"", values
        metadata = DBR_TYPES[data_type]()
        self._read_metadata(metadata)
        metadata.status, metadata.severity = int(self.status), int(self.severity)
        return metadata, values

    def _as_text(self) -> list[str] | None:
        """How a string read shows the value; None leaves it to caproto."""
        if self.data_type == ChannelType.DOUBLE:
            return [wire.double_to_string(self.value, self.text_precision)]
        if self.data_type == ChannelType.CHAR:
            return (
                [str(byte) for byte in self.value]
                if (self.max_length or 1) > 1
                else [str(self.value)]
            )
        return None

    def _read_metadata(self, dbr_metadata) -> None:
        strings = self._data.get("enum_strings")
        if strings is not None and hasattr(dbr_metadata, "enum_strings"):
            dbr_metadata.enum_strings = [s.encode("latin-1") for s in strings[:MAX_ENUM_STATES]]
        whole = self._data
        if native_type(ChannelType(dbr_metadata.DBR_ID)) not in native_float_types:
            # alarm limits that are off read NaN, which an integer type has not
            limits = {key: _as_int(whole[key]) for key in _LIMIT_KEYS if key in whole}
            self._data = {**whole, **limits}
        try:
            super()._read_metadata(dbr_metadata)
        finally:
            self._data = whole


def _as_int(value: float) -> int:
    if math.isnan(value):
        return 0
    return int(min(max(value, wire.INT32_MIN), wire.INT32_MAX))
