"""Second forms of tensors, with channels first, see `ovjit.readers.tflite.node`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ovjit.build import Constant, Node, Output, attributes_of, tensor_type
from ovjit.build.builder import Builder

#: Operations that compute each element alone: the second form goes through them backwards.
_FOLLOWED = ("Convert", "FakeQuantize")


def first_order(rank: int) -> list[int]:
    """The permutation that moves the last axis, the channels, to position 1."""
    return [0, rank - 1, *range(1, rank - 1)]


class Layouts:
    """Cache of the channels-first forms of tensors. If `plain`, it stays empty, and no form is reused."""

    def __init__(self, plain: bool = False) -> None:
        self.plain = plain
        self.firsts: dict[tuple[Node, int], Output] = {}

    def find(self, value: Output) -> Output | None:
        return self.firsts.get((value.node, value.index))

    def keep(self, plain: Output, first: Output) -> None:
        if not self.plain:
            self.firsts[plain.node, plain.index] = first

    def first(self, n: Builder, value: Output) -> Output:
        first_form = self.find(value)
        if first_form is not None:
            return first_form
        rank = n.rank(value)
        constant = n.value(value) if isinstance(value.node, Constant) else None
        node = value.node
        if constant is not None:
            first_form = n.const(np.ascontiguousarray(constant.transpose(first_order(rank))), n.dtype(value))
        elif not self.plain and node.get_type_name() in _FOLLOWED and _is_of_one(node):
            source, *others = node.input_values()
            first_form = n(node.get_type_name(), self.first(n, source), *others, **attributes_of(node))
        else:
            first_form = n.transpose(value, first_order(rank))
        self.keep(value, first_form)
        return first_form

    def last(self, n: Builder, first: Output) -> Output:
        plain = n.channels_last(first)
        self.keep(plain, first)
        return plain

    def each(self, n: Builder, make: Callable[..., Output], values: Sequence[Output]) -> Output:
        ranks = [len(n.shape(v) or ()) for v in values]
        rank = max(ranks, default=0)
        formed = any(self.find(v) is not None and r == rank for v, r in zip(values, ranks, strict=True))
        if not formed or any(n.shape(v) is None for v in values):
            return make(*values)
        return self.last(n, make(*(self._fit(n, v, r, rank) for v, r in zip(values, ranks, strict=True))))

    def _fit(self, n: Builder, value: Output, rank: int, target_rank: int) -> Output:
        """Reshape or transpose an operand so that it broadcasts with channels-first tensors."""
        if not rank:
            return value
        if rank < target_rank:
            value = add_leading_dims(n, value, target_rank)
        return self.first(n, value)


def _is_of_one(node: Node) -> bool:
    """Whether all operands but the first are scalars."""
    return all(tensor_type(source).shape == () for source in node.input_values()[1:])


def add_leading_dims(n: Builder, value: Output, rank: int) -> Output:
    """Insert dimensions of 1 at the front."""
    missing = rank - n.rank(value)
    if missing <= 0:
        return value
    constant = n.value(value)
    if constant is None:
        return n.unsqueeze(value, list(range(missing)))
    return n.const(constant.reshape([1] * missing + list(constant.shape)), n.dtype(value))
