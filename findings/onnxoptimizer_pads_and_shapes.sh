#!/bin/sh
# onnxoptimizer: zeros of a Pad become the -infinity of MaxPool, or end windows of AveragePool; Shape's start is ignored.
#
# Versions: onnxoptimizer 0.4.2, onnxsim 0.8.1, onnx 1.23.2, onnxruntime 1.32.0, numpy 2.4.6, Python 3.11, Linux x86-64.
#
# A Pad with zeros goes into the pooling behind it. MaxPool pads with -infinity, so a border of zeros around negative numbers is gone.
# With ceil_mode, a window may begin in the zeros of a Pad, as these are its data, but not in the padding of the pool: the result has a
# row and a column less than the graph declares. onnxsim, which contains these passes, does the latter, too. Shape has had start and end
# since opset 15; the pass that computes constant slices of shapes ignores them. Both packages are called with their default choices:
# onnxoptimizer with the passes that it lists as fusing and eliminating.
#
# Output seen:
#   MaxPool of a padded image of -1    before [0.0, 0.0, 0.0]    onnxoptimizer [-1.0, -1.0, -1.0]  onnxsim [0.0, 0.0, 0.0]
#   AveragePool with ceil_mode         before (3, 3)             onnxoptimizer (2, 2)              onnxsim (2, 2)
#   Shape<start=1> and Slice [-2:]     before [3, 4]             onnxoptimizer [2, 3]              onnxsim [3, 4]
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/environment"
"$folder/environment/bin/pip" install -q onnxoptimizer==0.4.2 onnxsim==0.8.1 onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
"$folder/environment/bin/python" - <<'PYTHON'
import copy

import numpy as np
import onnx
import onnxoptimizer
import onnxruntime
import onnxsim

onnxruntime.set_default_logger_severity(3)
TOOLS = {
    "before": lambda model: model,
    "onnxoptimizer": lambda model: onnxoptimizer.optimize(model, onnxoptimizer.get_fuse_and_elimination_passes()),
    "onnxsim": lambda model: onnxsim.simplify(model)[0],
}


def check(name, text, x, *wanted):
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 20]> g {text}')
    onnx.checker.check_model(model, full_check=True)
    line = f"{name:34}"
    for (tool, optimize), expected in zip(TOOLS.items(), wanted, strict=True):
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        optimized = optimize(copy.deepcopy(model)).SerializeToString()
        session = onnxruntime.InferenceSession(optimized, options, providers=["CPUExecutionProvider"])
        result = session.run(None, {"x": x})[0]
        found = result.shape[2:] if isinstance(expected, tuple) else result.ravel()[: len(expected)].tolist()
        line += f" {tool} {found!s:19}"
        assert found == expected, f"{tool} has changed: {found}"
    print(line)


ones = np.ones((1, 1, 4, 4), np.float32)
pads = "<int64[8] pads = {0, 0, 1, 1, 0, 0, 1, 1}>"
text = f"(float[1,1,4,4] x) => (float[1,1,5,5] y) {pads} {{ p = Pad(x, pads) y = MaxPool<kernel_shape = [2, 2]>(p) }}"
check("MaxPool of a padded image of -1", text, -ones, [0.0] * 3, [-1.0] * 3, [0.0] * 3)
wide = np.ones((1, 1, 5, 5), np.float32)
pool = "AveragePool<kernel_shape = [3, 3], strides = [3, 3], ceil_mode = 1>(p)"
text = f"(float[1,1,5,5] x) => (float[1,1,3,3] y) {pads} {{ p = Pad(x, pads) y = {pool} }}"
check("AveragePool with ceil_mode", text, wide, (3, 3), (2, 2), (2, 2))
text = (
    "(float[2,3,4] x) => (int64[2] y) <int64[1] low = {-2}, int64[1] high = {9}> "
    "{ s = Shape<start = 1>(x) y = Slice(s, low, high) }"
)
check("Shape<start=1> and Slice [-2:]", text, np.zeros((2, 3, 4), np.float32), [3, 4], [2, 3], [3, 4])
PYTHON
