"""Bragg peaks of each image, by trackpy's algorithm: each peak is one event."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tomostream_ioc.documents.image_processor import FRAME
from tomostream_ioc.documents.image_stage import ImageRun, ImageStage
from tomostream_ioc.documents.pixels import Exposure
from tomostream_ioc.documents.results import PeaksResult
from tomostream_ioc.tracking import Locator, average_frames

COLUMNS = ("y", "x", "mass", "size", "ecc", "signal", "raw_mass", "ep", FRAME)


class PeakTracker(ImageStage):
    """Finds the peaks of each image of ``key``.

    Emits one event page per frame with a row, which is an event, per peak: y, x (pixels), mass,
    size, ecc, signal, raw_mass, ep (float64) and frame (int64, from 1). A frame without peaks has
    no row. Several frames of a point are averaged first.

    key : data key of the images
    diameter, keywords : those of trackpy.locate (percentile, separation, minmass...)
    db, handler_registry, root_map, read_from : see Stage and ImageStage
    """

    stage_name = "peak_tracker"

    def __init__(
        self,
        key: str,
        diameter: Any,
        *,
        db: Any = None,
        handler_registry: Mapping[str, Any] | None = None,
        root_map: Mapping[str, str] | None = None,
        read_from: Iterable[str | Path] | None = None,
        **keywords: Any,
    ):
        super().__init__(key, db, handler_registry, root_map, read_from)
        self.diameter = diameter
        self.keywords = keywords
        self._locator: Locator | None = None

    def close(self, reason: str = "the program ended before the run did") -> None:
        super().close(reason)
        if self._locator is not None:
            self._locator.close()
            self._locator = None

    def _parameters(self, start: Mapping[str, Any]) -> dict[str, Any]:
        return {"key": self.key, "diameter": self.diameter, **self.keywords}

    def process(self, run: ImageRun, exposure: Exposure, pixels: np.ndarray) -> None:
        image = average_frames(pixels) if pixels.ndim == 3 else pixels
        with warnings.catch_warnings():
            # an image without peaks is none to warn of: most points of a scan have none
            warnings.simplefilter("ignore", UserWarning)
            table = self._locate(image)
        table = table.reset_index(drop=True)
        table[FRAME] = np.full(len(table), exposure.frame, np.int64)
        run.derived.page(columns_of(table), exposure.taken)
        self.counts.found += len(table)
        self._give(PeaksResult(run.derived.uid, exposure.frame, table))

    def _locate(self, image: np.ndarray) -> pd.DataFrame:
        if self._locator is None:  # with the first image: what it can't use costs a run, no more
            self._locator = Locator(self.diameter, **self.keywords)
        return self._locator.locate(image)


def columns_of(table: pd.DataFrame) -> dict[str, np.ndarray]:
    """The table's columns as arrays; numbers, other than whole ones, as float64."""
    columns = {}
    for name in table.columns:
        column = table[name].to_numpy()
        columns[str(name)] = column.astype(np.float64) if column.dtype.kind == "f" else column
    return columns
