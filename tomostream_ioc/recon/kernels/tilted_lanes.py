"""The inner loops of the tilted z slice in LLVM vectors.

Neighbours in the slice read neighbours on the detector, at most one further each: LANES values come
from less than 2 * LANES adjacent ones, which is a shuffle of two vectors with AVX-512, and far
quicker than a gather.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from tomostream_ioc.recon.kernels.compile import LANES, intrinsic
from tomostream_ioc.recon.kernels.vectors import (
    FAST,
    HALVES,
    INT32,
    INTEGERS,
    VECTOR,
    add_product,
    after,
    data_of,
    in_all_lanes,
    vector_at,
)

_ONE = ir.Constant(INTEGERS, [1] * LANES)


def _load(builder: Any, data: Any, index: Any, kind: Any = VECTOR, align: int = 4) -> Any:
    return builder.load(vector_at(builder, data, index, kind), align=align)


def _taken(builder: Any, low: Any, high: Any, index: Any) -> Any:
    """Lane by lane what is at ``index`` (vector of 0..2 * LANES - 1) in two vectors."""
    if LANES == 16:
        function = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(VECTOR, [VECTOR, INTEGERS, VECTOR]),
            "llvm.x86.avx512.vpermi2var.ps.512",
        )
        return builder.call(function, [low, index, high])
    both = ir.VectorType(ir.FloatType(), 2 * LANES)
    in_order = ir.Constant(ir.VectorType(INT32, 2 * LANES), list(range(2 * LANES)))
    memory = cgutils.alloca_once(builder, both)
    builder.store(builder.shuffle_vector(low, high, in_order), memory)
    floats = builder.bitcast(memory, ir.FloatType().as_pointer())
    result = ir.Constant(VECTOR, ir.Undefined)
    for lane in (ir.Constant(INT32, i) for i in range(LANES)):
        at = builder.extract_element(index, lane)
        value = builder.load(builder.gep(floats, [at]))
        result = builder.insert_element(result, value, lane)
    return result


@intrinsic
def add_taps(_typing: Any, line: Any, base: Any, u: Any, step: Any, total: Any, at: Any) -> Any:
    """total[at + i] += line, linearly, at base + u + i * step for i < LANES.

    All in 0 <= u + i * step <= LANES, |step| <= 1. line is read from base on for 2 * LANES floats.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = data_of(context, builder, signature.args[0], args[0])
        sums = data_of(context, builder, signature.args[4], args[4])
        lanes = ir.Constant(VECTOR, [float(i) for i in range(LANES)])
        places = builder.fmul(lanes, in_all_lanes(builder, args[3]), flags=FAST)
        places = builder.fadd(places, in_all_lanes(builder, args[2]), flags=FAST)
        index = builder.fptosi(places, INTEGERS)
        weight = builder.fsub(places, builder.sitofp(index, VECTOR), flags=FAST)
        low = _load(builder, data, args[1])
        high = _load(builder, data, after(builder, args[1], LANES))
        first = _taken(builder, low, high, index)
        second = _taken(builder, low, high, builder.add(index, _ONE))
        pointer = vector_at(builder, sums, args[5])
        value = builder.fadd(builder.load(pointer, align=4), first, flags=FAST)
        difference = builder.fsub(second, first, flags=FAST)
        builder.store(add_product(builder, value, weight, difference), pointer, align=4)
        return context.get_dummy_value()

    return types.void(line, types.intp, types.float32, types.float32, total, types.intp), generate


@intrinsic
def take_rows(
    _typing: Any, ring: Any, place: Any, rows: Any, lower: Any, upper: Any, first: Any, out: Any,
    at: Any,
) -> Any:  # fmt: skip
    """out[at + i] = lower[c] * q[rows[i]] + upper[c] * q[rows[i] + 1], c = first + i, i < LANES.

    q are the 2 * LANES float16 in ring (uint16) at ``place``; rows int32 in 0..2 * LANES - 2.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        halves, rows_data, lower_data, upper_data, out_data = (
            data_of(context, builder, signature.args[i], args[i]) for i in (0, 2, 3, 4, 6)
        )
        low = builder.fpext(_load(builder, halves, args[1], HALVES, 2), VECTOR)
        further = after(builder, args[1], LANES)
        high = builder.fpext(_load(builder, halves, further, HALVES, 2), VECTOR)
        index = _load(builder, rows_data, ir.Constant(ir.IntType(64), 0), INTEGERS)
        first = _taken(builder, low, high, index)
        second = _taken(builder, low, high, builder.add(index, _ONE))
        value = builder.fmul(first, _load(builder, lower_data, args[5]), flags=FAST)
        value = add_product(builder, value, second, _load(builder, upper_data, args[5]))
        builder.store(value, vector_at(builder, out_data, args[7]), align=4)
        return context.get_dummy_value()

    index = types.intp
    return types.void(ring, index, rows, lower, upper, index, out, index), generate
