"""Fault 28: clients killed amid a busy put; fault 27 over PV Access: damaged messages."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
from collections.abc import Iterator

import pytest
from ca_ioc import PREFIX, wait_for
from records_ioc import PvaClient, RecordsIoc
from support.ports import ServerPorts, environment
from support.processes import Child

NORMAL = 1
PUT_OVER_PVA = """
from p4p.client.thread import Context
Context("pva", nt=False).put("{name}", {{"value.index": 1}},
    request="record[block=true]field(value.index)", timeout=100, get=False)
"""


@pytest.fixture
def ports() -> ServerPorts:
    return ServerPorts()


@pytest.fixture
def ioc(ports: ServerPorts, monkeypatch: pytest.MonkeyPatch) -> Iterator[RecordsIoc]:
    for name, value in environment(serve=ports, reach=(ports,)).items():
        if name.startswith("EPICS_"):
            monkeypatch.setenv(name, value)
    made = RecordsIoc()
    made.start()
    yield made
    made.close()


@pytest.mark.parametrize(("name", "end"), [("StartRecon", "end"), ("FindCenter", "end_search")])
@pytest.mark.parametrize("way", ["ca", "pva"])
def test_28_the_work_goes_on_and_the_next_put_callback_works(
    ioc: RecordsIoc, ports: ServerPorts, way: str, name: str, end: str
) -> None:
    if way == "ca":
        client = ioc.client()
        client.start_put(name, "1")
        wait_for(lambda: ioc.value(name) == 1, "the work")
        client.close()  # SIGKILL
    else:
        script = PUT_OVER_PVA.format(name=PREFIX + name)
        child = Child(["-c", script], environment(reach=(ports,)))
        try:
            wait_for(lambda: ioc.value(name) == 1, "the work", 60)
            child.process.kill()
        finally:
            child.close()
    other = ioc.client()
    assert other.get(name) == 1
    waiting = other.start_put(name, "1")
    assert other.put("RotX", "2") == NORMAL
    getattr(ioc.run, end)()
    assert other.put_status(waiting, 20.0) == NORMAL
    again = other.start_put(name, "1")
    wait_for(lambda: ioc.value(name) == 1, "the next work")
    getattr(ioc.run, end)()
    assert other.put_status(again, 20.0) == NORMAL


def test_27_garbage_over_pva_leaves_a_server_that_serves(
    ioc: RecordsIoc, ports: ServerPorts
) -> None:
    """pvxs has no cap on a length: see docs/epics.md. What is claimed alone costs nothing."""
    chance = random.Random(5)
    held: list[socket.socket] = []
    for _ in range(60):
        sock = socket.create_connection(("127.0.0.1", ports.pva), 20)
        held.append(sock)
        body = chance.randbytes(chance.randrange(200))
        claimed = chance.choice((len(body), 0xFFFFFFF0, 0, 7))
        command = chance.randrange(0, 24)
        header = struct.pack("<BBBBI", 0xCA, 2, chance.choice((0, 1, 0x80, 0xFF)), command, claimed)
        with contextlib.suppress(ConnectionError):
            sock.sendall(header + body if chance.random() < 0.8 else body)
    client = PvaClient()
    try:
        client.put("Center", 8.5)
        assert ioc.value("Center") == 8.5
    finally:
        client.close()
        for sock in held:
            sock.close()
    assert ioc.client().put("Center", "9") == NORMAL
