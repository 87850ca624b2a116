"""Outputs that a kernel writes row by row, wherever their readers want them."""

from __future__ import annotations

from collections.abc import Sequence

from ovjit.compiler.plan import Planner, element_size
from ovjit.compiler.views import View, plain
from ovjit.graph.graph import Node, Value


def row_major_output(planner: Planner, value: Value) -> View:
    """Where `value` is written row by row; to be copied by `alias_or_copy` where it has a place elsewhere."""
    shape = planner.shape(value)
    if value in planner.placed:
        return planner.allocate(shape, element_size(value.dtype))
    return planner.output(value, plain(len(shape)))


def row_major_outputs(planner: Planner, node: Node) -> list[View]:
    """Where all outputs of a node are written row by row; `put_outputs` when they are."""
    return [row_major_output(planner, v) for v in node.outputs]


def put_outputs(planner: Planner, node: Node, made: Sequence[View]) -> None:
    """Copy those outputs that have a place elsewhere."""
    for value, view in zip(node.outputs, made, strict=True):
        if value in planner.placed:
            planner.alias_or_copy(value, view)
