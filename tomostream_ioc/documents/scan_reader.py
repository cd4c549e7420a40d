"""The images of one scan after the other out of its documents, told to a PointHandler."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tomostream_ioc.documents.pixels import Exposure, PixelSource
from tomostream_ioc.documents.read_access import ANYWHERE, ReadAccess
from tomostream_ioc.model.crystal import PointHandler

_ASSETS = frozenset(("resource", "datum", "datum_page", "stream_resource"))
_EVENTS = frozenset(("event", "event_page", "stream_datum"))


class ScanReader:
    """Follows the documents of one scan after the other.

    ``key`` is the data key of the images; '' takes the first one that is at least two-dimensional.
    """

    def __init__(self, key: str, handler: PointHandler, access: ReadAccess = ANYWHERE):
        self._key = key
        self._handler = handler
        self._access = access
        self._start: Mapping[str, Any] | None = None
        self._source: PixelSource | None = None
        self._known: set[str] = set()  # uids of this scan's descriptors
        self._last = 0

    def take(self, name: str, doc: Mapping[str, Any]) -> None:
        """One document; what can't be used is told to the handler."""
        try:
            self._take(name, doc)
        except Exception as error:  # noqa: BLE001 - bad documents of others end nothing
            self._handler.on_rejected(f"document {name}", f"a {name} can't be used: {error!r}")

    def _take(self, name: str, doc: Mapping[str, Any]) -> None:
        if name == "start":
            self._begin(doc)
        elif name == "descriptor":
            self._describe(doc)
        elif name == "stop":
            if self._start is not None and doc["run_start"] == self._start["uid"]:
                self._end("" if doc.get("exit_status") == "success" else _reason(doc))
        elif self._source is not None:
            if name in _ASSETS:
                self._source.asset(name, doc)
            elif name in _EVENTS and doc["descriptor"] in self._known:
                for exposure in self._source.exposures(name, doc):
                    self._expose(exposure)
        elif name in _EVENTS and self._start is None:
            self._handler.on_missed(
                0, "A scan is under way whose start was not heard: waiting for the next one"
            )

    def _begin(self, start: Mapping[str, Any]) -> None:
        if self._start is not None:
            self._end("another one began")
        self._start, self._last = start, 0
        self._known.clear()
        self._handler.on_scan(start)

    def _describe(self, doc: Mapping[str, Any]) -> None:
        if self._start is None or doc["run_start"] != self._start["uid"]:
            return
        key = self._key or _image_key(doc)
        if key not in doc["data_keys"]:
            return
        if self._source is None:
            self._source = PixelSource(key, self._start, None, None, self._access)
        if self._source.descriptor(doc):
            self._known.add(doc["uid"])

    def _end(self, reason: str) -> None:
        source, self._source, self._start = self._source, None, None
        if source is not None:
            source.close()
        self._handler.on_scan_end(reason)

    def _expose(self, exposure: Exposure) -> None:
        number = exposure.frame
        if number <= self._last:
            self._handler.on_rejected("repeated", f"point {number} came again, or too late")
            return
        if number > self._last + 1:
            count = number - self._last - 1
            self._handler.on_missed(count, f"{count} points before point {number} never came")
        self._last = number
        try:
            images = np.asarray(exposure.load())
        except Exception as error:  # noqa: BLE001 - whatever reads pixels of others
            self._handler.on_rejected("pixels", f"point {number} can't be read: {error}")
            return
        if images.ndim not in (2, 3) or not images.size or images.dtype.kind not in "buif":
            self._handler.on_rejected(
                "pixels", f"point {number} has {images.dtype} of shape {images.shape}: no image"
            )
            return
        self._handler.on_point(images, number, exposure.taken)


def _image_key(descriptor: Mapping[str, Any]) -> str:
    for key, described in descriptor["data_keys"].items():
        if len(described.get("shape") or ()) >= 2:
            return key
    return ""


def _reason(stop: Mapping[str, Any]) -> str:
    return str(stop.get("reason") or stop.get("exit_status") or "no reason given")
