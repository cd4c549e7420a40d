"""Kernel for the vertical slices: the ring is [frame, u, z], so both taps are contiguous in z."""

from __future__ import annotations

import numpy as np

from tomostream_ioc.recon.kernels.compile import float_from_half, inlined, kernel
from tomostream_ioc.recon.kernels.vertical_lanes import (
    LONG_RUN,
    SHORT_RUN,
    add_long_run,
    add_short_run,
)

_F = np.float32
#: points of a tile, that share the columns which they read, and views whose columns for one tile
#: and run of rows are in the cache while those of as many further views are fetched
TILE_POINTS, _BLOCK = 16, 4


@kernel
def add_vertical(ring, frames, cos, sin, weights, center, x, y, image, first, end):
    """image[t, z] += sum over k of weights[k] * q_k at u = x[t] cos[k] - y[t] sin[k] + center.

    q_k is row z of ring[frames[k]], (n, >= n_rows) bits of float16: linear in u, 0 outside 0..n-1.
    x, y (t,) float64; image (t, n_rows) float64. Tiles first..end of TILE_POINTS points are done,
    sums in float32 inside a tile.
    """
    n_views, n_points = len(frames), len(x)
    n, height = ring.shape[1], ring.shape[2]
    n_rows = image.shape[1]
    flat = ring.reshape(-1)
    # of each point and view: where its lower column begins, and the weights of both; behind the
    # last view some more, which are fetched and not used
    place = np.zeros((TILE_POINTS, n_views + _BLOCK), np.int64)
    lower = np.zeros((TILE_POINTS, n_views + _BLOCK), np.float32)
    upper = np.zeros((TILE_POINTS, n_views + _BLOCK), np.float32)
    sums = np.empty((TILE_POINTS, LONG_RUN), np.float32)
    for tile in range(first, end):
        t0 = tile * TILE_POINTS
        points = min(TILE_POINTS, n_points - t0)
        for t in range(points):
            _taps(
                frames, cos, sin, weights, center, x[t0 + t], y[t0 + t], n, height,
                place[t], lower[t], upper[t],
            )  # fmt: skip
        z = 0
        while z < n_rows:
            # a run that would pass the end begins earlier, and counts from z on
            length = LONG_RUN if n_rows - z > LONG_RUN - SHORT_RUN else SHORT_RUN
            length = min(length, n_rows)
            z0 = min(z, n_rows - length)
            sums[:] = _F(0.0)
            for k0 in range(0, n_views, _BLOCK):
                k1 = min(k0 + _BLOCK, n_views)
                for t in range(points):
                    if length == LONG_RUN:
                        add_long_run(flat, height, place, lower, upper, _BLOCK, t, k0, k1, z0, sums)
                    elif length == SHORT_RUN:
                        add_short_run(
                            flat, height, place, lower, upper, _BLOCK, t, k0, k1, z0, sums
                        )
                    else:
                        _add_few_rows(
                            flat, height, place[t], lower[t], upper[t], k0, k1, n_rows, sums[t]
                        )
            for t in range(points):
                total, values = image[t0 + t, z : z0 + length], sums[t, z - z0 : length]
                for i in range(len(total)):
                    total[i] += values[i]
            z = z0 + length


@inlined
def _taps(frames, cos, sin, weights, center, x, y, n, height, place, lower, upper):
    """Where the lower column of each view begins, the weights of both; weight 0 outside 0..n-1."""
    for k in range(len(frames)):
        u = x * cos[k] - y * sin[k] + center
        s = min(max(int(np.floor(u)), 0), n - 2)
        weight = weights[k] if 0.0 <= u <= n - 1 else 0.0
        place[k] = (frames[k] * n + s) * height
        lower[k] = _F(weight * (1.0 - (u - s)))
        upper[k] = _F(weight * (u - s))


@inlined
def _add_few_rows(flat, height, place, lower, upper, first, end, n_rows, total):
    """All rows of a detector that is less than a run high."""
    for k in range(first, end):
        for z in range(n_rows):
            q, p = flat[place[k] + z], flat[place[k] + height + z]
            total[z] += lower[k] * float_from_half(q) + upper[k] * float_from_half(p)
