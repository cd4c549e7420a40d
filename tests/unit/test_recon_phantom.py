"""An analytic phantom for the tests of recon: ellipsoids, their projections in closed form."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from tomostream_ioc.model.params import ReconParams
from tomostream_ioc.recon.engine import OrthoEngine
from tomostream_ioc.recon.geometry import ScanGeometry


@dataclass(frozen=True)
class Ellipsoid:
    """Centre and half axes in pixels, phi in radians about z; mu adds up where they overlap."""

    x: float
    y: float
    z: float
    a: float
    b: float
    c: float
    phi: float
    mu: float

    def values(self, x, y, z):
        dx, dy = x - self.x, y - self.y
        along = dx * np.cos(self.phi) + dy * np.sin(self.phi)
        across = -dx * np.sin(self.phi) + dy * np.cos(self.phi)
        inside = (along / self.a) ** 2 + (across / self.b) ** 2 + ((z - self.z) / self.c) ** 2 <= 1
        return self.mu * inside

    def projection(self, theta_rad, s, z):
        """Line integral at s = x cos(theta) - y sin(theta); s (n,), z (m,) -> (m, n)."""
        ex, ey = np.cos(theta_rad), -np.sin(theta_rad)
        along = ex * np.cos(self.phi) + ey * np.sin(self.phi)
        across = -ex * np.sin(self.phi) + ey * np.cos(self.phi)
        r2 = (self.a * along) ** 2 + (self.b * across) ** 2
        left = np.clip(1 - ((z - self.z) / self.c) ** 2, 0, None)[:, None]
        d2 = (s - self.x * ex - self.y * ey)[None, :] ** 2
        chord = np.sqrt(np.clip(r2 * left - d2, 0, None))
        return 2 * self.mu * self.a * self.b * chord / r2


class Phantom:
    """Ellipsoids in a volume of n x n columns and n_rows rows, inside the field of view."""

    def __init__(self, n, n_rows, scale=1.0):
        h, v, mu = n / 2, n_rows / 2, scale * 0.5 / n
        self.n, self.n_rows = n, n_rows
        self.parts = [
            Ellipsoid(0, 0, v, 0.80 * h, 0.70 * h, 1.4 * v, 0.3, 2 * mu),
            Ellipsoid(0.3 * h, -0.2 * h, 1.1 * v, 0.25 * h, 0.3 * h, 0.7 * v, 0.0, 2 * mu),
            Ellipsoid(-0.25 * h, 0.3 * h, 0.9 * v, 0.2 * h, 0.15 * h, 0.6 * v, 0.7, -1 * mu),
        ]

    def projections(self, theta_deg, center):
        """Line integrals (k, n_rows, n)."""
        s = np.arange(self.n) - center
        z = np.arange(self.n_rows, dtype=float)
        theta = np.deg2rad(theta_deg)
        return np.stack([np.sum([e.projection(t, s, z) for e in self.parts], 0) for t in theta])

    def raw(self, theta_deg, center, dtype="uint16", dark=None, flat=None):
        """Detector counts (k, n_rows, n) with this dark and flat."""
        dark = self.dark() if dark is None else dark
        flat = self.flat() if flat is None else flat
        counts = dark + (flat - dark) * np.exp(-self.projections(theta_deg, center))
        return (np.rint(counts) if np.dtype(dtype).kind in "ui" else counts).astype(dtype)

    def dark(self):
        return 90.0 + 10 * np.random.default_rng(1).random((self.n_rows, self.n))

    def flat(self):
        return 50000.0 + 8000 * np.random.default_rng(2).random((self.n_rows, self.n))

    def slices(self, ix, iy, iz):
        """True values of the z, y and x slice."""
        along = np.arange(self.n) - float(self.n // 2)
        z = np.arange(self.n_rows, dtype=float)
        x0, y0 = ix - self.n // 2, iy - self.n // 2
        return (
            np.sum([e.values(along[None, :], along[:, None], iz) for e in self.parts], 0),
            np.sum([e.values(along[None, :], y0, z[:, None]) for e in self.parts], 0),
            np.sum([e.values(x0, along[None, :], z[:, None]) for e in self.parts], 0),
        )


def engine_for(phantom, n_angles, dtype="uint16", fields=True, **options):
    torch.set_num_threads(1)  # so little work is slower, and erratic, on several
    geometry = ScanGeometry(n_angles=n_angles, n_rows=phantom.n_rows, n_cols=phantom.n)
    options.setdefault("device", "cpu")
    engine = OrthoEngine(geometry, dtype=dtype, **options)
    if fields:
        engine.set_dark(phantom.dark())
        engine.set_flat(phantom.flat())
    return engine


def half_turn(n_angles, start_deg=0.0):
    return start_deg + np.arange(n_angles) * 180.0 / n_angles


def middle(phantom, **changes):
    values = {
        "center": phantom.n / 2 - 0.5,
        "ortho_x": phantom.n // 2,
        "ortho_y": phantom.n // 2,
        "ortho_z": phantom.n_rows // 2,
    } | changes
    return ReconParams(**values)


def worst(a, b):
    """Largest difference of two sets of slices, relative to the largest value."""
    return max(
        np.abs(p - q).max() / max(np.abs(q).max(), 1e-30)
        for p, q in ((a.z, b.z), (a.y, b.y), (a.x, b.x))
    )


@pytest.fixture(params=["numba", "torch"])
def library(request):
    return request.param


def test_phantom_projections_hold_the_mass_of_the_slices():
    phantom = Phantom(128, 32)
    z, _, _ = phantom.slices(64, 64, 16)
    mass = phantom.projections([0.0, 33.0, 120.0], 60.0)[:, 16].sum(1)
    assert mass == pytest.approx(z.sum(), rel=5e-3)


@pytest.mark.parametrize("filter_type", ["Ramp", "Shepp-logan", "Parzen", "Butterworth"])
@pytest.mark.parametrize(("n", "n_rows", "center"), [(128, 48, 63.5), (101, 130, 55.25)])
def test_slices_are_the_phantom(library, filter_type, n, n_rows, center):
    phantom = Phantom(n, n_rows)
    theta = half_turn(200)
    engine = engine_for(phantom, 200, library=library)
    engine.push(phantom.raw(theta, center), theta, np.arange(200))
    ix, iy, iz = n // 2 + 7, n // 2 - 5, n_rows // 2 + 2
    params = ReconParams(center, ix, iy, iz, filter_type=filter_type)
    slices = engine.reconstruct(params)
    # Parzen's window has a cusp at f = 0: edges blur, and its tail, about 1/r^3, takes a few
    # percent off plateaus as small as these
    least, within = (0.96, 0.06) if filter_type == "Parzen" else (0.98, 0.01)
    for got, true in zip((slices.z, slices.y, slices.x), phantom.slices(ix, iy, iz), strict=True):
        assert got.dtype == np.float32
        assert got.shape == true.shape
        assert np.corrcoef(got.ravel(), true.ravel())[0, 1] > least
        # the plateau: at least 3 pixels from any edge
        inner = np.ones(true.shape, bool)
        for shift in (-3, 3):
            for axis in (0, 1):
                inner &= np.roll(true, shift, axis) == true
                inner &= true > 0
        assert inner.sum() > 100
        assert got[inner].mean() == pytest.approx(true[inner].mean(), rel=within)
        if true.shape == (n, n) and filter_type != "Parzen":
            r = np.hypot(np.arange(n)[None] - n // 2, np.arange(n)[:, None] - n // 2)
            outside = (true == 0) & (r > 0.42 * n) & (r < 0.44 * n)
            assert abs(got[outside].mean()) < 0.02 * true.max()
    engine.release()
