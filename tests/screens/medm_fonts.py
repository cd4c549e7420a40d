"""How wide MEDM draws a text, without MEDM: as seen in MEDM 3.1.22 with the fonts that it names.

MEDM has no font in a screen's file: it takes one of 16 by the height of the widget. Its
README.FONTS names fixed ones for them, which are wider than the Helvetica of other sites, and
than what it takes where no fonts are installed for it (6 pixels a character).
"""

from __future__ import annotations

#: height and width of a character, pixels
FIXED = (
    (8, 5),
    (9, 6),
    (10, 6),
    (13, 7),
    (14, 7),
    (15, 9),
    (16, 8),
    (20, 10),
    (24, 12),
)
SHADOW = 2  # around what can be pressed


def text_width(text: str, height: int) -> int:
    """Of a label, or of a value that is read: the font is as high as the widget."""
    return len(text) * _character(height)


def button_width(text: str, height: int) -> int:
    """Of a button that writes, or opens a screen."""
    return len(text) * _character(int(0.9 * height) - 2 * SHADOW) + 2 * SHADOW


def choice_width(text: str, height: int) -> int:
    """Of one of the buttons side by side."""
    return len(text) * _character(height - 2 * SHADOW) + 2 * SHADOW


def menu_width(text: str, height: int) -> int:
    """Of a choice in a menu, with the mark at its right."""
    mark = 24
    return len(text) * _character(height - 4 * SHADOW) + 2 * SHADOW + mark


def _character(height: int) -> int:
    """Width in the highest font that is not higher."""
    return max(font for font in FIXED if font[0] <= max(height, FIXED[0][0]))[1]
