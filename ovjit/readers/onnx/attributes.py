"""Attributes of nodes in ONNX files, of several kinds, and the names that nodes read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from ovjit.errors import ModelError

#: Names of the kinds of attributes, as in ONNX's documentation.
KINDS = ("UNDEFINED", "FLOAT", "INT", "STRING", "TENSOR", "GRAPH", "FLOATS", "INTS", "STRINGS", "TENSORS",
         "GRAPHS", "SPARSE_TENSOR", "SPARSE_TENSORS", "TYPE_PROTO", "TYPE_PROTOS")  # fmt: skip
#: The field that holds an attribute's value, by AttributeProto.AttributeType.
_FIELDS = {1: "f", 2: "i", 3: "s", 4: "t", 5: "g", 6: "floats", 7: "ints", 8: "strings", 9: "tensors",
           10: "graphs", 11: "sparse_tensor", 13: "tp"}  # fmt: skip
_STRINGS_TAG = 9 << 3 | 2
#: Number of bytes -> the mask of so many first ones of 8 in memory.
_FIRST_BYTES = np.frombuffer(
    b"".join(b"\xff" * min(n, 8) + bytes(8 - min(n, 8)) for n in range(17)), np.uint64
)
_NO_VALUES = frozenset(("name", "type", "doc_string", "ref_attr_name"))


def kind_name(kind: int) -> str:
    """The name of a kind of attributes, or the number of an unknown one."""
    return KINDS[kind] if 0 <= kind < len(KINDS) else str(kind)


class AttributeValues(Mapping[str, Any]):
    """The values of a node's attributes by name. `fields` are as protobuf has them; a list is converted when
    a rule reads it, since columns of trees have millions of numbers."""

    def __init__(self, fields: Mapping[str, Any], protos: Mapping[str, Any] = MappingProxyType({})):
        self.fields, self._protos = fields, protos
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

    def __or__(self, others: Mapping[str, Any]) -> AttributeValues:
        return AttributeValues({**self.fields, **others})

    def __ror__(self, others: Mapping[str, Any]) -> AttributeValues:
        return AttributeValues({**others, **self.fields})

    def words(self, name: str) -> tuple[list[str], np.ndarray]:
        """(the distinct strings of a list, the number of each of its elements among them)"""
        if name not in self._words:
            field = self.fields.get(name, ())
            is_long = len(field) > 1000 and name in self._protos
            words, numbers = _number_short(self._protos[name]) if is_long else ([], None)
            if numbers is None:
                words = list(dict.fromkeys(field))
                number_of = {word: i for i, word in enumerate(words)}
                numbers = np.fromiter(map(number_of.__getitem__, field), np.int64, len(field))
            self._words[name] = _convert(words), numbers
        return self._words[name]

    def distinct(self, name: str) -> Any:
        """A value; of a list each element once."""
        field = self.fields[name]
        if not _is_list(field):
            return self[name]
        return self.words(name)[0] if isinstance(next(iter(field), b""), bytes) else np.unique(field).tolist()


def _number_short(attribute: Any) -> tuple[list[bytes], np.ndarray | None]:
    """See `words`, without an object for each string. ([], None) unless they are few and of at most 16
    bytes."""
    content = np.frombuffer(attribute.SerializeToString() + bytes(16), np.uint8)
    at = np.flatnonzero(content == _STRINGS_TAG)
    sizes = content[at + 1]
    if len(at) != len(attribute.strings) or sizes.max() > 16 or (np.diff(at) != sizes[:-1] + 2).any():
        return [], None  # there is a byte like the tag within a string
    windows = np.ndarray(len(content) - 7, np.uint64, content, 0, (1,))  # 8 bytes from each one on
    low, high = (
        windows[at + 2] & _FIRST_BYTES[sizes],
        windows[at + 10] & _FIRST_BYTES[np.maximum(sizes, 8) - 8],
    )
    words: list[bytes] = []
    numbers, remaining = np.empty(len(at), np.int64), np.arange(len(at))
    while remaining.size:
        first = remaining[0]
        same = np.logical_and.reduce([key[remaining] == key[first] for key in (low, high, sizes)])
        numbers[remaining[same]] = len(words)
        words.append(attribute.strings[first])
        remaining = remaining[~same]
        if len(words) > 16:
            return [], None
    return words, numbers


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
    """The names that a node reads: its inputs, and outer values that its bodies read."""
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
