#!/bin/sh
# OpenVINO's Python API: `if_op` drops a condition that is computed, and the first byte of the first input becomes the condition.
#
# Versions: openvino 2026.4.1, numpy 2.4.6, Python 3.11, Linux x86-64.
#
# `if_op` takes a node or an output. A node is kept if it is a Parameter or a Constant. Any other node, such as Greater or LogicalNot,
# is dropped without a word: the new If has no inputs. The first `set_input` then takes the condition's place, as port 0 is the condition
# and nothing says how many ports there are. The model is valid for OpenVINO and compiles, although the specification wants one
# element that is a boolean or becomes one. The CPU plugin reads one byte of the data, the lowest of the first number: 1.0 and 256 are
# false, 0.1 and 1 are true.
# The same node as `node.output(0)` is right, and so are `loop` with computed nodes and If of ONNX files.
#
# Output seen, sum(x) > 0 ? x : -x, for rows that are 0 behind the first number, or [1, 2, 3]:
#   node.output(0), float32  inputs ['Greater', 'Parameter']   first numbers [1, 0.1, -0.1] become [1.0, 0.1, 0.1]
#   node, float32            inputs ['Parameter']              first numbers [1, 0.1, -0.1] become [-1.0, 0.1, -0.1]
#   node.output(0), int32    inputs ['Greater', 'Parameter']   first numbers [1, 256, -1] become [1, 256, 1]
#   node, int32              inputs ['Parameter']              first numbers [1, 256, -1] become [1, -256, -1]
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/environment"
"$folder/environment/bin/pip" install -q openvino==2026.4.1 numpy==2.4.6
cd "$folder"
"$folder/environment/bin/python" - <<'PYTHON'
import numpy as np
import openvino as ov
from openvino import opset13 as opset


def compile_choice(dtype, as_output):
    """Return the type names of the inputs of an If, and sum(x) > 0 ? x : -x compiled."""
    x, kept, negated = (opset.parameter([3], dtype) for _ in range(3))
    condition = opset.greater(opset.reduce_sum(x, [0], False), opset.constant(dtype(0)))
    branch = opset.if_op(condition.output(0) if as_output else condition)
    results = opset.result(opset.multiply(kept, opset.constant(dtype(1)))), opset.result(opset.negative(negated))
    branch.set_then_body(ov.Model([results[0]], [kept]))
    branch.set_else_body(ov.Model([results[1]], [negated]))
    branch.set_input(x.output(0), kept, negated)
    model = ov.Model([opset.result(branch.set_output(*results))], [x])
    names = [value.get_node().get_type_name() for value in branch.input_values()]
    return names, ov.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})


for dtype, rows in ((np.float32, ([1, 2, 3], [0.1, 0, 0], [-0.1, 0, 0])), (np.int32, ([1, 2, 3], [256, 0, 0], [-1, 0, 0]))):
    for as_output in (True, False):
        names, compiled = compile_choice(dtype, as_output)
        assert names == (["Greater", "Parameter"] if as_output else ["Parameter"]), names
        found = []
        for row in rows:
            row = np.array(row, dtype)
            right = row if row.sum() > 0 else -row
            seen = row if row.tobytes()[0] else -row
            result = compiled(row)[0]
            assert np.array_equal(result, right if as_output else seen), "the behaviour has changed"
            found.append(round(result[0].item(), 3))
        title = f"{'node.output(0)' if as_output else 'node'}, {np.dtype(dtype)}"
        print(f"{title:24} inputs {names!s:26} first numbers {[row[0] for row in rows]} become {found}")
PYTHON
