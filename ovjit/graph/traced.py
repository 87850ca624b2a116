"""Numbers that record their computation, so that a plan is a function of its dimensions.

Planning is arithmetic on dimensions, and decisions by comparing them. With `Traced` numbers as dimensions it
writes a `Tape`. Each operation is a row. Each decision is a *guard*: a comparison and its outcome. For other
dimensions the rows are computed again, in microseconds. If all guards have the same outcome, planning for
these dimensions would make the same decisions and the same numbers.

A Traced is not an `int`, but behaves like one. Code that needs a C integer (an index, a range, a NumPy array
of integers, a hash) gets it by `__index__` and similar methods, which *specialise* the tape: it is then valid
for this number only. So code that is not written for traced numbers is correct, but its tapes serve fewer
shapes.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

#: Operations of a tape's row: arithmetic, and comparisons that must hold (LEAST: min, MOST: max).
ADD, MULTIPLY, DIVIDE, REMAINDER, LEAST, MOST, EQUAL, UNEQUAL, LESS, AT_LEAST = range(10)
GUARDS = frozenset((EQUAL, UNEQUAL, LESS, AT_LEAST))
#: Result of an incremental update if more rows would have to be computed than it has.
MISFIT = -2

#: Larger numbers are not traced, so that results fit 64 bits.
LARGEST = 1 << 56

_NEGATED = {EQUAL: UNEQUAL, LESS: AT_LEAST}
#: LESS with swapped operands; only the keys of `_compared` have it.
_MORE = -1


class Tape:
    """Rows (operation, target, left, right) over numbered values. The first values are the leaves."""

    def __init__(self, leaves: Sequence[int]):
        self.leaves = len(leaves)
        self.values: list[int] = list(leaves)
        self.rows: list[tuple[int, int, int, int]] = []
        self.constants: dict[int, int] = {}  # number -> its index among the values
        self._computed: dict[tuple[int, int, int], Traced] = {}
        self._decided: dict[tuple[int, int, int], bool] = {}
        #: value -> (operation, operand, constant) that computed it, for folding of constants
        self._parts: dict[int, tuple[int, int, int]] = {}
        self._applied: dict[tuple[int, int, int], Any] = {}
        self._compared: dict[tuple[int, int, int], bool] = {}  # comparisons with ints, and their outcomes
        self._extremes: dict[tuple, Any] = {}

        #: Whether kernels compute reals that derive from traced numbers, and whether there are any such
        #: reals. Specialised to them, a plan would serve a single length.
        self.leaves_reals = False
        self.left_reals = False

    def leaf(self, index: int) -> Traced:
        return Traced(self, index, self.values[index])

    def constant(self, number: int) -> int:
        """The index of a constant among the values."""
        index = self.constants.get(number)
        if index is None:
            index = self.constants[number] = len(self.values)
            self.values.append(number)
        return index

    def compute(self, what: int, lhs: int, rhs: int, number: int) -> Traced:
        """Add a row for an operation on two values, whose result in this trace is `number`. Equal rows are
        shared."""
        key = (what, lhs, rhs)
        result = self._computed.get(key)
        if result is None:
            target = len(self.values)
            self.values.append(number)
            self.rows.append((what, target, lhs, rhs))
            result = self._computed[key] = Traced(self, target, number)
        return result

    def apply(self, what: int, value: Traced, number: int) -> Any:
        """An operation on a value and a constant, folded with a previously applied constant."""
        key = (what, value.node, number)
        result = self._applied.get(key)
        if result is None:
            result = self._applied[key] = self._apply(what, value, number)
        return result

    def _apply(self, what: int, value: Traced, number: int) -> Any:
        if what == MULTIPLY and abs(number) > LARGEST:
            return value.pin() * number  # for other values the product might exceed 64 bits undetected
        inner = self._parts.get(value.node)
        if inner is not None:
            before, node, other = inner
            if what == before and what in (ADD, MULTIPLY):
                source = Traced(self, node, self.values[node])
                return source + (other + number) if what == ADD else source * (other * number)
            if before == MULTIPLY and number > 0 and other % number == 0:
                if what == DIVIDE:
                    return Traced(self, node, self.values[node]) * (other // number)
                if what == REMAINDER:
                    return 0
        result = self.compute(what, value.node, self.constant(number), _COMPUTE[what](value.value, number))
        self._parts[result.node] = (what, value.node, number)
        return result

    def forget(self) -> None:
        """Drop the cached numbers, which refer to the tape: breaks the reference cycles."""
        self._computed.clear()
        self._applied.clear()
        self._extremes.clear()

    def decide(self, what: int, lhs: int, rhs: int, outcome: bool) -> bool:
        """Add a guard: a comparison (EQUAL or LESS) with this outcome. Returns the outcome."""
        if lhs == rhs:
            return outcome
        key = (what, lhs, rhs)
        if key not in self._decided:
            self._decided[key] = outcome
            self.rows.append((what if outcome else _NEGATED[what], 0, lhs, rhs))
        return outcome


_COMPUTE: dict[int, Callable[[int, int], int]] = {
    ADD: operator.add, MULTIPLY: operator.mul, DIVIDE: operator.floordiv, REMAINDER: operator.mod,
    LEAST: min, MOST: max,
}  # fmt: skip


def _arithmetic(
    what: int, by_number: Callable[[Traced, int], Any], by_traced: Callable[[Traced, Traced], Any]
) -> Callable[[Traced, Any], Any]:
    """An operator of a traced number. Results of integers are kept on the tape, so they are computed once."""
    operation = _COMPUTE[what]

    def operate(self: Traced, other: Any) -> Any:
        kind = type(other)
        if kind is int:
            result = self.tape._applied.get((what, self.node, other))
            if result is not None:
                return result
        elif kind is Traced:
            return by_traced(self, other)
        number = _number(other)
        return _beside(operation, self, other) if number is None else by_number(self, number)

    return operate


def _commutative(what: int, neutral: int) -> Callable[[Traced, Any], Any]:
    """The operator ADD or MULTIPLY of a traced number."""
    operation = _COMPUTE[what]

    def by_number(self: Traced, number: int) -> Any:
        if number == neutral:
            return self
        return self.tape.apply(what, self, number) if number else 0

    def by_traced(self: Traced, other: Traced) -> Any:
        lhs, rhs = (self, other) if self.node <= other.node else (other, self)
        return self.tape.compute(what, lhs.node, rhs.node, operation(self.value, other.value))

    return _arithmetic(what, by_number, by_traced)


def _division(what: int) -> tuple[Callable[[Traced, Any], Any], Callable[[Traced, Any], Any]]:
    """The operator DIVIDE or REMAINDER of a traced number, and the one with the operands exchanged."""
    operation = _COMPUTE[what]

    def by_number(self: Traced, number: int) -> Any:
        if number == 1:
            return self if what == DIVIDE else 0
        return self.tape.apply(what, self, number) if number > 0 else operation(self.pin(), number)

    def by_traced(self: Traced, other: Traced) -> Any:
        if other.node == self.node and self > 0:
            return operation(1, 1)
        if other > 0:
            return self.tape.compute(what, self.node, other.node, operation(self.value, other.value))
        return operation(self.pin(), other.pin())

    def dividing(self: Traced, other: Any) -> Any:
        number = _number(other)
        if number is None:
            return _beside(operation, other, self)
        if self > 0:
            return self.tape.compute(
                what, self.tape.constant(number), self.node, operation(number, self.value)
            )
        return operation(number, self.pin())

    return _arithmetic(what, by_number, by_traced), dividing


def _ordering(what: int, compare: Callable[[Any, Any], bool]) -> Callable[[Traced, Any], bool]:
    """The operator LESS or _MORE of a traced number."""

    def compare_traced(self: Traced, other: Any) -> bool:
        if type(other) is int:
            outcome = self.tape._compared.get((what, self.node, other))
            return self._ask(what, other) if outcome is None else outcome
        index = self._index_of(other)
        return self._beyond(compare, other) if index is None else self._decide(what, index)

    return compare_traced


class Traced:
    """A number of a tape, used like an int."""

    __slots__ = ("node", "tape", "value")

    __class__ = property(lambda self: int)

    def __init__(self, tape: Tape, node: int, value: int):
        self.tape = tape
        self.node = node
        self.value = value

    def pin(self) -> int:
        """Specialise the tape to this number, and return it as an int."""
        self.tape.decide(EQUAL, self.node, self.tape.constant(self.value), True)
        return self.value

    __index__ = __int__ = __trunc__ = pin

    def __float__(self) -> float:
        return float(self.pin())

    def __hash__(self) -> int:
        return hash(self.pin())

    def __bool__(self) -> bool:
        return self != 0

    def __repr__(self) -> str:
        return str(self.value)

    def __format__(self, spec: str) -> str:
        return format(self.value, spec)

    __add__ = __radd__ = _commutative(ADD, neutral=0)
    __mul__ = __rmul__ = _commutative(MULTIPLY, neutral=1)

    def __neg__(self) -> Any:
        result = self.tape._applied.get((MULTIPLY, self.node, -1))
        return self * -1 if result is None else result

    def __pos__(self) -> Any:
        return self

    def __abs__(self) -> Any:
        return self if self >= 0 else -self

    def __sub__(self, other: Any) -> Any:
        if type(other) is Traced:
            return 0 if other.node == self.node else self + other * -1
        number = _number(other)
        return _beside(operator.sub, self, other) if number is None else self + -number

    def __rsub__(self, other: Any) -> Any:
        number = _number(other)
        return _beside(operator.sub, other, self) if number is None else self * -1 + number

    __floordiv__, __rfloordiv__ = _division(DIVIDE)
    __mod__, __rmod__ = _division(REMAINDER)

    def __divmod__(self, other: Any) -> Any:
        return self // other, self % other

    def __rdivmod__(self, other: Any) -> Any:
        return other // self, other % self

    def __truediv__(self, other: Any) -> Any:
        return self.pin() / (other.pin() if type(other) is Traced else other)

    def __rtruediv__(self, other: Any) -> Any:
        return other / self.pin()

    def __pow__(self, other: Any) -> Any:
        return self.pin() ** (other.pin() if type(other) is Traced else other)

    def __rpow__(self, other: Any) -> Any:
        return other ** self.pin()

    def __ceil__(self) -> Any:
        return self

    def __floor__(self) -> Any:
        return self

    def __round__(self, digits: int | None = None) -> Any:
        return self

    def __eq__(self, other: object) -> bool:
        if type(other) is int:
            outcome = self.tape._compared.get((EQUAL, self.node, other))
            return self._ask(EQUAL, other) if outcome is None else outcome
        index = self._index_of(other)
        return index is not None and self._decide(EQUAL, index)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __lt__, __gt__ = _ordering(LESS, operator.lt), _ordering(_MORE, operator.gt)

    def __le__(self, other: Any) -> bool:
        return self._beyond(operator.le, other) if self._index_of(other) is None else not self > other

    def __ge__(self, other: Any) -> bool:
        return self._beyond(operator.ge, other) if self._index_of(other) is None else not self < other

    def _ask(self, what: int, number: int) -> bool:
        """Compare with an int, and add the guard."""
        outcome = self._decide(what, self.tape.constant(number))
        self.tape._compared[what, self.node, number] = outcome
        return outcome

    def _decide(self, what: int, index: int) -> bool:
        """Compare with one of the tape's values, and add the guard."""
        lhs, rhs = self.node, index
        if what == _MORE or (what == EQUAL and lhs > rhs):
            lhs, rhs = rhs, lhs
        one, other = self.tape.values[lhs], self.tape.values[rhs]
        if what == EQUAL:
            return self.tape.decide(EQUAL, lhs, rhs, one == other)
        return self.tape.decide(LESS, lhs, rhs, one < other)

    def _beyond(self, compare: Callable[[Any, Any], bool], other: Any) -> bool:
        """Compare with a float that is not an integer. An infinity needs no guard."""
        if not isinstance(other, float):
            return NotImplemented
        return compare(self.value if math.isinf(other) else self.pin(), other)

    def _index_of(self, other: Any) -> int | None:
        """The index of `other` among the values; None if it is not an integer."""
        if type(other) is Traced:
            return other.node
        number = _number(other)
        return None if number is None else self.tape.constant(number)

    # the interface of int that NumPy and others use

    @property
    def real(self) -> Any:
        return self

    def item(self) -> Any:
        return self

    def bit_length(self) -> int:
        return self.pin().bit_length()


def _number(other: Any) -> int | None:
    """`other` as an int, also for floats with an integer value; else None."""
    kind = type(other)
    if kind is int:
        return other
    if kind is float:
        return int(other) if other.is_integer() else None
    if isinstance(other, int) and kind is not Traced:
        return int(other)
    if hasattr(other, "__index__") and not hasattr(other, "__len__"):
        return operator.index(other)
    return None


def _beside(what: Callable[[Any, Any], Any], lhs: Any, rhs: Any) -> Any:
    """Apply `what` to two numbers of which one is a fraction; a traced one is specialised."""
    a, b = (x.pin() if type(x) is Traced else x for x in (lhs, rhs))
    return what(a, b) if isinstance(a, (int, float)) and isinstance(b, (int, float)) else NotImplemented


def extreme(what: int, a: Any, b: Any) -> Any:
    """The minimum (LEAST) or maximum (MOST) of two numbers, of which one is traced. Adds no guard."""
    traced = a if type(a) is Traced else b
    key = (what, type(a), a.node if type(a) is Traced else a, type(b), b.node if type(b) is Traced else b)
    cached = traced.tape._extremes.get(key)
    if cached is None:
        cached = traced.tape._extremes[key] = _found_extreme(what, a, b, traced)
    return cached


def _found_extreme(what: int, a: Any, b: Any, traced: Traced) -> Any:
    pair = []
    for x in (a, b):
        index = traced._index_of(x)
        if index is None:
            return _COMPUTE[what](a, b)
        pair.append(index)
    if pair[0] == pair[1]:
        return a
    numbers = [traced.tape.values[index] for index in pair]
    return traced.tape.compute(what, min(pair), max(pair), _COMPUTE[what](*numbers))


def identity(numbers: Sequence[Any]) -> tuple[Any, ...]:
    """A hashable key of numbers. Traced numbers are represented by their index on the tape, without a
    guard."""
    return tuple([(n.node,) if type(n) is Traced else n for n in numbers])


def is_traced_number(number: Any) -> bool:
    """Whether this is a `Traced`. `isinstance(number, int)` is true for it, too."""
    return type(number) is Traced


def as_found_number(number: Any) -> Any:
    """The current value of a traced number, without a guard. The caller must ensure that the plan does not
    depend on it."""
    return number.value if type(number) is Traced else number


def whole_numbers(array: Any) -> list[Any]:
    """The elements of an integer array as ints or Traced numbers."""
    return [x if type(x) is Traced else int(x) for x in np.asarray(array).reshape(-1).tolist()]


def is_traced(array: Any) -> bool:
    """Whether an array has traced numbers among its elements."""
    if array is None or array.dtype.kind != "O":
        return False
    return any(type(x) is Traced for x in array.reshape(-1).tolist())


def may_leave_reals(array: Any) -> bool:
    """Whether kernels compute reals that derive from this array of traced numbers. The tape records a yes."""
    tape = next(x.tape for x in array.reshape(-1).tolist() if type(x) is Traced)
    tape.left_reals |= tape.leaves_reals
    return bool(tape.leaves_reals)


def pin_array(array: Any, dtype: Any) -> Any:
    """An array with traced numbers as an array of plain numbers, specialised to them."""
    return array.astype(dtype)


def as_found(array: Any) -> Any:
    """An array with traced numbers as an array of their current values, without guards."""
    if not is_traced(array):
        return array
    numbers = [x.value if type(x) is Traced else x for x in array.reshape(-1).tolist()]
    return np.array(numbers, np.int64).reshape(array.shape)
