"""Peak tracking as the records see it: thin putters, and status ten times a second."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tomostream_ioc.epics.channel import Deferred
from tomostream_ioc.epics.record import Record
from tomostream_ioc.epics.records import Mbbo
from tomostream_ioc.epics.reporter import shorten
from tomostream_ioc.epics.showing import show
from tomostream_ioc.epics.undertaking import Undertaking
from tomostream_ioc.epics.wire import INT32_MAX, PutError
from tomostream_ioc.errors import ParameterError
from tomostream_ioc.model.crystal import CHANNEL_RECORDS, CrystalControl, PeakParams, ScanSetup

if TYPE_CHECKING:
    from tomostream_ioc.epics.group import TomoStreamGroup

log = logging.getLogger(__name__)

POLL_PERIOD_S = 0.1

# record's attribute -> PeakParams' field
PARAMETERS = {
    "crystal_diameter": "diameter",
    "crystal_percentile": "percentile",
    "crystal_separation": "separation",
    "crystal_min_mass": "min_mass",
    "crystal_max_peaks": "max_peaks",
    "crystal_quantize": "quantize",
    "crystal_search_range": "search_range",
    "crystal_memory": "memory",
    "crystal_background_on": "background_on",
    "crystal_hot_pixel_mask": "hot_pixel_mask",
}
# record's attribute -> ScanSetup's field
SETUP = {
    "crystal_source": "source",
    "crystal_image_pva": "image_pva",
    "crystal_docs_address": "docs_address",
    "crystal_docs_prefix": "docs_prefix",
    "crystal_image_key": "image_key",
    "crystal_rows": "n_rows",
    "crystal_columns": "n_cols",
    "crystal_snaking": "snaking",
    "crystal_frames_per_point": "frames_per_point",
}
#: records that the run may put an alarm on
ALARMED = ("Crystal:Status", "Crystal:BackgroundFile", *CHANNEL_RECORDS.values())
_SWITCHES = ("crystal_background_on", "crystal_hot_pixel_mask", "crystal_snaking")
# record's attribute -> field of CrystalCounts
COUNTS = {
    "crystal_received": "received",
    "crystal_rejected": "rejected",
    "crystal_missed": "missed",
    "crystal_duplicate": "duplicate",
    "crystal_dropped": "dropped",
    "crystal_points": "points",
    "crystal_failed": "failed",
    "crystal_oversized": "oversized",
    "crystal_fallback": "fallback",
    "crystal_peaks": "peaks",
    "crystal_tracks": "tracks",
}
# record's attribute -> field of CrystalStatus
FIGURES = {
    "crystal_in_frame": "peaks_in_frame",
    "crystal_frame_rate": "frame_rate_hz",
    "crystal_point_rate": "point_rate_hz",
    "crystal_latency": "latency_s",
    "crystal_locate_time": "locate_s",
    "crystal_link_time": "link_s",
    "crystal_background_mean": "background_mean",
    "crystal_masked_pixels": "masked_pixels",
    "crystal_map_shown": "map_track",
}


class CrystalPart:
    """Tells peak tracking what users ask, and users what it says; all on the server's loop.

    ``crystal_ended`` and ``background_ended`` (CrystalListener) may come from any thread.
    """

    def __init__(self, group: TomoStreamGroup, control: CrystalControl):
        self._group = group
        self._control = control
        self._run = Undertaking()
        self._background = Undertaking()
        self._polling: asyncio.Task[None] | None = None
        self.putters = {
            **dict.fromkeys(PARAMETERS, self._put_parameter),
            **dict.fromkeys(SETUP, self._put_setup),
            "crystal_start": self._put_start,
            "crystal_abort": self._put_abort,
            "crystal_background_file": self._put_background_file,
            "crystal_take_background": self._put_take_background,
            "crystal_background_frames": self._put_background_frames,
            "crystal_map_of": self._put_map_of,
            "crystal_map_track": self._put_map_track,
        }

    # --- snapshots ------------------------------------------------------------------------

    def params(self, changed: Record | None = None, value: Any = None) -> PeakParams:
        """The parameters with one record's value replaced; raises PutError."""
        try:
            return PeakParams(**self._values(PARAMETERS, changed, value))
        except ParameterError as error:
            raise PutError(str(error)) from error

    def setup(self) -> ScanSetup:
        """What a run would read now; raises PutError."""
        try:
            return ScanSetup(**self._values(SETUP, None, None))
        except ParameterError as error:
            raise PutError(str(error)) from error

    def _values(self, names: dict[str, str], changed: Record | None, value: Any) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for attribute, name in names.items():
            record = self._group.attr_pvdb[attribute]
            current = value if record is changed else record.value
            if isinstance(record, Mbbo):
                current = record.state(current)[1]
            values[name] = bool(current) if attribute in _SWITCHES else current
        return values

    # --- putters ----------------------------------------------------------------------------

    async def _put_parameter(self, instance: Record, value: Any) -> None:
        self._control.set_params(self.params(instance, value))

    async def _put_setup(self, instance: Record, value: Any) -> None:
        if instance.pvspec.attr == "crystal_frames_per_point" and value < 1:
            raise PutError("give at least one image")
        if self._run.going_on:
            log.info("%s = %r takes effect at the next start", instance.pvname, value)

    async def _put_start(self, instance: Record, value: int) -> Deferred:
        if value:
            self._run.started(self._control.start(self.setup()))
        elif self._run.going_on:
            self._control.abort()
        # reads Acquire until the run has ended, whoever wrote what
        return Deferred(int(self._run.going_on), self._run.end())

    async def _put_abort(self, instance: Record, value: int) -> Deferred:
        if value:
            await instance.store(value)
            self._control.abort()
        return Deferred(0)

    async def _put_background_file(self, instance: Record, value: bytes) -> None:
        self._control.set_background_file(_text(value))

    async def _put_take_background(self, instance: Record, value: int) -> Deferred:
        if value:
            frames = self._group.crystal_background_frames.value
            self._background.started(self._control.take_background(frames))
        return Deferred(int(self._background.going_on), self._background.end())

    async def _put_background_frames(self, instance: Record, value: int) -> None:
        if not 1 <= value <= 10_000:
            raise PutError("give 1 to 10000 images")

    async def _put_map_of(self, instance: Mbbo, value: int) -> None:
        self._control.set_map(instance.state(value)[1], self._group.crystal_map_track.value)

    async def _put_map_track(self, instance: Record, value: int) -> None:
        map_of = self._group.crystal_map_of
        self._control.set_map(map_of.state(map_of.value)[1], value)

    # --- CrystalListener: called from the run's threads ---------------------------------------

    def crystal_ended(self, run_id: int) -> None:
        self._group.reporter.hand_over(self._on_ended, run_id)

    def background_ended(self, request_id: int) -> None:
        self._group.reporter.hand_over(self._on_background_ended, request_id)

    async def _on_ended(self, run_id: int) -> None:
        await self._end(self._run, run_id, self._group.crystal_start)

    async def _on_background_ended(self, request_id: int) -> None:
        await self._end(self._background, request_id, self._group.crystal_take_background)

    async def _end(self, work: Undertaking, work_id: int, record: Record) -> None:
        work.has_ended(work_id)
        try:
            await self.poll()  # why it ended is there before the put completes
        except Exception:
            log.exception("the last status of %s could not be shown", record.pvname)
        await show(record, int(work.going_on))
        work.release(work_id)

    # --- life -----------------------------------------------------------------------------

    def open(self) -> None:
        """Tell the control how the records stand, then follow it. On the running loop."""
        group, control = self._group, self._control
        control.set_listener(self)
        try:
            control.set_params(self.params())
        except PutError as refusal:  # restored values that fit one by one, but not together
            log.warning("Peak tracking keeps its defaults: %s", refusal)
        control.set_map(
            group.crystal_map_of.state(group.crystal_map_of.value)[1],
            group.crystal_map_track.value,
        )
        control.set_background_file(group.crystal_background_file.text)
        self._polling = asyncio.get_running_loop().create_task(self._poll_for_ever())

    async def close(self) -> None:
        if self._polling is not None:
            self._polling.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._polling
        self._run.cancel()
        self._background.cancel()

    async def _poll_for_ever(self) -> None:
        while True:
            try:
                await self.poll()
            except Exception:
                log.exception("the status of peak tracking could not be shown")
            await asyncio.sleep(POLL_PERIOD_S)

    async def poll(self) -> None:
        """Show the status, and only what has changed of it."""
        records: Mapping[str, Any] = dict(self._group.attr_pvdb)
        status = self._control.status()
        await show(self._group.crystal_status, shorten(status.message))
        for attribute, name in COUNTS.items():
            await show(records[attribute], min(getattr(status.counts, name), INT32_MAX))
        for attribute, name in FIGURES.items():
            await show(records[attribute], getattr(status, name))
        for name in ALARMED:
            await self._group.records[name].set_alarm(status.alarms.get(name))


def _text(value: bytes) -> str:
    return value.partition(b"\0")[0].decode("utf-8", "replace").strip()
