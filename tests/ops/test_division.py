"""Divide, Mod, FloorMod and powers of integers are exact: quotients next to integers, extremes of types,
signed zeros."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ovjit.codegen.cpu.ir import Body
from ovjit.codegen.tracer import Recorder
from ovjit.engine import compile_graph
from ovjit.execution.numpy_words import Memory, Words
from ovjit.graph.graph import Builder
from ovjit.graph.op import all_ops, find_op
from ovjit_ops.elementwise import division
from tests.support.graph_nets import add, parameter
from tests.support.op_samples import SEED, native_answers
from tests.support.run import run
from tests.support.sweeps import some

INTEGERS = ["i8", "u8", "i16", "u16", "i32", "u32", "i64", "u64"]


def integer_pairs(dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """Powers of two and their neighbours with each other; multiples of divisors, less one to plus one."""
    kind = np.dtype(dtype.replace("i", "int").replace("u", "uint"))
    info, bits = np.iinfo(kind), 8 * kind.itemsize
    rng = np.random.default_rng([SEED, bits, info.min < 0])
    powers = {s * (2**k + d) for k in range(bits + 1) for d in (-1, 0, 1) for s in (1, -1)}
    edge = np.array(sorted(e for e in powers if info.min <= e <= info.max), kind)
    divisors, quotients = (
        rng.integers(info.min, info.max, 4000, kind, endpoint=True) >> rng.integers(0, bits - 1, 4000, kind)
        for _ in "dq"
    )
    near = divisors * quotients + rng.integers(-1, 2, 4000).astype(kind)
    x, y = (v.ravel() for v in np.meshgrid(edge, edge))
    return np.concatenate([x, near]), np.concatenate([y, divisors])


def exact(name: str, x: np.ndarray, y: np.ndarray, downwards: bool) -> np.ndarray:
    """By Python's integers. `downwards`: quotients are rounded down, else towards zero."""
    bits = 8 * x.dtype.itemsize
    results = []
    for a, b in zip(x.tolist(), y.tolist(), strict=True):
        q = a // b if b else 0
        if not downwards and b and q < 0 and q * b != a:
            q += 1
        results.append((q if name == "Divide" else a - q * b if b else 0) & ((1 << bits) - 1))
    return np.array(results, f"u{x.dtype.itemsize}").view(x.dtype)


BODIES = {"Divide": division.divide_body, "Mod": division.mod_body, "FloorMod": division.floor_mod_body,
          "Power": find_op("Power").scalar}  # fmt: skip


def answers(name: str, x: np.ndarray, y: np.ndarray, dtype: str, **attrs: Any) -> list[np.ndarray]:
    """Results of the native kernel, and of the traced body in NumPy."""
    record = next(one for one in all_ops() if one.name == name)
    native = native_answers(record, [x, y], record.check_attributes(attrs), dtype, 1)[0]
    recorder = Recorder()
    result = BODIES[name](recorder.input("x0", dtype), recorder.input("x1", dtype), **attrs)
    body = Body([dtype] * 2, [dtype], recorder.lines, [result.name])
    words = Words(len(x), Memory([])).body(body, [x, y])
    return [native, words[0] if isinstance(words, list | tuple) else words]


@pytest.mark.parametrize("dtype", INTEGERS)
def test_integers(dtype: str) -> None:
    x, y = integer_pairs(dtype)
    for name, attrs in (("Divide", {}), ("Divide", {"m_pythondiv": False}), ("Mod", {}), ("FloorMod", {})):
        want = exact(name, x, y, name == "FloorMod" or (name == "Divide" and not attrs))
        with np.errstate(all="ignore"):
            found = answers(name, x, y, dtype, **attrs)
        for how, got in zip(("native", "NumPy"), found, strict=True):
            wrong = np.flatnonzero(got != want)[:4]
            assert not wrong.size, f"{name} {attrs} {how}: {x[wrong]} by {y[wrong]}: {got[wrong]}"


def whole_power(x: int, y: int, bits: int) -> int:
    if y < 0:
        return 1 if x == 1 else (-1) ** (y % 2) if x == -1 else 0
    return pow(x, y, 1 << bits)


@pytest.mark.parametrize("dtype", INTEGERS)
def test_powers_of_integers_wrap(dtype: str) -> None:
    """Exponents of all sizes in one vector, and equal ones, which are constants too."""
    x, y = integer_pairs(dtype)
    kind, bits = x.dtype, 8 * x.dtype.itemsize
    pairs = [
        (x, y),
        (x[:400], y[:400] % 5),
        *((x[::7], np.full(x[::7].size, n, kind)) for n in (0, 1, 6, 63)),
    ]
    for base, exponent in pairs:
        values = [whole_power(a, b, bits) for a, b in zip(base.tolist(), exponent.tolist(), strict=True)]
        want = np.array([v & ((1 << bits) - 1) for v in values], f"u{kind.itemsize}").view(kind)
        found = answers("Power", base, exponent, dtype)
        if (exponent == exponent[0]).all():
            b = Builder()
            graph = b.finish([add(b, "Power", parameter(b, base), np.array(exponent[0], kind))])
            found += run(compile_graph(graph, {"threads": 1}), [base])
        for how, got in zip(("native", "NumPy", "constant"), found, strict=False):
            wrong = np.flatnonzero(got != want)[:4]
            assert not wrong.size, f"{how}: {base[wrong]} ** {exponent[wrong]}: {got[wrong]}"


@pytest.mark.parametrize("dtype", some(["f32", "f64"], 2))
def test_remainders_of_floats(dtype: str) -> None:
    kind = np.dtype(dtype.replace("f", "float")).type
    rng, info = np.random.default_rng(SEED), np.finfo(kind)
    edge = [0, 1, 3, 0.5, 7.3, info.tiny, info.smallest_subnormal, info.max, np.inf]
    edge += [1 + info.eps, 1 - info.eps]
    edge = np.array([s * e for e in edge for s in (1, -1)] + [np.nan], kind)
    divisors = rng.standard_normal(9000).astype(kind)
    multiples = divisors * (2.0 ** rng.uniform(0, 24, 9000)).round().astype(kind)
    beside = [np.nextafter(multiples, kind(to)) for to in (0, np.inf)]
    x, y = (v.ravel() for v in np.meshgrid(edge, edge))
    x, y = np.concatenate([x, multiples, *beside]), np.concatenate([y, *[divisors] * 3])
    for name, reference in (("Mod", np.fmod), ("FloorMod", np.mod)):
        with np.errstate(all="ignore"):
            want, found = reference(x, y), answers(name, x, y, dtype)
        for how, got in zip(("native", "NumPy"), found, strict=True):
            where = f"{name} {how} seed {SEED}"
            np.testing.assert_array_equal(got, want, err_msg=where)
            signed = want == want
            np.testing.assert_array_equal(np.signbit(got)[signed], np.signbit(want)[signed], err_msg=where)


@pytest.mark.parametrize("name", ["Floor", "Ceiling", "Round"])
def test_roundings_of_f16_are_no_loops_over_elements(name: str) -> None:
    data = np.concatenate([np.arange(-9, 9, 0.25), [65504, -65504, 6e-8, np.inf, -np.inf]]).astype(np.float16)
    record = next(one for one in all_ops() if one.name == name)
    reference = {"Floor": np.floor, "Ceiling": np.ceil, "Round": np.rint}[name]
    got = native_answers(record, [data], record.check_attributes({}), "f16", 1)[0]
    np.testing.assert_array_equal(got, reference(data))
