"""Runs of an old catalog: databroker 1.x, whose formats (msgpack, JSONL, Mongo) Tiled replaced."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from tomostream_ioc.errors import TrackingError

#: in front of a catalog's name, where a database is asked for
PREFIX = "databroker:"


class OldBroker:
    """The catalog ``name``, as databroker finds it; runs are read from it, and may be inserted.

    Raises TrackingError: databroker 1.x is not installed, or it knows no such catalog.
    """

    def __init__(self, name: str):
        try:
            import databroker  # type: ignore[import-not-found]
            from databroker.v1 import Broker  # type: ignore[import-not-found]
        except ImportError as error:
            raise TrackingError(
                f"{PREFIX}{name} needs databroker 1.x: run `pip install tomostream_ioc[databroker]`"
            ) from error
        if not databroker.__version__.startswith("1."):
            raise TrackingError(
                f"{PREFIX}{name} needs databroker 1.x, not {databroker.__version__}, which reads"
                " Tiled alone: give the URI of that Tiled server"
            )
        try:
            self.broker: Any = Broker.named(name)
        except (AttributeError, KeyError) as error:
            raise TrackingError(
                f"databroker knows no catalog {name}; it has"
                f" {', '.join(sorted(databroker.catalog)) or 'none'}"
            ) from error
        self.insert = self.broker.insert

    def __contains__(self, uid: object) -> bool:
        try:
            return bool(self.broker[uid])
        except (KeyError, ValueError):
            return False

    def flush(self) -> None:
        """Nothing waits: each document is stored as it comes."""

    flush_due = flush

    def __iter__(self) -> Iterator[str]:
        """Uids, the oldest first."""
        headers = sorted(self.broker(), key=lambda header: header.start["time"])
        return (header.start["uid"] for header in headers)

    def __getitem__(self, uid: str) -> OldRun:
        """The run of this uid. Raises KeyError: there is none."""
        return OldRun(self.broker[uid])

    def close(self) -> None:
        """Nothing is open."""

    def __enter__(self) -> OldBroker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class OldRun:
    """One run. Its images come inside the documents, read by the catalog's own handlers."""

    def __init__(self, header: Any):
        self.header = header

    @property
    def start(self) -> dict[str, Any]:
        return dict(self.header.start)

    def documents(self) -> Iterator[tuple[str, dict[str, Any]]]:
        for name, doc in self.header.documents(fill=True):
            doc = dict(doc)
            if name in ("resource", "datum", "datum_page"):
                continue  # what they point to is in the events
            if name in ("event", "event_page"):
                doc["filled"] = {}
            yield name, doc


def is_old_broker(where: str | os.PathLike[str]) -> bool:
    return str(where).startswith(PREFIX)
