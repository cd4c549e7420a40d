"""The composition root: builds the parts, owns the order in which they start and stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tomostream_ioc.arguments import warn_of_missing
from tomostream_ioc.config import Config
from tomostream_ioc.console import StatusLine, on_terminal, say
from tomostream_ioc.crystal.run import CrystalRunner
from tomostream_ioc.crystal_sources import point_sources, read_curve_keys
from tomostream_ioc.environment import check_interfaces, check_variables
from tomostream_ioc.epics.access import OPEN, read_access_file, summary
from tomostream_ioc.epics.autosave import Autosave
from tomostream_ioc.epics.group import TomoStreamGroup
from tomostream_ioc.epics.lendable_loop import LendableLoop
from tomostream_ioc.epics.lens import CaLensOptics
from tomostream_ioc.epics.pva_crystal import PvaCrystal
from tomostream_ioc.epics.pva_records import PvaRecords
from tomostream_ioc.epics.pva_sink import PvaSink
from tomostream_ioc.epics.pva_source import PvaSource
from tomostream_ioc.epics.server import ClientCounts, IocContext
from tomostream_ioc.limits import give_back_after_work, keep_freed_memory, raise_file_limit
from tomostream_ioc.model.control import Engine
from tomostream_ioc.picture import save_slices_png
from tomostream_ioc.recon.devices import pinned_empty, resolve_device
from tomostream_ioc.recon.engine import OrthoEngine
from tomostream_ioc.recon.geometry import ScanGeometry
from tomostream_ioc.recon.warm_up import warm_up, warm_up_rest
from tomostream_ioc.runner.run import Runner
from tomostream_ioc.simulation import SimulatedStream, simulator_arguments
from tomostream_ioc.welcome import welcome

if TYPE_CHECKING:
    pass

log = logging.getLogger(__name__)

_STATUS_EVERY_S = 1.0
_SWITCH_INTERVAL_S = 0.0005
_END_S = 3.0
_SLOW_S = 3.0  # of the warm-up, to say so
_LOADING_CPU_S = 6.0  # a start takes 2 s of CPU time, and 30 more where kernels are compiled


def run(config: Config) -> int:
    """Serve until somebody ends it; the exit code is 0 after a clean end, 1 without CA server.

    Raises ConfigError: what the command line asks for can't be had here.
    """
    with asyncio.Runner(loop_factory=LendableLoop) as runner:
        return runner.run(Program(config).run())


class Program:
    """One IOC, from start to end.

    Raises ConfigError: a wrong access security file, or CURVE keys that can't be read.
    """

    def __init__(self, config: Config):
        self._config = config
        path = config.access_security
        self._security = OPEN if path is None else read_access_file(path)
        self._curve_keys = None if config.curve_keys is None else read_curve_keys(config.curve_keys)
        self._ending = asyncio.Event()
        self._exit_code = 0

    async def run(self) -> int:
        """Serve until SIGTERM, SIGINT, SIGHUP or the end of ``seconds``; returns the exit code.

        Raises ConfigError: what the command line asks for can't be had here.
        """
        self._catch_signals()
        check_variables()
        check_interfaces(self._config.interfaces)
        warn_of_missing("--read-from", self._config.read_from)
        raise_file_limit()
        keep_freed_memory()
        # a frame waits for the GIL at most that long: with Python's 5 ms a busy thread costs frames
        sys.setswitchinterval(_SWITCH_INTERVAL_S)
        async with contextlib.AsyncExitStack() as stack:
            starting = asyncio.create_task(self._start(stack))
            ending = asyncio.create_task(self._ending.wait())
            await asyncio.wait({starting, ending}, return_when=asyncio.FIRST_COMPLETED)
            ending.cancel()
            if starting.done():
                runner = starting.result()
                await self._until_the_end(runner)
                self._draw(runner)
            else:
                await _cancelled(starting)
        say("Ended")
        return self._exit_code

    async def _start(self, stack: contextlib.AsyncExitStack) -> Runner:
        """Build all parts and serve; ``stack`` ends them in the opposite order."""
        config = self._config
        device = resolve_device(config.device)
        simulated = await self._simulate(stack)
        # beside what follows, which is short, and the simulated scan, which takes seconds too
        warming = asyncio.create_task(_in_daemon_thread(lambda: warm_up(device)))
        stack.callback(warming.cancel)
        records = PvaRecords()
        crystal_sink = PvaCrystal(f"{config.prefix}Crystal:")
        stack.callback(crystal_sink.close)
        sink = PvaSink(
            interfaces=config.interfaces,
            # one that never gets records would answer searches for names of other IOCs
            providers=[
                (crystal_sink.provider, 0),
                *(records.providers if self._security.is_readable else ()),
            ],
            # called only once a name has been put, and by then there is a runner
            on_refusal=lambda reason: runner.output_refused(reason),
        )
        stack.callback(sink.close)
        source = PvaSource()
        stack.callback(source.shutdown)
        runner = Runner(
            source,
            sink,
            _engine_factory(device, config.memory_limit),
            timeout_s=config.timeout_s,
            allocate=pinned_empty if device.startswith("cuda") else np.empty,
            optics=CaLensOptics(config.lens_timeout_s),
        )
        crystal = CrystalRunner(point_sources(config.read_from, self._curve_keys), crystal_sink)
        group = TomoStreamGroup(
            config.prefix,
            macros=config.macros,
            control=runner,
            crystal=crystal,
            security=self._security,
        )
        autosave = self._autosave(group)
        if autosave is not None:
            await autosave.status.show()  # the first client finds what went wrong
        await self._serve_records(stack, group, records, sink)
        if autosave is not None:
            self._keep_settings(stack, autosave)
        stack.callback(self._shut_down, runner)
        stack.callback(self._shut_down, crystal)
        if simulated is not None:
            await simulated.ready()
        say(welcome(config, group.recon_pva.value))
        await self._warm(stack, device, warming)
        self._begin_work(stack, runner, crystal)
        if config.start:
            await group.start_run()
        say("Ready")
        return runner

    async def _simulate(self, stack: contextlib.AsyncExitStack) -> SimulatedStream | None:
        if not self._config.simulate:
            return None
        simulated = SimulatedStream(simulator_arguments(self._config))
        stack.push_async_callback(simulated.stop)
        say("Starting the simulated scan ...")
        await simulated.start()
        return simulated

    async def _serve_records(
        self,
        stack: contextlib.AsyncExitStack,
        group: TomoStreamGroup,
        records: PvaRecords,
        sink: PvaSink,
    ) -> None:
        """Over Channel Access, and over PV Access where everybody may read."""
        config = self._config
        server = IocContext(group.pvdb, list(config.interfaces) or None)
        group.operation.watch(partial(_client_counts, server, sink))
        serving = await _serve(server)
        serving.add_done_callback(self._on_server_end)
        stack.push_async_callback(self._end_server, serving)
        log.info("%s", summary(self._security, config.access_security, config.interfaces))
        if self._security.is_readable:
            records.serve(group.records.values())
            stack.push_async_callback(records.close)
        else:
            log.warning(
                "Records are served over Channel Access only: %s does not let everybody read, and "
                "over PV Access reads can't be judged",
                config.access_security,
            )

    def _keep_settings(self, stack: contextlib.AsyncExitStack, autosave: Autosave) -> None:
        config = self._config
        stack.push_async_callback(_in_time, autosave.save_now)
        saving = asyncio.create_task(
            autosave.run(config.autosave_period_s, config.autosave_sequence_period_s)
        )
        stack.push_async_callback(_cancelled, saving)

    def _begin_work(
        self, stack: contextlib.AsyncExitStack, runner: Runner, crystal: CrystalRunner
    ) -> None:
        runner.start_thread()
        crystal.start_thread()
        tidying = asyncio.create_task(
            give_back_after_work(lambda: runner.status().state.busy or crystal.status().state.busy)
        )
        stack.push_async_callback(_cancelled, tidying)

    async def _warm(
        self, stack: contextlib.AsyncExitStack, device: str, warming: asyncio.Task[None]
    ) -> None:
        """Await the kernels that any scan needs; the rest is loaded while nobody waits for it."""
        await asyncio.wait({warming}, timeout=_SLOW_S)
        if not warming.done():
            say("Getting the kernels ready: up to a minute where they were never compiled ...")
        await warming
        is_compiled_now = time.process_time() > _LOADING_CPU_S
        rest = asyncio.create_task(_in_daemon_thread(lambda: warm_up_rest(device)))
        stack.callback(rest.cancel)
        # compiling would cost the first frames; a GPU is for one engine at a time
        if is_compiled_now or device != "cpu":
            await rest

    def _autosave(self, group: TomoStreamGroup) -> Autosave | None:
        """Settings of the last time, restored before anything runs."""
        config = self._config
        if config.autosave_dir is None:
            return None
        requests = [_database_folder() / "auto_settings.req"]
        macros = {"P": config.prefix_p, "R": config.prefix_r}
        autosave = Autosave(config.autosave_dir, requests, macros, group)
        for refusal in autosave.restore():
            log.warning("%s", refusal)
        for overruled in group.macros_overruled(config.given, config.macros):
            log.warning("%s", overruled)
        return autosave

    def _catch_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            # nohup and a shell's background jobs have said that it is not for us
            if number == signal.SIGTERM or signal.getsignal(number) is not signal.SIG_IGN:
                loop.add_signal_handler(number, self._ending.set)

    def _on_server_end(self, serving: asyncio.Task[None]) -> None:
        """Nobody asked the CA server to end: a program that no client reaches must not go on."""
        error = None if serving.cancelled() else serving.exception()
        log.error("The CA server has ended: %r", error)
        self._exit_code = 1
        self._ending.set()

    async def _end_server(self, serving: asyncio.Task[None]) -> None:
        serving.remove_done_callback(self._on_server_end)
        serving.cancel()
        await asyncio.wait({serving})  # what it raised earlier has been told

    async def _until_the_end(self, runner: Runner) -> None:
        line = StatusLine()
        deadline = time.monotonic() + self._config.seconds
        show = self._config.simulate or on_terminal()
        while not self._ending.is_set() and time.monotonic() < deadline:
            with contextlib.suppress(TimeoutError):
                left_s = deadline - time.monotonic()
                await asyncio.wait_for(self._ending.wait(), min(_STATUS_EVERY_S, max(left_s, 0)))
            if show:
                line.show(runner.status())
        line.end()

    def _draw(self, runner: Runner) -> None:
        if self._config.png is None:
            return
        last = runner.last_slices()
        if last is None:
            say("No slices were made: there is no picture")
            return
        try:
            save_slices_png(self._config.png, *last)
        except OSError as error:
            log.error("The last slices can't be drawn: %s", error)
            return
        say(f"The last slices are in {self._config.png}")

    def _shut_down(self, runner: Runner | CrystalRunner) -> None:
        if not runner.shutdown(_END_S):
            log.error("The run did not end in %g s", _END_S)


def _client_counts(server: IocContext, sink: PvaSink) -> ClientCounts:
    """Clients over CA; those that had to be disconnected, over PVA too."""
    counts = server.counts()
    return replace(counts, bad=counts.bad + sink.bad_clients)


async def _serve(context: IocContext) -> asyncio.Task[None]:
    """The server's task, once it listens. Raises ConfigError when it can't."""
    listening = asyncio.Event()

    async def tell(_: object) -> None:
        listening.set()

    serving = asyncio.create_task(context.run(startup_hook=tell))
    waiting = asyncio.create_task(listening.wait())
    await asyncio.wait({serving, waiting}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if serving.done():
        serving.result()
    return serving


async def _cancelled(task: asyncio.Task[Any]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def _in_daemon_thread(work: Callable[[], None]) -> None:
    """Await ``work`` in a thread that an early end need not wait for (compiling takes a while)."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def tell(error: Exception | None) -> None:
        if done.cancelled():
            return
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)

    def run() -> None:
        error: Exception | None = None
        try:
            work()
        except Exception as caught:  # noqa: BLE001 - handed over to whoever awaits
            error = caught
        with contextlib.suppress(RuntimeError):  # the loop has ended in the meantime
            loop.call_soon_threadsafe(tell, error)

    threading.Thread(target=run, name="warm-up", daemon=True).start()
    await done


async def _in_time(end: Callable[[], object]) -> None:
    """Writing settings at exit must not outlast the time that a service manager gives."""
    try:
        await asyncio.wait_for(asyncio.to_thread(end), _END_S)
    except TimeoutError:
        log.error("Settings could not be written in %g s", _END_S)


def _engine_factory(device: str, memory_limit: int | None) -> Callable[..., Engine]:
    def make(
        n_angles: int, n_rows: int, n_cols: int, dtype: np.dtype, heartbeat: Callable[[], None]
    ) -> Engine:
        geometry = ScanGeometry(n_angles=n_angles, n_rows=n_rows, n_cols=n_cols)
        return OrthoEngine(
            geometry,
            dtype=dtype.name,
            device=device,
            heartbeat=heartbeat,
            memory_limit=memory_limit,
        )

    return make


def _database_folder() -> Path:
    """db/ of the source tree, or where an installation puts it."""
    beside = Path(__file__).parent.parent / "db"
    return beside if beside.is_dir() else Path(sys.prefix) / "share" / "tomostream_ioc" / "db"
