#!/bin/sh
# OpenVINO: SpaceToBatch of an axis shorter than its block fills blocks of padding with other pixels.
#
# Versions: openvino 2026.4.1, numpy 2.4.6, Python 3.11, Linux x86-64.
#
# A block of 4 over an axis of 3 pixels is padded by one; the pixels of the last block's place are then all padding, which is 0 by the
# specification. The CPU plugin finds the last row with a pixel by a division that rounds to zero, (3 - 1 - 3) / 4, so it takes row 0 for -1 and
# copies what comes a block's place behind the axis: the first row of the next channel. Only for the last one is there nothing
# behind, and the zeros stay. Dilated convolutions of small pictures are built like this. What is constant is folded by the
# operation's own `evaluate`, which is right. There is no error or warning; known and open shapes are the same.
# No report was found (openvino PR 16974 mended reads outside the tensor). The same with ONEDNN_MAX_CPU_ISA=AVX2.
#
# Output seen (wrong numbers of all, evaluate and CPU plugin):
#   [1, 2, 3, 4] blocks of 4 rows                evaluate 0 of 32   known shape 4 of 32   open shape 4 of 32
#   [1, 2, 2, 4] blocks of 4 rows                evaluate 0 of 32   known shape 8 of 32   open shape 8 of 32
#   [1, 2, 1, 4] blocks of 3 rows, one in front  evaluate 0 of 24   known shape 4 of 24   open shape 4 of 24
#   [1, 2, 3, 3] blocks of 4 by 4                evaluate 0 of 32   known shape 9 of 32   open shape 9 of 32
#   [1, 3, 4, 1] blocks of 2 columns             evaluate 0 of 24   known shape 11 of 24  open shape 11 of 24
#   [1, 2, 5, 4] blocks of 4 rows                evaluate 0 of 64   known shape 0 of 64   open shape 0 of 64
#   [1, 3, 4, 1]: the second half of the batch is 0 and was [2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 0]
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/environment"
"$folder/environment/bin/pip" install -q openvino==2026.4.1 numpy==2.4.6
"$folder/environment/bin/python" - <<'PYTHON'
import numpy as np
import openvino as ov
from openvino import opset13 as opset


def split(image, block, before, after):
    """What the specification says: pad, cut into blocks, and let the places in a block lead the batch."""
    padded = np.pad(image, list(zip(before, after)))
    shape = [extent // size for extent, size in zip(padded.shape, block)]
    rank = len(block)
    parts = padded.reshape([number for pair in zip(shape, block) for number in pair])
    parts = parts.transpose([*range(1, 2 * rank, 2), *range(0, 2 * rank, 2)])
    return parts.reshape([shape[0] * int(np.prod(block)), *shape[1:]])


def run(shape, image, *numbers):
    parameter = opset.parameter(ov.PartialShape(shape), np.float32)
    node = opset.space_to_batch(parameter, *(opset.constant(np.array(each)) for each in numbers))
    model = ov.Model([node], [parameter])
    return node, ov.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(image)[0]


def evaluate(node, right, *inputs):
    tensor = ov.Tensor(np.zeros_like(right))
    assert node.evaluate([tensor], [ov.Tensor(np.array(each)) for each in inputs])
    return tensor.data


for title, shape, block, before, after, wrong in (
    ("blocks of 4 rows", [1, 2, 3, 4], [1, 1, 4, 1], [0, 0, 0, 0], [0, 0, 1, 0], 4),
    ("blocks of 4 rows", [1, 2, 2, 4], [1, 1, 4, 1], [0, 0, 0, 0], [0, 0, 2, 0], 8),
    ("blocks of 3 rows, one in front", [1, 2, 1, 4], [1, 1, 3, 1], [0, 0, 1, 0], [0, 0, 1, 0], 4),
    ("blocks of 4 by 4", [1, 2, 3, 3], [1, 1, 4, 4], [0, 0, 0, 0], [0, 0, 1, 1], 9),
    ("blocks of 2 columns", [1, 3, 4, 1], [1, 1, 1, 2], [0, 0, 0, 0], [0, 0, 0, 1], 11),
    ("blocks of 4 rows", [1, 2, 5, 4], [1, 1, 4, 1], [0, 0, 0, 0], [0, 0, 3, 0], 0),
):
    image = np.arange(1, np.prod(shape) + 1, dtype=np.float32).reshape(shape)
    right = split(image, block, before, after)
    node, known = run(shape, image, block, before, after)
    _, open_shape = run([-1] * 4, image, block, before, after)
    folded = evaluate(node, right, image, block, before, after)
    counts = [int((array != right).sum()) for array in (folded, known, open_shape)]
    texts = [f"{count} of {right.size}".ljust(8) for count in counts]
    print(f"{shape} {title:31} evaluate {texts[0]}   known shape {texts[1]}   open shape {texts[2]}")
    assert counts == [0, wrong, wrong], "OpenVINO has changed"
    if shape == [1, 3, 4, 1]:
        seen = known[1].ravel().astype(int).tolist()
        assert not right[1].any() and seen == [*range(2, 13), 0], seen
print("[1, 3, 4, 1]: the second half of the batch is 0 and was", seen)
PYTHON
