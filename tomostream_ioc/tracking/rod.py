"""A synthetic crystal rod: diffraction images of a grid scan whose grains and peaks are known.

Like the scan of the manual's example: the rod stands in the middle of the map with empty space at
both sides; its upper part is made of grains, its lower part is full of powder. Each grain is one
connected region with Bragg peaks of its own, brighter here and dimmer there (mosaicity). Images
hold dark current, air scattering around the direct beam, powder rings and counting noise.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import ndimage

from tomostream_ioc.errors import TrackingError
from tomostream_ioc.tracking.grid import ScanGrid
from tomostream_ioc.tracking.jit import kernel

#: where the rod stands: share of the columns left and right that are empty, share of the rows that
#: hold grains
_EMPTY_SIDE = 0.15
_CRYSTALLINE = 0.6
#: a grain's brightness from point to point
_MOSAIC = (0.5, 1.0)
#: noise kept for "tiled": one standard deviation is so many steps of an int8
_STEPS = 31.0
#: noise is shifted by up to so many pixels from image to image
_SHIFT_PX = 97
_NOISES = ("poisson", "tiled", "none")


@dataclass(frozen=True, eq=False)
class RodTruth:
    """What the images were made of.

    masks : (n_grains, *shape) bool, the points where each grain shines
    grain : (n_peaks,) int64, the grain that each peak belongs to
    y, x : (n_peaks,) float64, where the peak is on the detector, pixels
    counts : (n_peaks,) float64, counts of the peak in one image where its grain is brightest
    background : (n_rows, n_cols) float32, expected image of an empty point
    powder : shape float64, strength of the powder rings at each point, 0 to 1
    """

    masks: np.ndarray
    grain: np.ndarray
    y: np.ndarray
    x: np.ndarray
    counts: np.ndarray
    background: np.ndarray
    powder: np.ndarray


class CrystalRod:
    """Images of the scan, made when they are asked for and the same each time.

    Parameters
    ----------
    shape : (rows, columns) of the map; ``snaking``: every second row from right to left
    n_grains, peaks_per_grain : how many, and the least and the greatest number of peaks of each
    image_shape : (n_rows, n_cols) of the detector
    n_frames : frames per point
    sigma_px : width of a peak (Gaussian); ``separation_px``: least distance of any two peaks
    counts : least and greatest number of counts of a peak in one frame
    jitter_px : standard deviation of a grain's peaks from point to point
    dark, scatter, powder : counts per pixel of dark current, of air scattering in the middle, and
        of the brightest ring
    noise : "poisson"; "tiled", which shifts noise made beforehand and is much faster, for rates;
        or "none"
    seed : of all that is random

    Raises TrackingError: too small a map for so many grains, or too small an image for the peaks.
    """

    def __init__(
        self,
        shape: tuple[int, int] = (12, 15),
        snaking: bool = True,
        n_grains: int = 5,
        image_shape: tuple[int, int] = (256, 256),
        seed: int = 0,
        *,
        peaks_per_grain: tuple[int, int] = (3, 6),
        n_frames: int = 2,
        sigma_px: float = 2.0,
        separation_px: float = 24.0,
        counts: tuple[float, float] = (5e3, 2e4),
        jitter_px: float = 0.05,
        dark: float = 100.0,
        scatter: float = 60.0,
        powder: float = 40.0,
        noise: str = "poisson",
    ):
        if noise not in _NOISES:
            raise TrackingError(f"noise is {noise!r}: one of {', '.join(_NOISES)} is needed.")
        if n_frames < 1 or n_grains < 1 or len(shape) != 2:
            raise TrackingError("A rod has a map of two axes, and a grain and a frame at least.")
        rng = np.random.default_rng(seed)
        self.grid = ScanGrid(
            (int(shape[0]), int(shape[1])),
            ((0.0, 0.1 * (shape[0] - 1)), (0.0, 0.1 * (shape[1] - 1))),
            (False, bool(snaking)),
            ("sample_y", "sample_x"),
        )
        self.image_shape = (int(image_shape[0]), int(image_shape[1]))
        self.n_frames = n_frames
        self._seed = seed
        self._noise = noise
        self._sigma = sigma_px
        masks = _grains(self.grid.shape, n_grains, rng)
        n_peaks = rng.integers(peaks_per_grain[0], peaks_per_grain[1] + 1, n_grains)
        grain = np.repeat(np.arange(n_grains), n_peaks)
        place = _scattered(len(grain), self.image_shape, separation_px, 6 * sigma_px, rng)
        background, self._rings = _powder_image(self.image_shape, dark, scatter, powder, rng)
        self.truth = RodTruth(
            masks,
            grain,
            place[:, 0],
            place[:, 1],
            rng.uniform(*counts, len(grain)),
            background,
            _powder_strength(self.grid.shape),
        )
        points = (n_grains, self.grid.n_points)
        self._bright = masks.reshape(points) * rng.uniform(*_MOSAIC, points)
        self._moved = rng.normal(0.0, jitter_px, (*points, 2))
        self._tile = np.empty((0, 0), np.int8)
        if noise == "tiled":
            size = self.image_shape[0] + _SHIFT_PX, self.image_shape[1] + _SHIFT_PX
            steps = rng.standard_normal(size, np.float32) * np.float32(_STEPS)
            self._tile = np.clip(np.rint(steps), -127, 127).astype(np.int8)

    @property
    def n_points(self) -> int:
        return self.grid.n_points

    def start(self) -> dict[str, Any]:
        """What a bluesky plan of this scan writes into its start document."""
        return {
            "plan_name": "grid_scan",
            "shape": list(self.grid.shape),
            "extents": [list(pair) for pair in self.grid.extents if pair is not None],
            "snaking": list(self.grid.snaking),
            "motors": list(self.grid.names),
            "num_points": self.grid.n_points,
        }

    def peaks(self, frame: int) -> pd.DataFrame:
        """Peaks of seq_num ``frame`` (from 1): y, x, counts in one frame, grain, and peak, their
        index in the truth. Raises TrackingError: the frame lies outside the scan."""
        point = int(np.ravel_multi_index(self.grid.index(frame), self.grid.shape))
        truth = self.truth
        counts = truth.counts * self._bright[truth.grain, point]
        moved = self._moved[truth.grain, point]
        table = pd.DataFrame(
            {
                "y": truth.y + moved[:, 0],
                "x": truth.x + moved[:, 1],
                "counts": counts,
                "grain": truth.grain,
                "peak": np.arange(len(counts)),
            }
        )
        return table.loc[counts > 0].reset_index(drop=True)

    def empty_frames(self) -> np.ndarray:
        """seq_nums of the points that hold neither grain nor powder: images of the background."""
        frames = np.arange(1, self.grid.n_points + 1)
        full = self.truth.masks.any(axis=0) | (self.truth.powder > 0)
        return frames[~full.reshape(-1)[self.grid.flat_indices(frames)]]

    def expected(self, frame: int) -> np.ndarray:
        """The image of seq_num ``frame`` without noise, (n_rows, n_cols) float64."""
        strength = self.truth.powder[self.grid.index(frame)]
        image = self.truth.background.astype(np.float64) + strength * self._rings
        for row, col, spot in self._spots(frame):
            image[row, col] += spot
        return image

    def image(self, frame: int, repeat: int = 0) -> np.ndarray:
        """One frame of a point, (n_rows, n_cols) uint16; ``repeat`` counts the point's frames."""
        if self._noise == "none":
            return _counts(np.rint(self.expected(frame)))
        rng = np.random.default_rng((self._seed, frame, repeat))
        if self._noise == "poisson":
            return _counts(rng.poisson(self.expected(frame)))
        out = np.empty(self.image_shape, np.uint16)
        strength = np.float32(self.truth.powder[self.grid.index(frame)])
        row, col = rng.integers(0, _SHIFT_PX + 1, 2)
        tile = self._tile[row : row + out.shape[0], col : col + out.shape[1]]
        _noisy(self.truth.background, self._rings, strength, tile, np.float32(1 / _STEPS), out)
        for rows, cols, spot in self._spots(frame):
            out[rows, cols] = _counts(out[rows, cols] + rng.poisson(spot))
        return out

    def frames(self, frame: int) -> np.ndarray:
        """All frames of a point, (n_frames, n_rows, n_cols) uint16."""
        return np.stack([self.image(frame, repeat) for repeat in range(self.n_frames)])

    def points(self) -> Iterator[np.ndarray]:
        """`frames` of every point, in order of seq_num."""
        for frame in range(1, self.grid.n_points + 1):
            yield self.frames(frame)

    def _spots(self, frame: int) -> Iterator[tuple[slice, slice, np.ndarray]]:
        """Rows, columns and expected counts of each peak's surroundings."""
        reach = int(np.ceil(5 * self._sigma))
        for y, x, counts in self.peaks(frame)[["y", "x", "counts"]].to_numpy():
            row = _reach(y, reach, self.image_shape[0])
            col = _reach(x, reach, self.image_shape[1])
            dy, dx = np.arange(row.start, row.stop) - y, np.arange(col.start, col.stop) - x
            profile = np.exp(-0.5 * np.add.outer(dy**2, dx**2) / self._sigma**2)
            yield row, col, counts / (2 * np.pi * self._sigma**2) * profile


def _reach(center: float, reach: int, size: int) -> slice:
    middle = round(center)
    return slice(max(middle - reach, 0), min(middle + reach + 1, size))


def _counts(image: np.ndarray) -> np.ndarray:
    """As the detector's 16 bits."""
    return np.minimum(image, np.iinfo(np.uint16).max).astype(np.uint16)


def _rod_columns(n_cols: int) -> slice:
    side = max(int(_EMPTY_SIDE * n_cols), 1 if n_cols > 2 else 0)
    return slice(side, n_cols - side)


def _grains(shape: tuple[int, ...], n_grains: int, rng: np.random.Generator) -> np.ndarray:
    """(n_grains, *shape) bool: cells around evenly spread centres, each one connected piece."""
    inside = np.zeros(shape, bool)
    inside[: max(int(_CRYSTALLINE * shape[0]), 1), _rod_columns(shape[1])] = True
    points = np.argwhere(inside).astype(np.float64)
    if len(points) < 4 * n_grains:
        raise TrackingError(
            f"A map of {shape[0]} x {shape[1]} points has {len(points)} for grains: too few for"
            f" {n_grains}."
        )
    centers = points[rng.choice(len(points), n_grains, replace=False)]
    owner = np.zeros(len(points), np.int64)
    for _ in range(5):  # Lloyd's relaxation: grains of similar size, none of a point or two
        owner = ((points[:, np.newaxis] - centers) ** 2).sum(axis=2).argmin(axis=1)
        centers = np.stack(
            [points[owner == g].mean(axis=0) if (owner == g).any() else centers[g]
             for g in range(n_grains)]
        )  # fmt: skip
    masks = np.zeros((n_grains, *shape), bool)
    for g in range(n_grains):
        masks[g][inside] = owner == g
        labelled: Any = ndimage.label(masks[g])
        pieces, n_pieces = labelled
        if n_pieces > 1:
            masks[g] = pieces == 1 + np.bincount(pieces[pieces > 0] - 1).argmax()
    return masks


def _scattered(
    n: int, shape: tuple[int, int], separation: float, margin: float, rng: np.random.Generator
) -> np.ndarray:
    """(n, 2) positions, each ``separation`` or more from all others, ``margin`` from the edge."""
    placed = np.empty((0, 2))
    size = np.array(shape, np.float64)
    if np.any(size <= 2 * margin + 1):
        raise TrackingError(f"An image of {shape[0]} x {shape[1]} pixels is too small for peaks.")
    for _ in range(2000 * n):
        if len(placed) == n:
            break
        place = rng.uniform(margin, size - 1 - margin)
        if not len(placed) or np.min(((placed - place) ** 2).sum(axis=1)) >= separation**2:
            placed = np.vstack([placed, place])
    if len(placed) < n:
        raise TrackingError(
            f"{n} peaks at least {separation} pixels apart don't fit on {shape[0]} x {shape[1]}."
        )
    return placed


def _powder_image(
    shape: tuple[int, int], dark: float, scatter: float, powder: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Expected background and powder rings, both shape float32."""
    row, col = np.indices(shape, np.float32)
    center = np.array(shape) * rng.uniform(0.45, 0.55, 2)
    radius = np.hypot(row - np.float32(center[0]), col - np.float32(center[1]))
    size = np.float32(min(shape))
    background = dark + scatter * np.exp(-radius / (0.3 * size))
    rings = np.zeros(shape, np.float32)
    for share in np.sort(rng.uniform(0.12, 0.7, 4)):
        width = np.float32(0.012 * size)
        ring = np.exp(-0.5 * ((radius - np.float32(share) * size) / width) ** 2)
        rings += np.float32(powder * rng.uniform(0.4, 1.0)) * ring
    return background.astype(np.float32), rings


def _powder_strength(shape: tuple[int, ...]) -> np.ndarray:
    """0 in the rod's upper part and beside it, growing to 1 at its lower end."""
    strength = np.zeros(shape)
    first = max(int(_CRYSTALLINE * shape[0]), 1)
    grows = np.linspace(0.3, 1.0, shape[0] - first)
    strength[first:, _rod_columns(shape[1])] = grows[:, np.newaxis]
    return strength


@kernel
def _noisy(background, rings, strength, tile, step, out):
    """Counts of mean background + strength * rings, with their square root times ``tile``."""
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            mean = background[i, j] + strength * rings[i, j]
            value = mean + np.sqrt(mean) * (step * tile[i, j]) + np.float32(0.5)
            out[i, j] = np.uint16(min(max(value, np.float32(0)), np.float32(65535)))
