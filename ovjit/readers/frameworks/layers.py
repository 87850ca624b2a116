"""Layers of TensorFlow: recurrent cells, batch normalization of what it is given, convolutions, boxes."""

from __future__ import annotations

from ovjit.build.bodies import over_slices
from ovjit.readers.onnx.rule_language import *

#: The outputs of a cell of an LSTM: the gates, the state of the cell before and after tanh, and the result.
_LSTM = ("i", "cs", "f", "o", "ci", "co", "h")


def _lstm_step(n: OnnxNode, x: Output, cs: Output, h: Output, fixed: list[Output]) -> dict[str, Output]:
    weights, peeps, bias = fixed[0], fixed[1:4], fixed[4]
    gates = n("Add", n("MatMul", n("Concat", x, h, axis=1), weights), bias)
    order = ("i", "f", "ci", "o") if n.op_type.endswith("V2") else ("i", "ci", "f", "o")
    at = dict(zip(order, n.all("Split", gates, n.const(1), num_splits=4), strict=True))
    peep = bool(n.attr("use_peephole", 0))

    def add_peephole(name: str, state: Output, weight: Output) -> Output:
        return n("Add", at[name], n("Multiply", state, weight)) if peep else at[name]

    forget = add_peephole("f", cs, peeps[1])
    if not n.op_type.endswith("V2"):
        forget = n("Add", forget, n.like(forget, n.attr("forget_bias", 1.0)))
    result = {
        "i": n("Sigmoid", add_peephole("i", cs, peeps[0])),
        "f": n("Sigmoid", forget),
        "ci": n("Tanh", at["ci"]),
    }
    new = n("Add", n("Multiply", result["ci"], result["i"]), n("Multiply", cs, result["f"]))
    most = float(n.attr("cell_clip", 0.0 if n.op_type.endswith("V2") else 3.0))
    new = n("Clamp", new, min=-most, max=most) if most > 0 else new
    result["o"] = n("Sigmoid", add_peephole("o", new, peeps[2]))
    result["co"] = n("Tanh", new)
    return {**result, "cs": new, "h": n("Multiply", result["co"], result["o"])}


def _lstm_cell(n: OnnxNode) -> list[Output]:
    x, cs, h, weights, *peeps, bias = n.tensors()
    result = _lstm_step(n, x, cs, h, [weights, *peeps, bias])
    return [result[name] for name in _LSTM]


def _lstm(n: OnnxNode) -> list[Output | None]:
    """An LSTM over [time, samples, features]. Outputs after the longest sequence are 0."""
    steps, x, cs, h, weights, *peeps, bias = n.tensors()
    output_names = [name for i, name in enumerate(_LSTM) if n.is_output_used(i)]

    def once(state: list[Output], pieces: list[Output], fixed: list[Output]) -> list[Output]:
        result = _lstm_step(n, pieces[0], state[0], state[1], fixed)
        return [result["cs"], result["h"], *(n.same(result[name]) for name in output_names)]

    collected = over_slices(n, once, [cs, h], [x], [weights, *peeps, bias], n.base)[2:]
    length = n.dim_of(x, 0)
    counts = n.along(n("Less", n.upto(length), n.convert(steps, "i64")), 0, 3)
    rows = {k: n("Select", counts, v, n.like(v, 0)) for k, v in zip(output_names, collected, strict=True)}
    return [rows.get(name) for name in _LSTM]


def _gru_cell(n: OnnxNode) -> list[Output]:
    """The gates, the new numbers and the result."""
    x, h, both, weights, both_bias, bias = n.tensors()

    def layer(state: Output, weight: Output, add: Output) -> Output:
        return n("Add", n("MatMul", n("Concat", x, state, axis=1), weight), add)

    reset, update = n.all("Split", n("Sigmoid", layer(h, both, both_bias)), n.const(1), num_splits=2)
    new = n("Tanh", layer(n("Multiply", h, reset), weights, bias))
    remembered = n("Multiply", n("Subtract", h, new), update)
    return [reset, update, new, n("Add", remembered, new)]


def _normalize(n: OnnxNode) -> list[Output | None]:
    """Batch normalization by the batch's own statistics: [y, mean, variance, ...]."""
    x, scale, offset, *old = n.tensors()
    first = n.attr("data_format", "NHWC")[1] == "C"
    upcast = n.upcast(x)
    rank = n.rank(x)
    axes = [i for i in range(rank) if i != (1 if first else rank - 1)]
    mean = n("ReduceMean", upcast, axes, keep_dims=True)
    gap = n("Subtract", upcast, mean)
    spread = n("ReduceMean", n("Multiply", gap, gap), axes, keep_dims=True)

    def each(value: Output) -> Output:
        return n.along(value, 1 if first else rank - 1, rank)

    root = n("Sqrt", n("Add", spread, n.like(spread, n.attr("epsilon", 1e-4))))
    result = n("Add", n("Multiply", n("Divide", gap, root), each(scale)), each(offset))
    flat_mean, flat = (n.reshape(v, [-1]) for v in (mean, spread))
    count = n.convert(n("ReduceProd", n("Gather", n.shape_of(x), axes, 0), [0], keep_dims=False), "f32")
    more = n("Divide", count, n("Maximum", n("Subtract", count, n.like(count, 1)), n.like(count, 1)))
    news = [flat_mean, n("Multiply", flat, more)]
    share = float(n.attr("exponential_avg_factor", 1.0))
    if share != 1:
        news = [
            n("Add", n("Multiply", a, n.like(a, 1 - share)), n("Multiply", b, n.like(b, share)))
            for a, b in zip(old, news, strict=True)
        ]
    nothing = n.const(np.zeros(0, np.float32))
    return [n.convert(result, n.dtype(x)), *news, n.same(flat_mean), n.same(flat), nothing]


def _spatial(values: Any, first: bool) -> list[int]:
    """Spatial entries of a list of all dimensions, without batch and channels."""
    return [int(v) for v in (values[2:] if first else values[1:-1])]


def _explicit(n: OnnxNode, first: bool) -> tuple[list[int], list[int]]:
    pads = [int(v) for v in n.require("explicit_paddings")]
    return [_spatial(pads[i::2], first) for i in (0, 1)]  # type: ignore[return-value]


def _layout(n: OnnxNode, rank: int = 4) -> tuple[bool, list[int], list[int]]:
    """(whether channels are first, the permutation into that layout, the permutation back)."""
    first, every = n.attr("data_format", "NHWC").startswith("NC"), list(range(rank))
    return first, every if first else [0, rank - 1, *every[1:-1]], every if first else [0, *every[2:], 1]


def _gap_before(n: OnnxNode, spare: Output, first: bool) -> Output:
    """Elements cropped before the result of a transposed convolution, of `spare` to be cropped in total."""
    padding = n.attr("padding")
    if padding == "EXPLICIT":
        return n.const(_explicit(n, first)[0])
    if padding == "VALID":
        return n("Multiply", spare, n.const(0))
    return n("Divide", n("Maximum", spare, n.const(0)), n.const(2), m_pythondiv=True)


def _convolved_back(n: OnnxNode) -> Output:
    """A transposed convolution: the full result, cropped to its output size."""
    rank = n.rank(n[1], "the filters' rank")
    first, order, back = _layout(n, rank)
    axes = list(range(2, rank))
    strides, dilations = (_spatial(n.attr(k, [1] * rank), first) for k in ("strides", "dilations"))
    sizes = n("Gather", n.convert(n[0], "i64"), axes if first else [axis - 1 for axis in axes], 0)
    x = n.transpose(n[2], order)
    filters = n.transpose(n[1], [rank - 1, rank - 2, *range(rank - 2)])
    options: dict[str, Any] = {"strides": strides, "dilations": dilations, "auto_pad": "explicit"}
    lengths, windows = (n.concat([n.dim_of(v, axis) for axis in axes], 0) for v in (x, filters))
    one = n.const(1)
    window = n("Add", n("Multiply", n("Subtract", windows, one), n.const(dilations)), one)
    full = n("Add", n("Multiply", n("Subtract", lengths, one), n.const(strides)), window)
    spare = n("Subtract", full, sizes)
    start = n.fold(_gap_before(n, spare, first))
    gaps = [n.value(v) for v in (start, n("Subtract", spare, start))]
    constant_gaps = [gap.tolist() for gap in gaps if gap is not None]
    if len(constant_gaps) == 2:
        before, after = constant_gaps
        result = n(
            "ConvolutionBackpropData", x, filters, **options, pads_begin=before,
            pads_end=[max(gap, 0) for gap in after], output_padding=[max(-gap, 0) for gap in after],
        )  # fmt: skip
        return n.transpose(result, back)
    nothing = [0] * len(axes)
    full = n(
        "ConvolutionBackpropData", x, filters, **options, pads_begin=nothing, pads_end=nothing,
        output_padding=[stride - 1 for stride in strides],
    )  # fmt: skip
    result = n("Slice", full, start, n("Add", sizes, start), [1] * len(axes), axes)
    return n.transpose(result, back)


def _biased_back(n: OnnxNode) -> Output:
    """A transposed convolution with the bias that the exporter may append to its operands."""
    result = _convolved_back(n)
    if len(n) < 4:
        return result
    rank = n.rank(n[1])
    return n("Add", result, n.along(n[3], 1 if _layout(n, rank)[0] else rank - 1, rank))


def _convolved_by_channel(n: OnnxNode) -> Output:
    first, order, back = _layout(n)
    strides, dilations = (_spatial(n.attr(k, [1] * 4), first) for k in ("strides", "dilations"))
    padding = n.attr("padding")
    begin, end = _explicit(n, first) if padding == "EXPLICIT" else ([0, 0], [0, 0])
    # [rows, columns, channels, times] -> [channels, times, 1, rows, columns]
    filters = n.unsqueeze(n.transpose(n[1], [2, 3, 0, 1]), [2])
    result = n(
        "GroupConvolution", n.transpose(n[0], order), filters, strides=strides, dilations=dilations,
        pads_begin=begin, pads_end=end,
        auto_pad={"SAME": "same_upper", "VALID": "valid"}.get(padding, "explicit"),
    )  # fmt: skip
    return n.transpose(result, back)


def _suppress(n: OnnxNode) -> list[Output]:
    """Non-maximum suppression: (selected boxes, their scores, their number)."""
    version = int(n.op_type.rpartition("V")[2]) if n.op_type[-1].isdigit() else 1
    boxes, scores, most, *limits = n.tensors()
    if version == 1:
        limits = [n.const(float(n.attr("iou_threshold", 0.5)))]
    if version < 3:
        limits.append(n.const(-np.inf, "f32"))
    rows, chosen, count = n.all(
        "NonMaxSuppression", n.unsqueeze(n.convert(boxes, "f32"), [0]),
        n.unsqueeze(n.convert(scores, "f32"), [0, 1]), most, *(n.convert(v, "f32") for v in limits),
        box_encoding="corner", sort_result_descending=False, output_type="i32", opset=9,
    )  # fmt: skip
    indices, values = (n("Gather", v, 2, 1) for v in (rows, chosen))
    values = n.convert(values, n.dtype(scores))
    if n.attr("pad_to_max_output_size", 0):
        gap = n("Subtract", n.reshape(n.convert(most, "i64"), [1]), n.convert(count, "i64"))
        indices, values = (
            n("Pad", v, [0], gap, n.like(v, 0), pad_mode="constant") for v in (indices, values)
        )
    count = n.scalar(count)
    return {4: [indices, count], 5: [indices, values, count]}.get(version, [indices])


def _blocks(n: OnnxNode, op: str) -> Output:
    """SpaceToBatch or BatchToSpace (`op`). The older operators have one block size for rows and columns."""
    old = not n.op_type.endswith("ND")
    size = n.const(np.full(2, n.attr("block_size", 2))) if old else n.convert(n[1], "i64")
    edges = n.convert(n[1 if old else 2], "i64")
    begin, end = (n("Gather", edges, i, 1) for i in (0, 1))
    trailing = n.rank(n[0]) - 1 - n.static_shape(size, "the number of blocks")[0]
    lists = [
        n.concat([n.const([fill]), v, *([n.const([fill] * trailing)] if trailing else [])], 0)
        for v, fill in ((size, 1), (begin, 0), (end, 0))
    ]
    return n(op, n[0], *(n.fold(v) for v in lists))


def _patches(n: OnnxNode) -> Output:
    """ExtractImagePatches: windows of images, the pixels of each as channels."""
    sizes, strides, rates = (list(n.require(name))[1:3] for name in ("ksizes", "strides", "rates"))
    padding = {"SAME": "same_upper", "VALID": "valid"}[n.require("padding")]
    result = n(
        "ExtractImagePatches", n("Transpose", n[0], [0, 3, 1, 2]),
        sizes=sizes, strides=strides, rates=rates, auto_pad=padding, opset=3,
    )  # fmt: skip
    return n("Transpose", result, [0, 2, 3, 1])


LAYERS: dict[str, Rule] = {
    "ExtractImagePatches": _patches,
    "BlockLSTM": _lstm,
    "BlockLSTMV2": _lstm,
    "LSTMBlockCell": _lstm_cell,
    "GRUBlockCell": _gru_cell,
    **dict.fromkeys(("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3"), _normalize),
    **dict.fromkeys(("Conv2DBackpropInput", "Conv3DBackpropInputV2"), _biased_back),
    "DepthwiseConv2dNative": _convolved_by_channel,
    **{f"NonMaxSuppression{version}": _suppress for version in ("", "V2", "V3", "V4", "V5")},
    **{name: lambda n: _blocks(n, "BatchToSpace") for name in ("BatchToSpace", "BatchToSpaceND")},
    **{name: lambda n: _blocks(n, "SpaceToBatch") for name in ("SpaceToBatch", "SpaceToBatchND")},
}
