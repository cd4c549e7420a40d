"""What stages hand to `on_result`: for displays, which need no documents."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from tomostream_ioc.tracking import MapStack


@dataclass(frozen=True, slots=True, eq=False)
class ImageResult:
    """A processed image (n_rows, n_cols) float32 of frame ``frame`` (from 1)."""

    run_uid: str
    frame: int
    image: np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class PeaksResult:
    """Peaks of one frame, perhaps none: y, x, mass, size, ecc, signal, raw_mass, ep, frame."""

    run_uid: str
    frame: int
    table: pd.DataFrame


@dataclass(frozen=True, slots=True, eq=False)
class TracksResult:
    """Linked peaks of one frame: the columns of PeaksResult and ``particle``."""

    run_uid: str
    frame: int
    table: pd.DataFrame


@dataclass(frozen=True, slots=True, eq=False)
class MapsResult:
    """Maps so far, or at the run's end (``final``); ``total``: mass of all peaks per point."""

    run_uid: str
    maps: MapStack
    total: np.ndarray
    final: bool


Result = ImageResult | PeaksResult | TracksResult | MapsResult
