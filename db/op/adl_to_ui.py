#!/usr/bin/env python3
"""Convert the MEDM screens for PyDM: adl2pydm, and what PyDM needs besides.

python db/op/adl_to_ui.py FOLDER        writes FOLDER/*.ui
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path
from xml.etree import ElementTree

from screens.adl import FONT_HEIGHT, INDENT
from screens.widgets import ROW_HEIGHT, TEXT_HEIGHT

SCREENS = Path(__file__).resolve().parent / "adl"
#: a class that adl2pydm writes and PyDM no longer has; a plain widget does the same here
GONE = "PyDMAbsoluteGeometry"
#: adl2pydm sets these under other names, which PyDM ignores
MARGINS = ("marginTop", "marginBottom", "marginLeft", "marginRight")
#: one pixel within the limits that the records have, 0..2448
SLIDER_STEPS = 2449
FONT_SIZE = "10"  # points, of all text


def convert(folder: Path) -> list[Path]:
    """Write each screen as .ui into the folder; the paths."""
    from adl2pydm.cli import processFile

    # of adl2pydm only what is wrong: it warns of each step below 1, which PyDM does not use
    logging.getLogger("adl2pydm").setLevel(logging.ERROR)
    written = []
    for screen in sorted(SCREENS.glob("*.adl")):
        processFile(str(screen), str(folder))
        path = folder / f"{screen.stem}.ui"
        path.write_text(corrected(path.read_text(encoding="utf-8")), encoding="utf-8")
        written.append(path)
    return written


def corrected(ui: str) -> str:
    """The .ui file as PyDM can load it."""
    root = ElementTree.fromstring(ui)
    for custom in root.iterfind("customwidgets"):
        for widget in custom.findall("customwidget"):
            if widget.findtext("class") == GONE:
                custom.remove(widget)
    for size in root.iter("pointsize"):  # adl2pydm takes the font from the height too
        size.text = FONT_SIZE
    for widget in root.iter("widget"):
        kind = widget.get("class")
        if kind == GONE:
            widget.set("class", "QWidget")
        elif kind == "PyDMLabel" and _is_line(widget):
            _grow(widget, INDENT, ROW_HEIGHT)  # all of the ground, for the alarm's border
        elif kind == "QLabel" and _is_line(widget):
            _grow(widget, 0, TEXT_HEIGHT)
        elif kind == "PyDMEnumButton":
            for name in MARGINS:
                _property(widget, name, "number", "0")
        elif kind == "PyDMSlider":
            for entry in widget.findall("property"):
                if entry.get("name") == "precision":  # adl2pydm's word for the step
                    widget.remove(entry)
            _property(widget, "tickPosition", "enum", "QSlider::NoTicks")
            _property(widget, "showLimitLabels", "bool", "false")
            _property(widget, "num_steps", "number", str(SLIDER_STEPS))
    return ElementTree.tostring(root, encoding="unicode")


def _grow(widget: ElementTree.Element, margin_x: int, height: int) -> None:
    """A line of text as high as here: in the file it is as high as MEDM's font, without margins."""
    (place,) = widget.iterfind("property[@name='geometry']/rect")
    above = (height - FONT_HEIGHT) // 2
    for name, more in (
        ("x", -margin_x),
        ("y", -above),
        ("width", 2 * margin_x),
        ("height", 2 * above),
    ):
        (number,) = place.iterfind(name)
        number.text = str(int(number.text or "") + more)


def _is_line(widget: ElementTree.Element) -> bool:
    return widget.findtext("property[@name='geometry']/rect/height") == str(FONT_HEIGHT)


def _property(widget: ElementTree.Element, name: str, kind: str, value: str) -> None:
    """Set a property, instead of one that may be there."""
    for entry in widget.findall("property"):
        if entry.get("name") == name:
            widget.remove(entry)
    entry = ElementTree.SubElement(widget, "property", name=name, stdset="0")
    ElementTree.SubElement(entry, kind).text = value


def main() -> int:
    parser = argparse.ArgumentParser(description="Convert the MEDM screens for PyDM.")
    parser.add_argument("folder", type=Path, help="where to write the .ui files")
    folder = parser.parse_args().folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        convert(folder)
    except ImportError:
        print("adl2pydm is not installed: pip install adl2pydm", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"The .ui files can't be written: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
