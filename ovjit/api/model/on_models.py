"""Rules (`ovjit.rewrite.rules`) on models that users edit.

Patterns match `Seen` values and nodes instead of a Graph's. A rule changes the model itself, by `value.port`,
and returns a true value if it did. `rewrite(..., x)` returns the replacement value.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ovjit.api.model.boundary import Constant
from ovjit.api.model.custom import Op
from ovjit.api.model.model import Model
from ovjit.api.model.node import Input, Node, Output
from ovjit.api.model.node_ports import target_inputs
from ovjit.graph.graph import Typed
from ovjit.graph.op import TensorType, find_op
from ovjit.rewrite.rules import Rule


class Seen(Typed):
    """An output, as patterns see it."""

    __slots__ = ("port",)

    def __init__(self, port: Output):
        self.port = port

    @property
    def node(self) -> SeenNode:
        return SeenNode(self.port._node)

    @property
    def index(self) -> int:
        return self.port._index

    @property
    def type(self) -> TensorType:
        return self.port._tensor._type

    @property
    def constant(self) -> np.ndarray | None:
        return self.port._node.value if isinstance(self.port._node, Constant) else None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Seen) and self.port == other.port

    def __hash__(self) -> int:
        return hash(self.port)


class SeenNode:
    """A node of a model, as patterns and rules see it; `of` is the node."""

    __slots__ = ("of",)

    def __init__(self, of: Node):
        self.of = of

    @property
    def op(self) -> Any:
        return self.of._op

    @property
    def attrs(self) -> Mapping[str, Any]:
        return self.of._attrs

    @property
    def inputs(self) -> list[Seen]:
        return [Seen(port) for port in self.of._inputs]

    @property
    def outputs(self) -> list[Seen]:
        return [Seen(self.of.output(i)) for i in range(len(self.of._tensors))]

    @property
    def output(self) -> Seen:
        return Seen(Output._of(self.of, 0))


def made_node(operation: str, inputs: Sequence[Output], name: str, **attributes: Any) -> Output:
    """The first output of a new node, of the newest version of the operation."""
    record = find_op(operation, None)
    return Output._of(Node._new(record, list(inputs), record.check_attributes(attributes), name), 0)


def made_constant(array: np.ndarray, kind: str, name: str) -> Output:
    return Output._of(Constant._of(array, kind, None, name), 0)


class Users:
    """The readers of an output, among the nodes that a model has or was given by a rewrite."""

    def __init__(self, model: Model):
        self.nodes = model._walk()
        self.live = set(self.nodes)

    def of(self, node: Node, index: int = 0) -> list[Input]:
        return [target for target in target_inputs(node, index) if target._node in self.live]

    def all_of(self, node: Node) -> Iterator[Input]:
        return (target for index in range(len(node._tensors)) for target in self.of(node, index))

    def times(self, value: Seen) -> int:
        return len(self.of(value.port._node, value.port._index))


def applied(rules: Iterable[Rule], model: Model, users: Users | None = None) -> Iterator[tuple[Node, Any]]:
    """Each node to which a rule is applied, and what the first such rule returns, sources before users."""
    rules = list(rules)
    for node in model.get_ordered_ops() if users is None else users.nodes:
        if isinstance(node, Op) or not node._tensors:
            continue
        for rule in rules:
            result = rule.apply(None, SeenNode(node), users) if rule.before.fits(node._op) else None
            if result is not None:
                yield node, result
                break


def apply_rules(rules: Iterable[Rule], model: Model) -> None:
    """Apply rules wherever they fit."""
    for _ in applied(rules, model, Users(model)):
        pass
