"""Filtering SAMPLE zero-padded rows by a Fourier transform that stays in the cache."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tomostream_ioc.recon.kernels.compile import kernel
from tomostream_ioc.recon.kernels.fft_lanes import (
    backward2,
    backward3,
    backward4,
    backward4_padded,
    backward5,
    filter4,
    forward2,
    forward3,
    forward4,
    forward4_padded,
    forward5,
)

#: samples of a part of the transform that stays in L1
_INNER = 256


@dataclass(frozen=True, eq=False, slots=True)
class FftPlan:
    """Decimation in frequency forward, its adjoint backward: no reordering between them.

    ``radices`` (passes,) of all but the last pass, which is of radix 4, as is the first;
    ``lengths`` of the transforms that each pass splits; ``tables`` one array of twiddle factors,
    ``starts`` where each pass begins in it; ``frequencies`` (n_fft,) which frequency is where in
    between; ``n_outer`` passes are done on the whole, the rest in parts that stay in L1.
    """

    n_fft: int
    radices: np.ndarray
    lengths: np.ndarray
    tables: np.ndarray
    starts: np.ndarray
    frequencies: np.ndarray
    n_outer: int

    @classmethod
    def of_length(cls, n_fft: int) -> FftPlan:
        """Raises ValueError: not 16 times a product of 2, 3 and 5."""
        rest, radices = n_fft // 16, [4]
        if rest * 16 != n_fft:
            raise ValueError(f"n_fft {n_fft} is no multiple of 16")
        for radix in (5, 3, 4, 2):
            while rest % radix == 0:
                radices.append(radix)
                rest //= radix
        if rest != 1:
            raise ValueError(f"n_fft {n_fft} has a prime factor above 5")
        lengths = [n_fft]
        for radix in radices[:-1]:
            lengths.append(lengths[-1] // radix)
        tables, starts = [], []
        for radix, length in zip(radices, lengths, strict=True):
            starts.append(sum(len(table) for table in tables))
            j, p = np.arange(length // radix)[:, None], np.arange(1, radix)[None, :]
            angle = -2 * np.pi * j * p / length  # (length / radix, radix - 1)
            tables.append(np.stack((np.cos(angle), np.sin(angle)), -1).ravel())
        frequencies = np.arange(4)
        for radix in radices[::-1]:
            frequencies = np.concatenate([p + radix * frequencies for p in range(radix)])
        n_outer = sum(length > _INNER for length in lengths)
        return cls(
            n_fft,
            np.array(radices),
            np.array(lengths),
            np.concatenate(tables).astype(np.float32),
            np.array(starts),
            frequencies,
            max(n_outer, 1),
        )

    def in_order(self, response: np.ndarray) -> np.ndarray:
        """``response`` (n_fft//2 + 1,) of a real filter, float32, in the order of the transform."""
        frequency = np.minimum(self.frequencies, self.n_fft - self.frequencies)
        return (response[frequency] / self.n_fft).astype(np.float32)


@kernel
def filter_samples(data, radices, lengths, tables, starts, response, n_outer):
    """Convolve in place: data (n_fft * SAMPLE,) float32, zero (and not read) from the middle on.

    ``response`` as `FftPlan.in_order` gives it. Only the first half of the result is written.
    """
    n_fft = len(response)
    n_passes = len(radices)
    quarter = n_fft // 4
    for j in range(quarter):
        forward4_padded(data, j, quarter, tables, 6 * j)
    for i in range(1, n_outer):
        for base in range(0, n_fft, lengths[i]):
            _forward(data, base, lengths[i], radices[i], tables, starts[i])
    inner = lengths[n_outer] if n_outer < n_passes else 4
    for block in range(0, n_fft, inner):
        for i in range(n_outer, n_passes):
            for base in range(block, block + inner, lengths[i]):
                _forward(data, base, lengths[i], radices[i], tables, starts[i])
        for sample in range(block, block + inner, 4):
            filter4(data, sample, response)
        for i in range(n_passes - 1, n_outer - 1, -1):
            for base in range(block, block + inner, lengths[i]):
                _backward(data, base, lengths[i], radices[i], tables, starts[i])
    for i in range(n_outer - 1, 0, -1):
        for base in range(0, n_fft, lengths[i]):
            _backward(data, base, lengths[i], radices[i], tables, starts[i])
    for j in range(quarter):
        backward4_padded(data, j, quarter, tables, 6 * j)


@kernel
def _forward(data, base, length, radix, tables, start):
    stride = length // radix
    if radix == 4:
        for j in range(stride):
            forward4(data, base + j, stride, tables, start + 6 * j)
    elif radix == 5:
        for j in range(stride):
            forward5(data, base + j, stride, tables, start + 8 * j)
    elif radix == 3:
        for j in range(stride):
            forward3(data, base + j, stride, tables, start + 4 * j)
    else:
        for j in range(stride):
            forward2(data, base + j, stride, tables, start + 2 * j)


@kernel
def _backward(data, base, length, radix, tables, start):
    stride = length // radix
    if radix == 4:
        for j in range(stride):
            backward4(data, base + j, stride, tables, start + 6 * j)
    elif radix == 5:
        for j in range(stride):
            backward5(data, base + j, stride, tables, start + 8 * j)
    elif radix == 3:
        for j in range(stride):
            backward3(data, base + j, stride, tables, start + 4 * j)
    else:
        for j in range(stride):
            backward2(data, base + j, stride, tables, start + 2 * j)
