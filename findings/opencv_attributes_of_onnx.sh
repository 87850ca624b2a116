#!/bin/sh
# OpenCV 5's networks: a GRU that is reversed runs forwards, SAME_LOWER pads as SAME_UPPER, cubic grids are linear, int64 is cut to 32 bits.
#
# Versions: opencv-python-headless 5.0.0.93, onnx 1.23.2, onnxruntime 1.32.0, numpy 2.4.6, Python 3.11, Linux x86-64.
#
# cv2.dnn.readNetFromONNX refuses an operator or an option that it does not know with a message. These it takes, and computes something else:
# - GRU with direction "reverse" reads its sequence from the front. The model of forward GRU with the same weights has the same numbers.
#   LSTM is right for the sequence, but its last state is not the one at the front.
# - GRU of which the sequence alone is read gives the last state in its place, so the output has another shape than the model declares.
# - clip of GRU and LSTM and input_forget of LSTM do nothing.
# - auto_pad SAME_LOWER of MaxPool, AveragePool and Conv is SAME_UPPER: where one side has one more, it is the other side.
# - GridSample with mode "cubic" (the bicubic of PyTorch's grid_sample) is "linear". Resize with mode "linear" ignores antialias.
# - Swish ignores alpha (that of x * sigmoid(alpha * x), written with operators, is right), DFT its axis, which is 1.
# - ReduceSum and Mul of int64 compute with the lowest 32 bits of each number.
# Nothing is printed with OpenCV's default level of logs. Where
# another model is named above, the script checks with ONNX Runtime that OpenCV has its numbers.
#
# No report of these for version 5 was found.
#
# Output seen on 2026-11-30:
#   GRU, y and h                   ONNX Runtime (4, 1, 2, 2) [-0.352, 0.255, -0.452]      OpenCV the same
#   GRU, h                         ONNX Runtime (1, 2, 2) [-0.804, -0.93, -0.788]         OpenCV the same
#   GRU reverse, y                 ONNX Runtime (4, 1, 2, 2) [-0.386, -0.084, -0.372]     OpenCV (4, 1, 2, 2) [-0.352, 0.255, -0.452]
#   GRU reverse, h                 ONNX Runtime (1, 2, 2) [-0.386, -0.084, -0.372]        OpenCV (1, 2, 2) [-0.804, -0.93, -0.788]
#   GRU clip 0.3, h                ONNX Runtime (1, 2, 2) [-0.276, -0.244, -0.255]        OpenCV (1, 2, 2) [-0.804, -0.93, -0.788]
#   GRU, y alone                   ONNX Runtime (4, 1, 2, 2) [-0.352, 0.255, -0.452]      OpenCV (1, 2, 2) [-0.804, -0.93, -0.788]
#   LSTM, y and h                  ONNX Runtime (4, 1, 2, 2) [0.247, 0.384, 0.099]        OpenCV the same
#   LSTM, h                        ONNX Runtime (1, 2, 2) [0.062, -0.027, -0.479]         OpenCV the same
#   LSTM reverse, y                ONNX Runtime (4, 1, 2, 2) [0.279, 0.205, 0.095]        OpenCV the same
#   LSTM reverse, h                ONNX Runtime (1, 2, 2) [0.279, 0.205, 0.095]           OpenCV (1, 2, 2) [0.11, 0.058, -0.498]
#   LSTM clip 0.3, h               ONNX Runtime (1, 2, 2) [0.093, 0.043, -0.047]          OpenCV (1, 2, 2) [0.062, -0.027, -0.479]
#   LSTM input_forget, h           ONNX Runtime (1, 2, 2) [0.042, -0.152, -0.541]         OpenCV (1, 2, 2) [0.062, -0.027, -0.479]
#   LSTM, y alone                  ONNX Runtime (4, 1, 2, 2) [0.247, 0.384, 0.099]        OpenCV the same
#   MaxPool SAME_UPPER             ONNX Runtime (1, 2, 5, 5) [0.258, -0.135, -0.135]      OpenCV the same
#   MaxPool SAME_LOWER             ONNX Runtime (1, 2, 5, 5) [0.076, 0.076, -0.135]       OpenCV (1, 2, 5, 5) [0.258, -0.135, -0.135]
#   AveragePool SAME_UPPER         ONNX Runtime (1, 2, 5, 5) [-0.415, -0.79, -0.744]      OpenCV the same
#   AveragePool SAME_LOWER         ONNX Runtime (1, 2, 5, 5) [0.076, -0.676, -0.781]      OpenCV (1, 2, 5, 5) [-0.415, -0.79, -0.744]
#   Conv SAME_UPPER                ONNX Runtime (1, 2, 5, 5) [0.885, 1.737, -2.392]       OpenCV the same
#   Conv SAME_LOWER                ONNX Runtime (1, 2, 5, 5) [0.015, 0.667, 0.442]        OpenCV (1, 2, 5, 5) [0.885, 1.737, -2.392]
#   GridSample linear              ONNX Runtime (1, 2, 3, 3) [0.174, 0.097, -0.462]       OpenCV the same
#   GridSample cubic               ONNX Runtime (1, 2, 3, 3) [0.143, 0.059, -0.37]        OpenCV (1, 2, 3, 3) [0.174, 0.097, -0.462]
#   Resize linear                  ONNX Runtime (1, 2, 3, 3) [-0.289, -0.433, -0.86]      OpenCV the same
#   Resize linear, antialias       ONNX Runtime (1, 2, 3, 3) [-0.324, -0.701, -0.82]      OpenCV (1, 2, 3, 3) [-0.289, -0.433, -0.86]
#   Swish                          ONNX Runtime (2, 3) [2.635, -0.183, 0.088]             OpenCV the same
#   Swish, alpha 0.5               ONNX Runtime (2, 3) [2.242, -0.21, 0.085]              OpenCV (2, 3) [2.635, -0.183, 0.088]
#   x * sigmoid(0.5 x)             ONNX Runtime (2, 3) [2.242, -0.21, 0.085]              OpenCV the same
#   DFT, axis 1                    ONNX Runtime (1, 4, 5, 2) [1.985, 0.0, 1.289]          OpenCV the same
#   DFT, axis 2                    ONNX Runtime (1, 4, 5, 2) [2.044, -0.0, 0.957]         OpenCV (1, 4, 5, 2) [1.985, 0.0, 1.289]
#   sum of int64                   ONNX Runtime (1,) [9008298766368776.0]                 OpenCV (1,) [8.0]
#   3 times int64                  ONNX Runtime (3,) [2.702159776422298e+16, 3298534883328.0, 21.0] OpenCV (3,) [3.0, 0.0, 21.0]
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q opencv-python-headless==5.0.0.93 onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
cd "$folder"
"$folder/env/bin/python" -W ignore - <<'PYTHON'
import cv2
import numpy as np
import onnx
import onnxruntime

onnxruntime.set_default_logger_severity(4)
generator = np.random.default_rng(0)


def numbers(*shape):
    return generator.normal(size=shape).astype(np.float32)


def write(name, array):
    return f"float[{','.join(map(str, array.shape))}] {name} = {{{', '.join(repr(float(value)) for value in array.ravel())}}}"


def build(text):
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 24]> g {text}')
    onnx.checker.check_model(model, full_check=True)
    return model


def run_ort(text, feeds):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(build(text).SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, feeds)[0]


def run_opencv(text, feeds):
    model = build(text)
    onnx.save(model, "model.onnx")
    net = cv2.dnn.readNetFromONNX("model.onnx")
    for name, array in feeds.items():
        net.setInput(array, name)
    return np.asarray(net.forward([output.name for output in model.graph.output])[0])


def same(left, right):
    return left.shape == right.shape and np.allclose(left, right, atol=1e-3)


def check(title, text, feeds, instead=None, right=False, wanted=None):
    """`instead` is the text of the model that OpenCV computes, `wanted` an array that it gives."""
    expected, found = run_ort(text, feeds), run_opencv(text, feeds)
    if instead:
        wanted = run_ort(instead, feeds)
    show = lambda array: f"{array.shape} {array.ravel()[:3].astype(float).round(3).tolist()}"
    print(f"{title:30} ONNX Runtime {show(expected):41} OpenCV {'the same' if same(expected, found) else show(found)}")
    assert same(expected, found) == right, f"{title}: OpenCV has changed"
    assert wanted is None or same(wanted, found), f"{title}: OpenCV has changed"


x = {"x": numbers(4, 2, 3)}
for kind, gates in (("GRU", 3), ("LSTM", 4)):
    weights = ", ".join(write(name, numbers(1, *shape)) for name, shape in (("W", (gates * 2, 3)), ("R", (gates * 2, 2)), ("B", (gates * 4,))))

    def layer(option, *outputs):
        shapes = {"y": "float[4,1,2,2] y", "h": "float[1,2,2] h"}
        results = ", ".join(shapes[name] for name in outputs)
        return f"(float[4,2,3] x) => ({results}) <{weights}> {{ y, h = {kind}<{option}hidden_size = 2>(x, W, R, B) }}"

    reverse, clip, forget = 'direction = "reverse", ', "clip = 0.3, ", "input_forget = 1, "
    check(f"{kind}, y and h", layer("", "y", "h"), x, right=True)
    check(f"{kind}, h", layer("", "h"), x, right=True)
    check(f"{kind} reverse, y", layer(reverse, "y", "h"), x, layer("", "y", "h") if kind == "GRU" else None, right=kind == "LSTM")
    check(f"{kind} reverse, h", layer(reverse, "h"), x, layer("", "h") if kind == "GRU" else None)
    check(f"{kind} clip 0.3, h", layer(clip, "h"), x, layer("", "h"))
    if kind == "LSTM":
        check(f"{kind} input_forget, h", layer(forget, "h"), x, layer("", "h"))
    alone = layer("", "y").replace("y, h =", "y =")
    check(f"{kind}, y alone", alone, x, layer("", "h") if kind == "GRU" else None, right=kind == "LSTM")

image = {"x": numbers(1, 2, 5, 5)}
weights = f"<{write('w', numbers(2, 2, 2, 2))}>"
for operator in ("MaxPool<kernel_shape = [2, 2], {}>(x)", "AveragePool<kernel_shape = [2, 2], {}>(x)", "Conv<{}>(x, w)"):
    texts = [
        f"(float[1,2,5,5] x) => (float[1,2,5,5] y) {weights} {{ y = {operator.format(pad)} }}"
        for pad in ('auto_pad = "SAME_LOWER"', 'auto_pad = "SAME_UPPER"')
    ]
    name = operator.split("<")[0]
    check(f"{name} SAME_UPPER", texts[1], image, right=True)
    check(f"{name} SAME_LOWER", texts[0], image, texts[1])

grid = {**image, "g": generator.uniform(-0.9, 0.9, (1, 3, 3, 2)).astype(np.float32)}
texts = [
    f'(float[1,2,5,5] x, float[1,3,3,2] g) => (float[1,2,3,3] y) {{ y = GridSample<mode = "{mode}", align_corners = 1>(x, g) }}'
    for mode in ("cubic", "linear")
]
check("GridSample linear", texts[1], grid, right=True)
check("GridSample cubic", texts[0], grid, texts[1])
texts = [
    f'(float[1,2,5,5] x) => (float[1,2,3,3] y) <int64[4] s = {{1, 2, 3, 3}}> {{ y = Resize<mode = "linear"{option}>(x, , , s) }}'
    for option in (", antialias = 1", "")
]
check("Resize linear", texts[1], image, right=True)
check("Resize linear, antialias", texts[0], image, texts[1])

matrix = {"x": numbers(2, 3)}
check("Swish", "(float[2,3] x) => (float[2,3] y) { y = Swish(x) }", matrix, right=True)
check("Swish, alpha 0.5", "(float[2,3] x) => (float[2,3] y) { y = Swish<alpha = 0.5>(x) }", matrix, "(float[2,3] x) => (float[2,3] y) { y = Swish(x) }")
product = "(float[2,3] x) => (float[2,3] y) <float half = {0.5}> { h = Mul(x, half) s = Sigmoid(h) y = Mul(x, s) }"
check("x * sigmoid(0.5 x)", product, matrix, right=True)
signal = {"x": numbers(1, 4, 5, 1)}
texts = [f"(float[1,4,5,1] x) => (float[1,4,5,2] y) <int64 axis = {{{axis}}}> {{ y = DFT(x, , axis) }}" for axis in (2, 1)]
check("DFT, axis 1", texts[1], signal, right=True)
check("DFT, axis 2", texts[0], signal, texts[1])

large = {"x": np.array([2**53 + 1, 2**40, 7])}
low = large["x"].astype(np.int32).astype(np.int64)
check("sum of int64", "(int64[3] x) => (int64[1] y) { y = ReduceSum(x) }", large, wanted=low.sum(keepdims=True))
check("3 times int64", "(int64[3] x) => (int64[3] y) <int64 three = {3}> { y = Mul(x, three) }", large, wanted=low * 3)
PYTHON
