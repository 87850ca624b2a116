"""Variables that grow in place: new elements are written after the existing ones, and nothing is copied.

If a variable's next value is a Concat of its value and new elements, its memory has extra capacity along that
axis. The program's hidden input and output are views of this memory, with strides of the capacity. The Concat
finds its first part in place and writes the new one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ovjit.codegen.memory import SIZE
from ovjit.errors import OvjitError
from ovjit.graph.graph import Graph, Value
from ovjit.graph.traced import as_found_number
from ovjit.planning.constants import element_size
from ovjit.planning.plan_steps import Strides
from ovjit.planning.views import row_major
from ovjit.records import NamedTuple


class GrowingAxis(NamedTuple):
    """Output `output` of a program is input `input` with elements appended along `axis`."""

    output: int
    input: int
    axis: int


class Room(NamedTuple):
    """The capacity of growing tensors. All have fewer than `capacity` elements along their axes. A full
    tensor would have no gaps, and would need a plan of its own."""

    capacity: int
    growing_axes: tuple[GrowingAxis, ...]


class CapacityExceeded(OvjitError):
    """Appended elements do not fit: capacity for `length` is needed."""

    def __init__(self, length: int):
        super().__init__(f"internal error: {length} elements exceed the capacity")
        self.length = length


def find_growing_axes(graph: Graph, pairs: Sequence[tuple[int, int]]) -> tuple[GrowingAxis, ...]:
    """The (output, input) pairs of a lowered graph that can grow in place, as `GrowingAxis`s."""
    axes = []
    for output, input_index in pairs:
        value, source = graph.outputs[output], graph.inputs[input_index]
        node = value.node
        fits = (
            node.op.name == "Concat"
            and node.inputs[0] is source
            and node.inputs.count(source) == 1
            and value.dtype in SIZE
            and graph.outputs.count(value) == 1
            and source not in graph.outputs
            and value.shape is not None
        )
        if fits:
            axis = int(node.attrs["axis"]) % len(value.shape)
            if not isinstance(value.shape[axis], int):
                axes.append(GrowingAxis(output, input_index, axis))
    return tuple(axes)


def check_room(room: Room, graph: Graph, types: Mapping[Value, Any]) -> None:
    """Raise CapacityExceeded if these types need a larger capacity. Adds no guard on traced numbers."""
    for output, _, axis in room.growing_axes:
        length = as_found_number(types[graph.outputs[output]].shape[axis])
        if length >= room.capacity:
            raise CapacityExceeded(length)


def strides_of(room: Room, graph: Graph, types: Mapping[Value, Any], capacity: Any) -> Strides:
    """Strides of growing inputs and outputs. `capacity`: an int, or traced. Raises CapacityExceeded."""
    inputs: dict[int, Any] = {}
    outputs: dict[int, Any] = {}
    over: dict[int, int] = {}
    for output, input_index, axis in room.growing_axes:
        source, value = graph.inputs[input_index], graph.outputs[output]
        length = types[value].shape[axis]
        if length >= capacity:
            raise CapacityExceeded(int(length))
        full_shape = list(types[source].shape)
        full_shape[axis] = capacity
        steps = row_major(full_shape, element_size(source.dtype))
        inputs[input_index] = outputs[output] = steps
        over[output] = input_index
    return Strides(inputs, outputs, over)
