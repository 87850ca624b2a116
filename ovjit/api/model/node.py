"""Nodes of the public, editable graph; the ports of nodes are in `ovjit.api.model.node_ports`.

A `Node` is one operation applied to outputs of other nodes. It holds its producers by strong references and
its consumers by weak ones. So a graph lives as long as a Model or a node at its end. Types are inferred when
a node is made, and again by `Model.reshape` and `validate_and_infer_types`. Nodes compare by identity.
"""

from __future__ import annotations

import functools
import itertools
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import numpy as np

from ovjit.api.accessors import accessor
from ovjit.api.arguments import expect, public_name, takes
from ovjit.api.model.node_ports import (
    GRAPH_LOCK,
    ConstOutput,
    DescriptorTensor,
    Input,
    Output,
    _Port,
    shape_text,
)
from ovjit.api.model.rt_info import RTMap
from ovjit.api.model.type_info import DiscreteTypeInfo, type_info_of
from ovjit.api.tensors.convert import CPP_NAMES, dims_of, element_name
from ovjit.errors import ModelError, checked_index, no_such_form
from ovjit.graph.attributes import FILE_NAMES
from ovjit.graph.graph import Builder, Value
from ovjit.graph.op import Op, TensorType, find_op
from ovjit.records import NamedTuple

if TYPE_CHECKING:
    from ovjit.api.tensors.shapes import PartialShape
    from ovjit.api.tensors.types import Type
    from ovjit.api.tensors.vectors import Shape

__all__ = [
    "GRAPH_LOCK",
    "ConstOutput",
    "DescriptorTensor",
    "DiscreteTypeInfo",
    "Input",
    "Node",
    "Output",
    "_Port",
]

_instance_ids = itertools.count()
#: A node's users that are gone are forgotten when there are this many, twice as many, and so on.
_FEW_USERS = 8


#: What makes a Constant of a value: `boundary` has it, which knows nodes.
_constants: list[Callable[..., Node]] = []
Maker = TypeVar("Maker", bound="Callable[..., Node]")


def makes_constants(function: Maker) -> Maker:
    """Decorator: the function with which nodes make Constants of the numbers that they are added to."""
    _constants[:] = [function]
    return function


def _checked_name(name: Any) -> str:
    return expect(name, str, "a name is a str")


#: Operators of nodes by the names of NumPy's functions.
_UFUNCS = {"add": "Add", "subtract": "Subtract", "multiply": "Multiply", "divide": "Divide"}


def _operator(op_name: str) -> tuple[Callable[[Any, Any], Node], Callable[[Any, Any], Node]]:
    """The operator of an arithmetic operation, and the one with the operands exchanged."""
    return lambda x, y: _arithmetic(op_name, x, y), lambda x, y: _arithmetic(op_name, y, x)


class _Inferred(NamedTuple):
    """The outputs' types of a node, and the types and attributes that they were inferred from."""

    inputs: list[TensorType]
    attrs: dict[str, Any]
    types: list[TensorType]

    def types_for(self, inputs: Sequence[Value], attrs: Mapping[str, Any]) -> list[TensorType] | None:
        """The types if inputs and attributes are these same objects; else None. A graph infers each type a
        second time otherwise."""
        same = len(inputs) == len(self.inputs) and attrs.keys() == self.attrs.keys()
        same = same and all(value.type is kind for value, kind in zip(inputs, self.inputs, strict=True))
        return self.types if same and all(attrs[k] is value for k, value in self.attrs.items()) else None


class Node:
    """One operation of an editable graph. Made by the builders of `ovjit.opset1` ... and by `ovjit.op`."""

    __slots__ = (
        "__dict__", "__weakref__", "_attrs", "_friendly_name", "_id", "_inferred", "_inputs", "_input_rt",
        "_op", "_rt_info", "_tensors", "_user_refs",
    )  # fmt: skip
    #: What comes before this node though it takes nothing of it: the ReadValue of an Assign, where a file or
    #: a pass made the two. Walks that users see go there first, as OpenVINO's along control dependencies.
    _after: tuple[Node, ...] = ()

    _op: Op
    _attrs: dict[str, Any]
    _inputs: list[Output]
    _tensors: list[DescriptorTensor]

    #: Operations whose nodes have a class of their own, by name and version; filled where those classes are
    #: defined.
    _classes: ClassVar[dict[tuple[str, int], type[Node]]] = {}
    #: Whether it is a node with models inside.
    _has_bodies: ClassVar[bool] = False

    def __init__(self, *args: Any, **kwargs: Any):
        raise TypeError("ovjit.Node: No constructor defined! Use a builder, such as ovjit.opset13.relu")

    @classmethod
    def _new(
        cls, record: Op, inputs: Sequence[Output], attrs: dict[str, Any], name: str | None = None,
        types: Iterable[TensorType] | None = None,
    ) -> Any:  # fmt: skip
        """A node. `attrs` as `Op.check_attributes` returns them; `types` skips inference.

        Raises ModelError naming the node when inputs or attributes do not fit.
        """
        kind = cls._classes.get((record.name, record.opset), cls) if cls is Node else cls
        node = kind.__new__(kind)
        node._build(record, inputs, attrs, name, types)
        return node

    def _build(
        self, record: Op, inputs: Sequence[Output], attrs: dict[str, Any], name: str | None,
        types: Iterable[TensorType] | None = None,
    ) -> None:  # fmt: skip
        self._setup(record, inputs, attrs, name)
        self._set_types(self._infer() if types is None else types)
        kind = type(self)
        plain = kind._infer is Node._infer and kind._graph_attrs is Node._graph_attrs
        if types is None and plain and not record.runs_body and not record.plugin:
            self._note_types()
        for source in self._inputs:
            source._node._remember_user(self)

    @classmethod
    def _make_unconnected(cls, record: Op, attrs: dict[str, Any]) -> Any:
        """A node whose inputs are set later. Until then it has one output of dynamic type."""
        node = cls.__new__(cls)
        node._leave_unconnected(record, attrs)
        return node

    def _leave_unconnected(self, record: Op, attrs: dict[str, Any]) -> None:
        self._setup(record, (), attrs, None)
        self._tensors.append(DescriptorTensor(TensorType("dynamic", None)))

    def _setup(self, record: Op, inputs: Sequence[Output], attrs: dict[str, Any], name: str | None) -> None:
        self._op = record
        self._attrs = attrs
        self._inputs = list(inputs)
        self._id = next(_instance_ids)
        self._friendly_name = "" if name is None else _checked_name(name)
        self._tensors = []
        self._rt_info: RTMap | None = None
        self._input_rt: dict[int, RTMap] | None = None
        self._user_refs: set[weakref.ref[Node]] | None = None
        self._inferred: _Inferred | None = None

    def _stands_for(self) -> Node:
        """The node that represents this one in a graph or a file."""
        return self

    # -- types ---------------------------------------------------------------------------------------------

    def _infer(self, inputs: Sequence[TensorType] | None = None) -> tuple[TensorType, ...]:
        """The output types for these input types (default: the sources'), leaving the node as it is."""
        if inputs is None:
            inputs = [source._tensor._type for source in self._inputs]
        try:
            return self._op.infer_types(inputs, self._graph_attrs())
        except ModelError as error:
            input_types = ", ".join(f"{t.dtype}{shape_text(t.shape)}" for t in inputs)
            what = f"While validating node {self.get_friendly_name()!r} ({self._op.name}-{self._op.opset})"
            raise ModelError(f"{what} of inputs ({input_types}): {error}") from error

    def _graph_inputs(self, builder: Builder, inputs: Sequence[Value]) -> Sequence[Value]:
        """The inputs as the operation's record takes them, `inputs` being the sources' values."""
        return inputs

    def _graph_attrs(self) -> dict[str, Any]:
        """The attributes as the operation's record takes them."""
        return self._attrs

    def _settle_bodies(self) -> None:
        """Propagate types into the node's bodies, once the types around it are final."""

    def _copied_from(self, other: Node) -> None:
        """Copy the fields that only this class has from `other`, the node that this one is a copy of."""

    def _set_types(self, types: Iterable[TensorType]) -> None:
        for i, inferred in enumerate(types):
            if i < len(self._tensors):
                self._tensors[i]._type = inferred
            else:
                self._tensors.append(DescriptorTensor(inferred))

    def _note_types(self) -> None:
        """Record the types as the result of inference for the current source types and attributes."""
        input_types = [source._tensor._type for source in self._inputs]
        self._inferred = _Inferred(input_types, dict(self._attrs), [tensor._type for tensor in self._tensors])

    def _known_types(self, inputs: Sequence[Value]) -> Sequence[TensorType] | None:
        """The output types for the graph's `inputs` and the attributes, if they are known; else None."""
        return None if self._inferred is None else self._inferred.types_for(inputs, self._attrs)

    def validate_and_infer_types(self) -> None:
        """Infer the types of the outputs anew. Raises RuntimeError if the inputs do not fit."""
        with GRAPH_LOCK:
            self._set_types(self._infer())

    constructor_validate_and_infer_types = validate_and_infer_types

    def set_output_size(self, size: int) -> None:
        """Set the number of outputs of an operation in Python, see `Op`. RuntimeError for others, whose
        inputs determine it."""
        raise ModelError(f"the number of outputs of {self!r} follows from its inputs and attributes")

    def set_output_type(self, index: int, element_type: Any, shape: Any) -> None:
        """Give an output a type and shape; the next validation infers them anew."""
        tensor = self._tensors[_port_index(index, len(self._tensors), "output", self)]
        with GRAPH_LOCK:
            tensor._type = TensorType(element_name(element_type), dims_of(shape))

    # -- edges ---------------------------------------------------------------------------------------------

    def _connect(self, index: int, source: Output) -> None:
        old = self._inputs[index]
        self._inputs[index] = source
        if all(other._node is not old._node for other in self._inputs):
            old._node._forget_user(self)
        source._node._remember_user(self)

    @property
    def _users(self) -> list[Node]:
        """The living nodes that have taken an output of this one, in no order."""
        users = [ref() for ref in tuple(self._user_refs or ())]
        return [user for user in users if user is not None]

    def _remember_user(self, user: Node) -> None:
        # a WeakSet takes five times as long, and most nodes' users are never asked for
        refs = self._user_refs
        if refs is None:
            refs = self._user_refs = set()
        elif len(refs) >= _FEW_USERS and not len(refs) & (len(refs) - 1):
            refs -= {ref for ref in tuple(refs) if ref() is None}
        refs.add(weakref.ref(user))

    def _forget_user(self, user: Node) -> None:
        if self._user_refs is not None:
            self._user_refs.discard(weakref.ref(user))

    def set_argument(self, index: int, source: Output) -> None:
        """Connect input `index` to `source`; one past the end adds an input."""
        expect(source, Output)
        index = _port_index(index, len(self._inputs) + 1, "input", self)
        with GRAPH_LOCK:
            if index == len(self._inputs):
                self._inputs.append(source)
                source._node._remember_user(self)
            else:
                self._connect(index, source)

    @takes
    def set_arguments(self, sources: Sequence[Output | Node]) -> None:
        """Replace all inputs. A Node stands for all its outputs."""
        new = [out for source in sources for out in _outputs_of(source)]
        with GRAPH_LOCK:
            for old in self._inputs:
                old._node._forget_user(self)
            self._inputs = new
            for source in new:
                source._node._remember_user(self)

    # -- ports ---------------------------------------------------------------------------------------------

    def input(self, input_index: int) -> Input:
        return Input._of(self, _port_index(input_index, len(self._inputs), "input", self))

    def inputs(self) -> list[Input]:
        return [Input._of(self, i) for i in range(len(self._inputs))]

    def input_value(self, index: int) -> Output:
        return self._inputs[_port_index(index, len(self._inputs), "input", self)]

    def input_values(self) -> list[Output]:
        return list(self._inputs)

    def output(self, output_index: int) -> Output:
        return Output._of(self, _port_index(output_index, len(self._tensors), "output", self))

    def outputs(self) -> list[Output]:
        return [Output._of(self, i) for i in range(len(self._tensors))]

    def get_input_size(self) -> int:
        return len(self._inputs)

    def get_output_size(self) -> int:
        return len(self._tensors)

    def get_input_tensor(self, index: int) -> DescriptorTensor:
        return self.input_value(index)._tensor

    def get_input_element_type(self, index: int) -> Type:
        return self.input_value(index).get_element_type()

    def get_input_partial_shape(self, index: int) -> PartialShape:
        return self.input_value(index).get_partial_shape()

    def get_input_shape(self, index: int) -> Shape:
        return self.input_value(index).get_shape()

    def get_output_tensor(self, index: int) -> DescriptorTensor:
        return self.output(index)._tensor

    def get_output_element_type(self, index: int) -> Type:
        return self.output(index).get_element_type()

    def get_output_partial_shape(self, index: int) -> PartialShape:
        return self.output(index).get_partial_shape()

    def get_output_shape(self, index: int) -> Shape:
        """The shape of an output. Raises RuntimeError if it is dynamic."""
        return self.output(index).get_shape()

    def get_element_type(self) -> Type:
        """The element type of the only output. Raises RuntimeError if there are several."""
        return self._only_output("get_element_type").get_element_type()

    @property
    def shape(self) -> Shape:
        """The shape of the only output. Raises RuntimeError if it is dynamic, or there are several."""
        return self._only_output("get_shape").get_shape()

    def _only_output(self, method: str) -> Output:
        if len(self._tensors) != 1:
            raise ModelError(f"{method}() must be called on a node with exactly one output. It is {self!r}")
        return self.output(0)

    # -- names and attributes ------------------------------------------------------------------------------

    def get_name(self) -> str:
        """A name that no other node of this process has."""
        return f"{self._op.name}_{self._id}"

    def get_friendly_name(self) -> str:
        """The name the user or the model gave, else that of `get_name`."""
        return self._friendly_name or self.get_name()

    def set_friendly_name(self, name: str) -> None:
        self._friendly_name = _checked_name(name)

    def get_instance_id(self) -> int:
        return self._id

    def get_type_name(self) -> str:
        return self._op.name

    def get_type_info(self) -> DiscreteTypeInfo:
        return type_info_of(self._op.name, self._op.version)

    def get_attributes(self) -> dict[str, Any]:
        """The attributes by their names in files and in the order there, sequences as lists."""
        shown: dict[str, Any] = {}
        attrs = self._ordered_attrs()
        if self._op.show is not None and len(self._inputs) >= self._op.required_inputs:
            attrs = {**attrs, **self._op.show(attrs, [source._tensor._type for source in self._inputs])}
        for name, value in attrs.items():
            if isinstance(value, tuple) or (value is None and name.endswith("shape")):
                value = list(value or ())  # a shape of unknown rank is [] there
            shown[FILE_NAMES.get(name, name)] = value
        return shown

    def _ordered_attrs(self) -> dict[str, Any]:
        """The attributes in the order in which OpenVINO visits them, which need not be that of builders."""
        from ovjit.api.surface import surface_of  # a table of all operations

        names = surface_of(self._op).shown_first.split()
        first = {name: self._attrs[name] for name in names if name in self._attrs}
        return first | self._attrs

    def visit_attributes(self, visitor: Any) -> bool:
        """Hand the attributes to `visitor.on_attributes`, as a dict."""
        visitor.on_attributes(self.get_attributes())
        return True

    def set_attribute(self, name: str, value: Any) -> None:
        """Change an attribute; types are inferred at the next validation. An unknown name does nothing, as in
        OpenVINO. Raises RuntimeError for a value of the wrong kind."""
        name = next((k for k, shown in FILE_NAMES.items() if shown == name), name)
        if name in self._op.attributes:
            with GRAPH_LOCK:
                self._attrs = {**self._attrs, name: self._op.check_attribute(name, value)}

    if not TYPE_CHECKING:  # a checker would believe in any name

        def __getattr__(self, name: str) -> Any:
            """`get_axis`, `set_axis` and the like: accessors of the attributes that the operation has."""
            kind, attribute = name[:4], name[4:]
            if kind in ("get_", "set_") and attribute in self.get_attributes():
                if kind == "set_":
                    return functools.partial(self.set_attribute, attribute)
                return lambda: self.get_attributes()[attribute]
            raise AttributeError(f"'openvino.{type(self).__name__}' object has no attribute {name!r}")

    def get_rt_info(self) -> RTMap:
        if self._rt_info is None:
            self._rt_info = RTMap()
        return self._rt_info

    def set_rt_info(self, value: Any, key: str) -> None:
        self.get_rt_info()._set(key, value)

    def _input_rt_info(self, index: int) -> RTMap:
        if self._input_rt is None:
            self._input_rt = {}
        return self._input_rt.setdefault(index, RTMap())

    name = accessor(get_name)
    friendly_name = accessor(get_friendly_name, set_friendly_name)
    type_info = accessor(get_type_info)
    rt_info = accessor(get_rt_info)

    # -- values --------------------------------------------------------------------------------------------

    @takes
    def evaluate(
        self, output_values: Sequence[Any], input_values: Sequence[Any], evaluationContext: Any = None
    ) -> bool:
        """Run this one operation on Tensors by its NumPy reference. False if it has none.

        RuntimeError if there are not as many Tensors as inputs and outputs.
        """
        if len(input_values) != len(self._inputs) or len(output_values) != len(self._tensors):
            raise _wrong_counts(self, len(input_values), len(output_values))
        return self._op.ref is not None and _evaluate(self, output_values, input_values)

    __add__, __radd__ = _operator("Add")
    __sub__, __rsub__ = _operator("Subtract")
    __mul__, __rmul__ = _operator("Multiply")
    __truediv__, __rtruediv__ = _operator("Divide")

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        """The node of `array + node` and of `np.add(array, node)`. NumPy raises TypeError for functions that
        are no operator of nodes, and for further arguments, which a node has no use for."""
        op_name = _UFUNCS.get(ufunc.__name__)
        if op_name is None or method != "__call__" or kwargs:
            return NotImplemented
        return _arithmetic(op_name, *inputs)

    def __copy__(self, memo: object = None) -> Node:
        raise TypeError(f"cannot pickle '{public_name(type(self))}' object")

    __deepcopy__ = __copy__

    def __reduce__(self) -> Any:
        return self.__copy__()

    def __eq__(self, other: object) -> bool:
        return self is other

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        outputs = ", ".join(shape_text(t._type.shape) for t in self._tensors)
        if self._op.role == "parameter":
            outputs += f", {CPP_NAMES[self._tensors[0]._type.dtype]}"
        kind = self._op.name if type(self) is Node else type(self).__name__
        return f"<{kind}: {self.get_friendly_name()!r} ({outputs})>"


def _wrong_counts(node: Node, inputs: int, outputs: int) -> ModelError:
    return ModelError(
        f"node {node.get_friendly_name()!r} has {len(node._inputs)} inputs and {len(node._tensors)} outputs, "
        f"not {inputs} and {outputs}"
    )


def _evaluate(node: Node, outputs: Sequence[Any], inputs: Sequence[Any]) -> bool:
    results = node._op.evaluate([_elements(t) for t in inputs], node._graph_attrs())
    for tensor, result in zip(outputs, results, strict=True):
        tensor.shape = result.shape
        _elements(tensor)[...] = result
    return True


def make_node(
    op_name: str, inputs: Sequence[Output], attributes: dict[str, Any], name: str | None = None,
    opset: int | None = None,
) -> Node:  # fmt: skip
    """The node of operation `op_name` as opset number `opset` has it, attributes by their IR names.

    Raises ModelError for an unknown operation, a wrong attribute or inputs that do not fit.
    """
    record = find_op(op_name, opset)
    return Node._new(record, inputs, record.check_attributes(attributes), name)


def _elements(tensor: Any) -> Any:
    """The array on a Tensor's memory, of strings too, whose `data` is a copy."""
    return tensor._strings() if tensor.element_type._name == "string" else tensor.data


def _arithmetic(op_name: str, first: Any, second: Any) -> Node:
    """Node arithmetic: a number becomes an i64 or f64 constant, an array one of its own type."""
    sides = []
    for side in (first, second):
        if isinstance(side, Node):
            sides.append(side.output(0))
        elif isinstance(side, (bool, int, float, np.ndarray, np.generic)):
            value = int(side) if isinstance(side, bool) else side
            sides.append(_constants[0](value).output(0))
        else:
            return NotImplemented
    return make_node(op_name, sides, {})


def _outputs_of(source: Any) -> list[Output]:
    if isinstance(source, Node):
        return source.outputs()
    if isinstance(source, Output):
        return [source]
    raise no_such_form(f"expected an Output or a Node, not {type(source).__name__}")


def _port_index(index: Any, count: int, what: str, node: Node) -> int:
    def beyond(number: int) -> Exception:
        return ModelError(
            f"{what} index '{number}' out of range: node {node.get_friendly_name()!r} has {count} "
            f"{what}s (node index is out of range)"
        )

    return checked_index(index, count, what, beyond)
