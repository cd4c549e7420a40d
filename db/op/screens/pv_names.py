"""The screen of names: which records, channels and motors the IOC works with."""

from __future__ import annotations

from screens.layout import BANNER_HEIGHT, MARGIN, Row, banner, row, stack, stack_height, unit
from screens.widgets import TEXT_HEIGHT, Entry, Label, Screen

COLUMN = 830
LABEL = 140


def _name(label: str, pv: str, meaning: str) -> Row:
    return row(label, Entry(pv, string=True, width=320), unit(meaning, 346))


PANELS: list[tuple[str, list[Row]]] = [
    (
        "Read by this IOC",
        [
            _name("tomoScan", "TomoScanPVPrefix", "CA prefix of the tomoScan IOC"),
            _name("Images", "ImagePVAPName", "record with the plugin's prefix, or a channel"),
            _name("Dark field", "DarkPVAName", "PVA channel"),
            _name("Flat field", "FlatPVAName", "PVA channel"),
            _name("Angles", "ThetaPVAName", "PVA channel"),
            _name("Camera", "CameraPVPrefix", "CA prefix of the camera"),
        ],
    ),
    (
        "Served by this IOC",
        [
            _name("Slices", "ReconPVAName", "PVA channel; name + Z, Y or X: one slice"),
        ],
    ),
    (
        "Change of lens",
        [
            _name("MCTOptics", "MctOpticsPVPrefix", "CA prefix"),
            _name("Sample x at 0 deg", "SampleTomo0degPVName", "motor"),
            _name("Sample x at 90 deg", "SampleTomo90degPVName", "motor"),
            _name("Sample y", "SampleYPVName", "motor, vertical"),
            _name("ROI plugin", "RoiPluginPVPrefix", "CA prefix"),
        ],
    ),
]


def _names() -> Screen:
    width = COLUMN + 2 * MARGIN
    top = BANNER_HEIGHT + MARGIN
    widgets = [
        *banner("EPICS PV names", width),
        *stack(MARGIN, top, COLUMN, LABEL, PANELS),
        Label(
            "At most 39 characters. What is read counts from the next run on. "
            "Autosave keeps all of them.",
            "faint text",
            x=MARGIN,
            y=(end := top + stack_height(PANELS) + MARGIN),
            width=COLUMN,
        ),
    ]
    height = end + TEXT_HEIGHT + MARGIN
    return Screen("tomoStreamEPICS_PVs", "EPICS PV names", width, height, widgets)


SCREEN = _names()
