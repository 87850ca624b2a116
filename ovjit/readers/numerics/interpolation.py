"""Images in other sizes as weighted sums: the weights of the elements around a place, and the sums."""

from __future__ import annotations

import numpy as np

from ovjit.build import Output
from ovjit.build.builder import Builder
from ovjit.readers.numerics.special import polynomial


def nearness(n: Builder, gap: Output, a: float | None) -> Output:
    """The weight of an element so far from a place: a triangle, or Keys' cubic with the coefficient `a`."""
    if a is None:
        return n("Maximum", n("Subtract", n.like(gap, 1), gap), n.like(gap, 0))
    near = polynomial(n, gap, [1, 0, -(a + 3), a + 2])
    far = polynomial(n, gap, [-4 * a, 8 * a, -5 * a, a])
    outer = n("Select", n("Less", gap, n.like(gap, 2)), far, n.like(gap, 0))
    return n("Select", n("LessEqual", gap, n.like(gap, 1)), near, outer)


def elements_around(n: Builder, positions: Output, reach: Output) -> Output:
    """The numbers of the 2 * `reach` elements around each place, [places, elements], real and not bounded."""
    zero, one = n.like(positions, 0), n.like(positions, 1)
    count = n("Multiply", reach, n.like(reach, 2))
    offsets = n("Range", zero, n.scalar(count), one, output_type=n.dtype(positions), opset=4)
    first = n("Subtract", n("Floor", positions), n("Subtract", reach, one))
    return n("Add", n.unsqueeze(first, [1]), n.unsqueeze(offsets, [0]))


def inside(n: Builder, elements: Output, count: Output) -> tuple[Output, Output]:
    """(the nearest of `count` elements as i64, whether it is the element itself)"""
    last = n("Subtract", count, n.like(count, 1))
    nearest = n("Minimum", n("Maximum", elements, n.like(elements, 0)), last)
    return n.convert(nearest, "i64"), n("Equal", nearest, elements)


def weighted_sums(n: Builder, x: Output, axis: int, index: Output, weights: Output) -> Output:
    """Sums of the elements of `x` at `index` along an axis, times `weights`; both are [outputs, terms].

    An element of weight 0 does not count: NaN and infinities reach only the outputs that they have a weight
    in. A product with a matrix would spread them over all outputs, as 0 times NaN is NaN.
    """
    rank = n.rank(x)
    indices, factors = n.value(index), n.value(weights)
    if indices is not None and factors is not None:
        indices, factors = _without_zeros(indices, factors)
        index, weights = n.const(indices), n.const(factors)
    weights = n.convert(weights, n.dtype(x))
    if axis < rank - 1:
        weights = n.unsqueeze(weights, list(range(2, rank - axis + 1)))
    elements = n("Gather", x, index, axis, opset=8)
    if factors is None or not factors.all():
        zero = n.fold(n("Equal", weights, n.like(weights, 0)))
        elements = n("Select", zero, n.like(x, 0), elements)
    products = n("Multiply", elements, n.fold(weights))
    return n("ReduceSum", products, [axis + 1], keep_dims=False)


def _without_zeros(index: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both with as few terms as the output with the most weights needs; the first terms have them."""
    order = np.argsort(weights == 0, axis=1, kind="stable")
    terms = max(1, int((weights != 0).sum(1).max(initial=1)))
    return tuple(np.take_along_axis(v, order, 1)[:, :terms] for v in (index, weights))  # type: ignore
