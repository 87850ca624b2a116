"""An operator of a TensorFlow Lite graph as the rules see it: inputs, options, and builders of nodes.

TensorFlow Lite keeps channels last, OpenVINO's convolutions want them second. So a tensor may have a second
form, with channels first. Rules that work on each element compute that form if an operand has it. Then
Transposes stay at the edges of a chain of such operators.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ovjit.build import Output
from ovjit.build.builder import NodeBuilder
from ovjit.errors import ModelError, UnsupportedError
from ovjit.forks import made_once
from ovjit.graph.op import MOST_DIMENSIONS
from ovjit.readers.tflite.constants import Stored, output_of
from ovjit.readers.tflite.draft import Handle, LiteDraft, Scope
from ovjit.readers.tflite.file import OperatorRow, TensorRow

#: The most fields of the options of custom operators.
MOST_FIELDS = 1 << 10
#: Types whose numbers have two parts.
COMPLEX = ("complex64", "complex128")
#: Functions that options name to follow an operator, by ActivationFunctionType.
ACTIVATIONS = {
    0: None, 1: ("Relu", {}), 2: ("Clamp", {"min": -1.0, "max": 1.0}), 3: ("Clamp", {"min": 0.0, "max": 6.0}),
    4: ("Tanh", {}),
}  # fmt: skip


class LiteNode(NodeBuilder):
    """One operator that is being read. Indexing gives its inputs, calling it makes a node of the Model."""

    reader: LiteDraft

    def __init__(self, reader: LiteDraft, scope: Scope, row: OperatorRow):
        self.reader = reader
        self.scope = scope
        self.row = row
        self.op_type = row.kind
        self.base = f"{scope.prefix}{row.index}"

    # -- inputs and outputs ----------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.row.inputs)

    def has(self, index: int) -> bool:
        return index < len(self.row.inputs) and self.row.inputs[index] >= 0

    def __getitem__(self, index: int) -> Output:
        """A required input. Raises ModelError if it is absent."""
        if not self.has(index):
            raise ModelError(f"input {index} is missing")
        return self.reader.value_at(self.scope, self.row.inputs[index], self)

    @property
    def inputs(self) -> list[Output]:
        """All present inputs."""
        return [self[i] for i in range(len(self)) if self.has(i)]

    def file_constant(self, index: int) -> Stored | None:
        """An input that is a constant of the file, in its stored form; else None."""
        return self.scope.stored.get(self.row.inputs[index]) if self.has(index) else None

    def out(self, index: int = 0) -> TensorRow:
        """Returns the file's row of an output tensor; ModelError if the output is missing."""
        if index >= len(self.row.outputs) or self.row.outputs[index] < 0:
            raise ModelError(f"output {index} is missing")
        return self.scope.graph.tensors[self.row.outputs[index]]

    def is_complex(self, index: int) -> bool:
        """Whether an input is complex in the file. Nodes have such values as pairs along a further last
        axis."""
        return self.has(index) and self.scope.graph.tensors[self.row.inputs[index]].dtype in COMPLEX

    # -- options ---------------------------------------------------------------------------------------------

    def option(self, name: str, default: Any = None) -> Any:
        """An option by the schema's name. ModelError where the operator has none and there is no default."""
        if self.row.options is None:
            if default is None:
                raise ModelError("Chosen Builtin Option is not accessible for this node: it has no options")
            return default
        getter = getattr(self.row.options, name, None)
        if getter is None:
            if default is None:
                raise ModelError(f"Chosen Builtin Option is not accessible for this node: {name}")
            return default
        return getter()

    def options(self, name: str) -> list[int] | None:
        """An option that is a list of ints, None if it is absent."""
        getter = getattr(self.row.options, f"{name}AsNumpy", None)
        values = 0 if getter is None else getter()
        return None if isinstance(values, int) else [int(v) for v in values]

    @made_once
    def attributes(self) -> Mapping[str, Any]:
        """All options by the schema's names in lower case, as user converters expect them."""
        if self.row.custom:
            return {"custom_options": self.row.custom_options}
        methods = [m for m in dir(self.row.options) if m[0].isupper() and m != "Init"]
        suffixes = ("AsNumpy", "Length", "IsNone", "HasIdentifier")
        plain = [m for m in methods if not m.startswith("GetRootAs") and not m.endswith(suffixes)]
        out: dict[str, Any] = {}
        for name in plain:
            listed = f"{name}AsNumpy" in methods
            out[_snake(name)] = self.options(name) if listed else getattr(self.row.options, name)()
        return out

    def custom_fields(self) -> dict[str, Any]:
        """The options of a custom operator that are a FlexBuffer."""
        return fields_of(self.row.custom_options)

    # -- subgraphs -------------------------------------------------------------------------------------------

    def subgraph(self, index: int, values: Sequence[Output]) -> list[Output]:
        """The outputs of another subgraph of the file for values of its inputs."""
        return self.reader.inline(self.scope, index, values, f"{self.base}/")

    # -- variables -------------------------------------------------------------------------------------------

    def handle(self, index: int) -> Handle:
        """The variable of an input that is a resource."""
        handle = self.scope.handles.get(self.row.inputs[index]) if self.has(index) else None
        if handle is None:
            raise UnsupportedError("a resource that is no VAR_HANDLE of this subgraph is not supported")
        return handle

    def state(self, index: int) -> Output:
        """Current value of an input that is a variable tensor [batch, cells]; ModelError if it is not."""
        if not self.has(index):
            raise ModelError(f"input {index} is missing")
        state = self.reader.state_at(self.scope, self.row.inputs[index], self)
        if self.rank(state) != 2:
            raise ModelError(f"input {index}, a state, is of rank {self.rank(state)}, not 2")
        return state

    def keep(self, index: int, value: Output) -> None:
        """Sets the new value of the variable tensor at an input."""
        self.reader.variables.keep(self.scope.graph.tensors[self.row.inputs[index]].name, value)

    def round_as_stored(self, index: int, value: Output) -> Output:
        """A value as the tensor of an input can store it."""
        return self.reader.round_as_stored(self, value, self.scope.graph.tensors[self.row.inputs[index]])

    # -- layouts ---------------------------------------------------------------------------------------------

    def first(self, value: Output) -> Output:
        """The channels-first form of a tensor."""
        return self.reader.layouts.first(self, value)

    def last(self, value: Output) -> Output:
        """The tensor whose channels-first form is `value`."""
        return self.reader.layouts.last(self, value)

    def each(self, op: str, *values: Any, **attrs: Any) -> Output:
        """An elementwise operation on tensors that broadcast, in their current layout."""
        result = [v if isinstance(v, Output) else self.const(v) for v in values]
        return self.reader.layouts.each(self, lambda *ready: self(op, *ready, **attrs), result)

    def activate(self, value: Output, code: int | None = None) -> Output:
        """Apply the activation of the operator's options, or that of `code`, to a tensor."""
        code = self.option("FusedActivationFunction", 0) if code is None else code
        if code not in ACTIVATIONS:
            raise UnsupportedError(f"Unknown Activation fused to {self.op_type}: {code}")
        row = ACTIVATIONS[code]
        return value if row is None else self.each(row[0], value, **row[1])

    # -- constants -------------------------------------------------------------------------------------------

    def weights(
        self, index: int, order: Sequence[int], channels: Sequence[int],
        before: Sequence[int] | None = None, after: Sequence[int] | None = None,
    ) -> Output:  # fmt: skip
        """A filter, reshaped to `before`, transposed and reshaped to `after`.

        `channels` is the shape in which a number for each channel broadcasts with that. Constants keep the
        type that they are stored in.
        """
        constant = self.file_constant(index)
        if constant is None:
            value = self[index] if before is None else self.reshape(self[index], list(before))
            value = self.transpose(value, order)
            return value if after is None else self.reshape(value, list(after))

        def change(array: np.ndarray) -> np.ndarray:
            array = array if before is None else array.reshape(before)
            array = np.ascontiguousarray(array.transpose(order))
            return array if after is None else array.reshape(after)

        return output_of(self, constant, change, channels)

    def count_of_axes(self, value: Output, what: str) -> int:
        """The length of a vector that has one number per dimension of a tensor."""
        shape = self.static_shape(value, what)
        if len(shape) != 1 or shape[0] > MOST_DIMENSIONS:
            raise ModelError(
                f"{what}: expected a vector of at most {MOST_DIMENSIONS} numbers, not the shape {shape}"
            )
        return shape[0]

    def filter_shape(self, rank: int) -> tuple[int, ...]:
        shape = self.static_shape(self[1], "the filter's shape")
        if len(shape) != rank:
            raise ModelError(f"the filter has {len(shape)} dimensions; expected {rank}")
        return shape


def fields_of(flexbuffer: bytes) -> dict[str, Any]:
    """The fields of a FlexBuffer that are numbers or text; none for other values.

    Others are not followed: they may contain themselves.
    """
    if not flexbuffer:
        return {}
    from flatbuffers import flexbuffers  # type: ignore[import-untyped]

    root = flexbuffers.GetRoot(bytearray(flexbuffer))
    if not root.IsMap:
        return {}
    if len(root.AsMap) > MOST_FIELDS:
        raise ModelError(f"the options have more than {MOST_FIELDS} fields")
    pairs = zip(root.AsMap.Keys, root.AsMap.Values, strict=True)
    return {key.AsKey: v.Value for key, v in pairs if v.IsBool or v.IsInt or v.IsFloat or v.IsString}


def _snake(name: str) -> str:
    return "".join(f"_{c.lower()}" if c.isupper() and i else c.lower() for i, c in enumerate(name))
