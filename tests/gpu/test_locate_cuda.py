"""locate on a CUDA GPU: the peaks of trackpy, from numpy and from tensors that are there."""
# ruff: noqa: E402

import numpy as np
import pytest
import torch

trackpy = pytest.importorskip("trackpy")
pytest.importorskip("numba")  # which the tracking of the CPU is compiled by

from support.peak_images import as_pixels, diffraction

from tomostream_ioc.tracking import Locator

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA GPU here"),
    pytest.mark.timeout(300),
]


@pytest.mark.parametrize("dtype", ["float64", "float32", "uint8", "uint16", "int32"])
def test_as_many_peaks_as_trackpy_and_of_the_same_mass(dtype):
    frames = np.stack([as_pixels(diffraction((600, 700), n, seed=n), dtype) for n in (10, 40, 80)])
    with Locator(15, percentile=80, separation=40, device="cuda") as locator:
        tables = locator.locate_many(frames)
        again = locator.locate_many(torch.from_numpy(frames).cuda())
        assert locator.counts.fast == 6
    for frame, table, other in zip(frames, tables, again, strict=True):
        expected = trackpy.locate(frame, 15, percentile=80, separation=40)
        assert len(table) == len(expected)
        np.testing.assert_allclose(table["mass"], expected["mass"], rtol=0.01)
        assert table.equals(other)


def test_a_tensor_on_the_gpu_needs_no_device():
    image = torch.from_numpy(diffraction((200, 210), 9)).cuda()
    with Locator(9) as locator:
        assert len(locator.locate(image))
        assert locator.counts.fast == 1
