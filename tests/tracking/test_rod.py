"""The synthetic rod is what it says; its grains come back by tracks and by windows.

The whole way: frames, background, peaks, links, maps, for several rods, snaked and not. Every
grain's map overlaps its truth with an IoU above 0.9, no track mixes two grains, and positions are
right to 0.2 pixel: that of each track, and that of each peak whose counting noise allows it.
"""

from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
import trackpy
from scipy import ndimage
from scipy.spatial import KDTree

from tomostream_ioc.errors import TrackingError
from tomostream_ioc.tracking import (
    BackgroundSubtractor,
    CrystalMaps,
    OnlineLinker,
    average_frames,
    locate,
    track_maps,
    window_maps,
)
from tomostream_ioc.tracking.rod import CrystalRod

#: peaks are Gaussians of sigma 2 pixels; the least of them holds 2500 counts
LOCATE = partial(locate, diameter=11, percentile=80, separation=12, minmass=500)
SEARCH_RANGE_PX = 5
SEEDS = (3, 0, 1, 2, 4)
#: frames that the background is the mean of
N_EMPTY = 20


@pytest.fixture(autouse=True)
def _quiet():
    trackpy.quiet()


@pytest.fixture(scope="module", params=SEEDS)
def found(request):
    """The seed of a rod, and the peaks on its images by the point of the grid."""
    rod = CrystalRod(seed=request.param)
    empty = rod.empty_frames()[: N_EMPTY // rod.n_frames]
    background = average_frames(np.concatenate([rod.frames(int(frame)) for frame in empty]))
    subtract = BackgroundSubtractor(background, np.float64)
    images = enumerate(rod.points(), start=1)
    peaks = {rod.grid.index(frame): LOCATE(subtract(each)) for frame, each in images}
    return request.param, peaks


class Tracked(NamedTuple):
    """A scanned rod, its peaks linked as they came, the Bragg peaks among them, and its maps."""

    rod: CrystalRod
    linked: pd.DataFrame
    bragg: pd.DataFrame
    maps: CrystalMaps


@pytest.fixture(scope="module", params=[True, False], ids=["snaked", "straight"])
def tracked(found, request):
    """A rod that is scanned one way or the other."""
    seed, peaks = found
    rod = CrystalRod(snaking=request.param, seed=seed)
    linker = OnlineLinker(SEARCH_RANGE_PX, grid=rod.grid)
    maps = CrystalMaps(rod.grid)
    parts = []
    for frame in range(1, rod.n_points + 1):
        parts.append(linker.link(peaks[rod.grid.index(frame)].assign(frame=frame), frame))
        maps.add(parts[-1])
    linked = pd.concat(parts, ignore_index=True)
    return Tracked(rod, linked, with_truth(rod, linked), maps)


def with_truth(rod, linked):
    """The linked peaks that are Bragg peaks: with their grain, peak, counts and distance from the
    truth, and what lies below them."""
    parts = []
    for frame, part in linked.groupby("frame"):
        true = rod.peaks(int(str(frame)))
        if len(true):
            distance, nearest = KDTree(true[["y", "x"]].to_numpy()).query(part[["y", "x"]])
            true = true.loc[nearest].set_index(part.index)
            place = np.rint(true["y"]).astype(int), np.rint(true["x"]).astype(int)
            part = part.assign(off_px=distance, below=rod.truth.background[place])
            part = part.join(true[["grain", "peak", "counts"]])
            parts.append(part[distance < SEARCH_RANGE_PX])
    return pd.concat(parts, ignore_index=True)


def counting(rod, bragg):
    """What counting allows: each peak's signal to noise ratio, and the standard deviation of its
    centre along an axis (pixels), both summed over the disc in which trackpy takes the centre."""
    radius, n = LOCATE.keywords["diameter"] // 2, rod.n_frames
    rows, cols = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    disc = rows**2 + cols**2 <= radius**2
    below = bragg["below"] * (1 / n + 1 / N_EMPTY)  # variance of a pixel
    counts, sigma_px = bragg["counts"], 2.0
    ratio = counts / np.sqrt(counts / n + disc.sum() * below)
    variance = (sigma_px**2 * counts / n + (rows[disc] ** 2).sum() * below) / counts**2
    return ratio, np.sqrt(variance)


def overlap(made, true):
    return np.count_nonzero(made & true) / np.count_nonzero(made | true)


def test_no_track_mixes_two_grains(tracked):
    rod, bragg = tracked.rod, tracked.bragg
    assert set(bragg.groupby("particle")["grain"].nunique()) == {1}
    assert set(bragg.groupby("particle")["peak"].nunique()) == {1}
    # one peak, one track: the scan's turns break none
    tracks = bragg.groupby("peak")["particle"].nunique()
    assert sorted(tracks.index) == list(range(len(rod.truth.grain)))
    assert set(tracks) == {1}
    assert len(bragg.drop_duplicates(["frame", "peak"])) == len(bragg)


def test_positions_are_right_to_a_fifth_of_a_pixel(tracked):
    rod, _, bragg, maps = tracked
    assert np.quantile(bragg["off_px"], 0.95) < 0.2
    of_track = bragg.groupby("particle")["peak"].first()
    stack = maps.maps(of_track.index)
    off = np.hypot(
        stack.y - rod.truth.y[of_track.to_numpy()], stack.x - rod.truth.x[of_track.to_numpy()]
    )
    assert off.max() < 0.2


def test_each_peak_is_as_right_as_counting_allows(tracked):
    """The faintest have a deviation of 0.075 pixel along each axis: 3 % of those lie beyond 0.2."""
    rod, bragg = tracked.rod, tracked.bragg
    ratio, sigma_px = counting(rod, bragg)
    clear = bragg[np.asarray(ratio) > 50]
    assert len(clear) > 0.85 * len(bragg)
    assert float(np.max(clear["off_px"])) < 0.2
    # no bias, no rounding: nothing but noise, and hardly more than must be
    rms = float(np.sqrt(np.mean(bragg["off_px"] ** 2 / (2 * sigma_px**2))))
    assert rms > 0.9
    assert rms < 1.25
    for axis in ("y", "x"):
        true = getattr(rod.truth, axis)[bragg["peak"]]
        assert abs(float(np.mean(bragg[axis] - true))) < 0.02


def test_maps_by_track_overlap_every_grain(tracked):
    rod, linked, bragg, maps = tracked
    for grain, true in enumerate(rod.truth.masks):
        tracks = bragg.loc[bragg["grain"] == grain, "particle"].unique()
        made = maps.maps(tracks).maps
        assert overlap(made.any(axis=0), true) > 0.9
        for one in made:
            assert overlap(one > 0, true) > 0.9
    # what was collected as it came is what the table gives at once
    whole = track_maps(linked, rod.grid)
    np.testing.assert_array_equal(whole.maps, maps.maps().maps)


def test_mass_follows_the_counts(tracked):
    bragg = tracked.bragg
    assert np.corrcoef(bragg["mass"], bragg["counts"])[0, 1] > 0.99


@pytest.mark.parametrize("snaking", [True, False])
def test_maps_by_window_overlap_every_grain(snaking):
    rod = CrystalRod(snaking=snaking, seed=3, powder=0)
    stack = window_maps(rod.points, rod.grid, LOCATE, half_width_px=5)
    places = np.column_stack([rod.truth.y, rod.truth.x])
    distance, nearest = KDTree(np.column_stack([stack.y, stack.x])).query(places)
    assert distance.max() < 0.2
    for peak, index in enumerate(np.asarray(nearest)):
        # a minimum over many noisy images is low: the same floor under all points of a map
        made = stack.maps[index] - stack.maps[index].min()
        assert overlap(made > 0.25 * made.max(), rod.truth.masks[rod.truth.grain[peak]]) > 0.9


def test_grains_are_connected_and_apart():
    for seed in range(5):
        rod = CrystalRod((20, 30), True, 9, (512, 512), seed)
        masks = rod.truth.masks
        assert masks.shape == (9, 20, 30)
        assert all(ndimage.label(mask)[1] == 1 for mask in masks)  # pyright: ignore[reportIndexIssue]
        assert masks.sum(axis=0).max() == 1
        assert not (masks.any(axis=0) & (rod.truth.powder > 0)).any()
        assert len(rod.empty_frames()) > 60
        places = np.column_stack([rod.truth.y, rod.truth.x])
        assert KDTree(places).query(places, 2)[0][:, 1].min() >= 24


def test_peaks_shine_where_their_grain_is():
    rod = CrystalRod((8, 10), True, 3, seed=1)
    for frame in range(1, 81):
        here = {g for g in range(3) if rod.truth.masks[g][rod.grid.index(frame)]}
        peaks = rod.peaks(frame)
        assert set(peaks["grain"]) == here
        assert len(peaks) == sum(np.count_nonzero(rod.truth.grain == g) for g in here)


def test_images_hold_what_was_put_in():
    rod = CrystalRod(noise="none", dark=10, scatter=0, powder=0, jitter_px=0)
    frame = next(f for f in range(1, 181) if len(rod.peaks(f)))
    excess = rod.expected(frame) - 10
    assert excess.sum() == pytest.approx(rod.peaks(frame)["counts"].sum(), rel=1e-3)
    row, col = np.unravel_index(excess.argmax(), excess.shape)
    assert np.hypot(row - rod.peaks(frame)["y"], col - rod.peaks(frame)["x"]).min() < 1
    empty = rod.image(int(rod.empty_frames()[0]))
    assert empty.dtype == np.uint16
    assert (empty == 10).all()


@pytest.mark.parametrize("noise", ["poisson", "tiled"])
def test_noise_is_that_of_counting(noise):
    rod = CrystalRod((8, 10), noise=noise, n_grains=3, seed=2)
    frame = next(f for f in range(1, 81) if len(rod.peaks(f)))
    expected = rod.expected(frame)
    images = np.stack([rod.image(frame, repeat) for repeat in range(30)]).astype(float)
    scaled = (images - expected) / np.sqrt(expected)
    assert abs(scaled.mean()) < 0.01
    assert scaled.std() == pytest.approx(1, abs=0.02)
    # pixel by pixel there is nothing left of it in the mean: each image has noise of its own
    assert scaled.mean(axis=0).std() == pytest.approx(30**-0.5, rel=0.1)


@pytest.mark.parametrize("noise", ["poisson", "tiled", "none"])
def test_the_same_each_time(noise):
    one, two = (CrystalRod((6, 8), n_grains=2, noise=noise, seed=4) for _ in range(2))
    np.testing.assert_array_equal(one.frames(9), two.frames(9))
    assert one.frames(9).shape == (2, 256, 256)
    if noise != "none":
        assert (one.image(9, 0) != one.image(9, 1)).any()
        assert (one.image(9) != CrystalRod((6, 8), n_grains=2, noise=noise, seed=5).image(9)).any()


def test_too_much_for_the_space_is_refused():
    with pytest.raises(TrackingError, match="too few for"):
        CrystalRod((4, 4), n_grains=5)
    with pytest.raises(TrackingError, match="don't fit"):
        CrystalRod(image_shape=(64, 64), n_grains=8)
    with pytest.raises(TrackingError, match="too small for peaks"):
        CrystalRod(image_shape=(20, 256))
    with pytest.raises(TrackingError, match="noise"):
        CrystalRod(noise="pink")
    with pytest.raises(TrackingError, match="outside"):
        CrystalRod().peaks(181)
