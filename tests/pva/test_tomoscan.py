"""tomoScan's records, served by real C records, and what happens where they do not answer."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable

import pytest
from pva_helpers import Recorder, Script, names, opened
from support.processes import wait_for

from tomostream_ioc.epics.pva_source import PvaSource
from tomostream_ioc.errors import ArmingError

WITH_IOC = {"tomoscan_prefix": "T:TS:", "image_pva_p_name": "T:TS:PvaPluginPVPrefix"}


@pytest.mark.parametrize("option", ["", "--long"])
def test_records_are_followed_and_name_the_image(
    start: Callable[..., Script], source: PvaSource, option: str
):
    ioc = start("softioc_tomoscan.py", *([option] if option else []))
    recorder = Recorder()
    began = time.monotonic()
    assert source.open(names(**WITH_IOC), recorder, 5.0) == "T:Image"
    assert time.monotonic() - began < 1.5
    assert (recorder.frame_types, recorder.first_ids) == (["Projection"], [0])
    assert recorder.connected("tomoscan")
    ioc.do("frame_type 2")
    ioc.do("first_id 4711")
    wait_for(lambda: recorder.frame_types[-1] == "DarkField", what="FrameType")
    wait_for(lambda: recorder.first_ids[-1] == 4711, what="FirstProjid")


def test_an_older_tomoscan_has_no_first_id(start: Callable[..., Script], source: PvaSource):
    start("softioc_tomoscan.py", "--old")
    recorder = Recorder()
    source.open(names(**WITH_IOC), recorder, 5.0)
    assert recorder.first_ids == [0]


def test_an_empty_image_prefix_is_said(start: Callable[..., Script], source: PvaSource):
    start("softioc_tomoscan.py", "--image-prefix", "")
    with pytest.raises(ArmingError, match="PvaPluginPVPrefix is empty"):
        source.open(names(**WITH_IOC), Recorder(), 5.0)


def test_records_that_come_back_are_followed_again(start: Callable[..., Script], source: PvaSource):
    ioc = start("softioc_tomoscan.py")
    recorder = Recorder()
    source.open(names(**WITH_IOC), recorder, 5.0)
    ioc.do("first_id 9")
    wait_for(lambda: recorder.first_ids[-1] == 9, what="FirstProjid")
    ioc.stop()
    wait_for(lambda: recorder.connected("tomoscan") is False, what="disconnection")
    again = start("softioc_tomoscan.py")
    wait_for(lambda: recorder.connected("tomoscan"), 30.0, "reconnection")
    wait_for(lambda: recorder.first_ids[-1] == 0, what="FirstProjid, read anew")
    again.do("frame_type 1")
    wait_for(lambda: recorder.frame_types[-1] == "FlatField", what="FrameType")


def test_an_absent_ioc_is_named_in_time(source: PvaSource):
    began = time.monotonic()
    with pytest.raises(ArmingError, match="T:TS:FrameType did not answer within 1 s"):
        source.open(names(**WITH_IOC), Recorder(), 1.0)
    assert time.monotonic() - began < 2.0
    assert not [thread for thread in threading.enumerate() if thread.name == "tomoscan ca"]


def test_an_absent_record_is_the_image_channel_itself(
    start: Callable[..., Script], source: PvaSource
):
    start("softioc_tomoscan.py")
    recorder = Recorder()
    began = time.monotonic()
    prefix = WITH_IOC["tomoscan_prefix"]
    assert source.open(names(tomoscan_prefix=prefix), recorder, 5.0) == "T:Image"
    assert time.monotonic() - began < 2.5


def test_without_tomoscan_all_frames_are_projections(
    start: Callable[..., Script], source: PvaSource
):
    start("pvapy_sender.py")
    recorder = opened(source)
    assert (recorder.frame_types, recorder.first_ids) == (["Projection"], [0])
    assert recorder.connected("tomoscan") is None


@pytest.mark.parametrize("end", [PvaSource.close, PvaSource.cancel])
def test_an_open_that_still_waits_is_ended(source: PvaSource, end: Callable[[PvaSource], None]):
    failed: list[Exception] = []

    def run() -> None:
        try:
            source.open(names(**WITH_IOC), Recorder(), 30.0)
        except ArmingError as error:
            failed.append(error)

    opening = threading.Thread(target=run)
    opening.start()
    wait_for(lambda: [t for t in threading.enumerate() if t.name == "tomoscan ca"], what="opening")
    began = time.monotonic()
    end(source)
    opening.join(5.0)
    assert not opening.is_alive()
    assert time.monotonic() - began < 2.0
    assert "aborted" in str(failed[0])


def test_runs_leave_no_thread_behind(start: Callable[..., Script], source: PvaSource):
    start("softioc_tomoscan.py")
    before = threading.active_count()
    for _ in range(5):
        recorder = Recorder()
        source.open(names(**WITH_IOC), recorder, 5.0)
        source.close()
        assert threading.active_count() == before


@pytest.mark.parametrize("dies", [False, True])
def test_the_end_leaves_no_call_of_caproto_unawaited(
    start: Callable[..., Script],
    source: PvaSource,
    recwarn: pytest.WarningsRecorder,
    dies: bool,
):
    ioc = start("softioc_tomoscan.py")
    recorder = Recorder()
    source.open(names(**WITH_IOC), recorder, 5.0)
    if dies:
        ioc.stop()
        wait_for(lambda: recorder.connected("tomoscan") is False, what="disconnection")
    source.close()
    gc.collect()
    assert [str(warning.message) for warning in recwarn if "awaited" in str(warning.message)] == []
