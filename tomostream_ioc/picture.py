"""The three slices as one figure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tomostream_ioc.model.slices import SliceMeta, Slices


def grey_limits(images: Sequence[np.ndarray]) -> tuple[float, float]:
    """Values shown as black and white; outliers (edges, hot pixels) do not decide them."""
    values = np.concatenate([image[::3, ::3].ravel() for image in images])
    low, high = np.percentile(values, (0.5, 99.5))
    return float(low), float(max(high, low + 1e-12))


def save_slices_png(path: Path, slices: Slices, meta: SliceMeta) -> None:
    """Write a PNG of three panels with one colour scale (linear attenuation per pixel).

    Raises OSError when the file can't be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    params = meta.params
    n_cols, n_rows = slices.z.shape[0], slices.y.shape[0]
    panels = (
        (slices.z, f"z slice at {params.ortho_z}", "x (pixel)", "y (pixel)"),
        (slices.y, f"y slice at {params.ortho_y}", "x (pixel)", "z (pixel)"),
        (slices.x, f"x slice at {params.ortho_x}", "y (pixel)", "z (pixel)"),
    )
    low, high = grey_limits([image for image, *_ in panels])
    figure = Figure(figsize=(15, 5.2 * max(1.0, n_rows / n_cols)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 3)
    shown = None
    for axis, (image, title, x_label, y_label) in zip(axes, panels, strict=True):
        shown = axis.imshow(image, cmap="gray", vmin=low, vmax=high)
        axis.set(title=title, xlabel=x_label, ylabel=y_label)
    if shown is not None:
        figure.colorbar(shown, ax=list(axes), label="linear attenuation per pixel", shrink=0.85)
    figure.suptitle(
        f"centre {params.center:g}, {params.filter_type} filter, {meta.n_angles} of "
        f"{meta.capacity} angles, frames {meta.oldest_id} to {meta.newest_id}"
    )
    figure.savefig(path, dpi=100)
