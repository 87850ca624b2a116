"""Activations and normalizations that modules write out, as one operation each: OpenVINO's `convert_model`
does so, too."""

from __future__ import annotations

import math

from ovjit.build.rules import ModelNode, ModelValue
from ovjit.rewrite.canonical import SIGNED, add_negative, is_weight
from ovjit.rewrite.formulas import mean, square
from ovjit.rewrite.pattern import Pattern, constant, number, number_of, op, value
from ovjit.rewrite.rules import Rule, rewrite
from ovjit_ops.normalization.recognize import MVN, by_root

#: How far a number of a formula may be from what modules write for it.
CLOSE = 1e-4


def _about(expected: float) -> Pattern:
    return constant("").where(lambda value: _is_about(value, expected))


def _is_about(value: ModelValue, expected: float) -> bool:
    actual = number_of(value)
    return actual is not None and math.isclose(actual, expected, rel_tol=CLOSE)


X = value("x")


def _gate(gate: Pattern) -> Pattern:
    """The pattern x / 2 * (1 + gate), with factors in any order."""
    more = gate + 1.0
    return (X * 0.5) * more | X * (more * 0.5) | (X * more) * 0.5


_BY_ERF = _gate(op.Erf(X / _about(math.sqrt(2)) | X * _about(math.sqrt(0.5))))
_ROOT, _CUBED = _about(math.sqrt(2 / math.pi)), _about(0.044715)
_BY_TANH = _gate(op.Tanh((X + X**3.0 * _CUBED) * _ROOT | (X * _ROOT) * ((X * _CUBED) * X + 1.0)))
_WITHIN_6 = op.Clamp(X + 3.0, min=0.0, max=6.0)
_SIXTH = _about(1 / 6)


def _keeps_type(node: ModelNode, x: ModelValue) -> bool:
    return x.shape is not None and node.output.shape == x.shape and node.output.dtype == x.dtype


def _as(before: Pattern, after: Pattern) -> Rule:
    """The rule that replaces an expression by one operation of x with the same type and shape."""
    return rewrite(before, after, _keeps_type)


def _is_range(node: ModelNode, x: ModelValue, low: float, high: float) -> bool:
    return low <= high and _keeps_type(node, x)


def _is_positive(node: ModelNode, x: ModelValue, eps: float) -> bool:
    return eps > 0 and _keeps_type(node, x)


_LOW, _HIGH, _BETA = map(number, ("low", "high", "beta"))
_MIN_OF_MAX = op.Minimum(op.Maximum(X, _LOW), _HIGH) | op.Maximum(op.Minimum(X, _HIGH), _LOW)
_CENTRED = X - mean(X)

_RULES = [
    _as(_BY_ERF, op.Gelu(X, approximation_mode="ERF")),
    _as(_BY_TANH, op.Gelu(X, approximation_mode="TANH")),
    _as(_WITHIN_6 / 6.0 | _WITHIN_6 * _SIXTH, op.HSigmoid(X)),
    _as(X * op.HSigmoid(X) | (X * _WITHIN_6) / 6.0 | (X * _WITHIN_6) * _SIXTH, op.HSwish(X)),
    _as(X * op.Tanh(op.SoftPlus(X)), op.Mish(X)),
    _as(op.Log(op.Exp(X) + 1.0), op.SoftPlus(X)),
    _as(X * op.Sigmoid(X), op.Swish(X)),
    _as(X * op.Sigmoid(X * _BETA), op.Swish(X, _BETA)),
    rewrite(_MIN_OF_MAX, op.Clamp(X, min=_LOW, max=_HIGH), _is_range),
    rewrite(by_root(_CENTRED, mean(square(_CENTRED))), MVN, _is_positive),
]


def _is_neutral(node: ModelNode, x: ModelValue) -> bool:
    """False for inputs and constants, whose names must stay, and for weights."""
    is_computed = x.node.op.role not in ("parameter", "constant") and not is_weight(x)
    return is_computed and x.dtype in SIGNED and _keeps_type(node, x)


_ONES = constant("").where(lambda c: c.constant.size and (c.constant == 1).all())
_ZEROS = constant("").where(lambda c: not c.constant.any())

#: Lists of rules that are applied one after another. The last is about scales and biases that nothing has
#: trained.
ACTIVATIONS = [_RULES, [add_negative], [rewrite(X * _ONES | X / _ONES | X + _ZEROS, X, _is_neutral)]]
