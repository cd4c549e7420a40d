"""The commands as users start them: proxy, server and a run engine, each a process of its own."""

from __future__ import annotations

import shutil
import signal

import h5py
import numpy as np
import pytest
from command_site import LIMIT_S
from crystal_scan import KEY
from document_site import FIND, SEARCH_RANGE_PX, SEED, SHAPE, Site, frames_so_far, uid_of
from scipy.spatial import KDTree
from support.processes import wait_for

from tomostream_ioc.documents import open_database, read_maps, read_peaks, read_tracks
from tomostream_ioc.documents.commands import main
from tomostream_ioc.documents.frame_file import FrameFile
from tomostream_ioc.tracking.rod import CrystalRod


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A scan live and sent again, one with pixels in files, and one that the server's end cuts."""
    site = Site(tmp_path_factory.mktemp("site"))
    try:
        first = site.start(
            "simulate", *site.scan, "--rate", 40, "--truth", site.truth,
            "--background", site.background,
        )  # fmt: skip
        site.proxy.expect("Ready", LIMIT_S)
        wait_for(site.background.exists, LIMIT_S)
        wait_for(site.truth.exists, LIMIT_S)
        server = site.serve("--record-raw")
        site.uid = uid_of(first.expect("Sent run", LIMIT_S))
        site.whole = [server.expect(f"Run {site.uid} is whole", LIMIT_S)]
        again = site.start(
            "publish", "--run", site.uid, "--db", site.folder / "db",
            "--to", f"localhost:{site.into}", "--rate", 40,
        )  # fmt: skip
        files = site.start(
            "simulate", *site.scan, "--rate", 40, "--pixels", "hdf5",
            "--folder", site.folder / "frames",
        )  # fmt: skip
        again.expect(f"Sent run {site.uid}", LIMIT_S)
        site.file_uid = uid_of(files.expect("Sent run", LIMIT_S))
        for _ in range(2):  # in any order
            site.whole.append(server.expect("Run ", LIMIT_S))
            while " is " not in site.whole[-1]:
                site.whole[-1] = server.expect("Run ", LIMIT_S)
        slow = site.start("simulate", *site.scan, "--rate", 4)
        began = server.expect("Run ", LIMIT_S)
        site.cut_uid = began.split()[1]
        assert "began" in began
        wait_for(lambda: frames_so_far(server) > 3 * SHAPE[0] * SHAPE[1] + 10, LIMIT_S)
        server.signal(signal.SIGTERM)
        slow.signal(signal.SIGTERM)
        assert server.wait(LIMIT_S) == 0, server.output
        assert slow.wait(LIMIT_S) == 0, slow.output
        site.slow, site.server = slow, server
        site.proxy.signal(signal.SIGINT)
        assert site.proxy.wait(LIMIT_S) == 0, site.proxy.output
        with open_database(site.folder / "db", readable=[site.folder / "frames"]) as db:
            site.db = db
            yield site
    finally:
        for child in site.children:
            child.close()


@pytest.fixture(scope="module")
def bragg(site):
    """Linked peaks that are Bragg peaks, with their grain, peak and distance from the truth."""
    rod = CrystalRod(SHAPE, True, seed=SEED)
    truth = np.load(site.truth)
    np.testing.assert_array_equal(truth["masks"], rod.truth.masks)
    tracks = read_tracks(site.db, site.uid)
    tree = KDTree(np.column_stack([truth["y"], truth["x"]]))
    distance, peak = tree.query(tracks[["y", "x"]])
    tracks = tracks.assign(peak=peak, grain=truth["grain"][peak], off_px=distance)
    # of what lies near a peak, what is seen while its grain is in the beam: the rest is noise
    points = rod.grid.flat_indices(tracks["frame"].to_numpy())
    shines = truth["masks"].reshape(len(truth["masks"]), -1)[tracks["grain"], points]
    return rod, tracks[(tracks["off_px"] < SEARCH_RANGE_PX) & shines]


@pytest.mark.timeout(900)
def test_every_grain_is_mapped(site, bragg):
    rod, tracks = bragg
    maps = read_maps(site.db, site.uid)
    assert set(tracks["peak"]) == set(range(len(rod.truth.grain)))
    at = {int(particle): n for n, particle in enumerate(maps.particles)}
    for peak, rows in tracks.groupby("peak"):
        made = maps.maps[at[rows["particle"].mode()[0]]] > 0
        true = rod.truth.masks[rod.truth.grain[peak]]
        assert np.count_nonzero(made & true) / np.count_nonzero(made | true) > 0.9


def test_no_track_mixes_grains_and_positions_are_right(bragg):
    _, tracks = bragg
    assert set(tracks.groupby("particle")["grain"].nunique()) == {1}
    assert set(tracks.groupby("particle")["peak"].nunique()) == {1}
    assert np.quantile(tracks["off_px"], 0.95) < 0.2


def test_the_run_sent_again_gives_the_same(site):
    found = site.db.find(analysis_stage="track_linker", root_run_uid=site.uid)
    assert len(found) == 2
    live, again = (read_tracks(site.db, uid) for uid in found)
    assert len(live) > 100
    assert live.equals(again)
    for uid in found:
        assert (site.db[uid].stop or {})["exit_status"] == "success"
    mapped = site.db.find(analysis_stage="crystal_mapper", root_run_uid=site.uid)
    stacks = [read_maps(site.db, uid) for uid in mapped]
    np.testing.assert_array_equal(stacks[0].maps, stacks[1].maps)
    assert sum(f"Run {site.uid} is whole" in line for line in site.whole) == 2


def test_pixels_in_files_give_the_same_peaks(site):
    inline, files = (read_peaks(site.db, uid) for uid in (site.uid, site.file_uid))
    assert inline.equals(files)


def test_a_killed_server_leaves_a_partial_run(site):
    for stage in ("peak_tracker", "track_linker", "crystal_mapper"):
        (uid,) = site.db.find(analysis_stage=stage, root_run_uid=site.cut_uid)
        stop = site.db[uid].stop or {}
        assert stop["exit_status"] == "abort"
        assert "SIGTERM ended the server before the run did" in stop["reason"]
    whole, part = read_tracks(site.db, site.uid), read_tracks(site.db, site.cut_uid)
    last = int(part["frame"].to_numpy().max())
    assert 10 <= last < SHAPE[0] * SHAPE[1]
    common = whole[whole["frame"] <= last]
    np.testing.assert_array_equal(part["y"], common["y"])
    assert f"Run {site.cut_uid} is partial" in site.server.output
    assert "Ended by SIGTERM" in site.server.output
    assert "is not whole" in site.slow.output


def test_the_publisher_of_a_file(tmp_path):
    frames = np.arange(24 * 2 * 5 * 6, dtype=np.uint16).reshape(48, 5, 6)
    path = tmp_path / "scan.h5"
    with h5py.File(path, "w") as file:
        data = file.create_dataset("/entry/data/data", data=frames)
        data.attrs["shape"], data.attrs["snaking"] = (4, 6), True
        file.attrs["frames_per_point"] = 2
    documents = list(FrameFile(path, KEY).documents())
    start = documents[0][1]
    assert (start["shape"], start["snaking"], start["num_points"]) == ([4, 6], [False, True], 24)
    events = [doc for name, doc in documents if name == "event"]
    np.testing.assert_array_equal(np.concatenate([e["data"][KEY] for e in events]), frames)
    assert [event["seq_num"] for event in events] == list(range(1, 25))
    assert FrameFile(path, KEY, shape=(6, 4), snaking=False).n_points() == 24


WRONG = {
    "no command": ([], "COMMAND"),
    "unknown command": (["fly"], "fly"),
    "no key": (["serve", "--diameter", "11", "--search-range", "5"], "--key"),
    "even diameter": (["serve", *FIND[:3], "10", *FIND[4:]], "diameter"),
    "no background": (["serve", *FIND, "--background", "none.npy"], "none.npy"),
    "address": (["serve", *FIND, "--in", "localhost"], "--in localhost"),
    "pickle from afar": (["serve", *FIND, "--allow-pickle", "--in", "192.0.2.1:1"], "curve-keys"),
    "no keys": (["serve", *FIND, "--curve-keys", "nowhere"], "nowhere"),
    "raw without db": (["serve", *FIND, "--record-raw"], "--db"),
    "images without db": (["serve", *FIND, "--images", "."], "--db"),
    "hears itself": (
        ["serve", *FIND, "--out", "localhost:1", "--prefix", "results"],
        "own results",
    ),
    "hears all": (["serve", *FIND, "--out", "localhost:1", "--prefix", ""], "own results"),
    "not connected at all": (["publish", "--run", "x", "--db", "http://127.0.0.1:1"], "No Tiled"),
    "old broker": (["publish", "--run", "x", "--db", "databroker:none"], "databroker"),
    "same ports": (["proxy", "5567", "5567"], "5567"),
    "not my address": (["proxy", "5567", "5568", "--interfaces", "192.0.2.1"], "192.0.2.1"),
    "nothing to publish": (["publish"], "--run"),
    "run without db": (["publish", "--run", "x"], "--db"),
    "no such db": (["publish", "--run", "x", "--db", "nowhere"], "nowhere"),
    "no such kind of db": (["publish", "--run", "x", "--db", "ftp://host"], "--db ftp://host"),
    "no such file": (["publish", "--file", "none.h5"], "none.h5"),
    "tiny map": (["simulate", "--shape", "2x2"], "--shape"),
    "no size": (["simulate", "--shape", "twelve"], "twelve"),
    "no folder of keys": (["keys", ""], "the name is empty"),
    "key without a name": (["serve", "--key", "", *FIND], "--key"),
    "background of NaN": (["serve", *FIND, "--background", "nan.npy"], "no finite number"),
    "background of nothing": (["serve", *FIND, "--background", "empty.npy"], "(0, 8, 8)"),
    "address with a blank": (["serve", *FIND, "--in", "local host:1"], "give HOST:PORT"),
    "address of the web": (["serve", *FIND, "--in", "http://localhost:1"], "give HOST:PORT"),
    "two words": (["serve", *FIND, "--prefix", "a b"], "--prefix 'a b'"),
    "two words out": (
        ["serve", *FIND, "--out", "localhost:1", "--out-prefix", "a b"],
        "--out-prefix 'a b'",
    ),
    "read from a file": (["serve", *FIND, "--read-from", __file__], "a file, not a folder"),
    "too high water": (["proxy", "5567", "5568", "--high-water", "9" * 12], "more than"),
    "no address": (["proxy", "5567", "5568", "--interfaces", "here"], "no IPv4 address"),
    "folder is a file": (["simulate", "--folder", __file__], "a file, not a folder"),
    "no folder to make": (
        ["simulate", "--pixels", "hdf5", "--folder", "/proc/frames"],
        "--folder /proc/frames can't be made",
    ),
    "folder as a scan": (["publish", "--file", "."], "is a folder, not a file"),
    "no port": (["proxy", "5567", "many"], "'many' is no whole number"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_options_say_so_in_a_line(name, capsys, monkeypatch, tmp_path):
    arguments, part = WRONG[name]
    monkeypatch.chdir(tmp_path)
    np.save("nan.npy", np.full((8, 8), np.nan))
    np.save("empty.npy", np.zeros((0, 8, 8)))
    assert main(arguments) == 2
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if line.startswith("tomostream_ioc.")]
    assert len(lines) == 1, captured.err
    assert part in lines[0]
    assert "Traceback" not in captured.err
    shutil.rmtree(tmp_path)


@pytest.mark.parametrize("command", ["", "serve", "proxy", "publish", "simulate", "plot", "keys"])
def test_help(command, capsys):
    with pytest.raises(SystemExit) as left:
        main([command, "--help"] if command else ["--help"])
    assert left.value.code == 0
    assert "usage: python -m tomostream_ioc.documents" in capsys.readouterr().out
