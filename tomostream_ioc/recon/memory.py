"""How many bytes an engine takes and how many there are, on the host and on the GPU."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from tomostream_ioc.errors import ArmingError
from tomostream_ioc.recon.filters import fft_length
from tomostream_ioc.recon.geometry import ScanGeometry

#: frames filtered before the ones that they replace are given up
SPARE_FRAMES = 16
#: share of the free memory that an engine may take; the rest is for frames that wait, and others
_SHARE = 0.9
_GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class BytesNeeded:
    """Memory of one engine; ``raw`` may live on another device than the rest."""

    raw: int
    filtered: int
    sums: int
    scratch: int

    @property
    def total(self) -> int:
        return self.raw + self.filtered + self.sums + self.scratch


def spare_frames(geometry: ScanGeometry) -> int:
    return min(geometry.n_angles, SPARE_FRAMES)


def bytes_needed(
    geometry: ScanGeometry, dtype: np.dtype | str, device: str, ring_itemsize: int = 2
) -> BytesNeeded:
    """What an engine for this scan takes on ``device`` (cpu, cuda, cuda:k)."""
    frame = geometry.n_rows * geometry.n_cols
    places = geometry.n_angles + spare_frames(geometry)
    # the three slices in float64, and one set of float32 on its way out
    sums = (8 + 4) * (2 * frame + geometry.n_cols**2)
    fields = 2 * frame * 8
    per_row = 4 * fft_length(geometry.n_cols) * 3
    # the GPU transforms whole frames, a few at a time; the CPU small blocks of rows
    block = 8 * geometry.n_rows * per_row + (2 << 30) if device.startswith("cuda") else 64 << 20
    # ring removal: the sum of frames, estimates of stripes, stripes of a row, room for wavelets
    rows = geometry.n_angles * geometry.n_cols
    fields += 8 * frame + (2 * ring_itemsize + 4 + 16) * frame + (ring_itemsize + 32) * rows
    return BytesNeeded(
        raw=geometry.n_angles * frame * np.dtype(dtype).itemsize,
        filtered=places * frame * ring_itemsize,
        sums=sums,
        scratch=fields + block,
    )


def raw_device(geometry: ScanGeometry, dtype: np.dtype, device: str, ring_itemsize: int) -> str:
    """Where the raw frames are to live: on ``device`` if they fit beside the rest, else the host.

    Raises ArmingError: not enough memory, with the bytes needed and free.
    """
    need = bytes_needed(geometry, dtype, device, ring_itemsize)
    if not device.startswith("cuda"):
        _require(need.total, free_host_bytes(), "memory")
        return device
    free = int(_SHARE * torch.cuda.mem_get_info(device)[0])
    if need.total <= free:
        return device
    _require(need.total - need.raw, free, "GPU memory")
    _require(need.raw, free_host_bytes(), "memory beside the GPU's")
    return "cpu"


def free_host_bytes() -> int | None:
    """Memory that can be had without swapping, inside the limit of a container; None = unknown."""
    limits = [_meminfo_available(), _cgroup_available()]
    known = [limit for limit in limits if limit is not None]
    return int(_SHARE * min(known)) if known else None


def _require(needed: int, free: int | None, what: str) -> None:
    if free is not None and needed > free:
        raise ArmingError(
            f"The ring needs {needed / _GIB:.1f} GiB of {what}, {free / _GIB:.1f} GiB are free: "
            "use fewer angles, binning or a region of interest"
        )


def _meminfo_available() -> int | None:
    try:
        with open("/proc/meminfo") as lines:
            for line in lines:
                if line.startswith("MemAvailable:"):
                    return 1024 * int(line.split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return None


def _cgroup_available() -> int | None:
    try:
        with (
            open("/sys/fs/cgroup/memory.max") as limit,
            open("/sys/fs/cgroup/memory.current") as used,
        ):
            return int(limit.read()) - int(used.read())
    except (OSError, ValueError):  # no cgroup, or "max": no limit
        return None
