"""Draws the figures of docs/reconstruction.md: python docs/figures.py"""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Rectangle

from tomostream_ioc.model.params import FILTER_TYPES
from tomostream_ioc.recon.filters import fft_length, response

IMAGES = Path(__file__).parent / "images"
_THETA_DEG = 35.0


def geometry() -> Figure:
    """The sample seen from above at angle theta, and the three planes."""
    figure = Figure(figsize=(11, 5), layout="constrained")
    above, planes = figure.subplots(1, 2)
    _from_above(above)
    _planes(planes)
    return figure


def _from_above(axis: Axes) -> None:
    """u = x cos(theta) - y sin(theta) + center, with the detector at the bottom."""
    theta = np.deg2rad(_THETA_DEG)
    cos, sin = np.cos(theta), np.sin(theta)
    # the laboratory: u to the right, the beam downwards; x and y turn with the sample
    along_x, along_y = np.array([cos, sin]), np.array([-sin, cos])
    axis.add_patch(Circle((0, 0), 1.0, facecolor="#dce6f2", edgecolor="#4a6fa5"))
    for direction, name in ((along_x, "x"), (along_y, "y")):
        _arrow(axis, np.zeros(2), 1.35 * direction)
        axis.text(1.45 * direction[0], 1.45 * direction[1], name, ha="center", va="center")
    point = 0.75 * along_x - 0.3 * along_y
    axis.plot(*point, "o", color="#c0392b", ms=6)
    axis.text(point[0] + 0.06, point[1] + 0.06, "(x, y)", color="#c0392b")
    axis.plot([point[0], point[0]], [point[1], -1.6], "--", color="#c0392b", lw=1)
    axis.plot([0, 0], [0, -1.6], ":", color="black", lw=1)
    for u in np.linspace(-1.2, 1.2, 7):
        _arrow(axis, np.array([u, 1.9]), np.array([u, 1.45]), "#d4a017")
    axis.text(1.35, 1.65, "beam", color="#9a7410", va="center")
    axis.add_patch(Rectangle((-1.5, -1.75), 3.0, 0.15, facecolor="#555555"))
    axis.text(0, -1.95, "center", ha="center", va="center")
    axis.text(point[0], -1.95, "u", ha="center", va="center", color="#c0392b")
    axis.text(-1.5, -1.95, "0", ha="center", va="center")
    axis.text(1.5, -1.95, "n_cols - 1", ha="center", va="center")
    arc = np.deg2rad(np.linspace(0, _THETA_DEG, 30))
    axis.plot(0.45 * np.cos(arc), 0.45 * np.sin(arc), color="black", lw=1)
    axis.plot([0, 0.7], [0, 0], color="black", lw=0.6)
    axis.text(0.5, 0.13, r"$\theta$")
    axis.set_title(r"from above: $u = x\,\cos\theta - y\,\sin\theta + \mathrm{center}$")
    _bare(axis, (-2.0, 2.0), (-2.15, 2.05))


def _planes(axis: Axes) -> None:
    """The three slice planes in an oblique view."""
    depth = np.array([0.45, 0.32])  # where y points to in the drawing

    def corner(x: float, y: float, z: float) -> np.ndarray:
        return np.array([x, -z]) + y * depth

    def plane(corners: list[tuple[float, float, float]], colour: str, name: str) -> None:
        outline = np.array([corner(*c) for c in corners])
        axis.fill(*outline.T, facecolor=colour, edgecolor=colour, alpha=0.35, lw=1.5)
        axis.text(
            outline[0, 0], outline[0, 1], name, color=colour, ha="right", va="bottom", fontsize=10
        )

    plane([(-1, -1, 0.1), (1, -1, 0.1), (1, 1, 0.1), (-1, 1, 0.1)], "#c0392b", "z slice (y, x)")
    plane([(-1, 0.2, -1), (1, 0.2, -1), (1, 0.2, 1), (-1, 0.2, 1)], "#2e7d32", "y slice (z, x)")
    plane([(-0.2, -1, -1), (-0.2, 1, -1), (-0.2, 1, 1), (-0.2, -1, 1)], "#1f4e9c", "x slice (z, y)")
    axis.plot([0, 0], [-1.6, 1.6], ":", color="black", lw=1)
    axis.text(0.04, 1.55, "rotation axis", fontsize=9)
    start = np.array([1.35, -1.5])
    for direction, name in (
        ((0.4, 0.0), "x"),
        (0.5 * depth, "y"),
        ((0.0, -0.4), "z, detector row"),
    ):
        tip = start + np.array(direction)
        _arrow(axis, start, tip)
        place = tip + 0.15 * np.array(direction)
        axis.text(place[0], place[1], name, ha="left", va="center", fontsize=9)
    axis.set_title("the three planes")
    _bare(axis, (-2.5, 2.5), (-2.15, 2.05))


def filters() -> Figure:
    """Transfer function and filtered impulse of each filter."""
    figure = Figure(figsize=(11, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    n_fft = fft_length(1024)
    f = np.arange(n_fft // 2 + 1) / n_fft
    for name in FILTER_TYPES:
        values = response(name, n_fft)
        left.plot(f, values, label=name)
        impulse = np.fft.fftshift(np.fft.irfft(values))
        middle = n_fft // 2
        right.plot(np.arange(-8, 9), impulse[middle - 8 : middle + 9], ".-", label=name)
    left.set(
        xlabel="frequency (cycles/pixel)", ylabel="transfer function", xlim=(0, 0.5), ylim=(0, None)
    )
    right.set(xlabel="pixel", ylabel="filtered impulse")
    right.axhline(0, color="black", lw=0.5)
    left.legend()
    return figure


def _arrow(axis: Axes, start: np.ndarray, tip: np.ndarray, colour: str = "black") -> None:
    style = {"arrowstyle": "->", "color": colour}
    axis.annotate("", (tip[0], tip[1]), (start[0], start[1]), arrowprops=style)


def _bare(axis: Axes, x_limits: tuple[float, float], y_limits: tuple[float, float]) -> None:
    axis.set(xlim=x_limits, ylim=y_limits, aspect="equal")
    axis.set_axis_off()


def main() -> None:
    for name, figure in (("geometry", geometry()), ("filters", filters())):
        path = IMAGES / f"{name}.png"
        figure.savefig(path, dpi=110)
        print(path)


if __name__ == "__main__":
    main()
