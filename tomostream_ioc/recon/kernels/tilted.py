"""Kernel for the tilted z slice: each of its columns lies on a detector row of its own."""

from __future__ import annotations

import numpy as np

from tomostream_ioc.recon.kernels.compile import LANES, float_from_half, kernel
from tomostream_ioc.recon.kernels.fft_lanes import transpose8
from tomostream_ioc.recon.kernels.tilted_lanes import add_taps, take_rows

_F = np.float32
#: columns of the slice whose detector rows share cache lines of the ring, 32 rows each
_COLUMNS = 16


@kernel
def add_tilted(ring, n_rows, frames, cos, sin, weights, center, origin, x, row, image, first, end):
    """Columns first..end of the slice: image[i, j] += sum over k of q_k at x[i], row[i], y = j.

    ring (places, n, >= n_rows) bits of float16; cos, sin, weights (k,); x, row (n,) of
    `TiltedRows`; image (n, n) float64, first axis i (x), second j (y). Linear along u and along the
    rows, 0 outside the detector.
    """
    n, height = ring.shape[1], ring.shape[2]
    flat = ring.reshape(-1)
    lines = np.zeros((_COLUMNS, n + 2 * LANES + 8), np.float32)
    sums = np.empty((_COLUMNS, n), np.float32)
    z0 = np.zeros(_COLUMNS, np.int32)
    lower, upper = np.zeros(_COLUMNS, np.float32), np.zeros(_COLUMNS, np.float32)
    # rows that are loaded for LANES neighbouring columns
    window = 2 * LANES
    for i0 in range(first, end, _COLUMNS):
        i1 = min(i0 + _COLUMNS, end)
        sums[:] = _F(0.0)
        for i in range(_COLUMNS):
            z = row[min(i0 + i, i1 - 1)]
            inside = 0.0 <= z <= n_rows - 1
            z0[i] = np.int32(min(max(np.floor(z), 0.0), max(n_rows - 2.0, 0.0)))
            upper[i] = _F(z - z0[i]) if inside else _F(0.0)
            lower[i] = _F(1.0) - upper[i] if inside else _F(0.0)
        for k in range(len(frames)):
            scale = _F(weights[k])
            start = center + origin * sin[k]
            # all columns of the block see detector columns in here
            low = min(x[i0] * cos[k], x[i1 - 1] * cos[k]) + min(start, start - (n - 1) * sin[k])
            high = max(x[i0] * cos[k], x[i1 - 1] * cos[k]) + max(start, start - (n - 1) * sin[k])
            lowest, highest = max(int(low) - 1, 0), min(int(high) + 2, n - 1)
            if height >= window:
                _lay_out(
                    flat, frames[k] * n, n, height, z0, scale * lower, scale * upper,
                    lowest, highest, lines,
                )  # fmt: skip
            else:
                _lay_out_low(ring[frames[k]], n_rows, z0, scale * lower, scale * upper, lines)
            for i in range(i0, i1):
                _add_line(lines[i - i0], x[i] * cos[k] + start, -sin[k], n, sums[i - i0])
        for i in range(i0, i1):
            for j in range(n):
                image[i, j] += sums[i - i0, j]


@kernel
def _lay_out(flat, column, n, height, z0, lower, upper, lowest, highest, lines):
    """lines[i, u] = lower[i] * q[u, z0[i]] + upper[i] * q[u, z0[i] + 1] for lowest <= u <= highest.

    q[u, z] is flat[(column + u) * height + z], float16. Some more of each line is written.
    """
    eight = np.empty(8 * _COLUMNS, np.float32)
    laid, stride = lines.reshape(-1), lines.shape[1]
    rows = np.empty(LANES, np.int32)
    for part in range(0, _COLUMNS, LANES):
        base = np.int64(min(z0[part : part + LANES].min(), height - 2 * LANES))
        for i in range(LANES):
            rows[i] = np.int32(z0[part + i] - base)
        for u0 in range(lowest, highest + 1, 8):
            for u in range(8):
                place = (column + min(u0 + u, n - 1)) * height + base
                take_rows(flat, place, rows, lower, upper, part, eight, u * LANES)
            for i in range(0, LANES, 8):
                transpose8(eight, i, LANES, laid, (part + i) * stride + u0, stride)


@kernel
def _lay_out_low(frame, n_rows, z0, lower, upper, lines):
    """The same of all u, for a detector with few rows."""
    for u in range(frame.shape[0]):
        for i in range(len(z0)):
            first = float_from_half(frame[u, z0[i]])
            second = float_from_half(frame[u, min(z0[i] + 1, n_rows - 1)])
            lines[i, u] = lower[i] * first + upper[i] * second


@kernel
def _add_line(line, start, step, n, total):
    """total[j] += line at u = start + j * step, wherever that is inside 0..n-1; |step| <= 1."""
    if step != 0.0:
        a, b = -start / step, (n - 1 - start) / step
        first = max(int(np.ceil(max(min(a, b), -1.0))), 0)
        last = min(int(np.floor(min(max(a, b), float(n)))), n - 1)
    else:
        first, last = 0, (n - 1 if 0.0 <= start <= n - 1 else -1)
    j = first
    while j + LANES <= last + 1:
        u = start + j * step
        base = int(max(min(u, u + (LANES - 1) * step), 0.0))
        add_taps(line, base, _F(u - base), _F(step), total, j)
        j += LANES
    while j <= last:
        u = start + j * step
        s = min(max(int(u), 0), n - 2)
        total[j] += line[s] + _F(u - s) * (line[s + 1] - line[s])
        j += 1
