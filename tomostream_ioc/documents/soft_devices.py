"""Soft devices for bluesky's run engine: motors, and a detector that sees a synthetic crystal rod.

They follow bluesky's protocols (Movable, Readable, Triggerable, Stageable, WritesExternalAssets).
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from tiled.utils import ensure_uri

from tomostream_ioc.tracking.rod import CrystalRod

DATASET = "/entry/data/data"


class _Done:
    """The Status of what is done at once."""

    done = True
    success = True

    def add_callback(self, callback: Callable[[Any], None]) -> None:
        callback(self)

    def exception(self, timeout: float | None = 0.0) -> None:
        return None


class SoftMotor:
    """Is at once where it is told to be."""

    parent = None

    def __init__(self, name: str):
        self.name = name
        self.position = 0.0

    @property
    def hints(self) -> dict[str, Any]:
        return {"fields": [self.name]}

    def set(self, value: float) -> _Done:
        self.position = float(value)
        return _Done()

    def read(self) -> dict[str, Any]:
        return {self.name: {"value": self.position, "timestamp": time.time()}}

    def describe(self) -> dict[str, Any]:
        return {self.name: {"source": "SIM", "dtype": "number", "shape": [], "units": "mm"}}

    def read_configuration(self) -> dict[str, Any]:
        return {}

    def describe_configuration(self) -> dict[str, Any]:
        return {}


class RodDetector:
    """Takes ``rod.n_frames`` images of the point where the motors are; pixels inside its events.

    key : data key of the images, (n_frames, n_rows, n_cols) uint16, beside `<key>_total`, the sum
        of their pixels per frame
    """

    name = "dexela"
    parent = None

    def __init__(self, rod: CrystalRod, slow: SoftMotor, fast: SoftMotor, key: str):
        self._rod = rod
        self._motors = (slow, fast)
        self._key = key
        grid = rod.grid
        self._steps = [
            0.0 if pair is None or n == 1 else (pair[1] - pair[0]) / (n - 1)
            for pair, n in zip(grid.extents, grid.shape, strict=True)
        ]
        self._frame_at = {tuple(grid.index(n)): n for n in range(1, rod.n_points + 1)}
        self._frames = np.empty((0, 0, 0), np.uint16)

    @property
    def hints(self) -> dict[str, Any]:
        return {"fields": [f"{self._key}_total"]}

    def trigger(self) -> _Done:
        point = tuple(
            round(motor.position / step) if step else 0
            for motor, step in zip(self._motors, self._steps, strict=True)
        )
        self._frames = self._rod.frames(self._frame_at[point])
        self._keep(self._frames)
        return _Done()

    def read(self) -> dict[str, Any]:
        now = time.time()
        total = float(self._frames.sum(dtype=np.uint64)) / max(len(self._frames), 1)
        return {
            f"{self._key}_total": {"value": total, "timestamp": now},
            **self._pixels(now),
        }

    def describe(self) -> dict[str, Any]:
        return {
            f"{self._key}_total": {"source": "SIM", "dtype": "number", "shape": []},
            self._key: self._described(),
        }

    def read_configuration(self) -> dict[str, Any]:
        return {}

    def describe_configuration(self) -> dict[str, Any]:
        return {}

    def _described(self) -> dict[str, Any]:
        return {
            "source": "SIM",
            "dtype": "array",
            "dtype_numpy": "<u2",
            "shape": [self._rod.n_frames, *self._rod.image_shape],
        }

    def _pixels(self, now: float) -> dict[str, Any]:
        return {self._key: {"value": self._frames, "timestamp": now}}

    def _keep(self, frames: np.ndarray) -> None:
        """Nothing: pixels go into the event."""


class RodFileDetector(RodDetector):
    """Writes its images to HDF5 files in ``folder``, one per run, that are read while they grow;
    documents point to them (StreamResource, StreamDatum)."""

    def __init__(
        self, rod: CrystalRod, slow: SoftMotor, fast: SoftMotor, key: str, folder: Path
    ):  # fmt: skip
        super().__init__(rod, slow, fast, key)
        self._folder = folder
        self._file: Any = None
        self._data: Any = None
        self._docs: list[tuple[str, dict[str, Any]]] = []
        self._resource = ""
        self._n_points = 0

    def stage(self) -> list[Any]:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._resource, self._n_points = str(uuid.uuid4()), 0
        path = self._folder / f"{self._resource}.h5"
        shape = self._rod.image_shape
        self._file = h5py.File(path, "w", libver="latest")
        self._data = self._file.create_dataset(
            DATASET, (0, *shape), "u2", maxshape=(None, *shape), chunks=(1, *shape)
        )
        self._file.swmr_mode = True
        resource = {
            "uid": self._resource,
            "data_key": self._key,
            "mimetype": "application/x-hdf5",
            "uri": ensure_uri(str(path.resolve())),
            "parameters": {
                "dataset": DATASET,
                "join_method": "concat",
                "chunk_shape": [1, *shape],
            },
        }
        self._docs.append(("stream_resource", resource))
        return [self]

    def unstage(self) -> list[Any]:
        if self._file is not None:
            self._file.close()
            self._file = None
        return [self]

    def collect_asset_docs(self, index: int | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
        docs, self._docs = self._docs, []
        yield from docs

    def get_index(self) -> int:
        return self._n_points

    def _described(self) -> dict[str, Any]:
        return {**super()._described(), "external": "STREAM:"}

    def _pixels(self, now: float) -> dict[str, Any]:
        return {}

    def _keep(self, frames: np.ndarray) -> None:
        first = len(self._data)
        self._data.resize(first + len(frames), axis=0)
        self._data[first:] = frames
        self._data.flush()
        n = self._n_points
        datum = {
            "uid": f"{self._resource}/{n}",
            "stream_resource": self._resource,
            "descriptor": "",
            "indices": {"start": n, "stop": n + 1},
            "seq_nums": {"start": 0, "stop": 0},  # the run engine fills these two in
        }
        self._docs.append(("stream_datum", datum))
        self._n_points = n + 1
