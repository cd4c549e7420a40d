"""The backends whose arrays are tensors: torch itself, and triton on a GPU."""

from __future__ import annotations

import numpy as np
import torch

from tomostream_ioc.recon.backend import Backend, RawFrames, kept
from tomostream_ioc.recon.backproject.torch_ import TorchBackProjector
from tomostream_ioc.recon.chain.torch_ import TorchFilterChain, signed_view
from tomostream_ioc.recon.geometry import ScanGeometry
from tomostream_ioc.recon.memory import Plan


def torch_backend(
    geometry: ScanGeometry,
    dtype: np.dtype,
    device: str,
    plan: Plan,
    compute: str,
    raw: RawFrames,
    note: str,
) -> Backend:
    """By torch; ``note`` is for the user, behind the device."""
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


def triton_backend(
    geometry: ScanGeometry, dtype: np.dtype, device: str, plan: Plan, raw: RawFrames
) -> Backend:
    """By triton, which is a package of its own."""
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
    return kept(plan, f"raw frames {place if device != 'cpu' else 'in memory'}")


def _torch_raw(
    geometry: ScanGeometry, dtype: np.dtype, device: str, plan: Plan, before: torch.Tensor | None
) -> torch.Tensor:
    """Raw frames where the plan wants them, with what was there ``before``."""
    if before is not None and before.device == torch.device(plan.raw_on):
        return before
    raw = torch.empty(
        (geometry.n_angles, geometry.n_rows, geometry.n_cols),
        dtype=torch.from_numpy(signed_view(np.empty(0, dtype))).dtype,
        device=plan.raw_on,
        pin_memory=plan.raw_on == "cpu" and device != "cpu",
    )
    return raw if before is None else raw.copy_(before)
