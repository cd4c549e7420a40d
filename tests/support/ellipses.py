"""A flat analytic phantom: ellipses whose projections and pixel values are known exactly."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Ellipse:
    """Centre and half axes in units of half the field, phi in degrees; values add up."""

    value: float
    a: float
    b: float
    x: float
    y: float
    phi_deg: float


#: The Shepp-Logan head with the contrasts that are usual for pictures: values 0 to 1, the skull 1,
#: the inside 0.2. Shepp and Logan, IEEE Trans. Nucl. Sci. 21 (1974) 21; Toft, PhD thesis, 1996.
SHEPP_LOGAN = (
    Ellipse(1.0, 0.69, 0.92, 0.0, 0.0, 0.0),
    Ellipse(-0.8, 0.6624, 0.874, 0.0, -0.0184, 0.0),
    Ellipse(-0.2, 0.11, 0.31, 0.22, 0.0, -18.0),
    Ellipse(-0.2, 0.16, 0.41, -0.22, 0.0, 18.0),
    Ellipse(0.1, 0.21, 0.25, 0.0, 0.35, 0.0),
    Ellipse(0.1, 0.046, 0.046, 0.0, 0.1, 0.0),
    Ellipse(0.1, 0.046, 0.046, 0.0, -0.1, 0.0),
    Ellipse(0.1, 0.046, 0.023, -0.08, -0.605, 0.0),
    Ellipse(0.1, 0.023, 0.023, 0.0, -0.606, 0.0),
    Ellipse(0.1, 0.023, 0.046, 0.06, -0.605, 0.0),
)


def pixel_values(ellipses: tuple[Ellipse, ...], n: int, samples: int = 8) -> np.ndarray:
    """The mean over each pixel (n, n), axes y, x, from samples x samples points in it.

    Index n // 2 is the axis.
    """
    offsets = (np.arange(samples) + 0.5) / samples - 0.5
    along = (np.arange(n) - n // 2)[:, None] + offsets
    along = along.reshape(-1) / (n / 2)
    image = np.zeros((n, n))
    for e in ellipses:
        cos, sin = np.cos(np.deg2rad(e.phi_deg)), np.sin(np.deg2rad(e.phi_deg))
        reach = max(e.a, e.b)
        rows = _pixels_near(e.y, reach, n)
        cols = _pixels_near(e.x, reach, n)
        y = (along[rows.start * samples : rows.stop * samples] - e.y).astype(np.float32)
        x = (along[cols.start * samples : cols.stop * samples] - e.x).astype(np.float32)
        for row in range(rows.stop - rows.start):
            dy = y[row * samples : (row + 1) * samples, None]
            inside = ((x * cos + dy * sin) / e.a) ** 2 + ((dy * cos - x * sin) / e.b) ** 2 <= 1
            share = inside.sum(0).reshape(-1, samples).sum(1) / samples**2
            image[rows.start + row, cols] += e.value * share
    return image


def projections(
    ellipses: tuple[Ellipse, ...], theta_deg: np.ndarray, n: int, center: float, *, mean: bool
) -> np.ndarray:
    """Line integrals (k, n), lengths in pixels, at column u = x cos - y sin + center.

    ``mean`` takes the mean over the detector pixel (which is exact, too), else the value on its
    middle line.
    """
    half = n / 2
    edges = np.arange(n + 1) - 0.5 if mean else np.arange(n)
    result = np.zeros((len(theta_deg), n))
    for row, theta in zip(result, np.deg2rad(theta_deg), strict=True):
        s = (edges - center) / half
        for e in ellipses:
            phi = np.deg2rad(e.phi_deg) + theta
            r = np.hypot(e.a * np.cos(phi), e.b * np.sin(phi))
            t = s - (e.x * np.cos(theta) - e.y * np.sin(theta))
            t = np.clip(t / r, -1.0, 1.0)
            scale = 2 * e.value * e.a * e.b * half
            if mean:  # integral of sqrt(1 - t^2), from edge to edge
                area = 0.5 * (t * np.sqrt(1 - t**2) + np.arcsin(t))
                row += scale * np.diff(area) * half
            else:
                row += scale / r * np.sqrt(1 - t**2)
    return result


def _pixels_near(middle: float, reach: float, n: int) -> slice:
    """Pixels that an object within ``reach`` of ``middle`` (in half fields) touches."""
    first = int((middle - reach) * n / 2) + n // 2 - 2
    end = int((middle + reach) * n / 2) + n // 2 + 3
    return slice(max(first, 0), min(end, n))
