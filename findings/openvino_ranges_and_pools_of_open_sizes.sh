#!/bin/sh
# OpenVINO, where sizes are known at run time alone: empty ranges run the other way, and MaxPool with indices loses its padding.
#
# Versions: openvino 2026.4.1, numpy 2.4.6, Python 3.11, Linux x86-64.
#
# A Range whose step leads away from its end has no numbers, and a model of constants has none. If the start or the end is an input, the
# length is the magnitude of the quotient: range(5, 0, 1) has 5 numbers, all behind the start. MaxPool-8
# and -14 with auto_pad pad rightly while only the values are used. If the indices are used, too, as for unpooling, and the shape is
# open, nothing is padded in front: the first window begins at the first pixel, and the last ones are cut.
#
# Output seen:
#   range(5, 0, 1)     constants []   input [5, 6, 7, 8, 9]
#   range(0, -2, 1)    constants []   input [0, 1]
#   range(0, 5, -1)    constants []   input [0, -1, -2, -3, -4]
#   range(1, 7, 3)     constants [1, 4]   input [1, 4]
#   MaxPool-8, values                open sizes: 0 of 16 values differ from known sizes
#   MaxPool-8, values and indices    open sizes: 9 of 16 values differ from known sizes
#   MaxPool-14: the same
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/environment"
"$folder/environment/bin/pip" install -q openvino==2026.4.1 numpy==2.4.6
"$folder/environment/bin/python" - <<'PYTHON'
import numpy as np
import openvino as ov
from openvino import opset8, opset14 as opset


def run(outputs, parameter, data):
    model = ov.Model(outputs, [parameter])
    compiled = ov.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return [np.array(array) for array in compiled(data).values()]


for start, stop, step, wanted in (
    (5, 0, 1, [5, 6, 7, 8, 9]), (0, -2, 1, [0, 1]), (0, 5, -1, [0, -1, -2, -3, -4]), (1, 7, 3, [1, 4]),
):
    right = list(range(start, stop, step))
    numbers = [opset.constant(np.int64(number)) for number in (start, stop, step)]
    zero = opset.parameter([], np.int64)
    constant = run([opset.add(opset.range(*numbers, ov.Type.i64), zero)], zero, np.int64(0))[0].tolist()
    for at, number in enumerate((start, stop)):
        given = opset.parameter([], np.int64)
        inputs = [given if i == at else one for i, one in enumerate(numbers)]
        found = run([opset.range(*inputs, ov.Type.i64)], given, np.int64(number))[0].tolist()
        assert found == wanted, found
    assert constant == right, constant
    print(f"range({start}, {stop}, {step})".ljust(18), f"constants {constant}   input {found}")

image = np.random.default_rng(0).permutation(16).astype(np.float32).reshape(1, 1, 4, 4)
padded = np.pad(image, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=-np.inf)
right = np.stack([padded[..., i : i + 4, j : j + 4] for i in range(3) for j in range(3)]).max(0)
behind = np.pad(image, ((0, 0), (0, 0), (0, 2), (0, 2)), constant_values=-np.inf)
cut = np.stack([behind[..., i : i + 4, j : j + 4] for i in range(3) for j in range(3)]).max(0)
for version, max_pool in (("8", opset8.max_pool), ("14", opset.max_pool)):
    for names in (("values",), ("values", "indices")):
        found = []
        for shape in ([1, 1, 4, 4], [1, 1, -1, -1]):
            parameter = opset.parameter(ov.PartialShape(shape), np.float32)
            pool = max_pool(parameter, [1, 1], [1, 1], [0, 0], [0, 0], [3, 3], auto_pad="same_upper")
            found.append(run([pool.output(i) for i in range(len(names))], parameter, image))
        assert np.array_equal(found[0][0], right)
        assert np.array_equal(found[1][0], right if len(names) == 1 else cut), "OpenVINO has changed"
        differ = int((found[1][0] != right).sum())
        print(f"MaxPool-{version}, {' and '.join(names)}".ljust(32), f"open sizes: {differ} of 16 values differ from known sizes")
PYTHON
