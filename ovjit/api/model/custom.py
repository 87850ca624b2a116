"""Operations written in Python: `Op`, to be derived from, and the `Extension`s by which a Core learns of
them.

A derived class says what its outputs are (`validate_and_infer_types`, by `set_output_type`), what they hold
(`evaluate`, with `has_evaluate`), and which attributes are kept in files (`visit_attributes`). In a compiled
model such an operation is a host step.
"""

from __future__ import annotations

import operator
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar

import numpy as np

from ovjit.api.arguments import expect
from ovjit.api.model.boundary import Parameter, from_storage, to_storage
from ovjit.api.model.node import GRAPH_LOCK, DescriptorTensor, Node, Output, _outputs_of
from ovjit.api.model.type_info import DiscreteTypeInfo
from ovjit.api.tensors.convert import dims_of, element_name
from ovjit.api.tensors.dimension import Dimension
from ovjit.api.tensors.shapes import PartialShape
from ovjit.api.tensors.tensor import Tensor, lend_array
from ovjit.api.tensors.types import TYPES, Type
from ovjit.errors import ModelError, no_such_form, unless_of_signal
from ovjit.graph import dtypes
from ovjit.graph.op import Op as Record
from ovjit.graph.op import TensorType
from ovjit.graph.shapes import bounds
from ovjit.native_packages import is_tokenizers, refuse_native

#: The version of every operation written in Python, as files name it.
EXTENSION = "extension"


class TensorVector:
    """A list of Tensors and nothing else."""

    __slots__ = ("_items",)
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, tensors: Iterable[Tensor] = ()):
        self._items = [_tensor(tensor) for tensor in tensors]

    def append(self, x: Tensor) -> None:
        self._items.append(_tensor(x))

    def extend(self, L: Iterable[Tensor]) -> None:
        self._items.extend(_tensor(tensor) for tensor in L)

    def insert(self, i: int, x: Tensor) -> None:
        self._items.insert(i, _tensor(x))

    def pop(self, i: int = -1) -> Tensor:
        return self._items.pop(i)

    def clear(self) -> None:
        self._items.clear()

    def __getitem__(self, index: Any) -> Any:
        items = self._items[index]
        return TensorVector(items) if isinstance(items, list) else items

    def __setitem__(self, index: Any, value: Any) -> None:
        self._items[index] = [_tensor(v) for v in value] if isinstance(index, slice) else _tensor(value)

    def __delitem__(self, index: Any) -> None:
        del self._items[index]

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __bool__(self) -> bool:
        return bool(self._items)

    def __repr__(self) -> str:
        return f"<TensorVector: {self._items!r}>"


def _tensor(value: Any) -> Tensor:
    return expect(value, Tensor, "a TensorVector holds Tensors")


class AttributeVisitor:
    """Handed to `visit_attributes`: collects an operation's attributes, or gives it those read from a file.

    `attributes` is what `get_attributes` shows of them, `texts` what a file keeps where that is a text of
    its own, `models` the bodies, which a file keeps beside the attributes.
    """

    __slots__ = ("_stored", "attributes", "models", "texts")

    def __init__(self, _stored: dict[str, Any] | None = None):
        self.attributes: dict[str, Any] = {}
        self.texts: dict[str, str] = {}
        self.models: dict[str, Any] = {}
        self._stored = _stored

    def on_attributes(self, attributes: dict[str, Any]) -> None:
        """Visit the operation's attributes by name. When a file is read, they are set in the dict; an array
        becomes the list that files have.

        An attribute is a bool, int, float, str, a list of one of these, an array of numbers, a Dimension, a
        PartialShape, or a Model. TypeError for anything else, RuntimeError for a list of several types.
        """
        stored = self._stored or {}
        for key, value in attributes.items():
            if key in stored:
                read = stored[key]
                attributes[key] = _like(read, value) if isinstance(read, str) else read
        for key, value in attributes.items():
            if isinstance(value, (Dimension, PartialShape)):
                self.texts[key] = str(value).strip("[]")
                if isinstance(value, PartialShape):
                    self.attributes[key] = [-1 if d.is_dynamic else d.get_length() for d in value]
            elif hasattr(value, "get_ordered_ops"):
                self.models[key] = value
            else:
                self.attributes[key] = attributes[key] = _to_plain(value)


def _to_plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        if value.dtype.kind not in "fiub" or value.ndim != 1:
            raise TypeError(f"Unsupported NumPy array dtype: {value.dtype}")
        return value.tolist()
    if isinstance(value, (bool, int, float, str, np.floating, np.integer)):
        return value.item() if isinstance(value, np.generic) else value
    if not isinstance(value, list):
        raise TypeError(f"Unsupported attribute type: {type(value)}")
    for item in value:
        if not isinstance(item, (bool, int, float, str)):
            raise TypeError(f"Unsupported attribute type in provided list: {type(item)}")
    if not value:
        raise ModelError("Attributes list is empty.")
    if len({type(item) for item in value}) > 1:
        raise ModelError("Incorrect attribute. Mixed types in the container are not allowed.")
    return [int(item) if isinstance(item, bool) else item for item in value]


def _like(text: Any, value: Any) -> Any:
    """A file's text as the kind of value that stands there."""
    if isinstance(value, bool):
        return text.strip().lower() in ("true", "1", "yes")
    if isinstance(value, (list, tuple)):
        parts = [part.strip() for part in text.split(",") if part.strip()]
        return [_like(part, value[0] if value else "") for part in parts]
    try:
        return type(value)(text) if isinstance(value, (int, float)) else text
    except ValueError as error:
        raise ModelError(f"{text[:80]!r} is not a valid {type(value).__name__}") from error


class _PythonRecord(Record):
    """The record of one node of a class derived from `Op`."""

    def __init__(self, node: Op):
        self.node = node
        runs = node.has_evaluate()
        super().__init__(node.get_type_info().name, 1, _any_inputs, self._run if runs else None)

    def check_attributes(self, attrs: Any) -> dict[str, Any]:
        return {}

    def infer_types(self, inputs: Iterable[TensorType], attrs: Any) -> tuple[TensorType, ...]:
        return self.node._infer_for(tuple(inputs))

    def _run(self, *arrays: np.ndarray) -> tuple[np.ndarray, ...]:
        node = self.node
        inputs = [
            _lend(array, source._tensor._type) for array, source in zip(arrays, node._inputs, strict=True)
        ]
        types = node._infer_for(tuple(TensorType(t.element_type._name, tuple(t.shape)) for t in inputs))
        outputs = TensorVector(Tensor(TYPES[t.dtype], [bounds(d)[0] for d in t.shape or ()]) for t in types)
        if not node.evaluate(outputs, TensorVector(inputs)):
            raise ModelError(
                f"evaluation failed for core operation: {self.name}, node {node.get_friendly_name()!r}: "
                "evaluate returned False"
            )
        return tuple(_values(tensor) for tensor in outputs)


def _any_inputs(*inputs: TensorType) -> Any:
    raise NotImplementedError


def _lend(array: np.ndarray, type: TensorType) -> Tensor:
    name = type.dtype if type.dtype != "dynamic" else dtypes.from_numpy(array.dtype)
    data = to_storage(array, name)
    if name == "string":
        return Tensor(data)
    return lend_array(np.ascontiguousarray(data), TYPES[name], array.shape)


def _values(tensor: Tensor) -> np.ndarray:
    return from_storage(np.ascontiguousarray(tensor.data), tensor.element_type._name, tuple(tensor.shape))


class Op(Node):
    """Base of operations written in Python.

    `super().__init__(self, inputs)` in the derived class's constructor takes a list of Nodes and Outputs, or
    a tuple of them or of such a list. None leaves them to `set_arguments`.
    """

    __slots__ = ()

    def __init__(self, py_obj: Any, inputs: Sequence[Any] | None = None) -> None:
        if isinstance(inputs, tuple):
            inputs = inputs[0] if len(inputs) == 1 and isinstance(inputs[0], list) else list(inputs) or None
        self._setup(_UNSET, (), {}, None)
        if inputs is not None:
            self.set_arguments(inputs)
            self.constructor_validate_and_infer_types()

    @property
    def _op(self) -> Record:
        return _PythonRecord(self)

    @_op.setter
    def _op(self, record: Record) -> None:
        """Ignore the record that `Node._setup` passes: the class decides it."""

    # -- what a derived class says -------------------------------------------------------------------------

    def validate_and_infer_types(self) -> None:
        """Set the outputs' types by `set_output_type`. An Op that does not has no outputs."""

    def constructor_validate_and_infer_types(self) -> None:
        with GRAPH_LOCK:
            self.validate_and_infer_types()

    def has_evaluate(self) -> bool:
        """Whether `evaluate` works: it does if the derived class has it."""
        return type(self).evaluate is not Op.evaluate

    def evaluate(self, output_values: Any, input_values: Any, evaluationContext: Any = None) -> bool:
        """Fill the output Tensors from the input Tensors; True if that was done."""
        return False

    def visit_attributes(self, visitor: AttributeVisitor) -> bool:
        """Hand `visitor.on_attributes` a dict of the attributes that files keep."""
        return True

    def get_type_info(self) -> DiscreteTypeInfo:
        info = getattr(type(self), "class_type_info", None)
        return (
            info if isinstance(info, DiscreteTypeInfo) else DiscreteTypeInfo(type(self).__name__, EXTENSION)
        )

    type_info = property(lambda self: self.get_type_info())

    # -- what Node asks ------------------------------------------------------------------------------------

    def get_attributes(self) -> dict[str, Any]:
        visitor = AttributeVisitor()
        self.visit_attributes(visitor)
        return visitor.attributes

    def _file_attributes(self) -> dict[str, Any]:
        visitor = AttributeVisitor()
        self.visit_attributes(visitor)
        return {**visitor.attributes, **visitor.texts}

    def _file_bodies(self) -> dict[str, Any]:
        """The Models among the attributes, by name."""
        visitor = AttributeVisitor()
        self.visit_attributes(visitor)
        return visitor.models

    def get_type_name(self) -> str:
        return self.get_type_info().name

    def get_name(self) -> str:
        return f"{self.get_type_name()}_{self._id}"

    def set_arguments(self, sources: Sequence[Output | Node]) -> None:
        super().set_arguments([out for source in sources for out in _outputs_of(source)])

    def set_output_size(self, size: int) -> None:
        """Set the number of outputs; new ones have dynamic types."""
        count = operator.index(size)
        while len(self._tensors) < count:
            self._tensors.append(DescriptorTensor(TensorType("dynamic", None)))
        del self._tensors[count:]

    def set_output_type(self, index: int, element_type: Type, shape: PartialShape) -> None:
        """Set the type of output `index`; missing outputs before it are created."""
        number = operator.index(index)
        if number < 0 or not isinstance(element_type, Type) or not isinstance(shape, PartialShape):
            raise TypeError("set_output_type takes the index of an output, a Type and a PartialShape")
        if number >= len(self._tensors):
            self.set_output_size(number + 1)
        self._tensors[number]._type = TensorType(element_name(element_type), dims_of(shape))

    def _graph_attrs(self) -> dict[str, Any]:
        return {}

    def _infer(self, inputs: Sequence[TensorType] | None = None) -> tuple[TensorType, ...]:
        return self._infer_for(
            tuple(source._tensor._type for source in self._inputs) if inputs is None else tuple(inputs)
        )

    def _infer_for(self, types: tuple[TensorType, ...]) -> tuple[TensorType, ...]:
        """The types of the outputs for inputs of these types. `validate_and_infer_types` runs with stand-ins
        for inputs whose types differ; the node is unchanged afterwards."""
        if len(types) != len(self._inputs):
            raise ModelError(
                f"node {self.get_friendly_name()!r} has {len(self._inputs)} inputs, but {len(types)} "
                "input types are given"
            )
        with GRAPH_LOCK:
            inputs, tensors = self._inputs, self._tensors
            self._inputs = [
                source
                if source._tensor._type == new_type
                else Parameter._of(new_type.dtype, new_type.shape).output(0)
                for source, new_type in zip(inputs, types, strict=True)
            ]
            self._tensors = [DescriptorTensor(tensor._type) for tensor in tensors]
            try:
                self.validate_and_infer_types()
                return tuple(tensor._type for tensor in self._tensors)
            finally:
                self._inputs, self._tensors = inputs, tensors

    def _copy_with(self, inputs: list[Output]) -> Op:
        """A copy with these inputs: by `clone_with_new_inputs` where the class has it, else with the same
        notes as this one (its `__dict__`), made without calling the constructor."""
        clone = getattr(self, "clone_with_new_inputs", None)
        if clone is not None:
            copy = clone(inputs)
            if not isinstance(copy, Op):
                raise ModelError(f"clone_with_new_inputs of {self!r} returned {copy!r}, which is not an Op")
            return copy
        copy = type(self).__new__(type(self))
        copy._setup(_UNSET, (), {}, None)
        copy.__dict__.update(self.__dict__)
        copy._attrs = self._attrs  # a name that derived classes like to use, too
        copy.set_arguments(inputs)
        copy.constructor_validate_and_infer_types()
        return copy


_UNSET: Any = None


class Extension:
    """An addition to a Core. This base class is empty; see `OpExtension`."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


class ReaderExtension:
    """Base class of extensions of modules, which one reader alone takes, and no Core."""

    module: Any


#: An attribute of a node whose value has no type here: it is there, but cannot be read.
UNREADABLE = object()


class ConversionExtensionBase(Extension):
    """A conversion of an operator of another framework."""

    #: True if an input that is left out arrives as a node of no value, not as None.
    passes_none: ClassVar[bool] = False

    def __init__(self, op_type: str, domain: str = ""):
        expect(op_type, str, "the type of an operation is a str")
        self.op_type, self.domain = op_type, domain

    #: The prefix of `key` instead of the domain. None: no reader asks a Core for the extension.
    namespace: ClassVar[str | None] = ""

    @property
    def key(self) -> str | None:
        """The name by which readers find the converter, prefixed by a domain that is not the default. None
        if no reader looks it up."""
        if self.namespace is None:
            return None
        prefix = self.namespace or self.domain
        return f"{prefix}.{self.op_type}" if prefix else self.op_type

    def convert(self, node: Any) -> list[Output]:
        """The outputs for a node that is being read (see `ovjit.readers.onnx.node.OnnxNode`)."""
        raise ModelError(f"{self!r} converts no operation")


class OpExtension(Extension):
    """One operation written in Python, for `Core.add_extension` and `NodeFactory.add_extension`."""

    def __init__(self, op_class: type) -> None:
        if not isinstance(op_class, type):
            raise TypeError("issubclass() arg 1 must be a class")
        if not issubclass(op_class, Op):
            raise ModelError(f"Unsupported data type : '{op_class}' is passed as an argument.")
        try:
            info = op_class().get_type_info()  # type: ignore[call-arg]
        except unless_of_signal(Exception) as error:
            raise ModelError(f"Creation of OpExtension failed: {type(error).__name__}: {error}") from error
        if not isinstance(info, DiscreteTypeInfo):
            raise ModelError(
                f"operation type_info must be an instance of DiscreteTypeInfo, but {type(info)} is passed."
            )
        self.op_class, self._type_name, self._version = op_class, info.name, info.version_id


def extension_records(extension: OpExtension) -> dict[tuple[str, str], type]:
    """(type name, version) -> class, of the operations of an extension."""
    return {(extension._type_name, extension._version): extension.op_class}


def read_extensions(arguments: tuple[Any, ...]) -> list[Extension]:
    """The extensions that `Core.add_extension` is given. The library of openvino_tokenizers adds none: ovjit
    has its operations. RuntimeError for another library's path, TypeError for other objects."""
    if len(arguments) != 1:
        raise no_such_form("add_extension takes Op classes, Extensions, a list of these, or a path")
    if isinstance(arguments[0], (str, os.PathLike)):
        if is_tokenizers(arguments[0]):
            return []
        raise refuse_native(arguments[0])
    items = arguments[0] if isinstance(arguments[0], (list, tuple)) else [arguments[0]]
    return [item if isinstance(item, Extension) else OpExtension(item) for item in items]


def read_node(op_class: type, inputs: list[Output], attrs: dict[str, Any], name: str | None) -> Op:
    """The node of an extension's class that a file describes: made without arguments, then given its inputs
    and attributes, which are texts and the Models of bodies."""
    try:
        node: Op = op_class()
    except TypeError as error:
        raise ModelError(f"{op_class.__name__} cannot be constructed without arguments: {error}") from error
    node.visit_attributes(AttributeVisitor(attrs))
    node.set_arguments(inputs)
    node._friendly_name = name or ""
    node.constructor_validate_and_infer_types()
    return node


__all__ = [
    "EXTENSION", "AttributeVisitor", "Extension", "Op", "OpExtension", "TensorVector", "extension_records",
    "read_extensions", "read_node",
]  # fmt: skip
