"""Ring removal ``fw``: the stripes of a sinogram by wavelets and Fourier damping.

A detector column that responds wrongly is a stripe of a sinogram, constant along the angle, and a
ring of a slice. Muench et al. 2009 (Opt. Express 17, 8567) decompose the sinogram by a 2-D wavelet
transform, which collects stripes in the bands with details along the columns and none along the
angle, and damp the low angular frequencies of these bands by 1 - exp(-f^2 / (2 sigma^2)).
``sigma``, the wavelet, the level and the padding are those of TomoPy's remove_stripe_fw.

The method is linear: F(S) = S - T(S), where T takes what is damped through the inverse transform.
T is computed here, as only the damped bands are needed for it; all others, which are most of the
work, drop out.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

#: wavelet and width of the damping, in periods per sinogram: TomoPy's defaults
WAVELET = "db5"
SIGMA = 2.0
#: TomoPy goes down to ceil(log2(size)), that is to details as wide as the detector: these hold the
#: sample itself wherever it is round about the axis. 2^5 columns are wider than any ring
MAX_LEVEL = 5
_MODE = "symmetric"


def default_level(n_cols: int) -> int:
    """Levels for sinograms of n_cols columns: as many as there are, MAX_LEVEL at most.

    0 for less than 18 columns: they are too few for the wavelet.
    """
    import pywt  # here and below, as an engine without ring removal does without

    return min(MAX_LEVEL, pywt.dwt_max_level(n_cols, WAVELET))


def stripes(
    sinogram: np.ndarray,
    level: int | None = None,
    wavelet: str = WAVELET,
    sigma: float = SIGMA,
    pad: bool = True,
    heartbeat: Callable[[], None] = lambda: None,
) -> np.ndarray:
    """What `without_stripes` takes away of a sinogram (n_angles, n_cols): the same shape and type.

    float32 or float64; rows are consecutive angles. ``level`` None is `default_level`. ``pad`` puts
    n_angles // 16 rows of zeros before and behind. ``heartbeat`` is called before each level.
    """
    import pywt

    n_angles, n_cols = sinogram.shape
    level = default_level(n_cols) if level is None else level
    n_padded = n_angles + n_angles // 8 if pad else n_angles
    before = (n_padded - n_angles) // 2
    smooth = np.zeros((n_padded, n_cols), sinogram.dtype)
    smooth[before : before + n_angles] = sinogram
    shapes, bands = [], []
    for _ in range(level):
        heartbeat()
        along_angle, _ = pywt.dwt(smooth, wavelet, _MODE, axis=0)
        shapes.append(smooth.shape)
        smooth, details = pywt.dwt(along_angle, wavelet, _MODE, axis=1)
        bands.append(_low_frequencies(details, sigma))
    total = np.zeros_like(smooth)
    for shape, band in zip(reversed(shapes), reversed(bands), strict=True):
        heartbeat()
        total = total[: band.shape[0], : band.shape[1]]
        along_angle = pywt.idwt(total, band, wavelet, _MODE, axis=1)[:, : shape[1]]
        total = pywt.idwt(along_angle, None, wavelet, _MODE, axis=0)[: shape[0]]
    return total[before : before + n_angles, :n_cols]


def without_stripes(
    sinogram: np.ndarray,
    level: int | None = None,
    wavelet: str = WAVELET,
    sigma: float = SIGMA,
    pad: bool = True,
) -> np.ndarray:
    """The sinogram (n_angles, n_cols) without its stripes; parameters as for `stripes`."""
    return sinogram - stripes(sinogram, level, wavelet, sigma, pad)


def constant_stripes(
    mean: np.ndarray,
    level: int | None = None,
    wavelet: str = WAVELET,
    heartbeat: Callable[[], None] = lambda: None,
) -> np.ndarray:
    """The part of `stripes` that does not change with the angle, from the mean over the angles.

    ``mean`` (m, n_cols): m sinograms, each averaged over its angles. Of all bands only the
    frequency 0 along the angle is left, and this is damped to nothing: what remains of the 2-D
    transform is the 1-D one along the columns, of which all details are stripes.
    """
    import pywt

    n_cols = mean.shape[1]
    level = default_level(n_cols) if level is None else level
    smooth, sizes = mean, []
    for _ in range(level):
        heartbeat()
        sizes.append(smooth.shape[1])
        smooth, _ = pywt.dwt(smooth, wavelet, _MODE, axis=1)
    for size in reversed(sizes):
        heartbeat()
        smooth = pywt.idwt(smooth, None, wavelet, _MODE, axis=1)[:, :size]
    return mean - smooth


def _low_frequencies(band: np.ndarray, sigma: float) -> np.ndarray:
    """The share of a band (k, m) that damping takes away: frequencies near 0 along axis 0."""
    k = band.shape[0]
    # TomoPy's frequencies, symmetric about 0: half-way between those of the transform for even k
    frequency = np.fft.ifftshift(np.arange(k) - (k - 1) / 2)
    taken = np.exp(-(frequency**2) / (2 * sigma**2)).astype(band.dtype)
    return np.fft.ifft(np.fft.fft(band, axis=0) * taken[:, None], axis=0).real
