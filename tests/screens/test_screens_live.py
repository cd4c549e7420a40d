"""The screens against the running program, each in the client that it is made for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import screen_files
from p4p.client.thread import Context
from screen_files import ADL, BOB, OP, PREFIX
from support.ports import environment
from support.processes import Child, wait_for
from support.rod_site import RodDetector, tracking_ioc

from tomostream_ioc.epics.pva_crystal import TRACK_COLUMNS
from tomostream_ioc.tracking.rod import CrystalRod

#: the IOC, and for each client a Python with Qt, start within one test
pytestmark = pytest.mark.timeout(240)
HERE = Path(__file__).parent
LIMIT_S = 30.0


#: a button's text, and what is to be seen once it is pressed
Presses = Mapping[str, Callable[[], object]]


def child(ioc, script: str, *arguments: str, presses: Presses | None = None) -> dict:
    """What a client without a monitor says of what it sees; skips where Qt can't run."""
    process = Child([str(HERE / script), *arguments], environment(reach=(ioc.ports,)))
    try:
        for text, seen in (presses or {}).items():
            process.expect(f"pressed {text}", 90)
            seen()
            process.say("")
        return json.loads(process.expect("{", 90))
    except AssertionError:
        for missing in ("cannot open shared object file", "Could not load the Qt platform plugin"):
            for line in process.lines:
                if missing in line:
                    pytest.skip(f"Qt can't run here: {line}")
        raise
    finally:
        process.close()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """Where pictures go: the folder SCREEN_PICTURES, to be looked at, or one for a time."""
    kept = os.environ.get("SCREEN_PICTURES")
    folder = Path(kept) if kept else tmp_path_factory.mktemp("pictures")
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def converted(tmp_path_factory) -> Path:
    """The MEDM screens as PyDM reads them, made as start_pydm.sh does."""
    folder = tmp_path_factory.mktemp("ui")
    made = subprocess.run(
        [sys.executable, str(OP / "adl_to_ui.py"), str(folder)], capture_output=True, text=True
    )
    assert (made.returncode, made.stderr) == (0, "")
    return folder


def pydm(ioc, ui: Path, picture: Path, presses: Presses | None = None) -> dict:
    p, r = ioc.prefix.split(":", 1)
    arguments = str(ui), f"{p}:", r, str(picture), str(LIMIT_S), *(presses or {})
    return child(ioc, "pydm_child.py", *arguments, presses=presses)


@pytest.mark.parametrize("path", ADL, ids=lambda path: path.name)
def test_each_channel_of_a_medm_screen_connects(ioc, converted, pictures, path):
    picture = pictures / f"screens_{path.stem}.png"
    seen = pydm(ioc, converted / f"{path.stem}.ui", picture)
    expected = {name.replace(PREFIX, ioc.prefix) for name in screen_files.pvs(path)}
    # PyDM itself asks for DISP of what can be written
    connected = {name: state for name, state in seen["connected"].items() if "DISP" not in name}
    assert set(connected) == expected
    assert all(connected.values()), [name for name, state in connected.items() if not state]
    assert seen["empty"] == []
    assert seen["cut"] == []
    window, _ = screen_files.places(path)
    assert seen["size"] == [window.width, window.height]
    assert picture.stat().st_size > 5000


def test_buttons_of_the_screen_move_the_axis_and_end_and_begin_the_run(ioc, converted, tmp_path):
    ui = converted / "tomoStream.ui"
    before = ioc.get("Center")
    up = before + ioc.get("CenterTweak")
    presses: Presses = {
        "+": lambda: ioc.wait_value("Center", up, 5),
        "-": lambda: ioc.wait_value("Center", before, 5),
        "Abort": lambda: ioc.wait_value("StartRecon", 0),
        "Start": lambda: ioc.wait_value("StartRecon", 1),
    }
    pydm(ioc, ui, tmp_path / "pressed.png", presses)
    ioc.wait_status("Running")


def test_two_lines_of_medm_have_the_whole_sentence(ioc):
    """By the array filter in the names; of a shorter one the second is empty, not the old one."""
    (screen,) = (path for path in ADL if path.stem == "tomoStream")
    names = [name for name in screen_files.pvs(screen) if "ReconStatus" in name]

    def lines() -> list[str]:
        return [ioc.ca.get(name.replace(PREFIX, ioc.prefix), as_string=True) for name in names]

    tomo_scan = ioc.get("TomoScanPVPrefix")
    ioc.put("AbortRecon", 1)
    ioc.wait_value("StartRecon", 0)
    assert lines() == [ioc.status(), ""]
    ioc.put("TomoScanPVPrefix", "no:such:tomoScan:", wait=True)
    try:
        ioc.put("StartRecon", 1)
        sentence = ioc.wait_status("Not started")
        assert all(lines())
        assert "".join(lines()) == sentence
    finally:
        ioc.put("TomoScanPVPrefix", tomo_scan, wait=True)
        ioc.put("StartRecon", 1)
        ioc.wait_status("Running")
    wait_for(lambda: lines()[1] == "", 5, "a second line that is empty again")


def test_each_channel_of_the_phoebus_screens_is_served_over_ca_and_pva(ioc):
    """Phoebus reads records by the one or by the other, as the site has set it."""
    found = {name for path in BOB for name in screen_files.pvs(path)}
    names = sorted(
        name.replace(PREFIX, ioc.prefix) for name in found if not name.startswith("pva://")
    )
    for name in names:
        assert ioc.ca.get(name) is not None, name
    with Context("pva", conf=environment(reach=(ioc.ports,)), useenv=False) as context:
        values: Any = context.get(names, timeout=LIMIT_S, throw=False)
    answers = dict(zip(names, values, strict=True))
    assert not [name for name, value in answers.items() if isinstance(value, Exception)]


@pytest.mark.parametrize("channel", ["", "Z", "Y", "X"])
def test_each_image_of_the_phoebus_screen_is_served(ioc, channel):
    names = [name for path in BOB for name in screen_files.pvs(path) if name.startswith("pva://")]
    assert f"pva://$(RECON={PREFIX}StreamRecon){channel}" in names
    image, facts = ioc.slices.get(f"{ioc.recon}{channel}")
    assert facts["attributes"]["ColorMode"] == 0
    assert image.shape == (64, 192 if not channel else 64)
    assert np.nanmax(image) > 0


@pytest.mark.parametrize("channel", ["", "Z"])
def test_c2dataviewer_shows_the_slices(ioc, pictures, channel):
    """With lines of NaN in the picture of all three, and one slice alone."""
    picture = pictures / f"c2dv{channel}.png"
    seen = child(ioc, "c2dv_child.py", f"{ioc.recon}{channel}", str(picture), str(LIMIT_S))
    assert seen["displayed"] >= 3
    assert (seen["width"], seen["height"]) == (64 if channel else 192, 64)
    assert seen["largest"] > 0
    assert seen["largest"] > seen["smallest"]


def test_a_position_between_pixels_is_taken_as_the_pixel(ioc):
    """Phoebus writes where the crosshair is as a number with a fraction."""
    ioc.put("OrthoX", 20.7, wait=True)
    ioc.wait_value("OrthoX", 20)
    with Context("pva", conf=environment(reach=(ioc.ports,)), useenv=False) as context:
        context.put(f"{ioc.prefix}OrthoX", 21.7, timeout=LIMIT_S)
    ioc.wait_value("OrthoX", 21)


@pytest.fixture(scope="module")
def rod():
    """A crystal, scanned on a grid."""
    return CrystalRod((8, 10), image_shape=(128, 128), n_grains=3, n_frames=1, seed=3)


@pytest.fixture(scope="module")
def detector(tmp_path_factory, rod):
    """Sends the images of the scan when it is told to."""
    sender = RodDetector(tmp_path_factory.mktemp("detector"), rod)
    yield sender
    sender.close()


@pytest.fixture(scope="module")
def tracking(tmp_path_factory, rod, detector):
    """The IOC, ready to track the peaks of that scan."""
    folder = tmp_path_factory.mktemp("tracking")
    with tracking_ioc(folder, rod, detector, MapOf="Brightest track") as made:
        yield made


def test_a_scan_is_tracked_from_the_screen(tracking, converted, pictures, tmp_path, rod, detector):
    ioc, ui = tracking, converted / "crystal.ui"

    def is_waiting() -> None:
        wait_for(lambda: "waiting" in ioc.get("Crystal:Status", True), 100)

    pydm(ioc, ui, tmp_path / "start.png", {"Start": is_waiting})
    detector.burst(rod.n_points, hz=20)
    ioc.wait_value("Crystal:Points", rod.n_points)
    seen = pydm(ioc, ui, pictures / "screens_crystal_tracking.png")
    assert (seen["empty"], seen["cut"]) == ([], [])
    map_, _ = ioc.slices.get(f"{ioc.prefix}Crystal:Map")
    assert map_.shape == rod.grid.shape
    assert map_.max() > 0
    image, _ = ioc.slices.get(f"{ioc.prefix}Crystal:Processed")
    assert image.shape == rod.image_shape
    assert table_labels(ioc, "Crystal:Tracks") == list(TRACK_COLUMNS)
    pydm(ioc, ui, tmp_path / "abort.png", {"Abort": lambda: ioc.wait_value("Crystal:Start", 0)})


def table_labels(ioc, channel: str) -> list[str]:
    """Names of the columns, as Phoebus' table widget takes them."""
    with Context("pva", conf=environment(reach=(ioc.ports,)), useenv=False, nt=False) as context:
        value: Any = context.get(ioc.prefix + channel, timeout=LIMIT_S)
    assert value.getID() == "epics:nt/NTTable:1.0"
    return list(value["labels"])
