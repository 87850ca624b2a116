"""Canonical forms: equivalent nodes are written in one way, so that graphs need fewer kernels. Results keep
their bits."""

from __future__ import annotations

from typing import Any

import numpy as np

from ovjit.graph.graph import Builder, Node, Replacement, Value
from ovjit.rewrite.pattern import constant, op, values
from ovjit.rewrite.rules import rule

x, y = values("x y")

#: Powers of two up to here have a reciprocal that is not subnormal.
_LARGEST = 2.0**100


@rule(op.Divide(x, constant("c")))
def multiply_by_exact_reciprocal(b: Builder, node: Node, x: Value, c: Value) -> Replacement:
    """x / c -> x * (1 / c)     in f32, for constant powers of two: the reciprocal is exact"""
    if c.constant is None or not x.dtype == c.dtype == node.output.dtype == "f32":
        return None
    size = np.abs(c.constant)
    exact = (np.frexp(size)[0] == 0.5) & (size <= _LARGEST) & (size >= 1 / _LARGEST)
    return _by_reciprocal(b, node, x, c) if exact.all() else None


@rule(op.Divide(x, constant("c"), auto_broadcast="numpy"))
def multiply_by_reciprocal(b: Builder, node: Node, x: Value, c: Value) -> Replacement:
    """x / c -> x * (1 / c)     in f32 and f16, rounded: for models, where OpenVINO does so"""
    return _by_reciprocal(b, node, x, c) if node.output.dtype in ("f32", "f16") else None


def _by_reciprocal(b: Builder, node: Node, x: Value, c: Value) -> Replacement:
    array = c.constant
    assert array is not None
    with np.errstate(divide="ignore"):
        inverse = np.asarray(1 / array, array.dtype)
    return _replace_node(b, node, "Multiply", [x, b.constant(inverse, c.dtype)])


@rule(op.Subtract(x, constant("c")))
def add_negative(b: Builder, node: Node, x: Value, c: Value) -> Replacement:
    """x - c -> x + -c     for a constant. Zero points of weights stay, since passes look for them."""
    if c.constant is None or not x.dtype == c.dtype == node.output.dtype or is_weight(x):
        return None
    return _replace_node(b, node, "Add", [x, b.constant(-c.constant, c.dtype)]) if c.dtype in SIGNED else None


#: Types whose differences become sums.
SIGNED = ("f32", "f64", "f16", "bf16", "i32", "i64")


def is_weight(value: Any) -> bool:
    """Whether a value, of a Graph or a Model, is a constant, perhaps converted or without its zero point."""
    while value.node.op.name in ("Convert", "Subtract"):
        value = value.node.inputs[0]
    return value.node.op.role == "constant"


#: Commutative operations. Maximum and Minimum are not among them: of two zeros they return the second.
_EITHER = op["Add Multiply Equal NotEqual LogicalAnd LogicalOr"]


@rule(_EITHER(constant("c"), y))
def constant_last(b: Builder, node: Node, c: Value, y: Value) -> Replacement:
    """Add(c, y) -> Add(y, c)     for commutative operations"""
    return b.instead(node, [y, c]) if node.inputs[0] is c and y.constant is None else None


def _replace_node(b: Builder, node: Node, name: str, inputs: list[Value]) -> Replacement:
    attrs = {"auto_broadcast": node.attrs.get("auto_broadcast", "numpy")}
    return b.instead(node, inputs, attrs, name)


RULES = (multiply_by_exact_reciprocal, add_negative, constant_last)
