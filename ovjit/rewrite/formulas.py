"""Parts of formulas that the rules of several places look for."""

from __future__ import annotations

from typing import Any

from ovjit.graph.shapes import normalize_axes
from ovjit.rewrite.pattern import Pattern, anything, op


def _axes(mean: Any) -> tuple[int, ...] | None:
    """The axes of a ReduceMean, where they are known."""
    data, axes = mean.node.inputs
    if data.shape is None or axes.constant is None:
        return None
    return normalize_axes((int(a) for a in axes.constant.reshape(-1)), len(data.shape))


def mean(of: Pattern) -> Pattern:
    """Its mean over `axes`, which keeps the dimensions."""
    return op.ReduceMean(of, anything, keep_dims=True).let(axes=_axes)


def squared(of: Pattern) -> Pattern:
    return of**2.0 | of * of


def root(of: Pattern) -> Pattern:
    return op.Sqrt(of) | of**0.5
