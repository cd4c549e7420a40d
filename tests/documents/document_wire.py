"""What tests of documents on the wire share: a proxy, a short run, and who takes it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from typing import Any

from crystal_scan import KEY, PIXELS, SHAPE, frames_at
from event_model import compose_run
from support.ports import free_port
from support.processes import Child

from tomostream_ioc.documents.transport import DocumentReceiver
from tomostream_ioc.documents.transport.address import Address

LIMIT_S = 60.0


class Proxy(Child):
    def __init__(self, *options: str):
        self.ports = Address("localhost", free_port()), Address("localhost", free_port())
        arguments = ["-m", "tomostream_ioc.documents", "proxy", *(str(a.port) for a in self.ports)]
        super().__init__([*arguments, *options], dict(os.environ, PYTHONUNBUFFERED="1"))
        self.expect("Ready", 120.0)


def run_of(n: int) -> Iterator[tuple[str, Any]]:
    """Documents of a run of n points."""
    bundle = compose_run(metadata={"shape": list(SHAPE), "snaking": [False, True]})
    key: Any = {"dtype": "array", "dtype_numpy": "<u2", "shape": [3, *PIXELS], "source": "SIM"}
    described = bundle.compose_descriptor(name="primary", data_keys={KEY: key})
    yield "start", bundle.start_doc
    yield "descriptor", described.descriptor_doc
    for point in range(n):
        frames = frames_at(divmod(point, SHAPE[1]))
        yield "event", described.compose_event(data={KEY: frames}, timestamps={KEY: 1.0})
    yield "stop", bundle.compose_stop()


def take(receiver: DocumentReceiver, condition: Callable[[], bool]) -> list[tuple[str, Any]]:
    """Documents that come until ``condition()``."""
    deadline, got = time.monotonic() + LIMIT_S, []
    while not condition():
        assert time.monotonic() < deadline, (receiver.counts, len(got))
        document = receiver.receive(0.1)
        if document is not None:
            got.append(document)
    return got
