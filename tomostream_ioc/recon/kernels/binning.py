"""Means of 2 x 2 or 4 x 4 pixels: one read of the frame, at the speed of memory."""

from __future__ import annotations

from tomostream_ioc.recon.kernels.compile import inlined, kernel


@inlined
def _sum4(row, j):
    return row[j] + row[j + 1] + row[j + 2] + row[j + 3]


@kernel
def bin2_integers(frame, out, gain, half, shift):
    """Sums of 2 x 2 pixels s as (s * gain + half) >> shift, for pixels of up to 32 bits.

    frame (n_rows, n_cols), out (n_rows // 2, n_cols // 2); the rest 64-bit integers, signed where
    the pixels are.
    """
    for i in range(out.shape[0]):
        a, b, o = frame[2 * i], frame[2 * i + 1], out[i]
        for j in range(len(o)):
            total = a[2 * j] + a[2 * j + 1] + b[2 * j] + b[2 * j + 1]
            o[j] = (total * gain + half) >> shift


@kernel
def bin4_integers(frame, out, gain, half, shift):
    """As `bin2_integers`, of 4 x 4 pixels."""
    for i in range(out.shape[0]):
        a, b, c, d = frame[4 * i], frame[4 * i + 1], frame[4 * i + 2], frame[4 * i + 3]
        o = out[i]
        for j in range(len(o)):
            total = _sum4(a, 4 * j) + _sum4(b, 4 * j) + _sum4(c, 4 * j) + _sum4(d, 4 * j)
            o[j] = (total * gain + half) >> shift


@kernel
def bin_wide_integers(frame, out, size, half, shift, mask):
    """As the others, for 64-bit pixels, whose sum would not fit: quotients and remainders apart.

    ``size`` is 2 or 4; half, shift and mask are of the pixels' type.
    """
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            whole = half - half
            rest = half
            for row in range(size * i, size * i + size):
                for col in range(size * j, size * j + size):
                    whole += frame[row, col] >> shift
                    rest += frame[row, col] & mask
            out[i, j] = whole + (rest >> shift)


@kernel
def bin2_floats(frame, out, share):
    """Sums of 2 x 2 pixels times ``share``; NaN and infinity stay in their bin."""
    for i in range(out.shape[0]):
        a, b, o = frame[2 * i], frame[2 * i + 1], out[i]
        for j in range(len(o)):
            o[j] = share * (a[2 * j] + a[2 * j + 1] + b[2 * j] + b[2 * j + 1])


@kernel
def bin4_floats(frame, out, share):
    """As `bin2_floats`, of 4 x 4 pixels."""
    for i in range(out.shape[0]):
        a, b, c, d = frame[4 * i], frame[4 * i + 1], frame[4 * i + 2], frame[4 * i + 3]
        o = out[i]
        for j in range(len(o)):
            total = _sum4(a, 4 * j) + _sum4(b, 4 * j) + _sum4(c, 4 * j) + _sum4(d, 4 * j)
            o[j] = share * total
