"""Kernels on detector rows: transmission and logarithm, unusable pixels."""

from __future__ import annotations

import numpy as np

from tomostream_ioc.recon.kernels.compile import (
    bits_from_float,
    float_from_bits,
    inlined,
    kernel,
)

_F = np.float32
# logarithm of a float32: the polynomial of Cephes' logf, error below 1e-7 of log near 1
_LN2 = _F(0.69314718056)
_HALF_ROOT_BITS = np.int32(0x3F3504F3)  # bits of sqrt(1/2)
_MANTISSA_MASK = np.int32(0x007FFFFF)
_EXPONENT_MASK = np.int32(0x7F800000)


@kernel
def log_transmission(raw, raw_row, offset, gain, row, rows, first, end, floor, ceiling, out):
    """out[r, u] = log(clamp((raw - offset) * gain)); returns how many values were not finite.

    Columns u + first of first..end and r < rows: of raw from row ``raw_row``, of offset and gain
    from row ``row``, all C-contiguous. raw is of any numeric type; offset, gain are float32, or
    float64 for types that float32 does not hold; out float32, NaN where a value is not finite.
    """
    n = end - first
    low, high = _F(floor), _F(ceiling)
    n_bad = 0
    for r in range(rows):
        # one-dimensional slices of rows: numba then knows that they are contiguous
        source, zero = raw[raw_row + r, first:end], offset[row + r, first:end]
        scale, target = gain[row + r, first:end], out[r]
        bad = np.int32(0)
        for u in range(n):
            t = _F((zero.dtype.type(source[u]) - zero[u]) * scale[u])
            bits = bits_from_float(t)
            bad = np.int32(bad + np.int32((bits & _EXPONENT_MASK) == _EXPONENT_MASK))
            # comparisons in this order turn NaN into the floor
            t = t if t > low else low
            t = t if t < high else high
            bits = np.int32(bits_from_float(t) - _HALF_ROOT_BITS)
            exponent = np.int32(bits >> np.int32(23))
            mantissa = np.int32(np.int32(bits & _MANTISSA_MASK) + _HALF_ROOT_BITS)
            x = float_from_bits(mantissa) - _F(1.0)
            xx = x * x
            p = _F(7.0376836292e-2) * x + _F(-1.1514610310e-1)
            p = p * x + _F(1.1676998740e-1)
            p = p * x + _F(-1.2420140846e-1)
            p = p * x + _F(1.4249322787e-1)
            p = p * x + _F(-1.6668057665e-1)
            p = p * x + _F(2.0000714765e-1)
            p = p * x + _F(-2.4999993993e-1)
            p = p * x + _F(3.3333331174e-1)
            target[u] = x + (xx * x * p - _F(0.5) * xx) + _F(exponent) * _LN2
        if bad:
            n_bad += bad
            for u in range(n):
                t = _F((zero.dtype.type(source[u]) - zero[u]) * scale[u])
                if not np.isfinite(t):
                    target[u] = np.nan
    return n_bad


@kernel
def bridge(values, run_start, run_first, run_end, row0, n, has_nan):
    """Replace unusable pixels in rows of log transmission; returns how many were NaN beside them.

    values (rows, >= n) float32 is changed in place; run_start (n_rows + 1,), run_first, run_end
    (m,) as in `Normalisation`; row0 is the detector row of values[0]. With ``has_nan`` each row is
    also searched for NaN.
    """
    n_nan = 0
    for r in range(values.shape[0]):
        row = values[r]
        if not has_nan:
            for run in range(run_start[row0 + r], run_start[row0 + r + 1]):
                _bridge_run(row, run_first[run], run_end[run], n)
            continue
        for u in range(n):
            n_nan += np.isnan(row[u])
        for run in range(run_start[row0 + r], run_start[row0 + r + 1]):
            for u in range(run_first[run], run_end[run]):
                n_nan -= np.isnan(row[u])
                row[u] = np.nan
        u = 0
        while u < n:
            if np.isnan(row[u]):
                end = u + 1
                while end < n and np.isnan(row[end]):
                    end += 1
                _bridge_run(row, u, end, n)
                u = end
            u += 1
    return n_nan


@inlined
def _bridge_run(row, first, end, n):
    left = row[first - 1] if first > 0 else (row[end] if end < n else _F(0.0))
    right = row[end] if end < n else left
    step = (right - left) / _F(end - first + 1)
    for u in range(first, end):
        row[u] = left + step * _F(u - first + 1)
