"""Monitor updates that wait until their client takes them: bounded, the newest always kept."""

from __future__ import annotations

from collections import Counter, deque

#: a client that keeps up never has as many waiting; about 1 MB
MOST_WAITING = 1000
_BATCH_BYTES = 2**16


class Updates:
    """Takes the place of caproto's queue between the server and one client's connection.

    That one blocks the whole server once a client that does not read has filled it, and keeps the
    last 1000 updates of each monitor after they were sent. Here ``add`` never waits: above
    ``most_waiting`` updates the oldest one that has a successor is left out, so that the newest
    value of each monitor arrives, as from a C IOC. Not thread-safe: for one event loop.
    """

    def __init__(self, most_waiting: int = MOST_WAITING):
        self._most_waiting = most_waiting
        self._waiting: deque[tuple[int, bytes]] = deque()
        self._of: Counter[int] = Counter()  # subscription's id -> how many wait
        #: updates that were left out since the start
        self.left_out = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, subscription_id: int, message: bytes) -> None:
        """Take on the message of an update."""
        self._waiting.append((subscription_id, message))
        self._of[subscription_id] += 1
        if len(self._waiting) > max(self._most_waiting, len(self._of)):
            self._leave_one_out()

    def _leave_one_out(self) -> None:
        while True:  # ends: more updates than monitors, so one has two
            oldest = self._waiting.popleft()
            if self._of[oldest[0]] > 1:
                self._of[oldest[0]] -= 1
                self.left_out += 1
                return
            self._waiting.append(oldest)

    def take(self) -> bytes:
        """As many updates as go into one packet of about 64 kB, oldest first."""
        batch, size = [], 0
        while self._waiting and size < _BATCH_BYTES:
            subscription_id, message = self._waiting.popleft()
            self._one_less(subscription_id)
            batch.append(message)
            size += len(message)
        return b"".join(batch)

    def _one_less(self, subscription_id: int) -> None:
        self._of[subscription_id] -= 1
        if not self._of[subscription_id]:
            del self._of[subscription_id]

    def forget(self, subscription_id: int) -> None:
        """Drop what waits for a monitor that has been cancelled."""
        if self._of.pop(subscription_id, 0):
            self._waiting = deque(each for each in self._waiting if each[0] != subscription_id)

    def clear(self) -> set[int]:
        """Drop everything; the ids of the monitors that had something waiting."""
        had = set(self._of)
        self._waiting.clear()
        self._of.clear()
        return had
