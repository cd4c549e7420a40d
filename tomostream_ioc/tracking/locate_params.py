"""Parameters of locate, and which of them the fast path takes."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from trackpy.masks import binary_mask, cosmask, gaussian_kernel, r_squared_mask, sinmask

from tomostream_ioc.errors import ParameterError

#: the integers that bandpassed images become, by name
Quantisation = Literal["uint8", "uint16"]

#: one number, or one per axis
PerAxis = float | tuple[float, ...]

#: pixel types of the fast path; of the others, 64-bit integers overflow in trackpy as well
_DTYPES = frozenset(("float32", "float64", "uint8", "uint16", "uint32", "int16", "int32"))


@dataclass(frozen=True)
class LocateParams:
    """The keywords of `trackpy.locate`, with its defaults, and ``quantize``, which it has not."""

    diameter: PerAxis
    minmass: float | None = None
    maxsize: float | None = None
    separation: PerAxis | None = None
    noise_size: PerAxis = 1
    smoothing_size: PerAxis | None = None
    threshold: float | None = None
    invert: bool = False
    percentile: float = 64
    topn: int | None = None
    preprocess: bool = True
    max_iterations: int = 10
    filter_before: bool | None = None
    filter_after: bool | None = None
    characterize: bool = True
    engine: str = "auto"
    quantize: Quantisation | None = None

    def __post_init__(self) -> None:
        if self.quantize not in (None, "uint8", "uint16"):
            raise ParameterError(
                f"quantize={self.quantize!r}: give 'uint8', 'uint16' or None (as trackpy does)"
            )

    def keywords(self) -> dict[str, Any]:
        return asdict(self)

    def for_trackpy(self) -> dict[str, Any]:
        """Keywords for `trackpy.locate`."""
        keywords = asdict(self)
        del keywords["quantize"]
        return keywords


@dataclass(frozen=True)
class FastSettings:
    """What the fast path needs to know, for images of one shape and type."""

    diameter: int
    separation: float
    noise_size: float
    smoothing_size: int
    threshold: float
    percentile: float
    max_iterations: int
    minmass: float
    maxsize: float | None
    topn: int | None
    characterize: bool
    levels_dtype: np.dtype

    @property
    def radius(self) -> int:
        return self.diameter // 2

    @property
    def box(self) -> int:
        """Side of the square in which a peak is the highest pixel, in pixels."""
        return int(2 * self.separation / np.sqrt(2))

    @cached_property
    def weights(self) -> np.ndarray:
        """Of the Gaussian, (n,)."""
        return gaussian_kernel(self.noise_size) if self.noise_size > 0 else np.ones(1)

    @cached_property
    def disk(self) -> np.ndarray:
        """Rows and columns of the pixels of a peak from the corner of its square, (2, n_disk)."""
        return np.array(binary_mask((self.radius, self.radius), 2).nonzero(), np.int64)

    @cached_property
    def disk_functions(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """r squared, cos 2 theta and sin 2 theta of the pixels of ``disk``."""
        radii = self.radius, self.radius
        mask = binary_mask(radii, 2)
        squared = r_squared_mask(radii, 2)[mask].astype(np.int64)
        return squared, cosmask(radii)[mask], sinmask(radii)[mask]

    @cached_property
    def reaches(self) -> np.ndarray:
        """How far each row of the disk reaches to each side, (diameter,)."""
        return (binary_mask((self.radius, self.radius), 2).sum(axis=1) - 1) // 2

    def inner(self, shape: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
        """First and end of the rows, and of the columns, in which a peak's maximum may lie."""
        margin = max(self.radius, self.separation // 2 - 1, self.smoothing_size // 2)
        first = math.ceil(margin)
        rows, cols = ((first, max(first, math.floor(n - margin - 1) + 1)) for n in shape)
        return rows, cols


def fast_settings(params: LocateParams, image: Any) -> FastSettings | str:
    """Settings of the fast path for ``image``, or why trackpy is to take it, in a few words."""
    if not isinstance(image, np.ndarray) or isinstance(image, (np.ma.MaskedArray, np.matrix)):
        return "not a plain array"
    if image.ndim != 2:
        return f"{image.ndim}-dimensional image"
    if image.dtype.name not in _DTYPES or not image.dtype.isnative:
        return f"pixels of type {image.dtype}"
    # below 5 pixels trackpy suspects a colour image, and says so
    if min(image.shape) < 5:
        return "image of less than 5 pixels"
    if not params.preprocess:
        return "preprocess=False"
    if params.invert:
        return "invert=True"
    if params.filter_before is not None or params.filter_after is not None:
        return "filter_before or filter_after"
    if params.engine not in ("auto", "numba"):
        return f"engine={params.engine!r}"
    if params.maxsize is not None and not params.characterize:
        return "maxsize without characterize"
    return _settings(params, image.dtype)


def _settings(params: LocateParams, dtype: np.dtype) -> FastSettings | str:
    given = {
        name: _isotropic(getattr(params, name))
        for name in ("diameter", "separation", "noise_size", "smoothing_size")
    }
    for name, value in given.items():
        if value is None and getattr(params, name) is not None:
            return f"{name}={getattr(params, name)!r}"
    diameter, noise_size = int(given["diameter"] or 0), given["noise_size"]
    separation, smoothing = given["separation"], given["smoothing_size"]
    separation = diameter + 1 if separation is None else separation
    smoothing = diameter if smoothing is None else smoothing
    is_float = dtype.kind == "f"
    threshold = params.threshold
    if threshold is None:
        threshold = 1 / 255.0 if is_float else 1
    numbers = (threshold, params.percentile, params.max_iterations, params.minmass or 0)
    if not all(_is_number(n) for n in (*numbers, params.maxsize or 0, params.topn or 1)):
        return "a parameter that is no number"
    usual = (
        diameter >= 3 and diameter % 2 == 1
        and smoothing >= 3 and smoothing % 2 == 1
        and noise_size is not None and 0 <= noise_size < smoothing
        and separation >= 2
        and threshold >= 0
        and 0 <= params.percentile <= 100
        and params.max_iterations >= 1
        and (params.topn is None or params.topn >= 1)
    )  # fmt: skip
    if not usual or noise_size is None:
        return "unusual parameters"
    levels = np.dtype(params.quantize or (np.uint8 if is_float else dtype))
    return FastSettings(
        diameter=diameter, separation=separation, noise_size=noise_size,
        smoothing_size=int(smoothing), threshold=float(threshold),
        percentile=params.percentile, max_iterations=int(params.max_iterations),
        minmass=params.minmass or 0, maxsize=params.maxsize, topn=params.topn,
        characterize=bool(params.characterize), levels_dtype=levels,
    )  # fmt: skip


def _isotropic(value: PerAxis | None) -> float | None:
    """The one number for both axes; None where there is none."""
    if isinstance(value, Iterable):
        values = tuple(value)
        if len(values) != 2 or values[0] != values[1]:
            return None
        value = values[0]
    return value if value is not None and _is_number(value) and math.isfinite(value) else None


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float, np.integer, np.floating)) and not math.isnan(value)
