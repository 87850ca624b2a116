"""A node of an ONNX graph as the rules see it: checked inputs and attributes, and builders of nodes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ovjit.build import Output
from ovjit.build.builder import NodeBuilder
from ovjit.errors import ModelError
from ovjit.graph.shapes import Dim, is_static
from ovjit.readers.onnx import tensors
from ovjit.readers.onnx.registry import Schema

if TYPE_CHECKING:
    from ovjit.readers.onnx.reader import Reader
    from ovjit.readers.onnx.scope import Scope

#: The most nodes that it writes out for one.
MOST_NODES = 4096


class TensorList(list):
    """A sequence: its tensors are known one by one while the model is read, so that no node stands for it.

    `element_type` is that of an empty one, where the model says it.
    """

    def __init__(self, items: Iterable[Any] = (), element_type: str | None = None):
        super().__init__(items)
        self.element_type = element_type


class LoopSequence:
    """A sequence to which a loop adds a tensor in each iteration: the rows of one tensor, [iterations, ...].

    `first` are its initial tensors. Tensors that may have different lengths and that the model joins along an
    axis are in `joined` in that form, by that axis.
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


class OpenOptional:
    """An optional that holds `value` if `is_there`, a boolean of one element. Else the value stands for
    none."""

    def __init__(self, value: Any, is_there: Output) -> None:
        self.value = value
        self.is_there = is_there


class OnnxNode(NodeBuilder):
    """One node that is being read. Indexing gives its inputs, calling it makes a node of the Model."""

    reader: Reader

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
        if isinstance(value, OpenOptional) and isinstance(value.value, Output):
            return value.value  # ONNX takes it where it is not empty
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

    def attrs(self, *same: str, **renamed: str) -> dict[str, Any]:
        """Attributes for a node of the Model: those of the `same` names, and others as ours="theirs"."""
        return {ours: self.attr(name) for ours, name in (*zip(same, same, strict=True), *renamed.items())}

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

    # -- what is known of values ----------------------------------------------------------------------------

    def size(self, shape: Sequence[Dim]) -> int | None:
        """The number of elements, None where a dimension is open."""
        dims = tuple(shape)
        return math.prod(dims) if is_static(dims) else None

    def without_biases(self, value: Output) -> Output:
        """The value, its node named as OpenVINO names a layer to which biases are added."""
        value.node.set_friendly_name(f"{self.scope.prefix}{self.base}/WithoutBiases")
        return value


#: Names of the kinds of attributes, as in ONNX's documentation.
KINDS = ("UNDEFINED", "FLOAT", "INT", "STRING", "TENSOR", "GRAPH", "FLOATS", "INTS", "STRINGS", "TENSORS",
         "GRAPHS", "SPARSE_TENSOR", "SPARSE_TENSORS", "TYPE_PROTO", "TYPE_PROTOS")  # fmt: skip
#: The field that holds an attribute's value, by AttributeProto.AttributeType.
_FIELDS = {1: "f", 2: "i", 3: "s", 4: "t", 5: "g", 6: "floats", 7: "ints", 8: "strings", 9: "tensors",
           10: "graphs", 11: "sparse_tensor", 13: "tp"}  # fmt: skip
_NO_VALUES = frozenset(("name", "type", "doc_string", "ref_attr_name"))


def kind_name(kind: int) -> str:
    """The name of a kind of attributes, or the number of an unknown one."""
    return KINDS[kind] if 0 <= kind < len(KINDS) else str(kind)


def read_attribute(attribute: Any) -> Any:
    """The value of an AttributeProto: int, float, str, list of these, or the message itself.

    Raises ModelError where it is in the field of another kind.
    """
    kind = attribute.type
    filled_fields = [field.name for field, _ in attribute.ListFields() if field.name not in _NO_VALUES]
    if filled_fields and kind in _FIELDS and _FIELDS[kind] not in filled_fields:
        raise ModelError(
            f"the attribute {attribute.name[:80]!r} has the type {kind_name(kind)}, "
            f"but its value is in {filled_fields[0]!r}"
        )
    if kind not in _FIELDS:
        raise ModelError(
            f"the attribute {attribute.name[:80]!r} has the type {kind_name(kind)}, which cannot be read"
        )
    value = getattr(attribute, _FIELDS[kind])
    if isinstance(value, bytes):
        return _text(value)
    if KINDS[kind] == "STRINGS":
        try:
            return [s.decode() for s in value]
        except UnicodeDecodeError:
            return [_text(s) for s in value]  # names the string in its error
    return list(value) if KINDS[kind].endswith("S") else value


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise ModelError(f"the string {data[:40]!r} of an attribute is not valid UTF-8") from error


def reads(node: Any) -> Iterator[str]:
    """The names that a node reads: its inputs, and what its bodies take from the graph around it."""
    yield from (name for name in node.input if name)
    for attribute in node.attribute:
        if attribute.type == 5:
            graph = attribute.g
            defined_names = {info.name for info in graph.input} | {
                tensor.name for tensor in graph.initializer
            }
            defined_names.update(sparse.values.name for sparse in graph.sparse_initializer)
            defined_names.update(name for inner in graph.node for name in inner.output)
            yield from (name for inner in graph.node for name in reads(inner) if name not in defined_names)
            yield from (info.name for info in graph.output if info.name not in defined_names)
