"""Gaussian minus boxcar of integers of up to 16 bits: as in `bandpass`, in about half its time.

Sums of such integers are exact in any order, so the boxcar is done in integers, in vectors, and
from any column on. The Gaussian's pairs are exact too; from there on the order of operations is
again that of scipy.ndimage.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from tomostream_ioc.tracking.kernels.bandpass import add_pairs_of_columns, count_levels, highest_of
from tomostream_ioc.tracking.kernels.compile import kernel
from tomostream_ioc.tracking.kernels.maxima import maxima_lines, row_maxima


@njit(nogil=True, error_model="numpy")
def _buffers(image, n_weights, size):
    """What `_filter_row` works in: pixels for the Gaussian of the columns, with zeros at both ends;
    three lines for the boxcar; the Gaussian."""
    width = image.shape[1]
    boxes = np.empty((3, width + size), np.int32)
    return np.zeros(width + n_weights - 1), boxes, np.empty(width)


@njit(nogil=True, error_model="numpy")
def _filter_row(image, r, first, end, weights, size, columns, buffers):
    """Gaussian, and ``size`` times the boxcar, of row r from column ``first`` to ``end``.

    ``columns`` (n_cols,) are sums over ``size`` rows around row r; only those at these columns, and
    ``size`` // 2 beside them, are looked at.
    """
    padded, boxes, smooth = buffers
    n_rows, width = image.shape
    reach, half = weights.size // 2, size // 2
    left, right = max(first - reach, 0), min(end + reach, width)
    begin = left - (first - reach)
    line = padded[: end - first + 2 * reach]
    line[:begin] = 0.0
    line[begin + right - left :] = 0.0
    inner = line[begin : begin + right - left]
    if r >= reach and r + reach < n_rows:
        _add_pairs_of_rows(image, r - reach, left, right, weights, inner)
    else:  # zeros lie outside the image
        rows = np.zeros((2 * reach + 1, right - left), image.dtype)
        top, bottom = max(r - reach, 0), min(r + reach + 1, n_rows)
        rows[top - (r - reach) : bottom - (r - reach)] = image[top:bottom, left:right]
        _add_pairs_of_rows(rows, 0, 0, right - left, weights, inner)
    out = smooth[: end - first]
    add_pairs_of_columns(line, weights, out)

    left, right = max(first - half, 0), min(end + half, width)
    begin, n = left - (first - half), end - first + 2 * half
    box = boxes[0, :n]
    _divide(columns[left:right], size, box[begin : begin + right - left])
    box[:begin] = box[begin]
    box[begin + right - left :] = box[begin + right - left - 1]
    return out, _window_sums(box, size, boxes[1, :n], boxes[2, : end - first])


@njit(nogil=True, error_model="numpy")
def _window_sums(line, size, other, out):
    """Sums of ``size`` integers that follow each other, of twice as many at each step."""
    out[:] = 0
    n, begin, length = 1, 0, line.size
    while True:
        if size & n:
            _add(line[begin : begin + out.size], out)
            begin += n
        if 2 * n > size:
            return out
        length -= n
        _sums(line[:length], line[n : n + length], other[:length])
        line, other = other, line
        n *= 2


@njit(nogil=True)
def _add(values, out):
    for x in range(out.size):
        out[x] += values[x]


@njit(nogil=True)
def _sums(a, b, out):
    for x in range(out.size):
        out[x] = a[x] + b[x]


@njit(nogil=True, error_model="numpy")
def _quotient(total, inverse):
    """``total`` / n cut towards zero, where ``inverse`` is 1 / n.

    Half of one more keeps it from the edge that rounding could cross.
    """
    return np.int32((total + (0.5 if total >= 0 else -0.5)) * inverse)


@njit(nogil=True, error_model="numpy")
def _divide(sums, size, out):
    inverse = 1.0 / size
    for x in range(out.size):
        out[x] = _quotient(sums[x], inverse)


@njit(nogil=True, error_model="numpy")
def _quantise(smooth, sums, size, threshold, scale, out):
    inverse = 1.0 / size
    for x in range(out.size):
        value = smooth[x] - _quotient(sums[x], inverse)
        out[x] = scale * (value if value >= threshold else 0.0)


@njit(nogil=True, error_model="numpy")
def _subtract(sums, size, smooth):
    inverse = 1.0 / size
    for x in range(smooth.size):
        smooth[x] -= _quotient(sums[x], inverse)


@njit(nogil=True)
def _advance(newest, oldest, columns):
    for x in range(columns.size):
        columns[x] += np.int32(newest[x]) - np.int32(oldest[x])


@njit(nogil=True, error_model="numpy")
def _add_pairs_of_rows(image, top, left, right, weights, out):
    """Of weights.size rows from ``top`` on; each is a slice of its own, which is contiguous."""
    reach = weights.size // 2
    middle, weight = image[top + reach, left:right], weights[reach]
    if reach == 4:  # noise_size 1: all in one loop
        a, b, c, d = weights[0], weights[1], weights[2], weights[3]
        a0, a1 = image[top, left:right], image[top + 8, left:right]
        b0, b1 = image[top + 1, left:right], image[top + 7, left:right]
        c0, c1 = image[top + 2, left:right], image[top + 6, left:right]
        d0, d1 = image[top + 3, left:right], image[top + 5, left:right]
        for x in range(out.size):
            total = np.int32(middle[x]) * weight
            total += (np.int32(a0[x]) + np.int32(a1[x])) * a
            total += (np.int32(b0[x]) + np.int32(b1[x])) * b
            total += (np.int32(c0[x]) + np.int32(c1[x])) * c
            out[x] = total + (np.int32(d0[x]) + np.int32(d1[x])) * d
        return
    for x in range(out.size):
        out[x] = middle[x] * weight
    for j in range(reach, 0, -1):
        above, weight = image[top + reach - j, left:right], weights[reach - j]
        below = image[top + reach + j, left:right]
        for x in range(out.size):
            out[x] += (np.int32(above[x]) + np.int32(below[x])) * weight


@kernel
def strip_maximum(image, weights, size, bounds, edges, at_least, first, end):
    """The highest value of the bandpassed rows first..end, or ``at_least``.

    ``bounds`` (n_blocks, n_rows): what row r can't exceed between the columns ``edges[i]`` and
    ``edges[i + 1]``; these are left out where that is not above the maximum so far.
    """
    n_rows, width = image.shape
    half = size // 2
    buffers = _buffers(image, weights.size, size)
    columns = np.empty(width, np.int32)
    best = at_least
    for r in range(first, end):
        for i in range(edges.size - 1):
            if bounds[i, r] <= best:
                continue
            left, right = max(edges[i] - half, 0), min(edges[i + 1] + half, width)
            columns[left:right] = 0
            for row in range(r - half, r + half + 1):
                _add(image[min(max(row, 0), n_rows - 1), left:right], columns[left:right])
            smooth, sums = _filter_row(
                image, r, edges[i], edges[i + 1], weights, size, columns, buffers
            )
            _subtract(sums, size, smooth)
            best = max(best, highest_of(smooth))
    return best


@kernel
def quantise_strip(
    image, weights, size, columns, threshold, scale, first, end, levels, n_single, shift, counts,
    box, highest,
):  # fmt: skip
    """As `bandpass.quantise_strip`; ``columns`` are int32."""
    n_rows, width = image.shape
    half = size // 2
    buffers = _buffers(image, weights.size, size)
    lines = maxima_lines(levels, box)
    for r in range(first, end):
        smooth, sums = _filter_row(image, r, 0, width, weights, size, columns, buffers)
        _quantise(smooth, sums, size, threshold, scale, levels[r])
        count_levels(levels[r], n_single, shift, counts)
        row_maxima(levels[r], box, lines, highest[r])
        if r + 1 < end:
            _advance(image[min(r + 1 + half, n_rows - 1)], image[max(r - half, 0)], columns)
