"""The inner loop of the z slice in LLVM vectors: sums of a strip of pixels stay in registers."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from tomostream_ioc.recon.kernels.compile import LANES, intrinsic
from tomostream_ioc.recon.kernels.vectors import (
    INDEX,
    INTEGERS,
    VECTOR,
    add_product,
    after,
    data_of,
    in_all_lanes,
    vector_at,
    width_of,
)

#: vectors of a strip: as many sums as the registers hold beside what is read
_MANY, _FEW = (16, 4) if LANES == 16 else (8, 2)
WIDE_STRIP, NARROW_STRIP = _MANY * LANES, _FEW * LANES


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
            kinds = signature.args
            lines, starts, weights, totals_data = (
                data_of(context, builder, kinds[i], args[i]) for i in (0, 1, 2, 6)
            )
            length, table_width, sum_width = (
                width_of(context, builder, kinds[i], args[i]) for i in (0, 1, 6)
            )
            row, n_views, column = args[3:6]
            entry = builder.mul(row, table_width)
            at = builder.add(builder.mul(row, sum_width), column)
            places = [
                vector_at(builder, totals_data, after(builder, at, LANES * i))
                for i in range(n_vectors)
            ]
            totals = [cgutils.alloca_once(builder, VECTOR) for _ in places]
            for total, place in zip(totals, places, strict=True):
                builder.store(builder.load(place, align=4), total)
            by_one = ir.Constant(INTEGERS, [i + 1 for i in range(LANES)])
            with cgutils.for_range(builder, n_views, intp=INDEX) as loop:
                at_entry = builder.add(entry, loop.index)
                offset = builder.load(builder.gep(starts, [at_entry]))
                offset = builder.add(builder.sext(offset, INDEX), column)
                offset = builder.add(offset, builder.mul(loop.index, length))
                upper = in_all_lanes(builder, builder.load(builder.gep(weights, [at_entry])))
                lower = builder.fsub(ir.Constant(VECTOR, [1.0] * LANES), upper)
                # one load for both taps: the second is made of two neighbouring vectors, as an
                # unaligned load costs two
                here = builder.load(vector_at(builder, lines, offset), align=4)
                for i, total in enumerate(totals):
                    following = vector_at(builder, lines, after(builder, offset, LANES * (i + 1)))
                    there = builder.load(following, align=4)
                    right = builder.shuffle_vector(here, there, by_one)
                    value = add_product(builder, builder.load(total), lower, here)
                    builder.store(add_product(builder, value, upper, right), total)
                    here = there
            for total, place in zip(totals, places, strict=True):
                builder.store(builder.load(total), place, align=4)
            return context.get_dummy_value()

        index = types.intp
        return types.void(windows, start, weight, index, index, index, sums), generate

    return add


add_wide_strip, add_narrow_strip = _strip(_MANY), _strip(_FEW)
