"""Memory policies: how many bytes an engine takes by each, and how many there are."""

from __future__ import annotations

import enum
import sys
from dataclasses import dataclass

import numpy as np

from tomostream_ioc.errors import ArmingError
from tomostream_ioc.recon.filters import fft_length
from tomostream_ioc.recon.geometry import ScanGeometry

#: frames filtered before the ones that they replace are given up
SPARE_FRAMES = 16
#: filtered frames of a chunk: so many, or as many as fit into so many bytes, but a few
_CHUNK_FRAMES = 64
_CHUNK_BYTES = 256 << 20
_CHUNK_LEAST = 8
#: share of the free memory that an engine may take; the rest is for frames that wait, and others
_SHARE = 0.9
_GIB = 1 << 30
_MIB = 1 << 20
#: how libraries say it that have no exception of its own for it
_OUT_OF_MEMORY = (
    "can't allocate memory", "CUDA error: out of memory", "[CUDA]: out of memory", "ALLOC_FAILED",
)  # fmt: skip


class Policy(enum.StrEnum):
    """What lives where, from the fastest to the smallest."""

    ALL = "all on device"  # raw and filtered frames
    RAW_ON_HOST = "raw on host"  # filtered frames on the GPU, raw ones in pinned host memory
    CHUNKED = "chunked"  # raw frames only; filtered ones are made as they are needed

    @property
    def note(self) -> str:
        """What a user should know of it; '' when there is nothing."""
        return {
            Policy.ALL: "",
            Policy.RAW_ON_HOST: "raw on host: raw frames in host memory, a new filter takes longer",
            Policy.CHUNKED: "chunked: raw frames only, updates take longer",
        }[self]


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


@dataclass(frozen=True, slots=True)
class Plan:
    """A policy in figures: where raw frames live, how many filtered ones there are, bytes.

    ``on_device`` is on the device that computes; ``on_host`` beside a GPU (0 without one).
    """

    policy: Policy
    raw_on: str
    n_places: int
    on_device: int
    on_host: int


@dataclass(frozen=True, slots=True)
class Budget:
    """Bytes that an engine may take; None = unknown. ``limited``: by the user, not by the rest."""

    on_device: int | None
    on_host: int | None
    limited: bool
    device: str

    @classmethod
    def now(cls, device: str, limit: int | None = None) -> Budget:
        """Of what is free at this moment; at most ``limit`` on the device that computes."""
        give_back_unused(device)
        host = free_host_bytes()
        free = free_gpu_bytes(device) if device.startswith("cuda") else host
        limited = limit is not None and (free is None or limit < free)
        return cls(limit if limited else free, host, limited, device)

    def holds(self, plan: Plan) -> bool:
        return _fits(plan.on_device, self.on_device) and _fits(plan.on_host, self.on_host)

    def refusal(self, plans: list[Plan]) -> ArmingError:
        """Why none of the plans fits, in the figures of the smallest."""
        least = min(plans, key=lambda plan: plan.on_device)
        on_gpu = self.device.startswith("cuda")
        needed, there = least.on_device, self.on_device
        what = "GPU memory" if on_gpu else "memory"
        limited = self.limited
        if _fits(needed, there):
            needed, there, what = least.on_host, self.on_host, "memory beside the GPU's"
            limited = False
        state = "allowed by --memory-limit" if limited else "free"
        return ArmingError(
            f"The smallest memory policy ({least.policy}) needs {in_words(needed)} of {what}, "
            f"{in_words(there or 0)} are {state}: use fewer angles, binning or a region of interest"
            + (", or a larger limit" if limited else "")
        )


def spare_frames(geometry: ScanGeometry) -> int:
    return min(geometry.n_angles, SPARE_FRAMES)


def chunk_frames(geometry: ScanGeometry, ring_itemsize: int = 2) -> int:
    """Filtered frames that are there at a time by the policy `CHUNKED`."""
    frame_bytes = geometry.n_rows * geometry.n_cols * ring_itemsize
    n = min(max(_CHUNK_BYTES // frame_bytes, _CHUNK_LEAST), _CHUNK_FRAMES)
    return min(n, geometry.n_angles)


def column_rows(n_rows: int) -> int:
    """Rows that a column of the ring of filtered frames takes in memory on the CPU.

    An odd number of cache lines: columns at multiples of a power of two share few places in the
    cache and evict each other. Small frames fit in anyway.
    """
    rows_per_line = 32
    if n_rows < 8 * rows_per_line:
        return n_rows
    return (-(-n_rows // rows_per_line) | 1) * rows_per_line


def bytes_needed(
    geometry: ScanGeometry,
    dtype: np.dtype | str,
    device: str,
    ring_itemsize: int = 2,
    n_places: int | None = None,
) -> BytesNeeded:
    """What an engine for this scan takes on ``device`` (cpu, cuda, cuda:k).

    ``n_places`` filtered frames; None for the whole ring.
    """
    frame = geometry.n_rows * geometry.n_cols
    places = geometry.n_angles + spare_frames(geometry) if n_places is None else n_places
    # the three slices in float64, and one set of float32 on its way out
    sums = (8 + 4) * (2 * frame + geometry.n_cols**2)
    # dark and flat in float64, what is made of them, and what that takes in between
    fields = 6 * frame * 8
    # phase retrieval: the spectrum of a frame with the widest padding, and three frames
    widest = geometry.n_cols + 2 * max(geometry.n_rows, geometry.n_cols)
    fields += 4 * geometry.n_rows * widest + 3 * 4 * frame
    per_row = 4 * fft_length(geometry.n_cols) * 3
    # the GPU transforms whole frames, a few at a time; the CPU small blocks of rows
    block = 8 * geometry.n_rows * per_row + (2 << 30) if device.startswith("cuda") else 64 << 20
    # ring removal: the sum of frames, estimates of stripes, stripes of a row, room for wavelets
    rows = geometry.n_angles * geometry.n_cols
    fields += 8 * frame + (2 * ring_itemsize + 4 + 16) * frame + (ring_itemsize + 32) * rows
    return BytesNeeded(
        raw=geometry.n_angles * frame * np.dtype(dtype).itemsize,
        filtered=places * geometry.n_cols * column_rows(geometry.n_rows) * ring_itemsize,
        sums=sums,
        scratch=fields + block,
    )


def plans(
    geometry: ScanGeometry, dtype: np.dtype | str, device: str, ring_itemsize: int = 2
) -> list[Plan]:
    """What can be done, in the order in which it is tried."""
    chunk = chunk_frames(geometry, ring_itemsize)
    ring = geometry.n_angles + spare_frames(geometry)
    whole = bytes_needed(geometry, dtype, device, ring_itemsize, ring)
    chunked = bytes_needed(geometry, dtype, device, ring_itemsize, chunk)
    everything = Plan(Policy.ALL, device, ring, whole.total, 0)
    only_raw = Plan(Policy.CHUNKED, device, chunk, chunked.total, 0)
    if not device.startswith("cuda"):
        return [everything, only_raw]
    pinned = _pinned_bytes(whole.raw)
    return [
        everything,
        Plan(Policy.RAW_ON_HOST, "cpu", ring, whole.total - whole.raw, pinned),
        Plan(Policy.CHUNKED, "cpu", chunk, chunked.total - chunked.raw, pinned),
        only_raw,  # where the host has less than the GPU
    ]


def give_back_unused(device: str) -> None:
    """torch keeps the memory of earlier arrays on a GPU, and what was pinned for it."""
    if device.startswith("cuda"):
        import torch  # here, as the CPU does without

        torch.cuda.empty_cache()
        torch._C._host_emptyCache()


def free_gpu_bytes(device: str) -> int:
    """Memory of a GPU that an engine may take."""
    import torch

    return int(_SHARE * torch.cuda.mem_get_info(device)[0])


def free_host_bytes() -> int | None:
    """Memory that can be had without swapping, inside the limit of a container; None = unknown."""
    limits = [_meminfo_available(), _cgroup_available()]
    known = [limit for limit in limits if limit is not None]
    return int(_SHARE * min(known)) if known else None


def is_out_of_memory(error: Exception) -> bool:
    """True for what Python, numpy, torch and CUDA's libraries raise when memory is lacking."""
    torch = sys.modules.get("torch")  # without, there is none of its exceptions either
    if isinstance(error, MemoryError) or (torch and isinstance(error, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _OUT_OF_MEMORY)


def in_words(n_bytes: int) -> str:
    return f"{n_bytes / _GIB:.1f} GiB" if n_bytes >= _GIB else f"{n_bytes / _MIB:.1f} MiB"


def _fits(needed: int, there: int | None) -> bool:
    return there is None or needed <= there


def _pinned_bytes(n_bytes: int) -> int:
    """torch takes pinned memory in powers of two."""
    return 1 << max(n_bytes - 1, 0).bit_length()


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
