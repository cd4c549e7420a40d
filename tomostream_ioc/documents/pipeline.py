"""The whole chain, joined: raw documents in, peaks, tracks and maps out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tomostream_ioc.documents.counts import StageCounts
from tomostream_ioc.documents.crystal_mapper import CrystalMapper
from tomostream_ioc.documents.image_processor import ImageProcessor
from tomostream_ioc.documents.peak_tracker import PeakTracker
from tomostream_ioc.documents.results import Result
from tomostream_ioc.documents.stage import Stage
from tomostream_ioc.documents.track_linker import TrackLinker


@dataclass(frozen=True, slots=True)
class StagePace:
    """Of one stage: pieces per second, and seconds of the last; NaN before the first."""

    rate_hz: float
    work_s: float
    latency_s: float


class Pipeline:
    """ImageProcessor, PeakTracker, TrackLinker and CrystalMapper as one bluesky callback.

    ``processor``, ``tracker``, ``linker`` and ``mapper`` are the stages, each with its own counts
    and subscribers.
    """

    def __init__(
        self,
        processor: ImageProcessor,
        tracker: PeakTracker,
        linker: TrackLinker,
        mapper: CrystalMapper,
    ):
        self.processor = processor
        self.tracker = tracker
        self.linker = linker
        self.mapper = mapper
        linker.subscribe(mapper)
        tracker.subscribe(linker)
        processor.subscribe(tracker)

    @property
    def stages(self) -> tuple[Stage, ...]:
        return (self.processor, self.tracker, self.linker, self.mapper)

    @property
    def counts(self) -> Mapping[str, StageCounts]:
        """By name of the stage; they grow with the work."""
        return {stage.stage_name: stage.counts for stage in self.stages}

    @property
    def pace(self) -> Mapping[str, StagePace]:
        """By name of the stage. A stage's latency is from when the image was taken."""
        return {
            stage.stage_name: StagePace(stage.pace.rate_hz, stage.pace.work_s, stage.pace.latency_s)
            for stage in self.stages
        }

    def on_result(self, callback: Callable[[Result], Any] | None) -> None:
        """Call ``callback`` with each ImageResult, PeaksResult, TracksResult and MapsResult.

        It runs in the thread that brings the documents, and must be quick; its errors are counted.
        None takes it away.
        """
        for stage in self.stages:
            stage.on_result = callback

    def __call__(self, name: str, doc: Any) -> None:
        self.processor(name, doc)

    def close(self, reason: str = "the program ended before the run did") -> None:
        """Close runs whose stop did not come, as aborted, down the whole chain."""
        for stage in self.stages:
            stage.close(reason)


def build_chain(
    key: str,
    background: np.ndarray | None = None,
    *,
    diameter: Any,
    search_range: Any,
    memory: int | None = None,
    locate: Mapping[str, Any] | None = None,
    link: Mapping[str, Any] | None = None,
    db: Any = None,
    record_images: bool = False,
    max_maps: int = 1000,
    live_interval_s: float = 1.0,
    handler_registry: Mapping[str, Any] | None = None,
    root_map: Mapping[str, str] | None = None,
    read_from: Iterable[str | Path] | None = None,
) -> Pipeline:
    """The chain for the images of data key ``key``.

    background : (n_rows, n_cols) that is subtracted, or None
    diameter, locate : of trackpy.locate, its other keywords (percentile, separation...) in locate
    search_range, memory, link : of trackpy.link, its other keywords in link; see TrackLinker
    db : records peaks, tracks and maps, and processed images too with ``record_images``
    max_maps, live_interval_s : see CrystalMapper
    handler_registry, root_map, read_from : see ImageProcessor

    Raises TrackingError: parameters that can't be used.
    """
    return Pipeline(
        ImageProcessor(
            key,
            background,
            db=db if record_images else None,
            handler_registry=handler_registry,
            root_map=root_map,
            read_from=read_from,
        ),
        PeakTracker(key, diameter, db=db, **(locate or {})),
        TrackLinker(search_range, memory, db=db, **(link or {})),
        CrystalMapper(max_maps=max_maps, live_interval_s=live_interval_s, db=db),
    )
