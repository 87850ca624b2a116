"""Dimensions and shapes: compatibility, merging and broadcasting.

A dimension is a symbolic integer (`ovjit.graph.symbolic`): an int if static, an Interval if dynamic. The
API's Dimension wraps it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeGuard

from ovjit.errors import ModelError, OvjitError
from ovjit.graph.symbolic import ANY as ANY  # re-exported for shape inference
from ovjit.graph.symbolic import Dim as Dim
from ovjit.graph.symbolic import Interval as Interval
from ovjit.graph.symbolic import Shape as Shape
from ovjit.graph.symbolic import alike, statically_known_equal
from ovjit.graph.symbolic import bounds as bounds
from ovjit.graph.symbolic import dim as dim
from ovjit.graph.traced import is_traced_number


def up_to(d: Dim) -> Dim:
    """The extent of any part of the dimension: 0 up to its upper bound."""
    most = bounds(d)[1]
    return ANY if most is None or is_traced_number(most) else dim(0, most)


#: Guesses for dynamic dimensions: a small one that is no special case, and one that windows and strides do
#: not reduce to 0.
GUESS, LONG_GUESS = 3, 64
#: The extents of larger images.
IMAGE_GUESSES = 128, 256


def guess_dim(d: Dim, guess: int = GUESS) -> int:
    """A likely value of a dimension, for work ahead of the first inference: `guess`, clamped to the
    bounds."""
    if not isinstance(d, Interval):
        return d
    return d.lo if d.lo >= guess else guess if d.hi is None else min(d.hi, guess)


def guess_input_shape(shape: Sequence[Dim], batch: int = 1, image: int = LONG_GUESS) -> tuple[int, ...]:
    """A likely shape of an input with this batch size, where the images of inputs of rank 4 have the extents
    `image`."""
    extents = (batch, LONG_GUESS, *(image if len(shape) == 4 else LONG_GUESS for _ in shape[2:]))
    return tuple([guess_dim(d, extent) for d, extent in zip(shape, extents, strict=False)])


def is_static(shape: Sequence[Dim] | None) -> TypeGuard[tuple[int, ...]]:
    """True if the rank and all dimensions are static."""
    if shape is None:
        return False
    for d in shape:  # a plain loop is faster than all(): planning calls this ten thousand times
        if type(d) is Interval:  # isinstance asks a traced number for its class
            return False
    return True


def fits(shape: Sequence[int], expected: Sequence[Dim] | None) -> bool:
    """True if the concrete `shape` is an instance of `expected`."""
    if expected is None:
        return True
    if len(shape) != len(expected):
        return False
    for d, e in zip(shape, expected, strict=True):  # all() of a generator takes longer
        if d < 0 or not (d == e if isinstance(e, int) else d in e):
            return False
    return True


def merge(a: Dim, b: Dim) -> Dim | None:
    """The intersection of two dimensions; None if it is empty."""
    if statically_known_equal(a, b):
        return a
    (alo, ahi), (blo, bhi) = bounds(a), bounds(b)
    lo = max(alo, blo)
    hi = bhi if ahi is None else ahi if bhi is None else min(ahi, bhi)
    if hi is not None and lo > hi:
        return None
    # both are the same number, so either expression is right
    named = next((d for d in (a, b) if isinstance(d, Interval) and d.base is not None), None)
    return dim(lo, hi) if named is None else dim(lo, hi, named.base, named.offset)


def compatible(a: Dim, b: Dim) -> bool:
    """True if the dimensions may be equal."""
    return merge(a, b) is not None


def compatible_shapes(a: Sequence[Dim] | None, b: Sequence[Dim] | None) -> bool:
    """True if the shapes may be equal."""
    return a is None or b is None or (len(a) == len(b) and all(map(compatible, a, b)))


def broadcast_dims(a: Dim, b: Dim) -> Dim | None:
    "The broadcast of two dimensions by NumPy's rules; None if they cannot be broadcast."
    if (type(b) is int and b == 1) or (is_traced_number(a) and alike(a, b)):
        return a  # without comparing a to 1: a batch of 1 shares the plan of others
    if a == 1 or statically_known_equal(a, b):
        return b
    if b == 1:
        return a
    a_int, b_int = type(a) is not Interval, type(b) is not Interval
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
    """The NumPy broadcast of shapes; None if a rank is unknown. Raises ModelError if they do not
    broadcast."""
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
                    f"Argument shapes are inconsistent. {', '.join(text(s) for s in shapes)} cannot be "
                    "broadcast"
                )
            out[i] = merged
    return tuple(out)


def normalize_axis(axis: int, rank: int, what: str = "axis") -> int:
    """`axis`, counted from 0. A scalar counts as rank 1. Raises ModelError if it is outside of [-rank,
    rank)."""
    rank = max(rank, 1)
    if not -rank <= axis < rank:
        raise ModelError(f"{what.capitalize()} {axis} out of the tensor rank range [-{rank}, {rank - 1}].")
    return axis + rank if axis < 0 else axis


def normalize_axes(axes: Iterable[int], rank: int) -> tuple[int, ...]:
    """`axes`, counted from 0 and sorted. Raises ModelError for duplicates, and for axes out of range."""
    out = sorted(normalize_axis(int(a), rank) for a in axes)
    if len(set(out)) != len(out):
        raise ModelError(f"axis {list(axes)} contains a dimension twice")
    return tuple(out)


def text(shape: Shape | None) -> str:
    """A shape as OpenVINO prints it: [?,3,2..8], [...]."""
    return "[...]" if shape is None else "[" + ",".join(map(str, shape)) + "]"


def check_shapes(inputs: Sequence[Any], shapes: Sequence[tuple[int, ...]]) -> None:
    """Raise OvjitError unless each shape is an instance of the shape of its input (any object with a shape).

    The stored types of static inputs would be wrong for other shapes. A dynamic dimension may be 0 despite
    its bounds, as in inputs that were never set.
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
            raise OvjitError(f"input {i} has the shape {text(value.shape)}, but {list(shape)} is given")
