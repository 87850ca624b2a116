"""NodeArg and ModelMetadata, from a ModelProto."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

from ovjit.onnxruntime.element_types import TYPES, tensor_text
from ovjit.onnxruntime.failures import STATE, refuse_pickle


class _Record:
    """A record that no program constructs or pickles."""

    def __init__(self) -> None:
        raise TypeError(f"{STATE}.{type(self).__name__}: No constructor defined!")

    def __reduce__(self) -> NoReturn:
        refuse_pickle(self)


class NodeArg(_Record):
    """An input, output or initializer of a model: name, type and shape. A dimension is an int, a symbol's
    name, or None."""

    __slots__ = ("_name", "_shape", "_type")

    _name: str
    _type: str
    _shape: list[int | str | None]

    @property
    def name(self) -> str:
        return self._name

    @property
    def type(self) -> str:
        return self._type

    @property
    def shape(self) -> list[int | str | None]:
        return list(self._shape)

    def __str__(self) -> str:
        return f"NodeArg(name='{self._name}', type='{self._type}', shape={self._shape})"


class ModelMetadata(_Record):
    """The description of a model in its file."""

    producer_name: str
    graph_name: str
    domain: str
    description: str
    graph_description: str
    version: int
    custom_metadata_map: dict[str, str]


for _class in (NodeArg, ModelMetadata):
    _class.__module__ = STATE


def read_metadata(proto: Any) -> ModelMetadata:
    """The metadata of a ModelProto."""
    metadata: ModelMetadata = object.__new__(ModelMetadata)
    metadata.producer_name, metadata.domain = proto.producer_name, proto.domain
    metadata.graph_name, metadata.graph_description = proto.graph.name, proto.graph.doc_string
    metadata.description = proto.doc_string
    metadata.version = proto.model_version if proto.HasField("model_version") else (1 << 63) - 1
    metadata.custom_metadata_map = {entry.key: entry.value for entry in proto.metadata_props}
    return metadata


def type_text(info: Any) -> str:
    """The type of a TypeProto as ONNX Runtime writes it."""
    kind = info.WhichOneof("value")
    if kind == "tensor_type":
        return tensor_text(info.tensor_type.elem_type)
    if kind == "sparse_tensor_type":
        return f"sparse_{tensor_text(info.sparse_tensor_type.elem_type)}"
    if kind == "sequence_type":
        return f"seq({type_text(info.sequence_type.elem_type)})"
    if kind == "optional_type":
        return f"optional({type_text(info.optional_type.elem_type)})"
    if kind == "map_type":
        key = TYPES.get(info.map_type.key_type)
        return f"map({key.word if key else 'undefined'},{type_text(info.map_type.value_type)})"
    return ""


def innermost(info: Any) -> Any:
    """The TypeProto of the tensors of a sequence or of an optional; any other as it is."""
    kind = info.WhichOneof("value")
    return innermost(getattr(info, kind).elem_type) if kind in ("sequence_type", "optional_type") else info


def has_shape(info: Any) -> bool:
    """True if a TypeProto is of a tensor of known rank."""
    kind = info.WhichOneof("value")
    return kind in ("tensor_type", "sparse_tensor_type") and getattr(info, kind).HasField("shape")


def _dimension(dim: Any) -> int | str | None:
    if dim.HasField("dim_value"):
        return int(dim.dim_value) if dim.dim_value >= 0 else None
    return dim.dim_param or None


def read_node_arg(info: Any, shape: Any = None) -> NodeArg:
    """The NodeArg of a ValueInfoProto; `shape` is that of an initializer."""
    arg: NodeArg = object.__new__(NodeArg)
    arg._name, arg._type, arg._shape = info.name, type_text(info.type), []
    if shape is not None:
        arg._shape = [int(n) for n in shape]
    elif has_shape(info.type):
        arg._shape = [_dimension(dim) for dim in getattr(info.type, info.type.WhichOneof("value")).shape.dim]
    return arg


def add_known_dimensions(args: Iterable[NodeArg], shapes: Mapping[str, Any]) -> None:
    """Replace dimensions of tensors where the compiled model's shapes have numbers.

    A file may declare another rank or other numbers, as paddle2onnx does: the compiled model's shape counts.
    """
    for arg in args:
        shape = shapes.get(arg._name)
        if shape is None or not arg._type.startswith("tensor("):
            continue
        declared = arg._shape if len(arg._shape) == len(shape) else [None] * len(shape)
        arg._shape = [n if size is None else size for n, size in zip(declared, shape, strict=True)]
