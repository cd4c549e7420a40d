"""Hands documents to subscribers: one that fails stops neither the others nor the run."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Mapping
from typing import Any

from event_model import DocumentNames, unpack_event_page

from tomostream_ioc.documents.counts import StageCounts

log = logging.getLogger(__name__)

Callback = Callable[[str, Any], Any]
_NAMES = frozenset(name.name for name in DocumentNames) | {"all"}


class Dispatcher:
    """Subscribers of one stage, in the order in which they came. Holds strong references.

    bluesky's own holds methods weakly and stops at the first error: here a chain lives as long as
    its head, and a database that fails costs its own record alone.
    """

    def __init__(self, counts: StageCounts):
        self._counts = counts
        self._tokens = itertools.count()
        self._subscribers: dict[int, tuple[Callback, str]] = {}
        self._said: set[int] = set()

    def subscribe(self, callback: Callback, name: Any = "all") -> int:
        """``callback(name, document)`` for documents called ``name``, or all. Returns a token.

        A callback that is there already, under the same name, is not added again: documents go
        to it once. Who asks for "event" gets the rows of event pages as events.

        Raises ValueError: no such kind of document, or the callback can't be called.
        """
        name = getattr(name, "name", name)
        if name not in _NAMES:
            raise ValueError(f"No document is called {name!r}: one of {', '.join(sorted(_NAMES))}.")
        if not callable(callback):
            raise ValueError(f"{callback!r} can't be called with (name, document).")
        for token, known in self._subscribers.items():
            if known == (callback, name):
                return token
        token = next(self._tokens)
        self._subscribers[token] = (callback, name)
        return token

    def unsubscribe(self, token: int) -> None:
        self._subscribers.pop(token, None)
        self._said.discard(token)

    def emit(self, name: str, document: Mapping[str, Any]) -> None:
        for token, (callback, wanted) in list(self._subscribers.items()):
            if wanted in ("all", name):
                self._call(token, callback, name, document)
            elif wanted == "event" and name == "event_page":
                for event in unpack_event_page(document):  # type: ignore[arg-type]
                    self._call(token, callback, "event", event)
        if name == "stop":
            self._said.clear()

    def _call(self, token: int, callback: Callback, name: str, document: Any) -> None:
        try:
            callback(name, document)
        except Exception:  # a subscriber's fault is its own: the scan goes on
            self._counts.subscriber_errors += 1
            if token not in self._said:  # once per run: a full disk fails for each document
                self._said.add(token)
                log.exception("%r failed on a %s document; the others go on", callback, name)
