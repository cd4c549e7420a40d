"""The files of the operator screens: complete, well placed, and what their programs understand."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from itertools import combinations
from pathlib import Path

import medm_fonts
import phoebus_widgets
import pytest
import screen_files
from screen_files import ADL, BOB, OP, PREFIX

from tomostream_ioc.epics.pva_crystal import TRACK_COLUMNS

#: images and tables; MEDM shows none, so that only Phoebus has these channels
PVA = "pva://"
RECON = f"{PVA}$(RECON=$(P)$(R)StreamRecon)"
CRYSTAL = f"{PVA}{PREFIX}Crystal:"


def each(paths):
    return pytest.mark.parametrize("path", paths, ids=lambda path: path.name)


@pytest.fixture(scope="module")
def listed() -> dict[str, dict[str, str]]:
    """What --list-pvs says of each record, by its name without prefix."""
    heads, *lines = subprocess.run(
        [sys.executable, "-m", "tomostream_ioc", "--P", "t:", "--R", "r:", "--list-pvs"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout.splitlines()
    starts = [heads.index(head) for head in heads.split()]
    ends = [*starts[1:], None]
    rows = [
        [line[start:end].strip() for start, end in zip(starts, ends, strict=True)] for line in lines
    ]
    return {
        row[0].removeprefix("t:r:"): dict(zip(heads.split(), row, strict=True))
        for row in rows
        if row[0].startswith("t:r:")
    }


@pytest.fixture(scope="module")
def served(listed) -> set[str]:
    """Names of all records of the product, without prefix."""
    return set(listed)


def records(paths: list[Path]) -> set[str]:
    """Records that the screens show, without prefix and field."""
    names = {name for path in paths for name in screen_files.pvs(path)}
    return {name.removeprefix(PREFIX).split(".")[0] for name in names if not name.startswith(PVA)}


def test_both_programs_have_the_same_screens():
    names = {"tomoStream", "crystal", "tomoStreamEPICS_PVs", "tomoStreamIOC"}
    assert {path.stem for path in ADL} >= names
    assert {path.stem for path in BOB} == {path.stem for path in ADL}


def test_the_files_are_what_the_generator_writes():
    checked = subprocess.run(
        [sys.executable, str(OP / "make_screens.py"), "--check"], capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize("paths", [ADL, BOB], ids=["adl", "bob"])
def test_each_record_is_on_a_screen_and_each_name_is_a_record(served, paths):
    assert len(served) >= 80
    assert records(paths) == served


@each(ADL + BOB)
def test_each_pv_has_the_macros_of_its_prefix(path):
    names = screen_files.pvs(path)
    assert names
    for name in names:
        assert name.startswith((PREFIX, RECON, CRYSTAL)), name


@each(ADL + BOB)
def test_no_widget_covers_another_and_all_are_in_the_window(path):
    window, places = screen_files.places(path)
    assert len(places) > 20
    grounds = [place for place in places if place.kind == "rectangle"]
    others = [place for place in places if place.kind != "rectangle"]
    for place in places:
        assert window.holds(place), place
    for one, other in combinations(others, 2):
        assert not one.shares(other), (one, other)
    for ground in grounds:
        for place in others:
            assert ground.holds(place) or not ground.shares(place), (ground, place)


@each(ADL)
def test_widgets_are_drawn_after_the_rectangle_behind_them(path):
    _, places = screen_files.places(path)
    for number, place in enumerate(places):
        if place.kind == "rectangle":
            later = places[number + 1 :]
            assert not any(
                place.shares(before) for before in places[:number] if before.kind != "rectangle"
            )
            assert any(place.holds(after) for after in later), place


@each(ADL)
def test_texts_have_no_parentheses_which_adl2pydm_makes_braces_of(path):
    for widget in screen_files.adl(path).widgets:
        if widget.symbol == "text" and widget.title:
            assert "(" not in widget.title.replace(PREFIX, ""), widget.title


@each(ADL)
def test_medm_cuts_no_text_of_a_screen(path):
    texts = 0
    for widget in screen_files.adl(path).widgets:
        _, _, width, height = widget.geometry
        if widget.symbol in ("text", "message button", "related display"):
            text = (widget.title or "").replace(PREFIX, "2bmb:TomoStream:")
            if widget.symbol == "text":
                wide = medm_fonts.text_width(text, height)
            else:  # a leading - stands for: no icon
                wide = medm_fonts.button_width(text.removeprefix("-"), height)
            assert wide <= width, (text, width)
            texts += 1
    assert texts > 10


@each(ADL)
def test_medm_cuts_no_choice_of_a_record(path, listed):
    for widget in screen_files.adl(path).widgets:
        if widget.symbol in ("choice button", "menu"):
            record = widget.contents["control"]["chan"].removeprefix(PREFIX)
            choices = [text.split(" (")[0] for text in listed[record]["limits"].split(", ")]
            _, _, width, height = widget.geometry
            assert len(choices) > 1
            for choice in choices:
                if widget.symbol == "menu":
                    assert medm_fonts.menu_width(choice, height) <= width, (record, choice)
                else:
                    wide = medm_fonts.choice_width(choice, height)
                    assert wide <= width // len(choices), (record, choice)


@each(ADL)
def test_medm_shows_whole_strings_and_states(path, listed):
    """A number that is too long gets a smaller font; a text at the left is cut."""
    for widget in screen_files.adl(path).widgets:
        if widget.symbol != "text update":
            continue
        _, _, width, height = widget.geometry
        record = widget.contents["monitor"]["chan"].removeprefix(PREFIX).split(".")[0]
        kind, limits = listed[record]["type"], listed[record]["limits"]
        if kind in ("bo", "bi", "busy", "mbbo"):
            for state in limits.split(", "):
                wide = medm_fonts.text_width(state.split(" (")[0], height)
                assert wide <= width, (record, state)
        elif kind == "stringout" and record.startswith("SR_"):  # sentences
            assert medm_fonts.text_width(39 * "x", height) <= width, record


def test_medm_shows_the_sentence_of_a_status_in_two_parts(listed):
    """Of 256 characters as many as two lines hold; the second goes on where the first ends."""
    for path, record in (("tomoStream", "ReconStatus"), ("crystal", "Crystal:Status")):
        (screen,) = (each for each in ADL if each.stem == path)
        first, second = (
            widget
            for widget in screen_files.adl(screen).widgets
            if widget.symbol == "text update"
            and widget.contents["monitor"]["chan"].startswith(f"{PREFIX}{record}.VAL[")
        )
        parts = []
        for widget in (first, second):
            begin, end = widget.contents["monitor"]["chan"].split("[")[1].rstrip("]").split(":")
            parts.append(range(int(begin), int(end) + 1))
            _, _, width, height = widget.geometry
            assert medm_fonts.text_width(len(parts[-1]) * "x", height) <= width
        assert (parts[0].start, parts[1].start) == (0, parts[0].stop)
        assert parts[1].stop > 200
        assert listed[record]["type"] == "waveform"


@each(ADL)
def test_colours_of_an_adl_file_are_in_its_table(path):
    screen = screen_files.adl(path)
    assert len(screen.color_table) == 65
    text = path.read_text(encoding="utf-8")
    assert text.count("{") == text.count("}")
    for line in text.splitlines():
        if line.strip().startswith(("clr=", "bclr=")):
            assert 0 <= int(line.split("=")[1]) < 65


@each(BOB)
def test_phoebus_knows_each_widget_and_property(path):
    root = screen_files.bob(path)
    assert (root.tag, root.get("version")) == ("display", "2.0.0")
    for element in root:
        if element.tag == "widget":
            kind = element.get("type", "")
            version, properties = phoebus_widgets.WIDGETS[kind]
            assert element.get("version") == version, kind
            for entry in element:
                assert properties[entry.tag](entry), (kind, entry.tag, entry.text)
        else:
            assert phoebus_widgets.DISPLAY[element.tag](element), element.tag


@each(BOB)
def test_a_bob_file_does_not_set_the_macros_that_it_is_opened_with(path):
    """A display's own macros would win over those of the command line and of other displays."""
    assert screen_files.bob(path).find("macros") is None


def test_a_click_in_a_slice_moves_the_two_others():
    (path,) = (path for path in BOB if path.stem == "tomoStream")
    images = {
        widget.findtext("pv_name", "").removeprefix(RECON): widget
        for widget in screen_files.bob(path).iterfind("widget[@type='image']")
    }
    cursors = {
        name: (image.findtext("x_pv"), image.findtext("y_pv")) for name, image in images.items()
    }
    x, y, z = (f"{PREFIX}Ortho{axis}" for axis in "XYZ")
    assert cursors == {"Z": (x, y), "X": (y, z), "Y": (x, z), "": (None, None)}
    for name in "XYZ":
        # without the crosshair, each movement of the mouse would be written
        assert images[name].findtext("cursor_crosshair") == "true"
        assert images[name].findtext("limits_from_pv") == "true"


def test_map_image_and_table_of_peak_tracking_are_shown():
    (path,) = (path for path in BOB if path.stem == "crystal")
    root = screen_files.bob(path)
    shown = {widget.findtext("pv_name"): widget.get("type") for widget in root.iterfind("widget")}
    assert {name: kind for name, kind in shown.items() if name and name.startswith(PVA)} == {
        f"{CRYSTAL}Map": "image",
        f"{CRYSTAL}Processed": "image",
        f"{CRYSTAL}Tracks": "table",
    }
    (table,) = root.iterfind("widget[@type='table']")
    assert table.findtext("editable") == "false"
    columns = table.findall("columns/column")
    # Phoebus gives widths by place, whatever the names
    assert tuple(column.findtext("name") for column in columns) == TRACK_COLUMNS
    assert {column.findtext("editable") for column in columns} == {"false"}
    scroll_bar = 15
    widths = sum(int(column.findtext("width", "")) for column in columns)
    assert widths + scroll_bar <= int(table.findtext("width", ""))


@each(BOB)
def test_sliders_have_limits(path):
    for slider in screen_files.bob(path).iterfind("widget[@type='scaledslider']"):
        if slider.findtext("limits_from_pv") != "true":
            assert slider.findtext("pv_name") == f"{PREFIX}Center"  # a record without limits
            assert float(slider.findtext("maximum", "0")) > float(slider.findtext("minimum", "0"))


@pytest.mark.parametrize("paths", [ADL, BOB], ids=["adl", "bob"])
def test_each_screen_is_opened_from_another_and_each_button_opens_one(paths):
    opened = {name for path in paths for name in screen_files.opened(path)}
    assert opened == {path.name for path in paths} - {paths[0].with_stem("tomoStream").name}


def test_all_files_of_db_are_installed():
    """With the package, below share/, at the places that they have here."""
    root = OP.parents[1]
    settings = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    installed = {}
    for folder, patterns in settings["tool"]["setuptools"]["data-files"].items():
        for path in (path for pattern in patterns for path in root.glob(pattern)):
            installed[path] = folder
    there = {path for path in (root / "db").rglob("*.*") if "__pycache__" not in path.parts}
    assert set(installed) == there
    for path, folder in installed.items():
        assert folder == f"share/tomostream_ioc/{path.parent.relative_to(root)}"
