"""Whether Triton can be used here: it is a package of its own, and builds its launcher on site."""

from __future__ import annotations

import os
import subprocess

import torch

from tomostream_ioc.recon.gpu.queue import on_device
from tomostream_ioc.recon.memory import is_out_of_memory


def is_interpreted() -> bool:
    """True where kernels are interpreted on the CPU, for tests."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def why_not(device: str) -> str | None:
    """None if kernels can be compiled for this GPU and run on it, else the reason."""
    try:
        from triton.errors import TritonError

        from tomostream_ioc.recon.gpu import filter as kernels
    except ImportError as error:
        return str(error)
    spectrum = torch.ones((1, 16, 2), device=device)
    response = torch.arange(16.0, device=device)
    try:
        with on_device(torch.device(device)):
            kernels.multiply[1, 1](spectrum, response, 1, 16, 1, 32, num_warps=1)
        right = torch.equal(spectrum[0, :, 1], response)
    # what Triton raises without a C compiler or the headers of Python, where it does not find the
    # driver's library (AssertionError), or for an unknown GPU
    except (
        TritonError, RuntimeError, OSError, ValueError, AssertionError, ImportError,
        subprocess.SubprocessError,
    ) as error:  # fmt: skip
        if is_out_of_memory(error):
            raise  # that is not Triton's fault, and a smaller memory policy may be taken
        return f"{type(error).__name__}: {error}".splitlines()[0]
    return None if right else "its kernels give wrong numbers on this GPU"
