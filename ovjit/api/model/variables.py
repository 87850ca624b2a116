"""Variables of models: `Variable` and `VariableInfo`, and the builders of ReadValue and Assign."""

from __future__ import annotations

from typing import Any

import numpy as np

from ovjit.api.accessors import accessor
from ovjit.api.arguments import expect
from ovjit.api.model.boundary import as_output
from ovjit.api.model.node import Node
from ovjit.api.tensors.convert import dims_of, element_name, partial_shape_of
from ovjit.api.tensors.shapes import PartialShape
from ovjit.api.tensors.types import TYPES, Type
from ovjit.errors import no_such_constructor, no_such_form
from ovjit.graph.op import find_op


class VariableInfo:
    """Shape, type and name of a variable."""

    __slots__ = ("data_shape", "data_type", "variable_id")

    def __init__(self) -> None:
        self.data_shape = PartialShape([])
        self.data_type = Type.dynamic
        self.variable_id = ""

    def __repr__(self) -> str:
        return "<VariableInfo>"


class Variable:
    """A variable of a model, for `read_value` and `assign`."""

    __slots__ = ("_info",)

    def __init__(self, info: VariableInfo):
        expect(info, VariableInfo, "Variable takes a VariableInfo", no_such_constructor)
        self.update(info)

    def get_info(self) -> VariableInfo:
        return self._info

    def update(self, variable_info: VariableInfo) -> None:
        copied = VariableInfo()
        for name in VariableInfo.__slots__:
            setattr(copied, name, getattr(variable_info, name))
        self._info = copied

    info = accessor(get_info)

    def __repr__(self) -> str:
        return "<Variable>"


def variable_of(node: Node) -> Variable:
    """The variable that a ReadValue or Assign node is about."""
    info = VariableInfo()
    info.variable_id = node._attrs["variable_id"]
    tensor = node._tensors[0]._type
    info.data_type, info.data_shape = TYPES[tensor.dtype], partial_shape_of(tensor.shape)
    return Variable(info)


def _facts(positional: list[Any], kwargs: dict[str, Any], has_value: bool) -> tuple[Any, Any, Any]:
    """Name, type and shape of a variable, taken out of a call's arguments."""
    keys = ("variable_id", "variable_type", "variable_shape")
    name, type, shape = (positional.pop(0) if positional else kwargs.pop(key, None) for key in keys)
    if not isinstance(name, str) or (type is None and not has_value):
        raise TypeError(
            "The necessary overload for read_value was not found: it takes [init_value,] "
            "variable_id, variable_type, variable_shape, or a Variable"
        )
    return name, type, shape


def _attributes(name: str, type: Any, shape: Any) -> dict[str, Any]:
    """The attributes of a ReadValue; a type or shape of None is that of the initial value."""
    if isinstance(type, (int, str)) or (shape is not None and np.ndim(shape) == 0):
        raise TypeError("The necessary overload for read_value was not found")
    return {
        "variable_id": name,
        "variable_type": "dynamic" if type is None else element_name(type),
        "variable_shape": None if shape is None else dims_of(shape),
    }


class read_value(Node):
    """A node that gives a variable's value: `read_value(init_value, variable_id, variable_type=None,
    variable_shape=None, name="")`, where None is what the initial value is; the same without `init_value`,
    `read_value(variable)` or `read_value(init_value, variable)`. Raises TypeError for other arguments."""

    __slots__ = ()

    def __init__(self, *args: Any, **kwargs: Any):
        name = kwargs.pop("name", "")
        positional = list(args)
        init = kwargs.pop("init_value", kwargs.pop("new_value", None))
        if init is None and positional and not isinstance(positional[0], (str, Variable)):
            init = positional.pop(0)
        variable = kwargs.pop("variable", kwargs.pop("ov_variable", None))
        if variable is None and positional and isinstance(positional[0], Variable):
            variable = positional.pop(0)
        if variable is not None:
            facts = variable.info.variable_id, variable.info.data_type, variable.info.data_shape
        else:
            facts = _facts(positional, kwargs, init is not None)
        if positional and isinstance(positional[-1], str):
            positional.pop()  # a name counts only where it is given by keyword
        if positional or kwargs:
            raise no_such_form(f"read_value() does not take {(positional or list(kwargs))[0]!r}")
        _begin(self, "ReadValue", [] if init is None else [init], _attributes(*facts), name)

    def get_variable_id(self) -> str:
        """The name of the variable."""
        return self._attrs["variable_id"]


class assign(Node):
    """A node that gives a variable its value for the next inference, a sink: `assign(new_value, variable,
    name="")`, where the variable is a Variable or its name; without arguments one that is connected later.
    Raises TypeError for other arguments."""

    __slots__ = ()

    def __init__(self, *args: Any, **kwargs: Any):
        if not (args or kwargs):
            self._leave_unconnected(find_op("Assign", 6), {"variable_id": ""})
            return
        name = kwargs.pop("name", "")  # as in other builders it counts only where it is given by keyword
        arguments = dict(zip(("new_value", "variable"), args, strict=False)) | kwargs
        new_value = arguments.pop("new_value", None)
        variable, named = (arguments.pop(key, None) for key in ("variable", "variable_id"))
        variable = named if variable is None else variable
        if new_value is None or arguments or len(args) > 3:
            raise no_such_form("assign() takes new_value, variable or variable_id, name")
        if isinstance(variable, Variable):
            variable = variable.info.variable_id
        expect(variable, str, "assign() takes a Variable or its name")
        _begin(self, "Assign", [new_value], {"variable_id": variable}, name)

    def get_variable_id(self) -> str:
        """The name of the variable."""
        return self._attrs["variable_id"]


Node._classes.update({("ReadValue", 6): read_value, ("Assign", 6): assign})


def _begin(node: Node, op: str, inputs: list[Any], attrs: dict[str, Any], name: str | None) -> None:
    record = find_op(op, 6)
    node._build(record, [as_output(v, name) for v in inputs], record.check_attributes(attrs), name or None)
