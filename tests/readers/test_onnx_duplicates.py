"""Initializers and Constant nodes whose names are given twice, beside ONNX Runtime."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import ovjit as ov
from ovjit.disk import notice

X = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])
W = helper.make_tensor_value_info("w", TensorProto.FLOAT, [2])
ADD = helper.make_node("Add", ["x", "w"], ["y"], "add")
NEG = helper.make_node("Neg", ["x"], ["y"], "neg")
GIVEN = np.array([1, 3], np.float32)


def dense(*values: float, name: str = "w", dtype: Any = np.float32) -> Any:
    return numpy_helper.from_array(np.array(values, dtype), name)


def sparse(value: float, place: int) -> Any:
    values = helper.make_tensor("w", TensorProto.FLOAT, [1], [value])
    return helper.make_sparse_tensor(values, helper.make_tensor("", TensorProto.INT64, [1], [place]), [2])


def constant(*values: float) -> Any:
    return helper.make_node("Constant", [], ["w"], "constant", value=dense(*values))


def model(
    nodes: Sequence[Any], initializers: Sequence[Any], inputs: Sequence[Any] = (X,), more: Sequence[Any] = ()
) -> bytes:
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "g", inputs, [y], initializers, sparse_initializer=more)
    imports = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8).SerializeToString()


A, B, ZERO = dense(1, 2), dense(10, 20), constant(100, 200)
READ = {
    "two": model([ADD], [A, B]),
    "three": model([ADD], [B, A, B, A]),
    "equal": model([ADD], [A, A]),
    "two that nobody reads": model([NEG], [A, B]),
    "two, and an input": model([ADD], [A, B], (X, W)),
    "two instead of the input": model([NEG], [dense(1, 2, name="x"), dense(3, 4, name="x")]),
    "constant and initializer": model([ZERO, ADD], [A]),
    "constant behind its reader": model([ADD, ZERO], [A]),
    "constant and two initializers": model([ZERO, ADD], [A, B]),
    "two constants": model([ZERO, constant(7, 8), ADD], []),
    "two constants around their reader": model([ZERO, ADD, constant(7, 8)], []),
    "two constants behind their reader": model([ADD, ZERO, constant(7, 8)], [A]),
    "constant and input": model([ZERO, ADD], [], (X, W)),
    "sparse and dense": model([ADD], [A], more=[sparse(5, 1)]),
}


def onnxruntime_result(data: bytes) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return session.run(None, {i.name: GIVEN for i in session.get_inputs()})[0]


@pytest.mark.parametrize("data", READ.values(), ids=READ)
def test_which_definition_counts(data: bytes) -> None:
    compiled = ov.Core().compile_model(data, "CPU")
    assert [port.get_any_name() for port in compiled.inputs] in (["x"], [])
    np.testing.assert_array_equal(
        compiled([GIVEN] * len(compiled.inputs))[0], onnxruntime_result(data), strict=True
    )


REFUSED = {
    "another shape": (model([ADD], [dense(1, 2, 3), A]), "different types or shapes"),
    "another type": (model([ADD], [dense(1, 2, dtype=np.int64), A]), "different types or shapes"),
    "two sparse": (model([ADD], [], more=[sparse(5, 1), sparse(6, 0)]), "'w' is defined twice"),
    "node and initializer": (
        model([helper.make_node("Neg", ["x"], ["w"]), ADD], [A]), "'w' is defined twice"
    ),
    "two nodes": (
        model([helper.make_node("Neg", ["x"], ["w"]), helper.make_node("Abs", ["x"], ["w"]), ADD], []),
        "'w' is defined twice",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("data", "said"), REFUSED.values(), ids=REFUSED)
def test_definitions_that_are_refused(data: bytes, said: str) -> None:
    with pytest.raises(RuntimeError, match=said):
        ov.Core().read_model(data)
    with pytest.raises(Exception, match=r"w|initializer"):
        onnxruntime_result(data)


@pytest.mark.parametrize(("nodes", "initializers", "expected"), [
    ([], [A, B], GIVEN + [10, 20]), ([ZERO], [A], GIVEN + [100, 200]), ([], [A], GIVEN + [1, 2]),
])  # fmt: skip
def test_bodies(nodes: Sequence[Any], initializers: Sequence[Any], expected: np.ndarray) -> None:
    """As OpenVINO; ONNX Runtime refuses the first two. An initializer of the graph around is another."""
    z = helper.make_tensor_value_info("z", TensorProto.FLOAT, None)
    inner = helper.make_node("Add", ["x", "w"], ["z"], "inner")
    then = helper.make_graph([*nodes, inner], "then", [], [z], initializers)
    other = helper.make_graph([helper.make_node("Neg", ["x"], ["z"], "other")], "other", [], [z])
    condition = helper.make_tensor_value_info("condition", TensorProto.BOOL, [])
    node = helper.make_node("If", ["condition"], ["y"], "if", then_branch=then, else_branch=other)
    data = model([node], [dense(-5, -6)], (X, condition))
    compiled = ov.Core().compile_model(data, "CPU")
    np.testing.assert_array_equal(compiled({"x": GIVEN, "condition": np.array(True)})[0], expected)


def test_a_warning_says_which_counts(caplog: pytest.LogCaptureFixture, monkeypatch: Any) -> None:
    for data, said in ((READ["two"], "the last initializer"), (READ["two constants"], "the last Constant"),
                       (READ["constant and initializer"], "the Constant node"),
                       (READ["sparse and dense"], "the sparse initializer")):  # fmt: skip
        monkeypatch.setattr(notice, "_topics", {})
        caplog.clear()
        with caplog.at_level(logging.WARNING, "ovjit"):
            ov.Core().read_model(data)
        assert f"the name 'w' is defined twice; {said}" in caplog.text
