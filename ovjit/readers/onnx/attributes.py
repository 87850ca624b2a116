"""Attributes of nodes in ONNX files, of several kinds, and the names that nodes read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ovjit.errors import ModelError

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
