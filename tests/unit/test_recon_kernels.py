"""The CPU's kernels against their plain formulas, at sizes that are no multiple of anything."""

import numpy as np
import pytest

from tomostream_ioc.recon.backproject.numba_ import NumbaBackProjector
from tomostream_ioc.recon.geometry import PlaneLine, ScanGeometry, Views, z_slice_rows
from tomostream_ioc.recon.kernels import LINE_MARGIN, line_length
from tomostream_ioc.recon.kernels.compile import LANES
from tomostream_ioc.recon.kernels.output import scaled_transposed
from tomostream_ioc.recon.kernels.shear import TILE_ROWS, add_sheared
from tomostream_ioc.recon.kernels.shear_lanes import NARROW_STRIP, WIDE_STRIP
from tomostream_ioc.recon.kernels.vertical import TILE_POINTS, add_vertical
from tomostream_ioc.recon.kernels.vertical_lanes import LONG_RUN, SHORT_RUN
from tomostream_ioc.recon.memory import column_rows
from tomostream_ioc.recon.workers import Workers

RNG = np.random.default_rng(7)


@pytest.fixture
def workers():
    workers = Workers(lambda: None, 2)
    yield workers
    workers.close()


def halves(*shape):
    return RNG.standard_normal(shape).astype(np.float16).view(np.uint16)


def sheared(lines, tan, origin, n):
    """The formula of add_sheared in float64."""
    total = np.zeros((n, n))
    grid = np.arange(lines.shape[1]) - float(n + LINE_MARGIN)
    c, r = np.arange(n) - origin, np.arange(n) - origin
    for line, t in zip(lines, tan, strict=True):
        total += np.interp(c[None, :] - r[:, None] * t, grid, line)
    return total


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize(
    ("n", "n_views"),
    [
        (2, 1),
        (7, 3),
        (NARROW_STRIP + 1, 25),
        (TILE_ROWS + 3, 24),
        (WIDE_STRIP - NARROW_STRIP, 5),
        (WIDE_STRIP - 1, 2),
        (2 * WIDE_STRIP + NARROW_STRIP + 9, 49),
    ],
)
def test_sheared_lines_equal_the_formula(n, n_views, transposed):
    lines = RNG.standard_normal((n_views, line_length(n))).astype(np.float32)
    tan = RNG.uniform(-1, 1, n_views)
    tan[0], tan[-1] = 1.0, -1.0
    before = RNG.standard_normal((n, n))
    image = before.copy()
    n_tiles = -(-n // TILE_ROWS) * -(-n // WIDE_STRIP)
    add_sheared(lines, tan, n // 2, transposed, image, 0, n_tiles // 2)
    add_sheared(lines, tan, n // 2, transposed, image, n_tiles // 2, n_tiles)
    added = (image - before).T if transposed else image - before
    np.testing.assert_allclose(added, sheared(lines, tan, n // 2, n), atol=2e-5 * n_views**0.5)


@pytest.mark.parametrize("n_rows", [1, 3, SHORT_RUN, SHORT_RUN + 1, LONG_RUN - 1, LONG_RUN + 17])
@pytest.mark.parametrize(("n", "n_views"), [(2, 1), (TILE_POINTS + 5, 9)])
def test_vertical_planes_equal_the_formula(n, n_views, n_rows):
    ring = halves(n_views + 1, n, column_rows(n_rows))
    frames = RNG.permutation(n_views + 1)[:n_views]
    theta, weights = RNG.uniform(0, 7, n_views), RNG.uniform(-1, 2, n_views)
    center = n / 2 - 0.3
    x, y = RNG.uniform(-n, n, (2, n))  # many are outside
    image = np.zeros((n, n_rows))
    n_tiles = -(-n // TILE_POINTS)
    add_vertical(
        ring, frames, np.cos(theta), np.sin(theta), weights, center, x, y, image, 0, n_tiles
    )
    q = ring[:, :, :n_rows].view(np.float16).astype(float)
    expected = np.zeros_like(image)
    for frame, t, weight in zip(frames, theta, weights, strict=True):
        for point in range(n):
            u = x[point] * np.cos(t) - y[point] * np.sin(t) + center
            if 0 <= u <= n - 1:
                s = min(int(u), n - 2)
                expected[point] += weight * ((s + 1 - u) * q[frame, s] + (u - s) * q[frame, s + 1])
    np.testing.assert_allclose(image, expected, atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 1), (63, 65), (64, 128), (200, 77)])
def test_transposed_output(shape):
    sums = RNG.standard_normal(shape)
    out = np.full(shape[::-1], np.nan, np.float32)
    middle = shape[1] // 3
    scaled_transposed(sums, 0.5, out, 0, middle)
    scaled_transposed(sums, 0.5, out, middle, shape[1])
    np.testing.assert_array_equal(out, (0.5 * sums.T).astype(np.float32))


def z_sums(workers, ring, views, n):
    projector = NumbaBackProjector(ScanGeometry(len(views), 5, n), ring, workers)
    sums = projector.zeros(n, n)
    projector.add_z(sums, views, 2, n / 2 - 0.2)
    return sums


@pytest.fixture
def n_lines(monkeypatch):
    """How many lines each back-projection took."""
    counts = []

    def counted(lines, *others):
        counts.append(len(lines))
        add_sheared(lines, *others)

    monkeypatch.setattr("tomostream_ioc.recon.backproject.numba_.add_sheared", counted)
    return counts


def test_frames_at_the_same_line_are_back_projected_as_one(workers, n_lines):
    n, k = 90, 24
    ring = halves(3 * k, n, 5)
    theta = np.arange(k) * np.pi / k + 0.001
    every = np.concatenate((theta, theta + np.pi, theta - 2 * np.pi))
    weights = np.repeat([1.0, -1.0, 0.5], k)
    order = RNG.permutation(3 * k)
    views = Views.at(order, every[order], weights[order])
    together = z_sums(workers, ring, views, n)
    assert set(n_lines) == {k // 2}
    alone = sum(z_sums(workers, ring, views[i : i + 1], n) for i in range(3 * k))
    np.testing.assert_allclose(together, alone, atol=3e-5)


@pytest.mark.parametrize(("apart_px", "lines"), [(1e-7, 1), (3e-6, 2)])
def test_lines_are_the_same_within_a_millionth_of_a_pixel(workers, n_lines, apart_px, lines):
    n = 90
    tan = 0.3 + np.array([0.0, apart_px / (n / 2)])
    z_sums(workers, halves(2, n, 5), Views.at(np.arange(2), np.arctan(tan)), n)
    assert set(n_lines) == {lines}


def test_no_chain_of_neighbours_becomes_one_line(workers, n_lines):
    n = 90
    tan = 0.3 + np.arange(100) * 5e-7 / (n / 2)
    z_sums(workers, halves(100, n, 5), Views.at(np.arange(100), np.arctan(tan)), n)
    assert 30 <= n_lines[0] <= 50


def test_a_plane_that_no_angle_sees_stays_zero(workers):
    n, n_rows = 40, 70
    ring = halves(3, n, n_rows)
    projector = NumbaBackProjector(ScanGeometry(3, n_rows, n), ring, workers)
    sums = projector.zeros(n, n_rows)
    far = PlaneLine(np.full(n, 1e6), np.full(n, 1e6))
    projector.add_vertical(sums, Views.at(np.arange(3), np.array([0.1, 0.2, 3.0])), far, 20.0)
    assert not sums.any()


@pytest.mark.parametrize("tilt_deg", [0.5, -50.0, 88.0])
@pytest.mark.parametrize(
    ("n", "n_rows"), [(2, 1), (19, 2), (37, 2 * LANES - 1), (50, 2 * LANES), (83, 70)]
)
def test_tilted_slice_equals_the_formula(workers, n, n_rows, tilt_deg):
    k = 7
    geometry = ScanGeometry(k, n_rows, n)
    ring = halves(k, n, n_rows)
    theta, weights = RNG.uniform(0, 7, k), RNG.uniform(-1, 2, k)
    rows = z_slice_rows(geometry, n_rows // 2, tilt_deg)
    center = 0.47 * n
    projector = NumbaBackProjector(geometry, ring, workers)
    sums = projector.zeros(n, n)
    projector.add_tilted_z(sums, Views.at(np.arange(k), theta, weights), rows, center)
    q = ring.view(np.float16).astype(float)
    y = np.arange(n) - float(n // 2)
    expected = np.zeros((n, n))
    for i in np.flatnonzero((rows.row >= 0) & (rows.row <= n_rows - 1)):
        z = min(int(rows.row[i]), max(n_rows - 2, 0))
        part = rows.row[i] - z
        for frame, t, weight in zip(q, theta, weights, strict=True):
            line = (1 - part) * frame[:, z] + part * frame[:, min(z + 1, n_rows - 1)]
            u = rows.x[i] * np.cos(t) - y * np.sin(t) + center
            expected[i] += weight * np.interp(u, np.arange(n), line, left=0.0, right=0.0)
    np.testing.assert_allclose(sums, expected, atol=5e-5)
