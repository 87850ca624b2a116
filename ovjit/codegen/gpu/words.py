"""The words of kernels as LLVM code for one thread of a warp.

`ovjit.codegen.words` declares them. `Namespace` has the names that a kernel's source may use, as that of
`ovjit.codegen.cpu.vector` for CPUs; `library` adds functions of the C library. A vector is a scalar here:
the element of this thread's lane.
Addresses are in global memory.

What one lane stores and another one loads needs a barrier of the warp between: see `barriers`. `st` has one
on both sides.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import llvmlite.ir as ir

from ovjit.codegen.cpu import vector as simd
from ovjit.codegen.cpu.intrinsics import conversion, generic, make
from ovjit.codegen.cpu.scalars import cast as cast_scalar
from ovjit.codegen.cpu.types import Intrinsic, signature
from ovjit.codegen.cpu.vector_types import INTS, REGISTER_TYPE, SIZE, Vec, scalar_ir
from ovjit.codegen.gpu import tensor_blocks, tensor_cores
from ovjit.codegen.gpu.barriers import BARRIER
from ovjit.codegen.gpu.calls import call, lane_number, to_bf16
from ovjit.codegen.words import Declared, find
from ovjit.errors import UnsupportedError

#: Lanes of a vector: the threads of a warp.
WARP = 32

_I1, _I8, _I16, _I32, _I64 = (ir.IntType(n) for n in (1, 8, 16, 32, 64))
_F16, _F32, _F64 = ir.HalfType(), ir.FloatType(), ir.DoubleType()
#: All threads of a warp.
_ALL = -1
#: Element type -> its type in memory, if it is another one than in registers.
_IN_MEMORY = {"f16": _F16, "bf16": _I16, "boolean": _I8}


class Lane(Vec):
    """A vector with one element in each thread."""

    @property
    def ir(self) -> ir.Type:
        return scalar_ir(self.elem)


@functools.cache
def _lane(elem: str) -> Lane:
    return Lane(elem, WARP)


class Fragment(Lane):
    """Several elements in each thread."""

    def __init__(self, elem: str, count: int):
        super().__init__(elem, WARP)
        self.name, self.count = f"Fragment({elem}x{count})", count

    @property
    def ir(self) -> ir.Type:
        return ir.VectorType(scalar_ir(self.elem), self.count)


@functools.cache
def fragment_type(elem: str, count: int = 4) -> Fragment:
    """The type of registers of each thread."""
    return Fragment(elem, count)


def lane_type(elem: str) -> Lane:
    """The type of a vector of this element type in registers."""
    return _lane(REGISTER_TYPE.get(elem, elem))


# --- memory


def _from_memory(b: ir.IRBuilder, value: ir.Value, elem: str) -> ir.Value:
    if elem == "f16":
        return b.fpext(value, _F32)
    if elem == "bf16":
        return b.bitcast(b.shl(b.zext(value, _I32), _I32(16)), _F32)
    return b.icmp_unsigned("!=", value, _I8(0)) if elem == "boolean" else value


def _to_memory(b: ir.IRBuilder, value: ir.Value, elem: str) -> ir.Value:
    if elem == "f16":
        return b.fptrunc(value, _F16)
    if elem == "bf16":
        return to_bf16(b, value)
    return b.zext(value, _I8) if elem == "boolean" else value


def _pointer(b: ir.IRBuilder, address: ir.Value, to: ir.Type) -> ir.Value:
    return b.inttoptr(address, to.as_pointer(1))


def _read(b: ir.IRBuilder, address: ir.Value, elem: str) -> ir.Value:
    pointer = _pointer(b, address, _IN_MEMORY.get(elem) or scalar_ir(elem))
    return _from_memory(b, b.load(pointer, align=SIZE[elem]), elem)


def _write(b: ir.IRBuilder, address: ir.Value, value: ir.Value, elem: str) -> None:
    stored = _to_memory(b, value, elem)
    b.store(stored, _pointer(b, address, stored.type), align=SIZE[elem])


def _load_number(b: ir.IRBuilder, p: ir.Value, i: ir.Value) -> ir.Value:
    """Load a number from the bases or the argument block. No kernel stores there, so the load may be
    moved."""
    pointer = _pointer(b, b.add(p, b.mul(i, _I64(8))), _I64)
    if b.function.name != "ovjit_kernel" or p not in b.function.args[:2]:
        return b.load(pointer, align=8)
    return b.say(_I64, f"load i64, {pointer.type} {pointer.get_reference()}, align 8, !invariant.load !0")


def _address(b: ir.IRBuilder, base: ir.Value, step: ir.Value) -> ir.Value:
    """base + lane * step."""
    return b.add(base, b.mul(lane_number(b, 64), step))


def _is_below(b: ir.IRBuilder, count: ir.Value) -> ir.Value:
    """True in the first `count` lanes."""
    return b.icmp_signed("<", lane_number(b, 64), count)


def _read_if(b: ir.IRBuilder, address: ir.Value, elem: str, condition: ir.Value) -> ir.Value:
    """The element at an address, 0 in lanes without the condition, which read nothing."""
    zero = ir.Constant(scalar_ir(elem), 0.0 if scalar_ir(elem) in (_F32, _F64) else 0)
    before = b.block
    with b.if_then(condition):
        value, end = _read(b, address, elem), b.block
    phi = b.phi(value.type)
    phi.add_incoming(value, end)
    phi.add_incoming(zero, before)
    return phi


def _write_if(b: ir.IRBuilder, address: ir.Value, value: ir.Value, elem: str, condition: ir.Value) -> None:
    with b.if_then(condition):
        _write(b, address, value, elem)


def meet(b: ir.IRBuilder) -> None:
    """A barrier of the warp: after it, all lanes see the stores before it."""
    call(b, "llvm.nvvm.bar.warp.sync", ir.VoidType(), _I32(_ALL))


def _store_scalar(elem: str) -> Callable[..., None]:
    def body(b: ir.IRBuilder, address: ir.Value, value: ir.Value) -> None:
        value = b.trunc(value, _I1) if elem == "boolean" and value.type != _I1 else value
        meet(b)  # other lanes may still read the old value
        _write_if(b, address, value, elem, b.icmp_signed("==", lane_number(b), _I32(0)))
        meet(b)

    return body


def _step(elem: str) -> ir.Constant:
    return _I64(SIZE[elem])


def _load_every(count: int) -> Callable[..., Any]:
    """The elements 0, count, 2 count, ... of this lane."""
    return lambda elem: lambda b, p: _read(b, _address(b, p, _I64(count * SIZE[elem])), elem)


# --- across lanes


def _shuffle(b: ir.IRBuilder, value: ir.Value, how: str, other: ir.Value) -> ir.Value:
    """`value` of lane `other` (how: "idx"), or of lane ^ other ("bfly")."""
    kind, name = value.type, f"llvm.nvvm.shfl.sync.{how}.i32"

    def exchange(word: ir.Value) -> ir.Value:
        return call(b, name, _I32, _I32(_ALL), word, other, _I32(WARP - 1))

    if kind in (_F64, _I64):
        bits = b.bitcast(value, _I64) if kind == _F64 else value
        low, high = exchange(b.trunc(bits, _I32)), exchange(b.trunc(b.lshr(bits, _I64(32)), _I32))
        bits = b.or_(b.zext(low, _I64), b.shl(b.zext(high, _I64), _I64(32)))
        return b.bitcast(bits, _F64) if kind == _F64 else bits
    if kind == _F32:
        return b.bitcast(exchange(b.bitcast(value, _I32)), _F32)
    return exchange(value) if kind == _I32 else b.trunc(exchange(b.zext(value, _I32)), kind)


def _across(word: str) -> Callable[..., Any]:
    """Combine the lanes by `word` in a butterfly of shuffles: all lanes get the same bits, in the order of
    the NumPy semantics."""

    def body_for(elem: str) -> Callable[..., Any]:
        def body(b: ir.IRBuilder, value: ir.Value) -> ir.Value:
            for distance in (16, 8, 4, 2, 1):
                value = BODIES[word](b, lane_type(elem), value, _shuffle(b, value, "bfly", _I32(distance)))
            return value

        return body

    return body_for


def _rotate_pairs(b: ir.IRBuilder, kind: Lane, value: ir.Value) -> ir.Value:
    other = _shuffle(b, value, "bfly", _I32(1))
    even = b.icmp_signed("==", b.and_(lane_number(b), _I32(1)), _I32(0))
    return b.select(even, _negate(b, kind, other), other)


# --- arithmetic


def _negate(b: ir.IRBuilder, kind: Lane, x: ir.Value) -> ir.Value:
    return b.fneg(x) if kind.is_float else b.sub(ir.Constant(kind.ir, 0), x)


def _divide(b: ir.IRBuilder, kind: Lane, x: ir.Value, y: ir.Value) -> ir.Value:
    """Integers: truncating; x / 0 is 0 and INT_MIN / -1 is INT_MIN."""
    if kind.is_float:
        return b.fdiv(x, y)
    zero, one, minus_one = (ir.Constant(kind.ir, n) for n in (0, 1, -1))
    by_zero = b.icmp_signed("==", y, zero)
    divisor = b.select(by_zero, one, y)
    if not kind.is_signed:
        return b.select(by_zero, zero, b.udiv(x, divisor))
    negates = b.icmp_signed("==", y, minus_one)
    quotient = b.sdiv(x, b.select(negates, one, divisor))
    return b.select(by_zero, zero, b.select(negates, b.sub(zero, x), quotient))


def _float_word(name: str) -> Callable[..., Any]:
    return lambda b, kind, *x: call(b, f"llvm.{name}.{'f64' if kind.ir == _F64 else 'f32'}", kind.ir, *x)


def _extreme(name: str, sign: str) -> Callable[..., Any]:
    """The larger or smaller of two; NaN if one is."""

    def body(b: ir.IRBuilder, kind: Lane, x: ir.Value, y: ir.Value) -> ir.Value:
        if kind.ir == _F32:
            return call(b, f"llvm.{name}.f32", _F32, x, y)
        if kind.is_float:
            other = b.select(b.fcmp_ordered(sign, y, x), y, x)
            return b.select(b.fcmp_unordered("uno", y, y), y, other)
        return b.select((b.icmp_signed if kind.is_signed else b.icmp_unsigned)(sign, x, y), x, y)

    return body


def _absolute(b: ir.IRBuilder, kind: Lane, x: ir.Value) -> ir.Value:
    if kind.is_float:
        return _float_word("fabs")(b, kind, x)
    if not kind.is_signed:
        return x
    return b.select(b.icmp_signed("<", x, ir.Constant(kind.ir, 0)), _negate(b, kind, x), x)


def _convert(b: ir.IRBuilder, source: Lane, x: ir.Value, to: Lane) -> ir.Value:
    if not source.is_float or to.is_float:
        return simd.convert(b, source, x, to)
    name = f"llvm.fpto{'s' if to.is_signed else 'u'}i.sat.i{INTS[to.elem]}"
    return call(b, f"{name}.{'f64' if x.type == _F64 else 'f32'}", to.ir, x)


def _round_to_int(b: ir.IRBuilder, source: Lane, x: ir.Value, to: Lane) -> ir.Value:
    if to.elem == "u8":
        for sign, end in ((">", 0.0), ("<", 255.0)):
            bound = ir.Constant(x.type, end)
            x = b.select(b.fcmp_ordered(sign, x, bound), x, bound)
    return simd.truncate(b, _float_word("rint")(b, source, x), to)


def _truncate_or_min(b: ir.IRBuilder, source: Lane, x: ir.Value, to: Lane) -> ir.Value:
    low, high = (ir.Constant(x.type, n * 2.0 ** (INTS[to.elem] - 1)) for n in (-1, 1))
    truncated = _float_word("trunc")(b, source, x)
    fits = b.and_(b.fcmp_ordered(">=", truncated, low), b.fcmp_ordered("<", truncated, high))
    return simd.truncate(b, b.select(fits, truncated, low), to)


def _saturate_byte(b: ir.IRBuilder, source: Lane, x: ir.Value, to: Lane) -> ir.Value:
    for sign, end in zip("<>", (-128, 127) if to.is_signed else (0, 255), strict=True):
        x = b.select(b.icmp_signed(sign, x, _I32(end)), _I32(end), x)
    return b.trunc(x, to.ir)


def _low_half(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    return b.ashr(b.shl(x, _I32(16)), _I32(16))


def _high_half(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    return b.ashr(x, _I32(16))


def _join_halves(b: ir.IRBuilder, low: ir.Value, high: ir.Value) -> ir.Value:
    return b.or_(b.and_(low, _I32(0xFFFF)), b.shl(high, _I32(16)))


def _dot_halves(b: ir.IRBuilder, kind: Lane, total: ir.Value, x: ir.Value, w: ir.Value) -> ir.Value:
    for half in (_low_half, _high_half):
        total = b.add(total, b.mul(half(b, x), half(b, w)))
    return total


def _dot_pairs(b: ir.IRBuilder, kind: Lane, x: ir.Value, w: ir.Value) -> ir.Value:
    """Two sums of two products of u8 of `x` and i8 of `w`, as i16. They must fit."""

    def product(byte: int) -> ir.Value:
        lhs = b.and_(b.lshr(x, _I32(8 * byte)), _I32(0xFF))
        rhs = b.ashr(b.shl(w, _I32(24 - 8 * byte)), _I32(24))
        return b.mul(lhs, rhs)

    return _join_halves(b, b.add(product(0), product(1)), b.add(product(2), product(3)))


def _add_pairs(b: ir.IRBuilder, kind: Lane, x: ir.Value, y: ir.Value) -> ir.Value:
    return _join_halves(b, b.add(x, y), b.add(_high_half(b, x), _high_half(b, y)))


def _sum_pairs(b: ir.IRBuilder, kind: Lane, total: ir.Value, x: ir.Value) -> ir.Value:
    return b.add(total, b.add(_low_half(b, x), _high_half(b, x)))


def _shift_halves(b: ir.IRBuilder, kind: Lane, x: ir.Value, by: ir.Value) -> ir.Value:
    low = b.ashr(_low_half(b, x), _low_half(b, by))
    return _join_halves(b, low, b.ashr(_high_half(b, x), _high_half(b, by)))


def _dot_bytes(signs: str) -> Callable[..., Any]:
    return lambda b, kind, total, x, w: call(b, f"llvm.nvvm.idp4a.{signs}", _I32, x, w, total)


#: Words with the code of CPUs, which depends on the kind of a vector alone.
_AS_ON_CPUS = (
    "add sub mul and_ or_ xor shl shr lt le gt ge eq ne select trunc_int_T bits_T imin imax udiv urem "
    "whole_power"
)
#: Word -> its code generator, as `ovjit.codegen.cpu.vector.BODIES`, but that bodies for one element type are
#: functions of that type alone.
BODIES: dict[str, Any] = {
    **{name: simd.BODIES[name] for name in _AS_ON_CPUS.split()},
    "div": _divide, "neg": _negate, "abs_": _absolute,
    "max_": _extreme("maximum", ">"), "min_": _extreme("minimum", "<"),
    "fma": lambda b, k, x, y, z: _float_word("fma")(b, k, x, y, z) if k.is_float else b.add(b.mul(x, y), z),
    "exact_fma": _float_word("fma"),
    "rcp": lambda b, k, x: b.fdiv(ir.Constant(k.ir, 1.0), x),
    **{name: _float_word(name) for name in ("sqrt", "floor", "ceil", "trunc", "rint")},
    "not_": lambda b, k, x: b.xor(x, ir.Constant(k.ir, -1)), "turned_pairs": _rotate_pairs,
    "dot_bytes": _dot_bytes("u.s"), "dot_signed": _dot_bytes("s.s"), "dot_halves": _dot_halves,
    "dot_pairs": _dot_pairs, "add_pairs": _add_pairs, "sum_pairs": _sum_pairs, "shr_halves": _shift_halves,
    # conversions
    "cast_T": _convert, "trunc_or_min_T": _truncate_or_min, "round_int_T": _round_to_int,
    "saturate_T": _saturate_byte,
    # numbers
    "ld": _load_number,
    "to_int": lambda b, x: call(b, "llvm.fptosi.sat.i64.f64", _I64, x),
    "prefetch": lambda b, p: None, "prefetch_l2": lambda b, p: None,
    "now": lambda b: call(b, "llvm.nvvm.read.ptx.sreg.globaltimer", _I64),
    # for one element type
    "hadd_T": _across("add"), "hmul_T": _across("mul"), "hmax_T": _across("max_"),
    "hmin_T": _across("min_"), "hand_T": _across("and_"), "hor_T": _across("or_"),
    "load_T": _load_every(1), "evens_T": _load_every(2), "thirds_T": _load_every(3),
    "loadm_T": lambda e: lambda b, p, n: _read_if(b, _address(b, p, _step(e)), e, _is_below(b, n)),
    "store_T": lambda e: lambda b, p, v: _write(b, _address(b, p, _step(e)), v, e),
    "storem_T": lambda e: lambda b, p, v, n: _write_if(b, _address(b, p, _step(e)), v, e, _is_below(b, n)),
    "gather_T": lambda e: lambda b, p, s, n: _read_if(b, _address(b, p, s), e, _is_below(b, n)),
    "scatter_T": lambda e: lambda b, p, s, v, n: _write_if(b, _address(b, p, s), v, e, _is_below(b, n)),
    "take_T": lambda e: lambda b, p, i: _read(b, b.add(p, b.mul(b.sext(i, _I64), _step(e))), e),
    "splat_T": lambda e: lambda b, p: _read(b, p, e), "spread_T": lambda e: lambda b, x: x,
    "permute_T": lambda e: lambda b, v, i: _shuffle(b, v, "idx", i),
    "blend_T": lambda e: lambda b, n, x, y: b.select(_is_below(b, n), x, y),
    "lane_T": lambda e: lambda b, v, i: _shuffle(b, v, "idx", b.trunc(i, _I32)),
    "ld_T": lambda e: lambda b, p: _read(b, p, e), "st_T": _store_scalar,
}  # fmt: skip
BODIES |= tensor_cores.BODIES | tensor_blocks.BODIES | {BARRIER: meet}
BODIES["strided_T"], BODIES["strided_store_T"] = BODIES["gather_T"], BODIES["scatter_T"]


class Namespace(dict[str, Intrinsic]):
    """The words of kernels' sources, created on first use. Words of CPUs alone raise UnsupportedError."""

    def __missing__(self, name: str) -> Intrinsic:
        intrinsic = self[name] = self._intrinsic(name)
        return intrinsic

    def _intrinsic(self, name: str) -> Intrinsic:
        word, elem = find(name)
        try:
            body = BODIES[word.name] if word.arguments != ("number",) else None
        except KeyError:
            raise UnsupportedError(f"the word {name} has no code for GPUs") from None
        if elem:
            return self._for_elements(name, word, elem, body)
        if word.result in ("mask", "v"):
            boolean = word.result == "mask"
            arity = len(word.arguments)
            return generic(name, arity, lambda k: lane_type("boolean") if boolean else k, body)
        kinds = [_TYPES[text] for text in (word.result, *word.arguments)]
        return make(name, signature(*kinds), body)

    def _for_elements(self, name: str, word: Declared, elem: str, body: Any) -> Intrinsic:
        kind, scalar = lane_type(elem), simd._scalar_type(elem)
        if word.arguments == ("number",):

            def resolve(x: Any) -> Any:
                return signature(kind, x), lambda b, value: cast_scalar(b, value, x, scalar)

            return Intrinsic(name, 1, resolve)
        if word.arguments == ("v",):
            return conversion(name, kind, lambda b, source, x: body(b, source, x, kind))
        sums = "i32" if elem[0] in "iu" else "f32"
        types_by_name = _TYPES | {
            "V": kind, "x": scalar, "A": fragment_type(sums), "E": fragment_type(kind.elem, 8),
            **{f"G{n}": fragment_type(sums, n // 2) for n in tensor_blocks.COLUMNS},
        }  # fmt: skip
        kinds = [types_by_name[text] for text in (word.result, *word.arguments)]
        return make(name, signature(*kinds), body(elem))


#: Types of `ovjit.codegen.words` that do not depend on an element type.
_TYPES: dict[str, Any] = {
    **simd._NUMBERS, "I": lane_type("i32"), "L": lane_type("i64"), "W": fragment_type("i32"),
    "mask": lane_type("boolean"),
}  # fmt: skip
