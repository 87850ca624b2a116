"""The ends of a graph: Parameter, Constant, Result. `ovjit.op` is where users find them."""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ovjit.api.accessors import accessor
from ovjit.api.arguments import expect, takes
from ovjit.api.exceptions import OVTypeError
from ovjit.api.model.node import (
    GRAPH_LOCK,
    ConstOutput,
    DescriptorTensor,
    Node,
    Output,
    make_node,
    makes_constants,
)
from ovjit.api.model.node_ports import ResultTensor
from ovjit.api.tensors.convert import dims_with_symbols, element_name, partial_shape_of, shape_of, type_of
from ovjit.api.tensors.layout import Layout
from ovjit.api.tensors.memory import check_texts, decode_text, encode_strings
from ovjit.api.tensors.packing import pack_data, pack_low_first, unpack_data
from ovjit.api.tensors.shapes import PartialShape
from ovjit.api.tensors.types import Type
from ovjit.api.tensors.vectors import Shape, Strides, static_dims
from ovjit.errors import ModelError, no_such_constructor
from ovjit.file_maps import owner_of
from ovjit.graph import dtypes
from ovjit.graph.converted import SMALLEST, Unmade, Unpacked
from ovjit.graph.graph import Value
from ovjit.graph.op import TensorType, find_op
from ovjit.graph.shapes import Dim, Interval
from ovjit.graph.symbolic import without_symbols

#: The note of a tensor that holds its layout.
LAYOUT_NOTE = "layout_0"


class Parameter(Node):
    """An input of a model."""

    __slots__ = ()

    @takes
    def __init__(self, element_type: Type, shape: Shape | PartialShape):
        if not isinstance(element_type, Type) or not isinstance(shape, (Shape, PartialShape)):
            raise no_such_constructor("Parameter takes an element type (Type) and a Shape or PartialShape")
        self._make(element_type._name, dims_with_symbols(shape), None)

    @classmethod
    def _of(cls, element_type: str, shape: tuple[Dim, ...] | None, name: str | None = None) -> Parameter:
        node = cls.__new__(cls)
        node._make(element_type, shape, name)
        return node

    def _make(self, element_type: str, shape: tuple[Dim, ...] | None, name: str | None) -> None:
        record = find_op("Parameter")
        self._setup(record, (), record.check_attributes({"element_type": element_type, "shape": shape}), name)
        self._set_types(self._infer())
        if all(type(d) is int or (isinstance(d, Interval) and d.base is None) for d in shape or ()):
            self._note_types()

    def _infer(self, inputs: Sequence[TensorType] | None = None) -> tuple[TensorType, ...]:
        return self._op.infer_types((), self._attrs)

    def _graph_attrs(self) -> dict[str, Any]:
        """The attributes without Symbols: kernels do not rely on users' statements about dimensions."""
        return {**self._attrs, "shape": without_symbols(self._attrs["shape"])}

    def get_partial_shape(self) -> PartialShape:
        return partial_shape_of(self._attrs["shape"])

    def set_partial_shape(self, partial_shape: PartialShape) -> None:
        """Change the shape; the graph follows at its next validation."""
        expect(partial_shape, PartialShape)
        with GRAPH_LOCK:
            self._attrs = {**self._attrs, "shape": dims_with_symbols(partial_shape)}

    def get_element_type(self) -> Type:
        return type_of(self._attrs["element_type"])

    def set_element_type(self, element_type: Type) -> None:
        """Change the element type; the graph follows at its next validation."""
        expect(element_type, Type)
        with GRAPH_LOCK:
            self._attrs = {**self._attrs, "element_type": element_name(element_type)}

    def get_layout(self) -> Layout:
        return _layout(self)

    def set_layout(self, layout: Layout) -> None:
        """Note which axis means what. Raises RuntimeError if the rank does not fit."""
        _set_layout(self, layout, self._attrs["shape"])

    def get_attributes(self) -> dict[str, Any]:
        shape = self._attrs["shape"]
        listed = [] if shape is None else [-1 if isinstance(d, Interval) else d for d in shape]
        return {"shape": listed, "element_type": self._attrs["element_type"]}

    partial_shape = accessor(get_partial_shape, set_partial_shape)
    element_type = accessor(get_element_type, set_element_type)
    layout = accessor(get_layout, set_layout)


class Result(Node):
    """An output of a model. Its tensor is that of its source, except for names: see ResultTensor."""

    __slots__ = ()

    _tensors: list[ResultTensor]  # type: ignore[assignment]

    @takes
    def __init__(self, output: Output):
        expect(output, Output, "Result takes an Output", no_such_constructor)
        self._make(output, None)

    @classmethod
    def _of(cls, output: Output, name: str | None = None) -> Result:
        node = cls.__new__(cls)
        node._make(output, name)
        return node

    def _make(self, output: Output, name: str | None) -> None:
        self._setup(find_op("Result"), (output,), {}, name)
        self._tensors = [ResultTensor(output._tensor)]
        output._node._remember_user(self)

    def _connect(self, index: int, source: Output) -> None:
        super()._connect(index, source)
        self._takes(source)

    def set_arguments(self, sources: Sequence[Output | Node]) -> None:
        super().set_arguments(sources)
        self._takes(self._inputs[0])

    def _takes(self, source: Output) -> None:
        """Have the tensor of `source`, and the names that this Result has had."""
        self._tensors = [self._tensors[0].of(source._tensor)]

    @property
    def _own_names(self) -> set[str]:
        """The names that were set for this Result; none if it shows those of its source."""
        return self._tensors[0]._own_names

    def get_layout(self) -> Layout:
        return _layout(self)

    def set_layout(self, layout: Layout) -> None:
        """Note which axis means what. Raises RuntimeError if the rank does not fit."""
        _set_layout(self, layout, self._tensors[0]._type.shape)

    layout = accessor(get_layout, set_layout)


#: Bytes of a constant that are compared before a graph takes over what was inferred of them.
_SMALL = 1024


def _is_fixed(array: np.ndarray) -> bool:
    """Whether nothing in this process can change the elements: they lie in bytes, or in a file that is mapped
    for reading."""
    owner = owner_of(array)
    return isinstance(owner, (bytes, mmap.mmap)) and memoryview(owner).readonly


class Constant(Node):
    """A tensor that is part of the model, read-only.

    `Constant(array, shared_memory=False)`, `Constant(tensor, shared_memory=True)` or
    `Constant(type, shape, values)`, where one value fills the whole shape.
    """

    __slots__ = ("_content",)

    _content: bytes | None

    def __init__(self, *args: Any, **kwargs: Any):
        names: tuple[str, ...] = ("array", "shared_memory")
        if args and isinstance(args[0], Type):
            names = ("element_type", "shape", "values")
        elif "tensor" in kwargs or (args and not isinstance(args[0], np.ndarray)):
            names = ("tensor", "shared_memory")
        arguments = {**dict(zip(names, args, strict=False)), **kwargs}
        if len(args) > len(names) or set(arguments) - set(names):
            raise no_such_constructor(f"Constant takes {', '.join(names)}")
        if "element_type" in arguments and len(arguments) == 3:
            self._from_values(**arguments)
        elif isinstance(arguments.get("array"), np.ndarray):
            array = arguments["array"]
            check_texts(array)
            if not arguments.get("shared_memory", False):
                array = np.array(array, dtype=array.dtype.newbyteorder("="), order="C")
            else:
                _check_shared(array)
            self._make(array, dtypes.from_numpy(array.dtype), None, None)
        elif hasattr(arguments.get("tensor"), "element_type"):
            self._from_tensor(arguments["tensor"], arguments.get("shared_memory", True))
        else:
            raise no_such_constructor("Constant takes an array, a Tensor, or a Type, a Shape and values")

    def _from_values(self, element_type: Type, shape: Any, values: Any) -> None:
        if isinstance(values, (str, bytes)) or not hasattr(values, "__len__"):
            raise no_such_constructor("Constant takes a sequence of values")
        dims = static_dims(shape)
        flat = np.asarray(values).reshape(-1)
        count = math.prod(dims)
        if flat.size not in (1, count):
            raise ModelError(
                "While validating node Constant: Did not get the expected number of literals for a constant "
                f"of shape [{','.join(map(str, dims))}] (got {flat.size}, expected 1 or {count})."
            )
        packed = not _in_numpy(element_type._name)
        if packed and flat.size != count:  # of packed bytes none is a value
            flat = np.repeat(flat, count)
        value, name = convert_values(flat, element_type._name)
        if not packed and flat.size != count:
            value = np.repeat(value, count)
        self._make(value if packed else value.reshape(dims), name, dims if packed else None, None)

    def _from_tensor(self, tensor: Any, shared: bool) -> None:
        name, dims = tensor.element_type._name, tuple(tensor.shape)
        data = tensor.data if shared else np.array(tensor.data)
        row = dtypes.ELEMENT_TYPES[name]
        if row.is_packed and row.numpy is not None and math.prod(dims) >= SMALLEST:
            value: np.ndarray | Unmade = Unpacked(data.reshape(-1).view(np.uint8), dims, name)
        else:
            value = from_storage(data, name, dims)
        self._make(value, name, None if _in_numpy(name) else dims, None)

    def _infer(self, inputs: Sequence[TensorType] | None = None) -> tuple[TensorType, ...]:
        return self._op.infer_types((), self._attrs)

    def _graph_attrs(self) -> dict[str, Any]:
        """Graphs have a byte for each value of 1, 3 or 6 bits: packed bytes are for tensors and files.
        Strings are bytes there, as in tensors."""
        if self._attrs["element_type"] == "string":
            texts = encode_strings(self.value)
            texts.flags.writeable = False
            return {**self._attrs, "value": texts}
        if self._attrs["element_type"] not in dtypes.WITHOUT_DTYPE:
            return self._attrs
        value = self._elements().view()
        value.flags.writeable = False
        return {"value": value, "element_type": "u8", "shape": None}

    @classmethod
    def _of(
        cls, value: np.ndarray | Unmade, element_type: str, shape: tuple[int, ...] | None = None,
        name: str | None = None,
    ) -> Constant:  # fmt: skip
        """A Constant that shares the memory of `value`, the array of its values (see
        `ovjit_ops.boundary.parameters.Constant`)."""
        node = cls.__new__(cls)
        node._make(value, element_type, shape, name)
        return node

    def _make(
        self, value: np.ndarray | Unmade, element_type: str, shape: tuple[int, ...] | None, name: str | None
    ) -> None:
        array = None if isinstance(value, Unmade) else value
        if array is not None and array.flags.writeable:
            value = array = array.view()
            array.flags.writeable = False
        # a model has many constants, and nothing of theirs is left to check or infer
        attrs = {"value": value, "element_type": element_type, "shape": shape}
        self._setup(find_op("Constant"), (), attrs, name)
        self._set_types((TensorType(element_type, value.shape if shape is None else shape, array),))
        self._note_types()

    def _note_types(self) -> None:
        """Not of what graphs hold in another form, and not of many integers that may change: what others
        infer of them would change, too."""
        kind, value = self._attrs["element_type"], self._tensors[0]._type.value
        if kind in dtypes.WITHOUT_DTYPE or kind == "string":
            return
        self._content = None
        if value is not None and value.nbytes <= _SMALL:
            self._content = value.tobytes()
        elif value is not None and value.dtype.kind not in "fV" and not _is_fixed(value):
            return
        super()._note_types()

    def _known_types(self, inputs: Sequence[Value]) -> Sequence[TensorType] | None:
        if self._inferred is None:
            return None
        value, content = self._tensors[0]._type.value, self._content
        same = content is None or (value is not None and value.tobytes() == content)
        return super()._known_types(inputs) if same else None

    @property
    def value(self) -> np.ndarray:
        """The values in the NumPy dtype that has them (bf16 as ml_dtypes.bfloat16 ...), read-only."""
        value = self._attrs["value"]
        return value.array() if isinstance(value, Unmade) else value

    @property
    def data(self) -> np.ndarray:
        """The memory as `Tensor.data` shows it, read-only: packed below 8 bits, bits for bf16 and f8."""
        return to_storage(self.value, self._attrs["element_type"])

    def get_data(self, *, dtype: Any = None, copy: bool = False) -> np.ndarray:
        """The data, converted to `dtype` if that is given and is not what the memory shows; types below
        8 bits are unpacked then."""
        data = self.data
        kind = np.dtype(dtype.to_dtype() if isinstance(dtype, Type) else dtype)
        if dtype is None or kind == data.dtype:
            return data.copy() if copy else data.view()
        value = self._elements()
        if dtypes.ELEMENT_TYPES[self._attrs["element_type"]].is_coded and kind.kind in "iu":
            value = value.view(np.uint8)  # the number in the table of levels
        return dtypes.cast(value, kind)

    def _elements(self) -> np.ndarray:
        """The values, also where they are kept as packed bytes."""
        kind = self._attrs["element_type"]
        if kind not in dtypes.WITHOUT_DTYPE:
            return self.value
        return unpack_data(self.value, type_of(kind), Shape(list(self._tensors[0]._type.shape)))

    def get_vector(self) -> np.ndarray:
        """A flat copy; unsigned ones below 8 bits and truth values as bytes. Raises RuntimeError for bf16,
        smaller floats and i4."""
        element_type = self._attrs["element_type"]
        row, value = dtypes.ELEMENT_TYPES[element_type], self._elements().reshape(-1)
        if element_type in ("bf16", "i4") or (row.kind == "f" and row.bits < 16):
            raise RuntimeError(f"get_vector does not support the element type {element_type}; use get_data")
        if row.kind == "b":
            return value.astype(np.int8)
        if row.is_packed:
            return value.astype(np.uint8)
        return value.copy()

    def get_value_strings(self) -> list[str]:
        value = dtypes.decode(self._elements().reshape(-1))
        return [_value_text(v) for v in value.tolist()]

    def get_shape(self) -> list[int]:
        """The attribute, which is a list; `shape` is a Shape."""
        return [*shape_of(self._tensors[0]._type.shape)]

    def get_byte_size(self) -> int:
        return int(self.data.nbytes)

    def get_strides(self) -> Strides:
        """Bytes between neighbours of each axis. Raises RuntimeError below 8 bits."""
        element_type = self._attrs["element_type"]
        if dtypes.ELEMENT_TYPES[element_type].is_packed:
            raise RuntimeError(
                f"a constant of {element_type} has no strides in bytes: its elements are smaller than a byte"
            )
        return Strides(list(self.value.strides))

    def get_tensor_view(self) -> Any:
        """A Tensor of the constant's values."""
        from ovjit.api.tensors.tensor import Tensor

        data = self.data
        shape = Shape(list(self._tensors[0]._type.shape))
        if self._attrs["element_type"] == "string":
            return Tensor(data)
        return Tensor(np.array(data), shape, type_of(self._attrs["element_type"]))

    def get_attributes(self) -> dict[str, Any]:
        shape = self._tensors[0]._type.shape
        return {"element_type": self._attrs["element_type"], "shape": list(shape)}

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """The memory, with what OpenVINO's buffer calls it: f16 as uint16, boolean as int8."""
        kind = {"f16": np.uint16, "boolean": np.int8}.get(self._attrs["element_type"])
        data = self.data if kind is None else self.data.view(kind)
        if copy is False and dtype is not None and data.dtype != dtype:
            raise ValueError(f"{data.dtype} cannot be converted to {np.dtype(dtype)} without a copy")
        return data.astype(dtype or data.dtype, copy=bool(copy))

    strides = accessor(get_strides)
    tensor_view = accessor(get_tensor_view)


@makes_constants
def constant_node(
    value: Any, element_type: str | None = None, name: str | None = None, share: bool = False
) -> Constant:
    """A Constant of a number, list, array or string(s), converted to `element_type` if given.

    A bare int is i64, a float f64. The value is copied unless `share` is True and it is an array that needs
    no conversion. Raises TypeError for a value without an element type, RuntimeError for
    an array or list of them.
    """
    array = np.asarray(value)
    if array.dtype == object and any(not isinstance(v, (str, bytes)) for v in array.reshape(-1)):
        convertible = isinstance(value, np.ndarray) and element_type != "string"
        if convertible and element_type is not None and _in_numpy(element_type):
            return constant_node(array.astype(dtypes.numpy_dtype(element_type)), element_type, name)
        if isinstance(value, (np.ndarray, list)):
            check_texts(array)
        raise _no_constant(value, array)
    dims = array.shape
    if element_type is None or (_in_numpy(element_type) and array.dtype == dtypes.numpy_dtype(element_type)):
        try:
            name_of = dtypes.from_numpy(array.dtype)
        except TypeError:
            raise _no_constant(value, array) from None
        if name_of == "string":
            array = array.astype(object)
            check_texts(array)
        elif share and isinstance(value, np.ndarray):
            _check_shared(array)
        else:
            array = np.array(array, dtype=array.dtype.newbyteorder("="), order="C")
        return Constant._of(array, name_of, None, name)
    new, name_of = convert_values(array, element_type)
    return Constant._of(new, name_of, None if _in_numpy(name_of) else dims, name)


def _no_constant(value: Any, array: np.ndarray) -> Exception:
    """The error for a value of no element type: a RuntimeError for arrays and lists, else a TypeError."""
    if isinstance(value, (np.ndarray, list)):
        return RuntimeError(f"Unsupported data type: {array.dtype}")
    return TypeError(
        "The necessary overload for constant was not found: no overload takes "
        f"{type(value).__name__}, {value!r:.80}"
    )


def new_output(op_name: str, *inputs: Any, name: str | None = None, **attrs: Any) -> Output:
    """The first output of a new node. Numbers, lists and arrays among the inputs become constants, nodes
    stand for their first outputs."""
    ends = [x if isinstance(x, Output | Node) else constant_node(x) for x in inputs]
    sources = [x.output(0) if isinstance(x, Node) else x for x in ends]
    return make_node(op_name, sources, attrs, name).output(0)


def _check_shared(array: np.ndarray) -> None:
    if not array.flags.c_contiguous:
        raise ModelError(
            "SHARED MEMORY MODE FOR THIS CONSTANT IS NOT APPLICABLE! Passed numpy array must be C contiguous."
        )
    if not array.dtype.isnative:
        raise ModelError(
            "SHARED MEMORY MODE FOR THIS CONSTANT IS NOT APPLICABLE! The byte order of "
            f"{array.dtype.str} is foreign."
        )


def convert_values(array: np.ndarray, element_type: str) -> tuple[np.ndarray, str]:
    """(`array` as the values of an element type, its name); packed bytes where NumPy has no such values.

    For a type of codes, integers are the codes. ModelError for values that a type of few bits does not have.
    """
    if element_type == "dynamic":
        raise ModelError("Element not supported: a constant has a type of its own, and not `dynamic`")
    if element_type == "string" and array.dtype.kind not in "OUST":
        raise ModelError(
            f"Constant does not support writing elements of type {array.dtype} into Constant of type "
            "'string': convert them to str"
        )
    if element_type == "string":
        array = array.astype(object)
        check_texts(array)
    elif array.dtype.kind in "UST" and element_type != "boolean":
        array = _read_numbers(array, element_type)
    _check_range(array, element_type)
    if dtypes.ELEMENT_TYPES[element_type].is_coded and array.dtype.kind in "iub":
        return array.astype(np.uint8).view(dtypes.numpy_dtype(element_type)), element_type
    if _in_numpy(element_type):
        dtype = dtypes.numpy_dtype(element_type)
        if dtype.kind == "V" and array.dtype.kind not in "fV":
            array = array.astype(np.float32 if dtypes.ELEMENT_TYPES[element_type].is_real else np.int32)
        return np.ascontiguousarray(dtypes.cast(array, dtype)).reshape(array.shape), element_type
    if element_type == "u1":
        return np.packbits((array.reshape(-1) != 0).astype(np.uint8)), element_type
    return pack_data(array.astype(np.uint8), type_of(element_type)), element_type


def _read_numbers(texts: np.ndarray, element_type: str) -> np.ndarray:
    row = dtypes.ELEMENT_TYPES[element_type]
    try:
        return texts.astype(np.float64 if row.is_real else row.numpy if row.bits >= 8 else np.int64)
    except (ValueError, OverflowError) as error:
        raise ModelError(f"a constant of {element_type} cannot be made of these texts: {error}") from error


def _check_range(array: np.ndarray, element_type: str) -> None:
    """Raise ModelError for a number that a type of few bits does not have."""
    row = dtypes.ELEMENT_TYPES[element_type]
    if row.bits in (1, 8) or row.bits > 8 or array.dtype.kind not in "iubf" or not array.size:
        return
    if row.kind == "f" and (not row.is_coded or array.dtype.kind == "f"):
        return
    count = 1 << row.bits
    low, high = (-count // 2, count // 2 - 1) if row.kind == "i" else (0, count - 1)
    if not (array.min() > low - 1 and array.max() < high + 1):
        worst = array.max() if array.max() >= high + 1 else array.min()
        raise ModelError(f"{worst} assigned value out of range for {element_type}: {low} to {high}")


def _in_numpy(element_type: str) -> bool:
    """Whether a NumPy array has elements of this type's values."""
    return dtypes.ELEMENT_TYPES[element_type].numpy is not None


def to_storage(value: np.ndarray, element_type: str) -> np.ndarray:
    """A constant's values as stored in memory and in files, read-only. Below 8 bits: flat packed bytes, the
    first value in the lowest bits."""
    row = dtypes.ELEMENT_TYPES[element_type]
    if row.kind == "s":
        out = np.array([v if isinstance(v, bytes) else str(v).encode() for v in value.reshape(-1)], dtype="S")
        out = out.reshape(value.shape)
    elif row.numpy is None:
        return value
    elif row.is_packed:
        out = pack_low_first(value, row.bits).view(type_of(element_type).to_dtype())
    else:
        container = type_of(element_type).to_dtype()
        return value if container == value.dtype else value.view(container)
    out.flags.writeable = False
    return out


def from_storage(data: np.ndarray, element_type: str, shape: tuple[int, ...]) -> np.ndarray:
    """The inverse of `to_storage`. Types whose values NumPy does not have stay packed bytes."""
    row = dtypes.ELEMENT_TYPES[element_type]
    if row.kind == "s":
        texts = np.empty(data.size, object)
        texts[:] = [decode_text(v) for v in data.reshape(-1)]
        return texts.reshape(shape)
    if row.numpy is None:
        return data.reshape(-1).view(np.uint8)
    if row.is_packed:
        return dtypes.unpack_low_first(data.reshape(-1).view(np.uint8), row.bits, shape, row.numpy)
    return data.reshape(shape) if data.dtype == row.numpy else data.view(row.numpy).reshape(shape)


def const_port(
    kind: str, friendly_name: str, element_type: str, shape: tuple[Dim, ...] | None, names: Iterable[str],
    source_name: str = "",
) -> ConstOutput:  # fmt: skip
    """A port of a compiled model, on a node of its own that nothing else refers to.

    `kind` is "input" (the node is a Parameter) or "output" (a Result, of a node of the name `source_name`).
    """
    first = source_name or friendly_name
    node: Node = _without_record(Parameter, (), {"shape": shape, "element_type": element_type}, first)
    tensor = DescriptorTensor(TensorType(element_type, shape))
    node._tensors = [tensor]
    if kind == "output":
        source = node
        node = _without_record(Result, (source.output(0),), {}, friendly_name)
        node._tensors = [ResultTensor(tensor)]
        source._remember_user(node)
    tensor._names = set(names)
    return ConstOutput._of(node, 0)


def _without_record(kind: type[Node], inputs: Sequence[Output], attrs: dict[str, Any], name: str) -> Node:
    """A node that looks its operation's record up when it is asked for: who imports a compiled model pays for
    no operations."""
    node = kind.__new__(kind)
    node._setup(None, inputs, attrs, name)  # type: ignore[arg-type]
    del node._op
    return node


def _late_record(node: Node, name: str) -> Any:
    if name != "_op":
        return Node.__getattr__(node, name)  # type: ignore[attr-defined]
    node._op = find_op("Result" if isinstance(node, Result) else "Parameter")
    return node._op


Parameter.__getattr__ = Result.__getattr__ = _late_record  # type: ignore[attr-defined]


def _value_text(value: Any) -> str:
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, float):
        if math.isnan(value):
            return "NAN"
        if math.isinf(value):
            return "INFINITY" if value > 0 else "-INFINITY"
        return f"{value:g}"
    return str(value)


def _layout(node: Node) -> Layout:
    layout = node._tensors[0].get_rt_info()._items.get(LAYOUT_NOTE)
    return layout if isinstance(layout, Layout) else Layout("...")


def _set_layout(node: Node, layout: Layout, shape: tuple[Dim, ...] | None) -> None:
    expect(layout, Layout)
    rank = None if shape is None else len(shape)
    named = len(layout._leading) + len(layout._trailing)
    if rank is not None and not layout.empty and (rank < named or (rank != named and not layout._open)):
        raise ModelError(
            f"Can't set layout for Parameter/Result {node.get_friendly_name()!r}: layout {layout} is not "
            f"compatible with shape {partial_shape_of(shape)}"
        )
    node._tensors[0].get_rt_info()._items[LAYOUT_NOTE] = layout


def as_output(value: Any, name: str | None = None) -> Output:
    """The output that a builder's argument stands for; numbers, lists and arrays become constants, named
    after the node they are made for."""
    if isinstance(value, Output):
        return value
    if isinstance(value, Node):
        return value.output(0)
    try:
        if isinstance(value, (str, bytes)):
            raise TypeError(f"a text is no input: give a list of texts, not {value!r:.80}")
        constant = constant_node(value)
    except (TypeError, RuntimeError) as error:
        raise OVTypeError(
            f"Unidentified data type: an input is a Node, an Output, a number, a list or an array: {error}"
        ) from None
    if name:
        constant._friendly_name = f"{name}/{constant.get_name()}"
    return constant.output(0)
