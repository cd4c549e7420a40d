"""Gaussian minus boxcar, row by row, in the very order of operations of scipy.ndimage.

Sums of floating-point numbers depend on their order, and peaks are to be those of trackpy to the
last bit: `scipy.ndimage.correlate1d` adds pairs of pixels from the outermost inwards, and
`uniform_filter1d` keeps a running sum to which it adds newest minus oldest. Both work in float64,
whatever the image is; the boxcar is rounded to the image's type (integers: cut) after each axis.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from tomostream_ioc.tracking.kernels.compile import kernel
from tomostream_ioc.tracking.kernels.maxima import maxima_lines, row_maxima

#: rows whose running sums are taken at once
_TOGETHER = 4


@njit(nogil=True)
def highest_of(line):
    # one at a time, each comparison of floats would wait for the one before
    whole = line.size // 8 * 8
    a = b = c = d = e = f = g = h = line[0]
    for x in range(0, whole, 8):
        a = line[x] if line[x] > a else a
        b = line[x + 1] if line[x + 1] > b else b
        c = line[x + 2] if line[x + 2] > c else c
        d = line[x + 3] if line[x + 3] > d else d
        e = line[x + 4] if line[x + 4] > e else e
        f = line[x + 5] if line[x + 5] > f else f
        g = line[x + 6] if line[x + 6] > g else g
        h = line[x + 7] if line[x + 7] > h else h
    for x in range(whole, line.size):
        a = line[x] if line[x] > a else a
    return max(max(max(a, b), max(c, d)), max(max(e, f), max(g, h)))


@njit(nogil=True)
def _lowest(line):
    whole = line.size // 8 * 8
    a = b = c = d = e = f = g = h = line[0]
    for x in range(0, whole, 8):
        a = line[x] if line[x] < a else a
        b = line[x + 1] if line[x + 1] < b else b
        c = line[x + 2] if line[x + 2] < c else c
        d = line[x + 3] if line[x + 3] < d else d
        e = line[x + 4] if line[x + 4] < e else e
        f = line[x + 5] if line[x + 5] < f else f
        g = line[x + 6] if line[x + 6] < g else g
        h = line[x + 7] if line[x + 7] < h else h
    for x in range(whole, line.size):
        a = line[x] if line[x] < a else a
    return min(min(min(a, b), min(c, d)), min(min(e, f), min(g, h)))


@kernel
def column_sums(image, half, rows, first, end, reach, sums, highest, lowest):
    """Running sums over 2 * half + 1 rows of the columns first..end, as they are at ``rows``.

    ``rows`` rise, and the sums go to ``sums`` (len(rows), n_cols). ``highest`` (n_rows,) and
    ``lowest`` (n_rows,) receive the extremes of each row within these columns and ``reach`` more to
    both sides.
    """
    n_rows, n_cols = image.shape
    left, right = max(first - reach, 0), min(end + reach, n_cols)
    width = end - first
    running = np.zeros(width)
    for r in range(-half, half + 1):
        line = image[min(max(r, 0), n_rows - 1), first:end]
        for x in range(width):
            running[x] += line[x]
    i = 0
    for r in range(n_rows):
        while i < rows.size and rows[i] == r:
            out = sums[i, first:end]
            for x in range(width):
                out[x] = running[x]
            i += 1
        line = image[r, left:right]
        highest[r] = highest_of(line)
        lowest[r] = _lowest(line)
        newest = image[min(r + 1 + half, n_rows - 1), first:end]
        _advance(newest, image[max(r - half, 0), first:end], running)


@njit(nogil=True)
def _buffers(image, n_weights, size):
    """What `_filter_row` and `_finish` work in; see there."""
    width = image.shape[1]
    ring = np.empty((n_weights, width))
    held = np.full(n_weights, -n_weights - 1)
    padded = np.zeros(width + n_weights - 1)
    box = np.empty(width + size - 1, image.dtype)
    mean = np.empty(width, image.dtype)
    steps, starts = np.zeros((_TOGETHER, width)), np.zeros(_TOGETHER)
    return ring, held, padded, box, mean, steps, starts, np.empty((_TOGETHER, width))


@njit(nogil=True, error_model="numpy")
def _filter_row(image, r, weights, size, columns, buffers, i):
    """The Gaussian of row r, into ``smooth[i]``, and what `_finish` makes its boxcar of.

    ``columns`` are the running sums at row r; ``ring`` (n_weights, n_cols) holds rows as float64,
    ``held`` which; ``padded`` has zeros at both ends; ``box`` and ``mean`` are of the image's type.
    """
    ring, held, padded, box, _, steps, starts, smooth = buffers
    n_rows, width = image.shape
    n, reach, half = weights.size, weights.size // 2, size // 2
    for row in range(r - reach, r + reach + 1):
        slot = row % n
        if held[slot] != row:
            held[slot] = row
            line = ring[slot]
            if 0 <= row < n_rows:
                _copy(image[row], line)
            else:
                line[:] = 0.0
    _add_pairs_of_rows(ring, r, weights, padded[reach : reach + width])
    add_pairs_of_columns(padded, weights, smooth[i])
    inner = box[half : half + width]
    _divide(columns, np.float64(size), inner)
    box[:half] = inner[0]
    box[half + width :] = inner[width - 1]
    _subtract(box[size : size + width - 1], box[: width - 1], steps[i, : width - 1])
    running = 0.0
    for x in range(size):
        running += box[x]
    starts[i] = running


@njit(nogil=True, error_model="numpy")
def _finish(size, buffers, n):
    """Subtract the boxcar from the first ``n`` rows of ``smooth``."""
    _, _, _, _, mean, steps, starts, smooth = buffers
    _run(steps[0], steps[1], steps[2], steps[3], starts)
    for i in range(n):
        _divide(steps[i], np.float64(size), mean)
        _subtract(smooth[i], mean, smooth[i])
        # its last was never written: no row has as many steps as pixels
        steps[i, -1] = 0.0


@njit(nogil=True)
def _run(a, b, c, d, starts):
    """Running sums of four rows of steps: one alone would wait for each of its additions."""
    p, q, r, s = starts[0], starts[1], starts[2], starts[3]
    for x in range(a.size):
        step_a, step_b, step_c, step_d = a[x], b[x], c[x], d[x]
        a[x], b[x], c[x], d[x] = p, q, r, s
        p += step_a
        q += step_b
        r += step_c
        s += step_d


# functions of their own, as loops in a long function are not all taken in vectors


@njit(nogil=True, error_model="numpy")
def _divide(sums, divisor, out):
    for x in range(out.size):
        out[x] = sums[x] / divisor


@njit(nogil=True)
def _subtract(a, b, out):
    for x in range(out.size):
        out[x] = np.float64(a[x]) - np.float64(b[x])


@njit(nogil=True)
def _advance(newest, oldest, columns):
    for x in range(columns.size):
        columns[x] += np.float64(newest[x]) - np.float64(oldest[x])


@njit(nogil=True)
def _quantise(smooth, threshold, scale, out):
    for x in range(out.size):
        value = smooth[x]
        out[x] = scale * (value if value >= threshold else 0.0)


@njit(nogil=True)
def _copy(pixels, out):
    for x in range(out.size):
        out[x] = pixels[x]


@njit(nogil=True, error_model="numpy")
def _add_pairs_of_rows(ring, r, weights, out):
    n, reach = weights.size, weights.size // 2
    middle, weight = ring[r % n], weights[reach]
    if reach == 4:  # noise_size 1: all in one loop
        a, b, c, d = weights[0], weights[1], weights[2], weights[3]
        a0, a1 = ring[(r - 4) % n], ring[(r + 4) % n]
        b0, b1 = ring[(r - 3) % n], ring[(r + 3) % n]
        c0, c1 = ring[(r - 2) % n], ring[(r + 2) % n]
        d0, d1 = ring[(r - 1) % n], ring[(r + 1) % n]
        for x in range(out.size):
            total = middle[x] * weight
            total += (a0[x] + a1[x]) * a
            total += (b0[x] + b1[x]) * b
            total += (c0[x] + c1[x]) * c
            out[x] = total + (d0[x] + d1[x]) * d
        return
    for x in range(out.size):
        out[x] = middle[x] * weight
    for j in range(reach, 0, -1):
        above, below, weight = ring[(r - j) % n], ring[(r + j) % n], weights[reach - j]
        for x in range(out.size):
            out[x] += (above[x] + below[x]) * weight


@njit(nogil=True, error_model="numpy")
def add_pairs_of_columns(padded, weights, out):
    reach, width = weights.size // 2, out.size
    middle, weight = padded[reach : reach + width], weights[reach]
    if reach == 4:
        a, b, c, d = weights[0], weights[1], weights[2], weights[3]
        a0, a1 = padded[:width], padded[8 : 8 + width]
        b0, b1 = padded[1 : 1 + width], padded[7 : 7 + width]
        c0, c1 = padded[2 : 2 + width], padded[6 : 6 + width]
        d0, d1 = padded[3 : 3 + width], padded[5 : 5 + width]
        for x in range(width):
            total = middle[x] * weight
            total += (a0[x] + a1[x]) * a
            total += (b0[x] + b1[x]) * b
            total += (c0[x] + c1[x]) * c
            out[x] = total + (d0[x] + d1[x]) * d
        return
    for x in range(width):
        out[x] = middle[x] * weight
    for j in range(reach, 0, -1):
        left = padded[reach - j : reach - j + width]
        right = padded[reach + j : reach + j + width]
        weight = weights[reach - j]
        for x in range(width):
            out[x] += (left[x] + right[x]) * weight


@kernel
def strip_maximum(image, weights, size, columns, bounds, at_least, first, end):
    """The highest value of the bandpassed rows first..end, or ``at_least``.

    ``columns`` (n_cols,): running sums at row ``first``; they are changed. Row r is left out where
    ``bounds[r]``, which it can't exceed, is not above the maximum so far.
    """
    n_rows, half = image.shape[0], size // 2
    buffers = _buffers(image, weights.size, size)
    smooth = buffers[-1]
    best = at_least
    n = 0
    for r in range(first, end):
        if bounds[r] > best:
            _filter_row(image, r, weights, size, columns, buffers, n)
            n += 1
        if n == _TOGETHER or (r + 1 == end and n):
            _finish(size, buffers, n)
            for i in range(n):
                best = max(best, highest_of(smooth[i]))
            n = 0
        if r + 1 < end:
            _advance(image[min(r + 1 + half, n_rows - 1)], image[max(r - half, 0)], columns)
    return best


@kernel
def quantise_strip(
    image, weights, size, columns, threshold, scale, first, end, levels, n_single, shift, counts,
    box, highest,
):  # fmt: skip
    """Bandpassed rows first..end as integers: ``scale`` times what is not below ``threshold``.

    ``levels`` (n_rows, n_cols) integer receives them. ``counts`` (4, n_places) counts how often
    each occurs, in four parts that are to be added: levels below ``n_single`` one by one, level v
    of the others at ``n_single`` + (v >> ``shift``). ``highest``, as ``levels``, receives what
    `row_maxima` makes of each row, with boxes of ``box`` levels, while the row is in the cache.
    """
    n_rows, half = image.shape[0], size // 2
    buffers = _buffers(image, weights.size, size)
    lines = maxima_lines(levels, box)
    smooth = buffers[-1]
    n = 0
    for r in range(first, end):
        _filter_row(image, r, weights, size, columns, buffers, n)
        n += 1
        if n == _TOGETHER or r + 1 == end:
            _finish(size, buffers, n)
            for i in range(n):
                row = r + 1 - n + i
                _quantise(smooth[i], threshold, scale, levels[row])
                count_levels(levels[row], n_single, shift, counts)
                row_maxima(levels[row], box, lines, highest[row])
            n = 0
        if r + 1 < end:
            _advance(image[min(r + 1 + half, n_rows - 1)], image[max(r - half, 0)], columns)


@njit(nogil=True)
def _place(level, n_single, shift):
    return level if level < n_single else n_single + (level >> shift)


@njit(nogil=True)
def count_levels(line, n_single, shift, counts):
    # neighbours are counted apart: to add to the same place at once costs a wait
    a, b, c, d = counts[0], counts[1], counts[2], counts[3]
    whole = line.size // 4 * 4
    for x in range(0, whole, 4):
        a[_place(np.uint32(line[x]), n_single, shift)] += 1
        b[_place(np.uint32(line[x + 1]), n_single, shift)] += 1
        c[_place(np.uint32(line[x + 2]), n_single, shift)] += 1
        d[_place(np.uint32(line[x + 3]), n_single, shift)] += 1
    for x in range(whole, line.size):
        a[_place(np.uint32(line[x]), n_single, shift)] += 1


@kernel
def count_low_bits(levels, high, shift, first, end, counts):
    """Count the low bits of the levels of rows first..end that are ``high`` above ``shift``."""
    low = (1 << shift) - 1
    for r in range(first, end):
        line = levels[r]
        for x in range(line.size):
            if line[x] >> shift == high:
                counts[line[x] & low] += 1
