"""Fault 28: clients killed amid a busy put."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from ca_ioc import PREFIX
from records_ioc import RecordsIoc
from support.ports import ServerPorts, environment
from support.processes import Child, wait_for

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
        wait_for(lambda: ioc.value(name) == 1, what="the work")
        client.close()  # SIGKILL
    else:
        script = PUT_OVER_PVA.format(name=PREFIX + name)
        child = Child(["-c", script], environment(reach=(ports,)))
        try:
            wait_for(lambda: ioc.value(name) == 1, what="the work", limit_s=60)
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
    wait_for(lambda: ioc.value(name) == 1, what="the next work")
    getattr(ioc.run, end)()
    assert other.put_status(again, 20.0) == NORMAL
