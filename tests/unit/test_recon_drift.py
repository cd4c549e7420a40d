"""20,000 updates of the running sums leave nothing behind: incremental equals full."""

import numpy as np
import pytest
import torch
from test_recon_phantom import half_turn, worst

from tomostream_ioc.model.angles import ThetaSchedule
from tomostream_ioc.model.params import ReconParams
from tomostream_ioc.recon.engine import OrthoEngine
from tomostream_ioc.recon.geometry import ScanGeometry

N_UPDATES = 20_000
N_ROWS, N = 3, 16
PARAMS = ReconParams(7.3, 8, 5, 1, filter_type="Ramp", rot_y_deg=11.0)


def small_engine(n_angles, library):
    torch.set_num_threads(1)
    engine = OrthoEngine(ScanGeometry(n_angles, N_ROWS, N), "uint16", "cpu", library=library)
    engine.set_flat(np.full((N_ROWS, N), 60000.0))
    return engine


def sweep_there_and_back(n):
    return np.concatenate((half_turn(n), half_turn(n)[::-1]))


@pytest.mark.parametrize(
    ("scan", "library"),
    [("continuous", "numba"), ("odd turn", "numba"), ("back-and-forth", "numba"),
     ("odd turn", "torch")],
)  # fmt: skip
def test_twenty_thousand_updates(scan, library):
    """Frames of pure noise, as different from those that they replace as can be.

    One frame at a time and small batches; "odd turn" has no whole number of frames in 180 degrees,
    so that the shares of the half turn change all the time.
    """
    theta_deg = {
        "continuous": np.arange(400) * 180.0 / 25,
        "odd turn": np.arange(400) * 360.0 / 51,
        "back-and-forth": np.tile(sweep_there_and_back(25), 3),
    }[scan]
    schedule = ThetaSchedule.from_array(theta_deg)
    engine = small_engine(schedule.capacity, library)
    rng = np.random.default_rng(4)
    newest: dict[int, tuple[np.ndarray, float]] = {}
    k = 0
    while k < N_UPDATES:
        size = 1 if rng.random() < 0.3 else int(rng.integers(2, 25))
        size = min(size, N_UPDATES - k)
        frames = rng.integers(300, 60000, (size, N_ROWS, N)).astype("uint16")
        places = [schedule.locate(i) for i in range(k, k + size)]
        angles = np.array([place[0] for place in places if place])
        slots = np.array([place[1] for place in places if place])
        engine.push(frames, angles, slots)
        newest |= {int(s): (f, float(a)) for f, a, s in zip(frames, angles, slots, strict=True)}
        k += size
        if k < 200:
            engine.reconstruct(PARAMS)  # from here on frames are added to running sums
    assert len(newest) == schedule.capacity == engine.n_filled
    fresh = small_engine(schedule.capacity, library)
    slots = np.array(sorted(newest))
    fresh.push(
        np.stack([newest[s][0] for s in slots]), np.array([newest[s][1] for s in slots]), slots
    )
    assert worst(engine.reconstruct(PARAMS), fresh.reconstruct(PARAMS)) < 1e-5
