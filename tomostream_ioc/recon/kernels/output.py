"""Kernels that turn float64 sums into a float32 slice."""

from __future__ import annotations

import numpy as np

from tomostream_ioc.recon.kernels.compile import kernel
from tomostream_ioc.recon.kernels.fft_lanes import transpose8

#: side of the squares in which an image is transposed
_SQUARE = 64


@kernel
def scaled(image, scale, out, first, end):
    """out[r] = scale * image[r] for rows first..end; image float64, out float32."""
    for r in range(first, end):
        for c in range(image.shape[1]):
            out[r, c] = np.float32(scale * image[r, c])


@kernel
def scaled_transposed(image, scale, out, first, end):
    """out[c, r] = scale * image[r, c] for rows c first..end of out.

    By squares, turned round in L1: memory is read and written in runs of several cache lines, as
    single ones wait for it one by one.
    """
    n_rows = image.shape[0]
    square = np.zeros((_SQUARE, _SQUARE), np.float32)
    turned = np.empty((_SQUARE, _SQUARE), np.float32)
    flat_square, flat_turned = square.reshape(-1), turned.reshape(-1)
    for c0 in range(first, end, _SQUARE):
        c1 = min(c0 + _SQUARE, end)
        for r0 in range(0, n_rows, _SQUARE):
            r1 = min(r0 + _SQUARE, n_rows)
            for r in range(r0, r1):
                source, target = image[r, c0:c1], square[r - r0]
                for c in range(c1 - c0):
                    target[c] = np.float32(scale * source[c])
            for r in range(0, _SQUARE, 8):
                for c in range(0, _SQUARE, 8):
                    transpose8(
                        flat_square, r * _SQUARE + c, _SQUARE,
                        flat_turned, c * _SQUARE + r, _SQUARE,
                    )  # fmt: skip
            for c in range(c0, c1):
                source, target = turned[c - c0], out[c, r0:r1]
                for r in range(r1 - r0):
                    target[r] = source[r]
