"""What clients (pvapy) see of the slices: layout, lines, attributes, alarms, renames."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from p4p.nt import NTScalar
from p4p.server.raw import SharedPV
from support.ports import LOOPBACK, ServerPorts, environment
from support.processes import SliceReader, wait_for

from tomostream_ioc.epics.pva_sink import PvaSink
from tomostream_ioc.epics.slice_image import combined_shape, draw_combined
from tomostream_ioc.errors import ConfigError
from tomostream_ioc.model.control import Alarm, Severity
from tomostream_ioc.model.params import ReconParams
from tomostream_ioc.model.slices import SliceMeta, Slices

N, N_ROWS = 20, 12
PARAMS = ReconParams(center=9.5, ortho_x=7, ortho_y=13, ortho_z=4, rot_y_deg=1.5)
META = SliceMeta(PARAMS, 41, 12, 0.0, 1.7e9 + 0.25, 30, 180, 2)


def slices(level: float = 0.0, n: int = N, n_rows: int = N_ROWS) -> Slices:
    z = np.arange(n * n, dtype=np.float32).reshape(n, n) + level
    y = np.arange(n * n_rows, dtype=np.float32).reshape(n_rows, n) + level + 1000
    return Slices(z, y, y + 1000)


@pytest.fixture
def serving(ports: ServerPorts, monkeypatch: pytest.MonkeyPatch) -> None:
    """This process serves on ``ports`` and finds itself there."""
    env = environment(ports, reach=(ports,))
    for name in os.environ:
        if name.startswith("EPICS_"):
            monkeypatch.delenv(name)
    for name, value in env.items():
        if name.startswith("EPICS_"):
            monkeypatch.setenv(name, value)


@pytest.fixture
def make(serving: None) -> Iterator[Callable[..., PvaSink]]:
    made: list[PvaSink] = []

    def run(channel: str = "S:Recon", **options: object) -> PvaSink:
        made.append(PvaSink(channel, interfaces=[LOOPBACK], **options))  # type: ignore[arg-type]
        return made[-1]

    yield run
    for sink in made:
        sink.close()


@pytest.fixture
def client(ports: ServerPorts, tmp_path: Path) -> Iterator[SliceReader]:
    reader = SliceReader(environment(reach=(ports,)), tmp_path)
    yield reader
    reader.close()


def posted(sink: PvaSink) -> None:
    wait_for(lambda: sink.idle, what="posted")


def test_combined_image_without_lines(make: Callable[..., PvaSink], client: SliceReader):
    sink = make(crosshair=False)
    shown = slices()
    sink.publish(shown, META)
    posted(sink)
    image, facts = client.get("S:Recon")
    assert image.dtype == np.float32
    assert (facts["kind"], facts["sizes"]) == ("floatValue", [3 * N, N])
    np.testing.assert_array_equal(image[:, :N], shown.z)
    np.testing.assert_array_equal(image[:N_ROWS, N : 2 * N], shown.y)
    np.testing.assert_array_equal(image[:N_ROWS, 2 * N :], shown.x)
    assert not image[N_ROWS:, N:].any()


def test_lines_cross_where_the_other_slices_are(make: Callable[..., PvaSink], client: SliceReader):
    sink = make()
    shown = slices()
    sink.publish(shown, META)
    posted(sink)
    image, _ = client.get("S:Recon")
    lines = np.isnan(image)
    expected = np.zeros_like(lines)
    x, y, z = PARAMS.ortho_x, PARAMS.ortho_y, PARAMS.ortho_z
    expected[:, x - 1 : x + 2] = True
    expected[y - 1 : y + 2, :N] = True
    for start, column in ((N, x), (2 * N, y)):
        expected[:N_ROWS, start + column - 1 : start + column + 2] = True
        expected[z - 1 : z + 2, start : start + N] = True
    np.testing.assert_array_equal(lines, expected)
    for suffix, alone in (("X", shown.x), ("Y", shown.y), ("Z", shown.z)):
        image, facts = client.get("S:Recon" + suffix)
        np.testing.assert_array_equal(image, alone)
        assert facts["sizes"] == list(alone.shape[::-1])
    sink.set_crosshair(False)
    wait_for(lambda: not np.isnan(client.get("S:Recon")[0]).any(), what="lines go")


@pytest.mark.parametrize("position", [0, N - 1])
def test_lines_at_the_border_stay_in_their_panel(position: int):
    shown = slices(n=N, n_rows=30)
    params = replace(PARAMS, ortho_x=position, ortho_y=position, ortho_z=0)
    image = np.zeros(combined_shape(shown), np.float32)
    draw_combined(image, shown, params, crosshair=True)
    assert image.shape == (30, 3 * N)
    for start in (0, N, 2 * N):
        columns = np.isnan(image[10, start : start + N])
        assert columns.sum() == 2
        assert columns[position]


@pytest.mark.parametrize(
    ("n", "wide", "every"), [(1023, 3, 2), (1024, 5, 3), (2048, 7, 4), (2448, 7, 6)]
)
def test_lines_are_seen_where_a_viewer_shows_each_so_manieth_pixel(n: int, wide: int, every: int):
    """ImageJ fits 3 n pixels into 1600 or so by leaving out pixels, at 2448 five of six."""
    shown = slices(n=n, n_rows=64)
    params = replace(PARAMS, ortho_x=n // 2, ortho_y=n // 3, ortho_z=32)
    image = np.zeros(combined_shape(shown), np.float32)
    draw_combined(image, shown, params, crosshair=True)
    lines = np.isnan(image)
    assert lines[10, :n].sum() == wide
    assert lines[:, 10].sum() == wide
    for first in range(every):
        seen = lines[first::every, first::every]
        assert seen[0].sum() >= 3  # one line down each slice
        assert seen[:, 0].any()
        assert seen[:, -1].any()


def test_image_says_what_viewers_and_users_ask(make: Callable[..., PvaSink], client: SliceReader):
    sink = make()
    sink.publish(slices(), META)
    posted(sink)
    _, first = client.get("S:Recon")
    attributes = first["attributes"]
    assert attributes["ColorMode"] == 0
    assert attributes["Center"] == 9.5
    assert [attributes[f"Ortho{axis}"] for axis in "XYZ"] == [7, 13, 4]
    assert [attributes[f"Rot{axis}"] for axis in "XYZ"] == [0, 1.5, 0]
    assert attributes["FilterType"] == "Parzen"
    assert (attributes["NewestId"], attributes["OldestId"]) == (41, 12)
    assert (attributes["NumAngles"], attributes["Binning"]) == (30, 2)
    assert abs(first["time"]["secondsPastEpoch"] - time.time()) < 5
    sink.publish(slices(), META)
    posted(sink)
    assert client.get("S:Recon")[1]["unique_id"] > first["unique_id"]


def test_color_mode_is_a_pv_int(make: Callable[..., PvaSink], ports: ServerPorts):
    # ImageJ's EPICS_NTNDA_Viewer asks for a PVInt and takes nothing else
    make()
    code = (
        "import pvaccess as pva; c = pva.Channel('S:Recon'); c.setTimeout(5.0);"
        "a = c.get('')['attribute'][0]; print(a['name'], a['value'][1]['value'] == pva.INT)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(reach=(ports,)),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ran.stdout.strip() == "ColorMode True", ran.stderr


def test_before_the_first_slices_there_is_an_empty_image(
    make: Callable[..., PvaSink], client: SliceReader
):
    make()
    image, facts = client.get("S:Recon")
    assert image.size == 0
    assert (facts["sizes"], facts["kind"]) == ([], "floatValue")


def test_sizes_follow(make: Callable[..., PvaSink], client: SliceReader):
    sink = make()
    for n, n_rows in ((20, 12), (10, 6), (10, 14)):
        sink.publish(slices(n=n, n_rows=n_rows), META)
        posted(sink)
        image, facts = client.get("S:Recon")
        assert facts["sizes"] == [3 * n, max(n, n_rows)]
        assert np.nanmin(image[:, n:]) >= 0


def test_watched_or_not_a_get_sees_the_newest(make: Callable[..., PvaSink], client: SliceReader):
    sink = make(crosshair=False)
    for level in range(3):
        sink.publish(slices(level), META)
        posted(sink)
    assert client.get("S:Recon")[0][0, 0] == 2  # first connect
    sink.publish(slices(5), META)
    posted(sink)
    assert client.get("S:Recon")[0][0, 0] == 5  # the channel stays connected


def test_a_monitor_gets_every_set_that_is_posted(make: Callable[..., PvaSink], client: SliceReader):
    sink = make()
    client.monitor("S:Recon")
    wait_for(lambda: client.monitored("S:Recon"), what="the monitor's first update")
    for newest in range(1, 6):
        sink.publish(slices(), replace(META, newest_id=newest))
        wait_for(
            lambda newest=newest: client.monitored("S:Recon")[-1]["newest"] == newest,
            what=f"slices {newest}",
        )
    ids = [update["unique_id"] for update in client.monitored("S:Recon")]
    assert ids == sorted(set(ids))


def test_alarm_comes_and_goes_with_the_slices_kept(
    make: Callable[..., PvaSink], client: SliceReader
):
    sink = make(crosshair=False)
    sink.publish(slices(), META)
    sink.set_alarm(Alarm(Severity.INVALID, "TIMEOUT", "No frames for 5 s"))
    wait_for(lambda: client.get("S:ReconZ")[1]["alarm"]["severity"] == 3, what="alarm")
    for suffix in ("", "X", "Y", "Z"):
        image, facts = client.get("S:Recon" + suffix)
        assert image.size
        assert facts["alarm"]["severity"] == 3
        assert facts["alarm"]["message"] == "No frames for 5 s"
    sink.publish(slices(1), META)  # new slices alone are no all-clear
    posted(sink)
    assert client.get("S:Recon")[1]["alarm"]["severity"] == 3
    sink.set_alarm(None)
    wait_for(lambda: client.get("S:Recon")[1]["alarm"]["severity"] == 0, what="all-clear")
    assert client.get("S:Recon")[0][0, 0] == 1


def test_rename_serves_the_last_slices_and_drops_the_old_names(
    make: Callable[..., PvaSink], client: SliceReader
):
    sink = make(crosshair=False)
    sink.publish(slices(), META)
    posted(sink)
    client.get("S:Recon")
    # the new names overlap the old ones
    sink.set_output("S:ReconX")
    wait_for(lambda: sink.output == "S:ReconX", what="rename")
    image, _ = client.get("S:ReconX")
    assert image.shape == (N, 3 * N)
    np.testing.assert_array_equal(client.get("S:ReconXZ")[0], slices().z)
    with pytest.raises(Exception, match=r"(?i)timed out|timeout|not connected"):
        client.get("S:Recon")


def test_a_name_that_can_not_be_served_keeps_the_old_one(
    make: Callable[..., PvaSink], client: SliceReader, caplog: pytest.LogCaptureFixture
):
    record = SharedPV(nt=NTScalar("d"), initial=1.0)
    told: list[str] = []
    sink = make(providers=[{"S:TakenX": record}], on_refusal=told.append)
    for bad, words in (("", "no name"), ("two words", "no name"), ("S:Taken", "S:TakenX")):
        caplog.clear()
        sink.set_output(bad)
        wait_for(lambda: caplog.messages, what="the refusal")
        assert words in caplog.messages[0]
        assert "S:Recon stays" in caplog.messages[0]
        wait_for(lambda words=words: told and words in told[-1], what="the refusal is told")
        assert sink.refusal == told[-1]
    sink.publish(slices(), META)
    posted(sink)
    assert client.get("S:Recon")[0].size
    for good in ("S:Recon", "S:Other", "S:Another"):
        sink.set_output(good)
        wait_for(lambda good=good: sink.output == good, what="the next name")
    wait_for(lambda: told[-1] == "", what="the all-clear")
    assert sink.refusal == ""
    assert told.count("") == 1


def test_a_port_in_use_is_an_error_and_not_another_port(
    serving: None, ports: ServerPorts, monkeypatch: pytest.MonkeyPatch
):
    threads = threading.active_count()
    with socket.socket() as listener:
        listener.bind((LOOPBACK, ports.pva))
        listener.listen()
        message = f"PVA port {ports.pva} is in use.*EPICS_PVAS_SERVER_PORT"
        with pytest.raises(ConfigError, match=message):
            PvaSink(interfaces=[LOOPBACK])
        monkeypatch.delenv("EPICS_PVAS_INTF_ADDR_LIST")  # on all addresses
        with pytest.raises(ConfigError, match=message):
            PvaSink()
        monkeypatch.delenv("EPICS_PVAS_SERVER_PORT")  # EPICS_PVA_SERVER_PORT says the same
        with pytest.raises(ConfigError, match=message):
            PvaSink()
        monkeypatch.setenv("EPICS_PVAS_SERVER_PORT", "0")  # any will do
        PvaSink(interfaces=[LOOPBACK]).close()
    assert threading.active_count() == threads


def test_two_sinks_of_one_name(make: Callable[..., PvaSink], monkeypatch: pytest.MonkeyPatch):
    make()
    monkeypatch.setenv("EPICS_PVAS_SERVER_PORT", "0")
    with pytest.raises(ConfigError, match="S:Recon is served already"):
        make()


def test_publish_never_waits_and_the_latest_wins(make: Callable[..., PvaSink]):
    sink = make()
    seen: list[int] = []
    entered, gate = threading.Event(), threading.Event()

    def listener(meta: SliceMeta, posted_s: float) -> None:
        assert abs(posted_s - time.monotonic()) < 1.0
        seen.append(meta.newest_id)
        entered.set()
        gate.wait(10.0)

    sink.set_posted_listener(listener)
    sink.publish(slices(), replace(META, newest_id=1))
    assert entered.wait(5.0)
    began = time.monotonic()
    for newest in range(2, 100):
        sink.publish(slices(), replace(META, newest_id=newest))
    assert time.monotonic() - began < 0.5
    assert not sink.idle
    gate.set()
    posted(sink)
    assert seen == [1, 99]


def test_a_defect_in_one_set_does_not_end_the_others(
    make: Callable[..., PvaSink], client: SliceReader, caplog: pytest.LogCaptureFixture
):
    sink = make()
    client.get("S:Recon")
    broken = Slices(np.zeros((4, 4), np.float32), np.zeros((3, 7), np.float32), slices().x)
    sink.publish(broken, META)
    posted(sink)
    assert "could not be posted" in caplog.text
    sink.publish(slices(), META)
    posted(sink)
    assert client.get("S:Recon")[0].shape == (N, 3 * N)


def test_close_leaves_no_thread(serving: None):
    before = threading.active_count()
    for _ in range(3):
        sink = PvaSink("S:Recon", interfaces=[LOOPBACK], clash_s=0.1)
        sink.publish(slices(), META)
        sink.close()
        assert threading.active_count() == before
