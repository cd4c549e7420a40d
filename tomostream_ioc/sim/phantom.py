"""Analytic phantom of ellipsoids: exact projections and exact slices, in the product's geometry.

Conventions (the same everywhere): detector column ``u(x, y, theta) = x cos(theta) - y sin(theta) +
center``; object coordinates x and y count from index n_cols // 2, z is the detector row;
attenuation is per pixel and adds up where ellipsoids overlap. Time runs in turns of the stage (360
degrees).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numba
import numpy as np

Dynamic = Literal["none", "grow", "move"]

#: (first row, last row + 1, first column, last column + 1)
Region = tuple[int, int, int, int]


def _jit(function: Callable[..., Any]) -> Callable[..., Any]:
    # not fastmath=True: an infinite semi-axis must stay infinite
    flags = {"nnan", "nsz", "arcp", "contract", "afn", "reassoc"}
    return numba.njit(nogil=True, cache=True, fastmath=flags)(function)


@dataclass(frozen=True, slots=True)
class Ellipsoid:
    """One ellipsoid, lengths in pixels, attenuation ``mu`` per pixel (negative for a hole).

    ``a`` and ``b`` are the semi-axes in the x-y plane, turned by ``phi_rad`` about z; ``c`` is the
    one along z, and may be infinite: an elliptical cylinder. With ``period_turns`` the centre
    swings by ``shift`` and the size by the fraction ``growth``, both with sin(2 pi t / period).
    """

    x: float
    y: float
    z: float
    a: float
    b: float
    c: float
    mu: float
    phi_rad: float = 0.0
    shift: tuple[float, float, float] = (0.0, 0.0, 0.0)
    growth: float = 0.0
    period_turns: float = 0.0

    @property
    def moves(self) -> bool:
        return self.period_turns > 0

    def at(self, turns: float) -> Ellipsoid:
        """The same ellipsoid, standing still where it is after this many turns."""
        if not self.moves:
            return self
        swing = math.sin(2 * math.pi * turns / self.period_turns)
        size = 1 + self.growth * swing
        return Ellipsoid(
            x=self.x + swing * self.shift[0],
            y=self.y + swing * self.shift[1],
            z=self.z + swing * self.shift[2],
            a=self.a * size,
            b=self.b * size,
            c=self.c * size,
            mu=self.mu,
            phi_rad=self.phi_rad,
        )


@dataclass(frozen=True, slots=True)
class Phantom:
    """Ellipsoids seen by a detector of n_rows x n_cols pixels."""

    n_rows: int
    n_cols: int
    ellipsoids: tuple[Ellipsoid, ...]

    @property
    def moves(self) -> bool:
        return any(ellipsoid.moves for ellipsoid in self.ellipsoids)

    def at(self, turns: float) -> Phantom:
        """The phantom standing still as it is after this many turns of the stage."""
        return replace(self, ellipsoids=tuple(e.at(turns) for e in self.ellipsoids))

    def still_part(self) -> Phantom:
        return replace(self, ellipsoids=tuple(e for e in self.ellipsoids if not e.moves))

    def moving_part(self) -> Phantom:
        return replace(self, ellipsoids=tuple(e for e in self.ellipsoids if e.moves))

    def projection(
        self, theta_rad: float, center: float, *, turns: float = 0.0, region: Region | None = None
    ) -> np.ndarray:
        """Line integrals of attenuation through the pixel centres, float32 (n_rows, n_cols).

        With ``region`` only that part of the detector is computed and returned. Closed form: a ray
        at distance d from an ellipsoid's axis and height h from its centre runs through
        (2 a b / w) sqrt(1 - h^2/c^2 - d^2/w^2) pixels, where
        w^2 = a^2 cos^2(theta + phi) + b^2 sin^2(theta + phi).
        """
        row0, row1, col0, col1 = region or (0, self.n_rows, 0, self.n_cols)
        out = np.zeros((row1 - row0, col1 - col0), np.float32)
        _add_projection(self._table(turns), theta_rad, center - col0, row0, out)
        return out

    def shadow(self, theta_rad: float, center: float, *, turns: float = 0.0) -> Region | None:
        """The smallest detector region that holds every ellipsoid's shadow; None: outside of it."""
        regions: list[Region] = []
        for e in (e.at(turns) for e in self.ellipsoids):
            middle = e.x * math.cos(theta_rad) - e.y * math.sin(theta_rad) + center
            angle = theta_rad + e.phi_rad
            half = math.hypot(e.a * math.cos(angle), e.b * math.sin(angle))
            row0, row1 = _clip(e.z - e.c, e.z + e.c, self.n_rows)
            col0, col1 = _clip(middle - half, middle + half, self.n_cols)
            if row0 < row1 and col0 < col1:
                regions.append((row0, row1, col0, col1))
        if not regions:
            return None
        row0s, row1s, col0s, col1s = zip(*regions, strict=True)
        return min(row0s), max(row1s), min(col0s), max(col1s)

    def slice_z(
        self, iz: float, *, rot_deg: float = 0.0, turns: float = 0.0, supersample: int = 1
    ) -> np.ndarray:
        """Attenuation in the z slice, float32 (n_cols, n_cols): rows y, columns x.

        Point samples at the pixel centres, or the mean of supersample^2 points of the pixel, all in
        the plane. ``rot_deg`` tilts the plane about y, as RotZ does.
        """
        half, cos, sin = self.n_cols // 2, *_cos_sin(rot_deg)
        dz = iz - self.n_rows // 2
        return self._plane(
            origin=(-half * cos + dz * sin, -half, half * sin + dz * cos + self.n_rows // 2),
            per_col=(cos, 0.0, -sin),
            per_row=(0.0, 1.0, 0.0),
            shape=(self.n_cols, self.n_cols),
            turns=turns,
            supersample=supersample,
        )

    def slice_y(
        self, iy: float, *, rot_deg: float = 0.0, turns: float = 0.0, supersample: int = 1
    ) -> np.ndarray:
        """The y slice, float32 (n_rows, n_cols): rows z, columns x. Tilt as RotY."""
        half, cos, sin = self.n_cols // 2, *_cos_sin(rot_deg)
        dy = iy - half
        return self._plane(
            origin=(-half * cos + dy * sin, half * sin + dy * cos, 0.0),
            per_col=(cos, -sin, 0.0),
            per_row=(0.0, 0.0, 1.0),
            shape=(self.n_rows, self.n_cols),
            turns=turns,
            supersample=supersample,
        )

    def slice_x(
        self, ix: float, *, rot_deg: float = 0.0, turns: float = 0.0, supersample: int = 1
    ) -> np.ndarray:
        """The x slice, float32 (n_rows, n_cols): rows z, columns y. Tilt as RotX."""
        half, cos, sin = self.n_cols // 2, *_cos_sin(rot_deg)
        dx = ix - half
        return self._plane(
            origin=(dx * cos - half * sin, -dx * sin - half * cos, 0.0),
            per_col=(sin, cos, 0.0),
            per_row=(0.0, 0.0, 1.0),
            shape=(self.n_rows, self.n_cols),
            turns=turns,
            supersample=supersample,
        )

    def _plane(
        self,
        origin: tuple[float, float, float],
        per_col: tuple[float, float, float],
        per_row: tuple[float, float, float],
        shape: tuple[int, int],
        turns: float,
        supersample: int,
    ) -> np.ndarray:
        out = np.zeros(shape, np.float32)
        grid = np.array([origin, per_col, per_row], np.float64)
        _sample_plane(self._table(turns), grid, supersample, out)
        return out

    def _table(self, turns: float) -> np.ndarray:
        """One row of numbers per ellipsoid, as the compiled functions want it."""
        rows = [
            (e.x, e.y, e.z, e.a, e.b, e.c, e.phi_rad, e.mu)
            for e in (e.at(turns) for e in self.ellipsoids)
        ]
        return np.array(rows, np.float64).reshape(len(rows), 8)


def default_phantom(
    n_rows: int,
    n_cols: int,
    *,
    dynamic: Dynamic = "none",
    period_turns: float = 20.0,
    seed: int = 7,
) -> Phantom:
    """A porous rock core in a glass tube: pores, bright grains, and one big pore with a crystal.

    Made for the eye: the three slices through the middle all show structure. It fills 88 % of the
    detector's width and transmits between about 0.1 and 1. ``dynamic`` makes the crystal in the big
    pore grow and shrink, or move to and fro, once every ``period_turns`` turns.
    """
    n, middle = float(n_cols), n_rows / 2
    core_mu, core_radius = 2.2 / n, 0.37 * n
    parts = [
        Ellipsoid(0, 0, middle, 0.44 * n, 0.44 * n, math.inf, 1.8 / n),
        Ellipsoid(0, 0, middle, 0.42 * n, 0.42 * n, math.inf, -1.8 / n),
        Ellipsoid(0, 0, middle, core_radius, 0.34 * n, math.inf, core_mu, phi_rad=0.4),
    ]
    # the big pore lies on all three middle planes; the crystal stays inside it wherever it swings
    pore = Ellipsoid(0.02 * n, -0.015 * n, middle, 0.13 * n, 0.11 * n, 0.12 * n, -core_mu, 0.3)
    crystal = Ellipsoid(
        pore.x, pore.y, pore.z, 0.045 * n, 0.035 * n, 0.04 * n, 9.0 / n, phi_rad=0.8
    )
    if dynamic == "grow":
        crystal = replace(crystal, growth=0.6, period_turns=period_turns)
    elif dynamic == "move":
        swing = (0.04 * n, 0.03 * n, 0.045 * n)
        crystal = replace(crystal, shift=swing, period_turns=period_turns)
    parts += [pore, crystal]
    parts += _grains(n, n_rows, core_mu, [(pore.x, pore.y, pore.z, 0.14 * n)], seed)
    return Phantom(n_rows, n_cols, tuple(parts))


def _grains(
    n: float,
    n_rows: int,
    core_mu: float,
    taken: list[tuple[float, float, float, float]],
    seed: int,
    count: int = 72,
) -> list[Ellipsoid]:
    """Pores and grains inside the core that touch neither each other nor what is taken."""
    rng = np.random.default_rng(seed)
    grains: list[Ellipsoid] = []
    for attempt in range(60 * count):
        if len(grains) == count:
            break
        # large ones first, as long as there is room
        size = n * (0.075 - 0.055 * len(grains) / count) * rng.uniform(0.8, 1.2)
        radius, angle = (0.33 * n - size) * math.sqrt(rng.uniform()), rng.uniform(0, 2 * math.pi)
        x, y, z = radius * math.cos(angle), radius * math.sin(angle), rng.uniform(0, n_rows)
        # three of four are drawn towards one of the middle planes, where the slices look
        near = rng.normal(0, 0.4 * size)
        which = attempt % 4
        x, y = (near if which == 0 else x), (near if which == 1 else y)
        z = n_rows / 2 + near if which == 2 else z
        if math.hypot(x, y) > 0.33 * n - size:
            continue
        if any(math.dist((x, y, z), other[:3]) < size + other[3] for other in taken):
            continue
        taken.append((x, y, z, size))
        pore = len(grains) % 3 != 2
        mu = -core_mu * rng.choice([1.0, 1.0, 0.5]) if pore else rng.uniform(2.5, 6.0) / n
        b, c = size * rng.uniform(0.6, 1.0, 2)
        grains.append(Ellipsoid(x, y, z, size, b, c, float(mu), rng.uniform(0, math.pi)))
    return grains


def _cos_sin(degrees: float) -> tuple[float, float]:
    return math.cos(math.radians(degrees)), math.sin(math.radians(degrees))


def _clip(low: float, high: float, size: int) -> tuple[int, int]:
    """Whole pixels between low and high, inside the detector, as a half-open range."""
    return math.ceil(max(low, 0.0)), math.floor(min(high, size - 1.0)) + 1


@_jit
def _add_projection(table, theta_rad, center, row0, out):  # pragma: no cover - compiled
    n_rows, n_cols = out.shape
    for k in range(table.shape[0]):
        x, y, z, a, b, c, phi, mu = table[k]
        middle = x * math.cos(theta_rad) - y * math.sin(theta_rad) + center
        w = math.hypot(a * math.cos(theta_rad + phi), b * math.sin(theta_rad + phi))
        scale = mu * 2 * a * b / w
        # clip before rounding: c may be infinite
        first = math.ceil(max(z - c - row0, 0.0))
        last = math.floor(min(z + c - row0, n_rows - 1.0))
        for row in range(first, last + 1):
            height = (row + row0 - z) / c
            left_over = 1.0 - height * height
            half = w * math.sqrt(max(left_over, 0.0))
            col0 = math.ceil(max(middle - half, 0.0))
            col1 = math.floor(min(middle + half, n_cols - 1.0))
            for col in range(col0, col1 + 1):
                d = (col - middle) / w  # float64: the difference below cancels at the edge
                out[row, col] += np.float32(scale * math.sqrt(max(left_over - d * d, 0.0)))


@_jit
def _sample_plane(table, grid, supersample, out):  # pragma: no cover - compiled
    """out[row, col] = attenuation at grid[0] + col * grid[1] + row * grid[2], or a mean around it.

    Along a line of sample points an ellipsoid is |offset + s * step|^2 <= 1 in its own unit-sphere
    coordinates: a quadratic in s, so only the points inside are visited.
    """
    n_rows, n_cols = out.shape
    fine = float(supersample)
    for k in range(table.shape[0]):
        x0, y0, z0, a, b, c, phi, mu = table[k]
        cos, sin = math.cos(phi), math.sin(phi)
        share = np.float32(mu / (fine * fine))
        step_p = (grid[1, 0] * cos + grid[1, 1] * sin) / a
        step_q = (grid[1, 1] * cos - grid[1, 0] * sin) / b
        step_h = grid[1, 2] / c
        square = step_p * step_p + step_q * step_q + step_h * step_h
        for fine_row in range(n_rows * supersample):
            r = (fine_row + 0.5) / fine - 0.5
            x = grid[0, 0] + r * grid[2, 0] - x0
            y = grid[0, 1] + r * grid[2, 1] - y0
            p = (x * cos + y * sin) / a
            q = (y * cos - x * sin) / b
            h = (grid[0, 2] + r * grid[2, 2] - z0) / c
            left_over = 1.0 - p * p - q * q - h * h
            first, last = 0, n_cols * supersample - 1
            if square > 0.0:
                middle = -(p * step_p + q * step_q + h * step_h) / square
                reach = middle * middle + left_over / square
                if reach < 0.0:
                    continue
                low, high = middle - math.sqrt(reach), middle + math.sqrt(reach)
                first = math.ceil(max((low + 0.5) * fine - 0.5, 0.0))
                last = math.floor(min((high + 0.5) * fine - 0.5, float(last)))
            elif left_over < 0.0:
                continue
            for fine_col in range(first, last + 1):
                out[fine_row // supersample, fine_col // supersample] += share
