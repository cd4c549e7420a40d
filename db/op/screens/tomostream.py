"""The main screen: everything that is looked at and set during a scan, and the slices."""

from __future__ import annotations

from dataclasses import replace

from screens import crystal, ioc, pv_names
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
    Bar,
    Button,
    Choice,
    Entry,
    Image,
    Label,
    Led,
    Link,
    Menu,
    Readback,
    Screen,
    Slider,
    Widget,
)

COLUMN = 430
WIDTH = 2 * COLUMN + 3 * MARGIN
#: with axes and colour bar beside it, a square slice stays nearly square at this width
IMAGE_WIDTH = 415
#: the window of Phoebus, where the slices stand to the right
PHOEBUS_WIDTH = WIDTH + 2 * (IMAGE_WIDTH + MARGIN)
TITLE = 20  # height of an image's title
Z = Image("Z", "OrthoX", "OrthoY", "x", "y")
X = Image("X", "OrthoY", "OrthoZ", "y", "z")
Y = Image("Y", "OrthoX", "OrthoZ", "x", "z")
ALL = Image("", x_title="", y_title="")
LABEL = 110
#: Center has no limits; its slider goes over the same pixels as those of OrthoX/Y/Z
PIXELS = (0.0, 2448.0)

Panel = tuple[str, list[Row]]


def _choice(pv: str, width: int = 150) -> Choice:
    return Choice(pv, width=width, height=BUTTON_HEIGHT)


def _menu(pv: str) -> Menu:
    return Menu(pv, width=150, height=BUTTON_HEIGHT)


def _state(pv: str, width: int = 90) -> Readback:
    return Readback(pv, "center", alarm=True, width=width)


def _number(pv: str) -> Readback:
    return Readback(pv, width=90)


RUN: list[Row] = [
    row(
        "Reconstruction",
        Button("StartRecon", "Start", "1", "go", width=90, height=BUTTON_HEIGHT),
        Button("AbortRecon", "Abort", "1", "stop", "light text", width=90, height=BUTTON_HEIGHT),
        _state("StartRecon"),
        unit("Streaming", 72),
        _choice("Status", 100),
        unit("Server", 50),
        Led("ServerRunning", "bad"),
        _state("ServerRunning", 86),
    ),
    *sentence("ReconStatus", 740),
]


def _tweak(text: str, pv: str) -> Button:
    return Button(f"{pv}.PROC", text, width=26, height=BUTTON_HEIGHT)


AXIS: Panel = (
    "Rotation axis",
    [
        row(
            "Center",
            Entry("Center", width=92),
            unit("pixel", 36),
            _tweak("-", "CenterTweakDown"),
            Entry("CenterTweak", width=76),
            _tweak("+", "CenterTweakUp"),
        ),
        row(" ", Slider("Center", 0.5, PIXELS, width=302)),
        row(
            "Search",
            Button("FindCenter", "Find center", width=92, height=BUTTON_HEIGHT),
            _state("FindCenter", 68),
            unit("auto", 34),
            _choice("CenterAuto", 88),
        ),
        row(
            "Found",
            Readback("CenterFound", width=92),
            unit("pixel", 36),
            unit("trust", 36),
            Readback("CenterConfidence", width=40),
            Bar("CenterConfidence", (0.0, 1.0), width=72),
        ),
    ],
)


def _slice(label: str, pv: str) -> Row:
    return row(label, Entry(pv, width=70), Slider(pv, width=180), unit("pixel", 40))


SLICES: Panel = (
    "Slices",
    [
        _slice("x, y-z slice", "OrthoX"),
        _slice("y, x-z slice", "OrthoY"),
        _slice("z, x-y slice", "OrthoZ"),
        row(
            "Tilt x, y, z",
            *(Entry(f"Rot{axis}", width=70) for axis in "XYZ"),
            unit("deg", 40),
        ),
        row("Crosshair", _choice("Crosshair")),
        row("Lens change", _choice("LensChangeSync"), unit("follow it", 120)),
    ],
)

RECONSTRUCTION: Panel = (
    "Reconstruction",
    [
        row("Filter", _menu("FilterType")),
        row("Dezinger", _menu("Dezinger")),
        row("Ring removal", _menu("RingRemoval")),
        row("Binning", _choice("StreamBinning")),
    ],
)

PHASE: Panel = (
    "Phase retrieval: on when all four are above 0",
    [
        row("Energy", Entry("Energy", width=110), unit("keV")),
        row("Distance", Entry("Distance", width=110), unit("mm")),
        row("Alpha", Entry("Alpha", width=110)),
        row("Pixel size", Entry("PixelSize", width=110), unit("um, at the sample", 160)),
    ],
)

STREAM: Panel = (
    "Stream",
    [
        row("Frame rate", _number("FrameRate"), unit("Hz")),
        row("Slice rate", _number("ReconRate"), unit("Hz")),
        row("Latency", _number("Latency"), unit("s, from frame to slices", 190)),
        row("Recon time", _number("ReconTime"), unit("s")),
        row("Buffer", _number("BufferSize"), unit("newest batch / capacity", 190)),
        row(
            "Memory",
            _number("MemoryUsed"),
            unit("GiB", 30),
            Readback("MemoryPolicy", "left", width=168),
        ),
    ],
)

FRAMES: Panel = (
    "Frames",
    [
        row(label, _number(pv), unit(meaning, 190))
        for label, pv, meaning in (
            ("Received", "FramesReceived", "decoded"),
            ("Skipped", "FramesSkipped", "dark, flat, lens: no loss"),
            ("Missed", "FramesMissed", "never came"),
            ("Dropped", "FramesDropped", "came too fast"),
            ("Rejected", "FramesRejected", "not usable"),
            ("Duplicate", "FramesDuplicate", "came twice"),
            ("Disordered", "FramesDisordered", "came out of order"),
            ("Bad pixels", "BadPixels", "no usable dark and flat"),
        )
    ],
)

TRACKING: Panel = (
    "Peak tracking",
    [
        row(
            "Bragg peaks",
            Link(crystal.SCREEN.name, crystal.SCREEN.title, width=116, height=BUTTON_HEIGHT),
            _state("Crystal:Start", 66),
            Readback("Crystal:TracksTotal", width=52),
            unit("tracks", 48),
        )
    ],
)

PROCESS: Panel = (
    "IOC",
    [
        row(
            "Up",
            Readback("UPTIME", "left", width=136),
            unit("CPU", 32),
            Readback("IOC_CPU_LOAD", width=50),
            unit("%", 16),
        ),
        row(
            "Heartbeat",
            _number("HEARTBEAT"),
            unit("s", 16),
            unit("Version", 54),
            Readback("VERSION", "left", width=94),
        ),
        row(
            "Settings",
            _state("SR_rebootStatus", 84),
            unit("restored", 64),
            _state("SR_status", 84),
            unit("saved", 44),
        ),
        row(
            "More",
            *(
                Link(screen.name, screen.title, width=148, height=BUTTON_HEIGHT)
                for screen in (pv_names.SCREEN, ioc.SCREEN)
            ),
        ),
    ],
)


def _main() -> Screen:
    top = BANNER_HEIGHT + MARGIN
    run = panel("Run", MARGIN, top, WIDTH - 2 * MARGIN, LABEL, RUN)
    below = top + panel_height(RUN) + MARGIN
    columns = [[AXIS, SLICES, RECONSTRUCTION, PHASE], [STREAM, FRAMES, TRACKING, PROCESS]]
    end = below + max(stack_height(panels) for panels in columns)
    widgets = [*banner("tomoStream", WIDTH), *run]
    for number, panels in enumerate(columns):
        x = MARGIN + number * (COLUMN + MARGIN)
        widgets += stack(x, below, COLUMN, LABEL, panels, end)
    height = end + MARGIN
    images = _images(height)
    return Screen("tomoStream", "tomoStream", WIDTH, height, widgets, PHOEBUS_WIDTH, images)


def _images(height: int) -> list[Widget]:
    """The slices, two by two: a click in one moves the other two. The fourth has all three."""
    pitch = (height - MARGIN) // 2
    tall = pitch - TITLE - MARGIN
    return [
        *_image("z slice: a click sets x and y", 0, MARGIN, tall, Z),
        *_image("x slice: a click sets y and z", 1, MARGIN, tall, X),
        *_image("y slice: a click sets x and z", 0, MARGIN + pitch, tall, Y),
        *_image("all three, as other viewers get them", 1, MARGIN + pitch, tall // 2, ALL),
    ]


def _image(title: str, column: int, y: int, height: int, image: Image) -> list[Widget]:
    x = WIDTH + column * (IMAGE_WIDTH + MARGIN)
    return [
        Label(title, bold=True, x=x, y=y, width=IMAGE_WIDTH),
        replace(image, x=x, y=y + TITLE, width=IMAGE_WIDTH, height=height),
    ]


SCREEN = _main()
