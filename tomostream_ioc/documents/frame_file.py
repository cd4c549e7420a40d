"""Frames in an HDF5 file as a bluesky run: a grid scan with its pixels inside the events."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin  # noqa: F401 - registers lz4, bitshuffle and blosc with HDF5
import numpy as np
from event_model import compose_run

from tomostream_ioc.errors import ConfigError
from tomostream_ioc.scan_file import why_not_opened
from tomostream_ioc.tracking import ScanGrid

#: where areaDetector, and DXfile, keep frames
DATASETS = ("/entry/data/data", "/exchange/data")


@dataclass(frozen=True, slots=True)
class FrameFile:
    """Frames (n, n_rows, n_cols), or (n_points, n_frames, n_rows, n_cols), of a scan's points.

    What is None is read from the attributes `shape`, `snaking` (a value per axis, or one for all
    but the slowest), `extents` and `frames_per_point` of the dataset or of the file.

    dataset : its path in the file; None for `/entry/data/data` or `/exchange/data`
    shape : points of the grid, slow axis first; None, and no attribute: one axis
    frames_per_point : frames that follow each other in the file and belong to one point
    """

    path: Path
    key: str
    dataset: str | None = None
    shape: tuple[int, ...] | None = None
    snaking: bool | None = None
    frames_per_point: int | None = None

    def documents(self) -> Iterator[tuple[str, Any]]:
        """A run's documents; pixels are read point by point.

        Raises ConfigError: no such file or dataset, or frames and grid that don't agree.
        """
        try:
            file = h5py.File(self.path, "r")
        except OSError as error:
            raise ConfigError(f"{self.path} {why_not_opened(self.path, error)}") from error
        with file:
            yield from self._documents(self._open(file), dict(file.attrs))

    def n_points(self) -> int:
        """Raises ConfigError as `documents` does."""
        for name, doc in self.documents():
            if name == "start":
                return int(doc["num_points"])
        return 0

    def _open(self, file: Any) -> Any:
        for name in (self.dataset,) if self.dataset else DATASETS:
            if isinstance(file.get(name), h5py.Dataset):
                data = file[name]
                if data.ndim not in (3, 4) or not data.size or data.dtype.kind not in "biuf":
                    raise ConfigError(
                        f"{self.path}: {name} is {data.dtype} of shape {data.shape}:"
                        " (n, n_rows, n_cols) or (n_points, n_frames, n_rows, n_cols) is needed"
                    )
                return data
        wanted = self.dataset or " nor ".join(DATASETS)
        raise ConfigError(f"{self.path} has no dataset {wanted}: give --dataset")

    def _documents(self, data: Any, of_file: dict[str, Any]) -> Iterator[tuple[str, Any]]:
        attributes = {**of_file, **dict(data.attrs)}
        n_frames = data.shape[1] if data.ndim == 4 else self.frames_per_point
        if n_frames is None:
            n_frames = int(attributes.get("frames_per_point", 1))
        n_points = len(data) if data.ndim == 4 else len(data) // n_frames
        if data.ndim == 3 and n_points * n_frames != len(data):
            raise ConfigError(
                f"{self.path}: {len(data)} frames are no whole number of points of {n_frames} each"
            )
        grid = self._grid(attributes, n_points)
        bundle = compose_run(
            metadata={
                "plan_name": "frame_file",
                "file": str(self.path),
                "shape": list(grid.shape),
                "snaking": list(grid.snaking),
                "num_points": n_points,
                **_extents(grid),
            }
        )
        yield "start", bundle.start_doc
        described = bundle.compose_descriptor(
            name="primary",
            data_keys={
                self.key: {
                    "source": str(self.path),
                    "dtype": "array",
                    "dtype_numpy": data.dtype.str,
                    "shape": [n_frames, *data.shape[-2:]],
                }
            },
        )
        yield "descriptor", described.descriptor_doc
        taken = self.path.stat().st_mtime
        for point in range(n_points):
            if data.ndim == 4:
                frames = data[point]
            else:
                frames = data[point * n_frames : (point + 1) * n_frames]
            yield (
                "event",
                described.compose_event(
                    data={self.key: frames}, timestamps={self.key: taken}, validate=False
                ),
            )
        yield "stop", bundle.compose_stop()

    def _grid(self, attributes: dict[str, Any], n_points: int) -> ScanGrid:
        shape = self.shape
        if shape is None:
            shape = tuple(int(n) for n in np.atleast_1d(attributes.get("shape", n_points)))
        if math.prod(shape) != n_points:
            raise ConfigError(
                f"{self.path} holds {n_points} points, a grid of {' x '.join(map(str, shape))}"
                f" has {math.prod(shape)}: give --shape and --frames-per-point"
            )
        said = attributes.get("snaking", False) if self.snaking is None else self.snaking
        values = [bool(value) for value in np.atleast_1d(said)]
        snaking = values if len(values) == len(shape) else [False, *values * (len(shape) - 1)]
        extents = np.asarray(attributes.get("extents", ()), np.float64)
        pairs = tuple((float(a), float(b)) for a, b in extents) if extents.size else ()
        return ScanGrid(tuple(shape), pairs, tuple(snaking[: len(shape)]))


def _extents(grid: ScanGrid) -> dict[str, Any]:
    pairs = [list(pair) for pair in grid.extents if pair is not None]
    return {"extents": pairs} if len(pairs) == len(grid.shape) else {}
