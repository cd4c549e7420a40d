"""A C IOC beside ours that serves the same database."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from support.ports import ServerPorts, environment
from support.processes import Child

SCRIPT = Path(__file__).parents[1] / "pva" / "softioc_database.py"


@contextlib.contextmanager
def c_ioc(folder: Path, macros: Mapping[str, str]) -> Iterator[ServerPorts]:
    """Where it serves ``ref:TomoStream:``; ``folder`` takes its copy of the database."""
    ports = ServerPorts()
    given = {"P": "ref:", "R": "TomoStream:", "CAMERA": "", **macros}
    text = ",".join(f"{name}={value}" for name, value in given.items())
    child = Child([str(SCRIPT), str(folder), text], environment(ports))
    try:
        child.expect("ready", 60.0)
        yield ports
    finally:
        child.close()
