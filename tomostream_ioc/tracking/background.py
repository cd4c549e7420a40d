"""Mean of a point's frames, less a background image, with negative pixels set to zero.

A pixel that is NaN or infinite in some frames is averaged over the others. Where none is left, or
where the background is not finite, nothing is known about that pixel: its mean is NaN and its
difference 0, so that no peak is found there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tomostream_ioc.errors import TrackingError
from tomostream_ioc.tracking.jit import kernel


def average_frames(images: np.ndarray) -> np.ndarray:
    """Mean over the frames of one point.

    Parameters
    ----------
    images : (n_frames, n_rows, n_cols) or (n_rows, n_cols), any integer or float type

    Returns
    -------
    (n_rows, n_cols) float64. Sums are 64-bit, so that no integer type overflows; pixels that are
    not finite are left out, NaN where no frame has one that is.

    Raises
    ------
    TrackingError
        Not an image or a stack of images, no frame at all, or not real numbers.
    """
    stack = _stack(images)
    if stack.dtype.kind in "bui":
        wide = np.float64 if stack.dtype.itemsize == 8 else None  # numpy sums in (u)int64
        return stack.sum(axis=0, dtype=wide) / stack.shape[0]
    finite = np.isfinite(stack)
    if finite.all():
        return stack.mean(axis=0, dtype=np.float64)
    total = np.where(finite, stack, 0).sum(axis=0, dtype=np.float64)
    count = finite.sum(axis=0)
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)


def subtract_background(image: np.ndarray, background: np.ndarray | None) -> np.ndarray:
    """``image - background`` with what is negative, or not known, set to 0.

    Both (n_rows, n_cols), of any integer or float type; None is a background of 0. Returns float64,
    of no negative and only finite values. Unsigned types don't wrap round: the difference is taken
    in float64.

    Raises TrackingError: the background has another shape, or one of the two is no image.
    """
    image = _plane(image, "The image")
    difference = image.astype(np.float64)
    if background is not None:
        background = _plane(background, "The background")
        _check_shape(image.shape, background.shape)
        difference = difference - background.astype(np.float64)
    return np.where(np.isfinite(difference) & (difference > 0), difference, 0.0)


class BackgroundSubtractor:
    """Mean of frames, less a background, cut off at zero: one pass over the memory, no GIL held.

    The same result as `subtract_background(average_frames(images), background)`, in ``dtype``
    (float32 or float64). One object may be used by one thread at a time.

    Raises TrackingError: a background that is no image, or another dtype.
    """

    def __init__(self, background: np.ndarray | None = None, dtype: Any = np.float32):
        self._dtype = np.dtype(dtype)
        if self._dtype not in (np.dtype(np.float32), np.dtype(np.float64)):
            raise TrackingError(f"Images are made as float32 or float64, not as {self._dtype}.")
        self._background: np.ndarray | None = None
        if background is not None:
            plane = _plane(background, "The background").astype(np.float64)
            # frames are summed, not averaged, before they meet it: float64 keeps 32-bit counts
            self._background = np.ascontiguousarray(plane)

    @property
    def dtype(self) -> np.dtype:
        return self._dtype

    def __call__(self, images: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """``images`` (n_frames, n_rows, n_cols) or (n_rows, n_cols) into ``out``.

        ``out`` (n_rows, n_cols), of this object's dtype, is made where it is not given. Returns it.
        Raises TrackingError: frames or ``out`` can't be used, or don't fit the background.
        """
        stack = _stack(images)
        shape = stack.shape[1:]
        if self._background is not None:
            _check_shape(shape, self._background.shape)
        if out is None:
            out = np.empty(shape, self._dtype)
        elif out.shape != shape or out.dtype != self._dtype:
            raise TrackingError(
                f"The buffer is {out.shape} {out.dtype}, the frames make {shape} {self._dtype}."
            )
        if stack.dtype.kind not in "ui" and stack.dtype not in (np.float32, np.float64):
            stack = stack.astype(np.uint8 if stack.dtype.kind == "b" else np.float32)
        if not stack.dtype.isnative:
            stack = stack.astype(stack.dtype.newbyteorder("="))
        background = self._background
        if background is None:
            background = np.zeros((1, 1))  # read as one row of one pixel, and not used
        pixels = stack.view()
        pixels.flags.writeable = False  # a kernel is compiled for each: frames come as both
        run: Callable[..., None] = _integers if stack.dtype.kind in "ui" else _floats
        run(pixels, background, self._background is not None, out)
        return out


@kernel
def _integers(frames, background, has_background, out):
    """frames (n_frames, n_rows, n_cols) of integers; background (n_rows, n_cols) float64."""
    n_frames, n_rows, n_cols = frames.shape
    share = 1.0 / n_frames
    total = np.empty(n_cols, np.float64)
    for i in range(n_rows):
        for j in range(n_cols):
            total[j] = frames[0, i, j]
        for k in range(1, n_frames):
            for j in range(n_cols):
                total[j] += frames[k, i, j]
        if has_background:
            for j in range(n_cols):
                value = total[j] * share - background[i, j]
                # false for NaN and below zero; infinity never stands in a sum of integers
                out[i, j] = value if 0.0 < value < np.inf else 0.0
        else:
            for j in range(n_cols):
                out[i, j] = max(total[j] * share, 0.0)


@kernel
def _floats(frames, background, has_background, out):
    """As `_integers`; pixels that are not finite are left out of the mean."""
    n_frames, n_rows, n_cols = frames.shape
    total = np.empty(n_cols, np.float64)
    count = np.empty(n_cols, np.float64)
    for i in range(n_rows):
        total[:] = 0.0
        count[:] = 0.0
        for k in range(n_frames):
            for j in range(n_cols):
                value = np.float64(frames[k, i, j])
                good = abs(value) < np.inf  # false for NaN too
                total[j] += value if good else 0.0
                count[j] += 1.0 if good else 0.0
        for j in range(n_cols):
            value = total[j] / count[j]  # NaN where no frame counts
            if has_background:
                value -= background[i, j]
            out[i, j] = value if 0.0 < value < np.inf else 0.0


def _stack(images: np.ndarray) -> np.ndarray:
    stack = _numbers(images, "The images")
    if stack.ndim == 2:
        stack = stack[np.newaxis]
    if stack.ndim != 3:
        raise TrackingError(
            f"The images are an array of shape {stack.shape}: a point has (n_frames, n_rows,"
            " n_cols) or one frame (n_rows, n_cols)."
        )
    if stack.size == 0:
        raise TrackingError(f"The images are empty: their shape is {stack.shape}.")
    return stack


def _plane(image: np.ndarray, name: str) -> np.ndarray:
    plane = _numbers(image, name)
    if plane.ndim != 2 or plane.size == 0:
        raise TrackingError(
            f"{name} has shape {plane.shape}: one image (n_rows, n_cols) is needed."
            + (" Average its frames first." if plane.ndim == 3 else "")
        )
    return plane


def _numbers(values: np.ndarray, name: str) -> np.ndarray:
    array = np.asarray(values)
    if array.dtype.kind not in "buif":
        raise TrackingError(f"{name} can't be of type {array.dtype}: real numbers are needed.")
    return array


def _check_shape(image: tuple[int, ...], background: tuple[int, ...]) -> None:
    if image != background:
        raise TrackingError(
            f"The background is {background[0]} x {background[1]} pixels, the image"
            f" {image[0]} x {image[1]}: take the background with the same detector settings."
        )
