"""Kernel for the tilted z slice: each of its columns lies on a detector row of its own."""

from __future__ import annotations

import numpy as np

from tomostream_ioc.recon.kernels.compile import float_from_half, kernel

_F = np.float32
#: columns of the slice whose detector rows share cache lines of the ring, 32 rows each
_COLUMNS = 16


@kernel
def add_tilted(
    ring, n_rows, frames, cos, sin, weights, center, origin, x, row, image, first, end
):
    """Columns first..end of the slice: image[i, j] += sum over k of q_k at x[i], row[i], y = j.

    ring (places, n, >= n_rows) bits of float16; cos, sin, weights (k,); x, row (n,) of `TiltedRows`;
    image (n, n) float64, first axis i (x), second j (y). Linear along u and along the rows, 0
    outside the detector.
    """
    n = ring.shape[1]
    lines = np.zeros((_COLUMNS, n + 16), np.float32)
    sums = np.empty((_COLUMNS, n), np.float32)
    for i0 in range(first, end, _COLUMNS):
        i1 = min(i0 + _COLUMNS, end)
        sums[:] = _F(0.0)
        rows = row[i0:i1]
        inside = (rows >= 0.0) & (rows <= n_rows - 1)
        z0 = np.where(inside, np.minimum(rows, max(n_rows - 2, 0)), 0.0).astype(np.uint32)
        z1 = np.minimum(z0 + 1, n_rows - 1).astype(np.uint32)
        upper = np.where(inside, rows - z0, 0.0).astype(np.float32)
        lower = np.where(inside, 1.0 - upper, 0.0).astype(np.float32)
        for k in range(len(frames)):
            scale = _F(weights[k])
            start = center + origin * sin[k]
            # all columns of the block see detector columns in here
            low = min(x[i0] * cos[k], x[i1 - 1] * cos[k]) + min(start, start - (n - 1) * sin[k])
            high = max(x[i0] * cos[k], x[i1 - 1] * cos[k]) + max(start, start - (n - 1) * sin[k])
            lowest, highest = max(int(low) - 1, 0), min(int(high) + 2, n - 1)
            _lay_out(ring[frames[k]], z0, z1, scale * lower, scale * upper, lowest, highest, lines)
            for i in range(i0, i1):
                _add_line(lines[i - i0], x[i] * cos[k] + start, -sin[k], n, sums[i - i0])
        for i in range(i0, i1):
            for j in range(n):
                image[i, j] += sums[i - i0, j]


@kernel
def _lay_out(frame, z0, z1, lower, upper, lowest, highest, lines):
    """lines[i, u] = lower[i] * frame[u, z0[i]] + upper[i] * frame[u, z1[i]]."""
    for u in range(lowest, highest + 1):
        column = frame[u]  # once for all i: columns of the ring evict each other
        for i in range(len(z0)):
            first, second = float_from_half(column[z0[i]]), float_from_half(column[z1[i]])
            lines[i, u] = lower[i] * first + upper[i] * second


@kernel
def _add_line(line, start, step, n, total):
    """total[j] += line at u = start + j * step, wherever that is inside 0..n-1."""
    if step != 0.0:
        a, b = -start / step, (n - 1 - start) / step
        first = max(int(np.ceil(max(min(a, b), -1.0))), 0)
        last = min(int(np.floor(min(max(a, b), float(n)))), n - 1)
    else:
        first, last = 0, (n - 1 if 0.0 <= start <= n - 1 else -1)
    most = np.int32(n - 2)
    for j in range(first, last + 1):
        u = start + j * step
        # 32 bits and unsigned: only these conversions and loads vectorise
        s = min(np.int32(u), most)
        w = _F(u - s)
        lower, upper = line[np.uint32(s)], line[np.uint32(s + 1)]
        total[j] += lower + w * (upper - lower)
