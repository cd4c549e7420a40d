"""Writes a run to Tiled as TiledWriter does, but pages as columns, and by time."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pyarrow
from bluesky_tiled_plugins.utils import truncate_json_overflow

# TiledWriter makes one for each run, and lets nobody flush it: hence the private name
from bluesky_tiled_plugins.writing.tiled_writer import (
    MAX_TABLE_COLUMNS,
    RunNormalizer,
    _RunWriter,
)
from event_model import RunRouter

from tomostream_ioc.documents.counts import RecordCounts
from tomostream_ioc.errors import TrackingError

#: rows of one stream that are stored at once, before their time
MAX_ROWS = 20_000
#: rows of one stream that are held at most where the database refuses them
MAX_HELD_ROWS = 500_000
#: rows that came as single events, or hold arrays: they are stored one by one in Python
_BATCH_ROWS = 1000
_COLUMN_KINDS = frozenset("biuf")


class RunWriter(_RunWriter):
    """What TiledWriter writes of one run, in the same layout, several times as fast.

    An event page of numbers becomes a table column by column; bluesky_tiled_plugins makes a
    dictionary of each row first. `flush` stores what is collected, which that one does at each
    thousandth row, or at the run's end.
    """

    def __init__(self, client: Any, counts: RecordCounts, followed: bool = True):
        """
        client : of the whole catalog, with data sources included
        counts : gets the rows that are stored, or lost
        followed : others may subscribe to what is written, over a websocket, and are told its end
        """
        # SQLite's tables hold no arrays, however small
        super().__init__(client, batch_size=_BATCH_ROWS, max_array_size=0)
        self._counts = counts
        self._followed = followed
        self._pages: dict[str, list[pyarrow.Table]] = {}
        self._since: float | None = None

    @property
    def age_s(self) -> float:
        """How long the oldest that is not stored has waited, in seconds; 0: nothing waits."""
        return 0.0 if self._since is None else time.monotonic() - self._since

    @property
    def held(self) -> int:
        """Rows that are collected and not stored."""
        rows = sum(len(rows) for rows in self._internal_data_cache.values())
        return rows + sum(len(page) for pages in self._pages.values() for page in pages)

    def __call__(self, name: str, doc: Any, validate: bool = False) -> Any:
        if self._since is None and name in ("event", "event_page", "stream_datum"):
            self._since = time.monotonic()
        return super().__call__(name, doc, validate)

    def event(self, doc: Any) -> None:
        self._write_pages(self._stream(doc))  # rows stay in order
        super().event(doc)

    def event_page(self, doc: Any) -> None:
        stream = self._stream(doc)
        table = None if self._int_array_keys[stream] else _as_table(doc)
        if table is None:
            super().event_page(doc)
            return
        self._write_rows(stream)
        pages = self._pages.setdefault(stream, [])
        pages.append(table)
        n_rows = sum(len(page) for page in pages)
        if n_rows > MAX_HELD_ROWS:
            pages.clear()
            self._counts.rows_lost += n_rows
            raise TrackingError(f"{n_rows} rows of {stream!r} are lost: the database took none")
        if n_rows >= MAX_ROWS and len(table) > n_rows % MAX_ROWS:  # not at each page if it fails
            self._write_pages(stream)

    def flush(self) -> None:
        """Store all that is collected. What the database refuses stays for the next time."""
        self._since = None
        try:
            self._write_collected()
        except BaseException:
            self._since = time.monotonic()
            raise

    def stop(self, doc: Any) -> None:
        self._write_collected()
        super().stop(doc)
        self._since = None

    def _close_stream_tree(self) -> None:
        if self._followed:  # a request of 40 ms for each node
            super()._close_stream_tree()

    def _stream(self, doc: Mapping[str, Any]) -> str:
        return self._desc_nodes[doc["descriptor"]].item["id"]

    def _write_collected(self) -> None:
        for stream in list(self._pages):
            self._write_pages(stream)
        for stream in list(self._internal_data_cache):
            self._write_rows(stream)
        for resource in list(self._external_data_cache):
            self._write_external_data(self._external_data_cache[resource])
            del self._external_data_cache[resource]

    def _write_rows(self, stream: str) -> None:
        rows = self._internal_data_cache.get(stream)
        if rows:
            self._write_internal_data(rows, desc_node=self._desc_nodes[stream])
            rows.clear()

    def _write_internal_data(self, data_cache: list[dict[str, Any]], desc_node: Any) -> None:
        super()._write_internal_data(data_cache, desc_node)
        self._counts.rows += len(data_cache)

    def _write_pages(self, stream: str) -> None:
        pages = self._pages.get(stream)
        if not pages:
            return
        table = pyarrow.concat_tables(pages).combine_chunks()
        client = self._internal_tables.get(stream)
        if client is None:
            client = self._desc_nodes[stream].create_appendable_table(
                schema=table.schema,
                key="internal",
                metadata=truncate_json_overflow(
                    {
                        key: self.data_keys[key]
                        for key in self.data_keys
                        if key in table.schema.names
                    }
                ),
                access_tags=self.access_tags,
            )
            self._internal_tables[stream] = client
        self._append_with_retry(client, table, stream)
        self._counts.rows += len(table)
        pages.clear()


class RunWriters:
    """The writers of all runs that are open: a callback for documents of any runs, interleaved.

    normalize : bring documents into the newest form first, as TiledWriter does; what this package
        derives is in that form
    followed : see RunWriter
    """

    def __init__(
        self,
        client: Any,
        counts: RecordCounts | None = None,
        *,
        normalize: bool,
        followed: bool = True,
    ):
        self._client = client.include_data_sources()
        self._counts = RecordCounts() if counts is None else counts
        self._normalize = normalize
        self._followed = followed
        self._open: dict[str, RunWriter] = {}  # by uid of the run
        self._owners: dict[str, str] = {}  # run by uid of a descriptor or stream_resource
        self._router = RunRouter([self._normalized])

    def __call__(self, name: str, doc: Any) -> None:
        """Raises KeyError for a document whose start never came, and whatever Tiled raises."""
        try:
            if self._normalize:
                self._router(name, doc)
            else:
                self._take(name, doc)
        finally:
            if name == "stop":
                self._forget(doc["run_start"])

    @property
    def held(self) -> int:
        """Rows of all runs that are collected and not stored."""
        return sum(writer.held for writer in self._open.values())

    def flush(self, age_s: float = 0.0) -> None:
        """Store what was collected ``age_s`` seconds ago or earlier, of each run.

        Raises the first error, after all runs were tried.
        """
        errors = []
        for writer in self._open.values():
            if writer.age_s > age_s:
                try:
                    writer.flush()
                except Exception as error:  # noqa: BLE001 - raised below
                    self._counts.attempts += 1
                    errors.append(error)
        if errors:
            raise errors[0]

    def _take(self, name: str, doc: Any) -> None:
        if name == "start":
            self._open[doc["uid"]] = self._writer()
        uid = doc["uid"] if name == "start" else doc.get("run_start")
        if uid is None:
            uid = self._owners[doc.get("descriptor") or doc["stream_resource"]]
        elif name in ("descriptor", "stream_resource"):
            self._owners[doc["uid"]] = uid
        self._open[uid](name, doc)

    def _normalized(self, _: str, start: Any) -> tuple[list[Callable[..., Any]], list[Any]]:
        writer = self._open[start["uid"]] = self._writer()
        normalizer = RunNormalizer()
        normalizer.subscribe(writer)
        return [normalizer], []

    def _writer(self) -> RunWriter:
        return RunWriter(self._client, self._counts, self._followed)

    def _forget(self, uid: str) -> None:
        writer = self._open.pop(uid, None)
        if writer is not None:
            self._counts.rows_lost += writer.held  # its stop has failed: there is no next time
        for each in [each for each, owner in self._owners.items() if owner == uid]:
            del self._owners[each]


def _as_table(page: Mapping[str, Any]) -> pyarrow.Table | None:
    """The columns that TiledWriter makes of a page; None where they are not all plain numbers."""
    values = {
        **page["data"],
        **{f"ts_{key}": column for key, column in page["timestamps"].items()},
    }
    plain = all(
        isinstance(column, np.ndarray)
        and column.ndim == 1
        and column.dtype.kind in _COLUMN_KINDS
        and column.dtype.isnative
        for column in values.values()
    )
    if not plain or len(values) + 2 > MAX_TABLE_COLUMNS:
        return None
    return pyarrow.table(
        {
            "seq_num": pyarrow.array(page["seq_num"], pyarrow.int64()),
            "time": pyarrow.array(page["time"], pyarrow.float64()),
            **{key: pyarrow.array(column) for key, column in values.items()},
        }
    )
