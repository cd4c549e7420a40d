"""Times of repeated work: the median, and the best, which says how much others disturbed it."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import NamedTuple

#: work is repeated until it took that long altogether, at least as often as asked
_LEAST_S = 0.3
_MOST_RUNS = 200


class Times(NamedTuple):
    """Median and best of several runs, in seconds or whatever they were turned into."""

    median: float
    best: float

    def rate(self, amount: float) -> Times:
        """How much per unit of time."""
        return Times(amount / self.median, amount / self.best)

    def scaled(self, factor: float) -> Times:
        return Times(factor * self.median, factor * self.best)

    def __str__(self) -> str:
        digits = 0 if self.median >= 1000 else 1 if self.median >= 100 else 2
        return f"{self.median:.{digits}f} ({self.best:.{digits}f})"


def seconds(work: Callable[[], object], repeats: int) -> Times:
    """Times of ``work``, after one run that is not counted: short work is repeated more often."""
    work()
    times: list[float] = []
    while len(times) < repeats or (sum(times) < _LEAST_S and len(times) < _MOST_RUNS):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return Times(median(times), min(times))
