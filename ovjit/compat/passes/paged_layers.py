"""Attention of a stateful decoder: a node, and the caches that its keys and values come from."""

from __future__ import annotations

import math

import numpy as np

from ovjit.api.model.boundary import constant_node
from ovjit.api.model.boundary import new_output as _op
from ovjit.api.model.node import Node, Output
from ovjit.compat.passes.probe import is_a
from ovjit.errors import UnsupportedError
from ovjit.records import NamedTuple

#: What keys and values go through between the cache and attention, without a change of their numbers.
MOVES = frozenset("Reshape Broadcast Unsqueeze Squeeze Transpose Convert Identity Tile Concat Gather".split())


def is_cached(node: Node) -> bool:
    return is_a(node, "ScaledDotProductAttention") and all(
        _cache_of(node.input_value(i)) is not None for i in (1, 2)
    )


def _cache_of(source: Output) -> Node | None:
    """The Concat of a variable and new keys or values that an input comes from; None if there is none."""
    while is_a(source._node, *MOVES):
        node = source._node
        if is_a(node, "Concat"):
            if len(node._inputs) == 2 and _is_state(node.input_value(0)):
                return node
            if len({(x._node, x._index) for x in node._inputs}) > 1:  # heads repeated one after the other
                return None
        source = node.input_value(0)
    return None


def _is_state(source: Output) -> bool:
    """Whether the source is a variable, possibly with its rows reordered by beams."""
    while is_a(source._node, "Gather", "Convert", "Transpose", "Reshape"):
        source = source._node.input_value(0)
    return source._node._op.role == "read"


class CachedLayer(NamedTuple):
    """Attention of one layer: the node, its mask, and new keys and values [batch, tokens, heads, size]."""

    node: Node
    key: Output
    value: Output
    mask: Output | None

    @staticmethod
    def of(node: Node) -> CachedLayer:
        mask = node.input_value(3) if len(node._inputs) > 3 and not node._attrs["causal"] else None
        if mask is not None and mask._node._op.role == "constant" and mask._tensor._type.shape == ():
            mask = None
        key, value = (_cache_of(node.input_value(i)).input_value(1) for i in (1, 2))  # type: ignore[union-attr]
        return CachedLayer(node, key, value, mask)

    def variables(self) -> set[str]:
        """The variables of keys and values."""
        names = set()
        for index in (1, 2):
            node = self.concat_of(index).input_value(0)._node
            while node._op.role != "read":
                node = node.input_value(0)._node
            names.add(str(node._attrs["variable_id"]))
        return names

    def concat_of(self, index: int) -> Node:
        """The Concat of all keys (1) or values (2)."""
        concat = _cache_of(self.node.input_value(index))
        assert concat is not None
        return concat

    def caches(self) -> tuple[int, ...]:
        """The identities of the caches of keys and values. Layers that share caches have equal ones."""
        return tuple(id(self.concat_of(index)) for index in (1, 2))

    def axis(self, index: int) -> int:
        """The axis along which the cache of keys (1) or values (2) grows."""
        joined = self.concat_of(index)
        return int(joined._attrs["axis"]) % len(joined._tensors[0]._type.shape)


def scale_of(layer: CachedLayer) -> Output:
    """The factor of scores: the node's scale, or 1 / sqrt(size)."""
    node = layer.node
    if len(node._inputs) > 4:
        scale = node.input_value(4)
        if scale._tensor._type.shape == ():
            return scale
        return _op("Reshape", scale, np.zeros(0, np.int64), special_zero=False)
    shape = node.input_value(0)._tensor._type.shape
    size = shape[-1] if shape else None
    if not isinstance(size, int):
        raise UnsupportedError(
            f"{node.get_friendly_name()!r} has a dynamic head size and no scale: "
            "give ScaledDotProductAttention its scale input"
        )
    return constant_node(np.array(1 / math.sqrt(size), np.float32)).output(0)
