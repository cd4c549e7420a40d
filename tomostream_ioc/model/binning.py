"""Binning on arrival: what becomes of a frame's size, type and values, and of the parameters."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from tomostream_ioc.errors import ParameterError
from tomostream_ioc.model.params import ReconParams

#: StreamBinning: k x k pixels become one
BINNINGS = (1, 2, 4)
#: means of 8-bit pixels are kept in 16 bits and sixteenths, so that rounding takes nothing away
_SIXTEENTHS = 16


def check_binning(binning: int) -> None:
    """Raises ParameterError: no such binning."""
    if binning not in BINNINGS:
        raise ParameterError(f"binning {binning} does not exist: use one of {BINNINGS}")


def binned_shape(shape: tuple[int, int], binning: int) -> tuple[int, int]:
    """(n_rows, n_cols) after binning; rows and columns beyond a multiple of it are cut."""
    return shape[0] // binning, shape[1] // binning


def binned_dtype(dtype: np.dtype, binning: int) -> np.dtype:
    """The pixel type after binning: the frame's own, but 16 bits for 8-bit pixels."""
    if binning > 1 and dtype.itemsize == 1:
        return np.dtype(np.uint16 if dtype.kind == "u" else np.int16)
    return dtype


def binned_gain(dtype: np.dtype, binning: int) -> int:
    """What the mean of a frame's pixels is multiplied by; dark and flat fields are, too."""
    return _SIXTEENTHS if binned_dtype(dtype, binning) != dtype else 1


def effective_params(params: ReconParams, binning: int) -> ReconParams:
    """The parameters as the engine needs them: a binned pixel is as many times larger."""
    return replace(params, pixel_size_um=params.pixel_size_um * binning)


def rebinned_column(column: float, old: int, new: int) -> float:
    """The same column of the detector after a change of binning; 0, never set, stays 0.

    A bin begins at the detector's first pixel, whatever is cut at the end.
    """
    return (column + 0.5) * (old / new) - 0.5 if column else 0.0


@dataclass(frozen=True, slots=True)
class Place:
    """Where the axis and the slices are, in pixels of the frame."""

    center: float
    ortho_x: int
    ortho_y: int
    ortho_z: int

    @classmethod
    def of(cls, params: ReconParams) -> Place:
        return cls(params.center, params.ortho_x, params.ortho_y, params.ortho_z)

    def on(self, params: ReconParams) -> ReconParams:
        """The parameters with the axis and the slices here."""
        return replace(
            params,
            center=self.center,
            ortho_x=self.ortho_x,
            ortho_y=self.ortho_y,
            ortho_z=self.ortho_z,
        )

    def rebinned(self, old: int, new: int, frame_shape: tuple[int, int] | None) -> Place:
        """The same place in the sample after a change of binning.

        ``frame_shape`` is the detector's (n_rows, n_cols), None when it is not known yet. A bin
        begins at the detector's first pixel whatever is cut at the end, so column and row c are at
        (c + 1/2) * old/new - 1/2. OrthoX and OrthoY count from the axis, which is at index n // 2;
        without the size they scale by the ratio alone. A Center of 0, and slices that are all 0,
        were never set and stay so.
        """
        scale = old / new
        center = rebinned_column(self.center, old, new)
        x, y, z = self.ortho_x, self.ortho_y, self.ortho_z
        if (x, y, z) == (0, 0, 0):
            return Place(center, x, y, z)
        z = max(round((z + 0.5) * scale - 0.5), 0)
        if frame_shape is None:
            return Place(center, round(x * scale), round(y * scale), z)
        old_middle = binned_shape(frame_shape, old)[1] // 2
        n_rows, n_cols = binned_shape(frame_shape, new)

        def from_axis(index: int) -> int:
            scaled = round((index - old_middle) * scale) + n_cols // 2
            return max(min(scaled, n_cols - 1), 0)

        return Place(center, from_axis(x), from_axis(y), max(min(z, n_rows - 1), 0))
