"""Request and .sav files: what is saved and restored, what is refused, what survives a crash."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tomostream_ioc.epics import saved_file as autosave_module
from tomostream_ioc.epics.autosave import Autosave
from tomostream_ioc.epics.group import TomoStreamGroup
from tomostream_ioc.epics.request_file import read_request
from tomostream_ioc.epics.saved_file import parse_saved
from tomostream_ioc.errors import ConfigError
from tomostream_ioc.model.control import RunStatus

ROOT = Path(__file__).parents[2]
REQUEST = ROOT / "db" / "auto_settings.req"
REFERENCE = ROOT.parent / "shared" / "reference" / "c_ioc_auto_settings.sav"
MACROS = {"P": "ref:", "R": "TomoStream:", "RECON_PVA": "2bmb:TomoStream:StreamRecon"}
PREFIX = "ref:TomoStream:"


class SilentRun:
    """A run that fails the test when it is asked anything: restoring must put nothing to it."""

    def status(self) -> RunStatus:
        return RunStatus()

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"the run was asked to {name}")


@pytest.fixture
def group() -> TomoStreamGroup:
    return new_group()


def new_group() -> TomoStreamGroup:
    run: Any = SilentRun()
    return TomoStreamGroup(PREFIX, macros=MACROS, control=run)


def saver(folder: Path, group: TomoStreamGroup) -> Autosave:
    return Autosave(folder, [REQUEST], MACROS, group)


def saved(folder: Path, *lines: str, end: str = "<END>") -> Path:
    path = folder / "auto_settings.sav"
    header = "# autosave R5.3\tAutomatically generated - DO NOT MODIFY - 261121-030227"
    path.write_text("\n".join([header, *lines, end, ""]))
    return path


def put(group: TomoStreamGroup, **values: Any) -> None:
    for name, value in values.items():
        group.records[name].restore(value)


CHANGED = {
    "TomoScanPVPrefix": "2bmb:TomoScanStream:",
    "DarkPVAName": "",
    "BufferSize": "2/2",
    "Center": 1224.125,
    "CenterTweak": 0.1,
    "CenterTweakUp": 1068.5,
    "Dezinger": 3,
    "FilterType": 2,
    "OrthoX": -7,
    "RotX": 1e-12,
    "Alpha": 1e-8,
    "Crosshair": 0,
    "LensChangeSync": 1,
    "RoiPluginPVPrefix": "with blanks: x y ",
}


def test_what_is_saved_is_restored(tmp_path: Path, group: TomoStreamGroup) -> None:
    put(group, **CHANGED)
    assert saver(tmp_path, group).save_now()
    other = new_group()
    assert saver(tmp_path, other).restore() == []
    for name, value in CHANGED.items():
        assert other.records[name].value == value, name
        assert other.records[name].field_values["UDF"] == 0
        assert other.records[name].field_values["SEVR"] == 0
    assert other.records["RotY"].value == 0
    assert other.params().center == 1224.125
    assert other.params().dezinger == 4


def test_the_file_is_as_autosave_writes_it(tmp_path: Path, group: TomoStreamGroup) -> None:
    put(group, **CHANGED)
    assert saver(tmp_path, group).save_now()
    lines = (tmp_path / "auto_settings.sav").read_text().split("\n")
    assert lines[0].startswith("# autosave R5.3\tAutomatically generated - DO NOT MODIFY - ")
    assert lines[-2:] == ["<END>", ""]
    values = dict(line.split(" ", 1) for line in lines[1:-2])
    assert values[f"{PREFIX}Center"] == "1224.125"
    assert values[f"{PREFIX}Alpha"] == "1e-08"
    assert values[f"{PREFIX}Dezinger"] == "3"
    assert values[f"{PREFIX}DarkPVAName"] == ""
    assert f"{PREFIX}DarkPVAName " in lines
    assert {name.removeprefix(PREFIX) for name in values}.isdisjoint(
        {"StartRecon", "AbortRecon", "Watchdog", "ReconTime", "ReconStatus", "Status"}
    )
    assert sorted(os.listdir(tmp_path)) == ["auto_settings.sav"]


def test_a_file_of_a_c_ioc_is_restored(tmp_path: Path, group: TomoStreamGroup) -> None:
    if not REFERENCE.exists():
        pytest.skip(f"{REFERENCE} is not there: the file of the C IOC can't be restored")
    (tmp_path / "auto_settings.sav").write_bytes(REFERENCE.read_bytes())
    autosave = saver(tmp_path, group)
    assert autosave.restore() == []
    assert autosave.save_now()
    ours = parse_saved((tmp_path / "auto_settings.sav").read_text()).values
    theirs = parse_saved(REFERENCE.read_text()).values
    assert {name: ours[name] for name in theirs} == theirs
    assert (
        ours.keys() - theirs.keys()
        == {
            f"{PREFIX}{name}"
            for name in (
                "CameraPVPrefix",
                "CenterAuto",
                "Crosshair",
                "RoiPluginPVPrefix",
                "StreamBinning",
            )
        }
        - theirs.keys()
    )


def test_no_file_means_the_defaults(tmp_path: Path, group: TomoStreamGroup) -> None:
    assert saver(tmp_path / "none", group).restore() == []
    assert group.records["CenterTweak"].value == 3.0


@pytest.mark.parametrize("content", ["", "<END", "not autosave\0at all\n<END>\n", "a b\n"])
def test_a_file_that_is_not_whole_is_not_used(
    tmp_path: Path, group: TomoStreamGroup, caplog: pytest.LogCaptureFixture, content: str
) -> None:
    path = tmp_path / "auto_settings.sav"
    path.write_text(f"{PREFIX}Center 5\n{content}")
    assert saver(tmp_path, group).restore() == []
    assert group.records["Center"].value == 0
    assert "is not used: " in caplog.text
    assert "the defaults hold" in caplog.text
    kept = list(tmp_path.glob("auto_settings.sav_bad_*"))
    assert [file.read_text() for file in kept] == [f"{PREFIX}Center 5\n{content}"]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("Center nan", "not a number"),
        ("Center 1e999", "not a finite number"),
        ("Center five", "not a number"),
        ("Center ", "not a number"),
        ("OrthoX 3000000000", "is outside"),
        ("Dezinger 4", "none of the choices"),
        ("Dezinger -1", "none of the choices"),
        ("DarkPVAName " + "x" * 40, "longer than 39"),
        ("StartRecon 1", "commands are never restored"),
        ("AbortRecon 1", "commands are never restored"),
        ("Watchdog 5", "commands are never restored"),
        ("Status 1", "commands are never restored"),
        ("Nonsense 1", "no such record"),
        ("Center.NONE 1", "no such record or field"),
        ("Center.NAME x", "not writable"),
        ("Center.PREC x", "could not convert"),
    ],
)
def test_values_are_refused_one_by_one(
    tmp_path: Path,
    group: TomoStreamGroup,
    caplog: pytest.LogCaptureFixture,
    line: str,
    reason: str,
) -> None:
    saved(tmp_path, f"{PREFIX}OrthoZ 12", f"{PREFIX}{line}", f"{PREFIX}Center.HOPR 99")
    name = line.split(" ", maxsplit=1)[0]
    before = group.records["DarkPVAName"].value
    refusals = saver(tmp_path, group).restore()
    assert len(refusals) == 1
    assert refusals[0].startswith(f"{PREFIX}{name} is not restored: ")
    assert reason in refusals[0]
    assert not caplog.records  # whoever restores says it
    assert group.records["OrthoZ"].value == 12
    assert group.records["Center"].field_values["HOPR"] == 99
    assert group.records["DarkPVAName"].value == before
    assert group.records["StartRecon"].value == 0


def test_request_files_name_what_is_saved(tmp_path: Path) -> None:
    (tmp_path / "inner.req").write_text("$(P)$(R)Inner\n${P}Brace$(Q=q)")
    (tmp_path / "outer.req").write_text(
        "# a comment\n"
        "#controlPV $(P)$(R)ReconTime\n"
        "\n"
        "  $(P)$(R)First   # said behind it\n"
        'file "inner.req", P=$(P) R="other:"\n'
        "file inner.req P=x:, R=\n"
        "$(P)$(R)First\n"
        "$(P)$(R)Last.PREC"
    )
    assert read_request(tmp_path / "outer.req", {"P": "a:", "R": "b:"}) == [
        "a:b:First",
        "a:other:Inner",
        "a:Braceq",
        "x:Inner",
        "x:Braceq",
        "a:b:Last.PREC",
    ]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("$(NONE)x", ":1: macro NONE is not defined"),
        ("\nfile", ":2: 'file' without a file's name"),
        ("file other.req x", ":1: 'x' is not NAME=value"),
        ("file bad.req", "without an end"),
        ("file none.req", "none.req: can't be read"),
    ],
)
def test_errors_in_request_files_name_file_and_line(tmp_path: Path, text: str, what: str) -> None:
    path = tmp_path / "bad.req"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_request(path, {})
    assert what in str(caught.value)


def test_what_is_no_record_here_is_said_and_left_out(
    tmp_path: Path, group: TomoStreamGroup, caplog: pytest.LogCaptureFixture
) -> None:
    request = tmp_path / "own.req"
    request.write_text("$(P)$(R)Center\n$(P)$(R)Center.PREC\n$(P)$(R)Nonsense")
    assert Autosave(tmp_path, [request], MACROS, group).save_now()
    values = parse_saved((tmp_path / "auto_settings.sav").read_text()).values
    assert values == {f"{PREFIX}Center": "0", f"{PREFIX}Center.PREC": "3"}
    assert "Nonsense, which is no record here" in caplog.text


def test_a_folder_that_can_not_be_written_is_said_once(
    tmp_path: Path, group: TomoStreamGroup, caplog: pytest.LogCaptureFixture
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    autosave = saver(blocked, group)
    with caplog.at_level(logging.ERROR):
        assert not autosave.save_now()
        assert not autosave.save_now()
    assert caplog.text.count("settings can't be saved") == 1
    assert saver(blocked, group).restore() == []


async def _run_until(autosave: Autosave, condition: Any) -> None:
    task = asyncio.create_task(autosave.run(period_s=0.02))
    try:
        async with asyncio.timeout(5):
            while not condition():
                await asyncio.sleep(0.01)
    finally:
        task.cancel()


def test_changes_are_saved_periodically_and_only_changes(
    tmp_path: Path, group: TomoStreamGroup
) -> None:
    autosave = saver(tmp_path, group)
    path = tmp_path / "auto_settings.sav"
    asyncio.run(_run_until(autosave, path.exists))
    first = path.stat().st_mtime_ns

    end_s = time.monotonic() + 0.2
    asyncio.run(_run_until(autosave, lambda: time.monotonic() > end_s))
    assert path.stat().st_mtime_ns == first
    put(group, Center=77.0)
    asyncio.run(_run_until(autosave, lambda: path.stat().st_mtime_ns != first))
    assert parse_saved(path.read_text()).values[f"{PREFIX}Center"] == "77"


@pytest.mark.skipif(sys.platform != "linux", reason="kills a forked process")
def test_at_any_kill_the_old_or_the_new_file_is_whole(tmp_path: Path) -> None:
    path, backup = tmp_path / "auto_settings.sav", tmp_path / "auto_settings.savB"
    contents = {b"A" * 300_000 + b"\n<END>\n", b"B" * 200_000 + b"\n<END>\n"}
    seen: set[bytes] = set()
    for round_ in range(25):
        child = os.fork()
        if child == 0:
            while True:  # until it is killed
                for content in contents:
                    autosave_module.write_whole(path, content, backup if path.exists() else None)
        time.sleep(0.004 * (1 + round_ % 7))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        if path.exists():
            seen.add(path.read_bytes())
            assert path.read_bytes() in contents
        if backup.exists():
            assert path.exists()
            assert backup.read_bytes() in contents
    assert seen
    assert backup.exists()


@pytest.mark.parametrize("hard_links", [True, False])
def test_the_last_good_file_is_kept_and_used(
    tmp_path: Path,
    group: TomoStreamGroup,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    hard_links: bool,
) -> None:
    if not hard_links:

        def refused(*_: object) -> None:
            raise PermissionError("no hard links here")

        monkeypatch.setattr(Path, "hardlink_to", refused)
    autosave = saver(tmp_path, group)
    for center in (1.0, 2.0, 3.0):
        put(group, Center=center)
        assert autosave.save_now()
    assert sorted(os.listdir(tmp_path)) == ["auto_settings.sav", "auto_settings.savB"]
    path = tmp_path / "auto_settings.sav"
    path.write_text(path.read_text()[:100])
    assert autosave.save_now()  # what is broken is no backup
    assert f"{PREFIX}Center 2\n" in (tmp_path / "auto_settings.savB").read_text()
    path.write_text(path.read_text()[:100])
    other = new_group()
    assert saver(tmp_path, other).restore() == []
    assert other.records["Center"].value == 2
    assert "auto_settings.sav is not used" in caplog.text
    assert "settings are restored from" in caplog.text
    assert caplog.text.count("auto_settings.savB") == 1


def test_the_newest_of_the_older_files_is_the_last_resort(
    tmp_path: Path, group: TomoStreamGroup, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(3):
        path = saved(tmp_path, f"{PREFIX}OrthoZ {number}")
        path.rename(tmp_path / f"auto_settings.sav{number}")
        os.utime(tmp_path / f"auto_settings.sav{number}", (1000, 1000))
    (tmp_path / "auto_settings.sav1").write_text("torn")
    os.utime(tmp_path / "auto_settings.sav1", (1001, 1001))
    (tmp_path / "auto_settings.savB").write_text("torn")
    saved(tmp_path, f"{PREFIX}OrthoZ 9", end="")
    assert saver(tmp_path, group).restore() == []
    assert group.records["OrthoZ"].value == 0
    assert group.records["OrthoZ"].field_values["UDF"] == 0
    assert "restored from" in caplog.text
    assert "auto_settings.sav0" in caplog.text
    names = sorted(os.listdir(tmp_path))
    assert names[0] == "auto_settings.sav0"
    assert "auto_settings.sav" not in names
    assert "auto_settings.savB" not in names
    assert sum("_bad_" in name for name in names) == 3


def test_settings_of_another_ioc_are_set_aside(
    tmp_path: Path, group: TomoStreamGroup, caplog: pytest.LogCaptureFixture
) -> None:
    for center in (5, 6):
        before = saved(tmp_path, f"other:TomoStream:Center {center}").read_text()
        autosave = saver(tmp_path, group)
        caplog.clear()
        assert autosave.restore() == []
        assert sum("another IOC's" in line for line in caplog.messages) == 1
        assert group.records["Center"].value == 0
        assert autosave.save_now()
        kept = [file.read_text() for file in tmp_path.glob("auto_settings.sav_bad_*")]
        assert before in kept
    assert len(kept) == 2
    saved(tmp_path, f"other:TomoStream:Center {center}", f"{PREFIX}Center 8")
    assert len(saver(tmp_path, group).restore()) == 1
    assert group.records["Center"].value == 8


def test_a_file_that_can_not_be_read_is_not_written_over(
    tmp_path: Path, group: TomoStreamGroup, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "auto_settings.sav"
    saved(tmp_path, f"{PREFIX}OrthoZ 12").rename(tmp_path / "auto_settings.savB")
    path.symlink_to(path)  # cannot be read even by root
    autosave = saver(tmp_path, group)
    assert autosave.restore() == []
    assert group.records["OrthoZ"].value == 12
    assert not autosave.save_now()
    assert not autosave.save_now()
    assert path.is_symlink()
    assert caplog.text.count("no settings are saved") == 1
