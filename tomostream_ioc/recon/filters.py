"""The filters of filtered back-projection: a band-limited ramp times a window."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tomostream_ioc.model.params import FILTER_TYPES

#: windows over f in cycles per pixel, 0..1/2
_WINDOWS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "Parzen": lambda f: (1.0 - 2.0 * f) ** 3,
    "Shepp-logan": np.sinc,  # numpy's sinc is sin(pi f)/(pi f)
    "Ramp": np.ones_like,
    "Butterworth": lambda f: 1.0 / (1.0 + (2.0 * f) ** 16),
}


def window(filter_type: str, f: np.ndarray) -> np.ndarray:
    """Value of the window at frequencies ``f``, cycles per pixel in 0..1/2.

    Raises ValueError: no such filter.
    """
    if filter_type not in _WINDOWS:
        raise ValueError(f"filter_type {filter_type!r} does not exist: use one of {FILTER_TYPES}")
    return _WINDOWS[filter_type](np.asarray(f, np.float64))


def ramp_samples(n_fft: int) -> np.ndarray:
    """The band-limited ramp in space, circular over n_fft samples; index 0 is the centre.

    1/4 at 0, 0 at even and -1/(pi k)^2 at odd k: Kak and Slaney, Principles of Computerized
    Tomographic Imaging, eq. 3.61. Sampling |f| in frequency instead loses its mean.
    """
    k = np.minimum(np.arange(n_fft), n_fft - np.arange(n_fft))
    samples = np.zeros(n_fft)
    samples[0] = 0.25
    odd = k % 2 == 1
    samples[odd] = -1.0 / (np.pi * k[odd]) ** 2
    return samples


def response(filter_type: str, n_fft: int) -> np.ndarray:
    """Transfer function (n_fft//2 + 1,) float64, real, for rfft over n_fft zero-padded samples."""
    ramp = np.fft.rfft(ramp_samples(n_fft)).real
    return ramp * window(filter_type, np.arange(n_fft // 2 + 1) / n_fft)


def fft_length(n_cols: int) -> int:
    """Shortest fast transform that holds a row and its filter without wrap-around.

    At least 2 n_cols - 1, and 16 times 1, 3, 5 or 15 times a power of two: see kernels.fft.
    """
    lengths = []
    for odd in (1, 3, 5, 15):
        length = 16 * odd
        while length < 2 * n_cols - 1:
            length *= 2
        lengths.append(length)
    return min(lengths)
