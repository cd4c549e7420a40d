"""Level and noise of the background: pixels further than a disk from any above the threshold."""

from __future__ import annotations

import numpy as np
from numba import njit

from tomostream_ioc.tracking.kernels.compile import kernel, reordering_kernel


@njit(nogil=True, error_model="numpy")
def _near_signal(levels, row, reaches, flags, spread, near):
    """Bring row ``row`` of the image into the ring ``near`` (2 * radius + 1, n_cols) of flags.

    The disk is ``reaches[dy + radius]`` pixels wide to each side, dy rows from its middle; -1: not
    at all. ``flags`` has ``radius`` zeros at both ends.
    """
    n_rows, width = levels.shape
    radius = reaches.size // 2
    n = reaches.size
    near[(row + radius) % n] = 0
    if not 0 <= row < n_rows:
        return
    line = levels[row]
    middle = flags[radius : radius + width]
    for x in range(width):
        middle[x] = line[x] != 0
    for x in range(width):
        spread[x] = middle[x]
    for reach in range(radius + 1):
        if reach:
            left = flags[radius - reach : radius - reach + width]
            right = flags[radius + reach : radius + reach + width]
            for x in range(width):
                spread[x] |= left[x] | right[x]
        for dy in range(n):
            if reaches[dy] == reach:
                target = near[(row + dy - radius) % n]
                for x in range(width):
                    target[x] |= spread[x]


@njit(nogil=True, error_model="numpy")
def _start(levels, first, reaches):
    radius, width = reaches.size // 2, levels.shape[1]
    flags = np.zeros(width + 2 * radius, np.uint8)
    spread = np.zeros(width, np.uint8)
    near = np.zeros((reaches.size, width), np.uint8)
    for row in range(first - radius, first + radius):
        _near_signal(levels, row, reaches, flags, spread, near)
    return flags, spread, near


@kernel
def integer_sums(levels, image, reaches, first, end):
    """Number, sum and sum of squares of the background of rows first..end, exact up to 16 bits."""
    flags, spread, near = _start(levels, first, reaches)
    n_pixels, total, squares = 0, 0, 0
    for r in range(first, end):
        _near_signal(levels, r + reaches.size // 2, reaches, flags, spread, near)
        hidden, line = near[r % reaches.size], image[r]
        for x in range(hidden.size):
            value = np.int64(line[x]) if hidden[x] == 0 else 0
            n_pixels += hidden[x] == 0
            total += value
            squares += value * value
    return n_pixels, total, squares


@reordering_kernel
def float_sums(levels, image, reaches, origin, first, end):
    """As `integer_sums`, of pixel minus ``origin``: near their mean, lest the squares cancel."""
    flags, spread, near = _start(levels, first, reaches)
    n_pixels, total, squares = 0, 0.0, 0.0
    for r in range(first, end):
        _near_signal(levels, r + reaches.size // 2, reaches, flags, spread, near)
        hidden, line = near[r % reaches.size], image[r]
        for x in range(hidden.size):
            value = np.float64(line[x]) - origin if hidden[x] == 0 else 0.0
            n_pixels += hidden[x] == 0
            total += value
            squares += value * value
    return n_pixels, total, squares


@kernel
def gather(levels, image, reaches, first, end, out):
    """Copy the background of rows first..end to ``out``, in C order; returns how many pixels."""
    flags, spread, near = _start(levels, first, reaches)
    n_pixels = 0
    for r in range(first, end):
        _near_signal(levels, r + reaches.size // 2, reaches, flags, spread, near)
        hidden, line = near[r % reaches.size], image[r]
        for x in range(hidden.size):
            if hidden[x] == 0:
                out[n_pixels] = line[x]
                n_pixels += 1
    return n_pixels
