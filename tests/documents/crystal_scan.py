"""Spots on a grid as three kinds of documents: of bluesky's run engine, or composed one by one."""

from __future__ import annotations

import itertools
import time
import uuid
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from event_model import compose_run

KEY = "dexela_image"
SHAPE = (6, 7)  # points of the scan, slow axis first
PIXELS = (96, 112)
N_FRAMES = 3
N_POINTS = 6  # of `Scan`
#: y, x, first and last row and column of the scan where it shines, height
SPOTS = (
    (30.3, 40.6, 0, 5, 0, 6, 900.0),  # everywhere
    (70.7, 25.2, 1, 3, 2, 4, 1500.0),
    (60.2, 90.4, 2, 5, 0, 1, 1100.0),
)
LOCATE: dict[str, Any] = {"diameter": 11, "percentile": 80, "separation": 15}
BACKGROUND = 100.0
_FIRST = 9  # point of `Scan`: there a second spot begins to shine


def shines(spot: int, point: tuple[int, int]) -> bool:
    _, _, top, bottom, left, right, _ = SPOTS[spot]
    return top <= point[0] <= bottom and left <= point[1] <= right


def n_peaks() -> int:
    points = itertools.product(range(SHAPE[0]), range(SHAPE[1]))
    return sum(shines(spot, point) for point in points for spot in range(len(SPOTS)))


def frames_at(point: tuple[int, int]) -> np.ndarray:
    """(N_FRAMES, *PIXELS) uint16; frames of a point differ by a little noise."""
    y, x = np.mgrid[: PIXELS[0], : PIXELS[1]]
    image = np.full(PIXELS, BACKGROUND)
    for spot, (y0, x0, *_, height) in enumerate(SPOTS):
        if shines(spot, point):
            image += height * np.exp(-((y - y0) ** 2 + (x - x0) ** 2) / (2 * 2.5**2))
    rng = np.random.default_rng(1000 * point[0] + point[1])
    return np.round(image + rng.normal(0, 1.5, (N_FRAMES, *PIXELS))).astype(np.uint16)


class DoneStatus:
    """Of what is done at once."""

    done = True
    success = True

    def add_callback(self, callback):
        callback(self)

    def exception(self, timeout=0.0):
        return None


class Axis:
    """A stage that is where it is told to be."""

    parent = None

    def __init__(self, name: str):
        self.name = name
        self.position = 0.0

    def set(self, value):
        self.position = float(value)
        return DoneStatus()

    def read(self):
        return {self.name: {"value": self.position, "timestamp": time.time()}}

    def describe(self):
        return {self.name: {"source": "SIM", "dtype": "number", "shape": []}}

    def read_configuration(self):
        return {}

    def describe_configuration(self):
        return {}

    @property
    def hints(self):
        return {"fields": [self.name]}


class InlineDetector:
    """Frames of the point where the axes are, inside its events."""

    name = "dexela"
    parent = None
    external: str | None = None

    def __init__(self, slow: Axis, fast: Axis):
        self._axes = (slow, fast)

    def trigger(self):
        slow, fast = self._axes
        self.frames = frames_at((round(slow.position), round(fast.position)))
        return DoneStatus()

    def read(self):
        return {KEY: {"value": self.frames, "timestamp": time.time()}}

    def describe(self):
        key = {
            "source": "SIM",
            "dtype": "array",
            "dtype_numpy": "<u2",
            "shape": [N_FRAMES, *PIXELS],
        }
        if self.external:
            key["external"] = self.external
        return {KEY: key}

    def read_configuration(self):
        return {}

    def describe_configuration(self):
        return {}


class _FileDetector(InlineDetector, ABC):
    """Writes each point to an HDF5 file that is read while it grows."""

    dataset = "/entry/data/data"

    def __init__(self, slow: Axis, fast: Axis, folder: Path):
        super().__init__(slow, fast)
        self._path = folder / f"{uuid.uuid4()}.h5"
        self._file: Any = None
        self._docs: list[tuple[str, dict]] = []
        self._n = 0

    @abstractmethod
    def _begin(self):
        """Compose what says where the pixels are."""

    @abstractmethod
    def _point(self):
        """Compose what says which of them are this point's."""

    def stage(self):
        self._file = h5py.File(self._path, "w", libver="latest")
        self._data = self._file.create_dataset(
            self.dataset, (0, *PIXELS), "u2", maxshape=(None, *PIXELS), chunks=(1, *PIXELS)
        )
        self._file.swmr_mode = True
        self._begin()
        return [self]

    def unstage(self):
        self._file.close()
        return [self]

    def trigger(self):
        status = super().trigger()
        self._data.resize(len(self._data) + N_FRAMES, axis=0)
        self._data[-N_FRAMES:] = self.frames
        self._data.flush()
        self._point()
        self._n += 1
        return status

    def collect_asset_docs(self, index=None):
        docs, self._docs = self._docs, []
        yield from docs


class ResourceDetector(_FileDetector):
    external = "FILESTORE:"

    def _begin(self):
        self._resource = str(uuid.uuid4())
        resource = {
            "uid": self._resource,
            "spec": "AD_HDF5",
            "root": "/",
            "resource_path": str(self._path).lstrip("/"),
            "resource_kwargs": {"frame_per_point": N_FRAMES},
            "path_semantics": "posix",
        }
        self._docs.append(("resource", resource))

    def _point(self):
        self._datum = f"{self._resource}/{self._n}"
        kwargs = {"point_number": self._n}
        datum = {"datum_id": self._datum, "resource": self._resource, "datum_kwargs": kwargs}
        self._docs.append(("datum", datum))

    def read(self):
        return {KEY: {"value": self._datum, "timestamp": time.time()}}


class StreamDetector(_FileDetector):
    external = "STREAM:"

    def _begin(self):
        self._resource = str(uuid.uuid4())
        resource = {
            "uid": self._resource,
            "data_key": KEY,
            "mimetype": "application/x-hdf5",
            "uri": f"file://localhost{self._path}",
            "parameters": {
                "dataset": self.dataset,
                "join_method": "concat",
                "chunk_shape": [1, *PIXELS],
            },
        }
        self._docs.append(("stream_resource", resource))

    def _point(self):
        datum = {
            "uid": f"{self._resource}/{self._n}",
            "stream_resource": self._resource,
            "descriptor": "",
            "indices": {"start": self._n, "stop": self._n + 1},
            "seq_nums": {"start": 0, "stop": 0},
        }
        self._docs.append(("stream_datum", datum))

    def get_index(self):
        return self._n

    def read(self):
        return {}


class Scan:
    """Documents of a run of N_POINTS, pixels inside, or in ``path`` by StreamDatum."""

    def __init__(self, path=None):
        self.bundle: Any = compose_run(metadata={"shape": list(SHAPE), "snaking": [False, False]})
        self.uid = self.bundle.start_doc["uid"]
        key: dict[str, Any] = {
            "dtype": "array", "dtype_numpy": "<u2", "shape": [N_FRAMES, *PIXELS], "source": "SIM",
        }  # fmt: skip
        if path is not None:
            key["external"] = "STREAM:"
        described = self.bundle.compose_descriptor(name="primary", data_keys={KEY: key})  # type: ignore[dict-item]
        self.head = [("start", self.bundle.start_doc), ("descriptor", described.descriptor_doc)]
        self.points: list[tuple[str, Any]] = []
        if path is None:
            for n in range(N_POINTS):
                data = {KEY: frames_at(divmod(n + _FIRST, SHAPE[1]))}
                event = described.compose_event(data=data, timestamps={KEY: 1.0})
                self.points.append(("event", event))
        else:
            resource = self.bundle.compose_stream_resource(
                mimetype="application/x-hdf5", uri=f"file://localhost{path}", data_key=KEY,
                parameters={"dataset": "/entry/data/data", "chunk_shape": [1, *PIXELS]},
            )  # fmt: skip
            self.head.append(("stream_resource", resource.stream_resource_doc))
            for n in range(N_POINTS):
                datum = resource.compose_stream_datum(
                    indices={"start": n, "stop": n + 1},
                    seq_nums={"start": n + 1, "stop": n + 2},
                    descriptor=described.descriptor_doc,
                )
                self.points.append(("stream_datum", datum))
        self.stop = [("stop", self.bundle.compose_stop())]

    @property
    def all(self):
        return [*self.head, *self.points, *self.stop]


def write_frames(path):
    with h5py.File(path, "w") as file:
        frames = [frames_at(divmod(n + _FIRST, SHAPE[1])) for n in range(N_POINTS)]
        file["/entry/data/data"] = np.concatenate(frames)
