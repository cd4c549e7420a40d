"""Background: means without overflow, differences that never wrap, and the fused pass."""

import numpy as np
import pytest

from tomostream_ioc.errors import TrackingError
from tomostream_ioc.tracking import BackgroundSubtractor, average_frames, subtract_background

INTEGERS = ["uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64"]
FLOATS = ["float32", "float64"]
ALL = [*INTEGERS, *FLOATS, "float16", ">u2", ">f4", "bool"]


def stack_of(dtype, n_frames=5, shape=(13, 37)):
    rng = np.random.default_rng(7)
    kind = np.dtype(dtype)
    if kind.kind in "ui":
        info = np.iinfo(kind)
        small = rng.integers(max(info.min, -100), 101, (n_frames, *shape))
        return small.astype(kind)
    return rng.integers(0, 2, (n_frames, *shape)).astype(kind) * kind.type(1)


@pytest.mark.parametrize("dtype", INTEGERS)
def test_mean_of_the_largest_values_does_not_overflow(dtype):
    top = np.iinfo(dtype).max
    images = np.full((7, 3, 4), top, dtype)
    mean = average_frames(images)
    assert mean.dtype == np.float64
    np.testing.assert_allclose(mean, float(top), rtol=1e-15)
    fused = BackgroundSubtractor(dtype=np.float64)(images)
    np.testing.assert_allclose(fused, float(top), rtol=1e-15)


@pytest.mark.parametrize("dtype", ALL)
@pytest.mark.parametrize("n_frames", [1, 2, 5])
@pytest.mark.parametrize("work", ["float32", "float64"])
def test_fused_pass_is_the_plain_one(dtype, n_frames, work):
    images = stack_of(dtype, n_frames)
    background = np.random.default_rng(1).uniform(-1, 60, images.shape[1:])
    fused = BackgroundSubtractor(background, work)(images)
    plain = subtract_background(average_frames(images), background)
    assert fused.dtype == work
    assert (plain > 0).any()
    assert (plain == 0).any()
    np.testing.assert_allclose(fused, plain, rtol=1e-6, atol=1e-5 if work == "float32" else 1e-12)


def test_unsigned_difference_is_cut_and_does_not_wrap():
    image = np.array([[3, 10]], np.uint16)
    background = np.array([[5, 4]], np.uint16)
    assert subtract_background(image, background).tolist() == [[0.0, 6.0]]
    assert BackgroundSubtractor(background)(image).tolist() == [[0.0, 6.0]]


@pytest.mark.parametrize("dtype", FLOATS)
def test_bad_pixels_leave_the_mean_and_become_zero(dtype):
    images = np.full((3, 2, 3), 4, dtype)
    images[0, 0, 0] = np.nan
    images[1, 0, 1] = np.inf
    images[:, 0, 2] = np.nan
    images[2, 1, 0] = 10
    background = np.ones((2, 3))
    background[1, 1] = np.nan
    background[1, 2] = -np.inf
    mean = average_frames(images)
    np.testing.assert_array_equal(mean, [[4, 4, np.nan], [6, 4, 4]])
    wanted = [[3, 3, 0], [5, 0, 0]]
    np.testing.assert_array_equal(subtract_background(mean, background), wanted)
    np.testing.assert_array_equal(BackgroundSubtractor(background)(images), wanted)
    np.testing.assert_array_equal(BackgroundSubtractor()(images), [[4, 4, 0], [6, 4, 4]])


def test_bad_background_under_integers_becomes_zero():
    images = np.full((2, 1, 3), 7, np.uint16)
    background = np.array([[np.nan, -np.inf, 2.0]])
    assert BackgroundSubtractor(background)(images).tolist() == [[0, 0, 5]]


def test_writes_into_the_buffer_given_and_takes_views():
    images = stack_of("uint16", 3, (20, 30))[:, ::2, 3:]
    subtractor = BackgroundSubtractor()
    out = np.full(images.shape[1:], -1, np.float32)
    assert subtractor(images, out) is out
    np.testing.assert_allclose(out, average_frames(images), rtol=1e-6)
    images.flags.writeable = False
    np.testing.assert_array_equal(subtractor(images), out)


def test_no_background_still_cuts_negative_pixels():
    image = np.array([[-3, 4]], np.int16)
    assert subtract_background(image, None).tolist() == [[0.0, 4.0]]
    assert BackgroundSubtractor()(image).tolist() == [[0.0, 4.0]]


@pytest.mark.parametrize(
    ("work", "words"),
    [
        (lambda: average_frames(np.zeros(4)), "shape"),
        (lambda: average_frames(np.zeros((2, 3, 4, 5))), "n_frames"),
        (lambda: average_frames(np.zeros((0, 3, 4))), "empty"),
        (lambda: average_frames(np.zeros((3, 4), complex)), "complex"),
        (lambda: average_frames(np.array([["a"]])), "real numbers"),
        (lambda: subtract_background(np.zeros((3, 4)), np.zeros((4, 3))), "4 x 3 pixels"),
        (lambda: subtract_background(np.zeros((3, 4)), np.zeros((2, 3, 4))), "Average its frames"),
        (lambda: BackgroundSubtractor(np.zeros((3, 4)))(np.zeros((2, 4, 4))), "3 x 4 pixels"),
        (lambda: BackgroundSubtractor(dtype=np.uint16), "uint16"),
        (lambda: BackgroundSubtractor()(np.zeros((3, 4)), np.zeros((3, 4))), "buffer"),
    ],
)
def test_what_can_not_be_used_is_said(work, words):
    with pytest.raises(TrackingError, match=words):
        work()
