"""Fixed-length vectors of integers: Shape, Strides, Coordinate, CoordinateDiff, AxisVector, AxisSet.

They differ in the range of their values, in how they print, and in what OpenVINO lets one do with them:
only Shape and Strides compare by value (and so have no hash), only Shape takes negative indices and slices.
An index out of range is an IndexError (OpenVINO reads past the end there).
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar

from ovjit.errors import no_such_constructor, no_such_form

_UNSIGNED = (0, 2**64 - 1)
_SIGNED = (-(2**63), 2**63 - 1)


def integers(values: Any, low: int, high: int) -> tuple[int, ...]:
    """`values` as Python ints; TypeError unless it is a collection of integers within low..high."""
    if isinstance(values, (str, bytes, bytearray, Mapping)) or not (
        isinstance(values, Iterable) or hasattr(values, "__getitem__")
    ):
        raise no_such_constructor(f"a sequence of integers is expected, not {type(values).__name__}")
    try:
        result = tuple(map(operator.index, values))
    except TypeError as error:
        raise no_such_constructor(str(error)) from None
    for value in result:
        if not low <= value <= high:
            raise no_such_form(f"{value} is out of range: {low} to {high} are allowed")
    return result


def static_dims(shape: Any) -> tuple[int, ...]:
    """The dimensions of a Shape or of any collection of non-negative integers; TypeError otherwise."""
    if type(shape) is Shape:
        return tuple(shape._values)
    return integers(shape, *_UNSIGNED)


class IntVector:
    """The base class of the vectors: construction, length, iteration, reading and writing one value."""

    __slots__ = ("_values",)
    _values: list[int]
    _range: ClassVar[tuple[int, int]] = _UNSIGNED

    def __init__(self, values: Any, /) -> None:
        self._values = list(integers(values, *self._range))

    def __len__(self) -> int:
        return len(self._values)

    def __iter__(self) -> Iterator[int]:
        return iter(tuple(self._values))

    def _position(self, index: Any) -> int:
        position = operator.index(index)
        if position < 0:
            raise no_such_constructor(f"{type(self).__name__} takes no negative index")
        if position >= len(self._values):
            raise IndexError(f"index {position} is out of range for {self!r}")
        return position

    def __getitem__(self, index: Any) -> Any:
        return self._values[self._position(index)]

    def __setitem__(self, index: Any, value: Any) -> None:
        position = self._position(index)
        self._values[position] = integers((value,), *self._range)[0]

    def _values_text(self) -> str:
        return ", ".join(map(str, self._values))


class _ByValue(IntVector):
    """Equality with its own kind, lists and tuples."""

    __slots__ = ()
    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        if type(other) is type(self):
            return self._values == other._values
        if isinstance(other, (list, tuple)):
            for value in other:
                if not isinstance(value, int):
                    raise RuntimeError(f"{self!r} can't be compared with {type(value).__name__} values")
            return self._values == list(other)
        return NotImplemented


class Shape(_ByValue):
    """The dimensions of a tensor. Made from integers, or from a string like "[1,3,224,224]"."""

    __slots__ = ()

    def __init__(self, axis_lengths: Any = (), *, shape: str | None = None) -> None:
        source = axis_lengths if shape is None else shape
        self._values = list(_parse_dims(source) if isinstance(source, str) else static_dims(source))

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return shape_of(self._values[index])
        return self._values[operator.index(index)]

    def __setitem__(self, index: Any, value: Any) -> None:
        if hasattr(value, "get_length"):  # a Dimension; a dynamic one raises RuntimeError
            value = value.get_length()
        super().__setitem__(index, value)

    def to_string(self) -> str:
        return "[" + ",".join(map(str, self._values)) + "]"

    __str__ = to_string

    def __repr__(self) -> str:
        return f"<Shape: {self.to_string()}>"


def _parse_dims(text: str) -> list[int]:
    body = text.strip()
    if body.startswith("[") and body.endswith("]"):
        body = body[1:-1].strip()
    return [_length(field.strip() or "0", text) for field in fields_of(body, text)] if body else []


def fields_of(body: str, text: str) -> Iterator[str]:
    """The dimensions in the body of a shape's text. A blank one between others is 0; RuntimeError for an
    empty one."""
    for field in body.split(","):
        if not field:
            raise RuntimeError(f'Cannot get vector of dimensions! "{text}" is incorrect')
        yield field


def _length(field: str, text: str) -> int:
    if not (field.isascii() and field.isdigit() and int(field) <= _UNSIGNED[1]):
        raise RuntimeError(f'Cannot get vector of dimensions! "{text}" is incorrect')
    return int(field)


def shape_of(dims: Iterable[int]) -> Shape:
    """A Shape of dimensions that are known to be good."""
    shape = Shape.__new__(Shape)
    shape._values = list(dims)
    return shape


class Strides(_ByValue):
    """The distances between neighbours along each axis; for a tensor in bytes."""

    __slots__ = ()

    def __init__(self, axis_strides: Any) -> None:
        super().__init__(axis_strides)

    def __str__(self) -> str:
        return self._values_text()

    def __repr__(self) -> str:
        return f"<Strides: ({self._values_text()})>"


class Coordinate(IntVector):
    """A position in a tensor."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "<Coordinate>"


class CoordinateDiff(IntVector):
    """A difference of positions; its values may be negative."""

    __slots__ = ()
    _range = _SIGNED

    def __str__(self) -> str:
        return self._values_text()

    def __repr__(self) -> str:
        return f"<CoordinateDiff: ({self._values_text()})>"


class AxisVector(IntVector):
    """Axes in an order."""

    __slots__ = ()

    def __init__(self, axes: Any) -> None:
        super().__init__(axes)

    def __repr__(self) -> str:
        return f"<AxisVector {{{self._values_text()}}}>"


class AxisSet:
    """Axes without order or repetition; iteration goes upwards."""

    __slots__ = ("_values",)

    def __init__(self, axes: Any) -> None:
        self._values = sorted(set(integers(axes, *_UNSIGNED)))

    def __len__(self) -> int:
        return len(self._values)

    def __iter__(self) -> Iterator[int]:
        return iter(tuple(self._values))

    def __repr__(self) -> str:
        return f"<AxisSet {{{', '.join(map(str, self._values))}}}>"
