"""The program under test, streaming its simulation, and the screens' files."""

from __future__ import annotations

import pytest
from support.processes import Ioc

SMALL = "--sim-arguments=--size 64 --angles 36"


@pytest.fixture(scope="module")
def ioc(tmp_path_factory):
    """The IOC with all features on, reconstructing."""
    ioc = Ioc(tmp_path_factory.mktemp("screens"), "--simulate", SMALL)
    try:
        ioc.expect("Ready")
        ioc.wait_status("Running", 60)
        yield ioc
    finally:
        ioc.close()
