"""Threads on which the kernels work; they release the GIL."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import TypeVar

import numba

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
#: pieces of work per thread: the others go on where one is interrupted
_PIECES = 4
#: a piece also filters the rows beside it: of less rows it would do more for the neighbours' sake
_LEAST_ROWS = 32


class Threads:
    """As many threads as numba would use (NUMBA_NUM_THREADS), unless told otherwise."""

    def __init__(self, n_threads: int | None = None):
        self.n_threads = n_threads or numba.get_num_threads()
        self._pool = ThreadPoolExecutor(self.n_threads, "locate") if self.n_threads > 1 else None

    def map(self, function: Callable[[_Item], _Result], items: Sequence[_Item]) -> list[_Result]:
        """All results, in order."""
        if self._pool is None or len(items) < 2:
            return [function(item) for item in items]
        return list(self._pool.map(function, items))

    def pieces(self, n: int, least: int = _LEAST_ROWS) -> list[tuple[int, int]]:
        """First and end of pieces that together are 0..n, of ``least`` or more each."""
        n_pieces = max(1, min(n // least, self.n_threads * _PIECES if self._pool else 1))
        edges = [n * i // n_pieces for i in range(n_pieces + 1)]
        return list(pairwise(edges))

    def close(self) -> None:
        """End the threads."""
        if self._pool is not None:
            self._pool.shutdown()
