"""OVJIT_CHECK=1 accepts right plans for open shapes, and still refuses wrong ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from ovjit.codegen.elementwise import NATIVE_TYPES
from ovjit.engine import compile_graph
from ovjit.errors import OvjitError
from ovjit.graph import dtypes
from ovjit.graph.graph import Builder, Graph, Value
from ovjit.graph.interp import evaluate
from ovjit.graph.op import Op, all_ops
from ovjit.graph.shapes import ANY
from ovjit.planning.plan import Planner
from tests.support.compiled import program_of
from tests.support.run import run
from tests.support.samples import has_samples, samples_of
from tests.support.sweeps import some

SEED = 20261128


@pytest.fixture(autouse=True)
def checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVJIT_CHECK", "1")


def _ints(b: Builder, *values: int) -> Value:
    return b.constant(np.array(values, np.int64))


def _record(name: str, opset: int) -> Op:
    return next(o for o in all_ops() if o.name == name and o.opset == opset)


def _pad(mode: str, *pads: int) -> Callable[[Builder, Value], Value]:
    def make(b: Builder, x: Value) -> Value:
        ends = [x, _ints(b, *pads), _ints(b, *reversed(pads)), b.constant(np.float32(0.5))]
        return b.add("Pad", ends, {"pad_mode": mode}).output

    return make


def _resize(mode: str, by: str) -> Callable[[Builder, Value], Value]:
    def make(b: Builder, x: Value) -> Value:
        sizes, scales = _ints(b, 8, 9), b.constant(np.array([2.0, 3.0], np.float32))
        attrs = {"mode": mode, "shape_calculation_mode": by}
        return b.add(_record("Interpolate", 4), [x, sizes, scales, _ints(b, 2, 3)], attrs).output

    return make


MATRICES, IMAGES = [(5, 7), (1, 7), (7, 1), (2, 3), (9, 9)], [(1, 2, 5, 7), (2, 3, 4, 4), (1, 1, 8, 9)]
CASES: dict[str, tuple[Callable[[Builder, Value], Value], list[tuple[int, ...]]]] = {
    "Roll": (lambda b, x: b.add("Roll", [x, _ints(b, 2, -1), _ints(b, 1, 0)]).output, MATRICES),
    "Pad constant": (_pad("constant", 1, 1), MATRICES),
    "Pad edge": (_pad("edge", 1, 2), MATRICES),
    "Pad symmetric": (_pad("symmetric", 1, 0), MATRICES),
    "Pad reflect": (_pad("reflect", 1, 0), [(5, 7), (2, 3), (9, 9)]),
    "Pad cut": (_pad("constant", -1, 2), MATRICES),
    **{
        f"Interpolate {mode} by {by}": (_resize(mode, by), IMAGES)
        for mode in ("nearest", "linear_onnx", "cubic")
        for by in ("sizes", "scales")
    },
    "Reverse": (lambda b, x: b.add("Reverse", [x, _ints(b, 1)], {"mode": "index"}).output, MATRICES),
    "two equal extents": (
        lambda b, x: (
            b.add("Add", [b.add("Transpose", [x, _ints(b, 1, 0)]).output, b.constant(np.float32(1))]).output
        ),
        [(5, 7), (6, 6), (1, 1), (3, 3)],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_right_plans_are_accepted(name: str) -> None:
    make, shapes = CASES[name]
    rng, b = np.random.default_rng(SEED), Builder()
    x = b.add("Parameter", (), {"shape": [ANY] * len(shapes[0]), "element_type": "f32"}).output
    graph = b.finish([make(b, b.add("Relu", [x]).output), make(b, x)])
    executable = compile_graph(graph, {})
    for shape in (*shapes, *shapes[:2]):
        arrays = [rng.standard_normal(shape).astype(np.float32)]
        for got, want in zip(run(executable, arrays), evaluate(graph, arrays), strict=True):
            np.testing.assert_allclose(got, want, 1e-4, 1e-4, err_msg=f"{name} {shape}, seed {SEED}")


def test_channels_that_are_open_beside_known_sizes() -> None:
    """A constant table of the sizes is made for a number of channels."""
    make = _resize("linear_onnx", "sizes")
    rng, b = np.random.default_rng(SEED), Builder()
    x = b.add("Parameter", (), {"shape": [1, ANY, ANY, 7], "element_type": "f32"}).output
    turned = b.add("Transpose", [x, _ints(b, 0, 2, 3, 1)]).output
    graph = b.finish([make(b, b.add("Transpose", [turned, _ints(b, 0, 3, 1, 2)]).output)])
    executable = compile_graph(graph, {})
    for channels, rows in ((2, 5), (3, 5), (2, 9)):
        arrays = [rng.standard_normal((1, channels, rows, 7)).astype(np.float32)]
        np.testing.assert_allclose(run(executable, arrays)[0], evaluate(graph, arrays)[0], 1e-4, 1e-4)


def test_the_number_of_largest_elements_is_data() -> None:
    b = Builder()
    x = b.add("Parameter", (), {"shape": [ANY, ANY], "element_type": "f32"}).output
    k = b.add("Parameter", (), {"shape": [], "element_type": "i64"}).output
    attrs = {"axis": 1, "mode": "max", "sort": "value", "index_element_type": "i32"}
    graph = b.finish(b.add("TopK", [x, k], attrs).outputs)
    rng = np.random.default_rng(SEED)
    for rows, columns, count in ((3, 5, 2), (1, 4, 4), (2, 7, 0)):
        arrays = [rng.standard_normal((rows, columns)).astype(np.float32), np.array(count)]
        for got, want in zip(run(graph, arrays), evaluate(graph, arrays), strict=True):
            np.testing.assert_array_equal(got, want)


def _open(record: Op, inputs: list[np.ndarray], attrs: dict[str, Any]) -> tuple[Graph, list[tuple[int, ...]]]:
    """The operation with all dimensions of the first input open, the others constants."""
    b = Builder()
    values = [
        b.constant(array, dtypes.from_numpy(array.dtype)) if i else b.add(
            "Parameter", (), {"shape": [ANY] * array.ndim, "element_type": dtypes.from_numpy(array.dtype)}
        ).output
        for i, array in enumerate(inputs)
    ]  # fmt: skip
    return b.finish(b.add(record, values, attrs).outputs), [inputs[0].shape]


RECORDS = [
    r for r in all_ops() if has_samples(r) and not r.internal and r.types and r.types[0] in NATIVE_TYPES
]


@pytest.mark.parametrize("part", some(range(12), 1))
def test_samples_with_open_dimensions(part: int) -> None:
    """A planning needs no ints where it gets traced numbers, and a trace's plan is that of a new planning."""
    for record in RECORDS[part::12]:
        dtype = "f32" if "f32" in record.types else record.types[0]
        for number, (inputs, attrs) in enumerate(samples_of(record, np.random.default_rng(SEED), dtype)):
            arrays = [np.asarray(a) for a in inputs]
            if number % 4 or not arrays[0].ndim or not arrays[0].size:
                continue
            try:
                record.evaluate(arrays, record.check_attributes(attrs))
                graph, shapes = _open(record, arrays, attrs)
            except OvjitError:
                continue
            try:
                program_of(graph).plan(shapes)
            except OvjitError as error:
                assert "internal error" not in str(error), f"{record.name}-{record.opset}, sample {number}"
            except Exception as error:
                raise AssertionError(f"{record.name}-{record.opset}, sample {number}") from error


def test_a_wrong_plan_for_open_shapes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The proof is of the traced planning: it sees what is overwritten there, too."""
    monkeypatch.setattr(Planner, "is_read_later", lambda self, buffer, value=None: False)
    b = Builder()
    x = b.add("Parameter", (), {"shape": [ANY, 24], "element_type": "f32"}).output
    a = b.add("Softmax", [x], {"axis": 1}).output
    c = b.add("Softmax", [b.add("Relu", [a]).output], {"axis": 0}).output
    graph = b.finish([b.add("Softmax", [b.add("Add", [a, c]).output], {"axis": 1}).output])
    with pytest.raises(OvjitError, match="still reads"):
        program_of(graph).plan([(16, 24)])


@pytest.mark.parametrize("name, number, axis", [("SelectiveSSM", 4, 2), ("GatedDeltaNet", 1, 2)])
def test_heads_of_one_input_are_open(name: str, number: int, axis: int) -> None:
    """The number of heads is known from another input."""
    record = next(o for o in all_ops() if o.name == name)
    for inputs, attrs in list(samples_of(record, np.random.default_rng(SEED), "f32"))[:4]:
        b, arrays = Builder(), [np.asarray(a) for a in inputs]
        values = []
        for i, array in enumerate(arrays):
            shape: list[Any] = list(array.shape)
            if i == number:
                shape[axis] = ANY
            kind = dtypes.from_numpy(array.dtype)
            values.append(b.add("Parameter", (), {"shape": shape, "element_type": kind}).output)
        graph = b.finish(b.add(record, values, attrs).outputs)
        for got, want in zip(run(graph, arrays), evaluate(graph, arrays), strict=True):
            np.testing.assert_allclose(got, want, 1e-3, 1e-4, err_msg=f"{name}, seed {SEED}")
