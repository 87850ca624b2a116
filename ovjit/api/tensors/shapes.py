"""`PartialShape`: a shape in which dimensions, or even their number, may be unknown."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from typing import Any

from ovjit.api.arguments import expect, takes
from ovjit.api.tensors.dimension import (
    NOTHING,
    Dimension,
    contains,
    dim_between,
    dim_of_int,
    dim_of_pair,
    dim_of_text,
    dimension_of,
    length_of,
    limits,
    text_of,
)
from ovjit.api.tensors.vectors import Shape, fields_of, shape_of
from ovjit.errors import no_such_constructor, no_such_form
from ovjit.graph.shapes import ANY, Dim, is_static, merge


def _element(value: Any) -> Dim:
    """One entry of the list or tuple that a PartialShape is made from."""
    if isinstance(value, int):
        return dim_of_int(_fitting(value))
    if isinstance(value, str):
        return dim_of_text(value)
    if isinstance(value, Dimension):
        return value._dim
    if isinstance(value, (list, tuple)):
        if len(value) != 2:
            raise TypeError(
                "Two elements are expected in tuple(lower, upper) for dynamic dimension, but "
                f"{len(value)} elements were given."
            )
        if not (isinstance(value[0], int) and isinstance(value[1], int)):
            raise TypeError(
                f"Incorrect pair of types ({type(value[0])}, {type(value[1])}) for dynamic dimension, ints "
                "are expected."
            )
        return dim_of_pair(_fitting(value[0]), _fitting(value[1]))
    raise TypeError(
        f"Incorrect type {type(value)} for dimension. Expected types are: int, str, openvino.Dimension, "
        "list/tuple with lower and upper values for dynamic dimension."
    )


def _fitting(length: int) -> int:
    if not -(2**63) <= length < 2**63:
        raise RuntimeError(f"a dimension must fit 64 bits, {length} doesn't")
    return int(length)  # a bool becomes a number


class PartialShape:
    """A shape of which dimensions, or even their number, may be unknown.

    Made from a Shape, a PartialShape, a list or tuple (of ints with -1 for unknown, strings, Dimensions,
    (lower, upper) pairs), or a string: "[1,3,?,2..8]", "[...]" for an unknown rank.
    Raises TypeError for other objects, RuntimeError for a string that can't be read.
    """

    __slots__ = ("_items",)
    __hash__ = None  # type: ignore[assignment]
    _items: tuple[Dim, ...] | None  # None: the rank is unknown

    def __init__(self, shape: Any) -> None:
        if isinstance(shape, PartialShape):
            self._items = shape._items
        elif isinstance(shape, Shape):
            self._items = tuple(dim_between(length, length) for length in shape)
        elif isinstance(shape, (list, tuple)):
            self._items = tuple(map(_element, shape))
        elif isinstance(shape, str):
            self._items = _parse_shape(shape)
        else:
            raise no_such_constructor(f"PartialShape can't be made from {type(shape).__name__}")

    @staticmethod
    def dynamic(rank: Any = -1) -> PartialShape:
        """Unknown dimensions; their number too unless `rank` (an int or a static Dimension) gives it."""
        count = rank._dim if isinstance(rank, Dimension) else dim_of_int(length_of(rank))
        return _partial((ANY,) * count if isinstance(count, int) else None)

    def _static_rank_dims(self) -> tuple[Dim, ...]:
        if self._items is None:
            raise RuntimeError("the rank of the shape [...] is dynamic")
        return self._items

    @property
    def rank(self) -> Dimension:
        return dimension_of(ANY if self._items is None else len(self._items))

    @property
    def is_static(self) -> bool:
        return is_static(self._items)

    @property
    def is_dynamic(self) -> bool:
        return not self.is_static

    @property
    def all_non_negative(self) -> bool:
        return True  # a dimension can't be negative

    def to_shape(self) -> Shape:
        """The Shape that this is. Raises RuntimeError when it is dynamic."""
        if not self.is_static:
            raise RuntimeError(f"to_shape was called on a dynamic shape. It is {self}")
        return shape_of(self._items)  # type: ignore[arg-type]

    def get_shape(self) -> Shape:
        """The Shape that this is. Raises RuntimeError when it is dynamic."""
        if not self.is_static:
            raise RuntimeError(f"get_shape() must be called on a static shape. It is {self}")
        return self.to_shape()

    def get_min_shape(self) -> Shape:
        """The lower bounds; [] for an unknown rank."""
        return shape_of(limits(item)[0] for item in self._items or ())

    def get_max_shape(self) -> Shape:
        """The upper bounds, 2**63 - 1 where there is none; [] for an unknown rank."""
        return shape_of(limits(item)[1] for item in self._items or ())

    def __len__(self) -> int:
        return len(self._static_rank_dims())

    def _dimension(self, position: int) -> Dimension:
        if self._items is None or not -len(self._items) <= position < len(self._items):
            raise RuntimeError(f"Accessing out-of-range dimension {position} of {self}")
        return dimension_of(self._items[position])

    @takes
    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return _partial(self._static_rank_dims()[index])
        return self._dimension(operator.index(index))

    def get_dimension(self, index: int) -> Dimension:
        """The dimension at an index from 0. TypeError for a negative one, RuntimeError past the end."""
        position = operator.index(index)
        if position < 0:
            raise no_such_form("get_dimension does not take a negative index")
        return self._dimension(position)

    @takes
    def __setitem__(self, index: Any, value: Any) -> None:
        position = operator.index(index)
        if position < 0:
            raise no_such_form("a dimension can't be set by a negative index")
        dim = value._dim if isinstance(value, Dimension) else dim_of_int(length_of(value))
        self._dimension(position)
        items = list(self._static_rank_dims())
        items[position] = dim
        self._items = tuple(items)

    def __iter__(self) -> Iterator[Dimension]:
        """An unknown rank has no dimensions to go through; its length raises RuntimeError."""
        return iter([dimension_of(item) for item in self._items or ()])

    def __eq__(self, other: object) -> bool:
        if isinstance(other, PartialShape):
            return self._items == other._items
        if isinstance(other, Shape):
            return self._items == tuple(other._values)
        if isinstance(other, (list, tuple)):
            if self.is_dynamic:
                raise TypeError(f"Cannot compare dynamic shape with {type(other)}")
            return self.to_shape() == other
        return NotImplemented

    def to_string(self) -> str:
        return "[...]" if self._items is None else f"[{','.join(map(text_of, self._items))}]"

    __str__ = to_string

    def __repr__(self) -> str:
        return f"<PartialShape: {self.to_string()}>"

    def __copy__(self) -> PartialShape:
        return PartialShape(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> PartialShape:
        return PartialShape(self)

    def _merge(self, shape: PartialShape) -> PartialShape | None:
        """The dimensions of all shapes that fit both; None if no shape does."""
        ours, others = self._items, _checked_shape(shape)
        if ours is None or others is None:
            return _partial(others if ours is None else ours)
        if len(ours) != len(others) or NOTHING in (*ours, *others):
            return None
        merged = [merge(a, b) for a, b in zip(ours, others, strict=True)]
        return None if None in merged else _partial(tuple(merged))  # type: ignore[arg-type]

    def compatible(self, shape: PartialShape) -> bool:
        """True when some shape fits both."""
        return self._merge(shape) is not None

    def refines(self, shape: PartialShape) -> bool:
        """True when every shape that fits this fits `shape`."""
        return _shape_contains(_checked_shape(shape), self._items)

    def relaxes(self, shape: PartialShape) -> bool:
        """True when every shape that fits `shape` fits this."""
        return _shape_contains(self._items, _checked_shape(shape))

    def same_scheme(self, shape: PartialShape) -> bool:
        """True when ranks agree and each dimension is of the same scheme (see Dimension.same_scheme)."""
        ours, others = self._items, _checked_shape(shape)
        if ours is None or others is None:
            return ours is others
        return len(ours) == len(others) and all(
            dimension_of(a).same_scheme(dimension_of(b)) for a, b in zip(ours, others, strict=True)
        )


def _partial(items: tuple[Dim, ...] | None) -> PartialShape:
    shape = PartialShape.__new__(PartialShape)
    shape._items = items
    return shape


def _checked_shape(shape: Any) -> tuple[Dim, ...] | None:
    return expect(shape, PartialShape, "an ovjit.PartialShape is expected")._items


def _shape_contains(outer: tuple[Dim, ...] | None, inner: tuple[Dim, ...] | None) -> bool:
    if outer is None or inner is None:
        return outer is None
    return len(outer) == len(inner) and all(map(contains, outer, inner))


def _parse_shape(shape: str) -> tuple[Dim, ...] | None:
    body = shape.strip()
    if body.startswith("[") and body.endswith("]"):
        body = body[1:-1].strip()
    if body == "...":
        return None
    if not body:
        return ()
    return tuple(dim_of_text(field) for field in fields_of(body, shape))
