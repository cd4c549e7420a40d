"""What a live stream may hold: gaps, repeats, late subscribers, bad frames, runs without stop."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from crystal_scan import KEY, LOCATE, PIXELS, SHAPE, frames_at
from event_model import compose_run, pack_event_page

from tomostream_ioc.documents import (
    CrystalMapper,
    ImageProcessor,
    PeakTracker,
    TrackLinker,
    build_chain,
)
from tomostream_ioc.documents.stage import MAX_OPEN_RUNS
from tomostream_ioc.errors import TrackingError

N = 8


class RawRun:
    """Documents of a run of N points, in the first rows of the grid."""

    def __init__(self):
        self.bundle = compose_run(metadata={"shape": list(SHAPE), "snaking": [False, False]})
        key = {"dtype": "array", "dtype_numpy": "<u2", "shape": [3, *PIXELS], "source": "SIM"}
        described = self.bundle.compose_descriptor(name="primary", data_keys={KEY: key})
        self.start = ("start", self.bundle.start_doc)
        self.descriptor = ("descriptor", described.descriptor_doc)
        self.events = [
            ("event", described.compose_event(data={KEY: self.frames(n)}, timestamps={KEY: 1.0}))
            for n in range(N)
        ]
        self.stop = ("stop", self.bundle.compose_stop())

    @staticmethod
    def frames(n: int) -> np.ndarray:
        return frames_at(divmod(n + 9, SHAPE[1]))  # from where two spots shine

    def all(self):
        return [self.start, self.descriptor, *self.events, self.stop]


def send(stage, documents):
    for name, doc in documents:
        stage(name, doc)


def chain_and_checks(checked):
    chain = build_chain(
        KEY, diameter=LOCATE["diameter"], search_range=8, memory=14, locate={"separation": 15}
    )
    seen = [checked() for _ in chain.stages]
    for stage, recorder in zip(chain.stages, seen, strict=True):
        stage.subscribe(recorder)
    return chain, seen


def stops(seen):
    return [recorder.named("stop")[0] for recorder in seen]


BAD = {
    "shape": np.zeros((3, 5, 7), np.uint16),
    "one axis": np.zeros(12, np.uint16),
    "empty": np.zeros((0, *PIXELS), np.uint16),
    "all NaN": np.full(PIXELS, np.nan),
    "text": np.full((2, 2), "x"),
    "complex": np.zeros(PIXELS, complex),
    "no datum": "datum/that/never/came",
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_frame_costs_itself(kind, checked, caplog):
    chain, seen = chain_and_checks(checked)
    raw = RawRun()
    raw.events[4][1]["data"][KEY] = BAD[kind]
    send(chain, raw.all())
    counts = chain.counts["image_processor"]
    assert (counts.received, counts.processed, counts.failed) == (N, N - 1, 1)
    assert "frame 5" in caplog.text
    frames = {row["frame"] for row in seen[1].rows()}
    assert frames == set(range(1, N + 1)) - {5}
    for stop in stops(seen):
        assert stop["exit_status"] == "fail"
        assert "1 frames failed" in stop["reason"]
    assert stops(seen)[0]["num_events"] == {"primary": N - 1}
    assert chain.counts["peak_tracker"].missed == 0
    assert len(seen[3].rows()) >= 1  # maps of what is there


def test_pixels_that_are_not_finite_don_t_hide_the_others(checked):
    chain, seen = chain_and_checks(checked)
    raw = RawRun()
    frames = raw.events[3][1]["data"][KEY].astype(np.float32)
    frames[:, :5] = np.nan
    raw.events[3][1]["data"][KEY] = frames
    send(chain, raw.all())
    assert not chain.counts["image_processor"].failed
    assert 4 in {row["frame"] for row in seen[1].rows()}


def test_gap_in_seq_num(checked, caplog):
    chain, seen = chain_and_checks(checked)
    raw = RawRun()
    del raw.events[2:5]
    send(chain, raw.all())
    assert chain.counts["image_processor"].missed == 3
    assert "3 frames of 'primary' never came" in caplog.text
    assert {s["exit_status"] for s in stops(seen)} == {"fail"}
    assert "3 frames never came" in stops(seen)[0]["reason"]
    assert {row["frame"] for row in seen[2].rows()} == {1, 2, 6, 7, 8}


def test_frames_missing_at_the_end(checked):
    """The stop document says how many there were."""
    chain, seen = chain_and_checks(checked)
    raw = RawRun()
    del raw.events[-2:]
    send(chain, raw.all())
    assert chain.counts["image_processor"].missed == 2
    assert stops(seen)[3]["exit_status"] == "fail"


def test_repeated_and_late_events_are_left_out(checked):
    """As a run engine sends them again after a pause."""
    chain, seen = chain_and_checks(checked)
    raw = RawRun()
    raw.events[4:4] = raw.events[2:4]
    send(chain, raw.all())
    counts = chain.counts["image_processor"]
    assert (counts.repeated, counts.processed, counts.missed) == (2, N, 0)
    assert stops(seen)[0]["exit_status"] == "success"


def test_late_subscriber_waits_for_the_next_run(checked, caplog):
    chain, seen = chain_and_checks(checked)
    late = RawRun()
    send(chain, [*late.events[3:], late.stop])
    counts = chain.counts["image_processor"]
    assert counts.orphans == N - 3 + 1
    assert caplog.text.count("whose descriptor never came") == 1  # not once per event
    assert not any(recorder.documents for recorder in seen)
    send(chain, RawRun().all())
    assert stops(seen)[2]["exit_status"] == "success"


def test_descriptor_without_start(checked):
    chain, seen = chain_and_checks(checked)
    raw = RawRun()
    send(chain, raw.all()[1:])
    assert chain.counts["image_processor"].orphans == N + 2
    assert not seen[0].documents


def test_aborted_run_gives_aborted_results(checked):
    chain, seen = chain_and_checks(checked)
    raw = RawRun()
    stop = {
        **raw.stop[1],
        "exit_status": "abort",
        "reason": "beam lost",
        "num_events": {"primary": 5},
    }
    send(chain, [raw.start, raw.descriptor, *raw.events[:5], ("stop", stop)])
    for derived in stops(seen):
        assert derived["exit_status"] == "abort"
        assert "beam lost" in derived["reason"]
    assert max(row["frame"] for row in seen[2].rows()) == 5  # the last frame is linked too


def test_close_ends_open_runs(checked):
    chain, seen = chain_and_checks(checked)
    raw = RawRun()
    send(chain, raw.all()[:-1])
    chain.close("server stopped")
    for derived in stops(seen):
        assert derived["exit_status"] == "abort"
        assert "server stopped" in derived["reason"]
    assert max(row["frame"] for row in seen[2].rows()) == N


def test_runs_that_never_stop_are_bounded(checked):
    chain, seen = chain_and_checks(checked)
    for _ in range(MAX_OPEN_RUNS + 3):
        send(chain, RawRun().all()[:4])
    assert chain.counts["image_processor"].partial_runs == 3
    assert len(seen[3].named("stop")) == 3
    assert {s["exit_status"] for s in seen[0].named("stop")} == {"abort"}


def test_interleaved_runs(checked):
    chain, seen = chain_and_checks(checked)
    one, two = RawRun(), RawRun()
    for pair in zip(one.all(), two.all(), strict=True):
        send(chain, pair)
    assert [s["exit_status"] for s in seen[2].named("stop")] == ["success"] * 2
    assert chain.counts["image_processor"].processed == 2 * N


def test_event_pages_that_split_a_frame(checked):
    """Databases replay rows in pages of any length."""
    tracker, rows = PeakTracker(KEY, **LOCATE), checked()
    tracker.subscribe(rows, "start")
    tracker.subscribe(rows, "descriptor")
    tracker.subscribe(rows, "event")
    tracker.subscribe(rows, "stop")
    send(tracker, RawRun().all())
    events = rows.named("event")
    assert len(events) > N
    expected = checked()
    whole, split = TrackLinker(search_range=8, memory=14), TrackLinker(search_range=8, memory=14)
    for linker in (whole, split):
        recorder = checked()
        linker.subscribe(recorder)
        linker("start", rows.named("start")[0])
        linker("descriptor", rows.named("descriptor")[0])
        if linker is whole:
            for event in events:
                linker("event", event)
            expected = recorder
        else:
            for first in range(0, len(events), 3):
                linker("event_page", pack_event_page(*events[first : first + 3]))
        linker("stop", rows.named("stop")[0])
        assert [r["particle"] for r in recorder.rows()] == [r["particle"] for r in expected.rows()]
        assert len(recorder.rows()) == len(events)


def test_a_subscriber_that_fails_stops_nobody(checked, caplog):
    processor, after = ImageProcessor(KEY), checked()

    def full_disk(name, doc):
        raise OSError("No space left on device")

    processor.subscribe(full_disk)
    processor.subscribe(after)
    send(processor, RawRun().all())
    assert len(after.named("event")) == N
    assert processor.counts.subscriber_errors == N + 3
    assert caplog.text.count("failed on a") == 1  # once per run
    assert after.named("stop")[0]["exit_status"] == "success"


def test_a_display_that_fails_stops_nobody(checked):
    chain, seen = chain_and_checks(checked)
    chain.on_result(lambda result: 1 / 0)
    send(chain, RawRun().all())
    assert stops(seen)[3]["exit_status"] == "success"
    assert chain.counts["image_processor"].subscriber_errors == N


def test_a_callback_subscribed_twice_gets_documents_once(checked):
    linker, recorder = TrackLinker(search_range=8), checked()
    assert linker.subscribe(recorder) == linker.subscribe(recorder)
    send(linker, [RawRun().start])
    assert len(recorder.documents) == 1


def test_a_run_without_a_grid_has_no_maps_and_says_so(checked):
    mapper, recorder = CrystalMapper(), checked()
    mapper.subscribe(recorder)
    bundle = compose_run()
    send(mapper, [("start", bundle.start_doc), ("stop", bundle.compose_stop())])
    assert "no grid" in recorder.named("stop")[0]["reason"]


def test_documents_that_are_none_are_survived(checked, caplog):
    caplog.set_level(logging.CRITICAL)
    processor = ImageProcessor(KEY)
    for name, doc in (
        ("start", {}),
        ("event", {}),
        ("stop", {"run_start": "?"}),
        ("event", None),
        ("no such document", {}),
    ):
        processor(name, doc)
    assert processor.counts.failed == 3
    assert processor.counts.orphans == 1
    recorder = checked()
    processor.subscribe(recorder)
    send(processor, RawRun().all())
    assert recorder.named("stop")[0]["exit_status"] == "success"


def test_parameters_that_can_t_be_used_are_refused_at_once():
    with pytest.raises(TrackingError, match="search_range"):
        TrackLinker()
    with pytest.raises(TrackingError, match="search_range is -1"):
        TrackLinker(search_range=-1)
    with pytest.raises(TrackingError, match="insert"):
        PeakTracker(KEY, 11, db=object())
    with pytest.raises(TrackingError, match="background"):
        ImageProcessor(KEY, np.zeros((3, *PIXELS)))
    with pytest.raises(ValueError, match="evnt"):
        PeakTracker(KEY, 11).subscribe(print, "evnt")
