"""Grids: where a frame belongs, against bluesky's own order of points, and what is refused."""

import math

import numpy as np
import pytest
from bluesky.utils import snake_cyclers
from cycler import cycler

from tomostream_ioc.errors import TrackingError
from tomostream_ioc.tracking import ScanGrid

CASES = [
    ((7,), (False,)),
    ((4, 5), (False, False)),
    ((4, 5), (False, True)),
    ((5, 4), (False, True)),
    ((3, 4, 5), (False, False, True)),
    ((3, 4, 5), (False, True, False)),
    ((3, 4, 5), (False, True, True)),
    ((2, 3, 2), (False, True, True)),
    ((2, 3, 2, 3), (False, True, False, True)),
]


@pytest.mark.parametrize(("shape", "snaking"), CASES)
def test_points_are_visited_as_bluesky_visits_them(shape, snaking):
    axes = [cycler(str(axis), range(n)) for axis, n in enumerate(shape)]
    steps = list(snake_cyclers(axes, snaking))
    grid = ScanGrid(shape, snaking=snaking)
    assert len(steps) == grid.n_points
    for frame, step in enumerate(steps, start=1):
        assert grid.index(frame) == tuple(step[str(axis)] for axis in range(len(shape)))
    flat = grid.flat_indices(np.arange(1, grid.n_points + 1))
    assert sorted(flat) == list(range(grid.n_points))


def test_second_row_runs_backwards():
    grid = ScanGrid((2, 3), snaking=(False, True))
    assert [grid.index(frame) for frame in (3, 4, 6)] == [(0, 2), (1, 2), (1, 0)]


def test_frames_outside_the_grid():
    grid = ScanGrid((2, 3))
    assert grid.flat_indices(np.array([0, 1, 6, 7, -3])).tolist() == [-1, 0, 5, -1, -1]
    with pytest.raises(TrackingError, match="Frame 7 lies outside the 6 points"):
        grid.index(7)


def test_start_document_of_a_grid_scan():
    grid = ScanGrid.from_start(
        {
            "shape": [4, 3],
            "extents": [[-1, 1], [0, 0.2]],
            "snaking": [False, True],
            "motors": ("y", "x"),
        }
    )
    assert grid == ScanGrid((4, 3), ((-1, 1), (0, 0.2)), (False, True), ("y", "x"))
    y, x = grid.coordinates()
    np.testing.assert_allclose(y, [-1, -1 / 3, 1 / 3, 1])
    np.testing.assert_allclose(x, [0, 0.1, 0.2])


def test_map_size_has_the_fast_axis_first():
    assert ScanGrid.from_start({"map_size": (5, 2), "snaking": True}).shape == (2, 5)
    assert ScanGrid.from_start({"map_size": (5, 2), "snaking": True}).snaking == (False, True)
    assert ScanGrid.from_start({"map_size": (5, 2), "shape": (4, 3)}).shape == (4, 3)
    assert ScanGrid.from_start({"num_points": 9}).shape == (9,)


@pytest.mark.parametrize(
    ("shape", "kept"),
    [((1, 4, 3), (1, 2)), ((4, 1, 3), (0, 2)), ((4, 3, 1), (0, 1)), ((1, 1, 5), (2,))],
)
def test_axes_of_one_point_leave_all_three_alike(shape, kept):
    extents = [(float(axis), axis + 1.0) for axis in range(3)]
    snaking = (False, True, True)
    start = {"shape": shape, "extents": extents, "snaking": snaking, "motors": list("zyx")}
    grid = ScanGrid.from_start(start)
    assert grid.shape == tuple(shape[axis] for axis in kept)
    assert grid.extents == tuple(extents[axis] for axis in kept)
    assert grid.snaking == tuple(snaking[axis] for axis in kept)
    assert grid.names == tuple("zyx"[axis] for axis in kept)
    # the order of the points is that of the whole grid
    whole = ScanGrid(shape, snaking=snaking)
    frames = np.arange(1, math.prod(shape) + 1)
    np.testing.assert_array_equal(grid.flat_indices(frames), whole.flat_indices(frames))


def test_one_point_alone():
    assert ScanGrid.from_start({"shape": (1, 1)}).shape == (1,)
    assert ScanGrid.from_start({"num_points": 1}).index(1) == (0,)


def test_unknown_extents_are_pixels():
    grid = ScanGrid.from_start({"shape": (2, 3), "extents": [None, (5, 6)]})
    assert [axis.tolist() for axis in grid.coordinates()] == [[0, 1], [5, 5.5, 6]]
    assert [axis.tolist() for axis in ScanGrid((2,)).coordinates()] == [[0, 1]]


def test_memory_reaches_to_the_next_visit_of_each_column():
    for snaking in (False, True):
        grid = ScanGrid((6, 7), snaking=(False, snaking))
        frames = np.arange(1, 43)
        columns = grid.flat_indices(frames) % 7
        longest = max(np.diff(frames[columns == column]).max() for column in range(7)) - 1
        assert longest <= grid.memory <= longest + 1
    assert ScanGrid((42,)).memory == 0


@pytest.mark.parametrize(
    ("start", "words"),
    [
        ({}, "no shape, map_size or num_points"),
        ({"shape": (3, 0)}, "has no points"),
        ({"shape": ()}, "no whole numbers"),
        ({"shape": (3, -2)}, "has no points"),
        ({"shape": (3.5, 2)}, "no whole numbers"),
        ({"shape": "many"}, "no whole numbers"),
        ({"shape": (float("nan"), 2)}, "no whole numbers"),
        ({"shape": (100000, 100000)}, "more than"),
        ({"shape": (3, 2), "extents": [(0, 1)]}, "extents of the start document has 1"),
        ({"shape": (3, 2), "extents": [(0, 1), 5]}, "a pair of numbers"),
        ({"shape": (3, 2), "extents": [(0, 1), (0, float("inf"))]}, "not finite"),
        ({"shape": (3, 2), "snaking": (False, True, True)}, "snaking of the start document has 3"),
        ({"shape": (3, 2), "snaking": "yes"}, "a bool per axis"),
    ],
)
def test_nonsense_is_refused(start, words):
    with pytest.raises(TrackingError, match=words):
        ScanGrid.from_start(start)


def test_lengths_that_do_not_agree_are_refused():
    with pytest.raises(TrackingError, match="names has 1"):
        ScanGrid((3, 2), names=("y",))
    with pytest.raises(TrackingError, match="snaking has 1"):
        ScanGrid((3, 2), snaking=(True,))
