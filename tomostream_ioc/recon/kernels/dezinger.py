"""Zingers: single pixels hit by a stray photon, found by their difference from the median."""

from __future__ import annotations

import numpy as np

from tomostream_ioc.recon.kernels.compile import kernel

_CHUNK = 256


@kernel
def without_zingers(raw, like, first, end, size):
    """Rows first..end of raw (n_rows, n), a pixel that differs from the median replaced by it.

    The median is over size x size pixels, from size//2 before to (size-1)//2 behind, mirrored at
    the edges, and of an even number the upper of the two in the middle: as
    scipy.ndimage.median_filter. A pixel is replaced if it differs by more than half the median.
    Returns (rows, n) in the type of ``like``.
    """
    n_rows, n = raw.shape
    n_window = size * size
    clean = np.empty((end - first, n), like.dtype)
    window = np.empty((n_window, _CHUNK), like.dtype)
    wanted = n_window // 2
    for r in range(first, end):
        for c0 in range(0, n, _CHUNK):
            c1 = min(c0 + _CHUNK, n)
            width = c1 - c0
            for i in range(n_window):
                row = _mirrored(r + i // size - size // 2, n_rows)
                shift = i % size - size // 2
                source, values = raw[row], window[i]
                for c in range(width):
                    column = c0 + c + shift
                    if column < 0 or column >= n:
                        column = _mirrored(column, n)
                    values[c] = source[column]
            # Batcher's odd-even merge sort: the same exchanges for all columns, so they vectorise
            p = 1
            while p < n_window:
                k = p
                while k >= 1:
                    for j in range(k % p, n_window - k, 2 * k):
                        for i in range(min(k, n_window - j - k)):
                            if (i + j) // (2 * p) == (i + j + k) // (2 * p):
                                _exchange(window[i + j], window[i + j + k], width)
                    k //= 2
                p *= 2
            median, target = window[wanted], clean[r - first]
            for c in range(width):
                value = like.dtype.type(raw[r, c0 + c])
                limit = abs(median[c]) / 2
                target[c0 + c] = median[c] if abs(value - median[c]) > limit else value
    return clean


@kernel
def _exchange(lower, upper, width):
    for c in range(width):
        a, b = lower[c], upper[c]
        lower[c] = a if a < b else b
        upper[c] = b if a < b else a


@kernel
def _mirrored(i, n):
    """Index inside 0..n-1 of one at most 2 outside, by reflection about the edge."""
    i = -1 - i if i < 0 else i
    i = 2 * n - 1 - i if i >= n else i
    return min(max(i, 0), n - 1)
