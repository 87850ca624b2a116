"""Patterns: nodes that stand for many nodes, in graphs that are looked for in others.

A pattern graph is made of the nodes here and, as in OpenVINO, of nodes of the usual builders, which stand for
nodes of their type. Every pattern node says by `_alternatives` what an output may be to match it.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from ovjit.api.arguments import expect
from ovjit.api.model.node import Node, Output
from ovjit.api.model.node_ports import target_inputs
from ovjit.api.tensors.dimension import Dimension, Symbol
from ovjit.api.tensors.types import Type
from ovjit.errors import ModelError, no_such_constructor, no_such_form
from ovjit.graph.op import Op, TensorType, find_op
from ovjit.graph.shapes import bounds, is_static
from ovjit.rewrite.pattern import match_operands

#: What symbols of a pattern stand for.
Symbols = dict[str, "PatternSymbolValue"]
#: Pattern node -> the output that it stands for; symbol -> what it stands for.
Found = Mapping[Any, Any]


class PatternSymbolValue:
    """The value of a name in a pattern's shape: a number, a Symbol, or a list of these."""

    __slots__ = ("_value",)
    _value: Any
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, value: Any):
        if isinstance(value, bool) or not isinstance(value, (int, float, Symbol, Sequence)):
            raise no_such_form(
                f"a PatternSymbolValue is a number, a Symbol or a sequence, not {type(value).__name__}"
            )
        self._value = list(value) if isinstance(value, Sequence) else value

    def is_dynamic(self) -> bool:
        """Whether it is a Symbol, or has one in it."""
        return isinstance(self._value, Symbol) or (
            self.is_group() and any(v.is_dynamic() for v in self._value)
        )

    def is_static(self) -> bool:
        """Whether it is known as a number, or as numbers."""
        return not self.is_dynamic()

    def is_group(self) -> bool:
        """Whether it is several values."""
        return isinstance(self._value, list)

    def is_integer(self) -> bool:
        """Whether it is a whole number."""
        return isinstance(self._value, int)

    def is_double(self) -> bool:
        """Whether it is a number that need not be whole."""
        return isinstance(self._value, float)

    def i(self) -> int:
        """The whole number. RuntimeError if it is none."""
        return self._as(int)

    def d(self) -> float:
        """The number. RuntimeError if it is none."""
        return float(self._as((int, float)))

    def s(self) -> Symbol:
        """The Symbol. RuntimeError if it is none."""
        return self._as(Symbol)

    def g(self) -> list[PatternSymbolValue]:
        """The values. RuntimeError if it is one."""
        return self._as(list)

    def _to_python(self) -> Any:
        """A number, a Symbol, or a list of these."""
        return [v._to_python() for v in self._value] if self.is_group() else self._value

    def _as(self, kind: Any) -> Any:
        if not isinstance(self._value, kind):
            raise ModelError(
                f"the value of the symbol is {self._value!r}, which is not of the requested kind"
            )
        return self._value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PatternSymbolValue) and self._value == other._value

    def __repr__(self) -> str:
        return f"<PatternSymbolValue: {self._value!r}>"


class Predicate:
    """A condition on an output: a function of it, or of the symbols known so far and it."""

    __slots__ = ("_function", "_symbols")

    def __init__(self, predicate: Callable[..., bool] | None = None):
        if predicate is not None and not callable(predicate):
            raise no_such_constructor(
                f"a Predicate is constructed from a function, not from {type(predicate).__name__}"
            )
        self._function = predicate
        self._symbols = predicate is not None and _takes_two(predicate)

    def _holds(self, match: Found, output: Output) -> Found | None:
        """`match`, and the symbols that the function adds; None if it does not hold."""
        if self._function is None:
            return match
        if not self._symbols:
            return match if self._function(output) else None
        symbols = symbols_of(match)
        return {**match, **symbols} if self._function(symbols, output) else None


def _takes_two(function: Callable[..., Any]) -> bool:
    import inspect

    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return False
    required = [
        p
        for p in parameters
        if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) and p.default is p.empty
    ]
    return len(required) == 2


def _predicate(condition: Any) -> Predicate:
    return condition if isinstance(condition, Predicate) else Predicate(condition)


class Pattern(Node):
    """A pattern node. It has one output of unknown type."""

    _label = "Pattern"

    def _prepare(self, inputs: Sequence[Output], predicate: Any) -> None:
        self._setup(Op(self._label, 1, _any_type), inputs, {}, None)
        self._set_types([TensorType("dynamic", None)])
        self._predicate = _predicate(predicate)

    def _alternatives(self, output: Output, match: Found) -> Iterator[Found]:
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


def _any_type(*inputs: TensorType) -> TensorType:
    return TensorType("dynamic", None)


class AnyInput(Pattern):
    """Any output, or any for which a predicate holds."""

    _label = "patternLabel"

    def __init__(self, predicate: Any = None):
        self._prepare((), predicate)

    def _alternatives(self, output: Output, match: Found) -> Iterator[Found]:
        extended = self._predicate._holds(match, output)
        if extended is not None:
            yield {**extended, self: output}


def _sources(args: tuple[Any, ...], named: dict[str, Any], what: str) -> tuple[list[Output] | None, Any]:
    """(inputs or None, predicate) of a pattern's further arguments."""
    inputs = named.pop("input", named.pop("inputs", None))
    predicate = named.pop("predicate", named.pop("pred", None))
    for value in args:
        if isinstance(value, (Node, Output, list, tuple)) and inputs is None:
            inputs = value
        elif predicate is None and (callable(value) or isinstance(value, Predicate)):
            predicate = value
        else:
            raise no_such_constructor(f"{what} takes type names, inputs and a predicate, not {value!r}")
    if named:
        raise TypeError(f"{what} has no argument {min(named)!r}")
    if inputs is None:
        return None, predicate
    items = inputs if isinstance(inputs, (list, tuple)) else [inputs]
    return [item if isinstance(item, Output) else item.output(0) for item in items], predicate


def _find_records(names: Any, what: str) -> list[Op]:
    """The records of operation types such as opset13.Relu. Raises ModelError for unknown opsets."""
    listed = [names] if isinstance(names, str) else names
    if not isinstance(listed, (list, tuple)) or not all(isinstance(name, str) for name in listed):
        raise no_such_constructor(
            f"{what} takes the name of a type such as 'opset13.Relu', or a list of them, not {names!r}"
        )
    records = []
    for name in listed:
        opset, dot, kind = name.replace("::", ".").rpartition(".")
        number = opset.removeprefix("opset")
        is_opset = opset.startswith("opset") and number.isdecimal() and 1 <= int(number) <= 17
        if not dot or not is_opset:
            raise ModelError(
                f"Unsupported opset type: {opset or kind}; a type name is like opset13.Relu, with "
                "opset1 to opset17"
            )
        records.append(find_op(kind, int(number)))
    return records


class WrapType(Pattern):
    """An operation of one of some types, with inputs that match, if they are given, and a predicate."""

    _label = "WrapType"

    def __init__(self, type_names: Any = None, *args: Any, **named: Any):
        if type_names is None:
            type_names = named.pop("type_name", None)
        self._types = _find_records(type_names, "WrapType")
        inputs, predicate = _sources(args, named, "WrapType")
        self._prepare(inputs or (), predicate)
        self._has_inputs = inputs is not None

    def _alternatives(self, output: Output, match: Found) -> Iterator[Found]:
        if not any(_same_type(output._node, record) for record in self._types):
            return
        extended = self._predicate._holds(match, output)
        if extended is None:
            return
        extended = {**extended, self: output}
        if not self._has_inputs:
            yield extended
            return
        yield from match_inputs(self._inputs, output._node, extended)


class Or(Pattern):
    """Whatever matches one of several patterns, tried in order."""

    _label = "patternOr"

    def __init__(self, inputs: Sequence[Any]):
        if not isinstance(inputs, (list, tuple)) or not all(
            isinstance(item, (Node, Output)) for item in inputs
        ):
            raise no_such_constructor("Or takes a list of Nodes or Outputs")
        self._prepare([item if isinstance(item, Output) else item.output(0) for item in inputs], None)

    def _alternatives(self, output: Output, match: Found) -> Iterator[Found]:
        for source in self._inputs:
            for extended in match_output(source, output, match):
                yield {**extended, self: output}


class Optional(Pattern):
    """An operation of one of some types with inputs, or directly its first input."""

    _label = "patternOptional"

    def __init__(self, type_names: Sequence[str], *args: Any, **named: Any):
        if isinstance(type_names, str):
            raise no_such_constructor("Optional takes a list of types' names, not one name")
        inputs, predicate = _sources(args, named, "Optional")
        _find_records(type_names, "Optional")
        arguments = [inputs] if inputs else []
        self._wrapped = WrapType(type_names, *arguments, predicate=predicate)
        self._prepare(inputs or (), None)

    def _alternatives(self, output: Output, match: Found) -> Iterator[Found]:
        for extended in self._wrapped._alternatives(output, match):
            yield {**{k: v for k, v in extended.items() if k is not self._wrapped}, self: output}
        if self._inputs:
            yield from match_output(self._inputs[0], output, match)


# -- matching ----------------------------------------------------------------------------------------------


def symbols_of(match: Found) -> Symbols:
    """The symbols of a match, with their values."""
    return {key: value for key, value in match.items() if isinstance(key, str)}


def match_output(pattern: Output, output: Output, match: Found) -> Iterator[Found]:
    """Yield every match of an output and a pattern that extends `match`."""
    node = pattern._node
    if isinstance(node, Pattern):
        if node not in match:
            yield from node._alternatives(output, match)
        elif match[node] == output:
            yield match
    elif (
        _same_type(output._node, node._op) and pattern._index == output._index and _type_fits(pattern, output)
    ):
        yield from match_inputs(node._inputs, output._node, {**match, node: output})


def match_inputs(patterns: Sequence[Output], node: Node, match: Found) -> Iterator[Found]:
    """Yield every match of a node's inputs and patterns, in either order for commutative operations."""
    matchers = [partial(match_output, pattern) for pattern in patterns]
    return match_operands(matchers, node._inputs, match, node._op.commutative)


def _same_type(node: Node, record: Op) -> bool:
    return (node._op.name, node._op.opset) == (record.name, record.opset)


def _type_fits(pattern: Output, output: Output) -> bool:
    """Whether an output fits the type and shape of a node that was made by a builder, as far as those are
    known."""
    expected, actual = pattern._tensor._type, output._tensor._type
    if "dynamic" not in (expected.dtype, actual.dtype) and expected.dtype != actual.dtype:
        return False
    return pattern.get_partial_shape().compatible(output.get_partial_shape())


# -- predicates --------------------------------------------------------------------------------------------


def consumers_count(n: int) -> Predicate:
    """A predicate for outputs with `n` consumers."""
    count = operator.index(n)
    return Predicate(lambda output: len(target_inputs(output._node, output._index)) == count)


def _shape(output: Output) -> Any:
    return output._tensor._type.shape


def has_static_rank() -> Predicate:
    """A predicate for outputs of static rank."""
    return Predicate(lambda output: _shape(output) is not None)


def has_static_shape() -> Predicate:
    """A predicate for outputs of static shape."""
    return Predicate(lambda output: is_static(_shape(output)))


def has_static_dim(pos: int) -> Predicate:
    """A predicate for outputs whose dimension `pos` is static; a negative index counts from the end."""
    return has_static_dims([pos])


def has_static_dims(dims: Sequence[int]) -> Predicate:
    """A predicate for outputs whose dimensions `dims` are static."""

    def holds(output: Output) -> bool:
        shape = _shape(output)
        if shape is None:
            return False
        return all(-len(shape) <= pos < len(shape) and isinstance(shape[pos], int) for pos in dims)

    return Predicate(holds)


def rank_equals(expected_rank: int | Dimension) -> Predicate:
    """A predicate for outputs whose rank is, or may be, the expected one."""
    rank = expected_rank if isinstance(expected_rank, Dimension) else Dimension(expected_rank)
    return Predicate(lambda output: output.get_partial_shape().rank == rank)


def rank_more_than(expected_rank: int | Dimension) -> Predicate:
    """A predicate for outputs whose rank is static and greater."""
    rank = expected_rank if isinstance(expected_rank, Dimension) else Dimension(expected_rank)
    low = rank.get_length() if rank.is_static else rank.get_max_length()
    return Predicate(lambda output: _shape(output) is not None and len(_shape(output)) > low)


def type_matches(element_type: Type) -> Predicate:
    """A predicate for outputs of this element type."""
    return type_matches_any([element_type])


def type_matches_any(element_types: Sequence[Type]) -> Predicate:
    """A predicate for outputs of one of these element types."""
    names = [element_type._name for element_type in element_types]
    return Predicate(lambda output: output._tensor._type.dtype in names)


def attrs_match(attributes: Mapping[str, Any]) -> Predicate:
    """A predicate for outputs of nodes that have these attributes with these values."""

    def holds(output: Output) -> bool:
        node = output._node
        unknown = set(attributes) - set(node._op.attributes)
        if unknown:
            return False
        return node._op.check_attributes({**node._graph_attrs(), **attributes}) == node._graph_attrs()

    return Predicate(holds)


def shape_matches(shape_notation: str) -> Predicate:
    """That the shape is as written: "[N, 3, ?, W]", "[..., 64]", "[Batches..., C]". A name stands for one
    length everywhere in a pattern, a name with dots for any number of dimensions."""
    expect(shape_notation, str, "shape_matches takes a str")
    text = shape_notation.strip().removeprefix("[").removesuffix("]")  # which OpenVINO does not ask for
    parts = [part.strip() for part in text.split(",")] if text.strip() else []
    if sum(part.endswith("...") for part in parts) > 1:
        raise ModelError(f"{shape_notation!r}: only one item can match several dimensions")

    def holds(symbols: Symbols, output: Output) -> bool:
        shape = _shape(output)
        if shape is None:
            return False
        slices = _spread(parts, len(shape))
        dims = output.get_partial_shape()
        return slices is not None and all(
            _dimension_fits(part, shape[slice(*axes)], [dims[i] for i in range(*axes)], symbols)
            for part, axes in slices
        )

    return Predicate(holds)


def _spread(parts: list[str], rank: int) -> list[tuple[str, tuple[int, int]]] | None:
    """(part, the dimensions that it stands for), or None if the rank does not fit."""
    fixed = sum(not part.endswith("...") for part in parts)
    if rank < fixed or (fixed == len(parts) and rank != fixed):
        return None
    out, at = [], 0
    for part in parts:
        count = rank - fixed if part.endswith("...") else 1
        out.append((part, (at, at + count)))
        at += count
    return out


def _dimension_fits(part: str, dims: Sequence[Any], shown: Sequence[Dimension], symbols: Symbols) -> bool:
    if part.endswith("..."):
        name = part[:-3].strip()
        if not name:
            return True
        values = [_symbol_value(d, s) for d, s in zip(dims, shown, strict=True)]
        return None not in values and _bind(name, PatternSymbolValue(values), symbols)
    (dim,) = dims
    if part in ("?", "-1"):
        return True
    if part.lstrip("-").isdecimal():
        return dim == int(part)
    low, dots, high = part.partition("..")
    if dots:
        (lo, hi) = bounds(dim)
        return lo >= int(low or 0) and (not high or (hi is not None and hi <= int(high)))
    value = _symbol_value(dim, shown[0])
    return value is not None and _bind(part, value, symbols)


def _symbol_value(dim: Any, shown: Dimension) -> PatternSymbolValue | None:
    if isinstance(dim, int):
        return PatternSymbolValue(dim)
    symbol = shown.get_symbol()
    return None if symbol is None else PatternSymbolValue(symbol)


def _bind(name: str, value: PatternSymbolValue, symbols: Symbols) -> bool:
    if name in symbols:
        return symbols[name] == value
    symbols[name] = value
    return True
