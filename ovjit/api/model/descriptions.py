"""Mappings of inputs and outputs of If, Loop and TensorIterator to their bodies (`ovjit.op.util`)."""

from __future__ import annotations

import operator
from typing import Any

from ovjit.api.arguments import expect
from ovjit.api.model.type_info import DiscreteTypeInfo
from ovjit.errors import no_such_constructor
from ovjit.graph.bodies import CONCAT, INVARIANT, LAST, MERGED, SLICED, Port


class _Description:
    """Some ints by name, as the class lists them: all 0 without arguments, else each of them by place or
    name."""

    __slots__ = ()
    _kind: str
    _fields: tuple[str, ...] = ()
    _defaults: dict[str, int] = {}

    def __init__(self, *args: Any, **kwargs: Any):
        names = self._fields
        arguments = {**dict(zip(names, args, strict=False)), **kwargs}
        if len(args) > len(names) or set(arguments) - set(names):
            raise no_such_constructor(f"{type(self).__name__} takes {', '.join(names)}")
        missing = [n for n in names if n not in arguments and n not in self._defaults]
        if arguments and missing:
            raise no_such_constructor(
                f"{type(self).__name__} takes {', '.join(names)}; {missing[0]} is missing"
            )
        for name in names:
            setattr(self, name, operator.index(arguments.get(name, self._defaults.get(name, 0))))

    def copy(self) -> Any:
        return type(self)(*(getattr(self, name) for name in self._fields))

    def get_type_info(self) -> DiscreteTypeInfo:
        return DiscreteTypeInfo(type(self).__name__, "util")

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


class InputDescription(_Description):
    __slots__ = ("body_parameter_index", "input_index")
    body_parameter_index: int
    input_index: int


class OutputDescription(_Description):
    __slots__ = ("body_value_index", "output_index")
    body_value_index: int
    output_index: int


class InvariantInputDescription(InputDescription):
    """The parameter is the input, in every iteration."""

    __slots__ = ()
    _kind = INVARIANT
    _fields = ("input_index", "body_parameter_index")


class MergedInputDescription(InputDescription):
    """The parameter is the input in the first iteration, then the body's previous result."""

    __slots__ = ("body_value_index",)
    body_value_index: int
    _kind = MERGED
    _fields = ("input_index", "body_parameter_index", "body_value_index")


class SliceInputDescription(InputDescription):
    """The parameter is a slice of the input, the next one in each iteration."""

    __slots__ = ("axis", "end", "part_size", "start", "stride")
    axis: int
    end: int
    part_size: int
    start: int
    stride: int
    _kind = SLICED
    _fields = ("input_index", "body_parameter_index", "start", "stride", "part_size", "end", "axis")


class BodyOutputDescription(OutputDescription):
    """The output is the body's result in one iteration, -1 for the last."""

    __slots__ = ("iteration",)
    iteration: int
    _kind = LAST
    _fields = ("body_value_index", "output_index", "iteration")
    _defaults = {"iteration": -1}


class ConcatOutputDescription(OutputDescription):
    """The output is the concatenation of the body's results of all iterations."""

    __slots__ = ("axis", "end", "part_size", "start", "stride")
    axis: int
    end: int
    part_size: int
    start: int
    stride: int
    _kind = CONCAT
    _fields = ("body_value_index", "output_index", "start", "stride", "part_size", "end", "axis")


_KINDS = {
    kind._kind: kind
    for kind in (
        InvariantInputDescription, MergedInputDescription, SliceInputDescription, BodyOutputDescription,
        ConcatOutputDescription,
    )
}  # fmt: skip


def _port_fields(kind: type[_Description]) -> dict[str, str]:
    """The fields of a kind of descriptions, and those of a Port with the same content."""
    value = "back" if issubclass(kind, MergedInputDescription) else "inner"
    names = {"input_index": "outer", "output_index": "outer", "body_parameter_index": "inner"}
    return {field: {**names, "body_value_index": value}.get(field, field) for field in kind._fields}


def port_of(description: Any) -> Port:
    """The port that a description refers to."""
    expect(description, tuple(_KINDS.values()), "expected a description of an input or output")
    rows = _port_fields(type(description)).items()
    return Port(description._kind, **{attribute: getattr(description, field) for field, attribute in rows})


def description_of(port: Port) -> Any:
    """The descriptor that connects a port of a node with its body."""
    kind = _KINDS[port.kind]
    return kind(**{field: getattr(port, attribute) for field, attribute in _port_fields(kind).items()})
