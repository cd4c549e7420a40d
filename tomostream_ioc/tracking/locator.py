"""locate: trackpy's, with a fast path for a detector's frames; Locator: the same for a stream."""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import trackpy

from tomostream_ioc.errors import ParameterError
from tomostream_ioc.tracking.cpu_finder import CpuFinder
from tomostream_ioc.tracking.locate_params import (
    FastSettings,
    LocateParams,
    PerAxis,
    Quantisation,
    fast_settings,
)
from tomostream_ioc.tracking.peak_table import peak_table
from tomostream_ioc.tracking.pixel_mask import PixelMask
from tomostream_ioc.tracking.threads import Threads

if TYPE_CHECKING:
    # a second to import, which is for those who have images on a GPU, or want them there
    import torch

    from tomostream_ioc.tracking.torch_finder import TorchFinder

#: of a GPU; they take about 300 bytes per pixel together
FRAMES_AT_ONCE = 8
_NOT_FINITE = "pixels that are not finite"
#: pixels of the image that kernels are compiled with
_WARM_UP_SHAPE = (64, 64)


@dataclass(frozen=True)
class LocateCounts:
    """How many images each path took, and why trackpy took those it did: reason -> images."""

    fast: int
    trackpy: int
    reasons: Mapping[str, int]


class Locator:
    """Locates peaks in one image after another, with the keywords of `trackpy.locate`.

        locator = Locator(15, percentile=80, separation=100)
        for frame in frames:
            peaks = locator.locate(frame)  # what trackpy.locate(frame, 15, ...) returns

    Two-dimensional images of real numbers of up to 32 bits, or of float64, with the same parameters
    for both axes go the fast way, fused kernels on ``n_threads`` threads; every other image, and
    every parameter that it does not know, goes to trackpy itself. The result is the same: all
    columns to the last bit but ``ep``, which is within 1e-9. `counts` says which way they went.

    It keeps memory for the last shape and type of image: about twice that of an 8-bit image, for
    float images, or of the image itself, for integers. One image at a time: other threads wait.

    Beyond trackpy:

    ``mask`` (n_rows, n_cols) bool: pixels to replace before all else, see `PixelMask`.

    ``quantize`` "uint8" or "uint16": the integers that the bandpassed image is scaled to. trackpy
    takes uint8 for float images, and the type of the image for integers, and scales the highest
    pixel to the highest integer. One hot pixel then presses weak peaks into a few levels, where
    they are lost: take "uint16", or a mask.

    ``device`` "cpu", or "cuda" or "cuda:1": see `TorchFinder`, whose results are near, not equal.
    """

    def __init__(
        self,
        diameter: PerAxis,
        minmass: float | None = None,
        maxsize: float | None = None,
        separation: PerAxis | None = None,
        noise_size: PerAxis = 1,
        smoothing_size: PerAxis | None = None,
        threshold: float | None = None,
        invert: bool = False,
        percentile: float = 64,
        topn: int | None = None,
        preprocess: bool = True,
        max_iterations: int = 10,
        filter_before: bool | None = None,
        filter_after: bool | None = None,
        characterize: bool = True,
        engine: str = "auto",
        *,
        mask: np.ndarray | None = None,
        quantize: Quantisation | None = None,
        device: str | torch.device = "cpu",
        n_threads: int | None = None,
    ):
        """``n_threads``: None for as many as numba would use.

        Raises ParameterError: ``mask``, ``quantize`` or ``device`` is not what it can be.
        """
        self.params = LocateParams(
            diameter, minmass, maxsize, separation, noise_size, smoothing_size, threshold, invert,
            percentile, topn, preprocess, max_iterations, filter_before, filter_after,
            characterize, engine, quantize,
        )  # fmt: skip
        self._mask = None if mask is None else PixelMask(mask)
        self._name = device
        self._device = _checked_device(device)
        self._threads = Threads(n_threads)
        self._lock = threading.Lock()
        self._key: Any = None
        self._finder: CpuFinder | None = None
        self._torch_key: Any = None
        self._torch_finder: TorchFinder | None = None
        self._repaired_image = np.empty((0, 0))
        self._fast = 0
        self._reasons: Counter[str] = Counter()

    @property
    def counts(self) -> LocateCounts:
        """Of all images so far."""
        reasons = dict(self._reasons)
        return LocateCounts(self._fast, sum(reasons.values()), MappingProxyType(reasons))

    def locate(self, raw_image: Any) -> pd.DataFrame:
        """The peaks of ``raw_image``, as `trackpy.locate` returns them.

        Warns and raises as trackpy does. Raises ParameterError: the mask is of another shape, or
        ``quantize`` is given and the image is one that only trackpy can take.
        """
        with self._lock:
            if self._device is None and not _is_cuda(raw_image):
                return self._on_cpu(raw_image)
            frame_no = getattr(raw_image, "frame_no", None)
            return self._on_device(_as_tensor(raw_image)[None], [frame_no])[0]

    def locate_many(self, frames: Any) -> list[pd.DataFrame]:
        """The peaks of each of ``frames`` (n, n_rows, n_cols), an array or tensor; see `locate`.

        On a GPU several are worked on at once, as many as `FRAMES_AT_ONCE`.
        """
        with self._lock:
            if self._device is None and not _is_cuda(frames):
                return [self._on_cpu(frame) for frame in frames]
            stack = _as_tensor(frames)
            numbers = [getattr(frame, "frame_no", None) for frame in frames]
            tables: list[pd.DataFrame] = []
            for i in range(0, len(stack), FRAMES_AT_ONCE):
                part = slice(i, i + FRAMES_AT_ONCE)
                tables += self._on_device(stack[part], numbers[part])
            return tables

    def warm_up(self, dtype: np.dtype | str) -> None:
        """Compile for images of ``dtype``, or load what was compiled: no image then waits for it.

        Takes up to a minute the first time. Nothing is counted.
        """
        image = np.zeros(_WARM_UP_SHAPE, dtype)
        image[30:33, 30:33] = 100
        params = LocateParams(
            5, characterize=self.params.characterize, quantize=self.params.quantize
        )
        with Locator(
            **params.keywords(), mask=np.zeros(_WARM_UP_SHAPE, bool), device=self._name,
            n_threads=1,
        ) as small:  # fmt: skip
            small.locate(image)

    def close(self) -> None:
        """End the threads."""
        self._threads.close()

    def __enter__(self) -> Locator:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _on_cpu(self, given: Any) -> pd.DataFrame:
        given = given.numpy() if _is_tensor(given) else given
        image = np.squeeze(given)
        frame_no = getattr(image, "frame_no", None)
        if self._mask is not None:
            given = image = self._repaired(image)
        settings = fast_settings(self.params, image)
        if isinstance(settings, str):
            return self._by_trackpy(given, frame_no, settings)
        pixels = np.ascontiguousarray(image).view(np.ndarray)
        pixels.flags.writeable = False  # a kernel is compiled for each: frames come as both
        finder = self._cpu_finder(settings, pixels)
        peaks = finder.find(pixels)
        if peaks is None:
            return self._by_trackpy(given, frame_no, _NOT_FINITE)
        self._fast += 1
        return peak_table(peaks, settings, lambda: finder.background(pixels), frame_no)

    def _cpu_finder(self, settings: FastSettings, pixels: np.ndarray) -> CpuFinder:
        key = pixels.shape, pixels.dtype
        if self._finder is None or self._key != key:
            shape = pixels.shape[0], pixels.shape[1]
            self._finder = CpuFinder(settings, shape, pixels.dtype, self._threads)
            self._key = key
        return self._finder

    def _repaired(self, image: np.ndarray) -> np.ndarray:
        if self._repaired_image.shape != image.shape or self._repaired_image.dtype != image.dtype:
            self._repaired_image = np.empty(image.shape, image.dtype)
        if self._mask is not None:
            self._mask.repaired(image, self._repaired_image)
        return self._repaired_image

    def _on_device(self, frames: torch.Tensor, numbers: list[Any]) -> list[pd.DataFrame]:
        """Tables of ``frames`` (k, n_rows, n_cols), by torch."""
        one = np.empty(frames.shape[1:], _numpy_dtype(frames))
        settings = fast_settings(self.params, one)
        if isinstance(settings, str):
            return [
                self._by_trackpy(self._host(frame), number, settings)
                for frame, number in zip(frames, numbers, strict=True)
            ]
        if self._mask is not None:
            self._mask.check(one.shape)
        device = self._device or frames.device
        if self._torch_finder is None or self._torch_key != (one.dtype, device):
            from tomostream_ioc.tracking.torch_finder import TorchFinder

            self._torch_finder = TorchFinder(settings, one.dtype, device, self._mask)
            self._torch_key = one.dtype, device
        tables = []
        for i, found in enumerate(self._torch_finder.find(frames)):
            if found.peaks is None:
                tables.append(self._by_trackpy(self._host(frames[i]), numbers[i], _NOT_FINITE))
                continue
            self._fast += 1
            background = found.level, found.noise
            tables.append(peak_table(found.peaks, settings, lambda b=background: b, numbers[i]))
        return tables

    def _host(self, frame: torch.Tensor) -> np.ndarray:
        image = frame.cpu().numpy()
        return image if self._mask is None else self._repaired(image)

    def _by_trackpy(self, image: Any, frame_no: Any, reason: str) -> pd.DataFrame:
        if self.params.quantize is not None:
            raise ParameterError(
                f"quantize={self.params.quantize!r} can't be done, as trackpy has to take this "
                f"image: {reason}"
            )
        self._reasons[reason] += 1
        table = trackpy.locate(image, **self.params.for_trackpy())
        if frame_no is not None and len(table) and "frame" not in table:
            table["frame"] = int(frame_no)
        return table


def locate(
    raw_image: Any,
    diameter: PerAxis,
    minmass: float | None = None,
    maxsize: float | None = None,
    separation: PerAxis | None = None,
    noise_size: PerAxis = 1,
    smoothing_size: PerAxis | None = None,
    threshold: float | None = None,
    invert: bool = False,
    percentile: float = 64,
    topn: int | None = None,
    preprocess: bool = True,
    max_iterations: int = 10,
    filter_before: bool | None = None,
    filter_after: bool | None = None,
    characterize: bool = True,
    engine: str = "auto",
    *,
    mask: np.ndarray | None = None,
    quantize: Quantisation | None = None,
    device: str | torch.device = "cpu",
) -> pd.DataFrame:
    """`trackpy.locate`, faster: the same arguments, the same table.

    For frame after frame take a `Locator`, which keeps its memory and threads, and see there for
    ``mask``, ``quantize`` and ``device``.
    """
    with Locator(
        diameter, minmass, maxsize, separation, noise_size, smoothing_size, threshold, invert,
        percentile, topn, preprocess, max_iterations, filter_before, filter_after, characterize,
        engine, mask=mask, quantize=quantize, device=device,
    ) as locator:  # fmt: skip
        return locator.locate(raw_image)


def _checked_device(device: str | torch.device) -> torch.device | None:
    """None: the CPU, by numba."""
    if device == "cpu":
        return None
    import torch

    try:
        checked = torch.device(device)
    except RuntimeError as error:
        raise ParameterError(f"device {device!r}: give cpu, cuda or cuda:0") from error
    if checked.type == "cpu":
        return None
    if checked.type == "cuda" and (checked.index or 0) >= torch.cuda.device_count():
        raise ParameterError(f"device {device!r} does not exist; give cpu")
    return checked


def _is_tensor(image: Any) -> bool:
    torch = sys.modules.get("torch")  # without, there are no tensors either
    return torch is not None and isinstance(image, torch.Tensor)


def _is_cuda(image: Any) -> bool:
    return _is_tensor(image) and image.is_cuda


def _as_tensor(image: Any) -> torch.Tensor:
    if _is_tensor(image):
        return image
    import torch

    pixels = np.ascontiguousarray(image)
    if not pixels.flags.writeable:
        pixels = pixels.copy()  # torch warns of memory that it could write to
    return torch.from_numpy(pixels)


def _numpy_dtype(frames: torch.Tensor) -> np.dtype:
    return np.dtype(str(frames.dtype).removeprefix("torch."))
