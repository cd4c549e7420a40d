"""--access-security from the command line to the client."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from p4p.client.thread import Context
from support.ports import environment
from support.processes import ChildError, Ioc, wait_for


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Who writes is judged, and for one group who reads too."""
    path = tmp_path_factory.mktemp("access") / "ioc.acf"
    path.write_text(
        "UAG(nobody) {nobody-has-this-name}\n"
        "ASG(DEFAULT) { RULE(1, READ) RULE(1, WRITE) { UAG(nobody) } }\n"
        "ASG(HIDDEN) { RULE(1, READ) { UAG(nobody) } }\n"
    )
    return path


@pytest.fixture(scope="module")
def ioc(path: Path) -> Iterator[Ioc]:
    made = Ioc(path.parent, "--TOMO_SCAN", "", "--access-security", str(path))
    try:
        made.expect("Ready")
        yield made
    finally:
        made.close()


def test_the_file_of_the_command_line_holds(ioc: Ioc, path: Path) -> None:
    assert f"Access: by {path}, groups DEFAULT, HIDDEN;" in ioc.output
    before = ioc.get("HEARTBEAT")
    with pytest.raises(ChildError, match="Write access denied"):
        ioc.put("OrthoX", 7)
    wait_for(lambda: ioc.get("HEARTBEAT") > before, 10, "the heartbeat")
    assert ioc.get("OrthoX") == 0


def test_where_reads_are_judged_searches_for_other_names_get_no_answer(ioc: Ioc) -> None:
    """An answer would keep clients from the IOC that has the name."""
    assert "served over Channel Access only" in ioc.output
    settings = environment(reach=(ioc.ports,))
    with Context("pva", conf=settings, useenv=False) as client:
        assert client.get("sys:TomoStream:StreamRecon", timeout=10) is not None
        with pytest.raises(TimeoutError):
            client.get("another:IOC:Name", timeout=2)
    assert "makeChannel" not in ioc.output
