"""What ONNX Runtime's quantizers write is computed in integers, and answers as there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ovjit as ov
from tests.support.compiled import product_format

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
tools = pytest.importorskip("onnxruntime.quantization")

SEED = 20261121
U8, S8 = tools.QuantType.QUInt8, tools.QuantType.QInt8
QDQ, QOP = tools.QuantFormat.QDQ, tools.QuantFormat.QOperator
pytestmark = pytest.mark.skipif(
    product_format("u8", "i8") is None, reason="no 8-bit dot products on this CPU"
)


class Net:
    """An ONNX model that is written node by node."""

    def __init__(self, seed: int):
        self.rng = np.random.default_rng([SEED, seed])
        self.nodes: list[Any] = []
        self.constants: dict[str, np.ndarray] = {}

    def const(self, array: Any) -> str:
        name = f"c{len(self.constants)}"
        self.constants[name] = np.asarray(array, np.float32)
        return name

    def weights(self, *shape: int, depth: int) -> str:
        return self.const(self.rng.standard_normal(shape) / np.sqrt(depth))

    def __call__(self, op: str, *inputs: str, out: str = "", **attrs: Any) -> str:
        out = out or f"v{len(self.nodes)}"
        self.nodes.append(onnx.helper.make_node(op, inputs, [out], **attrs))
        return out

    def conv(self, x: str, ins: int, outs: int, kernel: int, **attrs: Any) -> str:
        each = ins // attrs.get("group", 1)
        w = self.weights(outs, each, kernel, kernel, depth=each * kernel**2)
        sizes = {"kernel_shape": [kernel] * 2, "pads": [kernel // 2] * 4}
        return self("Conv", x, w, self.weights(outs, depth=4), **sizes, **attrs)

    def product(self, x: str, ins: int, outs: int) -> str:
        return self("Add", self("MatMul", x, self.weights(ins, outs, depth=ins)), self.weights(outs, depth=4))

    def save(self, path: Path, shape: list[int], out: list[int]) -> Path:
        def info(name: str, dims: list[int]) -> Any:
            return onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, dims)

        constants = [onnx.numpy_helper.from_array(v, k) for k, v in self.constants.items()]
        graph = onnx.helper.make_graph(self.nodes, "net", [info("x", shape)], [info("y", out)], constants)
        opset = [onnx.helper.make_opsetid("", 17)]
        onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=8), path)
        return path


def cnn(path: Path) -> tuple[Path, list[int], int]:
    """(the path, the shape of the input, how many products have two computed operands at most)"""
    n = Net(1)
    a = n("Relu", n.conv("x", 3, 16, 3, strides=[2, 2]))
    p = n("MaxPool", a, kernel_shape=[2, 2], strides=[2, 2])
    c = n("Clip", n.conv(p, 16, 16, 3, group=16), n.const(0), n.const(6))
    e = n("Relu", n("Add", n.conv(c, 16, 16, 1), p))
    f = n.conv(e, 16, 32, 3)
    k = n("Concat", n("Mul", f, n("Sigmoid", f)), e, axis=1)
    g = n("GlobalAveragePool", n("AveragePool", k, kernel_shape=[2, 2]))
    n("Gemm", n("Flatten", g), n.weights(10, 48, depth=48), n.weights(10, depth=4), out="y", transB=1)
    return n.save(path, [1, 3, 24, 24], [1, 10]), [1, 3, 24, 24], 0


def transformer(path: Path) -> tuple[Path, list[int], int]:
    n = Net(2)
    size, shape = 32, [2, 9, 32]
    norm = {"axis": -1}
    x = n("LayerNormalization", "x", n.const(np.ones(size)), n.const(np.zeros(size)), **norm)
    q, k, v = (n.product(x, size, size) for _ in range(3))
    s = n("Softmax", n("MatMul", q, n("Transpose", k, perm=[0, 2, 1])), axis=-1)
    r = n("Add", n.product(n("MatMul", s, v), size, size), "x")
    x = n("LayerNormalization", r, n.const(np.ones(size)), n.const(np.zeros(size)), **norm)
    h = n("Relu", n.product(x, size, 300))  # sums that f32 does not hold
    n("Add", n.product(h, 300, size), r, out="y")
    return n.save(path, shape, shape), shape, 2


class Samples(tools.CalibrationDataReader):
    def __init__(self, arrays: list[np.ndarray]):
        self.rest = iter(arrays)

    def get_next(self) -> Any:
        found = next(self.rest, None)
        return None if found is None else {"x": found}


def step_of(path: Path) -> float:
    """The quantisation step of the output; 0 where it is not quantized."""
    graph = onnx.load(path).graph
    constants = {c.name: onnx.numpy_helper.to_array(c) for c in graph.initializer}
    (last,) = [node for node in graph.node if "y" in node.output]
    return float(constants[last.input[1]]) if last.op_type == "DequantizeLinear" else 0.0


#: Sums of products of u8 and s8 are cut off there without VNNI: weights have 7 bits then.
CASES = [
    (cnn, QDQ, U8, S8, "weights as reals"), (cnn, QDQ, U8, S8, True), (transformer, QDQ, S8, S8, False),
    (cnn, QOP, U8, S8, True), (transformer, QOP, U8, U8, False), (cnn, None, None, U8, False),
    (transformer, None, None, U8, False),
]  # fmt: skip
MORE = [(cnn, QDQ, U8, U8, False), (cnn, QOP, S8, S8, False), (transformer, None, None, S8, True)]


def _label(value: Any) -> str:
    return getattr(value, "__name__", getattr(value, "name", str(value)))


@pytest.mark.parametrize(
    "net, form, data, weights, by_channel",
    [*CASES, *(pytest.param(*case, marks=pytest.mark.long) for case in MORE)],
    ids=_label,
)
def test_quantized_as_there(tmp_path, net, form, data, weights, by_channel):
    source, shape, computed = net(tmp_path / "source.onnx")
    path = tmp_path / "quantized.onnx"
    rng = np.random.default_rng(SEED)
    arrays = [rng.standard_normal(shape).astype(np.float32) for _ in range(3)]
    how = {"per_channel": by_channel is True, "weight_type": weights, "reduce_range": weights is S8}
    if isinstance(by_channel, str):
        how["extra_options"] = {"AddQDQPairToWeight": True}
    if form is None:
        tools.quantize_dynamic(source, path, **how)
    else:
        tools.quantize_static(source, path, Samples(arrays), quant_format=form, activation_type=data, **how)
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = 1
    settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    theirs = ort.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
    mine = ov.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32", "PERF_COUNT": True})
    request = mine.create_infer_request()
    step = step_of(path)
    assert (step > 0) == (form is not None)
    for i, x in enumerate(arrays):
        want = theirs.run(None, {"x": x})[0]
        got = request.infer([x])[0]
        off = np.abs(got - want).max()
        assert off <= 1.01 * step + 1e-4 * np.abs(want).max(), (i, off, step, SEED)
    kernels = [row.exec_type for row in request.get_profiling_info()]
    assert "ref_numpy" not in kernels
    reals = [k for k in kernels if re.match("((conv|depthwise|matmul|plain)_f|convolution_|winograd)", k)]
    assert len(reals) <= computed, kernels
    assert any("u8i8" in k for k in kernels), kernels
