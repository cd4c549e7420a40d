"""Triton kernels of back-projection; recon.kernels has the same arithmetic for the CPU.

Numbers of a batch of views come in one float64 array, laid out by `backproject.triton_`: a header
(center, number of views, of lines along x, of all lines), then per view place in the ring, cos,
sin, weight and step of its line, then per line tangent and first view. Positions on the detector
are computed in float64 for the first pixel of a tile and in float32 from there on: exact to 1e-5
pixels.
"""

# loops over static_range are the compiler's
# pyright: reportGeneralTypeIssues=false

import triton.language as tl

from tomostream_ioc.recon.gpu.compile import inlined, kernel
from tomostream_ioc.recon.kernels import LINE_MARGIN, SHARPENING

#: views and lines that a batch has room for; loops go over multiples of UNROLL
MOST_VIEWS = 512
UNROLL = 4
MOST_LINES = MOST_VIEWS + 2 * UNROLL
#: where the parts of the array begin
HEADER = 8
PLACES, COS, SIN, WEIGHTS, STEPS = (HEADER + i * MOST_VIEWS for i in range(5))
TANS = HEADER + 5 * MOST_VIEWS
FIRST_VIEWS = TANS + MOST_LINES
N_NUMBERS = FIRST_VIEWS + MOST_LINES + 1

_PLACES = tl.constexpr(PLACES)
_COS = tl.constexpr(COS)
_SIN = tl.constexpr(SIN)
_WEIGHTS = tl.constexpr(WEIGHTS)
_STEPS = tl.constexpr(STEPS)
_TANS = tl.constexpr(TANS)
_FIRST_VIEWS = tl.constexpr(FIRST_VIEWS)
_MARGIN = tl.constexpr(LINE_MARGIN)
_SHARPENING = tl.constexpr(SHARPENING)


@kernel
def resample(
    ring, numbers, lines, row,
    N: tl.constexpr, PITCH: tl.constexpr, LENGTH: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """lines[l, m] = sum over views k of line l of weight * q_k(step * (m - N - margin) + center).

    q_k is detector row ``row`` of the view, sharpened, cubic (Catmull-Rom), 0 outside 0..N-1: as
    kernels.shear.resample. ring (places, N, PITCH) float16; lines (l, LENGTH) float32.
    """
    line = tl.program_id(0)
    m = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    at = (m - N - _MARGIN).to(tl.float64)
    center = tl.load(numbers)
    first = tl.load(numbers + _FIRST_VIEWS + line).to(tl.int32)
    end = tl.load(numbers + _FIRST_VIEWS + line + 1).to(tl.int32)
    total = tl.zeros((BLOCK,), tl.float32)
    for k in range(first, end):
        place = tl.load(numbers + _PLACES + k).to(tl.int64)
        step = tl.load(numbers + _STEPS + k)
        weight = tl.load(numbers + _WEIGHTS + k).to(tl.float32)
        u = step * at + center
        inside = (u >= 0.0) & (u <= N - 1.0) & (m < LENGTH)
        s = tl.minimum(tl.where(inside, u, 0.0).to(tl.int32), N - 2)
        w = (u - s).to(tl.float32)
        q = ring + place * (N * PITCH) + row
        away = (step * step * _SHARPENING).to(tl.float32)
        before = _sharpened(q, tl.maximum(s - 1, 0), away, inside, N, PITCH)
        q0 = _sharpened(q, s, away, inside, N, PITCH)
        q1 = _sharpened(q, s + 1, away, inside, N, PITCH)
        after = _sharpened(q, tl.minimum(s + 2, N - 1), away, inside, N, PITCH)
        cubic = 3.0 * (q0 - q1) + after - before
        square = 2.0 * before - 5.0 * q0 + 4.0 * q1 - after
        value = q0 + 0.5 * w * (q1 - before + w * (square + w * cubic))
        total += tl.where(inside, weight * value, 0.0)
    tl.store(lines + line * LENGTH + m, total, mask=m < LENGTH)


@inlined
def _sharpened(q, u, away, inside, N: tl.constexpr, PITCH: tl.constexpr):
    """q less ``away`` times its second difference at columns u, the outermost values repeated."""
    left = tl.load(q + tl.maximum(u - 1, 0) * PITCH, mask=inside, other=0.0).to(tl.float32)
    here = tl.load(q + u * PITCH, mask=inside, other=0.0).to(tl.float32)
    right = tl.load(q + tl.minimum(u + 1, N - 1) * PITCH, mask=inside, other=0.0).to(tl.float32)
    return here - away * (left - 2.0 * here + right)


@kernel
def add_lines(
    lines, numbers, sums,
    N: tl.constexpr, LENGTH: tl.constexpr, ORIGIN: tl.constexpr, STEEP: tl.constexpr,
    ROWS: tl.constexpr, COLS: tl.constexpr, UNROLL: tl.constexpr,
):  # fmt: skip
    """sums[r, c] += sum over lines of line at (c - ORIGIN) - (r - ORIGIN) * tan, linear.

    Of the lines along x, or if STEEP of those along y, then sums[c, r]. sums (N, N) float64. Rows
    and columns of a tile that are beyond N read what is beside a line and are not stored: ``lines``
    needs ROWS numbers before and ROWS + COLS behind it.
    """
    r0 = tl.program_id(1) * ROWS
    c0 = tl.program_id(0) * COLS
    c = c0 + tl.arange(0, COLS)
    local = tl.arange(0, ROWS).to(tl.float32)
    y0 = (r0 - ORIGIN).to(tl.float64)
    n_flat = tl.load(numbers + 2).to(tl.int32)
    first = n_flat if STEEP else 0
    end = tl.load(numbers + 3).to(tl.int32) if STEEP else n_flat
    total = tl.zeros((ROWS, COLS), tl.float32)
    for k in range(first, end, UNROLL):
        for i in tl.static_range(UNROLL):
            tan = tl.load(numbers + _TANS + k + i)
            start = N + _MARGIN - ORIGIN - y0 * tan
            whole = tl.floor(start)
            at = (start - whole).to(tl.float32) - local * tan.to(tl.float32)  # (ROWS,)
            below = tl.floor(at)
            w = at - below
            index = (k + i) * LENGTH + whole.to(tl.int32) + below.to(tl.int32)
            window = lines + index[:, None] + c[None, :]  # (ROWS, COLS)
            q0 = tl.load(window)
            q1 = tl.load(window + 1)
            total += (1.0 - w)[:, None] * q0
            total += w[:, None] * q1
    r = r0 + tl.arange(0, ROWS)
    if STEEP:
        image = sums + c.to(tl.int64)[:, None] * N + r[None, :]  # (COLS, ROWS)
        mask = (c[:, None] < N) & (r[None, :] < N)
        tl.store(image, tl.load(image, mask=mask, other=0.0) + tl.trans(total), mask=mask)
    else:
        image = sums + r.to(tl.int64)[:, None] * N + c[None, :]  # (ROWS, COLS)
        mask = (r[:, None] < N) & (c[None, :] < N)
        tl.store(image, tl.load(image, mask=mask, other=0.0) + total, mask=mask)


@inlined
def _lower_tap(whole, at, N: tl.constexpr):
    """Lower column, weight of the upper one, and whether inside 0..N-1, of u = whole + at."""
    below = tl.floor(at)
    column = whole.to(tl.int32) + below.to(tl.int32)
    w = at - below
    inside = (column >= 0) & ((column < N - 1) | ((column == N - 1) & (w == 0.0)))
    s = tl.minimum(tl.maximum(column, 0), N - 2)
    return s, w + (column - s).to(tl.float32), inside


@kernel
def add_vertical(
    ring, numbers, plane, sums,
    N: tl.constexpr, PITCH: tl.constexpr, N_ROWS: tl.constexpr,
    POINTS: tl.constexpr, ROWS: tl.constexpr, UNROLL: tl.constexpr,
):  # fmt: skip
    """sums[t, z] += sum over views of weight * q(u_t, z), linear in u.

    plane (4,) float64: x and y of the first point and their steps from point to point. ring
    (places, N, PITCH) float16, both taps contiguous in z; sums (N, N_ROWS) float64.
    """
    z = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    t0 = tl.program_id(1) * POINTS
    local = tl.arange(0, POINTS)
    center = tl.load(numbers)
    dx, dy = tl.load(plane + 2), tl.load(plane + 3)
    x0 = tl.load(plane) + t0.to(tl.float64) * dx
    y0 = tl.load(plane + 1) + t0.to(tl.float64) * dy
    n_views = tl.load(numbers + 1).to(tl.int32)
    total = tl.zeros((POINTS, ROWS), tl.float32)
    for k in range(0, n_views, UNROLL):
        for i in tl.static_range(UNROLL):
            view = numbers + k + i
            cos, sin = tl.load(view + _COS), tl.load(view + _SIN)
            weight = tl.load(view + _WEIGHTS).to(tl.float32)
            place = tl.load(view + _PLACES).to(tl.int64)
            u0 = cos * x0 - sin * y0 + center
            du = (cos * dx - sin * dy).to(tl.float32)
            whole = tl.floor(u0)
            at = (u0 - whole).to(tl.float32) + local.to(tl.float32) * du  # (POINTS,)
            s, w, inside = _lower_tap(whole, at, N)
            scale = tl.where(inside, weight, 0.0)
            q = ring + place * (N * PITCH) + (s * PITCH)[:, None] + z[None, :]  # (POINTS, ROWS)
            if PITCH % ROWS == 0:
                q0 = tl.load(q).to(tl.float32)
                q1 = tl.load(q + PITCH).to(tl.float32)
            else:
                there = (z < PITCH)[None, :]
                q0 = tl.load(q, mask=there, other=0.0).to(tl.float32)
                q1 = tl.load(q + PITCH, mask=there, other=0.0).to(tl.float32)
            total += (scale * (1.0 - w))[:, None] * q0
            total += (scale * w)[:, None] * q1
    t = t0 + local
    image = sums + t.to(tl.int64)[:, None] * N_ROWS + z[None, :]
    mask = (t[:, None] < N) & (z[None, :] < N_ROWS)
    tl.store(image, tl.load(image, mask=mask, other=0.0) + total, mask=mask)


@kernel
def add_tilted(
    ring, numbers, plane, z0, lower, upper, sums,
    N: tl.constexpr, PITCH: tl.constexpr, N_ROWS: tl.constexpr, ORIGIN: tl.constexpr,
    XS: tl.constexpr, YS: tl.constexpr,
):  # fmt: skip
    """sums[i, j] += sum over views of weight * q at x[i], y = j - ORIGIN, between detector rows.

    plane (2,) float64: the first x and the step; z0 (N,) int32 with lower, upper (N,) float32: the
    rows between which column i lies, and their weights, 0 outside the detector. sums (N, N)
    float64.
    """
    i0 = tl.program_id(1) * XS
    j0 = tl.program_id(0) * YS
    i, j = i0 + tl.arange(0, XS), j0 + tl.arange(0, YS)
    center = tl.load(numbers)
    dx = tl.load(plane + 1)
    x0 = tl.load(plane) + i0.to(tl.float64) * dx
    y0 = (j0 - ORIGIN).to(tl.float64)
    here = i < N
    row = tl.load(z0 + i, mask=here, other=0)[:, None]
    low = tl.load(lower + i, mask=here, other=0.0)[:, None]
    high = tl.load(upper + i, mask=here, other=0.0)[:, None]
    up = 1 if N_ROWS > 1 else 0
    n_views = tl.load(numbers + 1).to(tl.int32)
    total = tl.zeros((XS, YS), tl.float32)
    for k in range(0, n_views):
        view = numbers + k
        cos, sin = tl.load(view + _COS), tl.load(view + _SIN)
        weight = tl.load(view + _WEIGHTS).to(tl.float32)
        place = tl.load(view + _PLACES).to(tl.int64)
        u0 = cos * x0 - sin * y0 + center
        whole = tl.floor(u0)
        along_x = tl.arange(0, XS).to(tl.float32) * (cos * dx).to(tl.float32)
        along_y = tl.arange(0, YS).to(tl.float32) * sin.to(tl.float32)
        at = (u0 - whole).to(tl.float32) + (along_x[:, None] - along_y[None, :])  # (XS, YS)
        s, w, inside = _lower_tap(whole, at, N)
        q = ring + place * (N * PITCH) + (s * PITCH + row)
        first = low * tl.load(q).to(tl.float32) + high * tl.load(q + up).to(tl.float32)
        q += PITCH
        second = low * tl.load(q).to(tl.float32) + high * tl.load(q + up).to(tl.float32)
        total += tl.where(inside, weight * (first + w * (second - first)), 0.0)
    image = sums + i.to(tl.int64)[:, None] * N + j[None, :]
    mask = (i[:, None] < N) & (j[None, :] < N)
    tl.store(image, tl.load(image, mask=mask, other=0.0) + total, mask=mask)
