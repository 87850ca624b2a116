"""Images in other sizes, and sampled at the points of a grid: the weights of the elements around a point, and
their sums. GridSample takes two dimensions; here are any number."""

from __future__ import annotations

import itertools

from ovjit.readers.numerics.special import polynomial
from ovjit.readers.rule_language import *


def nearness(n: Builder, gap: Output, a: float | None) -> Output:
    """The weight of an element at the distance `gap`: linear, or Keys' cubic with the coefficient `a`."""
    if a is None:
        return n("Maximum", n("Subtract", n.like(gap, 1), gap), n.like(gap, 0))
    near = polynomial(n, gap, [1, 0, -(a + 3), a + 2])
    far = polynomial(n, gap, [-4 * a, 8 * a, -5 * a, a])
    outer = n("Select", n("Less", gap, n.like(gap, 2)), far, n.like(gap, 0))
    return n("Select", n("LessEqual", gap, n.like(gap, 1)), near, outer)


def elements_around(n: Builder, positions: Output, reach: Output) -> Output:
    """The indices of the 2 * `reach` elements around each position, [positions, elements], as floats and
    unbounded."""
    zero, one = n.like(positions, 0), n.like(positions, 1)
    count = n("Multiply", reach, n.like(reach, 2))
    offsets = n("Range", zero, n.scalar(count), one, output_type=n.dtype(positions), opset=4)
    first = n("Subtract", n("Floor", positions), n("Subtract", reach, one))
    return n("Add", n.unsqueeze(first, [1]), n.unsqueeze(offsets, [0]))


def inside(n: Builder, elements: Output, count: Output) -> tuple[Output, Output]:
    """(indices clamped to `count` elements as i64, mask of those that were inside)"""
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
    """Indices and weights, reduced to the largest number of nonzero weights of an output; these come
    first."""
    order = np.argsort(weights == 0, axis=1, kind="stable")
    terms = max(1, int((weights != 0).sum(1).max(initial=1)))
    return tuple(np.take_along_axis(v, order, 1)[:, :terms] for v in (index, weights))  # type: ignore


def sample(n: Builder, x: Output, grid: Output, nearest: bool, padding: str, align_corners: bool) -> Output:
    """Grid sampling: elements of x [batch, channels, *sizes] at positions [batch, *, dims] in -1 to 1, as
    [batch, channels, *].

    It is the nearest one, or the mean of 2^dims corners by their distances. `padding`: "zeros", "border" or
    "reflection".
    """
    kind, dims = n.dtype(x), n.rank(x) - 2
    sizes = [n.convert(n.dim_of(x, 2 + i), n.dtype(grid)) for i in range(dims)]
    positions = [  # the grid's last coordinate is of the first dimension
        _position(n, n("Gather", grid, dims - 1 - i, dims + 1, opset=8), size, padding, align_corners)
        for i, size in enumerate(sizes)
    ]
    pixels = n.channels_last(x)
    if nearest:
        rounded = [n("Round", position, mode="half_to_even") for position in positions]
        return n.channels_first(_elements(n, pixels, rounded, sizes, padding))
    lower = [n("Floor", position) for position in positions]
    upper_shares = [n("Subtract", position, low) for position, low in zip(positions, lower, strict=True)]
    lower_shares = [n("Subtract", n.like(share, 1), share) for share in upper_shares]

    def weigh(corner: Sequence[int]) -> Output:
        at = [n("Add", low, n.like(low, step)) for low, step in zip(lower, corner, strict=True)]
        share = n.chain("Multiply", [(lower_shares, upper_shares)[s][i] for i, s in enumerate(corner)])
        weight = n.unsqueeze(n.convert(share, kind), [dims + 1])
        return n("Multiply", _elements(n, pixels, at, sizes, padding), weight)

    return n.channels_first(n.chain("Add", map(weigh, itertools.product((0, 1), repeat=dims))))


def _position(n: Builder, at: Output, size: Output, padding: str, align_corners: bool) -> Output:
    """Convert a position in -1 to 1 to one among `size` elements, inside for the paddings border and
    reflection."""
    one, two, half = (n.like(at, v) for v in (1, 2, 0.5))
    moved, last = n("Add", at, one), n("Subtract", size, one)
    if align_corners:
        position = n("Multiply", n("Multiply", moved, half), last)
    else:
        position = n("Subtract", n("Multiply", n("Multiply", moved, size), half), half)
    if padding == "reflection":  # there and back between the outer elements, or their outer edges
        low = n.like(at, 0.0 if align_corners else -0.5)
        span = n("Maximum", last, n.like(at, 1e-30)) if align_corners else size
        folded = n("FloorMod", n("Abs", n("Subtract", position, low)), n("Multiply", span, two))
        position = n("Add", n("Minimum", folded, n("Subtract", n("Multiply", span, two), folded)), low)
    return position if padding == "zeros" else _within(n, position, size)


def _within(n: Builder, position: Output, size: Output) -> Output:
    """The nearest place among `size` elements."""
    return n("Minimum", n("Maximum", position, n.like(position, 0)), n("Subtract", size, n.like(position, 1)))


def _elements(
    n: Builder, pixels: Output, at: Sequence[Output], sizes: Sequence[Output], padding: str
) -> Output:
    """Elements of [batch, *sizes, channels] at integer positions; zeros outside."""
    axis = n.rank(pixels) - 1
    inside: Output | None = None
    index = []
    for position, size in zip(at, sizes, strict=True):
        within = _within(n, position, size)
        hit = n("Equal", within, position)
        inside = hit if inside is None else n("LogicalAnd", inside, hit)
        index.append(n.unsqueeze(n.convert(within, "i64"), [axis]))
    elements = n("GatherND", pixels, n("Concat", *index, axis=axis), batch_dims=1)
    if padding != "zeros":
        return elements
    assert inside is not None
    return n("Select", n.unsqueeze(inside, [axis]), elements, n.like(elements, 0))
