"""Counts of every frame that came and of every frame that was lost, one PV each."""

from __future__ import annotations

import threading
from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True)
class FrameCounts:
    """Frames since the run started.

    received: decoded whole, before any test of order or type. rejected: not usable (sizes, codec,
    no angle, ...). missed: never came (gap in the unique ids). duplicate: came twice. disordered:
    came after a later one. dropped: came, but the engine was too slow to take it. skipped: dark
    and flat frames (FrameType not Projection) and frames of a change of lens, which are no loss.
    """

    received: int = 0
    rejected: int = 0
    missed: int = 0
    duplicate: int = 0
    disordered: int = 0
    dropped: int = 0
    skipped: int = 0

    @property
    def usable(self) -> int:
        """Projections that came and have an angle."""
        return self.received - self.rejected - self.duplicate - self.skipped


class Counters:
    """Thread-safe FrameCounts that grow."""

    _names = frozenset(field.name for field in fields(FrameCounts))

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts = dict.fromkeys(self._names, 0)

    def add(self, **increments: int) -> None:
        """Add to one or several counts, by name; a negative increment corrects (a late frame)."""
        with self._lock:
            for name, increment in increments.items():
                self._counts[name] += increment

    def reset(self) -> None:
        with self._lock:
            self._counts = dict.fromkeys(self._names, 0)

    def snapshot(self) -> FrameCounts:
        with self._lock:
            return FrameCounts(**self._counts)
