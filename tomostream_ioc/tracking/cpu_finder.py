"""Peaks of one image on the CPU: the steps of trackpy.locate, fused, on threads."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tomostream_ioc.tracking.kernels import bandpass, bandpass_integers, maxima, noise
from tomostream_ioc.tracking.kernels.refine import refine
from tomostream_ioc.tracking.locate_params import FastSettings
from tomostream_ioc.tracking.peak_table import (
    ALL_IN_MARGINS,
    BLACK,
    COLUMNS,
    NO_MAXIMA,
    Peaks,
    no_peaks,
)
from tomostream_ioc.tracking.threads import Threads

#: levels below are counted one by one; noise is there, and most often the percentile
_N_SINGLE = 4096
#: of the higher ones so many upper bits, so that the tables stay in the cache
_UPPER_BITS = {8: 8, 16: 12, 32: 16}
#: tables of counts per strip
_COPIES = 4
#: maxima that a strip has room for at first
_ROOM = 4096
#: of a bound that the exact sums may exceed by rounding
_ROUNDING = 1e-9
#: noise this small beside the level is the rounding of the mean: numpy is asked for it
_ROUNDED_NOISE = 1e-7
#: in squares of the noise: an origin further than that from the mean costs digits
_FAR = 100.0


class CpuFinder:
    """Finds peaks in images (n_rows, n_cols) of one shape and type; keeps what memory it needs."""

    def __init__(
        self, settings: FastSettings, shape: tuple[int, int], dtype: np.dtype, threads: Threads
    ):
        self._settings, self._threads = settings, threads
        self._dtype = dtype
        n_rows, n_cols = shape
        self._strips = threads.pieces(n_rows)
        levels = settings.levels_dtype
        self._levels = np.empty(shape, levels)
        self._highest = np.empty(shape, levels)
        bits = 8 * levels.itemsize
        self._n_single = min(_N_SINGLE, 1 << bits)
        self._shift = bits - _UPPER_BITS[bits]
        n_places = self._n_single + (1 << _UPPER_BITS[bits])
        self._counts = np.empty((len(self._strips), _COPIES, n_places), np.int32)
        # of the first row of each strip, and of the last row
        self._rows = np.array([*(first for first, _ in self._strips), n_rows - 1])
        self._sums = np.empty((len(self._rows), n_cols))
        self._blocks = threads.pieces(n_cols, 256)
        self._edges = np.array([0, *(end for _, end in self._blocks)])
        #: sums of such integers fit into 32 bits, and are exact
        self._in_integers = (
            dtype.kind in "iu" and dtype.itemsize <= 2 and settings.smoothing_size < 1 << 15
        )
        self._extremes = np.empty((2, len(self._blocks), n_rows), dtype)

    def find(self, image: np.ndarray) -> Peaks | None:
        """Peaks of ``image``, read-only and in C order; None: trackpy is to have it.

        That is an image with pixels that are not finite.
        """
        settings = self._settings
        maximum = self._maximum(image)
        if maximum is None:
            return None
        if maximum == 0:
            return no_peaks(BLACK)
        scale = np.iinfo(settings.levels_dtype).max / maximum
        threshold = self._percentile(self._quantise(image, scale))
        if math.isnan(threshold):
            return no_peaks(BLACK)
        places = self._maxima(threshold)
        if isinstance(places, str):
            return no_peaks(places)
        return Peaks(self._refine(image, places), scale)

    def background(self, image: np.ndarray) -> tuple[Any, Any]:
        """Mean and standard deviation of the pixels of ``image`` that are far from any signal."""
        if self._dtype == np.float32:
            return self._gathered(image)  # sums of numpy in float32 are not to be had otherwise
        if self._dtype.itemsize <= 2:
            sums = self._background_sums(noise.integer_sums, image)
            n_pixels, total, squares = (sum(int(s) for s in column) for column in sums)
            if not n_pixels:
                return np.nan, np.nan
            variance = (n_pixels * squares - total * total) / n_pixels**2
            return total / n_pixels, math.sqrt(variance) if n_pixels > 1 else np.nan
        n_pixels, level, noise_squared = self._mean_and_variance(image, float(image[0, 0]))
        if n_pixels > 1 and (level - float(image[0, 0])) ** 2 > _FAR * noise_squared:
            n_pixels, level, noise_squared = self._mean_and_variance(image, level)
        if not n_pixels:
            return np.nan, np.nan
        if n_pixels == 1 or math.sqrt(noise_squared) <= _ROUNDED_NOISE * abs(level):
            return self._gathered(image)
        return level, math.sqrt(noise_squared)

    def _mean_and_variance(self, image: np.ndarray, origin: float) -> tuple[int, float, float]:
        """Of the background, with its number of pixels; exact where ``origin`` is near the mean."""
        sums = self._background_sums(noise.float_sums, image, origin)
        n_pixels, total, squares = (sum(column) for column in sums)
        offset = total / max(n_pixels, 1)
        return n_pixels, origin + offset, max(squares / max(n_pixels, 1) - offset * offset, 0.0)

    def _maximum(self, image: np.ndarray) -> float | None:
        """Of the bandpassed image, 0 where it is below the threshold; None: not finite."""
        settings = self._settings
        half, reach = settings.smoothing_size // 2, settings.weights.size // 2
        highest, lowest = self._extremes

        def add_columns(i: int) -> None:
            first, end = self._blocks[i]
            bandpass.column_sums(
                image, half, self._rows, first, end, reach, self._sums, highest[i], lowest[i]
            )

        self._threads.map(add_columns, range(len(self._blocks)))
        if self._dtype.kind == "f" and not np.isfinite(self._sums[-1]).all():
            return None
        bounds = self._bounds(highest, lowest.min())
        of_rows = bounds.max(axis=0)
        strips = self._strips
        # what may have the maximum comes first, and spares the others work
        order = sorted(range(len(strips)), key=lambda i: -of_rows[slice(*strips[i])].max())
        found = [np.nextafter(settings.threshold, -np.inf)]

        def search(i: int) -> None:
            weights, size = settings.weights, settings.smoothing_size
            if self._in_integers:
                best = bandpass_integers.strip_maximum(
                    image, weights, size, bounds, self._edges, max(found), *strips[i]
                )
            else:
                best = bandpass.strip_maximum(
                    image, weights, size, self._sums[i].copy(), of_rows, max(found), *strips[i]
                )
            found.append(best)

        self._threads.map(search, order)
        maximum = max(found)
        if not math.isfinite(maximum):
            return None
        return maximum if maximum >= settings.threshold else 0.0

    def _bounds(self, highest: np.ndarray, lowest: np.generic) -> np.ndarray:
        """What no bandpassed pixel exceeds, (n_blocks, n_rows), from the ``highest`` pixels there.

        The Gaussian is not above that of the rows' highest pixels, nor the boxcar below the lowest
        pixel of the image.
        """
        weights = self._settings.weights
        padded = np.pad(highest.astype(float), ((0, 0), (weights.size // 2,) * 2))
        rows = np.lib.stride_tricks.sliding_window_view(padded, weights.size, axis=1)
        gaussian = np.maximum(rows @ weights, 0.0)
        # integers are cut towards zero, by one at most
        boxcar = float(lowest) + (1.0 if self._dtype.kind == "i" else 0.0)
        return gaussian - min(boxcar, 0.0) + _ROUNDING * (gaussian + abs(boxcar))

    def _quantise(self, image: np.ndarray, scale: float) -> np.ndarray:
        """Fill the levels and what is highest around each in its row.

        Returns how often levels occur, see `bandpass.quantise_strip`.
        """
        settings = self._settings
        self._counts[:] = 0

        def quantise(i: int) -> None:
            kernel, columns = bandpass.quantise_strip, self._sums[i].copy()
            if self._in_integers:
                kernel, columns = bandpass_integers.quantise_strip, columns.astype(np.int32)
            kernel(
                image, settings.weights, settings.smoothing_size, columns,
                settings.threshold, scale, *self._strips[i], self._levels,
                self._n_single, self._shift, self._counts[i], settings.box, self._highest,
            )  # fmt: skip

        self._threads.map(quantise, range(len(self._strips)))
        return self._counts.sum(axis=(0, 1), dtype=np.int64)

    def _percentile(self, counts: np.ndarray) -> float:
        """As `numpy.percentile` of the levels that are not zero; NaN: there are none."""
        counts[0] = 0
        ends = np.cumsum(counts)
        n = int(ends[-1])
        if not n:
            return math.nan
        rank = (n - 1) * (self._settings.percentile / 100)
        below = math.floor(rank)
        low = self._level_of_rank(counts, ends, below)
        high = self._level_of_rank(counts, ends, min(below + 1, n - 1))
        part = rank - below
        # rounded as numpy does
        if part >= 0.5:
            return high - (high - low) * (1 - part)
        return low + (high - low) * part

    def _level_of_rank(self, counts: np.ndarray, ends: np.ndarray, rank: int) -> int:
        """The level that has ``rank`` others before it, zeros left out."""
        place = int(np.searchsorted(ends, rank, side="right"))
        upper = place - self._n_single
        if upper < 0:
            return place
        low_counts = np.zeros((len(self._strips), 1 << self._shift), np.int64)

        def count(i: int) -> None:
            bandpass.count_low_bits(
                self._levels, upper, self._shift, *self._strips[i], low_counts[i]
            )

        self._threads.map(count, range(len(self._strips)))
        low = low_counts.sum(axis=0)
        low[: max(0, self._n_single - (upper << self._shift))] = 0  # they were counted singly
        within = rank - int(ends[place] - counts[place])
        return (upper << self._shift) + int(np.searchsorted(np.cumsum(low), within, side="right"))

    def _maxima(self, threshold: float) -> np.ndarray | str:
        """Rows and columns of the maxima, (n, 2), or why there are none."""
        shape = self._levels.shape
        rows, cols = self._settings.inner((shape[0], shape[1]))

        def search(strip: tuple[int, int]) -> np.ndarray:
            within = max(strip[0], rows[0]), min(strip[1], rows[1])
            return self._maxima_within(threshold, within, cols)

        found = np.concatenate(self._threads.map(search, self._strips))
        if len(found):
            return found
        anywhere = self._maxima_within(threshold, (0, shape[0]), (0, shape[1]))
        return ALL_IN_MARGINS if len(anywhere) else NO_MAXIMA

    def _maxima_within(
        self, threshold: float, rows: tuple[int, int], cols: tuple[int, int]
    ) -> np.ndarray:
        found = np.empty((_ROOM, 2), np.int64)
        while True:
            n = maxima.maxima_of_strip(
                self._levels, self._highest, threshold, self._settings.box, rows, cols, found
            )
            if n <= len(found):
                return found[:n]
            found = np.empty((n, 2), np.int64)

    def _refine(self, image: np.ndarray, places: np.ndarray) -> np.ndarray:
        settings = self._settings
        rows = np.empty((len(places), len(COLUMNS)))

        def work(piece: tuple[int, int]) -> None:
            refine(
                image, self._levels, settings.radius, places, settings.max_iterations,
                settings.disk, *settings.disk_functions, rows, *piece,
            )  # fmt: skip

        self._threads.map(work, self._threads.pieces(len(places)))
        return rows

    def _background_sums(self, kernel: Any, image: np.ndarray, *origin: float) -> list[tuple]:
        reaches = self._settings.reaches
        sums = self._threads.map(
            lambda strip: kernel(self._levels, image, reaches, *origin, *strip), self._strips
        )
        return list(zip(*sums, strict=True))

    def _gathered(self, image: np.ndarray) -> tuple[Any, Any]:
        reaches, n_cols = self._settings.reaches, image.shape[1]

        def collect(strip: tuple[int, int]) -> np.ndarray:
            out = np.empty((strip[1] - strip[0]) * n_cols, image.dtype)
            return out[: noise.gather(self._levels, image, reaches, *strip, out)]

        pixels = np.concatenate(self._threads.map(collect, self._strips))
        if not len(pixels):
            return np.nan, np.nan
        return pixels.mean(), pixels.std() if len(pixels) > 1 else np.nan
