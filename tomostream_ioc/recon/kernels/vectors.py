"""What the kernels that are written in LLVM vectors share."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from tomostream_ioc.recon.kernels.compile import LANES, intrinsic

INDEX = ir.IntType(64)
INT32 = ir.IntType(32)
VECTOR = ir.VectorType(ir.FloatType(), LANES)
HALVES = ir.VectorType(ir.HalfType(), LANES)
INTEGERS = ir.VectorType(INT32, LANES)
FAST = ("nsz", "contract", "reassoc", "arcp")
_BYTE_POINTER = ir.IntType(8).as_pointer()


def data_of(context: Any, builder: Any, array_type: Any, array: Any) -> Any:
    """Pointer to the first element of an array of numba."""
    return context.make_array(array_type)(context, builder, array).data


def width_of(context: Any, builder: Any, array_type: Any, array: Any) -> Any:
    """Second dimension of an array of numba."""
    return builder.extract_value(context.make_array(array_type)(context, builder, array).shape, 1)


def after(builder: Any, index: Any, by: int) -> Any:
    return builder.add(index, ir.Constant(INDEX, by))


def vector_at(builder: Any, data: Any, index: Any, kind: Any = VECTOR) -> Any:
    """Pointer to the vector that begins with data[index]."""
    return builder.bitcast(builder.gep(data, [index]), kind.as_pointer())


def in_all_lanes(builder: Any, scalar: Any) -> Any:
    undefined = ir.Constant(VECTOR, ir.Undefined)
    one = builder.insert_element(undefined, scalar, ir.Constant(INT32, 0))
    return builder.shuffle_vector(one, undefined, ir.Constant(INTEGERS, [0] * LANES))


def add_product(builder: Any, total: Any, a: Any, b: Any) -> Any:
    """total + a * b, in one instruction where there is one."""
    return builder.fadd(total, builder.fmul(a, b, flags=FAST), flags=FAST)


def fetch(builder: Any, data: Any, index: Any) -> None:
    """Ask for the cache line of data[index], which is to be in L2 when it is needed."""
    function = cgutils.get_or_insert_function(
        builder.module,
        ir.FunctionType(ir.VoidType(), [_BYTE_POINTER, INT32, INT32, INT32]),
        "llvm.prefetch.p0",
    )
    pointer = builder.bitcast(builder.gep(data, [index]), _BYTE_POINTER)
    to_read, to_l2, of_data = (ir.Constant(INT32, i) for i in (0, 2, 1))
    builder.call(function, [pointer, to_read, to_l2, of_data])


@intrinsic
def prefetch(_typing: Any, array: Any, index: Any) -> Any:
    """`fetch` for kernels: the cache line of array[index], one-dimensional and contiguous."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        fetch(builder, data_of(context, builder, signature.args[0], args[0]), args[1])
        return context.get_dummy_value()

    return types.void(array, types.intp), generate
