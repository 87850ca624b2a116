"""The values that scripts write to, and those that are read after a node."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

#: Operators in place that leave the numbers as they are: the tensor gets another shape in the same memory.
RESHAPES = frozenset(
    f"aten::{name}_" for name in ("squeeze", "swapaxes", "swapdims", "t", "transpose", "unsqueeze")
)
#: Operators that give another list with the items of a list.
COPIES_OF_LISTS = frozenset(("aten::list", "aten::slice", "aten::add", "aten::copy", "aten::mul"))


def is_read_after(value: Any, node: Any) -> bool:
    """Whether a script's value is read after the node, or before it in the next iteration of a loop."""
    users = [use.user for use in value.uses()]
    outer = [loop for loop in _loops(node) if not _is_in(loop, _loops(value.node()))]
    again = any(_is_in(loop, _loops(user)) for user in users for loop in outer)
    return again or any(user.isAfter(node) for user in users)


def values_of(graph: Any) -> dict[str, Any]:
    """All values of a script's graph and of the blocks in it, by their names."""
    blocks = [graph, *(block for node in nodes_of(graph) for block in node.blocks())]
    result = [v for block in blocks for v in block.inputs()]
    result += [v for node in nodes_of(graph) for v in node.outputs()]
    return {value.debugName(): value for value in result}


def written_by(node: Any, schema: Any) -> Any:
    """The value that an operator writes to, None for none."""
    for value, argument in zip(node.inputs(), schema.arguments, strict=False):
        alias = argument.alias_info
        if alias is not None and alias.is_write and "Tensor" in str(argument.type):
            if node.kind().endswith("_") or any(a.is_out for a in schema.arguments):
                return value
    return None


def writes_to_constants(graph: Any) -> bool:
    """Whether a recorded graph writes to its own constants, which keep the values that recording has left in
    them."""
    aliases = graph.alias_db()
    constants = (node.output() for node in nodes_of(graph) if node.kind() == "prim::Constant")
    return any(map(aliases.has_writers, constants))


def nodes_of(block: Any) -> Iterator[Any]:
    """The nodes of a block and of those inside of it."""
    for node in block.nodes():
        yield node
        for inner in node.blocks():
            yield from nodes_of(inner)


def _loops(node: Any) -> list[Any]:
    """The loops that a node is in."""
    loops = []
    while (node := node.owningBlock().owningNode()) is not None:
        if node.kind() == "prim::Loop":
            loops.append(node)
    return loops


def _is_in(node: Any, others: Sequence[Any]) -> bool:
    return any(node is other for other in others)
