"""Frames out of documents: inline, behind Resource and Datum, or StreamResource and StreamDatum."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from event_model import Filler, unpack_event_page

from tomostream_ioc.documents.handlers import DEFAULT_HANDLERS
from tomostream_ioc.documents.read_access import ANYWHERE, ReadAccess
from tomostream_ioc.documents.stream_reader import StreamReader
from tomostream_ioc.errors import TrackingError


@dataclass(frozen=True, slots=True)
class Exposure:
    """One point's frames, not read yet.

    stream: name of its stream. seq_num: from 1. frame: the number by which its peaks go, which is
    seq_num unless the run itself is derived from another. taken: seconds since 1970. load: reads
    (n_frames, n_rows, n_cols) or (n_rows, n_cols).
    """

    stream: str
    seq_num: int
    frame: int
    taken: float
    load: Callable[[], np.ndarray]


class PixelSource:
    """Follows one run's documents and says which exposures of ``key`` each one brings.

    A derived run says in its start document, as `frame_key`, which of its data keys holds the
    parent's frame number.
    """

    def __init__(
        self,
        key: str,
        start: Mapping[str, Any],
        handler_registry: Mapping[str, Any] | None,
        root_map: Mapping[str, str] | None,
        access: ReadAccess = ANYWHERE,
    ):
        self._key = key
        self._frame_key = start.get("frame_key")
        self._streams: dict[str, str] = {}
        self._descriptors: dict[str, Mapping[str, Any]] = {}
        handlers = DEFAULT_HANDLERS if handler_registry is None else handler_registry
        self._access = access
        self._filler = Filler(access.guard(handlers), inplace=False, root_map=dict(root_map or {}))
        self._readers: dict[str, StreamReader] = {}
        # events whose pixels come by StreamDatum, and the other way round, by descriptor, seq_num
        self._events: dict[tuple[str, int], tuple[int, float]] = {}
        self._waiting: dict[tuple[str, int], Callable[[], np.ndarray]] = {}
        self._given: set[tuple[str, int]] = set()  # whose pixels came before their event

    def descriptor(self, doc: Mapping[str, Any]) -> bool:
        """Take a descriptor; whether its stream holds the key."""
        if self._key not in doc["data_keys"]:
            return False
        self._streams[doc["uid"]] = doc["name"]
        self._descriptors[doc["uid"]] = doc
        self._filler("descriptor", doc)  # type: ignore[arg-type]
        return True

    def asset(self, name: str, doc: Mapping[str, Any]) -> None:
        """Take a resource, datum, datum_page or stream_resource."""
        if name != "stream_resource":
            self._filler(name, doc)  # type: ignore[arg-type]
        elif doc["data_key"] == self._key:
            self._readers[doc["uid"]] = StreamReader(doc, self._access)

    def exposures(self, name: str, doc: Mapping[str, Any]) -> Iterator[Exposure]:
        """What an event, event_page or stream_datum brings."""
        if name == "event_page":
            for event in unpack_event_page(doc):  # type: ignore[arg-type]
                yield from self._event(event)
        elif name == "event":
            yield from self._event(doc)
        else:
            yield from self._stream_datum(doc)

    def left_over(self) -> list[tuple[str, int]]:
        """Stream and seq_num of exposures whose pixels, or whose event, never came."""
        return [(self._streams[uid], n) for uid, n in (*self._events, *self._waiting)]

    def close(self) -> None:
        self._filler.close()
        self._readers.clear()

    def _event(self, doc: Mapping[str, Any]) -> Iterator[Exposure]:
        uid, seq_num = doc["descriptor"], int(doc["seq_num"])
        stream = self._streams[uid]
        frame = int(doc["data"].get(self._frame_key, seq_num)) if self._frame_key else seq_num
        if self._key not in doc["data"]:
            load = self._waiting.pop((uid, seq_num), None)
            if (uid, seq_num) in self._given:
                self._given.discard((uid, seq_num))
            elif load is None:
                self._events[uid, seq_num] = (frame, doc["time"])
            else:
                yield Exposure(stream, seq_num, frame, doc["time"], load)
            return
        taken = doc.get("timestamps", {}).get(self._key, doc["time"])
        yield Exposure(stream, seq_num, frame, taken, lambda: self._pixels(doc))

    def _pixels(self, doc: Mapping[str, Any]) -> np.ndarray:
        value = doc["data"][self._key]
        if isinstance(value, str):
            filled = self._filler.fill_event(doc, include=[self._key])  # type: ignore[arg-type]
            value = filled["data"][self._key]
        if isinstance(value, list | tuple):
            declared = self._descriptors[doc["descriptor"]]["data_keys"][self._key]
            value = np.array(value, dtype=declared.get("dtype_numpy"))
        return np.asarray(value)

    def _stream_datum(self, doc: Mapping[str, Any]) -> Iterator[Exposure]:
        reader = self._readers.get(doc["stream_resource"])
        if reader is None:
            return  # of another data key
        uid = doc["descriptor"]
        if uid not in self._streams:
            raise TrackingError(f"A stream_datum names the descriptor {uid}, which never came.")
        reader.extend(doc, self._descriptors[uid])
        indices = range(doc["indices"]["start"], doc["indices"]["stop"])
        for n, index in enumerate(indices):
            seq_num = int(doc["seq_nums"]["start"]) + n
            load = reader.loader(index)
            known = self._events.pop((uid, seq_num), None)
            if known is not None:
                yield Exposure(self._streams[uid], seq_num, known[0], known[1], load)
            elif self._frame_key:
                self._waiting[uid, seq_num] = load
            else:
                # flying, or its event is still to come: pixels don't wait for motor positions
                self._given.add((uid, seq_num))
                yield Exposure(self._streams[uid], seq_num, seq_num, time.time(), load)
