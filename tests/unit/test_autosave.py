"""What of the settings is saved, as the C autosave writes it, and restored."""

from __future__ import annotations

import os
from pathlib import Path

import autosave_rig
import pytest
from autosave_rig import (
    CHANGED,
    MACROS,
    PREFIX,
    REFERENCE,
    new_group,
    put,
    saved,
    saver,
)

from tomostream_ioc.epics.autosave import Autosave
from tomostream_ioc.epics.group import TomoStreamGroup
from tomostream_ioc.epics.save_status import Condition, Report
from tomostream_ioc.epics.saved_file import parse_saved

group = autosave_rig.group


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


def test_options_that_saved_settings_overrule_are_named(
    tmp_path: Path, group: TomoStreamGroup
) -> None:
    saved(tmp_path, f"{PREFIX}ReconPVAName old:slices")
    saver(tmp_path, group).restore()
    (sentence,) = group.macros_overruled(["RECON_PVA"], MACROS)
    assert sentence.startswith(f"--RECON_PVA {MACROS['RECON_PVA']!r} has no effect: ")
    assert "was saved as 'old:slices'" in sentence
    assert group.macros_overruled([], MACROS) == []
    assert new_group().macros_overruled(["RECON_PVA"], MACROS) == []


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
    new = {name for name in ours.keys() - theirs.keys() if ":Crystal:" not in name}
    assert (
        new
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


def test_all_kinds_of_values_are_restored(tmp_path: Path, group: TomoStreamGroup) -> None:
    saved(
        tmp_path,
        "! 1 channel(s) not connected - or not all gets were successful",
        f"{PREFIX}FilterType Ramp",
        f"{PREFIX}Dezinger Radius 3",
        f"{PREFIX}Crosshair 0",
        f"{PREFIX}RotX.HHSV 2",
        f"{PREFIX}RotY.HHSV MINOR",
        f"{PREFIX}RotX.HIHI 7.5",
        PREFIX + r"RotX.DESC$ a \"long\" string",
        PREFIX + r"CameraPVPrefix.VAL$ it\'s",
        f"#{PREFIX}OrthoX 9",
        f'{PREFIX}ReconStatus @array@ {{ "72"',
        '"105" }',
        f"{PREFIX}SampleYPVName ",
    )
    autosave = saver(tmp_path, group)
    assert autosave.restore() == []
    assert autosave.status.rebooted == Report(Condition.WARNING, "1 not saved")
    value = {name: record.value for name, record in group.records.items()}
    assert (value["FilterType"], value["Dezinger"], value["Crosshair"]) == (2, 2, 0)
    assert (value["CameraPVPrefix"], value["SampleYPVName"]) == ("it's", "")
    assert (value["ReconStatus"], value["OrthoX"]) == (b"Hi", 0)
    rot_x, rot_y = (group.records[name].field_values for name in ("RotX", "RotY"))
    assert (rot_x["HHSV"], rot_x["HIHI"], rot_x["DESC"]) == (2, 7.5, 'a "long" string')
    assert rot_y["HHSV"] == 1
    # C writes an array of one element as if it were none
    saved(tmp_path, f"{PREFIX}ReconStatus 65")
    assert autosave.restore() == []
    assert group.records["ReconStatus"].value == b"A"
    saved(tmp_path, f"{PREFIX}ReconStatus ")
    assert autosave.restore() == []
    assert group.records["ReconStatus"].value == b""


# what the C autosave wrote (R5.3, EPICS base 7.0.10) once it had restored a file of ours
LINES_OF_C = [
    PREFIX + line
    for line in (
        "Center 1224.125",
        "OrthoX -7",
        "RotX 1e-12",
        "RotX.HIHI 7.25",
        "RotX.HHSV 2",
        r"RotX.DESC$ say \"hi\"",
        r"CameraPVPrefix a \"q\" b\\s\'",
        r"SampleYPVName.VAL$ with blanks \xfc ",
        "DarkPVAName ",
        'ReconStatus @array@ { "65" "98" "34" "125" }',
        "FilterType 2",
        "Dezinger 3",
        "Crosshair 0",
        "CenterTweakUp 1068.5",
    )
]


def test_fields_strings_and_arrays_are_saved_as_c_does(
    tmp_path: Path, group: TomoStreamGroup
) -> None:
    request = tmp_path / "own.req"
    request.write_text("\n".join(line.split(" ")[0] for line in LINES_OF_C))
    path = saved(tmp_path, *LINES_OF_C)
    autosave = Autosave(tmp_path, [request], MACROS, group)
    assert autosave.restore() == []
    assert group.records["CameraPVPrefix"].value == 'a "q" b\\s\''
    assert group.records["SampleYPVName"].value == "with blanks \u00fc "
    assert group.records["ReconStatus"].value == b'Ab"}'
    rot_x = group.records["RotX"].field_values
    assert (rot_x["HIHI"], rot_x["HHSV"], rot_x["DESC"]) == (7.25, 2, 'say "hi"')
    path.unlink()
    assert autosave.save_now()
    assert path.read_text().split("\n")[1:-2] == LINES_OF_C
