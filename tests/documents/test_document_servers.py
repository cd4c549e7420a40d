"""A whole site of processes: CURVE keys, results published on, a Tiled server, runs sent again."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from command_site import FIND, LIMIT_S, Command, write_scan
from crystal_scan import SHAPE
from support.ports import free_port
from support.processes import SUPPORT, Child, wait_for

from tomostream_ioc.documents import open_database, read_maps, read_tracks
from tomostream_ioc.documents.commands import main
from tomostream_ioc.documents.transport import CurveKeys, DocumentReceiver
from tomostream_ioc.documents.transport.address import Address

pytestmark = pytest.mark.timeout(600)
API_KEY = "a1b2c3d4"
N_POINTS = SHAPE[0] * SHAPE[1]


class TiledServer(Child):
    """`tiled serve catalog`, as an administrator starts it."""

    def __init__(self, folder: Path, port: int):
        for name in ("data", "images"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        init = () if (folder / "catalog.db").exists() else ("--init",)
        super().__init__(
            [
                "-m", "tiled", "serve", "catalog", str(folder / "catalog.db"), *init,
                "-w", str(folder / "data"), "-w", f"sqlite:///{folder / 'tables.sqlite'}",
                "-r", str(folder / "images"), "--port", str(port),
            ],
            dict(os.environ, PYTHONUNBUFFERED="1", TILED_SINGLE_USER_API_KEY=API_KEY),
        )  # fmt: skip

    def wait_ready(self) -> None:
        wait_for(lambda: "Uvicorn running" in self.output, LIMIT_S, self.output)


class Site:
    """What all tests here look at; things happen in `site`, below, in this order."""

    tiled: TiledServer
    server: Command
    bluesky: Child
    live: dict[str, dict]  # of the live run: by stage, what bluesky's dispatcher got
    uid: str
    sent: str

    def __init__(self, folder: Path):
        self.folder = folder
        self.into, self.out, self.http = free_port(), free_port(), free_port()
        self.uri = f"http://127.0.0.1:{self.http}"
        self.keys = folder / "keys"
        self.environ = {"TILED_API_KEY": API_KEY}
        self.children: list[Child] = []

    def start(self, *arguments: object) -> Command:
        self.children.append(Command(*arguments, environ=self.environ))
        return self.children[-1]  # type: ignore[return-value]

    def publish(self, *options: object) -> list[str]:
        to = ["--to", f"localhost:{self.into}", "--curve-keys", str(self.keys)]
        return ["publish", *to, *(str(option) for option in options)]

    def results(self) -> dict[str, dict]:
        """What bluesky's dispatcher has of the next run: by stage."""
        said = [json.loads(self.bluesky.expect("{", LIMIT_S)) for _ in range(4)]
        return {each["stage"]: each for each in said}


@pytest.fixture(scope="module")
def site(tmp_path_factory, scan):
    """Keys, proxy, Tiled server, serve, a listener; a file as a live run; that run once more."""
    site = Site(tmp_path_factory.mktemp("site"))
    try:
        keys = site.start("keys", site.keys)
        site.tiled = TiledServer(site.folder / "tiled", site.http)
        site.children.append(site.tiled)
        assert keys.wait(LIMIT_S) == 0, keys.output
        proxy = site.start("proxy", site.into, site.out, "--curve-keys", site.keys)
        site.bluesky = Child(
            [
                str(SUPPORT / "bluesky_listener.py"), f"localhost:{site.out}", "results",
                str(site.keys / "client.key_secret"), str(site.keys / "server.key"),
            ],
            dict(os.environ, PYTHONPATH=os.getcwd()),
        )  # fmt: skip
        site.children.append(site.bluesky)
        site.tiled.wait_ready()
        site.server = site.start(
            "serve", "--in", f"localhost:{site.out}", "--curve-keys", site.keys, *FIND,
            "--db", site.uri, "--images", site.folder / "tiled" / "images", "--record-raw",
            "--record-images", "--out", f"localhost:{site.into}", "--status-period", 0.5,
        )  # fmt: skip
        proxy.expect("Ready", LIMIT_S)
        site.server.expect("Connected", LIMIT_S)
        site.sent = on_terminal(site.publish("--file", scan.path, "--rate", 30))
        site.uid = site.sent.split("Sent run ")[1].split(":")[0]
        site.live = site.results()
        site.server.expect(f"Run {site.uid} is whole", LIMIT_S)
        yield site
    except BaseException:
        for child in site.children:
            print("=====", child.output[-3000:])
        raise
    finally:
        for child in site.children:
            child.close()


def on_terminal(arguments: list[str]) -> str:
    """What a command shows on a terminal; it ends well."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-m", "tomostream_ioc.documents", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=its,
        stderr=its,
        env=dict(os.environ, PYTHONPATH=os.getcwd()),
    )
    os.close(its)
    shown = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        shown += part
    os.close(ours)
    text = shown.decode(errors="replace")
    assert process.wait(LIMIT_S) == 0, text
    return text


def test_results_of_a_file_come_out_of_the_network_as_they_are(site, expected):
    """bluesky's own dispatcher, with CURVE keys and `loads`."""
    assert {said["exit_status"] for said in site.live.values()} == {"success"}
    assert {said["root"] for said in site.live.values()} == {site.uid}
    linked = site.live["track_linker"]["columns"]
    assert set(linked) == set(expected.columns)
    for name, column in linked.items():
        np.testing.assert_array_equal(column, expected[name], err_msg=name)
    assert len(site.live["crystal_mapper"]["columns"]["map"]) == expected["particle"].nunique()


def test_a_terminal_shows_progress(site):
    assert "Points" in site.sent
    assert f"{N_POINTS}/{N_POINTS}" in site.sent


def test_a_tiled_server_keeps_raw_images_and_results(site, expected):
    with open_database(site.uri, api_key=API_KEY) as db:
        tracks = read_tracks(db, site.uid)
        for name in expected.columns:
            np.testing.assert_array_equal(tracks[name], expected[name], err_msg=name)
        maps = read_maps(db, site.uid)
        live = np.array(site.live["crystal_mapper"]["columns"]["map"])
        np.testing.assert_array_equal(maps.maps, live)
        assert (db[site.uid].stop or {})["exit_status"] == "success"


def test_a_run_of_a_tiled_server_sent_again_gives_the_same(site, expected):
    """To bluesky's dispatcher and to our own receiver, at once."""
    receiver = DocumentReceiver(
        Address("localhost", site.out), prefix=b"results", keys=CurveKeys(site.keys)
    )
    names, tables = [], []
    wait_for(lambda: receiver.receive(0.05) or receiver.connected, LIMIT_S)
    again = site.start(*site.publish("--run", site.uid[:8], "--db", site.uri, "--rate", 60))

    def took_all():
        got = receiver.receive(0.05)
        if got is not None:
            names.append(got[0])
            if got[0] == "event_page" and "particle" in got[1]["data"]:
                tables.append(got[1]["data"])
        return names.count("stop") == 4

    wait_for(took_all, LIMIT_S, "four runs of results")
    receiver.close()
    assert again.wait(LIMIT_S) == 0, again.output
    assert f"Sent run {site.uid}: {N_POINTS} points" in again.output
    whole = site.server.expect(f"Run {site.uid} is ", LIMIT_S)
    assert "is whole" in whole
    assert names.count("start") == 4
    linked = site.results()["track_linker"]["columns"]
    for name in expected.columns:
        ours = np.concatenate([table[name] for table in tables if "map" not in table])
        np.testing.assert_array_equal(ours, expected[name], err_msg=name)
        np.testing.assert_array_equal(linked[name], expected[name], err_msg=name)


@pytest.fixture
def here(capsys, monkeypatch):
    """A command in this process, which has all loaded: its exit code, and what it said."""
    handlers = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}

    def run(*arguments: object, api_key: str = API_KEY) -> tuple[int, str]:
        if api_key:
            monkeypatch.setenv("TILED_API_KEY", api_key)
        else:
            monkeypatch.delenv("TILED_API_KEY", raising=False)
        code = main([str(each) for each in arguments])
        shown = capsys.readouterr()
        return code, shown.out + shown.err

    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)


def test_a_picture_of_a_run_of_a_tiled_server(site, here, tmp_path):
    code, shown = here("plot", "--db", site.uri, "--run", site.uid, "-o", tmp_path / "maps.png")
    assert code == 0, shown
    assert (tmp_path / "maps.png").read_bytes().startswith(b"\x89PNG")
    assert "3 tracks are drawn" in shown
    assert "no images recorded" not in shown


@pytest.fixture(scope="module")
def wrong_keys(site, tmp_path_factory):
    """Of a client that the proxy does not know, and of one that takes another for the proxy."""
    stranger = CurveKeys.create(tmp_path_factory.mktemp("keys") / "stranger").folder
    deceived = CurveKeys.create(tmp_path_factory.mktemp("keys") / "deceived").folder
    shutil.copy(site.keys / "server.key", stranger / "server.key")
    for name in ("client.key", "client.key_secret"):
        shutil.copy(site.keys / name, deceived / name)
    return {"stranger": stranger, "deceived": deceived, "none": None}


SAYS = {
    "stranger": "this client's CURVE key is refused there",
    "none": "one side uses CURVE keys, the other does not",
    "deceived": "server.key not the proxy's",
}


@pytest.mark.parametrize("who", SAYS)
def test_who_publishes_without_the_right_key_is_told_so_and_refused(
    who, site, wrong_keys, here, scan
):
    options = ["--curve-keys", wrong_keys[who]] if wrong_keys[who] else []
    began = time.monotonic()
    code, shown = here(
        "publish", "--to", f"localhost:{site.into}", "--file", scan.path, "--wait", 60, *options
    )
    assert code == 1
    assert SAYS[who] in shown
    assert "Sent run" not in shown
    assert time.monotonic() - began < 50  # not as long as for a listener


def test_who_listens_without_the_right_key_is_told_so_and_refused(site, wrong_keys):
    lurker = site.start(
        "serve", "--in", f"localhost:{site.out}", *FIND, "--curve-keys", wrong_keys["stranger"],
        "--status-period", 0.5,
    )  # fmt: skip
    deaf = DocumentReceiver(Address("localhost", site.out), prefix=b"results")
    wait_for(lambda: deaf.receive(0.1) or deaf.refusal, LIMIT_S)
    assert deaf.refusal == SAYS["none"]
    assert deaf.counts.documents == 0
    deaf.close()
    assert SAYS["stranger"] in lurker.expect_any("not connected: ")
    lurker.signal(signal.SIGTERM)
    assert lurker.wait(LIMIT_S) == 0, lurker.output
    assert "frames 0" in lurker.output


@pytest.mark.parametrize(("key", "said"), [("wrong", "refuses the key"), ("", "wants a key")])
def test_a_wrong_key_of_the_tiled_server_is_said(key, said, site, here):
    code, shown = here("publish", "--run", site.uid, "--db", site.uri, api_key=key)
    assert code == 2
    assert said in shown
    assert "TILED_API_KEY" in shown


def test_runs_and_servers_that_are_not_there_are_said(site, here, tmp_path):
    nobody = f"localhost:{free_port()}"
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["/data"] = np.zeros(3)
    keys = ["--curve-keys", site.keys]
    for code, part, options in (
        (2, "No run's uid starts with", ["--run", "never", "--db", site.uri]),
        (2, "No Tiled server answers", ["--run", "x", "--db", f"http://{nobody}"]),
        (2, "none.h5 does not exist", ["--file", tmp_path / "none.h5"]),
        (2, "has no dataset", ["--file", tmp_path / "other.h5"]),
        (2, "has no dataset /x/y", ["--file", tmp_path / "other.h5", "--dataset", "/x/y"]),
    ):
        got, shown = here("publish", "--to", f"localhost:{site.into}", *keys, *options)
        assert (got, part in shown) == (code, True), shown


def test_nobody_there_is_said_and_nothing_is_sent(scan, here):
    nobody = f"localhost:{free_port()}"
    code, shown = here("publish", "--to", nobody, "--file", scan.path, "--wait", 0.5)
    assert code == 1
    assert "no proxy answers within 0.5 s" in shown
    assert "nothing is sent" in shown
    into, out = free_port(), free_port()
    proxy = Command("proxy", into, out)
    try:
        proxy.expect("Ready", LIMIT_S)
        code, shown = here("publish", "--to", f"localhost:{into}", "--file", scan.path, "--wait", 2)
        assert code == 1
        assert "nobody listens to the prefix 'raw'" in shown
    finally:
        assert proxy.close() == 0


def test_a_tiled_server_that_goes_away_costs_the_record_alone(site, expected):
    """The last one here: it ends the Tiled server in the middle of a run, and then starts it."""
    write_scan(site.folder / "cut.h5")
    sender = site.start(*site.publish("--file", site.folder / "cut.h5", "--rate", 8))
    site.server.expect("Run ", LIMIT_S)
    site.tiled.close()
    assert sender.wait(LIMIT_S) == 0, sender.output
    linked = site.results()["track_linker"]
    assert linked["exit_status"] == "success"
    for name, column in linked["columns"].items():
        np.testing.assert_array_equal(column, expected[name], err_msg=name)
    partial = site.server.expect(f"Run {linked['root']} is partial", LIMIT_S)
    assert "recording failed" in partial or "not all of it is recorded" in partial
    site.server.expect_any("is not recorded: ")  # Tiled's client asks for 45 s
    counted = site.server.expect_any("not recorded ")
    wait_for(
        lambda: int(site.server.lines[-1].rsplit("not recorded ")[-1].split()[0]) > 0, LIMIT_S,
        counted,
    )  # fmt: skip
    tiled = TiledServer(site.folder / "tiled", site.http)
    site.children.append(tiled)
    tiled.wait_ready()
    wait_for(lambda: "not recorded" in site.server.lines[-1], LIMIT_S)
    whole = uid = ""
    for _ in range(3):  # the first may come while it waits to ask again
        sender = site.start(*site.publish("--file", site.folder / "cut.h5", "--rate", 60))
        assert sender.wait(LIMIT_S) == 0, sender.output
        uid = sender.output.split("Sent run ")[1].split(":")[0]
        whole = site.server.expect(f"Run {uid} is ", LIMIT_S)
        if "is whole" in whole:
            break
    assert "is whole" in whole
    site.server.signal(signal.SIGTERM)
    assert site.server.wait(LIMIT_S) == 0, site.server.output
    assert "Traceback" not in site.server.output
    with open_database(site.uri, api_key=API_KEY) as db:
        assert len(read_tracks(db, uid)) == len(expected)
