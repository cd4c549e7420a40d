"""tomoScan's records over CA: which frames are projections, which is the first, where images are"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from concurrent.futures import Future
from typing import Any

from caproto import CaprotoError, ChannelType
from caproto.asyncio.client import PV, Context

from tomostream_ioc.errors import ArmingError
from tomostream_ioc.model.control import StreamHandler

log = logging.getLogger(__name__)

_IMAGE_RECORD_S = 1.5  # what the record with the image's prefix may take to answer
_OPTIONAL_S = 0.5  # what FirstProjid may take once FrameType, of the same IOC, has answered
_DISCONNECT_S = 2.0
_JOIN_S = 10.0


class TomoScan:
    """The CA side of one run, in a thread with an event loop of its own, which close() ends.

    caproto's asyncio client connects in milliseconds and leaves nothing behind; its threading
    client needs seven threads and up to five seconds to disconnect.
    """

    def __init__(self, prefix: str, handler: StreamHandler):
        self._prefix = prefix
        self._handler = handler
        self._channel: Future[str] = Future()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._main_task: asyncio.Task[None] | None = None
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self._frame_type_came = asyncio.Event()
        self._first_id_came = asyncio.Event()

    def open(self, image_p_name: str, timeout_s: float) -> str:
        """Monitor FrameType and FirstProjid; returns the name of the image channel.

        Raises ArmingError: FrameType does not answer within ``timeout_s``, the record with the
        image's prefix is empty, or cancel() was called.
        """
        self._thread = threading.Thread(
            target=self._run, args=(image_p_name, timeout_s), name="tomoscan ca", daemon=True
        )
        self._thread.start()
        return self._channel.result()

    def cancel(self) -> None:
        """End it from any thread: open() raises, and no handler is called any more."""
        self._closing.set()
        loop, task = self._loop, self._main_task
        if loop is not None and task is not None:
            try:
                loop.call_soon_threadsafe(task.cancel)
            except RuntimeError:  # the loop has ended already
                return

    def close(self) -> None:
        self.cancel()
        thread = self._thread
        if thread is not None and threading.current_thread() is not thread:
            thread.join(_JOIN_S)
            if thread.is_alive():
                log.error("the CA client of %s hangs", self._prefix or "the image record")

    def _run(self, image_p_name: str, timeout_s: float) -> None:
        try:
            asyncio.run(self._main(image_p_name, timeout_s))
        except asyncio.CancelledError:
            self._fail(ArmingError("The start was aborted"))
        except ArmingError as error:
            self._fail(error)
        except Exception as error:  # open() must hear of whatever ends it
            if self._closing.is_set():
                # caproto's client can't be ended while it is being made
                log.debug("the CA client of %s was ended at its start: %r", self._prefix, error)
                self._fail(ArmingError("The start was aborted"))
                return
            log.exception("the CA client of %s failed", self._prefix)
            self._fail(ArmingError(f"Channel Access can't be used: {error}"))

    def _fail(self, error: ArmingError) -> None:
        if not self._channel.done():
            self._channel.set_exception(error)

    async def _main(self, image_p_name: str, timeout_s: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._main_task = asyncio.current_task()
        if self._closing.is_set():  # cancel() came before there was a task to cancel
            raise asyncio.CancelledError
        context = Context()
        pvs: list[PV] = []
        try:
            async with asyncio.TaskGroup() as tasks:
                image = tasks.create_task(_image_channel(context, image_p_name, timeout_s))
                tasks.create_task(self._monitor(context, timeout_s, pvs))
            self._channel.set_result(image.result())
            await asyncio.get_running_loop().create_future()  # until cancel()
        except* ArmingError as group:
            raise group.exceptions[0] from None
        finally:
            with contextlib.suppress(TimeoutError):  # open() waits for this
                await asyncio.wait_for(_disconnect(context, pvs), _DISCONNECT_S)

    async def _monitor(self, context: Context, timeout_s: float, pvs: list[PV]) -> None:
        """Subscribe, and wait for the first values; ``pvs`` takes what is subscribed to."""
        if not self._prefix:
            self._handler.on_frame_type("Projection")
            self._handler.on_first_projection_id(0)
            return
        frame_type, first_id = await context.get_pvs(
            self._prefix + "FrameType",
            self._prefix + "FirstProjid",
            connection_state_callback=self._on_connection,
        )
        pvs += (frame_type, first_id)
        # an enum's text is what counts: records of different tomoScans number it differently
        for pv, data_type, callback in (
            (frame_type, ChannelType.STRING, self._on_frame_type),
            (first_id, ChannelType.LONG, self._on_first_id),
        ):
            pv.subscribe(data_type=data_type).add_callback(callback)
        try:
            await asyncio.wait_for(self._frame_type_came.wait(), timeout_s)
        except TimeoutError:
            raise ArmingError(
                f"{frame_type.name} did not answer within {timeout_s:g} s: is the tomoScan IOC "
                f"running, is TomoScanPVPrefix right, does EPICS_CA_ADDR_LIST reach it?"
            ) from None
        try:
            await asyncio.wait_for(self._first_id_came.wait(), _OPTIONAL_S)
        except TimeoutError:
            log.info("%s does not answer: taken as 0", first_id.name)
            self._handler.on_first_projection_id(0)

    async def _on_connection(self, pv: PV, state: str) -> None:
        if pv.name == self._prefix + "FrameType" and not self._closing.is_set():
            self._handler.on_connection("tomoscan", self._prefix, state == "connected")

    async def _on_frame_type(self, _subscription: Any, response: Any) -> None:
        text = _text(response)
        if text is not None and not self._closing.is_set():
            self._handler.on_frame_type(text)
            self._frame_type_came.set()

    async def _on_first_id(self, _subscription: Any, response: Any) -> None:
        if not self._closing.is_set():
            self._handler.on_first_projection_id(int(response.data[0]))
            self._first_id_came.set()


async def _disconnect(context: Context, pvs: list[PV]) -> None:
    # A callback whose object has gone is removed by caproto with a coroutine that nobody awaits.
    for pv in pvs:
        await pv.unsubscribe_all()
    await context.disconnect()


async def _image_channel(context: Context, name: str, timeout_s: float) -> str:
    """The channel that a CA record of this name points to, or ``name`` where there is none."""
    limit_s = min(_IMAGE_RECORD_S, timeout_s)
    start_s = time.monotonic()
    (pv,) = await context.get_pvs(name)
    try:
        await pv.wait_for_connection(timeout=limit_s)
        left_s = max(limit_s - (time.monotonic() - start_s), 0.1)
        prefix = _text(await pv.read(timeout=left_s))
    except (CaprotoError, TimeoutError):
        return name
    if prefix is None:
        return name
    if not prefix:
        raise ArmingError(f"{name} is empty: set the PVA plugin's prefix there")
    return prefix + "Image"


def _text(response: Any) -> str | None:
    """The string in a CA response: a STRING, or a CHAR array; None for anything else."""
    if response.data_type == ChannelType.CHAR:
        raw = bytes(bytearray(int(code) & 0xFF for code in response.data))
    elif response.data_type == ChannelType.STRING and len(response.data):
        raw = bytes(response.data[0])
    else:
        return None
    return raw.split(b"\0", 1)[0].decode("latin-1").strip()
