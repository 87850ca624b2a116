"""Variables of models and requests: `Variable` and `VariableInfo`, the builders of ReadValue and Assign, and
`VariableState`, by which a request's states are seen and set."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ovjit.api.model.boundary import as_output
from ovjit.api.model.node import Node
from ovjit.api.run.inputs import native_of
from ovjit.api.run.slots import BITS, PACKED, pack, relation
from ovjit.api.tensors.convert import dims_of, element_name, partial_shape_of
from ovjit.api.tensors.shapes import PartialShape
from ovjit.api.tensors.tensor import Tensor, lend_array
from ovjit.api.tensors.types import TYPES, Type
from ovjit.errors import InferenceError, no_such_constructor, no_such_form
from ovjit.graph import dtypes
from ovjit.graph.op import find_op

if TYPE_CHECKING:
    from ovjit.api.run.request import InferRequest
    from ovjit.execution.states import States


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
        if not isinstance(info, VariableInfo):
            raise no_such_constructor(f"Variable takes a VariableInfo, not {type(info).__name__}")
        self.update(info)

    def get_info(self) -> VariableInfo:
        return self._info

    def update(self, variable_info: VariableInfo) -> None:
        copied = VariableInfo()
        for name in VariableInfo.__slots__:
            setattr(copied, name, getattr(variable_info, name))
        self._info = copied

    info = property(get_info)

    def __repr__(self) -> str:
        return "<Variable>"


def variable_of(node: Node) -> Variable:
    """The variable that a ReadValue or Assign node is about."""
    info = VariableInfo()
    info.variable_id = node._attrs["variable_id"]
    tensor = node._tensors[0]._type
    info.data_type, info.data_shape = TYPES[tensor.dtype], partial_shape_of(tensor.shape)
    return Variable(info)


class read_value(Node):
    """A node that gives a variable's value: `read_value(init_value, variable_id, variable_type=None,
    variable_shape=None, name="")`, where None is what the initial value is; the same without `init_value`,
    `read_value(variable)` or `read_value(init_value, variable)`. Raises TypeError for other arguments."""

    __slots__ = ()

    def __init__(self, *args: Any, **kwargs: Any):
        name = kwargs.pop("name", "")
        given = list(args)
        init = kwargs.pop("init_value", kwargs.pop("new_value", None))
        if init is None and given and not isinstance(given[0], (str, Variable)):
            init = given.pop(0)
        variable = kwargs.pop("variable", kwargs.pop("ov_variable", None))
        if variable is None and given and isinstance(given[0], Variable):
            variable = given.pop(0)
        if variable is not None:
            facts = [variable.info.variable_id, variable.info.data_type, variable.info.data_shape]
        else:
            keys = ("variable_id", "variable_type", "variable_shape")
            facts = [given.pop(0) if given else kwargs.pop(key, None) for key in keys]
            if not isinstance(facts[0], str) or (init is None and facts[1] is None):
                raise TypeError(
                    "The necessary overload for read_value was not found: it takes [init_value,] "
                    "variable_id, variable_type, variable_shape, or a Variable"
                )
        if given and isinstance(given[-1], str):
            given.pop()  # a name counts only where it is given by keyword
        if given or kwargs:
            raise no_such_form(f"read_value() does not take {(given or list(kwargs))[0]!r}")
        if isinstance(facts[1], (int, str)) or (facts[2] is not None and np.ndim(facts[2]) == 0):
            raise TypeError("The necessary overload for read_value was not found")
        attrs = {
            "variable_id": facts[0],
            "variable_type": "dynamic" if facts[1] is None else element_name(facts[1]),
            "variable_shape": None if facts[2] is None else dims_of(facts[2]),
        }
        _begin(self, "ReadValue", [] if init is None else [init], attrs, name)

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
        given = dict(zip(("new_value", "variable"), args, strict=False)) | kwargs
        new_value = given.pop("new_value", None)
        variable = given.pop("variable", None) or given.pop("variable_id", None)
        if new_value is None or given or len(args) > 3:
            raise no_such_form("assign() takes new_value, variable or variable_id, name")
        if isinstance(variable, Variable):
            variable = variable.info.variable_id
        if not isinstance(variable, str):
            raise no_such_form(f"assign() takes a Variable or its name, not {type(variable).__name__}")
        _begin(self, "Assign", [new_value], {"variable_id": variable}, name)

    def get_variable_id(self) -> str:
        """The name of the variable."""
        return self._attrs["variable_id"]


Node._classes.update({("ReadValue", 6): read_value, ("Assign", 6): assign})


def _begin(node: Node, op: str, inputs: list[Any], attrs: dict[str, Any], name: str | None) -> None:
    record = find_op(op, 6)
    node._build(record, [as_output(v, name) for v in inputs], record.check_attributes(attrs), name or None)


class VariableState:
    """One variable of a request. It belongs to the request: another one has its own."""

    __slots__ = ("_index", "_request", "_states")

    def __init__(self, request: InferRequest, states: States, index: int):
        self._request = request
        self._states = states
        self._index = index

    @property
    def name(self) -> str:
        return self._states.variables[self._index].name

    @property
    def state(self) -> Tensor:
        """The value as it is now, zeros after a reset. Writing to the tensor's data changes it, until an
        inference gives the variable its next value."""
        self._request._check_idle()
        dtype = self._states.variables[self._index].dtype
        value = self._states.show(self._index)
        way = relation(dtype)
        if way == PACKED:
            return lend_array(pack(value, dtype), TYPES[dtype], value.shape)
        return lend_array(value.view(TYPES[dtype].to_dtype()) if way == BITS else value, TYPES[dtype])

    @state.setter
    def state(self, tensor: Tensor) -> None:
        """TypeError for what is no Tensor, RuntimeError for one that does not fit."""
        if not isinstance(tensor, Tensor):
            raise no_such_form(f"a state is set from a Tensor, not from {type(tensor).__name__}")
        self._request._check_idle()
        variable = self._states.variables[self._index]
        value, wanted = native_of(tensor), dtypes.numpy_dtype(variable.dtype)
        if value.dtype != wanted:
            if tensor.element_type._name in ("f64", "string") or variable.dtype == "string":
                raise InferenceError(
                    f"the variable {variable.name!r} is {variable.dtype}, the given tensor "
                    f"{tensor.element_type._name}"
                )
            with np.errstate(all="ignore"):
                value = value.astype(wanted)
        self._states.set(self._index, value)

    def reset(self) -> None:
        """Back to the initial value, which the next inference works out."""
        self._request._check_idle()
        self._states.reset(self._index)

    @property
    def _shape(self) -> tuple[int, ...]:
        """The shape in which the value is kept; () after a reset."""
        self._request._check_idle()
        return self._states.shape(self._index)

    def _cut(self, axis: int, length: int) -> None:
        """Keep the first `length` elements along `axis`."""
        self._request._check_idle()
        self._states.cut(self._index, axis, length)

    def __repr__(self) -> str:
        return "<VariableState>"
