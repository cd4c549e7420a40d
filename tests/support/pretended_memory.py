"""Memory and tensors of a GPU that is not there, see pretended_cuda."""
# pyright: reportIncompatibleMethodOverride=false, reportIncompatibleVariableOverride=false
# pyright: reportAssignmentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils._pytree import tree_flatten

if TYPE_CHECKING:
    from support.pretended_cuda import PretendedGpu

_aten: Any = torch.ops.aten


class NotOnAGpu(AssertionError):  # noqa: N818
    """What works here by chance and would not on a GPU."""


class Block:
    """Memory of one allocation on a device, and who wrote and read which part of it, when."""

    def __init__(self, gpu: PretendedGpu, inner: torch.Tensor, device: torch.device):
        self.gpu, self.device = gpu, device
        self.granule = inner.itemsize
        storage = inner.untyped_storage()
        self.data_ptr, self.n_bytes = storage.data_ptr(), storage.nbytes()
        self.stream = gpu.current_stream(device)
        n = self.n_bytes // self.granule
        # what is taken while a graph is recorded is its own for good
        time = 0 if gpu.is_capturing else self.stream.tick()
        self.written_by = np.full(n, self.stream.actor, np.int16)
        self.written = np.full(n, time, np.int64)
        self.reads: dict[int, np.ndarray] = {}

    def __del__(self) -> None:
        self.gpu.free(self)

    def region(self, inner: torch.Tensor) -> slice | np.ndarray:
        first = inner.storage_offset() * inner.itemsize // self.granule
        if inner.is_contiguous():
            return slice(first, first + -(-inner.numel() * inner.itemsize // self.granule))
        places = torch.arange(self.n_bytes // inner.itemsize)
        places = places.as_strided(inner.shape, inner.stride(), inner.storage_offset())
        return places.reshape(-1).numpy() * inner.itemsize // self.granule


class CudaTensor(torch.Tensor):
    """Claims a GPU; ``inner`` has the values."""

    __torch_function__ = torch._C._disabled_torch_function_impl
    inner: torch.Tensor
    block: Block

    @staticmethod
    def __new__(cls, inner: torch.Tensor, block: Block) -> CudaTensor:
        made = torch.Tensor._make_wrapper_subclass(
            cls, inner.shape, strides=inner.stride(), storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
        )  # fmt: skip
        made.inner, made.block = inner, block
        return made

    def __repr__(self) -> str:
        return f"CudaTensor({self.inner!r})"

    # to torch's own code it is a tensor of the CPU: one of CUDA needs a build for CUDA

    @property
    def device(self) -> torch.device:
        return self.block.device

    @property
    def is_cuda(self) -> bool:
        return True

    def to(self, *args: Any, **options: Any) -> torch.Tensor:
        copy = options.pop("copy", False)
        device, dtype, non_blocking, _ = torch._C._nn._parse_to(*args, **options)
        device, dtype = device or self.device, dtype or self.dtype
        if (device, dtype) == (self.device, self.dtype) and not copy:
            return self
        return _aten._to_copy(self, dtype=dtype, device=device, non_blocking=non_blocking)

    def cpu(self) -> torch.Tensor:
        return self.to("cpu")

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def numpy(self, *, force: bool = False) -> Any:
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu()")

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise NotOnAGpu(f"{func} outside of the pretended GPU")


def inner_of(one: Any) -> Any:
    return one.inner if isinstance(one, CudaTensor) else one


def tensors(values: Any) -> list[torch.Tensor]:
    return [one for one in tree_flatten(values)[0] if isinstance(one, torch.Tensor)]


def of_gpu(values: Any) -> list[CudaTensor]:
    return [one for one in tensors(values) if isinstance(one, CudaTensor)]


def has_mask(args: Any) -> bool:
    return any(one is not None and one.dtype == torch.bool for one in args[1])


def spoil(inner: torch.Tensor) -> None:
    """What is not written is anything."""
    if inner.numel():
        whole = inner.new_empty(0).set_(inner.untyped_storage())
        whole.view(torch.uint8).fill_(0x7B)
