"""Screens as MEDM files (.adl), as MEDM 3.1 writes them."""

from __future__ import annotations

from collections.abc import Sequence

from screens.widgets import (
    COLOURS,
    PALETTE,
    TEXT_HEIGHT,
    Bar,
    Box,
    Button,
    Choice,
    Entry,
    Label,
    Led,
    Link,
    Menu,
    Readback,
    Screen,
    Slider,
    Widget,
)

VERSION = "030122"
SUFFIX = ".adl"
#: MEDM takes the font from the height: at this one, all that is read is as large as what is typed
FONT_HEIGHT = 14
#: width of a character of that font, where MEDM's own aliases of fixed fonts are installed
CHARACTER = 7
INDENT = 2  # of a text on its ground


def text_of(screen: Screen) -> str:
    """The file's content."""
    lines = [
        "",
        *_block("file", f'name="{screen.name}.adl"', f"version={VERSION}"),
        *_block(
            "display",
            *_block("object", *_place(0, 0, screen.width, screen.height)),
            f"clr={COLOURS['text']}",
            f"bclr={COLOURS['screen']}",
            'cmap=""',
            "gridSpacing=5",
            "gridOn=0",
            "snapToGrid=0",
        ),
        *_block(
            '"color map"',
            f"ncolors={len(PALETTE)}",
            *_block("colors", *(f"{colour}," for colour in PALETTE)),
        ),
    ]
    for widget in screen.widgets:
        lines += _widget(widget)
    return "\n".join(lines) + "\n"


def _block(name: str, *lines: str) -> list[str]:
    return [f"{name} {{", *(f"\t{line}" for line in lines), "}"]


def _place(x: int, y: int, width: int, height: int) -> list[str]:
    return [f"x={x}", f"y={y}", f"width={width}", f"height={height}"]


def _line(widget: Widget, height: int, number: int = 0, indent: int = 0) -> list[str]:
    """The place of a line of text in the middle of the widget's line of that height."""
    y = widget.y + number * height + (height - FONT_HEIGHT) // 2
    x, width = widget.x + indent, widget.width - 2 * indent
    return _block("object", *_place(x, y, width, FONT_HEIGHT))


def _channel(pv: str) -> str:
    return f'chan="$(P)$(R){pv}"'


def _ends(kind: str, pv: str, text: str, ground: str) -> list[str]:
    """The block of a control or a monitor: channel and colours."""
    return _block(kind, _channel(pv), f"clr={COLOURS[text]}", f"bclr={COLOURS[ground]}")


def _align(align: str) -> list[str]:
    word = {"left": "left", "center": "centered", "right": "right"}[align]
    return [] if align == "left" else [f'align="horiz. {word}"']


def _widget(widget: Widget) -> list[str]:
    place = _block("object", *_place(widget.x, widget.y, widget.width, widget.height))

    def block(name: str, *lines: str) -> list[str]:
        return _block(name, *place, *lines)

    match widget:
        case Box():
            return block("rectangle", *_block('"basic attribute"', f"clr={COLOURS[widget.colour]}"))
        case Label():
            small = widget.height == TEXT_HEIGHT
            return _block(
                "text",
                *(_line(widget, TEXT_HEIGHT) if small else place),
                *_block('"basic attribute"', f"clr={COLOURS[widget.colour]}"),
                f'textix="{widget.text}"',
                *_align(widget.align),
            )
        case Readback():
            return _readback(widget)
        case Entry():
            return block(
                '"text entry"',
                *_ends("control", widget.pv, "text", "write"),
                *(['format="string"'] if widget.string else []),
                *_block("limits"),
            )
        case Menu():
            return block("menu", *_ends("control", widget.pv, "text", "write"))
        case Choice():
            ends = _ends("control", widget.pv, "text", "write")
            return block('"choice button"', *ends, 'stacking="column"')
        case Slider():
            return block(
                "valuator",
                *_ends("control", widget.pv, "text", "button"),
                f"dPrecision={widget.step:f}",
                *_block("limits", *_limits(widget.limits)),
            )
        case Bar():
            ends = _ends("monitor", widget.pv, "bar", "read")
            limits = _block("limits", *_limits(widget.limits))
            return block("bar", *ends, 'label="no decorations"', *limits)
        case Led():
            return block("byte", *_ends("monitor", widget.pv, "on", widget.off), "sbit=0", "ebit=0")
        case Button():
            return block(
                '"message button"',
                *_ends("control", widget.pv, widget.text_colour, widget.colour),
                f'label="{widget.text}"',
                f'press_msg="{widget.value}"',
            )
        case Link():
            return block(
                '"related display"',
                *_block(
                    "display[0]",
                    f'label="{widget.text}"',
                    f'name="{widget.screen}{SUFFIX}"',
                    'args="P=$(P),R=$(R)"',
                ),
                f"clr={COLOURS['text']}",
                f"bclr={COLOURS['button']}",
                f'label="-{widget.text}"',
            )
    raise TypeError(f"MEDM has no {type(widget).__name__}")


def _readback(widget: Readback) -> list[str]:
    """The ground, and lines of a lower font on it: MEDM has no other way to set a font's size.

    MEDM does not wrap. A text of several lines is shown in parts of so many characters as fit, by
    the array filter of Channel Access.
    """
    text, ground = ("dark text", "dark") if widget.alarm else ("read text", "read")
    box = _block("object", *_place(widget.x, widget.y, widget.width, widget.height))
    lines = _block("rectangle", *box, *_block('"basic attribute"', f"clr={COLOURS[ground]}"))
    fit = (widget.width - 2 * INDENT) // CHARACTER
    for number in range(widget.lines):
        part = f".VAL[{number * fit}:{(number + 1) * fit - 1}]" if widget.lines > 1 else ""
        lines += _block(
            '"text update"',
            *_line(widget, widget.height // widget.lines, number, INDENT),
            *_ends("monitor", widget.pv + part, text, ground),
            *(['clrmod="alarm"'] if widget.alarm else []),
            *_align(widget.align),
            *(['format="string"'] if widget.string else []),
            *_block("limits"),
        )
    return lines


def _limits(limits: tuple[float, float] | None) -> Sequence[str]:
    """Limits of the screen; none are those of the record."""
    if limits is None:
        return []
    return [
        'loprSrc="default"',
        f"loprDefault={limits[0]:g}",
        'hoprSrc="default"',
        f"hoprDefault={limits[1]:g}",
    ]
