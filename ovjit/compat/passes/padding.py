"""Products with a mask of padding, as recurrent layers have them.

Sequences of paged attention have no padding: such a product is its other factor.
"""

from __future__ import annotations

from collections.abc import Iterator

from ovjit.api.model.model import Model
from ovjit.api.model.node import Node, Output
from ovjit.compat.passes.probe import is_a

#: What leaves ones as ones. The mask is the first input.
KEEP_ONES = (
    "Slice", "StridedSlice", "Gather", "Unsqueeze", "Squeeze", "Reshape", "Transpose", "Broadcast", "Tile",
    "Convert", "ConvertLike", "Identity",
)  # fmt: skip


def padding_products(model: Model) -> list[tuple[Node, int]]:
    """The products of anything and a mask of ones: each Multiply, and which input the other factor is."""
    pending = [p.output(0) for p in model.get_parameters() if "attention_mask" in p._tensors[0]._names]
    found: dict[int, tuple[Node, int]] = {}
    for ones in pending:
        for node, index in _users(ones):
            if is_a(node, "Multiply") and _spreads(ones, node.input_value(1 - index)):
                found[id(node)] = node, 1 - index
            elif index == 0 and is_a(node, *KEEP_ONES):
                pending.append(node.output(0))
    return list(found.values())


def _users(output: Output) -> Iterator[tuple[Node, int]]:
    for target in output.get_target_inputs():
        yield target.get_node(), target.get_index()


def _spreads(ones: Output, other: Output) -> bool:
    """Whether the product has the shape of the other factor."""
    small, wide = ones._tensor._type.shape, other._tensor._type.shape
    if small is None or wide is None or len(small) > len(wide):
        return False
    pairs = zip(small, wide[len(wide) - len(small) :], strict=True)
    return all(a == 1 or (b != 1 and (a == b or not isinstance(a, int))) for a, b in pairs)
