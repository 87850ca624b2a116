"""The weights of the elements around a place, by which images are resized."""

from __future__ import annotations

from ovjit.api.model.node import Output
from ovjit.readers.build import Builder
from ovjit.readers.special import polynomial


def nearness(n: Builder, gap: Output, a: float | None) -> Output:
    """The weight of an element so far from a place: a triangle, or Keys' cubic with the coefficient `a`."""
    if a is None:
        return n("Maximum", n("Subtract", n.like(gap, 1), gap), n.like(gap, 0))
    near = polynomial(n, gap, [1, 0, -(a + 3), a + 2])
    far = polynomial(n, gap, [-4 * a, 8 * a, -5 * a, a])
    outer = n("Select", n("Less", gap, n.like(gap, 2)), far, n.like(gap, 0))
    return n("Select", n("LessEqual", gap, n.like(gap, 1)), near, outer)
