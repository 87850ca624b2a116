"""Products with a mask of padding, as recurrent layers have them.

Sequences of paged attention have no padding: such a product is its other factor.
"""

from __future__ import annotations

from ovjit.api.model.model import Model
from ovjit.api.model.node import Node, Output
from ovjit.compat.passes.probe import Probe, inputs_named, is_a, users_of

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
