"""Models through `ovjit.onnxruntime` and through the real onnxruntime: the same facts and values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import ovjit.onnxruntime as ours

onnx = pytest.importorskip("onnx")
real = pytest.importorskip("onnxruntime")
RNG = np.random.default_rng(3)
X, GAMMA, BETA = (RNG.standard_normal(s).astype(np.float32) for s in ((3, 4), 4, 4))


def model(node: Any, version: int, shape: Any = ("n", 4), **inits: np.ndarray) -> Any:
    kind, helper = onnx.TensorProto.FLOAT, onnx.helper
    graph = helper.make_graph(
        [node], "g", [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("y", kind, None)],
        [onnx.numpy_helper.from_array(value, name) for name, value in inits.items()],
    )  # fmt: skip
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", version)])
    made.ir_version = 8
    return made


@pytest.mark.parametrize("version", [11, 14, 16, 17])
@pytest.mark.parametrize("op", ["LayerNormalization", "SimplifiedLayerNormalization"])
def test_normalisations_of_the_optimizer_in_the_default_domain(op: str, version: int) -> None:
    """ONNX Runtime's transformer optimizer and onnxruntime-genai write these without a domain."""
    names = ["x", "gamma", "beta"][: 3 if op == "LayerNormalization" else 2]
    inits = {"gamma": GAMMA, "beta": BETA} if len(names) == 3 else {"gamma": GAMMA}
    data = model(onnx.helper.make_node(op, names, ["y"], epsilon=1e-3), version, **inits).SerializeToString()
    results = [package.InferenceSession(data).run(None, {"x": X})[0] for package in (real, ours)]
    np.testing.assert_allclose(results[1], results[0], rtol=1e-5, atol=1e-5)


def test_an_operator_that_nobody_has_is_refused() -> None:
    data = model(onnx.helper.make_node("BiasGelu", ["x", "b"], ["y"]), 14, b=BETA).SerializeToString()
    for package in (real, ours):
        with pytest.raises(Exception, match="No Op registered for BiasGelu") as caught:
            package.InferenceSession(data)
        assert type(caught.value).__name__ == "InvalidGraph"


REFUSED = {
    "product": (onnx.helper.make_node("MatMul", ["x", "b"], ["y"]), {"b": np.ones((9, 9), np.float32)}),
    "sum": (onnx.helper.make_node("Add", ["x", "b"], ["y"]), {"b": np.ones((2, 2), np.float32)}),
    "axis": (onnx.helper.make_node("Softmax", ["x"], ["y"], axis=4), {}),
    "permutation": (onnx.helper.make_node("Transpose", ["x"], ["y"], perm=[0, 9, 1]), {}),
    "two types": (onnx.helper.make_node("Add", ["x", "b"], ["y"]), {"b": np.ones(1, np.int64)}),
    "element type": (onnx.helper.make_node("Cast", ["x"], ["y"], to=99), {}),
    "unknown attribute": (onnx.helper.make_node("Relu", ["x"], ["y"], speed=1), {}),
    "missing attribute": (onnx.helper.make_node("MaxPool", ["x"], ["y"]), {}),
    "kind of attribute": (onnx.helper.make_node("Softmax", ["x"], ["y"], axis="x"), {}),
    "inputs": (onnx.helper.make_node("Relu", ["x", "x"], ["y"]), {}),
    "a name that nobody computes": (onnx.helper.make_node("Relu", ["nobody"], ["y"]), {}),
    "an output that nobody computes": (onnx.helper.make_node("Relu", ["x"], ["z"]), {}),
}


@pytest.mark.parametrize("case", REFUSED)
def test_kinds_of_errors_of_invalid_models(case: str) -> None:
    """Sizes that do not fit are Fail; attributes and inputs that an operator does not have InvalidGraph."""
    node, inits = REFUSED[case]
    data = model(node, 14, **inits).SerializeToString()
    kinds = []
    for package in (real, ours):
        options = package.SessionOptions()
        options.log_severity_level = 4
        with pytest.raises(Exception, match="ONNXRuntimeError") as caught:
            package.InferenceSession(data, options)
        kinds.append(type(caught.value).__name__)
    assert kinds[1] == kinds[0]


@pytest.mark.parametrize("length", [1, 3])
def test_texts_in_sequences_are_objects(length: int) -> None:
    texts = onnx.helper.make_sequence_type_proto(
        onnx.helper.make_tensor_type_proto(onnx.TensorProto.STRING, [2])
    )
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("SequenceErase", ["s"], ["y"])], "g",
        [onnx.helper.make_value_info("s", texts)], [onnx.helper.make_value_info("y", texts)],
    )  # fmt: skip
    data = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8
    ).SerializeToString()
    feeds = {"s": [np.array(["a", f"é{i}"], dtype=object) for i in range(length)]}
    want, got = (package.InferenceSession(data).run(None, feeds)[0] for package in (real, ours))
    assert [(a.dtype, a.tolist()) for a in got] == [(a.dtype, a.tolist()) for a in want]


def test_the_version_of_a_model() -> None:
    made = model(onnx.helper.make_node("Relu", ["x"], ["y"]), 14)
    for version in (None, 0, 7):
        if version is not None:
            made.model_version = version
        told = [p.InferenceSession(made.SerializeToString()).get_modelmeta().version for p in (real, ours)]
        assert told[1] == told[0]


@pytest.mark.parametrize("aligned", [0, 1])
@pytest.mark.parametrize("open_batch", [False, True])
@pytest.mark.parametrize(
    "size",
    [[1, 3, 4, 5], [1, 2, 1, 3], [1, 1, 1, 1], [2, 1, 3, 4], [1, 1, 1, 2, 1], [2, 1, 2, 3, 4]],
    ids=str,
)
def test_affine_grids(size: list[int], open_batch: bool, aligned: int) -> None:
    """Of one image, too, for which the body of the standard's function is wrong."""
    sides = len(size) - 2
    theta = RNG.standard_normal((size[0], sides, sides + 1)).astype(np.float32)
    node = onnx.helper.make_node("AffineGrid", ["x", "size"], ["y"], align_corners=aligned)
    shape = ["n", *theta.shape[1:]] if open_batch else list(theta.shape)
    data = model(node, 20, shape, size=np.array(size)).SerializeToString()
    results = [package.InferenceSession(data).run(None, {"x": theta})[0] for package in (real, ours)]
    np.testing.assert_allclose(results[1], results[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("declared", [None, [], [4], ["n", 2, 1], ["n", "m"], ["n", 5], ["n", 4]])
def test_an_output_of_another_declared_shape_has_the_inferred_one(declared: Any) -> None:
    """paddle2onnx writes that its outputs are scalars. The nodes are such that ONNX Runtime infers twice."""
    helper = onnx.helper
    data = model(helper.make_node("Identity", ["x"], ["i"]), 17)
    data.graph.node.append(helper.make_node("Relu", ["i"], ["y"]))
    data.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, declared))
    options = [package.SessionOptions() for package in (real, ours)]
    for each in options:
        each.log_severity_level = 4
    sessions = [
        p.InferenceSession(data.SerializeToString(), o) for p, o in zip((real, ours), options, strict=True)
    ]
    shapes = [session.get_outputs()[0].shape for session in sessions]
    assert [n if isinstance(n, int) else None for n in shapes[1]] == [
        n if isinstance(n, int) else None for n in shapes[0]
    ]
    for session in sessions:
        np.testing.assert_array_equal(session.run(None, {"x": X})[0], np.maximum(X, 0))
