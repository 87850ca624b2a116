"""Trigonometric and hyperbolic functions and erf of f32 over their whole range, against NumPy's in f64, and
some functions of f64 against NumPy's in more digits.

Run as a program it saves what the instruction set of OVJIT_ISA answers:
python -m tests.ops.test_trigonometry OUT.npz
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pytest

import ovjit as ov
from ovjit import opset13 as op
from ovjit.codegen import trace
from ovjit.codegen.cpu.host import best_target, host_target, usable
from ovjit.codegen.cpu.ir import Body
from ovjit.codegen.tracer import Recorder
from ovjit.execution.numpy_words import Memory, Words
from ovjit.graph.dtypes import numpy_dtype
from ovjit.graph.op import all_ops
from tests.support.op_samples import EPSILON, native_answers
from tests.support.run import printed

SEED = 20261122

#: operation -> (word, the largest error of normal results in epsilons)
FUNCTIONS = {
    "Sin": ("sin", 2), "Cos": ("cos", 2), "Tan": ("tan", 3), "Asin": ("asin", 3), "Acos": ("acos", 2),
    "Atan": ("atan", 2), "Sinh": ("sinh", 2), "Cosh": ("cosh", 2), "Tanh": ("tanh", 3),
    "Asinh": ("asinh", 3), "Acosh": ("acosh", 3), "Atanh": ("atanh", 3),
    "Erf": ("erf", 5),
}  # fmt: skip
#: Their results are never beyond 1, by no rounding: models take roots and logarithms of 1 - f(x).
BOUNDED = ("Sin", "Cos", "Tanh", "Erf")


#: Of each power of two below 2**26 the f32 that is nearest to a multiple of pi/2.
NEAREST = [
    1.5707964, 3.1415927, 4.712389, 9.424778, 18.849556, 37.69911, 75.398224, 252.89821, 505.7964,
    1011.5928, 2023.1857, 2238.3848, 4476.7695, 8953.539, 17907.078, 52516.434, 105032.87, 210065.73,
    267058.94, 534117.9, 1068235.8, 2709675.5, 5419351.0, 10838702.0, 31942902.0, 42781604.0,
]  # fmt: skip


def numbers() -> np.ndarray:
    """Of all sizes, next to multiples of pi/2, to 1 and to where results overflow; what is no number."""
    rng = np.random.default_rng(SEED)
    every = rng.integers(0, 0x7F800000, 20_000, dtype=np.uint32).view(np.float32)
    quarters = np.pi / 2 * np.concatenate([np.arange(1, 5000), rng.integers(1, 2**27, 20_000)])
    beside_one = 10.0 ** rng.uniform(-8, 0, 4000)
    parts = [every, rng.normal(0, 2, 8000), rng.uniform(-90, 90, 8000), 10.0 ** rng.uniform(-44, 39, 4000)]
    parts += [1 - beside_one, 1 + beside_one, np.float32(88.72283) + np.arange(-9, 10) * 2.0**-17]
    parts += [np.float32(89.41599) + np.arange(-9, 10) * 2.0**-17, 2.0 ** np.arange(-149, 128)]
    with np.errstate(over="ignore"):
        plain = np.concatenate([part.astype(np.float32) for part in parts])
        near = quarters.astype(np.float32)
    beside = [np.nextafter(near, np.float32(to)) for to in (0, np.inf)]
    special = np.array([*NEAREST, 0, 0.5, 1, 2**26, np.inf, np.nan], np.float32)
    data = np.concatenate([plain, near, *beside, special])
    data = np.concatenate([data, -data])
    return rng.permutation(data)  # so that vectors have lanes of all kinds


def check(name: str, data: np.ndarray, answer: np.ndarray, where: str) -> None:
    """Exact where the result is no number, a zero or no normal number but for a step; signs of zeros, too."""
    with np.errstate(all="ignore"):
        reference = {"Asin": "arcsin", "Acos": "arccos", "Atan": "arctan", "Asinh": "arcsinh",
                     "Acosh": "arccosh", "Atanh": "arctanh"}.get(name, name.lower())  # fmt: skip
        function = np.vectorize(math.erf) if name == "Erf" else getattr(np, reference)
        wide = function(data.astype(np.float64))
        expected = wide.astype(np.float32)
        error = np.abs(answer.astype(np.float64) - wide)
        # the limit between the largest number and infinity may be a step off
        edge = (np.abs(wide) > 3.4028e38) & (np.abs(answer) > 3.4028e38) & np.isfinite(wide)
    limit = np.maximum(FUNCTIONS[name][1] * EPSILON["f32"] * np.abs(wide), 2.0**-149)
    none = ~np.isfinite(expected) & ~edge
    np.testing.assert_array_equal(answer[none], expected[none], err_msg=f"{name} {where} seed {SEED}")
    rest = ~none & ~edge
    worst = (error[rest] / limit[rest]).argmax()
    assert error[rest][worst] <= limit[rest][worst], (
        f"{name} {where} of {data[rest][worst]!r}: {answer[rest][worst]!r}, seed {SEED}"
    )
    if name in BOUNDED:
        assert not (np.abs(answer) > 1).any(), f"{name} {where}: beyond 1, seed {SEED}"
    signed = ~np.isnan(expected)
    same = np.signbit(answer[signed]) == np.signbit(expected[signed])
    assert same.all(), f"{name} {where} of {data[signed][~same][:4]}: another sign, seed {SEED}"


#: Of f64: the largest error in steps; without fused multiply-add 1.11 were found.
WIDE = {"Exp": 1.2, "Log": 1.0, "Tanh": 2.5, "Erf": 2.0}


def wide_numbers() -> np.ndarray:
    """f64 of all sizes, about 1 and to where exponentials are no normal numbers; what is no number."""
    rng = np.random.default_rng(SEED)
    every = rng.integers(0, 0x7FF0 << 48, 20_000, dtype=np.uint64).view(np.float64)
    special = [0, 1, 2**0.5, 0.5**0.5, 5e-324, 709.78, 709.79, 745.1, 745.2, 1e300, np.inf, np.nan]
    parts = [every, rng.normal(0, 2, 8000), rng.uniform(0, 760, 30_000), 10.0 ** rng.uniform(-320, 308, 8000)]
    parts += [1 + rng.uniform(-1, 1, 8000) * 10.0 ** rng.uniform(-15, 0, 8000), np.array(special)]
    data = np.concatenate(parts)
    return rng.permutation(np.concatenate([data, -data]))


def check_wide(name: str, data: np.ndarray, answer: np.ndarray, where: str) -> None:
    with np.errstate(all="ignore"):
        wide = data.astype(np.longdouble)
        exact = np.vectorize(math.erf)(data) if name == "Erf" else getattr(np, name.lower())(wide)
        expected = exact.astype(np.float64)
        error = np.abs(answer - exact) / np.spacing(np.abs(expected))
    found = np.isfinite(expected) & (np.abs(expected) >= 2.0**-1022)
    few = np.isfinite(expected) & ~found  # denormals and zeros: a step
    assert (np.abs(answer[few] - expected[few]) <= 2.0**-1074).all(), f"{name} {where} seed {SEED}"
    none = ~np.isfinite(expected)
    np.testing.assert_array_equal(answer[none], expected[none], err_msg=f"{name} {where} seed {SEED}")
    worst = error[found].argmax()
    assert error[found][worst] <= WIDE[name], f"{name} {where} of {data[found][worst]!r}, seed {SEED}"


@pytest.mark.parametrize("name", WIDE)
def test_functions_of_f64_have_all_their_digits(name: str) -> None:
    data = wide_numbers()
    check_wide(name, data, native(name, data, "f64"), "native")
    recorder = Recorder()
    result = getattr(trace, name.lower())(recorder.input("x0", "f64"))
    assert not any(operation.startswith("libm") for _, operation, *_ in recorder.lines), "vectors, no calls"
    body = Body(["f64"], ["f64"], recorder.lines, [result.name])
    with np.errstate(all="ignore"):
        check_wide(name, data, Words(len(data), Memory([])).body(body, [data]), "in NumPy")


def native(name: str, data: np.ndarray, dtype: str = "f32") -> np.ndarray:
    record = next(one for one in all_ops() if one.name == name)
    return native_answers(record, [data], record.check_attributes({}), dtype, 1)[0]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_are_exact_over_their_whole_range(name: str) -> None:
    data = numbers()
    check(name, data, native(name, data), "native")


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_mean_the_same_in_numpy(name: str) -> None:
    """Kernels that Python runs use the words as NumPy has them."""
    data = numbers()
    recorder = Recorder()
    result = getattr(trace, FUNCTIONS[name][0])(recorder.input("x0", "f32"))
    body = Body(["f32"], ["f32"], recorder.lines, [result.name])
    with np.errstate(all="ignore"):
        answer = Words(len(data), Memory([])).body(body, [data])
    assert answer.dtype == np.float32
    check(name, data, answer, "in NumPy")


@pytest.mark.parametrize("isa", [name for name in usable() if name != best_target()])
def test_functions_of_lesser_instruction_sets(isa: str, tmp_path: Path) -> None:
    """Without fused multiply-add, above all: what is exact must not hang on it."""
    out = tmp_path / "answers.npz"
    printed("-m", __name__, out, OVJIT_ISA=isa)
    data = numbers()
    with np.load(out) as answers:
        assert str(answers["isa"]) == isa
        for name in FUNCTIONS:
            check(name, data, answers[name], isa)
        for name in WIDE:
            check_wide(name, wide_numbers(), answers[f"{name} f64"], isa)


def test_a_logistic_function_times_a_tangent_is_one_division() -> None:
    """As gates of recurrent layers have it: of any two numbers, what is no number among them."""
    x = numbers()
    z = np.random.default_rng(SEED + 1).permutation(x)
    recorder = Recorder()
    result = trace.logistic_by_tanh(recorder.input("x0", "f32"), recorder.input("x1", "f32"))
    assert [operation for _, operation, *_ in recorder.lines].count("div") == 1
    body = Body(["f32", "f32"], ["f32"], recorder.lines, [result.name])
    with np.errstate(all="ignore"):
        answer = Words(len(x), Memory([])).body(body, [z, x])
        wide = np.tanh(x.astype(np.float64)) / (1 + np.exp(-z.astype(np.float64)))
    np.testing.assert_array_equal(np.isnan(answer), np.isnan(wide), err_msg=f"seed {SEED}")
    some = ~np.isnan(wide)
    limit = np.maximum(5 * EPSILON["f32"] * np.abs(wide[some]), 3e-31)
    error = np.abs(answer[some] - wide[some])
    worst = (error / limit).argmax()
    assert error[worst] <= limit[worst], f"of {z[some][worst]!r}, {x[some][worst]!r}, seed {SEED}"
    assert (np.signbit(answer[some]) == np.signbit(x[some])).all()


def remainders() -> tuple[np.ndarray, np.ndarray]:
    """Dividends and divisors: any bits, far apart, a step beside multiples up to and beyond 2**28."""
    rng = np.random.default_rng(SEED)
    some = 20_000
    x, y = (rng.integers(0, 1 << 32, some, dtype=np.uint32).view(np.float32) for _ in range(2))
    far = rng.normal(size=some) * 10.0 ** rng.uniform(-3, 12, some)
    by = rng.normal(size=some).astype(np.float32)
    times = np.rint(2.0 ** rng.uniform(0, 30, some))
    near = (by.astype(np.float64) * times).astype(np.float32)
    near = np.nextafter(near, rng.choice([-np.inf, 0, np.inf], some).astype(np.float32))
    whole = np.trunc(rng.normal(0, 9, (2, some))).astype(np.float32)
    special = np.array([0, -0.0, 1, -1, 2**28, 2**29, 1e-45, -5e-39, 3.4e38, np.inf, -np.inf, np.nan])
    one, other = (grid.ravel().astype(np.float32) for grid in np.meshgrid(special, special))
    xs = [x, far.astype(np.float32), near, whole[0], one]
    ys = [y, by, by, whole[1], other]
    order = rng.permutation(4 * some + one.size)
    return np.concatenate(xs)[order], np.concatenate(ys)[order]


@pytest.mark.parametrize("name", ["Mod", "FloorMod"])
def test_remainders_are_exact(name: str) -> None:
    """To the bit, natively and in NumPy's words: of large quotients the C library makes them."""
    x, y = remainders()
    with np.errstate(all="ignore"):
        expected = np.fmod(x, y) if name == "Mod" else np.mod(x, y)
    record = next(one for one in all_ops() if one.name == name)
    recorder = Recorder()
    result = record.scalar(recorder.input("x0", "f32"), recorder.input("x1", "f32"))
    body = Body(["f32", "f32"], ["f32"], recorder.lines, [result.name])
    with np.errstate(all="ignore"):
        in_numpy = Words(len(x), Memory([])).body(body, [x, y])
    for where, answer in {
        "natively": native_answers(record, [x, y], record.check_attributes({}), "f32", 1)[0],
        "in NumPy": in_numpy,
    }.items():
        same = (answer.view(np.uint32) == expected.view(np.uint32)) | (np.isnan(answer) & np.isnan(expected))
        wrong = np.flatnonzero(~same)[:4]
        assert same.all(), f"{where}: {name} of {x[wrong]} and {y[wrong]}: {answer[wrong]}, seed {SEED}"


@pytest.mark.parametrize("dtype", ["i8", "u8", "i16", "u16", "i32", "u32"])
def test_quotients_of_integers_are_exact(dtype: str) -> None:
    """Beside multiples, at both ends of the type, and by 0."""
    rng = np.random.default_rng(SEED)
    kind = numpy_dtype(dtype)
    ends = np.iinfo(kind)
    edges = sorted({int(np.clip(s * (2**p + d), ends.min, ends.max))
                    for s in (1, -1) for p in range(33) for d in (-1, 0, 1)})  # fmt: skip
    pairs = [(x, y) for x in edges for y in edges]
    by = np.array([y for _, y in pairs], object)
    random = rng.integers(ends.min, ends.max, (2, 20_000), endpoint=True).astype(object)
    some = rng.integers(ends.min, ends.max, 20_000, endpoint=True).astype(object) // 3
    small = np.where(some == 0, 1, some)
    beside = random[0] // small * small + rng.integers(-1, 2, 20_000)  # a multiple, and its neighbours
    x = np.concatenate([[x for x, _ in pairs], random[0], np.clip(beside, ends.min, ends.max)])
    y = np.concatenate([by, random[1], small])
    quotient = np.where(y == 0, 0, x // np.where(y == 0, 1, y))
    rest = np.where(y == 0, 0, x - quotient * y)
    cut = np.where((quotient * y != x) & (y != 0) & (quotient < 0), quotient + 1, quotient)
    for name, attrs, want in (
        ("Divide", {}, quotient), ("Divide", {"m_pythondiv": False}, cut), ("FloorMod", {}, rest),
        ("Mod", {}, np.where(y == 0, 0, x - cut * y)),
    ):  # fmt: skip
        record = next(one for one in all_ops() if one.name == name)
        arrays = [x.astype(kind), y.astype(kind)]
        (got,) = native_answers(record, arrays, record.check_attributes(attrs), dtype, 1)
        wrapped = (want & (2 ** (8 * kind.itemsize) - 1)).astype(np.uint64).astype(kind)
        wrong = np.flatnonzero(got != wrapped)[:4]
        assert not wrong.size, f"{name} {attrs} of {x[wrong]}, {y[wrong]}: {got[wrong]}, seed {SEED}"


def test_a_far_lane_changes_none_beside_it() -> None:
    """The C library answers for numbers from 2**26 on alone."""
    data = np.random.default_rng(SEED).uniform(-100, 100, 256).astype(np.float32)
    mixed = data.copy()
    mixed[::7] = 3e20
    for name in ("Sin", "Cos", "Tan"):
        alone, beside = native(name, data), native(name, mixed)
        kept = mixed == data
        np.testing.assert_array_equal(beside[kept], alone[kept], err_msg=f"{name} seed {SEED}")


@pytest.mark.parametrize("name", ["sin", "cos", "tan"])
def test_functions_behind_tiles_branch_to_the_c_library(name: str) -> None:
    """The epilogue of a convolution and of a matrix product, on sums of which some are beyond 2**26."""
    rng = np.random.default_rng(SEED)
    far = np.where(rng.random((1, 8, 9, 9)) < 0.1, 1e8, 1)
    data = (rng.standard_normal((1, 8, 9, 9)) * far).astype(np.float32)
    x = op.parameter([1, 8, 9, 9], np.float32)
    kernel = op.constant(rng.standard_normal((19, 8, 1, 1)).astype(np.float32))
    weights = op.constant(rng.standard_normal((9, 13)).astype(np.float32))
    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    for sums in (
        op.convolution(x, kernel, [1, 1], [0, 0], [0, 0], [1, 1]),
        op.matmul(x, weights, False, False),
    ):
        plain, got = (
            np.array(ov.compile_model(ov.Model([out], [x], name), "CPU", exact)([data])[0])
            for out in (sums, getattr(op, name)(sums))
        )
        assert (np.abs(plain) > 2**26).any() and (np.abs(plain) < 2**26).any()
        check(name.capitalize(), plain, got, f"behind {sums.get_type_name()}")


def main() -> None:
    data = numbers()
    found = {name: native(name, data) for name in FUNCTIONS}
    found |= {f"{name} f64": native(name, wide_numbers(), "f64") for name in WIDE}
    np.savez(sys.argv[1], isa=np.array(host_target().name), **found)


if __name__ == "__main__":
    main()
