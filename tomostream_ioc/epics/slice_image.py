"""The combined image: z, y and x slices side by side, with the other slices' positions as lines."""

from __future__ import annotations

import numpy as np

from tomostream_ioc.model.params import ReconParams
from tomostream_ioc.model.slices import Slices

#: lines are 3 pixels wide up to this size of a slice, 2 more from each multiple of it on: a viewer
#: that leaves out pixels to fit the image into its window would leave out thin lines too
_LINE_STEP = 1024


def combined_shape(slices: Slices) -> tuple[int, int]:
    """(n_rows, n_cols) of the combined image: max(N, Nz) by 3 N."""
    n = slices.z.shape[1]
    return max(n, slices.y.shape[0]), 3 * n


def draw_combined(out: np.ndarray, slices: Slices, params: ReconParams, crosshair: bool) -> None:
    """Fill ``out``, float32 of combined_shape() and 0 below the slices.

    Columns 0..N-1 are the z slice (rows y, columns x), N..2N-1 the y slice (rows z, columns x),
    2N..3N-1 the x slice (rows z, columns y).
    """
    n, n_rows = slices.z.shape[1], slices.y.shape[0]
    x, y, z = params.ortho_x, params.ortho_y, params.ortho_z
    reach = 1 + n // _LINE_STEP
    for index, (image, column, row) in enumerate(
        ((slices.z, x, y), (slices.y, x, z), (slices.x, y, z))
    ):
        panel = out[: n if index == 0 else n_rows, index * n : (index + 1) * n]
        panel[...] = image
        if crosshair:
            panel[:, _line(column, reach)] = np.nan
            panel[_line(row, reach), :] = np.nan


def _line(position: int, reach: int) -> slice:
    return slice(max(position - reach, 0), position + reach + 1)
