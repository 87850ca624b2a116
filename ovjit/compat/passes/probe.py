"""Values of a stateful decoder's outputs for a few new tokens, computed in NumPy without a compiled model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from ovjit.api.model.boundary import Parameter
from ovjit.api.model.model import Model
from ovjit.api.model.node import Node, Output
from ovjit.errors import OvjitError
from ovjit.graph.dtypes import numpy_dtype
from ovjit.graph.op import REFUSED, TensorType
from ovjit.graph.shapes import is_static

#: An output of a node, by which its value is kept.
Key = tuple[Node, int]
#: What operations raise for inputs that they do not take.
FAILURES = (OvjitError, *REFUSED)
NOTHING_KNOWN: Mapping[Output, np.ndarray] = {}


class Probe:
    """One sequence of `new` tokens after `past` others, all of them zeros.

    What a ShapeOf is of is not computed: its type is inferred.
    """

    def __init__(self, past: int, new: int = 1):
        self.past, self.new = past, new
        #: Whole numbers that constants have.
        self.numbers: set[int] = set()
        self._values: dict[Key, np.ndarray] = {}
        self._types: dict[Key, TensorType] = {}

    def value(self, source: Output) -> np.ndarray:
        """Compute an output."""
        return self.values([source], {})[0]

    def values(self, sources: Iterable[Output], fixed: Mapping[Output, np.ndarray]) -> list[np.ndarray]:
        """Compute outputs, with the values of others `fixed`. Values are cached if none are known."""
        sources = list(sources)
        values = self._values if not fixed else {}
        values |= {_key(output): array for output, array in fixed.items()}
        for source in sources:
            for node in _in_order(source, values, lambda n: n._op.role == "shape"):
                self._compute(node, values)
        return [values[_key(source)] for source in sources]

    def try_values(
        self, sources: Iterable[Output], fixed: Mapping[Output, np.ndarray] = NOTHING_KNOWN
    ) -> list[np.ndarray] | None:
        """The values of `sources`, as `values` computes them; None if an operation refuses its inputs."""
        try:
            return self.values(sources, fixed)
        except FAILURES:
            return None

    def shape(self, source: Output) -> tuple[int, ...] | None:
        """The shape of an output; None if it depends on elements."""
        for node in _in_order(source, self._types, lambda n: False):
            for i, kind in enumerate(self._kinds(node)):
                self._types[node, i] = kind
        shape = self._types[_key(source)].shape
        return shape if shape is not None and is_static(shape) else None

    def _kinds(self, node: Node) -> Iterable[TensorType]:
        kind = node._tensors[0]._type
        if is_a(node, "Parameter"):
            return [TensorType(kind.dtype, self._input_value(node, kind).shape)]
        if node._op.role == "read":
            return [TensorType(kind.dtype, self._variable_shape(kind))]
        return node._infer([self._types[_key(x)] for x in node._inputs])

    def _variable_shape(self, kind: TensorType) -> list[int]:
        """The shape of a variable."""
        return [1, *(d if isinstance(d, int) else self.past for d in kind.shape[1:])]

    def _compute(self, node: Node, values: dict[Key, np.ndarray]) -> None:
        """Evaluate a node on the probe's inputs, and store its outputs in `values`."""
        kind, name = node._tensors[0]._type, node._op.name
        if name == "Parameter":
            outputs = [self._input_value(node, kind)]
        elif node._op.role == "read":
            outputs = [np.broadcast_to(np.zeros((), numpy_dtype(kind.dtype)), self._variable_shape(kind))]
        elif node._op.role == "shape":
            outputs = [self._shape_of(node, values)]
        else:
            inputs = [values[_key(x)] for x in node._inputs]
            outputs = list(node._op.evaluate(inputs, node._graph_attrs()))
            if name == "Constant" and kind.dtype in ("i32", "i64", "f32") and outputs[0].size == 1:
                number = float(outputs[0].reshape(-1)[0])
                if number == int(number if np.isfinite(number) else 0.5):
                    self.numbers.add(int(number))
        for i, array in enumerate(outputs):
            values.setdefault((node, i), array)

    def _shape_of(self, node: Node, values: dict[Key, np.ndarray]) -> np.ndarray:
        source = node._inputs[0]
        value = values.get(_key(source))
        shape = self.shape(source) if value is None else value.shape
        if shape is None:
            for other in _in_order(source, values, lambda n: n._op.role == "shape"):
                self._compute(other, values)
            shape = values[_key(source)].shape
        return np.array(shape, numpy_dtype(node._tensors[0]._type.dtype))

    def _input_value(self, node: Node, kind: TensorType) -> np.ndarray:
        """The value of an input: positions of the new tokens, an attention mask of ones, else zeros."""
        names, dtype = node._tensors[0]._names, numpy_dtype(kind.dtype)
        dims = kind.shape or ()
        if "attention_mask" in names:
            return np.ones((1, self.past + self.new), dtype)
        if "position_ids" in names:
            positions = np.arange(self.past, self.past + self.new).astype(dtype)
            lead = [d if isinstance(d, int) else 1 for d in dims[:-1]]
            return np.broadcast_to(positions, (*lead, self.new))
        shape = [d if isinstance(d, int) else 1 for d in dims]
        if len(shape) > 1 and names & {"input_ids", "inputs_embeds"}:
            shape[1] = self.new
        return np.zeros(shape, dtype)


def is_a(node: Node, *operations: str) -> bool:
    """Whether the node is one of these operations."""
    return node._op.name in operations


def _key(output: Output) -> Key:
    return output._node, output._index


def _in_order(source: Output, values: Mapping[Key, Any], ends: Callable[[Node], bool]) -> list[Node]:
    """The nodes that compute an output, sources first; without those before states, before `values`
    outputs, and before nodes for which `ends` is true."""
    order: list[Node] = []
    stack, done = [(source, False)], set[Node]()
    while stack:
        output, is_finished = stack.pop()
        node = output._node
        if is_finished:
            order.append(node)
        elif node not in done and _key(output) not in values:
            done.add(node)
            stack.append((output, True))
            if node._op.role != "read" and not ends(node):
                stack += [(x, False) for x in node._inputs]
    return order


def users_of(output: Output) -> list[tuple[Node, int]]:
    """(node, input index) of each reader of an output."""
    return [(target.get_node(), target.get_index()) for target in output.get_target_inputs()]


def before(output: Output) -> list[Output]:
    """[the output, then the outputs that it is computed from, the nearest first]"""
    outputs, visited = [output], {output}
    for source in outputs:
        fresh = [x for x in source._node._inputs if x not in visited]
        visited.update(fresh)
        outputs += fresh
    return outputs


def is_single(source: Output) -> bool:
    """Whether this is a constant of one element."""
    shape = source._tensor._type.shape
    return source._node._op.role == "constant" and shape is not None and all(d == 1 for d in shape)


def inputs_named(model: Model, *names: str) -> list[Parameter]:
    """The inputs with one of these names."""
    return [p for p in model.get_parameters() if p._tensors[0]._names.intersection(names)]
