"""Equal nodes of a graph become one node."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from ovjit.opset14 import add, constant, inverse, multiply, parameter, random_uniform, relu

import ovjit as ov
from ovjit.graph.graph import Builder, Graph, Value
from ovjit.rewrite.merging import MOST_BYTES, merge_equal

MATRIX = np.arange(MOST_BYTES, dtype=np.float32)[:, None]


def operations(graph: Graph) -> Counter:
    return Counter(n.op.name for n in graph.nodes if n.op.role not in ("parameter", "constant"))


def apply(b: Builder, name: str, *inputs: Value, **attrs: object) -> Value:
    return b.add(name, inputs, attrs).output


def chains(b: Builder, x: Value) -> list[Value]:
    """Two chains of two equal nodes."""
    return [apply(b, "Softmax", apply(b, "Sin", x), axis=1) for _ in range(2)]


def constants(b: Builder, x: Value) -> list[Value]:
    """Constants of equal elements: short ones, and long ones that are one array."""
    axes = [b.constant(np.array([1], np.int64), name=f"axes{i}") for i in range(2)]
    short = [apply(b, "ReduceSum", x, each, keep_dims=False) for each in axes]
    return short + [apply(b, "MatMul", x, b.constant(MATRIX, name=f"w{i}")) for i in range(2)]


def copies(b: Builder, x: Value) -> list[Value]:
    return [apply(b, "MatMul", x, b.constant(MATRIX.copy(), name=f"w{i}")) for i in range(2)]


def elementwise(b: Builder, x: Value) -> list[Value]:
    """Each of two products computes the Relu that it reads."""
    rows = [apply(b, "Relu", x) for _ in range(2)]
    return [apply(b, "MatMul", r, b.constant(MATRIX + i)) for i, r in enumerate(rows)]


def attributes(b: Builder, x: Value) -> list[Value]:
    """Attributes that differ, in a sign of zero too."""
    softmax = [apply(b, "Softmax", x, axis=axis) for axis in (0, 1)]
    return softmax + [apply(b, "Elu", x, alpha=alpha) for alpha in (0.0, -0.0)]


def order(b: Builder, x: Value) -> list[Value]:
    y = apply(b, "Exp", x)
    return [apply(b, "Subtract", x, y), apply(b, "Subtract", y, x)]


@pytest.mark.parametrize(
    "made, left",
    [
        (chains, {"Sin": 1, "Softmax": 1}),
        (constants, {"ReduceSum": 1, "MatMul": 1}),
        (copies, {"MatMul": 2}),  # they are not looked into
        (elementwise, {"Relu": 2, "MatMul": 2}),
        (attributes, {"Softmax": 2, "Elu": 2}),
        (order, {"Exp": 1, "Subtract": 2}),
    ],
    ids=lambda each: getattr(each, "__name__", ""),
)
def test_which_nodes_are_equal(made: Callable[[Builder, Value], list[Value]], left: dict[str, int]) -> None:
    b = Builder()
    x = b.add("Parameter", (), {"shape": (4, MATRIX.size), "element_type": "f32"}).output
    graph = merge_equal(b.finish(made(b, x)))
    assert operations(graph) == left


def test_results_of_merged_nodes() -> None:
    """Each has its name and its tensor; nodes that draw random numbers stay apart."""
    x = parameter([3, 4, 4], np.float32, name="x")
    found = [inverse(x, False) for _ in range(2)]
    drawn = [random_uniform([5], constant(np.float32(0)), constant(np.float32(1)), "f32", 0, 0) for _ in "ab"]
    last = relu(multiply(found[1], constant(np.float32(-1))))
    outputs = [found[0], found[1], add(found[0], found[1]), last, *drawn]
    for i, output in enumerate(outputs):
        output.output(0).set_names({f"out{i}"})
    compiled = ov.compile_model(ov.Model(outputs, [x]), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    assert [o.any_name for o in compiled.outputs] == [f"out{i}" for i in range(len(outputs))]
    rng = np.random.default_rng(20261126)
    given = rng.standard_normal((3, 4, 4)).astype(np.float32) + 4 * np.eye(4, dtype=np.float32)
    answers = [compiled([given])[o] for o in compiled.outputs]
    right = np.linalg.inv(given.astype(np.float64))
    for answer, wanted in zip(answers[:4], (right, right, 2 * right, np.maximum(-right, 0)), strict=True):
        np.testing.assert_allclose(answer, wanted, rtol=1e-4, atol=1e-5)
    assert (answers[4] != answers[5]).any()
