"""From the images of a point to its peaks, their tracks and the crystal maps."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import pandas as pd

from tomostream_ioc.model.crystal import QUANTIZE, PeakParams
from tomostream_ioc.tracking import (
    BackgroundSubtractor,
    CrystalMaps,
    Locator,
    OnlineLinker,
    ScanGrid,
    hot_pixels,
)

#: parameters of the search, and of the links: a change of the others leaves these parts alone
_SEARCH = (
    "diameter", "percentile", "separation", "min_mass", "max_peaks", "quantize", "hot_pixel_mask",
)  # fmt: skip
_LINKS = ("search_range", "memory")


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """What one point has brought. ``peaks`` has the column particle too; ``image`` is reused."""

    peaks: pd.DataFrame
    image: np.ndarray
    locate_s: float
    link_s: float


class Search:
    """Finds, links and maps the peaks of one scan's points. One thread at a time.

    Its Locator, its linker and its buffers live from point to point. New parameters of the search
    hold from the next point on; a new SearchRange or Memory begins new tracks, whose numbers go
    on from those before.
    """

    def __init__(self, params: PeakParams, grid: ScanGrid | None):
        self._params = params
        self._grid = grid
        self._background: np.ndarray | None = None
        self._mask: np.ndarray | None = None
        self._subtract: BackgroundSubtractor | None = None
        self._locator: Locator | None = None
        self._linker = self._new_linker()
        self._first_track = 0  # number of the present linker's track 0
        self._oversized_before = 0
        self._fallback_before = 0
        self._image = np.empty((0, 0), np.float32)
        self.maps = CrystalMaps(grid) if grid is not None else None

    # --- what a user changes ----------------------------------------------------------------

    def set_params(self, params: PeakParams) -> None:
        old, self._params = self._params, params
        if any(getattr(old, name) != getattr(params, name) for name in _SEARCH):
            self._drop_locator()
        if old.background_on != params.background_on:
            self._subtract = None
        if any(getattr(old, name) != getattr(params, name) for name in _LINKS):
            self._oversized_before = self.oversized
            self._first_track += self._linker.counts.tracks
            self._linker = self._new_linker()

    def set_background(self, background: np.ndarray | None) -> None:
        """(n_rows, n_cols) or None; its hot pixels are those that a mask leaves out."""
        self._background = background
        self._mask = None if background is None else hot_pixels(background)
        self._subtract = None
        self._drop_locator()

    # --- what is counted --------------------------------------------------------------------

    @property
    def tracks(self) -> int:
        return self._first_track + self._linker.counts.tracks

    @property
    def oversized(self) -> int:
        """Groups of peaks too large to be linked in the usual way, or at all."""
        counts = self._linker.counts
        return self._oversized_before + counts.large_groups + counts.broken_groups

    @property
    def fallback(self) -> int:
        """Points that trackpy itself has searched."""
        now = 0 if self._locator is None else self._locator.counts.trackpy
        return self._fallback_before + now

    @property
    def masked_pixels(self) -> int:
        if self._mask is None or not self._params.hot_pixel_mask:
            return 0
        return int(np.count_nonzero(self._mask))

    # --- the work ---------------------------------------------------------------------------

    def find(self, images: np.ndarray, number: int) -> Found:
        """Search ``images``, (n_frames, ny, nx) or (ny, nx), of point ``number`` (from 1).

        The background and the mask of another size are left out: `fits` tells.

        Raises TrackingError or ParameterError: images that can't be searched.
        """
        began_s = time.monotonic()
        shape = images.shape[-2:]
        if self._image.shape != shape:
            self._image = np.empty(shape, np.float32)
            self._subtract = None
            self._drop_locator()
        image = self._subtractor(shape)(images, self._image)
        peaks = self._locate(image)
        located_s = time.monotonic()
        peaks["frame"] = np.full(len(peaks), number, np.int64)
        particles = self._linker.add(peaks[["y", "x"]].to_numpy(np.float64), number)
        peaks["particle"] = np.where(particles >= 0, particles + self._first_track, particles)
        if self.maps is not None:
            self.maps.add(peaks)
        return Found(peaks, image, located_s - began_s, time.monotonic() - located_s)

    def warm_up(self) -> None:
        """Compile what the usual images need, or load what was compiled: no image waits for it.

        Takes up to a minute the first time; images of rarer types compile when they come.
        """
        for dtype in (np.uint16, np.uint8):
            BackgroundSubtractor()(np.zeros((2, 2), dtype))
        with self._new_locator((0, 0)) as locator:
            locator.warm_up("float32")

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether the background is of images of this shape; True without one."""
        return self._background is None or self._background.shape == shape[-2:]

    def close(self) -> None:
        self._drop_locator()

    def _subtractor(self, shape: tuple[int, ...]) -> BackgroundSubtractor:
        if self._subtract is None:
            used = self._params.background_on and self.fits(shape)
            self._subtract = BackgroundSubtractor(self._background if used else None)
        return self._subtract

    def _locate(self, image: np.ndarray) -> pd.DataFrame:
        if self._locator is None:
            self._locator = self._new_locator(image.shape)
        return self._locator.locate(image)

    def _new_locator(self, shape: tuple[int, ...]) -> Locator:
        params = self._params
        return Locator(
            params.diameter,
            minmass=params.min_mass,
            separation=params.separation,
            percentile=params.percentile,
            topn=params.max_peaks or None,
            mask=self._mask if params.hot_pixel_mask and self.fits(shape) else None,
            quantize=QUANTIZE[params.quantize],
        )

    def _drop_locator(self) -> None:
        if self._locator is not None:
            self._fallback_before += self._locator.counts.trackpy
            self._locator.close()
            self._locator = None

    def _new_linker(self) -> OnlineLinker:
        memory = None if self._params.memory < 0 else self._params.memory
        return OnlineLinker(self._params.search_range, memory, self._grid)
