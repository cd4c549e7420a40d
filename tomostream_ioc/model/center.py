"""What a search for the axis of rotation has found."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CenterEstimate:
    """``center`` is a detector column (pixel centres count from 0).

    ``confidence`` is 0..1, to be trusted above `TRUSTED`; docs/reconstruction/center.md says what
    it means. ``reason`` says in a few words what makes it low, '' when nothing does.
    """

    center: float
    confidence: float
    reason: str = ""

    @property
    def trusted(self) -> bool:
        return self.confidence >= TRUSTED


#: least confidence with which a result is put into Center by itself
TRUSTED = 0.5
