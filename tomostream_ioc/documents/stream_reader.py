"""Pixels that a StreamResource points to: HDF5 by h5py, other formats by Tiled's adapters."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import h5py
import hdf5plugin  # noqa: F401 - registers lz4, bitshuffle and blosc with HDF5
import numpy as np

from tomostream_ioc.documents.read_access import ANYWHERE, ReadAccess
from tomostream_ioc.errors import TrackingError

_HDF5 = "application/x-hdf5"
#: how long a file may lag behind the document that announces what is in it
WAIT_S = 2.0
_POLL_S = 0.02


class StreamReader:
    """Reads what the StreamDatum documents of one StreamResource announce."""

    def __init__(self, resource: Mapping[str, Any], access: ReadAccess = ANYWHERE):
        self._resource = resource
        self._access = access
        self._parameters = resource.get("parameters", {})
        self._datum_shape: tuple[int, ...] = ()
        self._consolidator: Any = None

    def extend(self, datum: Mapping[str, Any], descriptor: Mapping[str, Any]) -> None:
        """Take one StreamDatum. Raises TrackingError: nothing here reads such files."""
        shape = descriptor["data_keys"][self._resource["data_key"]].get("shape") or ()
        self._datum_shape = tuple(int(n or 0) for n in shape)
        mimetype = self._resource["mimetype"]
        if mimetype == _HDF5 and not self._parameters.get("template"):
            return
        if self._consolidator is None:
            # imported only here: it brings in all of Tiled's adapters
            from bluesky_tiled_plugins.writing.consolidators import consolidator_factory

            try:
                self._consolidator = consolidator_factory(self._resource, descriptor)
            except KeyError:
                raise TrackingError(f"Nothing reads pixels of the type {mimetype}.") from None
        self._consolidator.consume_stream_datum(datum)

    def loader(self, index: int) -> Callable[[], np.ndarray]:
        """A function that reads the exposure at ``index``, (n_frames, n_rows, n_cols) or less."""
        if self._consolidator is not None:
            return lambda: self._from_adapter(index)
        return lambda: self._from_hdf5(index)

    def _from_adapter(self, index: int) -> np.ndarray:
        for asset in self._consolidator.assets:
            self._access.check_uri(asset.data_uri)
        return np.asarray(self._consolidator.init_adapter()[index])

    def _from_hdf5(self, index: int) -> np.ndarray:
        """A file that is still written may lag behind its documents: waited for, with a limit."""
        path = self._access.check_uri(self._resource["uri"])
        deadline = time.monotonic() + WAIT_S
        while True:
            try:
                with h5py.File(path, "r", libver="latest", swmr=True) as file:
                    pixels = self._slice(file[self._parameters["dataset"]], index)
                    if pixels is not None:
                        return pixels
                reason = f"frame {index} is not in it"
            except OSError as error:
                reason = str(error)
            if time.monotonic() > deadline:
                raise TrackingError(f"{path} can't be read within {WAIT_S:g} s: {reason}.")
            time.sleep(_POLL_S)

    def _slice(self, dataset: Any, index: int) -> np.ndarray | None:
        """None while the file does not hold the frame yet.

        The ranks say how points are joined: `join_method` does not always, as a Resource turned
        into a StreamResource says "stack" of frames that follow each other in the file.
        """
        shape = self._datum_shape
        if dataset.ndim > max(len(shape), 3) or (dataset.ndim == 3 and len(shape) < 3):
            n_frames = int(self._parameters.get("multiplier") or 1) if dataset.ndim == 3 else 1
            if n_frames == 1:
                return dataset[index] if index < len(dataset) else None
        else:
            n_frames = shape[0]
        end = (index + 1) * n_frames
        return dataset[end - n_frames : end] if end <= len(dataset) else None
