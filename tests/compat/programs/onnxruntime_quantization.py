"""Quantizes a small model by `onnxruntime.quantization`, and prints the results of each form as JSON.

python onnxruntime_quantization.py FOLDER
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process
from onnxruntime.transformers.optimizer import optimize_model

rng = np.random.default_rng(0)
SHAPE = (2, 3, 8, 8)


class Reader(CalibrationDataReader):
    def __init__(self) -> None:
        self.remaining = [{"x": rng.standard_normal(SHAPE).astype(np.float32)} for _ in range(3)]

    def get_next(self) -> dict[str, np.ndarray] | None:
        return self.remaining.pop() if self.remaining else None


def write_model(path: Path) -> Path:
    weights = {"c": (4, 3, 3, 3), "w": (4, 6)}
    nodes = [
        helper.make_node("Conv", ["x", "c"], ["y"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["y"], ["z"]),
        helper.make_node("GlobalAveragePool", ["z"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("MatMul", ["f", "w"], ["o"]),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", *SHAPE[1:]])],
        [helper.make_tensor_value_info("o", TensorProto.FLOAT, ["n", 6])],
        [numpy_helper.from_array(rng.standard_normal(s).astype(np.float32), n) for n, s in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


folder = Path(sys.argv[1])
model, changed = str(write_model(folder / "model.onnx")), str(folder / "changed.onnx")
x = rng.standard_normal(SHAPE).astype(np.float32)
results = {}


def run(name: str) -> None:
    kinds = [node.op_type for node in onnx.load(changed).graph.node]
    session = ort.InferenceSession(changed, providers=["CPUExecutionProvider"])
    results[name] = [sorted(kinds), session.run(None, {"x": x})[0].tolist()]


quantize_dynamic(model, changed, weight_type=QuantType.QUInt8)
run("dynamic")
quant_pre_process(model, changed, skip_optimization=True)
run("shapes")
for form in (QuantFormat.QDQ, QuantFormat.QOperator):
    rng = np.random.default_rng(1)
    quantize_static(model, changed, Reader(), quant_format=form)
    run(str(form))
optimize_model(model).save_model_to_file(changed)
run("optimizer")
print(json.dumps([results, ort.__file__.rpartition("onnxruntime")[0][-6:]]))
