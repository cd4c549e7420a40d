"""Filtered back-projection in plain numpy, float64, pixel by pixel: what the engine must equal.

Written from the formulas alone (docs, recon.filters and kernels.shear say them in words) and shares
no code with recon, so that a mistake there is not repeated here.
"""

from __future__ import annotations

import numpy as np


def windowed_ramp(filter_type: str, n_fft: int) -> np.ndarray:
    """Transfer function (n_fft//2 + 1,) of a filter: band-limited ramp times window."""
    k = np.minimum(np.arange(n_fft), n_fft - np.arange(n_fft)).astype(float)
    samples = np.where(k % 2 == 1, -1.0 / (np.pi * np.maximum(k, 1.0)) ** 2, 0.0)
    samples[0] = 0.25
    f = np.arange(n_fft // 2 + 1) / n_fft
    window = {
        "Ramp": np.ones_like(f),
        "Shepp-logan": np.sinc(f),
        "Parzen": (1 - 2 * f) ** 3,
        "Butterworth": 1 / (1 + (2 * f) ** 16),
    }[filter_type]
    return np.fft.rfft(samples).real * window


def filtered(p: np.ndarray, filter_type: str) -> np.ndarray:
    """Line integrals (..., n) convolved along the last axis, zero-padded to four times n."""
    n = p.shape[-1]
    n_fft = 4 * n
    return np.fft.irfft(np.fft.rfft(p, n_fft) * windowed_ramp(filter_type, n_fft), n_fft)[..., :n]


def linear_taps(u: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lower column, and weights of it and of the next, for columns u; weights 0 outside."""
    lower = np.clip(np.floor(u).astype(int), 0, max(n - 2, 0))
    share = u - lower
    inside = (u >= 0) & (u <= n - 1)
    return lower, np.where(inside, 1 - share, 0.0), np.where(inside, share, 0.0)


def cubic_taps(u: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Columns (4, ...) and Catmull-Rom weights (4, ...) for columns u; the edge is repeated."""
    lower = np.clip(np.floor(u).astype(int), 0, n - 2)
    w = u - lower
    weights = 0.5 * np.stack(
        (
            -w + 2 * w**2 - w**3,
            2 - 5 * w**2 + 3 * w**3,
            w + 4 * w**2 - 3 * w**3,
            -(w**2) + w**3,
        )
    )
    columns = np.clip(np.stack([lower + shift for shift in (-1, 0, 1, 2)]), 0, n - 1)
    return columns, weights * ((u >= 0) & (u <= n - 1))


def shear_taps(theta_rad: float, n: int, center: float) -> tuple[np.ndarray, np.ndarray]:
    """How the z slice reads one projection: columns and weights (24, n, n), axes tap, y, x.

    The projection loses step^2 / 12 of its second difference, the edge being repeated, and is
    resampled by a cubic at u = step * m + center for whole m; pixels take from these linearly, at
    m = x - y tan or, where |sin| > |cos|, m = y - x cot.
    """
    index = np.arange(n) - float(n // 2)
    x, y = index[None, :], index[:, None]
    cos, sin = np.cos(theta_rad), np.sin(theta_rad)
    if abs(cos) >= abs(sin):
        step, m = cos, x - y * (sin / cos)
    else:
        step, m = -sin, y - x * (cos / sin)
    low = np.floor(m)
    columns, weights = [], []
    away = step**2 / 12
    for tap, share in ((low, 1 - (m - low)), (low + 1, m - low)):
        c, w = cubic_taps(step * tap + center, n)
        for shift, part in ((-1, -away), (0, 1 + 2 * away), (1, -away)):
            columns.append(np.clip(c + shift, 0, n - 1))
            weights.append(w * share * part)
    return np.concatenate(columns), np.concatenate(weights)


def z_slice(q: np.ndarray, theta_rad: np.ndarray, center: float, *, cubic: bool) -> np.ndarray:
    """Back-projection (n, n), axes y, x, of filtered rows q (k, n): pi / k times their sum.

    ``cubic`` interpolates as the engine's z slice does, else linearly in u.
    """
    n = q.shape[1]
    index = np.arange(n) - float(n // 2)
    total = np.zeros((n, n))
    for row, t in zip(q, theta_rad, strict=True):
        if cubic:
            columns, weights = shear_taps(t, n, center)
            total += (row[columns] * weights).sum(0)
        else:
            u = np.subtract.outer(-index * np.sin(t), -index * np.cos(t)) + center  # (y, x)
            lower, first, second = linear_taps(u, n)
            total += first * row[lower] + second * row[lower + 1]
    return total * np.pi / len(q)


def vertical_slice(
    q: np.ndarray, theta_rad: np.ndarray, center: float, x: np.ndarray, y: np.ndarray
) -> np.ndarray:
    """Back-projection (n_rows, m) of filtered frames q (k, n_rows, n), linear in u.

    The plane stands on the points x, y (m,), in object coordinates.
    """
    total = 0.0
    for frame, t in zip(q, theta_rad, strict=True):
        u = x * np.cos(t) - y * np.sin(t) + center
        lower, first, second = linear_taps(u, frame.shape[1])
        total = total + first * frame[:, lower] + second * frame[:, lower + 1]
    return np.asarray(total) * np.pi / len(q)
