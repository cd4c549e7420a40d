"""Kernel for the running sum of whole filtered frames."""

from __future__ import annotations

import numpy as np

from tomostream_ioc.recon.kernels.compile import float_from_half, kernel

_F = np.float32


@kernel
def add_frames(ring, frames, weights, image, first, end):
    """image[u] += sum over k of weights[k] * ring[frames[k], u] for columns first..end.

    ring (places, n, >= n_rows) bits of float16; weights (k,); image (n, n_rows) float64, read and
    written once for all frames, whose sum is in float32.
    """
    n_rows = image.shape[1]
    sums = np.empty(n_rows, np.float32)
    for u in range(first, end):
        sums[:] = _F(0.0)
        for k in range(len(frames)):
            column, weight = ring[frames[k]][u], _F(weights[k])
            for z in range(n_rows):
                sums[z] += weight * float_from_half(column[z])
        total = image[u]
        for z in range(n_rows):
            total[z] += sums[z]
