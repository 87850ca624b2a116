"""Convolutions by filters, in groups or not, and transposed ones."""

from __future__ import annotations

from ovjit.readers.rule_language import *


def apply_filters(
    n: Builder, x: Output, filters: Output, groups: Any = 1, transposed: bool = False, **how: Any
) -> Output:  # fmt: skip
    """The convolution of x, or the `transposed` one, by filters whose first dimension has all groups."""
    op = "ConvolutionBackpropData" if transposed else "Convolution"
    if isinstance(groups, int) and groups == 1:
        return n(op, x, filters, **how)
    return n(f"Group{op}", x, n.group_filters(filters, groups), **how)
