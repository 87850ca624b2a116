"""Bodies that do not run may reject the shapes of a call: a loop of 0 iterations gives its initial values, an
If its other branch. Beside ONNX Runtime and, where it knows the ranks, OpenVINO."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import ovjit
from ovjit.graph import interp

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
openvino = pytest.importorskip("openvino")
helper = onnx.helper
FLOAT, INT64, BOOL = 1, 7, 9


def _model(node: Any, ranks: dict[str, tuple[int, int]], constants: list[Any], outputs: list[str]) -> bytes:
    """`ranks`: of the inputs, as (element type, rank), with dynamic dimensions."""
    values = [helper.make_tensor_value_info(n, t, [None] * rank) for n, (t, rank) in ranks.items()]
    results = [helper.make_tensor_value_info(name, FLOAT, None) for name in outputs]
    graph = helper.make_graph([node], "graph", values, results, constants)
    versions = [helper.make_opsetid("", 17)]
    model: bytes = helper.make_model(graph, opset_imports=versions, ir_version=8).SerializeToString()
    return model


def _loop(constant: bool, rank: int) -> bytes:
    """x = max(x, y) in each iteration, and the concatenation of the xs; y has `rank` dimensions."""
    info = helper.make_tensor_value_info
    body = helper.make_graph(
        [
            helper.make_node("Max", ["before", "y"], ["after"]),
            helper.make_node("Identity", ["after"], ["row"]),
            helper.make_node("Identity", ["again"], ["condition"]),
        ],
        "body",
        [info("i", INT64, []), info("again", BOOL, []), info("before", FLOAT, None)],
        [info("condition", BOOL, []), info("after", FLOAT, None), info("row", FLOAT, [None] * rank)],
    )
    node = helper.make_node("Loop", ["count", "", "x"], ["last", "rows"], body=body)
    ranks = {"x": (FLOAT, 1), "y": (FLOAT, rank)} | ({} if constant else {"count": (INT64, 0)})
    constants = [helper.make_tensor("count", INT64, [], [0])] if constant else []
    return _model(node, ranks, constants, ["last", "rows"])


def _branches() -> bytes:
    """If c: max(x, y), else -x."""
    result = [helper.make_tensor_value_info("result", FLOAT, None)]
    sides = {
        "then_branch": helper.make_graph([helper.make_node("Max", ["x", "y"], ["result"])], "a", [], result),
        "else_branch": helper.make_graph([helper.make_node("Neg", ["x"], ["result"])], "b", [], result),
    }
    node = helper.make_node("If", ["c"], ["o"], **sides)
    return _model(node, {"x": (FLOAT, 1), "y": (FLOAT, 1), "c": (BOOL, 0)}, [], ["o"])


def _results(model: bytes, feeds: dict[str, np.ndarray]) -> list[list[np.ndarray]]:
    """ovjit's, compiled and interpreted."""
    read = ovjit.Core().read_model(model)
    compiled = ovjit.Core().compile_model(read, "CPU")(feeds).to_tuple()
    return [[np.array(x) for x in compiled], list(interp.evaluate(read._graph(), [*feeds.values()]))]


def _feeds(x: int, y: tuple[int, ...]) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(69)
    return {"x": rng.standard_normal(x, np.float32), "y": rng.standard_normal(y, np.float32)}


@pytest.mark.parametrize("constant", [True, False])
@pytest.mark.parametrize("x, y", [(7, (16,)), (7, (1, 7, 16)), (16, (1, 7, 16))])
def test_a_loop_of_no_iterations(constant: bool, x: int, y: tuple[int, ...]) -> None:
    model, feeds = _loop(constant, len(y)), _feeds(x, y)
    if not constant:
        feeds["count"] = np.array(0)
    wants = onnxruntime.InferenceSession(model).run(None, feeds)
    for results in _results(model, feeds):
        np.testing.assert_array_equal(results[0], feeds["x"])
        for got, want in zip(results, wants, strict=True):
            np.testing.assert_array_equal(got, want)
    if len(y) == 1:  # OpenVINO 2026.4.1 has no values of dynamic ranks
        theirs = openvino.Core().compile_model(openvino.Core().read_model(model), "CPU")(feeds)
        np.testing.assert_array_equal(theirs[0], feeds["x"])


def test_the_same_loop_with_an_iteration() -> None:
    """The error comes when the body runs, and the next call of no iteration is right."""
    model = _loop(False, 1)
    compiled = ovjit.Core().compile_model(ovjit.Core().read_model(model), "CPU")
    request = compiled.create_infer_request()
    feeds = _feeds(7, (16,))
    for count in (0, 2, 0):
        if count:
            with pytest.raises(RuntimeError, match="cannot be broadcast"):
                request.infer(feeds | {"count": np.array(count)})
            continue
        np.testing.assert_array_equal(request.infer(feeds | {"count": np.array(count)})[0], feeds["x"])
    good = _feeds(1, (16,)) | {"count": np.array(3)}
    np.testing.assert_array_equal(request.infer(good)[0], np.maximum(good["x"], good["y"]))


def test_an_if_whose_other_branch_rejects_the_shapes() -> None:
    model, feeds = _branches(), _feeds(7, (16,)) | {"c": np.array(False)}
    (want,) = onnxruntime.InferenceSession(model).run(None, feeds)
    for (got,) in _results(model, feeds):
        np.testing.assert_array_equal(got, want)
    compiled = ovjit.Core().compile_model(ovjit.Core().read_model(model), "CPU")
    with pytest.raises(RuntimeError, match="cannot be broadcast"):
        compiled(feeds | {"c": np.array(True)})
    good = _feeds(1, (16,)) | {"c": np.array(True)}
    np.testing.assert_array_equal(compiled(good)[0], np.maximum(good["x"], good["y"]))


def test_a_constant_trip_is_an_error_before_it_runs() -> None:
    """A loop that runs rejects shapes that are known when the graph is made."""
    graph = ovjit.Core().read_model(_loop(False, 1))
    node = next(op for op in graph.get_ordered_ops() if op.get_type_name() == "Loop")
    one = ovjit.opset13.constant(np.array(1))
    node.input(0).replace_source_output(one.output(0))
    with pytest.raises(RuntimeError, match="cannot be broadcast"):
        graph.reshape({"x": [7], "y": [16], "count": []})
