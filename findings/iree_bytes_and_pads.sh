#!/bin/sh
# IREE: unsigned bytes of ONNX files are divided and ranked as signed ones, Pad takes nothing off, and an old Hardmax has another axis.
#
# Versions: iree-base-compiler and iree-base-runtime 3.13.0, onnx 1.23.2, onnxruntime 1.32.0, numpy 2.4.6, Python 3.11, Linux x86-64.
#
# iree-import-onnx and iree-compile refuse operators that they do not know. Each of these models is valid for ONNX's checker, compiles and runs:
# - uint8 is the type of the file, and bytes without a sign that of the compiled code. Max and Greater know it; Div takes 200 for -56, so 200 / 3
#   is 238, and the largest two of 3, 200 and 100 are 100 and 3. The same numbers as int32 are right.
# - Pad by a negative number takes numbers off. Here it does nothing, on that side and on the other.
# - Hardmax before operator set 13 works over all axes from the given one on; here over that one alone. From 13 on it is right; Softmax of
#   the old sets is refused.
#
# That sums and MatMulInteger took bytes for signed ones was IREE's issue 24583 (torch-mlir pull request 4601), and a larger model with negative
# pads is not compiled (issue 19935); no report of these wrong numbers was found.
#
# Output seen on 2026-11-29:
#   Div of uint8                 ONNX Runtime (3,) [66.0, 2.0, 3.0]                              IREE (3,) [238.0, 0.0, 3.0]
#   Div of int32                 ONNX Runtime (3,) [66.0, 2.0, 3.0]                              the same
#   Max of uint8                 ONNX Runtime (3,) [200.0, 255.0, 7.0]                           the same
#   TopK of uint8                ONNX Runtime (2,) [200.0, 100.0]                                IREE (2,) [100.0, 3.0]
#   TopK of int32                ONNX Runtime (2,) [200.0, 100.0]                                the same
#   Pad by 1 and 1               ONNX Runtime (2, 5) [0.0, 0.0, 1.0, 2.0, 0.0, 0.0]              the same
#   Pad by -1 and 1              ONNX Runtime (2, 3) [1.0, 2.0, 0.0, 4.0, 5.0, 0.0]              IREE (2, 3) [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
#   Hardmax-13                   ONNX Runtime (2, 3, 4) [1.0, 0.0, 0.0, 0.0, 0.0, 1.0]           the same
#   Hardmax-11                   ONNX Runtime (2, 3, 4) [0.0, 0.0, 0.0, 0.0, 0.0, 0.0]           IREE (2, 3, 4) [1.0, 0.0, 0.0, 0.0, 0.0, 1.0]
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q iree-base-compiler==3.13.0 iree-base-runtime==3.13.0 onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
cd "$folder"
"$folder/env/bin/python" -W ignore - <<'PYTHON'
import os
import subprocess
import sys

import iree.runtime
import numpy as np
import onnx
import onnxruntime

TOOLS = os.path.dirname(sys.executable)


def run(opset, text, inputs):
    """Return what ONNX Runtime and IREE give for an ONNX model."""
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": {opset}]> main {text}')
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, "model.onnx")
    session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
    right = session.run(None, {x.name: array for x, array in zip(model.graph.input, inputs)})[0]
    subprocess.run([f"{TOOLS}/iree-import-onnx", "model.onnx", "-o", "model.mlir"], check=True, capture_output=True)
    flags = ["--iree-hal-target-device=local", "--iree-hal-local-target-device-backends=llvm-cpu", "--iree-llvmcpu-target-cpu=host"]
    subprocess.run([f"{TOOLS}/iree-compile", "model.mlir", "-o", "model.vmfb", *flags], check=True, capture_output=True)
    context = iree.runtime.SystemContext(config=iree.runtime.Config("local-sync"))
    with open("model.vmfb", "rb") as file:
        context.add_vm_module(iree.runtime.VmModule.copy_buffer(context.instance, file.read()))
    found = context.modules.module["main"](*inputs)
    found = (found[0] if isinstance(found, (tuple, list)) else found).to_host()
    return right, found.view(np.uint8) if right.dtype == np.uint8 else found


def check(name, opset, text, *inputs, right=False):
    wanted, found = run(opset, text, inputs)
    same = wanted.shape == found.shape and np.allclose(wanted, found)
    texts = [f"{array.shape} {np.round(array.astype(float), 2).ravel()[:6].tolist()}" for array in (wanted, found)]
    print(f"{name:28} ONNX Runtime {texts[0]}".ljust(92), "the same" if same else f"IREE {texts[1]}", flush=True)
    assert same == right, f"{name} has changed"


pair = np.array([200, 255, 7], np.uint8), np.array([3, 100, 2], np.uint8)
divide = "({0}[3] x, {0}[3] z) => ({0}[3] y) {{ y = Div(x, z) }}"
top = "({0}[3] x) => ({0}[2] y, int64[2] i) <int64[1] k = {{2}}> {{ y, i = TopK(x, k) }}"
check("Div of uint8", 20, divide.format("uint8"), *pair)
check("Div of int32", 20, divide.format("int32"), *(x.astype(np.int32) for x in pair), right=True)
check("Max of uint8", 20, "(uint8[3] x, uint8[3] z) => (uint8[3] y) { y = Max(x, z) }", *pair, right=True)
check("TopK of uint8", 20, top.format("uint8"), np.array([3, 200, 100], np.uint8))
check("TopK of int32", 20, top.format("int32"), np.array([3, 200, 100], np.int32), right=True)
table = np.arange(6, dtype=np.float32).reshape(2, 3)
pad = "(float[2,3] x) => (float[2,N] y) <int64[4] p = {{0, {}, 0, {}}}> {{ y = Pad(x, p) }}"
check("Pad by 1 and 1", 20, pad.format(1, 1), table, right=True)
check("Pad by -1 and 1", 20, pad.format(-1, 1), table)
cube = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
hard = "(float[2,3,4] x) => (float[2,3,4] y) { y = Hardmax<axis = 1>(x) }"
check("Hardmax-13", 13, hard, cube, right=True)
check("Hardmax-11", 11, hard, cube)
PYTHON
