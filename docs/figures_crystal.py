"""Draws the figures of docs/crystal.md by running its code: python docs/figures_crystal.py"""

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import to_rgb
from PIL import Image

from tomostream_ioc.documents.crystal_figures import SQUARE_COLOUR

TUTORIAL = Path(__file__).resolve().parent / "crystal.md"
IMAGES = Path(__file__).resolve().parent / "images"


def code_blocks(text: str) -> Iterator[tuple[int, str]]:
    """Line number, from 1, and code of each ```python block."""
    for match in re.finditer(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        yield text.count("\n", 0, match.start(1)) + 1, match.group(1)


def run_tutorial(folder: Path) -> dict[str, Any]:
    """Run the tutorial's code in ``folder``, where it writes; returns the names it made.

    Raises what the code raises, with the line of the tutorial in the traceback.
    """
    names: dict[str, Any] = {"__name__": "tutorial"}
    with chdir(folder):
        for line, code in code_blocks(TUTORIAL.read_text(encoding="utf-8")):
            # empty lines in front: tracebacks then say the line of the page
            exec(compile("\n" * (line - 1) + code, str(TUTORIAL), "exec"), names)
    return names


def palette() -> Image.Image:
    """The colours that the figures have: a picture of one byte a pixel is a third of the size."""
    maps = [colormaps[name](np.linspace(0, 1, 108))[:, :3] for name in ("viridis", "magma")]
    greys = np.repeat(np.linspace(0, 1, 32)[:, np.newaxis], 3, axis=1)
    square = np.array([to_rgb(SQUARE_COLOUR)]) * np.linspace(0.3, 1, 8)[:, np.newaxis]
    colours = np.rint(255 * np.concatenate([*maps, greys, square])).astype(int)
    image = Image.new("P", (1, 1))
    image.putpalette(colours.flatten().tolist())
    return image


def main() -> None:
    colours, no_dither = palette(), Image.Dither.NONE
    with tempfile.TemporaryDirectory() as folder:
        run_tutorial(Path(folder))
        for drawn in sorted(Path(folder).glob("crystal_*.png")):
            path = IMAGES / drawn.name
            image = Image.open(drawn).convert("RGB").quantize(palette=colours, dither=no_dither)
            image.save(path, optimize=True)
            print(path, f"{os.path.getsize(path) / 1000:.0f} kB")


if __name__ == "__main__":
    main()
