"""Peak tracking through the whole product: a detector's images in, tables and maps out."""

import numpy as np
import pytest
from support.processes import wait_for
from support.rod_site import CHANNEL, RodDetector, tracking_ioc

from tomostream_ioc.tracking.rod import CrystalRod

# the first run in a fresh clone compiles for a while
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def rod():
    return CrystalRod((8, 10), image_shape=(128, 128), n_grains=3, n_frames=2, seed=3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("crystal")


@pytest.fixture(scope="module")
def detector(folder, rod):
    sender = RodDetector(folder, rod)
    yield sender
    sender.close()


@pytest.fixture(scope="module")
def ioc(folder, rod, detector):
    with tracking_ioc(folder, rod, detector, Percentile=80) as made:
        yield made


@pytest.fixture
def running(ioc):
    """A run that waits for images; ended afterwards."""
    token = ioc.ca.put_callback(f"{ioc.prefix}Crystal:Start", 1)
    wait_for(lambda: "waiting" in ioc.get("Crystal:Status", True), 100)
    yield ioc
    ioc.put("Crystal:Abort", 1, wait=True)
    wait_for(lambda: ioc.ca.put_done(token), 5, "the end of the busy put")


def test_a_scan_becomes_tracks_and_a_map(rod, detector, running):
    ioc = running
    detector.burst(2 * rod.n_points)
    wait_for(lambda: ioc.get("Crystal:Points") == rod.n_points, 30, "every point")
    assert [
        ioc.get(f"Crystal:{name}")
        for name in ("FramesReceived", "FramesMissed", "FramesRejected", "FramesDropped")
    ] == [2 * rod.n_points, 0, 0, 0]
    n_peaks = len(rod.truth.y)
    # a few more are maxima of the powder rings; tests of tracking look at each
    assert n_peaks <= ioc.get("Crystal:TracksTotal") <= 1.5 * n_peaks
    assert ioc.get("Crystal:PointsSlow") == 0
    total, facts = ioc.slices.get(f"{ioc.prefix}Crystal:Map")
    assert total.shape == rod.grid.shape
    assert facts["attributes"]["MapOf"] == "Total intensity"
    lit = rod.truth.masks.any(axis=0)
    assert ((total > 0) == lit).mean() > 0.95
    brightest = np.argmax(rod.truth.counts)
    ioc.put("Crystal:MapOf", "Brightest track", wait=True)
    wait_for(lambda: ioc.get("Crystal:MapShown") >= 0, 5)
    image, facts = wait_for(lambda: _map_of(ioc, "Brightest track"), 5)
    mask = rod.truth.masks[rod.truth.grain[brightest]]
    overlap = ((image > 0) & mask).sum() / ((image > 0) | mask).sum()
    assert overlap > 0.9
    assert facts["attributes"]["Track"] == ioc.get("Crystal:MapShown")


def _map_of(ioc, kind):
    image, facts = ioc.slices.get(f"{ioc.prefix}Crystal:Map")
    return (image, facts) if facts["attributes"]["MapOf"] == kind else None


def test_tables_carry_peaks_frames_and_unique_ids(rod, detector, running):
    ioc = running
    lit = int(np.flatnonzero(rod.truth.masks[0].ravel())[0])
    number = int(np.flatnonzero(rod.grid.flat_indices(np.arange(1, 81)) == lit)[0]) + 1
    channels = [f"{ioc.prefix}Crystal:{name}" for name in ("Peaks", "Tracks")]
    for channel in channels:
        ioc.slices.watch_table(channel)
    detector.burst(2 * number)

    def table(channel):
        return next((t for t in ioc.slices.monitored(channel) if number in t["frame"]), None)

    peaks, tracks = (wait_for(lambda channel=channel: table(channel), 10) for channel in channels)
    assert set(peaks) == {
        "y", "x", "mass", "size", "ecc", "signal", "raw_mass", "ep", "frame", "unique_id",
    }  # fmt: skip
    assert set(tracks) == {*peaks, "particle"}
    assert tracks["unique_id"] == [2 * number] * len(tracks["y"])
    assert tracks["frame"] == [number] * len(tracks["y"])
    assert len(set(tracks["particle"])) == len(tracks["particle"]) > 0
    truth = rod.peaks(number)
    for y, x in zip(truth["y"], truth["x"], strict=True):
        distances = np.hypot(np.subtract(tracks["y"], y), np.subtract(tracks["x"], x))
        assert distances.min() < 0.2


def test_lost_images_are_counted_and_move_no_point(rod, detector, running):
    ioc = running
    detector.burst(10)
    detector.burst(10, start=15)  # 11 to 14: points 6 and 7
    wait_for(lambda: ioc.get("Crystal:FramesReceived") == 20, 20)
    wait_for(lambda: ioc.get("Crystal:Points") == 10, 20)
    assert ioc.get("Crystal:FramesMissed") == 4
    assert "point 12 of 80" in ioc.get("Crystal:Status", True)


def test_an_image_of_another_size_is_said_and_survived(rod, detector, running):
    ioc = running
    detector.say("frame 1 rows=64 cols=64 dtype=uint16")
    detector.expect("ok frame")
    detector.say("frame 2 rows=64 cols=64 dtype=uint16")
    detector.expect("ok frame")
    wait_for(lambda: "another size" in ioc.get("Crystal:Status", True), 10)
    assert ioc.ca.info(f"{ioc.prefix}Crystal:Status")["severity"] == 1
    detector.burst(4, start=3)
    wait_for(lambda: ioc.get("Crystal:Points") == 3, 20)
    wait_for(lambda: ioc.ca.info(f"{ioc.prefix}Crystal:Status")["severity"] == 0, 10)


def test_the_background_can_be_taken_from_the_stream(folder, detector, running):
    ioc = running
    ioc.put("Crystal:BackgroundFrames", 4, wait=True)
    token = ioc.ca.put_callback(f"{ioc.prefix}Crystal:TakeBackground", 1)
    detector.burst(6)
    wait_for(lambda: ioc.ca.put_done(token), 10)
    wait_for(lambda: ioc.get("Crystal:BackgroundMean") > 0, 5)
    mean = np.load(folder / "scan.npy")[:4].mean()
    assert ioc.get("Crystal:BackgroundMean") == pytest.approx(mean, rel=1e-6)


def test_a_background_that_can_not_be_read_is_an_alarm_on_its_record_alone(ioc):
    kept = ioc.get("Crystal:BackgroundMean")
    ioc.put("Crystal:BackgroundFile", "/nowhere/dark.npy", wait=True)
    wait_for(lambda: ioc.ca.info(f"{ioc.prefix}Crystal:BackgroundFile")["severity"] == 2, 5)
    assert ioc.get("Crystal:BackgroundMean") == kept
    ioc.put("Crystal:BackgroundFile", "", wait=True)
    wait_for(lambda: ioc.ca.info(f"{ioc.prefix}Crystal:BackgroundFile")["severity"] == 0, 5)
    assert ioc.get("Crystal:BackgroundMean") == 0


@pytest.mark.parametrize(
    ("record", "value"),
    [("Diameter", 8), ("Diameter", 1), ("Percentile", 101), ("Separation", 0), ("Memory", -2)],
)
def test_parameters_that_find_nothing_are_refused(ioc, record, value):
    before = ioc.get(f"Crystal:{record}")
    ioc.put(f"Crystal:{record}", value, wait=True)
    assert ioc.get(f"Crystal:{record}") == before


def test_a_start_without_a_channel_is_refused_with_the_reason(ioc):
    ioc.put("Crystal:ImagePVAName", "", wait=True)
    try:
        ioc.put("Crystal:Start", 1, wait=True)
        assert ioc.get("Crystal:Start") == 0
        assert "Crystal:ImagePVAName is empty" in ioc.output
    finally:
        ioc.put("Crystal:ImagePVAName", CHANNEL, wait=True)
