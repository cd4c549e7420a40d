"""Parts of live peak tracking: points out of images, parameters, backgrounds from files."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
import tifffile

from tomostream_ioc.crystal.background import BackgroundTaker, read_background
from tomostream_ioc.crystal.inbox import Inbox, ScanBegins
from tomostream_ioc.crystal.points import Point, PointBuilder
from tomostream_ioc.errors import ParameterError, TrackingError
from tomostream_ioc.model.crystal import CrystalCounts, PeakParams, ScanSetup
from tomostream_ioc.model.frame import Frame
from tomostream_ioc.model.notices import Notices


def image(unique_id: int, value: float = 1.0, shape=(4, 6), initial=False) -> Frame:
    pixels = np.full(shape, value, np.uint16)
    pixels.flags.writeable = False
    return Frame(unique_id, pixels, 0.0, 0.0, initial)


def numbers(builder: PointBuilder, ids) -> list[int]:
    return [point.number for i in ids for point in builder.add(image(i)).points]


def test_each_image_is_a_point_that_keeps_its_own_pixels():
    taken = PointBuilder(1).add(image(7, 3))
    (point,) = taken.points
    assert (point.number, point.unique_id, point.n_frames) == (1, 7, 1)
    assert point.images.flags.writeable  # a copy: the transport's memory is gone after the call


def test_images_of_a_point_are_averaged_without_overflow():
    builder = PointBuilder(3)
    for i in (1, 2):
        assert builder.add(image(i, 65535)).points == ()
    (point,) = builder.add(image(3, 65532)).points
    assert point.images == pytest.approx(np.full((4, 6), 65534.0))
    assert point.n_frames == 3


def test_what_is_lost_moves_no_point():
    builder = PointBuilder(2)
    assert numbers(builder, [1, 2, 3]) == [1]
    # 4 is lost: its point ends when the next one begins, with the image that it has
    taken = builder.add(image(5))
    assert [point.number for point in taken.points] == [2]
    assert taken.missed == 1
    assert taken.points[0].n_frames == 1
    assert numbers(builder, [6, 9, 10]) == [3, 5]


def test_an_image_that_comes_after_its_point_is_late_and_a_repeated_one_a_duplicate():
    builder = PointBuilder(1)
    assert numbers(builder, [1, 3]) == [1, 3]
    assert builder.add(image(2)).late
    assert builder.add(image(3)).duplicate == 1


def test_a_detector_that_counts_anew_begins_another_scan():
    builder = PointBuilder(1)
    numbers(builder, range(1000, 1003))
    taken = builder.add(image(1))
    assert taken.restart
    assert [point.number for point in taken.points] == [1]


def test_what_the_channel_holds_when_it_connects_is_no_image():
    builder = PointBuilder(1)
    assert builder.add(image(50, initial=True)).state
    assert numbers(builder, [1, 2]) == [1, 2]
    assert builder.add(image(2, initial=True)).state  # once more after a reconnect
    assert numbers(builder, [3]) == [3]
    taken = builder.add(image(1, initial=True))  # the detector has restarted
    assert taken.state
    assert taken.restart
    assert numbers(builder, [2, 3]) == [1, 2]


def test_an_image_that_can_not_be_used_is_not_missed_as_well():
    builder = PointBuilder(1)
    numbers(builder, [1])
    assert builder.leave_out(2) == 0
    assert builder.add(image(3)).missed == 0


def test_a_change_of_size_ends_the_point():
    builder = PointBuilder(2)
    builder.add(image(1))
    (point,) = builder.add(image(2, shape=(8, 8))).points
    assert point.images.shape == (4, 6)


def test_a_full_queue_drops_what_comes_and_counts_it():
    inbox = Inbox(Notices(), queue_bytes=3 * 48)
    for i in range(1, 6):
        inbox.on_frame(image(i))
    counts = inbox.counts(CrystalCounts())
    assert (counts.received, counts.dropped) == (5, 2)
    taken = [inbox.take(0.0) for _ in range(4)]
    assert [item.number for item in taken if isinstance(item, Point)] == [1, 2, 3]
    assert taken[3] is None
    inbox.on_frame(image(6))
    assert isinstance(inbox.take(0.0), Point)


def test_a_scan_of_documents_brings_its_grid_or_says_that_there_is_none():
    notices = Notices()
    inbox = Inbox(notices)
    inbox.on_scan({"shape": [3, 4], "snaking": [False, True]})
    begins = inbox.take(0.0)
    assert isinstance(begins, ScanBegins)
    assert begins.grid is not None
    assert begins.grid.shape == (3, 4)
    inbox.on_scan({"plan_name": "count"})
    begins = inbox.take(0.0)
    assert isinstance(begins, ScanBegins)
    assert begins.grid is None
    assert "There will be no map" in notices.text()


@pytest.mark.parametrize(
    ("source", "record"),
    [("Detector", "Crystal:ImagePVAName"), ("Documents", "Crystal:DocsAddress")],
)
def test_why_nothing_can_come_is_an_alarm_on_the_record_of_the_channel(source, record):
    notices = Notices()
    inbox = Inbox(notices)
    inbox.new_run(ScanSetup(source, image_pva="det:Image"))
    inbox.on_connection("no images: a cable is out")
    assert inbox.trouble == "no images: a cable is out"
    assert [*notices.alarms()] == [record]
    assert notices.alarms()[record].message == inbox.trouble
    inbox.on_connection("")
    assert inbox.trouble == ""
    assert not notices.alarms()


def test_an_alarm_on_the_channel_ends_with_the_run():
    notices = Notices()
    inbox = Inbox(notices)
    inbox.new_run(ScanSetup("Documents", docs_address="localhost:5568"))
    inbox.on_connection("no proxy answers there")
    inbox.end_run()
    assert not notices.alarms()


@pytest.mark.parametrize("suffix", [".npy", ".tif", ".h5"])
@pytest.mark.parametrize("n_frames", [1, 3])
def test_backgrounds_are_read(tmp_path, suffix, n_frames):
    images = np.arange(n_frames * 20, dtype=np.uint16).reshape(n_frames, 4, 5)
    path = tmp_path / f"dark{suffix}"
    if suffix == ".npy":
        np.save(path, images)
    elif suffix == ".tif":
        tifffile.imwrite(path, images, photometric="minisblack")
    else:
        with h5py.File(path, "w") as file:
            file["entry/title"] = "dark"
            file["entry/instrument/frames"] = images
    assert read_background(str(path)) == pytest.approx(images.mean(axis=0))


def test_a_data_set_can_be_named(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["data"] = np.zeros((2, 2))
        file["dark"] = np.ones((2, 2))
    assert read_background(f"{tmp_path / 'a.h5'}:/dark").mean() == 1


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.npy", None, "can't be read"),
        ("a.npy", b"no numpy file", "can't be read"),
        ("a.h5", b"no HDF5", "can't be read"),
        ("a.tif", b"no TIFF", "can't be read"),
        ("a.txt", b"1 2 3", ".txt is not .npy, .tif or .h5"),
    ],
)
def test_backgrounds_that_can_not_be_read_say_why(tmp_path, name, content, says):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(TrackingError, match=says):
        read_background(str(tmp_path / name))


def test_a_background_of_nothing_is_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.full((8, 8), np.nan))
    with pytest.raises(TrackingError, match="no finite number"):
        read_background(str(tmp_path / "a.npy"))
    with pytest.raises(TrackingError, match="is a folder"):
        read_background(str(tmp_path))


def test_a_pickle_is_not_opened(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(TrackingError, match="can't be read"):
        read_background(str(tmp_path / "a.npy"))


def test_a_background_is_taken_from_as_many_images_as_were_asked_for():
    taker = BackgroundTaker(1, 4)
    assert taker.add(np.full((2, 2), 10.0), 2) is None  # the mean of two
    background = taker.add(np.stack([np.full((2, 2), 30.0)] * 2), 2)
    assert background is not None
    assert background == pytest.approx(np.full((2, 2), 20.0))


@pytest.mark.parametrize(
    "wrong",
    [
        {"diameter": 4}, {"diameter": 1}, {"percentile": -1.0}, {"separation": float("nan")},
        {"search_range": 0.0}, {"min_mass": -1.0}, {"max_peaks": -1}, {"memory": -2},
        {"quantize": "4 bit"},
    ],
)  # fmt: skip
def test_parameters_that_find_nothing_are_errors(wrong):
    with pytest.raises(ParameterError):
        PeakParams(**wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        {"image_pva": " "}, {"source": "Files"}, {"source": "Documents", "docs_address": "here"},
        {"n_rows": 3}, {"n_rows": -1, "n_cols": -1}, {"n_rows": 10**5, "n_cols": 10**5},
        {"frames_per_point": 0},
    ],
)  # fmt: skip
def test_setups_that_can_not_run_are_errors(wrong):
    with pytest.raises(ParameterError):
        ScanSetup(**({"image_pva": "det:Image"} | wrong))
