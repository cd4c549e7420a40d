"""Local maxima: pixels that equal the highest of the box around them, as scipy places it."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from tomostream_ioc.tracking.kernels.compile import kernel

#: pixels that are looked at together, in vectors; few blocks have a maximum
_BLOCK = 128
#: rows from a pixel that are looked at together with it
_FAR = 5


@njit(nogil=True)
def maxima_lines(levels, size):
    """What `row_maxima` works in."""
    # two, as a loop that reads ahead in what it writes would not be taken in vectors
    return np.zeros((2, levels.shape[1] + size), levels.dtype)


@njit(nogil=True)
def row_maxima(row, size, lines, out):
    """The highest of ``size`` pixels of ``row`` around each pixel, into ``out``, of its type.

    Outside lie zeros. An even box reaches one pixel further to the right, as that of
    `scipy.ndimage.grey_dilation` does.
    """
    width = row.size
    left = (size - 1) // 2
    line, other = lines[0], lines[1]
    line[:left] = 0
    line[left : left + width] = row
    line[left + width :] = 0
    # the maximum of n pixels, then of 2 n, and of ``size`` by two that overlap
    n, length = 1, width + size
    while 2 * n <= size:
        length -= n
        _higher(line[:length], line[n : n + length], other[:length])
        line, other = other, line
        n *= 2
    _higher(line[:width], line[size - n : size - n + width], out)


@njit(nogil=True)
def _higher(a, b, out):
    for x in range(out.size):
        p, q = a[x], b[x]
        out[x] = p if p > q else q


@kernel
def maxima_of_strip(levels, highest, threshold, size, rows, cols, found):
    """Where pixels above ``threshold`` are the highest of their box; returns how many are.

    Rows ``rows[0]`` to ``rows[1]`` and columns ``cols[0]`` to ``cols[1]`` (the ends left out) are
    looked through; ``highest`` is what `row_maxima` made of each row. ``found`` (n, 2) receives row
    and column in C order, as many as it has room for.
    """
    n_rows = levels.shape[0]
    least = levels.dtype.type(math.floor(threshold))  # levels are integers
    above = (size - 1) // 2
    below = size - 1 - above
    n = 0
    for r in range(rows[0], rows[1]):
        line, tops = levels[r], highest[r]
        top, end = max(0, r - above), min(n_rows, r + below + 1)
        over, far_over = highest[max(top, r - 1)], highest[max(top, r - _FAR)]
        under, far_under = highest[min(end - 1, r + 1)], highest[min(end - 1, r + _FAR)]
        for start in range(cols[0], cols[1], _BLOCK):
            stop = min(start + _BLOCK, cols[1])
            if not _any_maximum(
                line[start:stop], tops[start:stop], least, over[start:stop], under[start:stop],
                far_over[start:stop], far_under[start:stop],
            ):  # fmt: skip
                continue
            for x in range(start, stop):
                if line[x] != tops[x] or not line[x] > least:
                    continue
                if _is_highest(highest, r, x, top, end):
                    if n < len(found):
                        found[n, 0] = r
                        found[n, 1] = x
                    n += 1
    return n


@njit(nogil=True)
def _any_maximum(line, tops, least, over, under, far_over, far_under):
    # a few rows of the box rule out most that are the highest of their own row
    hits = np.uint8(0)
    for x in range(line.size):
        top = tops[x]
        highest = (top >= over[x]) & (top >= under[x])
        highest &= (top >= far_over[x]) & (top >= far_under[x])
        hits |= (line[x] == top) & (top > least) & highest
    return hits != 0


@njit(nogil=True)
def _is_highest(highest, r, x, top, end):
    value = highest[r, x]
    # outwards: where it is not the highest, a neighbour mostly says so
    for distance in range(1, end - top):
        if r - distance >= top and highest[r - distance, x] > value:
            return False
        if r + distance < end and highest[r + distance, x] > value:
            return False
    return True
