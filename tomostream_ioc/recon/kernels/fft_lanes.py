"""Butterflies of a Fourier transform on many rows at once: LLVM vectors, not left to numba.

A sample of the transform is two vectors, LANES real parts, then LANES imaginary parts, that is
LANES independent complex transforms. A filter that is real in frequency does not mix real and
imaginary part, so the SAMPLE floats of a sample are as many detector rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from llvmlite import ir
from numba import types

from tomostream_ioc.recon.kernels.compile import LANES, intrinsic

#: detector rows that are transformed at once
SAMPLE = 2 * LANES
_VECTOR = ir.VectorType(ir.FloatType(), LANES)
_EIGHT = ir.VectorType(ir.FloatType(), 8)
_FAST = ("nsz", "contract", "reassoc", "arcp")


class _Complex(NamedTuple):
    """LLVM values: a vector of real and one of imaginary parts."""

    re: Any
    im: Any


class _Emitter:
    """Writes complex vector arithmetic with an llvmlite IRBuilder."""

    def __init__(self, builder: Any):
        self._b = builder

    def load(self, data: Any, sample: Any) -> _Complex:
        return _Complex(*(self._b.load(p, align=4) for p in self._pointers(data, sample)))

    def store(self, value: _Complex, data: Any, sample: Any) -> None:
        for part, pointer in zip(value, self._pointers(data, sample), strict=True):
            self._b.store(part, pointer, align=4)

    def _pointers(self, data: Any, sample: Any) -> list[Any]:
        first = self._b.mul(sample, ir.Constant(sample.type, SAMPLE))
        second = self._b.add(first, ir.Constant(sample.type, LANES))
        return [
            self._b.bitcast(self._b.gep(data, [index]), _VECTOR.as_pointer())
            for index in (first, second)
        ]

    def scalar(self, table: Any, index: Any, offset: int) -> Any:
        """A float of a table in all lanes."""
        at = self._b.add(index, ir.Constant(index.type, offset))
        return self._splat(self._b.load(self._b.gep(table, [at])))

    def _splat(self, value: Any) -> Any:
        zero = ir.Constant(ir.IntType(32), 0)
        undefined = ir.Constant(_VECTOR, ir.Undefined)
        one = self._b.insert_element(undefined, value, zero)
        mask = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
        return self._b.shuffle_vector(one, undefined, mask)

    def zero(self) -> _Complex:
        zeros = ir.Constant(_VECTOR, [0.0] * LANES)
        return _Complex(zeros, zeros)

    def add(self, a: _Complex, b: _Complex) -> _Complex:
        return _Complex(*(self._b.fadd(p, q, flags=_FAST) for p, q in zip(a, b, strict=True)))

    def sub(self, a: _Complex, b: _Complex) -> _Complex:
        return _Complex(*(self._b.fsub(p, q, flags=_FAST) for p, q in zip(a, b, strict=True)))

    def scale(self, a: _Complex, factor: Any) -> _Complex:
        if isinstance(factor, float):
            factor = ir.Constant(_VECTOR, [factor] * LANES)
        return _Complex(*(self._b.fmul(p, factor, flags=_FAST) for p in a))

    def times(self, a: _Complex, re: Any, im: Any, conjugate: bool) -> _Complex:
        """a * (re + i im), or a * (re - i im)."""
        b = self._b
        rr, ii = b.fmul(a.re, re, flags=_FAST), b.fmul(a.im, im, flags=_FAST)
        ri, ir_ = b.fmul(a.re, im, flags=_FAST), b.fmul(a.im, re, flags=_FAST)
        if conjugate:
            return _Complex(b.fadd(rr, ii, flags=_FAST), b.fsub(ir_, ri, flags=_FAST))
        return _Complex(b.fsub(rr, ii, flags=_FAST), b.fadd(ir_, ri, flags=_FAST))

    def with_i_times(self, a: _Complex, b: _Complex, sign: int) -> _Complex:
        """a + sign * i * b."""
        add = lambda p, q: self._b.fadd(p, q, flags=_FAST)  # noqa: E731
        sub = lambda p, q: self._b.fsub(p, q, flags=_FAST)  # noqa: E731
        if sign > 0:
            return _Complex(sub(a.re, b.im), add(a.im, b.re))
        return _Complex(add(a.re, b.im), sub(a.im, b.re))

    def dft(self, x: Sequence[_Complex], sign: int) -> list[_Complex]:
        """Sum over q of x[q] exp(sign 2 pi i p q / len(x)), for 2, 3, 4 or 5 points."""
        add, sub, scale = self.add, self.sub, self.scale
        if len(x) == 2:
            return [add(x[0], x[1]), sub(x[0], x[1])]
        if len(x) == 3:
            both = add(x[1], x[2])
            real = add(x[0], scale(both, -0.5))
            imag = scale(sub(x[1], x[2]), math.sin(math.tau / 3))
            return [
                add(x[0], both),
                self.with_i_times(real, imag, sign),
                self.with_i_times(real, imag, -sign),
            ]
        if len(x) == 4:
            even, odd = add(x[0], x[2]), add(x[1], x[3])
            even_diff, odd_diff = sub(x[0], x[2]), sub(x[1], x[3])
            return [
                add(even, odd),
                self.with_i_times(even_diff, odd_diff, sign),
                sub(even, odd),
                self.with_i_times(even_diff, odd_diff, -sign),
            ]
        c1, c2 = math.cos(math.tau / 5), math.cos(2 * math.tau / 5)
        s1, s2 = math.sin(math.tau / 5), math.sin(2 * math.tau / 5)
        outer, inner = add(x[1], x[4]), add(x[2], x[3])
        outer_diff, inner_diff = sub(x[1], x[4]), sub(x[2], x[3])
        real1 = add(x[0], add(scale(outer, c1), scale(inner, c2)))
        real2 = add(x[0], add(scale(outer, c2), scale(inner, c1)))
        imag1 = add(scale(outer_diff, s1), scale(inner_diff, s2))
        imag2 = sub(scale(outer_diff, s2), scale(inner_diff, s1))
        return [
            add(x[0], add(outer, inner)),
            self.with_i_times(real1, imag1, sign),
            self.with_i_times(real2, imag2, sign),
            self.with_i_times(real2, imag2, -sign),
            self.with_i_times(real1, imag1, -sign),
        ]


def _pointer(context: Any, builder: Any, array_type: Any, array: Any) -> Any:
    return context.make_array(array_type)(context, builder, array).data


def _pass(radix: int, forward: bool, used: int) -> Any:
    """butterfly(data, sample, stride, table, at): in place on data[sample + q * stride], q < radix.

    Forward (decimation in frequency): a DFT, then the twiddle factors table[at...], (re, im) for
    p = 1..radix-1; backward is its adjoint. Only the first ``used`` points are non-zero before
    (forward) or wanted after (backward).
    """

    @intrinsic
    def butterfly(_typing: Any, data: Any, sample: Any, stride: Any, table: Any, at: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            values = _pointer(context, builder, signature.args[0], args[0])
            twiddles = _pointer(context, builder, signature.args[3], args[3])
            emit = _Emitter(builder)
            places = [args[1]]
            for _ in range(radix - 1):
                places.append(builder.add(places[-1], args[2]))
            n_read, n_written = (used, radix) if forward else (radix, used)
            x = [emit.load(values, place) for place in places[:n_read]]
            x += [emit.zero()] * (radix - n_read)

            def twiddle(y: _Complex, p: int) -> _Complex:
                if p == 0:
                    return y
                re = emit.scalar(twiddles, args[4], 2 * p - 2)
                im = emit.scalar(twiddles, args[4], 2 * p - 1)
                return emit.times(y, re, im, conjugate=not forward)

            if forward:
                y = [twiddle(y, p) for p, y in enumerate(emit.dft(x, -1))]
            else:
                y = emit.dft([twiddle(y, p) for p, y in enumerate(x)], +1)
            for value, place in zip(y[:n_written], places, strict=False):
                emit.store(value, values, place)
            return context.get_dummy_value()

        return types.void(data, types.intp, types.intp, table, types.intp), generate

    return butterfly


forward2, forward3, forward4, forward5 = (_pass(r, True, r) for r in (2, 3, 4, 5))
backward2, backward3, backward4, backward5 = (_pass(r, False, r) for r in (2, 3, 4, 5))
#: of zero-padded rows the second half is zero before and not wanted after
forward4_padded, backward4_padded = _pass(4, True, 2), _pass(4, False, 2)


@intrinsic
def filter4(_typing: Any, data: Any, sample: Any, response: Any) -> Any:
    """Last pass forward, times response[sample...], first pass backward, of 4 adjacent samples."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        values = _pointer(context, builder, signature.args[0], args[0])
        factors = _pointer(context, builder, signature.args[2], args[2])
        emit = _Emitter(builder)
        places = [builder.add(args[1], ir.Constant(args[1].type, q)) for q in range(4)]
        spectrum = emit.dft([emit.load(values, place) for place in places], -1)
        filtered = [
            emit.scale(value, emit.scalar(factors, args[1], q)) for q, value in enumerate(spectrum)
        ]
        for value, place in zip(emit.dft(filtered, +1), places, strict=True):
            emit.store(value, values, place)
        return context.get_dummy_value()

    return types.void(data, types.intp, response), generate


@intrinsic
def store_halves(_typing: Any, data: Any, sample: Any, target: Any, at: Any) -> Any:
    """A sample as float16 into target[at : at + SAMPLE] (uint16), in one store."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        values = _pointer(context, builder, signature.args[0], args[0])
        bits = _pointer(context, builder, signature.args[2], args[2])
        narrow, wide = (ir.VectorType(ir.HalfType(), n) for n in (LANES, SAMPLE))
        parts = [builder.fptrunc(part, narrow) for part in _Emitter(builder).load(values, args[1])]
        in_order = ir.Constant(ir.VectorType(ir.IntType(32), SAMPLE), list(range(SAMPLE)))
        pointer = builder.bitcast(builder.gep(bits, [args[3]]), wide.as_pointer())
        builder.store(builder.shuffle_vector(*parts, in_order), pointer, align=2)
        return context.get_dummy_value()

    return types.void(data, types.intp, target, types.intp), generate


@intrinsic
def transpose8(
    _typing: Any, source: Any, at: Any, stride: Any, data: Any, target: Any, target_stride: Any
) -> Any:
    """data[target + target_stride i + k] = source[at + stride k + i] for i, k < 8."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        rows = _pointer(context, builder, signature.args[0], args[0])
        values = _pointer(context, builder, signature.args[3], args[3])

        def vector_at(base: Any, index: Any) -> Any:
            return builder.bitcast(builder.gep(base, [index]), _EIGHT.as_pointer())

        def shuffled(a: Any, b: Any, mask: Sequence[int]) -> Any:
            mask_type = ir.VectorType(ir.IntType(32), 8)
            return builder.shuffle_vector(a, b, ir.Constant(mask_type, list(mask)))

        x, index = [], args[1]
        for _ in range(8):
            x.append(builder.load(vector_at(rows, index), align=4))
            index = builder.add(index, args[2])
        # halves of 128 bits first: what an x86 shuffles without crossing them, then the halves
        low, high = (0, 8, 1, 9, 4, 12, 5, 13), (2, 10, 3, 11, 6, 14, 7, 15)
        x = [
            shuffled(x[i + d], x[i + d + 1], m) for i in (0, 4) for m in (low, high) for d in (0, 2)
        ]
        low, high = (0, 1, 8, 9, 4, 5, 12, 13), (2, 3, 10, 11, 6, 7, 14, 15)
        x = [shuffled(x[i], x[i + 1], m) for i in (0, 2, 4, 6) for m in (low, high)]
        low, high = (0, 1, 2, 3, 8, 9, 10, 11), (4, 5, 6, 7, 12, 13, 14, 15)
        x = [shuffled(x[i], x[i + 4], m) for m in (low, high) for i in range(4)]
        index = args[4]
        for row in x:
            builder.store(row, vector_at(values, index), align=4)
            index = builder.add(index, args[5])
        return context.get_dummy_value()

    return types.void(source, types.intp, types.intp, data, types.intp, types.intp), generate
