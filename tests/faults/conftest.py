"""Fixtures of the fault tests: a rig for each module, idle and with a fresh scan for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.rig import Rig


@pytest.fixture(scope="module")
def shared_rig(tmp_path_factory) -> Iterator[Rig]:
    rig = Rig(tmp_path_factory.mktemp("rig"))
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
