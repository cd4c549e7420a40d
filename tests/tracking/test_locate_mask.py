"""One hot pixel and the peaks that it costs; finding and masking such pixels."""

from typing import Any

import numpy as np
import pytest
from support.peak_images import as_pixels, diffraction

from tomostream_ioc.errors import ParameterError
from tomostream_ioc.tracking import Locator, hot_pixels, locate

pytestmark = pytest.mark.timeout(300)

PARAMETERS: dict[str, Any] = {"diameter": 15, "percentile": 80, "separation": 30}


def peaks_of(image, **options):
    return locate(image, **PARAMETERS, **options)


def real(table):
    """Peaks that stand out of the noise: about 0.3 of the counts of the weakest drawn."""
    return table[table["mass"] > 300]


@pytest.fixture(scope="module")
def frame():
    return diffraction((700, 700), 60, seed=11, height=(60, 1500), background=3.0, margin=30)


def with_hot_pixel(frame):
    hot = frame.copy()
    hot[333, 444] = 60000.0
    return hot


def matched(found, expected):
    """How many rows of ``expected`` have one of ``found`` within half a pixel."""
    distance = np.hypot(
        found["y"].to_numpy()[:, None] - expected["y"].to_numpy(),
        found["x"].to_numpy()[:, None] - expected["x"].to_numpy(),
    )
    return int((distance.min(axis=0) < 0.5).sum())


def test_a_hot_pixel_costs_peaks_of_float_images_in_8_bits(frame):
    expected = real(peaks_of(frame))
    lost = len(expected) - matched(peaks_of(with_hot_pixel(frame)), expected)
    assert lost > 0.1 * len(expected)


def test_16_bits_find_them_again(frame):
    # all but what the hot pixel itself lies too close to
    expected = real(peaks_of(frame, quantize="uint16"))
    found = peaks_of(with_hot_pixel(frame), quantize="uint16")
    assert matched(found, expected) >= len(expected) - 2
    assert len(expected) >= len(real(peaks_of(frame)))


def test_a_mask_finds_them_again(frame):
    hot = with_hot_pixel(frame)
    mask = hot_pixels(hot)
    assert mask[333, 444]
    expected = real(peaks_of(frame))
    assert matched(peaks_of(hot, mask=mask), expected) >= len(expected) - 1


def test_one_hot_pixel_of_four_million_and_the_users_parameters():
    image = diffraction((2048, 2048), 300)
    hot = image.copy()
    hot[1000, 1000] = 60000.0
    parameters: dict[str, Any] = {"diameter": 15, "percentile": 80, "separation": 100}
    with Locator(**parameters) as plain:
        expected, cut = plain.locate_many([image, hot])
    assert matched(cut, expected) < 0.9 * len(expected)
    mask = hot_pixels(hot)
    assert np.argwhere(mask).tolist() == [[1000, 1000]]
    assert matched(locate(hot, **parameters, mask=mask), expected) == len(expected)
    # in 16 bits it hides what it lies closer to than the separation
    found = locate(hot, **parameters, quantize="uint16")
    assert matched(found, expected) >= len(expected) - 1
    assert len(found) > 1.3 * len(expected)


@pytest.mark.parametrize("dtype", ["float64", "uint16"])
def test_an_empty_mask_changes_nothing(frame, dtype):
    image = as_pixels(frame, dtype)
    assert peaks_of(image, mask=np.zeros(image.shape, bool)).equals(peaks_of(image))


def test_hot_dead_and_non_finite_pixels_are_found_and_peaks_are_not(frame):
    image = frame + 200.0
    bad = [(10, 10), (0, 0), (699, 350), (400, 200), (401, 555)]
    for place, value in zip(bad, [9000.0, 9000.0, np.nan, np.inf, 0.0], strict=True):
        image[place] = value
    assert sorted(zip(*np.nonzero(hot_pixels(image)), strict=True)) == sorted(bad)
    assert not hot_pixels(frame).any()


def test_over_several_frames_what_is_hot_once_is_not_hot():
    frames = np.random.default_rng(0).poisson(5.0, (5, 60, 70)).astype(np.uint16)
    frames[:, 20, 30] = 5000
    frames[2, 40, 40] = 5000
    assert np.argwhere(hot_pixels(frames)).tolist() == [[20, 30]]
    with pytest.raises(ParameterError, match="n_frames"):
        hot_pixels(np.zeros(5))


def test_masked_pixels_become_the_mean_of_sound_neighbours_or_the_nearest():
    from tomostream_ioc.tracking.pixel_mask import PixelMask

    image = np.arange(30, dtype=np.uint16).reshape(5, 6)
    mask = np.zeros((5, 6), bool)
    mask[1, 1] = mask[0, 5] = True
    out = np.empty_like(image)
    PixelMask(mask).repaired(image, out)
    assert out[1, 1] == 7  # the mean of those around it
    assert out[0, 5] == round((4 + 10 + 11) / 3)
    assert (out[~mask] == image[~mask]).all()
    gap = np.zeros((5, 6), bool)
    gap[:, 1:] = True
    PixelMask(gap).repaired(image, out)
    assert (out[:, 3:] == image[:, :1]).all()


def test_a_masked_pixel_that_is_not_finite_leaves_the_fast_path_open(frame):
    image = frame.copy()
    image[333, 444] = np.nan
    mask = ~np.isfinite(image)
    with Locator(**PARAMETERS, mask=mask) as locator:
        assert len(locator.locate(image))
        assert locator.counts.fast == 1
    assert np.isnan(image[333, 444])
