"""Patterns of subexpressions that several rules share: means, squares and square roots."""

from __future__ import annotations

from typing import Any

from ovjit.graph.shapes import normalize_axes
from ovjit.rewrite.pattern import Pattern, anything, op


def _axes(mean: Any) -> tuple[int, ...] | None:
    """The axes of a ReduceMean; None if they are not constant, or if the rank is unknown."""
    data, axes = mean.node.inputs
    if data.shape is None or axes.constant is None:
        return None
    return normalize_axes((int(a) for a in axes.constant.reshape(-1)), len(data.shape))


def mean(of: Pattern) -> Pattern:
    """The mean of `of` over `axes`, with kept dimensions. Binds `axes`."""
    return op.ReduceMean(of, anything, keep_dims=True).let(axes=_axes)


def square(of: Pattern) -> Pattern:
    return of**2.0 | of * of


def root(of: Pattern) -> Pattern:
    return op.Sqrt(of) | of**0.5
