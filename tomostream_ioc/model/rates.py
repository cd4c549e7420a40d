"""Events per second over the last few seconds."""

from __future__ import annotations

import threading
import time
from collections import deque


class Rate:
    """Rate of a growing count, from its readings over the last ``span_s`` seconds."""

    def __init__(self, span_s: float = 2.0) -> None:
        self._span_s = span_s
        self._readings: deque[tuple[float, int]] = deque()
        self._lock = threading.Lock()

    def reset(self) -> None:
        with self._lock:
            self._readings.clear()

    def update(self, count: int) -> float:
        """Take a reading and return events per second."""
        now = time.monotonic()
        with self._lock:
            self._readings.append((now, count))
            while len(self._readings) > 2 and now - self._readings[1][0] > self._span_s:
                self._readings.popleft()
            first_s, first_count = self._readings[0]
        if now <= first_s:
            return 0.0
        return max(count - first_count, 0) / (now - first_s)
