#!/bin/sh
# OpenVINO: Convert to boolean reads the first output of the node before it, whichever output it is connected to.
#
# Versions: openvino 2026.4.1, numpy 2.4.6, Python 3.11, Linux x86-64.
#
# The CPU plugin computes a conversion to boolean in three steps (the magnitude, the smaller of it and 255, the ceiling) in front of a
# conversion to u8. It connects the steps to the node that is converted, and not to the output. So what is converted is output 0 of Split, the
# whole sequence instead of the last state of RNNSequence, and the values of MaxPool instead of the indices. The shape changes with it:
# the last state [1, 1, 1] becomes a boolean tensor of shape [1, 1, 2, 1] although the model says [1, 1, 1]. Nodes without a default
# output, such as VariadicSplit and TopK, are refused even for output 0: "Default output not supported".
# NotEqual to 0, which is the same by the specification of Convert, is right for all of them.
# No report was found (openvino PR 23671 brought the three steps).
#
# Output seen:
#   Split, output 0                  Convert [F, F]         NotEqual [F, F]
#   Split, output 1                  Convert [F, F]         NotEqual [T, T]
#   MaxPool, values                  Convert [T]            NotEqual [T]
#   MaxPool, indices                 Convert [T]            NotEqual [F]
#   RNNSequence, last state          Convert [T, F] of shape [1, 1, 2, 1], the model says [1, 1, 1]   NotEqual [F]
#   VariadicSplit, output 0          Convert is refused     NotEqual [F, F]
#   VariadicSplit, output 1          Convert is refused     NotEqual [T, T]
#   TopK, indices                    Convert is refused     NotEqual [T]
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/environment"
"$folder/environment/bin/pip" install -q openvino==2026.4.1 numpy==2.4.6
"$folder/environment/bin/python" - <<'PYTHON'
import numpy as np
import openvino as ov
from openvino import opset8, opset13 as opset

REFUSED = "Default output not supported"


def run(output, parameter, data):
    """The result and the shape that the model promises."""
    model = ov.Model([opset.result(output)], [parameter])
    shape = list(model.output(0).get_shape())
    return np.array(ov.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(data)[0]), shape


def show(array):
    return "[" + ", ".join("FT"[int(element)] for element in array.ravel()) + "]"


def check(title, output, parameter, data, right, seen, shape=None):
    """`seen`: what Convert gives, or None where it is refused; `shape`: its shape if it is not the model's."""
    zero = opset.constant(np.zeros((), output.get_element_type().to_dtype()))
    compared, _ = run(opset.not_equal(output, zero), parameter, data)
    assert compared.ravel().tolist() == right, compared
    try:
        converted, promised = run(opset.convert(output, "boolean"), parameter, data)
    except RuntimeError as error:
        assert seen is None and REFUSED in str(error), error
        text = "is refused"
    else:
        assert seen is not None and converted.ravel().tolist() == seen, ("the behaviour has changed", converted)
        assert list(converted.shape) == (shape or promised), converted.shape
        text = show(converted)
        if shape:
            text += f" of shape {shape}, the model says {promised}  "
    print(f"{title:32} Convert {text:14} NotEqual {show(compared)}")


row, numbers = opset.parameter([4], np.float32), np.float32([0, 0, 1, 2])
axis = opset.constant(np.int64(0))
split = opset.split(row, axis, 2)
check("Split, output 0", split.output(0), row, numbers, [False, False], [False, False])
check("Split, output 1", split.output(1), row, numbers, [True, True], [False, False])

image = opset.parameter([1, 1, 1, 2], np.float32)
pool = opset8.max_pool(image, [1, 1], [1, 1], [0, 0], [0, 0], [1, 2])
pixels = np.float32([3, 0]).reshape(1, 1, 1, 2)
check("MaxPool, values", pool.output(0), image, pixels, [True], [True])
check("MaxPool, indices", pool.output(1), image, pixels, [False], [True])

# hidden states relu(x): the second, which is the last, is 0
sequence = opset.parameter([1, 2, 1], np.float32)
start, one, nothing = (opset.constant(np.full((1, 1, 1), number, np.float32)) for number in (0, 1, 0))
recurrence = opset.rnn_sequence(
    sequence, start, opset.constant(np.array([2])), one, nothing, opset.constant(np.zeros((1, 1), np.float32)), 1, "forward", ["relu"]
)
steps = np.float32([1, 0]).reshape(1, 2, 1)
check("RNNSequence, last state", recurrence.output(1), sequence, steps, [False], [True, False], [1, 1, 2, 1])

parts = opset.variadic_split(row, axis, opset.constant(np.array([2, 2])))
check("VariadicSplit, output 0", parts.output(0), row, numbers, [False, False], None)
check("VariadicSplit, output 1", parts.output(1), row, numbers, [True, True], None)
top = opset.topk(row, opset.constant(np.int64(1)), 0, "max", "value")
check("TopK, indices", top.output(1), row, numbers, [True], None)
PYTHON
