"""Work that clients wait for: put-callbacks complete when it has ended."""

from __future__ import annotations

import asyncio


class Undertaking:
    """Work with an id that grows, on the server's event loop.

    The end may be told before the start: whoever does it is faster than the record.
    """

    def __init__(self) -> None:
        self._id: int | None = None  # what goes on, or has been asked for
        self._ended_id = 0
        self._ends: dict[int, asyncio.Future[None]] = {}

    @property
    def going_on(self) -> bool:
        return self._id is not None

    def started(self, work_id: int) -> None:
        self._id = work_id if work_id > self._ended_id else None

    def end(self) -> asyncio.Future[None] | None:
        """Done when it has ended; None when nothing goes on."""
        if self._id is None:
            return None
        if self._id not in self._ends:
            self._ends[self._id] = asyncio.get_running_loop().create_future()
        return self._ends[self._id]

    def has_ended(self, work_id: int) -> None:
        """Whoever waits goes on when `release` is called."""
        self._ended_id = max(self._ended_id, work_id)
        if self._id is not None and self._id <= work_id:
            self._id = None

    def release(self, work_id: int) -> None:
        for ended in [known for known in self._ends if known <= work_id]:
            end = self._ends.pop(ended)
            if not end.done():
                end.set_result(None)

    def cancel(self) -> None:
        for end in self._ends.values():
            end.cancel()
        self._ends.clear()
