"""Expansion of normalizations to means, norms and elementwise arithmetic."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ovjit.graph.dtypes import FULL
from ovjit.graph.graph import Node, Value
from ovjit.graph.shapes import normalize_axes
from ovjit.rewrite.writer import Writer

Inputs = tuple[Value, ...]


def normalize(w: Writer, x: Value, axes: Sequence[int], variance: bool, eps: float, inside: bool) -> Value:
    """(x - mean) over `axes`, divided by the standard deviation if `variance`. `inside`: eps is inside the
    root."""
    centred = w("Subtract", x, w("ReduceMean", x, axes, keep_dims=True))
    if not variance:
        return centred
    spread = w("ReduceMean", w("Multiply", centred, centred), axes, keep_dims=True)
    root = w("Sqrt", w("Add", spread, eps)) if inside else w("Add", w("Sqrt", spread), eps)
    return w("Divide", centred, root)


def known_axes(data: Value, axes: Value) -> tuple[int, ...] | None:
    """The axes as non-negative numbers; None if they or the data's rank are unknown."""
    if data.shape is None or axes.type.value is None:
        return None
    return normalize_axes((int(a) for a in axes.type.value.reshape(-1)), len(data.shape))


def mvn_axes(node: Node, inputs: Sequence[Value]) -> tuple[int, ...] | None:
    """The normalized axes if the kernel supports them, else None. It supports trailing axes, but not the
    spatial axes alone of images [N, C, H, W] and more."""
    shape = inputs[0].shape
    if shape is None or inputs[0].dtype not in FULL:
        return None
    rank = len(shape)
    old = node.op.opset < 6
    axes = tuple(range(1 if node.attrs["across_channels"] else 2, rank)) if old else known_axes(*inputs)
    if not axes or axes != tuple(range(axes[0], rank)) or (rank > 3 and axes[0] == 2):
        return None
    return axes


def along_channels(w: Writer, x: Value, rank: int) -> Value:
    """One element per channel, reshaped to broadcast over [N, C, ...]."""
    return w("Reshape", x, (-1, *(1,) * (rank - 2)), special_zero=False)


def expand_mvn2(w: Writer, node: Node, inputs: Inputs) -> Sequence[Value] | None:
    """MVN-2(x) -> (x - mean) / sqrt(mean((x - mean)^2) + eps) over space, and over channels if
    `across_channels`"""
    (x,) = inputs
    if x.shape is None or mvn_axes(node, inputs) is not None:
        return None
    axes = range(1 if node.attrs["across_channels"] else 2, len(x.shape))
    out = normalize(w, x, axes, node.attrs["normalize_variance"], node.attrs["eps"], True)
    return [out]


def expand_mvn6(w: Writer, node: Node, inputs: Inputs) -> Sequence[Value] | None:
    """MVN-6(x, axes) -> (x - mean) / sqrt(mean((x - mean)^2) + eps), or / (sqrt(mean(...)) + eps)"""
    axes = known_axes(*inputs)
    if axes is None or mvn_axes(node, inputs) is not None:
        return None
    attrs = node.attrs
    inside = attrs["eps_mode"].lower() == "inside_sqrt"
    return [normalize(w, inputs[0], axes, attrs["normalize_variance"], attrs["eps"], inside)]


def expand_normalize_l2(w: Writer, node: Node, inputs: Inputs) -> Sequence[Value] | None:
    """NormalizeL2(x, axes) -> x / sqrt(L2(x)^2 + eps), or x / max(L2(x), sqrt(eps))"""
    axes = known_axes(*inputs)
    if axes is None:
        return None
    eps = node.attrs["eps"]
    norm = w("ReduceL2", inputs[0], axes, keep_dims=True)
    if node.attrs["eps_mode"] == "max":
        return [w("Divide", inputs[0], w("Maximum", norm, float(np.sqrt(eps))))]
    return [w("Divide", inputs[0], w("Sqrt", w("Add", w("Multiply", norm, norm), eps)))]


def expand_grn(w: Writer, node: Node, inputs: Inputs) -> Sequence[Value]:
    """GRN(x) -> x / sqrt(L2(x over channels)^2 + bias)"""
    norm = w("ReduceL2", inputs[0], (1,), keep_dims=True)
    return [w("Divide", inputs[0], w("Sqrt", w("Add", w("Multiply", norm, norm), node.attrs["bias"])))]


def expand_group_norm(w: Writer, node: Node, inputs: Inputs) -> Sequence[Value] | None:
    """GroupNormalization(x, scale, bias) -> GroupMVN(x) * scale + bias"""
    x, scale, bias = inputs
    fitted = None if x.shape is None else with_channels(w, x, [scale, bias])
    if fitted is None:
        return None
    x = fitted
    normal = w("GroupMVN", x, groups=node.attrs["num_groups"], eps=node.attrs["epsilon"])
    scaled = w("Multiply", normal, along_channels(w, scale, len(x.shape)))
    return [w("Add", scaled, along_channels(w, bias, len(x.shape)))]


def with_channels(w: Writer, x: Value, lists: Sequence[Value]) -> Value | None:
    """`x`, checked at run time to have as many channels as each of `lists` has elements. None if their number
    is unknown or differs. Without the check, the expanded arithmetic would broadcast a single channel. The
    check is a VariadicSplit with one part, which also checks empty tensors."""
    counts = {None if v.shape is None else v.shape[0] for v in lists}
    count = next(iter(counts))
    if len(counts) != 1 or not isinstance(count, int):
        return None
    if x.shape[1] == count:
        return x
    return w("VariadicSplit", x, np.array(1), [count])


def expand_batch_norm(w: Writer, node: Node, inputs: Inputs) -> Sequence[Value] | None:
    """BatchNormInference(x; gamma, beta, mean, var) -> (x - mean) * (gamma / sqrt(var + eps)) + beta"""
    named = dict(zip(node.op.input_names, inputs, strict=True))
    x = named["data"]
    if x.shape is None:
        return None
    rank = len(x.shape)
    fitted = with_channels(w, x, [v for k, v in named.items() if k != "data"])
    if fitted is None:
        return None
    x = fitted
    factor = w("Divide", named["gamma"], w("Sqrt", w("Add", named["variance"], node.attrs["epsilon"])))
    centred = w("Subtract", x, along_channels(w, named["mean"], rank))
    scaled = w("Multiply", centred, along_channels(w, factor, rank))
    return [w("Add", scaled, along_channels(w, named["beta"], rank))]


def expand_rms(w: Writer, node: Node, inputs: Inputs) -> Sequence[Value]:
    """RMS(x, gamma) -> x / sqrt(mean(x^2) + epsilon) * gamma"""
    normal = w("RootMeanSquare", inputs[0], epsilon=node.attrs["epsilon"])
    out = w("Multiply", normal, inputs[1])
    return [w("Convert", out, destination_type=node.output.dtype)]
