#!/bin/sh
# tinygrad's ONNX front end: SAME padding crops, ArgMin negates unsigned bytes, Split shares out evenly, and more give other values.
#
# Versions: tinygrad 0.14.0 (device PYTHON, which needs no compiler), onnx 1.23.2, onnxruntime 1.32.0, numpy 2.4.6, Python 3.11.
#
# Each model is valid for ONNX's checker and is run by both without an error or a warning.
# - Conv with auto_pad SAME_UPPER, a kernel of 1 and a stride of 2 (every shortcut of a ResNet that comes from TensorFlow): the padding is
#   computed as -1 and crops the first row and column, so the odd pixels are taken and not the even ones.
# - ArgMin is ArgMax of the negated values: of unsigned integers 0 stays the least, and the least signed integer has no negation.
# - Split-18 with num_outputs gives the last output what is left (3, 3, 1); here the first ones get one more (3, 2, 2).
# - Unsqueeze counts negative axes from the result's rank; here each is counted from the rank so far.
# - Softmax, LogSoftmax and Hardmax before opset 13 work over all axes from the given one on; here over that one alone.
# - MaxPool's indices count through the whole tensor; here each channel begins at 0 again.
# - QuantizeLinear rounds halves to even; here (for uint8) up, as 0.4999999 is added in float32.
# - ReduceLogSumExp of 100 overflows, as the largest value is not subtracted.
# - Attention with fewer heads of keys than of queries: neighbours share a head of keys; here every second query does.
#
# Output seen:
#   Conv SAME_UPPER, stride 2      onnxruntime [0.0, 2.0, 8.0, 10.0]     tinygrad [5.0, 7.0, 13.0, 15.0]
#   ArgMin of uint8 5, 0, 7        onnxruntime [1]                       tinygrad [0]
#   ArgMin of int8 5, -128, -7     onnxruntime [1]                       tinygrad [2]
#   Split of 7, num_outputs 3      onnxruntime [6.0]                     tinygrad [5.0, 6.0]
#   Unsqueeze axes -1, -3          onnxruntime (3, 1, 4, 1)              tinygrad (1, 3, 4, 1)
#   Softmax-11, axis 1             onnxruntime [0.25, 0.25, 0.25, 0.25]  tinygrad [0.5, 0.5, 0.5, 0.5]
#   MaxPool's indices              onnxruntime [0, 2, 4, 6]              tinygrad [0, 2, 0, 2]
#   QuantizeLinear of halves       onnxruntime [2, 4, 100]               tinygrad [3, 5, 101]
#   ReduceLogSumExp of 100, 101    onnxruntime [101.31]                  tinygrad [inf]
#   Attention, 4 heads by 2        onnxruntime [0.0, 0.0, 1.0, 1.0]      tinygrad [0.0, 1.0, 0.0, 1.0]
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/environment"
"$folder/environment/bin/pip" install -q tinygrad==0.14.0 onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
cd "$folder"
DEV=PYTHON "$folder/environment/bin/python" - <<'PYTHON'
import numpy as np
import onnx
import onnxruntime
from tinygrad.nn.onnx import OnnxRunner

f32 = np.float32


def check(title, opset, text, inputs, wanted, seen, output=0, form=lambda y: y.ravel().tolist()):
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": {opset}]> g {text}')
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, "model.onnx")
    session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
    right = form(session.run(None, inputs)[output])
    values = [y.numpy() for y in OnnxRunner("model.onnx")(dict(inputs)).values()]
    found = form(values[output])
    print(f"{title:30} onnxruntime {right!s:25} tinygrad {found}")
    assert right == wanted and found == seen, "the behaviour has changed"


image = np.arange(16, dtype=f32).reshape(1, 1, 4, 4)
check(
    "Conv SAME_UPPER, stride 2",
    20,
    "(float[1,1,4,4] x) => (float[1,1,2,2] y) <float[1,1,1,1] w = {1.0}> "
    '{ y = Conv<auto_pad = "SAME_UPPER", kernel_shape = [1, 1], strides = [2, 2]>(x, w) }',
    {"x": image},
    [0, 2, 8, 10],
    [5, 7, 13, 15],
)
for kind, values, wanted, seen in (("uint8", (5, 0, 7), 1, 0), ("int8", (5, -128, -7), 1, 2)):
    check(
        f"ArgMin of {kind} {', '.join(map(str, values))}",
        20,
        f"({kind}[3] x) => (int64[1] y) {{ y = ArgMin(x) }}",
        {"x": np.array(values, kind)},
        [wanted],
        [seen],
    )
check(
    "Split of 7, num_outputs 3",
    20,
    "(float[7] x) => (float[3] a, float[3] b, float[1] c) { a, b, c = Split<num_outputs = 3>(x) }",
    {"x": np.arange(7, dtype=f32)},
    [6],
    [5, 6],
    output=2,
)
check(
    "Unsqueeze axes -1, -3",
    20,
    "(float[3,4] x) => (float[3,1,4,1] y) <int64[2] axes = {-1, -3}> { y = Unsqueeze(x, axes) }",
    {"x": np.zeros((3, 4), f32)},
    (3, 1, 4, 1),
    (1, 3, 4, 1),
    form=np.shape,
)
check(
    "Softmax-11, axis 1",
    11,
    "(float[1,2,2] x) => (float[1,2,2] y) { y = Softmax<axis = 1>(x) }",
    {"x": np.zeros((1, 2, 2), f32)},
    [0.25] * 4,
    [0.5] * 4,
)
check(
    "MaxPool's indices",
    20,
    "(float[1,2,4] x) => (float[1,2,2] y, int64[1,2,2] i) { y, i = MaxPool<kernel_shape = [2], strides = [2]>(x) }",
    {"x": -np.arange(8, dtype=f32).reshape(1, 2, 4)},
    [0, 2, 4, 6],
    [0, 2, 0, 2],
    output=1,
)
check(
    "QuantizeLinear of halves",
    20,
    "(float[3] x) => (uint8[3] y) <float scale = {1.0}, uint8 zero = {0}> { y = QuantizeLinear(x, scale, zero) }",
    {"x": np.array([2.5, 4.5, 100.5], f32)},
    [2, 4, 100],
    [3, 5, 101],
)
check(
    "ReduceLogSumExp of 100, 101",
    17,
    "(float[2] x) => (float[1] y) { y = ReduceLogSumExp<axes = [0]>(x) }",
    {"x": np.array([100, 101], f32)},
    [101.31],
    [np.inf],
    form=lambda y: np.round(y.astype(float), 2).tolist(),
)
check(
    "Attention, 4 heads by 2",
    23,
    "(float[1,4,1,2] q, float[1,2,1,2] k, float[1,2,1,2] v) => (float[1,4,1,2] y) { y = Attention(q, k, v) }",
    {
        "q": np.zeros((1, 4, 1, 2), f32),
        "k": np.zeros((1, 2, 1, 2), f32),
        "v": np.array([0, 0, 1, 1], f32).reshape(1, 2, 1, 2),
    },
    [0, 0, 1, 1],
    [0, 1, 0, 1],
    form=lambda y: y[0, :, 0, 0].tolist(),
)
PYTHON
