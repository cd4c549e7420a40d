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

_VECTOR = ir.VectorType(ir.FloatType(), LANES)
_HALVES = ir.VectorType(ir.HalfType(), LANES)
_INTEGERS = ir.VectorType(ir.IntType(32), LANES)
_FAST = ("nsz", "contract", "reassoc", "arcp")


def _pointer(context: Any, builder: Any, array_type: Any, array: Any) -> Any:
    return context.make_array(array_type)(context, builder, array).data


def _load(builder: Any, data: Any, index: Any, kind: Any, align: int = 4) -> Any:
    pointer = builder.bitcast(builder.gep(data, [index]), kind.as_pointer())
    return builder.load(pointer, align=align)


def _after(builder: Any, index: Any, by: int) -> Any:
    return builder.add(index, ir.Constant(index.type, by))


def _in_all_lanes(builder: Any, scalar: Any) -> Any:
    undefined = ir.Constant(_VECTOR, ir.Undefined)
    one = builder.insert_element(undefined, scalar, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(one, undefined, ir.Constant(_INTEGERS, [0] * LANES))


def _taken(builder: Any, low: Any, high: Any, index: Any) -> Any:
    """Lane by lane what is at ``index`` (vector of 0..2 * LANES - 1) in two vectors."""
    if LANES == 16:
        function = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(_VECTOR, [_VECTOR, _INTEGERS, _VECTOR]),
            "llvm.x86.avx512.vpermi2var.ps.512",
        )
        return builder.call(function, [low, index, high])
    both = ir.VectorType(ir.FloatType(), 2 * LANES)
    in_order = ir.Constant(ir.VectorType(ir.IntType(32), 2 * LANES), list(range(2 * LANES)))
    memory = cgutils.alloca_once(builder, both)
    builder.store(builder.shuffle_vector(low, high, in_order), memory)
    floats = builder.bitcast(memory, ir.FloatType().as_pointer())
    result = ir.Constant(_VECTOR, ir.Undefined)
    for lane in (ir.Constant(ir.IntType(32), i) for i in range(LANES)):
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
        data = _pointer(context, builder, signature.args[0], args[0])
        sums = _pointer(context, builder, signature.args[4], args[4])
        lanes = ir.Constant(_VECTOR, [float(i) for i in range(LANES)])
        places = builder.fmul(lanes, _in_all_lanes(builder, args[3]), flags=_FAST)
        places = builder.fadd(places, _in_all_lanes(builder, args[2]), flags=_FAST)
        index = builder.fptosi(places, _INTEGERS)
        weight = builder.fsub(places, builder.sitofp(index, _VECTOR), flags=_FAST)
        low = _load(builder, data, args[1], _VECTOR)
        high = _load(builder, data, _after(builder, args[1], LANES), _VECTOR)
        one = ir.Constant(_INTEGERS, [1] * LANES)
        first = _taken(builder, low, high, index)
        second = _taken(builder, low, high, builder.add(index, one))
        pointer = builder.bitcast(builder.gep(sums, [args[5]]), _VECTOR.as_pointer())
        value = builder.fadd(builder.load(pointer, align=4), first, flags=_FAST)
        difference = builder.fsub(second, first, flags=_FAST)
        value = builder.fadd(value, builder.fmul(weight, difference, flags=_FAST), flags=_FAST)
        builder.store(value, pointer, align=4)
        return context.get_dummy_value()

    return types.void(line, types.intp, types.float32, types.float32, total, types.intp), generate


@intrinsic
def take_rows(
    _typing: Any, ring: Any, place: Any, rows: Any, lower: Any, upper: Any, first: Any, out: Any,
    at: Any,
) -> Any:  # fmt: skip
    """out[at + i] = lower[c] * q[rows[c]] + upper[c] * q[rows[c] + 1] with c = first + i, i < LANES.

    q are the 2 * LANES float16 in ring (uint16) at ``place``; rows int32 in 0..2 * LANES - 2.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        halves, rows_data, lower_data, upper_data, out_data = (
            _pointer(context, builder, signature.args[i], args[i]) for i in (0, 2, 3, 4, 6)
        )
        low = builder.fpext(_load(builder, halves, args[1], _HALVES, 2), _VECTOR)
        further = _after(builder, args[1], LANES)
        high = builder.fpext(_load(builder, halves, further, _HALVES, 2), _VECTOR)
        index = _load(builder, rows_data, args[5], _INTEGERS)
        one = ir.Constant(_INTEGERS, [1] * LANES)
        value = builder.fmul(
            _taken(builder, low, high, index),
            _load(builder, lower_data, args[5], _VECTOR),
            flags=_FAST,
        )
        second = builder.fmul(
            _taken(builder, low, high, builder.add(index, one)),
            _load(builder, upper_data, args[5], _VECTOR),
            flags=_FAST,
        )
        pointer = builder.bitcast(builder.gep(out_data, [args[7]]), _VECTOR.as_pointer())
        builder.store(builder.fadd(value, second, flags=_FAST), pointer, align=4)
        return context.get_dummy_value()

    index = types.intp
    return types.void(ring, index, rows, lower, upper, index, out, index), generate
