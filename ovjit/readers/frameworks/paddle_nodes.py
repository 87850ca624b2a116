"""Rules for the operators of Paddle's that stay in the ONNX model, with Paddle's operands and attributes."""

from __future__ import annotations

from ovjit.readers.numerics import matrices, special
from ovjit.readers.numerics.factorization import determinant
from ovjit.readers.onnx.rule_language import *

_List = list[Output]
#: The domain of the operators that stay.
DOMAIN = "paddle"


def _of_lists(function: Callable[..., list[list[Output]]]) -> Rule:
    """Make a rule of `function`, from a list of tensors per operand (empty for a missing one) to a list per
    result. The node has the first ones of these."""

    def rule(n: OnnxNode) -> list[Output]:
        inputs = iter(n.inputs)
        operands = [[next(inputs) for _ in range(count)] for count in n.require("operands")]
        result = zip(function(n, *operands), n.require("results"), strict=True)
        return [value for values, count in result for value in values[:count]]

    return rule


def _in_order(n: OnnxNode, value: Output, order: Sequence[int]) -> Output:
    """Reorder the equal parts of the first dimension."""
    if list(order) == sorted(order):
        return value
    size = n.static_shape(value)[0] // len(order)
    return n.fold(n("Gather", value, np.concatenate([np.arange(size) + i * size for i in order]), 0))


def _stack(n: OnnxNode, values: Sequence[Output]) -> Output:
    return n.fold(n.concat([n.unsqueeze(value, [0]) for value in values], 0))


#: Mode -> OpenVINO's sequence, which of Paddle's gates comes where, attributes.
CELLS: dict[str, tuple[str, tuple[int, ...], dict[str, Any]]] = {
    "LSTM": ("LSTMSequence", (1, 0, 2, 3), {}),  # i f c o -> f i c o
    "GRU": ("GRUSequence", (1, 0, 2), {"linear_before_reset": True}),  # r z h -> z r h
    "RNN_TANH": ("RNNSequence", (0,), {"activations": ["tanh"]}),
    "RNN_RELU": ("RNNSequence", (0,), {"activations": ["relu"]}),
}


def _biases(n: OnnxNode, input_biases: Output, recurrent: Output, mode: str, order: Sequence[int]) -> Output:
    """The sums of the biases of inputs and states; the two of a GRU's new state stay apart."""
    w, r = (_in_order(n, value, order) for value in (input_biases, recurrent))
    if mode != "GRU":
        return n.fold(n("Add", w, r))
    size = n.static_shape(w)[0] // 3
    (w_gates, w_new), (r_gates, r_new) = (n.split(value, 0, [2 * size, size]) for value in (w, r))
    return n.fold(n.concat([n("Add", w_gates, r_gates), w_new, r_new], 0))


def _recurrent(
    n: OnnxNode, inputs: _List, states: _List, weights: _List, lengths: _List, _: Any
) -> list[list[Output]]:
    """Stacked recurrent layers, in one direction or both."""
    mode, layers = n.require("mode"), n.require("num_layers")
    directions = 2 if n.attr("is_bidirec", 0) else 1
    op, order, attributes = CELLS[mode]
    matrices, biases = weights[: len(weights) // 2], weights[len(weights) // 2 :]
    x = n.transpose(inputs[0], [1, 0, 2])
    if lengths:
        counts = n.convert(lengths[0], "i32")
    else:
        counts = n.broadcast(n.convert(n.dim_of(x, 1), "i32"), n.dim_of(x, 0))
    ends: list[list[Output]] = [[] for _ in states]
    for layer in range(layers):
        cells = range(layer * directions, (layer + 1) * directions)
        begin = [n.transpose(n.slice(v, 0, cells.start, cells.stop), [1, 0, 2]) for v in states]
        w, r = (_stack(n, [_in_order(n, matrices[2 * i + k], order) for i in cells]) for k in (0, 1))
        b = _stack(n, [_biases(n, biases[2 * i], biases[2 * i + 1], mode, order) for i in cells])
        y, *after = n.all(
            op, x, *begin, counts, w, r, b, hidden_size=n.require("hidden_size"),
            direction="bidirectional" if directions == 2 else "forward", **attributes, opset=5,
        )  # fmt: skip
        rows = n.transpose(y, [0, 2, 1, 3])
        x = n("Reshape", rows, [0, 0, directions * n.require("hidden_size")], special_zero=True)
        for all_ends, end in zip(ends, after, strict=True):
            all_ends.append(n.transpose(end, [1, 0, 2]))
    unused = [n.const(0, "u8")]
    return [[n.transpose(x, [1, 0, 2])], unused, [n.concat(end, 0) for end in ends], unused]


def _matrix_nms(n: OnnxNode) -> list[Output]:
    """Matrix NMS: (selected boxes with classes and scores, their indices, their number per image)."""
    same = n.attrs("score_threshold", "nms_top_k", "keep_top_k", "post_threshold", "gaussian_sigma")
    rows, indices, counts = n.all(
        "MatrixNms", n[0], n[1], **same, sort_result_type="score", output_type="i32",
        background_class=n.attr("background_label", 0), normalized=bool(n.attr("normalized", 1)),
        decay_function="gaussian" if n.attr("use_gaussian", 0) else "linear", opset=8,
    )  # fmt: skip
    return [rows, indices, counts]


def _generate_proposals(n: OnnxNode) -> list[Output]:
    scores, deltas, sizes, anchors, variances = n.inputs
    images = n.concat([sizes, n.broadcast(n.like(sizes, 1), n("ShapeOf", sizes))], 1)
    per_pixel = n("ShapeOf", scores)  # N A H W
    count, height, width = (n.slice(per_pixel, 0, i, i + 1) for i in (1, 2, 3))
    form = n.concat([height, width, count, n.const([4])], 0)
    anchors, variances = (n.reshape(value, form) for value in (anchors, variances))
    spread = n.reshape(n.transpose(variances, [2, 3, 0, 1]), n.concat([n.const([1, -1]), height, width], 0))
    rois, probabilities, counts = n.all(
        "GenerateProposals", images, anchors, n("Multiply", deltas, spread), scores,
        min_size=max(float(n.require("min_size")), 1.0), nms_threshold=n.require("nms_thresh"),
        pre_nms_count=n.require("pre_nms_top_n"), post_nms_count=n.require("post_nms_top_n"),
        normalized=not n.attr("pixel_offset", 1), nms_eta=n.attr("eta", 1.0), roi_num_type="i32", opset=9,
    )  # fmt: skip
    return [rois, n.unsqueeze(probabilities, [1]), counts]


def _nms(n: OnnxNode) -> Output:
    """NMS: the indices of the selected boxes. Boxes are sorted by score."""
    boxes = n.unsqueeze(n[0], [0])
    count = n.dim_of(n[0], 0)
    scores = n.reshape(n.convert(n("Negative", n.upto(count)), n.dtype(boxes)), [1, 1, -1])
    threshold = float(n.require("threshold"))
    selection = n(
        "NonMaxSuppression", boxes, scores, n.scalar(count), threshold, float(-np.inf),
        sort_result_descending=True, output_type="i64", opset=9,
    )  # fmt: skip
    return n.squeeze(n.slice(selection, 1, 2, 3), [1])


def _unique(n: OnnxNode) -> list[Output]:
    """(unique values, the index of the first of each, the index of each element's value, counts)."""
    kind = "i32" if n.attr("dtype", "int64") == "int32" else "i64"
    axes = [n.const(np.int64(axis)) for axis in n.attr("axis", [])]
    return n.all("Unique", n[0], *axes, sorted=True, index_element_type=kind, count_element_type=kind)


def _deformable(n: OnnxNode) -> Output:
    strides, pads, dilations = (n.require(name) for name in ("strides", "paddings", "dilations"))
    return n(
        "DeformableConvolution", n[0], n[1], n[2], *n.inputs[3:], strides=strides, dilations=dilations,
        pads_begin=pads[:2], pads_end=pads[-2:], group=n.require("groups"),
        deformable_group=n.require("deformable_groups"), bilinear_interpolation_pad=True, opset=8,
    )  # fmt: skip


#: The operators, by their names in the domain.
LEFT: Mapping[str, Rule] = {
    "rnn": _of_lists(_recurrent),
    "matrix_nms": _matrix_nms,
    "generate_proposals": _generate_proposals,
    "nms": _nms,
    "unique": _unique,
    "deformable_conv": _deformable,
    "floor_divide": lambda n: n("Divide", n[0], n[1], m_pythondiv=True),
    "digamma": special.in_f64(special.digamma),
    "lgamma": special.in_f64(special.log_gamma),
    "erfinv": lambda n: n("ErfInv", n[0]),
    "i0": special.in_f64(lambda n, x: special.bessel_i(n, x, 0, False)),
    "det": lambda n: determinant(n, n[0]),
    "inverse": lambda n: matrices.inverse(n, n[0]),
}
