"""Triton kernels of a GPU that is not there, see pretended_cuda."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from support.pretended_memory import Block, CudaTensor, NotOnAGpu, inner_of

if TYPE_CHECKING:
    from support.pretended_cuda import PretendedGpu

#: parameters that a Triton kernel writes; with index parameters: only these parts of the first axis
_WRITTEN = {
    "log_transmission": ("values", "n_bad", "n_lost"), "bridge": ("values",),
    "multiply": ("spectrum",), "store": ("ring",), "resample": ("lines",),
}  # fmt: skip
_PARTS = {"log_transmission": ("raw", "slots"), "store": ("ring", "places")}


class Kernel:
    """A Triton kernel, with its rules for arguments."""

    def __init__(
        self, gpu: PretendedGpu, name: str, names: list[str], compute: Callable[..., None]
    ):
        self._gpu, self._name, self._names, self._compute = gpu, name, names, compute

    def __getitem__(self, grid: Any) -> Callable[..., None]:
        return lambda *args, **options: self._launched(grid, args, options)

    def _launched(self, grid: Any, args: tuple[Any, ...], options: dict[str, Any]) -> None:
        gpu = self._gpu
        here = gpu.device_of(None)
        by_name = dict(zip(self._names, args, strict=True))
        for name, one in by_name.items():
            if isinstance(one, torch.Tensor) and one.device != here:
                raise NotOnAGpu(f"{self._name}: {name} is on {one.device}, launched on {here}")
        variants = [_variant(one) for name, one in by_name.items() if name != "row"]
        key = self._name, tuple(variants), str(options)
        if key not in gpu.compiled:
            gpu.forbid(f"the compilation of {self._name}")
        gpu.compiled.add(key)
        inner = {name: inner_of(one) for name, one in by_name.items()}
        written = _WRITTEN.get(self._name, ("sums",))
        indexed, index = _PARTS.get(self._name, ("", ""))

        def accesses() -> list[tuple[Block, torch.Tensor, bool]]:
            found = []
            for name, one in by_name.items():
                if not isinstance(one, CudaTensor):
                    continue
                if name == indexed:
                    places = by_name[index].inner[: grid[-1]].tolist()
                    found += [(one.block, one.inner[i], name in written) for i in places]
                else:
                    found.append((one.block, one.inner, name in written))
            return found

        def work() -> None:
            self._compute(grid[-1], **inner)

        if gpu.launch(accesses, work, self._name):
            work()


def _variant(one: Any) -> Any:
    """What Triton compiles a variant for."""
    if isinstance(one, CudaTensor):
        return one.dtype, one.inner.storage_offset() * one.inner.itemsize % 16
    return one
