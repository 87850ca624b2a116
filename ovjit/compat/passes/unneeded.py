"""Nodes of a Model that users edit which give back an input as it is."""

from __future__ import annotations

import numpy as np

from ovjit.api.model.boundary import Result
from ovjit.api.model.model import Model
from ovjit.api.model.node import Node
from ovjit.api.model.on_models import Seen, applied
from ovjit.rewrite.pattern import Pattern, constant, op, value
from ovjit.rewrite.rules import rewrite
from ovjit.rewrite.simplify import DROP_NOOPS


def drop_unneeded(model: Model) -> bool:
    """Take out nodes that give back an input as it is. True if anything changed."""
    changed = False
    for node, source in applied(UNNEEDED, model):
        name, maker = node.get_friendly_name(), source.port._node
        if _is_output(node) and (_is_output(maker) or not maker._inputs):
            continue  # both names are the user's
        node.output(0).replace(source.port)
        if _is_output(maker) and len(maker._tensors) == 1:
            maker.set_friendly_name(name)
        changed = True
    return changed


def _is_output(node: Node) -> bool:
    return any(isinstance(user, Result) for user in node._users or ())


def _single(number: int) -> Pattern:
    """A constant with this one element."""
    return constant("c").where(lambda c: c.constant.size == 1 and c.constant.reshape(-1)[0] == number)


def _zeros(key: str) -> Pattern:
    return constant(key).where(lambda sizes: not sizes.constant.any())


def _keeps_shape(x: Seen, c: Seen) -> bool:
    """False for constants, which are scaled weights, and where the shape would change."""
    root = _ROOT.first(x)
    result = (x if root is None else root["root"]).constant is None
    return result and x.shape is not None and c.constant.ndim <= len(x.shape)  # type: ignore


def _undoes(first: Seen, second: Seen) -> bool:
    one, other = (each.constant.reshape(-1) for each in (first, second))  # type: ignore[union-attr]
    return one.size == other.size > 0 and bool((one[other] == np.arange(one.size)).all())


x = value("x")
_ROOT = op.Convert(value("root"))
#: What gives back an input as it is.
UNNEEDED = [
    *DROP_NOOPS,
    rewrite(op.Transpose(op.Transpose(x, constant("first")), constant("second")), x, _undoes),
    rewrite(op.Concat(x), x),
    rewrite(op.Split(x, ...), x, lambda node: len(node.outputs) == 1),
    rewrite(op.Pad(x, _zeros("begin"), _zeros("end"), ...), x),
    rewrite(x + _single(0) | x - _single(0) | x * _single(1) | x / _single(1), x, _keeps_shape),
]
