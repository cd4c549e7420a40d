"""Filtering on the GPU: Triton kernels around cuFFT, while the next frames are copied."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from tomostream_ioc.recon.chain.torch_ import TorchFilterChain, signed_view
from tomostream_ioc.recon.geometry import ScanGeometry
from tomostream_ioc.recon.gpu import filter as kernels
from tomostream_ioc.recon.gpu.queue import RECORD_AT, Numbers, Replay, on_device
from tomostream_ioc.recon.memory import spare_frames
from tomostream_ioc.recon.preprocess import Normalisation

#: frames filtered by one call of `TritonFilterChain._filter_some`
_MOST_FRAMES = 64


@dataclass(frozen=True, slots=True)
class ChainSizes:
    """Frames transformed together, columns per step of a detector row, tile of the transposed store
    (pairs of rows x columns) and of the product (rows x numbers), each with its warps.
    """

    frames: int = 8
    row: tuple[int, int] = (512, 4)
    store: tuple[int, int, int] = (32, 32, 4)
    product: tuple[int, int, int] = (8, 1024, 4)


class TritonFilterChain(TorchFilterChain):
    """See FilterChain; what has no kernel here is done by torch.

    ``raw`` (n_angles, n_rows, n_cols) as `signed_view` has it, on the device or in pinned memory of
    the host; ``ring`` (places, n_cols, n_rows) float16 on the device, columns any distance apart.

    Frames are copied on a stream of their own, so that the next ones come while the last ones are
    filtered. `store_raw` returns before they are there; `taken` waits for that.
    """

    def __init__(
        self,
        geometry: ScanGeometry,
        raw: torch.Tensor,
        ring: torch.Tensor,
        dtype: np.dtype,
        sizes: ChainSizes | None = None,
        record: bool = True,
    ):
        super().__init__(geometry, raw, ring, dtype, torch.float32)
        self._sizes = sizes or ChainSizes()
        self._cuda = self._device.type == "cuda"
        self._unsigned = 8 * dtype.itemsize if dtype.name in ("uint16", "uint32", "uint64") else 0
        self._n_pairs = -(-geometry.n_rows // 2)
        frames = min(self._sizes.frames, geometry.n_angles)
        shape = (frames, self._n_pairs, self._n_fft)
        # the second half of each row is padding: zero, and never written to
        self._values = torch.zeros(shape, dtype=torch.complex64, device=self._device)
        per_row = (2, frames, geometry.n_rows)  # unusable, and of those by the raw value
        self._n_bad = torch.zeros(per_row, dtype=torch.int32, device=self._device)
        self._numbers = Numbers(2 * _MOST_FRAMES, torch.int64, self._device)
        self._factor = torch.zeros(self._n_fft, dtype=torch.float32, device=self._device)
        self._replay = Replay("filtering", self._device, record)
        self._has_fields = False
        self._on_host = raw.device != ring.device
        n_staging = 2 * frames if self._on_host else 0
        self._staging = torch.empty(
            (n_staging, *raw.shape[1:]), dtype=raw.dtype, device=self._device
        )
        if self._cuda:
            with on_device(self._device):
                self._copies = torch.cuda.Stream(self._device)
                self._copied, self._read = torch.cuda.Event(), torch.cuda.Event()
                self._read_before = torch.cuda.Event()
        self._reading = np.empty(0, np.int64)
        self._held: list[torch.Tensor] = []  # frames on their way
        self._half = 0

    def store_raw(self, frames: np.ndarray, slots: np.ndarray) -> None:
        if not self._cuda or self._on_host:
            # the frames on their way to the device are read from `_raw`
            self.taken()
            super().store_raw(frames, slots)
            return
        batch = torch.from_numpy(signed_view(_writeable(frames)))  # (k, n_rows, n_cols)
        self._held.append(batch)
        with on_device(self._device), torch.cuda.stream(self._copies):
            # the last batch may still be read while this one is copied to other slots
            overlap = np.isin(slots, self._reading).any()
            self._copies.wait_event(self._read if overlap else self._read_before)
            for first, end in _runs(slots):
                slot = int(slots[first])
                target = self._raw[slot : slot + end - first]
                target.copy_(batch[first:end], non_blocking=True)
            self._copied.record(self._copies)
        torch.cuda.current_stream(self._device).wait_event(self._copied)

    def taken(self) -> None:
        if self._cuda:
            self._copied.synchronize()
        self._held.clear()

    def set_fields(self, fields: Normalisation) -> None:
        with on_device(self._device):
            if self._has_fields:  # in place: recorded work goes on reading these
                self._offset.copy_(torch.from_numpy(fields.offset))
                self._gain.copy_(torch.from_numpy(fields.gain))
                self._unusable = self._gain == 0  # (n_rows, n_cols)
                self._any_unusable = fields.n_bad > 0
            else:
                super().set_fields(fields)
                self._has_fields = True

    def set_filter(self, filter_type: str) -> None:
        super().set_filter(filter_type)
        half = self._response  # (n_fft / 2 + 1,), real: the rest mirrors it
        whole = torch.cat((half, half[1 : self._n_fft - len(half) + 1].flip(0)))
        self._factor.copy_(whole / self._n_fft)  # the inverse transform is not scaled

    def filter(self, slots: np.ndarray, places: np.ndarray) -> int:
        n_lost = 0
        with on_device(self._device):
            if self._phase is not None:
                with self._noted(slots):
                    return super().filter(slots, places)
            for i in range(0, len(slots), _MOST_FRAMES):
                part = slice(i, i + _MOST_FRAMES)
                n_lost = self._filter_part(slots[part], places[part])
        return n_lost

    def _filter_part(self, slots: np.ndarray, places: np.ndarray) -> int:
        k = len(slots)
        numbers = self._numbers.host()
        numbers[:k], numbers[_MOST_FRAMES : _MOST_FRAMES + k] = slots, places
        self._numbers.send()
        if self._on_host:
            self._filter_from_host(slots)
        else:
            key = (k, self._dezinger, self._marks)
            with self._noted(slots):
                self._replay.run(key, lambda: self._filter_from_device(k))
        if self._dtype.kind != "f":
            return 0
        last = (k - 1) % len(self._values)
        return int(self._n_bad[1, last].sum())

    @property
    def _marks(self) -> bool:
        """Whether there may be pixels to bridge."""
        return self._any_unusable or self._dtype.kind == "f"

    def _filter_from_device(self, k: int) -> None:
        size, numbers = len(self._values), self._numbers.on_device
        slots, places = numbers[:_MOST_FRAMES], numbers[_MOST_FRAMES:]
        for i in range(0, k, size):
            n = min(size, k - i)
            self._filter_some_frames(self._raw, slots[i : i + n], places[i : i + n], n)

    def _filter_from_host(self, slots: np.ndarray) -> None:
        """Two halves of the staging buffer: one is copied to while the other is read."""
        k, size = len(slots), len(self._values)
        places = self._numbers.on_device[_MOST_FRAMES:]
        in_order = torch.arange(size, device=self._device)
        for i in range(0, k, size):
            n = min(size, k - i)
            half = self._staging[size * self._half :][:size]
            self._half = 1 - self._half
            self._stage(half, slots[i : i + n])
            with self._noted(slots[i : i + n]):
                self._filter_some_frames(half, in_order[:n], places[i : i + n], n)

    @contextmanager
    def _noted(self, slots: np.ndarray) -> Iterator[None]:
        """What is launched in here reads raw frames of slots (k,), also when memory runs out."""
        try:
            yield
        finally:
            if self._cuda:
                self._read, self._read_before = self._read_before, self._read
                self._read.record()
                self._reading = slots.copy()

    def _stage(self, half: torch.Tensor, slots: np.ndarray) -> None:
        if not self._cuda:
            for target, slot in zip(half, slots.tolist(), strict=False):
                target.copy_(self._raw[slot])
            return
        with torch.cuda.stream(self._copies):
            self._copies.wait_event(self._read_before)
            for target, slot in zip(half, slots.tolist(), strict=False):
                target.copy_(self._raw[slot], non_blocking=True)
            self._copied.record(self._copies)
        torch.cuda.current_stream().wait_event(self._copied)

    def _filter_some_frames(
        self, raw: torch.Tensor, slots: torch.Tensor, places: torch.Tensor, k: int
    ) -> None:
        """Raw frames raw[slots] into places; everything is launched, nothing waited for."""
        self._to_logs(raw, slots, k)
        spectrum = torch.fft.fft(self._values[:k])
        self._multiply(spectrum)
        self._to_ring(torch.fft.ifft(spectrum, norm="forward"), places)  # not scaled

    def _to_logs(self, raw: torch.Tensor, slots: torch.Tensor, k: int) -> None:
        n, n_rows, n_fft = self._geometry.n_cols, self._geometry.n_rows, self._n_fft
        values = torch.view_as_real(self._values)  # (frames, n_pairs, n_fft, 2)
        block, warps = self._sizes.row
        kernels.log_transmission[self._n_pairs, k](
            raw, slots, self._offset, self._gain, values, self._n_bad[0], self._n_bad[1],
            n, n_rows, self._n_pairs, n_fft,
            self._unsigned, self._dezinger, self._marks, block, num_warps=warps,
        )  # fmt: skip
        if self._marks:
            kernels.bridge[n_rows, k](
                values, self._n_bad[0], n, n_rows, self._n_pairs, n_fft, _power_of_two(n),
                num_warps=8,
            )  # fmt: skip

    def _multiply(self, spectrum: torch.Tensor) -> None:
        """Spectrum (k, n_pairs, n_fft) complex times the response, in place."""
        n_rows = spectrum.shape[0] * spectrum.shape[1]
        rows, block, warps = self._sizes.product
        kernels.multiply[_blocks(2 * self._n_fft, block), _blocks(n_rows, rows)](
            torch.view_as_real(spectrum), self._factor, n_rows,
            self._n_fft, rows, block, num_warps=warps,
        )  # fmt: skip

    def _to_ring(self, filtered: torch.Tensor, places: torch.Tensor) -> None:
        n, n_rows, n_pairs = self._geometry.n_cols, self._geometry.n_rows, self._n_pairs
        pairs, cols, warps = self._sizes.store
        kernels.store[_blocks(n, cols), _blocks(n_pairs, pairs), len(filtered)](
            torch.view_as_real(filtered), places, self._ring,
            n, n_rows, n_pairs, self._n_fft, self._ring.stride(1), pairs, cols, num_warps=warps,
        )  # fmt: skip

    def warm_up(self) -> None:
        """Compile the kernels for this geometry, plan the transforms, record the usual batch."""
        shape = (self._geometry.n_rows, self._geometry.n_cols)
        wide = self._dtype.itemsize > 2 and self._dtype != np.float32
        zero = np.zeros(shape, np.float64 if wide else np.float32)
        none = np.empty(0, np.int64)
        batch = np.zeros(spare_frames(self._geometry), np.int64)
        self.set_filter("Ramp")
        for n_bad in (1, 0):  # with bad pixels, and without
            self.set_fields(Normalisation(zero, zero + 1, none, none, none, n_bad))
            for _ in range(RECORD_AT):
                self.filter(batch, batch)

    def release(self) -> None:
        if self._cuda:
            torch.cuda.synchronize(self._device)
        super().release()
        self._replay.clear()
        self._values, self._staging = self._values.new_empty(0), self._staging.new_empty(0)
        if self._has_fields:
            self._offset, self._gain = self._offset.new_empty(0), self._gain.new_empty(0)
            self._unusable = self._unusable.new_empty(0)


def _writeable(frames: np.ndarray) -> np.ndarray:
    """C-contiguous frames that torch takes; a copy only where it must be."""
    frames = np.ascontiguousarray(frames)
    return frames if frames.flags.writeable else frames.copy()


def _runs(slots: np.ndarray) -> list[tuple[int, int]]:
    """First and end index of each run of slots (k,) that grow by one."""
    cuts = np.flatnonzero(np.diff(slots) != 1) + 1
    return list(zip([0, *cuts.tolist()], [*cuts.tolist(), len(slots)], strict=True))


def _blocks(n: int, size: int) -> int:
    return -(-n // size)


def _power_of_two(n: int) -> int:
    return 1 << (n - 1).bit_length()
