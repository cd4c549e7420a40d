"""What a stage took in, lost and passed on, and how fast."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any


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
class RecordCounts:
    """What has become of documents on their way to a database, since it was opened.

    rows: of peaks, tracks and other events, that are stored. rows_lost: that never will be.
    documents_lost: others, such as a run's stop. attempts: to store rows, that failed; such rows
    are kept and tried again.
    """

    rows: int = 0
    rows_lost: int = 0
    documents_lost: int = 0
    attempts: int = 0

    @property
    def losses(self) -> str:
        """What is lost, for a sentence; '' where nothing is."""
        parts = [(self.documents_lost, "document"), (self.rows_lost, "row")]
        return " and ".join(f"{n} {what}{'s' * (n > 1)}" for n, what in parts if n)

    def lose(self, name: str, doc: Mapping[str, Any]) -> None:
        """One document is not stored, and will not be."""
        n_rows = rows_in(name, doc)
        self.rows_lost += n_rows
        self.documents_lost += not n_rows

    def plus(self, other: RecordCounts, sign: int = 1) -> RecordCounts:
        """The sum; the difference where ``sign`` is -1."""
        return RecordCounts(
            *(getattr(self, f.name) + sign * getattr(other, f.name) for f in fields(self))
        )


def rows_in(name: str, doc: Mapping[str, Any]) -> int:
    """Rows of a table that a document makes."""
    return len(doc["seq_num"]) if name == "event_page" else int(name == "event")


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
