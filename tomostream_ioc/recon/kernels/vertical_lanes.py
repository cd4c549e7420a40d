"""The inner loop of the vertical slices in LLVM vectors: sums of a run of rows stay in registers."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from tomostream_ioc.recon.kernels.compile import LANES, intrinsic

#: vectors of a run: as many sums as the registers hold beside what is read
_MANY, _FEW = (16, 4) if LANES == 16 else (8, 2)
LONG_RUN, SHORT_RUN = _MANY * LANES, _FEW * LANES
_VECTOR = ir.VectorType(ir.FloatType(), LANES)
_HALVES = ir.VectorType(ir.HalfType(), LANES)
_INDEX = ir.IntType(64)
_FAST = ("nsz", "contract", "reassoc", "arcp")
_LINE_BYTES = 64


def _run(n_vectors: int) -> Any:
    """add(ring, height, place, lower, upper, ahead, point, first, end, row, sums): a run of rows.

    sums[point, i] += sum over k in first..end of lower[point, k] * q[i] + upper[point, k] * p[i]
    for i < n_vectors * LANES, where q are the float16 at ring[place[point, k] + row] on, and p those
    one column further: ``height`` on. What place[point, k + ahead] needs is fetched meanwhile.
    ring (m,) uint16; place int64, lower and upper float32 (points, k + ahead); sums (points, m)
    float32; all C-contiguous.
    """

    @intrinsic
    def add(
        _typing: Any, ring: Any, height: Any, place: Any, lower: Any, upper: Any, ahead: Any,
        point: Any, first: Any, end: Any, row: Any, sums: Any,
    ) -> Any:  # fmt: skip
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            ring_data, place_array, lower_data, upper_data, sum_array = (
                context.make_array(signature.args[i])(context, builder, args[i])
                for i in (0, 2, 3, 4, 10)
            )
            height, ahead, point, first, end, row = args[1], *args[5:10]
            ring_data, lower_data, upper_data = (
                array.data for array in (ring_data, lower_data, upper_data)
            )
            width = builder.extract_value(place_array.shape, 1)
            sum_width = builder.extract_value(sum_array.shape, 1)
            entry = builder.mul(point, width)
            byte_pointer, int32 = ir.IntType(8).as_pointer(), ir.IntType(32)
            prefetch = cgutils.get_or_insert_function(
                builder.module,
                ir.FunctionType(ir.VoidType(), [byte_pointer, int32, int32, int32]),
                "llvm.prefetch.p0",
            )
            how = [ir.Constant(int32, i) for i in (0, 2, 1)]  # to read, into L2, data

            def shifted(index: Any, by: int) -> Any:
                return builder.add(index, ir.Constant(_INDEX, by))

            def vector(data: Any, index: Any, kind: Any) -> Any:
                return builder.bitcast(builder.gep(data, [index]), kind.as_pointer())

            def in_all_lanes(data: Any, index: Any) -> Any:
                undefined = ir.Constant(_VECTOR, ir.Undefined)
                scalar = builder.load(builder.gep(data, [index]))
                scalar = builder.insert_element(undefined, scalar, ir.Constant(int32, 0))
                mask = ir.Constant(ir.VectorType(int32, LANES), [0] * LANES)
                return builder.shuffle_vector(scalar, undefined, mask)

            base = builder.mul(point, sum_width)
            places = [
                vector(sum_array.data, shifted(base, LANES * i), _VECTOR) for i in range(n_vectors)
            ]
            totals = [cgutils.alloca_once(builder, _VECTOR) for _ in places]
            for total, sum_place in zip(totals, places, strict=True):
                builder.store(builder.load(sum_place, align=4), total)
            one = ir.Constant(_INDEX, 1)
            with cgutils.for_range_slice(builder, first, end, one, _INDEX) as (k, _count):
                at = builder.add(entry, k)
                later = builder.gep(place_array.data, [builder.add(at, ahead)])
                later = builder.add(builder.load(later), row)
                weights = in_all_lanes(lower_data, at), in_all_lanes(upper_data, at)
                q = builder.add(builder.load(builder.gep(place_array.data, [at])), row)
                p = builder.add(q, height)
                for column in (later, builder.add(later, height)):
                    for byte in range(0, n_vectors * LANES * 2, _LINE_BYTES):
                        line = builder.gep(ring_data, [shifted(column, byte // 2)])
                        builder.call(prefetch, [builder.bitcast(line, byte_pointer), *how])
                for i, total in enumerate(totals):
                    value = builder.load(total)
                    for column, weight in zip((q, p), weights, strict=True):
                        bits = vector(ring_data, shifted(column, LANES * i), _HALVES)
                        tap = builder.fpext(builder.load(bits, align=2), _VECTOR)
                        tap = builder.fmul(tap, weight, flags=_FAST)
                        value = builder.fadd(value, tap, flags=_FAST)
                    builder.store(value, total)
            for total, sum_place in zip(totals, places, strict=True):
                builder.store(builder.load(total), sum_place, align=4)
            return context.get_dummy_value()

        index = types.intp
        return types.void(
            ring, index, place, lower, upper, index, index, index, index, index, sums
        ), generate

    return add


add_long_run, add_short_run = _run(_MANY), _run(_FEW)
