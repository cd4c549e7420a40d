"""Widget types and properties of Phoebus' display format, as far as the screens use them.

There is no schema of .bob files. This table is from Phoebus' documentation and its widget model
(app/display/model, class <Type>Widget, method defineProperties): names as in XML, and the kind of
value. Phoebus silently ignores a property that it does not know: a slip is only found here.
"""

from __future__ import annotations

from collections.abc import Callable
from xml.etree.ElementTree import Element

Check = Callable[[Element], bool]


def text(element: Element) -> bool:
    return len(element) == 0


def boolean(element: Element) -> bool:
    return element.text in ("true", "false") and len(element) == 0


def integer(element: Element) -> bool:
    return len(element) == 0 and (element.text or "").lstrip("-").isdigit()


def number(element: Element) -> bool:
    try:
        float(element.text or "")
    except ValueError:
        return False
    return len(element) == 0


def choice(count: int) -> Check:
    """The place of one of ``count`` choices."""
    return lambda element: integer(element) and 0 <= int(element.text or "") < count


def colour(element: Element) -> bool:
    (entry,) = element
    return entry.tag == "color" and all(
        0 <= int(entry.get(part, "-1")) <= 255 for part in ("red", "green", "blue")
    )


def font(element: Element) -> bool:
    (entry,) = element
    styles = ("REGULAR", "BOLD", "ITALIC", "BOLD_ITALIC")
    return (
        entry.tag == "font"
        and bool(entry.get("family"))
        and entry.get("style") in styles
        and float(entry.get("size", "0")) > 0
    )


def structure(**parts: Check) -> Check:
    """Elements of a property; each may be left out."""
    return lambda element: all(part.tag in parts and parts[part.tag](part) for part in element)


#: parts of each action
ACTIONS: dict[str, set[str]] = {
    "write_pv": {"pv_name", "value", "description"},
    "open_display": {"file", "macros", "target", "name", "description"},
}
TARGETS = ("replace", "tab", "window", "standalone")


def actions(element: Element) -> bool:
    return all(
        action.tag == "action"
        and {part.tag for part in action} <= ACTIONS[action.get("type", "")]
        and action.findtext("target", "tab") in TARGETS
        for action in element
    )


def columns(element: Element) -> bool:
    """Columns of a table."""
    column = structure(name=text, width=integer, editable=boolean, options=structure(option=text))
    return all(entry.tag == "column" and column(entry) for entry in element)


BASE: dict[str, Check] = {
    "name": text,
    "x": integer,
    "y": integer,
    "width": integer,
    "height": integer,
    "actions": actions,
    "visible": boolean,
    "tooltip": text,
}
PV: dict[str, Check] = {**BASE, "pv_name": text, "border_alarm_sensitive": boolean}
TEXT_COLOURS: dict[str, Check] = {
    "font": font,
    "foreground_color": colour,
    "background_color": colour,
}
ALIGNED: dict[str, Check] = {"horizontal_alignment": choice(3), "vertical_alignment": choice(3)}
RANGE: dict[str, Check] = {"minimum": number, "maximum": number, "limits_from_pv": boolean}
SHOWN: dict[str, Check] = {"format": choice(12), "precision": integer, "show_units": boolean}
AXIS = structure(
    visible=boolean,
    title=text,
    minimum=number,
    maximum=number,
    title_font=font,
    scale_font=font,
)
COLOUR_MAPS = ("VIRIDIS", "MAGMA", "GRAY", "JET", "SPECTRUM", "HOT", "COOL", "SHADED")

#: type: (version, properties)
WIDGETS: dict[str, tuple[str, dict[str, Check]]] = {
    "rectangle": (
        "2.0.0",
        {
            **BASE,
            "line_width": integer,
            "line_color": colour,
            "background_color": colour,
            "transparent": boolean,
        },
    ),
    "label": (
        "2.0.0",
        {
            **BASE,
            **TEXT_COLOURS,
            **ALIGNED,
            "text": text,
            "transparent": boolean,
            "auto_size": boolean,
            "wrap_words": boolean,
        },
    ),
    "textupdate": (
        "2.0.0",
        {**PV, **TEXT_COLOURS, **ALIGNED, **SHOWN, "transparent": boolean, "wrap_words": boolean},
    ),
    "textentry": (
        "3.0.0",
        {**PV, **TEXT_COLOURS, **ALIGNED, **SHOWN, "enabled": boolean, "multi_line": boolean},
    ),
    "combo": ("2.0.0", {**PV, **TEXT_COLOURS, "items_from_pv": boolean, "editable": boolean}),
    "choice": (
        "2.0.0",
        {
            **PV,
            **TEXT_COLOURS,
            "selected_color": colour,
            "items_from_pv": boolean,
            "horizontal": boolean,
        },
    ),
    "scaledslider": (
        "2.0.0",
        {
            **PV,
            **TEXT_COLOURS,
            **RANGE,
            "increment": number,
            "show_scale": boolean,
            "horizontal": boolean,
        },
    ),
    "progressbar": (
        "2.0.0",
        {**PV, **RANGE, "fill_color": colour, "background_color": colour, "horizontal": boolean},
    ),
    "led": (
        "2.0.0",
        {**PV, "bit": integer, "off_color": colour, "on_color": colour, "square": boolean},
    ),
    "action_button": ("3.0.0", {**PV, **TEXT_COLOURS, **ALIGNED, "text": text, "enabled": boolean}),
    "table": (
        "2.0.0",
        {
            **PV,
            **TEXT_COLOURS,
            "show_toolbar": boolean,
            "columns": columns,
            "editable": boolean,
            "row_selection_mode": boolean,
            "selection_pv": text,
        },
    ),
    "image": (
        "2.0.0",
        {
            **PV,
            **RANGE,
            "background_color": colour,
            "foreground_color": colour,
            "show_toolbar": boolean,
            "color_map": lambda element: element.findtext("name") in COLOUR_MAPS,
            "color_bar": structure(visible=boolean, bar_size=integer, scale_font=font),
            "x_axis": AXIS,
            "y_axis": AXIS,
            "autoscale": boolean,
            "cursor_info_pv": text,
            "x_pv": text,
            "y_pv": text,
            "cursor_crosshair": boolean,
        },
    ),
}
#: properties of the window
DISPLAY: dict[str, Check] = {
    "name": text,
    "width": integer,
    "height": integer,
    "background_color": colour,
    "macros": structure(),
}
