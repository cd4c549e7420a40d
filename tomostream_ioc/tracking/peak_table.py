"""From refined peaks to the table that trackpy.locate returns."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.spatial import KDTree
from trackpy.masks import N_binary_mask, x_squared_masks

from tomostream_ioc.tracking.locate_params import FastSettings

#: of a peak, in the order of the kernels and of the table
COLUMNS = ("y", "x", "mass", "size", "ecc", "signal", "raw_mass")
_MASS, _SIZE, _SIGNAL, _RAW_MASS = 2, 3, 5, 6

BLACK = "Image is completely black."
NO_MAXIMA = "Image contains no local maxima."
ALL_IN_MARGINS = "All local maxima were in the margins."
_NONE_LEFT = (
    "No maxima survived mass- and size-based filtering. Be advised that the mass computation was "
    "changed from version 0.2.4 to 0.3.0 and from 0.3.3 to 0.4.0. See the documentation and the "
    "convenience functions 'minmass_v03_change' and 'minmass_v04_change'."
)


class Peaks(NamedTuple):
    """Refined peaks of one image; ``rows`` (n, 7) in COLUMNS, in levels, ``scale`` per intensity.

    ``reason`` says why there are none.
    """

    rows: np.ndarray
    scale: float
    reason: str = ""


def no_peaks(reason: str) -> Peaks:
    return Peaks(np.empty((0, len(COLUMNS))), 1.0, reason)


def peak_table(
    peaks: Peaks,
    settings: FastSettings,
    background: Callable[[], tuple[Any, Any]],
    frame_no: Any = None,
) -> pd.DataFrame:
    """The table of `trackpy.locate`; warns as it does.

    ``background`` returns level and noise of the image outside the peaks; it is called only where
    a peak is left.
    """
    columns = list(COLUMNS if settings.characterize else COLUMNS[:3])
    if not len(peaks.rows):
        warnings.warn(peaks.reason, UserWarning, stacklevel=4)
        return pd.DataFrame(columns=columns)
    close = _where_close(peaks.rows[:, :2], settings.separation, peaks.rows[:, _MASS])
    rows = np.delete(peaks.rows, close, axis=0)
    rows[:, _MASS] /= peaks.scale
    rows[:, _SIGNAL] /= peaks.scale
    keep = rows[:, _MASS] > settings.minmass
    if settings.maxsize is not None:
        keep &= rows[:, _SIZE] < settings.maxsize
    index = None if keep.all() else np.flatnonzero(keep)
    rows = rows[keep]
    if not len(rows):
        warnings.warn(_NONE_LEFT, UserWarning, stacklevel=4)
        return pd.DataFrame(rows[:, : len(columns)], columns=columns, index=index)
    if settings.topn is not None and len(rows) > settings.topn:
        brightest = _brightest(rows[:, _MASS], settings.topn)
        rows = rows[brightest]
        index = brightest if index is None else index[brightest]
    table = pd.DataFrame(rows[:, : len(columns)], columns=columns, index=index)
    if settings.characterize:
        table["ep"] = _position_error(rows[:, _RAW_MASS], settings, *background())
    if frame_no is not None:
        table["frame"] = int(frame_no)
    return table


def _where_close(places: np.ndarray, separation: float, mass: np.ndarray) -> np.ndarray:
    """Of each two peaks within ``separation``, the fainter one; of equals that of lesser y + x.

    What trackpy.find.where_close returns, which takes the pairs one by one.
    """
    scaled = places / separation
    pairs = KDTree(scaled, 30).query_pairs(1 - 1e-7, output_type="ndarray")
    first, second = pairs[:, 0], pairs[:, 1]
    corner = scaled.sum(axis=1)
    drop_second = np.where(
        mass[first] == mass[second], corner[first] > corner[second], mass[first] > mass[second]
    )
    return np.unique(np.where(drop_second, second, first))


def _brightest(mass: np.ndarray, n: int) -> np.ndarray:
    """Where the n brightest are, in trackpy's order, which for one differs among equals."""
    return np.array([np.argmax(mass)]) if n == 1 else np.argsort(mass)[-n:]


def _position_error(
    raw_mass: np.ndarray, settings: FastSettings, level: Any, noise: Any
) -> np.ndarray:
    """Static error of the position: Savin and Doyle, Biophys. J. 88, 623 (2005), in pixels."""
    radii = settings.radius, settings.radius
    moment = np.sqrt(np.sum(x_squared_masks(radii, 2)[0]))
    mass = raw_mass - N_binary_mask(radii, 2) * level
    return noise / mass * settings.noise_size * moment
