"""Nodes and values of the graph that a trace is making."""

from __future__ import annotations

from typing import Any

from ovjit.readers.torch.recording.patches import suspend_tracing
from ovjit.readers.torch.scripts.shared_memory import nodes_of


def is_traced(value: Any) -> bool:
    import torch

    return isinstance(value, torch.Tensor) and torch._C._get_tracing_state() is not None


def is_open(number: Any) -> bool:
    """Whether this is a traced number that inputs tell. Weights and their sizes tell none."""
    import torch

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
            for use in value.uses() if value.node().kind() == "prim::ListConstruct" else ():
                if use.user.kind() == "aten::append":  # a list is as long as loops make it
                    queue += use.user.owningBlock().owningNode().inputs()
    return False


def insert_node(kind: str, inputs: list[Any], type_of: Any) -> Any:
    """The output of a node that is put where the trace is."""
    import torch

    graph = torch._C._get_tracing_state().graph()
    node = graph.insertNode(graph.create(kind, inputs, 1))
    node.output().setType(type_of)
    return node.output()


def lift(owner: Any, block: Any) -> None:
    """Move constants out of a block of the node `owner`, as one is that of all uses in the trace. What the
    block reads of modules is read beside the node: PyTorch follows values out of modules to there alone."""
    import torch

    graph = torch._C._get_tracing_state().graph()
    nodes = list(nodes_of(block))
    for node in nodes:
        if node.kind() == "prim::Constant":
            node.moveBefore(owner)
    home, inside = owner.owningBlock(), {v.unique() for n in nodes for v in n.outputs()}
    copies: dict[int, Any] = {}
    for node in nodes:
        for i, value in enumerate(list(node.inputs())):
            key = value.unique()
            is_tensor = isinstance(value.type(), torch._C.TensorType)
            if key in inside or value.node().owningBlock() is home or not is_tensor:
                continue
            if value.node().kind() in ("prim::Param", "prim::TracedAttr"):
                continue
            if key not in copies:
                result = graph.create("prim::data", [value], 1)
                result.insertBefore(owner)
                copies[key] = result.output().setTypeAs(value)
            node.replaceInput(i, copies[key])


def kind_of(tensor: Any) -> tuple[Any, ...]:
    with suspend_tracing():
        return tensor.dtype, tuple(tensor.shape)


def traced_as(tensor: Any, value: Any, rows: int | None = None) -> Any:
    """A tensor of the same numbers, or of so many rows of them, that stands for a value of the graph."""
    import torch

    with suspend_tracing():
        copy = tensor.detach().clone()
        copy = copy if rows is None else copy.expand(rows, *copy.shape).clone()
    torch._C._set_value_trace(copy, value)
    return copy
