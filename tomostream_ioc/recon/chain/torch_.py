"""Filtering with torch: one code path for CUDA and, as the reference, for the CPU."""

from __future__ import annotations

import numpy as np
import torch

from tomostream_ioc.recon.chain import RING_SCALE
from tomostream_ioc.recon.chain.torch_phase import TorchPhase
from tomostream_ioc.recon.filters import fft_length, response
from tomostream_ioc.recon.geometry import ScanGeometry
from tomostream_ioc.recon.phase import PhaseFilter
from tomostream_ioc.recon.preprocess import (
    TRANSMISSION_CEILING,
    TRANSMISSION_FLOOR,
    Normalisation,
)

#: torch has no arithmetic for these: kept as the signed type of that size, see `to_float`
_SIGNED = {"uint16": np.int16, "uint32": np.int32, "uint64": np.int64}
#: frames transformed together: enough for a GPU, and little memory
_FRAMES = 4
#: the same for single rows of frames
_ROWS = 64
#: rows beside a row that its dezingered values depend on, and one more
_DEZINGER_REACH = 3


def signed_view(frames: np.ndarray) -> np.ndarray:
    """The same bytes in a type that torch has."""
    signed = _SIGNED.get(frames.dtype.name)
    return frames if signed is None else frames.view(signed)


def to_float(pixels: torch.Tensor, name: str, compute: torch.dtype) -> torch.Tensor:
    """Values of pixels of numpy type ``name`` kept by `signed_view`."""
    if name == "uint16":
        return pixels.to(torch.int32).bitwise_and_(0xFFFF).to(compute)
    if name == "uint32":
        return pixels.to(torch.int64).bitwise_and_(0xFFFFFFFF).to(compute)
    if name == "uint64":
        value = pixels.to(torch.float64)
        return torch.where(value < 0, value + 2.0**64, value).to(compute)
    return pixels.to(compute)


class TorchFilterChain:
    """See FilterChain.

    ``raw`` (n_angles, n_rows, n_cols) as `signed_view` has it, on the device or in the host's
    memory; ``ring`` (places, n_cols, n_rows), float16 or float64, on the device.
    """

    def __init__(
        self,
        geometry: ScanGeometry,
        raw: torch.Tensor,
        ring: torch.Tensor,
        dtype: np.dtype,
        compute: torch.dtype,
    ):
        self._geometry = geometry
        self._raw = raw
        self._ring = ring
        self._dtype = dtype
        self._compute = compute
        self._device = ring.device
        self._n_fft = fft_length(geometry.n_cols)
        self._dezinger = 0
        self._phase: TorchPhase | None = None

    def store_raw(self, frames: np.ndarray, slots: np.ndarray) -> None:
        frames = np.ascontiguousarray(frames)
        if not frames.flags.writeable:  # torch would warn; it is only read
            frames = frames.copy()
        if self._raw.device != self._device:
            # `_gathered` may still be reading what is overwritten here
            torch.cuda.current_stream(self._device).synchronize()
        batch = torch.from_numpy(signed_view(frames))  # (k, n_rows, n_cols)
        for pixels, slot in zip(batch, slots.tolist(), strict=True):
            self._raw[slot].copy_(pixels)

    def taken(self) -> None:
        """`store_raw` has waited."""

    def set_fields(self, fields: Normalisation) -> None:
        self._offset = torch.from_numpy(fields.offset).to(self._device)
        self._gain = torch.from_numpy(fields.gain).to(self._device)
        self._unusable = self._gain == 0  # (n_rows, n_cols)
        self._any_unusable = fields.n_bad > 0

    def set_filter(self, filter_type: str) -> None:
        values = -RING_SCALE * response(filter_type, self._n_fft)  # log is -p
        self._response = torch.from_numpy(values).to(self._device, self._compute)

    def set_dezinger(self, size: int) -> None:
        self._dezinger = size

    def set_phase(self, phase: PhaseFilter | None) -> None:
        self._phase = None  # its memory first
        if phase is not None:
            self._phase = TorchPhase(phase, self._device, self._compute)

    def filter(self, slots: np.ndarray, places: np.ndarray) -> int:
        n_nan = 0
        for i in range(0, len(slots), _FRAMES):
            n_nan = self._filter_some(slots[i : i + _FRAMES], places[i : i + _FRAMES])
        return n_nan

    def _filter_some(self, slots: np.ndarray, places: np.ndarray) -> int:
        raw = self._gathered(slots)  # (k, n_rows, n_cols)
        pixels = to_float(raw, self._dtype.name, self._offset.dtype)
        if self._dezinger:
            pixels = without_zingers(pixels, self._dezinger)
        ratio = pixels.sub_(self._offset).mul_(self._gain)
        bad, n_nan = self._bad(ratio)
        if self._phase is not None:
            ratio, bad = self._retrieved(self._phase, ratio, bad), None
        values = ratio.clamp_(TRANSMISSION_FLOOR, TRANSMISSION_CEILING).log_().to(self._compute)
        if bad is not None:
            values = bridged(values, bad)
        spectrum = torch.fft.rfft(values, n=self._n_fft, dim=2)
        spectrum.mul_(self._response)
        filtered = torch.fft.irfft(spectrum, n=self._n_fft, dim=2)[..., : self._geometry.n_cols]
        for row_image, place in zip(filtered, places.tolist(), strict=True):
            self._ring[place].copy_(row_image.T)  # (n_cols, n_rows)
        return n_nan

    def _gathered(self, slots: np.ndarray) -> torch.Tensor:
        """Raw frames of slots (k,) on the device; from pinned memory without waiting for them."""
        if self._raw.device == self._device:
            return torch.stack([self._raw[slot] for slot in slots.tolist()])
        shape = (len(slots), *self._raw.shape[1:])
        gathered = torch.empty(shape, dtype=self._raw.dtype, device=self._device)
        for pixels, slot in zip(gathered, slots.tolist(), strict=True):
            pixels.copy_(self._raw[slot], non_blocking=True)
        return gathered

    def _retrieved(
        self, phase: TorchPhase, ratio: torch.Tensor, bad: torch.Tensor | None
    ) -> torch.Tensor:
        """Transmission (k, n_rows, n_cols) after phase retrieval; bad pixels are bridged before."""
        contrast = ratio.clamp_(-TRANSMISSION_CEILING, TRANSMISSION_CEILING).sub_(1.0)
        if bad is not None:
            contrast = bridged(contrast, bad)
        return phase.retrieved(contrast.to(self._compute))

    def line_integrals(self, slots: np.ndarray, row: int, dezinger: int) -> np.ndarray:
        parts = [slots[i : i + _ROWS] for i in range(0, len(slots), _ROWS)]
        return np.concatenate([self._some_integrals(part, row, dezinger) for part in parts])

    def _some_integrals(self, slots: np.ndarray, row: int, dezinger: int) -> np.ndarray:
        first, end = row, row + 1
        if dezinger:  # its window reaches to the rows beside
            first, end = max(row - _DEZINGER_REACH, 0), row + 1 + _DEZINGER_REACH
        index = torch.from_numpy(slots).to(self._raw.device)
        raw = self._raw[index, first:end].to(self._device)  # (k, few, n_cols)
        pixels = to_float(raw, self._dtype.name, self._offset.dtype)
        if dezinger:
            pixels = without_zingers(pixels, dezinger)
        ratio = (pixels[:, row - first] - self._offset[row]) * self._gain[row]  # (k, n_cols)
        bad = ~torch.isfinite(ratio) | self._unusable[row]
        logs = ratio.clamp_(TRANSMISSION_FLOOR, TRANSMISSION_CEILING).log_().to(self._compute)
        return -bridged(logs, bad).cpu().numpy()

    def _bad(self, ratio: torch.Tensor) -> tuple[torch.Tensor | None, int]:
        """Pixels to bridge (k, n_rows, n_cols), if any, and the number of NaN in the last frame."""
        if self._dtype.kind == "f":
            lost = ~torch.isfinite(ratio)
            if bool(lost.any()):
                n_nan = int((lost[-1] & ~self._unusable).sum())
                return lost | self._unusable, n_nan
        return (self._unusable.expand(ratio.shape) if self._any_unusable else None), 0

    def release(self) -> None:
        self._raw = self._raw.new_empty(0)
        self._ring = self._ring.new_empty(0)
        self._phase = None


def bridged(values: torch.Tensor, bad: torch.Tensor) -> torch.Tensor:
    """``values`` (..., n) with bad ones replaced, see Normalisation."""
    n = values.shape[-1]
    at = torch.arange(n, device=values.device).expand(values.shape)
    left = torch.where(bad, -1, at).cummax(-1).values
    right = torch.where(bad, n, at).flip(-1).cummin(-1).values.flip(-1)
    clean = torch.where(bad, 0.0, values)
    left_value = clean.gather(-1, left.clamp(min=0))
    right_value = clean.gather(-1, right.clamp(max=n - 1))
    left_value = torch.where(left < 0, right_value, left_value)
    right_value = torch.where(right >= n, left_value, right_value)
    share = (at - left) / (right - left).clamp(min=1)
    between = left_value + (right_value - left_value) * share.to(values.dtype)
    return torch.where(bad, between, values)


def without_zingers(pixels: torch.Tensor, size: int) -> torch.Tensor:
    """Pixels (..., n_rows, n) cleaned as kernels.dezinger does; a new tensor."""
    n_rows, n = pixels.shape[-2:]
    shifts = range(-(size // 2), (size - 1) // 2 + 1)
    window = torch.stack(
        [
            pixels[..., _mirrored(n_rows, dr, pixels.device), :][
                ..., _mirrored(n, dc, pixels.device)
            ]
            for dr in shifts
            for dc in shifts
        ]
    )  # (size * size, ..., n_rows, n)
    median = window.kthvalue(size * size // 2 + 1, dim=0).values
    return torch.where((pixels - median).abs() > median.abs() / 2, median, pixels)


def _mirrored(n: int, shift: int, device: torch.device) -> torch.Tensor:
    """Indices 0..n-1 shifted, those outside reflected about the edge."""
    index = torch.arange(n, device=device) + shift
    index = torch.where(index < 0, -1 - index, index)
    return torch.where(index >= n, 2 * n - 1 - index, index).clamp_(0, n - 1)
