"""What stands in the screens' files: MEDM's read by adl2pydm's parser, Phoebus' as XML."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from adl2pydm.adl_parser import MedmMainWidget

OP = Path(__file__).resolve().parents[2] / "db" / "op"
ADL = sorted((OP / "adl").glob("*.adl"))
BOB = sorted((OP / "bob").glob("*.bob"))
PREFIX = "$(P)$(R)"
#: elements of a .bob file that name a PV
PV_ELEMENTS = ("pv_name", "x_pv", "y_pv", "cursor_info_pv", "width_pv", "height_pv")


@dataclass(frozen=True)
class Place:
    """A widget's name, kind and rectangle in pixels."""

    name: str
    kind: str
    x: int
    y: int
    width: int
    height: int

    def shares(self, other: Place) -> bool:
        """The rectangles have pixels in common."""
        return (
            self.x < other.x + other.width
            and other.x < self.x + self.width
            and self.y < other.y + other.height
            and other.y < self.y + self.height
        )

    def holds(self, other: Place) -> bool:
        return (
            self.x <= other.x
            and self.y <= other.y
            and other.x + other.width <= self.x + self.width
            and other.y + other.height <= self.y + self.height
        )


def adl(path: Path) -> MedmMainWidget:
    screen = MedmMainWidget(str(path))
    screen.parseAdlBuffer(screen.getAdlLines(str(path)))
    return screen


def bob(path: Path) -> ElementTree.Element:
    return ElementTree.parse(path).getroot()


def places(path: Path) -> tuple[Place, list[Place]]:
    """The window, and its widgets."""
    if path.suffix == ".adl":
        screen = adl(path)
        found = [
            Place(f"{w.symbol}, line {w.line_offset}", w.symbol, *w.geometry)
            for w in screen.widgets
        ]
        return Place("window", "window", *screen.geometry), found
    root = bob(path)
    window = Place("window", "window", 0, 0, _number(root, "width"), _number(root, "height"))
    return window, [
        Place(
            widget.findtext("name", ""),
            widget.get("type", ""),
            *(_number(widget, part) for part in ("x", "y", "width", "height")),
        )
        for widget in root.iterfind("widget")
    ]


def pvs(path: Path) -> list[str]:
    """Names of PVs as they stand in the file, with macros."""
    if path.suffix == ".adl":
        return re.findall(r'chan[A-D]?="([^"]*)"', path.read_text(encoding="utf-8"))
    names = []
    for element in bob(path).iter():
        if element.tag in PV_ELEMENTS and element.text:
            names.append(element.text)
    return [name for name in names if name != "$(pv_name)"]


def opened(path: Path) -> list[str]:
    """Files of the screens that its buttons open."""
    if path.suffix == ".adl":
        displays = [display for w in adl(path).widgets for display in getattr(w, "displays", [])]
        return [display["name"] for display in displays]
    return [file.text or "" for file in bob(path).iterfind("widget/actions/action/file")]


def _number(element: ElementTree.Element, name: str) -> int:
    return int(element.findtext(name, ""))
