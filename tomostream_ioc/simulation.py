"""The simulated tomoScan stream as a child process of the IOC, on ports of its own."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Sequence

from tomostream_ioc.config import Config
from tomostream_ioc.errors import ConfigError

log = logging.getLogger(__name__)

_READY_S = 90.0
_END_S = 2.0


class SimulatedStream:
    """Starts `python -m tomostream_ioc.sim` and makes this process find its records and channels.

    Two servers on one host can't share the search ports of loopback, so the child gets free ones,
    and this process's CA and PVA clients are pointed there.
    """

    def __init__(self, arguments: Sequence[str]):
        self._arguments = tuple(arguments)
        self._process: asyncio.subprocess.Process | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._ca_port = _free_port(socket.SOCK_DGRAM)
        self._pva_port = _free_port(socket.SOCK_STREAM)
        self._pva_search_port = _free_port(socket.SOCK_DGRAM)

    @property
    def client_environment(self) -> dict[str, str]:
        """What a client needs to reach the simulator, and nothing that serves the same names."""
        return {
            "EPICS_CA_ADDR_LIST": f"127.0.0.1:{self._ca_port}",
            "EPICS_CA_AUTO_ADDR_LIST": "NO",
            "EPICS_PVA_ADDR_LIST": f"127.0.0.1:{self._pva_search_port}",
            "EPICS_PVA_AUTO_ADDR_LIST": "NO",
            "EPICS_CA_NAME_SERVERS": "",
            "EPICS_PVA_NAME_SERVERS": "",
        }

    async def start(self) -> None:
        """Start the child; this process's clients look for its names there from now on."""
        environment = dict(os.environ)
        environment |= {
            "EPICS_CA_SERVER_PORT": str(self._ca_port),
            "EPICS_CAS_SERVER_PORT": str(self._ca_port),
            "EPICS_PVAS_SERVER_PORT": str(self._pva_port),
            "EPICS_PVAS_BROADCAST_PORT": str(self._pva_search_port),
            "PYTHONUNBUFFERED": "1",
        }
        command = [sys.executable, "-m", "tomostream_ioc.sim", "--exit-with-parent"]
        self._process = await asyncio.create_subprocess_exec(
            *command,
            "--interfaces",
            "127.0.0.1",
            *self._arguments,
            env=environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            # Ctrl-C reaches the IOC alone, which ends the child itself
            start_new_session=True,
        )
        os.environ.update(self.client_environment)

    async def ready(self) -> None:
        """Wait until the child serves.

        Raises ConfigError with how it ended when it does not.
        """
        if self._process is None:
            raise RuntimeError("the simulator was not started")
        try:
            await asyncio.wait_for(self._ready(self._process), _READY_S)
        except TimeoutError:
            await self.stop()
            raise ConfigError(f"the simulator did not get ready in {_READY_S:g} s") from None
        self._tasks.append(asyncio.create_task(_tell_end(self._process)))

    async def _ready(self, process: asyncio.subprocess.Process) -> None:
        if process.stdout is None:
            raise RuntimeError("the simulator has no output")
        async for line in process.stdout:
            if line.startswith(b"ready"):
                self._tasks.append(asyncio.create_task(_discard(process.stdout)))
                return
        code = await process.wait()
        raise ConfigError(f"the simulator ended with exit code {code} before it was ready")

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        process = self._process
        if process is None or process.returncode is not None:
            return
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), _END_S)
        except TimeoutError:
            process.kill()
            await process.wait()


def simulator_arguments(config: Config) -> tuple[str, ...]:
    """The IOC's names, and what is scanned.

    A file is replayed as it is; the phantom has a crystal that grows while one watches.
    """
    macros = config.macros
    tomo_scan, image = macros["TOMO_SCAN"], macros["IMAGE_P"]
    # never the name of a real plugin: where that one is up too, its frames would be taken
    plugin = image.removesuffix("Image") if image.endswith("Image") else f"{tomo_scan}SimPva1:"
    names = (
        *(f"--P={tomo_scan}", "--R=", f"--pva-prefix={plugin}"),
        *(
            f"--{kind}-channel={macros[f'{kind.upper()}_PVA']}"
            for kind in ("dark", "flat", "theta")
        ),
    )
    if config.scan_file is not None:
        what = ("--scan", str(config.scan_file.absolute()))
    else:
        what = ("--dynamic", "grow", "--rate", "60")
    return (*names, *what, *config.sim_arguments)


async def _tell_end(process: asyncio.subprocess.Process) -> None:
    code = await process.wait()
    how = f"exit code {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"
    log.error("the simulated scan ended with %s: there will be no more frames", how)


async def _discard(stream: asyncio.StreamReader) -> None:
    while await stream.read(65536):
        pass


def _free_port(kind: socket.SocketKind) -> int:
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
