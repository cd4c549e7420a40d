"""Faults of the transport on request, by seed: lost, doubled and swapped frames."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np


@dataclass(slots=True)
class FaultRates:
    """Probability per frame that it is lost, sent twice, or changes places with the next one."""

    loss: float = 0.0
    duplicates: float = 0.0
    disorder: float = 0.0


@dataclass(slots=True)
class FaultTotals:
    lost: int = 0
    duplicated: int = 0
    swapped: int = 0


class FaultPlan:
    """Decides, frame by frame, which frame numbers are really sent.

    Three random numbers are drawn for every frame, whatever the rates are: which frames are hit
    depends on seed and rates alone, not on speed or on rates changed meanwhile for other frames.
    """

    def __init__(self, seed: int, rates: FaultRates) -> None:
        self.rates = rates
        self.totals = FaultTotals()
        self.lost: list[int] = []
        self._rng = np.random.default_rng(seed)
        self._held: int | None = None

    def send_order(self, k: int) -> list[int]:
        """The frame numbers to send now that frame k is there: none, one or two.

        The later one of a swapped pair is sent plainly, the earlier one after it.
        """
        lose, repeat, swap = self._rng.random(3) < (
            self.rates.loss,
            self.rates.duplicates,
            self.rates.disorder,
        )
        if self._held is not None:
            held, self._held = self._held, None
            self.totals.swapped += 1
            return [k, held]
        if lose:
            self.totals.lost += 1
            self.lost.append(k)
            return []
        if repeat:
            self.totals.duplicated += 1
            return [k, k]
        if swap:
            self._held = k
            return []
        return [k]

    def flush(self) -> Iterator[int]:
        """A frame still held back when the stream ends is sent in its place after all."""
        if self._held is not None:
            held, self._held = self._held, None
            yield held
