"""Which library computes on which device; makes the two halves of an engine for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from tomostream_ioc.errors import ConfigError
from tomostream_ioc.recon.backproject import BackProjector
from tomostream_ioc.recon.chain import FilterChain
from tomostream_ioc.recon.geometry import ScanGeometry
from tomostream_ioc.recon.memory import Plan, Policy

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
    """``library`` auto, numba or torch; ``compute`` float32, or float64 (torch only).

    ``raw`` are the raw frames of a backend before, if there was one.
    Memory that is not there is an exception of the library: memory.is_out_of_memory.
    """
    if library not in ("auto", "numba", "torch"):
        raise ValueError(f"library {library!r} does not exist: use auto, numba or torch")
    if library == "auto":
        library = "numba" if device == "cpu" and compute == "float32" else "torch"
    if library == "numba":
        if device != "cpu" or compute != "float32":
            raise ValueError("numba computes on the CPU, in float32")
        from tomostream_ioc.recon.kernels.compile import has_half_precision

        if has_half_precision():
            return _numba_backend(geometry, dtype, plan, heartbeat, n_threads, raw)
    return _torch_backend(geometry, dtype, device, plan, compute, raw)


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
    ring = np.empty((plan.n_places, n_cols, n_rows), np.uint16)
    workers = Workers(heartbeat, n_threads)
    return Backend(
        NumbaFilterChain(geometry, raw, ring, workers),
        NumbaBackProjector(geometry, ring, workers),
        f"{workers.n_threads} CPU threads, {_kept(plan, 'ring in memory')}",
        workers.close,
        raw,
    )


def _torch_backend(
    geometry: ScanGeometry,
    dtype: np.dtype,
    device: str,
    plan: Plan,
    compute: str,
    raw: RawFrames,
) -> Backend:
    from tomostream_ioc.recon.backproject.torch_ import TorchBackProjector
    from tomostream_ioc.recon.chain.torch_ import TorchFilterChain

    compute_dtype = torch.float64 if compute == "float64" else torch.float32
    ring_dtype = torch.float64 if compute == "float64" else torch.float16
    raw = _torch_raw(geometry, dtype, device, plan, raw)
    shape = (plan.n_places, geometry.n_cols, geometry.n_rows)
    ring = torch.empty(shape, dtype=ring_dtype, device=device)
    place = "on the GPU" if plan.raw_on != "cpu" else "in pinned memory of the host"
    where = f"raw frames {place if device != 'cpu' else 'in memory'}"
    return Backend(
        TorchFilterChain(geometry, raw, ring, dtype, compute_dtype),
        TorchBackProjector(geometry, ring, compute_dtype),
        f"{device}, {_kept(plan, where)}",
        lambda: None,
        raw,
    )


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
