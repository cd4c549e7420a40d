"""The CA server itself: its port, names that do not fit, refusals on the wire."""

from __future__ import annotations

import asyncio
import socket

import pytest
from ca_ioc import MACROS, PREFIX, Client, Ioc
from fake_run import FakeRun
from support.processes import wait_for

from tomostream_ioc.epics.group import TomoStreamGroup
from tomostream_ioc.epics.server import IocContext
from tomostream_ioc.errors import ConfigError


async def _serve_on(port: int) -> None:
    group = TomoStreamGroup(PREFIX, macros=MACROS, control=FakeRun())
    await IocContext(group.pvdb, ["127.0.0.1"], port=port).run()


def test_a_port_in_use_is_an_error_and_not_another_port(ioc: Ioc) -> None:
    with pytest.raises(ConfigError, match=f"CA port {ioc.port} of 127.0.0.1 can't be used"):
        asyncio.run(_serve_on(ioc.port))


@pytest.mark.parametrize(
    ("prefix", "macros", "what"),
    [
        ("x" * 50, {}, "can't name a record: at most 60"),
        ("2bmb:\n", {}, "can't name a record"),
        (PREFIX, {"IMAGE_P": "y" * 40}, "macro IMAGE_P can't be the value of .*ImagePVAPName"),
    ],
)
def test_names_that_do_not_fit_are_configuration_errors(
    prefix: str, macros: dict[str, str], what: str
) -> None:
    with pytest.raises(ConfigError, match=what):
        TomoStreamGroup(prefix, macros=macros, control=FakeRun())


def test_a_run_that_fails_to_answer_stops_neither_records_nor_server(
    ioc: Ioc, client: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    wait_for(lambda: ioc.value("ServerRunning") == 1, what="Running")
    end = client.start_put("StartRecon", "1")
    wait_for(lambda: ioc.value("StartRecon") == 1, what="Acquire")

    def broken() -> None:
        raise RuntimeError("status is broken")

    monkeypatch.setattr(ioc.run, "status", broken)
    ioc.run.end()
    assert client.put_status(end, 5.0) == 1
    assert client.get("StartRecon") == 0
    wait_for(lambda: "status is broken" in caplog.text, what="the log")
    assert client.put("Center", "3") == 1
    monkeypatch.setattr(ioc.run, "set_params", broken)
    assert client.put("Center", "4") == 160
    assert client.get("Center") == 3


def test_the_server_ends_with_its_tasks_and_leaves_its_port(ioc: Ioc) -> None:
    client = ioc.client()
    client.start_put("StartRecon", "1")
    wait_for(lambda: ioc.value("StartRecon") == 1, what="Acquire")
    ioc.close()
    ioc.close = lambda: None
    with socket.socket() as again:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind(("127.0.0.1", ioc.port))


def test_answers_are_not_held_back_by_nagle_s_algorithm(ioc: Ioc, client: Client) -> None:
    assert client.get("CenterTweak") == 3
    assert ioc.server is not None
    writers = [circuit.client.writer for circuit in ioc.server.circuits]
    assert writers
    for writer in writers:
        connection = writer.get_extra_info("socket")
        assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
