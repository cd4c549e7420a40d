"""Frames, fields and angles from a pvapy sender reach the handler, whatever else is sent."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import pytest
from pva_helpers import Recorder, Script, names, opened
from pvapy_sender import MEMBERS, synthetic
from support.processes import wait_for

from tomostream_ioc.epics import pva_source
from tomostream_ioc.epics.pva_source import PvaSource
from tomostream_ioc.errors import ArmingError


@pytest.fixture
def sender(start: Callable[..., Script]) -> Script:
    return start("pvapy_sender.py")


def test_frames_of_every_type_arrive_whole(sender: Script, source: PvaSource):
    recorder = opened(source)
    for number, dtype in enumerate(MEMBERS, start=1):
        sender.do(f"frame {number} dtype={dtype}")
    wait_for(lambda: len(recorder.frames) == len(MEMBERS), what="all frames")
    for number, (frame, dtype) in enumerate(zip(recorder.frames, MEMBERS, strict=True), start=1):
        assert frame.unique_id == number
        assert frame.dtype == np.dtype(dtype)
        np.testing.assert_array_equal(frame.pixels, synthetic(number, 32, 48, dtype))
        assert frame.timestamp_s > 1.7e9
        assert not frame.initial
    assert recorder.rejected == []


@pytest.mark.parametrize("codec", ["lz4", "bslz4", "blosc", "jpeg"])
def test_compressed_frames_are_decoded(sender: Script, source: PvaSource, codec: str):
    recorder = opened(source)
    dtype = "uint8" if codec == "jpeg" else "uint16"
    sender.do(f"frame 1 codec={codec} dtype={dtype}")
    sender.do(f"frame 2 codec={codec} dtype={dtype} damage=1")
    sender.do(f"frame 3 codec={codec} dtype={dtype}")
    wait_for(lambda: len(recorder.frames) == 2, what="the two good frames")
    assert recorder.ids == [1, 3]
    ((cause, reason, unique_id),) = recorder.rejected
    assert (cause, unique_id) == ("codec", 2)
    assert codec in reason
    expected = synthetic(3, 32, 48, dtype)
    tolerance = 6 if codec == "jpeg" else 0
    np.testing.assert_allclose(recorder.frames[1].pixels, expected, atol=tolerance, rtol=0)


@pytest.mark.parametrize(
    ("bad", "cause", "words"),
    [
        ("dims=7x5", "dimensions", "7 x 5"),
        ("damage=1", "dimensions", "carries"),
        ("dims=3x16x32", "dimensions", "3 dimensions"),
        ("codec=zfp", "codec", "'zfp'"),
        ("codec=lz4 parameters=0", "codec", "original type"),
    ],
)
def test_a_bad_frame_is_rejected_and_the_next_good_one_comes(
    sender: Script, source: PvaSource, bad: str, cause: str, words: str
):
    recorder = opened(source)
    sender.do(f"frame 1 {bad}")
    sender.do("frame 2")
    wait_for(lambda: recorder.frames, what="the good frame")
    assert recorder.ids == [2]
    assert recorder.rejected[0][0] == cause
    assert words in recorder.rejected[0][1]
    assert recorder.rejected[0][2] == 1


def test_a_burst_is_whole_though_the_queue_is_replaced_meanwhile(sender: Script, source: PvaSource):
    recorder = opened(source)
    sender.do("burst 200 rows=512 cols=512")
    wait_for(lambda: len(recorder.frames) >= 200, what="200 frames")
    sender.do("burst 100 start=201 rows=1024 cols=1024")
    wait_for(lambda: len(recorder.frames) >= 300, what="100 more")
    assert recorder.ids == list(range(1, 301))  # none lost, none twice, in order


def test_what_the_channel_held_is_marked_as_initial(sender: Script, source: PvaSource):
    sender.do("frame 77")
    recorder = opened(source)
    wait_for(lambda: recorder.frames, what="the frame of before")
    sender.do("frame 78")
    wait_for(lambda: len(recorder.frames) == 2, what="a new frame")
    assert [(f.unique_id, f.initial) for f in recorder.frames] == [(77, True), (78, False)]


def test_fields_and_theta_come_once_and_whole(sender: Script, source: PvaSource):
    recorder = opened(source)
    for command in ("dark value=5", "flat value=9", "theta 181 step=0.5"):
        sender.do(command)
    wait_for(lambda: len(recorder.fields) == 2 and recorder.thetas, what="fields and theta")
    for (kind, array), (expected, value) in zip(
        sorted(recorder.fields, key=lambda item: item[0]), (("dark", 5), ("flat", 9)), strict=True
    ):
        assert kind == expected
        assert array.dtype == np.float32
        assert array.flags.owndata or array.base is not None
        np.testing.assert_array_equal(array.ravel(), np.arange(32 * 48) + value)
        assert array.shape == (32, 48)
    np.testing.assert_array_equal(recorder.thetas[0], np.arange(181) * 0.5)
    assert recorder.thetas[0].dtype == np.float64
    # another binning: in between the channel says old sizes with new values
    sender.do("dark value=1 rows=16 cols=24")
    sender.do("theta 90 step=2")
    wait_for(lambda: len(recorder.fields) == 3 and len(recorder.thetas) == 2, what="the new ones")
    assert recorder.fields[2][1].shape == (16, 24)
    assert recorder.thetas[1].size == 90
    # empty initial values were no fault, and nothing in between was one
    assert (recorder.fields_rejected, recorder.thetas_rejected) == ([], [])


def test_fields_and_theta_that_can_not_be_used(sender: Script, source: PvaSource):
    recorder = opened(source)
    sender.do("dark")
    sender.do("theta 10")
    wait_for(lambda: recorder.fields and recorder.thetas, what="good ones")
    sender.do("dark sizex=47")
    sender.do("flat sizex=0 sizey=0")
    wait_for(lambda: len(recorder.fields_rejected) == 2, what="rejections")
    assert {kind for kind, _ in recorder.fields_rejected} == {"dark", "flat"}
    sender.do("dark rows=0 cols=0")
    sender.do("theta 0")
    wait_for(lambda: len(recorder.fields_rejected) == 3, what="an empty field later on")
    wait_for(lambda: recorder.thetas_rejected, what="an empty theta later on")
    sender.do("theta 20 sizex=15")
    wait_for(lambda: len(recorder.thetas) == 2, what="theta cut to sizex")
    assert recorder.thetas[1].size == 15
    assert len(recorder.fields) == 1


def test_theta_that_is_posted_empty_before_the_scan_is_not_there_yet(
    sender: Script, source: PvaSource
):
    recorder = opened(source)
    for _ in range(2):
        sender.do("theta 0")
        sender.do("dark")
        wait_for(lambda: len(recorder.fields) == 1, what="what was posted behind it")
        recorder.fields.clear()
    sender.do("theta 10")
    wait_for(lambda: recorder.thetas, what="angles")
    assert recorder.thetas_rejected == []


def test_a_wrong_channel_is_named_and_harms_nothing(sender: Script, source: PvaSource):
    sender.do("dark")
    sender.do("theta 10")
    recorder = opened(source, image_pva_p_name="T:StreamTheta", dark_pva="T:Image")
    wait_for(lambda: recorder.rejected, what="theta as image is rejected")
    assert recorder.rejected[0][0] == "structure"
    sender.do("frame 1")  # an NTNDArray as dark field
    wait_for(lambda: recorder.fields, what="a dark field from an NTNDArray")
    assert recorder.fields[0][1].shape == (32, 48)
    recorder = opened(source, dark_pva="T:StreamTheta")
    wait_for(lambda: recorder.fields_rejected, what="theta as dark field is rejected")
    assert "T:StreamTheta" in recorder.fields_rejected[0][1]


def test_a_server_that_comes_back_is_found_again(start: Callable[..., Script], source: PvaSource):
    sender = start("pvapy_sender.py")
    recorder = opened(source)
    for _ in range(3):
        sender.stop()
        for what in ("image", "dark", "flat", "theta"):
            wait_for(lambda what=what: not recorder.connected(what), what=f"{what} goes")
        sender = start("pvapy_sender.py")
        for what in ("image", "dark", "flat", "theta"):
            wait_for(lambda what=what: recorder.connected(what), 20.0, what=f"{what} comes")
        recorder.frames.clear()
        recorder.fields.clear()
        sender.do("frame 1")
        sender.do("dark value=3")
        wait_for(lambda: recorder.ids == [1] and recorder.fields, what="frames go on")
        assert not recorder.frames[0].initial
    assert (recorder.rejected, recorder.fields_rejected) == ([], [])


def test_images_have_a_thread_of_their_own(sender: Script, source: PvaSource):
    recorder = opened(source)
    sender.do("frame 1")
    sender.do("dark")
    wait_for(lambda: recorder.frames and recorder.fields, what="a frame and a field")
    assert recorder.threads == {"pva T:Image", "pva T:StreamDarkFields"}


def test_a_handler_that_raises_does_not_end_the_stream(sender: Script, source: PvaSource):
    class Raising(Recorder):
        def on_frame(self, frame):
            super().on_frame(frame)
            raise RuntimeError("defect")

    recorder = Raising()
    source.open(names(), recorder, 0.2)
    wait_for(lambda: recorder.connected("image"), what="connection")
    for number in range(3):
        sender.do(f"frame {number}")
    wait_for(lambda: recorder.ids == [0, 1, 2], what="all frames")


def test_close_ends_all_calls_and_threads(sender: Script, source: PvaSource):
    before = threading.active_count()
    for _ in range(5):
        recorder = opened(source)
        sender.do("frame 1")
        wait_for(lambda recorder=recorder: recorder.frames, what="a frame")
        source.close()
        assert threading.active_count() == before
        count = len(recorder.frames), len(recorder.connections)
        sender.do("frame 2")
        assert (len(recorder.frames), len(recorder.connections)) == count


def test_closed_from_within_a_callback(sender: Script, source: PvaSource):
    class Closing(Recorder):
        def on_frame(self, frame):
            super().on_frame(frame)
            source.close()

    recorder = Closing()
    source.open(names(), recorder, 0.2)
    wait_for(lambda: recorder.connected("image"), what="connection")
    sender.do("burst 5")
    wait_for(lambda: recorder.frames, what="a frame")
    wait_for(
        lambda: not [t for t in threading.enumerate() if t.name.startswith("pva ")],
        what="threads end",
    )
    assert len(recorder.frames) == 1


@pytest.mark.parametrize(
    ("change", "record"),
    [
        ({"image_pva_p_name": ""}, "ImagePVAPName"),
        ({"theta_pva": ""}, "ThetaPVAName"),
    ],
)
def test_an_empty_name_is_said(source: PvaSource, change: dict[str, str], record: str):
    with pytest.raises(ArmingError, match=record):
        source.open(names(**change), Recorder(), 0.2)


def test_fields_without_a_name_are_left_out(sender: Script, source: PvaSource):
    recorder = Recorder()
    source.open(names(dark_pva="", flat_pva=" "), recorder, 0.2)
    wait_for(lambda: recorder.connected("image"), what="connection")
    sender.do("dark")
    sender.do("frame 1")
    wait_for(lambda: recorder.ids == [1], what="a frame")
    assert {what for what, _, _ in recorder.connections} == {"image", "theta"}
    assert recorder.fields == []


def test_cancel_ends_the_wait_for_the_angles_at_once(
    source: PvaSource, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(pva_source, "_THETA_FIRST_S", 30.0)
    recorder = Recorder()
    failed: list[str] = []

    def run() -> None:
        try:
            source.open(names(), recorder, 0.1)
        except ArmingError as error:
            failed.append(str(error))

    opening = threading.Thread(target=run)
    opening.start()
    wait_for(
        lambda: [t for t in threading.enumerate() if t.name == "pva T:StreamTheta"],
        what="the wait for theta",
    )
    source.cancel()
    opening.join(2.0)
    assert not opening.is_alive()
    assert "aborted" in failed[0]
    assert not [t for t in threading.enumerate() if t.name.startswith("pva ")]


def test_cancel_is_of_no_effect_on_what_is_open_or_opened_later(sender: Script, source: PvaSource):
    source.cancel()
    recorder = opened(source)
    source.cancel()
    sender.do("frame 1")
    wait_for(lambda: recorder.ids == [1], what="a frame")
    source.close()
    source.cancel()
    recorder = opened(source)
    sender.do("frame 2")
    wait_for(lambda: recorder.ids[-1:] == [2], what="a frame of the next run")
