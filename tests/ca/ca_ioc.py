"""An IOC in a thread on a loopback port of its own, and libca clients in processes of theirs."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fake_run import FakeRun
from support.ports import free_port
from support.processes import wait_for

from tomostream_ioc.epics.group import TomoStreamGroup
from tomostream_ioc.epics.lendable_loop import LendableLoop
from tomostream_ioc.epics.server import IocContext

PREFIX = "ref:TomoStream:"
MACROS = {
    "TOMO_SCAN": "2bmb:TomoScanStream:",
    "IMAGE_P": "2bmb:TomoScanStream:PvaPluginPVPrefix",
    "DARK_PVA": "2bmb:TomoScanStream:StreamDarkFields",
    "FLAT_PVA": "2bmb:TomoScanStream:StreamFlatFields",
    "THETA_PVA": "2bmb:TomoScanStream:StreamTheta",
    "RECON_PVA": "2bmb:TomoStream:StreamRecon",
    "MCT_OPTICS": "2bm:MCTOptics:",
    "TOMO_0_DEG": "2bmb:m17",
    "TOMO_90_DEG": "2bmb:m18",
    "SAMPLE_Y": "2bmHXP:m3",
    "ROI_PLUGIN": "2bmSP2:ROI1:",
    "CRYSTAL_PVA": "",
}
LIMIT_S = 10.0


def ca_environment(port: int) -> dict[str, str]:
    """EPICS variables that keep server and clients on loopback and on this port."""
    return {
        "EPICS_CA_SERVER_PORT": str(port),
        "EPICS_CA_ADDR_LIST": f"127.0.0.1:{port}",
        "EPICS_CA_AUTO_ADDR_LIST": "NO",
        "EPICS_CA_REPEATER_PORT": str(free_port()),
        "EPICS_CAS_INTF_ADDR_LIST": "127.0.0.1",
        "EPICS_CAS_BEACON_ADDR_LIST": "127.0.0.1",
        "EPICS_CAS_AUTO_BEACON_ADDR_LIST": "NO",
    }


class Client:
    """One libca client in its own process."""

    def __init__(self, port: int):
        worker = Path(__file__).with_name("ca_worker.py")
        self._process = subprocess.Popen(
            [sys.executable, str(worker)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            bufsize=1,
            env={**os.environ, **ca_environment(port)},
        )

    def __getattr__(self, operation: str) -> Callable[..., Any]:
        def call(name: Any = None, /, *rest: Any, **arguments: Any) -> Any:
            return self._ask(operation, name, rest, arguments)

        return call

    def _ask(self, operation: str, name: Any, rest: tuple, arguments: dict[str, Any]) -> Any:
        first = {"seen": "number", "put_status": "number", "bulk": "names"}.get(operation, "name")
        second = {"put_status": "timeout", "get_as": "dbr_type"}.get(operation, "value")
        if operation == "bulk":
            name = [PREFIX + entry for entry in name]
        elif first == "name":
            name = PREFIX + name
        named = dict(zip((first, second, "dbr_type"), (name, *rest), strict=False))
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([operation, {**named, **arguments}]) + "\n")
        answer = json.loads(self._process.stdout.readline())
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer["answer"]

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


class Ioc:
    """The server in a thread, with a fake run behind it."""

    def __init__(self, prepare: Callable[[TomoStreamGroup], None] | None = None):
        self.run = FakeRun()
        self.port = free_port()
        self.group = TomoStreamGroup(PREFIX, macros=MACROS, control=self.run)
        if prepare is not None:
            prepare(self.group)
        self.clients: list[Client] = []
        self._loop = LendableLoop()  # as in the program
        self.server: IocContext | None = None
        self._task: asyncio.Task[None] | None = None
        self._thread = threading.Thread(target=self._main, name="ioc")

    def _main(self) -> None:
        asyncio.set_event_loop(self._loop)
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        server = self.server = IocContext(self.group.pvdb, ["127.0.0.1"], port=self.port)
        self.group.operation.watch(server.counts)
        self._task = asyncio.create_task(server.run())
        await self._task

    def start(self) -> Ioc:
        self._thread.start()
        wait_for(lambda: self.run.listener, what="the server's start")
        return self

    def client(self) -> Client:
        client = Client(self.port)
        self.clients.append(client)
        return client

    def value(self, name: str) -> Any:
        return self.group.records[name].value

    def close(self) -> None:
        for client in self.clients:
            client.close()
        if self._task is not None:
            self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join(LIMIT_S)
        assert not self._thread.is_alive(), "the server did not end"
