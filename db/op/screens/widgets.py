"""What a screen is made of. Coordinates and sizes are pixels; y grows downwards.

PV names are given without their prefix: ``Center`` stands for ``$(P)$(R)Center``.
"""

from __future__ import annotations

from dataclasses import dataclass, field

ROW_HEIGHT = 20  # of what has a value
TEXT_HEIGHT = 16  # of labels
BUTTON_HEIGHT = 21  # of what is pressed: MEDM's next larger font, at 22, is also wider

#: the channel of the slices; a site gives RECON where it has another name
RECON = "pva://$(RECON=$(P)$(R)StreamRecon)"

#: colours by meaning: places in MEDM's own table, so that both screens have the same ones
COLOURS = {
    "screen": 2,
    "panel": 1,
    "header": 29,
    "light text": 0,
    "text": 14,
    "faint text": 11,
    "read": 0,
    "read text": 44,
    "write": 50,
    "dark": 13,
    "dark text": 60,
    "button": 3,
    "go": 61,
    "stop": 20,
    "on": 15,
    "off": 10,
    "bad": 20,
    "bar": 26,
}

_TABLE = """
ffffff ececec dadada c8c8c8 bbbbbb aeaeae 9e9e9e 919191 858585 787878 696969 5a5a5a 464646
2d2d2d 000000 00d800 1ebb00 339900 2d7f00 216c00 fd0000 de1309 be190b a01207 820400 5893ff
597ee1 4b6ec7 3a5eab 27548d fbf34a f9da3c eeb62b e19015 cd6100 ffb0ff d67fe2 ae4ebc 8b1a96
610a75 a4aaff 8793e2 6a73c1 4d52a4 343386 c7bb6d b79d5c a47e3c 7d5627 58340f 99ffff 73dfff
4ea5f9 2a63e4 0a00b8 ebf1b5 d4db9d bbc187 a6a462 8b8239 73ff6b 52da3b 3cb420 289315 1a7309
"""
#: MEDM's default colour table, RRGGBB
PALETTE = _TABLE.split()


@dataclass(frozen=True)
class Widget:
    """A place on the screen."""

    x: int = field(default=0, kw_only=True)
    y: int = field(default=0, kw_only=True)
    width: int = field(default=100, kw_only=True)
    height: int = field(default=ROW_HEIGHT, kw_only=True)


@dataclass(frozen=True)
class Box(Widget):
    """A filled rectangle, behind other widgets."""

    colour: str = "panel"


@dataclass(frozen=True)
class Label(Widget):
    """Text that stays; macros of the screen may stand in it."""

    text: str = ""
    colour: str = "text"
    align: str = "left"  # left, center, right
    bold: bool = False
    height: int = field(default=TEXT_HEIGHT, kw_only=True)


@dataclass(frozen=True)
class Readback(Widget):
    """A value that is shown; ``alarm`` shows it on dark ground, in the colour of its alarm."""

    pv: str = ""
    align: str = "right"
    string: bool = False  # an array of characters is shown as text
    alarm: bool = False
    lines: int = 1  # a text that is longer goes on below, if it is an array of characters


@dataclass(frozen=True)
class Entry(Widget):
    """A value that is typed."""

    pv: str = ""
    string: bool = False


@dataclass(frozen=True)
class Menu(Widget):
    """One of many choices, which the record names."""

    pv: str = ""


@dataclass(frozen=True)
class Choice(Widget):
    """One of few choices, which the record names, side by side."""

    pv: str = ""


@dataclass(frozen=True)
class Slider(Widget):
    """A number between the record's limits, or between ``limits`` for a record without any."""

    pv: str = ""
    step: float = 1.0
    limits: tuple[float, float] | None = None


@dataclass(frozen=True)
class Bar(Widget):
    """How much of the range between the limits."""

    pv: str = ""
    limits: tuple[float, float] = (0.0, 1.0)


@dataclass(frozen=True)
class Led(Widget):
    """On while the value is not 0."""

    pv: str = ""
    off: str = "off"
    width: int = field(default=ROW_HEIGHT, kw_only=True)


@dataclass(frozen=True)
class Button(Widget):
    """Writes ``value`` when it is pressed."""

    pv: str = ""
    text: str = ""
    value: str = "1"
    colour: str = "button"
    text_colour: str = "text"


@dataclass(frozen=True)
class Link(Widget):
    """Opens another screen."""

    screen: str = ""
    text: str = ""


@dataclass(frozen=True)
class Image(Widget):
    """A PVA image; a click writes where it was to the records ``x_pv`` and ``y_pv``.

    ``channel`` is what follows the name of ``source``: Z, Y, X, or nothing.
    Phoebus only: MEDM shows no images.
    """

    channel: str = ""
    x_pv: str = ""
    y_pv: str = ""
    x_title: str = "x"
    y_title: str = "y"
    source: str = RECON
    colour_map: str = "GRAY"


@dataclass(frozen=True)
class Table(Widget):
    """A PVA table, NTTable, with the names of its columns and their widths in pixels.

    ``source`` is the whole address. Phoebus only: MEDM shows no tables.
    """

    source: str = ""
    columns: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class Screen:
    """A window: what both programs show, and what stands in Phoebus alone, to the right of it."""

    name: str
    title: str
    width: int
    height: int
    widgets: list[Widget]
    phoebus_width: int = 0
    phoebus_widgets: list[Widget] = field(default_factory=list)


def rgb(colour: str) -> tuple[int, int, int]:
    """Red, green and blue, 0..255, of a colour by meaning."""
    text = PALETTE[COLOURS[colour]]
    return int(text[:2], 16), int(text[2:4], 16), int(text[4:], 16)
