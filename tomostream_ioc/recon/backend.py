"""Which library computes on which device; makes the two halves of an engine for it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from tomostream_ioc.errors import ConfigError
from tomostream_ioc.recon.backproject import BackProjector
from tomostream_ioc.recon.chain import FilterChain
from tomostream_ioc.recon.geometry import ScanGeometry
from tomostream_ioc.recon.gpu.probe import is_interpreted
from tomostream_ioc.recon.gpu.probe import why_not as triton_missing
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


def resolve_device(device: str) -> str:
    """auto, cpu, cuda or cuda:k -> cpu or cuda:k.

    Raises ConfigError: no such device here.
    """
    if device == "auto":
        return "cuda:0" if torch.cuda.is_available() else "cpu"
    if device == "cpu":
        return "cpu"
    kind, _, number = device.partition(":")
    if kind != "cuda" or (number and not number.isdecimal()):
        raise ConfigError(f"device {device!r} does not exist: use auto, cpu, cuda or cuda:k")
    if not torch.cuda.is_available():
        raise ConfigError(
            f"device {device!r}: torch {torch.__version__} sees no CUDA GPU here, use --device cpu"
        )
    index = int(number or 0)
    if index >= torch.cuda.device_count():
        raise ConfigError(f"device {device!r}: there are {torch.cuda.device_count()} GPUs")
    return f"cuda:{index}"


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
        reason = triton_missing(device)
        library = "torch" if reason else "triton"
        note = f" (not by triton: {reason})" if reason else ""
    elif library == "auto":
        library = "numba" if device == "cpu" and compute == "float32" else "torch"
    if library == "triton":
        if compute != "float32" or (device == "cpu" and not is_interpreted()):
            raise ValueError("triton computes on a GPU, in float32")
        return _triton_backend(geometry, dtype, device, plan, raw)
    if library == "numba":
        if device != "cpu" or compute != "float32":
            raise ValueError("numba computes on the CPU, in float32")
        from tomostream_ioc.recon.kernels.compile import has_half_precision

        if has_half_precision():
            return _numba_backend(geometry, dtype, plan, heartbeat, n_threads, raw)
    return _torch_backend(geometry, dtype, device, plan, compute, raw, note)


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
        f"{workers.n_threads} CPU threads, {_kept(plan, 'ring in memory')}",
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


def _torch_backend(
    geometry: ScanGeometry,
    dtype: np.dtype,
    device: str,
    plan: Plan,
    compute: str,
    raw: RawFrames,
    note: str,
) -> Backend:
    from tomostream_ioc.recon.backproject.torch_ import TorchBackProjector
    from tomostream_ioc.recon.chain.torch_ import TorchFilterChain

    compute_dtype = torch.float64 if compute == "float64" else torch.float32
    ring_dtype = torch.float64 if compute == "float64" else torch.float16
    raw = _torch_raw(geometry, dtype, device, plan, raw)
    shape = (plan.n_places, geometry.n_cols, geometry.n_rows)
    ring = torch.empty(shape, dtype=ring_dtype, device=device)
    return Backend(
        TorchFilterChain(geometry, raw, ring, dtype, compute_dtype),
        TorchBackProjector(geometry, ring, compute_dtype),
        f"{device}{note}, {_raw_place(device, plan)}",
        lambda: None,
        raw,
    )


def _triton_backend(
    geometry: ScanGeometry, dtype: np.dtype, device: str, plan: Plan, raw: RawFrames
) -> Backend:
    from tomostream_ioc.recon.backproject.triton_ import TritonBackProjector
    from tomostream_ioc.recon.chain.triton_ import TritonFilterChain

    raw = _torch_raw(geometry, dtype, device, plan, raw)
    # columns of the ring begin at multiples of 32 bytes, so that they are read 16 bytes at a time
    pitch = -(-geometry.n_rows // 16) * 16
    shape = (plan.n_places, geometry.n_cols, pitch)
    ring = torch.empty(shape, dtype=torch.float16, device=device)[..., : geometry.n_rows]
    chain = TritonFilterChain(geometry, raw, ring, dtype)
    projector = TritonBackProjector(geometry, ring)
    if device != "cpu":  # now, and not while frames come
        chain.warm_up()
        projector.warm_up()
    where = f"{device} by triton, {_raw_place(device, plan)}"
    return Backend(chain, projector, where, lambda: None, raw)


def _raw_place(device: str, plan: Plan) -> str:
    """Where the raw frames are, for the user."""
    place = "on the GPU" if plan.raw_on != "cpu" else "in pinned memory of the host"
    return _kept(plan, f"raw frames {place if device != 'cpu' else 'in memory'}")


def _torch_raw(
    geometry: ScanGeometry, dtype: np.dtype, device: str, plan: Plan, before: torch.Tensor | None
) -> torch.Tensor:
    """Raw frames where the plan wants them, with what was there ``before``."""
    from tomostream_ioc.recon.chain.torch_ import signed_view

    if before is not None and before.device == torch.device(plan.raw_on):
        return before
    raw = torch.empty(
        (geometry.n_angles, geometry.n_rows, geometry.n_cols),
        dtype=torch.from_numpy(signed_view(np.empty(0, dtype))).dtype,
        device=plan.raw_on,
        pin_memory=plan.raw_on == "cpu" and device != "cpu",
    )
    return raw if before is None else raw.copy_(before)


def _kept(plan: Plan, where: str) -> str:
    if plan.policy is Policy.CHUNKED:
        return f"{where.replace('ring', 'raw frames')}, filtered as needed"
    return where
