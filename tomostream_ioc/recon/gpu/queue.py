"""Work for the GPU that the host does not wait for: small uploads, and replay of many launches."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch

_log = logging.getLogger(__name__)
#: uploads that may wait; one more waits for the first
_DEPTH = 8
#: the same work is recorded when it comes this often, and so many works are kept
RECORD_AT = 3
_MOST_GRAPHS = 8


def on_device(device: torch.device) -> AbstractContextManager[object]:
    """Makes ``device`` the one that kernels are launched on; nothing to do on the CPU."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


class Numbers:
    """An array on the device that the host fills anew for each batch, without waiting.

    `host` gives an array to fill, `send` copies it to ``on_device`` in the order of the stream:
    work that was launched before still sees the last numbers.
    """

    def __init__(self, size: int, dtype: torch.dtype, device: torch.device):
        self._cuda = device.type == "cuda"
        self._buffers = [
            torch.zeros(size, dtype=dtype, pin_memory=self._cuda)
            for _ in range(_DEPTH if self._cuda else 1)
        ]
        self._sent = [torch.cuda.Event() for _ in self._buffers] if self._cuda else []
        self._at = 0
        self.on_device = torch.zeros(size, dtype=dtype, device=device)

    def host(self) -> np.ndarray:
        """The array (size,) to fill before the next `send`."""
        if self._cuda:
            self._sent[self._at].synchronize()  # returns at once if it was never recorded
        return self._buffers[self._at].numpy()

    def send(self) -> None:
        self.on_device.copy_(self._buffers[self._at], non_blocking=True)
        if self._cuda:
            self._sent[self._at].record()
            self._at = (self._at + 1) % _DEPTH


class Replay:
    """Runs work that only launches kernels; what comes often is recorded as one CUDA graph.

    The work of a ``key`` must be the same each time: same buffers, same shapes. Where recording
    fails the work is launched kernel by kernel, as without; a line in the log says so.
    """

    def __init__(self, what: str, device: torch.device, enabled: bool = True):
        self._what = what
        self._device = device
        self._enabled = enabled and device.type == "cuda"
        self._graphs: dict[Hashable, torch.cuda.CUDAGraph] = {}
        self._runs: Counter[Hashable] = Counter()
        self._pool = torch.cuda.graph_pool_handle() if self._enabled else None
        # torch's own for this is on the device that was recorded on first, whichever it is now
        self._stream = torch.cuda.Stream(device) if self._enabled else None

    @property
    def n_recorded(self) -> int:
        return len(self._graphs)

    def run(self, key: Hashable, work: Callable[[], None]) -> None:
        graph = self._graphs.get(key)
        if graph is not None:
            graph.replay()
            return
        work()  # compiles and plans what can't be done while recording
        if self._enabled and len(self._graphs) < _MOST_GRAPHS:
            self._runs[key] += 1
            if self._runs[key] >= RECORD_AT:
                self._record(key, work)

    def clear(self) -> None:
        self._graphs.clear()
        self._runs.clear()

    def _record(self, key: Hashable, work: Callable[[], None]) -> None:
        graph = torch.cuda.CUDAGraph()
        try:
            # where recording fails, torch leaves the thread on the stream that was recorded
            with torch.cuda.stream(torch.cuda.current_stream(self._device)):
                self._capture(graph, work)
        except RuntimeError as error:
            self._enabled = False
            _log.warning(
                "%s on %s: no CUDA graph, kernels are launched one by one: %s",
                self._what, self._device, error,
            )  # fmt: skip
            return
        self._graphs[key] = graph
        _log.info("%s on %s: recorded as a CUDA graph for %s", self._what, self._device, key)

    def _capture(self, graph: torch.cuda.CUDAGraph, work: Callable[[], None]) -> None:
        # other threads (uploads of other engines, say) may go on meanwhile
        with torch.cuda.graph(
            graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"
        ):
            work()
