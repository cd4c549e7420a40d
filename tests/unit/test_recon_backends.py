"""The libraries against each other and against torch in float64, at awkward sizes."""

import numpy as np
import pytest
import torch
from test_recon_phantom import half_turn, worst

from tomostream_ioc.model.params import ReconParams
from tomostream_ioc.recon.engine import OrthoEngine
from tomostream_ioc.recon.geometry import ScanGeometry

#: n_cols, n_rows: odd, no multiples of 32 or 16, more rows than columns, one row, two columns
SIZES = [(33, 19), (63, 64), (65, 200), (100, 7), (47, 1), (2, 5), (3, 1), (130, 31)]
N_ANGLES = 131


def results(n, n_rows, center, tilt_deg, filter_type, compute, n_threads=None):
    """Slices of the same noisy frames by each (library, compute)."""
    torch.set_num_threads(1)
    rng = np.random.default_rng(n)
    # smooth in u, with noise: p from about 0 to 2, and nothing that a symmetry could hide
    p = 1 + np.cumsum(rng.normal(0, 0.1, (N_ANGLES, n_rows, n)), 2) / np.sqrt(n)
    raw = np.clip(50000 * np.exp(-p), 1, 65535).astype("uint16")
    theta = half_turn(N_ANGLES, start_deg=12.0)
    params = ReconParams(
        center, n // 4, n - 1 - n // 5, n_rows // 2, filter_type=filter_type,
        rot_x_deg=tilt_deg, rot_y_deg=-tilt_deg, rot_z_deg=tilt_deg / 2,
    )  # fmt: skip
    shown = []
    for library, kind in compute:
        engine = OrthoEngine(ScanGeometry(N_ANGLES, n_rows, n), "uint16", "cpu", library=library,
                             compute=kind, n_threads=n_threads)  # fmt: skip
        engine.set_dark(np.full((n_rows, n), 3.0))
        engine.set_flat(np.full((n_rows, n), 50003.0))
        engine.push(raw, theta, np.arange(N_ANGLES))
        shown.append(engine.reconstruct(params))
        engine.release()
    return shown


@pytest.mark.parametrize(("n", "n_rows"), SIZES)
@pytest.mark.parametrize("axis_at", ["left edge", "inside", "right edge"])
@pytest.mark.parametrize("tilt_deg", [0.0, 20.0])
def test_libraries_agree(n, n_rows, axis_at, tilt_deg):
    center = {"left edge": 0.0, "inside": 0.4 * n, "right edge": float(n)}[axis_at]
    if tilt_deg:  # exactly on the edge rounding decides whether a tilted plane's axis is inside
        center = min(max(center, 0.25), n - 0.75)
    filter_type = "Parzen" if tilt_deg else "Ramp"
    fast, torch32, exact = results(
        n, n_rows, center, tilt_deg, filter_type,
        [("numba", "float32"), ("torch", "float32"), ("torch", "float64")],
    )  # fmt: skip
    scale = max(np.abs(array).max() for array in (exact.z, exact.y, exact.x))
    assert scale > 0 or (n == 2 and axis_at == "right edge")  # of which the detector sees nothing
    for shown in (fast, torch32):
        for name in "zyx":
            got, want = getattr(shown, name), getattr(exact, name)
            assert got.shape == want.shape
            assert np.abs(got - want).max() <= 1e-4 * scale, name


def test_number_of_threads_does_not_matter():
    compute = [("numba", "float32")]
    (one,) = results(100, 37, 44.4, 5.0, "Ramp", compute, n_threads=1)
    (three,) = results(100, 37, 44.4, 5.0, "Ramp", compute, n_threads=3)
    assert worst(one, three) < 1e-6
