"""Handlers of Resource documents that work out of the box: areaDetector's HDF5 files."""

from __future__ import annotations

from typing import Any

import h5py
import hdf5plugin  # noqa: F401 - registers lz4, bitshuffle and blosc with HDF5
import numpy as np

_DATASET = "/entry/data/data"


class AreaDetectorHDF5Handler:
    """Frames of one point in the file of areaDetector's HDF5 plugin.

    Resource: `resource_kwargs` frame_per_point. Datum: `datum_kwargs` point_number (from 0).
    """

    specs = frozenset({"AD_HDF5", "AD_HDF5_SWMR"})

    def __init__(self, path: Any, frame_per_point: int = 1, dataset: str = _DATASET, **_: Any):
        self._path = str(path)
        self._n = int(frame_per_point)
        self._dataset = dataset

    def __call__(self, point_number: int, **_: Any) -> np.ndarray:
        """(frame_per_point, n_rows, n_cols). Raises OSError, KeyError, IndexError."""
        with h5py.File(self._path, "r", libver="latest", swmr=True) as file:
            first = point_number * self._n
            frames = np.asarray(file[self._dataset][first : first + self._n])  # type: ignore[index]
        if len(frames) < self._n:
            raise IndexError(
                f"{self._path} does not hold the {self._n} frames of point {point_number} yet."
            )
        return frames


DEFAULT_HANDLERS = dict.fromkeys(AreaDetectorHDF5Handler.specs, AreaDetectorHDF5Handler)
