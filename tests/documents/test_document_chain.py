"""The chain on a real run engine: three kinds of pixels, snaked or not, subscribed in any order."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
from bluesky import RunEngine
from bluesky.callbacks.best_effort import BestEffortCallback
from bluesky.plans import grid_scan
from crystal_scan import (
    BACKGROUND,
    KEY,
    LOCATE,
    PIXELS,
    SHAPE,
    SPOTS,
    Axis,
    InlineDetector,
    ResourceDetector,
    StreamDetector,
    n_peaks,
    shines,
)
from event_model import Filler

from tomostream_ioc.documents import (
    CrystalMapper,
    ImageProcessor,
    MapsResult,
    PeaksResult,
    PeakTracker,
    TrackLinker,
    TracksResult,
    build_chain,
    read_maps,
    read_peaks,
    read_tracks,
)
from tomostream_ioc.tracking import link, locate

N_POINTS = SHAPE[0] * SHAPE[1]
#: a spot at one side of a snaked scan is out of sight for nearly two rows
MEMORY = 2 * SHAPE[1]


def tables_of(stage):
    """A list that grows by the table of each result."""
    tables = []

    def keep(result):
        assert isinstance(result, PeaksResult | TracksResult)
        tables.append(result.table)

    stage.on_result = keep
    return tables


def scan(callback, make=InlineDetector, snake=True, args=()):
    """Run a grid scan; returns its documents."""
    documents = []
    engine = RunEngine({}, context_managers=[])
    slow, fast = Axis("slow"), Axis("fast")
    engine.subscribe(lambda name, doc: documents.append((name, doc)))
    if callback is not None:
        engine.subscribe(callback)
    engine(
        grid_scan(
            [make(slow, fast, *args)],  # type: ignore[list-item]
            slow, 0, SHAPE[0] - 1, SHAPE[0],
            fast, 0, SHAPE[1] - 1, SHAPE[1],
            snake_axes=snake,
        )
    )  # fmt: skip
    return documents


@pytest.fixture(scope="module")
def recorded_scan():
    """Documents of one snaked scan with inline pixels."""
    return scan(None)


def expected_maps():
    """Where each spot shines, on the scan's grid."""
    points = list(itertools.product(range(SHAPE[0]), range(SHAPE[1])))
    return [
        np.array([shines(spot, point) for point in points]).reshape(SHAPE)
        for spot in range(len(SPOTS))
    ]


def assert_maps(maps):
    assert maps.maps.shape == (len(SPOTS), *SHAPE)
    places = [(y, x) for y, x, *_ in SPOTS]
    for where, y, x in zip(maps.maps, maps.y, maps.x, strict=True):
        spot = int(np.argmin([np.hypot(y - a, x - b) for a, b in places]))
        assert np.hypot(y - places[spot][0], x - places[spot][1]) < 0.2
        np.testing.assert_array_equal(where > 0, expected_maps()[spot])


@pytest.mark.parametrize("snake", [True, False], ids=["snaked", "not snaked"])
@pytest.mark.parametrize("kind", ["inline", "resource", "stream"])
def test_run_engine_to_maps(kind, snake, tmp_path, checked):
    make = {"inline": InlineDetector, "resource": ResourceDetector, "stream": StreamDetector}[kind]
    chain = build_chain(
        KEY, np.full(PIXELS, BACKGROUND + 8), diameter=11, search_range=8, memory=MEMORY,
        locate={"percentile": 80, "separation": 15}, live_interval_s=0.0,
    )  # fmt: skip
    results = []
    chain.on_result(results.append)
    seen = [checked() for _ in chain.stages]
    for stage, recorder in zip(chain.stages, seen, strict=True):
        stage.subscribe(recorder)
    scan(chain, make, snake, () if kind == "inline" else (tmp_path,))

    images, peaks, tracks, maps = seen
    assert len(images.named("event")) == N_POINTS
    assert len(peaks.rows()) == len(tracks.rows()) == n_peaks()
    assert len({row["particle"] for row in tracks.rows()}) == len(SPOTS)
    assert [recorder.named("stop")[0]["exit_status"] for recorder in seen] == ["success"] * 4
    assert peaks.named("stop")[0]["num_events"] == {"primary": n_peaks()}
    assert not any(c.failed or c.missed or c.orphans for c in chain.counts.values())
    final = [r for r in results if isinstance(r, MapsResult)]
    assert len(final) > 2
    assert final[-1].final
    assert_maps(final[-1].maps)
    assert len(maps.rows()) == len(SPOTS)


def test_start_documents_name_parent_and_root(recorded_scan, checked):
    chain = build_chain(KEY, diameter=11, search_range=8, memory=MEMORY)
    seen = [checked() for _ in chain.stages]
    for stage, recorder in zip(chain.stages, seen, strict=True):
        stage.subscribe(recorder)
    for name, doc in recorded_scan:
        chain(name, doc)
    raw = recorded_scan[0][1]
    parent = raw["uid"]
    for stage, recorder in zip(chain.stages, seen, strict=True):
        (start,) = recorder.named("start")
        assert start["analysis_stage"] == stage.stage_name
        assert start["parent_run_uid"] == start["original_run_uid"] == parent
        assert start["root_run_uid"] == raw["uid"]
        assert tuple(start["shape"]) == SHAPE
        parent = start["uid"]
    assert len({recorder.named("start")[0]["uid"] for recorder in seen}) == 4


def test_descriptors_say_what_the_arrays_are(recorded_scan, checked):
    """LiveDispatcher copied the raw descriptor: means of uint16 frames were stored as uint16."""
    processor, tracker = ImageProcessor(KEY), PeakTracker(KEY, **LOCATE)
    images, peaks = checked(), checked()
    processor.subscribe(images)
    processor.subscribe(tracker)
    tracker.subscribe(peaks)
    for name, doc in recorded_scan:
        processor(name, doc)
    (declared,) = images.named("descriptor")
    assert declared["data_keys"][KEY]["dtype_numpy"] == "<f4"
    assert declared["data_keys"][KEY]["shape"] == list(PIXELS)
    image = images.named("event")[0]["data"][KEY]
    assert isinstance(image, np.ndarray)
    assert np.any(image % 1)  # a mean of three frames
    (declared,) = peaks.named("descriptor")
    columns = ["y", "x", "mass", "size", "ecc", "signal", "raw_mass", "ep", "frame"]
    assert list(declared["data_keys"]) == columns
    assert declared["data_keys"]["frame"]["dtype_numpy"] == "<i8"
    assert {declared["data_keys"][key]["dtype_numpy"] for key in columns[:-1]} == {"<f8"}


def test_peaks_are_those_of_trackpy(recorded_scan, checked):
    tracker, recorder = PeakTracker(KEY, **LOCATE), checked()
    tracker.subscribe(recorder)
    for name, doc in recorded_scan:
        tracker(name, doc)
    events = [doc for name, doc in recorded_scan if name == "event"]
    rows = recorder.rows()
    for event in events[::9]:
        image = event["data"][KEY].mean(axis=0)
        oracle = locate(image, **LOCATE)
        mine = [row for row in rows if row["frame"] == event["seq_num"]]
        np.testing.assert_allclose([row["y"] for row in mine], oracle["y"], rtol=1e-12)
        np.testing.assert_allclose([row["mass"] for row in mine], oracle["mass"], rtol=1e-12)


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))), ids=str)
def test_any_order_of_subscription(order, recorded_scan, checked):
    """The manual's order lost the last frame: 35 of 42 peaks were linked."""
    processor, tracker = ImageProcessor(KEY), PeakTracker(KEY, **LOCATE)
    linker, mapper = TrackLinker(search_range=8, memory=MEMORY), CrystalMapper()
    peaks, tracks, maps = checked(), checked(), checked()
    mapper.subscribe(maps)
    steps = [
        lambda: (processor.subscribe(tracker),),
        lambda: (tracker.subscribe(linker), tracker.subscribe(peaks)),
        lambda: (linker.subscribe(tracks),),
        lambda: (linker.subscribe(mapper),),
    ]
    if order[0] % 2:
        steps[1] = lambda: (tracker.subscribe(peaks), tracker.subscribe(linker))
    for i in order:
        steps[i]()
    # every point has one spot everywhere: 42 of 42
    for name, doc in recorded_scan:
        processor(name, doc)
    brightest = [row for row in tracks.rows() if abs(row["y"] - SPOTS[0][0]) < 1]
    assert len(brightest) == N_POINTS == 42
    assert len({row["particle"] for row in brightest}) == 1
    assert len(tracks.rows()) == len(peaks.rows()) == n_peaks()
    assert len(maps.rows()) == len(SPOTS)


def test_tracks_are_those_of_linking_the_whole_table(recorded_scan):
    tracker, linker = PeakTracker(KEY, **LOCATE), TrackLinker(search_range=8, memory=MEMORY)
    peaks, tracks = tables_of(tracker), tables_of(linker)
    tracker.subscribe(linker)
    for name, doc in recorded_scan:
        tracker(name, doc)
    whole = link(pd.concat(peaks), 8, memory=MEMORY)
    online = pd.concat(tracks)
    np.testing.assert_array_equal(online["particle"], whole["particle"])
    np.testing.assert_array_equal(online["x"], whole["x"])


def test_the_manual_verbatim(recorded_scan, db):
    """crystalmapping's page, with Tiled as both databases and the names of the scan above."""
    DB = DB2 = db
    for name, doc in recorded_scan:
        DB.insert(name, doc)
    run = DB[recorded_scan[0][1]["uid"]]
    image = np.full(PIXELS, BACKGROUND)

    ip = ImageProcessor("dexela_image", subtrahend=image)
    pt = PeakTracker("dexela_image", diameter=11, percentile=80, separation=15)
    tl = TrackLinker(db=DB2, search_range=50, memory=MEMORY)
    bec = BestEffortCallback()
    bec.disable_plots()
    tl.subscribe(DB2.insert)
    pt.subscribe(tl)
    pt.subscribe(DB2.insert)
    ip.subscribe(pt)
    ip.subscribe(bec)

    with Filler(
        handler_registry=dict(DB.reg.handler_reg), inplace=True, root_map=DB.reg.root_map
    ) as filler:
        for name, doc in run.documents(fill=False):
            filler(name, doc)
            ip(name, doc)

    counts = {stage.stage_name: stage.counts for stage in (ip, pt, tl)}
    assert not any(c.subscriber_errors or c.failed or c.missed for c in counts.values()), counts
    peaks = read_peaks(db, run.start["uid"])
    tracks = read_tracks(db, run.start["uid"])
    assert len(peaks) == len(tracks) == n_peaks()
    assert list(peaks.columns) == [
        "y", "x", "mass", "size", "ecc", "signal", "raw_mass", "ep", "frame",
    ]  # fmt: skip
    assert int(peaks["frame"].to_numpy().min()) == 1
    assert int(peaks["frame"].to_numpy().max()) == N_POINTS
    assert len(set(tracks["particle"])) == len(SPOTS)


@pytest.mark.parametrize("kind", ["inline", "resource", "stream"])
def test_replay_from_tiled_equals_live(kind, db, tmp_path):
    make = {"inline": InlineDetector, "resource": ResourceDetector, "stream": StreamDetector}[kind]

    def chain():
        return build_chain(
            KEY, np.full(PIXELS, BACKGROUND), diameter=11, search_range=8, memory=MEMORY, db=db,
            record_images=True, locate={"percentile": 80, "separation": 15},
        )  # fmt: skip

    live, again = chain(), chain()

    def both(name, doc):
        db.insert(name, doc)
        live(name, doc)

    documents = scan(both, make, True, () if kind == "inline" else (tmp_path,))
    uid = documents[0][1]["uid"]
    first = read_tracks(db, uid)
    assert len(first) == n_peaks()
    assert_maps(read_maps(db, uid))
    for name, doc in db[uid].documents():
        again(name, doc)
    assert not any(c.failed or c.missed or c.subscriber_errors for c in again.counts.values())
    assert len(db.find(analysis_stage="track_linker", root_run_uid=uid)) == 2
    second = read_tracks(db, uid)
    assert second.equals(first)
    assert_maps(read_maps(db, uid))

    # the processed images, out of the database, are a run to find peaks in again
    images = db.find(analysis_stage="image_processor", root_run_uid=uid)[0]
    stored = db.client[images]["primary"][KEY].read()
    assert stored.shape == (N_POINTS, *PIXELS)
    assert stored.dtype == np.float32
    tracker = PeakTracker(KEY, **LOCATE)
    tables = tables_of(tracker)
    for name, doc in db[images].documents():
        tracker(name, doc)
    assert sum(map(len, tables)) == n_peaks()
    assert tracker.counts.missed == tracker.counts.failed == 0
