"""LensOptics over CA: sees a lens being selected, moves the sample, waits for the lens."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from dataclasses import dataclass

from caproto import ChannelType

from tomostream_ioc.epics.lens_channels import (
    ANSWER_S,
    ChannelError,
    Channels,
    FollowedChannel,
    LostError,
    plain_value,
)
from tomostream_ioc.epics.lens_state import MCT_RECORD, LensState
from tomostream_ioc.errors import LensError
from tomostream_ioc.model.control import LensNames, Severity
from tomostream_ioc.model.lens import (
    MOTOR_RECORDS,
    Crossing,
    LensFault,
    LensHandler,
    LensOutcome,
    sample_moves_mm,
)

log = logging.getLogger(__name__)

_DISCONNECT_S = 2.0
_JOIN_S = 10.0
#: MCTOptics moves the sample itself (offsets of the lens) before it sends the lens motor: ours
#: comes after that, as upstream's does
_SETTLE_S = 1.0
#: the lens motor begins within that time, or it is there already
_BEGIN_S = 2.0
#: MCTOptics tells objective and pixel size within that time from the end of the motion
_STATUS_S = 5.0
#: frames that were exposed on the way have come by then
_FRAMES_S = 0.5
_TEXT_S = 0.5


@dataclass(slots=True)
class _Change:
    """A change that goes on."""

    lens: str
    began_s: float
    pixel_um: float | LensError  # of the lens before
    moved: bool = False  # the motion has been seen
    again: bool = False  # another lens was selected meanwhile


class CaLensOptics:
    """Implements LensOptics, in a thread with an event loop of its own.

    ``motion_s`` bounds each wait for a motor.
    """

    def __init__(self, motion_s: float = 120.0):
        self._motion_s = motion_s
        self._watch: _Watch | None = None

    def open(self, names: LensNames, handler: LensHandler) -> None:
        self.close()
        if names.mct_optics_prefix.strip():
            self._watch = _Watch(names, handler, self._motion_s)
            self._watch.start()

    def follow(self, crossing: Crossing | None) -> None:
        if self._watch is not None:
            self._watch.follow(crossing)

    def close(self) -> None:
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.close()


class _Watch:
    """One run's thread."""

    def __init__(self, names: LensNames, handler: LensHandler, motion_s: float):
        self._names = names
        self._handler = handler
        self._motion_s = motion_s
        self._thread = threading.Thread(target=self._run, name="lens ca", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._main_task: asyncio.Task[None] | None = None
        self._closing = threading.Event()
        self._asked: asyncio.Queue[Crossing | None] = asyncio.Queue()
        self._failed = False
        self._lens: object = None  # what LensSelect was last
        self._change: _Change | None = None
        self._faults: tuple[LensFault, ...] = ()

    # ---- from any thread

    def start(self) -> None:
        self._thread.start()

    def follow(self, crossing: Crossing | None) -> None:
        loop = self._loop
        with contextlib.suppress(RuntimeError):  # the loop has ended: _run tells the handler
            if loop is not None and not self._failed:
                loop.call_soon_threadsafe(self._asked.put_nowait, crossing)
                return
        self._handler.on_lens_done(LensOutcome())

    def close(self) -> None:
        self._closing.set()
        loop, task = self._loop, self._main_task
        if loop is not None and task is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended already
                loop.call_soon_threadsafe(task.cancel)
        if self._thread.ident is not None and threading.current_thread() is not self._thread:
            self._thread.join(_JOIN_S)
            if self._thread.is_alive():
                log.error("the CA client of %s hangs", self._names.mct_optics_prefix)

    # ---- the thread

    def _run(self) -> None:
        try:
            asyncio.run(self._main())
        except asyncio.CancelledError:
            return
        except Exception as error:  # whatever it is, nobody may wait for it for ever
            log.exception("the CA client of %s failed", self._names.mct_optics_prefix)
            self._failed = True
            text = f"Channel Access can't be used: {error}"
            fault = LensFault(MCT_RECORD, Severity.INVALID, "COMM", text, only_sync=False)
            if not self._closing.is_set():
                self._handler.on_lens_faults((fault,))
                if self._change is not None:
                    self._handler.on_lens_done(LensOutcome(faults=(fault,)))

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._main_task = asyncio.current_task()
        if self._closing.is_set():  # close() came before there was a task to cancel
            raise asyncio.CancelledError
        self._channels = Channels(self._on_news)
        self._state = LensState(self._channels, self._names)
        self._naming = asyncio.Event()
        try:
            await self._state.open()
            self._tell_faults()
            self._look_later()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._name_lens_motor())
                tasks.create_task(self._follow_changes())
        finally:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._channels.close(), _DISCONNECT_S)

    def _look_later(self) -> None:
        """What has not answered by then has a wrong name."""
        asyncio.get_running_loop().call_later(ANSWER_S + 0.05, self._tell_faults)

    def _tell_faults(self) -> None:
        faults = self._state.faults()
        if faults != self._faults and not self._closing.is_set():
            self._faults = faults
            self._handler.on_lens_faults(faults)

    def _on_news(self, channel: FollowedChannel) -> None:
        if self._closing.is_set():
            return
        self._naming.set()
        self._tell_faults()
        change = self._change
        if change is not None and self._state.tells_of_motion(channel):
            change.moved = True
        if channel is self._state.select and channel.connected and channel.value is not None:
            self._on_select(channel)

    def _on_select(self, channel: FollowedChannel) -> None:
        known, self._lens = self._lens, channel.value
        if known is None or known == channel.value:
            return
        if self._change is not None:
            self._change.again = True
            self._change.moved = self._state.lens_moves
            return
        try:
            pixel_um = self._state.pixel_um()
        except LensError as error:
            pixel_um = error
        if channel.reconnected:  # it may have changed long ago: the sample stays where it is
            pixel_um = LensError(f"{channel.name} was away while the lens changed")
        lens = f"lens {channel.text}"
        now = time.monotonic()
        self._change = _Change(lens, now, pixel_um, moved=self._state.lens_moves)
        self._handler.on_lens_change(lens)

    async def _name_lens_motor(self) -> None:
        while True:
            await self._naming.wait()
            self._naming.clear()
            try:
                if await self._state.name_lens_motor() is not None:
                    self._look_later()
            except LensError as error:
                log.warning("LensMotorPVName: %s", error)
            self._tell_faults()

    # ---- a change

    async def _follow_changes(self) -> None:
        while True:
            crossing = await self._asked.get()
            change = self._change
            if change is None:
                self._handler.on_lens_done(LensOutcome())
                continue
            outcome = await self._follow(change, crossing)
            # from here on, another LensSelect is another change
            self._change = None
            self._handler.on_lens_done(outcome)

    async def _follow(self, change: _Change, crossing: Crossing | None) -> LensOutcome:
        faults: list[LensFault] = []
        change.lens = await self._lens_text() or change.lens
        await self._begin(change)
        moved_mm = {}
        if crossing is not None:
            moved_mm = await self._centre(change, crossing, faults)
        while True:
            await self._arrive(change, faults)
            if not change.again:
                break
            change.again = False
            change.lens = await self._lens_text() or change.lens
            change.began_s = time.monotonic()
            await self._begin(change)
        pixel_um: float | None = None
        try:
            pixel_um = self._state.pixel_um()
        except LensError as error:
            faults.append(_fault(MCT_RECORD, "READ", f"{error}; PixelSize stays"))
        return LensOutcome(change.lens, moved_mm, pixel_um, tuple(faults))

    async def _begin(self, change: _Change) -> None:
        """Until the lens is on its way; MCTOptics has sent the sample where it wants by then."""
        self._step(f"{change.lens} was selected, waiting for the motion to begin")
        until_s = change.began_s + _BEGIN_S
        await self._channels.until(lambda: change.moved, until_s - time.monotonic())
        await asyncio.sleep(max(change.began_s + _SETTLE_S - time.monotonic(), 0.0))

    async def _centre(
        self, change: _Change, crossing: Crossing, faults: list[LensFault]
    ) -> dict[str, float]:
        """Move the sample, all axes or none; returns the way of those that have arrived."""
        if isinstance(change.pixel_um, LensError):
            faults.append(_fault(MCT_RECORD, "READ", f"The sample stays: {change.pixel_um}"))
            return {}
        pixel_mm = change.pixel_um / 1000
        moves = sample_moves_mm(crossing, change.pixel_um)
        targets: dict[str, float] = {}
        for axis, move_mm in moves.items():
            motor = self._state.motors.get(axis)
            try:
                if motor is None:
                    raise LensError(f"{MOTOR_RECORDS[axis]} names no motor")
                targets[axis] = await motor.target(move_mm)
            except LensError as error:
                faults.append(_fault(MOTOR_RECORDS[axis], "WRITE", f"The sample stays: {error}"))
        if faults:
            return {}
        ways = ", ".join(
            f"{self._state.motors[axis].name} {move_mm:+.4f} mm" for axis, move_mm in moves.items()
        )
        self._step(f"{change.lens}: moving the sample ({ways})")

        async def move(axis: str) -> bool:
            if moves[axis] == 0:
                return True
            try:
                motor = self._state.motors[axis]
                await motor.move(targets[axis], pixel_mm, self._motion_s)
            except LensError as error:
                faults.append(_fault(MOTOR_RECORDS[axis], "WRITE", str(error)))
                return False
            return True

        arrived = await asyncio.gather(*(move(axis) for axis in moves))
        return {axis: moves[axis] for axis, ok in zip(moves, arrived, strict=True) if ok}

    async def _arrive(self, change: _Change, faults: list[LensFault]) -> None:
        """Until the lens motor stands, and MCTOptics has told what belongs to the lens."""
        self._step(f"{change.lens}: waiting for {self._state.lens_motor_name}")
        state, until = self._state, self._channels.until
        motor = state.lens_motor
        if motor is None:
            # the next best that says when the lens is there
            if change.moved and await until(lambda: state.mct_is_done, self._motion_s):
                text = f"{state.lens_motor_name} does not answer: MCTStatus was followed instead"
            else:
                text = f"{state.lens_motor_name} does not answer: nobody waited for the lens"
            faults.append(_fault(MCT_RECORD, "LINK", text, only_sync=False))
        else:
            deadline = time.monotonic() + self._motion_s
            try:
                while await self._channels.until_or_gone(
                    motor, lambda: state.lens_stands, deadline - time.monotonic()
                ):
                    await until(lambda: state.mct_is_done or not state.lens_stands, _STATUS_S)
                    if state.lens_stands:
                        break
                else:
                    text = f"{motor.name}: the lens is not there after {self._motion_s:g} s"
                    faults.append(_fault(MCT_RECORD, "TIMEOUT", text, only_sync=False))
            except LostError:
                text = f"{motor.name} was lost: nobody knows whether the lens is there"
                faults.append(_fault(MCT_RECORD, "COMM", text, only_sync=False))
        await asyncio.sleep(_FRAMES_S)

    async def _lens_text(self) -> str:
        """LensSelect as a text: 5x, Pos. 1."""
        select = self._state.select
        if select is None:
            return ""
        try:
            return f"lens {plain_value(await select.read(ChannelType.STRING, _TEXT_S))}"
        except ChannelError:
            return ""

    def _step(self, text: str) -> None:
        log.info("%s", text)
        if not self._closing.is_set():
            self._handler.on_lens_step(text)


def _fault(record: str, status: str, message: str, *, only_sync: bool = True) -> LensFault:
    return LensFault(record, Severity.MAJOR, status, message, only_sync)
