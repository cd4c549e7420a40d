"""Binning of frames and fields by their mean, in one thread and without the GIL."""

from __future__ import annotations

import numpy as np

from tomostream_ioc.model.binning import BINNINGS, binned_dtype, binned_gain, binned_shape
from tomostream_ioc.recon.kernels.binning import (
    bin2_floats,
    bin2_integers,
    bin4_floats,
    bin4_integers,
    bin_wide_integers,
)


class FrameBinner:
    """Writes means of ``binning`` x ``binning`` pixels of frames of one type.

    Integers are rounded to the nearest, halves up; 8-bit ones are kept in sixteenths, as
    `model.binning` says.
    """

    def __init__(self, dtype: np.dtype, binning: int):
        self._binning = binning
        self._dtype = dtype
        n = binning * binning
        if dtype.kind == "f":
            self._kernel = bin2_floats if binning == 2 else bin4_floats
            self._factors = (dtype.type(1 / n),)
            return
        shift, gain = n.bit_length() - 1, binned_gain(dtype, binning)
        wide = np.uint64 if dtype.kind == "u" else np.int64
        if dtype.itemsize == 8:
            self._kernel = bin_wide_integers
            self._factors = (binning, wide(n // 2), wide(shift), wide(n - 1))
        else:
            self._kernel = bin2_integers if binning == 2 else bin4_integers
            self._factors = (wide(gain), wide(n // 2), wide(shift))

    def __call__(self, out: np.ndarray, frame: np.ndarray) -> None:
        """``frame`` (n_rows, n_cols) into ``out`` (n_rows // binning, n_cols // binning).

        The memory of both is touched once. What is beyond a multiple of the binning is cut.
        """
        pixels = frame.view()
        pixels.flags.writeable = False  # a kernel is compiled for each: frames come as both
        self._kernel(pixels, out, *self._factors)


def binned_field(field: np.ndarray, dtype: np.dtype, binning: int) -> np.ndarray:
    """A dark or flat field, float32, for frames of ``dtype`` that are binned."""
    out = np.empty(binned_shape((field.shape[0], field.shape[1]), binning), np.float32)
    FrameBinner(np.dtype(np.float32), binning)(out, field)
    return out * np.float32(binned_gain(dtype, binning))


def warm_up(dtype: np.dtype) -> None:
    """Compile for a pixel type, or load what was compiled from disk.

    Else the first frame would wait for it, in the thread that takes all frames.
    """
    for binning in BINNINGS[1:]:
        out = np.empty(binned_shape((4, 8), binning), binned_dtype(dtype, binning))
        FrameBinner(dtype, binning)(out, np.ones((4, 8), dtype))
