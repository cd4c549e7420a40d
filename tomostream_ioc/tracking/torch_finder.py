"""Peaks of many images at once with torch: for GPUs, though it runs on any device of torch."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from tomostream_ioc.tracking.kernels.refine import SHIFT
from tomostream_ioc.tracking.locate_params import FastSettings
from tomostream_ioc.tracking.peak_table import (
    ALL_IN_MARGINS,
    BLACK,
    NO_MAXIMA,
    Peaks,
    no_peaks,
)
from tomostream_ioc.tracking.pixel_mask import PixelMask

#: integer types of torch as wide as those it knows little of, and how many bits they have
_UNSIGNED = {
    torch.uint16: (torch.int16, torch.int32, 16),
    torch.uint32: (torch.int32, torch.int64, 32),
}
#: levels of more bits are sorted, not counted
_COUNTED_BITS = 16


class Found(NamedTuple):
    """What was found in one image. ``peaks`` is None where pixels are not finite."""

    peaks: Peaks | None
    level: float
    noise: float


class TorchFinder:
    """Finds peaks in images (k, n_rows, n_cols) of one shape and type, in float64.

    The boxcar of a float image is summed in another order than trackpy's, so that a level of the
    bandpassed image can differ by one where it is within rounding of the next. Peaks are the same
    ones but for such ties, and their columns mostly to the last digits.
    """

    def __init__(
        self,
        settings: FastSettings,
        dtype: np.dtype,
        device: torch.device | str,
        mask: PixelMask | None = None,
    ):
        self._settings, self._dtype = settings, dtype
        self._device = torch.device(device)
        self._n_levels = int(np.iinfo(settings.levels_dtype).max) + 1
        narrow = {8: torch.uint8, 16: torch.int32}
        bits = 8 * settings.levels_dtype.itemsize
        self._levels_dtype = narrow.get(bits, torch.int64)
        self._counted = bits <= _COUNTED_BITS
        self._disk = self._put(settings.disk)
        self._disk_functions = [self._put(f).double() for f in settings.disk_functions]
        self._mask = None
        if mask is not None:
            sources = self._put(mask.sources)
            self._mask = self._put(mask.places), sources.clamp(min=0), (sources >= 0).double()

    def find(self, frames: Tensor) -> list[Found]:
        """What is in each of ``frames`` (k, n_rows, n_cols), on any device."""
        pixels = _as_float64(frames.to(self._device, non_blocking=True))  # (k, n_rows, n_cols)
        pixels = self._repaired(pixels)
        settings = self._settings
        smooth = self._bandpassed(pixels)
        finite = torch.isfinite(pixels).all(dim=2).all(dim=1)
        highest = smooth.amax(dim=(1, 2))  # (k,)
        top = float(np.iinfo(settings.levels_dtype).max)
        # of a number by a tensor torch makes a reciprocal, and the highest pixel misses its level
        scale = torch.where(highest > 0, torch.full_like(highest, top) / highest, 1.0)
        levels = (smooth * scale[:, None, None]).clamp(0, top).to(self._levels_dtype)
        del smooth
        threshold = self._percentile(levels)  # (k,), NaN where all is black
        is_maximum = (levels == self._box_maximum(levels)) & (levels > threshold[:, None, None])
        places = is_maximum.nonzero()  # (n, 3): frame, row, column
        n_anywhere = torch.bincount(places[:, 0], minlength=len(frames))
        (first_y, end_y), (first_x, end_x) = settings.inner((levels.shape[1], levels.shape[2]))
        y, x = places[:, 1], places[:, 2]
        places = places[(y >= first_y) & (y < end_y) & (x >= first_x) & (x < end_x)]
        rows = self._refined(pixels, levels, places).cpu().numpy()
        level, noise = self._background(pixels, levels) if settings.characterize else (scale, scale)
        per_frame = torch.stack(
            [finite.double(), threshold, n_anywhere.double(), scale, level, noise]
        )
        frame_of = places[:, 0].cpu().numpy()
        return [
            _found(rows[frame_of == i], *values) for i, values in enumerate(per_frame.T.tolist())
        ]

    def _put(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(self._device)

    def _repaired(self, pixels: Tensor) -> Tensor:
        if self._mask is None:
            return pixels
        places, sources, weights = self._mask
        flat = pixels.clone().reshape(len(pixels), -1)
        values = (flat[:, sources] * weights).sum(dim=2) / weights.sum(dim=1)
        flat[:, places] = values.round() if self._dtype.kind in "iu" else values
        return flat.reshape(pixels.shape)

    def _bandpassed(self, pixels: Tensor) -> Tensor:
        """Gaussian minus boxcar, 0 below the threshold."""
        smooth = pixels
        for axis in (1, 2):
            smooth = _correlated(smooth, self._settings.weights.tolist(), axis)
        box = pixels
        for axis in (1, 2):
            box = self._as_pixels(_boxcar(box, self._settings.smoothing_size, axis))
        smooth = smooth - box
        return torch.where(smooth >= self._settings.threshold, smooth, 0.0)

    def _as_pixels(self, values: Tensor) -> Tensor:
        """Rounded to the type of the image, as what scipy writes is."""
        if self._dtype.kind in "iu":
            return values.trunc_()
        return values.float().double() if self._dtype == np.float32 else values

    def _percentile(self, levels: Tensor) -> Tensor:
        """Of the levels that are not zero, (k,); NaN: there are none."""
        if not self._counted:
            return torch.stack([self._percentile_by_sorting(one) for one in levels])
        k = len(levels)
        offsets = torch.arange(k, device=self._device)[:, None] * self._n_levels
        places = levels.reshape(k, -1).long() + offsets
        counts = torch.bincount(places.reshape(-1), minlength=k * self._n_levels)
        counts = counts.reshape(k, self._n_levels)
        counts[:, 0] = 0
        ends = counts.cumsum(dim=1)  # (k, n_levels)
        n = ends[:, -1]
        place = (n - 1).clamp(min=0) * (self._settings.percentile / 100)
        below = place.floor()
        ranks = torch.stack([below, torch.minimum(below + 1, (n - 1).clamp(min=0))], dim=1)
        values = torch.searchsorted(ends, ranks.long(), right=True).double()  # (k, 2)
        value = values[:, 0] + (values[:, 1] - values[:, 0]) * (place - below)
        return torch.where(n > 0, value, torch.nan)

    def _percentile_by_sorting(self, levels: Tensor) -> Tensor:
        values = levels[levels != 0].sort().values
        if not len(values):
            return torch.full((), torch.nan, dtype=torch.float64, device=self._device)
        place = (len(values) - 1) * (self._settings.percentile / 100)
        below = int(place)
        low, high = values[below].double(), values[min(below + 1, len(values) - 1)].double()
        return low + (high - low) * (place - below)

    def _box_maximum(self, levels: Tensor) -> Tensor:
        """The highest level of the box around each pixel; outside the image lie zeros."""
        box = self._settings.box
        before = (box - 1) // 2
        for axis in (1, 2):
            padding = [0, 0, 0, 0]
            padding[4 - 2 * axis : 6 - 2 * axis] = before, box - 1 - before
            line = torch.nn.functional.pad(levels, padding)
            n = 1
            while 2 * n <= box:
                line = torch.maximum(_from(line, axis, 0, -n), _from(line, axis, n))
                n *= 2
            length = levels.shape[axis]
            levels = torch.maximum(line.narrow(axis, 0, length), line.narrow(axis, box - n, length))
        return levels

    def _refined(self, pixels: Tensor, levels: Tensor, places: Tensor) -> Tensor:
        """(n, 7) of the peaks at ``places`` (n, 3), see `kernels.refine`."""
        radius = self._settings.radius
        _, n_rows, n_cols = levels.shape
        dy, dx = self._disk
        frame, y, x = places.T
        flat_levels, flat_pixels = levels.reshape(-1), pixels.reshape(-1)

        def patches() -> Tensor:
            corner = (frame * n_rows + y - radius) * n_cols + x - radius
            return corner[:, None] + dy * n_cols + dx  # (n, n_disk)

        where = patches()
        moving = torch.ones_like(y, dtype=torch.bool)
        center_y, center_x = y.double(), x.double()
        for _ in range(self._settings.max_iterations):
            where = torch.where(moving[:, None], patches(), where)
            level = flat_levels[where].double()
            mass = level.sum(dim=1)
            off_y = (level * dy).sum(dim=1) / mass - radius
            off_x = (level * dx).sum(dim=1) / mass - radius
            center_y = torch.where(moving, off_y + y, center_y)
            center_x = torch.where(moving, off_x + x, center_x)
            moving = moving & ((off_y.abs() >= SHIFT) | (off_x.abs() >= SHIFT))
            step_y = (off_y > SHIFT).long() - (off_y < -SHIFT).long()
            step_x = (off_x > SHIFT).long() - (off_x < -SHIFT).long()
            y = torch.where(moving, (y + step_y).clamp(radius, n_rows - radius - 1), y)
            x = torch.where(moving, (x + step_x).clamp(radius, n_cols - radius - 1), x)
        level = flat_levels[where].double()
        mass = level.sum(dim=1)
        r_squared, cos, sin = self._disk_functions
        size = ((level * r_squared).sum(dim=1) / mass).sqrt()
        anisotropy = torch.hypot((level * cos).sum(dim=1), (level * sin).sum(dim=1))
        middle = level[:, (dy == radius) & (dx == radius)].sum(dim=1)
        columns = [
            center_y, center_x, mass, size, anisotropy / (mass - middle + 1e-6),
            level.amax(dim=1), flat_pixels[where].sum(dim=1),
        ]  # fmt: skip
        return torch.stack(columns, dim=1)

    def _background(self, pixels: Tensor, levels: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the pixels far from any signal, (k,) each."""
        reaches = self._settings.reaches.tolist()
        radius, n_rows = self._settings.radius, levels.shape[1]
        padded = torch.nn.functional.pad(levels != 0, [radius, radius, 0, 0])
        width = levels.shape[2]
        near = torch.zeros_like(levels, dtype=torch.bool)
        spread = torch.zeros_like(near)
        for reach in range(radius + 1):
            spread |= padded[:, :, radius - reach :][:, :, :width]
            spread |= padded[:, :, radius + reach :][:, :, :width]
            for dy in range(-radius, radius + 1):
                if reaches[dy + radius] == reach and abs(dy) < n_rows:
                    first, end = max(0, dy), n_rows + min(0, dy)
                    near[:, first:end] |= spread[:, first - dy : end - dy]
        background = ~near
        n = background.sum(dim=(1, 2)).double()
        level = torch.where(background, pixels, 0.0).sum(dim=(1, 2)) / n  # NaN where n is 0
        deviation = torch.where(background, pixels - level[:, None, None], 0.0)
        noise = (deviation.square_().sum(dim=(1, 2)) / n).sqrt()
        return level, torch.where(n > 1, noise, torch.nan)


def _found(
    rows: np.ndarray, finite: float, threshold: float, n: float, scale: float, *background: float
) -> Found:
    if not finite:
        return Found(None, np.nan, np.nan)
    if np.isnan(threshold):
        return Found(no_peaks(BLACK), *background)
    if not len(rows):
        return Found(no_peaks(ALL_IN_MARGINS if n else NO_MAXIMA), *background)
    return Found(Peaks(rows, scale), *background)


def _as_float64(frames: Tensor) -> Tensor:
    if frames.dtype in _UNSIGNED:
        # the same bits as a signed type, which every device can convert
        signed, wide, bits = _UNSIGNED[frames.dtype]
        return (frames.view(signed).to(wide) & ((1 << bits) - 1)).double()
    return frames.double()


def _from(values: Tensor, axis: int, first: int, end: int | None = None) -> Tensor:
    return values[:, first:end] if axis == 1 else values[:, :, first:end]


def _correlated(values: Tensor, weights: list[float], axis: int) -> Tensor:
    """With symmetric weights; outside lie zeros.

    In scipy's order, and without fused multiply-add: equal to the last bit.
    """
    reach, length = len(weights) // 2, values.shape[axis]
    padding = [0, 0, 0, 0]
    padding[4 - 2 * axis : 6 - 2 * axis] = reach, reach
    padded = torch.nn.functional.pad(values, padding)
    out = values * weights[reach]
    for j in range(reach, 0, -1):
        pair = padded.narrow(axis, reach - j, length) + padded.narrow(axis, reach + j, length)
        out += pair.mul_(weights[reach - j])
    return out


def _boxcar(values: Tensor, size: int, axis: int) -> Tensor:
    """Running mean of ``size`` pixels; outside lies the edge's pixel."""
    half = size // 2
    length = values.shape[axis]
    index = torch.arange(-half, length + half, device=values.device).clamp(0, length - 1)
    sums = values.index_select(axis, index).cumsum(dim=axis)
    out = _from(sums, axis, size - 1).clone()
    _from(out, axis, 1).sub_(_from(sums, axis, 0, -size))
    # by a number, torch on CUDA would multiply by 1 / size, and integers would be cut to one less
    return out.div_(torch.full((), size, dtype=out.dtype, device=out.device))
