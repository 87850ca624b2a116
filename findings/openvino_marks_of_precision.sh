#!/bin/sh
# OpenVINO: of the two precisions that transformers' exporter writes into a model, the CPU follows only that of the caches.
#
# Versions: openvino 2026.4.1, transformers 5.24.0, numpy 2.4.6, Python 3.11, Linux x86-64.
#
# transformers.exporters.OpenVINOExporter (merged in September 2026) traces in f32 and records the network's precision as `runtime_options` of the model:
# INFERENCE_PRECISION_HINT and KV_CACHE_PRECISION, "as the graph's compile options". ExportedModel then compiles without the first.
# The CPU plugin reads types of caches and sizes of groups from there, and ignores the precision and all else without a word. So a
# network in f32 is computed in bf16 on CPUs that have it (Sapphire Rapids and later), though caches are f32: a small BERT was 4e-3 from
# PyTorch by the export's defaults, and 2e-7 with {"INFERENCE_PRECISION_HINT": "f32"} given to `to("cpu", config=...)`.
# EXECUTION_MODE_HINT=ACCURACY of a call also undoes the types of caches that the model asks for. No report of this was found.
#
# Output seen:
#   transformers writes INFERENCE_PRECISION_HINT and KV_CACHE_PRECISION
#   INFERENCE_PRECISION_HINT         f16, f32             ignored
#   EXECUTION_MODE_HINT              ACCURACY             ignored
#   PERFORMANCE_HINT                 THROUGHPUT           ignored
#   INFERENCE_NUM_THREADS            1                    ignored
#   KV_CACHE_PRECISION               f16, f32             followed
#   KEY_CACHE_GROUP_SIZE             16, 64               followed
#   DYNAMIC_QUANTIZATION_GROUP_SIZE  16, 64               followed
#   KV_CACHE_PRECISION f16 of a model, ACCURACY of the call: f32
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/environment"
"$folder/environment/bin/pip" install -q openvino==2026.4.1 numpy==2.4.6
"$folder/environment/bin/pip" install -q --no-deps transformers==5.24.0
"$folder/environment/bin/python" - <<'PYTHON'
import importlib.util
from pathlib import Path

import numpy as np
import openvino as ov
from openvino import opset13 as opset


def compiled(name=None, value=None, **config):
    parameter = opset.parameter([-1, 8], np.float32)
    model = ov.Model([opset.relu(parameter)], [parameter], "marked")
    if name is not None:
        model.set_rt_info(value, ["runtime_options", name])
    return ov.Core().compile_model(model, "CPU", config)


spec = importlib.util.find_spec("transformers")
source = (Path(spec.origin).parent / "exporters" / "exporter_openvino.py").read_text(encoding="utf-8")
assert 'for option in ("INFERENCE_PRECISION_HINT", "KV_CACHE_PRECISION"):' in source
assert 'ov_model.set_rt_info(precision, ["runtime_options", option])' in source
print("transformers writes INFERENCE_PRECISION_HINT and KV_CACHE_PRECISION")
cases = {
    "INFERENCE_PRECISION_HINT": (["f16", "f32"], "ignored"),
    "EXECUTION_MODE_HINT": (["ACCURACY"], "ignored"),
    "PERFORMANCE_HINT": (["THROUGHPUT"], "ignored"),
    "INFERENCE_NUM_THREADS": (["1"], "ignored"),
    "KV_CACHE_PRECISION": (["f16", "f32"], "followed"),
    "KEY_CACHE_GROUP_SIZE": (["16", "64"], "followed"),
    "DYNAMIC_QUANTIZATION_GROUP_SIZE": (["16", "64"], "followed"),
}
for name, (values, expected) in cases.items():
    told = {str(compiled(name, value).get_property(name)) for value in values}
    seen = "followed" if len(told) > 1 else "ignored" if told == {str(compiled().get_property(name))} else "changed"
    assert seen == expected, (name, told)
    print(f"{name:32} {', '.join(values):20} {seen}")
kept = compiled("KV_CACHE_PRECISION", "f16", EXECUTION_MODE_HINT="ACCURACY").get_property("KV_CACHE_PRECISION")
assert kept == ov.Type.f32
print("KV_CACHE_PRECISION f16 of a model, ACCURACY of the call:", kept.get_type_name())
PYTHON
