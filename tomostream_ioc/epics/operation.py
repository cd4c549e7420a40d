"""Keeps the records of the process: heartbeat, uptime, load, memory."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import platform
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import psutil

from tomostream_ioc import __version__
from tomostream_ioc.epics.showing import show
from tomostream_ioc.epics.wire import INT32_MAX

if TYPE_CHECKING:
    from tomostream_ioc.epics.operation_records import OperationRecords
    from tomostream_ioc.epics.server import ClientCounts

log = logging.getLogger(__name__)

TICK_S = 1.0
LOAD_EVERY = 10  # ticks between two looks at load and memory, as iocStats does
_TIME_FORMAT = "%Y-%m-%d %H:%M:%S"
_STRING_CHARACTERS = 39


def uptime_text(seconds: float) -> str:
    """``07:03:09``, ``1 day, 00:00:00`` or ``12 days, 23:59:59``."""
    days, rest = divmod(int(seconds), 86400)
    hours, rest = divmod(rest, 3600)
    clock = f"{hours:02d}:{rest // 60:02d}:{rest % 60:02d}"
    return clock if days == 0 else f"{days} day{'s' if days > 1 else ''}, {clock}"


class OperationReporter:
    """Writes the records of the process once a second, on the server's event loop.

    HEARTBEAT stands still when that loop does; load and memory are looked at every 10 s.
    """

    def __init__(self, records: OperationRecords):
        self._records = records
        self._process = psutil.Process()
        self._task: asyncio.Task[None] | None = None
        self._began_s = 0.0
        self._counts: Callable[[], ClientCounts] | None = None

    def watch(self, counts: Callable[[], ClientCounts]) -> None:
        """Show what the CA server counts."""
        self._counts = counts

    def open(self) -> None:
        """Start, on the running loop."""
        self._began_s = time.monotonic()
        self._task = asyncio.get_running_loop().create_task(self._tick_for_ever())

    async def close(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _tick_for_ever(self) -> None:
        loop = asyncio.get_running_loop()
        next_s, ticks = loop.time(), 0
        await self._tell_once()
        while True:
            try:
                # the first look at the load is a tick after the process was first asked for it
                await self._tick(with_load=ticks % LOAD_EVERY == 1)
            except Exception:
                log.exception("the state of the process could not be shown")
            ticks += 1
            # a loop that was held up goes on from now: HEARTBEAT shows that it was
            next_s = max(next_s + TICK_S, loop.time())
            await asyncio.sleep(next_s - loop.time())

    async def _tell_once(self) -> None:
        records = self._records
        self._process.cpu_percent()  # the next one is the load since this one
        await show(records.start_time, time.strftime(_TIME_FORMAT))
        await show(records.process_id, os.getpid())
        await show(records.hostname, platform.node()[:_STRING_CHARACTERS])
        await show(records.version, __version__[:_STRING_CHARACTERS])
        await show(records.cpu_count, _cores())

    async def _tick(self, *, with_load: bool) -> None:
        records = self._records
        beats = records.heartbeat.value
        await show(records.heartbeat, beats + 1 if beats < INT32_MAX else 1)
        await show(records.uptime, uptime_text(time.monotonic() - self._began_s))
        await show(records.time_of_day, time.strftime(_TIME_FORMAT))
        if self._counts is not None:
            counts = self._counts()
            await show(records.ca_clients, counts.clients)
            await show(records.ca_channels, counts.channels)
            await show(records.ca_bad_clients, min(counts.bad, INT32_MAX))
        if with_load:
            load = self._process.cpu_percent() / _cores()
            await show(records.cpu_load, min(load, 100.0))
            await show(records.host_memory_used, float(self._process.memory_info().rss))
            await show(records.host_memory_free, float(psutil.virtual_memory().available))


def _cores() -> int:
    return psutil.cpu_count() or 1
