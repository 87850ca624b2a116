"""Programs of torch.export that are read as they are, without PyTorch's decompositions.

Decomposing runs a program several times with tensors that have no data. It takes most of the time of a
conversion, and is needed only for operators without a rule, and for writes that other names show.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ovjit.readers.torch.operators.numbers import python_number
from ovjit.readers.torch.pytorch import torch
from ovjit.readers.torch.registry import find_rule
from ovjit.readers.torch.scripts.shared_memory import RESHAPES

#: Higher-order operators that run a graph as it is: how many arguments stand before the graph.
INLINED = {"wrap_with_set_grad_enabled": 1, "wrap_with_autocast": 4, "hints_wrapper": 0,
           "tag_activation_checkpoint": 0, "wrap_activation_checkpoint": 0, "wrap": 0,
           "invoke_subgraph": 0, "autograd_function_apply": 0}  # fmt: skip
#: Where the arguments of `wrap_with_autocast` say whether types are changed.
_AUTOCAST_IS_ENABLED = 2
#: Composite operators that always make a new tensor. Others may give a view without their schemas saying so.
_MAKES_NEW = frozenset(
    f"aten::{name}"
    for name in (
        "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "avg_pool1d", "batch_norm",
        "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d",
        "group_norm", "instance_norm", "layer_norm", "linear", "log_softmax", "matmul", "max_pool1d",
        "max_pool2d", "max_pool3d", "pad", "relu6", "repeat_interleave", "rms_norm",
        "scaled_dot_product_attention", "softmax", "upsample_bicubic2d", "upsample_bilinear2d",
        "upsample_nearest2d", "upsample_trilinear3d",
    )
)  # fmt: skip


class Sets:
    """Disjoint sets (union-find) of items."""

    def __init__(self) -> None:
        self._sets: dict[Any, set[Any]] = {}

    def of(self, item: Any) -> set[Any]:
        """The set of an item, itself included."""
        return self._sets.setdefault(item, {item})

    def join(self, a: Any, b: Any) -> None:
        """Merge the sets of two items."""
        one, other = self.of(a), self.of(b)
        if one is not other:
            one |= other
            self._sets.update(dict.fromkeys(other, one))


def changes_types(name: str, arguments: Sequence[Any]) -> bool:
    """Whether a higher-order operator runs its graph with autocast: its type conversions are not in the
    graph, and only PyTorch's decompositions add them."""
    return name == "wrap_with_autocast" and bool(arguments[_AUTOCAST_IS_ENABLED])


def in_place(target: Any) -> str | None:
    """The functional form of an in-place operator: "aten::add" for "aten::add_". None for operators that do
    not write, "" without such a form."""
    schema = getattr(target, "_schema", None)
    if schema is None:
        return None
    written = [a for a in schema.arguments if a.alias_info is not None and a.alias_info.is_write]
    if not written:
        return None
    library, _, name = schema.name.partition("::")
    name = name.removesuffix("_")
    packet = getattr(getattr(torch.ops, library), name, None)
    other = getattr(packet, schema.overload_name or "default", None)
    if other is None or schema.name in RESHAPES or written != schema.arguments[:1]:
        return ""
    same = [a.name for a in other._schema.arguments[1:]] == [a.name for a in schema.arguments[1:]]
    return f"{library}::{name}" if same else ""


def is_plain(module: Any, beside: set[Any] | None = None) -> bool:
    """Whether all operators of a graph module have rules, and every write affects only the result of the
    writing operator: the tensor is no input or weight, and no later node reads its memory by another name.
    Graphs of torch.export name what was written last. `beside`: the result of `written_beside`."""
    if not all(_has_rule(module, node) for node in _functions(module)):
        return False
    return not (written_beside(module) if beside is None else beside)


def views_of(nodes: set[Any]) -> frozenset[str]:
    """Composite operators among nodes whose result may be a view of a tensor that is written elsewhere. Their
    schemas do not declare it, and PyTorch tracks such writes only if the operators are decomposed."""
    return frozenset(node.target._schema.name for node in nodes if _may_be_view(node.target))


def written_beside(module: Any) -> set[Any]:
    """Nodes whose tensors share memory with one that is written, if a later node reads that memory by another
    name, or it belongs to an input or a weight."""
    memory, shared_nodes = Sets(), set()  # of nodes whose tensors may share memory
    order_by_node = {node: i for i, node in enumerate(module.graph.nodes)}
    for node in _functions(module):
        if in_place(node.target) is not None:
            beside = set().union(*map(memory.of, _aliased_arguments(node, lambda alias: alias.is_write)))
            if any(
                n.op != "call_function" or any(order_by_node[u] > order_by_node[node] for u in n.users)
                for n in beside
            ):
                shared_nodes |= beside
        for other in _sources(node):
            memory.join(node, other)
    return shared_nodes


def _aliased_arguments(node: Any, is_meant: Callable[[Any], bool]) -> list[Any]:
    """The arguments of a node that its result aliases or that it writes to."""
    arguments = [
        node.args[i] if i < len(node.args) else node.kwargs.get(argument.name)
        for i, argument in enumerate(node.target._schema.arguments)
        if argument.alias_info is not None and is_meant(argument.alias_info)
    ]
    parts = [part for value in arguments for part in (value if isinstance(value, (list, tuple)) else [value])]
    return [part for part in parts if isinstance(part, torch.fx.Node)]


def _functions(module: Any) -> Iterator[Any]:
    return (node for node in module.graph.nodes if node.op == "call_function")


def _has_rule(module: Any, node: Any) -> bool:
    target = node.target
    if isinstance(target, torch._ops.OpOverload):
        written = in_place(target)
        name = target._schema.name if written is None else written
        return find_rule(name, target._schema.overload_name) is not None
    if isinstance(target, torch._ops.HigherOrderOperator):
        graphs = [
            getattr(module, str(a.target), None) for a in node.args if getattr(a, "op", "") == "get_attr"
        ]
        graphs = [graph for graph in graphs if isinstance(graph, torch.fx.GraphModule)]
        name = target.name()
        return name in INLINED and not changes_types(name, node.args) and all(map(is_plain, graphs))
    name = getattr(target, "__name__", str(target))
    return target is operator.getitem or name in ("int", "float") or bool(python_number(name))


def _may_be_view(target: Any) -> bool:
    """Whether an operator is a composite one that may return its argument or a view of it."""
    if not isinstance(target, torch._ops.OpOverload) or target._schema.name in _MAKES_NEW:
        return False
    return torch._C._dispatch_has_kernel_for_dispatch_key(target.name(), "CompositeImplicitAutograd")


def _sources(node: Any) -> Sequence[Any]:
    """The arguments with which a node's result may share memory."""
    if node.target is operator.getitem and isinstance(node.args[0], torch.fx.Node):
        producer, index = node.args
        if isinstance(producer.target, torch._ops.OpOverload) and not _sources(producer):
            # a new tensor, that of each other node that takes the same output
            return [n for n in producer.users if n.target is operator.getitem and n.args[1] == index]
    if not isinstance(node.target, torch._ops.OpOverload):
        return list(node.all_input_nodes)
    schema = node.target._schema
    if all(returned.alias_info is None for returned in schema.returns):
        return list(node.all_input_nodes) if _may_be_view(node.target) else []
    return _aliased_arguments(node, lambda alias: True)
