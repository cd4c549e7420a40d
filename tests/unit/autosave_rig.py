"""Records on a run that does nothing, and their settings on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tomostream_ioc.epics.autosave import Autosave
from tomostream_ioc.epics.group import TomoStreamGroup
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
