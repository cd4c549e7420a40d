"""Fixtures of the CA tests: IOCs on loopback ports of their own, and libca clients."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from ca_ioc import Client, Ioc, ca_environment
from support.ports import free_port

from tomostream_ioc.epics.group import TomoStreamGroup


@pytest.fixture
def make_ioc(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Ioc]]:
    """Makes started IOCs, each on its own port, and ends them after the test."""
    made: list[Ioc] = []
    for name, value in ca_environment(free_port()).items():
        monkeypatch.setenv(name, value)

    def make(prepare: Callable[[TomoStreamGroup], None] | None = None) -> Ioc:
        made.append(Ioc(prepare))
        return made[-1].start()

    yield make
    for ioc in made:
        ioc.close()


@pytest.fixture
def ioc(make_ioc: Callable[..., Ioc]) -> Ioc:
    return make_ioc()


@pytest.fixture
def client(ioc: Ioc) -> Client:
    return ioc.client()


@pytest.fixture(scope="module")
def module_ioc() -> Iterator[Ioc]:
    """One for all tests of a module that asks for it."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ca_environment(free_port()).items():
            patch.setenv(name, value)
        made = Ioc().start()
        yield made
        made.close()
