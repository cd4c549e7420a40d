"""The simulator as a process: builds the parts, serves them, and ends cleanly on signals."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

from caproto.asyncio.server import Context

from tomostream_ioc.environment import check_interfaces, check_variables
from tomostream_ioc.errors import ConfigError
from tomostream_ioc.scan_file import ScanFile
from tomostream_ioc.sim.channels import Channels
from tomostream_ioc.sim.cli import SimConfig, parse
from tomostream_ioc.sim.commands import CommandReader
from tomostream_ioc.sim.detector import Detector
from tomostream_ioc.sim.faults import FaultPlan
from tomostream_ioc.sim.phantom import default_phantom
from tomostream_ioc.sim.records import Records
from tomostream_ioc.sim.source import FileSource, FrameSource, PhantomSource
from tomostream_ioc.sim.stream import Stream

_PARENT_PERIOD_S = 0.25


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code: 0 after a signal or 'quit', 2 for options that can't be used."""
    parent = os.getppid()
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(message)s")
    for name in ("caproto.ctx", "caproto.circ"):
        logging.getLogger(name).addFilter(_quieter)
    try:
        config = parse(sys.argv[1:] if argv is None else argv)
        check_variables()
        check_interfaces(config.interfaces)
        source = make_source(config)
        source.schedule(config.scan_type)
    except (ConfigError, MemoryError, OSError) as error:
        print(f"tomostream_ioc.sim: {error}", file=sys.stderr)
        return 2
    try:
        return asyncio.run(_serve(config, source, parent))
    except OSError as error:
        print(f"tomostream_ioc.sim: can't serve: {error}", file=sys.stderr)
        return 2
    finally:
        source.close()


def _quieter(record: logging.LogRecord) -> bool:
    """caproto logs a traceback per beacon where no CA repeater runs, and per refused put."""
    if isinstance(record.exc_info, tuple) and "write request" in str(record.msg):
        record.msg, record.args = f"put refused: {record.exc_info[1]}", ()
        record.exc_info = None
    return "beacon" not in str(record.msg)


def make_source(config: SimConfig) -> FrameSource:
    """Raises ConfigError: a file that is no DXfile, or a pixel type that does not exist."""
    if config.scan is not None:
        return FileSource(ScanFile(config.scan, config.memory_bytes))
    phantom = default_phantom(
        config.n_rows, config.n_cols, dynamic=config.dynamic, period_turns=config.period_turns
    )
    detector = Detector(config.n_rows, config.n_cols, config.detector)
    return PhantomSource(
        phantom, detector, config.n_angles, config.center, config.start_deg, config.memory_bytes
    )


async def _serve(config: SimConfig, source: FrameSource, parent: int) -> int:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # as a shell's background job has it
        loop.add_signal_handler(signal.SIGINT, stop.set)

    channels = Channels(config.names.channels)
    plan = FaultPlan(config.seed, config.faults)
    stream = Stream(source, channels, plan, config.stream)
    records = Records(config.names, stream, source, config.first_projid)
    # the frames computed ahead take seconds: a signal is heard meanwhile
    opening = asyncio.create_task(asyncio.to_thread(stream.open, config.scan_type, records))
    tasks: list[asyncio.Task[Any]] = [asyncio.create_task(stop.wait())]
    if config.exit_with_parent:
        tasks.append(asyncio.create_task(_watch_parent(parent)))
    await asyncio.wait([opening, *tasks], return_when=asyncio.FIRST_COMPLETED)
    try:
        if opening.done():
            opening.result()
            tasks += await _start_serving(config, channels, stream, records, stop)
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await asyncio.to_thread(stream.close)
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        channels.close()
    for result in results:
        if isinstance(result, Exception):
            raise result
    try:
        print(json.dumps(stream.report()), flush=True)
    except BrokenPipeError:  # the parent has gone, and the interpreter would flush once more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


async def _start_serving(
    config: SimConfig, channels: Channels, stream: Stream, records: Records, stop: asyncio.Event
) -> list[asyncio.Task[Any]]:
    """Everything that must run while the process is up; prints the line that says it is ready."""
    await records.set_up(config.scan_type)
    pva = channels.serve(_pva_conf(config))
    pva_port = int(pva["EPICS_PVAS_SERVER_PORT"])
    if config.pva_port not in (None, pva_port):
        # pvxs would go on, on another port
        raise OSError(f"PVA port {config.pva_port} is in use")
    context = _ca_context(config, records)
    listening = asyncio.Event()

    async def on_listening(_async_lib: object) -> None:
        listening.set()

    server = asyncio.create_task(context.run(startup_hook=on_listening))
    tasks: list[asyncio.Task[Any]] = [
        server,
        asyncio.create_task(records.write_told()),
        asyncio.create_task(records.write_counts()),
    ]
    listened = asyncio.create_task(listening.wait())
    await asyncio.wait([server, listened], return_when=asyncio.FIRST_COMPLETED)
    listened.cancel()
    if server.done():
        return tasks
    if config.ca_port not in (None, context.port):
        raise OSError(f"CA port {config.ca_port} is in use")
    if config.commands:
        CommandReader(stream, stop, config.scan_type).attach()
    n_rows, n_cols = stream.shape
    facts = {
        **channels.names,
        "ca_port": context.ca_server_port,
        "ca_tcp_port": context.port,
        "pva_port": pva_port,
        "rows": n_rows,
        "cols": n_cols,
        "center": "unknown" if (center := stream.center) is None else center,
        "angles": stream.n_angles,
        "scan_type": config.scan_type,
        "rate": config.stream.rate_fps,
    }
    print("ready", *(f"{key}={value}" for key, value in facts.items()), flush=True)
    if not config.idle:
        stream.start_scan(config.scan_type)
    return tasks


def _pva_conf(config: SimConfig) -> dict[str, str]:
    conf: dict[str, str] = {}
    if config.pva_port is not None:
        conf["EPICS_PVAS_SERVER_PORT"] = str(config.pva_port)
    if config.interfaces:
        conf["EPICS_PVAS_INTF_ADDR_LIST"] = " ".join(config.interfaces)
        conf["EPICS_PVAS_BEACON_ADDR_LIST"] = " ".join(config.interfaces)
        conf["EPICS_PVAS_AUTO_BEACON_ADDR_LIST"] = "NO"
    return conf


def _ca_context(config: SimConfig, records: Records) -> Context:
    """caproto's server; it honours EPICS_CA_SERVER_PORT only, a C IOC EPICS_CAS_SERVER_PORT too."""
    if config.interfaces:
        # caproto would send beacons into every network; it takes their addresses from here only
        os.environ.setdefault("EPICS_CAS_BEACON_ADDR_LIST", " ".join(config.interfaces))
        os.environ.setdefault("EPICS_CAS_AUTO_BEACON_ADDR_LIST", "NO")
    context = Context(records.pvdb, list(config.interfaces) or None)
    port = config.ca_port or os.environ.get("EPICS_CAS_SERVER_PORT")
    if port is not None:
        context.ca_server_port = int(port)  # pyright: ignore[reportAttributeAccessIssue]
    return context


async def _watch_parent(parent: int) -> None:
    """Ends when the parent process has gone (this one then has another parent)."""
    while os.getppid() == parent:
        await asyncio.sleep(_PARENT_PERIOD_S)
