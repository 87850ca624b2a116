"""A node of an ONNX graph as the rules see it: checked inputs and attributes, and builders of nodes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ovjit.build import Output
from ovjit.build.builder import NodeBuilder
from ovjit.errors import ModelError
from ovjit.graph.shapes import Dim, is_static
from ovjit.readers.onnx import tensors
from ovjit.readers.onnx.attributes import AttributeValues, read_attribute
from ovjit.readers.onnx.draft import OnnxDraft
from ovjit.readers.onnx.registry import Schema
from ovjit.readers.onnx.scope import Scope
from ovjit.readers.onnx.values import EMPTY, OpenOptional

#: The most nodes that it writes out for one.
MOST_NODES = 4096


class OnnxNode(NodeBuilder):
    """One node that is being read. Indexing gives its inputs, calling it makes a node of the Model."""

    reader: OnnxDraft

    def __init__(
        self, reader: OnnxDraft, scope: Scope, proto: Any, version: int, schema: Schema | None,
        inputs: list[Any], attributes: AttributeValues,
    ):  # fmt: skip
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
        """A required tensor input. Raises ModelError if it is absent."""
        value = self.optional(index)
        if value is None:
            raise ModelError(f"input {index} is missing")
        return value

    def optional(self, index: int) -> Output | None:
        """A tensor input; None if it is absent."""
        value = self.inputs[index] if index < len(self.inputs) else None
        if value is None or isinstance(value, Output):
            return value
        if isinstance(value, OpenOptional) and isinstance(value.value, Output):
            return value.value  # ONNX takes it where it is not empty
        what = "an empty optional" if value is EMPTY else "a sequence"
        raise ModelError(f"input {index} should be a tensor, not {what}")

    def tensors(self) -> list[Output]:
        """All inputs. Raises ModelError unless all are tensors."""
        return [self[i] for i in range(len(self.inputs))]

    def has(self, index: int) -> bool:
        return index < len(self.inputs) and self.inputs[index] is not None

    def add_input(self, value: Output, index: int) -> Output:
        """The value plus an input, which may be absent."""
        return self("Add", value, self[index]) if self.has(index) else value

    def is_output_used(self, index: int) -> bool:
        """Whether the graph uses the output."""
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
        """Attributes for a node of the Model: those with the names `same`, and others as ours="theirs"."""
        return {ours: self.attr(name) for ours, name in (*zip(same, same, strict=True), *renamed.items())}

    def require(self, name: str) -> Any:
        value = self.attr(name)
        if value is None:
            raise ModelError(f"the attribute {name!r} is missing")
        return value

    def numbers(self, name: str, dtype: Any) -> np.ndarray:
        """A list attribute as an array; empty if it is missing. No Python objects are created for its
        elements."""
        return np.array(self.attributes.fields.get(name, ()), dtype).reshape(-1)

    def data_type(self, name: str, default: int | None = None) -> str:
        """The element type that an attribute names."""
        number = self.attr(name, default)
        if number is None:
            raise ModelError(f"the attribute {name!r} is missing")
        return tensors.element_type(number)

    # -- what is known of values ----------------------------------------------------------------------------

    def size(self, shape: Sequence[Dim]) -> int | None:
        """The number of elements, None where a dimension is dynamic."""
        dims = tuple(shape)
        return math.prod(dims) if is_static(dims) else None

    def without_biases(self, value: Output) -> Output:
        """The value, its node named as OpenVINO names a layer to which biases are added."""
        value.node.set_friendly_name(f"{self.scope.prefix}{self.base}/WithoutBiases")
        return value
