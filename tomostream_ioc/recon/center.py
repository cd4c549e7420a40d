"""The axis of rotation from sinograms of half a turn: the full turn that it implies must be smooth.

Mirrored about the axis, half a turn becomes the other half: p(theta + pi, u) = p(theta, 2 c - u).
A point at distance r from the axis moves by at most r pixels per radian, so the Fourier transform
of a full turn, over angle (nu, cycles per turn) and column (omega, radians per pixel), lies inside
|nu| <= r |omega|; a wrong axis puts energy outside. That is the criterion of N. T. Vo et al.,
"Reliable method for calculating the center of rotation in parallel-beam tomography", Opt. Express
22, 19078 (2014). What differs here is how it is weighed, so that any axis can be compared with any
other: see `_Seam` and `CenterSearch`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from tomostream_ioc.errors import CenterError
from tomostream_ioc.model.center import CenterEstimate
from tomostream_ioc.recon.filters import fft_length

#: the axis is looked for between these shares of the detector's width
_RANGE = (0.2, 0.8)
#: detector rows around OrthoZ that are used, in as many groups; their distance is n_rows / 128
_ROWS = 12
_GROUPS = 3
_ROW_SPACING = 128
#: columns for the coarse and for the fine search, at most, and angles, at least where there are
_COARSE = (160, 160)
_FINE = (640, 500)
_LEAST_COLUMNS = 16
#: fewer angles are too few, and so is a part of the half turn without any that is wider than both
_LEAST_ANGLES = 20
_GAP_STEPS = 4.0
_GAP_RAD = np.deg2rad(3.0)
#: coarser than this share of the width is background
_BACKGROUND = 1 / 16
#: harmonics of a turn that never count: slow drifts of the beam
_LEAST_NU = 3
#: no match is better than this: the columns are rounded, too
_BEST = 1e-3
#: minima that are closer, in pixels of the coarse search, are one
_APART = 3.0
#: an axis with so much of the best one's evidence is as good: the one nearer to Center is taken
_AS_GOOD = 0.9
#: match, lead and angles per column that give no confidence, and full; pixels that halve it
_MATCH = (0.15, 0.6)
_LEAD = (0.05, 0.35)
_SAMPLING = (0.05, 0.2)
_SPREAD = 0.5
#: below this a result says what makes it doubtful
_SOUND = 0.7


@dataclass(frozen=True, eq=False, slots=True)
class HalfTurn:
    """Which frames make up half a turn, and how they come onto an even grid of angles.

    ``frames`` (k,) are indices, by angle; grid angle i lies ``share[i]`` of the way from frame
    ``frames[lower[i]]`` to the next, both (n_grid,).
    """

    frames: np.ndarray
    lower: np.ndarray
    share: np.ndarray

    @classmethod
    def of(cls, theta_rad: np.ndarray) -> HalfTurn:
        """From the angles (k,) of frames, of any number of turns.

        Raises CenterError: too few angles, or a part of the half turn without any.
        """
        if len(theta_rad) < _LEAST_ANGLES:
            raise CenterError(
                f"{len(theta_rad)} angles are too few to find the axis: at least {_LEAST_ANGLES} "
                "are needed"
            )
        turn = np.mod(theta_rad, 2 * np.pi)
        order = np.argsort(turn, kind="stable")
        around = np.concatenate((turn[order], turn[order] + 2 * np.pi))
        # of several frames at one angle none tells the step
        step = max(float(np.median(np.diff(around))), 0.5 * np.pi / len(turn))
        # the half turn, beginning at any of the frames, that holds most of them
        ends = np.searchsorted(around, around[: len(turn)] + np.pi - 0.5 * step)
        counts = ends - np.arange(len(turn))
        first = int(np.argmax(counts))
        count = int(counts[first])
        theta = around[first : first + count] - around[first]
        widest = float(np.diff(theta, append=np.pi).max())
        if count < _LEAST_ANGLES or widest > max(_GAP_STEPS * step, _GAP_RAD):
            covered = np.rad2deg(np.pi - widest + step)
            raise CenterError(
                f"{count} angles over {covered:.0f} of 180 degrees are too few to find the axis: "
                "wait until the ring is full"
            )
        grid = np.arange(round(np.pi / step)) * step
        lower = np.clip(np.searchsorted(theta, grid, side="right") - 1, 0, count - 2)
        share = (grid - theta[lower]) / np.maximum(theta[lower + 1] - theta[lower], 1e-9)
        frames = order[np.arange(first, first + count) % len(turn)]
        return cls(frames, lower, np.clip(share, 0.0, 1.0).astype(np.float32))

    def resampled(self, sinogram: np.ndarray) -> np.ndarray:
        """A sinogram (k, n), in the order of ``frames``, at even angles: (n_grid, n)."""
        share = self.share[:, None]
        return sinogram[self.lower] * (1 - share) + sinogram[self.lower + 1] * share


def rows_around(row: int, n_rows: int) -> list[int]:
    """The detector rows that a search looks at, near ``row``."""
    spacing = max(1, n_rows // _ROW_SPACING)
    rows = row + spacing * (np.arange(_ROWS) - _ROWS // 2)
    return [int(r) for r in rows if 0 <= r < n_rows]


class CenterSearch:
    """Finds the axis step by step, each a small part of a second.

    ``groups`` (m, n_angles, n) are sinograms of half a turn, the means of several detector rows
    each, at even angles and binned by ``binning`` columns. ``prior`` is a detector column: the one
    to take where they leave a choice. `docs/reconstruction/center.md` tells the method.
    """

    def __init__(self, groups: np.ndarray, binning: int, prior: float):
        self._groups = groups
        self._binning = binning
        self._sampling = groups.shape[1] / (groups.shape[2] * binning)
        self._prior = _to_binned(prior, binning)
        self._work = self._search()

    @classmethod
    def of(cls, half_turn: HalfTurn, sinograms: Iterable[np.ndarray], prior: float) -> CenterSearch:
        """From sinograms of single detector rows (k, n), in the order of ``half_turn.frames``.

        Their values are line integrals or minus those: the sign does not matter.
        Raises CenterError: fewer columns than can be compared.
        """
        sums: list[np.ndarray] = []
        counts = np.zeros(_GROUPS)
        binning = 1
        for i, sinogram in enumerate(sinograms):
            n = sinogram.shape[1]
            if n < _LEAST_COLUMNS:
                raise CenterError(f"{n} columns are too few to find the axis")
            binning = -(-n // _FINE[0])
            small = binned(half_turn.resampled(sinogram)[None], binning, _FINE[1])[0]
            group = i % _GROUPS
            counts[group] += 1
            if len(sums) <= group:
                sums.append(small)
            else:
                sums[group] += small
        means = [total / count for total, count in zip(sums, counts, strict=False)]
        return cls(np.stack(means), binning, prior)

    def step(self) -> CenterEstimate | None:
        """Go on for a while; the result when it is there."""
        return next(self._work)

    def _search(self) -> Iterator[CenterEstimate | None]:
        n = self._groups.shape[2]
        ratio = -(-n // _COARSE[0])
        seam = _Seam(binned(self._groups, ratio, _COARSE[1]))
        first, last = (round(2 * share * seam.n) for share in _RANGE)
        tries = np.arange(first, last + 1) / 2
        mismatch = np.empty(len(tries))
        for i, center in enumerate(tries):
            mismatch[i] = seam.mismatch(center, seam.width(center)).mean()
            yield None
        # columns seen twice times the logarithm: of the likelihood of a normal error, unknown sigma
        evidence = -np.array([seam.width(center) for center in tries]) * np.log(mismatch)
        found, lead = self._choose(tries, evidence, _to_binned(self._prior, ratio))
        center, spread = _from_binned(float(tries[found]), ratio), 0.0
        for fine in self._refine(center, ratio):
            if fine is None:
                yield None
            else:
                center, spread = fine
        match = 1.0 - float(mismatch[found])
        yield self._estimate(_from_binned(center, self._binning), match, lead, spread)

    @staticmethod
    def _choose(tries: np.ndarray, evidence: np.ndarray, prior: float) -> tuple[int, float]:
        """Index of the axis, and its lead over the next best as a share of its evidence."""
        best = int(np.argmax(evidence))
        if evidence[best] <= 0:
            return int(np.argmin(np.abs(tries - prior))), 0.0
        inner = evidence[1:-1]
        peaks = 1 + np.flatnonzero((inner >= evidence[:-2]) & (inner >= evidence[2:]))
        good = [p for p in peaks if evidence[p] >= _AS_GOOD * evidence[best]]
        found = min(good, key=lambda p: abs(tries[p] - prior), default=best)
        others = [evidence[p] for p in peaks if abs(tries[p] - tries[found]) > _APART]
        lead = evidence[found] - max(others, default=0.0)
        return int(found), float(np.clip(lead / evidence[found], 0.0, 1.0))

    def _refine(self, center: float, ratio: int) -> Iterator[tuple[float, float] | None]:
        """The axis to a fraction of a column, and the standard error of the groups' mean."""
        seam = _Seam(self._groups)
        yield None
        width = seam.width(center) - ratio - 1
        center = round(2 * center) / 2
        known: dict[float, np.ndarray] = {}
        for distance, steps in ((ratio, 2 * ratio + 1), (1, 5)):
            for c in center + np.linspace(-distance, distance, steps):
                if c not in known:
                    known[c] = seam.mismatch(c, width)
                    yield None
            center = min(known, key=lambda c: known[c].mean())
        near = sorted(c for c in known if abs(c - center) <= 1.0)
        values = np.array([known[c] for c in near])  # (4 or 5, m)
        center, *_ = _minimum(near, values.mean(1)[:, None])
        each = _minimum(near, values)
        spread = float(np.std(each, ddof=1) / np.sqrt(len(each))) if len(each) > 1 else 0.0
        yield float(center), spread

    def _estimate(self, center: float, match: float, lead: float, spread: float) -> CenterEstimate:
        spread *= self._binning
        parts = {
            "the two halves of a turn do not match": _ramp(match, _MATCH),
            "other places would do as well": _ramp(lead, _LEAD),
            "the angles are few": _ramp(self._sampling, _SAMPLING),
            f"rows differ by {spread:.1f} pixels": 1.0 / (1.0 + (spread / _SPREAD) ** 2),
        }
        confidence = float(np.prod(list(parts.values())))
        reason = min(parts, key=lambda part: parts[part])
        return CenterEstimate(center, confidence, reason if confidence < _SOUND else "")


class _Seam:
    """How badly half a turn and its mirror image make a full turn, for any axis.

    Only columns that both halves see are compared, tapered about the axis: it may be far from the
    middle, and an object wider than the field of view has no edge. Energy outside of what a body
    as wide as the detector can have is compared with that of the same halves joined with opposite
    signs: 0 is a perfect match, about 1 none at all, whatever the object and the noise.
    """

    def __init__(self, rows: np.ndarray):
        self._rows = without_background(rows)
        self.n = rows.shape[2]

    def width(self, center: float) -> float:
        """Columns on either side of the axis that both halves see."""
        return min(center, self.n - 1 - center)

    def mismatch(self, center: float, width: float) -> np.ndarray:
        """Of each sinogram (m,); ``center`` is a multiple of 1/2."""
        first, last = int(np.ceil(center - width)), int(np.floor(center + width))
        distance = np.arange(first, last + 1) - center
        taper = np.cos(0.5 * np.pi * distance / (width + 1)) ** 2
        seen = self._rows[:, :, first : last + 1] * taper.astype(np.float32)  # (m, k, w)
        mirrored = seen[:, :, ::-1]
        same = self._outside(np.concatenate((seen, mirrored), 1))
        opposite = self._outside(np.concatenate((seen, -mirrored), 1))
        total = same + opposite
        mismatch = np.divide(2 * same, total, out=np.ones_like(total), where=total > 0)
        return np.maximum(mismatch, _BEST)

    def _outside(self, turn: np.ndarray) -> np.ndarray:
        """Energy (m,) of full turns (m, 2k, w) where a body as wide as the detector has none."""
        import scipy.fft  # with the first search: it takes 0.2 s

        n_fft = fft_length(turn.shape[2] // 2 + 1)
        spectrum = np.asarray(scipy.fft.rfft2(turn, (turn.shape[1], n_fft), axes=(1, 2)))
        nu = np.abs(scipy.fft.fftfreq(turn.shape[1], 1 / turn.shape[1]))[:, None]
        omega = 2 * np.pi / n_fft * np.arange(spectrum.shape[2])
        # the taper spreads what it cuts over the next frequency
        outside = nu > (omega + 2 * np.pi / turn.shape[2]) * self.n + _LEAST_NU
        return np.square(np.abs(spectrum) * outside).sum((1, 2), dtype=np.float64)


def without_background(rows: np.ndarray) -> np.ndarray:
    """Sinograms (m, k, n) without what is coarser than _BACKGROUND."""
    import scipy.fft

    n = rows.shape[2]
    pad = n // 2
    # mirrored in its border points the background goes on without a kink
    padded = np.pad(rows, ((0, 0), (0, 0), (pad, pad)), "reflect", reflect_type="odd")
    n_fft = fft_length(n // 2 + pad + 1)
    spectrum = np.asarray(scipy.fft.rfft(padded, n_fft, axis=2))
    omega = 2 * np.pi / n_fft * np.arange(spectrum.shape[2])
    spectrum *= (1 - np.exp(-0.5 * (omega * _BACKGROUND * n) ** 2)).astype(np.float32)
    return np.asarray(scipy.fft.irfft(spectrum, n_fft, axis=2))[:, :, pad : pad + n]


def binned(rows: np.ndarray, columns: int, least_angles: int) -> np.ndarray:
    """Means of ``columns`` columns, and of as many angles as leave ``least_angles`` of them."""
    m, k, n = rows.shape
    angles = max(1, k // least_angles)
    part = rows[:, : k // angles * angles, : n // columns * columns]
    shape = (m, k // angles, angles, n // columns, columns)
    return part.reshape(shape).mean((2, 4), dtype=np.float32)


def _minimum(at: list[float], values: np.ndarray) -> np.ndarray:
    """Where parabolas through values (k, m) at ``at`` (k,) have their minima (m,), inside of it."""
    middle = float(np.mean(at))
    a, b, _ = np.polyfit(np.array(at) - middle, values, 2)
    offset = np.divide(-b, 2 * a, out=np.zeros_like(a), where=a > 0)
    return middle + np.clip(offset, at[0] - middle, at[-1] - middle)


def _to_binned(column: float, binning: int) -> float:
    return (column + 0.5) / binning - 0.5


def _from_binned(column: float, binning: int) -> float:
    return (column + 0.5) * binning - 0.5


def _ramp(value: float, limits: tuple[float, float]) -> float:
    low, high = limits
    return float(np.clip((value - low) / (high - low), 0.0, 1.0))
