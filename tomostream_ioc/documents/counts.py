"""What a stage took in, lost and passed on, and how fast."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field


@dataclass(slots=True)
class StageCounts:
    """Since the stage was made. What a stage takes is an image, or one peak of a table.

    received: came, whole or not. processed: done. found: rows passed on (images, peaks, tracks'
    rows, maps). failed: can't be used, or the work on it raised an error. missed: never came (gap
    in seq_num). repeated: came again, or after a later one, and was left out. orphans: documents
    whose start or descriptor never came, as for a late subscriber. runs: derived runs closed, and
    partial_runs those of them that are not whole. subscriber_errors: documents that a subscriber,
    such as a database, refused with an error.
    """

    received: int = 0
    processed: int = 0
    found: int = 0
    failed: int = 0
    missed: int = 0
    repeated: int = 0
    orphans: int = 0
    runs: int = 0
    partial_runs: int = 0
    subscriber_errors: int = 0


@dataclass(slots=True)
class Pace:
    """Rate and time of the last pieces of work.

    work_s: seconds of the last piece. latency_s: from when its data were taken to when it was
    done, as far as the two clocks agree; NaN before the first.
    """

    work_s: float = float("nan")
    latency_s: float = float("nan")
    _ends: deque[float] = field(default_factory=lambda: deque(maxlen=32))

    @property
    def rate_hz(self) -> float:
        """Mean over the last 32; 0 before the second."""
        ends = list(self._ends)
        if len(ends) < 2 or ends[-1] <= ends[0]:
            return 0.0
        return (len(ends) - 1) / (ends[-1] - ends[0])

    def done(self, began: float, taken: float) -> None:
        """``began`` is of time.monotonic, ``taken`` (when the data were taken) of time.time."""
        now = time.monotonic()
        self._ends.append(now)
        self.work_s = now - began
        self.latency_s = time.time() - taken
