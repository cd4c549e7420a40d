"""Where the time of the GPU backend goes, and which sizes suit a card, for bench_gpu.py."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from tomostream_ioc.recon.backproject.triton_ import Tiles, TritonBackProjector
from tomostream_ioc.recon.chain.triton_ import ChainSizes, TritonFilterChain
from tomostream_ioc.recon.geometry import Views, y_slice_line, z_slice_rows
from tomostream_ioc.recon.preprocess import Normalisation

_Z = ((8, 512, 4), (8, 512, 8), (8, 256, 2), (4, 512, 4), (16, 512, 8), (16, 256, 4), (16, 128, 4),
      (8, 1024, 8), (4, 1024, 4), (16, 1024, 8), (32, 512, 8))  # fmt: skip
_VERTICAL = ((16, 256, 4), (8, 256, 4), (32, 256, 4), (16, 512, 4), (16, 512, 8), (8, 512, 4),
             (32, 256, 8), (16, 128, 2), (8, 1024, 4), (4, 1024, 4), (16, 256, 2))  # fmt: skip
_TILTED = ((16, 32, 4), (32, 32, 4), (16, 64, 4), (64, 16, 4), (128, 8, 4), (8, 128, 4))
_LINE = ((256, 4), (128, 4), (512, 4), (1024, 4), (256, 2))


def profile(bench: Any) -> None:
    """torch.profiler's tables."""
    engine, params = bench.engine, bench.params()
    activities = [torch.profiler.ProfilerActivity.CPU]
    if bench.cuda:
        activities.append(torch.profiler.ProfilerActivity.CUDA)

    def update() -> None:
        for i in range(8):
            bench.push(i, 0)
        engine.reconstruct(params)

    def rebuild() -> None:
        engine._sums.invalidate()
        engine.reconstruct(params)

    for name, work in (("eight updates of 16 frames, slices", update), ("rebuild", rebuild)):
        work()
        with torch.profiler.profile(activities=activities) as measured:
            work()
            bench.sync()
        print(name)
        sort = "self_cuda_time_total" if bench.cuda else "self_cpu_time_total"
        table = measured.key_averages().table(sort_by=sort, row_limit=18, max_name_column_width=50)
        print(table)


def tune(bench: Any) -> None:
    """Tiles of each kernel, frames transformed together, lengths of transforms."""
    _projector(bench)
    _chain(bench)
    _transforms(bench)


def _projector(bench: Any) -> None:
    n, n_rows, k = bench.n, bench.n_rows, bench.k
    views = Views.at(np.arange(k), np.deg2rad(bench.theta_deg))
    few = views[:: max(k // 64, 1)]
    center = bench.params().center
    ring = bench.engine._backend.projector._ring
    line = y_slice_line(bench.geometry, n // 2, 0.0)
    rows = z_slice_rows(bench.geometry, n_rows // 2, 3.0)
    z, vertical = (torch.zeros(n, m, dtype=torch.float64, device=ring.device) for m in (n, n_rows))

    def times(name: str, sizes: Iterable[Any], add: Any) -> None:
        results = []
        for size in sizes:
            projector = TritonBackProjector(bench.geometry, ring, replace(Tiles(), **{name: size}))
            try:
                t = bench.seconds(lambda projector=projector: add(projector), 3)
                results.append((1e3 * t, size))
            except Exception as error:  # noqa: BLE001  sizes that this card can't take
                print(f"    {name} {size}: {type(error).__name__} {error}".splitlines()[0])
        for t, size in sorted(results):
            print(f"    {name:10s} {size!s:18s} {t:9.3f} ms")

    times("z", _Z, lambda one: one.add_z(z, views, n_rows // 2, center))
    times("line", _LINE, lambda one: one.add_z(z, views, n_rows // 2, center))
    times("vertical", _VERTICAL, lambda one: one.add_vertical(vertical, views, line, center))
    times("tilted", _TILTED, lambda one: one.add_tilted_z(z, few, rows, center))


def _chain(bench: Any) -> None:
    raw, ring = bench.engine._chain._raw, bench.engine._backend.projector._ring
    k = min(16, bench.k)
    slots = np.arange(k)
    zero, none = np.zeros((bench.n_rows, bench.n), np.float32), np.empty(0, np.int64)
    base = ChainSizes()
    for record in (False, True):
        for sizes in (
            *(replace(base, frames=frames) for frames in (1, 2, 4, 8, 16)),
            replace(base, row=(1024, 4)), replace(base, row=(2048, 8)), replace(base, row=(256, 2)),
            replace(base, store=(32, 64, 4)), replace(base, store=(64, 32, 4)),
            replace(base, store=(16, 64, 4)), replace(base, product=(4, 1024, 4)),
            replace(base, product=(16, 1024, 4)), replace(base, product=(8, 2048, 8)),
        ):  # fmt: skip
            chain = TritonFilterChain(
                bench.geometry, raw, ring, np.dtype("uint16"), sizes, record=record
            )
            chain.set_fields(Normalisation(zero, zero + 1e-4, none, none, none, 0))
            chain.set_filter("Parzen")
            for _ in range(4):
                chain.filter(slots, slots)
            t = bench.seconds(lambda chain=chain: chain.filter(slots, slots), 5)
            print(f"    {k} frames, graph {record!s:5s} {sizes!s:90s} {1e3 * t:9.3f} ms")
    bench.engine._ring.stale[:] = True


def _transforms(bench: Any) -> None:
    """Complex there and back for 8 frames, and real ones, at lengths that hold 2n - 1."""
    least = 2 * bench.n - 1
    lengths = [m for m in range(least, int(1.35 * least)) if _smooth(m)]
    lengths = [*lengths[:: max(len(lengths) // 10, 1)], 2 ** (least - 1).bit_length()]
    pairs = 8 * -(-bench.n_rows // 2)
    for m in sorted({*lengths, bench.engine._chain._n_fft}):
        values = torch.zeros(pairs, m, dtype=torch.complex64, device=bench.options.device)
        there = bench.seconds(lambda values=values: torch.fft.fft(values), 3)
        back = bench.seconds(lambda values=values: torch.fft.ifft(values, norm="forward"), 3)
        real = torch.zeros(2 * pairs, m, device=bench.options.device)
        real_there = bench.seconds(lambda real=real: torch.fft.rfft(real), 3)
        print(
            f"    length {m:6d}: complex {1e3 * there:8.3f} + {1e3 * back:8.3f} ms, "
            f"real forward {1e3 * real_there:8.3f} ms"
        )


def _smooth(m: int) -> bool:
    for p in (2, 3, 5, 7):
        while m % p == 0:
            m //= p
    return m == 1
