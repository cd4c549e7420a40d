"""What computes here, in a few lines: a figure without its machine says nothing."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import resource

import torch

from tomostream_ioc import __version__
from tomostream_ioc.recon.memory import free_host_bytes
from tomostream_ioc.recon.workers import usable_cpus

_PACKAGES = ("torch", "numba", "numpy", "triton")


def describe(device: str) -> list[str]:
    """Processor, memory, versions, and how busy others keep it."""
    lines = [
        f"tomostream_ioc {__version__}, Python {platform.python_version()}, {_versions()}",
        f"{_processor()}, {usable_cpus()} CPUs usable, "
        f"{(free_host_bytes() or 0) / 2**30:.1f} GiB may be used",
    ]
    if device.startswith("cuda"):
        card = torch.cuda.get_device_properties(device)
        lines.append(f"{card.name}, {card.total_memory / 2**30:.0f} GiB")
    if hasattr(os, "getloadavg"):
        lines.append(f"load before the start: {os.getloadavg()[0]:.1f}")
    return lines


def peak_bytes() -> int:
    """The most memory that this process has had."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if platform.system() == "Darwin" else peak * 1024


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _versions() -> str:
    found: list[str] = []
    for package in _PACKAGES:
        try:
            found.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return ", ".join(found)
