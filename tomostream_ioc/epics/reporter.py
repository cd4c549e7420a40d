"""What the run says, shown in the records: status, counters, alarms, watchdog, end of a run."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from tomostream_ioc.epics.record import Record
from tomostream_ioc.epics.showing import show
from tomostream_ioc.epics.undertaking import Undertaking
from tomostream_ioc.epics.wire import INT32_MAX
from tomostream_ioc.model.control import RunStatus
from tomostream_ioc.model.params import ReconParams
from tomostream_ioc.model.state import RunState

if TYPE_CHECKING:
    from tomostream_ioc.epics.group import TomoStreamGroup

log = logging.getLogger(__name__)

POLL_PERIOD_S = 0.1
_GIB = 1 << 30
WATCHDOG_FEED = 5  # what the server sets Watchdog to, once a second
WATCHDOG_PERIOD_S = 1.0
HEARTBEAT_LIMIT_S = 3.0  # with the count's last second: Stopped within 5 s of a hung engine
STATUS_BYTES = 255


def shorten(message: str) -> bytes:
    """UTF-8 of at most 255 bytes, never cut inside a character."""
    return message.encode()[:STATUS_BYTES].decode(errors="ignore").encode()


class RunReporter:
    """Keeps the records as the run is. Everything happens on the server's event loop.

    ``started`` is told of a run that was asked for; the run's end, and parameters that it has
    changed, come by ``hand_over`` from any thread.
    """

    def __init__(self, group: TomoStreamGroup):
        self._group = group
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._run_id: int | None = None  # the run that goes on, or has been asked for
        self._ended_id = 0
        self._ends: dict[int, asyncio.Future[None]] = {}  # run -> done at its end
        self.center_search = Undertaking()
        self._in_turn = asyncio.Lock()
        self._alarmed: set[str] = set()  # records (names without prefix) with an alarm of the run
        self._was_alive: bool | None = None
        self._fed_s = -math.inf
        self._frame_shape: tuple[int, int] | None = None  # that the limits are of

    # --- life -----------------------------------------------------------------------------

    def open(self) -> None:
        """Start the tasks, on the running loop."""
        self._loop = asyncio.get_running_loop()
        for job in (self._poll_for_ever(), self._scan_watchdog()):
            self._spawn(job)

    async def close(self) -> None:
        """End the tasks; whoever waits for the end of a run waits no longer."""
        self._loop = None
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for end in self._ends.values():
            end.cancel()
        self._ends.clear()
        self.center_search.cancel()

    def _spawn(self, job: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(job)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def hand_over(self, handler: Callable[[Any], Coroutine[Any, Any, None]], argument: Any) -> None:
        """Run a coroutine function on the server's loop; silent where the server has ended.

        One after the other: the parameters of a run are shown before its end is.
        """
        loop = self._loop
        if loop is None:
            return

        async def handle() -> None:
            async with self._in_turn:
                await handler(argument)

        with contextlib.suppress(RuntimeError):  # the loop was closed just now
            loop.call_soon_threadsafe(lambda: self._spawn(handle()))

    # --- the run --------------------------------------------------------------------------

    @property
    def running(self) -> bool:
        return self._run_id is not None

    def started(self, run_id: int) -> None:
        """A run was asked for; its end may already have been told."""
        self._run_id = run_id if run_id > self._ended_id else None

    def end_of_run(self) -> asyncio.Future[None] | None:
        """Done when the present run has ended; None without one."""
        if self._run_id is None or self._loop is None:
            return None
        if self._run_id not in self._ends:
            self._ends[self._run_id] = self._loop.create_future()
        return self._ends[self._run_id]

    async def on_run_ended(self, run_id: int) -> None:
        self._ended_id = max(self._ended_id, run_id)
        if self._run_id is not None and self._run_id <= run_id:
            self._run_id = None
        try:
            await self.poll()  # why it ended is there before the put completes
        except Exception:
            log.exception("the run's last status could not be shown")
        await self.show_running()
        for ended in [known for known in self._ends if known <= run_id]:
            end = self._ends.pop(ended)
            if not end.done():
                end.set_result(None)

    async def on_center_search_ended(self, search_id: int) -> None:
        self.center_search.has_ended(search_id)
        try:
            await self.poll()  # what was found is there before the put completes
        except Exception:
            log.exception("what the search found could not be shown")
        await show(self._group.find_center, int(self.center_search.going_on))
        self.center_search.release(search_id)

    async def on_params_changed(self, params: ReconParams) -> None:
        group = self._group
        await show(group.center, params.center)
        await show(group.ortho_x, params.ortho_x)
        await show(group.ortho_y, params.ortho_y)
        await show(group.ortho_z, params.ortho_z)
        await show(group.pixel_size, params.pixel_size_um)
        await show(group.center_found, group.control.status().center_found)  # scales with Center

    async def show_running(self) -> None:
        await show(self._group.start_recon, int(self.running))
        await show(self._group.status, int(self.running))

    # --- the tasks ------------------------------------------------------------------------

    async def _poll_for_ever(self) -> None:
        while True:
            try:
                await self.poll()
            except Exception:
                log.exception("the run's status could not be shown")
            await asyncio.sleep(POLL_PERIOD_S)

    async def _scan_watchdog(self) -> None:
        """Process Watchdog as its SCAN field says."""
        loop = asyncio.get_running_loop()
        watchdog = self._group.watchdog
        next_s = loop.time()
        while True:
            period_s = watchdog.scan_period_s
            # a loop that was held up goes on from now: it does not count the lost seconds down
            next_s = max(next_s + (period_s or WATCHDOG_PERIOD_S), loop.time())
            await asyncio.sleep(next_s - loop.time())
            if period_s is not None:
                try:
                    await watchdog.process()
                except Exception:
                    log.exception("Watchdog could not be processed")

    async def poll(self) -> None:
        """Show the run's status, and only what has changed of it."""
        group = self._group
        status = group.control.status()
        counts = status.counts
        shown: tuple[tuple[Record, Any], ...] = (
            (group.recon_status, shorten(status.message)),
            (group.recon_time, status.recon_time_s),
            (group.buffer_size, status.buffer_size),
            (group.frame_rate, status.frame_rate_hz),
            (group.recon_rate, status.recon_rate_hz),
            (group.latency, status.latency_s),
            (group.center_found, status.center_found),
            (group.center_confidence, status.center_confidence),
            (group.frames_received, min(counts.received, INT32_MAX)),
            (group.frames_rejected, min(counts.rejected, INT32_MAX)),
            (group.frames_missed, min(counts.missed, INT32_MAX)),
            (group.frames_duplicate, min(counts.duplicate, INT32_MAX)),
            (group.frames_disordered, min(counts.disordered, INT32_MAX)),
            (group.frames_dropped, min(counts.dropped, INT32_MAX)),
            (group.frames_skipped, min(counts.skipped, INT32_MAX)),
            (group.bad_pixels, min(status.bad_pixels, INT32_MAX)),
            (group.memory_policy, status.memory.policy),
            (group.memory_used, status.memory.n_bytes / _GIB),
        )
        for record, value in shown:
            await show(record, value)
        # an alarm of something that is no record is in the status alone
        for name in group.records.keys() & (self._alarmed | status.alarms.keys()):
            await group.records[name].set_alarm(status.alarms.get(name))
        self._alarmed = set(status.alarms)
        await self._show_limits(status.frame_shape)
        await self._feed(status)

    async def _show_limits(self, frame_shape: tuple[int, int] | None) -> None:
        """The slices' display limits follow the frames, so that sliders reach all of them.

        Puts outside are accepted as before. What a client writes to HOPR stays until the frames
        have another size.
        """
        if frame_shape is None or frame_shape == self._frame_shape:
            return
        self._frame_shape = frame_shape
        group, (n_rows, n_cols) = self._group, frame_shape
        for record, size in (
            (group.ortho_x, n_cols),
            (group.ortho_y, n_cols),
            (group.ortho_z, n_rows),
        ):
            await record.put_field("HOPR", size - 1)

    async def _feed(self, status: RunStatus) -> None:
        """Set Watchdog to 5 once a second while the engine lives, to 0 once when it does not."""
        now_s = time.monotonic()
        heartbeat_age_s = now_s - status.heartbeat_s
        alive = heartbeat_age_s < HEARTBEAT_LIMIT_S and status.state is not RunState.FAULT
        if alive and now_s - self._fed_s >= WATCHDOG_PERIOD_S:
            self._fed_s = now_s
            await self._group.watchdog.put(WATCHDOG_FEED)
        elif not alive and self._was_alive is not False:
            # counting down from 5 would tell of a hung engine too late
            await self._group.watchdog.put(0)
            self._fed_s = -math.inf
        self._was_alive = alive
