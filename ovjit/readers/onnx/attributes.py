"""Attributes of nodes in ONNX files, of several kinds, and the names that nodes read."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

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


class AttributeValues(Mapping[str, Any]):
    """The values of a node's attributes by name. `fields` are as protobuf has them; a list is converted when
    a rule reads it, since columns of trees have millions of numbers."""

    def __init__(self, fields: Mapping[str, Any]):
        self.fields = fields
        self._values: dict[str, Any] = {}
        self._words: dict[str, tuple[list[str], np.ndarray]] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._values:
            self._values[name] = _convert(self.fields[name])
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.fields)

    def __len__(self) -> int:
        return len(self.fields)

    def __contains__(self, name: object) -> bool:
        return name in self.fields

    def words(self, name: str) -> tuple[list[str], np.ndarray]:
        """(the distinct strings of a list, the number of each of its elements among them)"""
        if name not in self._words:
            field = self.fields.get(name, ())
            number_of: defaultdict[bytes, int] = defaultdict(itertools.count().__next__)
            numbers = np.fromiter(map(number_of.__getitem__, field), np.int64, len(field))
            self._words[name] = _convert(list(number_of)), numbers
        return self._words[name]

    def distinct(self, name: str) -> Any:
        """A value; of a list each element once."""
        field = self.fields[name]
        if not _is_list(field):
            return self[name]
        return self.words(name)[0] if isinstance(next(iter(field), b""), bytes) else np.unique(field).tolist()


def read_attribute(attribute: Any) -> Any:
    """The value of an AttributeProto: int, float, str, list of these, or the message itself.

    Raises ModelError where it is in the field of another kind.
    """
    return _convert(field_of(attribute))


def field_of(attribute: Any) -> Any:
    """The value of an AttributeProto as protobuf has it."""
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
    return getattr(attribute, _FIELDS[kind])


def _convert(field: Any) -> Any:
    if isinstance(field, bytes):
        return _text(field)
    if not _is_list(field):
        return field
    values = list(field)
    return [_text(value) for value in values] if values and isinstance(values[0], bytes) else values


def _is_list(field: Any) -> bool:
    return isinstance(field, Sequence) and not isinstance(field, (bytes, str))


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
