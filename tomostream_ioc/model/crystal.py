"""The seam between the Crystal: records and what finds, links and maps peaks behind them."""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

import numpy as np

from tomostream_ioc.errors import ParameterError
from tomostream_ioc.model.control import Alarm
from tomostream_ioc.model.frame import Frame

#: choices of Crystal:MapOf
MAP_OF = ("Total intensity", "Brightest track", "Track")
#: choices of Crystal:Source
SOURCES = ("Detector", "Documents")
#: the record that names the channel of each, and has the alarm where it is not connected
CHANNEL_RECORDS: Mapping[str, str] = {
    "Detector": "Crystal:ImagePVAName",
    "Documents": "Crystal:DocsAddress",
}
#: choices of Crystal:Quantize, and the argument of `tracking.locate` that each stands for
QUANTIZE: Mapping[str, Literal["uint8", "uint16"]] = {"8 bit": "uint8", "16 bit": "uint16"}

_LONGEST_ROW = 100_000
_MOST_POINTS = 10_000_000


@dataclass(frozen=True, slots=True)
class PeakParams:
    """How peaks are found and linked; takes effect with the next image.

    ``diameter``, ``separation`` and ``search_range`` in pixels, ``percentile`` of the brightness
    0..100, ``min_mass`` in counts, ``max_peaks`` 0 for all, ``memory`` in points: how long a spot
    may be gone and still be the same, -1 for as long as the grid of the scan can hide it.

    Raises ParameterError: a value that nothing can be found with.
    """

    diameter: int = 15
    percentile: float = 80.0
    separation: float = 100.0
    min_mass: float = 0.0
    max_peaks: int = 0
    quantize: str = "8 bit"
    search_range: float = 50.0
    memory: int = -1
    background_on: bool = True
    hot_pixel_mask: bool = False

    def __post_init__(self) -> None:
        if self.diameter < 3 or self.diameter % 2 == 0:
            raise ParameterError(f"Diameter {self.diameter}: give an odd number from 3")
        if not 0 <= self.percentile <= 100:
            raise ParameterError(f"Percentile {self.percentile:g}: give 0 to 100")
        for name, value, least in (
            ("Separation", self.separation, 1.0),
            ("SearchRange", self.search_range, 0.1),
            ("MinMass", self.min_mass, 0.0),
        ):
            if not math.isfinite(value) or value < least:
                raise ParameterError(f"{name} {value:g}: give a number from {least:g}")
        if self.max_peaks < 0:
            raise ParameterError(f"MaxPeaks {self.max_peaks}: give 0 for all, or a number")
        if self.quantize not in QUANTIZE:
            raise ParameterError(f"Quantize {self.quantize!r}: give one of {', '.join(QUANTIZE)}")
        if self.memory < -1 or self.memory > _LONGEST_ROW:
            raise ParameterError(
                f"Memory {self.memory}: give -1 for what the grid asks for, or 0 to {_LONGEST_ROW}"
            )


@dataclass(frozen=True, slots=True)
class ScanSetup:
    """What a run reads and the grid that it covers; taken when it starts.

    ``n_rows`` x ``n_cols`` points, the rows slow; 0 x 0 when the documents say it, or when there
    is no grid. ``frames_per_point`` images of the detector are averaged to one.

    Raises ParameterError: no image channel or address, or an impossible grid.
    """

    source: str = "Detector"
    image_pva: str = ""
    docs_address: str = "localhost:5568"
    docs_prefix: str = "raw"
    image_key: str = ""  # '' = the first image in the documents
    n_rows: int = 0
    n_cols: int = 0
    snaking: bool = True
    frames_per_point: int = 1

    def __post_init__(self) -> None:
        if self.source not in SOURCES:
            raise ParameterError(f"Source {self.source!r}: give one of {', '.join(SOURCES)}")
        if self.source == "Detector" and not self.image_pva.strip():
            raise ParameterError("Crystal:ImagePVAName is empty: give the detector's channel")
        if self.source == "Documents" and ":" not in self.docs_address:
            raise ParameterError(
                f"Crystal:DocsAddress {self.docs_address!r}: give host:port, e.g. localhost:5568"
            )
        if self.n_rows < 0 or self.n_cols < 0 or (self.n_rows == 0) != (self.n_cols == 0):
            raise ParameterError(
                f"A grid of {self.n_rows} x {self.n_cols} points: give Crystal:Rows and "
                f"Crystal:Columns, or 0 for both"
            )
        if self.n_rows * self.n_cols > _MOST_POINTS:
            raise ParameterError(
                f"A grid of {self.n_rows} x {self.n_cols} points is too large: at most "
                f"{_MOST_POINTS} points"
            )
        if not 1 <= self.frames_per_point <= 10_000:
            raise ParameterError(f"FramesPerPoint {self.frames_per_point}: give 1 to 10000")


class CrystalState(enum.Enum):
    """The states of a run of peak tracking."""

    IDLE = "Idle"
    STARTING = "Starting"
    RUNNING = "Running"
    FAULT = "Fault"

    @property
    def busy(self) -> bool:
        """True from the start of a run to its end."""
        return self in (CrystalState.STARTING, CrystalState.RUNNING)


@dataclass(frozen=True, slots=True)
class CrystalCounts:
    """Since the run started. Frames are images of the detector, points are positions of the scan.

    received: decoded whole; rejected: not usable; missed: a gap in unique ids or in seq_num;
    duplicate: came twice; dropped: came, but the tracking was too slow; points: images searched
    for peaks; failed: points whose search raised an error.
    """

    received: int = 0
    rejected: int = 0
    missed: int = 0
    duplicate: int = 0
    dropped: int = 0
    points: int = 0
    failed: int = 0
    peaks: int = 0
    tracks: int = 0
    oversized: int = 0  # points where too many peaks were too near for the best of all links
    fallback: int = 0  # points that trackpy itself searched


@dataclass(frozen=True, slots=True)
class CrystalStatus:
    """A snapshot for the records."""

    state: CrystalState = CrystalState.IDLE
    run_id: int = 0
    message: str = "Idle"
    counts: CrystalCounts = field(default_factory=CrystalCounts)
    peaks_in_frame: int = 0
    frame_rate_hz: float = 0.0
    point_rate_hz: float = 0.0
    latency_s: float = 0.0  # image's arrival -> its peaks posted
    locate_s: float = 0.0
    link_s: float = 0.0
    background_mean: float = 0.0  # counts; 0 without a background
    masked_pixels: int = 0
    map_track: int = -1  # the track whose map is shown; -1 = the total intensity
    alarms: Mapping[str, Alarm] = field(default_factory=dict)


class CrystalListener(Protocol):
    """Told from the run's thread: implementations hand over to their own."""

    def crystal_ended(self, run_id: int) -> None: ...

    def background_ended(self, request_id: int) -> None:
        """The background has been taken, or could not be; the busy put completes."""
        ...


class CrystalControl(Protocol):
    """What the records can ask of peak tracking. No call blocks; all may come from any thread."""

    def set_listener(self, listener: CrystalListener) -> None: ...

    def start(self, setup: ScanSetup) -> int:
        """Ask for a run and return its id, that of the one that goes on if there is one."""
        ...

    def abort(self) -> None: ...

    def set_params(self, params: PeakParams) -> None: ...

    def set_background_file(self, path: str) -> None:
        """Subtract this image (.npy, .h5, .tif); '' for none. What can't be read is an alarm."""
        ...

    def take_background(self, n_frames: int) -> int:
        """Average the next images to the background; background_ended(id) will follow."""
        ...

    def set_map(self, map_of: str, track: int) -> None: ...

    def status(self) -> CrystalStatus: ...


class NoCrystal:
    """CrystalControl of a program without peak tracking: each wish is answered by why not."""

    def __init__(self, reason: str = "peak tracking is not part of this program") -> None:
        self._status = CrystalStatus(message=f"Not there: {reason}")
        self._listener: CrystalListener | None = None
        self._requests = 0

    def set_listener(self, listener: CrystalListener) -> None:
        self._listener = listener

    def start(self, setup: ScanSetup) -> int:
        self._status = replace(self._status, run_id=self._status.run_id + 1)
        if self._listener is not None:
            self._listener.crystal_ended(self._status.run_id)
        return self._status.run_id

    def abort(self) -> None: ...

    def set_params(self, params: PeakParams) -> None: ...

    def set_background_file(self, path: str) -> None: ...

    def take_background(self, n_frames: int) -> int:
        self._requests += 1
        if self._listener is not None:
            self._listener.background_ended(self._requests)
        return self._requests

    def set_map(self, map_of: str, track: int) -> None: ...

    def status(self) -> CrystalStatus:
        return self._status


@dataclass(frozen=True, slots=True)
class PeakTable:
    """Peaks of one point, or tracks, as columns of the same length, in the order of the table."""

    columns: Mapping[str, np.ndarray]
    unique_id: int = 0
    timestamp_s: float = 0.0

    @property
    def n_rows(self) -> int:
        return next((len(column) for column in self.columns.values()), 0)


class CrystalSink(Protocol):
    """Where results go for display; no call blocks, the newest wins for images."""

    def peaks(self, table: PeakTable) -> None: ...

    def tracks(self, table: PeakTable) -> None: ...

    def processed(self, image: np.ndarray, unique_id: int, timestamp_s: float) -> None:
        """The image that was searched: averaged, background subtracted; (ny, nx)."""
        ...

    def crystal_map(self, image: np.ndarray, attributes: Mapping[str, object]) -> None:
        """(n_rows, n_cols) of the scan's grid; ``attributes`` say what it shows."""
        ...


class PointHandler(Protocol):
    """Told by a PointSource, from threads of its own; no call blocks."""

    def on_frame(self, frame: Frame) -> None:
        """One image of the detector, by its unique id."""
        ...

    def on_point(self, images: np.ndarray, number: int, timestamp_s: float) -> None:
        """The images of one point, (n_frames, ny, nx) or (ny, nx); ``number`` counts from 1."""
        ...

    def on_scan(self, start: Mapping[str, object]) -> None:
        """A scan begins; ``start`` may hold shape, extents and snaking."""
        ...

    def on_scan_end(self, reason: str) -> None:
        """The scan has ended; ``reason`` is '' when it went as planned."""
        ...

    def on_rejected(self, cause: str, reason: str, unique_id: int | None = None) -> None:
        """An image that can't be used; ``unique_id`` where known, so that it isn't missed too."""
        ...

    def on_missed(self, count: int, reason: str) -> None: ...

    def on_connection(self, trouble: str) -> None:
        """Why no image can come, as a sentence goes on; '' where the source is connected."""
        ...


class PointSource(Protocol):
    """Images, from a detector or from documents."""

    def open(self, setup: ScanSetup, handler: PointHandler) -> str:
        """Begin to receive; returns what is read, for the status. Raises ArmingError."""
        ...

    def close(self) -> None:
        """The handler is not called once this returns."""
        ...
