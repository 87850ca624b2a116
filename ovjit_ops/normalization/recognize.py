"""Normalizations in the forms in which exporters write them, as one operation each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ovjit.graph.graph import Builder, Node, Value
from ovjit.graph.shapes import Dim, is_static, normalize_axes
from ovjit.rewrite.expand import Writer
from ovjit_ops.normalization.expand_norm import known_axes


def number(value: Value) -> float | None:
    """The one element of a constant."""
    array = value.constant
    return (
        float(array.reshape(()))
        if array is not None and array.size == 1 and array.dtype.kind == "f"
        else None
    )


def other(node: Node, value: Value) -> Value | None:
    """The input of a node of two inputs that is not `value`."""
    if len(node.inputs) != 2 or value not in node.inputs:
        return None
    return node.inputs[1] if node.inputs[0] is value else node.inputs[0]


def squared(value: Value) -> Value | None:
    """x of Power(x, 2) and of x * x"""
    node = value.node
    if node.op.name == "Power" and number(node.inputs[1]) == 2.0:
        return node.inputs[0]
    if node.op.name == "Multiply" and node.inputs[0] is node.inputs[1]:
        return node.inputs[0]
    return None


def mean_of(value: Value, axes: Sequence[int] | None = None) -> tuple[Value, tuple[int, ...]] | None:
    """(x, axes) of ReduceMean(x, axes) that keeps its dimensions."""
    node = value.node
    if node.op.name != "ReduceMean" or not node.attrs["keep_dims"] or node.inputs[0].shape is None:
        return None
    known = node.inputs[1].constant
    if known is None:
        return None
    found = normalize_axes((int(a) for a in known.reshape(-1)), len(node.inputs[0].shape))
    return (node.inputs[0], found) if axes is None or tuple(axes) == found else None


def root_of(value: Value) -> tuple[Value, float] | None:
    """(v, eps) of Sqrt(v + eps), and of Power(v + eps, 0.5)"""
    node = value.node
    if node.op.name != "Sqrt" and not (node.op.name == "Power" and number(node.inputs[1]) == 0.5):
        return None
    add = node.inputs[0].node
    if add.op.name != "Add":
        return None
    for v, eps in (add.inputs, add.inputs[::-1]):
        small = number(eps)
        if small is not None:
            return v, small
    return None


def divided(node: Node, inputs: tuple[Value, ...]) -> tuple[Value, tuple[Value, float]] | None:
    """(x, (v, eps)) of x / sqrt(v + eps), of x * (1 / sqrt(v + eps)) and of x * (v + eps)^-0.5"""
    if node.op.name == "Divide":
        root = root_of(inputs[1])
        return (inputs[0], root) if root else None
    if node.op.name != "Multiply":
        return None
    for x, factor in (inputs, inputs[::-1]):
        maker = factor.node
        root = None
        if maker.op.name == "Divide" and number(maker.inputs[0]) == 1.0:
            root = root_of(maker.inputs[1])
        elif maker.op.name == "Power" and number(maker.inputs[1]) == -1.0:
            root = root_of(maker.inputs[0])
        elif (
            maker.op.name == "Power"
            and number(maker.inputs[1]) == -0.5
            and maker.inputs[0].node.op.name == "Add"
        ):
            add = maker.inputs[0].node
            pairs = ((v, number(e)) for v, e in (add.inputs, add.inputs[::-1]))
            root = next(((v, e) for v, e in pairs if e is not None), None)
        if root is not None:
            return x, root
    return None


def same_rank(x: Value, result: Value) -> bool:
    """Whether no constant of one element, of a rank of its own, has given the result more dimensions."""
    return x.shape is not None and result.shape is not None and len(x.shape) == len(result.shape)


def recognize_rms(b: Builder, node: Node, inputs: tuple[Value, ...], uses: Any) -> Sequence[Value] | None:
    """x / sqrt(mean(x^2, last axis) + eps) -> RootMeanSquare(x)"""
    found = divided(node, inputs)
    if found is None:
        return None
    x, (v, eps) = found
    mean = mean_of(v)
    if mean is None or squared(mean[0]) is not x or not same_rank(x, node.output):
        return None
    if x.shape is None or mean[1] != (len(x.shape) - 1,):
        return None
    return b.instead(node, [x], {"epsilon": eps}, "RootMeanSquare")


def variance_of(value: Value) -> tuple[Value, tuple[int, ...]] | None:
    """(x, axes) of mean((x - mean(x))^2), of mean(SquaredDifference(x, mean(x))), of mean(x^2) - mean(x)^2"""
    node, mean = value.node, mean_of(value)
    if mean is None:
        average = squared(node.inputs[1]) if node.op.name == "Subtract" else None
        of_squares, of_x = mean_of(node.inputs[0]) if average else None, mean_of(average) if average else None
        fits = of_squares and of_x and (squared(of_squares[0]), of_squares[1]) == of_x
        return of_x if fits else None
    source = squared(mean[0])
    maker = mean[0].node if source is None else source.node
    if maker.op.name != ("SquaredDifference" if source is None else "Subtract"):
        return None
    for x, average in (maker.inputs, maker.inputs[::-1]):
        if mean_of(average) == (x, mean[1]):
            return x, mean[1]
    return None


def _mvn(b: Builder, node: Node, x: Value, axes: Sequence[int], eps: float) -> Value:
    attrs = {"normalize_variance": True, "eps": eps, "eps_mode": "INSIDE_SQRT"}
    return Writer(b, node)("MVN", x, axes, **attrs)


def recognize_mvn(b: Builder, node: Node, inputs: tuple[Value, ...], uses: Any) -> Sequence[Value] | None:
    """(x - mean(x)) / sqrt(variance(x) + eps) -> MVN(x)"""
    found = divided(node, inputs)
    if found is None:
        return None
    centred, (v, eps) = found
    variance = variance_of(v)
    if variance is None or eps <= 0 or centred.node.op.name != "Subtract":
        return None
    x, average = centred.node.inputs
    if x is not variance[0] or mean_of(average) != variance or not same_rank(x, node.output):
        return None
    return [_mvn(b, node, *variance, eps)]


def recognize_scaled_mvn(
    b: Builder, node: Node, inputs: tuple[Value, ...], uses: Any
) -> Sequence[Value] | None:
    """x * s + (offset - mean(x) * s) -> MVN(x) * scale + offset, where s = scale / sqrt(variance(x) + eps)"""
    for product, rest in (inputs, inputs[::-1]) if node.op.name == "Add" else ():
        names = product.node.op.name, rest.node.op.name
        if names != ("Multiply", "Subtract") or rest.node.inputs[1].node.op.name != "Multiply":
            continue
        for s in product.node.inputs:
            x, average = other(product.node, s), other(rest.node.inputs[1].node, s)
            found = divided(s.node, s.node.inputs)
            if x is None or average is None or found is None:
                continue
            scale, (v, eps) = found
            variance = variance_of(v)
            if variance and variance == mean_of(average) and x is variance[0] and eps > 0:
                if same_rank(x, node.output):
                    w, offset = Writer(b, node), rest.node.inputs[0]
                    return [w("Add", w("Multiply", _mvn(b, node, *variance, eps), scale), offset)]
    return None


def recognize_group_mvn(
    b: Builder, node: Node, inputs: tuple[Value, ...], uses: Any
) -> Sequence[Value] | None:
    """MVN(x as [N, groups, rest]) in x's shape -> GroupMVN(x)     with what scales and shifts groups"""
    if node.op.name != "Reshape":
        return None
    normal, old, behind = inputs[0], node.inputs[0], []
    while normal.node.op.name in ("Multiply", "Add") and normal.node.op is old.node.op and uses.single(old):
        at = 1 if normal.node.inputs[0].constant is not None else 0
        behind.append((normal.node.op.name, normal.node.inputs[1 - at]))
        normal, old = normal.node.inputs[at], old.node.inputs[at]
    mvn, rows = normal.node, normal.node.inputs[0].node if normal.node.inputs else normal.node
    if mvn.op.name != "MVN" or mvn.op.opset < 6 or rows.op.name != "Reshape" or not uses.single(old):
        return None
    x, shape, attrs, (pattern, to) = rows.inputs[0], normal.shape, mvn.attrs, (rows.inputs[1], inputs[1])
    if x.shape is None or shape is None or min(len(x.shape), len(shape)) < 3 or not isinstance(shape[1], int):
        return None
    axes, inside = known_axes(*mvn.inputs), attrs["eps_mode"].lower() == "inside_sqrt"
    if axes != tuple(range(2, len(shape))) or not (inside and attrs["normalize_variance"]):
        return None
    sizes = pattern.constant
    batch = shape[0] == x.shape[0] and isinstance(shape[0], int)
    if not batch and (sizes is None or sizes[0] != 0 or not rows.attrs["special_zero"]):
        return None
    rest, channels = x.shape[1:], x.shape[1]
    if not isinstance(channels, int) or channels % shape[1]:  # groups may have parts of channels
        return None
    if not (to.node.op.name == "ShapeOf" and to.node.inputs[0] is x):
        if node.output.shape != x.shape or not is_static(rest) or 0 in rest:
            return None
    found = [(name, _of_channels(v, channels, shape, len(x.shape))) for name, v in reversed(behind)]
    if any(array is None for _, array in found):
        return None
    out, w = b.instead(node, [x], {"groups": shape[1], "eps": attrs["eps"]}, "GroupMVN")[0], Writer(b, node)
    for name, array in found:
        out = w(name, out, b.constant(array, x.dtype))
    return [out]


def _of_channels(value: Value, channels: int, shape: Sequence[Dim], rank: int) -> np.ndarray | None:
    """A constant that broadcasts to groups of channels, of `shape`, as one that broadcasts to a tensor of so
    many dimensions; None where it has more than an element for each channel."""
    array, groups = value.constant, shape[1]
    if array is None or array.ndim > len(shape) or not isinstance(groups, int):
        return None
    sizes = (1,) * (len(shape) - array.ndim) + array.shape
    each = sizes[2] if shape[2] == channels // groups and len(shape) == rank + 1 else 1
    if sizes != (1, sizes[1], each, *(1,) * (len(shape) - 3)):
        return None
    array = np.broadcast_to(array.reshape(sizes[1], each), (groups, channels // groups))
    return array.reshape(-1, *(1,) * (rank - 2))
