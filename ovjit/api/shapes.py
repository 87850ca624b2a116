"""Shapes that may be unknown: Dimension, PartialShape, and the symbols that mark equal unknowns.

A dimension is an interval of lengths. It is kept in its plainest form, which `PartialShape._dims()` hands
to the rest of ovjit: an int for one length, None for any length, `(low, high)` for a range, where a high of
None means that there is no upper bound.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Iterator
from typing import Any

from ovjit.api.vectors import Shape, shape_of

#: One dimension, in its plainest form.
Bounds = int | None | tuple[int, int | None]

#: The length that stands for "no upper bound".
UNBOUNDED = 2**63 - 1


def _limits(bounds: Bounds) -> tuple[int, int]:
    """The shortest and longest length, both included."""
    if bounds is None:
        return 0, UNBOUNDED
    if isinstance(bounds, int):
        return bounds, bounds
    low, high = bounds
    return low, UNBOUNDED if high is None else high


def _bounds(low: int, high: int) -> Bounds:
    """The plainest form of an interval. Lengths below 0 count as 0; an empty interval means anything."""
    if high < low:
        return None
    low, high = max(low, 0), min(max(high, 0), UNBOUNDED)
    if high == UNBOUNDED:
        return None if low in (0, UNBOUNDED) else (low, None)
    return low if low == high else (low, high)


def _shown(bounds: Bounds) -> str:
    if bounds is None:
        return "?"
    if isinstance(bounds, int):
        return str(bounds)
    low, high = bounds
    return f"{low or ''}..{'' if high is None else high}"


def _merged(a: Bounds, b: Bounds) -> tuple[bool, Bounds]:
    """(whether the two can be the same length, what is then known of it)"""
    (low_a, high_a), (low_b, high_b) = _limits(a), _limits(b)
    low, high = max(low_a, low_b), min(high_a, high_b)
    return low <= high, _bounds(low, high)


def _contains(outer: Bounds, inner: Bounds) -> bool:
    (low_outer, high_outer), (low_inner, high_inner) = _limits(outer), _limits(inner)
    return low_outer <= low_inner and high_inner <= high_outer


def _length(value: Any) -> int:
    """An int that fits 64 bits; TypeError for anything else."""
    length = operator.index(value)
    if not -(2**63) <= length < 2**63:
        raise TypeError(f"a dimension must fit 64 bits, {length} doesn't")
    return length


def _from_int(length: int) -> Bounds:
    return None if length == -1 else _bounds(length, length)


def _from_pair(low: int, high: int) -> Bounds:
    return _bounds(low, UNBOUNDED if high == -1 else high)


def _parsed_bound(text: str, missing: int) -> int:
    if not text:
        return missing
    if not re.fullmatch(r"-?[0-9]+", text) or abs(int(text)) > UNBOUNDED:
        raise RuntimeError(f'Cannot parse dimension: "{text}"')
    return int(text)


def _from_text(text: str) -> Bounds:
    """ "5", "?", "-1", "2..8", "..8", "2.." """
    text = text.strip()
    if text in ("?", "-1"):
        return None
    low, dots, high = text.partition("..")
    if not dots:
        length = _parsed_bound(text, 0)
        return _bounds(length, length)
    return _bounds(_parsed_bound(low, 0), _parsed_bound(high, UNBOUNDED))


class Symbol:
    """A mark: dimensions that carry the same one are known to be equal."""

    __slots__ = ()


class Dimension:
    """A length that may be unknown.

    `Dimension()` and `Dimension(-1)` are any length, `Dimension(5)` one, `Dimension(2, 8)` a range
    (2, -1: no upper bound); or a string: "?", "5", "2..8", "..8", "2..". RuntimeError for a string
    that can't be read.
    """

    __slots__ = ("_bounds", "_symbol")
    __hash__ = None  # type: ignore[assignment]
    _bounds: Bounds
    _symbol: Symbol | None

    def __init__(self, *args: Any, **named: Any) -> None:
        self._symbol = None
        if named:
            if args or tuple(sorted(named)) not in {("dimension",), ("max_dimension", "min_dimension"), ("str",)}:
                raise TypeError(f"Dimension can't be made from {args} and {named}")
            args = (named["min_dimension"], named["max_dimension"]) if len(named) == 2 else tuple(named.values())
        if not args:
            self._bounds = None
        elif len(args) == 1:
            self._bounds = _from_text(args[0]) if isinstance(args[0], str) else _from_int(_length(args[0]))
        elif len(args) == 2:
            self._bounds = _from_pair(_length(args[0]), _length(args[1]))
        else:
            raise TypeError(f"Dimension takes at most two lengths, not {len(args)}")

    @staticmethod
    def dynamic() -> Dimension:
        return Dimension()

    @property
    def is_static(self) -> bool:
        return isinstance(self._bounds, int)

    @property
    def is_dynamic(self) -> bool:
        return not isinstance(self._bounds, int)

    def get_length(self) -> int:
        """The one length. Raises RuntimeError when there are several."""
        if not isinstance(self._bounds, int):
            raise RuntimeError(f"Cannot get length of dynamic dimension {self}")
        return self._bounds

    __len__ = get_length

    def get_min_length(self) -> int:
        return _limits(self._bounds)[0]

    def get_max_length(self) -> int:
        """The longest length, -1 when there is no upper bound."""
        high = _limits(self._bounds)[1]
        return -1 if high == UNBOUNDED else high

    min_length = property(get_min_length)
    max_length = property(get_max_length)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Dimension):
            return self._bounds == other._bounds
        if hasattr(other, "__index__"):
            return self._bounds == _from_int(_length(other))
        return NotImplemented

    def __str__(self) -> str:
        return _shown(self._bounds)

    def to_string(self) -> str:
        return _shown(self._bounds)

    def __repr__(self) -> str:
        return f"<Dimension: {self}>"

    def compatible(self, dim: Dimension) -> bool:
        """True when some length fits both."""
        return _merged(self._bounds, _checked(dim))[0]

    def refines(self, dim: Dimension) -> bool:
        """True when every length that fits this fits `dim`."""
        return _contains(_checked(dim), self._bounds)

    def relaxes(self, dim: Dimension) -> bool:
        """True when every length that fits `dim` fits this."""
        return _contains(self._bounds, _checked(dim))

    def same_scheme(self, dim: Dimension) -> bool:
        """True for two equal lengths, and for two unknown ones whatever their bounds."""
        other = _checked(dim)
        if self.is_static or dim.is_static:
            return self._bounds == other
        return True

    def has_symbol(self) -> bool:
        return self._symbol is not None

    def get_symbol(self) -> Symbol | None:
        return self._symbol

    def set_symbol(self, symbol: Symbol | None) -> None:
        if symbol is not None and not isinstance(symbol, Symbol):
            raise TypeError(f"an ovjit.Symbol is expected, not {type(symbol).__name__}")
        self._symbol = symbol


def _checked(dim: Any) -> Bounds:
    if not isinstance(dim, Dimension):
        raise TypeError(f"an ovjit.Dimension is expected, not {type(dim).__name__}")
    return dim._bounds


def _made(bounds: Bounds, symbol: Symbol | None = None) -> Dimension:
    dimension = Dimension.__new__(Dimension)
    dimension._bounds = bounds
    dimension._symbol = symbol
    return dimension


def _element(value: Any) -> Bounds:
    """One entry of the list or tuple that a PartialShape is made from."""
    if isinstance(value, int):
        return _from_int(_fitting(value))
    if isinstance(value, str):
        return _from_text(value)
    if isinstance(value, Dimension):
        return value._bounds
    if isinstance(value, (list, tuple)):
        if len(value) != 2:
            raise TypeError(f"a range of lengths is (lower, upper), not {len(value)} values: {value}")
        if not (isinstance(value[0], int) and isinstance(value[1], int)):
            raise TypeError(f"the bounds of a range of lengths must be ints: {value}")
        return _from_pair(_fitting(value[0]), _fitting(value[1]))
    raise TypeError(
        f"a dimension can't be {type(value).__name__}: an int, a str, a Dimension or (lower, upper) is expected"
    )


def _fitting(length: int) -> int:
    if not -(2**63) <= length < 2**63:
        raise RuntimeError(f"a dimension must fit 64 bits, {length} doesn't")
    return length


class PartialShape:
    """A shape of which dimensions, or even their number, may be unknown.

    Made from a Shape, a PartialShape, a list or tuple (of ints with -1 for unknown, strings, Dimensions,
    (lower, upper) pairs), or a string: "[1,3,?,2..8]", "[...]" for an unknown rank.
    Raises TypeError for other objects, RuntimeError for a string that can't be read.
    """

    __slots__ = ("_items", "_symbols")
    __hash__ = None  # type: ignore[assignment]
    _items: tuple[Bounds, ...] | None  # None: the rank is unknown
    _symbols: tuple[Symbol | None, ...] | None  # None: no dimension has one

    def __init__(self, shape: Any) -> None:
        self._symbols = None
        if isinstance(shape, PartialShape):
            self._items, self._symbols = shape._items, shape._symbols
        elif isinstance(shape, Shape):
            self._items = tuple(_bounds(length, length) for length in shape)
        elif isinstance(shape, (list, tuple)):
            self._items = tuple(map(_element, shape))
            if any(isinstance(item, Dimension) and item._symbol for item in shape):
                self._symbols = tuple(item._symbol if isinstance(item, Dimension) else None for item in shape)
        elif isinstance(shape, str):
            self._items = _parsed(shape)
        else:
            raise TypeError(f"PartialShape can't be made from {type(shape).__name__}")

    @staticmethod
    def dynamic(rank: Any = -1) -> PartialShape:
        """Unknown dimensions; their number too unless `rank` (an int or a static Dimension) gives it."""
        count = rank._bounds if isinstance(rank, Dimension) else _from_int(_length(rank))
        return _partial((None,) * count if isinstance(count, int) else None)

    def _dims(self) -> tuple[Bounds, ...] | None:
        """Each dimension as int, None (any) or (low, high or None); None when the rank is unknown."""
        return self._items

    def _known(self) -> tuple[Bounds, ...]:
        if self._items is None:
            raise RuntimeError("the rank of the shape [...] is unknown")
        return self._items

    @property
    def rank(self) -> Dimension:
        return _made(None if self._items is None else len(self._items))

    @property
    def is_static(self) -> bool:
        return self._items is not None and all(isinstance(item, int) for item in self._items)

    @property
    def is_dynamic(self) -> bool:
        return not self.is_static

    @property
    def all_non_negative(self) -> bool:
        return True  # a dimension can't be negative

    def to_shape(self) -> Shape:
        """The Shape that this is. Raises RuntimeError when it is dynamic."""
        if not self.is_static:
            raise RuntimeError(f"to_shape was called on a dynamic shape: {self}")
        return shape_of(self._items)  # type: ignore[arg-type]

    get_shape = to_shape

    def get_min_shape(self) -> Shape:
        """The lower bounds; [] for an unknown rank."""
        return shape_of(_limits(item)[0] for item in self._items or ())

    def get_max_shape(self) -> Shape:
        """The upper bounds, 2**63 - 1 where there is none; [] for an unknown rank."""
        return shape_of(_limits(item)[1] for item in self._items or ())

    def __len__(self) -> int:
        return len(self._known())

    def _dimension(self, position: int) -> Dimension:
        if self._items is None or not -len(self._items) <= position < len(self._items):
            raise RuntimeError(f"Accessing out-of-range dimension {position} of {self}")
        return _made(self._items[position], self._symbols[position] if self._symbols else None)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return _partial(self._known()[index], self._symbols[index] if self._symbols else None)
        return self._dimension(operator.index(index))

    def get_dimension(self, index: int) -> Dimension:
        """The dimension at an index from 0. TypeError for a negative one, RuntimeError past the end."""
        position = operator.index(index)
        if position < 0:
            raise TypeError("get_dimension takes no negative index")
        return self._dimension(position)

    def __setitem__(self, index: Any, value: Any) -> None:
        position = operator.index(index)
        if position < 0:
            raise TypeError("a dimension can't be set by a negative index")
        bounds = value._bounds if isinstance(value, Dimension) else _from_int(_length(value))
        self._dimension(position)
        items = list(self._known())
        items[position] = bounds
        symbols = list(self._symbols or (None,) * len(items))
        symbols[position] = value._symbol if isinstance(value, Dimension) else None
        self._items, self._symbols = tuple(items), tuple(symbols) if any(symbols) else None

    def __iter__(self) -> Iterator[Dimension]:
        return iter([self._dimension(position) for position in range(len(self._known()))])

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
        return "[...]" if self._items is None else "[" + ",".join(map(_shown, self._items)) + "]"

    __str__ = to_string

    def __repr__(self) -> str:
        return f"<PartialShape: {self.to_string()}>"

    def __copy__(self) -> PartialShape:
        return PartialShape(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> PartialShape:
        return PartialShape(self)

    def _merge(self, shape: PartialShape) -> PartialShape | None:
        """What is known of a shape that fits both; None when none does."""
        ours, theirs = self._items, _checked_shape(shape)
        if ours is None or theirs is None:
            return _partial(theirs if ours is None else ours)
        if len(ours) != len(theirs):
            return None
        merged = [_merged(a, b) for a, b in zip(ours, theirs, strict=True)]
        return _partial(tuple(item for _, item in merged)) if all(fits for fits, _ in merged) else None

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
        ours, theirs = self._items, _checked_shape(shape)
        if ours is None or theirs is None:
            return ours is theirs
        return len(ours) == len(theirs) and all(
            _made(a).same_scheme(_made(b)) for a, b in zip(ours, theirs, strict=True)
        )


def _partial(items: tuple[Bounds, ...] | None, symbols: tuple[Symbol | None, ...] | None = None) -> PartialShape:
    shape = PartialShape.__new__(PartialShape)
    shape._items = items
    shape._symbols = symbols
    return shape


def _checked_shape(shape: Any) -> tuple[Bounds, ...] | None:
    if not isinstance(shape, PartialShape):
        raise TypeError(f"an ovjit.PartialShape is expected, not {type(shape).__name__}")
    return shape._items


def _shape_contains(outer: tuple[Bounds, ...] | None, inner: tuple[Bounds, ...] | None) -> bool:
    if outer is None or inner is None:
        return outer is None
    return len(outer) == len(inner) and all(map(_contains, outer, inner))


def _parsed(text: str) -> tuple[Bounds, ...] | None:
    body = text.strip()
    if body.startswith("[") and body.endswith("]"):
        body = body[1:-1].strip()
    if body == "...":
        return None
    if not body:
        return ()
    fields = [field.strip() for field in body.split(",")]
    if not all(fields):
        raise RuntimeError(f'Cannot get vector of dimensions! "{text}" is incorrect')
    return tuple(map(_from_text, fields))
