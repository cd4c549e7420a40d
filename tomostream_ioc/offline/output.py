"""Writes slices as a picture (.png) or with all their values (.h5)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import h5py
import numpy as np

from tomostream_ioc import __version__
from tomostream_ioc.errors import ConfigError
from tomostream_ioc.offline.job import FileSlices
from tomostream_ioc.picture import grey_limits

SUFFIXES = (".png", ".h5")
_MOST_PANELS = 36
_UNITS = "1/pixel"


def check_output(path: Path) -> None:
    """Raises ConfigError: another kind of file, or no such folder."""
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"--output {path}: give a name that ends in .png or .h5")
    if not path.absolute().parent.is_dir():
        raise ConfigError(f"--output {path}: there is no folder {path.absolute().parent}")


def save(path: Path, slices: FileSlices, source: Path) -> None:
    """Write a .png or .h5. Raises OSError; ConfigError: too many slices for one picture."""
    if path.suffix.lower() == ".h5":
        _save_h5(path, slices, source)
    else:
        _save_png(path, slices, source)


def _save_h5(path: Path, slices: FileSlices, source: Path) -> None:
    """slices/z, y, x: (k, rows, columns) float32, each with the indices of its slices."""
    with h5py.File(path, "w") as file:
        file.attrs["program"] = f"tomostream_ioc {__version__}"
        file.attrs["source"] = str(source)
        for name, value in asdict(slices.params).items():
            if not name.startswith("ortho_"):
                file.attrs[name] = value
        group = file.create_group("slices")
        for axis in "zyx":
            places, images = getattr(slices.wanted, axis), getattr(slices, axis)
            if places:
                dataset = group.create_dataset(axis, data=images)
                dataset.attrs["index"] = np.array(places)
                dataset.attrs["units"] = _UNITS


def _save_png(path: Path, slices: FileSlices, source: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = list(_panels(slices))
    if len(panels) > _MOST_PANELS:
        raise ConfigError(f"{len(panels)} slices are too many for a picture: write an .h5 file")
    across = math.ceil(math.sqrt(len(panels))) if len(panels) > 3 else len(panels)
    down = math.ceil(len(panels) / across)
    low, high = grey_limits([image for image, *_ in panels])
    figure = Figure(figsize=(5 * across + 1.2, 5.2 * down), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(down, across, squeeze=False).ravel()
    shown = None
    for axis, (image, title, x_label, y_label) in zip(axes, panels, strict=False):
        shown = axis.imshow(image, cmap="gray", vmin=low, vmax=high)
        axis.set(title=title, xlabel=x_label, ylabel=y_label)
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    if shown is not None:
        figure.colorbar(shown, ax=list(axes), label="linear attenuation per pixel", shrink=0.85)
    params = slices.params
    figure.suptitle(f"{source.name}: centre {params.center:g}, {params.filter_type} filter")
    figure.savefig(path, dpi=100)


def _panels(slices: FileSlices) -> Iterator[tuple[np.ndarray, str, str, str]]:
    for axis, x_label, y_label in (("z", "x", "y"), ("y", "x", "z"), ("x", "y", "z")):
        images = getattr(slices, axis)
        for place, image in zip(getattr(slices.wanted, axis), images, strict=True):
            yield image, f"{axis} = {place}", f"{x_label} (pixel)", f"{y_label} (pixel)"
