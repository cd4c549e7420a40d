"""Kernels for the z slice: back-projection as a shear, with contiguous loads only.

Where |cos| >= |sin|, u = cos * (x - y tan) + center. Each projection is resampled once onto its
own grid m with u = cos * m + center; image row y then is a contiguous window of that line at
m = x - y tan, with one linear weight for the whole row. Where |sin| > |cos| the same holds with x
and y exchanged: u = -sin * (y - x cot) + center.

A linear weight w blurs as a variance of w (1 - w) does, 1/6 on average: minus 1/12 of the second
difference of the line is the answer to it, and makes edges as sharp as a single linear
interpolation in u would. It is done to the projection, where it takes a factor of step squared.
"""

from __future__ import annotations

import numpy as np

from tomostream_ioc.recon.kernels import LINE_MARGIN, SHARPENING
from tomostream_ioc.recon.kernels.compile import LANES, float_from_half, kernel
from tomostream_ioc.recon.kernels.fft_lanes import transpose8
from tomostream_ioc.recon.kernels.shear_lanes import (
    NARROW_STRIP,
    WIDE_STRIP,
    add_narrow_strip,
    add_wide_strip,
)
from tomostream_ioc.recon.kernels.vectors import prefetch

_F = np.float32
#: rows of a tile, and the views whose windows (WIDE_STRIP + TILE_ROWS floats) fit into L1
TILE_ROWS, _BLOCK = 128, 24


@kernel
def resample(ring, frames, starts, row, step, weight, center, lines, first, end):
    """lines[g, m] = sum of weight[k] * q_k(step[k] * (m - n - LINE_MARGIN) + center) over group g.

    Group g is k in starts[g]..starts[g + 1]; groups first..end are done. q_k is detector row
    ``row`` of ring[frames[k]], (n, >= n_rows) bits of float16, sharpened: cubic interpolation
    (Catmull-Rom), 0 outside 0..n-1. lines (g, 2n + ...) float32.
    """
    n = ring.shape[1]
    length = lines.shape[1]
    origin = n + LINE_MARGIN
    # the outermost values once more to both sides
    q, raw = np.empty(n + 2, np.float32), np.empty(n + 2, np.float32)
    for group in range(first, end):
        line = lines[group]
        line[:] = _F(0.0)
        for k in range(starts[group], starts[group + 1]):
            frame = ring[frames[k]]
            across = step[k]
            for u in range(n):
                raw[u + 1] = float_from_half(frame[u, row])
            raw[0], raw[n + 1] = raw[1], raw[n]
            away = _F(SHARPENING * across * across)
            for u in range(1, n + 1):
                q[u] = raw[u] - away * (raw[u - 1] - _F(2.0) * raw[u] + raw[u + 1])
            q[0], q[n + 1] = q[1], q[n]
            scale = _F(weight[k])
            low, high = -center / across, (n - 1 - center) / across
            m0 = max(int(min(low, high)) + origin - 2, 0)
            m1 = min(int(max(low, high)) + origin + 3, length)
            while m0 < m1 and not 0.0 <= across * (m0 - origin) + center <= n - 1:
                m0 += 1
            while m0 < m1 and not 0.0 <= across * (m1 - 1 - origin) + center <= n - 1:
                m1 -= 1
            most = np.int32(n - 2)
            for m in range(m0, m1):
                u = across * (m - origin) + center
                # 32 bits and unsigned: only these conversions and loads vectorise
                s = min(np.int32(u), most)
                w = _F(u - s)
                before, q0 = q[np.uint32(s)], q[np.uint32(s + 1)]
                q1, after = q[np.uint32(s + 2)], q[np.uint32(s + 3)]
                cubic = _F(3.0) * (q0 - q1) + after - before
                square = _F(2.0) * before - _F(5.0) * q0 + _F(4.0) * q1 - after
                line[m] += scale * (q0 + _F(0.5) * w * (q1 - before + w * (square + w * cubic)))


@kernel
def add_sheared(lines, tan, origin, transposed, image, first, end):
    """image[r, c] += sum over k of lines[k] at (c - origin) - (r - origin) * tan[k].

    lines (k, 2n + ...) float32 of `resample`, |tan| <= 1; image (n, n) float64, transposed[...]
    when ``transposed``; tiles first..end of TILE_ROWS x WIDE_STRIP pixels are done. Sums in float32
    inside a tile.

    Tiles go down the image, where neighbours read nearly the same part of the lines. That part is
    copied, as windows that lie side by side fill L1 evenly and lines of any length do not.
    """
    n_views, length = lines.shape
    n = image.shape[0]
    tiles_down = (n + TILE_ROWS - 1) // TILE_ROWS
    middle = float(n + LINE_MARGIN - origin)
    windows = np.zeros((_BLOCK, WIDE_STRIP + TILE_ROWS + LANES), np.float32)
    # where in its window each row of the tile begins
    start = np.empty((TILE_ROWS, _BLOCK), np.int32)
    weight = np.empty((TILE_ROWS, _BLOCK), np.float32)
    low = np.empty(_BLOCK, np.int32)
    sums = np.empty((TILE_ROWS, WIDE_STRIP), np.float32)
    turned = np.empty((WIDE_STRIP, TILE_ROWS), np.float32)
    flat_sums, flat_turned = sums.reshape(-1), turned.reshape(-1)
    for tile in range(first, end):
        c0 = tile // tiles_down * WIDE_STRIP
        r0 = tile % tiles_down * TILE_ROWS
        rows, cols = min(TILE_ROWS, n - r0), min(WIDE_STRIP, n - c0)
        y_first, y_last = float(r0 - origin), float(r0 + rows - 1 - origin)
        sums[:] = _F(0.0)
        _expect(image, c0, r0, cols, rows) if transposed else _expect(image, r0, c0, rows, cols)
        for k0 in range(0, n_views, _BLOCK):
            tans = tan[k0 : k0 + _BLOCK]
            for k in range(len(tans)):
                # one less, as rounding may differ from that of a below
                low[k] = np.int32(middle - max(y_first * tans[k], y_last * tans[k])) - 1
                begin = low[k] + c0
                source = lines[k0 + k, begin : min(begin + cols + TILE_ROWS + 3, length)]
                window = windows[k]
                for i in range(len(source)):
                    window[i] = source[i]
            for r in range(rows):
                y = float(r0 + r - origin)
                row_start, row_weight = start[r], weight[r]
                for k in range(len(tans)):
                    a = middle - y * tans[k]
                    row_start[k] = np.int32(a) - low[k]
                    row_weight[k] = _F(a - np.int32(a))
            for r in range(rows):
                if cols > WIDE_STRIP - NARROW_STRIP:
                    add_wide_strip(windows, start, weight, r, len(tans), 0, sums)
                else:
                    for c in range(0, cols, NARROW_STRIP):
                        add_narrow_strip(windows, start, weight, r, len(tans), c, sums)
        if transposed:
            for r in range(0, rows, 8):
                for c in range(0, cols, 8):
                    transpose8(
                        flat_sums, r * WIDE_STRIP + c, WIDE_STRIP,
                        flat_turned, c * TILE_ROWS + r, TILE_ROWS,
                    )  # fmt: skip
            for c in range(cols):
                _add(turned[c], image[c0 + c, r0 : r0 + rows])
        else:
            for r in range(rows):
                _add(sums[r], image[r0 + r, c0 : c0 + cols])


@kernel
def _expect(image, r0, c0, rows, cols):
    """Fetch a tile of the image while it is being worked out what to add to it."""
    n = image.shape[1]
    flat = image.reshape(-1)
    for r in range(r0, r0 + rows):
        for c in range(c0, c0 + cols, 8):
            prefetch(flat, r * n + c)


@kernel
def _add(values, total):
    for i in range(len(total)):
        total[i] += values[i]
