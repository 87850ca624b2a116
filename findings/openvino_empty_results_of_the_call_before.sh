#!/bin/sh
# OpenVINO: a Loop of no rounds and Unique of nothing return what the call before returned.
#
# Versions: openvino 2026.4.1, onnx 1.23.2, onnxruntime 1.32.0, numpy 2.4.6, Python 3.11, Linux x86-64.
#
# By the standard, the scanned outputs of a Loop without a round have a length of 0, and Unique of an empty tensor is empty. The first call
# of OpenVINO gives the former. Later, the CPU plugin's buffer for the rounds still has those of the last call that had one: no round
# begins it anew, and it is handed over as the result. Unique ends early if its input is empty, and its outputs keep shape and values.
# What reads the outputs, such as a sum behind the Loop, takes them for new. The last state of the Loop is right; ONNX Runtime is right
# throughout.
#
# Output seen, of calls in this order (Loop: last state, scanned values, their sum):
#   Loop, 0 rounds              ONNX Runtime [1.0, [], 0.0]                 OpenVINO [1.0, [], 0.0]
#   Loop, 3 rounds              ONNX Runtime [8.0, [2.0, 4.0, 8.0], 14.0]   OpenVINO [8.0, [2.0, 4.0, 8.0], 14.0]
#   Loop, 0 rounds              ONNX Runtime [1.0, [], 0.0]                 OpenVINO [1.0, [2.0, 4.0, 8.0], 14.0]
#   Loop, 2 rounds              ONNX Runtime [4.0, [2.0, 4.0], 6.0]         OpenVINO [4.0, [2.0, 4.0], 6.0]
#   Loop, condition is false    ONNX Runtime [1.0, [], 0.0]                 OpenVINO [1.0, [2.0, 4.0], 6.0]
#   Unique of [7, 5, 7]         ONNX Runtime [[5.0, 7.0], [1, 2]]           OpenVINO [[5.0, 7.0], [1, 2]]
#   Unique of nothing           ONNX Runtime [[], []]                       OpenVINO [[5.0, 7.0], [1, 2]]
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/environment"
"$folder/environment/bin/pip" install -q openvino==2026.4.1 onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
cd "$folder"
"$folder/environment/bin/python" - <<'PYTHON'
import numpy as np
import onnx
import onnxruntime
import openvino

loop = """(int64 rounds, bool go, float start) => (float last, float[n] all, float sum) {
    last, all = Loop <body = body (int64 i, bool on, float state) => (bool still, float new, float copy) {
        still = Identity(on)
        new = Add(state, state)
        copy = Identity(new)
    }> (rounds, go, start)
    sum = ReduceSum<keepdims = 0>(all)
}"""
unique = "(float[n] x) => (float[k] values, int64[k] counts) { values, first, inverse, counts = Unique(x) }"


def load(text):
    model = onnx.parser.parse_model('<ir_version: 10, opset_import: ["": 20]> graph ' + text)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, "model.onnx")
    session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
    compiled = openvino.Core().compile_model("model.onnx", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return session, compiled


def check(title, session, request, feeds, stale):
    right = [array.tolist() for array in session.run(None, feeds)]
    found = [np.array(array).tolist() for array in request.infer(feeds).values()]
    print(f"{title:27} ONNX Runtime {right!s:30} OpenVINO {found}")
    assert found == (stale or right), "the behaviour has changed"
    return right


def run_loop(title, request, rounds, go=True, stale=None):
    """Run the loop; `stale` is the call whose scanned values and sum are expected again."""
    feeds = {"rounds": np.array(rounds), "go": np.array(go), "start": np.array(1, np.float32)}
    return check(title, session, request, feeds, stale and [1.0, *stale[1:]])


session, compiled = load(loop)
one = compiled.create_infer_request()
run_loop("Loop, 0 rounds", one, 0)
three = run_loop("Loop, 3 rounds", one, 3)
run_loop("Loop, 0 rounds", one, 0, stale=three)
two = run_loop("Loop, 2 rounds", one, 2)
run_loop("Loop, condition is false", one, 2, False, stale=two)

session, compiled = load(unique)
one = compiled.create_infer_request()
before = check("Unique of [7, 5, 7]", session, one, {"x": np.array([7, 5, 7], np.float32)}, None)
check("Unique of nothing", session, one, {"x": np.zeros(0, np.float32)}, before)
PYTHON
