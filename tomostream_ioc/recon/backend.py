"""Which library computes on which device; makes the two halves of an engine for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from tomostream_ioc.errors import ArmingError, ConfigError
from tomostream_ioc.recon.backproject import BackProjector
from tomostream_ioc.recon.chain import FilterChain
from tomostream_ioc.recon.geometry import ScanGeometry
from tomostream_ioc.recon.gpu.probe import is_interpreted
from tomostream_ioc.recon.gpu.probe import why_not as triton_missing
from tomostream_ioc.recon.memory import raw_device


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
    """``library`` auto, numba, torch or triton; ``compute`` float32, or float64 (torch only).

    auto takes numba on the CPU and triton on a GPU where it can be used. Raises ArmingError: not
    enough memory.
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
    try:
        if library == "triton":
            if compute != "float32" or (device == "cpu" and not is_interpreted()):
                raise ValueError("triton computes on a GPU, in float32")
            return _triton_backend(geometry, dtype, device, n_places)
        if library == "numba":
            if device != "cpu" or compute != "float32":
                raise ValueError("numba computes on the CPU, in float32")
            from tomostream_ioc.recon.kernels.compile import has_half_precision

            if has_half_precision():
                return _numba_backend(geometry, dtype, n_places, heartbeat, n_threads)
        return _torch_backend(geometry, dtype, device, n_places, compute, note)
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
    ring = np.empty((n_places, n_cols, n_rows), np.uint16)
    workers = Workers(heartbeat, n_threads)
    return Backend(
        NumbaFilterChain(geometry, raw, ring, workers),
        NumbaBackProjector(geometry, ring, workers),
        f"{workers.n_threads} CPU threads, ring in memory",
        workers.close,
    )


def _torch_backend(
    geometry: ScanGeometry,
    dtype: np.dtype,
    device: str,
    n_places: int,
    compute: str,
    note: str,
) -> Backend:
    from tomostream_ioc.recon.backproject.torch_ import TorchBackProjector
    from tomostream_ioc.recon.chain.torch_ import TorchFilterChain

    compute_dtype = torch.float64 if compute == "float64" else torch.float32
    ring_dtype = torch.float64 if compute == "float64" else torch.float16
    raw, place = _raw_frames(geometry, dtype, device, ring_dtype.itemsize)
    ring = torch.empty(
        (n_places, geometry.n_cols, geometry.n_rows), dtype=ring_dtype, device=device
    )
    return Backend(
        TorchFilterChain(geometry, raw, ring, dtype, compute_dtype),
        TorchBackProjector(geometry, ring, compute_dtype),
        f"{device}{note}, {place}",
        lambda: _give_back(device),
    )


def _triton_backend(geometry: ScanGeometry, dtype: np.dtype, device: str, n_places: int) -> Backend:
    from tomostream_ioc.recon.backproject.triton_ import TritonBackProjector
    from tomostream_ioc.recon.chain.triton_ import TritonFilterChain

    raw, place = _raw_frames(geometry, dtype, device, 2)
    # columns of the ring begin at multiples of 32 bytes, so that they are read 16 bytes at a time
    pitch = -(-geometry.n_rows // 16) * 16
    ring = torch.empty((n_places, geometry.n_cols, pitch), dtype=torch.float16, device=device)
    ring = ring[..., : geometry.n_rows]
    chain = TritonFilterChain(geometry, raw, ring, dtype)
    projector = TritonBackProjector(geometry, ring)
    if device != "cpu":  # now, and not while frames come
        chain.warm_up()
        projector.warm_up()
    return Backend(chain, projector, f"{device} by triton, {place}", lambda: _give_back(device))


def _raw_frames(
    geometry: ScanGeometry, dtype: np.dtype, device: str, ring_itemsize: int
) -> tuple[torch.Tensor, str]:
    """Memory for the raw frames (n_angles, n_rows, n_cols), and where it is, for the user."""
    from tomostream_ioc.recon.chain.torch_ import signed_view

    raw_on = raw_device(geometry, dtype, device, ring_itemsize)
    shape = (geometry.n_angles, geometry.n_rows, geometry.n_cols)
    raw_dtype = torch.from_numpy(signed_view(np.empty(0, dtype))).dtype
    pinned = raw_on == "cpu" and device != "cpu"
    raw = torch.empty(shape, dtype=raw_dtype, device=raw_on, pin_memory=pinned)
    if device == "cpu":
        return raw, "raw frames in memory"
    place = "on the GPU" if raw_on != "cpu" else "in pinned memory of the host"
    return raw, f"raw frames {place}"


def _give_back(device: str) -> None:
    """What was freed on the GPU is there for others: the next engine asks how much is free."""
    if device != "cpu":
        with torch.cuda.device(device):
            torch.cuda.empty_cache()
