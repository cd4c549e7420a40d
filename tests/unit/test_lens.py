"""The arithmetic of a change of lens: pixel size, crossing, and where the motors go."""

import math

import pytest

from tomostream_ioc.errors import LensError
from tomostream_ioc.model.lens import (
    Crossing,
    magnification,
    middle,
    pixel_size_um,
    sample_moves_mm,
)
from tomostream_ioc.model.params import ReconParams


def params(x, y, z):
    return ReconParams(center=50.0, ortho_x=x, ortho_y=y, ortho_z=z)


@pytest.mark.parametrize(
    ("text", "value"), [("10", 10.0), ("4.93246", 4.93246), (" 7.5x ", 7.5), ("5X", 5.0)]
)
def test_objective_is_read_as_people_type_it(text, value):
    assert magnification(text) == value


@pytest.mark.parametrize("text", ["Unknown", "", "0", "-5", "nan", "inf", "5 x 2"])
def test_objective_that_is_none_is_named(text):
    with pytest.raises(LensError, match=r"CameraObjective is .*no magnification"):
        magnification(text)


def test_pixel_size_is_detector_pixel_over_objective_times_binning():
    assert pixel_size_um(3.45, "10", 1) == pytest.approx(0.345)
    assert pixel_size_um(3.45, "5X", 2) == pytest.approx(1.38)


@pytest.mark.parametrize(
    ("detector", "binning", "name"),
    [(0.0, 1, "DetectorPixelSize"), (math.nan, 1, "DetectorPixelSize"), (3.45, 0, "binning")],
)
def test_pixel_size_of_nonsense_is_refused(detector, binning, name):
    with pytest.raises(LensError, match=name):
        pixel_size_um(detector, "10", binning)


def test_crossing_counts_detector_pixels_from_the_middle():
    shape = (40, 101)
    assert middle(shape) == (50, 50, 20)
    assert Crossing.of(params(50, 50, 20), shape, 1) == Crossing(0, 0, 0)
    assert Crossing.of(params(60, 45, 5), shape, 1) == Crossing(10, -5, -15)
    # the same place in frames that are binned: (rows, columns) are 10, 25 and the middle 12, 5
    assert Crossing.of(params(14, 11, 4), shape, 4) == Crossing(8, -4, -4)


def test_slices_outside_are_where_they_are_shown():
    assert Crossing.of(params(500, -3, 99), (40, 100), 1) == Crossing(49, -50, 19)


def test_motors_go_as_upstream_sends_them():
    # tomo0deg + (OrthoX - n/2) * pixel, tomo90deg - (OrthoY - n/2) * pixel, sample Y + ...
    moves = sample_moves_mm(Crossing(10, -4, 6), 0.5)
    assert moves == pytest.approx({"x": 0.005, "y": 0.002, "z": 0.003})
    assert sample_moves_mm(Crossing(0, 0, 0), 0.5) == {"x": 0, "y": 0, "z": 0}


def test_after_the_move_the_crossing_is_in_the_middle():
    """A sample that moves against the 0 and 90 degree motors' ways, seen by the projection."""
    pixel_um, crossing = 0.69, Crossing(31, -17, 8)
    moves = sample_moves_mm(crossing, pixel_um)
    in_pixels = {axis: move * 1000 / pixel_um for axis, move in moves.items()}
    for theta in (0.0, math.pi / 2, 1.0):
        column = crossing.x * math.cos(theta) - crossing.y * math.sin(theta)
        moved = in_pixels["x"] * math.cos(theta) + in_pixels["y"] * math.sin(theta)
        assert column - moved == pytest.approx(0)
