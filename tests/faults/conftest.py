"""Fixtures of the fault tests: a rig for each module, idle and with a fresh scan for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.rig import Rig


@pytest.fixture(scope="module")
def rig_folder(tmp_path_factory) -> Path:
    """Where the module's IOC keeps its settings."""
    return tmp_path_factory.mktemp("rig")


@pytest.fixture(scope="module")
def timeout_s() -> float:
    """How long a channel may take to answer; a module may have its own."""
    return 8


@pytest.fixture(scope="module")
def shared_rig(rig_folder: Path, timeout_s: float) -> Iterator[Rig]:
    rig = Rig(rig_folder, timeout_s=timeout_s)
    yield rig
    rig.close()


@pytest.fixture
def rig(shared_rig: Rig) -> Rig:
    """The module's rig, idle, with a fresh detector and a scan of 60 angles."""
    if shared_rig.ioc.get("StartRecon"):
        shared_rig.abort()
    shared_rig.detector.close()
    shared_rig.start_detector()
    shared_rig.tomoscan.do("frame_type 0")
    shared_rig.scan()
    return shared_rig
