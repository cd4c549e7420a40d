"""A GPU that is not there: arrays are computed on the CPU, by CUDA's rules of place and order.

What torch and Triton are told is done at once, so that results are right where the code is. Beside
that it is checked what a GPU would not forgive, by vector clocks, whatever order a real one takes:

- tensors of different devices in one operation, kernels launched on another device than the current
- device memory written on one stream and read on another, with nothing waited for in between
- memory given back while another stream still uses it
- pinned memory that is written anew before the copy from it has been waited for
- in the recording of a graph: waiting, copies from ordinary memory, first compilations and plans

A recorded graph runs nothing, and what it was recorded with is what it replays.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

from support.plain_kernels import KERNELS
from support.pretended_kernel import Kernel
from support.pretended_memory import (
    Block,
    CudaTensor,
    NotOnAGpu,
    has_mask,
    inner_of,
    of_gpu,
    spoil,
    tensors,
)  # fmt: skip
from support.pretended_streams import MOST_ACTORS, Accesses, Event, Graph, Stream

#: operations whose results the host waits for
_WAITS = {
    "_local_scalar_dense", "nonzero", "masked_select", "equal", "bincount", "_unique2",
}  # fmt: skip


class PretendedGpu(TorchDispatchMode):
    """``with PretendedGpu() as gpu:`` torch.cuda has ``n_devices`` GPUs of ``n_bytes`` each.

    ``fail_at``: the n-th allocation from now on raises that memory is out, with ``fails_on`` those
    after it as well. ``lost``: everything fails as on a GPU that fell off the bus,
    ``refuses_graphs``: all recording does.
    ``waited`` lists where the host has waited. At its end problems of other moments are raised.
    """

    def __init__(self, n_bytes: int = 8 << 30, n_devices: int = 2):
        super().__init__()
        self.n_bytes, self.n_devices = n_bytes, n_devices
        self.used = 0
        self.fail_at: int | None = None
        self.fails_on = self.lost = self.refuses_graphs = False
        self.waited: list[str] = []
        self.problems: list[str] = []
        self.n_launched = 0
        self.host = np.zeros(MOST_ACTORS, np.int64)
        self.streams: list[Stream] = []
        self._n_actors = 1
        self._current_device = 0
        self._capturing: Graph | None = None
        self._capture_stream: Stream | None = None
        self._made: list[torch.Tensor] = []  # while recording
        self.compiled: set[Any] = set()
        self._planned: set[Any] = set()
        self._pinned: set[int] = set()
        self._on_their_way: list[tuple[int, int, torch.Tensor, torch.Tensor]] = []
        self._stack = contextlib.ExitStack()
        kinds = {"Stream": Stream, "Event": Event, "CUDAGraph": Graph}
        self.kinds: Any = {name: type(name, (kind,), {"gpu": self}) for name, kind in kinds.items()}
        self._current = [self.kinds["Stream"](i) for i in range(n_devices)]

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # its import takes seconds

    # ---- what torch.cuda is here

    def __enter__(self) -> PretendedGpu:
        replaced = self.kinds | {
            "is_available": lambda: True, "device_count": lambda: self.n_devices,
            "current_device": lambda: self._current_device, "_lazy_init": lambda: None,
            "current_stream": self.current_stream, "device": self._on_device,
            "stream": self._on_stream, "synchronize": self.synchronize, "graph": self._record,
            "graph_pool_handle": object, "empty_cache": lambda: None,
            "mem_get_info": lambda device=None: (self.n_bytes - self.used, self.n_bytes),
            "memory_allocated": lambda device=None: self.used,
        }  # fmt: skip
        for name, value in replaced.items():
            self._stack.enter_context(mock.patch.object(torch.cuda, name, value))
        # create: torch that is built for the CPU alone has none
        self._stack.enter_context(mock.patch.object(torch._C, "_host_emptyCache", create=True))
        from tomostream_ioc.recon.gpu import filter as filtering
        from tomostream_ioc.recon.gpu import project

        for name, compute in KERNELS.items():
            module = filtering if hasattr(filtering, name) else project
            kernel = Kernel(self, name, getattr(module, name).arg_names, compute)
            self._stack.enter_context(mock.patch.object(module, name, kernel))
        super().__enter__()
        return self

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        super().__exit__(kind, error, traceback)
        self._stack.close()
        if kind is None:
            self.lost = False
            self.synchronize()
            if self.problems:
                raise NotOnAGpu("; ".join(self.problems))

    @property
    def is_capturing(self) -> bool:
        return self._capturing is not None

    def device_of(self, device: Any) -> torch.device:
        if device is None:
            return torch.device("cuda", self._current_device)
        device = torch.device("cuda", device) if isinstance(device, int) else torch.device(device)
        index = self._current_device if device.index is None else device.index
        return torch.device("cuda", index)

    def current_stream(self, device: Any = None) -> Stream:
        return self._current[self.device_of(device).index]

    @contextlib.contextmanager
    def _on_device(self, device: Any) -> Iterator[None]:
        before, self._current_device = self._current_device, self.device_of(device).index
        try:
            yield
        finally:
            self._current_device = before

    @contextlib.contextmanager
    def _on_stream(self, stream: Stream) -> Iterator[None]:
        index = stream.device.index
        before = self._current[index]
        self._current[index] = stream
        try:
            with self._on_device(stream.device):
                yield
        finally:
            self._current[index] = before

    def synchronize(self, device: Any = None) -> None:
        self.check_alive()
        for stream in self.streams:
            self.host_waits("synchronize", stream.clock)

    @contextlib.contextmanager
    def _record(
        self, graph: Graph, pool: Any = None, stream: Any = None, capture_error_mode: str = "global"
    ) -> Iterator[None]:
        self.synchronize()
        if stream is None:  # as torch has it: one for all, on the device that was the first
            self._capture_stream = self._capture_stream or self.kinds["Stream"]()
            stream = self._capture_stream
        before = self._current_device, self._current[stream.device.index]
        self._current_device, self._current[stream.device.index] = stream.device.index, stream
        self._capturing, self._made = graph, []
        try:
            yield
            if self.refuses_graphs:
                raise RuntimeError("CUDA error: operation failed due to a previous error")
        finally:
            self._capturing = None
            for inner in self._made:
                spoil(inner)
        # only here: torch leaves its stream current where a recording fails
        self._current_device, self._current[stream.device.index] = before

    # ---- memory and order

    def new_actor(self) -> int:
        self._n_actors += 1
        return self._n_actors - 1

    def check_alive(self) -> None:
        if self.lost:
            raise RuntimeError("CUDA error: unspecified launch failure")

    def host_waits(self, where: str, clock: np.ndarray) -> None:
        """The host knows from now on that what is in ``clock`` is done."""
        self.check_alive()
        self.forbid(where)
        self.waited.append(where)
        np.maximum(self.host, clock, out=self.host)
        waiting = []
        for actor, time, source, values in self._on_their_way:
            if time > self.host[actor]:
                waiting.append((actor, time, source, values))
            elif not torch.equal(source.view(torch.uint8), values.view(torch.uint8)):
                raise NotOnAGpu("pinned memory was written before it had been copied")
        self._on_their_way = waiting

    def forbid(self, what: str) -> None:
        """Not while a graph is recorded."""
        if self._capturing is not None:
            raise RuntimeError(f"CUDA error: {what} not permitted when stream is capturing")

    def allocated(self, inner: torch.Tensor, device: torch.device) -> CudaTensor:
        n_bytes = inner.untyped_storage().nbytes()
        fails = False
        if self.fail_at is not None:
            self.fail_at -= 1
            fails = n_bytes > 0 and (self.fail_at == 0 or (self.fails_on and self.fail_at < 0))
        if fails or self.used + n_bytes > self.n_bytes:
            raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {n_bytes} bytes")
        self.used += n_bytes
        return CudaTensor(inner, Block(self, inner, device))

    def free(self, block: Block) -> None:
        self.used -= block.n_bytes
        clock = np.maximum(block.stream.clock, self.host)
        late = [a for a, times in block.reads.items() if len(times) and times.max() > clock[a]]
        late += [int(a) for a in block.written_by[block.written > clock[block.written_by]]]
        if late:
            self.problems.append(f"memory is given back while streams {set(late)} still use it")

    def note(self, accesses: list[tuple[Block, torch.Tensor, bool]], what: str) -> None:
        """The current stream does ``what``."""
        for block, inner, is_written in accesses:
            if not inner.numel():
                continue
            stream = self.current_stream(block.device)
            time = stream.tick()
            part = block.region(inner)
            clock = stream.clock
            if (block.written[part] > clock[block.written_by[part]]).any():
                raise NotOnAGpu(f"{what}: what another stream writes was not waited for")
            if is_written:
                for actor, times in block.reads.items():
                    if (times[part] > clock[actor]).any():
                        raise NotOnAGpu(f"{what}: another stream may still read what it writes")
                block.written_by[part], block.written[part] = stream.actor, time
            else:
                empty = np.zeros(len(block.written), np.int64)
                block.reads.setdefault(stream.actor, empty)[part] = time

    # ---- what is computed

    def launch(self, accesses: Accesses, work: Callable[[], None], what: str) -> bool:
        """On the current stream; False: it is recorded, and is not to be done now."""
        self.check_alive()
        self.n_launched += 1
        if self._capturing is not None:
            self._capturing.works.append((work, accesses))
            return False
        self.note(accesses(), what)
        return True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        flat, _ = tree_flatten((args, kwargs))
        ours = [one for one in flat if isinstance(one, CudaTensor)]
        wanted = kwargs.get("device")
        to_gpu = wanted is not None and torch.device(wanted).type == "cuda"
        if not ours and not to_gpu:
            return self._on_host(func, args, kwargs)
        self.check_alive()
        name = func._schema.name.removeprefix("aten::")
        if name in ("copy_", "_to_copy"):
            return self._copied(name, func, args, kwargs)
        device = ours[0].device if ours else self.device_of(wanted)
        self._check_devices(name, flat, device)
        if name in _WAITS or (name == "index" and has_mask(args)):
            self.host_waits(name, self.current_stream(device).clock)
        if name.startswith("_fft"):
            plan = name, ours[0].shape, ours[0].dtype, str(args[1:])
            if plan not in self._planned:
                self.forbid("the plan of a transform")
            self._planned.add(plan)
        if to_gpu:
            kwargs["device"] = "cpu"
        kwargs.pop("pin_memory", None)
        inner_args, inner_kwargs = tree_map(inner_of, (args, kwargs))
        result = func(*inner_args, **inner_kwargs)
        return self._result(func, args, inner_args, inner_kwargs, ours, result, device)

    def _result(
        self, func: Any, args: Any, inner_args: Any, kwargs: Any, ours: list[CudaTensor],
        result: Any, device: torch.device,
    ) -> Any:  # fmt: skip
        """``result`` as tensors of the GPU; who reads and writes is noted or recorded."""
        blocks = {one.block.data_ptr: one for one in ours if one.block.n_bytes}
        name = func._schema.name.removeprefix("aten::")
        made: list[torch.Tensor] = []

        def wrapped(inner: Any) -> Any:
            if not isinstance(inner, torch.Tensor):
                return inner
            for one in ours:
                if inner is one.inner:
                    return one
            if name in ("empty", "new_empty", "empty_strided", "empty_like", "new_empty_strided"):
                spoil(inner)
            alias = blocks.get(inner.untyped_storage().data_ptr())
            if alias is not None:
                return CudaTensor(inner, alias.block)
            made.append(inner)
            return self.allocated(inner, device)

        out = tree_map(wrapped, result)
        if name == "_local_scalar_dense" or any(
            one.alias_info is not None and not one.alias_info.is_write
            for one in func._schema.returns
        ):
            return out  # a view
        accesses = []
        for spec, arg in zip(func._schema.arguments, args, strict=False):
            is_written = spec.alias_info is not None and spec.alias_info.is_write
            if is_written and self._capturing is not None:
                raise NotImplementedError("torch operations in place while a graph is recorded")
            accesses += [(one.block, one.inner, is_written) for one in of_gpu(arg)]
        accesses += [
            (one.block, one.inner, True)
            for one in of_gpu(out)
            if any(one.inner is inner for inner in made)
        ]

        def again() -> None:
            for new, old in zip(tensors(func(*inner_args, **kwargs)), made, strict=True):
                old.copy_(new)

        self._made += made
        self.launch(lambda: accesses, again, name)
        return out

    def _on_host(self, func: Any, args: Any, kwargs: Any) -> Any:
        pin = kwargs.pop("pin_memory", False)
        result = func(*args, **kwargs)
        if pin:
            self.forbid("cudaHostAlloc")
            spoil(result) if "empty" in func._schema.name else None
            self._pinned.add(result.untyped_storage().data_ptr())
        return result

    def _copied(self, name: str, func: Any, args: Any, kwargs: Any) -> Any:
        """copy_ and _to_copy, between devices and on them."""
        blocking = not (kwargs.get("non_blocking") or (name == "copy_" and len(args) > 2))
        if name == "copy_":
            target, source = args[:2]
        else:
            source = args[0]
            wanted = torch.device(kwargs.get("device") or source.device)
            dtype = kwargs.get("dtype") or source.dtype
            made = torch.empty_like(inner_of(source), dtype=dtype)
            target = made if wanted.type == "cpu" else self.allocated(made, self.device_of(wanted))
        self._copy(target, source, blocking)
        return target

    def _copy(self, target: torch.Tensor, source: torch.Tensor, blocking: bool) -> None:
        to, of = inner_of(target), inner_of(source)
        accesses = [
            (one.block, one.inner, is_written)
            for one, is_written in ((source, False), (target, True))
            if isinstance(one, CudaTensor)
        ]
        device = accesses[-1][0].device
        crosses = not (isinstance(target, CudaTensor) and isinstance(source, CudaTensor))
        is_pinned = crosses and any(
            one.untyped_storage().data_ptr() in self._pinned for one in (to, of)
        )
        if crosses and not is_pinned:
            self.forbid("a copy of ordinary memory")

        def work() -> None:
            to.copy_(of)

        if self.launch(lambda: accesses, work, "copy_"):
            work()
        if not crosses:
            return
        stream = self.current_stream(device)
        if blocking or not is_pinned:
            if blocking or not isinstance(target, CudaTensor):
                self.host_waits("copy", stream.clock)
        elif not isinstance(target, CudaTensor):
            raise NotOnAGpu("a copy to the host that nobody waits for")
        else:
            time = int(stream.clock[stream.actor])
            self._on_their_way.append((stream.actor, time, of, of.clone()))

    def _check_devices(self, name: str, flat: list[Any], device: torch.device) -> None:
        for one in flat:
            if not isinstance(one, torch.Tensor) or one.device == device:
                continue
            if one.dim() == 0 and one.device.type == "cpu":
                continue
            raise NotOnAGpu(f"{name}: tensors on {device} and on {one.device}")
