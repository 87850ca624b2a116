"""The vector type of generated kernels, and what can be done with it.

`namespace(lanes)` gives the names that generated source may use. Addresses are int64, offsets bytes.
For an element type T (f32 f64 f16 bf16 i8 .. u64 boolean):

    load_T(p) loadm_T(p, n)         the vector at p; of its first n lanes, the others 0
    store_T(p, v) storem_T(p, v, n) the same for stores
    splat_T(p)                      the one element at p in all lanes
    gather_T(p, stride, n)          elements p, p + stride, ... (first n lanes)
    scatter_T(p, stride, v, n)
    strided_T(p, stride, n)         gather_T where some strides are likelier than others: contiguous
                                    elements, one for all lanes, and bytes or halves of 2, 3 or 4 channels
    strided_store_T(p, stride, v, n)    scatter_T likewise, for contiguous elements
    take_T(p, i)                    elements p[i] for an i32 vector of indices: all of them must be valid
    evens_T(p)                      every other one of the 2 VL elements at p, from the first on
    permute_T(v, i)                 lanes i of v (f32 and i32), 0 <= i < lanes
    const_T(x)                      a compile-time number in all lanes
    cast_T(v) trunc_int_T(v) round_int_T(v)  convert: saturating; unchecked, towards 0 or to the nearest
    bits_T(v)               reinterpret
    spread_T(x), blend_T(n, a, b)   a number in all lanes; the first n lanes of a, the others of b
    hadd_T hmul_T hmax_T hmin_T hand_T hor_T(v)  reduce the lanes in a fixed order
    add sub mul div neg fma dot_bytes max_ min_ abs_ sqrt floor ceil trunc rint, lt le gt ge eq ne,
    and_ or_ xor not_ shl shr, select(mask, a, b), libm_<name>_<f32|f64>
    a + b, -a, a < b, ...           operators on vectors are these words (`OPERATORS`)
    whole(x)                        a float (f64) as int64: cut off, saturating, NaN gives 0
    lane_f32(v, i), ld(args, i) (an int64 of a table), ld_T(p), st_T(p, x) scalars, imin imax(i, j)
    udiv urem(i, j)                 i // j and i % j for 0 <= i, 0 < j: half of what // and % take

f16 and bf16 are f32 in registers; boolean is a mask (i1).
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from typing import Any

import llvmlite.ir as ir
from numba.core import types
from numba.core.typing.templates import signature
from numba.extending import intrinsic, models, overload, register_model

from ovjit.codegen.cpu.isa import ISAS, has_features

_FLOATS = {"f32": ir.FloatType(), "f64": ir.DoubleType()}
_INTS = {"i8": 8, "i16": 16, "i32": 32, "i64": 64, "u8": 8, "u16": 16, "u32": 32, "u64": 64}
_I1, _I8, _I16, _I32, _I64 = (ir.IntType(n) for n in (1, 8, 16, 32, 64))
_FAST = ("contract",)
REGISTER_TYPE = {"f16": "f32", "bf16": "f32"}
SIZE = {"f16": 2, "bf16": 2, "f32": 4, "f64": 8, "boolean": 1, **{k: v // 8 for k, v in _INTS.items()}}


class _BFloat(ir.Type):
    """LLVM's bfloat, which llvmlite has no class for."""

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _BFloat)

    def __hash__(self) -> int:
        return hash(_BFloat)


@functools.cache
def bf16_vector(lanes: int) -> ir.VectorType:
    """What the bf16 instructions take and give; elsewhere a bf16 is 16 bits."""
    return ir.VectorType(_BFloat(), lanes)


def scalar_ir(elem: str) -> ir.Type:
    """The LLVM type of one lane in a register."""
    elem = REGISTER_TYPE.get(elem, elem)
    return _FLOATS.get(elem) or (_I1 if elem == "boolean" else ir.IntType(_INTS[elem]))


class Vec(types.Type):
    """`lanes` values of element type `elem` in one LLVM vector."""

    def __init__(self, elem: str, lanes: int):
        self.elem = elem
        self.lanes = lanes
        super().__init__(name=f"Vec({elem}x{lanes})")

    @property
    def ir(self) -> ir.VectorType:
        return ir.VectorType(scalar_ir(self.elem), self.lanes)

    @property
    def is_float(self) -> bool:
        return self.elem in _FLOATS

    @property
    def is_signed(self) -> bool:
        return self.elem[0] == "i"


@register_model(Vec)
class VecModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Vec):
        super().__init__(dmm, fe_type, fe_type.ir)


@functools.cache
def vec(elem: str, lanes: int) -> Vec:
    return Vec(REGISTER_TYPE.get(elem, elem), lanes)


# --- LLVM building blocks, shared with the tile generators


def iota_mask(builder: ir.IRBuilder, n: ir.Value, lanes: int) -> ir.Value:
    """<lanes x i1>: lane < n."""
    if n.type == _I64:  # a row may have more elements than 32 bits count
        n = builder.trunc(builder.select(builder.icmp_signed("<", n, _I64(lanes)), n, _I64(lanes)), _I32)
    iota = ir.Constant(ir.VectorType(_I32, lanes), list(range(lanes)))
    return builder.icmp_signed("<", iota, broadcast(builder, n, lanes))


def broadcast(builder: ir.IRBuilder, value: ir.Value, lanes: int) -> ir.Value:
    vt = ir.VectorType(value.type, lanes)
    one = builder.insert_element(ir.Constant(vt, ir.Undefined), value, _I32(0))
    zeros = ir.Constant(ir.VectorType(_I32, lanes), [0] * lanes)
    return builder.shuffle_vector(one, ir.Constant(vt, ir.Undefined), zeros)


def pointer(builder: ir.IRBuilder, address: ir.Value, to: ir.Type) -> ir.Value:
    return builder.inttoptr(address, to.as_pointer())


def call_intrinsic(builder: ir.IRBuilder, name: str, result: ir.Type, args: list) -> ir.Value:
    module = builder.module
    fnty = ir.FunctionType(result, [a.type for a in args])
    fn = module.globals.get(name) or ir.Function(module, fnty, name)
    return builder.call(fn, args)


def suffix(t: ir.Type) -> str:
    """LLVM's overload suffix: v16f32, i64 ..."""
    if isinstance(t, ir.VectorType):
        return f"v{t.count}{suffix(t.element)}"
    return {"float": "f32", "double": "f64", "half": "f16"}.get(str(t)) or str(t)


def memory_ir(elem: str) -> ir.Type:
    """The LLVM type of one element in memory."""
    if elem == "f16":
        return ir.HalfType()
    if elem in ("bf16", "boolean"):
        return {"bf16": _I16, "boolean": _I8}[elem]
    return scalar_ir(elem)


def from_memory(builder: ir.IRBuilder, v: ir.Value, elem: str) -> ir.Value:
    """Memory representation -> register representation, scalars and vectors."""
    lanes = v.type.count if isinstance(v.type, ir.VectorType) else 0

    def t(s: ir.Type) -> ir.Type:
        return ir.VectorType(s, lanes) if lanes else s

    if elem == "f16":
        return (
            builder.fpext(v, t(ir.FloatType())) if lanes > _NO_HALVES else _half_to_float(builder, v, lanes)
        )
    if elem == "bf16":
        wide = builder.zext(v, t(_I32))
        sixteen = ir.Constant(t(_I32), [16] * lanes if lanes else 16)
        return builder.bitcast(builder.shl(wide, sixteen), t(ir.FloatType()))
    if elem == "boolean":
        zero = ir.Constant(t(_I8), [0] * lanes if lanes else 0)
        return builder.icmp_unsigned("!=", v, zero)
    return v


def to_memory(builder: ir.IRBuilder, v: ir.Value, elem: str) -> ir.Value:
    """Register representation -> memory representation; bf16 rounds to nearest even, NaN stays NaN."""
    lanes = v.type.count if isinstance(v.type, ir.VectorType) else 0

    def t(s: ir.Type) -> ir.Type:
        return ir.VectorType(s, lanes) if lanes else s

    def k(s: ir.Type, x: int) -> ir.Constant:
        return ir.Constant(t(s), [x] * lanes if lanes else x)

    if elem == "f16":
        return (
            builder.fptrunc(v, t(ir.HalfType())) if lanes > _NO_HALVES else _float_to_half(builder, v, lanes)
        )
    if elem == "bf16":
        if lanes == _BF16_LANES and has_features(ISAS["avx512"], ("avx512bf16",)):
            name = f"llvm.x86.avx512bf16.cvtneps2bf16.{32 * lanes}"
            return builder.bitcast(call_intrinsic(builder, name, bf16_vector(lanes), [v]), t(_I16))
        i = builder.bitcast(v, t(_I32))
        odd = builder.and_(builder.lshr(i, k(_I32, 16)), k(_I32, 1))
        rounded = builder.lshr(builder.add(builder.add(i, k(_I32, 0x7FFF)), odd), k(_I32, 16))
        quiet = builder.or_(builder.lshr(i, k(_I32, 16)), k(_I32, 0x40))
        nan = builder.fcmp_unordered("uno", v, v)
        return builder.trunc(builder.select(nan, quiet, rounded), t(_I16))
    if elem == "boolean":
        return builder.zext(v, t(_I8))
    return v


#: Vectors of so few lanes are those of CPUs that need not have instructions for f16: there LLVM would call
#: functions of libgcc's, which a process may not have. Single numbers (0 lanes) take the same way.
_NO_HALVES = 4


#: Vectors of so many lanes are rounded to bf16 by the instruction, where the CPU has it. It takes denormals
#: for 0.
_BF16_LANES = 16


def _half_to_float(b: ir.IRBuilder, v: ir.Value, lanes: int) -> ir.Value:
    """f16 -> f32 by integers: exact, NaN stays NaN."""

    def t(s: ir.Type) -> ir.Type:
        return ir.VectorType(s, lanes) if lanes else s

    def k(x: Any, s: ir.Type = _I32) -> ir.Constant:
        return ir.Constant(t(s), [x] * lanes if lanes else x)

    h = b.zext(b.bitcast(v, t(_I16)), t(_I32))
    size = b.and_(h, k(0x7FFF))
    wide = b.shl(size, k(13))
    normal = b.add(wide, k(112 << 23))
    small = b.bitcast(b.fmul(b.sitofp(size, t(ir.FloatType())), k(2.0**-24, ir.FloatType())), t(_I32))
    finite = b.select(b.icmp_signed("<", size, k(0x400)), small, normal)
    bits = b.select(b.icmp_signed(">=", size, k(0x7C00)), b.or_(wide, k(0x7F800000)), finite)
    sign = b.shl(b.and_(h, k(0x8000)), k(16))
    return b.bitcast(b.or_(bits, sign), t(ir.FloatType()))


def _float_to_half(b: ir.IRBuilder, v: ir.Value, lanes: int) -> ir.Value:
    """f32 -> f16 by integers: to the nearest, ties to even; NaN stays NaN."""

    def t(s: ir.Type) -> ir.Type:
        return ir.VectorType(s, lanes) if lanes else s

    def k(x: Any, s: ir.Type = _I32) -> ir.Constant:
        return ir.Constant(t(s), [x] * lanes if lanes else x)

    i = b.bitcast(v, t(_I32))
    size = b.and_(i, k(0x7FFFFFFF))
    moved = b.sub(size, k(112 << 23))
    odd = b.and_(b.lshr(moved, k(13)), k(1))
    normal = b.lshr(b.add(b.add(moved, k(0xFFF)), odd), k(13))
    # below 2^-14: the addition rounds to multiples of 2^-24, which is what the last bit of 0.5 is worth
    half = k(0.5, ir.FloatType())
    raised = b.fadd(b.bitcast(size, t(ir.FloatType())), half)
    small = b.sub(b.bitcast(raised, t(_I32)), k(0x3F000000))
    finite = b.select(b.icmp_signed("<", size, k(0x38800000)), small, normal)
    bounded = b.select(b.icmp_signed(">=", size, k(0x477FF000)), k(0x7C00), finite)
    nan = b.or_(k(0x7E00), b.and_(b.lshr(size, k(13)), k(0x3FF)))
    bits = b.select(b.icmp_signed(">", size, k(0x7F800000)), nan, bounded)
    sign = b.and_(b.lshr(i, k(16)), k(0x8000))
    return b.bitcast(b.trunc(b.or_(bits, sign), t(_I16)), t(ir.HalfType()))


def load_vector(
    builder: ir.IRBuilder, address: ir.Value, elem: str, lanes: int, n: ir.Value | None = None
) -> ir.Value:
    """`lanes` elements at `address`; with `n`, only the first n are touched, the rest are 0."""
    vt = ir.VectorType(memory_ir(elem), lanes)
    p = pointer(builder, address, vt)

    def masked() -> ir.Value:
        return masked_load(builder, p, vt, SIZE[elem], iota_mask(builder, n, lanes))

    def whole() -> ir.Value:
        return builder.load(p, align=SIZE[elem])

    if n is None:
        v = whole()
    elif lanes >= _MASKED_LANES or SIZE[elem] >= 4:
        v = masked()
    else:
        v = _if_whole(builder, n, lanes, whole, masked)
    return from_memory(builder, v, elem)


#: Vectors of so many lanes are AVX-512's, whose masks cost nothing. Without them a masked store is some ten
#: times as slow as a whole one on some CPUs, and a masked load of elements of 1 and 2 bytes is a branch for
#: each lane.
_MASKED_LANES = 16


def _if_whole(
    builder: ir.IRBuilder, n: ir.Value, lanes: int, whole: Callable[[], Any], masked: Callable[[], Any]
) -> Any:
    """What `whole` makes where n lanes are all there are, else what `masked` does; for both, the value."""
    found = []
    with builder.if_else(builder.icmp_signed(">=", n, n.type(lanes))) as ways:
        for way, make in zip(ways, (whole, masked), strict=True):
            with way:
                value = make()
                found.append((value, builder.block))
    if found[0][0] is None:
        return None
    phi = builder.phi(found[0][0].type)
    for value, block in found:
        phi.add_incoming(value, block)
    return phi


def masked_load(
    builder: ir.IRBuilder, p: ir.Value, vt: ir.VectorType, align: int, mask: ir.Value
) -> ir.Value:
    zero = (
        ir.Constant(vt, [0] * vt.count) if not isinstance(vt.element, ir.HalfType) else ir.Constant(vt, None)
    )
    return call_intrinsic(builder, f"llvm.masked.load.{suffix(vt)}.p0", vt, [p, _I32(align), mask, zero])


def hidden(builder: ir.IRBuilder, n: ir.Value) -> ir.Value:
    """`n`, of which the optimiser knows nothing; no instruction comes of it. Equal ones are one."""
    same = builder.asm(ir.FunctionType(n.type, [n.type]), "", "=r,0", [n], False)
    same.attributes.add("readnone")
    same.attributes.add("nounwind")
    return same


def splat(builder: ir.IRBuilder, address: ir.Value, elem: str, lanes: int) -> ir.Value:
    """The one element at `address` in all lanes."""
    return broadcast(builder, _load_scalar(builder, address, elem), lanes)


#: Elements that no wider lanes are cut to when they are stored.
_NOT_NARROWED = ("f32", "f64", "i64", "u64")


def store_vector(
    builder: ir.IRBuilder, address: ir.Value, v: ir.Value, elem: str, n: ir.Value | None = None
) -> None:
    """Lanes of `v` to memory; with `n`, the first n and no byte besides."""
    v = to_memory(builder, v, elem)
    vt = v.type
    p = pointer(builder, address, vt)

    def whole() -> None:
        builder.store(v, p, align=SIZE[elem])

    def masked() -> None:
        # LLVM narrows lanes and stores them in one step. Where it knows that there is one lane, it forgets
        # the narrowing and writes the wide lane: 4 bytes for one bf16. So it is not to know, of what may be
        # narrowed.
        mask = iota_mask(builder, n if elem in _NOT_NARROWED else hidden(builder, n), vt.count)
        arguments = [v, p, _I32(SIZE[elem]), mask]
        call_intrinsic(builder, f"llvm.masked.store.{suffix(vt)}.p0", ir.VoidType(), arguments)

    if n is None:
        whole()
    elif vt.count >= _MASKED_LANES:
        masked()
    else:
        _if_whole(builder, n, vt.count, whole, masked)


# --- the namespace of generated code


def _make(name: str, sig: Any, body: Any) -> Any:
    """An intrinsic `name` with the fixed signature `sig` and LLVM builder `body(builder, *args)`."""

    def define(typingctx: Any, *args: Any) -> Any:
        def codegen(context: Any, builder: Any, s: Any, values: Any) -> Any:
            out = body(builder, *values)
            return context.get_dummy_value() if sig.return_type == types.void else out

        return sig, codegen

    arguments = ", ".join(f"a{i}" for i in range(len(sig.args)))
    scope: dict[str, Any] = {"define": define}
    exec(f"def {name}(typingctx, {arguments}): return define(typingctx, {arguments})", scope)  # fixed text
    return intrinsic(scope[name])


def _generic(name: str, arity: int, result: Any, body: Any) -> Any:
    """An intrinsic over vectors of any element type; `result(vec)` is its type."""

    def define(typingctx: Any, *args: Any) -> Any:
        if not all(isinstance(a, Vec) for a in args):
            return None
        kind = args[-1]

        def codegen(context: Any, builder: Any, s: Any, values: Any) -> Any:
            return body(builder, kind, *values)

        return signature(result(kind), *args), codegen

    arguments = ", ".join(f"a{i}" for i in range(arity))
    scope: dict[str, Any] = {"define": define}
    exec(f"def {name}(typingctx, {arguments}): return define(typingctx, {arguments})", scope)  # fixed text
    return intrinsic(scope[name])


def _splat_constant(kind: Vec, value: Any) -> ir.Constant:
    return ir.Constant(kind.ir, [value] * kind.lanes)


def _float_or_int(float_op: str, int_op: str) -> Any:
    def body(b: ir.IRBuilder, kind: Vec, x: ir.Value, y: ir.Value) -> ir.Value:
        if kind.is_float:
            return getattr(b, float_op)(x, y, flags=_FAST)
        return getattr(b, int_op)(x, y)

    return body


def _divide(b: ir.IRBuilder, kind: Vec, x: ir.Value, y: ir.Value) -> ir.Value:
    """Integers: truncating; x / 0 is 0 and INT_MIN / -1 is INT_MIN (neither may trap)."""
    if kind.is_float:
        return b.fdiv(x, y)
    zero, one = _splat_constant(kind, 0), _splat_constant(kind, 1)
    by_zero = b.icmp_signed("==", y, zero)
    safe = b.select(by_zero, one, y)
    if not kind.is_signed:
        return b.select(by_zero, zero, b.udiv(x, safe))
    minus_one = b.icmp_signed("==", y, _splat_constant(kind, -1))
    quotient = b.sdiv(x, b.select(minus_one, one, safe))
    return b.select(by_zero, zero, b.select(minus_one, b.sub(zero, x), quotient))


def _reciprocal(b: ir.IRBuilder, kind: Vec, x: ir.Value) -> ir.Value:
    """About 1 / x: within 2**-14 of it by the instruction of AVX-512, elsewhere a division."""
    if kind.lanes != 16 or str(kind.ir.element) != "float":
        return b.fdiv(_splat_constant(kind, 1.0), x)
    nothing, all_lanes = _splat_constant(kind, 0.0), ir.Constant(_I16, -1)
    return call_intrinsic(b, "llvm.x86.avx512.rcp14.ps.512", kind.ir, [x, nothing, all_lanes])


def _extreme(which: str) -> Any:
    def body(b: ir.IRBuilder, kind: Vec, x: ir.Value, y: ir.Value) -> ir.Value:
        if kind.is_float:
            # the first select is one x86 instruction and keeps a NaN in x; a constant y folds the second
            kept = b.select(b.fcmp_ordered(">" if which == "max" else "<", y, x), y, x)
            return b.select(b.fcmp_unordered("uno", y, y), y, kept)
        compare = b.icmp_signed if kind.is_signed else b.icmp_unsigned
        return b.select(compare(">" if which == "max" else "<", x, y), x, y)

    return body


def _float_intrinsic(name: str) -> Any:
    def body(b: ir.IRBuilder, kind: Vec, *xs: ir.Value) -> ir.Value:
        return call_intrinsic(b, f"llvm.{name}.{suffix(kind.ir)}", kind.ir, list(xs))

    return body


def _abs(b: ir.IRBuilder, kind: Vec, x: ir.Value) -> ir.Value:
    if kind.is_float:
        return call_intrinsic(b, f"llvm.fabs.{suffix(kind.ir)}", kind.ir, [x])
    if not kind.is_signed:
        return x
    negative = b.icmp_signed("<", x, _splat_constant(kind, 0))
    return b.select(negative, b.sub(_splat_constant(kind, 0), x), x)


def _compare(predicate: str) -> Any:
    def body(b: ir.IRBuilder, kind: Vec, x: ir.Value, y: ir.Value) -> ir.Value:
        if kind.is_float:
            return (b.fcmp_unordered if predicate == "!=" else b.fcmp_ordered)(predicate, x, y)
        return (b.icmp_signed if kind.is_signed else b.icmp_unsigned)(predicate, x, y)

    return body


def _shift_right(b: ir.IRBuilder, kind: Vec, x: ir.Value, y: ir.Value) -> ir.Value:
    return b.ashr(x, y) if kind.is_signed else b.lshr(x, y)


def _negate(b: ir.IRBuilder, kind: Vec, x: ir.Value) -> ir.Value:
    return b.fneg(x) if kind.is_float else b.sub(_splat_constant(kind, 0), x)


def convert(b: ir.IRBuilder, source: Vec, x: ir.Value, to: Vec) -> ir.Value:
    """C-like conversion; float to integer saturates and NaN gives 0."""
    if source.elem == to.elem:
        return x
    if source.elem == "boolean":
        return b.uitofp(x, to.ir) if to.is_float else b.zext(x, to.ir)
    if source.is_float:
        if to.is_float:
            return (b.fpext if to.elem == "f64" else b.fptrunc)(x, to.ir)
        return saturate(b, source, x, to)
    if to.is_float:
        return (b.sitofp if source.is_signed else b.uitofp)(x, to.ir)
    have, want = _INTS[source.elem], _INTS[to.elem]
    if have == want:
        return x
    if want < have:
        return b.trunc(x, to.ir)
    return (b.sext if source.is_signed else b.zext)(x, to.ir)


def truncate(b: ir.IRBuilder, x: ir.Value, to: Vec) -> ir.Value:
    """Float to integer for values that the integer type holds."""
    return (b.fptosi if to.is_signed else b.fptoui)(x, to.ir)


def round_to_int(b: ir.IRBuilder, x: ir.Value, to: Vec) -> ir.Value:
    """f32 to the nearest integer, ties to even, for values that the integer type holds; as u8, 255 where the
    value is above. AVX-512 narrows so, and what does not fit 32 bits is a large number without a sign."""
    if to.lanes == 16 and str(x.type.element) == "float" and _INTS[to.elem] <= 32:
        wide = ir.VectorType(_I32, 16)
        arguments = [x, ir.Constant(wide, [0] * 16), ir.Constant(_I16, -1), _I32(4)]
        whole = call_intrinsic(b, "llvm.x86.avx512.mask.cvtps2dq.512", wide, arguments)
        if to.elem == "u8":
            top = ir.Constant(wide, [255] * 16)
            whole = b.select(b.icmp_unsigned("<", whole, top), whole, top)
        return whole if _INTS[to.elem] == 32 else b.trunc(whole, to.ir)
    if to.elem == "u8":
        top = ir.Constant(x.type, [255.0] * to.lanes)
        x = b.select(b.fcmp_ordered("<", x, top), x, top)
    return truncate(b, call_intrinsic(b, f"llvm.rint.{suffix(x.type)}", x.type, [x]), to)


def saturate(b: ir.IRBuilder, source: Vec, x: ir.Value, to: Vec) -> ir.Value:
    """Float to integer: the nearest one there is, NaN gives 0.

    LLVM's own fptosi.sat goes lane by lane on x86.
    """
    bits = _INTS[to.elem]
    low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if to.is_signed else (0, (1 << bits) - 1)
    mantissa = 24 if source.elem == "f32" else 53
    shift = max(0, high.bit_length() - mantissa)
    exact_high = high >> shift << shift  # the largest float that fits
    zero = ir.Constant(source.ir, None)
    bottom = ir.Constant(source.ir, [float(low)] * source.lanes)
    top = ir.Constant(source.ir, [float(exact_high)] * source.lanes)
    held = b.select(b.fcmp_ordered(">", x, top), top, b.select(b.fcmp_ordered("<", x, bottom), bottom, x))
    held = b.select(b.fcmp_unordered("uno", x, x), zero, held)
    wide = vec("i32", to.lanes) if bits < 32 else to
    out = truncate(b, held, wide)
    if bits < 32:
        return b.trunc(out, to.ir)
    if exact_high != high:
        out = b.select(b.fcmp_ordered(">", x, top), _splat_constant(to, high), out)
    return out


def _libm(name: str, elem: str) -> Any:
    """The C library's function, lane by lane."""
    t = _FLOATS[elem]
    symbol = name + ("f" if elem == "f32" else "")

    def body(b: ir.IRBuilder, kind: Vec, *xs: ir.Value) -> ir.Value:
        fnty = ir.FunctionType(t, [t] * len(xs))
        fn = b.module.globals.get(symbol) or ir.Function(b.module, fnty, symbol)
        out = ir.Constant(kind.ir, ir.Undefined)
        for i in range(kind.lanes):
            one = b.call(fn, [b.extract_element(x, _I32(i)) for x in xs])
            out = b.insert_element(out, one, _I32(i))
        return out

    return body


def _horizontal(combine: Any, kind: Vec) -> Any:
    """Combine the lanes pairwise: halves first, so the order does not depend on anything but `lanes`."""

    def body(b: ir.IRBuilder, v: ir.Value) -> ir.Value:
        n = kind.lanes
        while n > 1:
            n //= 2
            half = Vec(kind.elem, n)
            undefined = ir.Constant(v.type, ir.Undefined)
            low = b.shuffle_vector(v, undefined, ir.Constant(ir.VectorType(_I32, n), list(range(n))))
            high = b.shuffle_vector(v, undefined, ir.Constant(ir.VectorType(_I32, n), list(range(n, 2 * n))))
            v = combine(b, half, low, high)
        return b.extract_element(v, _I32(0))

    return body


def dot_bytes(b: ir.IRBuilder, kind: Vec, acc: ir.Value, x: ir.Value, w: ir.Value) -> ir.Value:
    """acc + the products of four u8 of `x` and four i8 of `w` in each lane of i32: exactly, and in one
    instruction where the CPU has it (AVX512-VNNI, AVX-VNNI)."""
    isa = next(isa for isa in ISAS.values() if isa.lanes == kind.lanes)
    if any(has_features(isa, (feature,)) for feature in ("avx512vnni", "avxvnni")):
        fours = ir.VectorType(ir.IntType(8), 4 * kind.lanes)
        name = f"llvm.x86.avx512.vpdpbusd.{32 * kind.lanes}"
        return call_intrinsic(b, name, acc.type, [acc, b.bitcast(x, fours), b.bitcast(w, fours)])
    # Bytes are widened to i16: `vpmaddubsw`, which takes them as they are, cuts sums of two products off at
    # 32767.
    pairs = ir.VectorType(_I16, 2 * kind.lanes)
    eight, low = (ir.Constant(pairs, [_I16(n)] * pairs.count) for n in (8, 0xFF))
    x, w = b.bitcast(x, pairs), b.bitcast(w, pairs)
    even = [b.and_(x, low), b.ashr(b.shl(w, eight), eight)]
    odd = [b.lshr(x, eight), b.ashr(w, eight)]
    name = "llvm.x86.avx512.pmaddw.d.512" if kind.lanes == 16 else "llvm.x86.avx2.pmadd.wd"
    for two in (even, odd):
        acc = b.add(acc, call_intrinsic(b, name, acc.type, two))
    return acc


def dot_bytes_narrow(b: ir.IRBuilder, kind: Vec, acc: ir.Value, *words: ir.Value) -> ir.Value:
    """acc + the products of `words` x0, w0, x1, w1 ..., as `dot_bytes`, of which all fit 16 bits: those of
    each pair of bytes and their sum over the words."""
    fours = ir.VectorType(ir.IntType(8), 4 * kind.lanes)
    pairs = ir.VectorType(_I16, 2 * kind.lanes)
    wide = kind.lanes == 16
    name = "llvm.x86.avx512.pmaddubs.w.512" if wide else "llvm.x86.avx2.pmadd.ub.sw"
    total = None
    for x, w in zip(words[::2], words[1::2], strict=True):
        product = call_intrinsic(b, name, pairs, [b.bitcast(x, fours), b.bitcast(w, fours)])
        total = product if total is None else b.add(total, product)
    ones = ir.Constant(pairs, [_I16(1)] * pairs.count)
    name = "llvm.x86.avx512.pmaddw.d.512" if wide else "llvm.x86.avx2.pmadd.wd"
    return b.add(acc, call_intrinsic(b, name, acc.type, [total, ones]))


def choose_bytes(b: ir.IRBuilder, kind: Vec, window: ir.Value, choices: ir.Value) -> ir.Value:
    """The bytes of `window`, an integer of up to 16 bytes, that `choices` name for each byte of a vector."""
    total, wide = 4 * kind.lanes, kind.lanes == 16
    repeated = ir.VectorType(window.type, 8 * total // window.type.width)
    zeros = ir.Constant(ir.VectorType(_I32, repeated.count), None)
    one = b.insert_element(ir.Constant(repeated, ir.Undefined), window, _I32(0))
    fours = ir.VectorType(ir.IntType(8), total)
    given = b.bitcast(b.shuffle_vector(one, ir.Constant(repeated, ir.Undefined), zeros), fours)
    name = "llvm.x86.avx512.pshuf.b.512" if wide else "llvm.x86.avx2.pshuf.b"
    return b.bitcast(call_intrinsic(b, name, fours, [given, b.bitcast(choices, fours)]), choices.type)


_SAME = {
    "add": (2, _float_or_int("fadd", "add")), "sub": (2, _float_or_int("fsub", "sub")),
    "mul": (2, _float_or_int("fmul", "mul")), "div": (2, _divide), "neg": (1, _negate),
    "max_": (2, _extreme("max")), "min_": (2, _extreme("min")), "abs_": (1, _abs),
    "fma": (3, _float_intrinsic("fma")), "dot_bytes": (3, dot_bytes), "sqrt": (1, _float_intrinsic("sqrt")),
    "rcp": (1, _reciprocal),
    "floor": (1, _float_intrinsic("floor")), "ceil": (1, _float_intrinsic("ceil")),
    "trunc": (1, _float_intrinsic("trunc")), "rint": (1, _float_intrinsic("rint")),
    "and_": (2, lambda b, k, x, y: b.and_(x, y)), "or_": (2, lambda b, k, x, y: b.or_(x, y)),
    "xor": (2, lambda b, k, x, y: b.xor(x, y)), "not_": (1, lambda b, k, x: b.not_(x)),
    "shl": (2, lambda b, k, x, y: b.shl(x, y)), "shr": (2, _shift_right),
    "select": (3, lambda b, k, c, x, y: b.select(c, x, y)),
}  # fmt: skip
_HORIZONTAL = {"hadd": "add", "hmul": "mul", "hmax": "max_", "hmin": "min_", "hand": "and_", "hor": "or_"}
_COMPARISONS = {"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!="}


class Namespace(dict):
    """The names of generated code for one vector width, made as they are asked for."""

    def __init__(self, lanes: int):
        super().__init__()
        self.lanes = lanes

    def __missing__(self, name: str) -> Any:
        made = self[name] = self._intrinsic(name)
        return made

    def _intrinsic(self, name: str) -> Any:
        lanes = self.lanes
        if name in _SAME:
            arity, body = _SAME[name]
            return _generic(name, arity, lambda kind: kind, body)
        if name in _COMPARISONS:
            return _generic(name, 2, lambda kind: vec("boolean", kind.lanes), _compare(_COMPARISONS[name]))
        if name == "ld":
            sig = signature(types.int64, types.int64, types.int64)
            return _make(name, sig, lambda b, p, i: b.load(b.gep(pointer(b, p, _I64), [i]), align=8))
        if name == "whole":
            sig = signature(types.int64, types.float64)
            return _make(name, sig, lambda b, x: call_intrinsic(b, "llvm.fptosi.sat.i64.f64", _I64, [x]))
        if name in ("imin", "imax"):
            sig, sign = signature(types.int64, types.int64, types.int64), "<" if name == "imin" else ">"
            return _make(name, sig, lambda b, x, y: b.select(b.icmp_signed(sign, x, y), x, y))
        if name in ("udiv", "urem"):
            sig = signature(types.int64, types.int64, types.int64)
            return _make(name, sig, lambda b, x, y: getattr(b, name)(x, y))
        operation, _, elem = name.rpartition("_")
        if elem not in SIZE:
            raise KeyError(name)
        kind, address, integer = vec(elem, lanes), types.int64, types.int64
        scalar = _scalar_type(elem)
        if operation == "load":
            return _make(name, signature(kind, address), lambda b, p: load_vector(b, p, elem, lanes))
        if operation == "loadm":
            return _make(
                name, signature(kind, address, integer), lambda b, p, n: load_vector(b, p, elem, lanes, n)
            )
        if operation == "store":
            return _make(
                name, signature(types.void, address, kind), lambda b, p, v: store_vector(b, p, v, elem)
            )
        if operation == "storem":
            return _make(
                name,
                signature(types.void, address, kind, integer),
                lambda b, p, v, n: store_vector(b, p, v, elem, n),
            )
        if operation == "splat":
            return _make(name, signature(kind, address), lambda b, p: splat(b, p, elem, lanes))
        if operation == "spread":
            return _make(name, signature(kind, scalar), lambda b, x: broadcast(b, x, lanes))
        if operation == "gather":
            return _make(name, signature(kind, address, integer, integer), _gather(elem, lanes))
        if operation == "scatter":
            return _make(name, signature(types.void, address, integer, kind, integer), _scatter(elem, lanes))
        if operation == "strided":
            return _make(name, signature(kind, address, integer, integer), _strided(elem, lanes))
        if operation == "strided_store":
            sig = signature(types.void, address, integer, kind, integer)
            return _make(name, sig, _strided_store(elem, lanes))
        if operation == "take":
            return _make(name, signature(kind, address, vec("i32", lanes)), _take(elem, lanes))
        if operation == "evens":
            return _make(name, signature(kind, address), lambda b, p: _evens(b, p, elem, lanes))
        if operation == "permute":
            return _make(name, signature(kind, kind, vec("i32", lanes)), _permute(lanes))
        if operation == "const":
            return _constant(name, kind, scalar)
        if operation == "cast":
            return _conversion(name, kind, lambda b, source, x: convert(b, source, x, kind))
        if operation == "trunc_int":
            return _conversion(name, kind, lambda b, source, x: truncate(b, x, kind))
        if operation == "round_int":
            return _conversion(name, kind, lambda b, source, x: round_to_int(b, x, kind))
        if operation == "bits":
            return _conversion(name, kind, lambda b, source, x: b.bitcast(x, kind.ir))
        if operation == "blend":
            sig = signature(kind, integer, kind, kind)
            return _make(name, sig, lambda b, n, x, y: b.select(iota_mask(b, n, lanes), x, y))
        if operation in _HORIZONTAL:
            combine = _SAME[_HORIZONTAL[operation]][1]
            return _make(name, signature(scalar, kind), _horizontal(combine, kind))
        if operation == "lane":
            return _make(name, signature(scalar, kind, integer), lambda b, v, i: b.extract_element(v, i))
        if operation == "ld":
            return _make(name, signature(scalar, address), lambda b, p: _load_scalar(b, p, elem))
        if operation == "st":
            return _make(
                name, signature(types.void, address, scalar), lambda b, p, x: _store_scalar(b, p, x, elem)
            )
        if operation.startswith("libm_"):
            function = operation[5:]
            arity = 2 if function in ("pow", "fmod", "atan2") else 1
            return _generic(name, arity, lambda k: k, _libm(function, elem))
        raise KeyError(name)


def _scalar_type(elem: str) -> Any:
    elem = REGISTER_TYPE.get(elem, elem)
    names = {"f32": "float32", "f64": "float64", "boolean": "boolean"}
    return getattr(types, names.get(elem) or ("u" if elem[0] == "u" else "") + f"int{_INTS.get(elem)}")


def _load_scalar(b: ir.IRBuilder, p: ir.Value, elem: str) -> ir.Value:
    value = from_memory(b, b.load(pointer(b, p, memory_ir(elem)), align=SIZE[elem]), elem)
    return value


def _store_scalar(b: ir.IRBuilder, p: ir.Value, x: ir.Value, elem: str) -> None:
    if elem == "boolean" and x.type != _I1:
        x = b.trunc(x, _I1)
    v = to_memory(b, x, elem)
    b.store(v, pointer(b, p, v.type), align=SIZE[elem])


def _lane_addresses(b: ir.IRBuilder, p: ir.Value, stride: ir.Value, lanes: int, to: ir.Type) -> ir.Value:
    iota = ir.Constant(ir.VectorType(_I64, lanes), list(range(lanes)))
    addresses = b.add(broadcast(b, p, lanes), b.mul(iota, broadcast(b, stride, lanes)))
    return b.inttoptr(addresses, ir.VectorType(to.as_pointer(), lanes))


def _gather(elem: str, lanes: int) -> Any:
    def body(b: ir.IRBuilder, p: ir.Value, stride: ir.Value, n: ir.Value) -> ir.Value:
        t = memory_ir(elem)
        vt = ir.VectorType(t, lanes)
        pointers = _lane_addresses(b, p, stride, lanes, t)
        zero = ir.Constant(vt, None)
        args = [pointers, _I32(SIZE[elem]), iota_mask(b, n, lanes), zero]
        return from_memory(
            b, call_intrinsic(b, f"llvm.masked.gather.{suffix(vt)}.v{lanes}p0", vt, args), elem
        )

    return body


def _scatter(elem: str, lanes: int) -> Any:
    def body(b: ir.IRBuilder, p: ir.Value, stride: ir.Value, v: ir.Value, n: ir.Value) -> None:
        v = to_memory(b, v, elem)
        pointers = _lane_addresses(b, p, stride, lanes, v.type.element)
        args = [v, pointers, _I32(SIZE[elem]), iota_mask(b, n, lanes)]
        call_intrinsic(b, f"llvm.masked.scatter.{suffix(v.type)}.v{lanes}p0", ir.VoidType(), args)

    return body


def _strided(elem: str, lanes: int) -> Any:
    gather = _gather(elem, lanes)
    # a CPU has no gather for these, and takes apart what it loads in some instructions
    channels = (2, 3, 4) if SIZE[elem] <= 2 else ()

    def body(b: ir.IRBuilder, p: ir.Value, stride: ir.Value, n: ir.Value) -> ir.Value:
        ways = [
            (SIZE[elem], None, lambda: load_vector(b, p, elem, lanes, n)),
            (0, None, lambda: splat(b, p, elem, lanes)),
            *((k * SIZE[elem], lanes, lambda k=k: _every(b, p, elem, lanes, k)) for k in channels),
        ]

        def choose(at: int) -> ir.Value:
            if at == len(ways):
                return gather(b, p, stride, n)
            step, least, make = ways[at]
            here = b.icmp_signed("==", stride, ir.Constant(_I64, step))
            if least is not None:
                here = b.and_(here, b.icmp_signed(">=", n, ir.Constant(_I64, least)))
            with b.if_else(here) as (then, otherwise):
                with then:
                    mine, mine_from = make(), b.block
                with otherwise:
                    other, other_from = choose(at + 1), b.block
            out = b.phi(mine.type)
            out.add_incoming(mine, mine_from)
            out.add_incoming(other, other_from)
            return out

        return choose(0)

    return body


def _every(b: ir.IRBuilder, p: ir.Value, elem: str, lanes: int, k: int) -> ir.Value:
    """Every k-th element from `p`; not a byte behind the last one is read."""
    t = memory_ir(elem)
    run = ir.VectorType(t, (lanes - 1) * k + 1)
    whole = b.load(pointer(b, p, run), align=SIZE[elem])
    chosen = ir.Constant(ir.VectorType(_I32, lanes), [k * i for i in range(lanes)])
    return from_memory(b, b.shuffle_vector(whole, ir.Constant(run, ir.Undefined), chosen), elem)


def _evens(b: ir.IRBuilder, p: ir.Value, elem: str, lanes: int) -> ir.Value:
    """Two vectors, of which each CPU has an instruction or two that keep every other lane."""
    t = ir.VectorType(memory_ir(elem), lanes)
    low = pointer(b, p, t)
    parts = [b.load(at, align=SIZE[elem]) for at in (low, b.gep(low, [_I32(1)], source_etype=t))]
    chosen = ir.Constant(ir.VectorType(_I32, lanes), [2 * i for i in range(lanes)])
    return from_memory(b, b.shuffle_vector(*parts, chosen), elem)


def _strided_store(elem: str, lanes: int) -> Any:
    scatter = _scatter(elem, lanes)

    def body(b: ir.IRBuilder, p: ir.Value, stride: ir.Value, v: ir.Value, n: ir.Value) -> None:
        near = b.icmp_signed("==", stride, ir.Constant(_I64, SIZE[elem]))
        with b.if_else(near) as (then, otherwise):
            with then:
                store_vector(b, p, v, elem, n)
            with otherwise:
                scatter(b, p, stride, v, n)

    return body


def _take(elem: str, lanes: int) -> Any:
    def body(b: ir.IRBuilder, p: ir.Value, index: ir.Value) -> ir.Value:
        t = memory_ir(elem)
        vt = ir.VectorType(t, lanes)
        base = broadcast(b, pointer(b, p, t), lanes)
        pointers = b.gep(base, [index], source_etype=t)
        ones = ir.Constant(ir.VectorType(_I1, lanes), [1] * lanes)
        args = [pointers, _I32(SIZE[elem]), ones, ir.Constant(vt, None)]
        return from_memory(
            b, call_intrinsic(b, f"llvm.masked.gather.{suffix(vt)}.v{lanes}p0", vt, args), elem
        )

    return body


#: How many lanes -> the instruction that permutes 4-byte lanes by a vector.
_PERMUTE = {16: "llvm.x86.avx512.permvar.sf.512", 8: "llvm.x86.avx2.permps"}


def _permute(lanes: int) -> Any:
    floats = ir.VectorType(ir.FloatType(), lanes)

    def body(b: ir.IRBuilder, v: ir.Value, index: ir.Value) -> ir.Value:
        if lanes in _PERMUTE:
            moved = call_intrinsic(b, _PERMUTE[lanes], floats, [b.bitcast(v, floats), index])
            return b.bitcast(moved, v.type)
        out = ir.Constant(v.type, ir.Undefined)
        for i in range(lanes):
            one = b.extract_element(v, b.extract_element(index, _I32(i)))
            out = b.insert_element(out, one, _I32(i))
        return out

    return body


def _constant(name: str, kind: Vec, scalar: Any) -> Any:
    """const_T(x): x is a number known to Numba, so LLVM sees a literal."""

    def define(typingctx: Any, x: Any) -> Any:
        def codegen(context: Any, builder: Any, s: Any, values: Any) -> Any:
            value = context.cast(builder, values[0], s.args[0], scalar)
            if kind.elem == "boolean" and value.type != _I1:
                value = builder.trunc(value, _I1)
            return broadcast(builder, value, kind.lanes)

        return signature(kind, x), codegen

    define.__name__ = name
    return intrinsic(define)


def _conversion(name: str, to: Vec, body: Any) -> Any:
    def define(typingctx: Any, x: Any) -> Any:
        if not isinstance(x, Vec):
            return None

        def codegen(context: Any, builder: Any, s: Any, values: Any) -> Any:
            return body(builder, x, values[0])

        return signature(to, x), codegen

    define.__name__ = name
    return intrinsic(define)


#: Operators on vectors, and the words that they stand for.
OPERATORS = {
    operator.add: "add", operator.sub: "sub", operator.mul: "mul", operator.truediv: "div",
    operator.and_: "and_", operator.or_: "or_", operator.xor: "xor", operator.lshift: "shl",
    operator.rshift: "shr", operator.lt: "lt", operator.le: "le", operator.gt: "gt", operator.ge: "ge",
    operator.eq: "eq", operator.ne: "ne", operator.neg: "neg", operator.invert: "not_",
}  # fmt: skip


def _overload_operators() -> None:
    """Numba's ordinary pipeline knows them too."""

    def define(word: str, arity: int) -> Any:
        # without annotations, which Numba would compare with those of the lambdas
        def two(a, b):
            if isinstance(a, Vec) and isinstance(b, Vec):
                f = namespace(a.lanes)[word]
                return lambda a, b: f(a, b)
            return None

        def one(a):
            if isinstance(a, Vec):
                f = namespace(a.lanes)[word]
                return lambda a: f(a)
            return None

        return one if arity == 1 else two

    for function, word in OPERATORS.items():
        overload(function)(define(word, 1 if word in ("neg", "not_") else 2))


_overload_operators()


@functools.cache
def namespace(lanes: int) -> Namespace:
    """The names that generated kernels may use, for vectors of `lanes` f32 lanes."""
    return Namespace(lanes)
