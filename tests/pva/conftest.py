"""Ports of their own for each test, senders in processes, a source that is closed in the end."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest
from pva_helpers import Script
from support.ports import ServerPorts, environment

from tomostream_ioc.epics.pva_source import PvaSource


@pytest.fixture
def ports() -> ServerPorts:
    return ServerPorts()


@pytest.fixture
def client_environment(ports: ServerPorts, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """This process finds what is served on ``ports``, and nothing else."""
    env = environment(reach=(ports,))
    for name in os.environ:
        if name.startswith("EPICS_"):
            monkeypatch.delenv(name)
    for name, value in env.items():
        if name.startswith("EPICS_"):
            monkeypatch.setenv(name, value)
    return env


@pytest.fixture
def start(ports: ServerPorts) -> Iterator[Callable[..., Script]]:
    """Starts a sender script that serves on ``ports``."""
    running: list[Script] = []

    def run(script: str, *options: str) -> Script:
        running.append(Script(script, environment(ports), *options))
        return running[-1]

    yield run
    for child in running:
        child.close()


@pytest.fixture
def source(client_environment: dict[str, str]) -> Iterator[PvaSource]:
    made = PvaSource()
    yield made
    made.shutdown()
