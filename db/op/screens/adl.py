"""Screens as MEDM files (.adl), as MEDM 3.1 writes them."""

from __future__ import annotations

from collections.abc import Sequence

from screens.widgets import (
    COLOURS,
    PALETTE,
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
            colour = _block('"basic attribute"', f"clr={COLOURS[widget.colour]}")
            return block("text", *colour, f'textix="{widget.text}"', *_align(widget.align))
        case Readback():
            text, ground = ("dark text", "dark") if widget.alarm else ("read text", "read")
            return block(
                '"text update"',
                *_ends("monitor", widget.pv, text, ground),
                *(['clrmod="alarm"'] if widget.alarm else []),
                *_align(widget.align),
                *(['format="string"'] if widget.string else []),
                *_block("limits"),
            )
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
