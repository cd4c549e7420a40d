"""The one PVGroup: every record of the IOC, and thin putters that hand over to the run."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from tomostream_ioc.epics.access import OPEN, AccessSecurity
from tomostream_ioc.epics.channel import Deferred
from tomostream_ioc.epics.crystal import CrystalPart
from tomostream_ioc.epics.dbd import fields_of
from tomostream_ioc.epics.declarations import IocRecords
from tomostream_ioc.epics.operation import OperationReporter
from tomostream_ioc.epics.record import Record
from tomostream_ioc.epics.records import Mbbo
from tomostream_ioc.epics.reporter import RunReporter
from tomostream_ioc.epics.wire import PutError, check_text
from tomostream_ioc.errors import ConfigError, ParameterError
from tomostream_ioc.model.control import ChannelNames, LensNames, RunControl
from tomostream_ioc.model.crystal import CrystalControl, NoCrystal
from tomostream_ioc.model.params import ReconParams
from tomostream_ioc.model.slices import CHANNEL_SUFFIXES

# record's attribute -> ReconParams' field
PARAMETERS: dict[str, str] = {
    "center": "center",
    "ortho_x": "ortho_x",
    "ortho_y": "ortho_y",
    "ortho_z": "ortho_z",
    "rot_x": "rot_x_deg",
    "rot_y": "rot_y_deg",
    "rot_z": "rot_z_deg",
    "filter_type": "filter_type",
    "dezinger": "dezinger",
    "ring_removal": "ring_removal",
    "energy": "energy_kev",
    "distance": "distance_mm",
    "alpha": "alpha",
    "pixel_size": "pixel_size_um",
}

# read when a run starts
NAMES = (
    "tomoscan_prefix",
    "image_pva",
    "dark_pva",
    "flat_pva",
    "theta_pva",
    "mct_optics_prefix",
    "sample_tomo_0deg",
    "sample_tomo_90deg",
    "sample_y",
    "roi_plugin_prefix",
)

log = logging.getLogger(__name__)

Putter = Callable[[Record, Any], Awaitable[Deferred | None]]


def _check_names(prefix: str, macros: Mapping[str, str]) -> None:
    """Raises ConfigError for a prefix or a macro that does not fit its records."""
    limit = fields_of("ao")["NAME"].size - 1
    for prop in IocRecords._pvs_.values():
        name = f"{prefix}{prop.pvspec.name}"
        if len(name) > limit or not name.isascii() or not name.isprintable():
            raise ConfigError(f"{name!r} can't name a record: at most {limit} ASCII characters")
        macro = prop.pvspec.cls_kwargs["macro"]
        try:
            check_text(macros.get(macro, ""), 40)
        except PutError as error:
            raise ConfigError(f"macro {macro} can't be the value of {name}: {error}") from error


class TomoStreamGroup(IocRecords):
    """Every record of the product; tells the run what users ask, and users what the run says.

    ``prefix`` is P + R, ``macros`` those of the database (TOMO_SCAN, IMAGE_P ...). The tasks run
    from the server's start to its end; ``run_ended`` and ``params_changed`` (RunListener) may
    come from any thread. ``crystal`` finds and links peaks; ``security`` says who may read and
    write. Raises ConfigError for names that are too long.
    """

    def __init__(
        self,
        prefix: str,
        *,
        macros: Mapping[str, str],
        control: RunControl,
        crystal: CrystalControl | None = None,
        security: AccessSecurity = OPEN,
    ):
        self.control = control
        self.crystal = CrystalPart(self, crystal or NoCrystal())
        self.reporter = RunReporter(self)
        self.operation = OperationReporter(self)
        self._putters: dict[str, Putter] = {
            **dict.fromkeys(PARAMETERS, self._put_parameter),
            **dict.fromkeys(NAMES, self._put_name),
            "start_recon": self._put_start_recon,
            "abort_recon": self._put_abort_recon,
            "status": self._put_status,
            "recon_pva": self._put_recon_pva,
            "crosshair": self._put_crosshair,
            "stream_binning": self._put_stream_binning,
            "find_center": self._put_find_center,
            "center_auto": self._put_center_auto,
            "lens_change_sync": self._put_lens_change_sync,
            **self.crystal.putters,
        }
        _check_names(prefix, macros)
        super().__init__(prefix, macros=dict(macros))
        # record name without prefix -> record
        self.records: dict[str, Record] = {
            name.removeprefix(self.prefix): record
            for name, record in self.pvdb.items()
            if isinstance(record, Record)
        }
        try:
            self.check_setting(self.recon_pva, self.recon_pva.value)
        except PutError as error:
            raise ConfigError(f"RECON_PVA={self.recon_pva.value!r}: {error}") from error
        for record in self.records.values():
            record.security = security
            record.connect()
        # caproto's server calls these hooks of any record of its database
        self.watchdog.server_startup = self._open
        self.watchdog.server_shutdown = self._close

    # --- snapshots ------------------------------------------------------------------------

    def params(self) -> ReconParams:
        """The parameters as the records have them now."""
        return self.params_with(None, None)

    def params_with(self, changed: Record | None, value: Any) -> ReconParams:
        """The parameters with one record's value replaced; raises PutError."""
        values: dict[str, Any] = {}
        for attribute, name in PARAMETERS.items():
            record = self.attr_pvdb[attribute]
            current = value if record is changed else record.value
            if isinstance(record, Mbbo):
                raw, text = record.state(current)
                current = raw if attribute == "dezinger" else text
            values[name] = current
        try:
            return ReconParams(**values)
        except ParameterError as error:
            raise PutError(str(error)) from error

    def channel_names(self) -> ChannelNames:
        return ChannelNames(
            tomoscan_prefix=self.tomoscan_prefix.value,
            image_pva_p_name=self.image_pva.value,
            dark_pva=self.dark_pva.value,
            flat_pva=self.flat_pva.value,
            theta_pva=self.theta_pva.value,
            lens=LensNames(
                mct_optics_prefix=self.mct_optics_prefix.value,
                sample_tomo_0deg=self.sample_tomo_0deg.value,
                sample_tomo_90deg=self.sample_tomo_90deg.value,
                sample_y=self.sample_y.value,
                roi_plugin_prefix=self.roi_plugin_prefix.value,
            ),
        )

    def check_setting(self, record: Record, value: Any) -> None:
        """Raises PutError for a value that the record could hold, but nobody could use."""
        if record is self.recon_pva:
            if not value.strip():
                raise PutError("the slices need a channel name")
            if any(character.isspace() for character in value):
                raise PutError("a channel name has no blanks")
            for suffix in CHANNEL_SUFFIXES:
                name = f"{value}{suffix}".partition(".")[0]
                if name.startswith(self.prefix) and name.removeprefix(self.prefix) in self.records:
                    raise PutError(f"the slices need a name of their own, {name} is a record")

    def macros_overruled(self, given: Iterable[str], macros: Mapping[str, str]) -> list[str]:
        """A sentence for each macro of ``given`` whose record has another value than it says."""
        records = {
            prop.pvspec.cls_kwargs["macro"]: self.records[str(prop.pvspec.name)]
            for prop in IocRecords._pvs_.values()
        }
        return [
            f"--{macro} {macros[macro]!r} has no effect: {record.pvname} was saved as "
            f"{record.value!r}. Put the record, or remove the saved settings"
            for macro in sorted(given)
            if (record := records.get(macro)) is not None and record.value != macros[macro]
        ]

    # --- putters: called with an accepted value, before it is stored --------------------------

    async def group_write(self, instance: Any, value: Any) -> Deferred | None:
        putter = self._putters.get(instance.pvspec.attr)
        return await putter(instance, value) if putter is not None else None

    async def _put_parameter(self, instance: Record, value: Any) -> None:
        self.control.set_params(self.params_with(instance, value))

    async def _put_start_recon(self, instance: Record, value: int) -> Deferred:
        if value:
            self._start()
            await self.reporter.show_running()
        elif self.reporter.running:
            self.control.abort()
        # reads Acquire until the run has ended, whoever wrote what
        return Deferred(int(self.reporter.running), self.reporter.end_of_run())

    async def _put_abort_recon(self, instance: Record, value: int) -> Deferred:
        if value:
            await instance.store(value)
            self.control.abort()
        return Deferred(0)

    async def _put_status(self, instance: Record, value: int) -> Deferred:
        if value:
            self._start()
            await self.reporter.show_running()
        elif self.reporter.running:
            self.control.abort()
        return Deferred(int(self.reporter.running))

    async def _put_find_center(self, instance: Record, value: int) -> Deferred:
        search = self.reporter.center_search
        if value:
            search.started(self.control.find_center())
        # reads Search until it has ended, whoever wrote what
        return Deferred(int(search.going_on), search.end())

    async def _put_center_auto(self, instance: Record, value: int) -> None:
        self.control.set_center_auto(bool(value))

    async def _put_recon_pva(self, instance: Record, value: str) -> None:
        self.check_setting(instance, value)
        self.control.set_output(value)

    async def _put_name(self, instance: Record, value: str) -> None:
        if self.reporter.running:
            log.info("%s = %r takes effect at the next start", instance.pvname, value)

    async def _put_lens_change_sync(self, instance: Record, value: int) -> None:
        self.control.set_lens_sync(bool(value))

    async def _put_crosshair(self, instance: Record, value: int) -> None:
        self.control.set_crosshair(bool(value))

    async def _put_stream_binning(self, instance: Record, value: int) -> None:
        """Center and the slices stay where they are in the sample, whether a run is on or not."""
        try:
            params = self.control.set_binning(self.stream_binning.state(value)[0])
        except ParameterError as error:
            raise PutError(str(error)) from error
        if params is not None:
            await self.reporter.on_params_changed(params)
            self.control.set_params(self.params())  # what was put in between holds

    async def start_run(self) -> None:
        """As StartRecon = 1 by a client; does not wait for the end."""
        self._start()
        await self.reporter.show_running()

    def _start(self) -> None:
        """Ask for a run. The run control gives the id of the one that goes on, or of a new one."""
        self.reporter.started(self.control.start(self.channel_names(), self.params()))

    # --- RunListener: called from the run's threads -------------------------------------------

    def run_ended(self, run_id: int) -> None:
        self.reporter.hand_over(self.reporter.on_run_ended, run_id)

    def params_changed(self, params: ReconParams) -> None:
        self.reporter.hand_over(self.reporter.on_params_changed, params)

    def center_search_ended(self, search_id: int) -> None:
        self.reporter.hand_over(self.reporter.on_center_search_ended, search_id)

    # --- the server's start and end -----------------------------------------------------------

    async def _open(self, async_lib: Any) -> None:
        """Tell the run how the records stand, then start the tasks."""
        self.control.set_listener(self)
        # before the parameters: they were saved with it, and must not be scaled
        self.control.set_binning(self.stream_binning.state(self.stream_binning.value)[0])
        self.control.set_params(self.params())
        if self.recon_pva.value.strip():
            self.control.set_output(self.recon_pva.value)
        self.control.set_crosshair(bool(self.crosshair.value))
        self.control.set_center_auto(bool(self.center_auto.value))
        self.control.set_lens_sync(bool(self.lens_change_sync.value))
        self.reporter.open()
        self.operation.open()
        self.crystal.open()

    async def _close(self, async_lib: Any) -> None:
        await self.crystal.close()
        await self.operation.close()
        await self.reporter.close()
