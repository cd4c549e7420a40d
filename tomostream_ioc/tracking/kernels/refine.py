"""Centre of mass of each peak, and what describes its surroundings."""

from __future__ import annotations

import math

from tomostream_ioc.tracking.kernels.compile import kernel

#: pixels; a disk whose centre of mass lies further off than that is moved by one
SHIFT = 0.6


@kernel
def refine(
    image, levels, radius, places, max_iterations, disk, r_squared, cos, sin, out, first, end
):
    """Rows first..end of ``out`` (n, 7): y, x, mass, size, ecc, signal, raw_mass of ``places``.

    ``places`` (n, 2) are pixels at least ``radius`` from the edge, ``disk`` (2, n_disk) the disk's
    pixels from its corner; r_squared, cos and sin (n_disk,) are functions of them. The method is
    Crocker and Grier's (doi 10.1006/jcis.1996.0217); the order of operations is trackpy's.
    """
    rows, cols = disk[0], disk[1]
    last_y, last_x = image.shape[0] - radius - 1, image.shape[1] - radius - 1
    for peak in range(first, end):
        y, x = places[peak, 0], places[peak, 1]
        top, left = y - radius, x - radius
        mass = center_y = center_x = 0.0
        for _ in range(max_iterations):
            top, left = y - radius, x - radius
            mass = moment_y = moment_x = 0.0
            for i in range(rows.size):
                level = levels[top + rows[i], left + cols[i]]
                moment_y += level * rows[i]
                moment_x += level * cols[i]
                mass += level
            moment_y /= mass
            moment_x /= mass
            center_y = moment_y - radius + y
            center_x = moment_x - radius + x
            off_y, off_x = moment_y - radius, moment_x - radius
            if abs(off_y) < SHIFT and abs(off_x) < SHIFT:
                break
            if off_y > SHIFT:
                y += 1
            elif off_y < -SHIFT:
                y -= 1
            if off_x > SHIFT:
                x += 1
            elif off_x < -SHIFT:
                x -= 1
            y = min(max(y, radius), last_y)
            x = min(max(x, radius), last_x)
        raw_mass = size = cos_sum = sin_sum = signal = 0.0
        for i in range(rows.size):
            level = levels[top + rows[i], left + cols[i]]
            size += r_squared[i] * level
            cos_sum += cos[i] * level
            sin_sum += sin[i] * level
            raw_mass += image[top + rows[i], left + cols[i]]
            if level > signal:
                signal = float(level)
        middle = levels[top + radius, left + radius]
        out[peak, 0] = center_y
        out[peak, 1] = center_x
        out[peak, 2] = mass
        out[peak, 3] = math.sqrt(size / mass)
        out[peak, 4] = math.sqrt(cos_sum**2 + sin_sum**2) / (mass - middle + 1e-6)
        out[peak, 5] = signal
        out[peak, 6] = raw_mass
