"""The nodes that `convert_model` leaves of an ONNX file, beside OpenVINO: programs such as NNCF look for
weights and biases that are constants, and for no BatchNorm behind convolutions."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import onnx
import openvino
import pytest
from onnx import TensorProto, helper, numpy_helper

import ovjit

BOTH = [openvino, ovjit]
both = pytest.mark.parametrize("ov", BOTH, ids=["openvino", "ovjit"])
EXACT = {"INFERENCE_PRECISION_HINT": "f32"}
RANDOM = np.random.default_rng(20261129)


def floats(*shape: int) -> np.ndarray:
    return RANDOM.uniform(0.5, 1.5, shape).astype(np.float32)


def write(path: Any, nodes: list[Any], constants: dict[str, Any], shape: list[int]) -> str:
    """An ONNX file with the input `x` and the output `y`."""
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, path)
    return str(path)


NODE = helper.make_node
NORM = NODE("BatchNormalization", ["c", "g", "o", "m", "v"], ["n"])
STATISTICS = {"g": floats(4), "o": floats(4), "m": floats(4), "v": floats(4)}
#: Nodes between x [1, 3, 6, 6] and y, and their constants.
NETWORKS = {
    "a bias": ([NODE("Conv", ["x", "w", "b"], ["y"])], {"w": floats(4, 3, 1, 1), "b": floats(4)}),
    "a bias of zeros": (
        [NODE("Conv", ["x", "w", "b"], ["c"]), NODE("Relu", ["c"], ["y"])],
        {"w": floats(4, 3, 1, 1), "b": np.zeros(4, np.float32)},
    ),
    "zeros behind a depthwise convolution": (
        [NODE("Conv", ["x", "w"], ["c"], group=3), NODE("Add", ["b", "c"], ["y"])],
        {"w": floats(3, 1, 3, 3), "b": np.zeros((3, 1, 1), np.float32)},
    ),
    "zeros behind a transposed convolution": (
        [NODE("ConvTranspose", ["x", "w", "b"], ["y"])],
        {"w": floats(3, 2, 2, 2), "b": np.zeros(2, np.float32)},
    ),
    "zeros behind a product": (
        [NODE("MatMul", ["x", "w"], ["p"]), NODE("Add", ["p", "b"], ["y"])],
        {"w": floats(6, 4), "b": np.zeros(4, np.float32)},
    ),
    "zeros that are no bias": (
        [NODE("MatMul", ["x", "w"], ["p"]), NODE("Add", ["p", "b"], ["y"])],
        {"w": floats(6, 4), "b": np.zeros((6, 4), np.float32)},
    ),
    "zeros behind Relu": (
        [NODE("Relu", ["x"], ["p"]), NODE("Add", ["p", "b"], ["y"])], {"b": np.zeros(6, np.float32)},
    ),
    "BatchNorm": (
        [NODE("Conv", ["x", "w"], ["c"]), NORM, NODE("Relu", ["n"], ["y"])],
        {"w": floats(4, 3, 1, 1), **STATISTICS},
    ),
    "a bias and BatchNorm": (
        [NODE("Conv", ["x", "w", "b"], ["c"]), NORM, NODE("Relu", ["n"], ["y"])],
        {"w": floats(4, 3, 1, 1), "b": floats(4), **STATISTICS},
    ),
    "a depthwise convolution": (
        [NODE("Conv", ["x", "w"], ["c"], group=3), NODE("Mul", ["c", "f"], ["d"]),
         NODE("Relu", ["d"], ["y"])],
        {"w": floats(3, 1, 3, 3), "f": floats(1, 3, 1, 1)},
    ),
    "weights in f16": (
        [NODE("Cast", ["w"], ["f"], to=1), NODE("MatMul", ["x", "f"], ["y"])],
        {"w": floats(6, 6).astype(np.float16)},
    ),
    "weights in i8": (
        [NODE("DequantizeLinear", ["w", "s"], ["f"]), NODE("MatMul", ["x", "f"], ["y"])],
        {"w": np.arange(36, dtype=np.int8).reshape(6, 6), "s": np.float32(0.1)},
    ),
    "what does nothing": (
        [NODE("Identity", ["x"], ["a"]), NODE("Dropout", ["a"], ["b"]), NODE("Relu", ["b"], ["c"]),
         NODE("Cast", ["c"], ["y"], to=1)], {},
    ),
    "a computed constant": (
        [NODE("Range", ["z", "n", "i"], ["r"]), NODE("Cast", ["r"], ["f"], to=1),
         NODE("Add", ["x", "f"], ["y"])],
        {"z": np.int64(0), "n": np.int64(6), "i": np.int64(1)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
def test_nodes_are_those_of_openvino(name, tmp_path):
    path = write(tmp_path / "m.onnx", *NETWORKS[name], [1, 3, 6, 6])
    models = [ov.convert_model(path) for ov in BOTH]
    kinds = [Counter(node.get_type_name() for node in model.get_ops()) for model in models]
    assert kinds[1] == kinds[0]
    for model in models:
        assert "y" in model.output(0).get_names() and "x" in model.input(0).get_names()


@pytest.mark.parametrize("name", NETWORKS)
def test_results_stay(name, tmp_path):
    path, x = write(tmp_path / "m.onnx", *NETWORKS[name], [1, 3, 6, 6]), floats(1, 3, 6, 6)
    read, converted = ovjit.Core().read_model(path), ovjit.convert_model(path)
    expected, found = (ovjit.compile_model(m, "CPU", EXACT)(x)[0] for m in (read, converted))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@both
def test_a_converted_model_can_be_given_other_shapes(ov, tmp_path):
    nodes = [NODE("Shape", ["x"], ["s"]), NODE("Gather", ["s", "i"], ["n"]),
             NODE("Concat", ["n", "m"], ["c"], axis=0), NODE("Reshape", ["x", "c"], ["y"])]  # fmt: skip
    path = write(tmp_path / "m.onnx", nodes, {"i": np.array([0]), "m": np.array([-1])}, [2, 3, 4])
    model = ov.convert_model(path)
    model.reshape([5, 3, 4] if ov is ovjit else [2, 3, 8])  # OpenVINO keeps the batch of this one
    assert list(model.output(0).shape) == ([5, 12] if ov is ovjit else [2, 24])


def test_a_tensor_in_front_of_batch_norm_can_be_an_output(tmp_path):
    """OpenVINO refuses names of inner tensors."""
    nodes, constants = NETWORKS["a bias and BatchNorm"]
    path = write(tmp_path / "m.onnx", nodes, constants, [1, 3, 6, 6])
    model, x = ovjit.convert_model(path, output=["c"]), floats(1, 3, 6, 6)
    found = ovjit.compile_model(model, "CPU", EXACT)(x)[0]
    weights = constants["w"][:, :, 0, 0]
    expected = np.einsum("oi,bihw->bohw", weights, x) + constants["b"].reshape(1, 4, 1, 1)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
