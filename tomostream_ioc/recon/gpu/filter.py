"""Triton kernels between raw frames and the ring; the Fourier transforms between them are cuFFT's.

Two detector rows, 2p and 2p + 1, are the real and the imaginary part of one complex row: the
filter is real and symmetric, so that it does not mix them, and half as many transforms are done.
"""

# loops over static_range are the compiler's
# pyright: reportGeneralTypeIssues=false

import triton.language as tl

from tomostream_ioc.recon.gpu.compile import inlined, kernel
from tomostream_ioc.recon.preprocess import TRANSMISSION_CEILING, TRANSMISSION_FLOOR

_FLOOR = tl.constexpr(TRANSMISSION_FLOOR)
_CEILING = tl.constexpr(TRANSMISSION_CEILING)


@inlined
def _mirrored(i, N: tl.constexpr):
    i = tl.where(i < 0, -1 - i, i)
    i = tl.where(i >= N, 2 * N - 1 - i, i)
    return tl.minimum(tl.maximum(i, 0), N - 1)


@inlined
def _value(pixels, dtype: tl.constexpr, UNSIGNED: tl.constexpr):
    """Pixels kept as signed integers, UNSIGNED giving their size in bits, as ``dtype``."""
    if UNSIGNED == 16:
        pixels = pixels.to(tl.uint16, bitcast=True)
    elif UNSIGNED == 32:
        pixels = pixels.to(tl.uint32, bitcast=True)
    elif UNSIGNED == 64:
        pixels = pixels.to(tl.uint64, bitcast=True)
    return pixels.to(dtype)


@inlined
def _beside(raw, r, u, i, mask, dtype: tl.constexpr, N: tl.constexpr,
            N_ROWS: tl.constexpr, UNSIGNED: tl.constexpr, SIZE: tl.constexpr):  # fmt: skip
    """Pixel i of the window of SIZE x SIZE about (r, u), mirrored at the edges; NaN is the last."""
    row = _mirrored(r + (i // SIZE - SIZE // 2), N_ROWS)
    column = _mirrored(u + (i % SIZE - SIZE // 2), N)
    value = _value(tl.load(raw + row * N + column, mask=mask, other=0), dtype, UNSIGNED)
    return tl.where(value != value, float("inf"), value)


@inlined
def _cleaned(value, raw, r, u, mask, N: tl.constexpr, N_ROWS: tl.constexpr,
             UNSIGNED: tl.constexpr, SIZE: tl.constexpr):  # fmt: skip
    """``value`` or, if it differs by more than half of it, the median: as kernels.dezinger.

    The median is the one of the window's values that as many others are below as it takes.
    """
    median = value
    wanted: tl.constexpr = SIZE * SIZE // 2
    for i in range(SIZE * SIZE):
        this = _beside(raw, r, u, i, mask, value.dtype, N, N_ROWS, UNSIGNED, SIZE)
        below = tl.zeros(value.shape, tl.int32)
        up_to = tl.zeros(value.shape, tl.int32)
        for j in tl.static_range(SIZE * SIZE):
            other = _beside(raw, r, u, j, mask, value.dtype, N, N_ROWS, UNSIGNED, SIZE)
            below += (other < this).to(tl.int32)
            up_to += (other <= this).to(tl.int32)
        median = tl.where((below <= wanted) & (up_to > wanted), this, median)
    return tl.where(tl.abs(value - median) > tl.abs(median) * 0.5, median, value)


@inlined
def _log_row(raw, offset, gain, r, u, N: tl.constexpr, N_ROWS: tl.constexpr,
             UNSIGNED: tl.constexpr, DEZINGER: tl.constexpr, MARK: tl.constexpr):  # fmt: skip
    """Logarithm of the transmission, NaN if MARK and not usable; what was not usable, and lost."""
    mask = u < tl.where(r < N_ROWS, N, 0)
    zero = tl.load(offset + r * N + u, mask=mask, other=0.0)
    scale = tl.load(gain + r * N + u, mask=mask, other=1.0)
    value = _value(tl.load(raw + r * N + u, mask=mask, other=1), zero.dtype, UNSIGNED)
    if DEZINGER > 0:
        value = _cleaned(value, raw, r, u, mask, N, N_ROWS, UNSIGNED, DEZINGER)
    ratio = (value - zero) * scale
    kept = tl.minimum(tl.maximum(ratio, _FLOOR), _CEILING).to(tl.float32)
    logs = tl.log(tl.where(kept == kept, kept, 1.0))
    finite = tl.abs(ratio) < float("inf")
    unusable = mask & (scale == 0.0)
    lost = mask & (finite == 0) & (scale != 0.0)
    if MARK:
        logs = tl.where(lost | unusable, float("nan"), logs)
    return tl.where(mask, logs, 0.0), lost, unusable


@kernel
def log_transmission(
    raw, slots, offset, gain, values, n_bad, n_lost,
    N: tl.constexpr, N_ROWS: tl.constexpr, N_PAIRS: tl.constexpr, N_FFT: tl.constexpr,
    UNSIGNED: tl.constexpr, DEZINGER: tl.constexpr, MARK: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """values[f, p, u] = log(clamp((raw - offset) * gain)) of rows 2p and 2p + 1 of raw[slots[f]].

    raw (n, N_ROWS, N), unsigned types as signed ones; offset, gain (N_ROWS, N) float32 or float64;
    values (f, N_PAIRS, N_FFT, 2) float32, not touched from u = N on. With MARK, unusable pixels
    and values that are not finite are NaN, counted per row in n_bad (f, N_ROWS) int32, and those
    that only the raw value is to blame for in n_lost.
    """
    pair, f = tl.program_id(0), tl.program_id(1)
    frame = raw + tl.load(slots + f) * (N_ROWS * N)
    out = values + (f * N_PAIRS + pair).to(tl.int64) * (2 * N_FFT)
    r = 2 * pair
    zero = tl.zeros((BLOCK,), tl.int32)
    lost_0, lost_1, bad_0, bad_1 = zero, zero, zero, zero
    for c0 in range(0, N, BLOCK):
        u = c0 + tl.arange(0, BLOCK)
        first, lost, unusable = _log_row(
            frame, offset, gain, r, u, N, N_ROWS, UNSIGNED, DEZINGER, MARK
        )
        if MARK:
            lost_0 += lost.to(tl.int32)
            bad_0 += (lost | unusable).to(tl.int32)
        second, lost, unusable = _log_row(
            frame, offset, gain, r + 1, u, N, N_ROWS, UNSIGNED, DEZINGER, MARK
        )
        if MARK:
            lost_1 += lost.to(tl.int32)
            bad_1 += (lost | unusable).to(tl.int32)
        at = 2 * c0 + tl.arange(0, 2 * BLOCK)
        tl.store(out + at, tl.interleave(first, second), mask=at < 2 * N)
    if MARK:
        count = f * N_ROWS + r
        tl.store(n_bad + count, tl.sum(bad_0))
        tl.store(n_lost + count, tl.sum(lost_0))
        if r + 1 < N_ROWS:
            tl.store(n_bad + count + 1, tl.sum(bad_1))
            tl.store(n_lost + count + 1, tl.sum(lost_1))


@inlined
def _larger(a, b):
    return tl.maximum(a, b)


@inlined
def _smaller(a, b):
    return tl.minimum(a, b)


@kernel
def bridge(
    values, n_bad,
    N: tl.constexpr, N_ROWS: tl.constexpr, N_PAIRS: tl.constexpr, N_FFT: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Replace NaN in rows that have some: linear between the nearest others, see Normalisation."""
    r, f = tl.program_id(0), tl.program_id(1)
    if tl.load(n_bad + f * N_ROWS + r) > 0:
        row = values + (f * N_PAIRS + r // 2).to(tl.int64) * (2 * N_FFT) + r % 2
        u = tl.arange(0, BLOCK)
        here = u < N
        value = tl.load(row + 2 * u, mask=here, other=0.0)
        bad = here & (value != value)
        good = here & (value == value)
        left = tl.associative_scan(tl.where(good, u, -1), 0, _larger)
        right = tl.associative_scan(tl.where(good, u, N), 0, _smaller, reverse=True)
        a = tl.load(row + 2 * left, mask=left >= 0, other=0.0)
        b = tl.load(row + 2 * right, mask=right < N, other=0.0)
        a = tl.where(left < 0, b, a)
        b = tl.where(right >= N, a, b)
        share = (u - left).to(tl.float32) / tl.maximum(right - left, 1).to(tl.float32)
        tl.store(row + 2 * u, a + (b - a) * share, mask=bad)


@kernel
def multiply(
    spectrum, response, n_rows,
    N_FFT: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """spectrum[r] *= response, in place; spectrum (n_rows, N_FFT, 2), response (N_FFT,) float32."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    factor = tl.load(response + at // 2, mask=at < 2 * N_FFT, other=0.0)
    for i in tl.static_range(ROWS):
        r = tl.program_id(1) * ROWS + i
        mask = at < tl.where(r < n_rows, 2 * N_FFT, 0)
        row = spectrum + r.to(tl.int64) * (2 * N_FFT) + at
        tl.store(row, tl.load(row, mask=mask, other=0.0) * factor, mask=mask)


@kernel
def store(
    values, places, ring,
    N: tl.constexpr, N_ROWS: tl.constexpr, N_PAIRS: tl.constexpr, N_FFT: tl.constexpr,
    PITCH: tl.constexpr, PAIRS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    """ring[places[f], u, r] = values[f, r // 2, u, r % 2] as float16: rows become contiguous.

    values (f, N_PAIRS, N_FFT, 2) float32; ring (places, N, PITCH) float16.
    """
    p0, f = tl.program_id(1) * PAIRS, tl.program_id(2)
    c0 = tl.program_id(0) * COLS
    p, at = p0 + tl.arange(0, PAIRS), 2 * c0 + tl.arange(0, 2 * COLS)
    source = values + (f * N_PAIRS + p).to(tl.int64)[:, None] * (2 * N_FFT) + at[None, :]
    tile = tl.load(source, mask=(p < N_PAIRS)[:, None] & (at < 2 * N)[None, :], other=0.0)
    tile = tl.reshape(tile, (PAIRS, COLS, 2))
    tile = tl.reshape(tl.permute(tile, (1, 0, 2)), (COLS, 2 * PAIRS))
    u, r = c0 + tl.arange(0, COLS), 2 * p0 + tl.arange(0, 2 * PAIRS)
    frame = ring + tl.load(places + f) * (N * PITCH)
    target = frame + u[:, None] * PITCH + r[None, :]
    tl.store(target, tile.to(tl.float16), mask=(u < N)[:, None] & (r < N_ROWS)[None, :])
