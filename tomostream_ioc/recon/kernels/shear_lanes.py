"""The inner loop of the z slice in LLVM vectors: sums of a strip of pixels stay in registers."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from tomostream_ioc.recon.kernels.compile import LANES, intrinsic

#: vectors of a strip: as many sums as the registers hold beside what is read
_MANY, _FEW = (16, 4) if LANES == 16 else (8, 2)
WIDE_STRIP, NARROW_STRIP = _MANY * LANES, _FEW * LANES
_VECTOR = ir.VectorType(ir.FloatType(), LANES)
_INDEX = ir.IntType(64)
_FAST = ("nsz", "contract", "reassoc", "arcp")


def _strip(n_vectors: int) -> Any:
    """add(windows, start, weight, row, n_views, column, sums): a strip of one image row.

    sums[row, column + i] += sum over k < n_views of (1 - w) * l[i] + w * l[i + 1], where l is
    windows[k] from start[row, k] + column on, w is weight[row, k] and i < n_vectors * LANES.
    windows (k, m) float32 is read for up to LANES floats more; start int32 and weight float32
    (rows, k); sums (rows, m) float32; all C-contiguous.
    """

    @intrinsic
    def add(
        _typing: Any, windows: Any, start: Any, weight: Any, row: Any, n_views: Any, column: Any,
        sums: Any,
    ) -> Any:  # fmt: skip
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            line_array, start_array, weight_array, sum_array = (
                context.make_array(signature.args[i])(context, builder, args[i])
                for i in (0, 1, 2, 6)
            )
            row, end, column = args[3:6]
            first = ir.Constant(_INDEX, 0)
            length, table_width, sum_width = (
                builder.extract_value(array.shape, 1)
                for array in (line_array, start_array, sum_array)
            )
            entry = builder.mul(row, table_width)
            at = builder.add(builder.mul(row, sum_width), column)

            def vector_at(base: Any, index: Any) -> Any:
                return builder.bitcast(builder.gep(base, [index]), _VECTOR.as_pointer())

            def shifted(index: Any, by: int) -> Any:
                return builder.add(index, ir.Constant(_INDEX, by))

            places = [
                vector_at(sum_array.data, shifted(at, LANES * i)) for i in range(n_vectors)
            ]
            totals = [cgutils.alloca_once(builder, _VECTOR) for _ in places]
            for total, place in zip(totals, places, strict=True):
                builder.store(builder.load(place, align=4), total)
            one = ir.Constant(_VECTOR, [1.0] * LANES)
            undefined = ir.Constant(_VECTOR, ir.Undefined)
            lane_index = ir.VectorType(ir.IntType(32), LANES)
            to_all = ir.Constant(lane_index, [0] * LANES)
            by_one = ir.Constant(lane_index, [i + 1 for i in range(LANES)])
            with cgutils.for_range_slice(builder, first, end, ir.Constant(_INDEX, 1), _INDEX) as (
                k, _count,
            ):  # fmt: skip
                at_entry = builder.add(entry, k)
                offset = builder.load(builder.gep(start_array.data, [at_entry]))
                offset = builder.add(builder.sext(offset, _INDEX), column)
                offset = builder.add(offset, builder.mul(k, length))
                scalar = builder.load(builder.gep(weight_array.data, [at_entry]))
                scalar = builder.insert_element(undefined, scalar, ir.Constant(ir.IntType(32), 0))
                upper = builder.shuffle_vector(scalar, undefined, to_all)
                lower = builder.fsub(one, upper)
                # one load for both taps: the second is made of two neighbouring vectors, as an
                # unaligned load costs two
                here = builder.load(vector_at(line_array.data, offset), align=4)
                for i, total in enumerate(totals):
                    after = shifted(offset, LANES * (i + 1))
                    there = builder.load(vector_at(line_array.data, after), align=4)
                    right = builder.shuffle_vector(here, there, by_one)
                    value = builder.load(total)
                    value = builder.fadd(value, builder.fmul(lower, here, flags=_FAST), flags=_FAST)
                    value = builder.fadd(value, builder.fmul(upper, right, flags=_FAST), flags=_FAST)
                    builder.store(value, total)
                    here = there
            for total, place in zip(totals, places, strict=True):
                builder.store(builder.load(total), place, align=4)
            return context.get_dummy_value()

        index = types.intp
        return types.void(windows, start, weight, index, index, index, sums), generate

    return add


add_wide_strip, add_narrow_strip = _strip(_MANY), _strip(_FEW)
