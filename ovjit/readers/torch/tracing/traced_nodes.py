"""Nodes and values of the graph that a trace is making."""

from __future__ import annotations

from typing import Any

from ovjit.readers.torch.pytorch import torch


def is_traced(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and torch.jit.is_tracing()


def is_open(number: Any) -> bool:
    """True for a traced number that depends on inputs, not only on weights and constants."""
    if not is_traced(number):
        return False
    visited, queue = set(), [torch._C._get_value_trace(number)]
    while queue:
        value = queue.pop()
        if value.node().kind() == "prim::Param":
            return True
        if value.unique() not in visited:
            visited.add(value.unique())
            queue += value.node().inputs()
    return False


def insert_node(kind: str, inputs: list[Any], type_of: Any) -> Any:
    """Insert a node at the current position of the trace. Returns its output."""
    graph = torch._C._get_tracing_state().graph()
    node = graph.insertNode(graph.create(kind, inputs, 1))
    node.output().setType(type_of)
    return node.output()
