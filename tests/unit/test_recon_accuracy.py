"""How near the slices are to an object that is known exactly, at sizes that are used.

The measure, also of tests/bench/bench_accuracy.py: the Shepp-Logan head with values of 0 to 1, its
mean over each pixel as the truth, its mean over each detector pixel as the projections, evenly
spaced angles, no noise; root mean square and mean of slice - truth over a disk of 0.95 of the
field. Nearly all of the error sits at the edges, so it falls as the square root of the size.
"""

from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from support.ellipses import SHEPP_LOGAN, pixel_values, projections

from tomostream_ioc.model.params import FILTER_TYPES, ReconParams
from tomostream_ioc.recon.engine import OrthoEngine
from tomostream_ioc.recon.geometry import ScanGeometry

N, N_ANGLES = 1024, 768
#: the largest line integral after scaling: far from the floor of the transmission
P_MAX = 6.0
#: Parzen's window passes a quarter of what the others do: edges are blurred
RMSE = {"Ramp": 0.0111, "Shepp-logan": 0.0125, "Butterworth": 0.0113, "Parzen": 0.046}
BIAS = 2e-3


class Scan(NamedTuple):
    raw: np.ndarray  # (n_angles, 2, n) float32
    theta_deg: np.ndarray
    scale: float  # attenuation per pixel of a value of 1
    true: np.ndarray  # (n, n)


def scan_of(n: int, n_angles: int) -> Scan:
    theta_deg = np.arange(n_angles) * 180.0 / n_angles
    p = projections(SHEPP_LOGAN, theta_deg, n, n / 2, mean=True)
    scale = P_MAX / p.max()
    raw = np.repeat(np.exp(-scale * p)[:, None].astype(np.float32), 2, 1)
    return Scan(raw, theta_deg, scale, pixel_values(SHEPP_LOGAN, n))


def engine_of(scan: Scan, **options: Any) -> OrthoEngine:
    torch.set_num_threads(1)
    n_angles, n_rows, n = scan.raw.shape
    engine = OrthoEngine(ScanGeometry(n_angles, n_rows, n), "float32", "cpu", **options)
    engine.set_flat(np.ones((n_rows, n)))
    engine.push(scan.raw, scan.theta_deg, np.arange(n_angles))
    return engine


def seen_at(n: int, iy: np.ndarray | int) -> np.ndarray:
    """Pixels of row or rows ``iy`` of a slice that are in the disk."""
    column = np.arange(n) - n // 2
    return np.hypot(column, iy - n // 2) < 0.95 * n / 2


def rmse_and_bias(errors: np.ndarray) -> tuple[float, float]:
    return float(np.sqrt(np.mean(errors**2))), float(errors.mean())


@pytest.fixture(scope="module")
def scan():
    return scan_of(N, N_ANGLES)


@pytest.fixture(scope="module")
def engine(scan):
    return engine_of(scan)


@pytest.mark.parametrize("filter_type", FILTER_TYPES)
def test_z_slice_of_the_head(scan, engine, filter_type):
    params = ReconParams(N / 2, N // 2, N // 2, 1, filter_type=filter_type)
    error = engine.reconstruct(params).z / scan.scale - scan.true
    rmse, bias = rmse_and_bias(error[seen_at(N, np.arange(N)[:, None])])
    assert rmse <= RMSE[filter_type]
    assert abs(bias) <= BIAS


@pytest.mark.parametrize("filter_type", ["Ramp", "Parzen"])
def test_vertical_slices_of_the_head(scan, engine, filter_type):
    """Every object is the same on all rows, so each plane shows one row or column of the truth."""
    errors = []
    for i in range(N // 2 - 480, N // 2 + 481, 64):
        slices = engine.reconstruct(ReconParams(N / 2, i, i, 1, filter_type=filter_type))
        seen = seen_at(N, i)
        errors.append((slices.y[1] / scan.scale - scan.true[i])[seen])
        errors.append((slices.x[1] / scan.scale - scan.true[:, i])[seen])
    rmse, bias = rmse_and_bias(np.concatenate(errors))
    assert rmse <= {"Ramp": 0.0126, "Parzen": 0.052}[filter_type]  # these planes cross more skull
    assert abs(bias) <= BIAS


def test_plateaus_have_no_bias(scan, engine):
    """Where the value is 0.2 for 8 pixels around: what a user would read off."""
    z = engine.reconstruct(ReconParams(N / 2, N // 2, N // 2, 1, filter_type="Ramp")).z / scan.scale
    flat = np.abs(scan.true - 0.2) < 1e-6
    for shift in (-8, 8):
        for axis in (0, 1):
            flat &= np.abs(np.roll(scan.true, shift, axis) - 0.2) < 1e-6
    assert flat.sum() > 100_000
    assert z[flat].mean() == pytest.approx(0.2, abs=1e-4)
    assert z[flat].std() < 2e-3


@pytest.mark.parametrize("options", [{"library": "torch"},
                                     {"library": "torch", "compute": "float64"}])  # fmt: skip
def test_torch_at_a_quarter_of_the_size(options):
    small = scan_of(N // 4, N_ANGLES // 4)
    n = N // 4
    slices = engine_of(small, **options).reconstruct(
        ReconParams(n / 2, n // 2, n // 2, 1, filter_type="Ramp")
    )
    error = slices.z / small.scale - small.true
    rmse, bias = rmse_and_bias(error[seen_at(n, np.arange(n)[:, None])])
    assert rmse <= 2 * RMSE["Ramp"]  # the square root of 4
    assert abs(bias) <= BIAS


@pytest.mark.parametrize("library", ["numba", "torch"])
def test_float16_ring_loses_little(library):
    """What keeping filtered frames in float16 costs, against float64 all the way."""
    n = N // 2  # float64 takes its time
    scan = scan_of(n, N_ANGLES // 2)
    params = ReconParams(n / 2, n // 2, n // 2, 1, filter_type="Ramp")
    shown, expected = (
        engine_of(scan, library=library, compute=compute).reconstruct(params)
        for library, compute in ((library, "float32"), ("torch", "float64"))
    )
    for got, want in zip((shown.z, shown.y, shown.x), (expected.z, expected.y, expected.x),
                         strict=True):  # fmt: skip
        error = (got - want) / scan.scale  # of an object of 1
        assert np.sqrt(np.mean(error**2)) < 1.5e-5
        assert np.abs(error).max() < 1.5e-4
