"""Arithmetic of numbers that are known in part: elements of `TensorType.partial`, ints and Intervals.

Dimensions have an arithmetic of their own (`ovjit.graph.shapes`), in which nothing is below 0. What is worked
out of sizes may be: 5 - ShapeOf(x). What has no lower bound begins with `LOWEST`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ovjit.errors import ModelError
from ovjit.graph.shapes import Dim, Interval, bounds, dim

#: The least of i64.
LOWEST = -(2**63)
#: A number of which nothing is known.
UNKNOWN = Interval(LOWEST, None)


def _ends(x: Dim) -> tuple[float, float]:
    lo, hi = bounds(x)
    return -math.inf if lo <= LOWEST else lo, math.inf if hi is None else hi


def span(*ends: float) -> Dim:
    """What lies between these numbers, of which some may be infinite."""
    low, high = min(ends), max(ends)
    return dim(LOWEST if low == -math.inf else int(low), None if high == math.inf else int(high))


def hull(a: Dim, b: Dim) -> Dim:
    """What is one or the other."""
    return a if a == b else span(*_ends(a), *_ends(b))


def _corners(function: Callable, x: Dim, y: Dim) -> Dim:
    """`function` rises or falls in each of its numbers: its limits are where theirs are."""
    return span(*(function(a, b) for a in _ends(x) for b in _ends(y)))


def add(x: Dim, y: Dim) -> Dim:
    (low, high), (least, most) = _ends(x), _ends(y)
    return x + y if -math.inf not in (low, least) else span(low + least, high + most)


def subtract(x: Dim, y: Dim) -> Dim:
    # by the arithmetic of dimensions what is known by name stays so
    if not isinstance(y, Interval):
        return add(x, -y)
    (low, high), (least, most) = _ends(x), _ends(y)
    return span(low - most, high - least)


def multiply(x: Dim, y: Dim) -> Dim:
    if min(bounds(x)[0], bounds(y)[0]) >= 0:
        return x * y
    return _corners(lambda a, b: a * b if a and b else 0, x, y)


def divide(x: Dim, y: Dim) -> Dim:
    """x / y rounded down; unknown where y may be 0."""
    low, high = _ends(y)
    if low <= 0 <= high:
        return UNKNOWN
    if not isinstance(y, Interval) and low > 0 and bounds(x)[0] >= 0:
        return x // y

    def rounded(a: float, b: float) -> float:
        if math.isinf(a):
            return a if b > 0 else -a
        return a // b if not math.isinf(b) else 0 if a == 0 or (a > 0) == (b > 0) else -1

    return _corners(rounded, x, y)


def quotient(x: Dim, y: Dim) -> Dim:
    """x / y rounded towards 0; unknown where one may be negative."""
    return divide(x, y) if min(bounds(x)[0], bounds(y)[0]) >= 0 else UNKNOWN


def maximum(x: Dim, y: Dim) -> Dim:
    return _one_of(x, y, _corners(max, x, y))


def minimum(x: Dim, y: Dim) -> Dim:
    return _one_of(x, y, _corners(min, x, y))


def _one_of(x: Dim, y: Dim, made: Dim) -> Dim:
    """`made`; x or y, by its name, where it is surely that. What overlaps in one number only is not told."""
    (x_low, x_high), (y_low, y_high) = _ends(x), _ends(y)
    if x_low >= y_high or y_low >= x_high:
        return x if made == x else y if made == y else made
    return made


def clamp(low: float, high: float) -> Callable[[Dim], Dim]:
    """x -> x between the whole numbers `low` and `high`."""
    return lambda x: minimum(maximum(x, int(low)), int(high))


def modulo(x: Dim, y: Dim) -> Dim:
    """What is left of x, which is not negative, by a positive number."""
    if isinstance(y, Interval) or y <= 0 or bounds(x)[0] < 0:
        return UNKNOWN
    low, high = bounds(x)
    if high is None or high // y != low // y:
        return dim(0, y - 1)
    return dim(low % y, high % y)


def equal(x: Dim, y: Dim) -> bool:
    """Whether they are one number. Raises ModelError where that is not known."""
    (x_low, x_high), (y_low, y_high) = _ends(x), _ends(y)
    if x_low > y_high or y_low > x_high:
        return False
    if isinstance(x, Interval) or isinstance(y, Interval):
        raise ModelError(f"{x} and {y} may be equal")
    return True


def select(cond: Any, x: Any, y: Any) -> Any:
    return x if cond else y


def reduction(function: Callable[[Dim, Dim], Dim]) -> Callable[..., np.ndarray]:
    """The reduction by `function` of numbers along axes."""
    ufunc = np.frompyfunc(function, 2, 1)

    def reduce(x: np.ndarray, axes: tuple[int, ...], keep: bool) -> np.ndarray:
        for axis in reversed(axes):
            x = np.asarray(ufunc.reduce(x, axis=axis, keepdims=keep), object)
        return x

    return reduce
