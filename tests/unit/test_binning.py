"""Binning on arrival: means against plain arithmetic, and where axis and slices come to be."""

from fractions import Fraction
from math import floor

import numpy as np
import pytest

from tomostream_ioc.errors import ParameterError
from tomostream_ioc.model.binning import (
    Place,
    binned_dtype,
    binned_gain,
    binned_shape,
    check_binning,
    effective_params,
)
from tomostream_ioc.model.frame import FRAME_DTYPES
from tomostream_ioc.model.params import ReconParams
from tomostream_ioc.recon.binning import FrameBinner, binned_field

INTEGERS = sorted((t for t in FRAME_DTYPES if t.kind in "ui"), key=str)
FLOATS = [np.dtype("float32"), np.dtype("float64")]
SHAPES = [(4, 4), (8, 12), (9, 11), (7, 70), (5, 131), (66, 67)]


def binned(frame, binning):
    shape = binned_shape(frame.shape, binning)
    out = np.empty(shape, binned_dtype(frame.dtype, binning))
    FrameBinner(frame.dtype, binning)(out, frame)
    return out


def blocks(frame, k):
    """(n_rows // k, n_cols // k, k * k): the pixels of each bin."""
    n_rows, n_cols = frame.shape[0] // k, frame.shape[1] // k
    cut = frame[: n_rows * k, : n_cols * k].reshape(n_rows, k, n_cols, k)
    return cut.transpose(0, 2, 1, 3).reshape(n_rows, n_cols, k * k)


def expected_integers(frame, k):
    """By whole numbers of any size: nearest, halves up; sixteenths where the type is 8-bit."""
    gain = 16 if frame.dtype.itemsize == 1 else 1
    means = [
        floor(Fraction(gain * sum(int(v) for v in pixels), k * k) + Fraction(1, 2))
        for pixels in blocks(frame, k).reshape(-1, k * k)
    ]
    return np.array(means, object).reshape(binned_shape(frame.shape, k))


@pytest.mark.parametrize("binning", [2, 4])
@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_integers_are_exact_over_the_whole_range(dtype, binning):
    info = np.iinfo(dtype)
    rng = np.random.default_rng(1)
    for shape in SHAPES:
        frame = rng.integers(info.min, info.max, shape, dtype, endpoint=True)
        assert (binned(frame, binning) == expected_integers(frame, binning)).all(), shape
    for value in (info.min, info.max):
        frame = np.full((8, 8), value, dtype)
        assert (binned(frame, binning) == int(value) * binned_gain(dtype, binning)).all()


@pytest.mark.parametrize("dtype", [t for t in INTEGERS if t.itemsize > 1], ids=str)
def test_halves_are_rounded_up(dtype):
    frame = np.array([[1, 0, 0, 1, 3, 3], [0, 1, 0, 0, 2, 2]], dtype)
    assert binned(frame, 2).tolist() == [[1, 0, 3]]
    if dtype.kind == "i":
        assert binned(-frame, 2).tolist() == [[0, 0, -2]]


def test_eight_bits_lose_nothing():
    frame = np.random.default_rng(2).integers(0, 256, (16, 32), np.uint8)
    for binning in (2, 4):
        out = binned(frame, binning)
        assert out.dtype == np.uint16
        assert np.array_equal(out / 16, blocks(frame.astype(float), binning).mean(axis=2))


@pytest.mark.parametrize("binning", [2, 4])
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_floats_keep_their_type_and_nan_stays_in_its_bin(dtype, binning):
    rng = np.random.default_rng(3)
    for shape in SHAPES:
        frame = rng.normal(100, 30, shape).astype(dtype)
        want = blocks(frame.astype(np.float64), binning).mean(axis=2)
        got = binned(frame, binning)
        assert got.dtype == dtype
        np.testing.assert_allclose(got, want, rtol=4 * float(np.finfo(dtype).eps))
    frame = rng.normal(100, 30, (12, 20)).astype(dtype)
    frame[5, 9], frame[0, 17], frame[11, 0] = np.nan, np.inf, -np.inf
    got = binned(frame, binning)
    assert np.isnan(got[5 // binning, 9 // binning])
    assert got[0, 17 // binning] == np.inf
    assert got[11 // binning, 0] == -np.inf
    assert np.count_nonzero(~np.isfinite(got)) == 3


def test_frames_of_the_transport_are_read_only_and_perhaps_strided():
    frame = np.arange(24 * 16, dtype=np.uint16).reshape(24, 16)
    strided = frame[::2, ::2]
    frame.flags.writeable = False
    assert (binned(frame, 2) == expected_integers(frame, 2)).all()
    assert (binned(strided, 2) == expected_integers(strided, 2)).all()
    assert not frame.flags.writeable


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_transmissions_of_binned_frames_are_those_of_binned_fields(dtype):
    """(frame - dark) / (flat - dark) where all three are binned, 8-bit frames included."""
    rng = np.random.default_rng(4)
    dark = np.full((17, 23), 10.0, np.float32)
    flat = rng.integers(100, 200, (17, 23)).astype(np.float32)
    frame = flat.astype(dtype)  # nothing in the beam
    for binning in (2, 4):
        dark_b, flat_b = (binned_field(field, frame.dtype, binning) for field in (dark, flat))
        transmission = (binned(frame, binning) - dark_b) / (flat_b - dark_b)
        # 16 bits are rounded to whole counts
        limit = 0.5 / 90 if dtype == "uint16" else 1e-6
        assert abs(transmission - 1).max() <= limit


def test_size_and_type():
    assert binned_shape((2049, 2451), 4) == (512, 612)
    assert binned_shape((3, 9), 4) == (0, 2)
    assert {str(t): str(binned_dtype(t, 2)) for t in FRAME_DTYPES if t.itemsize == 1} == {
        "int8": "int16",
        "uint8": "uint16",
    }
    assert all(binned_dtype(t, 1) == t and binned_gain(t, 1) == 1 for t in FRAME_DTYPES)


@pytest.mark.parametrize("binning", [0, 3, 8, -2])
def test_binnings_that_do_not_exist_are_refused(binning):
    with pytest.raises(ParameterError, match=f"binning {binning} does not exist"):
        check_binning(binning)


def test_a_place_is_the_same_place_in_the_sample_at_every_binning():
    """A point at column u, row v of the detector is at ((u + 1/2) / k - 1/2) of the bins."""
    place = Place(center=1223.5, ortho_x=1224 + 40, ortho_y=1224 - 80, ortho_z=1001)
    half = place.rebinned(1, 2, (2048, 2448))
    assert half == Place(611.5, 612 + 20, 612 - 40, 500)
    quarter = half.rebinned(2, 4, (2048, 2448))
    assert quarter == Place(305.5, 306 + 10, 306 - 20, 250)
    back = quarter.rebinned(4, 1, (2048, 2448))
    assert (back.center, back.ortho_x, back.ortho_y) == (1223.5, 1264, 1144)
    assert abs(back.ortho_z - 1001) < 4  # a row of the quarter frame is four


def test_cut_columns_do_not_move_the_axis_and_slices_stay_inside():
    # 2451 // 4 = 612 columns: the ratio of the sizes is not 1/4
    place = Place(1000.0, 2450, 0, 2048).rebinned(1, 4, (2049, 2451))
    assert place == Place(249.625, 611, 0, 511)
    middle = Place(1000.0, 2451 // 2, 2451 // 2, 5).rebinned(1, 2, (2049, 2451))
    assert (middle.ortho_x, middle.ortho_y) == (612, 612)


def test_without_a_frame_the_ratio_counts():
    place = Place(1223.5, 1264, 1144, 1001)
    assert place.rebinned(1, 2, None) == place.rebinned(1, 2, (2048, 2448))


def test_what_was_never_set_stays_so():
    for shape in (None, (64, 64)):
        assert Place(0.0, 0, 0, 0).rebinned(1, 2, shape) == Place(0.0, 0, 0, 0)
        assert Place(31.5, 0, 0, 0).rebinned(1, 2, shape) == Place(15.5, 0, 0, 0)


def test_a_binned_pixel_is_larger_for_phase_retrieval():
    params = ReconParams(center=8, ortho_x=1, ortho_y=2, ortho_z=3, pixel_size_um=0.69)
    assert effective_params(params, 4).pixel_size_um == 4 * 0.69
    assert effective_params(params, 1) == params
