"""The finder for GPUs, on torch's CPU device: the same code, in the same precision."""

import numpy as np
import pandas as pd
import pytest
import torch
import trackpy
from support.peak_images import as_pixels, diffraction
from support.same_peaks import outcome

from tomostream_ioc.tracking.locate_params import LocateParams, fast_settings
from tomostream_ioc.tracking.peak_table import peak_table
from tomostream_ioc.tracking.pixel_mask import PixelMask
from tomostream_ioc.tracking.torch_finder import TorchFinder

pytestmark = pytest.mark.timeout(300)


def tables_of(frames, diameter, mask=None, **keywords):
    settings = fast_settings(LocateParams(diameter, **keywords), frames[0])
    assert not isinstance(settings, str)
    finder = TorchFinder(settings, frames.dtype, "cpu", mask)
    return [
        peak_table(found.peaks, settings, lambda f=found: (f.level, f.noise))
        for found in finder.find(torch.from_numpy(frames))
        if found.peaks is not None
    ]


def assert_near(ours, theirs):
    assert len(ours) == len(theirs)
    assert list(ours.columns) == list(theirs.columns)
    ours, theirs = ours.astype(float), theirs.astype(float)  # without peaks: of type object
    # float images: a level may differ by one, of which 8 bits have few
    np.testing.assert_allclose(ours["mass"], theirs["mass"], rtol=0.01)
    np.testing.assert_allclose(ours[["y", "x"]], theirs[["y", "x"]], atol=0.02)


SWEEPS = [
    (15, {"percentile": 80, "separation": 100}),
    (9, {"separation": 11, "topn": 8}),
    (7, {}),
    (11, {"minmass": 500, "maxsize": 4, "noise_size": 1.4, "smoothing_size": 21}),
    (5, {"noise_size": 0, "threshold": 30, "max_iterations": 1}),
    (7, {"characterize": False, "percentile": 0}),
]
CASES = [(dtype, *sweep) for dtype in ("float64", "uint16") for sweep in SWEEPS]
CASES += [
    (dtype, *sweep)
    for dtype in ("float32", "uint8", "uint32", "int16", "int32")
    for sweep in SWEEPS[:2]
]


@pytest.mark.parametrize(("dtype", "diameter", "keywords"), CASES)
def test_batches_are_as_trackpys_frames(dtype, diameter, keywords):
    images = [diffraction((230, 301), n, seed=n) for n in (5, 20, 40)]
    frames = np.stack([as_pixels(image, dtype) for image in images])
    tables = tables_of(frames, diameter, **keywords)
    for frame, table in zip(frames, tables, strict=True):
        assert_near(table, trackpy.locate(frame, diameter, **keywords))
    assert sum(map(len, tables))


def test_frames_without_peaks_among_others():
    frames = np.zeros((4, 100, 90), np.float32)
    frames[1] = diffraction((100, 90), 6, seed=1)
    frames[2, 2, 50] = 100.0
    frames[3, 20, 20] = np.nan
    tables, warned = outcome(tables_of, frames, 7)
    assert isinstance(tables, list), tables
    assert [len(t) for t in tables] == [0, len(trackpy.locate(frames[1], 7)), 0]
    assert [text for _, text in warned] == [
        "All local maxima were in the margins.",
        "Image is completely black.",
    ]


def test_a_mask_is_applied_as_on_the_cpu():
    frames = as_pixels(diffraction((100, 110), 8, seed=4), "uint16")[None]
    mask = np.zeros(frames[0].shape, bool)
    mask[30, 40] = mask[99, 109] = True
    mask[60:66] = True
    frames[0, mask] = 65535
    repaired = np.empty_like(frames[0])
    pixel_mask = PixelMask(mask)
    pixel_mask.repaired(frames[0], repaired)
    assert_near(tables_of(frames, 7, pixel_mask)[0], trackpy.locate(repaired, 7))


def test_a_tensor_in_the_memory_of_the_cpu_goes_the_usual_way():
    from tomostream_ioc.tracking import Locator

    image = as_pixels(diffraction((100, 110), 8, seed=4), "uint16")
    with Locator(7) as locator:
        table = locator.locate(torch.from_numpy(image))
        assert locator.counts.fast == 1
        tables = locator.locate_many(torch.from_numpy(np.stack([image, image])))
    for other in (*tables, trackpy.locate(image, 7)):
        pd.testing.assert_frame_equal(table.drop(columns="ep"), other.drop(columns="ep"))
