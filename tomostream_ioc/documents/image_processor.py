"""Mean of a point's frames, less a background image, negative pixels set to zero."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tomostream_ioc.documents.image_stage import ImageRun, ImageStage
from tomostream_ioc.documents.pixels import Exposure
from tomostream_ioc.documents.results import ImageResult
from tomostream_ioc.errors import TrackingError
from tomostream_ioc.tracking import BackgroundSubtractor

#: data key with the number of the frame, in all derived streams
FRAME = "frame"


class ImageProcessor(ImageStage):
    """Averages each point's frames and subtracts ``subtrahend``; pixels below zero become 0.

    Emits one event per point with the image under its key, (n_rows, n_cols) float32 unless
    ``dtype`` says float64, and `frame`, the point's seq_num in the run that came in. Images are
    arrays in the events: a database of this package writes them to HDF5 files.

    key : data key of the images
    subtrahend : (n_rows, n_cols) image of dark current and air scattering; None for 0
    db, handler_registry, root_map, read_from : see Stage and ImageStage

    Raises TrackingError: the subtrahend is no image.
    """

    stage_name = "image_processor"

    def __init__(
        self,
        key: str,
        subtrahend: np.ndarray | None = None,
        *,
        dtype: Any = np.float32,
        db: Any = None,
        handler_registry: Mapping[str, Any] | None = None,
        root_map: Mapping[str, str] | None = None,
        read_from: Iterable[str | Path] | None = None,
    ):
        if key == FRAME:
            raise TrackingError(f"Images can't be called {FRAME!r}: frames' numbers are.")
        super().__init__(key, db, handler_registry, root_map, read_from)
        self._background = None if subtrahend is None else np.asarray(subtrahend)
        self._subtract = BackgroundSubtractor(self._background, dtype)

    def _parameters(self, start: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "key": self.key,
            "subtrahend": self._background,
            "dtype": str(self._subtract.dtype),
        }

    def _derive(self, start: Mapping[str, Any], **extra: Any) -> Any:
        return super()._derive(start, frame_key=FRAME, **extra)

    def process(self, run: ImageRun, exposure: Exposure, pixels: np.ndarray) -> None:
        image = self._subtract(pixels)
        if run.image_shape is None:
            run.image_shape = image.shape
        elif image.shape != run.image_shape:
            raise TrackingError(
                f"the image is {image.shape[0]} x {image.shape[1]} pixels, those before it"
                f" {run.image_shape[0]} x {run.image_shape[1]}"
            )
        run.derived.event({self.key: image, FRAME: exposure.frame}, exposure.taken)
        self.counts.found += 1
        self._give(ImageResult(run.derived.uid, exposure.frame, image))
