"""Conversions between element types, as rewrites ask for them."""

from __future__ import annotations

from collections.abc import Collection

from ovjit.graph.graph import Node, Value
from ovjit.rewrite.pattern import op

_CONVERT = op.Convert(...)


def converts(node: Node, of: Collection[str] | None = None, to: Collection[str] | None = None) -> bool:
    """Whether this converts: values of these element types, to these; None: any."""
    if not _CONVERT.fits(node.op):
        return False
    return (of is None or node.inputs[0].dtype in of) and (to is None or node.output.dtype in to)


def unconverted(value: Value) -> Value:
    """What is converted to the value, or the value itself."""
    return value.node.inputs[0] if converts(value.node) else value
