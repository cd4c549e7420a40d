"""Kernels for the z slice: back-projection as a shear, with contiguous loads only.

Where |cos| >= |sin|, u = cos * (x - y tan) + center. Each projection is resampled once onto its
own grid m with u = cos * m + center; image row y then is a contiguous window of that line at
m = x - y tan, with one linear weight for the whole row. Where |sin| > |cos| the same holds with x
and y exchanged: u = -sin * (y - x cot) + center.
"""

from __future__ import annotations

import numpy as np

from tomostream_ioc.recon.kernels import LINE_MARGIN
from tomostream_ioc.recon.kernels.compile import float_from_half, kernel

_F = np.float32


@kernel
def resample(ring, frames, row, step, weight, center, line, first, end):
    """line[k, m] = weight[k] * q_k(step[k] * (m - n - LINE_MARGIN) + center) for k in first..end.

    q_k is detector row ``row`` of ring[frames[k]], (n, n_rows) bits of float16: cubic
    interpolation (Catmull-Rom), 0 outside 0..n-1. line (k, 2n + ...) float32.
    """
    n = ring.shape[1]
    length = line.shape[1]
    q = np.empty(n, np.float32)
    for k in range(first, end):
        frame = ring[frames[k]]
        for u in range(n):
            q[u] = float_from_half(frame[u, row])
        scale = _F(weight[k])
        for m in range(length):
            u = step[k] * (m - n - LINE_MARGIN) + center
            if not (0.0 <= u <= n - 1):
                line[k, m] = _F(0.0)
                continue
            s = min(int(u), max(n - 2, 0))
            w = _F(u - s)
            q0 = q[s]
            q1 = q[min(s + 1, n - 1)]
            before = q[s - 1] if s > 0 else q0
            after = q[s + 2] if s < n - 2 else q1
            cubic = _F(3.0) * (q0 - q1) + after - before
            square = _F(2.0) * before - _F(5.0) * q0 + _F(4.0) * q1 - after
            line[k, m] = scale * (q0 + _F(0.5) * w * (q1 - before + w * (square + w * cubic)))


@kernel
def add_sheared(line, tan, origin, tile_rows, tile_cols, transposed, image, first, end):
    """image[r, c] += sum over k of line[k] at (c - origin) - (r - origin) * tan[k].

    line (k, 2n + ...) float32 of `resample`; image (n, n) float64, transposed[...] when
    ``transposed``; tiles first..end of the image are done. Sums in float32 inside a tile.
    """
    n_views = line.shape[0]
    n = image.shape[0]
    tiles_across = (n + tile_cols - 1) // tile_cols
    middle = float(n + LINE_MARGIN - origin)
    # rows a power of two apart would evict each other when they are read across
    sums = np.empty((tile_rows, tile_cols + 16), np.float32)
    for tile in range(first, end):
        r0 = tile // tiles_across * tile_rows
        c0 = tile % tiles_across * tile_cols
        r1 = min(r0 + tile_rows, n)
        c1 = min(c0 + tile_cols, n)
        width = c1 - c0
        sums[:] = _F(0.0)
        k = 0
        # four at a time: one load and one store of the sum for eight loads of lines
        while k + 4 <= n_views:
            for r in range(r0, r1):
                y = float(r - origin)
                a = middle - y * tan[k]
                b = middle - y * tan[k + 1]
                c = middle - y * tan[k + 2]
                d = middle - y * tan[k + 3]
                ia, ib, ic, id_ = int(a), int(b), int(c), int(d)
                wa, wb, wc, wd = _F(a - ia), _F(b - ib), _F(c - ic), _F(d - id_)
                va, vb, vc, vd = _F(1.0) - wa, _F(1.0) - wb, _F(1.0) - wc, _F(1.0) - wd
                la = line[k, ia + c0 : ia + c1 + 1]
                lb = line[k + 1, ib + c0 : ib + c1 + 1]
                lc = line[k + 2, ic + c0 : ic + c1 + 1]
                ld = line[k + 3, id_ + c0 : id_ + c1 + 1]
                total = sums[r - r0, :width]
                for i in range(width):
                    total[i] += (
                        (va * la[i] + wa * la[i + 1])
                        + (vb * lb[i] + wb * lb[i + 1])
                        + (vc * lc[i] + wc * lc[i + 1])
                        + (vd * ld[i] + wd * ld[i + 1])
                    )
            k += 4
        while k < n_views:
            for r in range(r0, r1):
                a = middle - float(r - origin) * tan[k]
                ia = int(a)
                wa = _F(a - ia)
                va = _F(1.0) - wa
                la = line[k, ia + c0 : ia + c1 + 1]
                total = sums[r - r0, :width]
                for i in range(width):
                    total[i] += va * la[i] + wa * la[i + 1]
            k += 1
        if transposed:
            for c in range(c0, c1):
                for r in range(r0, r1):
                    image[c, r] += sums[r - r0, c - c0]
        else:
            for r in range(r0, r1):
                for c in range(c0, c1):
                    image[r, c] += sums[r - r0, c - c0]
