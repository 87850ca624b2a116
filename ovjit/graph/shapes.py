"""Dimensions and shapes: what fits, merges and broadcasts.

A dimension is a symbolic integer (`ovjit.graph.symbolic`): an int where known, an Interval where not. The
API's Dimension has these dimensions, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeGuard

from ovjit.errors import ModelError, OvjitError
from ovjit.graph.symbolic import ANY as ANY  # the numbers are dimensions, too, for who infers shapes
from ovjit.graph.symbolic import Dim as Dim
from ovjit.graph.symbolic import Interval as Interval
from ovjit.graph.symbolic import Shape as Shape
from ovjit.graph.symbolic import alike, statically_known_equal
from ovjit.graph.symbolic import bounds as bounds
from ovjit.graph.symbolic import dim as dim
from ovjit.graph.traced import is_traced_number


def up_to(d: Dim) -> Dim:
    """What a part of the dimension may be: from none to all of it."""
    most = bounds(d)[1]
    return ANY if most is None or is_traced_number(most) else dim(0, most)


#: An open dimension's guess: one that is no special case, and one of which windows and strides leave some.
GUESS, LONG_GUESS = 3, 64


def guessed(d: Dim, guess: int = GUESS) -> int:
    """A dimension as it may be, for what is made before any shape is known."""
    if not isinstance(d, Interval):
        return d
    return d.lo if d.lo >= guess else guess if d.hi is None else min(d.hi, guess)


def guessed_input(shape: Sequence[Dim], batch: int = 1) -> tuple[int, ...]:
    """The shape of an input as it may be, of a `batch`: those of one are the most likely."""
    return tuple([guessed(d, LONG_GUESS if axis else batch) for axis, d in enumerate(shape)])


def is_static(shape: Sequence[Dim] | None) -> TypeGuard[tuple[int, ...]]:
    """True when the rank and every dimension are known."""
    if shape is None:
        return False
    for d in shape:  # a plain loop: planning asks this ten thousand times
        if isinstance(d, Interval):
            return False
    return True


def fits(shape: Sequence[int], expected: Sequence[Dim] | None) -> bool:
    """True when the concrete `shape` is one of those that `expected` stands for."""
    if expected is None:
        return True
    if len(shape) != len(expected):
        return False
    for d, e in zip(shape, expected, strict=True):  # all() of a generator takes longer
        if d < 0 or not (d == e if isinstance(e, int) else d in e):
            return False
    return True


def merge(a: Dim, b: Dim) -> Dim | None:
    """The dimensions that are both in `a` and in `b`; None when there is none."""
    if statically_known_equal(a, b):
        return a
    (alo, ahi), (blo, bhi) = bounds(a), bounds(b)
    lo = max(alo, blo)
    hi = bhi if ahi is None else ahi if bhi is None else min(ahi, bhi)
    if hi is not None and lo > hi:
        return None
    # both have to be the same number: either name is right
    named = next((d for d in (a, b) if isinstance(d, Interval) and d.base is not None), None)
    return dim(lo, hi) if named is None else dim(lo, hi, named.base, named.offset)


def compatible(a: Dim, b: Dim) -> bool:
    """True when the dimensions may be the same number."""
    return merge(a, b) is not None


def compatible_shapes(a: Sequence[Dim] | None, b: Sequence[Dim] | None) -> bool:
    """True when the shapes may be the same one."""
    return a is None or b is None or (len(a) == len(b) and all(map(compatible, a, b)))


def broadcast_dims(a: Dim, b: Dim) -> Dim | None:
    """NumPy's rule for one pair of dimensions; None when they do not fit."""
    if (type(b) is int and b == 1) or (is_traced_number(a) and alike(a, b)):
        return a  # without comparing a to 1: a batch of 1 shares the plan of others
    if a == 1 or statically_known_equal(a, b):
        return b
    if b == 1:
        return a
    a_int, b_int = not isinstance(a, Interval), not isinstance(b, Interval)
    if a_int and b_int:
        return a if a == b else None
    if a_int:
        return a if 1 in b or a in b else None  # type: ignore[operator]
    if b_int:
        return b if 1 in a or b in a else None  # type: ignore[operator]
    # the result is b where a is 1, a where b is 1, or their common values; 0 beside 1 is 0
    ways = [bounds(other) for one, other in ((a, b), (b, a)) if 1 in one]  # type: ignore[operator]
    both = merge(a, b)
    ways += [] if both is None else [bounds(both)]
    if not ways:
        return None
    highs = [high for _, high in ways if high is not None]
    return dim(min(low for low, _ in ways), max(highs) if len(highs) == len(ways) else None)


def broadcast(*shapes: Shape | None) -> Shape | None:
    """The NumPy broadcast of shapes; None if the rank of one is unknown.

    Raises ModelError when they do not fit.
    """
    if any(s is None for s in shapes):
        return None
    rank = max(len(s) for s in shapes)  # type: ignore[arg-type]
    out: list[Dim] = [1] * rank
    for shape in shapes:
        assert shape is not None
        for i, d in enumerate(shape, rank - len(shape)):
            merged = broadcast_dims(out[i], d)
            if merged is None:
                raise ModelError(
                    f"Argument shapes are inconsistent. {', '.join(text(s) for s in shapes)} do not broadcast"
                )
            out[i] = merged
    return tuple(out)


def normalize_axis(axis: int, rank: int, what: str = "axis") -> int:
    """`axis` counted from 0; of a single number, 0 and -1 are one. Raises ModelError when out of
    [-rank, rank)."""
    rank = max(rank, 1)
    if not -rank <= axis < rank:
        raise ModelError(f"{what.capitalize()} {axis} out of the tensor rank range [-{rank}, {rank - 1}].")
    return axis + rank if axis < 0 else axis


def normalize_axes(axes: Iterable[int], rank: int) -> tuple[int, ...]:
    """`axes` counted from 0, sorted. Raises ModelError for a duplicate or one out of range."""
    out = sorted(normalize_axis(int(a), rank) for a in axes)
    if len(set(out)) != len(out):
        raise ModelError(f"axis {list(axes)} names a dimension twice")
    return tuple(out)


def text(shape: Shape | None) -> str:
    """A shape as OpenVINO prints it: [?,3,2..8], [...]."""
    return "[...]" if shape is None else "[" + ",".join(map(str, shape)) + "]"


def check_shapes(inputs: Sequence[Any], shapes: Sequence[tuple[int, ...]]) -> None:
    """Raise OvjitError unless each of `inputs` (anything with a shape) is given one that fits.

    Else the types that are stored for static inputs would be used for other shapes. Whatever its bounds, an
    open dimension may be 0: so are inputs that were never set.
    """
    if len(inputs) != len(shapes):
        raise OvjitError(f"internal error: {len(shapes)} shapes are given for {len(inputs)} inputs")
    for i, (value, shape) in enumerate(zip(inputs, shapes, strict=True)):
        expected = value.shape
        if fits(shape, expected):
            continue
        if expected is not None and len(shape) == len(expected):
            pairs = zip(shape, expected, strict=True)
            expected = [0 if isinstance(e, Interval) and e.lo > 0 and d == 0 else e for d, e in pairs]
        if not fits(shape, expected):
            raise OvjitError(f"input {i} has the shape {text(value.shape)}; {list(shape)} is given")
