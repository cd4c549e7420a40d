"""Reads a DXfile: exchange/data, data_dark, data_white and theta."""

from __future__ import annotations

import os
from pathlib import Path

import h5py
import numpy as np

from tomostream_ioc.errors import ConfigError
from tomostream_ioc.model.frame import FRAME_DTYPES


class ScanFile:
    """Projections of a DXfile, from memory when they fit into ``memory_bytes``, else from the file.

    ``dark`` and ``flat`` are stacks (n, n_rows, n_cols) of at least one frame; ``theta_deg`` is one
    angle per projection, as the file has it.

    Raises ConfigError: no HDF5 file, a dataset that is missing, or sizes that do not fit.
    """

    def __init__(self, path: Path, memory_bytes: int) -> None:
        try:
            self._file = h5py.File(path, "r")
        except OSError as error:
            raise ConfigError(f"{path} {why_not_opened(path, error)}") from error
        try:
            self._data = self._dataset(path, "data", 3)
            if self._data.shape[2] < 2:
                raise ConfigError(f"{path}: projections of 1 column show no object: take 2 or more")
            self.dark = self._stack(path, "data_dark")
            self.flat = self._stack(path, "data_white")
            self.theta_deg = self._theta(path)
            if self._data.size * self._data.dtype.itemsize <= memory_bytes:
                self._frames = np.asarray(self._data[()], self.dtype)
                self._file.close()
            else:
                self._frames = None
        except ConfigError:
            self._file.close()
            raise

    @property
    def n_projections(self) -> int:
        return self.theta_deg.size

    @property
    def shape(self) -> tuple[int, int]:
        """(n_rows, n_cols)."""
        return self.dark.shape[1], self.dark.shape[2]

    @property
    def dtype(self) -> np.dtype:
        return self._dtype

    def projection(self, index: int) -> np.ndarray:
        if self._frames is not None:
            return self._frames[index]
        return np.asarray(self._data[index], self.dtype)

    def rows(self, projections: slice, rows: slice) -> np.ndarray:
        """Detector rows of some projections, (k, rows, n_cols)."""
        if self._frames is not None:
            return self._frames[projections, rows]
        return np.asarray(self._data[projections, rows], self.dtype)

    def close(self) -> None:
        self._file.close()

    def _dataset(self, path: Path, name: str, ndim: int) -> h5py.Dataset:
        dataset = self._file.get(f"exchange/{name}")
        if not isinstance(dataset, h5py.Dataset):
            raise ConfigError(f"{path} is no DXfile: it has no dataset exchange/{name}")
        dtype = dataset.dtype.newbyteorder("=")
        if dtype not in FRAME_DTYPES:
            raise ConfigError(f"{path}: exchange/{name} has type {dataset.dtype}, not numbers")
        if dataset.ndim != ndim or dataset.size == 0:
            raise ConfigError(
                f"{path}: exchange/{name} has shape {dataset.shape}; {ndim} axes, none empty, "
                "are needed"
            )
        if name == "data":
            self._dtype = dtype
        return dataset

    def _stack(self, path: Path, name: str) -> np.ndarray:
        is_single = getattr(self._file.get(f"exchange/{name}"), "ndim", 3) == 2
        dataset = self._dataset(path, name, 2 if is_single else 3)
        stack = np.asarray(dataset[()], dataset.dtype.newbyteorder("="))
        stack = stack[None] if is_single else stack  # (n, n_rows, n_cols)
        if stack.shape[1:] != self._data.shape[1:]:
            raise ConfigError(
                f"{path}: exchange/{name} is {stack.shape[1:]} pixels, the projections are "
                f"{self._data.shape[1:]}"
            )
        return stack

    def _theta(self, path: Path) -> np.ndarray:
        theta = np.asarray(self._dataset(path, "theta", 1)[()], np.float64)
        if theta.size != self._data.shape[0]:
            raise ConfigError(
                f"{path}: {theta.size} angles in exchange/theta for {self._data.shape[0]} "
                "projections"
            )
        if not np.all(np.isfinite(theta)):
            raise ConfigError(f"{path}: exchange/theta holds NaN or infinite angles")
        return theta


def why_not_opened(path: Path, error: OSError) -> str:
    """Why HDF5 could not open it; its own words tell neither and go over two lines."""
    if isinstance(error, PermissionError):
        return "can't be read: permission denied"
    if not os.path.exists(path):  # which raises nothing where Path.exists() would
        return "does not exist"
    if path.is_dir():
        return "is a folder, not a file"
    return f"is no HDF5 file, or not whole ({' '.join(str(error).split())})"
