"""Writes documents to a database in a thread of its own, so that images don't wait for it."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np

from tomostream_ioc.documents.counts import RecordCounts
from tomostream_ioc.documents.database import Database
from tomostream_ioc.documents.raw_runs import RawRuns

log = logging.getLogger(__name__)

#: bytes of arrays, and documents, that wait at most; one more, and whoever brings it waits until
#: there is room: nothing is lost. Peaks of some minutes, or 32 images of 4 million pixels
MAX_WAITING_BYTES = 512 * 1024 * 1024
MAX_WAITING = 4096
#: a server that takes longer for a single document is away: nobody waits for it any more
SERVER_PATIENCE_S = 20.0
#: after a server did not answer, documents are lost so long before it is asked again
AGAIN_S = 5.0
#: how often the database is asked whether rows wait too long, where no document comes
_IDLE_S = 0.5
_TICK_S = 0.1
_ROWS = "batch of rows"


@dataclass(frozen=True, slots=True)
class _Item:
    """Something to store. what : for the log"""

    store: Callable[[], None]
    what: str
    n_bytes: int = 0
    name: str = ""
    doc: Any = None


class BackgroundWriter:
    """Has a database's `insert`, which returns before the document is stored.

    ``failed`` counts documents that could not be stored, and attempts to store what was collected
    that failed; the first of each run is logged. ``recorded`` counts rows, and knows which of those
    attempts cost none. ``inserted`` and ``done`` count what was brought
    here, documents and flushes, and how much of it the database took or refused.

    A database that is slow is waited for; one that is away is not: what finds no room to wait is
    lost, and counted. It is away where it takes longer than ``patience_s`` for a single document; a
    database inside this process, in a folder, can't be.
    """

    def __init__(
        self,
        db: Database,
        max_waiting: int = MAX_WAITING,
        max_waiting_bytes: int = MAX_WAITING_BYTES,
        patience_s: float = float("inf"),
    ):
        self.db = db
        self.failed = 0
        self.inserted = 0
        self.done = 0
        self._lost = RecordCounts()  # before the database saw it
        self._raw = RawRuns(db)
        self._said = False
        self._max = max_waiting
        self._max_bytes = max_waiting_bytes
        self._patience_s = patience_s
        self._busy_since = float("inf")
        self._again_at = float("-inf")
        self._waiting: deque[_Item] = deque()
        self._bytes = 0
        self._closing = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="database writer", daemon=True)
        self._thread.start()

    def insert(self, name: str, doc: Any) -> None:
        """Hand a document over. Waits for room, but not for a database that is away."""
        self._put(self._item(self.db.insert, name, doc))

    def insert_raw(self, name: str, doc: Any) -> None:
        """The same for a run that comes in: see RawRuns."""
        self._put(self._item(self._raw.insert, name, doc))

    @property
    def recorded(self) -> RecordCounts:
        """What has become of all that was inserted, and is not waiting."""
        return self.db.recorded.plus(self._lost)

    def lose(self, name: str, doc: Any, reason: str) -> None:
        """Count a document that is not recorded; the first of a run is logged."""
        self._count_lost(_Item(lambda: None, f"{name} document", 0, name, doc), reason)

    def _count_lost(self, item: _Item, reason: str) -> None:
        """The database was not asked to store it."""
        with self._changed:
            if item.name:
                self._lost.lose(item.name, item.doc)
            else:
                self._lost.attempts += 1
        self._count_failed(item.what, reason)

    def _count_failed(self, what: str, error: BaseException | str) -> None:
        with self._changed:
            said, self._said = self._said, True
        if not said:
            away = isinstance(error, httpx.TransportError | str)
            log.error("A %s is not recorded: %s", what, error, exc_info=None if away else error)
        with self._changed:
            self.failed += 1  # who sees it finds the line

    @property
    def is_away(self) -> bool:
        """Whether the database takes too long for what it was given."""
        return time.monotonic() - self._busy_since > self._patience_s

    def flush(self) -> bool:
        """Wait until all that was inserted is stored or has failed; False where it is away."""
        self._append(_Item(self.db.flush, _ROWS))
        with self._changed:
            last = self.inserted
            while not self._changed.wait_for(lambda: self.done >= last, _TICK_S):
                if self.is_away:
                    return False
        return True

    def close(self) -> None:
        """Store what waits, unless the database is away. It stays open."""
        stored = self.flush()
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            n = self.inserted - self.done
        if stored:
            self._thread.join()
            return
        self.failed += n
        log.error("The database is away: %d documents that waited are not recorded", n)

    def _put(self, item: _Item) -> None:
        def has_room() -> bool:
            # one that is larger than all the room may come alone
            return self.done == self.inserted or (
                len(self._waiting) < self._max and self._bytes + item.n_bytes <= self._max_bytes
            )

        with self._changed:
            while not self._changed.wait_for(has_room, _TICK_S):
                if self.is_away:
                    self._count_lost(item, f"the database is away for {self._patience_s:g} s")
                    return
            self._append(item)

    def _append(self, item: _Item) -> None:
        with self._changed:
            self._waiting.append(item)
            self._bytes += item.n_bytes
            self.inserted += 1
            self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closing, _IDLE_S)
                item = self._waiting.popleft() if self._waiting else None
                if item is None and self._closing:
                    return
            if item is None:
                if time.monotonic() >= self._again_at:
                    self._store(_Item(self.db.flush_due, _ROWS))
                continue
            if time.monotonic() < self._again_at:
                self._count_lost(item, "the database did not answer")
            else:
                self._store(item)
            n_bytes, item = item.n_bytes, None  # its images may go
            with self._changed:
                self._bytes -= n_bytes
                self.done += 1
                self._changed.notify_all()

    def _store(self, item: _Item) -> None:
        self._busy_since = time.monotonic()
        try:
            item.store()
        except Exception as error:  # noqa: BLE001 - a full disk must not end the thread
            self._count_failed(item.what, error)
            if isinstance(error, httpx.TransportError):
                self._again_at = time.monotonic() + AGAIN_S
        finally:
            self._busy_since = float("inf")

    def _item(self, insert: Callable[[str, Any], None], name: str, doc: Any) -> _Item:
        def store() -> None:
            try:
                insert(name, doc)
            finally:
                if name == "start":
                    self._said = False

        return _Item(store, f"{name} document", _size(doc), name, doc)


def _size(doc: Any) -> int:
    """Bytes of the arrays in a document's data."""
    data = doc.get("data")
    if not isinstance(data, dict):
        return 0
    return sum(value.nbytes for value in data.values() if isinstance(value, np.ndarray))
