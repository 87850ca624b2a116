"""Conversions between layouts: the permutation from one to another, and the layout of a permuted tensor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from ovjit.api.tensors.layout import Layout
from ovjit.errors import ModelError
from ovjit.graph.shapes import Dim
from ovjit.records import NamedTuple

T = TypeVar("T")


class Change(NamedTuple):
    """A change of layouts: `added` axes of length 1 go in front, then all axes are permuted by `order`."""

    added: int
    order: tuple[int, ...]


def axes_of(layout: Layout, rank: int) -> list[str]:
    """The axes' names, "?" where there is none. RuntimeError if the layout cannot be of this rank."""
    if layout._scalar:
        names: list[str] = []
    elif layout._open:
        middle = rank - len(layout._leading) - len(layout._trailing)
        names = [*layout._leading, *["?"] * max(middle, 0), *layout._trailing]
    else:
        names = list(layout._leading)
    if len(names) != rank:
        raise ModelError(f"layout {layout.to_string()} is not compatible with rank {rank}")
    return names


def fixed_rank(layout: Layout) -> int | None:
    """The number of axes of a layout; None if it may have any."""
    return None if layout._open else len(layout._leading)


def of_other_sizes(source: Layout, target: Layout) -> ModelError:
    """The error for two layouts of which one has axes that the other lacks."""
    return ModelError(
        "Conversion is not supported for layouts with different sizes, "
        f"{source.to_string()} <-> {target.to_string()}"
    )


def find_change(source: Layout, target: Layout, rank: int | None) -> Change | None:
    """The change from one layout to another, for a tensor of `rank` dimensions. None if no change is needed.

    RuntimeError where both have axes that the other does not name, or not as many, except that `target` may
    have more in front.
    """
    if source == target or source.empty or target.empty:
        return None
    if rank is None:
        rank = fixed_rank(source)
        if rank is None:
            raise ModelError(
                f"the layout {source.to_string()} can be converted to {target.to_string()} only if the "
                "rank is static"
            )
    have, want_rank = axes_of(source, rank), fixed_rank(target)
    want = axes_of(target, rank if want_rank is None else want_rank)
    added = len(want) - len(have)
    if added < 0 or (added > 0 and (source._open or "?" in want)):
        raise of_other_sizes(source, target)
    if added:
        missing = [name for name in want if name != "?" and name not in have]
        if len(missing) != added:
            raise of_other_sizes(source, target)
        have = missing + have
    # the axes that only the one with more names speaks of lie, in their order, where the other has none
    names, other = [n for n in have if n != "?"], [n for n in want if n != "?"]
    fewer, more, where = (other, names, source) if len(names) > len(other) else (names, other, target)
    for name in fewer:
        if name not in more:
            raise ModelError(f"Dimension name '{name}' is not found in layout: {where.to_string()}")
    unnamed = [i for i, name in enumerate(have) if name == "?" or name not in want]
    order = tuple(have.index(name) if name != "?" and name in have else unnamed.pop(0) for name in want)
    # OpenVINO takes two layouts of one order for the same, whatever is in front of them
    return None if order == tuple(range(len(order))) else Change(added, order)


def permute_items(items: Sequence[T], order: Sequence[int]) -> list[T]:
    """`items[order[i]]` at every i."""
    return [items[i] for i in order]


def permuted_layout(layout: Layout, order: Sequence[int]) -> Layout:
    """The layout of a transposed tensor. RuntimeError if `order` is no permutation of its axes, or if the
    layout does not name each axis."""
    if layout.empty:
        return layout
    if layout._open:
        raise ModelError(f"layout {layout.to_string()} has no fixed number of axes to permute by index")
    return Layout("[" + ",".join(permute_items(axes_of(layout, len(order)), order)) + "]")


def check_order(order: Sequence[int]) -> None:
    """RuntimeError unless the numbers 0, 1, ... each occur once."""
    used: set[int] = set()
    for number in order:
        if not 0 <= number < len(order):
            raise ModelError(
                f"Convert layout: dimension {number} is out of range for {len(order)} dimensions"
            )
        if number in used:
            raise ModelError(
                f"Convert layout: dimension {number} is used more than once in convert arguments"
            )
        used.add(number)


def invert_permutation(shape: Sequence[Dim], order: Sequence[int], unknown: Dim) -> tuple[Dim, ...]:
    """The shape that `order` permutes to `shape`; dimensions that are not in `order` are `unknown`."""
    before = [unknown] * len(shape)
    for i, source in enumerate(order):
        if source < len(before) and i < len(shape):
            before[source] = shape[i]
    return tuple(before)
