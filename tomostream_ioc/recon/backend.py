"""Which library computes; makes the two halves of an engine with it.

A library is imported when it is the one: that of torch takes a second, which the CPU saves.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tomostream_ioc.recon.backproject import BackProjector
from tomostream_ioc.recon.chain import FilterChain
from tomostream_ioc.recon.geometry import ScanGeometry
from tomostream_ioc.recon.memory import Plan, Policy, column_rows

#: raw frames (n_angles, n_rows, n_cols) in the memory of a backend's library
RawFrames = Any


@dataclass(slots=True, eq=False)
class Backend:
    """The two halves of an engine's arithmetic; ``where`` says what lives where, for the user."""

    chain: FilterChain
    projector: BackProjector
    where: str
    close: Callable[[], None]
    raw: RawFrames

    def release(self) -> RawFrames:
        """Give the memory back, all but the raw frames: a smaller backend may go on with them."""
        raw, self.raw = self.raw, None
        self.chain.release()
        self.projector.release()
        self.close()
        return raw


def make_backend(
    geometry: ScanGeometry,
    dtype: np.dtype,
    device: str,
    plan: Plan,
    library: str,
    compute: str,
    heartbeat: Callable[[], None],
    n_threads: int | None,
    raw: RawFrames = None,
) -> Backend:
    """``library`` auto, numba, torch or triton; ``compute`` float32, or float64 (torch only).

    auto takes numba on the CPU and triton on a GPU where it can be used. ``raw`` are the raw frames
    of a backend before, if there was one. Memory that is not there is an exception of the library:
    memory.is_out_of_memory.
    """
    if library not in ("auto", "numba", "torch", "triton"):
        raise ValueError(f"library {library!r} does not exist: use auto, numba, torch or triton")
    note = ""
    if library == "auto" and compute == "float32" and device != "cpu":
        from tomostream_ioc.recon.gpu.probe import why_not

        reason = why_not(device)
        library = "torch" if reason else "triton"
        note = f" (not by triton: {reason})" if reason else ""
    elif library == "auto":
        library = "numba" if device == "cpu" and compute == "float32" else "torch"
    if library == "triton":
        from tomostream_ioc.recon.gpu.probe import is_interpreted
        from tomostream_ioc.recon.torch_backend import triton_backend

        if compute != "float32" or (device == "cpu" and not is_interpreted()):
            raise ValueError("triton computes on a GPU, in float32")
        return triton_backend(geometry, dtype, device, plan, raw)
    if library == "numba":
        if device != "cpu" or compute != "float32":
            raise ValueError("numba computes on the CPU, in float32")
        from tomostream_ioc.recon.kernels.compile import has_half_precision

        if has_half_precision():
            return _numba_backend(geometry, dtype, plan, heartbeat, n_threads, raw)
    from tomostream_ioc.recon.torch_backend import torch_backend

    return torch_backend(geometry, dtype, device, plan, compute, raw, note)


def _numba_backend(
    geometry: ScanGeometry,
    dtype: np.dtype,
    plan: Plan,
    heartbeat: Callable[[], None],
    n_threads: int | None,
    raw: RawFrames,
) -> Backend:
    from tomostream_ioc.recon.backproject.numba_ import NumbaBackProjector
    from tomostream_ioc.recon.chain.numba_ import NumbaFilterChain
    from tomostream_ioc.recon.workers import Workers

    n_angles, n_rows, n_cols = geometry.n_angles, geometry.n_rows, geometry.n_cols
    # numpy asks for huge pages, which halves the time of the transposed stores
    if raw is None:
        raw = np.empty((n_angles, n_rows, n_cols), dtype)
    ring = _empty_at_lines((plan.n_places, n_cols, column_rows(n_rows)), np.dtype(np.uint16))
    workers = Workers(heartbeat, n_threads)
    return Backend(
        NumbaFilterChain(geometry, raw, ring, workers),
        NumbaBackProjector(geometry, ring, workers),
        f"{workers.n_threads} CPU threads, {kept(plan, 'ring in memory')}",
        workers.close,
        raw,
    )


def _empty_at_lines(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An array that begins with a cache line, so that vectors of that size are not split."""
    line = 64
    n_bytes = math.prod(shape) * dtype.itemsize
    memory = np.empty(n_bytes + line, np.uint8)
    begin = -memory.ctypes.data % line
    return memory[begin : begin + n_bytes].view(dtype).reshape(shape)


def kept(plan: Plan, where: str) -> str:
    if plan.policy is Policy.CHUNKED:
        return f"{where.replace('ring', 'raw frames')}, filtered as needed"
    return where
