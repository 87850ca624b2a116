"""`Dimension`: a length that may be unknown, and the symbols that mark equal unknowns.

A dimension has the symbolic integer of shape inference (`ovjit.graph.symbolic`): an int, or an Interval. A
Symbol is an atom of its expression, so inference carries it to what has the same dimension.
"""

from __future__ import annotations

import operator
import re
from typing import Any

from ovjit.api.accessors import accessor
from ovjit.api.arguments import expect
from ovjit.errors import no_such_constructor, no_such_form
from ovjit.graph.shapes import ANY, Dim, bounds, compatible, dim
from ovjit.graph.symbolic import Symbol, symbol_of, with_symbol

#: The length that stands for "no upper bound".
UNBOUNDED = 2**63 - 1
#: The dimension of an empty interval, which prints as an unknown one.
NOTHING = dim(UNBOUNDED, None)


def limits(d: Dim) -> tuple[int, int]:
    """The shortest and longest length, both included."""
    low, high = bounds(d)
    return low, UNBOUNDED if high is None else high


def dim_between(low: int, high: int) -> Dim:
    """The dimension with these limits. Lengths below 0 count as 0. No length fits an empty interval: it
    starts at `UNBOUNDED`."""
    if high < low:
        return NOTHING
    low, high = max(low, 0), min(max(high, 0), UNBOUNDED)
    return dim(low, None) if high == UNBOUNDED else dim(low, high)


def contains(outer: Dim, inner: Dim) -> bool:
    (low_outer, high_outer), (low_inner, high_inner) = limits(outer), limits(inner)
    return low_outer <= low_inner and high_inner <= high_outer


def length_of(value: Any) -> int:
    """An int that fits 64 bits; TypeError for anything else."""
    try:
        length = operator.index(value)
    except TypeError as error:
        raise no_such_constructor(str(error)) from None
    if not -(2**63) <= length < 2**63:
        raise no_such_form(f"a dimension must fit 64 bits, {length} doesn't")
    return length


def dim_of_int(length: int) -> Dim:
    return ANY if length == -1 else dim_between(length, length)


def dim_of_pair(low: int, high: int) -> Dim:
    return dim_between(low, UNBOUNDED if high == -1 else high)


def _parsed_bound(text: str, missing: int, what: str = "dimension") -> int:
    if not text:
        return missing
    if not re.fullmatch(r"-?[0-9]+", text) or abs(int(text)) > UNBOUNDED:
        raise RuntimeError(f'Cannot parse {what}: "{text}"')
    return int(text)


def dim_of_text(text: str) -> Dim:
    """ "5", "?", "-1", "2..8", "..8", "2.." """
    text = text.strip()
    if text in ("?", "-1"):
        return ANY
    low, dots, high = text.partition("..")
    if not dots:
        length = _parsed_bound(text, 0)
        return dim_between(length, length)
    return dim_between(_parsed_bound(low, 0, "min bound"), _parsed_bound(high, UNBOUNDED, "max bound"))


#: The keyword forms of Dimension's constructor.
_FORMS = (("dimension",), ("min_dimension", "max_dimension"), ("str",))


class Dimension:
    """A length that may be unknown.

    `Dimension()` and `Dimension(-1)` are any length, `Dimension(5)` one, `Dimension(2, 8)` a range
    (2, -1: no upper bound); or a string: "?", "5", "2..8", "..8", "2..". RuntimeError for a string
    that can't be read.
    """

    __slots__ = ("_dim",)
    __hash__ = None  # type: ignore[assignment]
    _dim: Dim

    def __init__(self, *args: Any, **named: Any) -> None:
        if named:
            names = next((form for form in _FORMS if not args and set(form) == set(named)), None)
            if names is None:
                raise no_such_constructor(f"Dimension can't be made from {args} and {named}")
            args = tuple(named[name] for name in names)
        if not args:
            self._dim = ANY
        elif len(args) == 1:
            self._dim = dim_of_text(args[0]) if isinstance(args[0], str) else dim_of_int(length_of(args[0]))
        elif len(args) == 2:
            self._dim = dim_of_pair(length_of(args[0]), length_of(args[1]))
        else:
            raise no_such_constructor(f"Dimension takes at most two lengths, not {len(args)}")

    @staticmethod
    def dynamic() -> Dimension:
        return Dimension()

    @property
    def is_static(self) -> bool:
        return isinstance(self._dim, int)

    @property
    def is_dynamic(self) -> bool:
        return not isinstance(self._dim, int)

    def get_length(self) -> int:
        """The one length. Raises RuntimeError when there are several."""
        if not isinstance(self._dim, int):
            raise RuntimeError(f"Cannot get length of dynamic dimension {self}")
        return self._dim

    __len__ = get_length

    def get_min_length(self) -> int:
        """The shortest length, -1 if none fits."""
        return _or_minus_one(limits(self._dim)[0])

    def get_max_length(self) -> int:
        """The longest length, -1 when there is no upper bound."""
        return _or_minus_one(limits(self._dim)[1])

    min_length = accessor(get_min_length)
    max_length = accessor(get_max_length)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Dimension):
            return self._dim == other._dim
        if hasattr(other, "__index__"):
            return self._dim == dim_of_int(length_of(other))
        return NotImplemented

    def to_string(self) -> str:
        return text_of(self._dim)

    __str__ = to_string

    def __repr__(self) -> str:
        return f"<Dimension: {self}>"

    def compatible(self, dim: Dimension) -> bool:
        """True when some length fits both."""
        return NOTHING not in (self._dim, _dim_of(dim)) and compatible(self._dim, dim._dim)

    def refines(self, dim: Dimension) -> bool:
        """True when every length that fits this fits `dim`."""
        return contains(_dim_of(dim), self._dim)

    def relaxes(self, dim: Dimension) -> bool:
        """True when every length that fits `dim` fits this."""
        return contains(self._dim, _dim_of(dim))

    def same_scheme(self, dim: Dimension) -> bool:
        """True for two equal lengths, and for two unknown ones whatever their bounds."""
        other = _dim_of(dim)
        if self.is_static or dim.is_static or NOTHING in (self._dim, other):
            return self._dim == other
        return True

    def has_symbol(self) -> bool:
        return self.get_symbol() is not None

    def get_symbol(self) -> Symbol | None:
        return symbol_of(self._dim)

    def set_symbol(self, symbol: Symbol | None) -> None:
        if symbol is not None and not isinstance(symbol, Symbol):
            raise no_such_form(f"an ovjit.Symbol is expected, not {type(symbol).__name__}")
        self._dim = with_symbol(self._dim, symbol)


def text_of(d: Dim) -> str:
    """ "5", "?", "2..8", "..8" or "2.." """
    return str(ANY if d == NOTHING else d)


def _or_minus_one(limit: int) -> int:
    return -1 if limit == UNBOUNDED else limit


def _dim_of(dim: Any) -> Dim:
    return expect(dim, Dimension, "an ovjit.Dimension is expected")._dim


def dimension_of(dim: Dim) -> Dimension:
    dimension = Dimension.__new__(Dimension)
    dimension._dim = dim
    return dimension
