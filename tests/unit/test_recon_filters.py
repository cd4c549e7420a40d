"""Filters and the transform: each against its formula, and against numpy."""

import numpy as np
import pytest
from test_recon_phantom import Phantom, engine_for, half_turn, middle

from tomostream_ioc.model.params import FILTER_TYPES
from tomostream_ioc.recon.filters import fft_length, ramp_samples, response, window
from tomostream_ioc.recon.kernels.compile import kernel
from tomostream_ioc.recon.kernels.fft import FftPlan, filter_samples
from tomostream_ioc.recon.kernels.fft_lanes import SAMPLE

F = np.linspace(0.0, 0.5, 101)


def formula(filter_type, f):
    with np.errstate(invalid="ignore"):
        sinc = np.where(f > 0, np.sin(np.pi * f) / (np.pi * f), 1.0)
    return {
        "Parzen": (1 - 2 * f) ** 3,
        "Shepp-logan": sinc,
        "Ramp": np.ones_like(f),
        "Butterworth": 1 / (1 + (2 * f) ** 16),
    }[filter_type]


@pytest.mark.parametrize("filter_type", FILTER_TYPES)
def test_window(filter_type):
    np.testing.assert_allclose(window(filter_type, F), formula(filter_type, F), atol=1e-12)


def test_unknown_window_is_refused():
    with pytest.raises(ValueError, match="Hann"):
        window("Hann", F)


def test_ramp_samples():
    h = ramp_samples(16)
    assert h[0] == 0.25
    assert h[1] == h[15] == pytest.approx(-1 / np.pi**2)
    assert h[2] == h[14] == 0.0
    assert h[3] == h[13] == pytest.approx(-1 / (3 * np.pi) ** 2)


@pytest.mark.parametrize("filter_type", FILTER_TYPES)
def test_response_is_ramp_times_window(filter_type):
    n_fft = 4096
    f = np.arange(n_fft // 2 + 1) / n_fft
    expected = f * formula(filter_type, f)
    np.testing.assert_allclose(response(filter_type, n_fft), expected, atol=0.25 / n_fft)
    # band-limited in space: the mean is small but not 0, which is what keeps plateaus right
    assert 0 < response(filter_type, n_fft)[0] < 1 / n_fft


@pytest.mark.parametrize("n", [2, 3, 31, 64, 101, 512, 1000, 2448, 5000])
def test_transform_is_long_enough_and_not_much_longer(n):
    length = fft_length(n)
    assert length >= 2 * n - 1
    assert n < 20 or length <= 1.4 * 2 * n
    assert FftPlan.of_length(length).n_fft == length


@pytest.mark.parametrize("n_fft", [24, 16 * 7])
def test_lengths_without_a_plan_are_refused(n_fft):
    with pytest.raises(ValueError, match="n_fft"):
        FftPlan.of_length(n_fft)


# every radix, and transforms shorter and longer than what is done at once in L1
@pytest.mark.parametrize("n_fft", [16, 32, 48, 80, 240, 1024, 1920, 2048, 2560])
def test_convolution_equals_numpy(n_fft):
    n = n_fft // 2
    plan = FftPlan.of_length(n_fft)
    filter_response = np.random.default_rng(3).standard_normal(n_fft // 2 + 1)
    rows = np.random.default_rng(4).standard_normal((SAMPLE, n))
    samples = np.full((n_fft, SAMPLE), np.nan, np.float32)  # the second half is not read
    samples[:n] = rows.T
    filter_samples(
        samples.reshape(-1), plan.radices, plan.lengths, plan.tables, plan.starts,
        plan.in_order(filter_response), plan.n_outer,
    )  # fmt: skip
    expected = np.fft.irfft(np.fft.rfft(rows, n_fft) * filter_response, n_fft)[:, :n]
    np.testing.assert_allclose(samples[:n].T, expected, atol=2e-6 * np.abs(expected).max())


@pytest.mark.parametrize("filter_type", FILTER_TYPES)
def test_filtered_frame_is_the_convolution(library, filter_type):
    phantom = Phantom(75, 21)
    engine = engine_for(phantom, 2, "float64", library=library)
    theta = np.array([10.0, 100.0])
    engine.push(phantom.raw(theta, 37.0, "float64"), theta, np.array([0, 1]))
    engine.reconstruct(middle(phantom, filter_type=filter_type))
    ring = vars(engine._backend.projector)["_ring"]
    frame = ring[0].view(np.float16) if library == "numba" else ring[0].numpy()
    p = phantom.projections(theta[:1], 37.0)[0]
    n_fft = 4096  # far longer than needed: no wrap-around at all
    exact = np.fft.irfft(np.fft.rfft(p, n_fft) * response(filter_type, n_fft), n_fft)[:, :75]
    np.testing.assert_allclose(frame.T / 1024.0, exact, atol=2e-3 * np.abs(exact).max())


@pytest.fixture(params=["numba", "torch"])
def library(request):
    return request.param


def test_weak_objects_keep_their_precision(library):
    """A thousandth of the usual attenuation: plain float16 would lose its samples."""
    phantom = Phantom(64, 16, scale=1e-3)
    theta = half_turn(120)
    engine = engine_for(phantom, 120, "float64", library=library)
    engine.push(phantom.raw(theta, 31.5, "float64"), theta, np.arange(120))
    z = engine.reconstruct(middle(phantom, filter_type="Ramp")).z
    true = phantom.slices(32, 32, 8)[0]
    assert np.corrcoef(z.ravel(), true.ravel())[0, 1] > 0.97
    assert z[26:38, 26:38].mean() == pytest.approx(true[26:38, 26:38].mean(), rel=0.03)


def test_kernels_compile_where_nothing_can_be_written():
    """numba refuses to cache what has no file; it raises the same where no folder can be used."""
    namespace = {}
    exec("def double(x):\n    return x + x\n", namespace)
    assert kernel(namespace["double"])(4) == 8
