"""Documents of a real run engine become the points of live peak tracking."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from crystal_scan import (
    N_FRAMES,
    PIXELS,
    SHAPE,
    InlineDetector,
    ResourceDetector,
    StreamDetector,
    frames_at,
)
from test_document_chain import scan

from tomostream_ioc.documents.scan_reader import ScanReader

N_POINTS = SHAPE[0] * SHAPE[1]


class Kept:
    """A PointHandler that keeps what it is told."""

    def __init__(self) -> None:
        self.points: list[tuple[int, np.ndarray]] = []
        self.starts: list[Any] = []
        self.ends: list[str] = []
        self.rejected: list[str] = []
        self.missed: list[tuple[int, str]] = []

    def on_point(self, images, number, timestamp_s):
        self.points.append((number, images))

    def on_scan(self, start):
        self.starts.append(start)

    def on_scan_end(self, reason):
        self.ends.append(reason)

    def on_rejected(self, cause, reason, unique_id=None):
        self.rejected.append(reason)

    def on_missed(self, count, reason):
        self.missed.append((count, reason))

    def on_frame(self, frame):
        raise AssertionError("documents bring points")

    def on_connection(self, trouble):
        raise AssertionError("nothing connects here")


@pytest.fixture(scope="module", params=[InlineDetector, ResourceDetector, StreamDetector])
def documents(request, tmp_path_factory):
    args = () if request.param is InlineDetector else (tmp_path_factory.mktemp("images"),)
    return scan(None, request.param, args=args)


def told(documents, key="") -> Kept:
    kept = Kept()
    reader = ScanReader(key, kept)
    for name, doc in documents:
        reader.take(name, doc)
    return kept


def test_all_points_come_with_their_pixels_and_numbers(documents):
    kept = told(documents)
    assert [number for number, _ in kept.points] == list(range(1, N_POINTS + 1))
    for number, point in ((1, (0, 0)), (8, (1, 6))):  # snaked
        np.testing.assert_array_equal(kept.points[number - 1][1], frames_at(point))
    assert kept.points[0][1].shape == (N_FRAMES, *PIXELS)
    assert (kept.rejected, kept.missed, kept.ends) == ([], [], [""])
    assert list(kept.starts[0]["shape"]) == list(SHAPE)


def test_another_key_brings_nothing(documents):
    assert told(documents, key="pilatus").points == []


@pytest.fixture(scope="module")
def inline():
    return scan(None)


def without_events(documents, *numbers):
    return [
        (name, doc) for name, doc in documents if name != "event" or doc["seq_num"] not in numbers
    ]


def test_lost_events_are_counted_and_move_no_point(inline):
    kept = told(without_events(inline, 3, 4, 10))
    assert [count for count, _ in kept.missed] == [2, 1]
    assert [number for number, _ in kept.points][:4] == [1, 2, 5, 6]


def test_an_event_that_comes_twice_is_rejected(inline):
    twice = [item for item in inline for _ in range(1 + (item[0] == "event"))]
    kept = told(twice)
    assert len(kept.points) == N_POINTS
    assert len(kept.rejected) == N_POINTS


def test_who_comes_late_waits_for_the_next_scan(inline):
    kept = told(inline[5:] + inline)
    assert len(kept.points) == N_POINTS
    assert "waiting for the next" in kept.missed[0][1]


def test_a_scan_without_a_stop_ends_when_the_next_begins(inline):
    kept = told(inline[:-1] + inline)
    assert kept.ends == ["another one began", ""]
    assert len(kept.points) == 2 * N_POINTS


@pytest.mark.parametrize("pixels", [np.zeros((2, 2, 2, 2)), np.zeros((0, 4)), "not there", None])
def test_pixels_that_are_no_image_are_rejected_alone(inline, pixels):
    bad = [
        (name, {**doc, "data": {**doc["data"], "dexela_image": pixels}})
        if name == "event" and doc["seq_num"] == 2
        else (name, doc)
        for name, doc in inline
    ]
    kept = told(bad)
    assert len(kept.points) == N_POINTS - 1
    assert len(kept.rejected) == 1


def test_documents_that_make_no_sense_end_nothing(inline):
    nonsense = [("descriptor", {}), ("event", {"descriptor": 5}), ("stop", {})]
    kept = told(inline[:3] + nonsense + inline[3:])
    assert len(kept.points) == N_POINTS
    assert len(kept.rejected) >= 2
