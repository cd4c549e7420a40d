"""python -m tomostream_ioc.documents plot: a recorded scan's maps as a picture."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from tomostream_ioc.documents.crystal_figures import CrystalScan, draw
from tomostream_ioc.documents.database import Database, open_database
from tomostream_ioc.documents.image_processor import FRAME, ImageProcessor
from tomostream_ioc.documents.peak_tracker import PeakTracker
from tomostream_ioc.documents.plot_choices import N_MAPS
from tomostream_ioc.documents.read_back import find_run, read_tracks
from tomostream_ioc.documents.run_names import resolve_uid
from tomostream_ioc.documents.track_linker import TrackLinker
from tomostream_ioc.errors import TrackingError
from tomostream_ioc.tracking import CrystalMaps, ExtremeImages, ScanGrid
from tomostream_ioc.tracking.windows import HALF_WIDTH_PX

#: of images that are read at a time
_READ_BYTES = 64 * 1024 * 1024
_SHORT_UID = 8


def run(arguments: argparse.Namespace) -> int:
    """Draw the picture. Exit code: 0, 1 where it can't be drawn, 2 for an option out of range."""
    problem = _wrong_option(arguments)
    if problem:
        print(problem, file=sys.stderr)
        return 2
    try:
        with _existing_database(arguments.db) as db:
            scan, notes = read_scan(db, arguments.uid, arguments.maps, arguments.half_width)
        figure = draw(scan, arguments.figure, arguments.origin)
        figure.savefig(arguments.output, dpi=arguments.dpi)
    except (TrackingError, OSError) as error:
        print(f"No picture: {error}", file=sys.stderr)
        return 1
    print(f"{arguments.output}: {scan.title}")
    for note in (f"total intensity: {scan.total_of}", f"light image: {scan.light_of}", *notes):
        print(f"  {note}")
    return 0


def read_scan(
    db: Database, uid: str, n_maps: int = N_MAPS, half_width_px: float | None = None
) -> tuple[CrystalScan, list[str]]:
    """What is drawn of a run, and notes on what is not.

    uid : as `resolve_uid` takes it: of the scan itself or of any run derived from it. Of several
        runs of tracks, it is the one that ``uid`` was derived from, or else the newest.
    half_width_px : of the squares; None for the diameter that peaks were found with

    Total intensity and light image are those of the processed images where they are recorded, else
    those of the peaks.

    Raises TrackingError: no such run, no tracks, or a run that has no grid.
    """
    uid = resolve_uid(db, uid)
    linked = _ancestor(db, uid, TrackLinker.stage_name) or find_run(db, uid, TrackLinker.stage_name)
    start = db[linked].start
    try:
        grid = ScanGrid.from_start(start)
    except TrackingError as error:
        raise TrackingError(f"Run {linked} can't be drawn as maps: {error}") from error
    tracks = read_tracks(db, linked)
    maps = CrystalMaps(grid)
    maps.add(tracks)
    if not len(maps):
        raise TrackingError(
            f"Run {linked} has no tracks{_why(db, linked)}: are minmass and percentile too high?"
        )
    peaks = _ancestor(db, linked, PeakTracker.stage_name)
    diameter = _diameter(db, peaks)
    half_width = diameter if half_width_px is None else half_width_px
    images = _ancestor(db, linked, ImageProcessor.stage_name)
    raw = start.get("root_run_uid", linked)
    seen = None if images is None else _from_images(db, images, grid)
    if seen is None:
        spots = _spots(tracks, diameter, _image_shape(db, raw, peaks))
        seen = maps.total(), "mass of all peaks", spots, "drawn from the peaks; no images recorded"
    total, total_of, light, light_of = seen
    stack = maps.maps(n=n_maps)
    n_tracks = len(maps.particles())
    notes = [f"{n_tracks} tracks, {len(tracks)} peaks; {len(stack)} tracks are drawn"]
    for n, what in (
        (maps.outside, "peaks lie outside the grid"),
        (maps.unlinked, "peaks have no track"),
        (maps.dropped, "peaks are more than maps can hold"),
    ):
        if n:
            notes.append(f"{n} {what} and are left out")
    taken = time.strftime("%Y-%m-%d %H:%M", time.localtime(start["time"]))
    points = " x ".join(str(n) for n in grid.shape)
    return (
        CrystalScan(
            stack,
            total,
            total_of,
            light,
            light_of,
            float(HALF_WIDTH_PX if half_width is None else half_width),
            f"Run {raw[:_SHORT_UID]}, {taken}: {points} points, {n_tracks} tracks",
            _units(db, raw, grid),
        ),
        notes,
    )


def plot_run(db: Database, uid: str = "-1", n_maps: int = N_MAPS, what: str = "all") -> Figure:
    """The figure of a run, to be shown or saved: `read_scan` and `draw` in one."""
    return draw(read_scan(db, uid, n_maps)[0], what)


def _wrong_option(arguments: argparse.Namespace) -> str:
    if arguments.maps < 1:
        return f"--maps {arguments.maps}: 1 or more is needed."
    if arguments.half_width is not None and not 0 <= arguments.half_width < float("inf"):
        return f"--half-width {arguments.half_width}: 0 pixels or more are needed."
    if not 10 <= arguments.dpi <= 1000:
        return f"--dpi {arguments.dpi}: 10 to 1000 can be drawn."
    known = Figure().canvas.get_supported_filetypes()
    if arguments.output.suffix.lstrip(".").lower() not in known:
        return f"{arguments.output} is no picture: .png, .pdf or .svg is needed."
    if not arguments.output.absolute().parent.is_dir():
        return f"{arguments.output} can't be written: its folder isn't there."
    return ""


def _existing_database(where: str) -> Database:
    """`open_database` would make a folder that isn't there."""
    is_server = where.startswith(("http://", "https://"))
    if not is_server and not (Path(where).expanduser() / "catalog.db").is_file():
        raise TrackingError(f"There is no database in {where}: it would hold catalog.db.")
    return open_database(where)


def _ancestor(db: Database, uid: str, stage: str) -> str | None:
    """The run of ``stage`` that ``uid`` is or was derived from; None where it isn't recorded."""
    while uid in db:
        start = db[uid].start
        if start.get("analysis_stage") == stage:
            return uid
        uid = start.get("parent_run_uid", "")
        if not uid:
            return None
    return None


def _why(db: Database, uid: str) -> str:
    stop = db[uid].stop
    if stop is None:
        return " yet, or its program ended before it did"
    return f" ({stop['reason']})" if stop.get("reason") else ""


def _diameter(db: Database, peaks: str | None) -> float | None:
    if peaks is None:
        return None
    given = db[peaks].start.get("analysis_parameters", {}).get("diameter")
    try:
        return float(np.max(given))
    except (TypeError, ValueError):
        return None


def _from_images(
    db: Database, uid: str, grid: ScanGrid
) -> tuple[np.ndarray, str, np.ndarray, str] | None:
    """Total per point and light image of the processed images; None where there are none."""
    key = str(db[uid].start.get("analysis_parameters", {}).get("key", ""))
    run_ = db[uid]
    if "primary" not in list(run_) or key not in list(run_["primary"]):
        return None
    extremes = ExtremeImages()
    total = np.zeros(grid.n_points)
    for frame, image in _images(run_["primary"], key):
        extremes.add(image)
        point = int(grid.flat_indices(np.array([frame]))[0])
        if point >= 0:
            total[point] = np.sum(image, dtype=np.float64, where=np.isfinite(image))
    n = extremes.n_points
    if not n:
        return None
    how = f"maximum - minimum of {n} images"
    return total.reshape(grid.shape), "all pixels, background subtracted", extremes.contrast(), how


def _images(stream: Any, key: str) -> Iterator[tuple[int, np.ndarray]]:
    """Frame number and image (n_rows, n_cols), a few read at a time."""
    frames = np.asarray(stream.read(variables=[FRAME])[FRAME], np.int64)
    stored = stream[key]
    n_images, *shape = stored.shape
    step = max(1, _READ_BYTES // max(1, stored.dtype.itemsize * int(np.prod(shape))))
    for first in range(0, min(n_images, len(frames)), step):
        last = min(first + step, n_images, len(frames))
        yield from zip(frames[first:last].tolist(), np.asarray(stored[first:last]), strict=True)


def _image_shape(db: Database, raw: str, peaks: str | None) -> tuple[int, int] | None:
    """Rows and columns of the detector, by the raw run's descriptor."""
    key = "" if peaks is None else db[peaks].start.get("analysis_parameters", {}).get("key", "")
    shape = _data_keys(db, raw).get(key, {}).get("shape") or ()
    return (int(shape[-2]), int(shape[-1])) if len(shape) >= 2 else None


def _units(db: Database, raw: str, grid: ScanGrid) -> tuple[str, ...]:
    """Units of the motors, by the raw run's descriptor: start documents don't say them."""
    keys = _data_keys(db, raw)
    names = grid.names or ("",) * len(grid.shape)
    return tuple(str(keys.get(name, {}).get("units") or "") for name in names)


def _data_keys(db: Database, raw: str) -> dict[str, Any]:
    if raw not in db or "primary" not in list(db[raw]):
        return {}
    return dict(db[raw]["primary"].metadata.get("data_keys", {}))


def _spots(
    tracks: pd.DataFrame, diameter: float | None, shape: tuple[int, int] | None
) -> np.ndarray:
    """The highest mass of each track as a spot where it was, on an empty detector: float32."""
    table = tracks[np.isfinite(tracks["mass"]) & np.isfinite(tracks["y"] + tracks["x"])]
    best = table.loc[table.groupby("particle")["mass"].idxmax(), ["y", "x", "mass"]].to_numpy()
    sigma = max((diameter or HALF_WIDTH_PX) / 6, 1.0)
    reach = int(np.ceil(4 * sigma))
    if shape is None:
        far = best[:, :2].max(axis=0) if len(best) else np.zeros(2)
        shape = int(far[0]) + 3 * reach, int(far[1]) + 3 * reach
    image = np.zeros(shape, np.float32)
    for y, x, mass in best:
        rows = np.arange(max(round(y) - reach, 0), min(round(y) + reach + 1, shape[0]))
        cols = np.arange(max(round(x) - reach, 0), min(round(x) + reach + 1, shape[1]))
        if not len(rows) or not len(cols):
            continue
        distance = np.add.outer((rows - y) ** 2, (cols - x) ** 2)
        spot = mass / (2 * np.pi * sigma**2) * np.exp(-distance / (2 * sigma**2))
        place = image[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1]
        np.maximum(place, spot, out=place, casting="same_kind")
    return image
