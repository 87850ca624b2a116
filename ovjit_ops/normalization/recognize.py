"""Normalizations in the forms in which exporters write them, as one operation each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ovjit.graph.graph import Builder, Node, Value
from ovjit.graph.shapes import normalize_axes


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


def recognize_mvn(b: Builder, node: Node, inputs: tuple[Value, ...], uses: Any) -> Sequence[Value] | None:
    """(x - mean(x)) / sqrt(mean((x - mean(x))^2) + eps) -> MVN(x)"""
    found = divided(node, inputs)
    if found is None:
        return None
    centred, (v, eps) = found
    mean = mean_of(v)
    if mean is None or centred.node.op.name != "Subtract":
        return None
    x, source = centred.node.inputs[0], squared(mean[0])
    if source is None or eps <= 0 or not same_rank(x, node.output):
        return None
    for part in (centred, source):
        average = mean_of(part.node.inputs[1], mean[1]) if part.node.op.name == "Subtract" else None
        if average is None or average[0] is not x or part.node.inputs[0] is not x:
            return None
    axes = b.constant(np.array(mean[1], np.int64))
    attrs = {"normalize_variance": True, "eps": eps, "eps_mode": "INSIDE_SQRT"}
    return b.instead(node, [x, axes], attrs, "MVN")
