"""StartRecon, AbortRecon, Status, watchdog, status and alarms, with a fake run behind them."""

from __future__ import annotations

import asyncio
import logging
import time

import pytest
from ca_ioc import Client, Ioc
from support.processes import wait_for

from tomostream_ioc.model.control import Alarm, MemoryUse, Severity
from tomostream_ioc.model.counters import FrameCounts
from tomostream_ioc.model.params import ReconParams
from tomostream_ioc.model.state import RunState

NORMAL, MINOR, MAJOR = 0, 1, 2
ECA_NORMAL = 1


def test_the_run_hears_how_the_records_stand_when_the_server_starts(ioc: Ioc) -> None:
    assert ioc.run.of("set_params") == [ReconParams(center=0.0, ortho_x=0, ortho_y=0, ortho_z=0)]
    assert ioc.run.of("set_output") == ["2bmb:TomoStream:StreamRecon"]
    assert ioc.run.of("set_crosshair") == [True]


def test_start_completes_for_every_client_when_the_run_ends(ioc: Ioc, client: Client) -> None:
    other = ioc.client()
    client.put("Center", "12.5")
    first = client.start_put("StartRecon", "Acquire")
    wait_for(lambda: ioc.value("StartRecon") == 1, what="Acquire")
    second = other.start_put("StartRecon", 1, "LONG")
    described = client.describe("StartRecon")
    assert (described["severity"], described["status"]) == (MINOR, 7)  # STATE
    assert client.get("Status", as_string=True) == "On"
    assert client.put_status(first, 0.3) is None
    assert other.put_status(second, 0.0) is None
    ioc.run.end("Idle: stopped by the test")
    assert client.put_status(first, 5.0) == ECA_NORMAL
    assert other.put_status(second, 5.0) == ECA_NORMAL
    assert client.get("StartRecon", as_string=True) == "Done"
    assert client.get("Status", as_string=True) == "Off"
    assert client.get("ReconStatus", as_string=True) == "Idle: stopped by the test"
    assert ioc.run.runs == 1
    names, params = ioc.run.of("start")[0]
    assert names.tomoscan_prefix == "2bmb:TomoScanStream:"
    assert names.image_pva_p_name == "2bmb:TomoScanStream:PvaPluginPVPrefix"
    assert params.center == 12.5


def test_a_start_that_fails_completes_and_says_why(ioc: Ioc, client: Client) -> None:
    ioc.run.fails_at_once = "TomoScanPVPrefix does not answer"
    assert client.put("StartRecon", "1") == ECA_NORMAL
    assert client.get("StartRecon") == 0
    assert client.get("ReconStatus", as_string=True) == "TomoScanPVPrefix does not answer"
    ioc.run.fails_at_once = ""
    again = client.start_put("StartRecon", "1")
    wait_for(lambda: ioc.value("StartRecon") == 1, what="a second run")
    ioc.run.end()
    assert client.put_status(again, 5.0) == ECA_NORMAL


def test_a_client_that_goes_away_does_not_disturb_the_run(ioc: Ioc, client: Client) -> None:
    client.start_put("StartRecon", "1")
    wait_for(lambda: ioc.value("StartRecon") == 1, what="Acquire")
    client.close()
    other = ioc.client()
    end = other.start_put("StartRecon", "1")
    assert other.get("StartRecon") == 1
    ioc.run.end()
    assert other.put_status(end, 5.0) == ECA_NORMAL
    assert other.put("StartRecon", "0") == ECA_NORMAL


@pytest.mark.parametrize(
    ("record", "value"), [("AbortRecon", "Yes"), ("StartRecon", "Done"), ("Status", "Off")]
)
def test_a_run_can_be_ended_three_ways(ioc: Ioc, client: Client, record: str, value: str) -> None:
    end = client.start_put("StartRecon", "1")
    wait_for(lambda: ioc.value("StartRecon") == 1, what="Acquire")
    assert client.put(record, value) == ECA_NORMAL
    assert client.put_status(end, 5.0) == ECA_NORMAL
    wait_for(lambda: ioc.value("Status") == 0, what="Off")
    assert len(ioc.run.of("abort")) == 1
    assert client.get("AbortRecon") == 0


def test_abort_returns_to_no_and_does_nothing_when_idle(ioc: Ioc, client: Client) -> None:
    monitor = client.monitor("AbortRecon")
    client.seen(monitor, at_least=1)
    assert client.put("AbortRecon", "Yes") == ECA_NORMAL
    assert client.seen(monitor, at_least=3) == [0, 1, 0]
    assert client.put("AbortRecon", "No") == ECA_NORMAL
    assert len(ioc.run.of("abort")) == 1
    assert client.put("StartRecon", "0") == ECA_NORMAL
    assert client.put("Status", "Off") == ECA_NORMAL
    assert len(ioc.run.of("abort")) == 1


def test_status_starts_without_blocking_the_put(ioc: Ioc, client: Client) -> None:
    assert client.put("Status", "On") == ECA_NORMAL
    assert client.get("StartRecon") == 1
    assert client.put("Status", "On") == ECA_NORMAL
    assert ioc.run.runs == 1
    ioc.run.end()
    wait_for(lambda: (ioc.value("Status"), ioc.value("StartRecon")) == (0, 0), what="Off and Done")


def test_the_status_is_shown_and_only_its_changes_are_posted(ioc: Ioc, client: Client) -> None:
    wait_for(lambda: ioc.value("ReconStatus") == b"Idle", what="a first status")
    received = client.monitor("FramesReceived")
    status = client.monitor("ReconStatus")
    ioc.run.show(
        message="Laufwerk voll: äöü " + "µ" * 200,
        recon_time_s=0.0123456,
        buffer_size="16/1500",
        counts=FrameCounts(10, 1, 2, 3, 4, 5, 6),
        bad_pixels=7,
        frame_rate_hz=99.5,
        recon_rate_hz=12.25,
        latency_s=0.0321,
        memory=MemoryUse("chunked", 3 << 29, "chunked: updates take longer"),
    )
    wait_for(lambda: ioc.value("Latency") == 0.0321, what="the new status")
    text = bytes(client.get("ReconStatus")).decode()
    assert text.startswith("Laufwerk voll: äöü µµ")
    assert 250 < len(text.encode()) <= 255
    assert client.get_string("ReconTime") == "0.01235"
    assert client.get("BufferSize") == "16/1500"
    counters = ("Received", "Rejected", "Missed", "Duplicate", "Disordered", "Dropped", "Skipped")
    assert [client.get(f"Frames{name}") for name in counters] == [10, 1, 2, 3, 4, 5, 6]
    assert client.get("BadPixels") == 7
    assert client.get("MemoryPolicy") == "chunked"
    assert client.get("MemoryUsed") == 1.5
    assert (client.get("FrameRate"), client.get("ReconRate")) == (99.5, 12.25)
    before = len(ioc.run.calls)
    ioc.run.show(counts=FrameCounts(11, 1, 2, 3, 4, 5, 6))
    assert client.seen(received, at_least=3) == [0, 10, 11]
    assert len(client.seen(status)) == 2
    assert len(ioc.run.calls) == before


def test_alarms_of_the_run_come_and_go_each_on_its_own_record(ioc: Ioc, client: Client) -> None:
    wait_for(lambda: ioc.value("ReconStatus") == b"Idle", what="a first status")
    ioc.run.show(
        alarms={
            "DarkPVAName": Alarm(Severity.MAJOR, "READ", "wrong shape"),
            "ImagePVAName": Alarm(Severity.INVALID, "COMM", "no such record"),
            "ImagePVAPName": Alarm(Severity.INVALID, "COMM", "disconnected"),
        }
    )
    wait_for(lambda: client.get("DarkPVAName.SEVR") == MAJOR, what="the alarm")
    assert client.get("DarkPVAName.STAT", as_string=True) == "READ"
    assert client.get("DarkPVAName.AMSG") == "wrong shape"
    described = client.describe("ImagePVAPName")
    assert (described["severity"], described["status"]) == (3, 9)  # INVALID, COMM
    assert client.get("FlatPVAName.SEVR") == NORMAL
    ioc.run.show(alarms={})
    wait_for(lambda: client.get("DarkPVAName.SEVR") == NORMAL, what="the alarm's end")
    assert client.get("ImagePVAPName.SEVR") == NORMAL
    assert client.get("DarkPVAName.AMSG") == ""


def test_parameters_that_the_run_changes_are_shown_and_not_sent_back(
    ioc: Ioc, client: Client
) -> None:
    sent = len(ioc.run.of("set_params"))
    listener = ioc.run.listener
    assert listener is not None
    listener.params_changed(ReconParams(center=611.5, ortho_x=3, ortho_y=4, ortho_z=5))
    wait_for(lambda: ioc.value("OrthoZ") == 5, what="the run's parameters")
    assert client.get("Center") == 611.5
    assert (client.get("OrthoX"), client.get("OrthoY")) == (3, 4)
    assert len(ioc.run.of("set_params")) == sent
    client.put("RotX", "2")
    assert ioc.run.of("set_params")[-1].center == 611.5


def test_limits_of_the_slices_follow_the_frames_and_clip_nothing(ioc: Ioc, client: Client) -> None:
    def limits(record: str) -> list[tuple[float, float]]:
        control = client.describe(record)["ctrl"]
        return [
            (control[f"lower_{kind}_limit"], control[f"upper_{kind}_limit"])
            for kind in ("disp", "ctrl")
        ]

    properties = client.monitor("OrthoX", mask=8)  # DBE_PROPERTY
    first = client.seen(properties, at_least=1)
    assert limits("OrthoX") == limits("OrthoZ") == [(0, 2448)] * 2
    client.put("OrthoX", "3000")
    ioc.run.show(frame_shape=(600, 4096))
    wait_for(lambda: client.get("OrthoZ.HOPR") == 599, what="the limits of the frames")
    assert limits("OrthoX") == limits("OrthoY") == [(0, 4095)] * 2
    assert limits("OrthoZ") == [(0, 599)] * 2
    assert client.seen(properties, at_least=len(first) + 1)[len(first) :] == [3000]
    assert client.put("OrthoZ", "700") == ECA_NORMAL
    assert client.get("OrthoZ") == 700
    # what a client sets holds as long as frames have this size
    client.put("OrthoX.HOPR", "100")
    ioc.run.show(recon_time_s=0.5)
    wait_for(lambda: client.get("ReconTime") == 0.5, what="a later status")
    assert client.get("OrthoX.HOPR") == 100
    ioc.run.show(frame_shape=(300, 2048))
    wait_for(lambda: client.get("OrthoX.HOPR") == 2047, what="the limits of other frames")


def test_server_running_stops_within_five_seconds_of_a_hung_engine(
    ioc: Ioc, client: Client
) -> None:
    wait_for(lambda: client.get("ServerRunning", as_string=True) == "Running", what="Running")
    assert client.get("ServerRunning.SEVR") == NORMAL
    assert 1 <= client.get("Watchdog") <= 5
    ioc.run.alive = False
    hung_s = time.monotonic()
    wait_for(lambda: ioc.value("ServerRunning") == 0, what="Stopped")
    assert 2.5 < time.monotonic() - hung_s < 5.0
    assert client.get("ServerRunning.SEVR") == MAJOR
    assert client.get("ServerRunning.STAT", as_string=True) == "STATE"
    ioc.run.alive = True
    wait_for(lambda: ioc.value("ServerRunning") == 1, what="Running again", limit_s=3.0)


def test_server_running_stops_at_a_fault_and_a_client_can_feed_the_watchdog(
    ioc: Ioc, client: Client
) -> None:
    wait_for(lambda: ioc.value("ServerRunning") == 1, what="Running")
    ioc.run.show(state=RunState.FAULT, message="GPU lost")
    wait_for(lambda: ioc.value("ServerRunning") == 0, what="Stopped", limit_s=3.0)
    assert client.put("Watchdog", "5") == ECA_NORMAL
    wait_for(lambda: ioc.value("ServerRunning") == 1, what="Running at the next tick", limit_s=2.0)
    assert client.put("Watchdog.SCAN", "Passive") == ECA_NORMAL


def test_a_name_put_in_a_run_is_said_to_wait_for_the_next(
    ioc: Ioc, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "tomostream_ioc.epics.group")
    assert client.put("DarkPVAName", "before:dark") == ECA_NORMAL
    assert not caplog.messages
    client.start_put("StartRecon", "1")
    wait_for(lambda: ioc.value("StartRecon") == 1, what="Acquire")
    assert client.put("DarkPVAName", "other:dark") == ECA_NORMAL
    assert caplog.messages == [
        "ref:TomoStream:DarkPVAName = 'other:dark' takes effect at the next start"
    ]
    assert client.get("DarkPVAName") == "other:dark"


def test_lens_change_sync_is_told_to_the_run(ioc: Ioc, client: Client) -> None:
    assert client.put("LensChangeSync", "Yes") == ECA_NORMAL
    assert client.put("LensChangeSync", "No") == ECA_NORMAL
    assert ioc.run.of("set_lens_sync") == [False, True, False]  # the first: as it was at boot
    assert client.put("MctOpticsPVPrefix", "2bm:MCTOptics:") == ECA_NORMAL
    assert client.put("SampleYPVName", "2bmHXP:m3") == ECA_NORMAL
    client.start_put("StartRecon", "1")
    wait_for(lambda: ioc.run.of("start"), what="the run")
    names, _ = ioc.run.of("start")[0]
    assert (names.lens.mct_optics_prefix, names.lens.sample_y) == ("2bm:MCTOptics:", "2bmHXP:m3")


def test_find_center_completes_for_every_client_when_the_search_ends(
    ioc: Ioc, client: Client
) -> None:
    other = ioc.client()
    first = client.start_put("FindCenter", "Search")
    wait_for(lambda: ioc.value("FindCenter") == 1, what="Search")
    second = other.start_put("FindCenter", "1")
    wait_for(lambda: len(ioc.run.of("find_center")) == 2, what="the second put")
    assert client.put_status(first, 0.3) is None
    assert client.describe("FindCenter")["severity"] == NORMAL
    ioc.run.end_search("Centre found", center_found=611.25, center_confidence=0.87)
    assert client.put_status(first, 5.0) == ECA_NORMAL
    assert other.put_status(second, 5.0) == ECA_NORMAL
    assert client.get("FindCenter", as_string=True) == "Done"
    assert client.get_string("CenterFound") == "611.250"
    assert client.get_string("CenterConfidence") == "0.87"
    assert client.get("Center") == 0
    assert ioc.run.of("find_center") == [1, 1]


def test_center_is_there_before_the_put_completes(
    ioc: Ioc, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    end = client.start_put("FindCenter", "1")
    wait_for(lambda: ioc.value("FindCenter") == 1, what="Search")
    real = ioc.group.reporter.on_params_changed

    async def slowly(params: ReconParams) -> None:
        await asyncio.sleep(0.3)
        await real(params)

    monkeypatch.setattr(ioc.group.reporter, "on_params_changed", slowly)
    listener = ioc.run.listener
    assert listener is not None
    listener.params_changed(ReconParams(center=611.25, ortho_x=3, ortho_y=4, ortho_z=5))
    ioc.run.end_search(center_found=611.25, center_confidence=0.87)
    assert client.put_status(end, 5.0) == ECA_NORMAL
    assert client.get("Center") == 611.25
    assert client.get("CenterFound") == 611.25


def test_a_search_that_is_refused_completes_and_says_why(ioc: Ioc, client: Client) -> None:
    ioc.run.refuses_searches = "no frames are being reconstructed"
    assert client.put("FindCenter", "1") == ECA_NORMAL
    assert client.get("FindCenter") == 0
    assert client.get("ReconStatus", as_string=True) == "no frames are being reconstructed"
    # a put of 0 asks for nothing, and ends nothing
    assert client.put("FindCenter", "0") == ECA_NORMAL
    ioc.run.refuses_searches = ""
    end = client.start_put("FindCenter", "1")
    wait_for(lambda: ioc.value("FindCenter") == 1, what="Search")
    zero = client.start_put("FindCenter", "0")
    assert client.put_status(zero, 0.3) is None
    assert client.get("FindCenter") == 1
    ioc.run.end_search()
    assert client.put_status(end, 5.0) == ECA_NORMAL


def test_what_was_found_is_read_only_and_auto_is_handed_on(ioc: Ioc, client: Client) -> None:
    assert ioc.run.of("set_center_auto") == [False]
    assert client.put("CenterAuto", "On") == ECA_NORMAL
    assert ioc.run.of("set_center_auto") == [False, True]
    for record in ("CenterFound", "CenterConfidence"):
        assert client.put(record, "5") != ECA_NORMAL
        assert client.get(record) == 0
