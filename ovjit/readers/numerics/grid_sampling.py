"""Images of any number of dimensions sampled at the places of a grid. GridSample takes two dimensions."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from ovjit.build import Output
from ovjit.build.builder import Builder


def sample(n: Builder, x: Output, grid: Output, nearest: bool, padding: str, align_corners: bool) -> Output:
    """Elements of x [batch, channels, *sizes] at places [batch, *, dims] from -1 to 1: [batch, channels, *].

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
    """A place from -1 to 1 as one among `size` elements, inside for the paddings border and reflection."""
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
    """Elements of [batch, *sizes, channels] at whole places; outside are zeros."""
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
