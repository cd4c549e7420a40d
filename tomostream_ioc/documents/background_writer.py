"""Writes documents to a database in a thread of its own, so that images don't wait for it."""

from __future__ import annotations

import logging
import threading
from collections import deque
from typing import Any

import numpy as np

from tomostream_ioc.documents.database import Database

log = logging.getLogger(__name__)

#: bytes of arrays, and documents, that wait at most; one more, and whoever brings it waits until
#: there is room: nothing is lost. Peaks of some minutes, or 32 images of 4 million pixels
MAX_WAITING_BYTES = 512 * 1024 * 1024
MAX_WAITING = 4096
#: how often the database is asked whether rows wait too long, where no document comes
_IDLE_S = 0.5


class BackgroundWriter:
    """Has a database's `insert`, which returns before the document is stored.

    ``failed`` counts documents that could not be stored, and attempts to store what was collected
    that failed; the first of each run is logged. ``inserted`` and ``done`` count documents that
    were brought here, and those of them that the database took or refused.
    """

    def __init__(
        self,
        db: Database,
        max_waiting: int = MAX_WAITING,
        max_waiting_bytes: int = MAX_WAITING_BYTES,
    ):
        self.db = db
        self.failed = 0
        self.inserted = 0
        self.done = 0
        self._said = False
        self._max = max_waiting
        self._max_bytes = max_waiting_bytes
        self._waiting: deque[tuple[str, Any, int]] = deque()
        self._bytes = 0
        self._closing = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="database writer", daemon=True)
        self._thread.start()

    def insert(self, name: str, doc: Any) -> None:
        size = _size(doc)
        with self._changed:
            # one that is larger than all the room may come alone
            self._changed.wait_for(
                lambda: (
                    self.done == self.inserted
                    or (len(self._waiting) < self._max and self._bytes + size <= self._max_bytes)
                )
            )
            self._waiting.append((name, doc, size))
            self._bytes += size
            self.inserted += 1
            self._changed.notify_all()

    def flush(self) -> None:
        """Wait until all that was inserted is stored, or has failed."""
        with self._changed:
            last = self.inserted
            self._changed.wait_for(lambda: self.done >= last)
        self._store(self.db.flush)

    def close(self) -> None:
        """Store what waits. The database itself stays open."""
        self.flush()
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closing, _IDLE_S)
                if self._waiting:
                    name, doc, size = self._waiting.popleft()
                elif self._closing:
                    return
                else:
                    name, doc, size = "", None, 0
            if not name:
                self._store(self.db.flush_due)
                continue
            self._store(self.db.insert, name, doc)
            if name == "start":
                self._said = False
            doc = None
            with self._changed:
                self._bytes -= size
                self.done += 1
                self._changed.notify_all()

    def _store(self, store: Any, *what: Any) -> None:
        try:
            store(*what)
        except Exception:  # a full disk must not end the thread: what follows may be stored
            if not self._said:
                log.exception("%s not recorded", f"A {what[0]} document is" if what else "Rows are")
            self._said = True
            self.failed += 1


def _size(doc: Any) -> int:
    """Bytes of the arrays in a document's data."""
    data = doc.get("data")
    if not isinstance(data, dict):
        return 0
    return sum(value.nbytes for value in data.values() if isinstance(value, np.ndarray))
