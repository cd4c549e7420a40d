"""Images out of events and into HDF5 files, with StreamResource and StreamDatum in their place."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import h5py
import numpy as np
from event_model import ComposeStreamResource, ComposeStreamResourceBundle, unpack_event_page
from tiled.utils import ensure_uri

from tomostream_ioc.documents.counts import StageCounts
from tomostream_ioc.documents.dispatch import Callback, Dispatcher

log = logging.getLogger(__name__)

#: arrays of fewer elements stay in their events
MIN_PIXELS = 4096


class _ImageFile:
    """One data key of one stream: a file that may be read while it grows (SWMR)."""

    def __init__(self, path: Path, dataset: str, first: np.ndarray):
        self._file = h5py.File(path, "w", libver="latest")
        self._data = self._file.create_dataset(
            dataset,
            shape=(0, *first.shape),
            maxshape=(None, *first.shape),
            chunks=(1, *first.shape),
            dtype=first.dtype,
        )
        self._file.swmr_mode = True

    def append(self, image: np.ndarray) -> int:
        """Raises ValueError: the image has another shape than the first."""
        if image.shape != self._data.shape[1:]:
            raise ValueError(f"an array of shape {image.shape} after {self._data.shape[1:]}")
        n = len(self._data)
        self._data.resize(n + 1, axis=0)
        if image.dtype == self._data.dtype and image.dtype.kind in "biuf":
            # bytes as they are: by way of HDF5's chunk cache it takes twice as long
            corner = (n, *(0 for _ in image.shape))
            self._data.id.write_direct_chunk(corner, np.ascontiguousarray(image))
        else:
            self._data[n] = image
        self._data.flush()
        return n

    def close(self) -> None:
        self._file.close()


class _Stream:
    """A descriptor that waits for its first event, and the files of its images."""

    def __init__(self, doc: Mapping[str, Any]):
        self.doc = dict(doc)
        self.sent = False
        self.files: dict[str, _ImageFile] = {}
        self.resources: dict[str, ComposeStreamResourceBundle] = {}


class _Run:
    def __init__(self, start: Mapping[str, Any]):
        self.start = start
        self.streams: dict[str, _Stream] = {}


class ImageFiles:
    """Passes documents on, with large arrays in events written to files in ``folder``.

    A file of one dataset per data key: 1024 x 1024 pixels inside an event cost a database 152 ms,
    in a file a few. The descriptor is held back until the first event, and then says the true
    shape and dtype of the arrays. An array of another shape than the first is left out of its
    event, logged and counted (``counts.failed``).
    """

    def __init__(self, folder: str | Path, min_pixels: int = MIN_PIXELS):
        self.folder = Path(folder).resolve()
        self.counts = StageCounts()
        self._min = min_pixels
        self._dispatcher = Dispatcher(self.counts)
        self._runs: dict[str, _Run] = {}
        self._by_descriptor: dict[str, _Run] = {}

    def subscribe(self, callback: Callback, name: Any = "all") -> int:
        return self._dispatcher.subscribe(callback, name)

    def unsubscribe(self, token: int) -> None:
        self._dispatcher.unsubscribe(token)

    def __call__(self, name: str, doc: Any) -> None:
        name = str(getattr(name, "name", name))
        if name == "start":
            self._runs[doc["uid"]] = _Run(doc)
            self._dispatcher.emit(name, doc)
        elif name == "descriptor" and doc["run_start"] in self._runs:
            run = self._runs[doc["run_start"]]
            run.streams[doc["uid"]] = _Stream(doc)
            self._by_descriptor[doc["uid"]] = run
        elif name == "event" and doc["descriptor"] in self._by_descriptor:
            self._event(doc)
        elif name == "event_page" and doc["descriptor"] in self._by_descriptor:
            self._page(doc)
        elif name == "stop" and doc["run_start"] in self._runs:
            self._stop(doc)
        else:
            stream = self._stream(doc.get("descriptor", ""))
            if stream is not None:
                self._send(stream)
            self._dispatcher.emit(name, doc)

    def close(self) -> None:
        """Close all files; runs that are open stay without their stop."""
        for run in self._runs.values():
            for stream in run.streams.values():
                for file in stream.files.values():
                    file.close()
        self._runs.clear()
        self._by_descriptor.clear()

    def _stream(self, uid: str) -> _Stream | None:
        run = self._by_descriptor.get(uid)
        return None if run is None else run.streams[uid]

    def _send(self, stream: _Stream) -> None:
        if not stream.sent:
            stream.sent = True
            self._dispatcher.emit("descriptor", stream.doc)

    def _page(self, doc: Mapping[str, Any]) -> None:
        run = self._by_descriptor[doc["descriptor"]]
        stream = run.streams[doc["descriptor"]]
        if any(self._is_large(np.shape(column)[1:]) for column in doc["data"].values()):
            for event in unpack_event_page(doc):  # type: ignore[arg-type]
                self._event(event)
            return
        self._send(stream)
        self._dispatcher.emit("event_page", doc)

    def _event(self, doc: Mapping[str, Any]) -> None:
        run = self._by_descriptor[doc["descriptor"]]
        stream = run.streams[doc["descriptor"]]
        arrays = {
            key: np.asarray(value)
            for key, value in doc["data"].items()
            if isinstance(value, np.ndarray | list | tuple) and self._is_large(np.shape(value))
        }
        if not stream.sent:
            self._declare(run, stream, arrays)
        if not stream.resources:
            self._dispatcher.emit("event", doc)
            return
        out = {**doc, "filled": {k: v for k, v in doc.get("filled", {}).items() if k not in arrays}}
        for part in ("data", "timestamps"):
            out[part] = {k: v for k, v in doc[part].items() if k not in stream.resources}
        self._dispatcher.emit("event", out)
        for key, bundle in stream.resources.items():
            if key in arrays:
                self._append(stream, key, bundle, arrays[key], int(doc["seq_num"]))

    def _append(
        self,
        stream: _Stream,
        key: str,
        bundle: ComposeStreamResourceBundle,
        image: np.ndarray,
        seq_num: int,
    ) -> None:
        try:
            n = stream.files[key].append(image)
        except (OSError, ValueError) as error:
            self.counts.failed += 1
            log.warning("%s of event %d is not written: %s", key, seq_num, error)
            return
        self.counts.processed += 1
        datum = bundle.compose_stream_datum(
            indices={"start": n, "stop": n + 1},
            seq_nums={"start": seq_num, "stop": seq_num + 1},
            descriptor=cast(Any, stream.doc),
        )
        self._dispatcher.emit("stream_datum", datum)

    def _declare(self, run: _Run, stream: _Stream, arrays: Mapping[str, np.ndarray]) -> None:
        keys = dict(stream.doc["data_keys"])
        self.folder.mkdir(parents=True, exist_ok=True)
        compose = ComposeStreamResource(start=cast(Any, run.start))
        for key, array in arrays.items():
            path = self.folder / f"{run.start['uid']}_{stream.doc['name']}_{key}.h5"
            dataset = f"{stream.doc['name']}/{key}"
            stream.files[key] = _ImageFile(path, dataset, array)
            keys[key] = {
                **keys[key],
                "dtype": "array",
                "dtype_numpy": array.dtype.str,
                "shape": list(array.shape),
                "external": "STREAM:",
            }
            stream.resources[key] = compose(
                mimetype="application/x-hdf5",
                uri=ensure_uri(str(path)),
                data_key=key,
                parameters={
                    "dataset": dataset,
                    "chunk_shape": [1, *array.shape],
                    "join_method": "stack",
                },
            )
        stream.doc["data_keys"] = keys
        self._send(stream)
        for bundle in stream.resources.values():
            self._dispatcher.emit("stream_resource", bundle.stream_resource_doc)

    def _stop(self, doc: Mapping[str, Any]) -> None:
        run = self._runs.pop(doc["run_start"])
        for uid, stream in run.streams.items():
            self._send(stream)
            for file in stream.files.values():
                file.close()
            self._by_descriptor.pop(uid, None)
        self._dispatcher.emit("stop", doc)

    def _is_large(self, shape: tuple[int, ...]) -> bool:
        return len(shape) >= 2 and math.prod(shape) >= self._min
