"""Inputs and outputs that belong together, made into variables of the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ovjit.api.model.boundary import Parameter, Result
from ovjit.api.model.model import Model
from ovjit.api.model.node import Node, Output, make_node
from ovjit.api.model.variables import variable_of
from ovjit.errors import ModelError, no_such_form
from ovjit.graph.op import TensorType

#: Parameter and Result, or the tensor names of both.
Pairs = Mapping[str, str] | Sequence[tuple[Parameter, Result]]


def check_pairs(pairs: Any) -> None:
    """TypeError for what are no pairs of names, or of Parameter and Result."""
    rows = list(pairs.items() if isinstance(pairs, Mapping) else pairs)
    kinds = (str, str) if isinstance(pairs, Mapping) else (Parameter, Result)
    for row in rows:
        if not isinstance(row, tuple) or len(row) != 2 or not all(map(isinstance, row, kinds)):
            raise no_such_form(
                f"pairs of {kinds[0].__name__} and {kinds[1].__name__} are expected, not {row!r}"
            )


def make_stateful(model: Model, pairs: Pairs) -> None:
    """Each parameter becomes a ReadValue, each result an Assign of one variable, named by both.

    RuntimeError for tensor names that the model does not have.
    """
    for parameter, result in _find_pairs(model, pairs):
        name = parameter.get_friendly_name() + result.get_friendly_name()
        if isinstance(pairs, Mapping):
            name = next(f"{p}{r}" for p, r in pairs.items() if p in parameter._tensors[0]._names)
        read = read_variable(name, TensorType(parameter._attrs["element_type"], parameter._attrs["shape"]))
        parameter.output(0).replace(read.output(0))
        keep(model, read, result.input_value(0))
        model.remove_result(result)
        result.input_value(0)._node._forget_user(result)
        model.remove_parameter(parameter)


def read_variable(name: str, kind: TensorType, *first: Output) -> Node:
    """A node that reads a variable; `first` is its initial value."""
    attrs = {"variable_id": name, "variable_type": kind.dtype, "variable_shape": kind.shape}
    return make_node("ReadValue", first, attrs, opset=6)


def keep(model: Model, read: Node, value: Output) -> None:
    """Let the variable that a node reads have this value behind a run."""
    assign = make_node("Assign", [value], {"variable_id": read._attrs["variable_id"]}, opset=6)
    assign._after = (read,)
    model.add_sinks([assign])
    model.add_variables([variable_of(read)])


def _find_pairs(model: Model, pairs: Pairs) -> list[tuple[Parameter, Result]]:
    if not isinstance(pairs, Mapping):
        return list(pairs)
    named = []
    for first, second in sorted(pairs.items()):
        parameter = next((p for p in model.get_parameters() if first in p._tensors[0]._names), None)
        result = next((r for r in model.get_results() if second in r._tensors[0]._names), None)
        for name, node, what in ((first, parameter, "Parameters"), (second, result, "Results")):
            if node is None:
                raise ModelError(
                    f"The tensor name {name} is not associated with any of {what} in the network."
                )
        named.append((parameter, result))
    return named  # type: ignore[return-value]
