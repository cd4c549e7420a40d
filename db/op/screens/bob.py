"""Screens as Phoebus display files (.bob), format version 2."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

from screens.widgets import (
    Bar,
    Box,
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
    Table,
    Widget,
    rgb,
)

SUFFIX = ".bob"
FONT_SIZE = "12.0"
FORMAT_STRING = 6  # characters of an array as text
ALIGN = {"left": 0, "center": 1, "right": 2}
MIDDLE = 1
#: newer versions of a widget than the usual one
VERSIONS = {"textentry": "3.0.0", "action_button": "3.0.0"}


def text_of(screen: Screen) -> str:
    """The file's content."""
    display = ElementTree.Element("display", version="2.0.0")
    _set(display, "name", f"{screen.title} $(P)$(R)")
    _set(display, "width", max(screen.width, screen.phoebus_width))
    _set(display, "height", screen.height)
    _colour(display, "background_color", "screen")
    for widget in [*screen.widgets, *screen.phoebus_widgets]:
        _widget(display, widget)
    ElementTree.indent(display)
    text = ElementTree.tostring(display, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{text}\n'


def _set(parent: ElementTree.Element, name: str, value: Any) -> ElementTree.Element:
    element = ElementTree.SubElement(parent, name)
    if value is not None:
        element.text = str(value).lower() if isinstance(value, bool) else str(value)
    return element


def _colour(parent: ElementTree.Element, name: str, colour: str) -> None:
    red, green, blue = (str(part) for part in rgb(colour))
    element = ElementTree.SubElement(parent, name)
    ElementTree.SubElement(element, "color", red=red, green=green, blue=blue)


def _font(parent: ElementTree.Element, bold: bool = False, size: str = FONT_SIZE) -> None:
    style = "BOLD" if bold else "REGULAR"
    element = ElementTree.SubElement(parent, "font")
    ElementTree.SubElement(element, "font", family="Liberation Sans", style=style, size=size)


def _action(parent: ElementTree.Element, kind: str, **parts: Any) -> None:
    actions = ElementTree.SubElement(parent, "actions")
    action = ElementTree.SubElement(actions, "action", type=kind)
    for name, value in parts.items():
        _set(action, name, value)


def _pv(name: str) -> str:
    return f"$(P)$(R){name}"


def _widget(display: ElementTree.Element, widget: Widget) -> None:
    def begin(kind: str, name: str, pv: str = "") -> ElementTree.Element:
        version = VERSIONS.get(kind, "2.0.0")
        element = ElementTree.SubElement(display, "widget", type=kind, version=version)
        _set(element, "name", name)
        if pv:
            _set(element, "pv_name", _pv(pv))
        for part in ("x", "y", "width", "height"):
            _set(element, part, getattr(widget, part))
        return element

    match widget:
        case Box():
            element = begin("rectangle", widget.colour)
            _set(element, "line_width", 0)
            _colour(element, "background_color", widget.colour)
        case Label():
            element = begin("label", widget.text)
            _set(element, "text", widget.text)
            _font(element, widget.bold, "16.0" if widget.height > 16 else FONT_SIZE)
            _colour(element, "foreground_color", widget.colour)
            _set(element, "horizontal_alignment", ALIGN[widget.align])
            _set(element, "vertical_alignment", MIDDLE)
            _set(element, "wrap_words", False)
        case Readback():
            text, ground = ("dark text", "dark") if widget.alarm else ("read text", "read")
            element = begin("textupdate", widget.pv, widget.pv)
            _font(element)
            _colour(element, "foreground_color", text)
            _colour(element, "background_color", ground)
            if widget.string:
                _set(element, "format", FORMAT_STRING)
            _set(element, "show_units", False)
            _set(element, "horizontal_alignment", ALIGN[widget.align])
            _set(element, "vertical_alignment", MIDDLE)
        case Entry():
            element = begin("textentry", widget.pv, widget.pv)
            _font(element)
            _colour(element, "background_color", "write")
            if widget.string:
                _set(element, "format", FORMAT_STRING)
            _set(element, "show_units", False)
        case Menu():
            element = begin("combo", widget.pv, widget.pv)
            _font(element)
            _colour(element, "background_color", "write")
        case Choice():
            element = begin("choice", widget.pv, widget.pv)
            _font(element)
            _colour(element, "background_color", "button")
            _colour(element, "selected_color", "write")
        case Slider():
            element = begin("scaledslider", widget.pv, widget.pv)
            _set(element, "increment", widget.step)
            if widget.limits is not None:
                _set(element, "minimum", widget.limits[0])
                _set(element, "maximum", widget.limits[1])
            _set(element, "limits_from_pv", widget.limits is None)
            _set(element, "show_scale", False)
        case Bar():
            element = begin("progressbar", widget.pv, widget.pv)
            _colour(element, "fill_color", "bar")
            _set(element, "limits_from_pv", False)
            _set(element, "minimum", widget.limits[0])
            _set(element, "maximum", widget.limits[1])
        case Led():
            element = begin("led", widget.pv, widget.pv)
            _colour(element, "off_color", widget.off)
            _colour(element, "on_color", "on")
            _set(element, "square", True)
        case Button():
            element = begin("action_button", widget.text, widget.pv)
            _action(element, "write_pv", pv_name="$(pv_name)", value=widget.value, description="")
            _set(element, "text", widget.text)
            _font(element, bold=widget.colour != "button")
            _colour(element, "foreground_color", widget.text_colour)
            _colour(element, "background_color", widget.colour)
            _set(element, "tooltip", "$(pv_name)")
        case Link():
            element = begin("action_button", widget.text)
            file = f"{widget.screen}{SUFFIX}"
            _action(element, "open_display", file=file, target="window", description=widget.text)
            _set(element, "text", widget.text)
            _font(element)
            _colour(element, "background_color", "button")
        case Image():
            _image(begin("image", widget.source + widget.channel), widget)
        case Table():
            _table(begin("table", widget.source), widget)
        case _:
            raise TypeError(f"Phoebus has no {type(widget).__name__}")


def _image(element: ElementTree.Element, widget: Image) -> None:
    _set(element, "pv_name", widget.source + widget.channel)
    _set(_set(element, "color_map", None), "name", widget.colour_map)
    bar = _set(element, "color_bar", None)
    _set(bar, "visible", True)
    _set(bar, "bar_size", 20)
    for axis, title in (("x_axis", widget.x_title), ("y_axis", widget.y_title)):
        properties = _set(element, axis, None)
        _set(properties, "visible", True)
        _set(properties, "title", title)
    _set(element, "limits_from_pv", True)
    if widget.x_pv:
        # the crosshair follows these records, and a click writes to them
        _set(element, "x_pv", _pv(widget.x_pv))
        _set(element, "y_pv", _pv(widget.y_pv))
        _set(element, "cursor_crosshair", True)


def _table(element: ElementTree.Element, widget: Table) -> None:
    _font(element)
    columns = _set(element, "columns", None)
    for name, width in widget.columns:
        # Phoebus takes names from the table itself, and these widths in its order
        column = _set(columns, "column", None)
        _set(column, "name", name)
        _set(column, "width", width)
        _set(column, "editable", False)
    _set(element, "pv_name", widget.source)
    _set(element, "editable", False)
