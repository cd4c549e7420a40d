"""A stage that takes images: their pixels are found, read and worked on one by one."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tomostream_ioc.documents.pixels import Exposure, PixelSource
from tomostream_ioc.documents.read_access import ANYWHERE, ReadAccess
from tomostream_ioc.documents.stage import OpenRun, Stage
from tomostream_ioc.errors import TrackingError


class ImageRun(OpenRun):
    """A run with images."""

    source: PixelSource
    image_shape: tuple[int, ...] | None = None


class ImageStage(Stage):
    """Works on the images of one data key.

    handler_registry : readers of Resource documents by spec, as event_model's Filler takes them;
        None for areaDetector's HDF5 files. Not needed where a Filler has filled the events.
    root_map : new roots of Resource paths, as the Filler takes them
    read_from : folders in which documents may name files; None for any. For documents of others:
        whoever sends them says what is read
    """

    def __init__(
        self,
        key: str,
        db: Any = None,
        handler_registry: Mapping[str, Any] | None = None,
        root_map: Mapping[str, str] | None = None,
        read_from: Iterable[str | Path] | None = None,
    ):
        super().__init__(db)
        self.key = key
        self._handlers = handler_registry
        self._root_map = root_map
        self._access = ANYWHERE if read_from is None else ReadAccess.below(read_from)

    def process(self, run: ImageRun, exposure: Exposure, pixels: np.ndarray) -> None:
        """One exposure's frames, (n_frames, n_rows, n_cols) or (n_rows, n_cols)."""
        raise NotImplementedError

    def _open(self, start: Mapping[str, Any]) -> ImageRun:
        run = ImageRun(start, self._derive(start))
        run.source = PixelSource(self.key, start, self._handlers, self._root_map, self._access)
        return run

    def _describe(self, run: OpenRun, doc: Mapping[str, Any]) -> bool:
        return _images(run).source.descriptor(doc)

    def _asset(self, run: OpenRun, name: str, doc: Mapping[str, Any]) -> None:
        _images(run).source.asset(name, doc)

    def _work(self, run: OpenRun, name: str, doc: Mapping[str, Any]) -> None:
        run = _images(run)
        for exposure in run.source.exposures(name, doc):
            self.counts.received += 1
            if not self._new(run, exposure.stream, [exposure.seq_num])[0]:
                continue
            began = time.monotonic()
            try:
                pixels = exposure.load()
                check_pixels(pixels)
                self.process(run, exposure, pixels)
            except Exception as error:  # noqa: BLE001 - one bad frame: the scan goes on
                self._fail(run, f"frame {exposure.frame}", error)
            else:
                self.counts.processed += 1
                self.pace.done(began, exposure.taken)

    def _finish(self, run: OpenRun) -> None:
        run = _images(run)
        for stream, seq_num in run.source.left_over():
            if seq_num > run.last[stream]:
                self._miss(run, 1, stream)
        run.source.close()


def check_pixels(pixels: np.ndarray) -> None:
    """Raises TrackingError: no real numbers, no image, or none of its pixels is a finite number."""
    if pixels.dtype.kind not in "buif":
        raise TrackingError(f"pixels of type {pixels.dtype} are no image")
    if pixels.ndim not in (2, 3) or not pixels.size:
        raise TrackingError(
            f"an image has shape {pixels.shape}: (n_frames, n_rows, n_cols) or (n_rows, n_cols)"
            " is needed"
        )
    if pixels.dtype.kind == "f" and not any(np.isfinite(row).any() for row in pixels):
        raise TrackingError("no pixel is a finite number")


def _images(run: OpenRun) -> ImageRun:
    if not isinstance(run, ImageRun):
        raise TypeError(f"{type(run).__name__} is no run with images")
    return run
