"""Channels of other IOCs that are followed over CA, and waiting for what they say with a limit."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from caproto import CaprotoError, ChannelType
from caproto.asyncio.client import PV, Context

from tomostream_ioc.errors import LensError

#: a channel that does not answer that long after it was first asked for has a wrong name, or its
#: IOC does not run
ANSWER_S = 3.0
#: one that was lost may take that long to come back before nobody waits for it any more
LOST_S = 10.0


class ChannelError(Exception):
    """What was asked of a channel has not happened."""


class LostError(ChannelError):
    """A channel went away and did not come back in time."""

    def __init__(self, name: str):
        super().__init__(f"{name} was lost")


class FollowedChannel:
    """One channel with its newest value; made by `Channels.add`."""

    def __init__(self, name: str, on_change: Callable[[FollowedChannel], None]):
        self.name = name
        self.pv: PV | None = None
        self.connected = False
        self.reconnected = False  # until the first value after it has come
        self._on_change = on_change
        self._value: Any = None
        self._asked_s = time.monotonic()
        self.answered = False  # at least once

    @property
    def missing(self) -> bool:
        """It has had its time to answer, and does not."""
        late = time.monotonic() - self._asked_s >= ANSWER_S
        return not self.connected and (self.answered or late)

    @property
    def value(self) -> Any:
        """The newest value as it came (a number, an enum's index or a text), or None."""
        return self._value

    @property
    def number(self) -> float:
        """The newest value; NaN where it is no number, or none has come."""
        try:
            return float(self._value)
        except (TypeError, ValueError):
            return math.nan

    @property
    def text(self) -> str:
        return "" if self._value is None else str(self._value)

    async def read(self, data_type: ChannelType, limit_s: float) -> Any:
        """The response to a read. Raises ChannelError: there is none in time, or no value."""
        pv = self._connected_pv()
        async with _errors(self.name):
            response: Any = await pv.read(timeout=_any(limit_s), data_type=data_type)
        if not response.status.success or not len(response.data):
            raise ChannelError(f"{self.name} can't be read as {data_type.name}")
        return response

    async def write(self, value: float, limit_s: float) -> None:
        """Put a number and wait until that has ended. Raises ChannelError: not in time, refused."""
        pv = self._connected_pv()
        async with _errors(self.name):
            response: Any = await pv.write(
                (value,), timeout=_any(limit_s), data_type=ChannelType.DOUBLE
            )
        if not response.status.success:
            raise ChannelError(f"{self.name} refused {value:g}")

    def _connected_pv(self) -> PV:
        if self.pv is None or not self.connected:
            raise ChannelError(f"{self.name} does not answer")
        return self.pv

    async def on_connection(self, _pv: PV, state: str) -> None:
        self.connected = state == "connected"
        self.reconnected = self.connected and self.answered
        self.answered |= self.connected
        self._on_change(self)

    async def on_value(self, _subscription: Any, response: Any) -> None:
        self._value = plain_value(response)
        self._on_change(self)
        self.reconnected = False


class Channels:
    """All of them, on one event loop. ``on_change(channel)`` is called on it for all news."""

    def __init__(self, on_change: Callable[[FollowedChannel], None]):
        self._told = on_change
        self._news = asyncio.Condition()
        self._all: list[FollowedChannel] = []
        self._context = Context()
        self._tasks: set[asyncio.Task[None]] = set()

    async def add(self, name: str) -> FollowedChannel:
        """Search for a channel and follow it. Raises LensError: no channel can have that name."""
        channel = FollowedChannel(name, self._changed)
        try:
            (pv,) = await self._context.get_pvs(
                name, connection_state_callback=channel.on_connection
            )
        except (CaprotoError, ValueError) as error:
            raise LensError(f"{name!r} can't be the name of a channel: {error}") from error
        channel.pv = pv
        pv.subscribe().add_callback(channel.on_value)
        self._all.append(channel)
        return channel

    async def until(self, condition: Callable[[], Any], limit_s: float) -> bool:
        """Wait for news until the condition holds; False when it does not in time."""
        try:
            async with asyncio.timeout(max(limit_s, 0.0)), self._news:
                await self._news.wait_for(condition)
        except TimeoutError:
            return bool(condition())
        return True

    async def gone(self, channel: FollowedChannel) -> None:
        """Returns when the channel has been lost for too long."""
        while True:
            await self.until(lambda: not channel.connected, math.inf)
            if not await self.until(lambda: channel.connected, LOST_S):
                return

    async def until_or_gone(
        self, channel: FollowedChannel, condition: Callable[[], Any], limit_s: float
    ) -> bool:
        """As `until`. Raises LostError when the channel is lost meanwhile."""
        waiting = asyncio.ensure_future(self.until(condition, limit_s))
        return await self.or_gone(channel, waiting)

    async def or_gone(self, channel: FollowedChannel, work: asyncio.Future[Any]) -> Any:
        """The result of the work. Raises LostError when the channel is lost before it is there."""
        lost = asyncio.create_task(self.gone(channel))
        try:
            await asyncio.wait({work, lost}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                raise LostError(channel.name)
            return work.result()
        finally:
            for task in (work, lost):
                task.cancel()

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        # A callback whose object has gone is removed by caproto with a coroutine nobody awaits.
        for channel in self._all:
            if channel.pv is not None:
                await channel.pv.unsubscribe_all()
        await self._context.disconnect()

    def _changed(self, channel: FollowedChannel) -> None:
        self._told(channel)
        task = asyncio.get_running_loop().create_task(self._tell())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _tell(self) -> None:
        async with self._news:
            self._news.notify_all()


@contextlib.asynccontextmanager
async def _errors(name: str) -> AsyncIterator[None]:
    """caproto's errors as ours."""
    try:
        yield
    except (CaprotoError, TimeoutError) as error:
        raise ChannelError(f"{name} did not answer in time") from error
    except (OSError, KeyError) as error:  # KeyError: of a connection that broke meanwhile
        raise LostError(name) from error


def _any(limit_s: float) -> Any:
    """caproto's annotations know no time limit but its own default."""
    return limit_s


def plain_value(response: Any) -> Any:
    """A CA response's first value: a number, or a text for STRING and arrays of CHAR."""
    data = response.data
    if response.data_type == ChannelType.CHAR and len(data) != 1:
        raw = bytes(int(code) & 0xFF for code in data)
    elif response.data_type == ChannelType.STRING and len(data):
        raw = bytes(data[0])
    else:
        return data[0].item() if len(data) else None
    return raw.split(b"\0", 1)[0].decode("latin-1").strip()
