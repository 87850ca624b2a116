"""Nodes and values of the graph that a trace is making."""

from __future__ import annotations

from typing import Any

from ovjit.readers.torch.pytorch import torch


def is_traced(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and torch.jit.is_tracing()


def is_open(number: Any) -> bool:
    """True for a traced number that depends on the inputs, and not on weights and constants alone."""
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
    """The output of a node that is put where the trace is."""
    graph = torch._C._get_tracing_state().graph()
    node = graph.insertNode(graph.create(kind, inputs, 1))
    node.output().setType(type_of)
    return node.output()
