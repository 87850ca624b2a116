"""The intrinsics of generated kernels, as LLVM code.

`ovjit.codegen.words` declares them; `BODIES` generates the code of each. `namespace(lanes)` has the names
that generated source may use.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from typing import Any

import llvmlite.ir as ir

from ovjit.codegen.cpu import types
from ovjit.codegen.cpu.atomics import now
from ovjit.codegen.cpu.intrinsics import constant, conversion, generic, make
from ovjit.codegen.cpu.machine import X86_64
from ovjit.codegen.cpu.neon import words as neon
from ovjit.codegen.cpu.printing import isa_of
from ovjit.codegen.cpu.targets import has_features
from ovjit.codegen.cpu.types import signature
from ovjit.codegen.cpu.vector_memory import (
    evens,
    from_memory,
    gather,
    hidden,
    load_scalar,
    load_strided,
    load_vector,
    scatter,
    splat,
    store_scalar,
    store_strided,
    store_vector,
    take,
    thirds,
)
from ovjit.codegen.cpu.vector_types import (
    FLOATS,
    INTS,
    REGISTER_TYPE,
    SIZE,
    Vec,
    bf16_vector,
    broadcast,
    call_intrinsic,
    iota_mask,
    lane_indices,
    pointer,
    scalar_ir,
    suffix,
    vec,
)
from ovjit.codegen.words import Declared, find
from ovjit.errors import UnsupportedError

#: Also used by tiles and epilogues.
__all__ = [
    "OPERATORS", "SIZE", "Vec", "bf16_vector", "call_intrinsic", "convert", "dot_bytes", "hidden",
    "join_bytes", "load_vector", "multiply_words", "namespace", "round_to_int", "saturate_int", "scalar_ir",
    "splat", "store_vector", "suffix", "truncate", "vec",
]  # fmt: skip

_I1, _I16, _I32, _I64 = (ir.IntType(n) for n in (1, 16, 32, 64))


def _or_neon(word: Callable[..., Any]) -> Callable[..., Any]:
    """An intrinsic that has NEON's code on CPUs with NEON, if that supports the types, else the code of
    `word`."""
    neon_word = neon.WORDS[word.__name__]

    @functools.wraps(word)
    def emit_word(b: ir.IRBuilder, *operands: Any) -> Any:
        result = neon_word(b, *operands) if isa_of(b).name == "neon" else None
        return word(b, *operands) if result is None else result

    return emit_word


def _splat_constant(kind: Vec, value: Any) -> ir.Constant:
    return ir.Constant(kind.ir, [value] * kind.lanes)


def _float_or_int(float_op: str, int_op: str) -> Any:
    def body(b: ir.IRBuilder, kind: Vec, x: ir.Value, y: ir.Value) -> ir.Value:
        if kind.is_float:
            return getattr(b, float_op)(x, y)
        return getattr(b, int_op)(x, y)

    return body


def _divide(b: ir.IRBuilder, kind: Vec, x: ir.Value, y: ir.Value) -> ir.Value:
    """Integers: truncating; x / 0 is 0 and INT_MIN / -1 is INT_MIN, as neither may trap.

    CPUs only divide vectors of floats. Quotients of 16-bit integers differ from the next integer by 2**-16
    (relative) or more, which f32 resolves. Those of 32-bit integers need f64.
    """
    if kind.is_float:
        return b.fdiv(x, y)
    zero, one = _splat_constant(kind, 0), _splat_constant(kind, 1)
    by_zero = b.icmp_signed("==", y, zero)
    safe = b.select(by_zero, one, y)
    real = None
    if INTS[kind.elem] < 64:
        real = ir.VectorType(ir.DoubleType() if INTS[kind.elem] > 16 else ir.FloatType(), kind.lanes)
    if not kind.is_signed:
        exact = b.fptoui(b.fdiv(b.uitofp(x, real), b.uitofp(safe, real)), x.type) if real else b.udiv(x, safe)
        return b.select(by_zero, zero, exact)
    if kind.elem == "i64" and kind.lanes == 16 and has_features(isa_of(b), ("avx512dq",)):
        return b.select(by_zero, zero, _divide_by_floats(b, kind, x, y))
    minus_one = b.icmp_signed("==", y, _splat_constant(kind, -1))
    safe = b.select(minus_one, one, safe)
    quotient = b.fptosi(b.fdiv(b.sitofp(x, real), b.sitofp(safe, real)), x.type) if real else b.sdiv(x, safe)
    return b.select(by_zero, zero, b.select(minus_one, b.sub(zero, x), quotient))


def _divide_by_floats(b: ir.IRBuilder, kind: Vec, x: ir.Value, y: ir.Value) -> ir.Value:
    """x / y of i64, truncating, in f64: two quotients, the second of the first one's remainder, which is at
    most |y| + 2**12. Undefined for y = 0; INT_MIN / -1 is INT_MIN, as the conversion gives that for 2**63."""
    reals = ir.VectorType(ir.DoubleType(), kind.lanes)
    inverse = b.fdiv(ir.Constant(reals, [1.0] * kind.lanes), b.sitofp(y, reals))
    first = _to_i64(b, b.fmul(b.sitofp(x, reals), inverse), "cvtt")
    remainder = b.sub(x, b.mul(first, y))
    second = _to_i64(b, b.fmul(b.sitofp(remainder, reals), inverse), "cvt")
    remainder = b.sub(remainder, b.mul(second, y))
    zero, one, minus_one = (_splat_constant(kind, n) for n in (0, 1, -1))
    beyond = b.and_(b.icmp_signed("!=", remainder, zero), b.icmp_signed("<", b.xor(remainder, x), zero))
    step = b.select(b.icmp_signed("<", b.xor(x, y), zero), minus_one, one)
    quotient = b.add(first, second)
    return b.select(beyond, b.sub(quotient, step), quotient)


def _to_i64(b: ir.IRBuilder, x: ir.Value, instruction: str) -> ir.Value:
    """16 f64 to i64 by AVX-512's `cvt`, to the nearest, or `cvtt`, which truncates. -2**63 for NaN and values
    out of range."""
    eight, undefined = ir.VectorType(_I64, 8), ir.Constant(x.type, ir.Undefined)
    name, results = f"llvm.x86.avx512.mask.{instruction}pd2qq.512", []
    for start in (0, 8):
        half = b.shuffle_vector(x, undefined, lane_indices(*range(start, start + 8)))
        arguments = [half, ir.Constant(eight, [0] * 8), ir.Constant(ir.IntType(8), -1), _I32(4)]
        results.append(call_intrinsic(b, name, eight, arguments))
    return b.shuffle_vector(*results, lane_indices(*range(16)))


@_or_neon
def _reciprocal(b: ir.IRBuilder, kind: Vec, x: ir.Value) -> ir.Value:
    """An approximation of 1 / x: AVX-512's instruction, within 2**-14; elsewhere a division."""
    if kind.lanes != 16 or str(kind.ir.element) != "float":
        return b.fdiv(_splat_constant(kind, 1.0), x)
    nothing, all_lanes = _splat_constant(kind, 0.0), ir.Constant(_I16, -1)
    return call_intrinsic(b, "llvm.x86.avx512.rcp14.ps.512", kind.ir, [x, nothing, all_lanes])


def _beyond(b: ir.IRBuilder, which: str, x: ir.Value, y: ir.Value) -> ir.Value:
    """The larger or smaller of x and y; y if one is a NaN, or if both are zeros. One x86 instruction.

    LLVM has a comparison and a `select` for it. But LLVM joins these with a `select` of the result: three
    instructions and a blend then depend on one another, 10 cycles of a loop. This has 2 to 4.
    """
    (count, element), width = (x.type.count, str(x.type.element)), isa_of(b).lanes * 32
    bits = count * {"float": 32, "double": 64}[element]
    if bits > width:
        parts = [lane_indices(*range(i, i + count // 2)) for i in (0, count // 2)]
        low, high = (_beyond(b, which, *(b.shuffle_vector(v, v, part) for v in (x, y))) for part in parts)
        return b.shuffle_vector(low, high, lane_indices(*range(count)))
    if bits < 128:
        return b.select(b.fcmp_ordered(">" if which == "max" else "<", x, y), x, y)
    kind = {"float": "ps", "double": "pd"}[element]
    sse = "sse" if element == "float" else "sse2"
    name = {128: f"{sse}.{which}.{kind}", 256: f"avx.{which}.{kind}.256", 512: f"avx512.{which}.{kind}.512"}
    rounding = [_I32(4)] if bits == 512 else []  # the current mode
    return call_intrinsic(b, f"llvm.x86.{name[bits]}", x.type, [x, y, *rounding])


def _extreme(which: str) -> Any:
    def body(b: ir.IRBuilder, kind: Vec, x: ir.Value, y: ir.Value) -> ir.Value:
        if kind.is_float and isa_of(b).name == "neon":
            return neon.extreme(b, which, x, y)
        if kind.is_float:
            chosen = _beyond(b, which, y, x)  # x, if that is a NaN; a constant y folds the test below
            return b.select(b.fcmp_unordered("uno", y, y), y, chosen)
        compare = b.icmp_signed if kind.is_signed else b.icmp_unsigned
        return b.select(compare(">" if which == "max" else "<", x, y), x, y)

    return body


def _fma(b: ir.IRBuilder, kind: Vec, x: ir.Value, y: ir.Value, z: ir.Value) -> ir.Value:
    """x * y + z, rounded once if the CPU has the instruction. LLVM fuses nothing else: kernels state each
    fma."""
    return _float_intrinsic("fma")(b, kind, x, y, z) if kind.is_float else b.add(b.mul(x, y), z)


def _exact_fma(b: ir.IRBuilder, kind: Vec, x: ir.Value, y: ir.Value, z: ir.Value) -> ir.Value:
    """x * y + z. Without the instruction, products of f32 are exact in f64, and f64 takes the C library."""
    if isa_of(b).name == "neon" or "fma" in isa_of(b).features:
        return _float_intrinsic("fma")(b, kind, x, y, z)
    if kind.elem != "f32":
        return _libm("fma", kind.elem)(b, kind, x, y, z)
    reals = ir.VectorType(ir.DoubleType(), kind.lanes)
    x, y, z = (b.fpext(v, reals) for v in (x, y, z))
    return b.fptrunc(b.fadd(b.fmul(x, y), z), kind.ir)


def _float_intrinsic(name: str) -> Any:
    def body(b: ir.IRBuilder, kind: Vec, *xs: ir.Value) -> ir.Value:
        return call_intrinsic(b, f"llvm.{name}.{suffix(kind.ir)}", kind.ir, list(xs))

    return body


#: Rounding -> its number in x86's instructions.
_ROUNDINGS = {"rint": 4, "floor": 9, "ceil": 10, "trunc": 11}


def _rounding(name: str) -> Any:
    """Makes the intrinsic that rounds to a whole number, by the x86 instruction for f16. LLVM's own rounding
    of f16 would convert to f32 and back, element by element."""
    intrinsic = _float_intrinsic(name)

    def body(b: ir.IRBuilder, kind: Vec, x: ir.Value) -> ir.Value:
        isa = isa_of(b)
        if isa.machine != X86_64 or str(kind.ir.element) != "float" or not 8 <= kind.lanes == isa.lanes:
            return intrinsic(b, kind, x)
        how = _I32(_ROUNDINGS[name])
        if kind.lanes == 8:
            return call_intrinsic(b, "llvm.x86.avx.round.ps.256", kind.ir, [x, how])
        arguments = [x, how, x, ir.Constant(_I16, -1), _I32(4)]
        return call_intrinsic(b, "llvm.x86.avx512.mask.rndscale.ps.512", kind.ir, arguments)

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


def _whole_power(b: ir.IRBuilder, kind: Vec, x: ir.Value, n: ir.Value) -> ir.Value:
    """x ** n of integers by repeated squaring, with a step for each bit of the largest exponent. Also of
    single integers."""
    count = x.type.count if isinstance(x.type, ir.VectorType) else 0
    one = ir.Constant(x.type, [1] * count if count else 1)
    before = b.block
    step, end = b.append_basic_block("power"), b.append_basic_block("power_end")
    b.branch(step)
    b.position_at_end(step)
    square, exponent, power = (b.phi(x.type) for _ in range(3))
    odd = b.trunc(exponent, ir.VectorType(_I1, count) if count else _I1)
    product = b.select(odd, b.mul(power, square), power)
    further = b.mul(square, square), b.lshr(exponent, one), product
    for phi, first, later in zip((square, exponent, power), (x, n, one), further, strict=True):
        phi.add_incoming(first, before)
        phi.add_incoming(later, step)
    remains = b.icmp_unsigned("!=", further[1], ir.Constant(x.type, None))
    if count:
        bits = ir.IntType(count)
        remains = b.icmp_unsigned("!=", b.bitcast(remains, bits), bits(0))
    b.cbranch(remains, step, end)
    b.position_at_end(end)
    return product


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
    have, want = INTS[source.elem], INTS[to.elem]
    if have == want:
        return x
    if want < have:
        return b.trunc(x, to.ir)
    return (b.sext if source.is_signed else b.zext)(x, to.ir)


def truncate(b: ir.IRBuilder, x: ir.Value, to: Vec) -> ir.Value:
    """Float to integer, for values that the integer type represents."""
    return (b.fptosi if to.is_signed else b.fptoui)(x, to.ir)


@_or_neon
def truncate_or_min(b: ir.IRBuilder, x: ir.Value, to: Vec) -> ir.Value:
    """Float to a signed integer, truncated; the type's minimum for NaN and for values that do not fit. x86
    has an instruction for f32 to i32."""
    ints = ir.VectorType(_I32, to.lanes)
    if str(x.type.element) == "float" and to.ir == ints and to.lanes in (8, 16):
        return _to_i32(b, x, "cvtt")
    bound = 2.0 ** (INTS[to.elem] - 1)
    low, high = (ir.Constant(x.type, [end] * to.lanes) for end in (-bound, bound))
    truncated = call_intrinsic(b, f"llvm.trunc.{suffix(x.type)}", x.type, [x])
    fits = b.and_(b.fcmp_ordered(">=", truncated, low), b.fcmp_ordered("<", truncated, high))
    return truncate(b, b.select(fits, truncated, low), to)


@_or_neon
def round_to_int(b: ir.IRBuilder, x: ir.Value, to: Vec) -> ir.Value:
    """f32 to the nearest integer, ties to even, for values that the integer type represents. u8 saturates,
    and NaN gives 0. With AVX-512, values outside of i32 become large unsigned numbers before they
    saturate."""
    if to.elem == "u8":
        bottom = ir.Constant(x.type, [0.0] * to.lanes)
        x = b.select(b.fcmp_ordered(">", x, bottom), x, bottom)
    if to.lanes == 16 and str(x.type.element) == "float" and INTS[to.elem] <= 32:
        ints = ir.VectorType(_I32, 16)
        rounded = _to_i32(b, x, "cvt")
        if to.elem == "u8":
            top = ir.Constant(ints, [255] * 16)
            rounded = b.select(b.icmp_unsigned("<", rounded, top), rounded, top)
        return rounded if INTS[to.elem] == 32 else b.trunc(rounded, to.ir)
    if to.elem == "u8":
        top = ir.Constant(x.type, [255.0] * to.lanes)
        x = b.select(b.fcmp_ordered("<", x, top), x, top)
    return truncate(b, call_intrinsic(b, f"llvm.rint.{suffix(x.type)}", x.type, [x]), to)


def _to_i32(b: ir.IRBuilder, x: ir.Value, instruction: str) -> ir.Value:
    """16 or 8 f32 to i32 by x86's `cvt`, to the nearest with ties to even, or `cvtt`, which truncates.
    -2**31 for NaN and values out of range."""
    ints = ir.VectorType(_I32, x.type.count)
    if ints.count == 8:
        return call_intrinsic(b, f"llvm.x86.avx.{instruction}.ps2dq.256", ints, [x])
    arguments = [x, ir.Constant(ints, [0] * 16), ir.Constant(_I16, -1), _I32(4)]
    return call_intrinsic(b, f"llvm.x86.avx512.mask.{instruction}ps2dq.512", ints, arguments)


def saturate_int(b: ir.IRBuilder, x: ir.Value, to: Vec) -> ir.Value:
    """Saturate vectors of i32 to integers of 8 bits."""
    for sign, end in zip(("<", ">"), (-128, 127) if to.is_signed else (0, 255), strict=True):
        ends = ir.Constant(x.type, [end] * to.lanes)
        x = b.select(b.icmp_signed(sign, x, ends), ends, x)
    return b.trunc(x, to.ir)


@_or_neon
def join_bytes(b: ir.IRBuilder, how: str, elem: str, *vectors: ir.Value) -> ir.Value:
    """`round_int` or `saturate` of four vectors of 16 or 8 lanes, as one vector of bytes. Narrowing a single
    vector takes two instructions or more. Four vectors take four, which saturate: i32 to i16, then i16 to
    bytes."""
    lanes = vectors[0].type.count
    words, half_words = (ir.VectorType(kind, n) for kind, n in ((_I32, lanes), (_I16, 2 * lanes)))
    bytes_, end = ir.VectorType(ir.IntType(8), 4 * lanes), "avx512.%s.512" if lanes == 16 else "avx2.%s"
    quarters = []
    for x in vectors:
        if how == "round_int":
            if elem == "u8":  # NaN stays: as i32 it is negative, so it becomes 0
                top = ir.Constant(x.type, [255.0] * lanes)
                x = b.select(b.fcmp_ordered("<", top, x), top, x)
            x = _to_i32(b, x, "cvt")
        quarters.append(x)
    names = ("packssdw", "packuswb" if elem == "u8" else "packsswb")
    first, second = (f"llvm.x86.{end % name}" for name in names)
    pairs = [call_intrinsic(b, first, half_words, quarters[i : i + 2]) for i in (0, 2)]
    joined = b.bitcast(call_intrinsic(b, second, bytes_, pairs), words)
    parts = lanes // 4  # of 128 bits: narrowing instructions do not cross them
    order = ir.Constant(words, [4 * (i % parts) + i // parts for i in range(lanes)])
    ordered = b.shuffle_vector(joined, ir.Constant(words, ir.Undefined), order)
    return b.bitcast(ordered, bytes_)


@_or_neon
def saturate(b: ir.IRBuilder, source: Vec, x: ir.Value, to: Vec) -> ir.Value:
    """Float to integer: truncated and saturated; NaN gives 0.

    LLVM's fptosi.sat works lane by lane on x86.
    """
    bits = INTS[to.elem]
    low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if to.is_signed else (0, (1 << bits) - 1)
    mantissa = 24 if source.elem == "f32" else 53
    shift = max(0, high.bit_length() - mantissa)
    exact_high = high >> shift << shift  # the largest float that fits
    zero = ir.Constant(source.ir, None)
    bottom = ir.Constant(source.ir, [float(low)] * source.lanes)
    top = ir.Constant(source.ir, [float(exact_high)] * source.lanes)
    clamped = b.select(b.fcmp_ordered(">", x, top), top, b.select(b.fcmp_ordered("<", x, bottom), bottom, x))
    clamped = b.select(b.fcmp_unordered("uno", x, x), zero, clamped)
    register = vec("i32", to.lanes) if bits < 32 else to
    out = truncate(b, clamped, register)
    if bits < 32:
        return b.trunc(out, to.ir)
    if exact_high != high:
        out = b.select(b.fcmp_ordered(">", x, top), _splat_constant(to, high), out)
    return out


def _libm(name: str, elem: str) -> Any:
    """The C library's function, lane by lane."""
    t = FLOATS[elem]
    symbol = name + ("f" if elem == "f32" else "")

    def body(b: ir.IRBuilder, kind: Vec, *xs: ir.Value) -> ir.Value:
        fnty = ir.FunctionType(t, [t] * len(xs))
        fn = b.module.globals.get(symbol)
        if fn is None:
            fn = ir.Function(b.module, fnty, symbol)
            # lets LLVM remove calls of unused lanes; llvmlite does not know the last one
            set.update(fn.attributes, ("nounwind", "readnone", "willreturn"))
        out = ir.Constant(kind.ir, ir.Undefined)
        for i in range(kind.lanes):
            one = b.call(fn, [b.extract_element(x, _I32(i)) for x in xs])
            out = b.insert_element(out, one, _I32(i))
        return out

    return body


def _arity(function: str) -> int:
    """The number of arguments of a C library function."""
    return 2 if function in ("pow", "fmod", "atan2") else 1


def _seldom(name: str, elem: str) -> Any:
    """The C library's function in the lanes of a mask, which is rarely set, and y in others."""
    call = _libm(name, elem)

    def body(b: ir.IRBuilder, kind: Vec, mask: ir.Value, x: ir.Value, *more: ir.Value) -> ir.Value:
        *others, y = more
        lanes = ir.IntType(kind.lanes)
        some = b.icmp_unsigned("!=", b.bitcast(mask, lanes), lanes(0))
        # not `likely=False`, which is metadata of a module: parts of kernels are functions without one
        some = call_intrinsic(b, "llvm.expect.i1", some.type, [some, some.type(0)])
        before = b.block
        with b.if_then(some):
            called = call(b, kind, b.select(mask, x, ir.Constant(kind.ir, None)), *others)
            called = b.select(mask, called, y)
            end = b.block
        out = b.phi(kind.ir)
        out.add_incoming(y, before)
        out.add_incoming(called, end)
        return out

    return body


def _horizontal(combine: Any, kind: Vec) -> Any:
    """Combine the lanes pairwise, beginning with the half vectors, so that the order depends only on
    `lanes`."""

    def body(b: ir.IRBuilder, v: ir.Value) -> ir.Value:
        n = kind.lanes
        while n > 1:
            n //= 2
            half = Vec(kind.elem, n)
            undefined = ir.Constant(v.type, ir.Undefined)
            low = b.shuffle_vector(v, undefined, lane_indices(*range(n)))
            high = b.shuffle_vector(v, undefined, lane_indices(*range(n, 2 * n)))
            v = combine(b, half, low, high)
        return b.extract_element(v, _I32(0))

    return body


def _has_dots(b: ir.IRBuilder) -> bool:
    """Whether one instruction adds four products of bytes."""
    return any(has_features(isa_of(b), (feature,)) for feature in ("avx512vnni", "avxvnni"))


@_or_neon
def dot_bytes(b: ir.IRBuilder, kind: Vec, acc: ir.Value, x: ir.Value, w: ir.Value) -> ir.Value:
    """acc + the four products of u8 of `x` and i8 of `w` in each lane of i32, exactly. One instruction if the
    CPU has it (AVX512-VNNI, AVX-VNNI)."""
    if _has_dots(b):
        fours = ir.VectorType(ir.IntType(8), 4 * kind.lanes)
        name = f"llvm.x86.avx512.vpdpbusd.{32 * kind.lanes}"
        return call_intrinsic(b, name, acc.type, [acc, b.bitcast(x, fours), b.bitcast(w, fours)])
    # Bytes are widened to i16: `vpmaddubsw`, which takes bytes, saturates sums of two products at 32767.
    pairs = ir.VectorType(_I16, 2 * kind.lanes)
    eight, low = (ir.Constant(pairs, [_I16(n)] * pairs.count) for n in (8, 0xFF))
    x, w = b.bitcast(x, pairs), b.bitcast(w, pairs)
    even = [b.and_(x, low), b.ashr(b.shl(w, eight), eight)]
    odd = [b.lshr(x, eight), b.ashr(w, eight)]
    for two in (even, odd):
        acc = dot_halves(b, kind, acc, *two)
    return acc


@_or_neon
def dot_signed(b: ir.IRBuilder, kind: Vec, acc: ir.Value, x: ir.Value, w: ir.Value) -> ir.Value:
    """acc + the four products of i8 of `x` and `w` in each lane of i32, exactly. `w` is at least -127."""
    if kind.lanes == 8:
        # x w = |x| (w with the sign of x); two products are at most 2 * 128 * 127, which fits 16 bits
        fours = ir.VectorType(ir.IntType(8), 4 * kind.lanes)
        x, w = b.bitcast(x, fours), b.bitcast(w, fours)
        signed = call_intrinsic(b, "llvm.x86.avx2.psign.b", fours, [w, x])
        size = call_intrinsic(b, "llvm.abs.v32i8", fours, [x, ir.IntType(1)(0)])
        if _has_dots(b):
            return dot_bytes(b, kind, acc, size, signed)
        return sum_pairs(b, kind, acc, dot_pairs(b, kind, size, signed))
    # x w = (x + 128) w - 128 w
    signs = _splat_constant(kind, 0x80808080)
    acc = dot_bytes(b, kind, acc, b.xor(x, signs), w)
    return b.sub(acc, dot_bytes(b, kind, _splat_constant(kind, 0), signs, w))


@_or_neon
def dot_halves(b: ir.IRBuilder, kind: Vec, acc: ir.Value, x: ir.Value, w: ir.Value) -> ir.Value:
    """acc + the two products of i16 of `x` and `w` in each lane of i32."""
    pairs = ir.VectorType(_I16, 2 * kind.lanes)
    if kind.lanes not in (8, 16):
        sixteen = _splat_constant(kind, 16)
        for half in (lambda v: b.ashr(b.shl(v, sixteen), sixteen), lambda v: b.ashr(v, sixteen)):
            acc = b.add(acc, b.mul(half(b.bitcast(x, acc.type)), half(b.bitcast(w, acc.type))))
        return acc
    name = "llvm.x86.avx512.pmaddw.d.512" if kind.lanes == 16 else "llvm.x86.avx2.pmadd.wd"
    return b.add(acc, call_intrinsic(b, name, acc.type, [b.bitcast(x, pairs), b.bitcast(w, pairs)]))


def multiply_words(name: str, b: ir.IRBuilder, acc: ir.Value, a: ir.Value, w: ir.Value) -> ir.Value:
    """acc + a * w of the words of a format, by the product that it names (`Format.madd`)."""
    lanes = acc.type.count
    if name in neon.PRODUCTS:
        return neon.product(b, name, acc, a, w)
    if name == "fma":
        return call_intrinsic(b, f"llvm.fma.{suffix(acc.type)}", acc.type, [a, w, acc])
    if name == "dpbf16ps":
        pairs = [b.bitcast(v, bf16_vector(2 * lanes)) for v in (a, w)]
        return call_intrinsic(b, f"llvm.x86.avx512bf16.dpbf16ps.{32 * lanes}", acc.type, [acc, *pairs])
    return {"dot_bytes": dot_bytes, "dot_halves": dot_halves}[name](b, vec("i32", lanes), acc, a, w)


def dot_pairs(b: ir.IRBuilder, kind: Vec, x: ir.Value, w: ir.Value) -> ir.Value:
    """The sums of two products of u8 of `x` and i8 of `w` as i16, two in a lane. They must fit."""
    pairs = ir.VectorType(_I16, 2 * kind.lanes)
    if kind.lanes in (8, 16):
        fours = ir.VectorType(ir.IntType(8), 4 * kind.lanes)
        name = "llvm.x86.avx512.pmaddubs.w.512" if kind.lanes == 16 else "llvm.x86.avx2.pmadd.ub.sw"
        total = call_intrinsic(b, name, pairs, [b.bitcast(x, fours), b.bitcast(w, fours)])
        return b.bitcast(total, kind.ir)
    eight, low = (ir.Constant(pairs, [_I16(n)] * pairs.count) for n in (8, 0xFF))
    x, w = b.bitcast(x, pairs), b.bitcast(w, pairs)
    even = b.mul(b.and_(x, low), b.ashr(b.shl(w, eight), eight))
    return b.bitcast(b.add(even, b.mul(b.lshr(x, eight), b.ashr(w, eight))), kind.ir)


def add_pairs(b: ir.IRBuilder, kind: Vec, x: ir.Value, y: ir.Value) -> ir.Value:
    """x + y of i16, two in a lane."""
    pairs = ir.VectorType(_I16, 2 * kind.lanes)
    return b.bitcast(b.add(b.bitcast(x, pairs), b.bitcast(y, pairs)), kind.ir)


@_or_neon
def sum_pairs(b: ir.IRBuilder, kind: Vec, acc: ir.Value, x: ir.Value) -> ir.Value:
    """acc + the two i16 in each lane of `x`."""
    pairs = ir.VectorType(_I16, 2 * kind.lanes)
    return dot_halves(b, kind, acc, x, ir.Constant(pairs, [_I16(1)] * pairs.count))


@_or_neon
def look_up(b: ir.IRBuilder, kind: Vec, table: ir.Value, codes: ir.Value) -> ir.Value:
    """table[code] of bytes, for codes 0 to 15, within each 16 bytes of `table` and `codes`."""
    total = 4 * kind.lanes
    fours = ir.VectorType(ir.IntType(8), total)
    table, bytes_ = b.bitcast(table, fours), b.bitcast(codes, fours)
    if kind.lanes in (8, 16):
        name = "llvm.x86.avx512.pshuf.b.512" if kind.lanes == 16 else "llvm.x86.avx2.pshuf.b"
        return b.bitcast(call_intrinsic(b, name, fours, [table, bytes_]), codes.type)
    out = ir.Constant(fours, ir.Undefined)
    for i in range(total):
        index = b.add(b.zext(b.extract_element(bytes_, _I32(i)), _I32), _I32(i // 16 * 16))
        out = b.insert_element(out, b.extract_element(table, index), _I32(i))
    return b.bitcast(out, codes.type)


def shift_halves(b: ir.IRBuilder, kind: Vec, x: ir.Value, by: ir.Value) -> ir.Value:
    """Arithmetic right shift of i16, two in a lane."""
    pairs = ir.VectorType(_I16, 2 * kind.lanes)
    return b.bitcast(b.ashr(b.bitcast(x, pairs), b.bitcast(by, pairs)), kind.ir)


def _half_of_halves(b: ir.IRBuilder, x: ir.Value, part: int) -> ir.Value:
    """The first or second half (part 0 or 1) of the f16 in a vector, as f32."""
    count = x.type.count
    pairs = b.bitcast(x, ir.VectorType(ir.HalfType(), 2 * count))
    some = lane_indices(*range(part * count, (part + 1) * count))
    return from_memory(b, b.shuffle_vector(pairs, ir.Constant(pairs.type, ir.Undefined), some), "f16")


def _zip(size: int, last: bool) -> Any:
    """Interleave items of `size` bytes of two vectors, within each 16 bytes: the first halves, or the `last`
    ones."""

    def body(b: ir.IRBuilder, kind: Vec, x: ir.Value, y: ir.Value) -> ir.Value:
        count, block = 4 * kind.lanes // size, 16 // size
        items = ir.VectorType(ir.IntType(8 * size), count)
        first = block // 2 if last else 0
        order = [
            start + first + i + source * count
            for start in range(0, count, block)
            for i in range(block // 2)
            for source in (0, 1)
        ]
        both = b.shuffle_vector(b.bitcast(x, items), b.bitcast(y, items), lane_indices(*order))
        return b.bitcast(both, x.type)

    return body


def _turned_pairs(b: ir.IRBuilder, kind: Any, x: ir.Value) -> ir.Value:
    order = [kind.lanes + i - 1 if i % 2 else i + 1 for i in range(kind.lanes)]
    return b.shuffle_vector(_negate(b, kind, x), x, ir.Constant(ir.VectorType(_I32, kind.lanes), order))


def _fold(n: int) -> Any:
    """The word `fold_n`."""

    def body(b: ir.IRBuilder, kind: Any, x: ir.Value, y: ir.Value) -> ir.Value:
        def select_halves(half: int) -> ir.Value:
            groups = range(half * n, kind.lanes, 2 * n)
            lanes = [from_y + g + i for g in groups for from_y in (0, kind.lanes) for i in range(n)]
            return b.shuffle_vector(x, y, lane_indices(*lanes))

        return BODIES["add"](b, kind, select_halves(0), select_halves(1))

    return body


#: lanes -> the instruction that permutes 4-byte lanes by a vector.
_PERMUTE = {16: "llvm.x86.avx512.permvar.sf.512", 8: "llvm.x86.avx2.permps"}


def _permute(lanes: int) -> Any:
    floats = ir.VectorType(ir.FloatType(), lanes)

    def body(b: ir.IRBuilder, v: ir.Value, index: ir.Value) -> ir.Value:
        if isa_of(b).name == "neon":
            return neon.permute_lanes(b, v, index)
        if lanes in _PERMUTE:
            moved = call_intrinsic(b, _PERMUTE[lanes], floats, [b.bitcast(v, floats), index])
            return b.bitcast(moved, v.type)
        out = ir.Constant(v.type, ir.Undefined)
        for i in range(lanes):
            one = b.extract_element(v, b.and_(b.extract_element(index, _I32(i)), _I32(lanes - 1)))
            out = b.insert_element(out, one, _I32(i))
        return out

    return body


def _prefetch(b: ir.IRBuilder, p: ir.Value, locality: int) -> ir.Value:
    arguments = [pointer(b, p, _I64), _I32(0), _I32(locality), _I32(1)]
    return call_intrinsic(b, "llvm.prefetch.p0", ir.VoidType(), arguments)


def _divide_unsigned(b: ir.IRBuilder, operation: str, x: ir.Value, y: ir.Value) -> ir.Value:
    """udiv or urem of numbers that are not negative. A divisor of 0 counts as 1: CPUs trap at it."""
    if not (isinstance(y, ir.Constant) and y.constant):
        y = b.select(b.icmp_unsigned("==", y, _I64(0)), _I64(1), y)
    return getattr(b, operation)(x, y)


def _truncate_to_int(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    return call_intrinsic(b, "llvm.fptosi.sat.i64.f64", _I64, [x])


def _across(combine: str) -> Any:
    return lambda elem, lanes: _horizontal(BODIES[combine], vec(elem, lanes))


#: Intrinsic -> its code generator. For vectors of any element type: `body(b, kind, *values)`, with the kind
#: of the last value. For conversions: `body(b, source, value, to)`. For numbers: `body(b, *values)`. For one
#: element type: a function (element type, lanes) -> such a body.
BODIES: dict[str, Any] = {
    "add": _float_or_int("fadd", "add"), "sub": _float_or_int("fsub", "sub"),
    "mul": _float_or_int("fmul", "mul"), "div": _divide, "neg": _negate,
    "max_": _extreme("max"), "min_": _extreme("min"), "abs_": _abs, "fma": _fma, "dot_bytes": dot_bytes,
    "dot_signed": dot_signed,
    "exact_fma": _exact_fma, "rcp": _reciprocal, "sqrt": _float_intrinsic("sqrt"),
    "whole_power": _whole_power,
    **{name: _rounding(name) for name in _ROUNDINGS},
    "and_": lambda b, k, x, y: b.and_(x, y), "or_": lambda b, k, x, y: b.or_(x, y),
    "xor": lambda b, k, x, y: b.xor(x, y), "not_": lambda b, k, x: b.not_(x),
    "shl": lambda b, k, x, y: b.shl(x, y), "shr": _shift_right,
    "lt": _compare("<"), "le": _compare("<="), "gt": _compare(">"), "ge": _compare(">="),
    "eq": _compare("=="), "ne": _compare("!="),
    "select": lambda b, k, c, x, y: b.select(c, x, y), "look_up": look_up,
    "dot_halves": dot_halves, "dot_pairs": dot_pairs, "add_pairs": add_pairs, "sum_pairs": sum_pairs,
    "shr_halves": shift_halves, "turned_pairs": _turned_pairs,
    **{f"fold_{n}": _fold(n) for n in (1, 2, 4, 8)},
    "zip_bytes_low": _zip(1, False), "zip_bytes_high": _zip(1, True),
    "zip_halves_low": _zip(2, False), "zip_halves_high": _zip(2, True),
    # conversions
    "cast_T": convert,
    "trunc_int_T": lambda b, source, x, to: truncate(b, x, to),
    "trunc_or_min_T": lambda b, source, x, to: truncate_or_min(b, x, to),
    "round_int_T": lambda b, source, x, to: round_to_int(b, x, to),
    "saturate_T": lambda b, source, x, to: saturate_int(b, x, to),
    "bits_T": lambda b, source, x, to: b.bitcast(x, to.ir),
    "halves_low_T": lambda b, source, x, to: _half_of_halves(b, x, 0),
    "halves_high_T": lambda b, source, x, to: _half_of_halves(b, x, 1),
    # numbers
    "ld": lambda b, p, i: b.load(b.gep(pointer(b, p, _I64), [i]), align=8),
    "to_int": _truncate_to_int,
    "prefetch": lambda b, p: _prefetch(b, p, 3),
    "prefetch_l2": lambda b, p: _prefetch(b, p, 2),
    "imin": lambda b, x, y: b.select(b.icmp_signed("<", x, y), x, y),
    "imax": lambda b, x, y: b.select(b.icmp_signed(">", x, y), x, y),
    "udiv": lambda b, x, y: _divide_unsigned(b, "udiv", x, y),
    "urem": lambda b, x, y: _divide_unsigned(b, "urem", x, y),
    "now": now,
    # for one element type
    "hadd_T": _across("add"), "hmul_T": _across("mul"), "hmax_T": _across("max_"),
    "hmin_T": _across("min_"), "hand_T": _across("and_"), "hor_T": _across("or_"),
    "load_T": lambda elem, lanes: lambda b, p: load_vector(b, p, elem, lanes),
    "loadm_T": lambda elem, lanes: lambda b, p, n: load_vector(b, p, elem, lanes, n),
    "store_T": lambda elem, lanes: lambda b, p, v: store_vector(b, p, v, elem),
    "storem_T": lambda elem, lanes: lambda b, p, v, n: store_vector(b, p, v, elem, n),
    "splat_T": lambda elem, lanes: lambda b, p: splat(b, p, elem, lanes),
    "spread_T": lambda elem, lanes: lambda b, x: broadcast(b, x, lanes),
    "const_T": lambda elem, lanes: lambda b, x: broadcast(b, x, lanes),
    "gather_T": gather, "scatter_T": scatter, "strided_T": load_strided, "strided_store_T": store_strided,
    "take_T": take,
    "evens_T": lambda elem, lanes: lambda b, p: evens(b, p, elem, lanes),
    "thirds_T": lambda elem, lanes: lambda b, p: thirds(b, p, elem, lanes),
    "permute_T": lambda elem, lanes: _permute(lanes),
    "blend_T": lambda elem, lanes: lambda b, n, x, y: b.select(iota_mask(b, n, lanes), x, y),
    "lane_T": lambda elem, lanes: lambda b, v, i: b.extract_element(v, i),
    "ld_T": lambda elem, lanes: lambda b, p: load_scalar(b, p, elem),
    "st_T": lambda elem, lanes: lambda b, p, x: store_scalar(b, p, x, elem),
}  # fmt: skip


class Namespace(dict):
    """The intrinsics of generated code for one vector width, created on first use."""

    def __init__(self, lanes: int):
        super().__init__()
        self.lanes = lanes

    def __missing__(self, name: str) -> Any:
        intrinsic = self[name] = self._intrinsic(name)
        return intrinsic

    def _intrinsic(self, name: str) -> Any:
        operation, _, elem = name.rpartition("_")
        if operation.startswith("libm_"):
            function = operation[5:]
            return generic(name, _arity(function), lambda k: k, _libm(function, elem))
        if operation.startswith("seldom_"):
            function = operation[7:]
            return generic(name, 2 + _arity(function), lambda k: k, _seldom(function, elem))
        word, elem = find(name)
        body = BODIES.get(word.name)
        if body is None:
            raise UnsupportedError(f"the word {name} has no code for CPUs")
        if elem:
            return self._word_of_type(name, word, elem, body)
        if word.result == "mask":
            return generic(name, len(word.arguments), lambda kind: vec("boolean", kind.lanes), body)
        if word.result == "v":
            return generic(name, len(word.arguments), lambda kind: kind, body)
        kinds = [_NUMBERS[text] for text in (word.result, *word.arguments)]
        return make(name, signature(*kinds), body)

    def _word_of_type(self, name: str, word: Declared, elem: str, body: Any) -> Any:
        kind = vec(elem, self.lanes)
        if word.arguments == ("number",):
            return constant(name, kind, _scalar_type(elem))
        if word.arguments == ("v",):
            return conversion(name, kind, lambda b, source, x: body(b, source, x, kind))
        types_by_name = _NUMBERS | {"V": kind, "x": _scalar_type(elem), "I": vec("i32", self.lanes)}
        kinds = [types_by_name[text] for text in (word.result, *word.arguments)]
        return make(name, signature(*kinds), body(elem, self.lanes))


#: Types of `ovjit.codegen.words` that are not vectors.
_NUMBERS = {"": types.void, "i": types.int64, "p": types.int64, "n": types.int64, "d": types.float64}


def _scalar_type(elem: str) -> Any:
    elem = REGISTER_TYPE.get(elem, elem)
    names = {"f32": "float32", "f64": "float64", "boolean": "boolean"}
    return getattr(types, names.get(elem) or ("u" if elem[0] == "u" else "") + f"int{INTS.get(elem)}")


#: Operator on vectors -> intrinsic.
OPERATORS = {
    operator.add: "add", operator.sub: "sub", operator.mul: "mul", operator.truediv: "div",
    operator.and_: "and_", operator.or_: "or_", operator.xor: "xor", operator.lshift: "shl",
    operator.rshift: "shr", operator.lt: "lt", operator.le: "le", operator.gt: "gt", operator.ge: "ge",
    operator.eq: "eq", operator.ne: "ne", operator.neg: "neg", operator.invert: "not_",
}  # fmt: skip


@functools.cache
def namespace(lanes: int) -> Namespace:
    """The intrinsics of generated kernels, for vectors of `lanes` f32 lanes."""
    return Namespace(lanes)
