"""Runs that are open, when each was last heard of, and what to do about those that fell silent."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tomostream_ioc.documents.stage import MAX_OPEN_RUNS

_HEAD = frozenset({"start", "descriptor", "resource", "stream_resource"})


@dataclass(slots=True, eq=False)
class WatchedRun:
    """A run from its start to its stop.

    head: its start, descriptors and resources, from which it can be opened once more. last: seq_num
    by stream, as far as it had come when it was closed.
    """

    uid: str
    heard_at: float
    head: list[tuple[str, Mapping[str, Any]]] = field(default_factory=list)
    is_silent: bool = False
    is_closed: bool = False
    resumed: bool = False
    last: dict[str, int] = field(default_factory=dict)


class RunWatch:
    """Follows raw documents; the times are of time.monotonic.

    A paused scan may be silent for hours and then go on: silence alone is no end. But a run
    engine that begins another scan has left the one that fell silent.
    """

    def __init__(self) -> None:
        self._runs: OrderedDict[str, WatchedRun] = OrderedDict()  # the last heard of at the end
        self._owners: dict[str, WatchedRun] = {}  # by uid of a descriptor or resource

    def heard(self, name: str, doc: Mapping[str, Any]) -> WatchedRun | None:
        """Take note of a document; its run, or None where no start came before it."""
        try:
            if name == "start":
                self._forget(doc["uid"])
                run = self._runs[doc["uid"]] = WatchedRun(doc["uid"], 0.0)
            else:
                run = self._run_of(name, doc)
        except (AttributeError, KeyError, TypeError):
            return None  # it is none: whoever takes it says so
        if run is None:
            return None
        run.heard_at = time.monotonic()
        run.is_silent = False
        self._runs.move_to_end(run.uid)
        if name in _HEAD:
            run.head.append((name, doc))
            if name != "start" and isinstance(doc.get("uid"), str):
                self._owners[doc["uid"]] = run
        return run

    def ended(self, run: WatchedRun) -> None:
        self._forget(run.uid)

    def open(self) -> list[WatchedRun]:
        """The one that was heard of longest ago first."""
        return [run for run in self._runs.values() if not run.is_closed]

    def closed(self) -> list[WatchedRun]:
        """Closed without a stop, and kept in case they go on."""
        return [run for run in self._runs.values() if run.is_closed]

    def close(self, run: WatchedRun, last: Mapping[str, int]) -> None:
        run.is_closed, run.last = True, dict(last)
        for oldest in self.closed()[:-MAX_OPEN_RUNS]:
            self._forget(oldest.uid)

    def _run_of(self, name: str, doc: Mapping[str, Any]) -> WatchedRun | None:
        if "run_start" in doc:
            return self._runs.get(doc["run_start"])
        if name in ("resource", "stream_resource"):  # old ones don't say
            return next(reversed(self._runs.values()), None)
        for key in ("descriptor", "stream_resource", "resource"):
            if key in doc:
                return self._owners.get(doc[key])
        return None

    def _forget(self, uid: str) -> None:
        run = self._runs.pop(uid, None)
        for key in [key for key, owner in self._owners.items() if owner is run]:
            del self._owners[key]
