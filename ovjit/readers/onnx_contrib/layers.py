"""Layers of com.microsoft that are no fusions of the standard's: mixtures of experts, gates ..."""

from __future__ import annotations

from ovjit.readers.onnx.activations import activation
from ovjit.readers.onnx.nn import conv_transpose, rms_norm
from ovjit.readers.onnx_contrib.blocks import unpack_bits
from ovjit.readers.onnx_contrib.rule_language import *


@ms("CDist")
def cdist(n: OnnxNode) -> Any:
    """Distances between all rows of one matrix and all rows of another."""
    gaps = n("Subtract", n.unsqueeze(n[0], [1]), n.unsqueeze(n[1], [0]))
    squares = n("ReduceSum", n("Multiply", gaps, gaps), [2], keep_dims=False)
    return squares if n.attr("metric", "sqeuclidean") == "sqeuclidean" else n("Sqrt", squares)


@ms("ConvTransposeWithDynamicPads")
def conv_transpose_with_dynamic_pads(n: OnnxNode) -> Any:
    """(x, filters, pads, bias)"""
    pads = n.convert(n[2], "i64") if n.has(2) else None
    constant_pads = n.value(pads)
    n.inputs = [n.inputs[0], n.inputs[1], n.inputs[3] if n.has(3) else None]
    constant_attributes = (
        {} if constant_pads is None else {"pads": [int(v) for v in constant_pads.reshape(-1)]}
    )
    n.attributes = {"group": 1, "auto_pad": "NOTSET", **constant_attributes} | n.attributes
    out = conv_transpose(n)
    if pads is None or constant_pads is not None:
        return out
    dims = n.rank(out) - 2
    begin, end = (n.slice(pads, 0, i * dims, (i + 1) * dims) for i in (0, 1))
    size = n.slice(n.shape_of(out), 0, 2)
    return n("Slice", out, begin, n("Subtract", size, end), [1] * dims, list(range(2, dims + 2)))


@ms("CausalConvWithState")
def causal_conv_with_state(n: OnnxNode) -> Any:
    """(x [batch, channels, length], or [batch, length, ...] with its channels last, filters [channels, 1,
    size], bias, the inputs before) -> (a causal convolution, the inputs for the next call)"""
    x, w, past = n[0], n[1], n.optional(3)
    if n.attr("ndim", 1) != 1 or n.attr("state_window", 0) not in (0, None):
        raise UnsupportedError("more than one dimension, or a window of states, is not supported")
    last, trailing_shape = bool(n.attr("channels_last", 0)), None
    if last:
        trailing_shape = n.slice(n.shape_of(x), 0, 2)

        def first(x: Output) -> Output:
            return n.transpose(n("Reshape", x, [0, 0, -1], special_zero=True), [0, 2, 1])

        x, past = first(x), None if past is None else first(past)
    spread = n.attr("dilation", 1)
    channels, _, size = n.static_shape(w, "the shape of the filters")
    before = (size - 1) * spread
    if past is not None:
        long = n("Concat", past, x, axis=2)
    else:
        long = n("Pad", x, [0, 0, before], [0, 0, 0], n.like(x, 0), pad_mode="constant", opset=12)
    out = n("GroupConvolution", long, n.reshape(w, [channels, 1, 1, size]), strides=[1], pads_begin=[0],
            pads_end=[0], dilations=[spread])  # fmt: skip
    if n.has(2):
        out = n("Add", out, n.reshape(n[2], [1, channels, 1]))
    state = n.slice(long, 2, -before) if before else n.slice(long, 2, 0, 0)
    result = [_gate(n, n.attr("activation", "none"), out), state]
    if trailing_shape is None:
        return result
    lines = [n.transpose(value, [0, 2, 1]) for value in result]
    shapes = [n("Concat", n.slice(n.shape_of(value), 0, 0, 2), trailing_shape, axis=0) for value in lines]
    return [n("Reshape", *row, special_zero=False) for row in zip(lines, shapes, strict=True)]


def _gate(n: OnnxNode, name: str, x: Output) -> Output:
    """Apply the activation `name` to x."""
    if name in ("none", "identity"):
        return x
    if name in ("silu", "swish"):
        return n("Swish", x)
    return activation(n, name, x)


@ms("GatedRMSNorm")
def gated_rms_norm(n: OnnxNode) -> Any:
    """(x, scale, gate): the normalised x times the gate's activation"""
    out = rms_norm(n, n[0], n[1], -1, n.attr("epsilon", 1e-5))
    return n("Multiply", out, _gate(n, n.attr("activation", "silu"), n[2]))


@ms("MoE")
def mixture_of_experts(n: OnnxNode) -> Any:
    """(x, scores of the experts, weights and bias of two or three layers)

    All experts are computed, and the best `k` of each row added up by their share.
    """
    weights = [n.optional(i) for i in (2, 4, 6)]
    return experts(n, weights, [n.optional(i) for i in (3, 5, 7)])


@ms("QMoE")
def quantised_mixture_of_experts(n: OnnxNode) -> Any:
    """(x, scores, then weights, scales and bias of each of three layers, three zero points, shares)"""
    if n.attr("quant_type", "int") != "int" or n.attr("weights_prepacked", 0) == 1:
        raise UnsupportedError(
            "experts with weights in floats of few bits, or in an order specific to "
            "ONNX Runtime, are not supported"
        )
    input_indices = ((2, 3, 11), (5, 6, 12), (8, 9, 13))
    weights = [
        _expert_weights(n, i, *row) if n.has(row[0]) else None for i, row in enumerate(input_indices, 1)
    ]
    if not n.has(14):  # shares of the best alone
        n.attributes |= {"normalize_routing_weights": 1}
    return experts(n, weights, [n.optional(i) for i in (4, 7, 10)], n.optional(14))


def _expert_weights(n: OnnxNode, layer: int, weights: int, scales: int, zeros: int) -> Output:
    """Weights [experts, out, in], of bytes in which the first value has the low bits."""
    bits = n.attr(f"fc{layer}_expert_weight_bits") or n.attr("expert_weight_bits", 4)
    packed, real = n.static(weights, "the packed weights"), n.dtype(n[0])
    if bits not in (2, 4, 8) or packed.ndim != 3:
        raise UnsupportedError(f"experts with weights of {bits} bits are not supported")
    count, rows, width = packed.shape
    depth, kind = width * 8 // bits, {2: "u2", 4: "u4", 8: "u8"}[bits]
    scale = n.static_shape(n[scales], "the shape of the scales")
    blocks = scale[2] if len(scale) == 3 else 1
    if blocks < 1 or depth % blocks:
        raise ModelError(f"{depth} values in {blocks} blocks are not valid")
    values = unpack_bits(packed.reshape(count * rows, width), bits, count * rows, depth)
    quantized = n.convert(n.const(values.reshape(count, rows, blocks, depth // blocks), kind), real)
    if n.has(zeros):
        packed_zeros = n.static(zeros, "the zero points")
        per = blocks if packed_zeros.ndim == 3 else rows
        lines = packed_zeros.size * (8 // bits) // max(-(-per * bits // 8) * (8 // bits), 1)
        zero = unpack_bits(packed_zeros.reshape(lines, -1), bits, lines, per).reshape(count, rows, blocks, 1)
        middle = n.convert(n.const(zero, kind), real)
    else:
        middle = n.const(1 << (bits - 1), real)
    factor = n.reshape(n.convert(n[scales], real), [count, rows, blocks, 1])
    return n.reshape(n("Multiply", n("Subtract", quantized, middle), factor), [count, rows, depth])


def experts(
    n: OnnxNode, weights: list[Output | None], biases: list[Output | None], mixing: Output | None = None
) -> Output:
    """Layers [experts, out, in] and biases [experts, out] of a mixture, the third None for two layers.

    `mixing` are the experts' shares where the scores only choose them.
    """
    if n.attr("use_sparse_mixer", 0) and n.attr("k", 1) != 2:  # ONNX Runtime does no more with it
        raise ModelError("use_sparse_mixer needs exactly two experts per token")
    first, second, third = weights
    if first is None or second is None:
        raise ModelError("weights are missing")
    x = n[0]
    width = n.last_dim(x)
    rows = n.reshape(x, [-1, width])
    scores = n.reshape(n[1], [-1, n.last_dim(n[1])])
    chosen = n.top_k(scores, n.attr("k", 1), -1)
    shares = n("Softmax", scores, axis=-1, opset=8)
    if mixing is not None:
        shares = n.reshape(mixing, [-1, n.last_dim(mixing)])
    best = n("GatherElements", shares, chosen[1], axis=1)
    if n.attr("normalize_routing_weights", 0):
        best = n("Divide", best, n("ReduceSum", best, [1], keep_dims=True))
    zero = n.broadcast(n.like(scores, 0), n.shape_of(scores))  # of experts with a score of -inf, too
    share = n("ScatterElementsUpdate", zero, chosen[1], best, 1, opset=3)  # [rows, experts]

    def layer(value: Output, weight: Output, bias: Output | None) -> Output:
        out = n("MatMul", value, weight, transpose_b=True)
        return out if bias is None else n("Add", out, n.unsqueeze(bias, [1]))

    hidden = layer(n.unsqueeze(rows, [0]), first, biases[0])
    name = n.attr("activation_type", "relu")
    if name == "swiglu":
        hidden = _swiglu(n, hidden, n.attr("swiglu_fusion", 0))
    elif name == "gelu":
        hidden = n("Gelu", hidden, approximation_mode="TANH", opset=7)
    else:
        hidden = _gate(n, name, hidden)
    if third is not None:
        hidden = n("Multiply", hidden, layer(n.unsqueeze(rows, [0]), third, biases[2]))
    out = layer(hidden, second, biases[1])  # [experts, rows, width]
    weighted = n("Multiply", out, n.unsqueeze(n.transpose(share, [1, 0]), [2]))
    return n("Reshape", n("ReduceSum", weighted, [0], keep_dims=False), n.shape_of(x), special_zero=False)


def _swiglu(n: OnnxNode, x: Output, fusion: int) -> Output:
    """gate * sigmoid(alpha * gate) * (linear + beta) of two parts: interleaved with fusion=1, consecutive
    with 2"""
    axis = n.rank(x) - 1
    if fusion == 1:
        gate, linear = n.slice(x, axis, 0, step=2), n.slice(x, axis, 1, step=2)
    elif fusion == 2:
        gate, linear = n.all("Split", x, axis, num_splits=2)
    else:
        raise UnsupportedError("swiglu needs fused weights (swiglu_fusion)")
    limit = n.attr("swiglu_limit")
    if limit is not None and np.isfinite(limit):
        gate = n("Minimum", gate, n.like(gate, limit))
        linear = n("Clamp", linear, min=-float(limit), max=float(limit))
    alpha, beta = n.attr("activation_alpha", 1.0), n.attr("activation_beta", 0.0)
    gate = n("Multiply", gate, n("Sigmoid", n("Multiply", gate, n.like(gate, alpha))))
    return n("Multiply", gate, n("Add", linear, n.like(linear, beta)))
