"""From a frame's number to its angle and its slot in the ring."""

from __future__ import annotations

import enum
from dataclasses import dataclass

import numpy as np

from tomostream_ioc.errors import ThetaError

#: an array of more angles is looked at for whole periods first
_LONG = 1 << 18


class ScanKind(enum.Enum):
    EVEN = "continuous, evenly spaced"
    UNEVEN = "continuous, unevenly spaced"
    BACK_AND_FORTH = "back-and-forth"


@dataclass(frozen=True, eq=False)
class ThetaSchedule:
    """The angles of a scan: one per frame, as tomoScan broadcasts them.

    ``capacity`` is the number of frames in 180 degrees, that is of slots in the ring. Build it by
    `ThetaSchedule.from_array`.
    """

    kind: ScanKind
    theta_deg: np.ndarray  # (n,) float64
    slots: np.ndarray  # (n,) int64
    step_deg: float  # signed; of an uneven scan the median
    capacity: int
    period: int  # frames after which a back-and-forth scan repeats, else 0

    @classmethod
    def from_array(cls, theta_deg: np.ndarray) -> ThetaSchedule:
        """Find out what kind of scan an array of angles (n,), in degrees, describes.

        Raises ThetaError: fewer than two angles, NaN or infinity, constant, more than 90 degrees
        from frame to frame, or neither monotonic nor back-and-forth.
        """
        theta = np.array(theta_deg, dtype=np.float64).ravel()
        if theta.size == 0:
            raise ThetaError("theta is empty: start the scan, so that tomoScan broadcasts angles")
        bad = int(np.count_nonzero(~np.isfinite(theta)))
        if bad:
            raise ThetaError(f"theta has {bad} of {theta.size} angles that are NaN or infinite")
        if theta.size == 1:
            raise ThetaError("theta has a single angle: a scan needs at least two")
        theta = _without_repeats(theta)
        steps = np.diff(theta)
        directions = np.sign(steps)
        if not directions.any():
            raise ThetaError(f"theta is constant ({theta[0]:g} degrees): the stage does not turn")
        still = np.flatnonzero((directions[1:] == 0) & (directions[:-1] == 0))
        if still.size:
            raise ThetaError(
                f"theta stands still from frame {still[0]} on ({theta[still[0]]:g} degrees): "
                "is the array padded?"
            )
        turns = _turns(directions)
        if turns.size == 0:
            return cls._continuous(theta, steps)
        return cls._back_and_forth(theta, steps, turns)

    @classmethod
    def _continuous(cls, theta: np.ndarray, steps: np.ndarray) -> ThetaSchedule:
        n = theta.size
        mean_step = (theta[-1] - theta[0]) / (n - 1)
        if abs(mean_step) > 90.0:
            raise ThetaError(
                f"theta turns by {abs(mean_step):g} degrees per frame: 180 degrees then hold fewer "
                "than two frames (scans in steps of the golden angle can't be streamed)"
            )
        # float32 angles of a long scan are coarse (0.004 degrees at 60,000)
        tolerance = 0.25 * abs(mean_step) + 1e-6 * np.abs(theta).max()
        even = np.abs(theta - (theta[0] + mean_step * np.arange(n))).max() <= tolerance
        if even:
            capacity = max(1, round(180.0 / abs(mean_step)))
            kind, step = ScanKind.EVEN, mean_step
        else:
            step = float(np.median(steps))
            turned = np.abs(theta - theta[0])
            capacity = max(1, int(np.count_nonzero(turned < 180.0 - 0.5 * abs(step))))
            kind = ScanKind.UNEVEN
        return cls(kind, theta, np.arange(n) % capacity, float(step), capacity, 0)

    @classmethod
    def _back_and_forth(
        cls, theta: np.ndarray, steps: np.ndarray, turns: np.ndarray
    ) -> ThetaSchedule:
        starts = np.concatenate(([0], turns, [theta.size]))
        lengths = np.diff(starts)
        step = float(np.median(np.abs(steps[steps != 0])))
        # The widest sweep tells the range: the first and the last of an array may be cut short.
        widest = int(np.argmax(lengths))
        sweep = np.sort(theta[starts[widest] : starts[widest + 1]])
        nearest = _nearest(sweep, theta)
        same_angles = np.abs(sweep[nearest] - theta).max() <= 0.5 * step
        whole_sweeps = lengths[1:-1].min(initial=sweep.size) >= sweep.size - 1
        if sweep.size < 3 or not same_angles or not whole_sweeps:
            raise ThetaError(
                "theta is neither monotonic nor back-and-forth: it turns round at frame "
                f"{starts[1]} ({theta[starts[1]]:g} degrees) but does not retrace its angles"
            )
        capacity = max(1, int(np.count_nonzero(sweep - sweep[0] < 180.0 - 0.5 * step)))
        whole_period = 2 * int(lengths[1]) if lengths.size > 2 else theta.size
        period = min(whole_period, theta.size)
        return cls(ScanKind.BACK_AND_FORTH, theta, nearest % capacity, step, capacity, period)

    def locate(self, k: int) -> tuple[float, int] | None:
        """Angle in degrees and ring slot of the k-th frame of the scan, or None without an angle.

        Past the end of the array an even scan goes on by its step and a back-and-forth one
        repeats; nothing is ever clamped to the last angle.
        """
        if k < 0:
            return None
        if k >= self.theta_deg.size:
            if self.kind is ScanKind.EVEN:
                return float(self.theta_deg[0] + k * self.step_deg), k % self.capacity
            if self.kind is ScanKind.UNEVEN:
                return None
            k = self._folded(k)
        return float(self.theta_deg[k]), int(self.slots[k])

    def _folded(self, k: int) -> int:
        """The frame inside the array at whose angle a back-and-forth scan is at frame k."""
        start = self.theta_deg.size - self.period
        return start + (k - start) % self.period


def _turns(directions: np.ndarray) -> np.ndarray:
    """First frame of each sweep but the first; equal angles at a turn belong to both sides."""
    moving = np.flatnonzero(directions)
    changed = np.flatnonzero(np.diff(directions[moving]))
    before, after = moving[changed], moving[changed + 1]
    # [0 1 2 2 1 0]: the repeated angle starts the sweep back; [0 1 2 1 0]: the 1 does
    return np.where(after - before > 1, after, before + 2)


def _without_repeats(theta: np.ndarray) -> np.ndarray:
    """The first periods of a long array that only repeats them, else the array itself.

    tomoScan broadcasts 65 million angles for a back-and-forth scan: a second each to look at.
    """
    head = theta[:_LONG]
    if theta.size <= _LONG:
        return theta
    turns = _turns(np.sign(np.diff(head)))
    if turns.size < 3:
        return theta
    period = 2 * int(turns[1] - turns[0])
    if not np.array_equal(theta[period:], theta[:-period]):
        return theta
    return theta[: _LONG // period * period].copy()


def _nearest(sorted_values: np.ndarray, values: np.ndarray) -> np.ndarray:
    right = np.clip(np.searchsorted(sorted_values, values), 1, sorted_values.size - 1)
    left = right - 1
    nearer_left = values - sorted_values[left] <= sorted_values[right] - values
    return np.where(nearer_left, left, right)
