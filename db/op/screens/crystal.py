"""The screen of peak tracking: what is read, how peaks are found and linked, what came of it."""

from __future__ import annotations

from dataclasses import replace

from screens.layout import (
    BANNER_HEIGHT,
    MARGIN,
    Row,
    banner,
    panel,
    panel_height,
    row,
    sentence,
    stack,
    stack_height,
    unit,
)
from screens.widgets import (
    BUTTON_HEIGHT,
    TEXT_HEIGHT,
    Button,
    Choice,
    Entry,
    Image,
    Label,
    Menu,
    Readback,
    Screen,
    Table,
    Widget,
)

TITLE = "Peak tracking"
COLUMN = 430
WIDTH = 2 * COLUMN + 3 * MARGIN
LABEL = 110
NUMBER = 90
#: all the room behind a label
TEXT = COLUMN - LABEL - 3 * 6
#: with axes and colour bar beside it, a square image stays nearly square at this width
IMAGE_WIDTH = 415
IMAGE_HEIGHT = 390
IMAGE_TITLE = 20
#: the window of Phoebus, where images and table stand to the right
PHOEBUS_WIDTH = WIDTH + 2 * (IMAGE_WIDTH + MARGIN)
CHANNELS = "$(P)$(R)Crystal:"
MAP = Image(
    x_title="column of the scan",
    y_title="row of the scan",
    source=f"pva://{CHANNELS}Map",
    colour_map="VIRIDIS",
)
PROCESSED = Image(x_title="x", y_title="y", source=f"pva://{CHANNELS}Processed")
#: Phoebus shows numbers whole, and cuts them at the end, where the power of ten stands
TRACKS = Table(
    f"pva://{CHANNELS}Tracks",
    (
        ("y", 70),
        ("x", 70),
        ("mass", 130),
        ("size", 55),
        ("ecc", 60),
        ("signal", 80),
        ("raw_mass", 130),
        ("ep", 50),
        ("frame", 55),
        ("unique_id", 65),
        ("particle", 58),
    ),
)


def _pv(name: str) -> str:
    return f"Crystal:{name}"


def _number(name: str, width: int = NUMBER) -> Readback:
    return Readback(_pv(name), width=width)


def _entry(name: str, width: int = NUMBER) -> Entry:
    return Entry(_pv(name), width=width)


def _name(name: str) -> Entry:
    return Entry(_pv(name), string=True, width=TEXT)


def _choice(name: str, width: int = 150) -> Choice:
    return Choice(_pv(name), width=width, height=BUTTON_HEIGHT)


def _state(name: str, width: int = NUMBER) -> Readback:
    return Readback(_pv(name), "center", alarm=True, width=width)


def _set(label: str, name: str, meaning: str) -> Row:
    return row(label, _entry(name), unit(meaning, 206))


def _count(label: str, name: str, meaning: str) -> Row:
    return row(label, _number(name), unit(meaning, 206))


RUN: list[Row] = [
    row(
        TITLE,
        Button(_pv("Start"), "Start", "1", "go", width=90, height=BUTTON_HEIGHT),
        Button(_pv("Abort"), "Abort", "1", "stop", "light text", width=90, height=BUTTON_HEIGHT),
        _state("Start"),
        unit("Points", 46),
        _number("Points", 88),
        unit("Peaks", 46),
        _number("PeaksTotal", 88),
        unit("Tracks", 46),
        _number("TracksTotal", 88),
    ),
    *sentence(_pv("Status"), 740),
]

Panel = tuple[str, list[Row]]

SOURCE: Panel = (
    "Source: taken at the start",
    [
        row("Images from", _choice("Source", 190)),
        row("Detector", _name("ImagePVAName")),
        row("Documents", _name("DocsAddress")),
        row("Prefix", _entry("DocsPrefix", 110), unit("of the documents", 170)),
        row("Image key", _entry("ImageKey", 170), unit("empty = the first", 120)),
    ],
)

SCAN: Panel = (
    "Scan: taken at the start",
    [
        _set("Rows", "Rows", "slow axis, 0 = unknown"),
        _set("Columns", "Columns", "fast axis, 0 = unknown"),
        row("Snaking", _choice("Snaking", 110), unit("rows go back and forth", 180)),
        _set("Images", "FramesPerPoint", "of the detector for one point"),
    ],
)

BACKGROUND: Panel = (
    "Background",
    [
        row("File", _name("BackgroundFile")),
        row(
            "Subtract it",
            _choice("BackgroundOn", 100),
            unit("mean", 40),
            _number("BackgroundMean", 80),
            unit("counts", 52),
        ),
        row(
            "From images",
            Button(_pv("TakeBackground"), "Take", "1", width=60, height=BUTTON_HEIGHT),
            _state("TakeBackground", 60),
            unit("next", 34),
            _entry("BackgroundFrames", 60),
            unit("images", 60),
        ),
        row(
            "Hot pixel mask",
            _choice("HotPixelMask", 100),
            _number("MaskedPixels", 80),
            unit("pixels left out", 106),
        ),
    ],
)

IMAGES: Panel = (
    "Images",
    [
        _count("Rate", "FrameRate", "Hz"),
        _count("Received", "FramesReceived", "decoded"),
        _count("Missed", "FramesMissed", "never came"),
        _count("Dropped", "FramesDropped", "came too fast"),
        _count("Rejected", "FramesRejected", "not usable"),
        _count("Duplicate", "FramesDuplicate", "came twice"),
    ],
)

PEAKS: Panel = (
    "Peaks: takes effect at the next point",
    [
        _set("Diameter", "Diameter", "pixel, odd"),
        _set("Percentile", "Percentile", "% of the pixels are darker"),
        _set("Separation", "Separation", "pixel, at least"),
        _set("Min mass", "MinMass", "counts of a peak, at least"),
        _set("Max peaks", "MaxPeaks", "the brightest, 0 = all"),
        row("Searched as", _choice("Quantize")),
    ],
)

LINKS: Panel = (
    "Tracks: takes effect at the next point",
    [
        _set("Search range", "SearchRange", "pixel, from point to point"),
        _set("Memory", "Memory", "points gone, -1 = by grid"),
    ],
)

MAP_PANEL: Panel = (
    "Map",
    [
        row(
            "Map of",
            Menu(_pv("MapOf"), width=150, height=BUTTON_HEIGHT),
            unit("track", 40),
            _entry("MapTrack", 70),
        ),
        _count("Shown", "MapShown", "track, -1 = total"),
    ],
)

NEWEST: Panel = (
    "Newest point",
    [
        _count("Peaks", "PeaksInFrame", "found"),
        _count("Latency", "Latency", "s, from image to peaks"),
        _count("Locate", "LocateTime", "s, to find the peaks"),
        _count("Link", "LinkTime", "s, to link them"),
    ],
)

POINTS: Panel = (
    "Points",
    [
        _count("Rate", "PointRate", "Hz"),
        _count("Failed", "PointsFailed", "could not be searched"),
        _count("Crowded", "PointsCrowded", "too many links at once"),
        _count("Slow", "PointsSlow", "searched by trackpy itself"),
    ],
)


def _crystal() -> Screen:
    top = BANNER_HEIGHT + MARGIN
    run = panel("Run", MARGIN, top, WIDTH - 2 * MARGIN, LABEL, RUN)
    below = top + panel_height(RUN) + MARGIN
    columns = [[SOURCE, SCAN, BACKGROUND, IMAGES], [PEAKS, LINKS, MAP_PANEL, NEWEST, POINTS]]
    end = below + max(stack_height(panels) for panels in columns)
    widgets = [*banner(TITLE, WIDTH), *run]
    for number, panels in enumerate(columns):
        x = MARGIN + number * (COLUMN + MARGIN)
        widgets += stack(x, below, COLUMN, LABEL, panels, end)
    widgets.append(
        Label(
            f"PVA channels: {CHANNELS}Map and Processed are images, Peaks and Tracks are tables.",
            "faint text",
            x=MARGIN,
            y=end + MARGIN,
            width=WIDTH - 2 * MARGIN,
        )
    )
    height = end + TEXT_HEIGHT + 2 * MARGIN
    return Screen("crystal", TITLE, WIDTH, height, widgets, PHOEBUS_WIDTH, _results(height))


def _results(height: int) -> list[Widget]:
    """Map and newest image side by side, and the table below them."""
    right = WIDTH + IMAGE_WIDTH + MARGIN
    image_end = MARGIN + IMAGE_TITLE + IMAGE_HEIGHT
    table = image_end + MARGIN
    return [
        *_titled("map", WIDTH, MARGIN, IMAGE_WIDTH, image_end, MAP),
        *_titled("newest point, as searched", right, MARGIN, IMAGE_WIDTH, image_end, PROCESSED),
        *_titled(
            "peaks of the newest point; particle is the track",
            WIDTH,
            table,
            PHOEBUS_WIDTH - WIDTH - MARGIN,
            height - MARGIN,
            TRACKS,
        ),
    ]


def _titled(title: str, x: int, y: int, width: int, end: int, widget: Widget) -> list[Widget]:
    """The widget below its title, down to ``end``."""
    below = y + IMAGE_TITLE
    return [
        Label(title, bold=True, x=x, y=y, width=width),
        replace(widget, x=x, y=below, width=width, height=end - below),
    ]


SCREEN = _crystal()
