"""Transfer function of the whole filter chain, measured: raw counts in, ring of float16 out."""

import numpy as np
import pytest
import torch

from tomostream_ioc.model.params import FILTER_TYPES, ReconParams
from tomostream_ioc.recon.chain import RING_SCALE
from tomostream_ioc.recon.engine import OrthoEngine
from tomostream_ioc.recon.geometry import ScanGeometry

#: the line integral of the one column that is not empty
P = 8.0

WINDOWS = {
    "Ramp": np.ones_like,
    "Shepp-logan": lambda f: np.sin(np.pi * f) / (np.pi * f),
    "Parzen": lambda f: (1 - 2 * f) ** 3,
    "Butterworth": lambda f: 1 / (1 + (2 * f) ** 16),
}


@pytest.fixture(params=["numba", "torch"])
def library(request):
    return request.param


def responses(n, columns, filter_type, library):
    """What a single column turns into, (row, u): row k has its impulse at columns[k]."""
    torch.set_num_threads(1)
    n_rows = len(columns)
    engine = OrthoEngine(ScanGeometry(1, n_rows, n), "float32", "cpu", library=library)
    engine.set_flat(np.ones((n_rows, n)))
    raw = np.ones((1, n_rows, n), np.float32)
    raw[0, np.arange(n_rows), columns] = np.exp(-P)
    engine.push(raw, np.array([0.0]), np.array([0]))
    engine.reconstruct(ReconParams(n / 2, 0, 0, 0, filter_type=filter_type))
    ring = vars(engine._backend.projector)["_ring"]
    frame = ring[0].view(np.float16) if library == "numba" else ring[0].numpy()
    filtered = frame.T.astype(float) / (RING_SCALE * P)
    engine.release()
    return filtered


@pytest.mark.parametrize("filter_type", FILTER_TYPES)
def test_measured_response_is_ramp_times_window(library, filter_type):
    """At all frequencies, to a thousandth of the largest value of this filter."""
    n = 4096
    right, left = responses(n, [0, n - 1], filter_type, library)
    np.testing.assert_allclose(left[::-1], right, atol=1e-3 * right[0])
    kernel = np.concatenate((left[:-1], right))  # lags -(n-1)..(n-1)
    n_fft = 4 * n
    spectrum = np.fft.rfft(np.roll(np.pad(kernel, (0, n_fft - len(kernel))), -(n - 1)))
    f = np.arange(1, n_fft // 2) / n_fft  # at 0 the ramp is 0, at 1/2 it has its jump
    expected = f * WINDOWS[filter_type](f)
    away = f < 0.5 - 2 / n if filter_type in ("Ramp", "Shepp-logan") else f < 0.5
    error = (spectrum[1:-1].real - expected)[away]
    assert np.abs(error).max() < 1e-3 * expected.max()
    assert np.abs(spectrum.imag).max() < 1e-3 * expected.max()


@pytest.mark.parametrize("n", [2, 31, 64, 100, 257])
@pytest.mark.parametrize("filter_type", FILTER_TYPES)
def test_no_wrap_around(library, n, filter_type):
    """What lies at one end is seen at the other as from afar, not as from next to it.

    The same kernel wherever the impulse is, one that at its far end is what the band-limited ramp
    is there: -1/(pi k)^2 at odd k.
    """
    columns = [0, n // 3, n - 1]
    rows = responses(n, columns, filter_type, library)
    kernel = rows[0]
    for row, column in zip(rows, columns, strict=True):
        expected = kernel[np.abs(np.arange(n) - column)]
        np.testing.assert_allclose(row, expected, atol=1e-3 * kernel[0], rtol=2e-3)
    if filter_type == "Ramp":
        k = np.arange(n, dtype=float)
        exact = np.where(k % 2 == 1, -1 / (np.pi * np.maximum(k, 1)) ** 2, 0.0)
        exact[0] = 0.25
        np.testing.assert_allclose(kernel, exact, rtol=2e-3, atol=1e-7)
    elif n > 8:
        assert abs(kernel[-1]) < 0.02 * kernel[0]
