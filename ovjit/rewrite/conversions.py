"""Queries about Convert nodes, for rewrites."""

from __future__ import annotations

from collections.abc import Collection

from ovjit.graph.graph import Node, Value
from ovjit.rewrite.pattern import op

_CONVERT = op.Convert(...)


def converts(node: Node, of: Collection[str] | None = None, to: Collection[str] | None = None) -> bool:
    """Whether the node is a Convert from one of the types `of` to one of the types `to`. None: any type."""
    if not _CONVERT.fits(node.op):
        return False
    return (of is None or node.inputs[0].dtype in of) and (to is None or node.output.dtype in to)


def skip_convert(value: Value) -> Value:
    """The input of the Convert that computes the value, or the value itself."""
    return value.node.inputs[0] if converts(value.node) else value
