"""Raw runs that come in, on their way to the database: of each, from its start on or nothing."""

from __future__ import annotations

import logging
from typing import Any

log = logging.getLogger(__name__)


class RawRuns:
    """Hands documents to ``db.insert``, of runs whose start came: Tiled can't keep the rest of one.

    A run that the database holds already, as one that is sent again out of it, is not written
    twice.
    """

    def __init__(self, db: Any):
        self._db = db
        self._recorded: dict[str, str] = {}  # of what is being recorded: run by descriptor or uid

    def insert(self, name: str, doc: Any) -> None:
        """Raises what ``db`` raises."""
        if name == "start":
            if doc["uid"] in self._db:
                log.info("Run %s is in the database already; it is not written again", doc["uid"])
                return
            self._recorded[doc["uid"]] = doc["uid"]
        else:
            owner = doc.get("run_start") or self._recorded.get(
                doc.get("descriptor") or doc.get("stream_resource") or doc.get("resource") or ""
            )
            if owner not in self._recorded:
                return
            if "uid" in doc and name in ("descriptor", "resource", "stream_resource"):
                self._recorded[doc["uid"]] = owner
        try:
            self._db.insert(name, doc)
        finally:
            if name == "stop":
                owner = doc["run_start"]
                for uid in [uid for uid, run in self._recorded.items() if run == owner]:
                    del self._recorded[uid]
