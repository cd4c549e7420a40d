"""How kernels are compiled, and the few machine instructions that numba does not offer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic as _intrinsic

#: numba's stubs show the compiler's side of an intrinsic, kernels call the other
intrinsic: Any = _intrinsic
#: fast arithmetic, but NaN and infinity stay what they are: bad pixels are found by them
_FAST = {"reassoc", "contract", "nsz", "arcp", "afn"}
#: floats of a vector register for what is written in vectors; LLVM splits them where it must
LANES = 16 if llvm.get_host_cpu_features().get("avx512f", False) else 8


def kernel(function: Callable[..., Any]) -> Any:
    """Compile for this CPU, without the GIL; kept on disk where a folder can be written."""
    options: dict[str, Any] = {"nogil": True, "fastmath": _FAST, "error_model": "numpy"}
    try:
        return njit(cache=True, **options)(function)
    except RuntimeError:
        # numba found no folder to write to: a read-only installation without a home
        return njit(**options)(function)


def inlined(function: Callable[..., Any]) -> Any:
    """A function for use inside kernels only."""
    return njit(nogil=True, fastmath=_FAST, error_model="numpy", inline="always")(function)


def has_half_precision() -> bool:
    """True where the CPU converts float16 by instruction; elsewhere the kernels can't be built."""
    features = llvm.get_host_cpu_features()
    is_x86 = llvm.get_process_triple().startswith(("x86_64", "i686", "amd64"))
    return not is_x86 or bool(features.get("f16c", False))


@intrinsic
def float_from_half(_typing_context: Any, bits: Any) -> Any:
    """float32 of the float16 whose bits are in an uint16: vcvtph2ps (numba has no float16)."""
    if bits != types.uint16:
        return None

    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.fpext(builder.bitcast(args[0], ir.HalfType()), ir.FloatType())

    return types.float32(types.uint16), generate


@intrinsic
def half_from_float(_typing_context: Any, value: Any) -> Any:
    """Bits of a float32 rounded to float16 (nearest, ties to even), as uint16: vcvtps2ph."""
    if value != types.float32:
        return None

    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.bitcast(builder.fptrunc(args[0], ir.HalfType()), ir.IntType(16))

    return types.uint16(types.float32), generate


@intrinsic
def bits_from_float(_typing_context: Any, value: Any) -> Any:
    """The bits of a float32 as int32."""
    if value != types.float32:
        return None

    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.IntType(32))

    return types.int32(types.float32), generate


@intrinsic
def float_from_bits(_typing_context: Any, bits: Any) -> Any:
    """The float32 whose bits are in an int32."""
    if bits != types.int32:
        return None

    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.FloatType())

    return types.float32(types.int32), generate
