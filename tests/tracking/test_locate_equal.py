"""locate on the CPU gives the table of trackpy.locate, to the last bit, the fast way."""

import numpy as np
import pytest
import trackpy
from support.peak_images import as_pixels, diffraction
from support.same_peaks import assert_same_as_trackpy, assert_same_tables, outcome

from tomostream_ioc.tracking import Locator, locate

DTYPES = ["float64", "float32", "uint8", "uint16", "uint32", "int16", "int32"]

pytestmark = pytest.mark.timeout(300)  # kernels are compiled for each type, once per computer


def assert_fast_and_same(image, diameter, **keywords):
    before = image.copy()
    with Locator(diameter, **keywords, n_threads=2) as locator:
        ours, our_warnings = outcome(locator.locate, image)
        assert locator.counts.fast == 1
        assert locator.counts.trackpy == 0
    theirs, their_warnings = outcome(trackpy.locate, image, diameter, **keywords)
    assert not isinstance(ours, Exception), ours
    assert_same_tables(ours, theirs)
    assert our_warnings == their_warnings
    np.testing.assert_array_equal(image, before)
    return ours


def random_case(rng, dtype):
    """An image and keywords that the fast path takes."""
    shape = tuple(int(n) for n in rng.integers(20, 300, 2))
    level = float(np.exp(rng.uniform(np.log(0.5), np.log(300))))
    image = diffraction(
        shape,
        n_peaks=int(rng.integers(0, 60)),
        seed=int(rng.integers(1 << 30)),
        sigma=(0.7, 4.0),
        height=(level, level * float(rng.uniform(2, 100))),
        background=level * float(rng.uniform(0, 0.5)),
    )
    if rng.random() < 0.3:
        image -= np.median(image)  # as after a background is subtracted
    if rng.random() < 0.2:
        image[tuple(rng.integers(0, shape))] = 65535
    if np.dtype(dtype).kind == "f" and rng.random() < 0.5:
        image *= float(rng.uniform(1e-3, 1.0))
        image += rng.normal(0, 0.01, shape)
    diameter = int(rng.choice([3, 5, 7, 9, 11, 15, 21]))
    keywords = {}
    choices = {
        "percentile": float(rng.choice([0, 10, 64, 80, 95, 99.5, 100])),
        "separation": float(rng.choice([2, diameter / 2 + 1.5, diameter + 1, 25, 40, 100])),
        "minmass": float(rng.choice([0, level, 20 * level])),
        "maxsize": float(rng.uniform(0.2, 0.5) * diameter),
        "topn": int(rng.integers(1, 20)),
        "threshold": float(rng.choice([0, 0.01, 1, level])),
        "noise_size": float(rng.choice([0, 0.1, 0.5, 1, 1.5, 2.3])),
        "smoothing_size": int(rng.choice([3, 5, 11, 31])),
        "max_iterations": int(rng.integers(1, 12)),
        "characterize": True,
    }
    for name, value in choices.items():
        if rng.random() < 0.4:
            keywords[name] = value
    if "maxsize" not in keywords and rng.random() < 0.1:
        keywords["characterize"] = False
    if rng.random() < 0.2:
        keywords["separation"] = (keywords.get("separation", diameter + 1),) * 2
    return as_pixels(image, dtype), diameter, keywords


@pytest.mark.parametrize(
    ("dtype", "seed"),
    [(dtype, 0) for dtype in DTYPES] + [(dtype, 1) for dtype in ("float64", "float32", "uint16")],
)
def test_random_images_and_parameters(dtype, seed):
    rng = np.random.default_rng([seed, DTYPES.index(dtype)])
    n_with_peaks = 0
    for _ in range(25):
        image, diameter, keywords = random_case(rng, dtype)
        size = keywords.get("smoothing_size", diameter)
        if keywords.get("noise_size", 1) >= size:
            continue
        try:
            n_with_peaks += len(assert_fast_and_same(image, diameter, **keywords)) > 0
        except AssertionError as error:
            raise AssertionError(f"{image.shape} {image.dtype} {diameter} {keywords}") from error
    assert n_with_peaks > 8


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_users_parameters(dtype):
    image = as_pixels(diffraction((700, 611), 40, seed=7), dtype)
    peaks = assert_fast_and_same(image, 15, percentile=80, separation=100)
    assert len(peaks) > 5


@pytest.mark.parametrize("n_threads", [1, 2, 5])
@pytest.mark.parametrize("dtype", ["float64", "uint16"])
def test_the_number_of_threads_changes_nothing(dtype, n_threads):
    image = as_pixels(diffraction((530, 260), 30, seed=3), dtype)
    with Locator(11, separation=20, n_threads=n_threads) as locator:
        assert_same_as_trackpy(lambda i, _, **k: locator.locate(i), image, 11, separation=20)
        assert locator.counts.fast == 1


def test_images_of_changing_shape_and_type_one_after_another():
    with Locator(9) as locator:
        for shape, dtype in [((90, 100), "uint8"), ((90, 100), "float32"), ((70, 131), "uint8")]:
            image = as_pixels(diffraction(shape, 8, height=(50, 200)), dtype)
            assert_same_tables(locator.locate(image), trackpy.locate(image, 9))
        assert locator.counts.fast == 3


def test_memory_of_the_last_image_leaves_nothing_behind():
    full = as_pixels(diffraction((120, 120), 20), "uint16")
    with Locator(9) as locator:
        locator.locate(full)
        with pytest.warns(UserWarning, match="completely black"):
            assert not len(locator.locate(np.zeros_like(full)))
        assert_same_tables(locator.locate(full), trackpy.locate(full, 9))


def test_noncontiguous_read_only_and_fortran_ordered_images():
    image = as_pixels(diffraction((200, 220), 20, seed=5), "uint16")
    read_only = image.copy()
    read_only.flags.writeable = False
    for view in (image[::2, 1::2], image[:, ::-1], np.asfortranarray(image), image.T, read_only):
        assert_fast_and_same(view, 7)
    assert not read_only.flags.writeable


def test_an_axis_of_length_one_is_squeezed():
    assert_fast_and_same(diffraction((90, 80), 6)[np.newaxis], 7)


class Frame(np.ndarray):
    """An array with a number, as that of pims."""

    frame_no = None


@pytest.mark.parametrize("number", [None, 0, 17, np.int64(3)])
def test_frame_number(number):
    frame = diffraction((100, 110), 9).view(Frame)
    frame.frame_no = number
    peaks = assert_fast_and_same(frame, 7)
    assert ("frame" in peaks) == (number is not None)
    if number is not None:
        assert (peaks["frame"] == number).all()


def test_equal_peaks_close_together():
    image = np.zeros((120, 120), np.uint8)
    for y, x in [(30, 30), (30, 38), (60, 60), (64, 60), (90, 30), (90, 31)]:
        image[y - 1 : y + 2, x - 1 : x + 2] = 200
    for separation in (3, 6, 8, 9, 12, 30):
        assert_fast_and_same(image, 7, separation=separation)


def test_a_plateau_and_saturated_peaks():
    image = diffraction((200, 200), 15, height=(200, 5000))
    assert_fast_and_same(as_pixels(image, "uint8"), 11)
    image[50:80, 60:100] = 255
    assert_fast_and_same(as_pixels(image, "uint8"), 11, percentile=0)


def test_peaks_in_the_margins_only():
    image = np.zeros((60, 60), np.uint16)
    image[3, 30] = 1000
    with pytest.warns(UserWarning, match="in the margins"):
        assert not len(assert_plain(image))
    assert_fast_and_same(image, 9)


def assert_plain(image):
    return locate(image, 9)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", [0, 1, 100])
def test_constant_images(dtype, value):
    image = np.full((50, 60), value, dtype)
    assert_same_as_trackpy(locate, image, 7)


def test_constant_background_that_is_no_binary_fraction():
    for dtype in ("float64", "float32"):
        image = np.full((150, 150), 0.1, dtype)
        image[40:43, 50:53] = 30.0
        assert len(assert_fast_and_same(image, 7)) == 1


def test_background_far_from_the_first_pixel():
    image = np.random.default_rng(0).normal(1e5, 0.5, (150, 150))
    image[0, 0] = 0.0
    image[70:73, 50:53] += 300.0
    assert len(assert_fast_and_same(image, 7, threshold=20, percentile=0)) >= 1


def test_no_peak_survives_the_filter():
    image = diffraction((100, 100), 9)
    assert_fast_and_same(image, 7, minmass=1e9)
    assert_fast_and_same(image, 7, maxsize=1e-3)


def test_images_narrower_than_the_filters():
    rng = np.random.default_rng(1)
    for shape in [(7, 200), (200, 7), (9, 9), (5, 6)]:
        assert_fast_and_same(rng.poisson(20.0, shape).astype(np.float64), 3, smoothing_size=31)
        assert_fast_and_same(rng.poisson(20.0, shape).astype(np.uint16), 3, separation=100)
