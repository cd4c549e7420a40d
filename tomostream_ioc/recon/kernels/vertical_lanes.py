"""The inner loop of the vertical slices in LLVM vectors: sums of a run of rows in registers."""

from __future__ import annotations

from typing import Any

from numba import types
from numba.core import cgutils

from tomostream_ioc.recon.kernels.compile import LANES, intrinsic
from tomostream_ioc.recon.kernels.vectors import (
    HALVES,
    INDEX,
    VECTOR,
    add_product,
    after,
    data_of,
    fetch,
    in_all_lanes,
    vector_at,
    width_of,
)

#: vectors of a run: as many sums as the registers hold beside what is read
_MANY, _FEW = (16, 4) if LANES == 16 else (8, 2)
LONG_RUN, SHORT_RUN = _MANY * LANES, _FEW * LANES
_HALVES_PER_LINE = 32


def _run(n_vectors: int) -> Any:
    """add(ring, height, place, lower, upper, ahead, point, first, end, row, sums): a run of rows.

    sums[point, i] += sum over k in first..end of lower[point, k] * q[i] + upper[point, k] * p[i]
    for i < n_vectors * LANES, where q are the float16 at ring[place[point, k] + row] on, and p
    those one column further: ``height`` on. What place[point, k + ahead] needs is fetched
    meanwhile. ring (m,) uint16; place int64, lower and upper float32 (points, k + ahead); sums
    (points, m) float32; all C-contiguous.
    """

    @intrinsic
    def add(
        _typing: Any, ring: Any, height: Any, place: Any, lower: Any, upper: Any, ahead: Any,
        point: Any, first: Any, end: Any, row: Any, sums: Any,
    ) -> Any:  # fmt: skip
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            kinds = signature.args
            halves, places, lowers, uppers, sums_data = (
                data_of(context, builder, kinds[i], args[i]) for i in (0, 2, 3, 4, 10)
            )
            height, ahead, point, first, end, row = args[1], *args[5:10]
            entry = builder.mul(point, width_of(context, builder, kinds[2], args[2]))
            base = builder.mul(point, width_of(context, builder, kinds[10], args[10]))
            targets = [
                vector_at(builder, sums_data, after(builder, base, LANES * i))
                for i in range(n_vectors)
            ]
            totals = [cgutils.alloca_once(builder, VECTOR) for _ in targets]
            for total, target in zip(totals, targets, strict=True):
                builder.store(builder.load(target, align=4), total)
            with cgutils.for_range(builder, end, first, INDEX) as loop:
                at = builder.add(entry, loop.index)
                later = builder.load(builder.gep(places, [builder.add(at, ahead)]))
                later = builder.add(later, row)
                for column in (later, builder.add(later, height)):
                    for i in range(0, n_vectors * LANES, _HALVES_PER_LINE):
                        fetch(builder, halves, after(builder, column, i))
                q = builder.add(builder.load(builder.gep(places, [at])), row)
                columns = (q, builder.add(q, height))
                weights = [
                    in_all_lanes(builder, builder.load(builder.gep(data, [at])))
                    for data in (lowers, uppers)
                ]
                for i, total in enumerate(totals):
                    value = builder.load(total)
                    for column, weight in zip(columns, weights, strict=True):
                        bits = vector_at(builder, halves, after(builder, column, LANES * i), HALVES)
                        tap = builder.fpext(builder.load(bits, align=2), VECTOR)
                        value = add_product(builder, value, tap, weight)
                    builder.store(value, total)
            for total, target in zip(totals, targets, strict=True):
                builder.store(builder.load(total), target, align=4)
            return context.get_dummy_value()

        index = types.intp
        arguments = (ring, index, place, lower, upper, index, index, index, index, index, sums)
        return types.void(*arguments), generate

    return add


add_long_run, add_short_run = _run(_MANY), _run(_FEW)
