"""The three slices and what a viewer needs to know about them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tomostream_ioc.model.params import ReconParams

#: of the names of their channels: all side by side, and each alone
CHANNEL_SUFFIXES = ("", "X", "Y", "Z")


@dataclass(frozen=True, slots=True)
class Slices:
    """Linear attenuation per pixel, float32.

    ``z`` is (n_cols, n_cols): rows y, columns x. ``y`` and ``x`` are (n_rows, n_cols): rows z,
    columns x and y. The arrays are the receiver's own: the engine never writes to them again.
    """

    z: np.ndarray
    y: np.ndarray
    x: np.ndarray


@dataclass(frozen=True, slots=True)
class SliceMeta:
    """Where a set of slices comes from: parameters and the frames that are in it.

    ``newest_id`` and ``oldest_id`` are the detector's unique ids of the newest and oldest frame in
    the slices; ``newest_received_s`` is time.monotonic() at the newest frame's arrival, or 0 when
    no new frame is in this set (a parameter was put).
    """

    params: ReconParams
    newest_id: int
    oldest_id: int
    newest_received_s: float
    newest_timestamp_s: float
    n_angles: int
    capacity: int
    binning: int = 1  # of the detector's pixels; params are in pixels of the binned frame
