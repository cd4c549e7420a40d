"""Writes slices as a picture (.png) or with all their values (.h5)."""

from __future__ import annotations

import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import h5py
import numpy as np

from tomostream_ioc import __version__
from tomostream_ioc.errors import ConfigError
from tomostream_ioc.offline.job import FileSlices
from tomostream_ioc.offline.plan import Wanted
from tomostream_ioc.picture import grey_limits

SUFFIXES = (".png", ".h5")
_MOST_PANELS = 36
_UNITS = "1/pixel"
_PROGRAM = "tomostream_ioc"


def check_output(path: Path, source: Path) -> None:
    """Before anything is computed.

    Raises ConfigError: another kind of file, no such folder, a folder that can't be written, or a
    file that must not be lost: the scan itself, or other HDF5 data.
    """
    folder = path.resolve().parent
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"--output {path}: give a name that ends in .png or .h5")
    if not folder.is_dir():
        raise ConfigError(f"--output {path}: there is no folder {folder}")
    if path.is_dir():
        raise ConfigError(f"--output {path}: this is a folder, give the name of a file")
    if not os.access(folder, os.W_OK):
        raise ConfigError(f"--output {path}: the folder {folder} can't be written")
    if path.exists() and source.exists() and path.samefile(source):
        raise ConfigError(f"--output {path}: this is the scan itself, give another name")
    if path.exists() and path.suffix.lower() == ".h5" and not _is_ours(path):
        raise ConfigError(
            f"--output {path}: this file was not written by {_PROGRAM}.recon, and is not written "
            "over: remove it, or give another name"
        )


def check_panels(path: Path, wanted: Wanted) -> None:
    """Raises ConfigError: too many slices for one picture."""
    if path.suffix.lower() == ".png" and len(wanted) > _MOST_PANELS:
        raise ConfigError(
            f"{len(wanted)} slices are too many for a picture, which takes {_MOST_PANELS}: write an"
            " .h5 file"
        )


def save(path: Path, slices: FileSlices, source: Path) -> None:
    """Write a .png or .h5; a file that was there stays until the new one is whole.

    Raises OSError.
    """
    write = _save_h5 if path.suffix.lower() == ".h5" else _save_png
    try:
        write_aside(path, lambda part: write(part, slices, source))
    except OSError as error:  # HDF5 adds addresses and offsets
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise OSError(f"--output {path} can't be written: {reason}") from error


def write_aside(path: Path, write: Callable[[Path], object]) -> None:
    """Have ``write`` make a file in a folder of its own, which takes the place of ``path`` then.

    Where that is a link, what it leads to is replaced; rights stay as they were.
    """
    path = path.resolve()
    with tempfile.TemporaryDirectory(prefix=".recon.", dir=path.parent) as folder:
        part = Path(folder) / path.name
        write(part)
        if path.exists():
            shutil.copymode(path, part)
        part.replace(path)


def _is_ours(path: Path) -> bool:
    try:
        with h5py.File(path, "r") as file:
            return str(file.attrs.get("program", "")).startswith(f"{_PROGRAM} ")
    except OSError:
        return False


def _save_h5(path: Path, slices: FileSlices, source: Path) -> None:
    """slices/z, y, x: (k, rows, columns) float32, each with the indices of its slices."""
    with h5py.File(path, "w") as file:
        file.attrs["program"] = f"{_PROGRAM} {__version__}"
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
