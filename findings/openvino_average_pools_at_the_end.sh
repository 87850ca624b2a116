#!/bin/sh
# OpenVINO: AvgPool with `ceil_torch` divides by the whole window where the window leaves the padding, but only if there is padding.
#
# Versions: openvino 2026.4.1, numpy 2.4.6, Python 3.11, Linux x86-64.
#
# AvgPool-14 has the rounding type `ceil_torch` for PyTorch's pools with ceil_mode=True; the PyTorch front end makes it of AvgPool2d. A window may
# then end behind the padding. PyTorch counts the pixels and, by default, the padding (count_include_pad), and nothing behind it. With
# exclude-pad="false", the CPU plugin divides by the window's size if the operation has padding, so the average of ones
# is too small. Without padding it counts as PyTorch does: the same zeros added by Pad in front of a pool without padding, which is
# the same by the specification, give PyTorch's numbers. With the usual pool (window 3, stride 2, padding 1), 5 of 9 numbers are
# wrong, by a third at the edges and by five ninths in the corner. Open shapes and 1 and 3 dimensions are the same.
# torch.nn.functional.avg_pool2d of torch 2.13.0 agrees with Pad in front, and openvino.convert_model of AvgPool2d(3, 2, 1, ceil_mode=True)
# with the padding of the pool (both seen; the script does without torch). The combination was reported for ONNX Runtime
# (pytorch issue 183528) and Core ML (coremltools 2844); for OpenVINO, only shapes were (issues 20721, 33369).
#
# Output seen, the last row of the averages of ones, and how many of the numbers differ:
#   1-D, 4 pixels, window 3, stride 2, padding 1     pool [0.667, 1.000, 0.333]        Pad in front [0.667, 1.000, 0.500]        1 of 3
#   2-D, 4 pixels, window 3, stride 2, padding 1     pool [0.222, 0.333, 0.111]        Pad in front [0.333, 0.500, 0.250]        5 of 9
#   2-D, 5 pixels, window 4, stride 3, padding 2     pool [0.125, 0.250, 0.062]        Pad in front [0.167, 0.333, 0.111]        5 of 9
#   2-D, 6 pixels, window 4, stride 3, padding 1     pool [0.188, 0.250, 0.062]        Pad in front [0.375, 0.500, 0.250]        5 of 9
#   3-D, 4 pixels, window 3, stride 2, padding 1     pool [0.074, 0.111, 0.037]        Pad in front [0.167, 0.250, 0.125]        19 of 27
#   2-D, 5 pixels, window 3, stride 2, padding 1     pool [0.444, 0.667, 0.444]        Pad in front [0.444, 0.667, 0.444]        0 of 9
#   2-D, 4 pixels, window 3, stride 2, padding 0     pool [1.000, 1.000]               Pad in front [1.000, 1.000]               0 of 4
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/environment"
"$folder/environment/bin/pip" install -q openvino==2026.4.1 numpy==2.4.6
"$folder/environment/bin/python" - <<'PYTHON'
import itertools

import numpy as np
import openvino as ov
from openvino import opset14 as opset


def average(rank, extent, window, stride, padding):
    """PyTorch's numbers for ones: pixels by pixels and padding in the window; and the same by the window's size."""
    count = -(-(extent + 2 * padding - window) // stride) + 1
    if (count - 1) * stride >= extent + padding:
        count -= 1
    starts = [i * stride - padding for i in range(count)]
    pixels = [min(start + window, extent) - max(start, 0) for start in starts]
    counted = [min(start + window, extent + padding) - start for start in starts]
    right = [p / c for p, c in zip(pixels, counted)]
    whole = [p / window for p in pixels]
    table = lambda row: np.array([np.prod(each) for each in itertools.product(row, repeat=rank)]).reshape([1, 1] + [count] * rank)
    return table(right), table(whole)


def run(rank, extent, window, stride, padding, pad_before=False, open_shape=False):
    image = np.ones([1, 1] + [extent] * rank, np.float32)
    parameter = opset.parameter(ov.PartialShape([1, 1] + [-1] * rank if open_shape else list(image.shape)), np.float32)
    node = parameter
    if pad_before:
        around = opset.constant(np.array([0, 0] + [padding] * rank))
        node, padding = opset.pad(node, around, around, "constant", opset.constant(np.float32(0))), 0
    pads = [padding] * rank
    pool = opset.avg_pool(node, [stride] * rank, pads, pads, [window] * rank, False, "ceil_torch", "explicit")
    model = ov.Model([pool], [parameter])
    return ov.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(image)[0]


def show(array):
    row = array.reshape(-1, array.shape[-1])[-1]
    return "[" + ", ".join(f"{number:.3f}" for number in row) + "]"


for rank, extent, window, stride, padding in (
    (1, 4, 3, 2, 1), (2, 4, 3, 2, 1), (2, 5, 4, 3, 2), (2, 6, 4, 3, 1), (3, 4, 3, 2, 1), (2, 5, 3, 2, 1), (2, 4, 3, 2, 0),
):
    sizes = rank, extent, window, stride, padding
    right, whole = average(*sizes)
    found = run(*sizes)
    padded = run(*sizes, pad_before=True)
    differ = int((~np.isclose(found, right)).sum())
    title = f"{rank}-D, {extent} pixels, window {window}, stride {stride}, padding {padding}"
    print(f"{title:48} pool {show(found):28} Pad in front {show(padded):28} {differ} of {right.size}")
    assert np.allclose(padded, right), padded
    assert np.allclose(run(*sizes, open_shape=True), found)
    assert np.allclose(found, whole if padding else right), "OpenVINO has changed"
    assert bool(differ) == (padding > 0 and not np.allclose(right, whole))
PYTHON
