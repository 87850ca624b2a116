"""Transposes of the last two dimensions as flags of products: OpenVINO's `convert_model` does so, too."""

from __future__ import annotations

from ovjit.api.model.model import Model
from ovjit.api.model.node import Node, Output
from ovjit.api.model.on_models import Seen, SeenNode, Users, applied
from ovjit.rewrite.pattern import constant, op, value
from ovjit.rewrite.rules import rule

_TURNED = op.Transpose(value("x"), constant("order"))


def before_turning(turned: Seen) -> Seen | None:
    """What a Transpose of the last two dimensions takes."""
    found = _TURNED.first(turned)
    if found is None:
        return None
    order = found["order"].constant.tolist()
    rank = len(order)
    return found["x"] if rank > 1 and order == [*range(rank - 2), rank - 1, rank - 2] else None


def absorb_transposes(model: Model) -> None:
    """Apply `absorb_transpose` wherever it fits."""
    for _ in applied([absorb_transpose], model, Users(model)):
        pass


@rule(op.MatMul(_TURNED, ...) | op.MatMul(value("a"), _TURNED))
def absorb_transpose(node: SeenNode) -> bool | None:
    """MatMul(a, Transpose(b)) -> MatMul(a, b), `transpose_b` the other way; so for a"""
    old = node.of
    inputs, attributes = list(old._inputs), dict(old._attrs)
    for i, flag in enumerate(("transpose_a", "transpose_b")):
        if (before := before_turning(node.inputs[i])) is not None:
            inputs[i], attributes[flag] = before.port, not attributes[flag]
    if inputs == list(old._inputs):
        return None
    made = Node._new(old._op, inputs, old._op.check_attributes(attributes), old.get_friendly_name())
    node.output.port.replace(Output._of(made, 0))
    return True
