"""How inputs and outputs of If, Loop and TensorIterator go to their bodies, as `ovjit.op.util` says it."""

from __future__ import annotations

import operator
from typing import Any

from ovjit.api.model.node_ports import DiscreteTypeInfo
from ovjit.errors import no_such_constructor, no_such_form
from ovjit.graph.bodies import CONCAT, INVARIANT, LAST, MERGED, SLICED, Port


class _Description:
    """Some ints by name, as the class lists them: all 0 without arguments, else each of them by place or
    name."""

    __slots__ = ()
    _fields: tuple[str, ...] = ()
    _defaults: dict[str, int] = {}

    def __init__(self, *args: Any, **kwargs: Any):
        names = self._fields
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        if len(args) > len(names) or set(given) - set(names):
            raise no_such_constructor(f"{type(self).__name__} takes {', '.join(names)}")
        missing = [n for n in names if n not in given and n not in self._defaults]
        if given and missing:
            raise no_such_constructor(
                f"{type(self).__name__} takes {', '.join(names)}; {missing[0]} is missing"
            )
        for name in names:
            value = given.get(name, self._defaults.get(name, 0))
            setattr(self, name, operator.index(value))

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
    _fields = ("input_index", "body_parameter_index")


class MergedInputDescription(InputDescription):
    """The parameter is the input in the first iteration, then the body's previous result."""

    __slots__ = ("body_value_index",)
    body_value_index: int
    _fields = ("input_index", "body_parameter_index", "body_value_index")


class SliceInputDescription(InputDescription):
    """The parameter is another part of the input in every iteration."""

    __slots__ = ("axis", "end", "part_size", "start", "stride")
    axis: int
    end: int
    part_size: int
    start: int
    stride: int
    _fields = ("input_index", "body_parameter_index", "start", "stride", "part_size", "end", "axis")


class BodyOutputDescription(OutputDescription):
    """The output is the body's result in one iteration, -1 for the last."""

    __slots__ = ("iteration",)
    iteration: int
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
    _fields = ("body_value_index", "output_index", "start", "stride", "part_size", "end", "axis")


def port_of(description: Any) -> Port:
    """The port that a description says."""
    d = description
    if isinstance(d, InvariantInputDescription):
        return Port(INVARIANT, d.input_index, d.body_parameter_index)
    if isinstance(d, MergedInputDescription):
        return Port(MERGED, d.input_index, d.body_parameter_index, d.body_value_index)
    if isinstance(d, SliceInputDescription):
        slices = (d.start, d.stride, d.part_size, d.end, d.axis)
        return Port(SLICED, d.input_index, d.body_parameter_index, -1, *slices)
    if isinstance(d, BodyOutputDescription):
        return Port(LAST, d.output_index, d.body_value_index, iteration=d.iteration)
    if isinstance(d, ConcatOutputDescription):
        slices = (d.start, d.stride, d.part_size, d.end, d.axis)
        return Port(CONCAT, d.output_index, d.body_value_index, -1, *slices)
    raise no_such_form(f"expected a description of an input or output, not {type(d).__name__}")


def description_of(port: Port) -> Any:
    """The description that says a port."""
    slices = (port.start, port.stride, port.part_size, port.end, port.axis)
    if port.kind == INVARIANT:
        return InvariantInputDescription(port.outer, port.inner)
    if port.kind == MERGED:
        return MergedInputDescription(port.outer, port.inner, port.back)
    if port.kind == SLICED:
        return SliceInputDescription(port.outer, port.inner, *slices)
    if port.kind == LAST:
        return BodyOutputDescription(port.inner, port.outer, port.iteration)
    return ConcatOutputDescription(port.inner, port.outer, *slices)
