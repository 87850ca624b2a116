"""Paged attention as a class, as OpenVINO's Python package has it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ovjit.api.model.node import Node, Output
from ovjit.errors import ModelError
from ovjit.graph.op import find_op

NAME = "PagedAttentionExtension"
#: What a node says of its heads.
HEADS = ("num_k_heads", "k_head_size", "num_v_heads", "v_head_size")
#: The note by which files keep these numbers.
HEADS_NOTE = "paged_heads_0"
#: The most heads, and elements of a head.
_MOST = 1 << 24
#: The note of attention by chunks, which files keep: {"size": "8192"}. The number is its version.
CHUNKS = "attention_chunks_0"


class PagedAttentionExtension(Node):
    """Attention over keys and values in blocks, of the 28 inputs that its record in `ovjit_ops` names.

    How many heads there are is what the caches' shapes say, or the node's rt_info: num_k_heads, k_head_size,
    num_v_heads, v_head_size. With the note `CHUNKS` there a query sees its own chunk of so many tokens.
    """

    __slots__ = ()

    def __init__(self, inputs: Sequence[Output]):
        if not isinstance(inputs, (list, tuple)) or not all(isinstance(x, Output) for x in inputs):
            raise TypeError("_PagedAttentionExtension takes a list of outputs of nodes")
        record = find_op(NAME, 1)
        self._build(record, list(inputs), record.check_attributes({}), None)

    def get_write_kv_cache(self) -> bool:
        """Whether new keys and values are written to the caches."""
        return bool(self._attrs["write_kv_cache"])

    def set_write_kv_cache(self, value: bool) -> None:
        """Set whether new keys and values are written to the caches."""
        self._attrs["write_kv_cache"] = bool(value)


Node._classes[NAME, 1] = PagedAttentionExtension


def read_heads(model: Any) -> dict[str, dict[str, int]]:
    """Friendly name -> numbers of heads and their sizes, from the rt_info of the nodes of paged attention."""
    heads_by_node: dict[str, dict[str, int]] = {}
    for node in model.get_ordered_ops():
        if isinstance(node, PagedAttentionExtension) and node._rt_info is not None:
            items = node._rt_info._items
            numbers = heads_by_node[node.get_friendly_name()] = {}
            for name in HEADS:
                if name in items:
                    numbers[name] = _number(node, name, getattr(items[name], "value", items[name]))
            if CHUNKS in items:
                numbers["chunk"] = _chunk(node, items[CHUNKS])
    return heads_by_node


def noted_heads(items: dict[str, Any]) -> dict[str, str]:
    """Numbers of heads among a node's rt_info, as files have them."""
    values = {name: getattr(items[name], "value", items[name]) for name in HEADS if name in items}
    return {name: str(value) for name, value in values.items() if isinstance(value, int)}


def heads_of(note: Any) -> dict[str, Any]:
    """The rt_info of such a note in a file. Numbers are checked when the model is compiled."""
    heads = {name: note[name] for name in HEADS if name in note} if isinstance(note, dict) else {}
    return {name: int(v) if v.isdecimal() and len(v) < 10 else v for name, v in heads.items()}


def _number(node: Node, name: str, value: Any) -> int:
    """A number of heads, or the size of one. ModelError for other values."""
    try:
        number = 0 if isinstance(value, float) else int(value)
    except (TypeError, ValueError):
        number = 0
    if not 0 < number <= _MOST:
        raise ModelError(
            f"node {node.get_friendly_name()!r}: the rt_info entry {name!r} is {value!r:.80}; it should be "
            f"1 to {_MOST}"
        )
    return number


def _chunk(node: Node, note: Any) -> int:
    """The number of tokens of a chunk, from the rt_info `note` of a node. ModelError if it has no such
    number."""
    size = note.get("size") if isinstance(note, dict) else None
    if not isinstance(size, str) or not size.isdecimal() or not 0 < len(size) < 10 or not int(size):
        raise ModelError(f"node {node.get_friendly_name()!r}: the rt_info entry {CHUNKS!r} has no chunk size")
    return int(size)
