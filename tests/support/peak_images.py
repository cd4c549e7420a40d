"""Diffraction images: Bragg peaks on a smooth background with counting noise."""

from __future__ import annotations

import numpy as np

_HALF = 14


def diffraction(
    shape=(256, 256),
    n_peaks=12,
    seed=0,
    sigma=(1.5, 3.0),
    height=(80.0, 2000.0),
    background=20.0,
    margin=0,
):
    """Counts (n_rows, n_cols), float64, of peaks with heights spread evenly in the logarithm."""
    rng = np.random.default_rng(seed)
    expected = np.zeros((shape[0] + 2 * _HALF, shape[1] + 2 * _HALF))
    offset = np.arange(-_HALF, _HALF + 1)
    for _ in range(n_peaks):
        y, x = (rng.uniform(margin, n - 1 - margin) for n in shape)
        width = rng.uniform(*sigma)
        top = np.exp(rng.uniform(*np.log(height)))
        row, col = round(y), round(x)
        profile_y = np.exp(-((offset + row - y) ** 2) / (2 * width**2))
        profile_x = np.exp(-((offset + col - x) ** 2) / (2 * width**2))
        square = expected[row : row + 2 * _HALF + 1, col : col + 2 * _HALF + 1]
        square += top * profile_y[:, None] * profile_x
    expected = expected[_HALF:-_HALF, _HALF:-_HALF]
    y, x = (np.arange(n) - n / 2 for n in shape)
    radius = np.hypot(y[:, None], x) / (0.45 * min(shape))
    smooth = background * (np.exp(-(radius**2)) + 2 * np.exp(-(((radius - 0.55) / 0.1) ** 2)))
    return rng.poisson(expected + smooth).astype(np.float64)


def as_pixels(image, dtype):
    """``image`` as a detector of that pixel type would give it, cut where it saturates."""
    dtype = np.dtype(dtype)
    if dtype.kind == "f":
        return image.astype(dtype)
    limits = np.iinfo(dtype)
    return np.clip(np.rint(image), limits.min, limits.max).astype(dtype)
