"""Each back-projector is the transpose of a projector that is written here from the formulas.

<A x, y> = <x, A' y> for any image x and any filtered projections y. The projector A spreads every
point of the slice onto the detector columns (and rows) that it reads: one wrong tap, weight, row or
edge and the two sides differ.
"""

import numpy as np
import pytest
import torch
from support.plain_fbp import linear_taps, shear_taps

from tomostream_ioc.recon.engine import OrthoEngine
from tomostream_ioc.recon.geometry import (
    ScanGeometry,
    Views,
    x_slice_line,
    y_slice_line,
    z_slice_rows,
)

#: odd, more rows than columns and fewer, larger than one tile; the axis in and near the middle and
#: so far off that a part of every slice is never seen, the other part only at some angles
CASES = [
    (ScanGeometry(9, 20, 33), 16.0),
    (ScanGeometry(70, 5, 50), 31.3),  # more than the 64 views that are added together
    (ScanGeometry(7, 41, 24), 2.75),
    (ScanGeometry(5, 3, 2), 0.6),
    (ScanGeometry(6, 1, 40), 40.0),
]


@pytest.fixture(params=["numba", "torch"])
def library(request):
    return request.param


@pytest.fixture(params=range(len(CASES)), ids=[f"{g.n_cols}x{g.n_rows}" for g, _ in CASES])
def case(request):
    return CASES[request.param]


def angles(geometry):
    """Over more than a turn, with those at which both halves of the z slice's kernel meet."""
    theta = np.random.default_rng(3).uniform(-300.0, 400.0, geometry.n_angles)
    theta[:5] = (0.0, 45.0, 90.0, 135.0, -180.0)
    return np.deg2rad(theta)


def check(library, geometry, spread, add, shape):
    """spread(k, theta, image) -> (n_rows, n) is A for one view; add(projector, sums, views) A'."""
    torch.set_num_threads(1)
    rng = np.random.default_rng(1)
    engine = OrthoEngine(geometry, "uint16", "cpu", library=library)
    projector = engine._backend.projector
    ring = vars(projector)["_ring"]
    theta = angles(geometry)
    weights = rng.uniform(-1.0, 2.0, len(theta))
    places = rng.permutation(len(theta))
    for mask in ("all", "edge", "few"):
        x = rng.standard_normal(shape)
        if mask == "edge":
            x[1:-1, 1:-1] = 0.0
        elif mask == "few":
            x[rng.random(shape) < 0.9] = 0.0
            x[0, 0] = 1.0
        projected = np.stack([w * spread(t, x) for w, t in zip(weights, theta, strict=True)])
        # y leans towards A x, so that the product is no small difference of large numbers
        y = (projected + 0.3 * rng.standard_normal(projected.shape)).astype(np.float16)
        stored = rng.standard_normal(tuple(ring.shape)).astype(np.float16)
        stored[places] = y.transpose(0, 2, 1)  # (places, n, n_rows)
        if library == "numba":
            ring[:] = stored.view(np.uint16)
        else:
            ring.copy_(torch.from_numpy(stored))
        sums = projector.zeros(*shape)
        add(projector, sums, Views.at(places, theta, weights))
        back = np.asarray(projector.output(sums, 1.0, False), float)
        left, right = np.sum(projected * y.astype(float)), np.sum(x * back)
        assert right == pytest.approx(left, rel=1e-5, abs=1e-12), mask
    engine.release()


def test_z_slice(library, case):
    geometry, center = case
    n, row = geometry.n_cols, geometry.n_rows // 3

    def spread(theta, image):
        columns, weights = shear_taps(theta, n, center)
        p = np.zeros((geometry.n_rows, n))
        p[row] = np.bincount(columns.ravel(), (weights * image).ravel(), n)
        return p

    def add(projector, sums, views):
        projector.add_z(sums, views, row, center)

    check(library, geometry, spread, add, (n, n))


@pytest.mark.parametrize("tilt_deg", [0.0, -31.0])
@pytest.mark.parametrize("line_of", [y_slice_line, x_slice_line])
def test_vertical_slice(library, case, line_of, tilt_deg):
    geometry, center = case
    n = geometry.n_cols
    index = np.arange(n) - float(n // 2)
    at = 3 * n // 4 - n // 2
    cos, sin = np.cos(np.deg2rad(tilt_deg)), np.sin(np.deg2rad(tilt_deg))
    if line_of is y_slice_line:
        x, y = index * cos + at * sin, -index * sin + at * cos
    else:
        x, y = at * cos + index * sin, -at * sin + index * cos

    def spread(theta, image):
        lower, first, second = linear_taps(x * np.cos(theta) - y * np.sin(theta) + center, n)
        p = np.zeros((geometry.n_rows, n))
        for point in range(n):
            p[:, lower[point]] += first[point] * image[point]
            p[:, lower[point] + 1] += second[point] * image[point]
        return p

    def add(projector, sums, views):
        projector.add_vertical(sums, views, line_of(geometry, 3 * n // 4, tilt_deg), center)

    check(library, geometry, spread, add, (n, geometry.n_rows))


@pytest.mark.parametrize("tilt_deg", [12.0, -40.0])
def test_tilted_z_slice(library, case, tilt_deg):
    geometry, center = case
    n, n_rows = geometry.n_cols, geometry.n_rows
    iz = n_rows // 3
    cos, sin = np.cos(np.deg2rad(tilt_deg)), np.sin(np.deg2rad(tilt_deg))
    index = np.arange(n) - float(n // 2)
    x = index * cos + (iz - n_rows // 2) * sin
    row = -index * sin + (iz - n_rows // 2) * cos + n_rows // 2

    def spread(theta, image):
        u = x[:, None] * np.cos(theta) - index[None, :] * np.sin(theta) + center  # (x, y)
        lower, first, second = linear_taps(u, n)
        z, z_first, z_second = (a[:, None] for a in linear_taps(row, n_rows))
        p = np.zeros((n_rows, n))
        for rows, of_row in ((z, z_first), (np.minimum(z + 1, n_rows - 1), z_second)):
            np.add.at(p, (np.broadcast_to(rows, u.shape), lower), of_row * first * image)
            np.add.at(p, (np.broadcast_to(rows, u.shape), lower + 1), of_row * second * image)
        return p

    def add(projector, sums, views):
        projector.add_tilted_z(sums, views, z_slice_rows(geometry, iz, tilt_deg), center)

    check(library, geometry, spread, add, (n, n))
