"""Writes documents to a database in a thread of its own, so that images don't wait for it."""

from __future__ import annotations

import logging
import queue
import threading
from typing import Any

from tomostream_ioc.documents.database import Database

log = logging.getLogger(__name__)

#: documents that wait at most; one more, and whoever brings it waits: nothing is lost
MAX_WAITING = 32


class BackgroundWriter:
    """Has a database's `insert`, which returns before the document is stored.

    ``failed`` counts documents that could not be stored; the first of each run is logged.
    """

    def __init__(self, db: Database, max_waiting: int = MAX_WAITING):
        self.db = db
        self.failed = 0
        self._said = False
        self._queue: queue.Queue[tuple[str, Any] | None] = queue.Queue(max_waiting)
        self._thread = threading.Thread(target=self._run, name="database writer", daemon=True)
        self._thread.start()

    def insert(self, name: str, doc: Any) -> None:
        self._queue.put((name, doc))

    def flush(self) -> None:
        """Wait until all that was inserted is stored, or has failed."""
        self._queue.join()

    def close(self) -> None:
        """Store what waits. The database itself stays open."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            name, doc = item
            try:
                self.db.insert(name, doc)
            except Exception:  # a full disk must not end the thread: what follows may be stored
                self.failed += 1
                if not self._said:
                    log.exception("A %s document is not recorded", name)
                self._said = True
            finally:
                self._queue.task_done()
            if name == "start":
                self._said = False
        self._queue.task_done()
