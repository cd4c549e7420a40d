"""Theta schedules: kind of scan, ring slots, what lies past the end of the array."""

import numpy as np
import pytest

from tomostream_ioc.errors import ThetaError
from tomostream_ioc.model.angles import ScanKind, ThetaSchedule


def locate(schedule, k):
    place = schedule.locate(k)
    assert place is not None
    return place


def test_continuous_scan_of_many_revolutions():
    step = 180 / 1500
    schedule = ThetaSchedule.from_array((np.arange(9000) * step).astype(np.float32))
    assert schedule.kind is ScanKind.EVEN
    assert schedule.capacity == 1500
    assert schedule.locate(1500 + 7) == (pytest.approx(180 + 7 * step, abs=1e-3), 7)


def test_even_scan_goes_on_by_its_step():
    schedule = ThetaSchedule.from_array(np.arange(180, dtype=float))
    theta, slot = locate(schedule, 1000)
    assert theta == pytest.approx(1000.0)
    assert slot == 1000 % 180


def test_decreasing_angles_are_continuous():
    schedule = ThetaSchedule.from_array(90.0 - 0.5 * np.arange(400))
    assert schedule.kind is ScanKind.EVEN
    assert schedule.capacity == 360
    assert schedule.locate(500) == (pytest.approx(-160.0), 140)


def test_scan_with_its_end_point():
    schedule = ThetaSchedule.from_array(np.linspace(-88.2, 91.8, 91))
    assert schedule.capacity == 90
    assert [locate(schedule, k)[1] for k in (0, 89, 90)] == [0, 89, 0]


def test_uneven_scan_ends_with_its_array():
    theta = np.cumsum(np.r_[0.0, np.random.default_rng(1).uniform(0.2, 3.0, 400)])
    schedule = ThetaSchedule.from_array(theta)
    assert schedule.kind is ScanKind.UNEVEN
    assert schedule.capacity == pytest.approx(np.count_nonzero(theta < 180), abs=1)
    assert schedule.locate(theta.size) is None
    assert locate(schedule, theta.size - 1)[0] == theta[-1]


@pytest.mark.parametrize("repeats", [1, 2, 5])
def test_back_and_forth_with_repeated_turns_fills_the_same_slots(repeats):
    sweep = np.arange(90) * 2.0
    theta = np.tile(np.concatenate((sweep, sweep[::-1])), repeats)
    schedule = ThetaSchedule.from_array(theta)
    assert schedule.kind is ScanKind.BACK_AND_FORTH
    assert schedule.capacity == 90
    for k in range(1000):
        expected = k % 180 if k % 180 < 90 else 179 - k % 180
        assert schedule.locate(k) == (expected * 2.0, expected)


def test_back_and_forth_without_repeated_turns_and_a_cut_end():
    period = np.concatenate((np.arange(0.0, 61), np.arange(59.0, 0, -1)))
    schedule = ThetaSchedule.from_array(np.tile(period, 4)[: 3 * period.size + 17])
    assert schedule.kind is ScanKind.BACK_AND_FORTH
    assert schedule.capacity == 61
    for k in range(1000):
        assert locate(schedule, k)[0] == period[k % period.size]


def test_long_back_and_forth_array_is_kept_as_a_few_periods():
    sweep = np.arange(1500) * 0.12
    period = np.concatenate((sweep, sweep[::-1]))
    schedule = ThetaSchedule.from_array(np.tile(period, 400))
    assert schedule.kind is ScanKind.BACK_AND_FORTH
    assert schedule.capacity == 1500
    assert schedule.theta_deg.size < 300_000
    for k in (0, 1499, 1500, 700_001, 1_200_000, 99_999_999):
        assert locate(schedule, k)[0] == period[k % 3000]


def test_back_and_forth_over_360_degrees():
    sweep = np.arange(360.0)
    schedule = ThetaSchedule.from_array(np.concatenate((sweep, sweep[::-1])))
    assert schedule.capacity == 180
    assert schedule.locate(200) == (200.0, 20)


def test_frame_before_the_first_projection_has_no_angle():
    assert ThetaSchedule.from_array(np.arange(10.0)).locate(-1) is None


@pytest.mark.parametrize(
    ("theta", "reason"),
    [
        ([], "empty"),
        ([1.0], "single"),
        ([0.0, 1.0, np.nan], "NaN"),
        ([0.0, np.inf, 2.0], "infinite"),
        ([5.0] * 10, "constant"),
        (np.r_[np.arange(180.0), np.zeros(50)], "stands still from frame 180"),
        ([0, 10, 5, 20, 3], "neither monotonic nor back-and-forth"),
        (np.random.default_rng(0).uniform(0, 180, 500), "neither monotonic nor back-and-forth"),
        (111.246 * np.arange(50), "turns by 111.246 degrees per frame"),
        (np.mod(111.246 * np.arange(50), 180.0), "neither monotonic nor back-and-forth"),
        (np.r_[np.arange(90.0), np.arange(30.0)], "neither monotonic nor back-and-forth"),
    ],
)
def test_unusable_theta_is_refused_with_the_reason(theta, reason):
    with pytest.raises(ThetaError, match=reason):
        ThetaSchedule.from_array(np.array(theta, dtype=float))
