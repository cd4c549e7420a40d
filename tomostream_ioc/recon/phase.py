"""Paganin's single-distance phase retrieval: its transfer function and the padding of frames."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tomostream_ioc.errors import ParameterError
from tomostream_ioc.model.params import ReconParams
from tomostream_ioc.recon.geometry import ScanGeometry

#: Planck's constant times the speed of light (SI, exact)
_HC_KEV_M = 6.62607015e-34 * 299792458.0 / 1.602176634e-16
#: padding on each side, in lengths of the filter: what comes round weighs exp(-12) / 2 = 3e-6
_REACH = 12.0
#: and in pixels, for the ripple that a weak filter has from ending at the Nyquist frequency
_LEAST_PAD = 64


def wavelength_m(energy_kev: float) -> float:
    """Wavelength of photons of this energy: h c / E."""
    return _HC_KEV_M / energy_kev


@dataclass(frozen=True, slots=True)
class Padding:
    """One axis of a frame: ``n`` samples at the start of a cyclic transform over ``n_fft``.

    ``after`` repetitions of the last sample follow, then repetitions of the first one, which is
    next to them as the transform is cyclic.
    """

    n: int
    after: int
    n_fft: int

    def fill(self, samples: np.ndarray) -> None:
        """Pad samples (n_fft, ...) in place, along the first axis."""
        samples[self.n : self.n + self.after] = samples[self.n - 1]
        samples[self.n + self.after :] = samples[0]


@dataclass(frozen=True, slots=True)
class PhaseFilter:
    """The filter for frames of (n_rows, n_cols): 1 / (1 + (2 pi length |f|)^2).

    f is in cycles per pixel, ``length`` in pixels. Paganin et al. 2002, J. Microsc. 206, 33,
    for a transmission in parallel light, divided by its value at f = 0, so that a constant stays
    what it is. In space it is K0(r / length), which falls as exp(-r / length).

    With the wavelength w and the distance z in metres and a frequency F in cycles per metre it is
    alpha / (w z F^2 / (4 pi) + alpha), as TomoPy's retrieve_phase defines alpha. Paganin has
    1 / (1 + pi w z (delta / beta) F^2), hence alpha = beta / (4 pi^2 delta), of the sample alone.
    """

    n_rows: int
    n_cols: int
    length: float

    @classmethod
    def of(cls, params: ReconParams, geometry: ScanGeometry) -> PhaseFilter | None:
        """None while phase retrieval is off.

        Raises ParameterError: the filter would average over more than the frame.
        """
        if not params.has_phase:
            return None
        n_most = max(geometry.n_rows, geometry.n_cols)
        length_m = math.sqrt(wavelength_m(params.energy_kev) * 1e-3 * params.distance_mm)
        length_m /= 2 * math.pi * math.sqrt(4 * math.pi * params.alpha)
        length = length_m / (1e-6 * params.pixel_size_um)
        if not length <= n_most:
            raise ParameterError(
                f"phase retrieval would average over {length:.3g} pixels, the frame has {n_most}: "
                "raise Alpha, or correct Energy, Distance or PixelSize"
            )
        return cls(geometry.n_rows, geometry.n_cols, length)

    @property
    def rows(self) -> Padding:
        return self._padding(self.n_rows)

    @property
    def cols(self) -> Padding:
        return self._padding(self.n_cols)

    def _padding(self, n: int) -> Padding:
        """At most the frame's longer side on each side: see docs for what comes round then."""
        pad = min(math.ceil(_REACH * self.length), max(self.n_rows, self.n_cols))
        wanted = n + 2 * max(pad, _LEAST_PAD)
        n_fft = smooth_length(wanted)
        return Padding(n, (n_fft - n + 1) // 2, n_fft)

    def terms(self) -> tuple[np.ndarray, np.ndarray]:
        """a (rows.n_fft, 1) and b (cols.n_fft // 2 + 1,), float64: the filter is 1 / (a + b).

        On the frequencies of a transform over rows and columns, real over columns.
        """
        scale = 2 * math.pi * self.length
        f_rows = np.fft.fftfreq(self.rows.n_fft)
        f_cols = np.fft.rfftfreq(self.cols.n_fft)
        return ((scale * f_rows) ** 2)[:, None], 1.0 + (scale * f_cols) ** 2


def smooth_length(least: int) -> int:
    """The shortest length from ``least`` on that has no prime factor above 5.

    What scipy.fft.next_fast_len gives for real transforms, without the import of scipy.fft, which
    takes 0.2 s.
    """
    best = 1 << (least - 1).bit_length()  # a power of two
    five = 1
    while five < best:
        three = five
        while three < best:
            twos = -(-least // three)
            best = min(best, three << (twos - 1).bit_length())
            three *= 3
        five *= 5
    return best
