"""The pipeline for kernels: it takes every kernel there is, and answers as Numba's ordinary one does."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import llvmlite.binding as llvm
import llvmlite.ir as ir
import numpy as np
import pytest

from ovjit.codegen.cpu import jit
from ovjit.codegen.cpu.host import host_target
from ovjit.codegen.cpu.ir import Body
from ovjit.codegen.cpu.llvm_parts import parts_of
from ovjit.codegen.cpu.objects import function, load
from ovjit.codegen.cpu.printing import Builder
from ovjit.codegen.cpu.targets import Target
from ovjit.codegen.kernel import Kernel
from ovjit.codegen.trace import Recorder
from ovjit.execution.runner import native_kernels
from ovjit.graph import dtypes
from ovjit.graph.op import Op
from tests.support.compiled import program_of, run_passes
from tests.support.isa_answers import OPS
from tests.support.op_samples import SEED, graph_of, native_answer, native_ops
from tests.support.samples import samples_of
from tests.support.sweeps import in_turn

NATIVE = native_ops()


def sampled(record: Op, others: Sequence[int] = (4, 8)) -> Iterator[tuple[str, int, list[np.ndarray], dict]]:
    """(element type, number, inputs, attributes): every sample of the first type, and `others` of others."""
    types = record.types or ["f32"]
    first = "f32" if "f32" in types else types[0]
    for dtype in types:
        if dtype == "string" or dtypes.ELEMENT_TYPES[dtype].is_packed or dtype.startswith("f8"):
            continue
        for i, (inputs, attrs) in enumerate(samples_of(record, np.random.default_rng(SEED), dtype)):
            if dtype == first or i in others:
                yield dtype, i, inputs, attrs


@pytest.fixture
def no_fallback() -> Iterator[None]:
    before = len(jit.fallbacks)
    yield
    assert jit.fallbacks[before:] == []


def llvm_text(source: str, symbol: str, isa: Target, extra: Mapping[str, Any] | None = None) -> str:
    """The LLVM module of a kernel before LLVM's passes. Raises Outside for what is not in the language."""
    return str(jit.lower_kernel(jit._define(source, symbol, isa, extra or {}), 4, isa))


def lowered(kernel: Kernel) -> str:
    isa = host_target()
    return llvm_text(kernel.source, kernel.symbol(isa), isa, kernel.intrinsics(isa))


#: What LLVM may do to reals that changes bits, and would do or not as other passes leave it the code.
LICENCES = re.compile(r"\b(contract|reassoc|fast|nnan|ninf|nsz|arcp|afn)\b")


def none_falls_back(samples: Iterable[tuple[str, int, list[np.ndarray], dict]], record: Op) -> None:
    """Every kernel of these samples is in the language, and says what is fused."""
    for dtype, _, inputs, attrs in samples:
        graph, _ = graph_of(record, inputs, attrs, dtype)
        for kernel in program_of(run_passes(graph)).kernels:
            if kernel not in _SEEN:
                _SEEN.add(kernel)
                text = lowered(kernel) + parts_of((kernel.intrinsics(host_target()) or {}).values())
                assert not (found := LICENCES.search(text)), (kernel.name, found, SEED)


@pytest.mark.parametrize("record", in_turn(NATIVE, 3), ids=lambda r: f"{r.name}-{r.opset}")
def test_no_kernel_falls_back(record: Op) -> None:
    """Of every ninth sample, the first one among them; by default of every third operation."""
    none_falls_back(itertools.islice(sampled(record), 0, None, 9), record)


@pytest.mark.long
@pytest.mark.parametrize("record", NATIVE, ids=lambda r: f"{r.name}-{r.opset}")
def test_no_kernel_of_any_sample_falls_back(record: Op) -> None:
    none_falls_back(sampled(record), record)


_SEEN: set[Kernel] = set()


def test_the_runner_is_in_the_language() -> None:
    every = (("", "_lead"), ("", "_wake_all"), ("", "_branch"), ("",))
    for kernel, names in zip(native_kernels(), every, strict=True):
        text = lowered(kernel)
        for name in names:
            assert f'@"{kernel.symbol()}{name}"' in text


def same_bits(record: Op, monkeypatch: pytest.MonkeyPatch, samples: Iterable[tuple]) -> None:
    chosen = list(samples)
    assert chosen
    for dtype, i, inputs, attrs in chosen:
        answers = []
        for way in ("", "numba"):
            monkeypatch.setenv("OVJIT_JIT", way)
            answers.append(native_answer(record, inputs, attrs, dtype))
        mine, numbas = answers
        where = f"{record!r} {dtype} sample {i} {attrs} seed {SEED}"
        assert mine.dtype == numbas.dtype and mine.tobytes() == numbas.tobytes(), where


#: Of these the sample in whose kernels there are sums of products in several blocks or in epilogues, or
#: constants of booleans, which Numba's pipeline once did not do as ours does.
APART = {
    "GRN": 0, "GRUCell": 1, "GroupConvolution": 8, "LogicalNot": 0, "NormalizeL2": 0, "ReduceL2": 8,
    "ReduceLogicalAnd": 0,
}  # fmt: skip
#: By default few operations of a unit, and every fourth behind the marker `long`.
FEW = [
    record if record.name in {*sorted(OPS)[::24], *APART} else pytest.param(record, marks=pytest.mark.long)
    for record in NATIVE
    if record.name in {*sorted(OPS)[::4], *APART}
]


@pytest.mark.usefixtures("no_fallback")
@pytest.mark.parametrize("record", FEW, ids=lambda r: f"{r.name}-{r.opset}")
def test_same_bits(record: Op, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one sample: Numba's pipeline takes ten times as long."""
    first = APART.get(record.name, 0)
    same_bits(record, monkeypatch, itertools.islice(sampled(record), first, first + 1))


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("no_fallback")
@pytest.mark.parametrize("record", NATIVE, ids=lambda r: f"{r.name}-{r.opset}")
def test_same_bits_of_all(record: Op, monkeypatch: pytest.MonkeyPatch) -> None:
    same_bits(record, monkeypatch, sampled(record, (0, 4, 8)))


# --- the language itself, beside Python

INTEGERS = [-(1 << 63), -(1 << 40) - 3, -17, -2, -1, 0, 1, 2, 3, 16, 1 << 40, (1 << 63) - 1]


def object_code(source: str, symbol: str) -> bytes:
    return jit.object_code(source, symbol, host_target())


def compiled(body: str, symbol: str):
    """A Python callable for `kernel(a, b, c, p)`; every one is compiled both ways and must agree."""
    source = (
        "@njit(nogil=True)\ndef kernel(a, b, c, p):\n"
        + "\n".join(f"    {x}" for x in body.splitlines())
        + "\n"
    )
    before = len(jit.fallbacks)
    direct = function(load(symbol, object_code(source, symbol)), 4)
    assert jit.fallbacks[before:] == [], body
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OVJIT_JIT", "numba")
        numbas = function(load(symbol + "_numba", object_code(source, symbol + "_numba")), 4)

    def both(*args: int) -> int:
        got, wanted = direct(*args), numbas(*args)
        assert got == wanted, (body, args)
        return got

    return both


def wrapped(x: int) -> int:
    return (x + (1 << 63)) % (1 << 64) - (1 << 63)


def test_arithmetic_of_integers() -> None:
    body = """s = (a + b) * c - (a & b) + (a | c) ^ ~b
q = a // b + a % b
d = a // 7 + a % 7 - (c // -3) * (c % -3)
return s + q * 5 + d * 3 + (-a) + (a << 3) - (b >> 5) + (+c)"""
    f = compiled(body, "test_jit_integers")
    for a in INTEGERS:
        for b in INTEGERS:
            for c in (5, -9, (1 << 62) + 1):
                q, r = (0, 0) if b == 0 or (a == INTEGERS[0] and b == -1) else divmod(a, b)
                expected = (((a + b) * c - (a & b) + (a | c)) ^ ~b) + (q + r) * 5
                expected += (a // 7 + a % 7 - (c // -3) * (c % -3)) * 3 - a + (a << 3) - (b >> 5) + c
                assert f(a, b, c, 0) == wrapped(expected), (a, b, c)


def test_branches_and_loops() -> None:
    body = """total = 0
for i in range(a):
    if i % 3 == 0 and not i == 6:
        continue
    for j in range(b, i, -2):
        total += i * j
        if total > 1000 or c < 0:
            break
k = 0
while True:
    k += 1
    if k * k > total:
        break
found = (a < b) + (b < c) * 2
return total * 1000 + k * 10 + (found if a != c else -1)"""
    f = compiled(body, "test_jit_loops")
    scope: dict = {}
    exec("def kernel(a, b, c, p):\n" + "\n".join(f"    {x}" for x in body.splitlines()), scope)
    for a in (0, 1, 5, 9, 40):
        for b in (-3, 0, 4, 17):
            for c in (-1, 0, 9):
                assert f(a, b, c, 0) == scope["kernel"](a, b, c, 0), (a, b, c)


def test_variables_that_are_assigned_in_one_place() -> None:
    """They are no memory, but for what a branch assigns and another one reads."""
    body = """start = a * 3
total = 0
i = 0
while i < b:
    base = start + i
    if base > c:
        inner = base - c
        seldom = c * 11 + i
        for j in range(3):
            total += inner * j + start
        if inner > 5:
            total -= base
    i += 1
    if base > c:
        total ^= seldom
end = total + i
return end if a > 0 else end - start"""
    f = compiled(body, "test_jit_one_place")
    lines = "def kernel(a, b, c, p):\n" + "\n".join(f"    {x}" for x in body.splitlines()) + "\n"
    scope: dict = {}
    exec(lines, scope)
    for a in (-2, 0, 1, 5):
        for b in (0, 1, 2, 9):
            for c in (-1, 0, 9, 16):
                assert f(a, b, c, 0) == scope["kernel"](a, b, c, 0), (a, b, c)
    text = llvm_text("@njit(nogil=True)\n" + lines, "test_jit_slots", host_target())
    slots = {line.split()[0].strip('%"') for line in text.splitlines() if " = alloca " in line}
    assert {name.partition(".")[0] for name in slots} == {"total", "i", "seldom", "next"}


def test_what_loops_do_not_change_is_computed_before_them() -> None:
    """... of what has no effect and cannot fail, wherever loops begin anew or come one after the other."""
    body = """total = 0
k = b
for i in range(a):
    if i == 3:
        continue
    j = i
    while j < 9:
        scaled = (b * 5 + c) ^ (i * 7)
        if j & 1:
            j += 3
            continue
        total += scaled + k * 11
        if total > 1000:
            k += 1
            break
        j += 1
    for j in range(i, 6):
        total += (b - c) * 3 + udiv(c, b + 1) if b > 0 else k * 13
    if a > 4:
        k = b * 5
    total ^= k * 17
for i in range(c):
    total += k * 17 + b * 5
return total"""
    both = compiled(body, "test_jit_hoisted")
    for values in ((0, 5, 3), (4, 0, 2), (6, 7, 1), (9, -1, 0), (12, 300, 5)):
        both(*values, 0)
    lines = ["for i in range(a):", "    for j in range(i):"]
    lines += [f"        st_i64(p + j * 8, {value} + j)" for value in ("b * 3", "i * 5", "j * 7")]
    text = "@njit(nogil=True)\ndef kernel(a, b, c, p):\n"
    text += "\n".join(f"    {line}" for line in [*lines, "return 0"]) + "\n"
    text = llvm_text(text, "test_jit_before_loops", host_target())
    blocks = re.split(r"^(?=\S+:$)", text, flags=re.M)

    def having(pattern: str) -> list[int]:
        return [i for i, block in enumerate(blocks) if re.search(pattern, block, re.M)]

    places = [having(rf" mul .*, {number}$") for number in (3, 5, 7)]
    store = having(r'store i64 [^,]*, i64\*|store i64 [^,]*, ptr %"\$')
    assert all(len(set(place)) == 1 for place in places), (places, text)
    assert places[0] < places[1] < places[2] and places[2][0] in store, (places, store, text)


def test_lanes_of_libraries_functions_that_nobody_reads_are_not_computed() -> None:
    text = """@njit(nogil=True)
def kernel(a, b, c, p):
    st_f64(p, lane_f64(libm_cos_f64(spread_f64(a * 0.5)), 0))
    return 0
"""
    code = jit.optimised_text(text, "test_jit_lanes", host_target())
    assert len(re.findall(r"call .*@cos\(", code)) == 1, code


def test_values_that_are_chosen() -> None:
    """`and`, `or` and `if ... else` within expressions: what is not chosen is not read, and what was read
    before is still known."""
    body = """x = ld(p, 0)
y = (ld(p, 1) if a > 0 else x) + (b and ld(p, b)) * 10 + (c or x) * 100
if not (a < b and (b < c or not a)) and y != 7:
    y = -y if a == b else y + (x if c > 1 and b > 1 else (ld(p, 2) if b else 5))
y += (a > 1 or b) + (a > b and c > b)
return y * 3 + ld(p, 0)"""
    f = compiled(body, "test_jit_chosen")
    numbers = np.array([3, 50, -7, 11], np.int64)
    scope: dict = {"ld": lambda at, i: int(numbers[i])}
    exec("def kernel(a, b, c, p):\n" + "\n".join(f"    {x}" for x in body.splitlines()), scope)
    for a in range(-1, 3):
        for b in range(4):
            for c in range(-1, 4):
                args = a, b, c, numbers.ctypes.data
                assert f(*args) == scope["kernel"](*args), (a, b, c)


def test_memory_of_every_type() -> None:
    """Scalars of all types, variables of several integer types and of several vectors."""
    data = np.zeros(64, np.uint8)
    data[:16] = np.arange(240, 256, dtype=np.uint8)
    body = """x = 0
x = ld_u8(p + a)
if b > 0:
    x = ld_i16(p + a) + 1
y = ld_u32(p + 4)
z = ld_u64(p + 8)
v = load_f32(p)
w = load_i32(p)
if c > 1:
    v = add(v, v)
v = load_i32(p + 4)
f = 1.5
g = ld_f32(p) * f - 2 / 3.0
st_f64(p + 32, g)
st_f32(p + 40, g)
st_u16(p + 44, x)
st_u64(p + 48, z // ld_u64(p + 16) + z % ld_u64(p))
st_i32(p + 56, hadd_i32(add(v, w)))
big = z > ld_u64(p)
return x * 3 + (y >> 1) + big + (g < f) * 8 + bool(c) + int(True) * 64"""
    f = compiled(body, "test_jit_types")
    results = set()
    for a in range(3):
        for b in (0, 1):
            for c in (0, 2):
                results.add(f(a, b, c, data.ctypes.data))
    assert len(results) > 6
    assert np.frombuffer(data[32:40], np.float64)[0] == np.frombuffer(data[:4], np.float32)[
        0
    ] * 1.5 - 2 / 3.0 or (np.isnan(np.frombuffer(data[32:40], np.float64)[0]))


def test_constants_of_booleans() -> None:
    body = """yes = const_boolean(True)
some = select(and_(yes, gt(load_i32(p), spread_i32(c))), load_i32(p), const_i32(0))
none = select(const_boolean(False), load_i32(p), const_i32(7))
return hadd_i32(some) + hmax_i32(none) * 1000000"""
    f = compiled(body, "test_jit_booleans")
    numbers = np.arange(64, dtype=np.int32)
    lanes = host_target().lanes
    for c in (-1, 0, 3, 99):
        expected = int(numbers[:lanes][numbers[:lanes] > c].sum()) + 7000000
        assert f(0, 0, c, numbers.ctypes.data) == expected, c


def test_which_products_are_fused() -> None:
    """Those that one sum alone reads, of reals; whichever way a sum is written, it is the same."""

    def text(function: Callable, dtype: str = "f32") -> list[str]:
        recorder = Recorder()
        made = function(*(recorder.input(f"x{i}", dtype) for i in range(3)))
        made = made if isinstance(made, tuple) else (made,)
        return Body([dtype] * 3, [dtype] * len(made), recorder.lines, [v.name for v in made]).source("")[0]

    fused = ["t0 = fma(x0, x1, x2)"]
    assert text(lambda x, y, z: x * y + z) == text(lambda x, y, z: z + y * x) == fused
    assert text(lambda x, y, z: x * y - z) == ["t0 = neg(x2)", "t1 = fma(x0, x1, t0)"]
    assert text(lambda x, y, z: z - x * y) == ["t0 = neg(x1)", "t1 = fma(x0, t0, x2)"]
    assert text(lambda x, y, z: z - x * 3.0) == ["t0 = fma(x0, k0, x2)"]
    assert text(lambda x, y, z: x * y + y * z) == ["t0 = mul(x1, x2)", "t1 = fma(x0, x1, t0)"]
    twice = text(lambda x, y, z: (x * y + z) / (x * y))
    assert twice == ["t0 = mul(x0, x1)", "t1 = add(t0, x2)", "t2 = div(t1, t0)"]
    assert text(lambda x, y, z: (x * y, x * y + z)) == ["t0 = mul(x0, x1)", "t1 = add(t0, x2)"]
    assert text(lambda x, y, z: x * x + x * x) == ["t0 = mul(x0, x0)", "t1 = add(t0, t0)"]
    assert text(lambda x, y, z: x * y + z, "i32") == ["t0 = mul(x0, x1)", "t1 = add(t0, x2)"]
    assert text(lambda x, y, z: x * y + z, "f64") == fused


def test_quotients_of_floats() -> None:
    """As Numba's, and as Python's where it has an answer; NaN is NaN."""
    body = """x = ld_f64(p)
y = ld_f64(p + 8)
st_f64(p + 16, x // y)
st_f64(p + 24, x % y)
st_f64(p + 32, x // 1.0)
q = ld_f64(p + 16)
r = ld_f64(p + 24)
return (ld_i64(p + 16) if q == q else 1) ^ (ld_i64(p + 24) if r == r else 2) * 31"""
    f = compiled(body, "test_jit_floats")
    numbers = [
        0.0,
        -0.0,
        1.0,
        -1.0,
        0.1,
        -0.3,
        7.5,
        -2.25,
        1e300,
        -5e-324,
        float("inf"),
        -float("inf"),
        float("nan"),
    ]
    data = np.zeros(5)
    for x in numbers:
        for y in numbers:
            data[:2] = x, y
            f(0, 0, 0, data.ctypes.data)
            if y and np.isfinite([x, y]).all():
                got = data.tobytes()[16:32]
                assert got == np.array([x // y, x % y]).tobytes(), (x, y, data)


def test_variables_of_two_types() -> None:
    """One name for vectors of two types, apart in the source; Numba tells them apart too."""
    data = np.arange(64, dtype=np.int32)
    body = """total = 0
i = 0
while i < a:
    v = load_i32(p + i * 4)
    total += hadd_i32(v)
    v = cast_f32(v)
    if b > 0:
        v = mul(v, v)
    total += int(hadd_f32(v) > 100.0)
    i += VL
return total"""
    f = compiled(body, "test_jit_two_types")
    assert f(32, 0, 0, data.ctypes.data) >= int(data[:32].sum())


def test_what_is_outside_goes_through_numba() -> None:
    """Right all the same, and counted; a mistake is named with its line."""
    from numba.core.errors import NumbaError

    source = "@njit(nogil=True)\ndef kernel(a, b, c, p):\n    t = (a, b, c)\n    return t[0] + len(t)\n"
    before = len(jit.fallbacks)
    code = object_code(source, "test_jit_tuple")
    assert function(load("test_jit_tuple", code), 4)(39, 0, 0, 0) == 42
    ((symbol, reason),) = jit.fallbacks[before:]
    assert symbol == "test_jit_tuple" and "Tuple" in reason and "(3)" in reason
    wrong = "@njit(nogil=True)\ndef kernel(a, b, c, p):\n    return load_f32(a) + 'x'\n"
    with pytest.raises(NumbaError, match="line 3"):
        object_code(wrong, "test_jit_wrong")
    del jit.fallbacks[before:]


def _every_instruction(b: ir.IRBuilder) -> None:
    """One of each instruction that `printing.Builder` prints, of the arguments of the function."""
    i32, i64, f32, f64 = ir.IntType(32), ir.IntType(64), ir.FloatType(), ir.DoubleType()
    x, y, f, g = b.function.args
    for two in (b.sub, b.mul, b.sdiv, b.udiv, b.srem, b.urem, b.shl, b.lshr, b.ashr, b.and_, b.or_, b.xor):
        x = two(x, y)
    x = b.not_(b.neg(b.add(x, y, flags=("nsw",))))
    for two in (b.fadd, b.fsub, b.fmul, b.fdiv, b.frem):
        f = two(f, b.fneg(g))
    small = b.trunc(x, i32)
    p = b.inttoptr(b.add(b.zext(small, i64), b.sext(small, i64)), f32.as_pointer())
    wide = b.fpext(b.load(p, align=4), f64)
    wide = b.fadd(wide, b.fadd(b.sitofp(x, f64), b.uitofp(x, f64)))
    b.store(b.fptrunc(wide, f32), b.gep(p, [i64(3)], source_etype=f32), align=4)
    x = b.add(b.add(b.fptosi(f, i64), b.fptoui(f, i64)), b.ptrtoint(p, i64))
    slot = b.alloca(i64)
    b.store(x, slot)
    x = b.add(b.load(slot), b.bitcast(x, i64))
    ends = [
        compare(sign, *operands)
        for compare, operands in (
            (b.icmp_signed, (x, y)), (b.icmp_unsigned, (x, y)),
            (b.fcmp_ordered, (f, g)), (b.fcmp_unordered, (f, g)),
        )
        for sign in ("<", "<=", ">", ">=", "==", "!=")
    ]  # fmt: skip
    ends += [b.fcmp_ordered("ord", f, g), b.fcmp_unordered("uno", f, g)]
    with b.if_else(functools.reduce(b.xor, ends)) as (then, otherwise):
        with then:
            one, before = b.select(ends[0], x, y), b.block
        with otherwise:
            other, behind = b.mul(x, x), b.block
    chosen = b.phi(i64)
    chosen.add_incoming(one, before)
    chosen.add_incoming(other, behind)
    vector = ir.VectorType(f32, 4)
    vector_of = b.insert_element(ir.Constant(vector, ir.Undefined), f, i32(1))
    mask = ir.Constant(ir.VectorType(i32, 8), [1, 0, 3, 2, 1, 1, 1, 1])
    turned = b.shuffle_vector(vector_of, vector_of, mask)
    b.fcmp_unordered("uno", turned, turned)
    found = b.extract_element(turned, i32(2))
    root = ir.Function(b.module, ir.FunctionType(f32, [f32]), "llvm.sqrt.f32")
    told = ir.Function(b.module, ir.FunctionType(ir.VoidType(), [i64]), "told")
    b.call(told, [b.fptosi(b.call(root, [found]), i64)], cconv="fastcc")
    b.call(b.inttoptr(x, told.function_type.as_pointer()), [chosen])
    b.ret(chosen)


def test_instructions_that_are_printed_at_once() -> None:
    """What LLVM reads is what llvmlite's own builder makes."""
    found = []
    for builder in (ir.IRBuilder, Builder):
        module = ir.Module()
        kinds = [ir.IntType(64)] * 2 + [ir.FloatType()] * 2
        function = ir.Function(module, ir.FunctionType(kinds[0], kinds), "f")
        _every_instruction(builder(function.append_basic_block("entry")))
        text = str(llvm.parse_assembly(str(module)))
        names = dict.fromkeys(re.findall(r'%(?:"[^"]*"|[\w.]+)', text))
        for number, name in enumerate(names):
            text = re.sub(re.escape(name) + r"(?![\w.])", f"<{number}>", text)
        found.append(text)
    assert found[0] == found[1]


def test_the_same_source_has_the_same_machine_code() -> None:
    kernel = native_kernels()[0]
    assert kernel.compile(host_target()) == kernel.compile(host_target())
