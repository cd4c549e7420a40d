"""The combined image: z, y and x slices side by side, with the other slices' positions as lines."""

from __future__ import annotations

import numpy as np

from tomostream_ioc.model.params import ReconParams
from tomostream_ioc.model.slices import Slices

_HALF_LINE = 1  # lines are three pixels wide, centred on the slice


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
    for index, (image, column, row) in enumerate(
        ((slices.z, x, y), (slices.y, x, z), (slices.x, y, z))
    ):
        panel = out[: n if index == 0 else n_rows, index * n : (index + 1) * n]
        panel[...] = image
        if crosshair:
            panel[:, _line(column)] = np.nan
            panel[_line(row), :] = np.nan


def _line(position: int) -> slice:
    return slice(max(position - _HALF_LINE, 0), position + _HALF_LINE + 1)
