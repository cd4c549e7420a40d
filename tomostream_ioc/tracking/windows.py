"""Crystal maps by window: no tracks, one window per peak of the whole scan.

The newer method: the darkest and the brightest value of each pixel over all points; peaks are
located on their difference; a peak's map is the mean in its window of each point's image, less
that of the darkest image. Two passes over the images: `ExtremeImages`, then `WindowMaps`. Both take
one image at a time and keep none, so that each can follow a live scan; `window_maps` does both.

The minimum over many noisy images is low, by about three standard deviations of a pixel's noise
over 200 points: a map stands on a floor, the same under all of its points.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pandas as pd

from tomostream_ioc.errors import TrackingError
from tomostream_ioc.tracking.background import average_frames
from tomostream_ioc.tracking.grid import ScanGrid
from tomostream_ioc.tracking.jit import kernel
from tomostream_ioc.tracking.maps import MapStack

#: as the original: 51 pixels wide windows around the 100 brightest peaks
HALF_WIDTH_PX = 25
BRIGHTEST = 100


class ExtremeImages:
    """Darkest and brightest value of each pixel over the points that came so far.

    Each point is one image, the mean of its frames. Pixels that are NaN or infinite are left out.
    """

    def __init__(self) -> None:
        self._low: np.ndarray | None = None
        self._high: np.ndarray | None = None
        self.n_points = 0

    def add(self, images: np.ndarray) -> None:
        """One point: (n_frames, n_rows, n_cols), or its mean (n_rows, n_cols).

        Raises TrackingError: another shape than the points before, or no image.
        """
        image = _point_image(images)
        if self._low is None or self._high is None:
            self._low = np.full(image.shape, np.inf, np.float32)
            self._high = np.full(image.shape, -np.inf, np.float32)
        _check_same(image, self._low)
        _widen(image, self._low, self._high)
        self.n_points += 1

    def minimum(self) -> np.ndarray:
        """(n_rows, n_cols) float32; 0 where no point has a finite value."""
        return np.where(np.isfinite(self._seen()[0]), self._seen()[0], np.float32(0))

    def maximum(self) -> np.ndarray:
        """(n_rows, n_cols) float32; 0 where no point has a finite value."""
        return np.where(np.isfinite(self._seen()[1]), self._seen()[1], np.float32(0))

    def contrast(self) -> np.ndarray:
        """maximum - minimum: bright where a crystal shines at some points and not at others."""
        return self.maximum() - self.minimum()

    def _seen(self) -> tuple[np.ndarray, np.ndarray]:
        if self._low is None or self._high is None:
            raise TrackingError("No point has come yet: there is no minimum and no maximum image.")
        return self._low, self._high


class WindowMaps:
    """Mean intensity in a window around each peak, point by point.

    Parameters
    ----------
    grid : the scan's points
    peaks : columns y and x in pixels, and mass where only the brightest are wanted
    minimum : (n_rows, n_cols), what is subtracted: `ExtremeImages.minimum`
    half_width_px : a window has 2 half_width_px + 1 pixels a side, less at the image's edges
    n_brightest : so many peaks of the largest mass are kept; None keeps all, in the table's order

    Raises TrackingError: columns are missing, or a position that isn't on the image.
    """

    def __init__(
        self,
        grid: ScanGrid,
        peaks: pd.DataFrame,
        minimum: np.ndarray,
        half_width_px: int = HALF_WIDTH_PX,
        n_brightest: int | None = BRIGHTEST,
    ):
        needed = {"y", "x"} | ({"mass"} if n_brightest is not None else set())
        if not needed <= set(peaks.columns):
            missing = ", ".join(sorted(needed - set(peaks.columns)))
            raise TrackingError(f"The table of peaks has no column {missing}.")
        if half_width_px < 0:
            raise TrackingError(f"half_width_px is {half_width_px}: 0 or more is needed.")
        if n_brightest is not None:
            peaks = peaks.sort_values("mass", ascending=False, kind="stable").head(n_brightest)
        self.grid = grid
        self.peaks = peaks.reset_index(drop=True)
        self._minimum = _point_image(minimum)
        n_rows, n_cols = self._minimum.shape
        y, x = (self.peaks[name].to_numpy(np.float64) for name in ("y", "x"))
        if not np.all((y > -0.5) & (y < n_rows - 0.5) & (x > -0.5) & (x < n_cols - 0.5)):
            raise TrackingError(f"A peak lies outside the {n_rows} x {n_cols} pixels of the image.")
        row, col = np.rint(y).astype(np.int64), np.rint(x).astype(np.int64)
        #: first row, end row, first column, end column of each window
        self._windows = np.stack(
            [
                np.maximum(row - half_width_px, 0),
                np.minimum(row + half_width_px + 1, n_rows),
                np.maximum(col - half_width_px, 0),
                np.minimum(col + half_width_px + 1, n_cols),
            ],
            axis=1,
        )
        self._dark = _window_means(self._minimum, self._windows)
        self._maps = np.zeros((len(row), grid.n_points))
        self._seen = np.zeros(grid.n_points, bool)
        self.outside = 0  #: points that came with a number outside the grid

    def add(self, frame: int, images: np.ndarray) -> np.ndarray:
        """The point of seq_num ``frame`` (from 1): its frames, or their mean, as `ExtremeImages`.

        Returns the windows' intensities, (n_peaks,) float64. Raises TrackingError: another shape.
        """
        image = _point_image(images)
        _check_same(image, self._minimum)
        intensities = _window_means(image, self._windows) - self._dark
        flat = int(self.grid.flat_indices(np.array([frame]))[0])
        if flat < 0:
            self.outside += 1
        else:
            self._maps[:, flat] = np.nan_to_num(intensities)
            self._seen[flat] = True
        return intensities

    def seen(self) -> np.ndarray:
        """True where a point has come, grid.shape."""
        return self._seen.reshape(self.grid.shape).copy()

    def maps(self) -> MapStack:
        """Maps of the peaks, in the order of ``peaks``; 0 at points that have not come."""
        n = len(self.peaks)
        y, x = (self.peaks[name].to_numpy(np.float64) for name in ("y", "x"))
        maps = self._maps.reshape(n, *self.grid.shape).copy()
        return MapStack(maps, np.arange(n), y, x, self.grid)


def window_maps(
    points: Callable[[], Iterable[np.ndarray]],
    grid: ScanGrid,
    locate: Callable[[np.ndarray], pd.DataFrame],
    half_width_px: int = HALF_WIDTH_PX,
    n_brightest: int | None = BRIGHTEST,
) -> MapStack:
    """Both passes over a scan that is on disk or in memory.

    ``points`` is called twice and gives the points' images in order of seq_num, as `ExtremeImages`
    takes them; ``locate`` finds the peaks on the contrast image, for instance
    ``functools.partial(tracking.locate, diameter=15)``.
    """
    extremes = ExtremeImages()
    for images in points():
        extremes.add(images)
    peaks = locate(extremes.contrast())
    windows = WindowMaps(grid, peaks, extremes.minimum(), half_width_px, n_brightest)
    for frame, images in enumerate(points(), start=1):
        windows.add(frame, images)
    return windows.maps()


def _point_image(images: np.ndarray) -> np.ndarray:
    """(n_rows, n_cols) in a type that the kernels take without a copy where that is possible."""
    array: Any = np.asarray(images)
    if array.ndim != 2:
        return average_frames(array)
    if array.dtype.kind not in "uif" or not array.dtype.isnative or array.dtype.itemsize == 16:
        return average_frames(array)
    if array.dtype == np.float16:
        array = array.astype(np.float32)
    view = array.view()
    view.flags.writeable = False  # one kernel for images that are read-only and that are not
    return view


def _check_same(image: np.ndarray, first: np.ndarray) -> None:
    if image.shape != first.shape:
        raise TrackingError(
            f"An image of {image.shape[0]} x {image.shape[1]} pixels in a scan of"
            f" {first.shape[0]} x {first.shape[1]}: the detector's settings changed on the way."
        )


@kernel
def _widen(image, low, high):
    """low = min(low, image), high = max(high, image), where the image is finite."""
    for i in range(image.shape[0]):
        for j in range(image.shape[1]):
            value = np.float32(image[i, j])
            good = abs(value) < np.float32(np.inf)
            low[i, j] = value if good and value < low[i, j] else low[i, j]
            high[i, j] = value if good and value > high[i, j] else high[i, j]


@kernel
def _window_means(image, windows):
    """Means of the finite pixels of each window, (n,) float64; NaN for a window without any."""
    means = np.empty(len(windows))
    for k in range(len(windows)):
        total = 0.0
        count = 0
        for i in range(windows[k, 0], windows[k, 1]):
            for j in range(windows[k, 2], windows[k, 3]):
                value = np.float64(image[i, j])
                if abs(value) < np.inf:
                    total += value
                    count += 1
        means[k] = total / count
    return means
