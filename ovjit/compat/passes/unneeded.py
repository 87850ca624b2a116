"""Passes that need no device: constants, nodes that return an input unchanged, BatchNorm."""

from __future__ import annotations

import numpy as np

from ovjit.api.model.folding import fold
from ovjit.api.model.model import Model
from ovjit.api.model.model_rules import ModelValue, apply_rules
from ovjit.compat.passes.precision import flush_subnormals
from ovjit.rewrite.pattern import Pattern, constant, op, value
from ovjit.rewrite.rules import rewrite
from ovjit.rewrite.simplify import DROP_NOOPS
from ovjit.rewrite.weight_scales import BATCH_NORMS, CONVOLUTIONS


def simplify(model: Model, fold_shapes: bool) -> None:
    """Fold constants, remove nodes without effect, and put BatchNorm into the weights of convolutions, as
    OpenVINO does with every converted model.

    Weights stay compressed, and subnormal ones become 0. Nodes that read a shape are folded only with
    `fold_shapes`: while they stay, the model can be given other shapes.
    """
    fold(model, keep_compressed=True, keep=lambda node: node._op.role == "shape" and not fold_shapes)
    for rules in (UNNEEDED, *BATCH_NORMS):
        apply_rules(rules, model)
    flush_subnormals(model)


def _single(number: int) -> Pattern:
    """A constant with this one element."""
    return constant("c").where(lambda c: c.constant.size == 1 and c.constant.reshape(-1)[0] == number)


def _zeros(key: str) -> Pattern:
    return constant(key).where(lambda sizes: not sizes.constant.any())


def _keeps_shape(x: ModelValue, c: ModelValue) -> bool:
    """False for constants, which are scaled weights, and where the shape would change."""
    root = _ROOT.first(x)
    result = (x if root is None else root["root"]).constant is None
    return result and x.shape is not None and c.constant.ndim <= len(x.shape)  # type: ignore


def _is_bias(p: ModelValue, zeros: ModelValue) -> bool:
    """True if the zeros are one for each output channel of the product `p`, or fewer."""
    shape, lengths = p.shape or (), zeros.constant.shape  # type: ignore[union-attr]
    channels = -1 if p.node.op.name == "MatMul" else 1 - len(shape)
    fits = (n == 1 or i == channels and n == shape[i] for i, n in enumerate(lengths, -len(lengths)))
    return len(lengths) <= len(shape) and all(fits)


def _undoes(first: ModelValue, second: ModelValue) -> bool:
    one, other = (each.constant.reshape(-1) for each in (first, second))  # type: ignore[union-attr]
    return one.size == other.size > 0 and bool((one[other] == np.arange(one.size)).all())


x = value("x")
_ROOT = op.Convert(value("root"))
#: A product with constant weights, which OpenVINO leaves without a bias of zeros.
_PRODUCT = op[" ".join([*CONVOLUTIONS, "MatMul"])](x, constant("") | op.Convert(constant("")), ...).named("p")
#: Nodes that return an input unchanged.
UNNEEDED = [
    *DROP_NOOPS,
    rewrite(op.Transpose(op.Transpose(x, constant("first")), constant("second")), x, _undoes),
    rewrite(op.Concat(x), x),
    rewrite(op.Split(x, ...), x, lambda node: len(node.outputs) == 1),
    rewrite(op.Pad(x, _zeros("begin"), _zeros("end"), ...), x),
    rewrite(_PRODUCT + _zeros("zeros"), value("p"), _is_bias),
    rewrite(x + _single(0) | x - _single(0) | x * _single(1) | x / _single(1), x, _keeps_shape),
]
