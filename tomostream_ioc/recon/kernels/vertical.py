"""Kernels for the vertical slices: the ring is [frame, u, z], so both taps are contiguous in z."""

from __future__ import annotations

import numpy as np

from tomostream_ioc.recon.kernels.compile import float_from_half, kernel

_F = np.float32


@kernel
def add_vertical(ring, frames, column, lower, upper, image, tile_points, tile_rows, first, end):
    """image[t, z] += sum over k of lower[k,t]*q_k[column[k,t], z] + upper[k,t]*q_k[column+1, z].

    ring (places, n, n_rows) bits of float16; column (k, t) int32 in 0..n-2 and weights (k, t)
    float32 of `taps`; image (t, n_rows) float64. Tiles first..end are done, sums in float32 inside
    a tile.
    """
    n_views, n_points = column.shape
    n_rows = ring.shape[2]
    tiles_across = (n_rows + tile_rows - 1) // tile_rows
    sums = np.empty((tile_points, tile_rows), np.float32)
    for tile in range(first, end):
        t0 = tile // tiles_across * tile_points
        z0 = tile % tiles_across * tile_rows
        t1 = min(t0 + tile_points, n_points)
        z1 = min(z0 + tile_rows, n_rows)
        height = z1 - z0
        sums[:] = _F(0.0)
        k = 0
        while k + 4 <= n_views:
            fa, fb, fc, fd = (
                ring[frames[k]],
                ring[frames[k + 1]],
                ring[frames[k + 2]],
                ring[frames[k + 3]],
            )
            for t in range(t0, t1):
                ua, ub, uc, ud = column[k, t], column[k + 1, t], column[k + 2, t], column[k + 3, t]
                va, vb, vc, vd = lower[k, t], lower[k + 1, t], lower[k + 2, t], lower[k + 3, t]
                wa, wb, wc, wd = upper[k, t], upper[k + 1, t], upper[k + 2, t], upper[k + 3, t]
                a0, a1 = fa[ua, z0:z1], fa[ua + 1, z0:z1]
                b0, b1 = fb[ub, z0:z1], fb[ub + 1, z0:z1]
                c0, c1 = fc[uc, z0:z1], fc[uc + 1, z0:z1]
                d0, d1 = fd[ud, z0:z1], fd[ud + 1, z0:z1]
                total = sums[t - t0, :height]
                for z in range(height):
                    total[z] += (
                        (va * float_from_half(a0[z]) + wa * float_from_half(a1[z]))
                        + (vb * float_from_half(b0[z]) + wb * float_from_half(b1[z]))
                        + (vc * float_from_half(c0[z]) + wc * float_from_half(c1[z]))
                        + (vd * float_from_half(d0[z]) + wd * float_from_half(d1[z]))
                    )
            k += 4
        while k < n_views:
            fa = ring[frames[k]]
            for t in range(t0, t1):
                va, wa = lower[k, t], upper[k, t]
                a0, a1 = fa[column[k, t], z0:z1], fa[column[k, t] + 1, z0:z1]
                total = sums[t - t0, :height]
                for z in range(height):
                    total[z] += va * float_from_half(a0[z]) + wa * float_from_half(a1[z])
            k += 1
        for t in range(t0, t1):
            for z in range(z0, z1):
                image[t, z] += sums[t - t0, z - z0]


@kernel
def taps(u, weights, n, column, lower, upper):
    """Lower column and the weights of both taps for columns u (k, t); weight 0 outside 0..n-1."""
    n_views, n_points = u.shape
    for k in range(n_views):
        weight = weights[k]
        for t in range(n_points):
            s = min(max(int(np.floor(u[k, t])), 0), n - 2)
            w = u[k, t] - s
            inside = 0.0 <= u[k, t] <= n - 1
            column[k, t] = s
            lower[k, t] = _F(weight * (1.0 - w)) if inside else _F(0.0)
            upper[k, t] = _F(weight * w) if inside else _F(0.0)
