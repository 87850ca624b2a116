"""Images of any number of dimensions sampled at the places of a grid. GridSample takes two dimensions."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from ovjit.api.model.node import Output
from ovjit.readers.build import Builder


def sampled(n: Builder, x: Output, grid: Output, nearest: bool, padding: str, align_corners: bool) -> Output:
    """Elements of x [batch, channels, *sizes] at places [batch, *, dims] from -1 to 1: [batch, channels, *].

    It is the nearest one, or the mean of 2^dims corners by their distances. `padding`: "zeros", "border" or
    "reflection".
    """
    kind, dims = n.dtype(x), n.rank(x) - 2
    sizes = [n.convert(n.dim_of(x, 2 + i), n.dtype(grid)) for i in range(dims)]
    places = [  # the grid's last coordinate is of the first dimension
        _place(n, n("Gather", grid, dims - 1 - i, dims + 1, opset=8), size, padding, align_corners)
        for i, size in enumerate(sizes)
    ]
    wide = n.channels_last(x)
    if nearest:
        whole = [n("Round", place, mode="half_to_even") for place in places]
        return n.channels_first(_elements(n, wide, whole, sizes, padding))
    lower = [n("Floor", place) for place in places]
    upper_shares = [n("Subtract", place, low) for place, low in zip(places, lower, strict=True)]
    lower_shares = [n("Subtract", n.like(share, 1), share) for share in upper_shares]

    def weighted(corner: Sequence[int]) -> Output:
        at = [n("Add", low, n.like(low, step)) for low, step in zip(lower, corner, strict=True)]
        share = n.chain("Multiply", [(lower_shares, upper_shares)[s][i] for i, s in enumerate(corner)])
        weight = n.unsqueeze(n.convert(share, kind), [dims + 1])
        return n("Multiply", _elements(n, wide, at, sizes, padding), weight)

    return n.channels_first(n.chain("Add", map(weighted, itertools.product((0, 1), repeat=dims))))


def _place(n: Builder, at: Output, size: Output, padding: str, align_corners: bool) -> Output:
    """A place from -1 to 1 as one among `size` elements, inside for the paddings border and reflection."""
    one, two, half = (n.like(at, v) for v in (1, 2, 0.5))
    moved, last = n("Add", at, one), n("Subtract", size, one)
    if align_corners:
        place = n("Multiply", n("Multiply", moved, half), last)
    else:
        place = n("Subtract", n("Multiply", n("Multiply", moved, size), half), half)
    if padding == "reflection":  # there and back between the outer elements, or their outer edges
        low = n.like(at, 0.0 if align_corners else -0.5)
        span = n("Maximum", last, n.like(at, 1e-30)) if align_corners else size
        turned = n("FloorMod", n("Abs", n("Subtract", place, low)), n("Multiply", span, two))
        place = n("Add", n("Minimum", turned, n("Subtract", n("Multiply", span, two), turned)), low)
    return place if padding == "zeros" else _within(n, place, size)


def _within(n: Builder, place: Output, size: Output) -> Output:
    """The nearest place among `size` elements."""
    return n("Minimum", n("Maximum", place, n.like(place, 0)), n("Subtract", size, n.like(place, 1)))


def _elements(
    n: Builder, wide: Output, at: Sequence[Output], sizes: Sequence[Output], padding: str
) -> Output:
    """Elements of [batch, *sizes, channels] at whole places; outside are zeros."""
    axis = n.rank(wide) - 1
    inside: Output | None = None
    index = []
    for place, size in zip(at, sizes, strict=True):
        within = _within(n, place, size)
        hit = n("Equal", within, place)
        inside = hit if inside is None else n("LogicalAnd", inside, hit)
        index.append(n.unsqueeze(n.convert(within, "i64"), [axis]))
    found = n("GatherND", wide, n("Concat", *index, axis=axis), batch_dims=1)
    if padding != "zeros":
        return found
    assert inside is not None
    return n("Select", n.unsqueeze(inside, [axis]), found, n.like(found, 0))
