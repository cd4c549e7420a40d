"""Kernels that turn float64 sums into a float32 slice."""

from __future__ import annotations

import numpy as np

from tomostream_ioc.recon.kernels.compile import kernel


@kernel
def scaled(image, scale, out, first, end):
    """out[r] = scale * image[r] for rows first..end; image float64, out float32."""
    for r in range(first, end):
        for c in range(image.shape[1]):
            out[r, c] = np.float32(scale * image[r, c])


@kernel
def scaled_transposed(image, scale, out, first, end):
    """out[c, r] = scale * image[r, c] for rows c first..end of out.

    By squares that are read and written in whole cache lines: rows a power of two apart would
    evict each other before their lines are used up.
    """
    n_rows = image.shape[0]
    square = np.empty((16, 16), np.float32)
    for c0 in range(first, end, 16):
        c1 = min(c0 + 16, end)
        for r0 in range(0, n_rows, 16):
            r1 = min(r0 + 16, n_rows)
            for r in range(r0, r1):
                for c in range(c0, c1):
                    square[c - c0, r - r0] = np.float32(scale * image[r, c])
            for c in range(c0, c1):
                for r in range(r0, r1):
                    out[c, r] = square[c - c0, r - r0]
