"""Merges the equal nodes of a Model, as OpenVINO does after reading and preprocessing."""

from __future__ import annotations

from collections.abc import Hashable

import numpy as np

from ovjit.api.model.custom import Op
from ovjit.api.model.model import Model
from ovjit.api.model.model_rules import ModelNode, ModelUses, ModelValue
from ovjit.api.model.node import Output
from ovjit.rewrite.merging import find_equal

#: How many elements of a constant are hashed. All are compared.
SOME = 16


class _Elements:
    """An array as a key: equal to those of the same bytes."""

    def __init__(self, array: np.ndarray):
        self.array = array

    def __hash__(self) -> int:
        flat = self.array.reshape(-1)
        return hash(flat[:: max(1, flat.size // SOME)].tobytes())

    def __eq__(self, other: object) -> bool:
        one, two = self.array, other.array  # type: ignore[attr-defined]
        return one is two or np.array_equal(one.reshape(-1).view(np.uint8), two.reshape(-1).view(np.uint8))


def merge_equal_nodes(model: Model) -> None:
    """Merge nodes of the same operation, inputs and attributes: readers of one read the other instead.

    Nodes with a state, a body or another effect stay. Of nodes that Results read, each keeps its name.
    """
    uses = ModelUses(model)

    def source(value: ModelValue) -> Hashable:
        array = value.constant
        if array is None or array.dtype.hasobject:
            return value
        return value.dtype, value.shape, _Elements(array)

    def merge(earlier: ModelNode, node: ModelNode) -> ModelNode:
        remaining, duplicate = (node, earlier) if uses.is_returned(node.of) else (earlier, node)
        if uses.is_returned(duplicate.of):
            return earlier  # both names are the user's
        for index in range(len(remaining.of._tensors)):
            Output._of(duplicate.of, index).replace(Output._of(remaining.of, index))
        return remaining

    find_equal((ModelNode(n) for n in uses.nodes if not isinstance(n, Op)), source, merge)
