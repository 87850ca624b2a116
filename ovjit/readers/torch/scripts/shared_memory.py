"""Alias analysis of scripts: values that may share memory, and values that are read after a node."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ovjit.readers.torch.graph import parsed_schema

#: Operators in place that leave the numbers as they are: the tensor gets another shape in the same memory.
RESHAPES = frozenset(
    f"aten::{name}_" for name in ("squeeze", "swapaxes", "swapdims", "t", "transpose", "unsqueeze")
)
#: Operators that give another list with the items of a list.
COPIES_OF_LISTS = frozenset(("aten::list", "aten::slice", "aten::add", "aten::copy", "aten::mul"))
#: Operators that put tensors into lists.
_PUT_INTO_LISTS = frozenset(("aten::append", "aten::insert", "aten::_set_item", "aten::extend"))
#: What schemas call the memory of a list's items.
_ITEMS = {"*"}


class Sets:
    """Disjoint sets. What was never joined is alone."""

    def __init__(self) -> None:
        self._sets: dict[Any, set[Any]] = {}

    def of(self, item: Any) -> set[Any]:
        """The set of an item, itself included."""
        return self._sets.setdefault(item, {item})

    def join(self, a: Any, b: Any) -> None:
        """Two items, and those of their sets, are of one set."""
        one, other = self.of(a), self.of(b)
        if one is not other:
            one |= other
            self._sets.update(dict.fromkeys(other, one))


class SharedMemory:
    """Sets of values that may share memory, by their names in the script."""

    def __init__(self) -> None:
        self._sets = Sets()

    def names_beside(self, name: str) -> set[str]:
        """All values that may share memory with this one, itself included."""
        return self._sets.of(name)

    def join(self, a: Any, b: Any) -> None:
        """Record that two values, and all that share memory with either, may share memory."""
        self._sets.join(a.debugName(), b.debugName())

    def join_aliases(self, node: Any, schema: Any) -> None:
        """Join outputs with the inputs that the schema says them to share memory with, as themselves or as
        items of a list."""
        for output, returned in zip(node.outputs(), schema.returns, strict=False):
            if returned.alias_info is None:
                continue
            shared = returned.alias_info.before_set
            for value, argument in zip(node.inputs(), schema.arguments, strict=False):
                alias = argument.alias_info
                if alias is not None and (alias.before_set & shared or _ITEMS & alias.after_set):
                    self.join(output, value)

    def join_held(self, node: Any) -> None:
        """Join lists of tensors that are inputs or outputs of a node, and tensors that it puts into them."""
        values = [v for v in (*node.inputs(), *node.outputs()) if str(v.type()) in ("Tensor", "List[Tensor]")]
        if any(str(v.type()) == "List[Tensor]" for v in values):
            for other in values[1:]:
                self.join(other, values[0])


def is_read_behind(value: Any, node: Any) -> bool:
    """Whether a script's value has a reader behind the node, or before it in the next iteration of a loop."""
    users = [use.user for use in value.uses()]
    outer = [loop for loop in _loops(node) if not _is_in(loop, _loops(value.node()))]
    again = any(_is_in(loop, _loops(user)) for user in users for loop in outer)
    return again or any(_is_after(user, node) for user in users)


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
    """Whether a recorded graph writes to its own constants: they hold what recording has left in them."""
    constants = {node.output().debugName() for node in nodes_of(graph) if node.kind() == "prim::Constant"}
    return any(shared.names_beside(name) & constants for _, name, shared in _writes(graph))


def _writes(graph: Any) -> Iterator[tuple[Any, str, SharedMemory]]:
    """Each node that writes to a tensor, the tensor's name, and what shares memory before that node."""
    shared = SharedMemory()
    for node in nodes_of(graph):
        for output, value in _same(node):
            shared.join(output, value)
        if node.kind() in COPIES_OF_LISTS or node.kind() in _PUT_INTO_LISTS:
            shared.join_held(node)
        if node.schema() == "(no schema)":
            continue
        schema = parsed_schema(node.schema())
        if (written := written_by(node, schema)) is not None:
            yield node, written.debugName(), shared
        shared.join_aliases(node, schema)


#: Nodes whose outputs are, or hold, what they are given.
_HOLDING = (
    "prim::ListConstruct", "prim::TupleConstruct", "prim::DictConstruct", "prim::ListUnpack",
    "prim::TupleUnpack", "prim::TupleIndex", "aten::__getitem__", "prim::unchecked_cast", "prim::data",
)  # fmt: skip


def _same(node: Any) -> Iterator[tuple[Any, Any]]:
    """Pairs of values that may be in one memory: what a node gives, and what it is given."""
    if node.kind() in _HOLDING:
        yield from ((output, value) for output in node.outputs() for value in node.inputs())
    carried = list(node.inputs())[2:] if node.kind() == "prim::Loop" else []
    for block in node.blocks():
        block_inputs, result = list(block.inputs()), list(block.outputs())
        yield from zip(block_inputs[1:], carried, strict=False)
        yield from zip(node.outputs(), result[1:] if carried else result, strict=False)


def nodes_of(block: Any) -> Iterator[Any]:
    """The nodes of a block and of those inside of it."""
    for node in block.nodes():
        yield node
        for inner in node.blocks():
            yield from nodes_of(inner)


def _is_after(other: Any, node: Any) -> bool:
    """Whether a node runs behind another one of its block, or inside of a node that does."""
    return bool(other.isAfter(node))


def _loops(node: Any) -> list[Any]:
    """The loops that a node is in."""
    loops = []
    while (node := node.owningBlock().owningNode()) is not None:
        if node.kind() == "prim::Loop":
            loops.append(node)
    return loops


def _is_in(node: Any, others: Sequence[Any]) -> bool:
    return any(node is other for other in others)
