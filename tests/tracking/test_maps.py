"""Maps: mass at the right point, snaked or not, as rows come; and maps by window in two passes."""

from functools import partial

import numpy as np
import pandas as pd
import pytest

from tomostream_ioc.errors import TrackingError
from tomostream_ioc.tracking import (
    CrystalMaps,
    ExtremeImages,
    ScanGrid,
    WindowMaps,
    locate,
    track_maps,
    window_maps,
)


def table(rows):
    return pd.DataFrame(rows, columns=["frame", "particle", "mass", "y", "x"])


def test_mass_stands_where_the_frame_was():
    rows = table([(1, 0, 5.0, 1, 1), (4, 0, 6.0, 1, 1), (5, 1, 7.0, 9, 9), (6, 0, 8.0, 1, 1)])
    straight = track_maps(rows, ScanGrid((2, 3)))
    assert straight.particles.tolist() == [0, 1]
    assert straight.maps.tolist() == [[[5, 0, 0], [6, 0, 8]], [[0, 0, 0], [0, 7, 0]]]
    snaked = track_maps(rows, ScanGrid((2, 3), snaking=(False, True)))
    assert snaked.maps.tolist() == [[[5, 0, 0], [8, 0, 6]], [[0, 0, 0], [0, 7, 0]]]


@pytest.mark.parametrize("snaking", [False, True])
def test_rows_one_by_one_make_the_maps_of_the_whole_table(snaking):
    rng = np.random.default_rng(0)
    grid = ScanGrid((7, 9), snaking=(False, snaking))
    picked = rng.choice(63 * 200, 3000, replace=False)
    rows = table({"frame": picked % 63 + 1, "particle": picked // 63, "mass": 0.0})
    rows["mass"] = rng.uniform(1, 9, 3000)
    rows["y"], rows["x"] = rng.uniform(0, 99, (2, 3000))
    rows = rows.sort_values("frame")
    maps = CrystalMaps(grid)
    for _, part in rows.groupby("frame"):
        maps.add(part)
    live, whole = maps.maps(), track_maps(rows, grid)
    np.testing.assert_array_equal(live.maps, whole.maps)
    np.testing.assert_array_equal(live.particles, whole.particles)
    assert len(maps) == 3000
    # plain loop over the definition
    for particle, made in zip(live.particles[:20], live.maps[:20], strict=True):
        wanted = np.zeros((7, 9))
        for frame, mass in rows.loc[rows["particle"] == particle, ["frame", "mass"]].to_numpy():
            i, j = divmod(int(frame) - 1, 9)
            wanted[i, 8 - j if snaking and i % 2 else j] = mass
        np.testing.assert_array_equal(made, wanted)
    np.testing.assert_allclose(maps.total(), live.maps.sum(axis=0))
    np.testing.assert_array_equal(maps.peak_counts(), (live.maps > 0).sum(axis=0))
    brightness = live.maps.sum(axis=(1, 2))
    assert (np.diff(brightness) <= 0).all()
    np.testing.assert_array_equal(maps.maps(n=5).maps, live.maps[:5])
    np.testing.assert_array_equal(maps.maps(live.particles[[8, 2]]).maps, live.maps[[8, 2]])
    np.testing.assert_array_equal(maps.map(int(live.particles[3])), live.maps[3])


def test_place_of_a_track_is_weighted_by_mass():
    stack = track_maps(table([(1, 4, 1.0, 10, 20), (2, 4, 3.0, 14, 24)]), ScanGrid((3,)))
    assert (stack.y.tolist(), stack.x.tolist()) == ([13.0], [23.0])
    assert [axis.tolist() for axis in stack.coordinates] == [[0, 1, 2]]


def test_what_came_last_to_a_point_stays():
    stack = track_maps(table([(1, 0, 5.0, 1, 1), (1, 0, 6.0, 1, 1)]), ScanGrid((2,)))
    assert stack.maps.tolist() == [[6, 0]]


def test_what_can_not_stand_in_a_map_is_counted():
    maps = CrystalMaps(ScanGrid((2, 2)), max_peaks=2)
    maps.add(
        table(
            [
                (0, 0, 1.0, 1, 1),
                (5, 0, 1.0, 1, 1),
                (1, -1, 2.0, 1, 1),
                (1, 0, np.nan, 1, 1),
                (1, 0, 4.0, 1, 1),
                (2, 0, 8.0, 1, 1),
                (3, 0, 16.0, 1, 1),
            ]
        )
    )
    assert (maps.outside, maps.unlinked, maps.dropped, len(maps)) == (2, 2, 1, 2)
    assert maps.map(0).tolist() == [[4, 8], [0, 0]]
    assert maps.total().tolist() == [[6, 8], [16, 0]]


def test_no_tracks_and_unknown_tracks():
    maps = CrystalMaps(ScanGrid((2, 3)))
    assert maps.maps().maps.shape == (0, 2, 3)
    assert maps.brightest(3).tolist() == maps.particles().tolist() == []
    maps.add(table([(1, 5, 2.0, 1, 1)]).drop(columns=["y", "x"]))
    stack = maps.maps([9, 5])
    assert stack.maps[0].tolist() == [[0, 0, 0], [0, 0, 0]]
    assert stack.maps[1, 0, 0] == 2
    assert np.isnan(stack.y).all()


def test_a_table_without_its_columns_is_refused():
    with pytest.raises(TrackingError, match="particle"):
        CrystalMaps(ScanGrid((2,))).add(pd.DataFrame({"frame": [1], "mass": [1.0]}))
    with pytest.raises(TrackingError, match="twice"):
        CrystalMaps(ScanGrid((2,))).maps([1, 1])


def spots_scan(snaking=True, shape=(4, 5), dtype="uint16", n_frames=2):
    """Two spots on a gradient that does not change; each shines over a part of the map."""
    rng = np.random.default_rng(3)
    row, col = np.indices((80, 90))
    still = 100 + row + col
    places = np.array([[20.0, 30.0], [60.0, 55.0]])
    strength = rng.uniform(0.5, 1.0, (2, *shape)) * (rng.uniform(size=(2, *shape)) > 0.4)
    grid = ScanGrid(shape, snaking=(False, snaking))
    points = []
    for frame in range(1, grid.n_points + 1):
        image = still.astype(float)
        for place, part in zip(places, strength, strict=True):
            spot = np.exp(-((row - place[0]) ** 2 + (col - place[1]) ** 2) / 18)
            image = image + 900 * part[grid.index(frame)] * spot
        points.append(np.repeat(image[np.newaxis], n_frames, axis=0).astype(dtype))
    return grid, points, places, strength


@pytest.mark.parametrize("snaking", [False, True])
def test_windows_show_where_the_spots_shine(snaking):
    grid, points, places, strength = spots_scan(snaking)
    find = partial(locate, diameter=11, topn=2)
    stack = window_maps(lambda: points, grid, find, half_width_px=12)
    assert stack.maps.shape == (2, 4, 5)
    for place, part in zip(places, strength, strict=True):
        nearest = np.hypot(stack.y - place[0], stack.x - place[1]).argmin()
        assert np.hypot(stack.y - place[0], stack.x - place[1])[nearest] < 0.2
        made = stack.maps[nearest]
        # mean over 25 x 25 pixels of 900 * strength * a Gaussian of area 18 pi; counts are whole
        np.testing.assert_allclose(made, 900 * part * 18 * np.pi / 625, atol=1.0)


def test_extremes_are_those_of_the_means():
    _, points, _, _ = spots_scan(dtype="float32")
    points[3][0, 5, 5] = np.nan
    points[4][:, 6, 6] = np.inf
    extremes = ExtremeImages()
    for images in points:
        extremes.add(images)
    with np.errstate(invalid="ignore"):
        stack = np.stack([np.nanmean(np.where(np.isfinite(p), p, np.nan), axis=0)
                          for p in points[:4] + points[5:]])  # fmt: skip
    wanted_low = np.minimum(stack.min(axis=0), np.where(np.isfinite(points[4][0]),
                                                        points[4][0], np.inf))  # fmt: skip
    np.testing.assert_allclose(extremes.minimum(), wanted_low, rtol=1e-6)
    assert np.isfinite(extremes.contrast()).all()
    assert extremes.n_points == 20
    assert extremes.maximum()[6, 6] == stack[:, 6, 6].max().astype(np.float32)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "float32", "float64", ">u2"])
def test_window_means_at_the_edges_against_plain_ones(dtype):
    rng = np.random.default_rng(5)
    image = rng.integers(0, 100, (40, 50)).astype(dtype)
    low = rng.integers(0, 50, (40, 50)).astype(dtype)
    peaks = pd.DataFrame({"y": [0.4, 20.6, 39.2], "x": [1.0, 49.4, 25.0], "mass": [1.0, 3.0, 2.0]})
    windows = WindowMaps(ScanGrid((2,)), peaks, low, half_width_px=6, n_brightest=None)
    made = windows.add(2, image)
    for value, y, x in zip(made, (0, 21, 39), (1, 49, 25), strict=True):
        part = np.s_[max(y - 6, 0) : y + 7, max(x - 6, 0) : x + 7]
        assert value == pytest.approx(image[part].mean() - low[part].mean())
    assert windows.maps().maps[:, 1].tolist() == made.tolist()
    assert windows.seen().tolist() == [False, True]
    brightest = WindowMaps(ScanGrid((2,)), peaks, low, n_brightest=2)
    assert brightest.peaks["mass"].tolist() == [3, 2]


def test_points_outside_the_grid_are_counted():
    peaks = pd.DataFrame({"y": [1.0], "x": [1.0], "mass": [1.0]})
    windows = WindowMaps(ScanGrid((2,)), peaks, np.zeros((4, 4)))
    windows.add(3, np.ones((4, 4)))
    assert windows.outside == 1
    assert not windows.seen().any()


def test_windows_refuse_what_does_not_fit():
    peaks = pd.DataFrame({"y": [1.0], "x": [1.0], "mass": [1.0]})
    with pytest.raises(TrackingError, match="No point has come"):
        ExtremeImages().contrast()
    with pytest.raises(TrackingError, match="outside the 4 x 4"):
        WindowMaps(ScanGrid((2,)), peaks.assign(y=9.0), np.zeros((4, 4)))
    with pytest.raises(TrackingError, match="no column mass"):
        WindowMaps(ScanGrid((2,)), peaks.drop(columns="mass"), np.zeros((4, 4)))
    with pytest.raises(TrackingError, match="half_width_px"):
        WindowMaps(ScanGrid((2,)), peaks, np.zeros((4, 4)), -1)
    windows = WindowMaps(ScanGrid((2,)), peaks, np.zeros((4, 4)))
    with pytest.raises(TrackingError, match="5 x 4 pixels"):
        windows.add(1, np.zeros((5, 4)))
    extremes = ExtremeImages()
    extremes.add(np.zeros((4, 4)))
    with pytest.raises(TrackingError, match="settings changed"):
        extremes.add(np.zeros((4, 5)))
