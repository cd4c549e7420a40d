"""The simulated camera: beam profile, gain structure, offset, shot noise, pixel type, binning."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np

from tomostream_ioc.errors import ConfigError
from tomostream_ioc.model.frame import FRAME_DTYPES
from tomostream_ioc.sim.phantom import Region

_NOISE_SAMPLES = 1 << 22  # a power of two: the index wraps by a mask


def _jit(function: Callable[..., Any]) -> Callable[..., Any]:
    return numba.njit(nogil=True, cache=True)(function)


@dataclass(frozen=True, slots=True)
class DetectorSettings:
    """``i0`` is the brightest pixel's open-beam signal in counts; 0 picks one for the type.

    ``noise`` adds shot noise (a normal approximation of Poisson's, good above some 20 counts).
    ``stripes`` columns respond differently in projections than in the flat field, by 3 %: they make
    the ring artefacts that ring removal is for.
    """

    dtype: str = "uint16"
    i0: float = 0.0
    noise: bool = True
    stripes: int = 0
    seed: int = 0


class Detector:
    """Turns line integrals into counts: i0 * profile * exp(-p) + offset.

    ``dark`` and ``flat`` are the expected fields, float32 (n_rows, n_cols), without noise.
    """

    def __init__(self, n_rows: int, n_cols: int, settings: DetectorSettings) -> None:
        try:
            self.dtype = np.dtype(settings.dtype)
        except TypeError:
            raise ConfigError(f"pixel type {settings.dtype!r} does not exist") from None
        if self.dtype not in FRAME_DTYPES:
            raise ConfigError(f"pixel type {settings.dtype!r} is none that an areaDetector sends")
        limits = np.iinfo(self.dtype) if self.dtype.kind in "iu" else None
        # float32 holds the counts on the way: the largest float32 below the type's limit
        self._largest = np.float32(np.inf) if limits is None else _float32_below(limits.max)
        small = limits is not None and limits.max < 1000
        i0 = settings.i0 or ({"i": 100.0, "u": 200.0}[self.dtype.kind] if small else 20_000.0)
        if float(self._largest) < i0:
            raise ConfigError(f"i0 of {i0:g} counts does not fit into {self.dtype}")
        rng = np.random.default_rng(settings.seed)
        self._is_int = limits is not None
        self._noise = settings.noise
        table_size = _NOISE_SAMPLES if settings.noise else 1
        self._normal = rng.standard_normal(table_size, dtype=np.float32)
        self._signal = np.float32(i0) * _beam_profile(n_rows, n_cols, rng)
        offset = 0.02 * min(i0, 5000.0)
        self.dark = (offset * (1 + 0.1 * rng.standard_normal((n_rows, n_cols)))).astype(np.float32)
        np.maximum(self.dark, 0, out=self.dark)
        self.flat = self.dark + self._signal
        self._in_projections = self._signal.copy()
        striped = rng.choice(n_cols, size=min(settings.stripes, n_cols), replace=False)
        self._in_projections[:, striped] *= np.float32(0.97)

    def expose(self, p: np.ndarray, serial: int, region: Region | None = None) -> np.ndarray:
        """The frame of line integrals ``p``, or that region of it; ``serial`` picks the noise."""
        return self._read_out(p, self._in_projections, serial, region)

    def dark_frame(self, serial: int) -> np.ndarray:
        """One frame with the shutter closed."""
        return self._read_out(np.zeros_like(self.dark), np.zeros_like(self.dark), serial, None)

    def flat_frame(self, serial: int) -> np.ndarray:
        """One frame of the open beam, sample out."""
        return self._read_out(np.zeros_like(self.dark), self._signal, serial, None)

    def _read_out(
        self, p: np.ndarray, signal: np.ndarray, serial: int, region: Region | None
    ) -> np.ndarray:
        row0, _, col0, _ = region or (0, 0, 0, 0)
        counts = np.empty(p.shape, np.float32)
        # a large odd stride spreads the frames over the noise table
        first = serial * 1_640_531 & (_NOISE_SAMPLES - 1) if self._noise else -1
        _expose(p, signal, self.dark, self._normal, first, row0, col0, self._largest, counts)
        return (np.rint(counts, out=counts) if self._is_int else counts).astype(self.dtype)


def bin_frame(frame: np.ndarray, binning: int) -> np.ndarray:
    """Mean of binning x binning pixels in the frame's own type, integers rounded to nearest.

    tomoScan sums in its ROI plugin and scales by binning squared: a mean, so that counts, dark and
    flat keep their scale. Rows and columns left over at the end are cut off.
    """
    if binning == 1:
        return frame
    n_rows, n_cols = frame.shape[0] // binning, frame.shape[1] // binning
    out = np.empty((n_rows, n_cols), frame.dtype)
    _bin(frame, binning, frame.dtype.kind in "iu", out)
    return out


def _beam_profile(n_rows: int, n_cols: int, rng: np.random.Generator) -> np.ndarray:
    """A beam brightest a little off the middle, times 2 % of fixed gain structure; largest is 1."""
    rows = (np.arange(n_rows) - 0.46 * n_rows) / n_rows
    cols = (np.arange(n_cols) - 0.54 * n_cols) / n_cols
    beam = np.exp(-1.2 * rows**2)[:, None] * np.exp(-0.6 * cols**2)[None, :]
    profile = beam * (1 + 0.02 * rng.standard_normal((n_rows, n_cols)))
    return (profile / profile.max()).astype(np.float32)


def _float32_below(limit: int) -> np.float32:
    value = np.float32(limit)
    return value if int(value) <= limit else np.nextafter(value, np.float32(0))


@_jit
def _expose(
    p, signal, dark, normal, first, row0, col0, largest, out
):  # pragma: no cover - compiled
    n_rows, n_cols = p.shape
    mask = normal.size - 1
    for row in range(n_rows):
        for col in range(n_cols):
            r, c = row + row0, col + col0
            counts = dark[r, c] + signal[r, c] * np.exp(-p[row, col])
            if first >= 0:
                noise = normal[(first + r * dark.shape[1] + c) & mask]
                counts += noise * np.sqrt(max(counts, np.float32(0)))
            out[row, col] = min(max(counts, np.float32(0)), largest)


@_jit
def _bin(frame, binning, is_int, out):  # pragma: no cover - compiled
    scale = 1.0 / (binning * binning)
    for row in range(out.shape[0]):
        for col in range(out.shape[1]):
            total = 0.0
            for i in range(binning):
                for j in range(binning):
                    total += frame[row * binning + i, col * binning + j]
            if is_int:
                out[row, col] = np.floor(total * scale + 0.5)
            else:
                out[row, col] = total * scale
