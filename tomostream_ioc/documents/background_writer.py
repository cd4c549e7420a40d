"""Writes documents to a database in a thread of its own, so that images don't wait for it."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable
from typing import Any

import httpx

from tomostream_ioc.documents.raw_runs import RawRuns

log = logging.getLogger(__name__)

#: documents that wait at most; one more, and whoever brings it waits: nothing is lost
MAX_WAITING = 32
#: a server that takes longer for a single document is away: nobody waits for it any more
SERVER_PATIENCE_S = 20.0
#: after a server did not answer, documents are lost so long before it is asked again
AGAIN_S = 5.0
_TICK_S = 0.1

_Item = tuple[Callable[[str, Any], None], str, Any]


class BackgroundWriter:
    """Has a database's `insert`, which returns before the document is stored.

    ``failed`` counts documents that could not be stored; the first of each run is logged. A
    database that is slow is waited for; one that is away is not: what would have to wait is lost,
    and counted.

    db : with `insert` and, for raw runs, `uid in db`
    patience_s : one that takes longer for a single document is away; a database inside this
        process, in a folder, can't be
    """

    def __init__(self, db: Any, max_waiting: int = MAX_WAITING, patience_s: float = float("inf")):
        self.db = db
        self.failed = 0
        self._patience_s = patience_s
        self._raw = RawRuns(db)
        self._lock = threading.Lock()
        self._said = False
        self._busy_since = float("inf")
        self._again_at = float("-inf")
        self._queue: queue.Queue[_Item | None] = queue.Queue(max_waiting)
        self._thread = threading.Thread(target=self._run, name="database writer", daemon=True)
        self._thread.start()

    def insert(self, name: str, doc: Any) -> None:
        self._put((self.db.insert, name, doc))

    def insert_raw(self, name: str, doc: Any) -> None:
        """The same for a run that comes in: see RawRuns."""
        self._put((self._raw.insert, name, doc))

    def lose(self, what: str, error: BaseException | str) -> None:
        """Count a document that is not recorded; the first of a run is logged."""
        with self._lock:
            self.failed += 1
            said, self._said = self._said, True
        if not said:
            away = isinstance(error, httpx.TransportError | str)
            log.error(
                "A %s document is not recorded: %s", what, error, exc_info=None if away else error
            )

    def flush(self) -> bool:
        """Wait until all that was inserted is stored or has failed; False where it is away."""
        done = self._queue.all_tasks_done
        while True:
            with done:
                if done.wait_for(lambda: not self._queue.unfinished_tasks, _TICK_S):
                    return True
            if self._is_away():
                return False

    def close(self) -> None:
        """Store what waits, unless the database is away. It stays open."""
        while self._thread.is_alive():
            with contextlib.suppress(queue.Full):
                self._queue.put(None, timeout=_TICK_S)
                break
            if self._is_away():
                break
        while self._thread.is_alive() and not self._is_away():
            self._thread.join(_TICK_S)
        n = sum(item is not None for item in self._queue.queue)
        if self._thread.is_alive():
            self.failed += n + 1
            log.error("The database is away: %d documents that waited are not recorded", n + 1)

    def _is_away(self) -> bool:
        return time.monotonic() - self._busy_since > self._patience_s

    def _put(self, item: _Item) -> None:
        while True:
            try:
                self._queue.put(item, timeout=_TICK_S)
                return
            except queue.Full:
                if self._is_away():
                    self.lose(item[1], f"the database is away for {self._patience_s:g} s")
                    return

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            insert, name, doc = item
            try:
                if time.monotonic() < self._again_at:
                    self.lose(name, "the database did not answer")
                else:
                    self._busy_since = time.monotonic()
                    insert(name, doc)
            except Exception as error:  # noqa: BLE001 - a full disk must not end the thread: what follows may be stored
                self.lose(name, error)
                if isinstance(error, httpx.TransportError):
                    self._again_at = time.monotonic() + AGAIN_S
            finally:
                self._busy_since = float("inf")
                self._queue.task_done()
            if name == "start":
                self._said = False
        self._queue.task_done()
