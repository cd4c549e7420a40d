"""Images of a detector, grouped into the points of a scan by their unique ids."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tomostream_ioc.model.frame import Frame
from tomostream_ioc.model.sequence import Order, SequenceTracker


@dataclass(frozen=True, slots=True)
class Point:
    """What one position of the scan has brought.

    ``number`` counts from 1. ``images`` is (n_frames, ny, nx) or (ny, nx), an array of its own.
    ``received_s`` is time.monotonic() at the arrival of the newest image.
    """

    number: int
    images: np.ndarray
    unique_id: int
    timestamp_s: float
    received_s: float
    n_frames: int = 1  # images of the detector in it


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of one image: finished points perhaps, and what to count."""

    points: tuple[Point, ...] = ()
    missed: int = 0
    duplicate: int = 0
    late: bool = False
    restart: bool = False  # the detector counts anew: another scan
    state: bool = False  # no new image: what the channel held when it (re)connected


class PointBuilder:
    """Averages ``frames_per_point`` successive images; the first one after a start is of point 1.

    Images are placed by unique id, so that one that is lost moves no other: its point is averaged
    from the rest, and a point that has lost all is left out.
    """

    def __init__(self, frames_per_point: int):
        self._per_point = frames_per_point
        self._sequence = SequenceTracker()
        self._first: int | None = None
        self._done = 0  # the newest point that was handed on
        self._open: _OpenPoint | None = None

    def add(self, frame: Frame) -> Taken:
        """Take one image; its pixels are copied, or added up."""
        if frame.initial and self._first is None:
            return Taken(state=True)  # from before the start: no image of this scan
        placed = self._sequence.place(frame.unique_id, reconnected=frame.initial)
        if placed.order is Order.REPEATED_STATE:
            return Taken(state=True)
        if placed.order is Order.DUPLICATE:
            return Taken(missed=placed.missed, duplicate=1)
        restart = placed.order is Order.RESTART
        if restart and frame.initial:  # a detector that has restarted: its next image is the first
            left = tuple(self._finish())
            self._first = None
            return Taken(left, restart=True, state=True)
        points: list[Point] = []
        if restart or self._first is None:
            points += self._finish()
            self._first, self._done = placed.index, 0
        step = placed.index - self._first
        number = step // self._per_point + 1
        if number <= self._done or (self._open is not None and number < self._open.number):
            return Taken(missed=placed.missed, late=True)
        if self._open is not None and not self._open.takes(number, frame):
            points += self._finish()  # its last images were lost, or the frame size has changed
            if number <= self._done:
                return Taken(tuple(points), missed=placed.missed, late=True)
        if self._open is None:
            self._open = _OpenPoint(number, frame, averages=self._per_point > 1)
        else:
            self._open.add(frame)
        if step % self._per_point == self._per_point - 1:
            points += self._finish()
        return Taken(tuple(points), missed=placed.missed, restart=restart)

    def leave_out(self, unique_id: int) -> int:
        """An image with this id came, but can't be used; returns what to add to those missed."""
        if self._first is None:
            return 0
        return self._sequence.place(unique_id).missed

    def _finish(self) -> list[Point]:
        if self._open is None:
            return []
        point, self._open = self._open.point(), None
        self._done = point.number
        return [point]


class _OpenPoint:
    """A point whose images are still coming."""

    def __init__(self, number: int, frame: Frame, averages: bool):
        self.number = number
        # 64-bit floats hold the sum of any number of images exactly
        self._total = frame.pixels.astype(np.float64) if averages else frame.pixels.copy()
        self._n_frames = 1
        self._newest = frame

    def takes(self, number: int, frame: Frame) -> bool:
        return number == self.number and frame.shape == self._newest.shape

    def add(self, frame: Frame) -> None:
        self._total += frame.pixels
        self._n_frames += 1
        self._newest = frame

    def point(self) -> Point:
        image = self._total if self._n_frames == 1 else self._total / self._n_frames
        newest = self._newest
        return Point(
            self.number,
            image,
            newest.unique_id,
            newest.timestamp_s,
            newest.received_s,
            self._n_frames,
        )
