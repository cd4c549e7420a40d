"""Rows of widgets in panels, so that no screen has to count pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from screens.widgets import ROW_HEIGHT, Box, Label, Readback, Widget

GAP = 6  # between widgets of a row
MARGIN = 8  # around panels
ROW_PITCH = 25
TITLE_HEIGHT = 22
BANNER_HEIGHT = 36


@dataclass(frozen=True)
class Row:
    """A label in the panel's label column, and widgets from left to right behind it."""

    label: str
    widgets: Sequence[Widget] = field(default_factory=tuple)


def row(label: str, *widgets: Widget) -> Row:
    return Row(label, widgets)


def unit(text: str, width: int = 50) -> Label:
    """The unit behind a number, or another word in a row."""
    return Label(text, "faint text", width=width)


def sentence(pv: str, width: int) -> list[Row]:
    """Rows of a text that is too long for one: of a record of 256 characters."""
    text = Readback(
        pv, "left", string=True, alarm=True, width=width, height=2 * ROW_HEIGHT, lines=2
    )
    return [row("Status", text), row("")]


def panel_height(rows: Sequence[Row]) -> int:
    return TITLE_HEIGHT + GAP + ROW_PITCH * len(rows)


def panel(
    title: str,
    x: int,
    y: int,
    width: int,
    label_width: int,
    rows: Sequence[Row],
    end: int = 0,
) -> list[Widget]:
    """Widgets of a titled panel with one row below another; it reaches down to ``end`` at least."""
    height = max(panel_height(rows), end - y)
    widgets: list[Widget] = [
        Box("panel", x=x, y=y, width=width, height=height),
        Box("header", x=x, y=y, width=width, height=TITLE_HEIGHT),
        Label(title, "light text", bold=True, x=x + GAP, y=y + 3, width=width - 2 * GAP),
    ]
    for number, line in enumerate(rows):
        top = y + TITLE_HEIGHT + GAP + number * ROW_PITCH
        left = x + GAP
        if line.label:
            label = Label(line.label, width=label_width)
            widgets.append(_placed(label, left, top))
            left += label_width + GAP
        for widget in line.widgets:
            widgets.append(_placed(widget, left, top))
            left += widget.width + GAP
    return widgets


def stack_height(panels: Sequence[tuple[str, Sequence[Row]]]) -> int:
    return sum(panel_height(rows) + MARGIN for _, rows in panels) - MARGIN


def stack(
    x: int,
    y: int,
    width: int,
    label_width: int,
    panels: Sequence[tuple[str, Sequence[Row]]],
    end: int = 0,
) -> list[Widget]:
    """Panels one below another; the last one reaches down to ``end`` at least."""
    widgets: list[Widget] = []
    for number, (title, rows) in enumerate(panels):
        last = number == len(panels) - 1
        widgets += panel(title, x, y, width, label_width, rows, end if last else 0)
        y += panel_height(rows) + MARGIN
    return widgets


def banner(title: str, width: int) -> list[Widget]:
    """The line at the top of a screen: what it is, and whose."""
    return [
        Box("header", x=0, y=0, width=width, height=BANNER_HEIGHT),
        Label(title, "light text", bold=True, x=MARGIN, y=8, width=width // 2, height=20),
        Label(
            "$(P)$(R)",
            "light text",
            align="right",
            x=width // 2 + 2 * MARGIN,
            y=10,
            width=width // 2 - 3 * MARGIN,
        ),
    ]


def _placed(widget: Widget, x: int, y: int) -> Widget:
    """The widget at x, in the middle of a row that begins at y; a higher one begins there too."""
    middle = (ROW_HEIGHT - widget.height) // 2 if widget.height < ROW_PITCH else 0
    return replace(widget, x=x, y=y + middle)
