"""Numbers in kernels: type promotion, and their LLVM instructions.

The rules are Numba's for int64, bool and float (`error_model="numpy"`), without its tables of overloads.
Integers are promoted to 64 bits. A quotient or remainder by zero is 0. Of comparisons with NaN, only `!=` is
true. Raises `Outside` for code that needs Numba's ordinary pipeline.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import llvmlite.ir as ir

from ovjit.codegen.cpu import types
from ovjit.codegen.cpu.types import Outside
from ovjit.codegen.cpu.vector_types import Vec, call_intrinsic, once, suffix

I1, I64, F64 = ir.IntType(1), ir.IntType(64), ir.DoubleType()
_LOWEST = -(1 << 63)


_LLVM: dict[Any, ir.Type] = {types.boolean: I1, types.float64: F64, types.float32: ir.FloatType()}
for _bits in (8, 16, 32, 64):
    for _name in (f"int{_bits}", f"uint{_bits}"):
        _LLVM[types.NUMBERS[_name]] = ir.IntType(_bits)


def llvm_type(kind: Any) -> ir.Type:
    """The LLVM type of a variable of type `kind`."""
    if isinstance(kind, Vec):
        return kind.ir
    if kind not in _LLVM:
        raise Outside(f"a variable of type {kind}")
    return _LLVM[kind]


def is_signed(kind: Any) -> bool:
    return kind is not types.boolean and kind.signed


def _is_integer(kind: Any) -> bool:
    return isinstance(kind, types.Integer)


def is_whole(kind: Any) -> bool:
    return kind is types.boolean or _is_integer(kind)


def fits_int64(kind: Any) -> bool:
    """Whether int64 represents all values of the type."""
    return is_whole(kind) and kind is not types.uint64


def cast(b: ir.IRBuilder, value: ir.Value, source: Any, to: Any) -> ir.Value:
    """Convert `value` to type `to`, as Numba converts arguments and assigned values."""
    if source == to:
        return value
    if isinstance(source, Vec) or isinstance(to, Vec):
        raise Outside(f"{source} where {to} is needed")
    target = llvm_type(to)
    if is_whole(source) and to is types.boolean:
        return b.icmp_unsigned("!=", value, ir.Constant(value.type, 0))
    if is_whole(source) and _is_integer(to):
        if isinstance(value, ir.Constant) and source is not types.boolean:
            bits = value.constant & ((1 << target.width) - 1)
            return ir.Constant(
                target, bits - (1 << target.width) if to.signed and bits >> (target.width - 1) else bits
            )
        width = value.type.width
        if width == target.width:
            return value
        return (
            b.trunc(value, target)
            if width > target.width
            else (b.sext if is_signed(source) else b.zext)(value, target)
        )
    if is_whole(source) and isinstance(to, types.Float):
        return (b.sitofp if is_signed(source) else b.uitofp)(value, target)
    if isinstance(source, types.Float) and isinstance(to, types.Float):
        return (b.fptrunc if source.bitwidth > to.bitwidth else b.fpext)(value, target)
    raise Outside(f"{source} where {to} is needed")


def _floor_divide(b: ir.IRBuilder, x: ir.Value, y: ir.Value, signed: bool) -> tuple[ir.Value, ir.Value]:
    """(x // y, x % y), rounded down. Both are 0 for y = 0 and if the quotient overflows.

    Both are emitted once, as they take twenty instructions, and kernels that use one mostly use the other.
    """
    return once(b, ("divided", x, y, signed), lambda: _divide(b, x, y, signed))


def _divide(b: ir.IRBuilder, x: ir.Value, y: ir.Value, signed: bool) -> tuple[ir.Value, ir.Value]:
    divide, modulo = (b.sdiv, b.srem) if signed else (b.udiv, b.urem)
    literal = isinstance(y, ir.Constant) and y.constant not in (0, -1)
    undefined, divisor = None, y
    if not literal:
        undefined = b.icmp_unsigned("==", y, I64(0))
        if signed:
            lowest = b.and_(b.icmp_signed("==", x, I64(_LOWEST)), b.icmp_signed("==", y, I64(-1)))
            undefined = b.or_(undefined, lowest)
        divisor = b.select(undefined, I64(1), y)
    quotient, remainder = divide(x, divisor), modulo(x, divisor)
    if signed:
        signs_differ = b.icmp_signed("<", b.xor(remainder, divisor), I64(0))
        down = b.and_(b.icmp_signed("!=", remainder, I64(0)), signs_differ)
        quotient = b.sub(quotient, b.zext(down, I64))
        remainder = b.add(remainder, b.select(down, divisor, I64(0)))
    if undefined is not None:
        quotient, remainder = (b.select(undefined, I64(0), v) for v in (quotient, remainder))
    return quotient, remainder


def _float_divided(b: ir.IRBuilder, x: ir.Value, y: ir.Value) -> tuple[ir.Value, ir.Value]:
    """(x // y, x % y) of floats as in Python; for y = 0 as in IEEE 754."""
    zero, one = ir.Constant(x.type, 0.0), ir.Constant(x.type, 1.0)
    rem = b.frem(x, y)
    quotient = b.fdiv(b.fsub(x, rem), y)
    negative = b.fcmp_ordered("<", y, zero)
    uneven = b.fcmp_unordered("!=", rem, zero)
    # the remainder has the sign of the divisor, also if it is zero
    differ = b.and_(uneven, b.xor(negative, b.fcmp_ordered("<", rem, zero)))
    nothing = b.select(negative, ir.Constant(x.type, -0.0), zero)
    remainder = b.select(uneven, b.select(differ, b.fadd(rem, y), rem), nothing)
    quotient = b.select(differ, b.fsub(quotient, one), quotient)
    # the quotient is nearly an integer; zero has the sign of x / y
    floor = call_intrinsic(b, f"llvm.floor.{suffix(x.type)}", x.type, [quotient])
    half = b.fcmp_ordered(">", b.fsub(quotient, floor), ir.Constant(x.type, 0.5))
    rounded = b.select(half, b.fadd(floor, one), floor)
    signed_zero = b.fdiv(b.fmul(b.fmul(quotient, quotient), x), y)
    rounded = b.select(b.fcmp_unordered("!=", quotient, zero), rounded, signed_zero)
    by_zero = b.fcmp_ordered("==", y, zero)
    return b.select(by_zero, b.fdiv(x, y), rounded), b.select(by_zero, rem, remainder)


_NO_WRAP = ("nsw",)
_WHOLE: dict[Any, Callable[[ir.IRBuilder, ir.Value, ir.Value, bool], ir.Value]] = {
    # as in Numba, overflow is undefined, which speeds up loops over addresses
    operator.add: lambda b, x, y, signed: b.add(x, y, flags=_NO_WRAP if signed else ()),
    operator.sub: lambda b, x, y, signed: b.sub(x, y, flags=_NO_WRAP if signed else ()),
    operator.mul: lambda b, x, y, signed: b.mul(x, y, flags=_NO_WRAP if signed else ()),
    operator.and_: lambda b, x, y, signed: b.and_(x, y),
    operator.or_: lambda b, x, y, signed: b.or_(x, y),
    operator.xor: lambda b, x, y, signed: b.xor(x, y),
    operator.lshift: lambda b, x, y, signed: b.shl(x, y),
    operator.rshift: lambda b, x, y, signed: (b.ashr if signed else b.lshr)(x, y),
    operator.floordiv: lambda b, x, y, signed: _floor_divide(b, x, y, signed)[0],
    operator.mod: lambda b, x, y, signed: _floor_divide(b, x, y, signed)[1],
}
_FLOAT: dict[Any, Callable[[ir.IRBuilder, ir.Value, ir.Value], ir.Value]] = {
    operator.add: lambda b, x, y: b.fadd(x, y),
    operator.sub: lambda b, x, y: b.fsub(x, y),
    operator.mul: lambda b, x, y: b.fmul(x, y),
    operator.truediv: lambda b, x, y: b.fdiv(x, y),
    operator.floordiv: lambda b, x, y: _float_divided(b, x, y)[0],
    operator.mod: lambda b, x, y: _float_divided(b, x, y)[1],
}
_COMPARE = {
    operator.lt: "<", operator.le: "<=", operator.gt: ">", operator.ge: ">=", operator.eq: "==",
    operator.ne: "!=",
}  # fmt: skip
_BITS = (operator.and_, operator.or_, operator.xor)


def _meet(lhs: Any, rhs: Any) -> Any:
    """The common type of two operands. Raises Outside if the language has none."""
    if lhs is rhs and lhs in (types.int64, types.float32, types.float64):
        return lhs
    if not all(is_whole(t) or t in (types.float32, types.float64) for t in (lhs, rhs)):
        raise Outside(f"an operator between {lhs} and {rhs}")
    if is_whole(lhs) and is_whole(rhs):
        if fits_int64(lhs) and fits_int64(rhs):
            both = all(t is not types.boolean and not t.signed for t in (lhs, rhs))
            return types.uint64 if both else types.int64
        if is_signed(lhs) or is_signed(rhs):
            raise Outside(f"an operator between {lhs} and {rhs}")
        return types.uint64
    for one, other in ((lhs, rhs), (rhs, lhs)):
        if is_whole(one) and other is types.float32:
            return types.float32 if one is types.boolean or one.bitwidth <= 16 else types.float64
    return types.float32 if lhs == rhs == types.float32 else types.float64


def binary(
    b: ir.IRBuilder, f: Any, lhs: tuple[Any, ir.Value], rhs: tuple[Any, ir.Value]
) -> tuple[Any, ir.Value]:
    """`lhs f rhs` as (type, value). Operands are (type, value), too."""
    (lt, x), (rt, y) = lhs, rhs
    if lt is types.boolean and rt is types.boolean and f in _BITS:
        return lt, _WHOLE[f](b, x, y, False)
    kind = _meet(lt, rt)
    if f is operator.truediv and is_whole(kind):
        kind = types.float64
    x, y = cast(b, x, lt, kind), cast(b, y, rt, kind)
    if f in _COMPARE:
        if not is_whole(kind):
            compare = b.fcmp_unordered if f is operator.ne else b.fcmp_ordered
        else:
            compare = b.icmp_signed if kind.signed else b.icmp_unsigned
        return types.boolean, compare(_COMPARE[f], x, y)
    if is_whole(kind) and f in _WHOLE:
        return kind, _WHOLE[f](b, x, y, kind.signed)
    if not is_whole(kind) and f in _FLOAT:
        return kind, _FLOAT[f](b, x, y)
    raise Outside(f"{getattr(f, '__name__', f)} of {lt} and {rt}")


def unary(b: ir.IRBuilder, f: Any, operand: tuple[Any, ir.Value]) -> tuple[Any, ir.Value]:
    """`f operand` as (type, value)."""
    kind, x = operand
    if f is operator.not_ and is_whole(kind):
        return types.boolean, b.icmp_unsigned("==", x, ir.Constant(x.type, 0))
    if _is_integer(kind) and kind.signed:
        x = cast(b, x, kind, types.int64)
        literal = isinstance(x, ir.Constant)
        if f is operator.neg:
            return types.int64, I64(-x.constant) if literal and x.constant != _LOWEST else b.neg(x)
        if f is operator.invert:
            return types.int64, I64(~x.constant) if literal else b.not_(x)
        if f is operator.pos:
            return types.int64, x
    if isinstance(kind, types.Float):
        if f is operator.neg:
            return kind, ir.Constant(x.type, -x.constant) if isinstance(x, ir.Constant) else b.fneg(x)
        if f is operator.pos:
            return kind, x
    raise Outside(f"{getattr(f, '__name__', f)} of {kind}")
