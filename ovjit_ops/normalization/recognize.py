"""Rules that fuse normalizations, in the forms that exporters write, to one operation each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ovjit.graph.graph import Node, Replacement, Value
from ovjit.graph.shapes import Dim, is_static
from ovjit.rewrite.formulas import mean, root, square
from ovjit.rewrite.pattern import (
    Derived,
    Found,
    Pattern,
    Readers,
    constant,
    number,
    op,
    value,
    values,
)
from ovjit.rewrite.rules import rewrite, rule
from ovjit.rewrite.writer import Writer
from ovjit_ops.normalization.expand_norm import known_axes

x, v, scale, offset = values("x v scale offset")
eps = number("eps")


def by_root(of: Pattern, variance: Pattern) -> Pattern:
    """of / sqrt(variance + eps)"""
    total = variance + eps
    return of / root(total) | of * (1.0 / root(total) | root(total) ** -1.0 | total**-0.5)


VARIANCE = (
    mean(square(x - mean(x))) | mean(op.SquaredDifference(x, mean(x))) | mean(square(x)) - square(mean(x))
)
MVN = op.MVN(x, value("axes"), normalize_variance=True, eps=eps, eps_mode="INSIDE_SQRT")


def _is_last(node: Node, x: Value, axes: tuple[int, ...]) -> bool:
    return _same_rank(node, x) and axes == (len(x.shape) - 1,)


def _same_rank(node: Node, x: Value) -> bool:
    """Whether the result has the rank of x. Single-element constants of a higher rank would add
    dimensions."""
    shape = node.output.shape
    return x.shape is not None and shape is not None and len(x.shape) == len(shape)


def _is_positive(node: Node, x: Value, eps: float) -> bool:
    return eps > 0 and _same_rank(node, x)


#: x / sqrt(mean(x^2, last axis) + eps) -> RootMeanSquare(x)
ROOT_MEAN_SQUARE = rewrite(by_root(x, mean(square(x))), op.RootMeanSquare(x, epsilon=eps), _is_last)
#: (x - mean(x)) / sqrt(variance(x) + eps) -> MVN(x)
NORMALIZED = rewrite(by_root(x - mean(x), VARIANCE), MVN, _is_positive)

_FACTOR = by_root(scale, VARIANCE).named("s")
#: x * s + (offset - mean(x) * s) -> MVN(x) * scale + offset, where s = scale / sqrt(variance(x) + eps)
SCALED = rewrite(x * _FACTOR + (offset - mean(x) * value("s")), MVN * scale + offset, _is_positive)


_BEHIND = op["Multiply Add"](value("inner"), constant("c")).once
_GROUPS = op.MVN(
    op.Reshape(x, value("sizes")).named("rows"), value("axes"), normalize_variance=True,
    eps_mode=lambda mode: str(mode).lower() == "inside_sqrt",
).once  # fmt: skip


def _scaled_groups(last: Value, readers: Readers) -> tuple[Found, Value, list[tuple[str, Value]]] | None:
    """(match of `_GROUPS`, its value, [(operation, constant)] of the Multiply and Add nodes after it) or
    None."""
    steps = []
    while match := _BEHIND.first(last, readers):
        steps.append((last.node.op.name, match["c"]))
        last = match["inner"]
    groups = _GROUPS.first(last, readers)
    return None if groups is None else (groups, last, steps[::-1])


@rule(op.Reshape(Derived(_scaled_groups, "match"), value("to")))
def group_mvn(w: Writer, node: Node, match: Any, to: Value) -> Replacement:
    """Reshape(MVN(x as [N, groups, rest]), shape of x) -> GroupMVN(x), followed by the scales and offsets of
    groups"""
    groups, normal, steps = match
    x, rows, shape = groups["x"], groups["rows"].node, normal.shape
    if x.shape is None or shape is None or min(len(x.shape), len(shape)) < 3 or not isinstance(shape[1], int):
        return None
    if known_axes(*normal.node.inputs) != tuple(range(2, len(shape))):
        return None
    sizes = groups["sizes"].constant
    batch = shape[0] == x.shape[0] and isinstance(shape[0], int)
    if not batch and (sizes is None or sizes[0] != 0 or not rows.attrs["special_zero"]):
        return None
    others, channels = x.shape[1:], x.shape[1]
    if not isinstance(channels, int) or channels % shape[1]:  # groups may split channels
        return None
    if not (to.node.op.role == "shape" and to.node.inputs[0] is x):
        if node.output.shape != x.shape or not is_static(others) or 0 in others:
            return None
    factors = [(name, _of_channels(c, channels, shape, len(x.shape))) for name, c in steps]
    if any(array is None for _, array in factors):
        return None
    out = w("GroupMVN", x, groups=shape[1], eps=normal.node.attrs["eps"])
    for name, array in factors:
        out = w(name, out, w.b.constant(array, x.dtype))
    return [out]


def _of_channels(value: Value, channels: int, shape: Sequence[Dim], rank: int) -> np.ndarray | None:
    """A constant that broadcasts to groups of channels of `shape`, reshaped to [channels, 1, ...] for a
    tensor of rank `rank`. None if it has more than one element per channel."""
    array, groups = value.constant, shape[1]
    if array is None or array.ndim > len(shape) or not isinstance(groups, int):
        return None
    sizes = (1,) * (len(shape) - array.ndim) + array.shape
    each = sizes[2] if shape[2] == channels // groups and len(shape) == rank + 1 else 1
    if sizes != (1, sizes[1], each, *(1,) * (len(shape) - 3)):
        return None
    array = np.broadcast_to(array.reshape(sizes[1], each), (groups, channels // groups))
    return array.reshape(-1, *(1,) * (rank - 2))
