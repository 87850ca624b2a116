"""Kernels that are functions: what is folded, unrolled and put in place, and what a kernel cannot say."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest

import ovjit_ops
from ovjit import tiles
from ovjit.codegen import kernel_language, words
from ovjit.codegen.cpu.host import host_target
from ovjit.codegen.cpu.ir import Body
from ovjit.codegen.function import inline, kernel, store_spaced
from ovjit.codegen.kernel import Kernel, KernelArgs
from ovjit.codegen.kernel_printing import printed_routine
from ovjit.codegen.memory import SIZE
from ovjit.codegen.parts import block_routine, routine
from ovjit.codegen.trace import Recorder, maximum
from ovjit.codegen.warps import COLUMNS
from ovjit.codegen.words import (
    VL,
    Each,
    Ptr,
    Table,
    Tensor,
    Word,
    applied,
    const,
    exp,
    i32,
    i64,
    items,
    ld,
    load,
    loadm,
    placed,
    registers,
    share,
    splat,
    spread,
    sqrt,
    st,
    static_range,
    storem,
)
from ovjit.errors import KernelSourceError, UnsupportedError
from ovjit.execution.numpy_words import Memory
from ovjit.planning.views import placed_values
from tests.support.gpu_words import Words, program

TABLE = {"f32": 3, "i32": 5}
SHIFTS = Table(3)
SHIFTS_AT = 2


def text(function, **constants):
    """The lines behind the prologue."""
    made = function.kernel("k", **constants)
    return made.source[len("\n".join(made.source.splitlines()[:2]) + made.frame.prologue()) + 2 :]


def test_constants_decide_and_are_folded():
    @kernel
    def k(x: Ptr, n, *, T, way):
        """Not printed."""
        size = n * SIZE[T] * TABLE[T]
        if way == "up" and n > 0:
            size += 2 * (3 + TABLE[T])
        elif way == "down":
            size = -size
        else:
            size = (n - size) // 2
        if way == "up" or n == 7:
            size = size if way else 0
        least = const[T](-np.inf if T == "f32" else -5)
        storem[T](x, least, size)
        return size

    assert text(k, T="f32", way="up").splitlines() == [
        "    size = n * 4 * 3",
        "    if n > 0:",
        "        size += 12",
        "    else:",
        "        size = (n - size) // 2",
        "    size = size",
        "    least = const_f32(-float_inf)",
        "    storem_f32(x, least, size)",
        "    return size",
        "    return 0",
    ]
    assert "size = -size\n    if n == 7:" in text(k, T="i32", way="down")
    assert "const_i32(-5)" in text(k, T="i32", way="")
    with pytest.raises(TypeError, match="k has the constants T, way"):
        k.kernel("k", T="f32")


def test_loops():
    @kernel
    def k(x: Ptr, n, per_chunk, *, taps):
        acc = registers()
        for i in static_range(2):
            acc[i] = splat["f32"](x + i * 4)
        for row in share(n, per_chunk):
            for i, weight in taps:
                acc[i] = acc[i] + const["f32"](weight)
            for i in range(1, n, VL):
                acc[1] = loadm["f32"](x + i * row, n - i)

    assert text(k, taps=[(0, 0.5), (1, 2.0)]).splitlines() == [
        "    acc0 = splat_f32(x + 0)",
        "    acc1 = splat_f32(x + 4)",
        "    row = chunk * per_chunk",
        "    stop_row = imin(row + per_chunk, n)",
        "    while row < stop_row:",
        "        acc0 = acc0 + const_f32(0.5)",
        "        acc1 = acc1 + const_f32(2.0)",
        "        i = 1",
        "        while i < n:",
        "            acc1 = loadm_f32(x + i * row, n - i)",
        "            i += VL",
        "        row += 1",
        "    return 0",
    ]


@inline
def clipped(i, low, high):
    return max(low, min(i, high))


@inline
def halved(i, T):
    rest = i
    while rest > SIZE[T]:
        rest = rest // 2
    return rest


def test_inline_functions_have_names_of_their_own():
    @kernel
    def k(n, rest, *, T):
        a = clipped(n + 1, 0, rest * 2) * 2
        b = halved(rest + a, T)
        return b

    assert text(k, T="f32").splitlines() == [
        "    a = imax(0, imin(n + 1, rest * 2)) * 2",
        "    halved_rest = rest + a",
        "    while halved_rest > 4:",
        "        halved_rest = halved_rest // 2",
        "    b = halved_rest",
        "    return b",
        "    return 0",
    ]


@inline
def row_of(i, *, width, T):
    return i * width * SIZE[T]


@inline
def double_row(i, *, T):
    at = row_of(i + i, width=4)
    return at


def test_inline_functions_inherit_keyword_only_parameters():
    @kernel
    def k(n, width, *, T):
        a = row_of(n)
        b = row_of(n, width=2 * n, T="f64")
        c = double_row(n)
        return a + b + c

    assert text(k, T="f32").splitlines() == [
        "    a = n * width * 4",
        "    b = n * (2 * n) * 8",
        "    double_row_at = (n + n) * 4 * 4",
        "    c = double_row_at",
        "    return a + b + c",
        "    return 0",
    ]


def test_inherited_parameters_are_checked():
    @kernel
    def lacks(n, *, T):
        return row_of(n)

    @kernel
    def names(n, width, *, T):
        return row_of(n, height=1)

    with pytest.raises(TypeError, match="needs 'width', which lacks does not have"):
        lacks(T="f32")
    with pytest.raises(TypeError, match="height is not a parameter"):
        names(T="f32")


@inline
def add_rows(sums, x, row, taps):
    part = registers()
    for i, weight in taps:
        part[i] = load["f32"](x + i * row)
        sums[i] = sums[i] + part[i] * const["f32"](weight)


@inline
def bent(both, body):
    made = registers()
    made = applied(body, *both)
    for i in static_range(2):
        both[i] = made[i]


def test_inline_functions_take_registers():
    recorder = Recorder()
    a, b = recorder.input("x0", "f32"), recorder.input("x1", "f32")
    made = a + b, a * b
    body = Body(["f32", "f32"], ["f32", "f32"], recorder.lines, [v.name for v in made])

    @kernel
    def k(x: Ptr, row, *, taps):
        acc = registers()
        for i in static_range(2):
            acc[i] = splat["f32"](x + i * 4)
        add_rows(acc, x, row, taps)
        bent(acc, body)

    assert text(k, taps=[(0, 0.5), (1, 2.0)]).splitlines() == [
        "    acc0 = splat_f32(x + 0)",
        "    acc1 = splat_f32(x + 4)",
        "    add_rows_part0 = load_f32(x + 0 * row)",
        "    acc0 = acc0 + add_rows_part0 * const_f32(0.5)",
        "    add_rows_part1 = load_f32(x + 1 * row)",
        "    acc1 = acc1 + add_rows_part1 * const_f32(2.0)",
        "    bent_made0 = add(acc0, acc1)",
        "    bent_made1 = mul(acc0, acc1)",
        "    acc0 = bent_made0",
        "    acc1 = bent_made1",
        "    return 0",
    ]


def test_rows_have_no_more_dimensions_than_the_kernel_walks():
    values = placed_values([2, 3, 4], x=[96, 32, 8])
    assert [values[f"d{d}"] for d in range(3)] == [2, 3, 4]
    assert [values[f"x_{d}"] for d in range(3)] == [96, 32, 8]
    assert placed_values([5], x=[8]) == {"d0": 1, "d1": 1, "d2": 5, "x_0": 0, "x_1": 0, "x_2": 8}
    with pytest.raises(ValueError, match="along 3 dimensions was given 4"):
        placed_values([2, 3, 4, 5], x=[480, 160, 40, 8])


def test_brackets_are_where_they_are_needed():
    @kernel
    def k(a, b, c, *, two):
        d = (a - b) - (b - c)
        d = a - (b + c) * two
        d = -(a + b) // (c * two)
        d = (a & b) << (two + 1) | ~c
        if not (a < b and (b < c or c == a)):
            d = (a if two == 2 else b) % c
        return d

    env = {"ld": lambda *x: 0, "imin": min}
    code = text(k, two=2)
    scope: dict = dict(env)
    exec("def f(a, b, c):\n" + code, scope)

    def plain(a, b, c, two=2):
        d = (a & b) << (two + 1) | ~c
        if not (a < b and (b < c or c == a)):
            d = (a if two == 2 else b) % c
        return d

    for a in range(-3, 4):
        for b in range(-3, 4):
            for c in (-2, -1, 1, 3):
                assert scope["f"](a, b, c) == plain(a, b, c), (a, b, c)
    assert "d = a - b - (b - c)" in code and "d = a - (b + c) * 2" in code
    assert "d = -(a + b) // (c * 2)" in code


@pytest.mark.parametrize("lanes", [4, 16])
def test_a_kernel_in_python(lanes):
    """Rows of three dimensions, an elementwise body, and lanes that are apart."""
    recorder = Recorder()
    result = maximum(recorder.input("x0", "f32") * 2.0, recorder.input("x1", "f32"))
    body = Body(["f32", "f32"], ["f32"], recorder.lines, [result.name])

    @kernel
    def k(x: Ptr, y: Ptr, n, step, rows, per_chunk, *, body):
        for row in share(rows, per_chunk):
            p, q = placed(row, x, y)
            for i in range(0, n, VL):
                v = loadm["f32"](p + i * 4, n - i)
                v = applied(body, v, v * v)
                store_spaced(q + i * step, step, v, n - i, "f32")

    made = k.kernel("k", body=body)
    rng = np.random.default_rng(20261120)
    x = rng.standard_normal((2, 3, 5, 9)).astype(np.float32)
    y = np.zeros((2, 3, 5, 9, 2), np.float32)
    values = {"x": (0, 0), "y": (1, 0), "n": 9, "step": 8, "rows": 30, "per_chunk": 7}
    for d in range(3):
        values |= {f"d{d}": x.shape[d], f"x_{d}": x.strides[d], f"y_{d}": y.strides[d]}
    bases = np.array([x.ctypes.data, y.ctypes.data], np.int64)
    block = np.array(np.concatenate([np.atleast_1d(values[name]) for name, _ in made.frame.fields]), np.int64)
    pieces = [(a.ctypes.data, a.nbytes, "memory") for a in (x, y, bases, block)]
    run = program(made.source, Words(lanes, Memory(pieces)))
    for chunk in range(5):
        assert run(bases.ctypes.data, block.ctypes.data, chunk, 0) == 0
    np.testing.assert_array_equal(y[..., 0], np.maximum(x * 2, x * x))
    assert not y[..., 1].any()


@pytest.mark.parametrize("lanes", [4, 8])
def test_rows_one_after_the_other_a_table_and_a_word_as_a_constant(lanes):
    @kernel(over="...", x="... n:1", y="... n:1")
    def k(x: Tensor, y: Tensor, shifts=SHIFTS, *, how):
        for p, q in items(x, y):
            v = loadm["f32"](p, 2)
            for i in range(3):
                v = how(v, spread["f32"](ld(shifts, i) * 1.0))
            storem["f32"](q, v, 2)

    made = k.kernel("k", how=Word("add"))
    x = np.random.default_rng(20261121).standard_normal((3, 2, 4, 3, 2)).astype(np.float32)
    y = np.zeros((3, 4, 2, 3, 2), np.float32).transpose(0, 2, 1, 3, 4)
    values = {"x": (0, 0), "y": (1, 0), "item_count": 72, "per_chunk": 7}
    values |= {"shifts0": 1, "shifts1": 20, "shifts2": 3}
    for d in range(4):
        values |= {f"d{d}": x.shape[d], f"x_{d}": x.strides[d], f"y_{d}": y.strides[d]}
    assert [name for name, _ in made.frame.fields][-3:] == ["shifts0", "shifts1", "shifts2"]
    assert "shifts0" not in made.source
    bases = np.array([x.ctypes.data, y.ctypes.data], np.int64)
    block = np.array(np.concatenate([np.atleast_1d(values[name]) for name, _ in made.frame.fields]), np.int64)
    pieces = [(a.ctypes.data, size, "memory") for a, size in
              ((x, x.nbytes), (y, y.nbytes), (bases, bases.nbytes), (block, block.nbytes))]  # fmt: skip
    run = program(made.source, Words(lanes, Memory(pieces)))
    for chunk in range(11):
        assert run(bases.ctypes.data, block.ctypes.data, chunk, 0) == 0
    np.testing.assert_allclose(y, x + 24, rtol=1e-6)


def test_what_a_kernel_cannot_say():
    @kernel
    def unknown(n):
        return print(n)

    @kernel
    def index(x: Ptr, n):
        a = registers()
        a[n] = load["f32"](x)

    @kernel
    def choice(a, b):
        return a if a > b else b

    @kernel
    def with_block(n):
        with n:
            pass

    @kernel
    def nested(n):
        return halved(n, "f32") + 1

    @kernel
    def passed_over(n):
        a = 0
        for i in range(n):
            if i == 3:
                continue
            a += i
        return a

    @kernel
    def unrolled(n):
        for i in static_range(3):
            while n < i:
                n += 1
                continue  # goes on with the loop that it is in
            if n == i:
                continue
        return n

    for function in (unknown, index, choice, with_block, nested, passed_over, unrolled):
        with pytest.raises(TypeError, match="is not part of the kernel language"):
            function.kernel("k")
    for word in (load, clipped):
        with pytest.raises(TypeError, match="is part of kernels|is an intrinsic of kernels"):
            word(1)


def test_unknown_names():
    """The error has the kernel, the place in its file, and the nearest name that is known."""

    @kernel
    def misspelt(x: Ptr, y: Ptr, n, *, T):
        storem[T](y, minimu(load[T](x), load[T](x)), n)  # noqa: F821

    @kernel
    def variable(x: Ptr, y: Ptr, n, *, T):
        total = load[T](x)  # noqa: F841
        storem[T](y, totel, n)  # noqa: F821

    @kernel
    def element_type(x: Ptr, y: Ptr, n, *, T):
        storem[T](y, load[f23](x), n)  # noqa: F821

    @kernel
    def untyped(x: Ptr, y: Ptr, n, *, T):
        storem[T](y, load(x), n)

    @kernel
    def typed(x: Ptr, y: Ptr, n, *, T):
        storem[T](y, sqrt[T](load[T](x)), n)

    @kernel
    def of_rows(x: Ptr, y: Ptr, n, *, T):
        storem[T](y, exp(load[T](x)), n)

    @inline
    def doubled(v):
        return add_par(v, v)  # noqa: F821

    @kernel
    def called(x: Ptr, y: Ptr, n, *, T):
        storem[T](y, doubled(load[T](x)), n)

    cases = (
        (misspelt, "minimu", 2, "the nearest one is 'minimum'"),
        (variable, "totel", 3, "the nearest one is 'total'"),
        (element_type, "f23", 2, "the nearest one is 'f32'"),
        (untyped, "load", 2, r"the word is written load\[T\]"),
        (typed, r"sqrt\[T\]", 2, "the word sqrt takes no element type"),
        (of_rows, "exp", 2, "the word exp is of other kernels"),
    )
    for bad, name, line, why in cases:
        first = bad.function.__code__.co_firstlineno
        place = (
            rf"{bad.function.__name__}: '{name}' .*test_function_kernels.py, line {first + line}\): .*{why}"
        )
        with pytest.raises(KernelSourceError, match=place):
            bad(T="f32")
    line = doubled.function.__code__.co_firstlineno + 2
    with pytest.raises(KernelSourceError, match=rf"doubled: 'add_par' .*line {line}\).*'add_pairs'"):
        called(T="f32")


def test_unknown_words_of_texts():
    """A kernel's text that a program writes: the compilers' error has its name and the nearest word."""
    text = "@njit(nogil=True)\ndef kernel(bases, args, chunk, scratch):\n    {}\n    return 0\n"
    frame = KernelArgs()
    with pytest.raises(KernelSourceError, match="kernel wrong: .*'laod_f32'.*the nearest one is 'load_f32'"):
        Kernel("wrong", text.format("x = laod_f32(bases)"), frame).compile(host_target())
    with pytest.raises(UnsupportedError, match="the word read_tiles has no code for CPUs"):
        Kernel("of_gpus", text.format("x = read_tiles(bases, bases)"), frame).compile(host_target())


def test_arguments_without_use_are_left_out():
    @kernel
    def k(x: Ptr, mask: Ptr, n, *, masked):
        v = load["f32"](mask if masked else x)
        storem["f32"](x, v, n)

    with_mask, without = k(masked=True), k(masked=False)
    assert [name for name, _ in with_mask.frame.fields] == ["x", "mask", "n"]
    assert [name for name, _ in without.frame.fields] == ["x", "n"]
    assert "mask" in with_mask.source and "mask" not in without.source


def test_a_kernel_is_made_once_for_its_constants_and_named_by_them():
    @kernel
    def scaled(x: Ptr, n, *, T, aligned, many, body):
        storem[T](x, load[T](x), n if aligned else many)

    made = scaled(T="f32", aligned=True, many=4, body=None)
    assert made is scaled(T="f32", aligned=True, many=4, body=None)
    assert made.name == "scaled_f32_aligned_4"
    assert scaled(T="f64", aligned=False, many=2, body="").name == "scaled_f64_2"
    with pytest.raises(TypeError, match="constants T, aligned, many, body"):
        scaled(T="f32")


def test_arguments_for_each_item_of_a_constant():
    class Item(str):
        @property
        def shared(self):
            return self.isupper()

    operands, counts = Each("items", "h w", unless="shared"), Each("items", pointers=False)

    @kernel
    def k(x: Ptr, unread, e=operands, n=counts, *, items):
        left = 0
        for i, item in enumerate(items):
            if item == "a":
                left += n[i]
            x += e[i] if item.shared else e[i] + left * e[i, "w"]

    made = k.kernel("k", items=(Item("a"), Item("B")))
    assert made.frame.fields == [
        ("x", True), ("e0", True), ("e0_h", False), ("e0_w", False), ("e1", True), ("n0", False),
        ("n1", False),
    ]  # fmt: skip
    assert text(k, items=(Item("a"), Item("B"))).splitlines() == [
        "    left = 0",
        "    left += n0",
        "    x += e0 + left * e0_w",
        "    x += e1",
        "    return 0",
    ]


def test_as_many_arguments_as_a_constant_has_items():
    tile, strides = Word("tile"), Each("items", along="dims")

    @kernel
    def k(n, e=strides, *, items, dims, size):
        for i in range(n):
            tile[size, 2](i, *(e[j] + i * e[j, d] for j, d in zip(items, dims, strict=True)), n)

    made = k.kernel("k", items=(0, 1), dims=(3, 5), size=7)
    assert [name for name, _ in made.frame.fields] == ["n", "e0", "e0_3", "e0_5", "e1", "e1_3", "e1_5"]
    assert text(k, items=(0, 1), dims=(3, 5), size=7).splitlines()[2:4] == [
        "        tile_7_2(i, e0 + i * e0_3, e1 + i * e1_5, n)",
        "        i += 1",
    ]

    @kernel
    def of_a_list(n, *, items):
        tile[n](*items)

    @kernel
    def at_run_time(n):
        tile[2](*(j for j in n))

    with pytest.raises(TypeError, match="is not part of the kernel language"):
        of_a_list.kernel("k", items=(1, 2))
    with pytest.raises(TypeError, match="is not part of the kernel language"):
        at_run_time.kernel("k")


def test_break_in_a_loop_that_is_unrolled():
    @kernel
    def k(n, m, *, heights):
        for i, height in enumerate(heights):
            if height == heights[-1] or n > heights[i + 1]:
                m += height
                break
        m += 1

    assert text(k, heights=(6, 3, 1)).splitlines() == [
        "    if n > 3:",
        "        m += 6",
        "    else:",
        "        if n > 1:",
        "            m += 3",
        "        else:",
        "            m += 1",
        "    m += 1",
        "    return 0",
    ]
    assert text(k, heights=(1,)).splitlines() == ["    m += 1", "    m += 1", "    return 0"]

    @kernel
    def none(n, m, *, heights):
        for height in heights:
            if n > height:
                m += height
                break

    assert text(none, heights=(2,)).splitlines()[2:] == ["    else:", "        pass", "    return 0"]


def test_results_of_a_body_are_registers():
    recorder = Recorder()
    a, b = (recorder.input(name, "f32") for name in ("x0", "x1"))
    sums = Body(["f32"] * 2, ["f32"] * 2, recorder.lines, [(a + b).name, maximum(a, 0.5).name])

    @kernel
    def k(x: Ptr, y: Ptr, *, body):
        v, made = registers()
        for i in static_range(2):
            v[i] = load["f32"](x + i * 4)
        made = applied(body, *v)
        made = applied(body, load["f32"](y), *v)
        v = applied(body, *v)
        storem["f32"](y, made[1], 1)

    assert text(k, body=sums).splitlines() == [
        "    number0 = const_f32(0.5)",
        "    v0 = load_f32(x + 0)",
        "    v1 = load_f32(x + 4)",
        "    made0 = add(v0, v1)",
        "    made1 = max_(v0, number0)",
        "    x0_2 = load_f32(y)",
        "    made0 = add(x0_2, v1)",
        "    made1 = max_(x0_2, number0)",
        "    t0_3 = add(v0, v1)",
        "    t1_3 = max_(v0, number0)",
        "    v0 = t0_3",
        "    v1 = t1_3",
        "    storem_f32(y, made1, 1)",
        "    return 0",
    ]


def test_a_routine_has_arguments_of_its_own():
    @routine
    def k(here, count, unused):
        """Not printed."""
        total = 0
        for i in range(count):
            total += ld(here, SHIFTS_AT + i)
            if total > 1 << 40:
                break
        return total

    assert printed_routine(k, "added").splitlines() == [
        "@njit(nogil=True)",
        "def added(here, count, unused):",
        "    total = 0",
        "    i = 0",
        "    while i < count:",
        "        total += ld(here, 2 + i)",
        "        if total > 1099511627776:",
        "            break",
        "        i += 1",
        "    return total",
    ]


def test_parameters_of_a_block_are_read_from_it():
    @block_routine
    def k(x, unread, count):
        for i in range(count):
            st[i32](x + i * 4, count)
        return 0

    assert printed_routine(k, "filled").splitlines() == [
        "@njit(nogil=True)",
        "def filled(block, unused, unused2, unused3):",
        "    x = ld(block, 0)",
        "    count = ld(block, 2)",
        "    i = 0",
        "    while i < count:",
        "        st_i32(x + i * 4, count)",
        "        i += 1",
        "    return 0",
    ]


@inline
def pairs_below(x, count, limit):
    for index in range(count):
        value = ld(x, index)
        if value >= limit:
            return -1
        twice = 2 * value
        yield index, value, twice + 1


def test_an_inline_function_that_yields_is_the_head_of_a_loop():
    """What it yields has the names of the targets; a `return` in it, and in the body, leaves the kernel."""

    @routine
    def k(x, y, count, rows):
        for row, begin, end in pairs_below(x, rows, count):
            for i, value, odd in pairs_below(y, begin, end + 1):
                if value == row:
                    return i
                st[i64](y + i * 8, odd)
        return 0

    assert printed_routine(k, "nested").splitlines() == [
        "@njit(nogil=True)",
        "def nested(x, y, count, rows):",
        "    row = 0",
        "    while row < rows:",
        "        begin = ld(x, row)",
        "        if begin >= count:",
        "            return -1",
        "        pairs_below_twice = 2 * begin",
        "        end = pairs_below_twice + 1",
        "        i = 0",
        "        while i < begin:",
        "            value = ld(y, i)",
        "            if value >= end + 1:",
        "                return -1",
        "            pairs_below_twice = 2 * value",
        "            odd = pairs_below_twice + 1",
        "            if value == row:",
        "                return i",
        "            st_i64(y + i * 8, odd)",
        "            i += 1",
        "        row += 1",
        "    return 0",
    ]


def test_an_inline_function_that_yields_is_called_by_a_loop_only():
    @routine
    def k(x, count):
        pairs_below(x, count, 1)

    with pytest.raises(KernelSourceError, match="a function that yields is called by a `for`"):
        printed_routine(k, "called")

    @routine
    def without(x, count):
        for i in store_spaced(x, 4, count, 1, "f32"):
            st[i64](x, i)

    with pytest.raises(KernelSourceError, match="it does not yield"):
        printed_routine(without, "without")


def test_files_of_kernels_take_the_words_as_they_are():
    """All words are exported, and where they are imported, alone or with the rest of the language, no other
    import has the name of one: of two, the later would count."""
    meant = (words.Word, str, float)
    public = {name for name, value in vars(words).items() if isinstance(value, meant) and name[0] != "_"}
    assert public | {"SIZE", "Each", "Ptr", "Table", "Tensor", "Word"} == set(words.__all__)
    language_names = {name for name in vars(kernel_language) if name[0] != "_"}
    files, doors = 0, {words.__name__: set(words.__all__), kernel_language.__name__: language_names}
    for package in (ovjit_ops, tiles):
        for file in sorted(Path(package.__path__[0]).rglob("*.py")):
            imports = [n for n in ast.walk(ast.parse(file.read_text())) if isinstance(n, ast.ImportFrom)]
            whole = [n for n in imports if n.module in doors and n.names[0].name == "*"]
            names = {a.asname or a.name for n in imports for a in n.names}
            assert not any(names & doors[str(n.module)] for n in whole), file
            files += bool(whole)
    assert files > 30


#: Words that the text of a kernel does not have: what the printer makes statements or arithmetic of.
PRINTED = {
    "applied", "chunk", "count_of", "erf", "exp", "exp_below_zero", "finish", "log", "not_below", "placed",
    "items", "registers", "scratch", "share", "sigmoid", "static_range", "tanh", "vectors",
}  # fmt: skip


def test_every_word_has_a_meaning_in_numpy():
    known = Words(8, Memory([]))
    without = set()
    for name in words.__all__:
        word = getattr(words, name)
        if isinstance(word, Word) and not name.startswith("tile_"):  # a target's own: codegen/cpu/amx.py
            names = word.printed, *(f"{word.printed}_{n}" for n in COLUMNS)
            forms = (word.printed, *(f"{each}_{dtype}" for each in names for dtype in words.SIZE))
            if not any(_has(known, form) for form in forms):
                without.add(name)
    assert without == PRINTED


def _has(known, name):
    try:
        return known[name] is not None
    except KernelSourceError:
        return False
