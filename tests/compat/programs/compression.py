"""NNCF: a network quantised with and without a check of its accuracy, weights compressed to every type."""

import json
import logging

import nncf
import numpy as np
import openvino as ov
import openvino.opset13 as o

logging.getLogger("nncf").setLevel(logging.ERROR)
PRECISE = {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"}
rng = np.random.default_rng(0)


def network():
    x = o.parameter([1, 3, 16, 16], name="x")
    y, channels = x, 3
    for i, k in enumerate((8, 16)):
        w = (rng.standard_normal((k, channels, 3, 3)) * 0.3).astype(np.float32)
        y = o.convolution(y, o.constant(w, name=f"w{i}"), [1, 1], [1, 1], [1, 1], [1, 1], name=f"conv{i}")
        y = o.relu(o.add(y, o.constant(rng.standard_normal((1, k, 1, 1)).astype(np.float32) * 0.1)))
        channels = k
    y = o.reduce_mean(
        o.max_pool(y, [2, 2], [1, 1], [0, 0], [0, 0], [2, 2]).output(0), np.array([2, 3]), False
    )
    y = o.matmul(y, o.constant(rng.standard_normal((16, 10)).astype(np.float32)), False, False, name="fc")
    return ov.Model([o.result(y, name="out")], [x], "network")


def layers():
    x = o.parameter([-1, 64], name="x")
    y = x
    for i in range(3):
        w = (rng.standard_normal((64, 64)) * 0.2).astype(np.float32)
        y = o.matmul(y, o.constant(w, name=f"w{i}"), False, True, name=f"mm{i}")
    return ov.Model([o.result(y, name="out")], [x], "layers")


def constants(model):
    return sorted(
        {n.get_element_type().to_string() for n in model.get_ops() if n.get_type_name() == "Constant"}
    )


shown = {}
data = [rng.standard_normal((1, 3, 16, 16)).astype(np.float32) for _ in range(20)]
model = network()
plain = ov.compile_model(model.clone(), "CPU", PRECISE)
wanted = [plain(d)[0] for d in data]
# weights of 7 bits: without VNNI, OpenVINO cuts sums of two products of more off at 16 bits
halved = nncf.AdvancedQuantizationParameters(overflow_fix=nncf.OverflowFix.ENABLE)
small = nncf.quantize(model.clone(), nncf.Dataset(data), subset_size=20, advanced_parameters=halved)
compiled = ov.compile_model(small, "CPU", PRECISE)
error = max(float(np.abs(compiled(d)[0] - w).max()) for d, w in zip(data, wanted, strict=True))
shown["quantize"] = [sum(n.get_type_name() == "FakeQuantize" for n in small.get_ops()), error]


def accuracy(model, dataset):
    return float(np.mean([np.argmax(model(d)[0]) == np.argmax(w) for d, w in zip(data, wanted, strict=True)]))


checked = nncf.quantize_with_accuracy_control(
    model, nncf.Dataset(data), nncf.Dataset(data), accuracy, max_drop=0.001, subset_size=20
)
shown["control"] = [sum(n.get_type_name() == "FakeQuantize" for n in checked.get_ops()), 0.0]
inputs = rng.standard_normal((5, 64)).astype(np.float32)
small = nncf.quantize(network(), nncf.Dataset(data), subset_size=20, mode=nncf.QuantizationMode.FP8_E4M3)
shown["fp8"] = [sum(n.get_type_name() == "FakeConvert" for n in small.get_ops()), 0.0]
MODES = "INT8_ASYM INT8_SYM INT4_SYM INT4_ASYM INT3_SYM INT2_SYM CB4 NF4 FP8_E4M3 MXFP4 MXFP8_E4M3"
for mode in MODES.split():
    model = layers()
    want = ov.compile_model(model.clone(), "CPU", PRECISE)(inputs)[0]
    options = {} if mode.startswith("INT8") else {"group_size": 32, "ratio": 1.0, "all_layers": True}
    small = nncf.compress_weights(model, mode=getattr(nncf.CompressWeightsMode, mode), **options)
    got = ov.compile_model(small, "CPU", PRECISE)(inputs)[0]
    shown[mode] = [constants(small), float(np.abs(got - want).max() / np.abs(want).max())]
print(json.dumps(shown))
