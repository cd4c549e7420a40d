"""Kernels are compiled, or loaded from disk, before the first frame comes."""

from __future__ import annotations

import numpy as np

from tomostream_ioc.model.frame import FRAME_DTYPES
from tomostream_ioc.model.params import ReconParams
from tomostream_ioc.recon import binning
from tomostream_ioc.recon.engine import OrthoEngine
from tomostream_ioc.recon.geometry import ScanGeometry


def warm_up(device: str = "auto") -> None:
    """Compile the kernels (or load them from disk) and start CUDA before the first frame comes.

    Takes up to a minute the first time. `warm_up_rest` has what no scan begins with.

    Raises ConfigError: no such device.
    """
    for dtype in ("uint16", "uint8"):
        engine = OrthoEngine(ScanGeometry(n_angles=8, n_rows=4, n_cols=8), dtype, device)
        frames = np.ones((8, 4, 8), dtype)
        theta_deg = np.arange(8) * 22.5
        engine.push(frames, theta_deg, np.arange(8))
        params = ReconParams(center=4.0, ortho_x=4, ortho_y=4, ortho_z=2, ring_removal="fw")
        engine.reconstruct(params)
        engine.push(frames, theta_deg, np.arange(8))
        engine.reconstruct(ReconParams(center=4.0, ortho_x=4, ortho_y=4, ortho_z=2, rot_z_deg=1.0))
        engine.release()
        binning.warm_up(np.dtype(dtype))
    binning.warm_up(np.dtype(np.float32))  # of fields


def warm_up_rest(device: str = "auto") -> None:
    """The same for what few need: phase retrieval, and binning of the other pixel types.

    Raises ConfigError: no such device.
    """
    for dtype in ("uint16", "uint8"):
        engine = OrthoEngine(ScanGeometry(n_angles=8, n_rows=4, n_cols=8), dtype, device)
        engine.push(np.ones((8, 4, 8), dtype), np.arange(8) * 22.5, np.arange(8))
        params = ReconParams(
            center=4.0, ortho_x=4, ortho_y=4, ortho_z=2,
            energy_kev=20.0, distance_mm=50.0, alpha=1e-3, pixel_size_um=2.0,
        )  # fmt: skip
        engine.reconstruct(params)
        engine.release()
    for dtype in sorted(FRAME_DTYPES, key=str):
        binning.warm_up(dtype)
