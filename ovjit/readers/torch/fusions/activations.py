"""Activations and normalizations that modules write out, as one operation each: OpenVINO's `convert_model`
does so, too."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ovjit.api.model.node import Node, Output
from ovjit.api.model.on_models import Seen, SeenNode, made_constant, made_node
from ovjit.graph.dtypes import numpy_dtype
from ovjit.rewrite.formulas import mean, root, squared
from ovjit.rewrite.pattern import Pattern, constant, number, number_of, op, value
from ovjit.rewrite.rules import Rule, rule

#: How far a number of a formula may be from what modules write for it.
CLOSE = 1e-4


def _about(expected: float) -> Pattern:
    return constant("").where(lambda value: _is_about(value, expected))


def _is_about(value: Seen, expected: float) -> bool:
    actual = number_of(value)
    return actual is not None and math.isclose(actual, expected, rel_tol=CLOSE)


X = value("x")


def _gate(gate: Pattern) -> Pattern:
    """x / 2 * (1 + gate), in any order of the factors."""
    more = gate + 1.0
    return (X * 0.5) * more | X * (more * 0.5) | (X * more) * 0.5


_BY_ERF = _gate(op.Erf(X / _about(math.sqrt(2)) | X * _about(math.sqrt(0.5))))
_ROOT, _CUBED = _about(math.sqrt(2 / math.pi)), _about(0.044715)
_BY_TANH = _gate(op.Tanh((X + X**3.0 * _CUBED) * _ROOT | (X * _ROOT) * ((X * _CUBED) * X + 1.0)))
_WITHIN_6 = op.Clamp(X + 3.0, min=0.0, max=6.0)
_SIXTH = _about(1 / 6)


def _as(before: Pattern, operation: str, **attributes: Any) -> Rule:
    """The rule that makes one operation of x, where it has the shape of the expression."""

    @rule(before)
    def fused(node: SeenNode, x: Seen) -> bool | None:
        return _replace(node, operation, [x.port], x, **attributes)

    return fused


def _replace(node: SeenNode, operation: str, inputs: list[Output], x: Seen, **attributes: Any) -> bool | None:
    if x.shape is None or node.output.shape != x.shape or node.output.dtype != x.dtype:
        return None
    node.output.port.replace(made_node(operation, inputs, node.of.get_friendly_name(), **attributes))
    return True


@rule(X * op.Sigmoid(X * number("beta")))
def _swish_of(node: SeenNode, x: Seen, beta: float) -> bool | None:
    """x * sigmoid(x * beta) -> Swish(x, beta)"""
    name = f"{node.of.get_friendly_name()}/beta"
    return _replace(
        node, "Swish", [x.port, made_constant(np.array(beta, numpy_dtype(x.dtype)), x.dtype, name)], x
    )


@rule(
    op.Minimum(op.Maximum(X, number("low")), number("high"))
    | op.Maximum(op.Minimum(X, number("high")), number("low"))
)
def _clamp(node: SeenNode, x: Seen, low: float, high: float) -> bool | None:
    """min(max(x, low), high) -> Clamp(x), and so in the other order"""
    return _replace(node, "Clamp", [x.port], x, min=low, max=high) if low <= high else None


_CENTRED = X - mean(X)
_TOTAL = mean(squared(_CENTRED)) + number("eps")


@rule(_CENTRED / root(_TOTAL) | _CENTRED * _TOTAL**-0.5)
def _normalize(node: SeenNode, x: Seen, axes: tuple[int, ...], eps: float) -> bool | None:
    """(x - mean(x)) / sqrt(variance(x) + eps) -> MVN(x)"""
    if eps <= 0:
        return None
    port = made_constant(np.array(axes, np.int64), "i64", f"{node.of.get_friendly_name()}/axes")
    return _replace(node, "MVN", [x.port, port], x, normalize_variance=True, eps=eps, eps_mode="INSIDE_SQRT")


_RULES = [
    _as(_BY_ERF, "Gelu", approximation_mode="ERF"),
    _as(_BY_TANH, "Gelu", approximation_mode="TANH"),
    _as(_WITHIN_6 / 6.0 | _WITHIN_6 * _SIXTH, "HSigmoid"),
    _as(X * op.HSigmoid(X) | (X * _WITHIN_6) / 6.0 | (X * _WITHIN_6) * _SIXTH, "HSwish"),
    _as(X * op.Tanh(op.SoftPlus(X)), "Mish"),
    _as(op.Log(op.Exp(X) + 1.0), "SoftPlus"),
    _as(X * op.Sigmoid(X), "Swish"),
    _swish_of,
    _clamp,
    _normalize,
]


#: Types of differences that become sums.
_SIGNED = ("f32", "f64", "f16", "bf16", "i32", "i64")


@rule(op.Subtract(X, constant("subtracted")))
def _add_negated(node: SeenNode, x: Seen, subtracted: Seen) -> bool | None:
    """x - constant -> x + -constant. Differences of constants are zero points of packed weights."""
    numbers = subtracted.constant
    if numbers is None or x.dtype not in _SIGNED or _is_stored(x.port.get_node()):
        return None
    name = node.of.get_friendly_name()
    other = made_constant(-numbers, x.dtype, f"{name}/negated")
    node.output.port.replace(made_node("Add", [x.port, other], name, **node.attrs))
    return True


@rule(X * constant("factor") | X / constant("factor"))
def _once(node: SeenNode, x: Seen, factor: Seen) -> bool | None:
    """x * 1, x / 1 -> x, where that has the shape of the product: scales that nothing has trained"""
    numbers = factor.constant
    if numbers is None or not numbers.size or not (numbers == 1).all() or _is_stored(x.port.get_node()):
        return None
    return _left_out(node, x)


@rule(X + constant("added"))
def _nothing_added(node: SeenNode, x: Seen, added: Seen) -> bool | None:
    """x + 0 -> x, where that has the shape of the sum: biases that nothing has trained"""
    numbers = added.constant
    return None if numbers is None or numbers.any() else _left_out(node, x)


def _left_out(node: SeenNode, x: Seen) -> bool | None:
    """Replace a node by its operand, where that has its shape. Inputs and constants keep theirs."""
    if x.shape is None or node.output.shape != x.shape or x.dtype != node.output.dtype:
        return None
    if x.dtype not in _SIGNED or x.port.get_node().get_type_name() in ("Parameter", "Constant"):
        return None
    node.output.port.replace(x.port)
    return True


def _is_stored(node: Node) -> bool:
    """Whether a value is a constant, perhaps of another type or with a zero point."""
    while node.get_type_name() in ("Convert", "Subtract"):
        node = node.input_value(0).get_node()
    return node.get_type_name() == "Constant"


#: Lists of rules that are applied one after another.
ACTIVATIONS = [_RULES, [_add_negated], [_nothing_added, _once]]
