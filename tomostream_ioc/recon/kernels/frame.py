"""The whole chain on detector rows, SAMPLE at a time: raw in, filtered float16 [u, z] out."""

from __future__ import annotations

import numpy as np

from tomostream_ioc.recon.kernels.compile import half_from_float, kernel
from tomostream_ioc.recon.kernels.dezinger import without_zingers
from tomostream_ioc.recon.kernels.fft import filter_samples
from tomostream_ioc.recon.kernels.fft_lanes import SAMPLE, store_halves, transpose8
from tomostream_ioc.recon.kernels.rows import bridge, log_transmission

_F = np.float32
#: columns that are turned round at once, in L1
_CHUNK = 128


@kernel
def filter_rows(raw, offset, gain, limits, runs, plan, response, dezinger, frame, first, end):
    """Filter detector rows first..end of ``raw`` into ``frame``; first is a multiple of SAMPLE.

    raw, offset, gain (n_rows, n) as `log_transmission` takes them; limits (floor, ceiling) of the
    transmission; runs (start, first, end) of unusable pixels; plan (radices, lengths, tables,
    starts, n_outer) and response of the transform; dezinger the window's size or 0; frame
    (n, >= n_rows) bits of float16. Returns how many pixels were NaN or infinite beside the runs.
    """
    n = raw.shape[1]
    n_fft = len(response)
    floor, ceiling = limits
    run_start, run_first, run_end = runs
    radices, lengths, tables, starts, n_outer = plan
    samples = np.empty((n_fft, SAMPLE), np.float32)
    data = samples.reshape(-1)
    logs = np.zeros((SAMPLE, _CHUNK), np.float32)
    flat_logs = logs.reshape(-1)
    bits = frame.reshape(-1)
    n_nan = 0
    for r0 in range(first, end, SAMPLE):
        r1 = min(r0 + SAMPLE, end)
        rows = r1 - r0
        clean = without_zingers(raw, offset, r0, r1, dezinger) if dezinger else offset[:0]
        n_bad = 0
        if rows < SAMPLE:
            logs[:] = _F(0.0)
        for c0 in range(0, n, _CHUNK):
            c1 = min(c0 + _CHUNK, n)
            if dezinger:
                n_bad += log_transmission(
                    clean, 0, offset, gain, r0, rows, c0, c1, floor, ceiling, logs
                )
            else:
                n_bad += log_transmission(
                    raw, r0, offset, gain, r0, rows, c0, c1, floor, ceiling, logs
                )
            for u in range(0, c1 - c0, 8):
                at = (c0 + u) * SAMPLE
                for r in range(0, SAMPLE, 8):
                    transpose8(flat_logs, r * _CHUNK + u, _CHUNK, data, at + r, SAMPLE)
        samples[n : n_fft // 2] = _F(0.0)
        lanes = samples[:n, :rows].T
        n_nan += bridge(lanes, run_start, run_first, run_end, r0, n, n_bad > 0)
        filter_samples(data, radices, lengths, tables, starts, response, n_outer)
        if rows == SAMPLE:
            for u in range(n):
                store_halves(data, u, bits, u * frame.shape[1] + r0)
        else:
            for u in range(n):
                for r in range(rows):
                    frame[u, r0 + r] = half_from_float(samples[u, r])
    return n_nan


@kernel
def log_row(raw, row, offset, gain, limits, runs, dezinger, out):
    """Logarithm of the transmission of one detector row, into out (1, n) float32.

    Parameters are those of `filter_rows`.
    """
    n = raw.shape[1]
    floor, ceiling = limits
    run_start, run_first, run_end = runs
    if dezinger:
        clean = without_zingers(raw, offset, row, row + 1, dezinger)
        n_bad = log_transmission(clean, 0, offset, gain, row, 1, 0, n, floor, ceiling, out)
    else:
        n_bad = log_transmission(raw, row, offset, gain, row, 1, 0, n, floor, ceiling, out)
    bridge(out, run_start, run_first, run_end, row, n, n_bad > 0)
