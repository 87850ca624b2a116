"""A node of an ONNX graph as the rules see it: checked inputs and attributes, and builders of nodes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ovjit.api.model.boundary import Constant
from ovjit.api.model.node import Node, Output
from ovjit.errors import ModelError, UnsupportedError
from ovjit.graph.dtypes import ELEMENT_TYPES, from_numpy, numpy_dtype
from ovjit.graph.op import TensorType, find_op
from ovjit.graph.shapes import Dim, Interval, is_static
from ovjit.readers.onnx import tensors
from ovjit.readers.onnx.registry import Schema

if TYPE_CHECKING:
    from ovjit.readers.onnx.reader import Reader, Scope

#: What is folded while reading: a constant may have at most this many bytes.
FOLD_BUDGET = 64 << 20
#: The largest constant that a rule makes, in elements.
MOST_ELEMENTS = 1 << 24
#: ... and the most nodes that it writes out for one.
MOST_NODES = 4096
_INT_MAX = (1 << 63) - 1


class TensorList(list):
    """A sequence: its tensors are known one by one while the model is read, so that no node stands for it.

    `element_type` is that of an empty one, where the model says it.
    """

    def __init__(self, items: Iterable[Any] = (), element_type: str | None = None):
        super().__init__(items)
        self.element_type = element_type


class Rows:
    """A sequence to which a loop adds a tensor on each trip: these are the rows of one tensor, [trips, ...].

    `first` are the tensors that it began with. Tensors that may be of different lengths and that the model
    joins along an axis are so in `joined`, by that axis.
    """

    def __init__(self, first: TensorList, rows: Output, joined: Mapping[int, Output] | None = None) -> None:
        self.first = first
        self.rows = rows
        self.joined = joined or {}


class _Empty:
    """An optional that holds nothing."""

    def __repr__(self) -> str:
        return "an empty optional"


EMPTY = _Empty()


class OnnxNode:
    """One node that is being read. Indexing gives its inputs, calling it makes a node of the Model."""

    def __init__(
        self,
        reader: Reader,
        scope: Scope,
        proto: Any,
        version: int,
        schema: Schema | None,
        inputs: list[Any],
        attributes: dict[str, Any],
    ):
        self.reader = reader
        self.scope = scope
        self.proto = proto
        self.op_type: str = proto.op_type
        self.domain: str = proto.domain
        self.version = version
        self.schema = schema
        self.inputs = inputs
        self.attributes = attributes
        self.output_names: list[str] = list(proto.output)
        self.base = proto.name or next((name for name in reversed(self.output_names) if name), "")

    # -- inputs ----------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> Output:
        """An input that must be there, and be a tensor."""
        value = self.optional(index)
        if value is None:
            raise ModelError(f"input {index} is missing")
        return value

    def optional(self, index: int) -> Output | None:
        """An input that is a tensor, None where it is left out."""
        value = self.inputs[index] if index < len(self.inputs) else None
        if value is None or isinstance(value, Output):
            return value
        what = "an empty optional" if value is EMPTY else "a sequence"
        raise ModelError(f"input {index} should be a tensor, not {what}")

    def tensors(self) -> list[Output]:
        """All inputs, which must be tensors."""
        return [self[i] for i in range(len(self.inputs))]

    def has(self, index: int) -> bool:
        return index < len(self.inputs) and self.inputs[index] is not None

    def wants(self, index: int) -> bool:
        """Whether anybody asks for this output."""
        return index < len(self.output_names) and bool(self.output_names[index])

    # -- attributes ------------------------------------------------------------------------------------------

    def attr(self, name: str, default: Any = None) -> Any:
        """An attribute's value, else the standard's default, else `default`. Strings are str."""
        if name in self.attributes:
            return self.attributes[name]
        if self.schema is not None:
            row = self.schema.attributes.get(name)
            if row is not None and row[2] is not None:
                return read_attribute(row[2])
        return default

    def required(self, name: str) -> Any:
        value = self.attr(name)
        if value is None:
            raise ModelError(f"the attribute {name!r} is missing")
        return value

    def data_type(self, name: str, default: int | None = None) -> str:
        """The element type that an attribute names."""
        number = self.attr(name, default)
        if number is None:
            raise ModelError(f"the attribute {name!r} is missing")
        return tensors.element_type(number)

    # -- what is known of values -----------------------------------------------------------------------------

    def type(self, value: Output) -> TensorType:
        return value._tensor._type

    def dtype(self, value: Output) -> str:
        return value._tensor._type.dtype

    def shape(self, value: Output) -> tuple[Dim, ...] | None:
        return value._tensor._type.shape

    def rank(self, value: Output, what: str = "the input's rank") -> int:
        """The number of dimensions. Raises UnsupportedError where it is not known."""
        shape = value._tensor._type.shape
        if shape is None:
            raise UnsupportedError(f"{what} is not known")
        return len(shape)

    def static_shape(self, value: Output, what: str = "the input's shape") -> tuple[int, ...]:
        """The shape. Raises UnsupportedError where a dimension is open."""
        shape = value._tensor._type.shape
        if not is_static(shape):
            raise UnsupportedError(f"{what} is not known when the model is read")
        return shape

    def last_dim(self, value: Output) -> int:
        """The last dimension. Raises UnsupportedError where it is open."""
        shape = value._tensor._type.shape
        if not shape or not isinstance(shape[-1], int):
            raise UnsupportedError("the last dimension of an input is open")
        return shape[-1]

    def axis(self, axis: int, rank: int, what: str = "axis") -> int:
        """`axis` counted from 0."""
        if not -rank <= axis < rank:
            raise ModelError(f"{what} {axis} is out of range for rank {rank}")
        return axis + rank if axis < 0 else axis

    def axes(self, axes: Iterable[int], rank: int) -> list[int]:
        """`axes` counted from 0, each once."""
        out = [self.axis(int(a), rank) for a in axes]
        if len(set(out)) != len(out):
            raise ModelError(f"the axes {out} name a dimension twice")
        return out

    def value(self, value: Output | None) -> np.ndarray | None:
        """What a tensor holds, if that follows from constants alone; None otherwise."""
        return None if value is None else self.reader.value_of(value)

    def known(self, index: int, what: str) -> np.ndarray:
        """The value of an input that must follow from constants. Raises UnsupportedError otherwise."""
        value = self.value(self[index])
        if value is None:
            raise UnsupportedError(
                f"{what} should be constant: its value is not known when the model is read"
            )
        return value

    def known_ints(self, index: int, what: str) -> list[int]:
        return [int(v) for v in self.known(index, what).reshape(-1)]

    # -- nodes of the Model ----------------------------------------------------------------------------------

    def __call__(self, op: str, *inputs: Any, opset: int | None = None, **attrs: Any) -> Output:
        """The first output of a new node. Inputs that are numbers, lists and arrays become constants: ints
        are
        i64 then, floats f32; what they should match is said by `like`."""
        return self.all(op, *inputs, opset=opset, **attrs)[0]

    def all(self, op: str, *inputs: Any, opset: int | None = None, **attrs: Any) -> list[Output]:
        """All outputs of a new node."""
        record = find_op(op, opset)
        sources = [value if isinstance(value, Output) else self.const(value) for value in inputs]
        node = Node._new(record, sources, record.check_attributes(attrs), self.reader.name(self.base, op))
        return [Output._of(node, i) for i in range(len(node._tensors))]

    def without_biases(self, value: Output) -> Output:
        """The value, its node named as OpenVINO names a layer to which biases are added."""
        value._node._friendly_name = f"{self.scope.prefix}{self.base}/WithoutBiases"
        return value

    def const(self, value: Any, dtype: str | None = None, shape: tuple[int, ...] | None = None) -> Output:
        """A constant. `dtype` is OpenVINO's name; without, ints are i64 and floats f32."""
        array = np.asarray(value)
        if array.dtype == object:
            array = encoded(array)
        if dtype is None:
            if not isinstance(value, np.ndarray) and array.dtype.kind == "f":
                array = array.astype(np.float32)
            elif array.size == 0 and array.dtype == np.float64:
                array = array.astype(np.int64)
            dtype = from_numpy(array.dtype)
        elif array.dtype != numpy_dtype(dtype):
            wanted = numpy_dtype(dtype)
            if wanted.kind == "V" and array.dtype.kind not in "fV":
                array = array.astype(np.float32 if ELEMENT_TYPES[dtype].is_real else np.int32)
            with np.errstate(all="ignore"):
                array = array.astype(wanted)
        if not array.flags.c_contiguous:
            array = np.ascontiguousarray(array).reshape(array.shape)
        return Output._of(Constant._of(array, dtype, shape, self.reader.name(self.base, "Constant")), 0)

    def like(self, other: Output, value: Any) -> Output:
        """A constant of the element type of another tensor."""
        return self.const(value, self.dtype(other))

    def blank(self, other: Output) -> Output:
        """What fills the gaps of a tensor: 0, or the empty text."""
        return self.like(other, b"" if self.dtype(other) == "string" else 0)

    def convert(self, value: Output, dtype: str) -> Output:
        """A value in another element type; itself if it has that type already."""
        if self.dtype(value) == dtype:
            return value
        return self("Convert", value, destination_type=dtype)

    def same(self, value: Output) -> Output:
        """A value behind a node of its own, in any element type: OpenVINO's Identity takes no text and no
        integers of fewer than 8 bits."""
        if self.dtype(value) in ("string", "i4", "u4", "u2"):
            return self.reshape(value, self.shape_of(value))
        return self("Identity", value)

    def reshape(self, value: Output, pattern: Any) -> Output:
        """A pattern's 0 is a dimension of 0 here, never a copied one."""
        return self("Reshape", value, pattern, special_zero=False)

    def scalar(self, value: Output) -> Output:
        """The one element of a tensor, as one without dimensions."""
        return self.reshape(value, np.zeros(0, np.int64))

    def transpose(self, value: Output, order: Sequence[int]) -> Output:
        if list(order) == list(range(len(order))):
            return value
        return self("Transpose", value, list(order))

    def squeeze(self, value: Output, axes: Sequence[int]) -> Output:
        return self("Squeeze", value, list(axes), opset=1) if axes else value

    def unsqueeze(self, value: Output, axes: Sequence[int]) -> Output:
        return self("Unsqueeze", value, list(axes)) if axes else value

    def slice(self, value: Output, axis: int, start: int, stop: int | None = None, step: int = 1) -> Output:
        """value[..., start:stop:step, ...] along one axis."""
        if stop is None:
            stop = _INT_MAX if step > 0 else -_INT_MAX
        return self("Slice", value, [start], [stop], [step], [axis])

    def concat(self, values: Sequence[Output], axis: int) -> Output:
        return values[0] if len(values) == 1 else self("Concat", *values, axis=axis)

    def split(self, value: Output, axis: int, lengths: Sequence[int]) -> list[Output]:
        return self.all("VariadicSplit", value, axis, list(lengths))

    def shape_of(self, value: Output) -> Output:
        """The shape as i64; a constant where it is known."""
        shape = self.shape(value)
        if is_static(shape):
            return self.const(np.array(shape, np.int64))
        return self("ShapeOf", value, output_type="i64")

    def dim_of(self, value: Output, axis: int) -> Output:
        """One dimension as an i64 tensor of one element."""
        shape = self.shape(value)
        if shape is not None and not isinstance(shape[axis], Interval):
            return self.const(np.array([shape[axis]], np.int64))
        return self("Gather", self.shape_of(value), [axis], 0)

    def limited(self, count: int, what: str, most: int = MOST_ELEMENTS) -> int:
        """A number of elements or nodes that reading makes at once. Raises UnsupportedError beyond `most`."""
        if not 0 <= count <= most:
            raise UnsupportedError(f"{what}: {count}, of which {most} are the most")
        return int(count)

    def size(self, shape: Sequence[Dim]) -> int | None:
        """The number of elements, None where a dimension is open."""
        dims = tuple(shape)
        return math.prod(dims) if is_static(dims) else None


def encoded(texts: np.ndarray) -> np.ndarray:
    """Strings as the bytes that tensors hold."""
    out = np.empty(texts.shape, object)
    out.reshape(-1)[:] = [text.encode() if isinstance(text, str) else text for text in texts.reshape(-1)]
    return out


#: The field that holds an attribute's value, by AttributeProto.AttributeType.
_FIELDS = {1: "f", 2: "i", 3: "s", 4: "t", 5: "g", 6: "floats", 7: "ints", 8: "strings", 9: "tensors",
           10: "graphs", 11: "sparse_tensor", 13: "tp"}  # fmt: skip
_NO_VALUES = frozenset(("name", "type", "doc_string", "ref_attr_name"))


def read_attribute(attribute: Any) -> Any:
    """The value of an AttributeProto: int, float, str, list of these, or the message itself.

    Raises ModelError where it is in the field of another kind.
    """
    kind = attribute.type
    given = [field.name for field, _ in attribute.ListFields() if field.name not in _NO_VALUES]
    if given and kind in _FIELDS and _FIELDS[kind] not in given:
        raise ModelError(
            f"the attribute {attribute.name[:80]!r} has the kind {kind}, but its value is in {given[0]!r}"
        )
    if kind == 1:
        return attribute.f
    if kind == 2:
        return attribute.i
    if kind == 3:
        return _text(attribute.s)
    if kind == 4:
        return attribute.t
    if kind == 5:
        return attribute.g
    if kind == 6:
        return list(attribute.floats)
    if kind == 7:
        return list(attribute.ints)
    if kind == 8:
        return [_text(s) for s in attribute.strings]
    if kind == 9:
        return list(attribute.tensors)
    if kind == 10:
        return list(attribute.graphs)
    if kind == 11:
        return attribute.sparse_tensor
    if kind == 13:
        return attribute.tp
    raise ModelError(f"the attribute {attribute.name[:80]!r} has the kind {kind}, which cannot be read")


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise ModelError(f"the text {data[:40]!r} of an attribute is no UTF-8") from error


def reads(node: Any) -> Iterator[str]:
    """The names that a node reads: its inputs, and what its bodies take from the graph around it."""
    yield from (name for name in node.input if name)
    for attribute in node.attribute:
        if attribute.type == 5:
            graph = attribute.g
            own = {info.name for info in graph.input} | {tensor.name for tensor in graph.initializer}
            own.update(sparse.values.name for sparse in graph.sparse_initializer)
            own.update(name for inner in graph.node for name in inner.output)
            yield from (name for inner in graph.node for name in reads(inner) if name not in own)
            yield from (info.name for info in graph.output if info.name not in own)
