#!/bin/sh
# OpenVINO: ScaledDotProductAttention without a mask gives wrong values for 16 and more keys, if the model's first inference had one key.
#
# Versions: openvino 2026.4.1, numpy 2.4.6, Python 3.11, Linux x86-64.
#
# A model of one ScaledDotProductAttention takes queries, keys and values; the number of keys is dynamic, as in a decoder whose cache is fed from
# outside. On the CPU its first inference has one key. From then on, values for 16 and more keys are wrong: they differ from the formula's
# by 1 and more. Up to 15 keys they are right. New requests of the same compiled model are wrong, too. A model whose first inference had 2 or more keys
# is right for all numbers, and so is one with a mask, even a mask of zeros. Nothing depends on the number of heads, their size, the number of
# queries, or of threads. There is no error and no warning. With ONEDNN_MAX_CPU_ISA=AVX2 it is the same; with SSE41 all are right.
#
# So a decoder that begins with one token, and is used until its text has 16, is wrong where one that begins with two is right.
#
# No report of this was found.
#
# Output seen on 2026-11-30 (the largest difference from softmax(Q K' / sqrt(size)) V):
#   first 1 key, then 15             0.0000
#   first 1 key, then 16            12.1247
#   first 1 key, then 40            17.4070
#   first 1 key, 15, 16, then 40    19.7188
#   the same, each a new request    19.7188
#   one head of 8 numbers            7.8032
#   2 queries                       16.2382
#   with a mask of zeros             0.0000
#   first 2 keys, then 40            0.0000
#   40 keys alone                    0.0000
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q openvino==2026.4.1 numpy==2.4.6
cd "$folder"
"$folder/env/bin/python" -W ignore - <<'PYTHON'
import numpy as np
import openvino as ov
from openvino import opset13 as ops


def compute(query, key, value):
    scores = query @ key.swapaxes(2, 3) / np.sqrt(query.shape[3])
    weights = np.exp(scores - scores.max(3, keepdims=True))
    return weights / weights.sum(3, keepdims=True) @ value


def compare(counts, heads=2, size=64, queries=1, masked=False, renewed=False):
    """The largest difference at the last of the numbers of keys."""
    inputs = [ops.parameter([1, heads, length, size], np.float32) for length in (queries, -1, -1)]
    inputs += [ops.parameter([1, 1, queries, -1], np.float32)] if masked else []
    model = ov.Model([ops.result(ops.scaled_dot_product_attention(*inputs))], inputs, "attention")
    compiled = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    request, generator = compiled.create_infer_request(), np.random.default_rng(0)
    for count in counts:
        request = compiled.create_infer_request() if renewed else request
        values = [generator.normal(size=(1, heads, n, size)).astype(np.float32) for n in (queries, count, count)]
        mask = [np.zeros((1, 1, queries, count), np.float32)] if masked else []
        found = request.infer([*values, *mask])[0]
    return abs(found - compute(*values)).max()


for name, wrong, arguments in (
    ("first 1 key, then 15", False, {"counts": (1, 15)}),
    ("first 1 key, then 16", True, {"counts": (1, 16)}),
    ("first 1 key, then 40", True, {"counts": (1, 40)}),
    ("first 1 key, 15, 16, then 40", True, {"counts": (1, 15, 16, 40)}),
    ("the same, each a new request", True, {"counts": (1, 15, 16, 40), "renewed": True}),
    ("one head of 8 numbers", True, {"counts": (1, 40), "heads": 1, "size": 8}),
    ("2 queries", True, {"counts": (1, 40), "queries": 2}),
    ("with a mask of zeros", False, {"counts": (1, 40), "masked": True}),
    ("first 2 keys, then 40", False, {"counts": (2, 40)}),
    ("40 keys alone", False, {"counts": (40,)}),
):
    difference = compare(**arguments)
    print(f"{name:30} {difference:8.4f}")
    assert (difference > 0.1) == wrong and (wrong or difference < 1e-4), f"{name}: OpenVINO has changed"
PYTHON
