"""Where simulated frames come from: the phantom seen by the detector model, or a recorded scan."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, Protocol

import numpy as np

from tomostream_ioc.scan_file import ScanFile
from tomostream_ioc.sim.detector import Detector
from tomostream_ioc.sim.phantom import Phantom
from tomostream_ioc.sim.schedule import ScanType, Schedule

FieldKind = Literal["dark", "flat"]


class FrameSource(Protocol):
    """Frames by index. Arrays that come back are read, never written, by the caller."""

    @property
    def shape(self) -> tuple[int, int]:
        """(n_rows, n_cols)."""
        ...

    @property
    def dtype(self) -> np.dtype: ...

    @property
    def center(self) -> float | None:
        """Column of the rotation axis; None: the source does not know it."""
        ...

    def schedule(self, scan_type: ScanType) -> Schedule:
        """The angles of one pass; ConfigError when this source can't be scanned that way."""
        ...

    def turns(self, k: int) -> float:
        """The time of frame k, in turns of the stage."""
        ...

    def prepare(self, schedule: Schedule, stopped: Callable[[], bool]) -> None:
        """Compute ahead what makes sending slow; given up when ``stopped()`` turns true."""
        ...

    def projection(self, index: int, turns: float) -> np.ndarray: ...

    def field_frame(self, kind: FieldKind, serial: int) -> np.ndarray:
        """One dark or flat frame; ``serial`` tells repeated ones apart."""
        ...

    def averaged_field(self, kind: FieldKind, frames: Sequence[np.ndarray]) -> np.ndarray:
        """The field, float32 (n_rows, n_cols), that tomoScan broadcasts after these frames."""
        ...

    def close(self) -> None: ...


class PhantomSource:
    """Projections of a phantom, ``n_angles`` per 180 degrees from ``start_deg`` on.

    Frames of what stands still are kept when all of them fit into ``memory_bytes``; what moves is
    put in afresh, for every frame, in the region of its shadow.
    """

    def __init__(
        self,
        phantom: Phantom,
        detector: Detector,
        n_angles: int,
        center: float,
        start_deg: float,
        memory_bytes: int,
    ) -> None:
        self._phantom = phantom
        self._still = phantom.still_part()
        self._moving = phantom.moving_part()
        self._detector = detector
        self._n_angles = n_angles
        self._center = center
        self._theta_deg = start_deg + 180.0 / n_angles * np.arange(2 * n_angles)
        self._memory_bytes = memory_bytes
        self._frames: dict[int, np.ndarray] = {}

    @property
    def shape(self) -> tuple[int, int]:
        return self._phantom.n_rows, self._phantom.n_cols

    @property
    def dtype(self) -> np.dtype:
        return self._detector.dtype

    @property
    def center(self) -> float | None:
        return self._center

    def schedule(self, scan_type: ScanType) -> Schedule:
        n_pass = self._n_angles * (2 if scan_type == "continuous" else 1)
        return Schedule(scan_type, self._theta_deg[:n_pass])

    def turns(self, k: int) -> float:
        return k / (2 * self._n_angles)

    def prepare(self, schedule: Schedule, stopped: Callable[[], bool]) -> None:
        frame_bytes = math.prod(self.shape) * self.dtype.itemsize
        if schedule.n_pass * frame_bytes > self._memory_bytes:
            return

        def compute(index: int) -> None:
            if index not in self._frames and not stopped():
                self._frames[index] = self._still_frame(index)

        with ThreadPoolExecutor(max_workers=4) as pool:
            list(pool.map(compute, range(schedule.n_pass)))

    def projection(self, index: int, turns: float) -> np.ndarray:
        frame = self._frames.get(index)
        if frame is None:
            frame = self._still_frame(index)
        theta = math.radians(self._theta_deg[index])
        region = self._moving.shadow(theta, self._center, turns=turns)
        if region is None:
            return frame
        row0, row1, col0, col1 = region
        p = self._phantom.projection(theta, self._center, turns=turns, region=region)
        frame = frame.copy()
        frame[row0:row1, col0:col1] = self._detector.expose(p, index, region)
        return frame

    def field_frame(self, kind: FieldKind, serial: int) -> np.ndarray:
        serial += self._theta_deg.size  # noise of their own
        if kind == "dark":
            return self._detector.dark_frame(serial)
        return self._detector.flat_frame(serial)

    def averaged_field(self, kind: FieldKind, frames: Sequence[np.ndarray]) -> np.ndarray:
        return np.stack(frames).mean(axis=0, dtype=np.float64).astype(np.float32)

    def close(self) -> None:
        self._frames.clear()

    def _still_frame(self, index: int) -> np.ndarray:
        p = self._still.projection(math.radians(self._theta_deg[index]), self._center)
        return self._detector.expose(p, index)


class FileSource:
    """A recorded scan. Its dark and flat frames come round again and again."""

    def __init__(self, scan: ScanFile) -> None:
        self._scan = scan

    @property
    def shape(self) -> tuple[int, int]:
        return self._scan.shape

    @property
    def dtype(self) -> np.dtype:
        return self._scan.dtype

    @property
    def center(self) -> float | None:
        return None

    def schedule(self, scan_type: ScanType) -> Schedule:
        return Schedule(scan_type, self._scan.theta_deg)

    def turns(self, k: int) -> float:
        theta = self._scan.theta_deg
        return k * abs(float(theta[-1] - theta[0])) / (360.0 * max(theta.size - 1, 1))

    def prepare(self, schedule: Schedule, stopped: Callable[[], bool]) -> None:
        return

    def projection(self, index: int, turns: float) -> np.ndarray:
        return self._scan.projection(index)

    def field_frame(self, kind: FieldKind, serial: int) -> np.ndarray:
        stack = self._stack(kind)
        frame = stack[serial % stack.shape[0]]
        if self.dtype.kind in "iu":
            limits = np.iinfo(self.dtype)
            frame = np.clip(np.rint(frame), limits.min, limits.max)
        return frame.astype(self.dtype)

    def averaged_field(self, kind: FieldKind, frames: Sequence[np.ndarray]) -> np.ndarray:
        # a file often holds one field, a mean already: rounded to counts it would lose digits
        return self._stack(kind).mean(axis=0, dtype=np.float64).astype(np.float32)

    def close(self) -> None:
        self._scan.close()

    def _stack(self, kind: FieldKind) -> np.ndarray:
        return self._scan.dark if kind == "dark" else self._scan.flat
