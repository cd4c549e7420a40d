"""Worker threads for kernels that release the GIL."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
#: pieces of work per thread: the others go on where one is interrupted
_PIECES = 4


def usable_cpus() -> int:
    """CPUs that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Workers:
    """A pool of ``n_threads`` threads, one per usable CPU unless told otherwise."""

    def __init__(self, n_threads: int | None = None):
        self.n_threads = n_threads or usable_cpus()
        self._pool = ThreadPoolExecutor(self.n_threads, "recon")

    def map(self, function: Callable[[_Item], _Result], items: Sequence[_Item]) -> list[_Result]:
        """All results, in order; waits for every item even if one fails, then raises."""
        futures = [self._pool.submit(function, item) for item in items]
        failed: BaseException | None = None
        results = []
        for future in futures:
            try:
                results.append(future.result())
            except Exception as error:  # noqa: BLE001 - raised below, when no thread works any more
                failed = failed or error
        if failed is not None:
            raise failed
        return results

    def split(self, n: int, function: Callable[[int, int], object]) -> None:
        """Call function(first, end) for pieces that together are 0..n."""
        n_pieces = min(n, self.n_threads * _PIECES)
        edges = [n * i // n_pieces for i in range(n_pieces + 1)] if n_pieces else []
        self.map(lambda i: function(edges[i], edges[i + 1]), range(n_pieces))

    def close(self) -> None:
        """End the threads; waits for what they are doing."""
        self._pool.shutdown()
