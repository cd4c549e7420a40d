"""Replacing pixels by the mean of others."""

from __future__ import annotations

import numpy as np

from tomostream_ioc.tracking.kernels.compile import kernel


@kernel
def repair(pixels, places, sources):
    """pixels[places[i]] = mean of pixels[sources[i]]; negative sources are left out.

    ``pixels`` (n_pixels,) of any type; integers are rounded. No source is itself a place.
    """
    is_integer = pixels.dtype.type(0.5) == 0
    for i in range(places.size):
        total, n = 0.0, 0
        for j in range(sources.shape[1]):
            if sources[i, j] >= 0:
                total += pixels[sources[i, j]]
                n += 1
        value = total / n
        pixels[places[i]] = np.rint(value) if is_integer else value
