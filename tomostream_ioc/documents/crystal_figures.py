"""Draws a scan: its total intensity, the maps of its peaks, and where they are on the detector."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure, FigureBase
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from tomostream_ioc.documents.plot_choices import DPI, FIGURES, ORIGINS
from tomostream_ioc.errors import TrackingError
from tomostream_ioc.tracking import MapStack, ScanGrid

#: 1200 pixels at 100 dots per inch
WIDTH_IN = 12.0
#: a map longer than this in its motors' units is drawn with square points instead
_MAX_ASPECT = 8.0
#: a light image with more pixels a side is drawn from the highest of each block of them
_LIGHT_PIXELS = 1000
SQUARE_COLOUR = "#7ffff4"
_HEADING, _TEXT, _SMALL = 12, 10, 9


@dataclass(frozen=True, eq=False)
class CrystalScan:
    """What is drawn of a scan.

    maps : brightest first, on a grid of one or two axes
    total, total_of : (*grid.shape) float64, intensity per point, and what it is the sum of
    light, light_of : (n_rows, n_cols), brightest minus darkest value of each pixel over the points,
        and what it is made from
    half_width_px : half width of the squares around the maps' peaks
    title : above all
    units : of the grid's axes, "" where unknown

    Raises TrackingError: a grid of more axes, or arrays that don't fit it.
    """

    maps: MapStack
    total: np.ndarray
    total_of: str
    light: np.ndarray
    light_of: str
    half_width_px: float
    title: str = ""
    units: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        shape = self.maps.grid.shape
        if len(shape) > 2:
            raise TrackingError(f"A scan of {len(shape)} axes can't be drawn: one or two can.")
        if self.total.shape != shape:
            raise TrackingError(f"The total is {self.total.shape}, the scan's grid {shape}.")
        if self.light.ndim != 2:
            raise TrackingError(f"The light image has shape {self.light.shape}: no image.")
        object.__setattr__(self, "units", self.units or ("",) * len(shape))

    @property
    def grid(self) -> ScanGrid:
        return self.maps.grid


def draw(scan: CrystalScan, what: str = "all", origin: str = "upper") -> Figure:
    """The figure ``what``: one of FIGURES. ``origin`` "upper" has the scan's first row on top.

    Raises TrackingError: ``what`` or ``origin`` is another word, or there are no maps to draw.
    """
    if what not in FIGURES or origin not in ORIGINS:
        raise TrackingError(
            f"{what!r} with origin {origin!r} can't be drawn: {', '.join(FIGURES)} with"
            f" {' or '.join(ORIGINS)} can."
        )
    if what in ("all", "maps") and not len(scan.maps):
        raise TrackingError("There are no maps to draw: the scan has no tracks.")
    n_cols, panel_in = _panels(scan)
    n_rows = -(-len(scan.maps) // n_cols)
    maps_in = n_rows * panel_in + 0.55
    top_in = _top_height(scan, 0.5 * WIDTH_IN)
    if what == "maps":
        figure = Figure((WIDTH_IN, maps_in + 0.3), dpi=DPI, layout="constrained")
        _draw_maps(figure, scan, n_cols, origin)
    elif what == "total":
        figure = Figure((0.6 * WIDTH_IN, top_in + 0.3), dpi=DPI, layout="constrained")
        _draw_total(figure.subplots(), scan, origin)
    elif what == "light":
        figure = Figure((0.8 * WIDTH_IN, 0.7 * WIDTH_IN), dpi=DPI, layout="constrained")
        _draw_light(figure.subplots(), scan)
    else:
        height = top_in + maps_in + 0.3
        figure = Figure((WIDTH_IN, height), dpi=DPI, layout="constrained")
        parts = figure.subfigures(2, 1, squeeze=False, height_ratios=(top_in, maps_in))
        top, bottom = parts[:, 0]
        left, right = top.subplots(1, 2, width_ratios=_shares(scan))
        _draw_total(left, scan, origin)
        _draw_light(right, scan)
        _draw_maps(bottom, scan, n_cols, origin)
    if scan.title:
        figure.suptitle(scan.title, fontsize=_HEADING, fontweight="bold")
    return figure


def draw_map(
    axis: Axes, values: np.ndarray, scan: CrystalScan, origin: str = "upper", **style: object
) -> AxesImage | None:
    """``values`` (*grid.shape) at the motors' positions, each point a cell; a line for one axis."""
    x = _edges(scan.grid, -1)
    axis.set_xlabel(_name(scan, -1), fontsize=_SMALL)
    axis.tick_params(labelsize=_SMALL)
    if len(scan.grid.shape) == 1:
        step = (x[1] - x[0]) / len(values)
        axis.plot(x[0] + step * (np.arange(len(values)) + 0.5), values, ".-", color="#31688e")
        axis.set_ylim(bottom=0)
        return None
    y = _edges(scan.grid, 0)
    bottom, top = y[::-1] if origin == "upper" else y
    axis.set_ylabel(_name(scan, 0), fontsize=_SMALL)
    return axis.imshow(
        values,
        extent=(x[0], x[1], bottom, top),
        origin=origin,  # type: ignore[arg-type]
        aspect=_aspect(scan),  # type: ignore[arg-type]
        interpolation="nearest",
        **style,  # type: ignore[arg-type]
    )


def _draw_total(axis: Axes, scan: CrystalScan, origin: str) -> None:
    image = draw_map(axis, scan.total, scan, origin, cmap="viridis")
    axis.set_title(f"Total intensity: {scan.total_of}", fontsize=_TEXT)
    if image is None:
        axis.set_ylabel("counts", fontsize=_SMALL)
    else:
        _colour_bar(axis, image, _map_aspect(scan), "counts")


def _draw_light(axis: Axes, scan: CrystalScan) -> None:
    light, block = _highest_of_blocks(scan.light)
    finite = light[np.isfinite(light)]
    # below: noise of pixels that never shine
    low, high = np.percentile(finite, (40, 99.9)) if finite.size else (0.0, 1.0)
    if scan.light.size and not high > low:
        low, high = float(finite.min(initial=0)), float(finite.max(initial=1))
    n_rows, n_cols = (block * n for n in light.shape)
    image = axis.imshow(
        light,
        extent=(-0.5, n_cols - 0.5, n_rows - 0.5, -0.5),
        cmap="magma",
        norm=PowerNorm(0.5, low, max(high, low + 1e-12)),
        interpolation="nearest" if block == 1 else "antialiased",
    )
    half = scan.half_width_px + 0.5
    for particle, y, x in zip(scan.maps.particles, scan.maps.y, scan.maps.x, strict=True):
        corner = (x - half, y - half)
        axis.add_patch(Rectangle(corner, 2 * half, 2 * half, fill=False, ec=SQUARE_COLOUR, lw=1))
        inside = y - half > 0.06 * n_rows  # else the number would stand outside the image
        axis.text(
            x,
            y - 1.1 * half if inside else y + 1.1 * half,
            f"{particle}",
            color=SQUARE_COLOUR,
            fontsize=_SMALL,
            ha="left" if x < 0.04 * n_cols else "right" if x > 0.96 * n_cols else "center",
            va="bottom" if inside else "top",
            path_effects=[withStroke(linewidth=2, foreground="black")],
            clip_on=True,
        )
    axis.set(xlim=(-0.5, scan.light.shape[1] - 0.5), ylim=(scan.light.shape[0] - 0.5, -0.5))
    axis.set_xlabel("x (pixel)", fontsize=_SMALL)
    axis.set_ylabel("y (pixel)", fontsize=_SMALL)
    axis.tick_params(labelsize=_SMALL)
    axis.set_title(f"Light image: {scan.light_of}", fontsize=_TEXT)
    _colour_bar(axis, image, n_rows / n_cols, "counts (square root scale)")


def _draw_maps(parent: FigureBase, scan: CrystalScan, n_cols: int, origin: str) -> None:
    stack = scan.maps
    n_rows = -(-len(stack) // n_cols)
    axes = parent.subplots(n_rows, n_cols, squeeze=False, sharex=True, sharey=True)
    image = None
    for k, axis in enumerate(axes.flat):
        if k >= len(stack):
            axis.set_axis_off()
            if k >= n_cols:
                axes.flat[k - n_cols].tick_params(labelbottom=True)
            continue
        values = stack.maps[k]
        highest = float(values.max(initial=0.0))
        image = draw_map(
            axis, values / highest if highest > 0 else values, scan, origin,
            cmap="viridis", vmin=0, vmax=1,
        )  # fmt: skip
        axis.set_title(
            f"track {stack.particles[k]}: y {stack.y[k]:.1f}, x {stack.x[k]:.1f}\n"
            f"highest {_short(highest)}",
            fontsize=_SMALL,
        )
        if k + n_cols < len(stack):
            axis.set_xlabel("")
        if k % n_cols:
            axis.set_ylabel("")
        elif image is None:
            axis.set_ylabel("mass / highest", fontsize=_SMALL)
    parent.suptitle(
        f"The {len(stack)} brightest tracks, where they are on the detector (pixel), and their"
        " highest mass (counts)",
        fontsize=_TEXT,
    )
    if image is not None:
        bar = parent.colorbar(image, ax=list(axes.flat), fraction=0.02, pad=0.01)
        bar.set_label("mass / highest", fontsize=_SMALL)
        bar.ax.tick_params(labelsize=_SMALL)


def _colour_bar(axis: Axes, image: AxesImage, aspect: float, label: str) -> None:
    """As high as the image, whose height over width is ``aspect``, whatever the layout does."""
    width = 0.04 * np.clip(aspect, 0.5, _MAX_ASPECT)  # of the image's, so that all are alike
    place = axis.inset_axes((1 + width / 2, 0.0, width, 1.0))
    bar = axis.figure.colorbar(image, cax=place)
    bar.set_label(label, fontsize=_SMALL)
    bar.formatter.set_powerlimits((-3, 4))  # type: ignore[attr-defined]
    place.tick_params(labelsize=_SMALL)
    place.yaxis.get_offset_text().set_fontsize(_SMALL)


def _short(value: float) -> str:
    return f"{value:.0f}" if 10 <= value < 1e4 else f"{value:.2g}"


def _is_measured(grid: ScanGrid, axis: int) -> bool:
    """Whether the points' positions along the axis are known."""
    pair = grid.extents[axis]
    return pair is not None and pair[0] != pair[1] and grid.shape[axis] > 1


def _edges(grid: ScanGrid, axis: int) -> tuple[float, float]:
    """Outer edges of the first and the last point's cell; in points without extents."""
    n, pair = grid.shape[axis], grid.extents[axis]
    if pair is None or not _is_measured(grid, axis):
        return -0.5, n - 0.5
    half = 0.5 * (pair[1] - pair[0]) / (n - 1)
    return pair[0] - half, pair[1] + half


def _name(scan: CrystalScan, axis: int) -> str:
    grid = scan.grid
    name = grid.names[axis] if grid.names else ("row", "column")[axis]
    if not _is_measured(grid, axis):
        return f"{name} (point)"
    return f"{name} ({scan.units[axis]})" if scan.units[axis] else name


def _true_aspect(scan: CrystalScan) -> float | None:
    """Height over width in the motors' units; None where they can't be compared."""
    grid = scan.grid
    if not (_is_measured(grid, 0) and _is_measured(grid, 1)) or len(set(scan.units)) > 1:
        return None
    y, x = _edges(grid, 0), _edges(grid, 1)
    aspect = abs((y[1] - y[0]) / (x[1] - x[0]))
    return aspect if 1 / _MAX_ASPECT <= aspect <= _MAX_ASPECT else None


def _aspect(scan: CrystalScan) -> str | float:
    """What imshow takes: true to the motors' units, or else square points."""
    if _true_aspect(scan) is not None:
        return "equal"
    y, x = _edges(scan.grid, 0), _edges(scan.grid, 1)
    n_rows, n_cols = scan.grid.shape
    return abs((x[1] - x[0]) / n_cols / ((y[1] - y[0]) / n_rows))


def _map_aspect(scan: CrystalScan) -> float:
    """Height over width of a map as it is drawn."""
    if len(scan.grid.shape) == 1:
        return 0.6
    aspect = _true_aspect(scan)
    shape = scan.grid.shape
    aspect = shape[0] / shape[1] if aspect is None else aspect
    return min(max(aspect, 1 / _MAX_ASPECT), _MAX_ASPECT)


def _panels(scan: CrystalScan) -> tuple[int, float]:
    """How many maps stand side by side, and the height in inches that each takes."""
    aspect = _map_aspect(scan)
    n = max(len(scan.maps), 1)
    at_once = int(np.clip(round(6 * math.sqrt(aspect)), 3, 8))
    n_cols = n if n <= at_once else min(at_once, -(-n // (-(-n // at_once))))
    width = (WIDTH_IN - 1.2) / n_cols - 0.3
    return n_cols, min(width * aspect, 5.0) + 0.6


def _shares(scan: CrystalScan) -> tuple[float, float]:
    """Widths of the total's map and of the light image, of the same height."""
    light = scan.light.shape[1] / max(scan.light.shape[0], 1)
    return float(np.clip(1 / _map_aspect(scan), 0.5, 2)), float(np.clip(light, 0.5, 2))


def _top_height(scan: CrystalScan, width: float) -> float:
    """In inches, of the total's map beside the light image."""
    left, right = _shares(scan)
    return float(np.clip((2 * width - 3.0) / (left + right), 2.5, 5.5)) + 0.8


def _highest_of_blocks(light: np.ndarray) -> tuple[np.ndarray, int]:
    """A peak of few pixels stays as bright as it is in an image that is drawn smaller."""
    block = -(-max(light.shape) // _LIGHT_PIXELS)
    if block == 1:
        return light, 1
    padded = np.pad(light, [(0, -n % block) for n in light.shape], mode="edge")
    rows, cols = (n // block for n in padded.shape)
    return padded.reshape(rows, block, cols, block).max(axis=(1, 3)), block
