"""Symbolic integers: ints, intervals with an expression, and traced numbers with guards.

Shape inference and planning are written once, in plain arithmetic and the functions of this module:

| number     | known                     | used in                                             |
|------------|---------------------------|-----------------------------------------------------|
| `int`      | its value                 |                                                     |
| `Interval` | bounds, an expression     | shapes, and values made of shapes, before a run     |
| `Traced`   | a value, rows and guards  | planning for open shapes (`ovjit.graph.traced`)     |

`(d + 2 - k) // s + 1` of an Interval is the tightest Interval. Two Intervals are the same number if their
expressions are equal (`statically_known_equal`). Atoms of expressions are `Symbol`s of the API, and tuples
that name a dimension in inference or a reader (`named`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ovjit.errors import ModelError
from ovjit.graph.traced import LEAST, MOST, Traced, extreme

#: The minimum of i64: the lower bound of numbers without one.
LOWEST = -(2**63)


class Symbol:
    """An identity: dimensions with the same Symbol are equal."""

    __slots__ = ()

    def __deepcopy__(self, memo: dict[int, Any]) -> Symbol:
        return self


class Length(int):
    """A static dimension with a Symbol, as the API allows."""

    symbol: Symbol

    def __deepcopy__(self, memo: dict[int, Any]) -> Length:
        return self


class Interval:
    """All ints from `lo` to `hi` inclusive. Immutable, lo < hi.

    `hi` None: no upper bound; `lo` LOWEST: no lower bound. The symbolic expression is base + offset.
    Arithmetic preserves expressions, so that two results that derive from one dimension can be compared.
    Equal expressions are equal ints.

    Differences are lengths: `d - 3` is clamped to 0 or more. `d + -3` is not.
    """

    __slots__ = ("base", "hi", "lo", "offset")

    def __init__(self, lo: int, hi: int | None, base: Any = None, offset: int = 0):
        self.lo = lo
        self.hi = hi
        self.base = base
        self.offset = offset

    @property
    def key(self) -> tuple | None:
        """The expression (base, offset); None without one."""
        return None if self.base is None else (self.base, self.offset)

    def __repr__(self) -> str:
        if self.lo == 0 and self.hi is None:
            return "?"
        return f"{self.lo or ''}..{'' if self.hi is None else self.hi}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Interval) and (self.lo, self.hi) == (other.lo, other.hi)

    def __hash__(self) -> int:
        return hash((self.lo, self.hi))

    def __contains__(self, value: int) -> bool:
        return self.lo <= value and (self.hi is None or value <= self.hi)

    def __add__(self, other: Dim) -> Dim:
        lo, hi = bounds(other)
        low = LOWEST if LOWEST in (self.lo, lo) else self.lo + lo
        high = None if self.hi is None or hi is None else self.hi + hi
        if isinstance(other, Interval):
            return dim(low, high, _join_bases("sum", self.base, other.base), self.offset + other.offset)
        return dim(low, high) if self.base is None else dim(low, high, self.base, self.offset + other)

    __radd__ = __add__

    def __neg__(self) -> Dim:
        return self * -1

    def __sub__(self, other: Dim) -> Dim:
        return _length(self + -other)

    def __rsub__(self, other: int) -> Dim:
        return _length(-self + other)

    def __mul__(self, other: Dim) -> Dim:
        low, high = _corners(lambda a, b: a * b if a and b else 0, self, other)
        if isinstance(other, Interval):
            return span(low, high, _join_bases("product", self.key, other.key))
        if self.base is None or other < 0:
            return span(low, high)
        if other == 1:
            return self
        return span(low, high, ("times", self.base, other), self.offset * other)

    __rmul__ = __mul__

    def __floordiv__(self, other: Dim) -> Dim:
        """The quotient, rounded down; unknown if the divisor may be 0."""
        result = _quotient(self, other)
        if self.base is None or isinstance(other, Interval) or other <= 0 or isinstance(result, int):
            return result
        if other == 1:
            return self
        quotient, remainder = divmod(self.offset, other)
        return Interval(result.lo, result.hi, ("part", self.base, remainder, other), quotient)

    def __rfloordiv__(self, other: int) -> Dim:
        return _quotient(other, self)


def _join_bases(what: str, one: Any, other: Any) -> tuple | None:
    """The expression `what` of two bases; None if either is None."""
    return None if one is None or other is None else (what, *sorted((one, other), key=repr))


def _length(d: Dim) -> Dim:
    """A difference, clamped to 0 or more."""
    if not isinstance(d, Interval):
        return max(d, 0)
    return d if d.lo >= 0 else dim(0, d.hi and max(d.hi, 0), d.base, d.offset)


def _quotient(x: Dim, y: Dim) -> Dim:
    least, most = ends(y)
    return UNKNOWN if least <= 0 <= most else span(*_corners(_divide_bounds, x, y))


def _divide_bounds(a: float, b: float) -> float:
    if math.isinf(a):
        return a if b > 0 else -a
    return a // b if not math.isinf(b) else 0 if a == 0 or (a > 0) == (b > 0) else -1


Dim = int | Interval
Shape = tuple[Dim, ...]

#: An unknown dimension (>= 0), and an unknown number.
ANY, UNKNOWN = Interval(0, None), Interval(LOWEST, None)


def dim(lo: int, hi: int | None, base: Any = None, offset: int = 0) -> Dim:
    """The number with these bounds and this expression: an int if the bounds are equal."""
    return lo if lo == hi else Interval(lo, hi, base, offset)


def bounds(d: Dim) -> tuple[int, int | None]:
    return (d.lo, d.hi) if isinstance(d, Interval) else (d, d)


def ends(d: Dim) -> tuple[float, float]:
    """(lower, upper bound), infinite if absent."""
    lo, hi = bounds(d)
    return -math.inf if lo <= LOWEST else lo, math.inf if hi is None else hi


def span(low: float, high: float, base: Any = None, offset: int = 0) -> Dim:
    """The number between two bounds, which may be infinite."""
    lo = LOWEST if low == -math.inf else int(low)
    return dim(lo, None if high == math.inf else int(high), base, offset)


def hull(a: Dim, b: Dim) -> Dim:
    """The smallest interval with both numbers."""
    if a == b:
        return a
    (low, high), (least, most) = ends(a), ends(b)
    return span(min(low, least), max(high, most))


def _corners(function: Callable[[float, float], float], x: Dim, y: Dim) -> tuple[float, float]:
    """(minimum, maximum) of a function that is monotonic in each argument: they are at the bounds."""
    values = [function(a, b) for a in ends(x) for b in ends(y)]
    return min(values), max(values)


def named(shape: Sequence[Dim], *atom: Any) -> Shape:
    """`shape` with an expression for each dynamic dimension without one: (*atom, axis)."""
    return tuple(
        Interval(d.lo, d.hi, (*atom, axis)) if isinstance(d, Interval) and d.base is None else d
        for axis, d in enumerate(shape)
    )


def symbol_of(d: Dim) -> Symbol | None:
    """The Symbol of a dimension. None for other expressions, also for those that derive from a Symbol."""
    if isinstance(d, Interval):
        return d.base if isinstance(d.base, Symbol) and d.offset == 0 else None
    return d.symbol if isinstance(d, Length) else None


def with_symbol(d: Dim, symbol: Symbol | None) -> Dim:
    """The dimension with this Symbol instead of its expression."""
    if isinstance(d, Interval):
        return Interval(d.lo, d.hi, symbol)
    if symbol is None:
        return int(d)
    length = Length(d)
    length.symbol = symbol
    return length


def without_symbols(shape: Sequence[Dim] | None) -> Shape | None:
    """`shape` without Symbols and other expressions."""
    return None if shape is None else tuple(with_symbol(d, None) for d in shape)


def statically_known_equal(a: Any, b: Any) -> bool:
    """True when two numbers are the same, whatever they will be. No guard is added."""
    kinds = type(a), type(b)
    if kinds == (int, int):
        return bool(a == b)
    if kinds == (Interval, Interval):
        return a.base is not None and a.key == b.key
    if Traced in kinds:
        return kinds[0] is kinds[1] and a.node == b.node
    return bool(a == b)


def alike(a: Any, b: Any) -> bool:
    """Whether two numbers are equal. A traced one beside a plain 1 counts as unequal without a guard, which
    would specialise the plan: a batch of 1 needs no other plan."""
    plain = next((n for n in (a, b) if type(n) is not Traced), None)
    return statically_known_equal(a, b) or (plain != 1 and bool(a == b))


def sym_min(first: Any, *others: Any) -> Any:
    """`min`, without guards and for open numbers."""
    for other in others:
        first = _either(LEAST, first, other)
    return first


def sym_max(first: Any, *others: Any) -> Any:
    """`max`, without guards and for open numbers."""
    for other in others:
        first = _either(MOST, first, other)
    return first


def _either(what: int, a: Any, b: Any) -> Any:
    if type(a) is Traced or type(b) is Traced:
        if type(a) is not Interval and type(b) is not Interval:
            return extreme(what, a, b)
        a, b = (ANY if type(x) is Traced else x for x in (a, b))  # intervals have no traced bounds
    choose = min if what == LEAST else max
    if type(a) is not Interval and type(b) is not Interval:
        return choose(a, b)
    (low, high), (least, most) = ends(a), ends(b)
    result = span(choose(low, least), choose(high, most))
    # if one operand is always the result, return it with its expression
    if low >= most or least >= high:
        return a if result == a else b if result == b else result
    return result


def sym_int(number: Any) -> Any:
    """`int(number)`; symbolic numbers are returned unchanged."""
    return number if type(number) is Traced or isinstance(number, Interval) else int(number)


# -- elements of values that inference computes (`TensorType.partial`) ---------------------------------------


def subtract(x: Dim, y: Dim) -> Dim:
    """The difference, which may be negative."""
    return x + -y


def divide(x: Dim, y: Dim) -> Dim:
    """x / y rounded down."""
    return UNKNOWN if y == 0 else x // y


def quotient(x: Dim, y: Dim) -> Dim:
    """x / y rounded towards 0; unknown where one may be negative."""
    return divide(x, y) if min(bounds(x)[0], bounds(y)[0]) >= 0 else UNKNOWN


def modulo(x: Dim, y: Dim) -> Dim:
    """x % y for x >= 0 and a constant y > 0; unknown for others."""
    if isinstance(y, Interval) or y <= 0 or bounds(x)[0] < 0:
        return UNKNOWN
    low, high = bounds(x)
    if high is None or high // y != low // y:
        return dim(0, y - 1)
    return dim(low % y, high % y)


def clamp(low: float, high: float) -> Callable[[Dim], Dim]:
    """The function that clamps x to [low, high], both integers."""
    return lambda x: sym_min(sym_max(x, int(low)), int(high))


def equal(x: Dim, y: Dim) -> bool:
    """Whether two numbers are equal. Raises ModelError if that is unknown."""
    (x_low, x_high), (y_low, y_high) = ends(x), ends(y)
    if x_low > y_high or y_low > x_high:
        return False
    if isinstance(x, Interval) or isinstance(y, Interval):
        raise ModelError(f"{x} and {y} may be equal, which cannot be decided ahead of time")
    return True


def select(cond: Any, x: Any, y: Any) -> Any:
    return x if cond else y


def reduction(function: Callable[[Dim, Dim], Dim]) -> Callable[..., np.ndarray]:
    """The reduction of an object array of numbers along axes, by `function`."""
    ufunc = np.frompyfunc(function, 2, 1)

    def reduce(x: np.ndarray, axes: tuple[int, ...], keep: bool) -> np.ndarray:
        for axis in reversed(axes):
            x = np.asarray(ufunc.reduce(x, axis=axis, keepdims=keep), object)
        return x

    return reduce
