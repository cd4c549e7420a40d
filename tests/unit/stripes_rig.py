"""A phantom in front of columns that respond wrongly, and measures of the rings."""

import numpy as np
import pytest
from test_recon_phantom import Phantom, engine_for, half_turn, middle

N, N_ROWS, N_ANGLES = 128, 20, 90
PHANTOM = Phantom(N, N_ROWS)
CENTER = N / 2 - 0.5
THETA = half_turn(N_ANGLES)
SLOTS = np.arange(N_ANGLES)
#: columns that respond otherwise in projections than in the flat, by a few percent
GAIN = 1.0 + 0.03 * np.random.default_rng(4).standard_normal((N_ROWS, N))
OFF = middle(PHANTOM, filter_type="Butterworth")
ON = middle(PHANTOM, filter_type="Butterworth", ring_removal="fw")


def raw_frames(theta=THETA, gain: np.ndarray | float = GAIN, scale=1.0, dtype="uint16"):
    dark = PHANTOM.dark()
    with_gain = dark + (PHANTOM.flat() - dark) * gain
    return Phantom(N, N_ROWS, scale).raw(theta, CENTER, dtype, flat=with_gain)


RAW = raw_frames()
CLEAN = raw_frames(gain=1.0)


def full_engine(raw=RAW, theta=THETA, n_angles=N_ANGLES, **options):
    engine = engine_for(PHANTOM, n_angles, **options)
    engine.push(raw, theta, np.arange(len(raw)))
    return engine


def plateaus(slices, like):
    """Each slice where the true one is constant for 3 pixels around."""
    for name, true in zip(
        "zyx", PHANTOM.slices(like.ortho_x, like.ortho_y, like.ortho_z), strict=True
    ):
        inner = true > 0
        for shift in (-3, 3):
            for axis in (0, 1):
                inner &= np.roll(true, shift, axis) == true
        yield getattr(slices, name)[inner], true[inner]


def ring_amplitudes(slices, clean):
    """Deviation of each slice from the one without rings, on the plateaus, as share of mu."""
    pairs = zip(plateaus(slices, ON), plateaus(clean, ON), strict=True)
    return np.array([(a - b).std() / true.mean() for (a, true), (b, _) in pairs])


@pytest.fixture(params=["numba", "torch"])
def library(request):
    return request.param


@pytest.fixture(scope="module")
def clean():
    return full_engine(CLEAN).reconstruct(OFF)
