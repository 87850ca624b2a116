"""The inputs that all layers of a paged decoder share, and values for each new token computed from them.

Sequences of paged attention have no padding: a product with a mask of padding, as recurrent layers have
them, is its other factor.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ovjit.api.model.boundary import Parameter, constant_node
from ovjit.api.model.boundary import new_output as _op
from ovjit.api.model.model import Model
from ovjit.api.model.node import Node, Output
from ovjit.compat.passes.probe import Probe, inputs_named, is_a, users_of
from ovjit.graph.shapes import ANY


class Inputs:
    """One model's new inputs, which are made when they are first asked for."""

    def __init__(self, model: Model):
        self.model = model
        self.new_parameters: list[Parameter] = []
        self.shared: dict[str, Parameter] = {}

    def input(self, name: str, dtype: str, shape: tuple[Any, ...]) -> Output:
        """An input of the model, made when it is first asked for."""
        parameter = self.shared.get(name)
        if parameter is None:
            parameter = self.shared[name] = Parameter._of(dtype, shape, name)
            parameter._tensors[0]._names = {name}
            self.new_parameters.append(parameter)
        return parameter.output(0)

    def longest(self, length: Output) -> Output:
        """The length of the longest sequence, in place of one that is counted."""
        kind = length._tensor._type
        longest = _op("Convert", self.input("max_context_len", "i32", ()), destination_type=kind.dtype)
        return _op("Unsqueeze", longest, _i64(0)) if kind.shape else longest

    def own_lengths(self) -> Output:
        """For each token the length of its sequence: [tokens]."""
        ends = self.input("subsequence_begins", "i32", (ANY,))
        last, one = _i64(np.iinfo(np.int64).max), _i64(1)
        starts, ends = _op("Slice", ends, _i64(0), _i64(-1), one), _op("Slice", ends, one, last, one)
        new = _op("Subtract", ends, starts)
        lengths = _op(
            "Convert", _op("Add", self.input("past_lens", "i32", (ANY,)), new), destination_type="i64"
        )
        return _op("Gather", lengths, self._sequences()[1], np.array(0))

    def own_places(self) -> Output:
        """For each token its place in its sequence: [tokens]."""
        row, sequence = self._sequences()
        starts = _op("Slice", self.input("subsequence_begins", "i32", (ANY,)), _i64(0), _i64(-1), _i64(1))
        moved = _op("Subtract", self.input("past_lens", "i32", (ANY,)), starts)
        moved = _op("Convert", moved, destination_type="i64")
        return _op("Add", row, _op("Gather", moved, sequence, np.array(0)))

    def _sequences(self) -> tuple[Output, Output]:
        """The numbers of all tokens, and of the sequence of each: [tokens]."""
        last, one = _i64(np.iinfo(np.int64).max), _i64(1)
        ends = _op("Slice", self.input("subsequence_begins", "i32", (ANY,)), one, last, one)
        tokens = _op("Gather", _op("ShapeOf", self.tokens(), output_type="i64"), np.array(0), np.array(0))
        row = _op("Range", np.array(0, np.int64), tokens, np.array(1, np.int64), output_type="i64")
        return row, _op("Bucketize", row, ends, output_type="i64", with_right_bound=False)

    def tokens(self) -> Output:
        """The input of new tokens."""
        return inputs_named(self.model, "input_ids", "inputs_embeds")[0].output(0)

    def ones(self, mask: Parameter, count: Any) -> Output:
        """A mask of ones [count, max_context_len]."""
        longest = _op("Convert", self.input("max_context_len", "i32", ()), destination_type="i64")
        shape = _op("Concat", count, _op("Unsqueeze", longest, _i64(0)), axis=0)
        return _op("Broadcast", constant_node(np.array(1), mask._attrs["element_type"]).output(0), shape)


def _i64(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


#: What a mask of ones goes through on the way to a product, as the first input; and with any other.
_SHAPES = (
    "Slice", "StridedSlice", "Gather", "Unsqueeze", "Squeeze", "Reshape", "Transpose", "Broadcast", "Tile",
    "Convert", "ConvertLike", "Identity",
)  # fmt: skip
_EACH = ("Add", "Subtract", "Multiply", "Divide", "Maximum", "Minimum")
#: A past and a count of new tokens for which factors are computed.
_TRIED = ((7, 3), (7, 1), (0, 2))


def padding_products(model: Model) -> list[tuple[Node, int]]:
    """The products of anything and of ones, where no token is padding: each Multiply, and which input the
    other factor is."""
    pending = [p.output(0) for p in inputs_named(model, "attention_mask")]
    products: dict[int, tuple[Node, int]] = {}
    factors, probes = set(pending), [Probe(*lengths) for lengths in _TRIED]
    for factor in pending:
        for node, index in users_of(factor):
            other = node.input_value(1 - index) if is_a(node, "Multiply") else None
            if other is not None and _spreads(factor, other) and all(_is_one(p, factor) for p in probes):
                products[id(node)] = node, 1 - index
            elif (index == 0 and is_a(node, *_SHAPES)) or is_a(node, *_EACH):
                pending += {node.output(0)} - factors
                factors.add(node.output(0))
    return list(products.values())


def _is_one(probe: Probe, factor: Output) -> bool:
    """Whether all elements are."""
    value = probe.try_values([factor])
    return value is not None and bool((value[0] == 1).all())


def _spreads(ones: Output, other: Output) -> bool:
    """Whether the product has the shape of the other factor."""
    small, large = ones._tensor._type.shape, other._tensor._type.shape
    if small is None or large is None or len(small) > len(large):
        return False
    pairs = zip(small, large[len(large) - len(small) :], strict=True)
    return all(a == 1 or (b != 1 and (a == b or not isinstance(a, int))) for a, b in pairs)
