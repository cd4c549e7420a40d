"""Kernel for what is done to the transmission itself: raw rows to transmission - 1."""

from __future__ import annotations

import numpy as np

from tomostream_ioc.recon.kernels.compile import bits_from_float, kernel
from tomostream_ioc.recon.kernels.dezinger import without_zingers
from tomostream_ioc.recon.kernels.rows import bridge

_F = np.float32
_EXPONENT_MASK = np.int32(0x7F800000)


@kernel
def contrast_rows(raw, offset, gain, most, runs, dezinger, first, end, out):
    """out[r, :n] = clamp((raw - offset) * gain, -most, most) - 1 of detector rows first..end.

    raw, offset, gain (n_rows, n), runs and dezinger as `frame.filter_rows` takes them; out
    (end - first, >= n) float32. Unusable pixels are bridged: 0 in a row without any usable one.
    Returns how many pixels were NaN or infinite beside the runs.
    """
    n = raw.shape[1]
    run_start, run_first, run_end = runs
    clean = without_zingers(raw, offset, first, end, dezinger) if dezinger else offset[:0]
    n_bad = 0
    for r in range(first, end):
        if dezinger:
            n_bad += _contrast(clean[r - first], offset[r], gain[r], most, out[r - first])
        else:
            n_bad += _contrast(raw[r], offset[r], gain[r], most, out[r - first])
    return bridge(out, run_start, run_first, run_end, first, n, n_bad > 0)


@kernel
def _contrast(source, zero, scale, most, target):
    """One row; NaN where it is not finite; returns how often."""
    high = _F(most)
    bad = np.int32(0)
    for u in range(len(source)):
        t = _F((zero.dtype.type(source[u]) - zero[u]) * scale[u])
        bad = np.int32(bad + np.int32((bits_from_float(t) & _EXPONENT_MASK) == _EXPONENT_MASK))
        t = t if t > -high else -high
        t = t if t < high else high
        target[u] = t - _F(1.0)
    if bad:
        for u in range(len(source)):
            t = _F((zero.dtype.type(source[u]) - zero[u]) * scale[u])
            if not np.isfinite(t):
                target[u] = np.nan
    return bad
