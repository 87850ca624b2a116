"""Functions of the C library as code for one thread: those for rare arguments, and powers.

`seldom_<name>` has a branch for the thread's own lane. The angles of f32 from 2**26 on are reduced with 230
bits of 2 / pi (Payne and Hanek), and the remainder of a division is computed from integers, 32 bits at a
time. Powers, exponentials and logarithms are computed in f64.

`namespace` has all words of kernels for GPUs.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import llvmlite.ir as ir

from ovjit.codegen import approx
from ovjit.codegen import tracer as t
from ovjit.codegen.cpu.intrinsics import generic
from ovjit.codegen.cpu.ir import _NAMES, Body, body_of
from ovjit.codegen.cpu.types import Intrinsic
from ovjit.codegen.gpu.supported import LIBRARY
from ovjit.codegen.gpu.words import BODIES, WARP, Lane, Namespace, lane_type

_I32, _I64, _I128 = (ir.IntType(n) for n in (32, 64, 128))
_F32, _F64 = ir.FloatType(), ir.DoubleType()
#: Bits of a mantissa of f32, and the exponent of its last one for an exponent of 0.
_BITS, _BIAS = 23, 150
#: Coefficients of r^3, r^5 ... of the sine, and of r^2, r^4 ... of the cosine: exact in f64 up to pi/4.
_SINE = [(-1) ** k / math.factorial(2 * k + 1) for k in range(1, 9)]
_COSINE = [(-1) ** k / math.factorial(2 * k) for k in range(1, 9)]


# --- traced bodies


def emit_body(b: ir.IRBuilder, body: Body, inputs: Sequence[ir.Value]) -> ir.Value:
    """The result of a traced body for one thread."""
    values: dict[Any, ir.Value] = {f"x{i}": v for i, v in enumerate(inputs)}

    def find(argument: Any) -> tuple[ir.Value, Lane]:
        if isinstance(argument, str):
            return values[argument], lane_type(body.register[argument])
        _, value, dtype = argument
        kind = lane_type(dtype)
        return ir.Constant(kind.ir, float.fromhex(value) if isinstance(value, str) else value), kind

    for target, operation, arguments, dtype in body.lines:
        operands = [find(a) for a in arguments]
        xs, kind, name = [v for v, _ in operands], operands[-1][1], _NAMES.get(operation, operation)
        if name in BODIES:
            values[target] = BODIES[name](b, kind, *xs)
        else:
            values[target] = BODIES[f"{name}_T"](b, kind, *xs, lane_type(dtype))
    return find(body.results[0])[0]


def power(x: t.Tracer, y: t.Tracer) -> t.Tracer:
    """x ** y in f32, as the C library's: 1 if x is 1 or y is 0, even for NaN; -1 is an edge of infinite
    powers."""
    by_logarithm = approx.exp_f64(t.cast(y, "f64") * approx.log_f64(t.cast(t.absolute(x), "f64")))
    size = t.where(t.absolute(x) == 1.0, t.where(y == y, t.constant(x, 1.0), y), t.cast(by_logarithm, "f32"))
    half = y * 0.5
    is_odd = (t.trunc(y) == y) & (t.trunc(half) != half)
    is_negative = t.bits(x, "i32") < 0
    y_of = t.where(is_negative & is_odd, -size, size)
    has_none = (x < 0.0) & (t.absolute(x) < math.inf) & (t.trunc(y) != y)
    y_of = t.where(has_none, t.constant(x, math.nan), y_of)
    return t.where((y == 0.0) | (x == 1.0), t.constant(x, 1.0), y_of)


def _in_f64(function: Callable[[t.Tracer], t.Tracer]) -> Callable[[t.Tracer], t.Tracer]:
    return lambda x: t.cast(function(t.cast(x, "f64")), x.dtype)


def _trace_body(function: Callable[..., t.Tracer], inputs: int) -> Callable[..., ir.Value]:
    def body(b: ir.IRBuilder, kind: Lane, *values: ir.Value) -> ir.Value:
        return emit_body(b, body_of(function, inputs, kind.elem), values)

    return body


# --- angles


@functools.cache
def two_over_pi() -> int:
    """2**256 * 2 / pi, rounded down. pi is 16 atan(1/5) - 4 atan(1/239)."""
    scale = 1 << 320

    def arctangent(of: int) -> int:
        term, total, k = scale // of, 0, 1
        while term:
            total += term // k if k % 4 == 1 else -(term // k)
            term, k = term // (of * of), k + 2
        return total

    return (1 << 257) * scale // (16 * arctangent(5) - 4 * arctangent(239))


def _reduce_far(b: ir.IRBuilder, x: ir.Value) -> tuple[ir.Value, ir.Value]:
    """(quadrant, remainder in f64) of an angle of at least 2**26, or NaN for infinities."""
    bits = b.bitcast(x, _I32)
    exponent = b.and_(b.lshr(bits, _I32(_BITS)), _I32(255))
    mantissa = b.or_(b.and_(bits, _I32((1 << _BITS) - 1)), _I32(1 << _BITS))
    # bits of 2 / pi above a whole turn do not matter
    shift = b.zext(b.sub(exponent, _I32(_BIAS + 2)), _I128)
    high, low = divmod(two_over_pi(), 1 << 128)
    window = b.or_(b.shl(_I128(high), shift), b.lshr(_I128(low), b.sub(_I128(128), shift)))
    turns = b.trunc(b.lshr(b.mul(window, b.zext(mantissa, _I128)), _I128(64)), _I64)
    quadrant = b.lshr(b.add(turns, _I64(1 << 61)), _I64(62))
    remainder = b.sitofp(b.sub(turns, b.shl(quadrant, _I64(62))), _F64)
    remainder = b.fmul(remainder, ir.Constant(_F64, math.pi / 2 * 2.0**-62))
    is_negative = b.icmp_signed("<", bits, _I32(0))
    quadrant = b.trunc(quadrant, _I32)
    quadrant = b.select(is_negative, b.sub(_I32(0), quadrant), quadrant)
    no_angle = b.icmp_unsigned("==", exponent, _I32(255))
    remainder = b.select(is_negative, b.fneg(remainder), remainder)
    return quadrant, b.select(no_angle, ir.Constant(_F64, math.nan), remainder)


def _series(b: ir.IRBuilder, square: ir.Value, coefficients: Sequence[float]) -> ir.Value:
    """1 + coefficients[0] square + coefficients[1] square^2 + ..."""
    total: ir.Value = ir.Constant(_F64, coefficients[-1])
    for c in (*reversed(coefficients[:-1]), 1.0):
        total = b.fadd(b.fmul(total, square), ir.Constant(_F64, c))
    return total


def _far(name: str) -> Callable[..., ir.Value]:
    """sin, cos or tan of an angle of at least 2**26."""

    def body(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
        quadrant, remainder = _reduce_far(b, x)
        square = b.fmul(remainder, remainder)
        sine, cosine = b.fmul(remainder, _series(b, square, _SINE)), _series(b, square, _COSINE)
        if name == "cos":
            quadrant = b.add(quadrant, _I32(1))
        odd, other = (b.icmp_unsigned("!=", b.and_(quadrant, _I32(n)), _I32(0)) for n in (1, 2))
        if name == "tan":
            y = b.fdiv(b.select(odd, b.fneg(cosine), sine), b.select(odd, sine, cosine))
        else:
            y = b.select(odd, cosine, sine)
            y = b.select(other, b.fneg(y), y)
        return b.fptrunc(y, _F32)

    return body


# --- remainders


def _split(b: ir.IRBuilder, x: ir.Value) -> tuple[ir.Value, ir.Value]:
    """(mantissa as i64, exponent as i32) of |x|, of which the lowest exponent is 1."""
    bits = b.bitcast(x, _I32)
    exponent = b.and_(b.lshr(bits, _I32(_BITS)), _I32(255))
    is_normal = b.icmp_unsigned("!=", exponent, _I32(0))
    mantissa = b.and_(bits, _I32((1 << _BITS) - 1))
    mantissa = b.select(is_normal, b.or_(mantissa, _I32(1 << _BITS)), mantissa)
    return b.zext(mantissa, _I64), b.select(is_normal, exponent, _I32(1))


def _fmod(b: ir.IRBuilder, x: ir.Value, y: ir.Value) -> ir.Value:
    """The exact remainder of |x| >= |y|, with the sign of x; NaN for infinite x and for y = 0."""
    (dividend, above), (divisor, exponent) = _split(b, x), _split(b, y)
    is_zero = b.icmp_unsigned("==", divisor, _I64(0))
    divisor = b.select(is_zero, _I64(1), divisor)
    begin = b.block
    first, count = b.urem(dividend, divisor), b.sub(above, exponent)
    loop, end = b.append_basic_block("remainder"), b.append_basic_block("remainder_end")
    b.branch(loop)
    b.position_at_end(loop)
    remainder, bits_left = b.phi(_I64), b.phi(_I32)
    step = b.select(b.icmp_signed("<", bits_left, _I32(32)), bits_left, _I32(32))
    step = b.select(b.icmp_signed("<", step, _I32(0)), _I32(0), step)
    further, fewer = b.urem(b.shl(remainder, b.zext(step, _I64)), divisor), b.sub(bits_left, step)
    for phi, before, after in ((remainder, first, further), (bits_left, count, fewer)):
        phi.add_incoming(before, begin)
        phi.add_incoming(after, loop)
    b.cbranch(b.icmp_signed(">", fewer, _I32(0)), loop, end)
    b.position_at_end(end)
    unit = b.bitcast(b.shl(b.zext(b.add(exponent, _I32(1023 - _BIAS)), _I64), _I64(52)), _F64)
    size = b.bitcast(b.fptrunc(b.fmul(b.uitofp(further, _F64), unit), _F32), _I32)
    result = b.bitcast(b.or_(size, b.and_(b.bitcast(x, _I32), _I32(-(1 << 31)))), _F32)
    no_result = b.or_(is_zero, b.fcmp_unordered("uno", b.fsub(x, x), y))
    return b.select(no_result, ir.Constant(_F32, math.nan), result)


# --- the words


def _seldom(function: Callable[..., ir.Value]) -> Callable[..., ir.Value]:
    """The function in a lane with the condition, else the last argument."""

    def body(b: ir.IRBuilder, kind: Lane, condition: ir.Value, *values: ir.Value) -> ir.Value:
        *arguments, other = values
        before = b.block
        with b.if_then(condition):
            result, end = function(b, *arguments), b.block
        out = b.phi(kind.ir)
        out.add_incoming(other, before)
        out.add_incoming(result, end)
        return out

    return body


#: Name without the element type -> (number of arguments, code generator).
_FUNCTIONS: dict[str, tuple[int, Callable[..., ir.Value]]] = {
    **{f"seldom_{name}": (3, _seldom(_far(name))) for name in ("sin", "cos", "tan")},
    "seldom_fmod": (4, _seldom(_fmod)),
    "libm_pow": (2, _trace_body(power, 2)),
    "libm_exp": (1, _trace_body(_in_f64(approx.exp_f64), 1)),
    "libm_log": (1, _trace_body(_in_f64(approx.log_f64), 1)),
}


class AllWords(Namespace):
    """The words of kernels' sources, with the functions of the C library that have code for GPUs."""

    def _intrinsic(self, name: str) -> Intrinsic:
        if name not in LIBRARY:
            return super()._intrinsic(name)
        count, body = _FUNCTIONS[name.rpartition("_")[0]]
        return generic(name, count, lambda kind: kind, body)


@functools.cache
def namespace(lanes: int = WARP) -> AllWords:
    """The words of kernels for vectors of a warp."""
    assert lanes == WARP, lanes
    return AllWords()
