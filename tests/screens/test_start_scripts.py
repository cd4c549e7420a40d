"""The scripts that start the screens: what they hand on, and what they say when it can't be."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from screen_files import OP

SCRIPTS = sorted(OP.glob("start_*.sh"))
pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")


def run(script: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess:
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in ("MEDM", "PHOEBUS", "PYDM", "PYTHON", "EPICS_DISPLAY_PATH")
    }
    return subprocess.run(
        [str(script), *arguments],
        env=kept | variables,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.fixture
def program(tmp_path) -> str:
    """A program that says what it was started with."""
    path = tmp_path / "program"
    path.write_text('#!/bin/sh\nprintf "%s\\n" "$@" "display path $EPICS_DISPLAY_PATH"\n')
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_help_and_wrong_arguments(script):
    shown = run(script, "--help")
    assert shown.returncode == 0
    assert f"usage: {script.name} [P [R [RECON]]]" in shown.stdout
    wrong = run(script, "--nonsense")
    assert wrong.returncode == 2
    assert "unknown option --nonsense; see --help" in wrong.stderr
    assert run(script, "a", "b", "c", "d").returncode == 2


@pytest.mark.parametrize(
    ("name", "variable", "text"),
    [
        ("start_medm.sh", "MEDM", "MEDM comes with the EPICS extensions"),
        ("start_phoebus.sh", "PHOEBUS", "Set PHOEBUS to Phoebus' start script"),
        ("start_pydm.sh", "PYDM", "pip install pydm adl2pydm PyQt5"),
    ],
)
def test_a_program_that_is_not_there(name, variable, text):
    ended = run(OP / name, **{variable: "no_such_program"})
    assert ended.returncode == 1
    assert f"{name}: there is no program no_such_program" in ended.stderr
    assert text in ended.stderr


def test_medm_gets_macros_screen_and_the_place_of_the_others(program):
    ended = run(OP / "start_medm.sh", "my:", "ioc:", MEDM=program, EPICS_DISPLAY_PATH="/mine")
    assert ended.stdout.splitlines() == [
        "-x",
        "-macro",
        "P=my:,R=ioc:",
        str(OP / "adl" / "tomoStream.adl"),
        f"display path {OP / 'adl'}:/mine",
    ]


@pytest.mark.parametrize(
    ("arguments", "macros"),
    [
        ([], "P=2bmb:&R=TomoStream:&RECON=2bmb:TomoStream:StreamRecon"),
        (["my:", "ioc:"], "P=my:&R=ioc:&RECON=my:ioc:StreamRecon"),
        (["my:", "", "a b&c"], "P=my:&R=&RECON=a%20b%26c"),
    ],
)
def test_phoebus_gets_macros_in_the_address_of_the_screen(program, arguments, macros):
    ended = run(OP / "start_phoebus.sh", *arguments, PHOEBUS=program)
    option, address, _ = ended.stdout.splitlines()
    assert option == "-resource"
    assert address == f"file://{OP / 'bob' / 'tomoStream.bob'}?{macros}"


def test_pydm_gets_the_converted_screen_and_leaves_nothing_behind(program, tmp_path):
    pytest.importorskip("adl2pydm")
    own = {"PYDM": program, "PYTHON": sys.executable, "TMPDIR": str(tmp_path)}
    ended = run(OP / "start_pydm.sh", "my:", "ioc:", **own)
    assert ended.returncode == 0, ended.stderr
    lines = ended.stdout.splitlines()
    assert lines[:3] == ["--hide-nav-bar", "-m", "P=my:,R=ioc:"]
    assert lines[3].endswith("/tomoStream.ui")
    assert [path.name for path in tmp_path.iterdir()] == ["program"]
