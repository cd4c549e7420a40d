"""Hot and dead pixels of a detector: finding them, and replacing them in images."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from tomostream_ioc.errors import ParameterError
from tomostream_ioc.tracking.kernels.repair import repair

#: the median of |x| of a normal distribution is sigma / 1.4826
_SIGMA_PER_MAD = 1.4826
_N_SOURCES = 8


def hot_pixels(frames: np.ndarray, n_sigma: float = 8.0, factor: float = 4.0) -> np.ndarray:
    """Hot, dead and non-finite pixels of one frame or, better, of several: True there.

    ``frames`` is (n_rows, n_cols) or (n_frames, n_rows, n_cols); of several the median is looked
    at, in which peaks that move are gone. A pixel is hot where it exceeds the median of the 3 x 3
    pixels around it by ``n_sigma`` times the noise and by ``factor`` times that median, dead where
    it lies as far below it. The noise is that of counting, or of the frame where that is more.
    The median of a peak's 3 x 3 pixels is above half its highest pixel if its sigma is one pixel or
    more, so a peak is not taken for a hot pixel. Give frames as the detector counts them: where a
    background was subtracted the noise of what is left is not that of its counts, and is taken for
    hot pixels.

    Returns bool (n_rows, n_cols). Raises ParameterError: not two or three dimensions.
    """
    stack = np.asarray(frames)
    if stack.ndim not in (2, 3) or not stack.size:
        raise ParameterError(
            f"frames of shape {stack.shape}: give (n_rows, n_cols) or (n_frames, n_rows, n_cols)"
        )
    frame = stack if stack.ndim == 2 else np.median(stack, axis=0)
    frame = frame.astype(np.float64)
    bad = ~np.isfinite(frame)
    frame[bad] = np.median(frame[~bad]) if not bad.all() else 0.0
    around = ndimage.median_filter(frame, size=3, mode="mirror")
    excess = frame - around
    sigma = _SIGMA_PER_MAD * np.median(np.abs(excess - np.median(excess)))
    limit = n_sigma * np.maximum(np.sqrt(np.maximum(around, 1.0)), sigma)
    hot = (excess > limit) & (frame > factor * around)
    dead = (-excess > limit) & (frame * factor < around)
    return bad | hot | dead


class PixelMask:
    """Replaces masked pixels by the mean of the sound ones among their eight neighbours.

    Inside a gap, where no neighbour is sound, it is the nearest sound pixel, so that the edge of
    the gap is no edge in the image.
    """

    def __init__(self, mask: np.ndarray):
        """``mask`` (n_rows, n_cols) bool, True where a pixel is bad.

        Raises ParameterError: it is not such an array, or no pixel is sound.
        """
        mask = np.asarray(mask)
        if mask.dtype != bool or mask.ndim != 2:
            raise ParameterError(
                f"mask of type {mask.dtype} and shape {mask.shape}: give a boolean (n_rows, n_cols)"
            )
        if mask.all() and mask.size:
            raise ParameterError("the mask leaves no pixel: True means bad")
        self.shape = mask.shape
        self.places = np.flatnonzero(mask)
        self.sources = _sources(mask)

    def repaired(self, image: np.ndarray, out: np.ndarray) -> None:
        """``image`` (n_rows, n_cols) with masked pixels replaced, into ``out`` of its type."""
        self.check(image.shape)
        np.copyto(out, image)
        repair(out.reshape(-1), self.places, self.sources)

    def check(self, shape: tuple[int, ...]) -> None:
        """Raises ParameterError: an image of ``shape`` is not what the mask is for."""
        if shape != self.shape:
            raise ParameterError(
                f"image of shape {shape}, mask of {self.shape}: they must be alike"
            )


def _sources(mask: np.ndarray) -> np.ndarray:
    """For each masked pixel eight sound ones, by flat index; some more than once: (n, 8)."""
    rows, cols = np.nonzero(mask)
    sources = np.full((len(rows), _N_SOURCES), -1, np.int64)
    steps = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if dy or dx]
    for i, (dy, dx) in enumerate(steps):
        y, x = rows + dy, cols + dx
        inside = (y >= 0) & (y < mask.shape[0]) & (x >= 0) & (x < mask.shape[1])
        sound = inside.copy()
        sound[inside] = ~mask[y[inside], x[inside]]
        sources[sound, i] = y[sound] * mask.shape[1] + x[sound]
    alone = (sources < 0).all(axis=1)
    if alone.any():
        nearest = ndimage.distance_transform_edt(mask, return_distances=False, return_indices=True)
        y, x = np.asarray(nearest)[:, rows[alone], cols[alone]]
        sources[alone] = (y * mask.shape[1] + x)[:, np.newaxis]
    return sources
