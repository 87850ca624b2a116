"""Outputs of a graph that share memory: its inputs and views of them, views of its other outputs or of one
tensor within it, views with gaps, and one tensor that is several outputs.

aot_autograd makes the views that a caller gets anew, by the strides and the offset of what the backend
returns. So PyTorch makes these outputs here, and a compiled part the rest. A compiled part gives the whole
tensor that a view with gaps is of, which eager mode keeps in memory, too.
"""

from __future__ import annotations

import collections
import operator
from collections.abc import Callable
from typing import Any

from ovjit.readers.torch.pytorch import torch
from ovjit.readers.torch.tracing.strides import hint, in_memory

#: A compiled graph: from a list of arguments to its outputs.
Compiled = Callable[[Any], Any]
#: Operators whose results share memory with each other, though their schemas do not tell it.
_UNDECLARED_VIEWS = frozenset(("aten::unsafe_split", "aten::unsafe_split_with_sizes"))


def beside_views(module: Any, compiled: Callable[[Any], Compiled]) -> Compiled:
    """Compile the graph without outputs that are views, which PyTorch computes."""
    outputs = list(module.graph.output_node().args[0])
    counts = collections.Counter(base_of_view(node) for node in dict.fromkeys(outputs))
    beside = {*outputs, *(node for node, count in counts.items() if count > 1)}
    again = {
        i: first for i, node in enumerate(outputs) if _is_node(node) and (first := outputs.index(node)) < i
    }
    roots = ((i, _root(node, beside)) for i, node in enumerate(outputs) if i not in again)
    view_roots = {i: root for i, root in roots if root is not None}
    if not view_roots and not again:
        return compiled(module)
    remaining = [i for i in range(len(outputs)) if i not in view_roots and i not in again]
    bases = list(dict.fromkeys(root for root in view_roots.values() if root.op != "placeholder"))
    computed = [outputs[i] for i in remaining]
    computed += [root for root in bases if root not in computed]
    base_indices = [computed.index(root) for root in bases]
    inner = compiled(_with_outputs(module, computed)) if computed else None
    views = _views(module, bases, [outputs[i] for i in view_roots])

    def run(arguments: Any) -> list[Any]:
        inputs = list(arguments)  # a compiled part may empty its list
        result = list(inner(arguments)) if inner is not None else []
        out: list[Any] = [None] * len(outputs)
        for i, value in zip(remaining, result, strict=False):
            out[i] = value
        for i, value in zip(view_roots, views(*inputs, *(result[k] for k in base_indices)), strict=True):
            out[i] = value
        for i, first in again.items():
            out[i] = out[first]
        return out

    return run


def _is_node(value: Any) -> bool:
    return isinstance(value, torch.fx.Node)


def _root(node: Any, beside: set[Any]) -> Any:
    """The base of a view if it is an input or in `beside`, or if the view has gaps; else None.

    An input that is an output, as training keeps it for the backward graph, is its own base.
    """
    if _is_node(node) and node.op == "placeholder":
        return node
    root = base_of_view(node)
    if root is None or root.op == "placeholder" or root in beside:
        return root
    return root if root.op == "call_function" and _has_gaps(node) else None


def base_of_view(node: Any) -> Any:
    """The base tensor of a view, through other views; None if the node is no view."""
    if not is_view(node):
        return None
    while is_view(node):
        node = node.args[0]
    return node


def _has_gaps(node: Any) -> bool:
    """Whether a tensor's memory has gaps. Broadcast axes do not count."""
    value = node.meta.get("val")
    if not isinstance(value, torch.Tensor) or value.layout is not torch.strided:
        return False
    sizes, strides = ([hint(n) for n in numbers] for numbers in (value.shape, value.stride()))
    if not all(isinstance(n, int) for n in (*sizes, *strides)) or 0 in sizes:
        return False
    moving = [(n, step) for n, step in zip(sizes, strides, strict=True) if step]
    return in_memory([n for n, _ in moving], [step for _, step in moving]) is None


def is_view(node: Any) -> bool:
    """Whether a node returns a view of its first argument."""
    if not _is_node(node) or node.op != "call_function":
        return False
    if node.target is operator.getitem:
        return is_view(node.args[0])
    if not isinstance(node.target, torch._ops.OpOverload) or not node.target._schema.arguments:
        return False
    if node.target._schema.name in _UNDECLARED_VIEWS:
        return True
    alias = node.target._schema.arguments[0].alias_info
    return alias is not None and not alias.is_write


def _with_outputs(module: Any, nodes: list[Any]) -> Any:
    """A copy of the graph with these nodes as outputs."""
    import copy

    graph = copy.deepcopy(module.graph)
    named = {node.name: node for node in graph.nodes}
    graph.output_node().args = (tuple(named[n.name] if _is_node(n) else n for n in nodes),)
    graph.eliminate_dead_code()
    return torch.fx.GraphModule(module, graph)


def _views(module: Any, bases: list[Any], outputs: list[Any]) -> Any:
    """A function of all inputs and of `bases` that computes the views."""
    graph, result = torch.fx.Graph(), {}
    inputs = module.graph.find_nodes(op="placeholder")
    for node in [*inputs, *bases]:
        result[node] = graph.placeholder(f"of_{node.name}")
    for node in module.graph.nodes:
        if node not in result and node.op != "output":
            result[node] = graph.node_copy(node, result.__getitem__)
    graph.output(tuple(result[node] for node in outputs))
    graph.eliminate_dead_code()
    return torch.fx.GraphModule(module, graph)
