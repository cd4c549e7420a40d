"""What the fast path does not take goes to trackpy, is counted, and ends as trackpy ends."""

import numpy as np
import pytest
from support.peak_images import as_pixels, diffraction
from support.same_peaks import assert_same_as_trackpy, outcome

from tomostream_ioc.errors import ParameterError
from tomostream_ioc.tracking import Locator, locate

pytestmark = pytest.mark.timeout(300)

IMAGE = as_pixels(diffraction((110, 120), 12, seed=2), "uint16")


@pytest.mark.parametrize(
    ("diameter", "keywords"),
    [
        ((7, 9), {}),
        (7, {"separation": (8, 12)}),
        (7, {"noise_size": (1, 1.5)}),
        (7, {"smoothing_size": (7, 9)}),
        (7, {"preprocess": False}),
        (7, {"invert": True}),
        (7, {"engine": "python"}),
        (7, {"filter_after": True}),
        (7, {"smoothing_size": 1, "noise_size": 0.5}),
        (7, {"separation": 1}),
        (7, {"max_iterations": 0}),
        # what trackpy refuses
        (8, {}),
        (7, {"filter_before": True}),
        (7, {"noise_size": 9}),
        (7, {"smoothing_size": 8}),
        (7, {"separation": (8, 8, 8)}),
        (7, {"separation": 0}),
        (7, {"percentile": 101}),
        (7, {"engine": "fortran"}),
        (7, {"maxsize": 3, "characterize": False}),
        ((7, 9), {"maxsize": 3}),
        (7, {"threshold": -1}),
        (7, {"threshold": np.nan}),
        (1, {}),
        (-7, {}),
    ],
)
def test_parameters(diameter, keywords):
    assert_same_as_trackpy(locate, IMAGE, diameter, **keywords)
    with Locator(diameter, **keywords) as locator:
        result, _ = outcome(locator.locate, IMAGE)
        assert not isinstance(result, ParameterError)
        assert locator.counts.fast == 0
        assert locator.counts.trackpy == 1
        assert list(locator.counts.reasons.values()) == [1]


def gaussian_spots(shape, places):
    grid = np.indices(shape)
    return sum(
        200 * np.exp(-sum((g - p) ** 2 for g, p in zip(grid, place, strict=True)) / 4)
        for place in places
    )


@pytest.mark.parametrize(
    "image",
    [
        pytest.param(gaussian_spots((30, 30, 30), [(15, 14, 12)]), id="3-D"),
        pytest.param(gaussian_spots((80,), [(40,)]), id="1-D"),
        pytest.param(IMAGE.astype(">u2"), id="big-endian"),
        pytest.param(IMAGE.astype(np.int8), id="int8"),
        pytest.param(IMAGE.astype(np.uint64), id="uint64"),
        pytest.param(IMAGE.astype(np.float16), id="float16"),
        pytest.param(IMAGE > 30, id="bool"),
        pytest.param(IMAGE[:3], id="colour?"),
        pytest.param(IMAGE[:0], id="empty"),
        pytest.param(IMAGE.tolist(), id="list"),
        pytest.param(np.ma.masked_greater(IMAGE, 1000), id="masked"),
    ],
)
def test_images(image):
    assert_same_as_trackpy(locate, image, 7)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [(0, 0), (50, 60), (109, 119)])
def test_pixels_that_are_not_finite(dtype, value, place):
    image = IMAGE.astype(dtype)
    image[place] = value
    assert_same_as_trackpy(locate, image, 7)
    with Locator(7) as locator:
        result, _ = outcome(locator.locate, image)
        assert not isinstance(result, ParameterError)
        assert locator.counts.reasons == {"pixels that are not finite": 1}


def test_both_paths_are_counted():
    small = np.minimum(IMAGE, 120).astype(np.int8)
    with Locator(7) as locator:
        for image in (IMAGE, small, IMAGE, small, IMAGE):
            locator.locate(image)
        counts = locator.counts
        assert (counts.fast, counts.trackpy) == (3, 2)
        assert counts.reasons == {"pixels of type int8": 2}
        locator.locate(IMAGE)
        assert counts.fast == 3  # as they were when asked for


def test_frame_numbers_on_both_paths():
    class Frame(np.ndarray):
        frame_no = 4

    for image in (IMAGE, np.minimum(IMAGE, 120).astype(np.int8)):
        table = locate(image.view(Frame), 7)
        assert set(table["frame"]) == {4}
        # a mask makes a new image, which has no number
        masked = locate(image.view(Frame), 7, mask=np.zeros(IMAGE.shape, bool))
        assert masked.equals(table)


def test_many_frames():
    frames = np.stack([IMAGE, IMAGE[::-1], IMAGE[:, ::-1]])
    with Locator(7) as locator:
        tables = locator.locate_many(frames)
        assert locator.counts.fast == 3
    assert [len(t) for t in tables] == [len(locate(f, 7)) for f in frames]


def test_warming_up_counts_nothing_and_compiles():
    with Locator(15, percentile=80, separation=100) as locator:
        locator.warm_up("uint16")
        assert (locator.counts.fast, locator.counts.trackpy) == (0, 0)


def test_what_cannot_be_done_is_refused():
    with pytest.raises(ParameterError, match="quantize='uint4'"):
        Locator(7, quantize="uint4")  # type: ignore[arg-type]
    with pytest.raises(ParameterError, match="device 'tpu9'"):
        Locator(7, device="tpu9")
    with pytest.raises(ParameterError, match=r"quantize='uint16' can't be done.*python"):
        locate(IMAGE, 7, engine="python", quantize="uint16")
    with pytest.raises(ParameterError, match="boolean"):
        locate(IMAGE, 7, mask=np.zeros(IMAGE.shape))
    with pytest.raises(ParameterError, match="leaves no pixel"):
        locate(IMAGE, 7, mask=np.ones(IMAGE.shape, bool))
    with pytest.raises(ParameterError, match="must be alike"):
        locate(IMAGE[1:], 7, mask=np.zeros(IMAGE.shape, bool))
