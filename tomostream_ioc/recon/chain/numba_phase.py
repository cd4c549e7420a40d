"""Phase retrieval on the CPU: 2-D transforms in blocks that stay in the cache, on threads."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.fft

from tomostream_ioc.recon.kernels.contrast import contrast_rows
from tomostream_ioc.recon.phase import PhaseFilter
from tomostream_ioc.recon.preprocess import TRANSMISSION_CEILING, Normalisation
from tomostream_ioc.recon.workers import Workers

#: what pyright knows of its types is wrong
_fft: Any = scipy.fft
#: columns of the spectrum that are transformed at once: two such blocks stay in the L2 cache
_BLOCK_COLS = 32


class NumbaPhase:
    """Retrieves one frame at a time: `begin`, then `finish` for each block of its rows.

    ``retrieved`` (n_rows, n_cols) float32 is the filtered transmission - 1, so that float32 has all
    its digits for weak samples; ``offset`` and ``gain`` turn it back, ``runs`` are none: pixels
    that can't be used were bridged before.
    """

    def __init__(self, phase: PhaseFilter, workers: Workers, block_rows: int):
        self._rows, self._cols = phase.rows, phase.cols
        row_term, col_term = (term.astype(np.float32) for term in phase.terms())
        self._row_term = row_term
        self._col_term = np.repeat(col_term, 2)  # for real and imaginary part
        self._n_freq = len(col_term)
        self._workers = workers
        self._block_rows = block_rows
        shape = (phase.n_rows, phase.n_cols)
        # detector rows are transformed only: those of the padding repeat the first and the last
        self._spectrum = np.empty((phase.n_rows, self._n_freq), np.complex64)
        self.retrieved = np.empty(shape, np.float32)
        self.offset = np.full(shape, -1.0, np.float32)
        self.gain = np.ones(shape, np.float32)
        none = np.empty(0, np.int64)
        self.runs = (np.zeros(phase.n_rows + 1, np.int64), none, none)

    def begin(
        self,
        raw: np.ndarray,
        fields: Normalisation,
        runs: tuple[np.ndarray, np.ndarray, np.ndarray],
        dezinger: int,
    ) -> int:
        """Transform and filter a raw frame; returns how many pixels were NaN beside the runs."""

        def transform_rows(first: int) -> int:
            end = min(first + self._block_rows, self._rows.n)
            contrast = np.empty((end - first, self._cols.n_fft), np.float32)
            n_nan = contrast_rows(
                raw, fields.offset, fields.gain, TRANSMISSION_CEILING, runs, dezinger,
                first, end, contrast,
            )  # fmt: skip
            self._cols.fill(contrast.T)
            self._spectrum[first:end] = _fft.rfft(contrast, axis=1)
            return n_nan

        n_nan = sum(self._workers.map(transform_rows, range(0, self._rows.n, self._block_rows)))
        self._workers.map(self._filter_cols, range(0, self._n_freq, _BLOCK_COLS))
        return n_nan

    def _filter_cols(self, first: int) -> None:
        some = self._spectrum[:, first : first + _BLOCK_COLS]
        padded = np.empty((self._rows.n_fft, some.shape[1]), np.complex64)
        padded[: self._rows.n] = some
        self._rows.fill(padded)
        padded = _fft.fft(padded, axis=0, overwrite_x=True)
        parts = padded.view(np.float32)  # a third of the time of dividing complex numbers
        parts /= self._row_term + self._col_term[2 * first : 2 * (first + _BLOCK_COLS)]
        some[:] = _fft.ifft(padded, axis=0, overwrite_x=True)[: self._rows.n]

    def finish(self, first: int, end: int) -> None:
        """Fill detector rows first..end of ``retrieved``."""
        rows = _fft.irfft(self._spectrum[first:end], n=self._cols.n_fft, axis=1)
        self.retrieved[first:end] = rows[:, : self._cols.n]
