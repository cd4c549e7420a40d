"""Which device computes, and memory that it copies from.

Found out without torch where there can be no GPU: its import takes a second and 200 MB.
"""

from __future__ import annotations

import ctypes
import math
from pathlib import Path

import numpy as np

from tomostream_ioc.errors import ConfigError

#: the driver's library, and the device file of the other make whose GPUs torch calls cuda too
_CUDA_DRIVER = "libcuda.so.1"
_ROCM_DEVICE = Path("/dev/kfd")


def resolve_device(device: str) -> str:
    """auto, cpu, cuda or cuda:k -> cpu or cuda:k.

    Raises ConfigError: no such device here.
    """
    if device == "cpu" or (device == "auto" and not _has_driver()):
        return "cpu"
    # only here: what computes on the CPU needs nothing of it
    import torch

    if device == "auto":
        return "cuda:0" if torch.cuda.is_available() else "cpu"
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


def _has_driver() -> bool:
    """False where torch can't see a GPU, as what it would load is not there."""
    if _ROCM_DEVICE.exists():
        return True
    try:
        ctypes.CDLL(_CUDA_DRIVER)
    except OSError:
        return False
    return True


def pinned_empty(shape: tuple[int, ...], dtype: np.dtype | str) -> np.ndarray:
    """Memory that a GPU copies from at full speed, as a numpy array; ordinary where there is none.

    The array keeps the memory alive.
    """
    import torch  # here, as the CPU does without

    n_bytes = math.prod(shape) * np.dtype(dtype).itemsize
    pinned = torch.empty(n_bytes, dtype=torch.uint8, pin_memory=torch.cuda.is_available())
    return pinned.numpy().view(dtype).reshape(shape)
