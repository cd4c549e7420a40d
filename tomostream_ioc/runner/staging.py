"""The bounded queue between the transport's thread and the engine's: one copy per frame."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Allocate = Callable[[tuple[int, ...], np.dtype], np.ndarray]
#: (place, pixels): writes a frame as it came into its place; must not hold the GIL
Write = Callable[[np.ndarray, np.ndarray], None]

#: memory for frames that wait, and the most and fewest of them
_BUDGET_BYTES = 512 << 20
_MOST_FRAMES = 1024
_FEWEST_FRAMES = 8


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Frames that were waiting, oldest first; the arrays are views, valid until `done`."""

    frames: np.ndarray  # (k, n_rows, n_cols) raw
    theta_deg: np.ndarray  # (k,) float64
    slots: np.ndarray  # (k,) int64
    ids: np.ndarray  # (k,) int64 unwrapped unique ids
    received_s: np.ndarray  # (k,) float64 time.monotonic()
    timestamp_s: np.ndarray  # (k,) float64 POSIX

    def __len__(self) -> int:
        return len(self.ids)


def staging_depth(frame_bytes: int) -> int:
    """How many frames of that size may wait for the engine."""
    return min(max(_BUDGET_BYTES // max(frame_bytes, 1), _FEWEST_FRAMES), _MOST_FRAMES)


class StagingQueue:
    """A ring of ``depth`` frames in one block of (pinned) memory; one producer, one consumer."""

    def __init__(
        self,
        depth: int,
        shape: tuple[int, int],
        dtype: np.dtype,
        allocate: Allocate,
        write: Write = np.copyto,
    ):
        self._write = write
        self._frames = allocate((depth, *shape), dtype)
        self._theta_deg = np.zeros(depth)
        self._slots = np.zeros(depth, np.int64)
        self._ids = np.zeros(depth, np.int64)
        self._received_s = np.zeros(depth)
        self._timestamp_s = np.zeros(depth)
        self._depth = depth
        self._head = 0  # next place to write
        self._waiting = 0  # frames written and not done
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return self._waiting

    def put(
        self,
        pixels: np.ndarray,
        theta_deg: float,
        slot: int,
        unique_id: int,
        received_s: float,
        timestamp_s: float,
    ) -> bool:
        """Write a frame in; False, and nothing is kept, when the queue is full."""
        if self._waiting == self._depth:
            return False
        head = self._head
        self._write(self._frames[head], pixels)  # the place is the producer's
        self._theta_deg[head] = theta_deg
        self._slots[head] = slot
        self._ids[head] = unique_id
        self._received_s[head] = received_s
        self._timestamp_s[head] = timestamp_s
        with self._lock:
            self._head = (head + 1) % self._depth
            self._waiting += 1
        return True

    def take(self, most: int) -> Batch | None:
        """The oldest frames, at most ``most`` and contiguous; give them back by `done`."""
        with self._lock:
            first = (self._head - self._waiting) % self._depth
            count = min(self._waiting, most, self._depth - first)
        if count == 0:
            return None
        window = slice(first, first + count)
        return Batch(
            self._frames[window],
            self._theta_deg[window],
            self._slots[window],
            self._ids[window],
            self._received_s[window],
            self._timestamp_s[window],
        )

    def done(self, batch: Batch) -> None:
        """The places of the batch may be written again."""
        with self._lock:
            self._waiting -= len(batch)
