"""Patterns: the subgraphs that rules match, written as expressions.

    x, v = values("x v")
    eps = number("eps")
    root = op.Sqrt(v + eps) | (v + eps) ** 0.5
    x / root | x * (1.0 / root)                 both ways to write x / sqrt(v + eps)

| pattern                              | matches                                                        |
|--------------------------------------|----------------------------------------------------------------|
| `value("x")`, `values("x y")`        | any value; `anything`: without a name                          |
| `constant("c")`, `number("n")`       | a constant; a constant of one real, bound as a float           |
| `2.0`                                | a constant that is this number                                 |
| `op.MatMul(a, b, transpose_a=False)` | an operation, its inputs in either order if it is commutative  |
| `op["Squeeze Reshape"](x, ...)`      | one of several; any further inputs. `op.Split(...)`: any       |
| `operation(test)(x, ...)`            | an operation whose record passes the test                      |
| `+ - * / **`, `-x`                   | Add, Subtract, Multiply, Divide, Power, Negative               |
| `p | q`                              | what either matches                                            |
| `p.once`                             | a value with a single reader                                   |
| `p.named("key")`                     | binds the value itself, too                                    |
| `p.let(key=f)`, `p.where(f)`         | binds f(value) unless it is None; matches if f(value) is true  |

All occurrences of a name must be the same value. All ways to match are tried, in order. Matching reads Values
and Nodes, or objects like them, and changes nothing. A pattern without alternatives is also a template:
`make` writes it with the bound names.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

#: The bindings of names: values, floats of `number`, results of `let`.
Found = Mapping[str, Any]


#: (bindings, the value, readers) -> extended bindings, or None.
Refine = Callable[[Found, Any, Any], Found | None]


class Readers(Protocol):
    """Counts the nodes that read the elements of a value."""

    def times(self, value: Any) -> int: ...


def number_of(value: Any) -> float | None:
    """The element of a constant of one real; None for other values."""
    array = value.constant
    single = array is not None and array.size == 1 and array.dtype.kind == "f"
    return float(array.reshape(())) if single else None


def _operator(name: str) -> tuple[Callable[[Any, Any], Pattern], Callable[[Any, Any], Pattern]]:
    """The operator of an arithmetic operation, and the one with the operands exchanged."""
    return lambda x, y: op[name](x, y), lambda x, y: op[name](y, x)


class Pattern:
    """A set of values, described by the subgraph that computes them."""

    def fits(self, record: Any) -> bool:
        """False if no output of this operation can match."""
        return True

    def could_be_of(self, inputs: Sequence[Any]) -> bool:
        """False if no operation with these inputs can match."""
        return True

    def match(self, value: Any, bindings: Found, readers: Readers | None) -> Iterator[Found]:
        """Yield the bindings of each way in which `value` matches, extending `bindings`."""
        raise NotImplementedError

    def make(self, write: Callable[..., Any], bindings: Found) -> Any:
        """Write the expression with bound names, by `write(operation, *inputs, **attributes)`."""
        raise TypeError(f"{self!r} has alternatives: it is a pattern to match and cannot be a replacement")

    def every(self, value: Any, readers: Readers | None = None) -> Iterator[Found]:
        """Yield the bindings of each way in which `value` matches."""
        return self.match(value, {}, readers) if self.fits(value.node.op) else iter(())

    def first(self, value: Any, readers: Readers | None = None) -> Found | None:
        """The bindings of the first match; None without a match."""
        return next(self.every(value, readers), None)

    def matches(self, value: Any, readers: Readers | None = None) -> bool:
        """Whether `value` matches."""
        return self.first(value, readers) is not None

    @property
    def once(self) -> Pattern:
        return _Refined(
            self, lambda bindings, value, readers: bindings if readers.times(value) == 1 else None, "once"
        )

    def named(self, key: str) -> Pattern:
        return _Refined(self, lambda bindings, value, _: _bind(bindings, key, value), f"as {key}")

    def let(self, **functions: Callable[[Any], Any]) -> Pattern:
        def refine(bindings: Found, value: Any, _: Any) -> Found | None:
            for key, function in functions.items():
                result = function(value)
                bound = None if result is None else _bind(bindings, key, result)
                if bound is None:
                    return None
                bindings = bound
            return bindings

        return _Refined(self, refine, "let " + ", ".join(functions))

    def where(self, holds: Callable[[Any], Any]) -> Pattern:
        return _Refined(self, lambda bindings, value, _: bindings if holds(value) else None, "where")

    def __or__(self, other: Any) -> Pattern:
        return Either([*_options(self), *_options(_pattern(other))])

    __add__, __radd__ = _operator("Add")
    __sub__, __rsub__ = _operator("Subtract")
    __mul__, __rmul__ = _operator("Multiply")
    __truediv__, __rtruediv__ = _operator("Divide")
    __pow__, __rpow__ = _operator("Power")

    def __neg__(self) -> Pattern:
        return op.Negative(self)


def _bind(bindings: Found, key: str, value: Any) -> Found | None:
    """`bindings` with one more binding; None if the name is bound to another value."""
    if key in bindings:
        return bindings if bindings[key] == value else None
    return {**bindings, key: value}


class Any_(Pattern):
    """Any value, bound to the name unless that is empty."""

    def __init__(self, key: str):
        self.key = key

    def match(self, value: Any, bindings: Found, readers: Readers | None) -> Iterator[Found]:
        bound = _bind(bindings, self.key, value) if self.key else bindings
        if bound is not None:
            yield bound

    def make(self, write: Callable[..., Any], bindings: Found) -> Any:
        return bindings[self.key]

    def __repr__(self) -> str:
        return self.key or "_"


#: Any value, without a name.
anything = Any_("")


class Constant(Any_):
    """A constant, bound to the name."""

    def fits(self, record: Any) -> bool:
        return record.name == "Constant"


class Number(Pattern):
    """A constant of one real: a given number, or any, bound to the name as a float."""

    def __init__(self, number: float | str):
        self.number = number

    def fits(self, record: Any) -> bool:
        return record.name == "Constant"

    def match(self, value: Any, bindings: Found, readers: Readers | None) -> Iterator[Found]:
        number = number_of(value)
        if number is None:
            return
        if not isinstance(self.number, str):
            bound = bindings if number == self.number else None
        else:
            bound = _bind(bindings, self.number, number)
        if bound is not None:
            yield bound

    def make(self, write: Callable[..., Any], bindings: Found) -> Any:
        return bindings[self.number] if isinstance(self.number, str) else self.number

    def __repr__(self) -> str:
        return str(self.number)


class Made(Pattern):
    """The first output of an operation with one of these names, or whose record passes the test. `inputs`:
    the inputs' patterns, None for any. `more`: further inputs may follow."""

    def __init__(
        self,
        names: str | Callable[[Any], bool],
        inputs: Sequence[Pattern] | None,
        more: bool,
        attributes: Mapping[str, Any],
    ):
        self.names = frozenset(names.split()) if isinstance(names, str) else frozenset[str]()
        self.test = None if isinstance(names, str) else names
        self.inputs, self.more, self.attributes = inputs, more, dict(attributes)

    def fits(self, record: Any) -> bool:
        return record.name in self.names if self.test is None else self.test(record)

    def match(self, value: Any, bindings: Found, readers: Readers | None) -> Iterator[Found]:
        node = value.node
        if value.index or (self.attributes and not self._has_attributes(node.attrs)):
            return
        if self.inputs is None:
            yield bindings
            return
        operands, patterns = node.inputs, self.inputs
        if self.more:
            operands = operands[: len(patterns)]
        if self.could_be_of(operands):
            matchers = [functools.partial(_match_fitting, p, readers) for p in patterns]
            yield from match_operands(matchers, operands, bindings, node.op.commutative)

    def could_be_of(self, inputs: Sequence[Any]) -> bool:
        patterns = self.inputs
        if patterns is None:
            return True
        return _fit(patterns, inputs) or (len(patterns) == len(inputs) == 2 and _fit(patterns, inputs[::-1]))

    def _has_attributes(self, attributes: Mapping[str, Any]) -> bool:
        for key, expected in self.attributes.items():
            value = attributes.get(key)
            if not (expected(value) if callable(expected) else value == expected):
                return False
        return True

    def make(self, write: Callable[..., Any], bindings: Found) -> Any:
        (name,) = self.names
        inputs = [pattern.make(write, bindings) for pattern in self.inputs or ()]
        attributes = {
            key: each.make(write, bindings) if isinstance(each, Pattern) else each
            for key, each in self.attributes.items()
        }
        return write(name, *inputs, **attributes)

    def __repr__(self) -> str:
        inputs = ["..."] if self.inputs is None else [*map(repr, self.inputs), *["..."] * self.more]
        attributes = [f"{key}={each!r}" for key, each in self.attributes.items() if not callable(each)]
        name = "|".join(sorted(self.names)) or getattr(self.test, "__name__", "")
        return f"{name}({', '.join([*inputs, *attributes])})"


def _fit(patterns: Sequence[Pattern], values: Sequence[Any]) -> bool:
    """False if a value's operation rules out a match."""
    if len(patterns) > len(values):
        return False
    for pattern, value in zip(patterns, values, strict=False):
        if not pattern.fits(value.node.op):
            return False
    return True


def _match_fitting(pattern: Pattern, readers: Any, value: Any, bindings: Found) -> Iterator[Found]:
    return pattern.match(value, bindings, readers) if pattern.fits(value.node.op) else iter(())


#: (value, bindings) -> the bindings of each way in which the value matches.
Matcher = Callable[[Any, Any], Iterator[Any]]


def match_operands(
    matchers: Sequence[Matcher], values: Sequence[Any], bindings: Any, commutative: bool
) -> Iterator[Any]:
    """Yield the bindings of each way in which all operands match. `commutative`: two operands also
    swapped."""
    if len(matchers) != len(values):
        return
    yield from _match_rest(matchers, values, 0, bindings)
    if commutative and len(values) == 2:
        yield from _match_rest(matchers, values[::-1], 0, bindings)


def _match_rest(matchers: Sequence[Matcher], values: Sequence[Any], at: int, bindings: Any) -> Iterator[Any]:
    if at == len(matchers):
        yield bindings
        return
    for bound in matchers[at](values[at], bindings):
        yield from _match_rest(matchers, values, at + 1, bound)


class Either(Pattern):
    """A value that one of several patterns matches."""

    def __init__(self, options: Sequence[Pattern]):
        self.options = options

    def fits(self, record: Any) -> bool:
        for option in self.options:
            if option.fits(record):
                return True
        return False

    def could_be_of(self, inputs: Sequence[Any]) -> bool:
        for option in self.options:
            if option.could_be_of(inputs):
                return True
        return False

    def match(self, value: Any, bindings: Found, readers: Readers | None) -> Iterator[Found]:
        for option in self.options:
            if option.fits(value.node.op):
                yield from option.match(value, bindings, readers)

    def __repr__(self) -> str:
        return " | ".join(map(repr, self.options))


class _Refined(Pattern):
    """A pattern with a function that extends the bindings of each match, or rejects it."""

    def __init__(self, pattern: Pattern, refine: Refine, text: str):
        self.pattern, self.refine, self.text = pattern, refine, text
        self.fits, self.could_be_of = pattern.fits, pattern.could_be_of  # type: ignore[method-assign]

    def match(self, value: Any, bindings: Found, readers: Readers | None) -> Iterator[Found]:
        for bound in self.pattern.match(value, bindings, readers):
            refined = self.refine(bound, value, readers)
            if refined is not None:
                yield refined

    def __repr__(self) -> str:
        return f"({self.pattern!r} {self.text})"


class Derived(Pattern):
    """A value for which `function(value, readers)` is not None. The result is bound to the name."""

    def __init__(self, function: Callable[[Any, Any], Any], key: str):
        self.function, self.key = function, key

    def match(self, value: Any, bindings: Found, readers: Readers | None) -> Iterator[Found]:
        result = self.function(value, readers)
        bound = None if result is None else _bind(bindings, self.key, result)
        if bound is not None:
            yield bound

    def __repr__(self) -> str:
        return f"{getattr(self.function, '__name__', 'derived').strip('_')}({self.key})"


class _Operations:
    """`op.Name(...)` and `op["Name Other"](...)`."""

    def __getattr__(self, name: str) -> Callable[..., Pattern]:
        return operation(name)

    __getitem__ = __getattr__


op = _Operations()


def operation(names: str | Callable[[Any], bool]) -> Callable[..., Pattern]:
    """A maker of patterns for operations with these names, or whose records pass the test."""

    def make(*inputs: Any, **attributes: Any) -> Pattern:
        if inputs == (...,):
            return Made(names, None, False, attributes)
        more = bool(inputs) and inputs[-1] is ...
        patterns = [_pattern(each) for each in (inputs[:-1] if more else inputs)]
        return Made(names, patterns, more, attributes)

    return make


def _pattern(operand: Any) -> Pattern:
    if isinstance(operand, Pattern):
        return operand
    if isinstance(operand, int | float):
        return Number(float(operand))
    raise TypeError(f"a pattern is built of patterns and numbers, not of {operand!r}")


def _options(pattern: Pattern) -> Sequence[Pattern]:
    return pattern.options if isinstance(pattern, Either) else [pattern]


def values(keys: str) -> tuple[Pattern, ...]:
    return tuple(map(Any_, keys.split()))


value, constant, number = Any_, Constant, Number
