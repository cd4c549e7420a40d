"""Which library computes on which device; makes the two halves of an engine for it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from tomostream_ioc.errors import ArmingError, ConfigError
from tomostream_ioc.recon.backproject import BackProjector
from tomostream_ioc.recon.chain import FilterChain
from tomostream_ioc.recon.geometry import ScanGeometry
from tomostream_ioc.recon.memory import column_rows, raw_device


@dataclass(frozen=True, slots=True)
class Backend:
    """The two halves of an engine's arithmetic; ``where`` says what lives where, for the user."""

    chain: FilterChain
    projector: BackProjector
    where: str
    close: Callable[[], None]


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
    n_places: int,
    library: str,
    compute: str,
    heartbeat: Callable[[], None],
    n_threads: int | None,
) -> Backend:
    """``library`` auto, numba or torch; ``compute`` float32, or float64 (torch only).

    Raises ArmingError: not enough memory.
    """
    if library not in ("auto", "numba", "torch"):
        raise ValueError(f"library {library!r} does not exist: use auto, numba or torch")
    if library == "auto":
        library = "numba" if device == "cpu" and compute == "float32" else "torch"
    try:
        if library == "numba":
            if device != "cpu" or compute != "float32":
                raise ValueError("numba computes on the CPU, in float32")
            from tomostream_ioc.recon.kernels.compile import has_half_precision

            if has_half_precision():
                return _numba_backend(geometry, dtype, n_places, heartbeat, n_threads)
        return _torch_backend(geometry, dtype, device, n_places, compute)
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise ArmingError(f"The ring does not fit into memory: {error}") from error


def _numba_backend(
    geometry: ScanGeometry,
    dtype: np.dtype,
    n_places: int,
    heartbeat: Callable[[], None],
    n_threads: int | None,
) -> Backend:
    from tomostream_ioc.recon.backproject.numba_ import NumbaBackProjector
    from tomostream_ioc.recon.chain.numba_ import NumbaFilterChain
    from tomostream_ioc.recon.workers import Workers

    raw_device(geometry, dtype, "cpu", 2)
    n_angles, n_rows, n_cols = geometry.n_angles, geometry.n_rows, geometry.n_cols
    # numpy asks for huge pages, which halves the time of the transposed stores
    raw = np.empty((n_angles, n_rows, n_cols), dtype)
    ring = _empty_at_lines((n_places, n_cols, column_rows(n_rows)), np.dtype(np.uint16))
    workers = Workers(heartbeat, n_threads)
    return Backend(
        NumbaFilterChain(geometry, raw, ring, workers),
        NumbaBackProjector(geometry, ring, workers),
        f"{workers.n_threads} CPU threads, ring in memory",
        workers.close,
    )


def _empty_at_lines(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An array that begins with a cache line, so that vectors of that size are not split."""
    line = 64
    n_bytes = math.prod(shape) * dtype.itemsize
    memory = np.empty(n_bytes + line, np.uint8)
    begin = -memory.ctypes.data % line
    return memory[begin : begin + n_bytes].view(dtype).reshape(shape)


def _torch_backend(
    geometry: ScanGeometry, dtype: np.dtype, device: str, n_places: int, compute: str
) -> Backend:
    from tomostream_ioc.recon.backproject.torch_ import TorchBackProjector
    from tomostream_ioc.recon.chain.torch_ import TorchFilterChain, signed_view

    compute_dtype = torch.float64 if compute == "float64" else torch.float32
    ring_dtype = torch.float64 if compute == "float64" else torch.float16
    raw_on = raw_device(geometry, dtype, device, ring_dtype.itemsize)
    n_angles, n_rows, n_cols = geometry.n_angles, geometry.n_rows, geometry.n_cols
    raw_dtype = torch.from_numpy(signed_view(np.empty(0, dtype))).dtype
    pinned = raw_on == "cpu" and device != "cpu"
    raw = torch.empty((n_angles, n_rows, n_cols), dtype=raw_dtype, device=raw_on, pin_memory=pinned)
    ring = torch.empty((n_places, n_cols, n_rows), dtype=ring_dtype, device=device)
    place = "on the GPU" if raw_on != "cpu" else "in pinned memory of the host"
    return Backend(
        TorchFilterChain(geometry, raw, ring, dtype, compute_dtype),
        TorchBackProjector(geometry, ring, compute_dtype),
        f"{device}, raw frames {place if device != 'cpu' else 'in memory'}",
        lambda: None,
    )
