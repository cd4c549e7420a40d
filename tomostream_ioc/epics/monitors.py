"""Values on their way from a record to the monitors of all clients.

Takes the place of the queue of caproto's server, and of the task that empties it: a value is put
into the updates of each client as it is posted, encoded once for all monitors of a type. What a
client does not take is bounded there (see updates.py), so nothing here has to wait.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

import caproto as ca
from caproto._commands import data_payload
from caproto._data import SubscriptionUpdate
from caproto._dbr import _channel_type_by_name
from caproto.server.common import Subscription, SubscriptionSpec

from tomostream_ioc.epics.channel import VALUE_LOG, Wire
from tomostream_ioc.epics.dbr_payload import payload_of
from tomostream_ioc.epics.direct_messages import EVENT_ADD, message
from tomostream_ioc.epics.limited_log import LimitedLog

_AT_ONCE = 50  # monitors that are served before somebody else's turn
_FLUSHED_AT_ONCE = 4  # circuits
_MOST_TURNS = 64  # until all circuits have been flushed, however many they are
_Content = tuple[bytes, int]  # a payload and the number of elements in it


class Monitors:
    """Gives values to monitors: ``subscriptions`` are those of caproto's server, by their spec.

    ``send_filtered`` is caproto's way to one that wants only some values, or parts of them.
    """

    def __init__(
        self,
        subscriptions: Mapping[SubscriptionSpec, Iterable[Subscription]],
        send_filtered: Callable[..., Awaitable[None]],
        log_lines: LimitedLog,
    ):
        self._subscriptions, self._send_filtered = subscriptions, send_filtered
        self.log_lines = log_lines
        self._to_flush: dict[Any, None] = {}  # circuits, in order
        self._served = 0

    async def put(self, update: SubscriptionUpdate) -> None:
        """As a queue of caproto's: the first value of a new monitor, or one read already."""
        for spec in update.sub_specs:
            to = (update.sub,) if update.sub else tuple(self._subscriptions.get(spec, ()))
            if spec.channel_filter.dbnd is not None:  # what a new monitor is told begins the band
                spec.channel_filter.dbnd.lets_through(spec.db_entry.value)
            values = _Values(spec.db_entry, spec.data_type_name, update.metadata, update.values)
            await self._give(spec, to, values, update.flags)

    async def post(self, channel: Wire, specs: Iterable[SubscriptionSpec], flags: int) -> None:
        """Give the channel's value to all monitors of these specs."""
        values: dict[str, _Values] = {}
        for spec in specs:
            deadband = spec.channel_filter.dbnd
            # alarms and metadata pass it, as in EPICS base
            if (
                deadband is not None
                and not deadband.lets_through(channel.value)
                and not flags & spec.mask & ~VALUE_LOG
            ):
                continue
            name = spec.data_type_name
            if name not in values:
                values[name] = _Values(channel, name)
            to = tuple(self._subscriptions.get(spec, ()))
            await self._give(spec, to, values[name], flags)

    async def _give(
        self, spec: SubscriptionSpec, to: tuple[Subscription, ...], values: _Values, flags: int
    ) -> None:
        channel: Any = spec.db_entry
        readable: dict[tuple[str, str], bool] = {}
        is_filtered = _is_filtered(spec)
        self._served += len(to)
        for subscription in to:
            circuit: Any = subscription.circuit
            client = (circuit.client_hostname, circuit.client_username)
            if client not in readable:
                readable[client] = channel.may_read(*client)
            if not circuit.connected or not readable[client]:
                continue
            try:
                if is_filtered:
                    metadata, read = await values.read()
                    await self._send_filtered(spec, subscription, metadata, read, flags)
                    circuit.unexpired_updates.clear()  # the circuit's own queue has it
                elif circuit.events_on.is_set():
                    self._update(subscription, await values.content(subscription.data_count))
                else:
                    again = circuit.subscriptions_to_resend.setdefault(spec, [])
                    if subscription not in again:
                        again.append(subscription)
            except Exception:  # of one monitor: the others must get theirs
                name = subscription.channel.name
                text = "%s could not be sent to a monitor"
                self.log_lines.exception(f"monitor {name}", text, name)

    def _update(self, subscription: Subscription, content: _Content) -> None:
        circuit: Any = subscription.circuit
        number = subscription.subscriptionid
        circuit.updates.add(number, message(EVENT_ADD, subscription.data_type, content, number))
        self.flush_soon(circuit)

    def flush_soon(self, circuit: Any) -> None:
        """Have the circuit send what it has, once what is going on now has ended."""
        if not self._to_flush:
            asyncio.get_running_loop().call_soon(self._flush)
        self._to_flush[circuit] = None

    def _flush(self) -> None:
        """Serve some circuits: requests that come meanwhile are worked on before the others."""
        count = max(_FLUSHED_AT_ONCE, len(self._to_flush) // _MOST_TURNS)
        for circuit in list(itertools.islice(self._to_flush, count)):
            del self._to_flush[circuit]
            try:
                circuit.flush()
            except Exception:  # of one client: the others must get theirs
                self.log_lines.exception(
                    f"flush {circuit.client_hostname}", "nothing can be sent to %s", circuit.who
                )
        if self._to_flush:
            asyncio.get_running_loop().call_soon(self._flush)

    def turn_is_over(self) -> bool:
        """Whether so many monitors were served that it is somebody else's turn; begins a new one.

        Who puts waits for that, or the values would come faster than all clients can be sent them.
        """
        if self._served < _AT_ONCE:
            return False
        self._served = 0
        return True


class _Values:
    """One value of a channel as one type: read and encoded when it is first wanted."""

    def __init__(self, channel: Any, type_name: str, metadata: Any = None, values: Any = None):
        self._channel, self._type = channel, _channel_type_by_name[type_name]
        self._read = None if values is None else (metadata, values)
        self._is_given = values is not None
        self._contents: dict[int, _Content] = {}

    async def read(self) -> tuple[Any, Any]:
        """Metadata and values as caproto has them."""
        if self._read is None:
            self._read = await self._channel._read(self._type)
        return self._read

    async def content(self, count: int) -> _Content:
        """The payload of an update of ``count`` elements; 0: of all there are."""
        if count not in self._contents:
            self._contents[count] = await self._encoded(count)
        return self._contents[count]

    async def _encoded(self, count: int) -> _Content:
        # a long string has the number of the type of its characters
        if not self._is_given and isinstance(self._type, ca.ChannelType):
            direct = payload_of(self._channel, self._type, count)
            if direct is not None:
                return direct
        metadata, values = await self.read()
        # a monitor that asked for a number of elements gets as many, as from a C IOC: MEDM
        # reads a shorter answer past its end
        count = count or len(values)
        if isinstance(self._channel, Wire):
            values = padded(values, count, self._type)
        values = values[:count]
        parts = data_payload(values, metadata, ca.ChannelType(self._type), count)[1:]
        return b"".join(bytes(part) for part in parts), count


def _is_filtered(spec: SubscriptionSpec) -> bool:
    return spec.channel_filter.arr is not None or spec.channel_filter.sync is not None


def padded(values: Any, count: int, data_type: Any) -> Any:
    """Filled up with zeros or empty strings to ``count`` elements."""
    if len(values) >= count:
        return values
    empty = b"" if ca.native_type(ca.ChannelType(data_type)) == ca.ChannelType.STRING else 0
    return [*values, *[empty] * (count - len(values))]
