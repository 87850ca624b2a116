"""Special values through operations: what OpenVINO answers and what ovjit does, beside each other.

`python -m tests.support.special_values` writes docs/special_values.md.

A case is one operation with one input each of NaN, infinities, signed zeros, overflow, division by zero or
nothing at all; the operation's inputs are parameters, so that nothing is computed beforehand. Each element is
repeated, and what comes of all of them is told: vectors and what is left over may differ.
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from tests.support import ROOT

PAGE = ROOT / "docs" / "special_values.md"
#: Times that an element is repeated: two vectors of AVX-512 and a remainder.
COPIES = 37
NAN, INF = float("nan"), float("inf")
REALS = (NAN, INF, -INF, 0.0, -0.0, 1e-40, 3e38, -3e38, 1e10, -1e10, -1.0, 0.5, -0.5, 2.5)
PAIRS = (
    (NAN, 1.0), (1.0, NAN), (INF, INF), (INF, -INF), (-INF, INF),
    (0.0, 0.0), (0.0, -0.0), (-0.0, 0.0),
    (1.0, 0.0), (-1.0, 0.0), (1.0, -0.0), (0.0, INF), (INF, 0.0), (5.0, INF), (-5.0, INF), (5.0, -INF),
    (INF, 3.0), (-5.0, 3.0), (5.0, -3.0), (3e38, 3e38), (-8.0, 0.5), (0.0, -1.0), (NAN, 0.0), (1.0, INF),
    (-1.0, INF),
)  # fmt: skip
UNARY = (
    "abs", "acos", "acosh", "asin", "asinh", "atan", "atanh", "ceiling", "cos", "cosh", "erf", "exp", "floor",
    "hsigmoid", "hswish", "log", "mish", "negative", "relu", "sigmoid", "sign", "sin", "sinh", "softplus",
    "softsign", "sqrt", "swish", "tan", "tanh", "is_nan", "is_inf", "is_finite",
)  # fmt: skip
BINARY = (
    "add", "subtract", "multiply", "divide", "maximum", "minimum", "power", "mod", "floor_mod",
    "squared_difference", "equal", "not_equal", "less", "less_equal", "greater", "greater_equal", "prelu",
)  # fmt: skip
REDUCTIONS = (
    "reduce_sum",
    "reduce_mean",
    "reduce_prod",
    "reduce_max",
    "reduce_min",
    "reduce_l1",
    "reduce_l2",
)
LISTS = {
    "with NaN": (1.0, NAN, 3.0), "with inf": (1.0, INF, -3.0), "inf and -inf": (INF, -INF, 1.0),
    "all -inf": (-INF,) * 3,
    "all -0": (-0.0,) * 3, "overflow": (3e38,) * 3, "nothing": (),
}  # fmt: skip
#: Integers for which operations of two are tried: overflow, and division by zero.
INTEGERS = {
    "i8": ((127, 1), (-128, -1), (100, 100), (5, 0), (-7, 3), (-7, 2)),
    "u8": ((255, 1), (0, 1), (100, 100), (5, 0)),
    "i32": ((2**31 - 1, 1), (-(2**31), -1), (2**20, 2**20), (5, 0), (-7, 3), (-7, 2), (0, 0), (2**24 + 1, 1)),
    "i64": ((2**63 - 1, 1), (2**40, 2**40), (5, 0), (-7, 3), (-7, 2), (2**24 + 1, 1)),
}  # fmt: skip
ON_INTEGERS = (
    "add",
    "subtract",
    "multiply",
    "divide",
    "mod",
    "floor_mod",
    "power",
    "maximum",
    "squared_difference",
)
CONVERTED = {
    "f32": ((NAN, INF, -INF, 300.0, -1.0, 1e10, -1e10, 1e20, 0.5, -0.5, 1.5, 2.5, 1e-40, 1e6, -0.0),
            ("i8", "u8", "i16", "u16", "i32", "u32", "i64", "u64", "f16", "bf16", "boolean")),
    "i32": ((300, -1, -129, 2**31 - 1, 2**24 + 1),
            ("i8", "u8", "i16", "u32", "u64", "f16", "f32", "boolean")),
    "i64": ((2**40, -(2**40), -1, 2**31), ("i32", "u8", "u64", "f32")),
    "u8": ((255, 128), ("i8", "i32", "f16")),
}  # fmt: skip


class Case(NamedTuple):
    """An operation, what is given to it, and `make(ops, *parameters)`."""

    operation: str
    given: tuple[str, ...]  # for every element of the result
    make: Callable[..., Any]
    arrays: tuple[np.ndarray, ...]


def _repeated(values: Any, dtype: str) -> np.ndarray:
    return np.repeat(np.array(values, dtype), COPIES)


def _said(value: Any) -> str:
    """A number as the page has it."""
    if isinstance(value, (bool, np.bool_)):
        return "true" if value else "false"
    if isinstance(value, (int, np.integer)):
        return str(int(value))
    number = float(value)
    if np.isnan(number):
        return "NaN"
    return f"{number:.4g}" if number or not np.signbit(number) else "-0"


NUMPY = {"i8": "int8", "u8": "uint8", "i16": "int16", "u16": "uint16", "i32": "int32", "u32": "uint32",
         "i64": "int64", "u64": "uint64", "f16": "float16", "f32": "float32", "boolean": "bool"}  # fmt: skip


def cases() -> Iterator[Case]:
    yield from _of_one()
    yield from _of_two()
    yield from _conversions()
    yield from _of_lists()


def _of_one() -> Iterator[Case]:
    given, array = tuple(map(_said, REALS)), _repeated(REALS, "float32")
    for name in UNARY:
        yield Case(name, given, lambda o, x, name=name: getattr(o, name)(x), (array,))
    more: dict[str, Callable[..., Any]] = {
        "round, half to even": lambda o, x: o.round(x, "half_to_even"),
        "round, half away from zero": lambda o, x: o.round(x, "half_away_from_zero"),
        "gelu, erf": lambda o, x: o.gelu(x, "erf"), "gelu, tanh": lambda o, x: o.gelu(x, "tanh"),
        "elu": lambda o, x: o.elu(x, 1.0), "clamp 0 to 6": lambda o, x: o.clamp(x, 0.0, 6.0),
        "selu": lambda o, x: o.selu(x, np.float32(1.67), np.float32(1.05)),
        "hard_sigmoid": lambda o, x: o.hard_sigmoid(x, np.float32(0.2), np.float32(0.5)),
        "fake_quantize 0 to 1": lambda o, x: o.fake_quantize(x, *(np.float32(v) for v in (0, 1, 0, 1)), 256),
    }  # fmt: skip
    for name, make in more.items():
        yield Case(name, given, make, (array,))
    lowest = {"i8": -128, "i32": -(2**31), "i64": -(2**63)}
    for kind, value in lowest.items():
        for name in ("abs", "negative", "sign"):
            made = Case(f"{name} of {kind}", (str(value),), lambda o, x, name=name: getattr(o, name)(x),
                        (_repeated([value], NUMPY[kind]),))  # fmt: skip
            yield made


def _of_two() -> Iterator[Case]:
    given = tuple(f"{_said(a)}, {_said(b)}" for a, b in PAIRS)
    a, b = (_repeated([pair[i] for pair in PAIRS], "float32") for i in (0, 1))
    for name in BINARY:
        yield Case(name, given, lambda o, x, y, name=name: getattr(o, name)(x, y), (a, b))
    yield Case("select", ("NaN, 1", "1, NaN"), lambda o, x, y: o.select(o.greater(x, y), x, y),
               (_repeated([NAN, 1.0], "float32"), _repeated([1.0, NAN], "float32")))  # fmt: skip
    for kind, pairs in INTEGERS.items():
        for name in ON_INTEGERS:
            for pair in pairs:
                if name == "power" and (pair[1] < 0 or pair[1] > 100):
                    continue
                arrays = tuple(_repeated([value], NUMPY[kind]) for value in pair)
                yield Case(f"{name} of {kind}", (f"{pair[0]}, {pair[1]}",),
                           lambda o, x, y, name=name: getattr(o, name)(x, y), arrays)  # fmt: skip


def _conversions() -> Iterator[Case]:
    for source, (numbers, targets) in CONVERTED.items():
        for target in targets:
            # AVX512-BF16 flushes subnormal numbers as it rounds to bf16, other CPUs do not
            values = tuple(v for v in numbers if target != "bf16" or v != 1e-40)
            yield Case(
                f"convert {source} to {target}", tuple(map(_said, values)),
                lambda o, x, target=target: o.convert(x, target), (_repeated(values, NUMPY[source]),),
            )  # fmt: skip


def _of_lists() -> Iterator[Case]:
    axis = np.array([1])
    for what, values in LISTS.items():
        array = np.tile(np.array(values, "float32"), (COPIES, 1))
        for name in REDUCTIONS:
            yield Case(
                name, (what,), lambda o, x, name=name: getattr(o, name)(x, o.constant(axis), False), (array,)
            )
        if not values:
            continue
        yield Case("softmax", (what,), lambda o, x: o.softmax(x, 1), (array,))
        yield Case("log_softmax", (what,), lambda o, x: o.log_softmax(x, 1), (array,))
        yield Case("cum_sum", (what,), lambda o, x: o.cum_sum(x, o.constant(np.int64(1))), (array,))
        yield Case(
            "mvn", (what,), lambda o, x: o.mvn(x, o.constant(axis), True, 1e-6, "INSIDE_SQRT"), (array,)
        )
        yield Case(
            "normalize_l2", (what,), lambda o, x: o.normalize_l2(x, o.constant(axis), 1e-6, "add"), (array,)
        )
        for mode in ("max", "min"):
            for i, part in enumerate(("values", "indices")):
                yield Case(
                    f"topk {mode}, {part}", (what,),
                    lambda o, x, m=mode, i=i: o.topk(x, o.constant(np.int64(2)), 1, m, "value").output(i),
                    (array,),
                )  # fmt: skip
        image = np.tile(np.array(values, "float32"), (1, COPIES, 1, 1))
        ones, filters = np.ones((len(values), 2), np.float32), np.ones((2, COPIES, 1, 3), np.float32)
        yield from _of_windows(what, image, filters)
        for factor, word in ((1, "ones"), (0, "zeros")):
            yield Case(
                f"matmul by {word}", (what,),
                lambda o, x, w=factor * ones: o.matmul(x, o.constant(w), False, False), (array,),
            )  # fmt: skip
    for name in ("reduce_logical_and", "reduce_logical_or"):
        yield Case(name, ("nothing",), lambda o, x, name=name: getattr(o, name)(x, o.constant(axis), False),
                   (np.zeros((COPIES, 0), bool),))  # fmt: skip
    integers = {
        ("i32", "nothing"): np.zeros((COPIES, 0), np.int32),
        ("i32", "2147483647, 1"): np.tile(np.array([2**31 - 1, 1], np.int32), (COPIES, 1)),
        ("i64", "2^62 three times"): np.full((COPIES, 3), 2**62),
    }
    for name in ("reduce_sum", "reduce_prod", "reduce_max", "reduce_min", "reduce_mean"):
        for (kind, what), array in integers.items():
            make = lambda o, x, name=name: getattr(o, name)(x, o.constant(axis), False)  # noqa: E731
            yield Case(f"{name} of {kind}", (what,), make, (array,))


def _of_windows(what: str, image: np.ndarray, filters: np.ndarray) -> Iterator[Case]:
    one, none, window = [1, 1], [0, 0], [1, 3]
    yield Case(
        "max_pool", (what,), lambda o, x: o.max_pool(x, one, one, none, none, window).output(0), (image,)
    )
    yield Case("avg_pool", (what,), lambda o, x: o.avg_pool(x, one, none, none, window, True), (image,))
    yield Case(
        "convolution by ones", (what,),
        lambda o, x: o.convolution(x, o.constant(filters), one, none, none, one), (image,),
    )  # fmt: skip


def answer(ov: Any, ops: Any, case: Case) -> list[str]:
    """What comes of every element of `case.given`."""
    parameters = [ops.parameter(list(array.shape), array.dtype) for array in case.arrays]
    model = ov.Model([ops.result(case.make(ops, *parameters))], parameters, "case")
    try:
        request = (
            ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}).create_infer_request()
        )
        request.infer(list(case.arrays))
    except Exception:
        return ["an error"] * len(case.given)
    tensor = request.get_output_tensor(0)
    data = np.array(tensor.data)
    if tensor.element_type.get_type_name() == "bf16":
        data = (data.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    if len(case.given) == 1:  # whole rows
        lines = data.reshape(COPIES, -1) if data.size % COPIES == 0 else data.reshape(1, -1)
        said = dict.fromkeys(" ".join(dict.fromkeys(map(_said, line)) if len(set(map(_said, line))) == 1 else
                                      map(_said, line)) for line in lines)  # fmt: skip
        return [" or ".join(said)]
    return [" or ".join(dict.fromkeys(map(_said, part))) for part in data.reshape(len(case.given), COPIES)]


def of_one_case(package: str, case: Case) -> list[str]:
    return answer(importlib.import_module(package), importlib.import_module(f"{package}.opset13"), case)


def answers(package: str) -> list[list[str]]:
    """Of all cases, in a process of their own; where OpenVINO ends it, another goes on."""
    found: list[list[str]] = []
    every = list(cases())
    while len(found) < len(every):
        command = [sys.executable, "-m", __spec__.name if __spec__ else __name__, package, str(len(found))]
        run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
        found += map(json.loads, run.stdout.splitlines())
        if run.returncode > 0:
            raise RuntimeError(run.stderr[-3000:])
        if len(found) < len(every):
            found.append(["the process ends"] * len(every[len(found)].given))
    return found


class Row(NamedTuple):
    """One line of the page's table."""

    operation: str
    given: str
    theirs: str
    ours: str
    why: str


def rows(theirs: list[list[str]], ours: list[list[str]]) -> list[Row]:
    """What differs."""
    return [
        Row(case.operation, given, one, other, reason(case.operation, given, one, other))
        for case, *said in zip(cases(), theirs, ours, strict=True)
        for given, one, other in zip(case.given, *said, strict=True)
        if not _alike(one, other)
    ]


def _alike(one: str, other: str) -> bool:
    if one == other:
        return True
    try:
        a, b = float(one), float(other)
    except ValueError:
        return False
    return np.isfinite(a) and np.isfinite(b) and abs(a - b) <= 1e-2 * abs(a)


#: (part of the operation's name, what is to be found in the given values, why). The first that fits counts.
REASONS = (
    ("to u32", "", "the low 32 bits of the number in 64; OpenVINO has 2^31 for all that is out of range"),
    ("to i64", "", "the number in 64 bits, the least for what is out of range; OpenVINO makes 32 bits"),
    ("to u64", "", "the number in 64 bits; OpenVINO makes 32"),
    ("select", "", "the comparison of NaN, above"),
    ("greater", "NaN", "IEEE 754: no comparison with NaN is true but `!=`"),
    ("topk", "NaN", "NaN counts as the greatest number, as in NumPy's sort"),
    ("to boolean", "NaN", "NaN is not 0, as in C and NumPy"),
    ("softmax", "", "IEEE 754: the sum of the row is NaN, and so is each quotient"),
    ("mod", "inf", "C's fmod and Python's %: the remainder of a finite number by infinity is defined"),
    ("", "NaN", "IEEE 754: NaN stays NaN, so that a faulty value is seen at the output"),
    ("is_finite", "", "subnormal numbers are finite"),
    ("gelu", "", "the limit; OpenVINO's steps go beyond the range"),
    ("erf", "", "subnormal numbers are not flushed to 0"),
    ("", "all -inf", "the maximum itself; OpenVINO begins with the least finite number"),
    ("of i8", "", "i8 wraps around, as in NumPy; OpenVINO saturates, and has no number for a division by 0"),
    ("of u8", "", "u8 wraps around, as in NumPy; OpenVINO saturates"),
    ("of i64", "", "i64 is computed in 64 bits; OpenVINO computes in 32"),
    ("divide of i32", "-7", "integers are divided downwards, as the operation's `m_pythondiv` says"),
    ("of i32", "2147483647", "i32 is exact; OpenVINO computes it in f32"),
    ("of i32", ", 0", "a division by 0 gives 0, as in NumPy"),
)


def reason(operation: str, given: str, theirs: str, ours: str) -> str:
    if ("divide of" in operation or "mod of" in operation) and given.endswith(", 0"):
        return "a division by 0 gives 0, as in NumPy"
    if "divide of" in operation and given.startswith("-7"):
        return "integers are divided downwards, as the operation's `m_pythondiv` says"
    if "squared_difference of" in operation:
        return "the square of the difference; OpenVINO computes integers of this type otherwise"
    for part, value, why in REASONS:
        if part in operation and value in given:
            return why
    raise KeyError(f"{operation} of {given}: {theirs} there, {ours} here, and REASONS does not say why")


HEAD = """# Special values

Where answers for special values differ from OpenVINO's. Made by `python -m tests.support.special_values`
from the real package (2026.4, on a CPU with AVX-512), kept true by `tests/ops/test_special_values.py`.
Operations get NaN, infinities, signed zeros, subnormal numbers, numbers out of range, divisors of 0 and
empty lists. These are {elements} answers of {cases} cases. The table has those that differ.

Answers for real numbers are those of IEEE 754 and NumPy: NaN in gives NaN out. OpenVINO's `relu`, `clamp`
and `max_pool` turn NaN into a number. `select(is_nan(x), 0, x)` before them gives OpenVINO's answer.

A row of `scaled_dot_product_attention` that a mask hides altogether is 0, as in PyTorch, and NaN in OpenVINO.
Where the attention is written out with `softmax`, it is NaN in both.

Integers are exact if the type holds the result, and wrap around otherwise. OpenVINO's answers depend on the
CPU in some rows. ovjit's do not, with one exception: `fake_quantize` of NaN is NaN on CPUs with neither
AVX2 nor AVX-512.

`divide` rounds quotients of integers down, as its specification and OpenVINO's `Model.evaluate` do; with
`m_pythondiv=false` towards 0. OpenVINO's CPU device rounds towards 0 in both. ONNX's Div rounds towards 0
everywhere. The smallest integer divided by -1 wraps around to itself. `mod` has the dividend's sign,
`floor_mod` the divisor's.

An argmin or argmax is the first NaN if there is one, as in NumPy, PyTorch and JAX, and in accordance with
`reduce_min` and `reduce_max`. ONNX Runtime skips a NaN that is not first. TopK has NaN above all numbers.

An image is resized by the pixels that have a weight: a NaN or an infinity does not reach other outputs, as in
OpenVINO. Moves of elements keep the bits of NaN, but `select`, `pad` and `reverse_sequence` of f16 and bf16
make a signalling NaN quiet.

Cases of one operation are divided by semicolons. Two numbers under "given" are the operation's two inputs.
Several numbers in another cell are a row of the result. A line in bold is the reason for those below it.
"""


def table(theirs: list[list[str]], ours: list[list[str]]) -> str:
    """docs/special_values.md."""
    every = list(cases())
    head = HEAD.format(cases=len(every), elements=sum(len(case.given) for case in every))
    return head + tables(rows(theirs, ours))


def tables(differences: list[Row]) -> str:
    """A table with a line in bold for each reason, and below it a row for each operation."""
    by_reason: dict[str, dict[str, list[Row]]] = {}
    for row in differences:
        by_reason.setdefault(row.why, {}).setdefault(row.operation, []).append(row)
    text = "\n| operation | given | OpenVINO | ovjit |\n|---|---|---|---|\n"
    for why, by_operation in by_reason.items():
        text += f"| **{why[0].upper()}{why[1:]}** | | | |\n"
        for operation, some in by_operation.items():
            cells = ("; ".join(column) for column in zip(*(row[1:4] for row in some), strict=True))
            text += f"| {operation} | {' | '.join(cells)} |\n"
    return text


def main() -> None:
    if len(sys.argv) > 1:
        package, start = sys.argv[1], int(sys.argv[2])
        for case in list(cases())[start:]:
            print(json.dumps(of_one_case(package, case)), flush=True)
        return
    PAGE.write_text(table(answers("openvino"), answers("ovjit")))


if __name__ == "__main__":
    main()
