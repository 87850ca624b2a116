"""Operators from ONNX Runtime's exporters and graph optimizer, other than quantization and attention."""

from __future__ import annotations

from ovjit.readers.onnx.activations import activation
from ovjit.readers.onnx.choices import choices_of, declare_choices
from ovjit.readers.onnx.nn import convolve, layer_norm, max_pool, rms_norm
from ovjit.readers.onnx.quant import dequantize, integer_matmul
from ovjit.readers.onnx.registry import find_rule, find_schema
from ovjit.readers.onnx_contrib.attention import projected_attention
from ovjit.readers.onnx_contrib.rule_language import *

#: Operators that com.microsoft has as ai.onnx has them, with the version that says so.
SAME = {
    "GridSample": 16, "Trilu": 14, "GatherND": 13, "Range": 11, "DFT": 17, "Resize": 13, "Pad": 13,
}  # fmt: skip


def as_standard(name: str, version: int) -> None:
    """Register an operator of com.microsoft that equals the ai.onnx operator of this version."""

    ms(name)(lambda n: standard(n, name, version))
    declare_choices(MICROSOFT, {name: choices_of("", name)})


def standard(n: OnnxNode, name: str, version: int) -> Any:
    """Reads a node as the ai.onnx operator `name` in a version."""
    rule = find_rule("", name, version)
    assert rule is not None
    n.version, n.schema = version, find_schema("", name, version)
    return rule(n)


for _name, _version in SAME.items():
    as_standard(_name, _version)


@ms("BiasSplitGelu")
def bias_split_gelu(n: OnnxNode) -> Any:
    """The left half times the Gelu of the right."""
    x = n("Add", n[0], n[1])
    value, gate = n.all("Split", x, n.rank(x) - 1, num_splits=2)
    return n("Multiply", value, n("Gelu", gate, approximation_mode="ERF", opset=7))


@ms("BiasSoftmax")
def bias_softmax(n: OnnxNode) -> Any:
    x = n("Add", n[0], n[1])
    axis = n.axis(n.attr("axis", 1), n.rank(x))
    if axis != n.rank(x) - 1:
        raise UnsupportedError("a softmax over several dimensions is not supported")
    return n("Softmax", x, axis=axis, opset=8)


def activation_of(n: OnnxNode, x: Output) -> Output:
    """Apply the activation of a fused operator to x."""
    name = n.attr("activation")
    if not name:
        return x
    params = list(n.attr("activation_params") or [])
    if name == "Gelu":
        return n("Gelu", x)
    if name == "Clip":
        if len(params) != 2:
            raise ModelError(f"Clip needs two activation_params, not {len(params)}")
        return n("Clamp", x, min=params[0], max=params[1])
    alpha = params[0] if params else n.attr("activation_alpha")
    beta = params[1] if len(params) == 2 else n.attr("activation_beta")
    return activation(n, name.lower(), x, alpha, beta)


@ms("FusedMatMul")
@ms("TransposeMatMul")
@ms("SparseToDenseMatMul")
def fused_matmul(n: OnnxNode) -> Any:
    """alpha * op(A) @ op(B); transBatch moves the first dimension after the others but the last.
    A sparse A is a dense one here."""
    a, b = n[0], n[1]
    for which in "AB":
        if n.attr(f"transBatch{which}", 0):
            x = a if which == "A" else b
            rank = n.rank(x)
            x = n.transpose(x, [*range(1, rank - 1), 0, rank - 1])
            a, b = (x, b) if which == "A" else (a, x)
    trans = [bool(n.attr(f"trans{which}", 0)) for which in "AB"]
    out = n("MatMul", a, b, transpose_a=trans[0], transpose_b=trans[1])
    alpha = n.attr("alpha", 1.0)
    return out if alpha == 1 else n("Multiply", out, n.like(out, alpha))


@ms("NhwcConv")
@ms("NhwcFusedConv")
def nhwc_conv(n: OnnxNode) -> Any:
    """A convolution of images with channels last; filters are [O, I, ...]."""
    out = convolve(n, n.channels_first(n[0]), n[1], n.optional(2))
    if n.has(3):
        out = n("Add", out, n.channels_first(n[3]))
    return n.channels_last(activation_of(n, out))


@ms("NhwcMaxPool")
def nhwc_max_pool(n: OnnxNode) -> Any:
    n.inputs = [n.channels_first(n[0])]
    n.attributes = {"dilations": None} | n.attributes
    return n.channels_last(max_pool(n)[0])


# -- normalisation -------------------------------------------------------------------------------------------


@onnx_op("SimplifiedLayerNormalization")
@ms("SimplifiedLayerNormalization")
@ms("RMSNormalization")
def simplified_layer_normalization(n: OnnxNode) -> Any:
    return rms_norm(n, n[0], n[1], n.attr("axis", -1), n.attr("epsilon", 1e-5))


@ms("SkipLayerNormalization")
def skip_layer_normalization(n: OnnxNode) -> Any:
    """(input, skip, gamma, beta, bias) -> (normalised, mean, inverse deviation, the sum)"""
    total = n.add_input(n("Add", n[0], n[1]), 4)
    out = layer_norm(n, total, n[2], n.optional(3), -1, n.attr("epsilon", 1e-12))
    return [*out, *[None] * (3 - len(out)), total]


@ms("SkipSimplifiedLayerNormalization")
def skip_simplified_layer_normalization(n: OnnxNode) -> Any:
    """(input, skip, gamma, bias) -> (normalised, 0, inverse of the root mean square, the sum)"""
    total = n.add_input(n("Add", n[0], n[1]), 3)
    epsilon = n.attr("epsilon", 1e-12)
    statistics: list[Output | None] = [None, None]
    if n.is_output_used(1) or n.is_output_used(2):
        upcast = n.upcast(total)
        squares = n("ReduceMean", n("Multiply", upcast, upcast), [-1], keep_dims=True)
        inverse = n("Divide", n.like(upcast, 1), n("Sqrt", n("Add", squares, n.like(upcast, epsilon))))
        statistics = [n.broadcast(n.like(inverse, 0), n.shape_of(inverse)), inverse]
    return [rms_norm(n, total, n[2], -1, epsilon), *statistics, total]


@ms("EmbedLayerNormalization")
def embed_layer_normalization(n: OnnxNode) -> Any:
    """(ids, segment ids, tables of words, positions and segments, gamma, beta, mask, position ids)
    -> (normalised, length of each item, the sum)"""
    segments = n("Gather", n[4], n[1], 0, opset=8) if n.has(1) and n.has(4) else None
    return _embed(n, n[2], n[3], segments, n[5], n[6], n.optional(7), n.optional(8))


@ms("QEmbedLayerNormalization")
def qembed_layer_normalization(n: OnnxNode) -> Any:
    """(ids, segment ids, tables, gamma, beta, mask, scales of the five, zero points of the five)"""
    tables = [
        dequantize(n, n[i], n[s], n[z]) if n.has(i) else None
        for i, s, z in ((2, 8, 13), (3, 9, 14), (4, 10, 15), (5, 11, 16), (6, 12, 17))
    ]
    words, position_table, kinds, gamma, beta = tables
    if words is None or position_table is None or gamma is None or beta is None:
        raise ModelError("a table, gamma or beta is missing")
    segments = n("Gather", kinds, n[1], 0, opset=8) if n.has(1) and kinds is not None else None
    return _embed(n, words, position_table, segments, gamma, beta, n.optional(7), None)[:2]


def _embed(
    n: OnnxNode, words: Output, table: Output, segments: Output | None, gamma: Output, beta: Output,
    mask: Output | None, position_ids: Output | None,
) -> list[Output | None]:  # fmt: skip
    """(normalised sum of word, position and segment embeddings, length of each item, the sum)"""
    ids = n[0]
    if position_ids is not None:
        positions = n("Gather", table, position_ids, 0, opset=8)
    else:
        positions = n("Slice", table, [0], n.dim_of(ids, 1), [1], [0])
    total = n("Add", n("Gather", words, ids, 0, opset=8), positions)
    if segments is not None:
        total = n("Add", total, segments)
    lengths: Output | None = None
    if mask is not None:
        lengths = n("ReduceSum", n.convert(mask, "i32"), [1], keep_dims=False)
    elif n.is_output_used(1):
        lengths = n.broadcast(n.const(0, "i32"), n.dim_of(ids, 0))
    out = n("Multiply", n.standardize(total, [-1], n.attr("epsilon", 1e-12)), gamma)
    return [n("Add", out, beta), lengths, total]


@ms("SkipGroupNorm")
def skip_group_norm(n: OnnxNode) -> Any:
    """(x, gamma, beta, skip as x or of one row for all pixels, bias) -> (normalised, the sum)"""
    last = bool(n.attr("channels_last", 1))
    skip, bias = n[3], n.optional(4)
    if n.rank(skip) == 2:
        skip = n.unsqueeze(skip, [1, 2] if last else [2, 3])
    total = n("Add", n[0], skip)
    if bias is not None:
        total = n("Add", total, bias if last else n.unsqueeze(bias, [1, 2]))
    return [_normalised_groups(n, total), total]


def _normalised_groups(n: OnnxNode, x: Output) -> Output:
    """Channels last unless channels_last=0; with activation=1 followed by x * sigmoid(x)."""
    last = bool(n.attr("channels_last", 1))
    x = n.channels_first(x) if last else x
    out = n("GroupNormalization", x, n.convert(n[1], n.dtype(x)), n.convert(n[2], n.dtype(x)),
            num_groups=n.require("groups"), epsilon=n.attr("epsilon", 1e-5))  # fmt: skip
    if n.require("activation"):
        out = n("Swish", out)
    return n.channels_last(out) if last else out


# -- quantised layers ----------------------------------------------------------------------------------------


@ms("QAttention")
def qattention(n: OnnxNode) -> Any:
    """(input, weights, bias, input scale, weight scale, mask, input zero, weight zero, past)"""
    total = n.convert(integer_matmul(n, n[0], n[1], n.optional(6), n.optional(7)), "f32")
    scale, weight_scale, bias = (n.convert(n[i], "f32") for i in (3, 4, 2))
    joined = n("Add", n("Multiply", total, n("Multiply", scale, weight_scale)), bias)
    joined = n.convert(joined, n.dtype(n[3]))
    return projected_attention(n, joined, n.optional(5), n.optional(8), None)


@ms("DynamicQuantizeLSTM")
def dynamic_quantize_lstm(n: OnnxNode) -> Any:
    """(x, w, r, bias, lengths, h, c, peepholes, w scale, w zero, r scale, r zero); weights are [.., inputs,
    gates].

    The weights are taken for the real numbers that they stand for; x is not quantised.
    """
    from ovjit.readers.onnx.recurrent import lstm

    def real(value: Output, scale: Output, zero: Output) -> Output:
        shape = n.shape(value) or ()
        scale, zero = (_by_direction(n, v, len(shape)) for v in (scale, zero))
        return n.transpose(dequantize(n, value, scale, zero), [0, 2, 1])

    if len(n) < 12:
        raise ModelError(f"the node has {len(n)} inputs; 12 are needed")
    weights, recurrence = real(n[1], n[8], n[9]), real(n[2], n[10], n[11])
    n.inputs = [n[0], weights, recurrence, *n.inputs[3:8]]
    n.attributes = {"direction": "forward", "layout": 0, "clip": 0.0, "input_forget": 0} | n.attributes
    return lstm(n)


def _by_direction(n: OnnxNode, value: Output, rank: int) -> Output:
    """Reshape scales [D] per direction, or [D, gates] per gate, to broadcast with [D, inputs, gates]."""
    count = n.rank(value)
    return n.unsqueeze(value, [1, 2] if count == 1 else [1]) if 0 < count < rank else value


#: Operators that are one expression.
onnx_ops({
    "FastGelu": lambda n: n("Gelu", n.add_input(n[0], 1), approximation_mode="TANH", opset=7),
    "GemmFastGelu": lambda n:
        n("Gelu", n.add_input(n("MatMul", n[0], n[1]), 2), approximation_mode="TANH", opset=7),
    "ScaledSiLU": lambda n:
        n("Swish", n("Multiply", n[0], n[1] if n.has(1) else n.like(n[0], n.attr("alpha", 1.0)))),
    "LayerNormalization": lambda n:
        layer_norm(n, n[0], n[1], n.optional(2), n.attr("axis", -1), n.attr("epsilon", 1e-5)),
    "Inverse": lambda n: n("Inverse", n[0], adjoint=False),
    "Gelu": lambda n: n("Gelu", n[0], approximation_mode="ERF", opset=7),
    "BiasGelu": lambda n: n("Gelu", n("Add", n[0], n[1]), approximation_mode="ERF", opset=7),
    "QuickGelu": lambda n: n("Swish", n[0], n.like(n[0], n.attr("alpha", 1.702))),
    "GatedAdd": lambda n: n("Add", n[0], n("Multiply", n[1], n[2])),
    "BiasAdd": lambda n: n("Add", n("Add", n[0], n[1]), n[2]),
    # (x, filters, bias, a tensor that is added before the activation)
    "FusedConv": lambda n: activation_of(n, n.add_input(convolve(n, n[0], n[1], n.optional(2)), 3)),
    "FusedGemm": lambda n: activation_of(n, standard(n, "Gemm", 13)),
    "FusedMatMulActivation": lambda n: activation_of(n, fused_matmul(n)),
    "GroupNorm": lambda n: _normalised_groups(n, n[0]),
}, MICROSOFT)  # fmt: skip
