"""Which file the settings come from, older copies, and what becomes of bad ones and of failures."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import time
from pathlib import Path
from typing import Any

import autosave_rig
import pytest
from autosave_rig import (
    MACROS,
    PREFIX,
    new_group,
    put,
    saved,
    saver,
)

from tomostream_ioc.epics.autosave import Autosave
from tomostream_ioc.epics.group import TomoStreamGroup
from tomostream_ioc.epics.save_status import OK, Condition
from tomostream_ioc.epics.saved_file import parse_saved

group = autosave_rig.group


def test_no_file_means_the_defaults_and_is_said(tmp_path: Path, group: TomoStreamGroup) -> None:
    autosave = saver(tmp_path / "none", group)
    assert autosave.restore() == []
    assert group.records["CenterTweak"].value == 3.0
    asyncio.run(autosave.status.show())
    reboot = group.records["SR_rebootStatus"]
    assert reboot.field_values["SEVR"] == 1
    assert group.records["SR_rebootStatusStr"].value == "Defaults: there is no .sav file"
    assert group.records["SR_status"].field_values["SEVR"] == 0


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


def test_where_nothing_can_be_used_the_alarm_is_major(
    tmp_path: Path, group: TomoStreamGroup
) -> None:
    for end in ("", "B", "2"):
        (tmp_path / f"auto_settings.sav{end}").write_text("torn")
    autosave = saver(tmp_path, group)
    autosave.restore()
    asyncio.run(autosave.status.show())
    assert group.records["SR_rebootStatus"].field_values["SEVR"] == 2
    assert group.records["SR_rebootStatusStr"].value == "Defaults: bad .sav, .savB, .sav2"
    assert autosave.save_now()
    asyncio.run(autosave.status.show())
    assert group.records["SR_rebootStatus"].value == 1  # of the start, until the next one
    assert group.records["SR_status"].value == 4


def test_what_is_bad_is_never_written_over(tmp_path: Path, group: TomoStreamGroup) -> None:
    autosave = saver(tmp_path, group)
    put(group, Center=1.0)
    assert autosave.save_now()
    texts = {}
    for end in ("", "B", "0", "1", "2"):  # somebody meddles while the IOC runs
        texts[end] = f"not ours {end}"
        (tmp_path / f"auto_settings.sav{end}").write_text(texts[end])
    for center in (2.0, 3.0, 4.0, 5.0):
        put(group, Center=center)
        assert autosave.save_now()
        assert autosave.save_sequence()
    for end, text in texts.items():
        kept = list(tmp_path.glob(f"auto_settings.sav{end}_bad_*"))
        assert [file.read_text() for file in kept] == [text]
        assert parse_saved((tmp_path / f"auto_settings.sav{end}").read_text()).values


def test_saved_settings_go_into_three_files_in_turn(tmp_path: Path, group: TomoStreamGroup) -> None:
    def centers() -> list[str | None]:
        paths = [tmp_path / f"auto_settings.sav{number}" for number in range(3)]
        return [
            parse_saved(path.read_text()).values[f"{PREFIX}Center"] if path.exists() else None
            for path in paths
        ]

    autosave = saver(tmp_path, group)
    assert autosave.save_sequence()  # nothing has been saved
    assert centers() == [None, None, None]
    for center in (1.0, 2.0, 3.0, 4.0):
        put(group, Center=center)
        assert autosave.save_sequence()  # nothing new either
        assert autosave.save_now()
        assert autosave.save_sequence()
    assert centers() == ["4", "2", "3"]
    for number, age_s in enumerate((30, 10, 20)):
        changed_s = time.time() - age_s
        os.utime(tmp_path / f"auto_settings.sav{number}", (changed_s, changed_s))
    later = saver(tmp_path, group)  # goes on with the oldest
    put(group, Center=5.0)
    assert later.save_now()
    assert later.save_sequence()
    assert centers() == ["5", "2", "3"]
    first = (tmp_path / "auto_settings.sav0").stat()
    assert first.st_ino != (tmp_path / "auto_settings.sav").stat().st_ino


def test_a_start_that_finds_other_settings_keeps_them_with_its_date(
    tmp_path: Path, group: TomoStreamGroup
) -> None:
    def dated() -> list[str]:
        return sorted(path.name for path in tmp_path.glob("auto_settings.sav_*"))

    autosave = saver(tmp_path, group)
    autosave.restore()
    assert dated() == []
    autosave.save_now()
    for center, n_files in ((1.0, 1), (1.0, 1), (2.0, 2)):
        put(group, Center=center)
        assert autosave.save_now()
        later = saver(tmp_path, new_group())
        later.restore()
        assert later.status.rebooted.text == "Ok"
        assert len(dated()) == n_files
    for name in dated():
        assert re.fullmatch(r"auto_settings\.sav_\d{6}-\d{6}(_2)?", name)
    assert saver(tmp_path, new_group()).restore() == []


def test_a_sequence_that_can_not_be_written_is_said_and_tried_again(
    tmp_path: Path, group: TomoStreamGroup, caplog: pytest.LogCaptureFixture
) -> None:
    autosave = saver(tmp_path, group)
    assert autosave.save_now()
    blocked = tmp_path / f".auto_settings.sav0.{os.getpid()}.tmp"
    blocked.mkdir()
    assert not autosave.save_sequence()
    assert not autosave.save_sequence()
    assert autosave.save_now()
    assert autosave.status.saving.condition == Condition.SEQUENCE_FAILED
    assert autosave.status.saving.text == "Can't write .sav0: Is a directory"
    assert caplog.text.count("it is tried again") == 1
    asyncio.run(autosave.status.show())
    assert group.records["SR_status"].field_values["SEVR"] == 2
    blocked.rmdir()
    assert autosave.save_sequence()
    assert autosave.status.saving == OK
    assert "settings are saved again" in caplog.text


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
        ("FindCenter 1", "commands are never restored"),
        ("FindCenter.RVAL 1", "commands are never restored"),
        ("FramesMissed 5", "it is no setting"),
        ("SR_status 4", "it is no setting"),
        ("ReconPVAName ", "need a channel name"),
        ("ReconPVAName a b", "no blanks"),
        ("ReconStatus Ready", "not a number"),
        ('ReconStatus @array@ { "256" }', "is outside"),
        ("ReconStatus @array@ { " + '"1" ' * 257 + "}", "longer than 256"),
        ("OrthoX.VAL$ 5", "no such record or field"),
        ("OrthoX.PREC$ 5", "no such record or field"),
        ("Center.HHSV 9", "none of the choices"),
        ("Center.HHSV Bad", "none of the choices"),
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


def test_what_is_no_record_here_is_said_and_left_out(
    tmp_path: Path, group: TomoStreamGroup, caplog: pytest.LogCaptureFixture
) -> None:
    request = tmp_path / "own.req"
    request.write_text("$(P)$(R)Center\n$(P)$(R)Center.PREC\n$(P)$(R)Nonsense")
    assert Autosave(tmp_path, [request], MACROS, group).save_now()
    values = parse_saved((tmp_path / "auto_settings.sav").read_text()).values
    assert values == {f"{PREFIX}Center": "0", f"{PREFIX}Center.PREC": "3"}
    assert "Nonsense, which is no record here" in caplog.text


def test_a_folder_that_can_not_be_written_is_said_once_and_tried_again(
    tmp_path: Path, group: TomoStreamGroup, caplog: pytest.LogCaptureFixture
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    autosave = saver(blocked, group)
    with caplog.at_level(logging.ERROR):
        assert not autosave.save_now()
        assert not autosave.save_now()
    assert caplog.text.count("settings can't be saved") == 1
    assert autosave.status.saving.text == "Can't write .sav: File exists"
    assert saver(blocked, group).restore() == []
    blocked.unlink()
    asyncio.run(_run_until(autosave, (blocked / "auto_settings.sav").exists))
    assert "settings are saved again" in caplog.text
    assert autosave.status.saving == OK
    caplog.clear()
    blocked.rename(tmp_path / "away")
    blocked.write_text("in the way again")
    assert not autosave.save_now()
    assert "settings can't be saved" in caplog.text
    blocked.unlink()  # nothing has changed since, and yet it is saved
    asyncio.run(_run_until(autosave, (blocked / "auto_settings.sav").exists))


def test_the_loop_beats_saves_and_fills_the_sequence(
    tmp_path: Path, group: TomoStreamGroup
) -> None:
    autosave = saver(tmp_path, group)
    beats: set[int] = set()

    def done() -> bool:
        beats.add(group.records["SR_heartbeat"].value)
        recently = group.records["SR_recentlyStr"].value
        return len(beats) == 2 and recently == "Wrote 'auto_settings.sav0'"

    asyncio.run(_run_until(autosave, done))
    values = {name: record.value for name, record in group.records.items()}
    assert (values["SR_status"], values["SR_statusStr"]) == (4, "Ok")
    assert (values["SR_0_Status"], values["SR_0_StatusStr"]) == (4, "Ok")
    assert (values["SR_0_Name"], values["SR_0_State"]) == ("auto_settings", 12)
    for name in ("SR_0_Time", "SR_rebootTime"):
        assert time.strptime(f"{values[name]} 2024", "%a %b %d %H:%M:%S %Y")


async def _run_until(autosave: Autosave, condition: Any) -> None:
    task = asyncio.create_task(autosave.run(period_s=0.02, sequence_period_s=0.03))
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
