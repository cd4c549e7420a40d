"""Faults 20, 21 and 22: settings and what can happen to their file, and a disk that is full."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.ports import ServerPorts, environment
from support.processes import SUPPORT, Child, Ioc, wait_for

PREFIX = "sys:TomoStream:"
HEADER = "# autosave R5.3\tAutomatically generated - DO NOT MODIFY - 261121-030227\n"
MINOR, MAJOR = 1, 2

TORN = f"{HEADER}{PREFIX}OrthoZ 1\n{PREFIX}Cent"
CORRUPT = b"\0\xff" * 500
FOREIGN = f"{HEADER}other:TomoStream:OrthoZ 3\n<END>\n"
REFUSED = {
    "OrthoX 3000000000": "is outside",
    "RotX nan": "not a number",
    "RotY 1e999": "not a finite number",
    "Dezinger 7": "none of the choices",
    "Crosshair maybe": "none of the choices",
    "DarkPVAName " + "x" * 40: "longer than 39",
    "ReconPVAName two words": "no blanks",
    "StartRecon 1": "commands are never restored",
    "AbortRecon 1": "commands are never restored",
    "FindCenter 1": "commands are never restored",
    "Status 1": "commands are never restored",
    "FramesReceived 5": "no setting",
    "SR_status 4": "no setting",
    "Gone 1": "no such record",
}
GOOD = [
    "OrthoZ 12",
    "Energy 25.5",
    "FilterType Ramp",
    "RingRemoval 1",
    r"CameraPVPrefix a \"b\" \x41",
    "Center.DESC$ The axis",
]


def _killed(folder: Path, *how: str) -> list[int]:
    """What Center was after each kill; fails where a file was not whole."""
    child = Child(
        [str(SUPPORT / "saving_child.py"), str(folder), *how],
        environment(ServerPorts()) | {"PYTHONPATH": str(SUPPORT.parents[1])},
    )
    try:
        told = json.loads(child.expect("{", 60))
    finally:
        child.close()
    assert told["wrong"] == []
    left = {name for name in os.listdir(folder) if not name.endswith(".tmp")}
    assert {f"auto_settings.sav{end}" for end in ("", "B", "0", "1", "2")} <= left
    assert not [name for name in left if "_bad_" in name]
    return told["found"]


@pytest.mark.skipif(sys.platform != "linux", reason="kills forked processes")
def test_20_killed_at_any_moment_the_file_is_the_old_or_the_new_one(tmp_path: Path) -> None:
    found = _killed(tmp_path, "random", "60", "20")
    assert len(found) == 61
    assert found == sorted(found)  # no older settings come back
    assert found[-1] > found[0]  # it did save in between


@pytest.mark.skipif(sys.platform != "linux", reason="kills forked processes")
def test_20_killed_before_each_step_of_a_save_the_file_is_whole(tmp_path: Path) -> None:
    found = _killed(tmp_path, "steps")
    assert set(found) == {7, 9}
    assert found == sorted(found)
    assert found.count(7) > 5
    assert found.count(9) > 5


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Settings of which only .sav0 can be used, and of that not all."""
    folder = tmp_path_factory.mktemp("settings") / "autosave"
    folder.mkdir()
    (folder / "auto_settings.sav").write_text(TORN)
    (folder / "auto_settings.savB").write_bytes(CORRUPT)
    good = "".join(f"{PREFIX}{line}\n" for line in [*GOOD, *REFUSED])
    (folder / "auto_settings.sav0").write_text(f"{HEADER}{good}<END>\n")
    (folder / "auto_settings.sav1").write_text(FOREIGN)
    os.utime(folder / "auto_settings.sav0", (1000, 1000))
    return folder


@pytest.fixture(scope="module")
def ioc(folder: Path) -> Iterator[Ioc]:
    """The program, as soon as it serves: it is the first that clients see."""
    ioc = Ioc(folder.parent, "--autosave-period", "0.2", "--autosave-sequence-period", "0.4")
    try:
        ioc.expect("Serving")
        yield ioc
    finally:
        with contextlib.suppress(AssertionError):
            ioc.close()


def test_21_what_is_corrupt_truncated_or_foreign_is_set_aside_and_said(
    ioc: Ioc, folder: Path
) -> None:
    reboot = ioc.ca.info(f"{PREFIX}SR_rebootStatus")
    assert (reboot["value"], reboot["severity"]) == (2, MINOR)
    assert ioc.get("SR_rebootStatus", True) == "Warning"
    assert ioc.get("SR_rebootStatusStr") == "From .sav0: bad .sav, .savB, .sav1; ..."
    kept = {path.name.partition("_bad_")[0]: path.read_bytes() for path in folder.glob("*_bad_*")}
    assert kept == {
        "auto_settings.sav": TORN.encode(),
        "auto_settings.savB": CORRUPT,
        "auto_settings.sav1": FOREIGN.encode(),
    }
    for why in ("the file is not whole", "another IOC's"):
        assert why in ioc.output
    dated = list(folder.glob("auto_settings.sav_[0-9]*"))
    assert len(dated) == 1
    assert f"{PREFIX}OrthoZ 12\n" in dated[0].read_text()


def test_22_values_are_refused_one_by_one_and_commands_always(ioc: Ioc) -> None:
    for line, reason in REFUSED.items():
        start = f"{PREFIX}{line.split()[0]} is not restored: "
        said = [text.partition(start)[2] for text in ioc.lines if start in text]
        assert len(said) == 1, line
        assert reason in said[0]
    assert [ioc.get(name) for name in ("OrthoZ", "Energy", "RingRemoval")] == [12, 25.5, 1]
    assert ioc.get("FilterType", True) == "Ramp"
    assert ioc.get("CameraPVPrefix") == 'a "b" A'
    assert ioc.get("Center.DESC") == "The axis"
    for name in ("OrthoX", "RotX", "Dezinger", "StartRecon", "AbortRecon", "FindCenter", "Status"):
        assert ioc.get(name) == 0, name
    assert ioc.get("FramesReceived") == 0


@pytest.mark.skipif(sys.platform != "linux", reason="limits a process's files from outside")
def test_a_disk_that_is_full_is_said_once_and_tried_again(ioc: Ioc, folder: Path) -> None:
    path, pid = folder / "auto_settings.sav", ioc.process.pid
    ioc.wait_value("SR_status", 4)
    unlimited = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (100, unlimited[1]))
    try:
        before = path.read_text()
        ioc.put("OrthoZ", 77, wait=True)
        ioc.wait_value("SR_status", 1)
        assert ioc.ca.info(f"{PREFIX}SR_0_Status")["severity"] == MAJOR
        assert ioc.get("SR_statusStr").startswith("Can't write .sav: ")
        beats = {ioc.get("SR_heartbeat")}
        wait_for(lambda: beats.add(ioc.get("SR_heartbeat")) or len(beats) == 2)
        ioc.put("OrthoZ", 78, wait=True)
        assert path.read_text() == before
        assert not list(folder.glob(".*.tmp"))
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, unlimited)
    ioc.wait_value("SR_status", 4)
    assert ioc.ca.info(f"{PREFIX}SR_status")["severity"] == 0
    assert f"{PREFIX}OrthoZ 78\n" in path.read_text()
    wait_for(lambda: "settings are saved again" in ioc.output)
    assert ioc.output.count("settings can't be saved to") == 1
    wait_for(lambda: ioc.get("SR_recentlyStr").startswith("Wrote 'auto_settings.sav"))
    assert ioc.get("SR_0_Name") == "auto_settings"


def test_settings_of_a_killed_program_are_there(ioc: Ioc, folder: Path) -> None:
    ioc.put("OrthoZ", 90, wait=True)
    ioc.put("ImagePVAPName", r"back\slash", wait=True)
    path = folder / "auto_settings.sav"
    wait_for(lambda: f"{PREFIX}OrthoZ 90\n" in path.read_text())
    wait_for(lambda: rf"{PREFIX}ImagePVAPName back\\slash" in path.read_text())
    ioc.signal(signal.SIGKILL)
    ioc.wait()
    assert path.read_text().endswith("\n<END>\n")
