"""The database: Tiled, in a folder of its own and inside this process, or any Tiled server."""

from __future__ import annotations

import contextlib
import logging
import secrets
import threading
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from bluesky_tiled_plugins.exporters import json_seq_exporter
from tiled.catalog import from_uri as catalog_from_uri
from tiled.client import from_context
from tiled.client.context import Context
from tiled.config import Authentication
from tiled.media_type_registration import default_serialization_registry
from tiled.server.app import build_app
from tiled.utils import ensure_uri

from tomostream_ioc.documents.counts import RecordCounts, rows_in
from tomostream_ioc.documents.handlers import DEFAULT_HANDLERS
from tomostream_ioc.documents.image_files import ImageFiles
from tomostream_ioc.documents.recorded_run import RecordedRun
from tomostream_ioc.documents.run_writer import RunWriters
from tomostream_ioc.documents.tiled_server import connect
from tomostream_ioc.errors import TrackingError

log = logging.getLogger(__name__)

#: what comes is stored together after so long: what a crash may cost. Each time costs Tiled 40 ms
FLUSH_S = 2.0


class Database:
    """Runs in Tiled: `insert` writes documents, `db[uid]` reads a run back.

    Images inside events go to HDF5 files in ``image_folder`` first; what is derived by this package
    goes to Tiled as it is, other runs through bluesky's normalizer. `insert` may be subscribed to
    any number of stages and to a RunEngine; runs may come interleaved, from several threads.

    Rows are collected for ``flush_s`` seconds and stored with the first document after that, or by
    `flush_due`; a run's stop stores all of it. A process that is killed loses what it collected.
    ``recorded`` counts what is stored, and what is lost.
    """

    def __init__(
        self, client: Any, image_folder: str | Path, context: Any = None, flush_s: float = FLUSH_S
    ):
        self.client = client
        #: what event_model's Filler needs, by the names that databroker gives them
        self.reg = SimpleNamespace(handler_reg=dict(DEFAULT_HANDLERS), root_map={})
        self.image_folder = Path(image_folder).resolve()
        self._context = context
        self._lock = threading.Lock()
        self._files = ImageFiles(self.image_folder)
        self._files.subscribe(self._write)
        self._error: Exception | None = None
        followed = context is None  # a database inside this process has no port to listen at
        self.recorded = RecordCounts()
        self._derived = RunWriters(client, self.recorded, normalize=False, followed=followed)
        self._raw = RunWriters(client, self.recorded, normalize=True, followed=followed)
        self._derived_uids: set[str] = set()
        self._flush_s = flush_s

    def insert(self, name: str, doc: Any) -> None:
        """Take one document. Raises whatever Tiled raises where it can't be stored."""
        with self._lock:
            self._error = None
            self._files(name, doc)
            error = self._error
            try:
                self._flush(self._flush_s)
            except Exception as late:  # noqa: BLE001 - raised below
                error = error or late
            if error is not None:
                raise error

    def flush_due(self) -> None:
        """Store what waits for longer than ``flush_s``, also where no document comes any more.

        Raises whatever Tiled raises; what it did not take is tried again in ``flush_s``.
        """
        with self._lock:
            self._flush(self._flush_s)

    def flush(self) -> None:
        """Store all that was inserted. Raises whatever Tiled raises."""
        with self._lock:
            self._flush(0.0)

    def _flush(self, age_s: float) -> None:
        try:
            self._derived.flush(age_s)
        finally:
            self._raw.flush(age_s)

    def _write(self, name: str, doc: Any) -> None:
        before = self._known_rows()
        try:
            self._writer(name, doc)(name, doc)
        except Exception as error:  # noqa: BLE001 - handed to whoever inserted
            self._error = error
            n_rows = rows_in(name, doc)
            if n_rows and self._known_rows() - before >= n_rows:
                self.recorded.attempts += 1  # its rows are kept, others could not be stored
            else:
                self.recorded.lose(name, doc)

    def _known_rows(self) -> int:
        """Rows that have come, but for those of documents that were refused."""
        held = self._derived.held + self._raw.held
        return held + self.recorded.rows + self.recorded.rows_lost

    def _writer(self, name: str, doc: Any) -> RunWriters:
        if name == "start":
            if "analysis_stage" in doc:
                self._derived_uids.add(doc["uid"])
                return self._derived
            return self._raw
        if name in ("descriptor", "stop"):
            derived = doc["run_start"] in self._derived_uids
            if name == "stop":
                self._derived_uids.discard(doc["run_start"])
            if derived and name == "descriptor":
                self._derived_uids.add(doc["uid"])
        elif "descriptor" in doc:
            derived = doc["descriptor"] in self._derived_uids
        else:
            derived = doc.get("run_start") in self._derived_uids
        return self._derived if derived else self._raw

    def __getitem__(self, uid: str) -> RecordedRun:
        """The run of this uid. Raises KeyError: there is none."""
        return RecordedRun(self.client[uid])

    def __contains__(self, uid: object) -> bool:
        return uid in self.client

    def __iter__(self) -> Iterator[str]:
        """Uids, the oldest first."""
        return iter(self.client)

    def __len__(self) -> int:
        return len(self.client)

    def find(self, **keys: Any) -> list[str]:
        """Uids of runs whose start document holds these values, the newest first."""
        from tiled.queries import Key

        found = self.client
        for key, value in keys.items():
            found = found.search(Key(f"start.{key}") == value)
        runs = [(run.metadata["start"]["time"], uid) for uid, run in found.items()]
        return [uid for _, uid in sorted(runs, reverse=True)]

    def close(self) -> None:
        """Store what waits, close files and, where this object started it, the database."""
        try:
            self.flush()
        except Exception:  # there is nobody left to tell
            log.exception("The last rows are not recorded")
        self._files.close()
        if self._context is not None:
            self._context.close()
            self._context = None

    def __enter__(self) -> Database:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_database(
    where: str | Path,
    *,
    readable: list[str | Path] | None = None,
    api_key: str | None = None,
    images: str | Path | None = None,
) -> Database:
    """The database in the folder ``where``, made if it isn't there; or a Tiled server's.

    The folder holds a SQLite catalog, tables in a SQLite file, arrays in `data` and images in
    `images`. Tiled runs inside this process and opens no port; other processes may have the same
    folder open. ``where`` may be the http(s) URI of a Tiled server instead.

    readable : more folders from which Tiled may read the files that raw runs point to; a server of
        its own has them in its configuration
    api_key : of a Tiled server; None for the environment variable TILED_API_KEY
    images : folder for images, `images` in ``where`` or, for a server, in the current one: the
        server must have it, under the same path, among those it may read

    Raises TrackingError: the folder can't be made, or no database can be opened there.
    """
    text = str(where)
    if text.startswith(("http://", "https://")):
        return Database(connect(text, api_key), Path(images or "images"))
    folder = Path(where).expanduser().resolve()
    images = folder / "images" if images is None else Path(images).expanduser().resolve()
    catalog = folder / "catalog.db"
    try:
        (folder / "data").mkdir(parents=True, exist_ok=True)
        images.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrackingError(f"No database can be made in {folder}: {error}") from error
    default_serialization_registry.register("BlueskyRun", "application/json-seq", json_seq_exporter)
    tree = catalog_from_uri(
        str(catalog),
        writable_storage=[
            str(folder / "data"),
            ensure_uri(f"sqlite:///{folder / 'tables.sqlite'}"),
        ],
        readable_storage=[str(images), *(str(Path(path).resolve()) for path in readable or ())],
        init_if_not_exists=not catalog.exists(),
    )
    app = build_app(tree, authentication=Authentication(single_user_api_key=_api_key()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of starlette's about httpx
        context = Context.from_app(app)
    database = Database(from_context(context), images, context)
    with contextlib.suppress(AttributeError):
        # at the interpreter's end its threads are joined before atexit runs
        threading._register_atexit(database.close)  # type: ignore[attr-defined]
    return database


@cache
def _api_key() -> str:
    """One for all databases of this process: Tiled keeps the newest for the whole process."""
    return secrets.token_hex(32)
