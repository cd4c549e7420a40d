"""Images of events in HDF5 files: the same bytes, and readable while the file grows."""

from __future__ import annotations

from typing import Any

import h5py
import numpy as np
import pytest
from crystal_scan import KEY
from event_model import compose_run

from tomostream_ioc.documents import ImageFiles

PIXELS = (70, 90)


class Recorded:
    """A run with images inside its events, through ImageFiles, and the documents that come out."""

    def __init__(self, folder):
        self.files = ImageFiles(folder)
        self.out: list[tuple[str, Any]] = []
        self.files.subscribe(lambda name, doc: self.out.append((name, doc)))
        self.bundle: Any = compose_run()
        key: Any = {"source": "SIM", "dtype": "array", "shape": PIXELS}
        self.described = self.bundle.compose_descriptor(name="primary", data_keys={KEY: key})
        self.files("start", self.bundle.start_doc)
        self.files("descriptor", self.described.descriptor_doc)

    def add(self, image):
        data = {KEY: image}
        event = self.described.compose_event(data=data, timestamps={KEY: 1.0}, validate=False)
        self.files("event", event)

    def stop(self):
        self.files("stop", self.bundle.compose_stop())

    def read(self, **how):
        (resource,) = [doc for name, doc in self.out if name == "stream_resource"]
        path = resource["uri"].removeprefix("file://localhost")
        with h5py.File(path, "r", **how) as file:
            data: Any = file[resource["parameters"]["dataset"]]
            return data[...], data.chunks

    @property
    def numbers(self):
        """Of the images in the file."""
        return [doc["indices"]["start"] for name, doc in self.out if name == "stream_datum"]


@pytest.fixture
def recorded(tmp_path):
    recorded = Recorded(tmp_path)
    yield recorded
    recorded.files.close()


@pytest.mark.parametrize("dtype", ["u1", "<u2", ">u2", "<i4", "<f2", "<f4", "<f8", "?"])
def test_bytes_are_the_same_and_may_be_read_while_they_come(recorded, dtype):
    rng = np.random.default_rng(1)
    images = [rng.integers(0, 200, PIXELS).astype(dtype) for _ in range(5)]
    for n, image in enumerate(images, start=1):
        recorded.add(image)
        so_far, chunks = recorded.read(libver="latest", swmr=True)
        np.testing.assert_array_equal(so_far, np.stack(images[:n]))
        assert so_far.dtype == np.dtype(dtype)
        assert chunks == (1, *PIXELS)
    recorded.stop()
    np.testing.assert_array_equal(recorded.read()[0], np.stack(images))
    assert recorded.numbers == [0, 1, 2, 3, 4]


def test_images_that_lie_otherwise_in_memory_or_have_another_type_come_out_as_the_first(recorded):
    image = np.arange(PIXELS[0] * PIXELS[1], dtype=np.float32).reshape(PIXELS)
    for each in (image, np.asfortranarray(image), image[::-1, ::-1], image.astype(np.float64)):
        recorded.add(each)
    recorded.add(image[:-1])  # another shape: left out
    recorded.add(image)
    recorded.stop()
    whole = np.stack([image, image, image[::-1, ::-1], image, image])
    np.testing.assert_array_equal(recorded.read()[0], whole)
    assert recorded.files.counts.failed == 1
    assert recorded.numbers == [0, 1, 2, 3, 4]
