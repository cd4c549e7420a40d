"""The stripes of a sinogram: fw against its definition, levels, the order of the rows."""

import warnings

import numpy as np
import pytest
import pywt

from tomostream_ioc.recon import stripes
from tomostream_ioc.recon.corrections import order_in_turn

RNG = np.random.default_rng(11)


def fw_by_definition(sinogram, level, wavelet="db5", sigma=2.0, pad=True):
    """TomoPy's definition, with the whole 2-D transform and all of its bands."""
    n_angles, n_cols = sinogram.shape
    n_padded = n_angles + n_angles // 8 if pad else n_angles
    before = (n_padded - n_angles) // 2
    image = np.zeros((n_padded, n_cols))
    image[before : before + n_angles] = sinogram
    bands = []
    for _ in range(level):
        image, details = pywt.dwt2(image, wavelet)
        bands.append(details)
    for horizontal, vertical, diagonal in reversed(bands):
        k = len(vertical)
        frequency = (np.arange(-k, k, 2) + 1) / 2
        damping = 1 - np.exp(-(frequency**2) / (2 * sigma**2))
        spectrum = np.fft.fftshift(np.fft.fft(vertical, axis=0), axes=0) * damping[:, None]
        damped = np.fft.ifft(np.fft.ifftshift(spectrum, axes=0), axis=0).real
        image = image[: horizontal.shape[0], : horizontal.shape[1]]
        image = pywt.idwt2((image, (horizontal, damped, diagonal)), wavelet)
    return image[before : before + n_angles, :n_cols]


@pytest.mark.parametrize("shape", [(180, 128), (37, 101), (20, 64), (1, 50), (3, 18)])
@pytest.mark.parametrize("level", [1, 4, 7])
@pytest.mark.parametrize("pad", [True, False])
def test_fw_is_that_of_tomopys_definition(shape, level, pad):
    sinogram = RNG.random(shape)
    expected = fw_by_definition(sinogram, level, pad=pad)
    np.testing.assert_allclose(
        stripes.without_stripes(sinogram, level, pad=pad), expected, atol=1e-12
    )
    other = fw_by_definition(sinogram, level, "sym8", 1.0, pad)
    np.testing.assert_allclose(
        stripes.without_stripes(sinogram, level, "sym8", 1.0, pad), other, atol=1e-12
    )


def test_stripes_are_linear_in_the_sinogram_and_keep_its_type():
    a, b = RNG.random((2, 90, 100))
    both = stripes.stripes(a - 3 * b)
    np.testing.assert_allclose(both, stripes.stripes(a) - 3 * stripes.stripes(b), atol=1e-12)
    single = stripes.stripes((a - 3 * b).astype("float32"))
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, both, atol=1e-5)
    assert stripes.constant_stripes(a.astype("float32")).dtype == np.float32


@pytest.mark.parametrize("n_angles", [9, 40, 181])
def test_constant_stripes_are_removed(n_angles):
    rng = np.random.default_rng(n_angles)
    gain = np.zeros(256)
    gain[rng.choice(256, 25, replace=False)] = 0.05 * rng.standard_normal(25)
    sinogram = np.tile(gain, (n_angles, 1))
    # deeper than the wavelet goes, so that the damping alone is seen
    assert stripes.without_stripes(sinogram, 9, pad=False).std() < 0.12 * gain.std()
    inside = slice(n_angles // 4, -(n_angles // 4))  # the zeros around break them off
    assert stripes.without_stripes(sinogram, 9)[inside].std() < 0.2 * gain.std()
    assert (gain - stripes.constant_stripes(gain[None], 9)).std() < 0.12 * gain.std()
    # and with the usual level all but their wide part
    assert stripes.without_stripes(sinogram)[inside].std() < 0.4 * gain.std()


@pytest.mark.parametrize("n_cols", [200, 151])
def test_constant_stripes_are_those_of_a_sinogram_that_does_not_change(n_cols):
    row = np.cumsum(np.random.default_rng(7).standard_normal(n_cols))
    # the padding that wavelets think of is the constant itself: only damping differs, by 3 %
    both = stripes.stripes(np.tile(row, (64, 1)), pad=False)
    alone = stripes.constant_stripes(row[None])
    np.testing.assert_allclose(both, np.tile(both[0], (64, 1)), atol=1e-10)
    np.testing.assert_allclose(both[:1], alone, atol=0.04 * np.abs(alone).max())


def test_smooth_sinograms_stay():
    u = np.arange(512) / 512
    smooth = np.sin(2 * np.pi * u) * np.ones((60, 1))
    inside = stripes.stripes(smooth)[:, 60:-60]  # mirrored edges have a kink
    assert np.abs(inside).max() < 0.02


@pytest.mark.parametrize("n_cols", [2, 17, 18, 64, 300, 2448])
def test_the_level_fits_the_detector_without_a_warning(n_cols):
    level = stripes.default_level(n_cols)
    assert 0 <= level <= stripes.MAX_LEVEL
    assert (level > 0) == (n_cols >= 18)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = stripes.stripes(np.ones((5, n_cols)))
        stripes.constant_stripes(np.ones((5, n_cols)))
    assert found.shape == (5, n_cols)
    if not level:
        assert not found.any()


@pytest.mark.parametrize("direction", [1, -1])
def test_rows_are_ordered_without_a_break(direction):
    # the ring of a scan that is 50 degrees into its third half turn
    theta = direction * np.where(np.arange(180) < 50, 360.0, 180.0) + direction * np.arange(180)
    order = order_in_turn(np.deg2rad(theta))
    steps = np.diff(np.mod(theta[order], 360.0))
    np.testing.assert_allclose(np.mod(steps, 360.0), 1.0, atol=1e-9)
    # there and back: the same half turn
    there = np.array([0.0, 120.0, 60.0, 90.0, 30.0])
    np.testing.assert_array_equal(there[order_in_turn(np.deg2rad(there))], [0, 30, 60, 90, 120])
