"""Fault 24: a thousand clients, monitors that nobody reads, floods of puts."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Iterator

import psutil
import pytest
from ca_ioc import PREFIX, Ioc, ca_environment
from p4p.client.thread import Context
from support import raw_ca
from support.ports import environment, free_port
from support.processes import CaClient, ChildError, wait_for
from support.raw_ca import RawConnection, hello, monitor, put, read
from support.rig import Rig

MB = 1_000_000
CLIENTS = 1000


@pytest.fixture(autouse=True)
def files_enough() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * CLIENTS + 500
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip(f"only {hard} files can be open here, {wanted} are needed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def local(monkeypatch: pytest.MonkeyPatch) -> Iterator[Ioc]:
    """A server in this process."""
    for name, value in ca_environment(free_port()).items():
        monkeypatch.setenv(name, value)
    made = Ioc().start()
    yield made
    made.close()


def deaf_client(port: int, name: str, monitors: int) -> RawConnection:
    """Monitors one choice many times, with its strings, 440 bytes an update, and reads none."""
    deaf = RawConnection(port)
    deaf.send(hello("deaf"))
    sid = deaf.channel(name)
    deaf.send(*(monitor(sid, number, raw_ca.CTRL_ENUM) for number in range(monitors)))
    return deaf


def updated(deaf: RawConnection) -> tuple[int, int]:
    """The next update: monitor and value."""
    _, payload, header = deaf.until(raw_ca.EVENT_ADD)
    return header[5], int.from_bytes(payload[422:424], "big")


def flood(port: int, name: str, count: int) -> None:
    """``count`` puts of 0 and 1 as fast as they are taken, and at last 3."""
    connection = RawConnection(port, limit_s=100)
    connection.send(hello("flood"))
    sid = connection.channel(name)
    puts = [put(sid, str(number % 2)) for number in range(count)]
    connection.send(*puts, put(sid, "3"), read(sid, 7))
    connection.until(raw_ca.READ_NOTIFY)
    connection.close()


def test_24_a_monitor_that_is_not_read_costs_little_and_holds_nobody_up(local: Ioc) -> None:
    """caproto ends the updates of all clients once 10000 wait for one."""
    count, monitors = 900, 40  # 16 MB, more than two sockets hold
    name = f"{PREFIX}FilterType"
    deaf = deaf_client(local.port, name, monitors)
    reader = local.client()
    seen = reader.monitor("FilterType")
    before = psutil.Process().memory_info().rss
    flood(local.port, name, count)
    assert psutil.Process().memory_info().rss - before < 30 * MB
    assert reader.get("FilterType") == 3
    wait_for(lambda: reader.seen(seen)[-1] == 3, 30, "the newest value at another client")
    # who reads at last finds the newest value of each monitor
    newest: dict[int, int] = {}
    received = 0
    while len(newest) < monitors or set(newest.values()) != {3}:
        number, newest_value = updated(deaf)
        newest[number] = newest_value
        received += 1
    assert received < monitors * count  # some were left out: it was not all in the sockets
    deaf.close()


def test_24_updates_that_were_sent_are_not_kept(local: Ioc) -> None:
    """caproto keeps the last 1000 of each monitor of each client."""
    name = f"{PREFIX}FilterType"
    reading = deaf_client(local.port, name, 2)
    flood(local.port, name, 300)
    newest: dict[int, int] = {}
    while len(newest) < 2 or set(newest.values()) != {3}:
        number, newest_value = updated(reading)
        newest[number] = newest_value

    def kept() -> int:
        circuits = [] if local.server is None else list(local.server.circuits)
        assert circuits
        waiting = sum(len(circuit.updates) for circuit in circuits)
        return waiting + sum(len(q) for c in circuits for q in list(c.unexpired_updates.values()))

    wait_for(lambda: kept() == 0, 20, "updates to be forgotten")
    reading.close()


@pytest.fixture(scope="module")
def streaming(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    rig = Rig(tmp_path_factory.mktemp("many"))
    yield rig
    rig.close()


@pytest.mark.timeout(400)
def test_24_a_thousand_clients_cost_no_frame_and_no_answer(streaming: Rig) -> None:
    rig, ioc = streaming, streaming.ioc
    process = psutil.Process(ioc.process.pid)
    rig.scan()
    rig.run()
    center = f"{ioc.prefix}Center"
    before = process.memory_info().rss
    others = [CaClient(environment(reach=(ioc.ports,))) for _ in range(2)]
    raw: list[RawConnection] = []
    pva = Context("pva", conf=pva_conf(ioc.ports.pva_search), useenv=False)
    try:
        for _ in range(CLIENTS):
            raw.append(RawConnection(ioc.ports.ca, limit_s=60))
            raw[-1].send(hello())
            raw[-1].send(monitor(raw[-1].channel(center), 1))
        raw.append(deaf_client(ioc.ports.ca, f"{ioc.prefix}FilterType", 10))
        wait_for(lambda: ioc.get("CA_CLNT_CNT") >= CLIENTS + 1, 60, "the count of clients")
        for other in others:
            other.monitor(f"{ioc.prefix}FramesReceived")
        beats = ioc.get("HEARTBEAT")
        for value in range(2, 32):
            rig.send(value)
            raw[value].send(put(0, str(value)))
            for other in others:
                answered(other, center)
            assert pva.get(center, timeout=30) is not None
        rig.wait_received(31)
        assert rig.counts("Missed", "Dropped", "Rejected") == (0, 0, 0)
        for other in others:
            wait_for(lambda o=other: o.monitored(f"{ioc.prefix}FramesReceived")[-1] == 31, 30)
        assert ioc.get("ServerRunning") == 1
        wait_for(lambda: ioc.get("HEARTBEAT") > beats, 20, "the heart to beat")
        assert process.memory_info().rss - before < 250 * MB
    finally:
        rig.abort()
        pva.close()
        for connection in raw:
            connection.close()
        for other in others:
            other.close()
    wait_for(lambda: ioc.get("CA_CLNT_CNT") < 5, 60, "the clients to be gone")
    assert ioc.put("Center", 24, wait=True)


def answered(client: CaClient, name: str) -> None:
    """A read has its answer: each value goes to a thousand clients before, on a busy host too."""

    def value() -> bool:
        with contextlib.suppress(ChildError):  # not within 5 s
            return client.get(name) >= 0
        return False

    wait_for(value, 60, "an answer to a read")


def pva_conf(port: int) -> dict[str, str]:
    return {
        "EPICS_PVA_ADDR_LIST": f"127.0.0.1:{port}",
        "EPICS_PVA_AUTO_ADDR_LIST": "NO",
        "EPICS_PVA_BROADCAST_PORT": str(port),
    }


@pytest.mark.timeout(400)
def test_24_a_flood_of_puts_over_pva_and_ca_costs_no_frame(streaming: Rig) -> None:
    """Two clients put as fast as they can while frames come; a third is answered."""
    rig, ioc = streaming, streaming.ioc
    process = psutil.Process(ioc.process.pid)
    rig.scan()
    rig.run()
    before = process.memory_info().rss
    pva = Context("pva", conf=pva_conf(ioc.ports.pva_search), useenv=False)
    connection = RawConnection(ioc.ports.ca, limit_s=60)
    try:
        connection.send(hello())
        sid = connection.channel(f"{ioc.prefix}RotX")
        names = [f"{ioc.prefix}Center"] * 20
        for value in range(2, 22):
            connection.send(put(sid, "0") * 200)
            pva.put(names, [24.0 + value / 100] * len(names), timeout=60)
            rig.send(value)
            assert ioc.get("OrthoZ") == 16
        connection.send(read(sid, 3))
        connection.until(raw_ca.READ_NOTIFY)
        rig.wait_received(21)
        assert rig.counts("Missed", "Dropped", "Rejected") == (0, 0, 0)
        assert ioc.get("ServerRunning") == 1
        assert ioc.get("Center") == pytest.approx(24.21)
        assert process.memory_info().rss - before < 100 * MB
    finally:
        rig.abort()
        connection.close()
        pva.close()
