"""Phase retrieval with torch: the whole frame in one 2-D transform."""

from __future__ import annotations

import torch
from torch.nn.functional import pad

from tomostream_ioc.recon.phase import PhaseFilter


class TorchPhase:
    """The filter on a device, in float32 or float64."""

    def __init__(self, phase: PhaseFilter, device: torch.device, compute: torch.dtype):
        self._rows, self._cols = phase.rows, phase.cols
        row_term, col_term = phase.terms()
        self._denominator = torch.from_numpy(row_term + col_term).to(device, compute)
        self._before = [one.n_fft - one.n - one.after for one in (self._rows, self._cols)]

    def retrieved(self, contrast: torch.Tensor) -> torch.Tensor:
        """Filtered transmission of contrast (k, n_rows, n_cols), which is transmission - 1."""
        frames = [self._retrieved(frame) for frame in contrast]  # one by one saves memory
        return torch.stack(frames)  # (k, n_rows, n_cols)

    def _retrieved(self, contrast: torch.Tensor) -> torch.Tensor:
        rows, cols = self._rows, self._cols
        top, left = self._before
        sides = (left, cols.after, top, rows.after)
        padded = pad(contrast[None, None], sides, mode="replicate")[0, 0]  # (n_fft, n_fft)
        spectrum = torch.fft.rfft2(padded)
        torch.view_as_real(spectrum).div_(self._denominator[..., None])  # not as complex: faster
        filtered = torch.fft.irfft2(spectrum, s=padded.shape)
        return filtered[top : top + rows.n, left : left + cols.n] + 1.0
