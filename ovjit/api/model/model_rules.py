"""Runs rewrite rules (`ovjit.rewrite.rules`) on Models: rules of Graphs, and rules of their own.

| of a Model     | has the interface of | and also                  |
|----------------|----------------------|---------------------------|
| `ModelValue`   | `graph.Value`        | `port`, the Output        |
| `ModelNode`    | `graph.Node`         | `of`, the node            |
| `ModelBuilder` | `graph.Builder`      |                           |
| `ModelUses`    | `rules.Uses`         | `live`, the model's nodes |

So a rule that runs on both reads values and nodes by these interfaces, compares them by `==`, and writes by
its `Writer`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from ovjit.api.model.boundary import Constant, Result
from ovjit.api.model.custom import Op as CustomOp
from ovjit.api.model.model import Model
from ovjit.api.model.node import Input, Node, Output
from ovjit.api.model.node_ports import target_inputs
from ovjit.graph.dtypes import from_numpy
from ovjit.graph.graph import Typed
from ovjit.graph.op import Op, TensorType, find_op
from ovjit.rewrite.rules import Rule, applied, check_types


class ModelValue(Typed):
    """An output of a node of a Model."""

    __slots__ = ("port",)

    def __init__(self, port: Output):
        self.port = port

    @property
    def node(self) -> ModelNode:
        return ModelNode(self.port._node)

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
        return isinstance(other, ModelValue) and self.port == other.port

    def __hash__(self) -> int:
        return hash(self.port)


class ModelNode:
    """A node of a Model."""

    __slots__ = ("of",)
    #: Nodes of Models have the types of their operations' records.
    lowered = False

    def __init__(self, of: Node):
        self.of = of

    @property
    def op(self) -> Op:
        return self.of._op

    @property
    def attrs(self) -> Mapping[str, Any]:
        return self.of._attrs

    @property
    def name(self) -> str:
        return self.of.get_friendly_name()

    @property
    def origins(self) -> tuple[str, ...]:
        return (self.name,)

    @property
    def inputs(self) -> tuple[ModelValue, ...]:
        return tuple(map(ModelValue, self.of._inputs))

    @property
    def outputs(self) -> tuple[ModelValue, ...]:
        return tuple(ModelValue(Output._of(self.of, i)) for i in range(len(self.of._tensors)))

    @property
    def output(self) -> ModelValue:
        return ModelValue(Output._of(self.of, 0))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ModelNode) and self.of is other.of

    def __hash__(self) -> int:
        return hash(self.of)


class ModelUses:
    """The readers of each output, among the nodes that a model has or is given by rules."""

    def __init__(self, model: Model):
        self.nodes = model._walk()
        self.live = set(self.nodes)

    def inputs_of(self, node: Node, index: int = 0) -> list[Input]:
        return [target for target in target_inputs(node, index) if target._node in self.live]

    def of(self, value: ModelValue) -> list[tuple[ModelNode, int]]:
        """The readers as (node, input index)."""
        return [(ModelNode(t._node), t._index) for t in self.inputs_of(value.port._node, value.index)]

    def times(self, value: ModelValue) -> int:
        return len(self.inputs_of(value.port._node, value.index))

    def single(self, value: ModelValue) -> bool:
        return self.times(value) == 1

    def is_returned(self, node: Node) -> bool:
        """Whether a Result reads the node."""
        targets = (target for i in range(len(node._tensors)) for target in self.inputs_of(node, i))
        return any(isinstance(target._node, Result) for target in targets)

    def forget(self, node: Node) -> list[Node]:
        """Remove a replaced node, and the producers that nothing else reads. Returns them."""
        removed, pending = [], [node]
        while pending:
            node = pending.pop()
            if node not in self.live or any(self.inputs_of(node, i) for i in range(len(node._tensors))):
                continue
            self.live.discard(node)
            removed.append(node)
            pending += [source._node for source in node._inputs if source._node._inputs]
        return removed


class ModelBuilder:
    """Makes nodes of a Model for rules. `base`: the name of the node that the rules are applied to.
    `names_all`: False if nodes besides those that replace others get the names of this process."""

    #: Rules that ask for the target or the options are for Graphs.
    context = None

    def __init__(self, uses: ModelUses, names_all: bool):
        self.uses = uses
        self.base = ""
        self.names_all = names_all
        self.new: list[Node] = []
        #: Values that rules share between readers, by a key of the rule.
        self.shared: dict[Any, ModelValue] = {}

    def add(
        self, op: Op | str, inputs: Sequence[ModelValue] = (), attrs: Mapping[str, Any] | None = None, *,
        name: str | None = None, origins: Iterable[str] | None = None,
    ) -> ModelNode:  # fmt: skip
        """A new node. Raises ModelError, with the node's name, if it is invalid."""
        return self._new(op, inputs, attrs, name if self.names_all else None)

    def constant(self, value: Any, dtype: str | None = None, name: str | None = None) -> ModelValue:
        """A Constant. `dtype`: for packed types, which the array's dtype does not determine."""
        array = np.asarray(value)
        name = name or f"{self.base}/Constant"
        kind = dtype or from_numpy(array.dtype)
        return self._remember(Constant._of(array, kind, None, name if self.names_all else None)).output

    def instead(
        self, node: ModelNode, inputs: Sequence[ModelValue], attrs: Mapping[str, Any] | None = None,
        op: Op | str | None = None,
    ) -> tuple[ModelValue, ...]:  # fmt: skip
        """The outputs of a new node with the name, and unless others are given the operation and attributes,
        of `node`."""
        attrs = node.attrs if attrs is None else attrs
        return self._new(op or node.op, inputs, attrs, node.name).outputs

    def _new(
        self, op: Op | str, inputs: Sequence[ModelValue], attrs: Mapping[str, Any] | None, name: str | None,
    ) -> ModelNode:  # fmt: skip
        record = find_op(op) if isinstance(op, str) else op
        attributes = record.check_attributes(attrs or {})
        return self._remember(Node._new(record, [v.port for v in inputs], attributes, name))

    def replace(self, node: ModelNode, inputs: Sequence[ModelValue]) -> None:
        """Does nothing: a replaced node of a Model does not check shapes."""

    def discard(self) -> None:
        """Forget the new nodes, which no rule has returned."""
        self.uses.live.difference_update(self.new)
        self.new.clear()

    def _remember(self, node: Node) -> ModelNode:
        self.new.append(node)
        self.uses.live.add(node)
        return ModelNode(node)


class ModelWriter(Protocol):
    """The `Writer` of rules for Models alone (`ovjit.rewrite.writer`)."""

    b: ModelBuilder

    def __call__(self, op: str | Op, *inputs: Any, **attrs: Any) -> ModelValue: ...


def apply_rules(rules: Iterable[Any], model: Model, names_all: bool = True) -> bool:
    """One pass over a model with all rules; the first that matches a node replaces it. True if one did.
    `names_all`: see `ModelBuilder`."""
    rules = list(rules)
    uses = ModelUses(model)
    builder = ModelBuilder(uses, names_all)
    fitting: dict[Op, list[Rule]] = {}
    changed = False
    for node in uses.nodes:
        record = node._op
        if record not in fitting:
            fitting[record] = [rule for rule in rules if rule.before.fits(record)]
        if not fitting[record] or node not in uses.live or isinstance(node, CustomOp) or not node._tensors:
            continue
        builder.base, builder.new = node.get_friendly_name(), []
        for rule in fitting[record]:
            outputs = rule.apply(builder, ModelNode(node), uses)
            if outputs is None:
                builder.discard()
                continue
            check_types(rule, ModelNode(node), outputs)
            if _replace(node, outputs, builder):
                applied[rule.rule] += 1
                changed = True
            else:
                builder.discard()
            break
    return changed


def _replace(node: Node, outputs: Sequence[ModelValue], builder: ModelBuilder) -> bool:
    """Make the readers of a node read other values. False if a Result would lose the name of its node.

    The name of the node, and the runtime information of all nodes that are no longer read, go over to the new
    nodes, as in OpenVINO.
    """
    uses, name = builder.uses, node.get_friendly_name()
    makers = list(dict.fromkeys(value.port._node for value in outputs))
    is_returned = uses.is_returned(node)
    for i, maker in enumerate(makers):
        is_new = maker in builder.new
        if is_returned and not is_new and (uses.is_returned(maker) or not maker._inputs):
            return False  # both names are the user's
        if is_new or (is_returned and len(maker._tensors) == 1):
            maker.set_friendly_name(name if len(makers) == 1 else f"{name}.{i}")
    for index, value in enumerate(outputs):
        if value.port._node in builder.new:
            copy_rt_info(value.port._tensor, node._tensors[index])
        Output._of(node, index).replace(value.port)
    for removed in uses.forget(node):
        for new in builder.new:
            copy_rt_info(new, removed)
    return True


def copy_rt_info(target: Any, *others: Any) -> None:
    """Copy the runtime information of other nodes or tensors, without overwriting."""
    for other in others:
        for key, note in (other._rt_info._items if other._rt_info is not None else {}).items():
            target.get_rt_info()._items.setdefault(key, note)
