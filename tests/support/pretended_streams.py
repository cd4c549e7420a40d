"""Streams, events and graphs of a GPU that is not there, see pretended_cuda."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from support.pretended_memory import Block

if TYPE_CHECKING:
    from support.pretended_cuda import PretendedGpu

#: streams that there can be, and the host
MOST_ACTORS = 64
#: gives which part of which block an operation takes, and whether it writes there
Accesses = Callable[[], list[tuple[Block, torch.Tensor, bool]]]


class Stream:
    """An order of work; ``clock`` is what is done before its next work."""

    gpu: PretendedGpu

    def __init__(self, device: Any = None, priority: int = 0):
        self.device = self.gpu.device_of(device)
        self.actor = self.gpu.new_actor()
        self.clock = np.zeros(MOST_ACTORS, np.int64)
        self.gpu.streams.append(self)

    def tick(self) -> int:
        np.maximum(self.clock, self.gpu.host, out=self.clock)  # launched after what is known
        self.clock[self.actor] += 1
        return int(self.clock[self.actor])

    def wait_event(self, event: Event) -> None:
        if event.clock is not None:
            np.maximum(self.clock, event.clock, out=self.clock)

    def wait_stream(self, stream: Stream) -> None:
        np.maximum(self.clock, stream.clock, out=self.clock)

    def synchronize(self) -> None:
        self.gpu.host_waits("Stream.synchronize", self.clock)


class Event:
    gpu: PretendedGpu

    def __init__(self, enable_timing: bool = False, blocking: bool = False):
        self.clock: np.ndarray | None = None

    def record(self, stream: Stream | None = None) -> None:
        stream = stream or self.gpu.current_stream()
        stream.tick()
        self.clock = stream.clock.copy()

    def wait(self, stream: Stream | None = None) -> None:
        (stream or self.gpu.current_stream()).wait_event(self)

    def synchronize(self) -> None:
        if self.clock is not None:
            self.gpu.host_waits("Event.synchronize", self.clock)

    def elapsed_time(self, end: Event) -> float:
        return 1.0


class Graph:
    """What was launched while it was recorded."""

    gpu: PretendedGpu

    def __init__(self) -> None:
        self.works: list[tuple[Callable[[], None], Accesses]] = []

    def replay(self) -> None:
        self.gpu.check_alive()
        for work, accesses in self.works:
            self.gpu.note(accesses(), "replay of a graph")
            work()
