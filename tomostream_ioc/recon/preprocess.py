"""Dark and flat fields: what to subtract, what to multiply by, which pixels can't be used."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tomostream_ioc.errors import FieldError
from tomostream_ioc.recon.geometry import ScanGeometry

#: transmissions are kept in here: an opaque (or glaring) pixel must not turn into an infinity
TRANSMISSION_FLOOR = 1e-6
TRANSMISSION_CEILING = 1e6
#: a pixel whose flat - dark is below this share of the median one has no signal
_DEAD_SHARE = 1e-3
#: a uniform flat stands in for one that has not come: this percentile of the first frames
_STAND_IN_PERCENTILE = 99.5
#: medians and percentiles are taken of that many values: more would hold up the stream
_SAMPLES = 1 << 20


@dataclass(frozen=True, eq=False, slots=True)
class Normalisation:
    """transmission = (raw - offset) * gain; p = -log(transmission).

    ``offset`` and ``gain`` are (n_rows, n_cols), 0 at unusable pixels. Runs of unusable pixels,
    ``run_row``, ``run_first`` and ``run_end`` (m,) int64, sorted by row, are bridged in each
    projection: linear between the nearest usable pixels left and right, the nearest one at an edge
    of the detector, p = 0 in a row without any.
    """

    offset: np.ndarray
    gain: np.ndarray
    run_row: np.ndarray
    run_first: np.ndarray
    run_end: np.ndarray
    n_bad: int

    def runs_by_row(self) -> np.ndarray:
        """Index of each row's first run, (n_rows + 1,) int64."""
        return np.searchsorted(self.run_row, np.arange(self.offset.shape[0] + 1)).astype(np.int64)


class Fields:
    """The dark and flat field of a scan; ``version`` grows with every change that matters.

    Without a dark field 0 is used, without a flat field a uniform one: `stand_in`.
    """

    def __init__(self, geometry: ScanGeometry, work_dtype: np.dtype):
        self._shape = (geometry.n_rows, geometry.n_cols)
        self._dtype = work_dtype
        self._dark: np.ndarray | None = None
        self._flat: np.ndarray | None = None
        self._uniform: float | None = None
        self.version = 0

    @property
    def has_flat(self) -> bool:
        return self._flat is not None

    @property
    def ready(self) -> bool:
        """True when there is a flat field or what stands in for it."""
        return self._flat is not None or self._uniform is not None

    def set_dark(self, dark: np.ndarray) -> None:
        """Raises FieldError: wrong shape, not numbers, or no finite value at all."""
        dark = self._checked(dark, "dark")
        if self._dark is None or not np.array_equal(dark, self._dark, equal_nan=True):
            self._dark = dark
            self.version += 1

    def set_flat(self, flat: np.ndarray) -> None:
        """Raises FieldError: wrong shape, not numbers, or no finite value at all."""
        flat = self._checked(flat, "flat")
        if self._flat is None or not np.array_equal(flat, self._flat, equal_nan=True):
            self._flat = flat
            self.version += 1

    def stand_in(self, frames: np.ndarray) -> None:
        """Take a uniform flat from the first frames (k, n_rows, n_cols): about the open beam."""
        samples = _sampled(frames.reshape(-1)).astype(np.float64)
        samples = samples[np.isfinite(samples)]
        self._uniform = float(np.percentile(samples, _STAND_IN_PERCENTILE)) if len(samples) else 1.0
        if self._flat is None:
            self.version += 1

    def reset(self) -> None:
        """Forget what stood in for the flat field; the next first frames give a new one."""
        self._uniform = None

    def normalisation(self) -> Normalisation:
        """Offset, gain and unusable pixels of the fields as they are now."""
        dark = np.zeros(self._shape) if self._dark is None else self._dark
        uniform = 1.0 if self._uniform is None else self._uniform
        flat = np.full(self._shape, uniform) if self._flat is None else self._flat
        with np.errstate(invalid="ignore", over="ignore"):
            signal = flat - dark
            usable = np.isfinite(signal) & (signal > 0)
            if usable.any():
                usual = np.median(_sampled(signal[usable]))
                usable &= signal > _DEAD_SHARE * usual
            gain = np.where(usable, 1.0 / np.where(usable, signal, 1.0), 0.0)
        offset = np.where(usable, dark, 0.0)
        row, first, end = _runs(~usable)
        n_bad = int(usable.size - np.count_nonzero(usable))
        return Normalisation(
            np.ascontiguousarray(offset, self._dtype),
            np.ascontiguousarray(gain, self._dtype),
            row,
            first,
            end,
            n_bad,
        )

    def _checked(self, field: np.ndarray, kind: str) -> np.ndarray:
        field = np.asarray(field)
        if field.shape != self._shape:
            raise FieldError(
                f"{kind} field has shape {field.shape}, the frames have {self._shape} "
                "(rows, columns)"
            )
        if field.dtype.kind not in "uif":
            raise FieldError(f"{kind} field has type {field.dtype}: send numbers")
        field = np.array(field, np.float64)  # the caller may reuse its own
        if not np.isfinite(field).any():
            raise FieldError(f"{kind} field has no finite value: take it again")
        return field


def _sampled(values: np.ndarray) -> np.ndarray:
    """At most about _SAMPLES of the values (k,), evenly; an odd step meets all columns."""
    return values[:: max(1, len(values) // _SAMPLES) | 1]


def _runs(bad: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row, first column and end column of each horizontal run of True in (n_rows, n_cols)."""
    edges = np.diff(bad.astype(np.int8), axis=1, prepend=0, append=0)  # (n_rows, n_cols + 1)
    row, first = np.nonzero(edges == 1)
    _, end = np.nonzero(edges == -1)
    return row.astype(np.int64), first.astype(np.int64), end.astype(np.int64)
