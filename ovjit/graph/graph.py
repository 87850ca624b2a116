"""The immutable graph that the passes rewrite: nodes in topological order, values between them.

A pass is `Graph -> Graph`: it visits the old nodes in order with a `Builder`, which infers types.
`print(graph)` shows one node per line. `verify(graph)` checks the invariants.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ovjit.errors import ModelError
from ovjit.graph import dtypes
from ovjit.graph.converted import Unmade
from ovjit.graph.op import Op, TensorType, find_op
from ovjit.graph.shapes import is_static, merge


class Typed:
    """An object with a `TensorType` as its `type`."""

    __slots__ = ()

    @property
    def type(self) -> TensorType:
        raise NotImplementedError

    @property
    def dtype(self) -> str:
        return self.type.dtype

    @property
    def shape(self) -> Any:
        return self.type.shape


class Value(Typed):
    """One output of a node."""

    __slots__ = ("index", "node", "type")
    type: TensorType

    def __init__(self, node: Node, index: int, type: TensorType):
        self.node = node
        self.index = index
        self.type = type

    @property
    def constant(self) -> np.ndarray | None:
        """The array of a Constant; None for other nodes."""
        stored = self.stored_array
        return stored.array() if isinstance(stored, Unmade) else stored

    @property
    def stored_array(self) -> np.ndarray | Unmade | None:
        """The array of a Constant as stored in the graph, possibly a lazy conversion; None for other
        nodes."""
        return self.node.attrs["value"] if self.node.op.role == "constant" else None

    def __repr__(self) -> str:
        return f"%{self.node.name}" + (f":{self.index}" if len(self.node.outputs) > 1 else "")


class Node:
    """One operation applied to values. Immutable in a graph; its builder may rename it before.

    `name`: the friendly name. `origins`: friendly names of the model's nodes that it replaces.
    """

    __slots__ = ("attrs", "inputs", "lowered", "name", "op", "origins", "outputs")

    def __init__(
        self,
        op: Op,
        inputs: Iterable[Value],
        attrs: Mapping[str, Any],
        name: str,
        types: Iterable[TensorType],
        origins: Iterable[str] | None = None,
        lowered: bool = False,
    ):
        #: True if the stored types differ from those of the operation's record: f32 may be a 16-bit float or
        #: an 8-bit integer. The outputs have the given types.
        self.lowered = lowered
        self.op = op
        self.inputs = tuple(inputs)
        self.attrs = dict(attrs)
        self.name = name
        self.origins = (name,) if origins is None else tuple(dict.fromkeys(origins))
        self.outputs = tuple([Value(self, i, t) for i, t in enumerate(types)])

    @property
    def output(self) -> Value:
        return self.outputs[0]

    def __repr__(self) -> str:
        outs = ", ".join(f"{v!r}: {v.type!r}" for v in self.outputs)
        attrs = "".join(f", {k}={_show(v)}" for k, v in self.attrs.items())
        ins = ", ".join(map(repr, self.inputs))
        return f"{outs} = {self.op.name}({ins}{attrs})"


class Replaced(Node):
    """A node that does not run, but checks its inputs' shapes. `kinds`: the inputs' element types before
    passes changed them."""

    __slots__ = ("kinds",)

    def __init__(self, node: Node, inputs: Iterable[Value]):
        types = [v.type for v in node.outputs]
        super().__init__(node.op, inputs, node.attrs, node.name, types, node.origins, node.lowered)
        self.kinds: tuple[str, ...] = (
            node.kinds if isinstance(node, Replaced) else tuple(v.dtype for v in node.inputs)
        )


class Graph:
    """`inputs` are the outputs of Parameter nodes; `outputs` any values; `nodes` in topological order.

    `replaced` nodes do not run: other nodes compute their outputs. Each checks its inputs when dynamic
    dimensions are known, see `Builder.replace`. The list also has the nodes that only replaced nodes read.
    """

    __slots__ = ("_read", "inputs", "nodes", "outputs", "replaced")

    def __init__(
        self,
        inputs: Iterable[Value],
        nodes: Iterable[Node],
        outputs: Iterable[Value],
        replaced: Iterable[Node] = (),
    ):
        self.inputs = tuple(inputs)
        self.nodes = tuple(nodes)
        self.outputs = tuple(outputs)
        self.replaced = tuple(replaced)
        self._read: dict[Value, list[tuple[Node | None, int]]] | None = None

    def __repr__(self) -> str:
        lines = [repr(n) for n in self.nodes]
        lines.append("return " + ", ".join(map(repr, self.outputs)))
        return "\n".join(lines)

    @property
    def has_state(self) -> bool:
        return any(node.op.role in ("read", "assign") for node in self.nodes)

    @property
    def public_outputs(self) -> tuple[Value, ...]:
        """The outputs without the new values of variables."""
        return tuple(v for v in self.outputs if v.node.op.role != "assign")

    def uses(self) -> dict[Value, list[tuple[Node | None, int]]]:
        """value -> its consumers as (node, input index); (None, i) is the graph's i-th output."""
        out: dict[Value, list[tuple[Node | None, int]]] = {v: [] for n in self.nodes for v in n.outputs}
        for node in self.nodes:
            for i, value in enumerate(node.inputs):
                out[value].append((node, i))
        for i, value in enumerate(self.outputs):
            out[value].append((None, i))
        return out

    def uses_of_elements(self) -> dict[Value, list[tuple[Node | None, int]]]:
        """`uses` without readers that only need a value's shape. Types give shapes at planning, so values
        with only such readers are not computed. The result is cached and must not be changed."""
        if self._read is None:
            asks = {node for node in self.nodes if node.op.role == "shape"}
            uses = self.uses()
            for value in {node.inputs[0] for node in asks}:
                uses[value] = [use for use in uses[value] if use[0] not in asks]
            self._read = uses
        return self._read


class Builder:
    """Builds a graph node by node, infers types, and keeps names unique.

    `context`: an `ovjit.compiler.options.Context` with target and options, for rules; None outside of the
    compiler.

    `before`: the number of nodes before the visited one. `follows`: the nodes of an old graph. Until the
    first other node is added, the builder's nodes are the first `before` of these, without being copied.
    """

    def __init__(self, context: Any = None, follows: tuple[Node, ...] = ()) -> None:
        self.context = context
        self.follows = follows
        self.before = 0
        self._nodes: list[Node] = []
        self.inputs: list[Value] = []
        self.replaced: list[Node] = []
        self._names: set[str] = set()
        self._numbers: dict[str, int] = {}  # name -> the next suffix to try
        self._new_nodes: set[Node] = set()  # nodes that are in no other graph
        self._finished = False
        #: Values that rules share between readers, by a key of the rule.
        self.shared: dict[Any, Value] = {}

    @property
    def nodes(self) -> list[Node]:
        self.depart()
        return self._nodes

    def add(
        self,
        op: Op | str,
        inputs: Sequence[Value] = (),
        attrs: Mapping[str, Any] | None = None,
        *,
        name: str | None = None,
        origins: Iterable[str] | None = None,
        types: Iterable[TensorType] | None = None,
        lowered: bool = False,
    ) -> Node:
        """Append a node. `types` skips inference. `lowered`: see `Node`. Raises ModelError, with the node's
        name, if it is invalid."""
        record = find_op(op) if isinstance(op, str) else op
        name = self._unique(name or record.name)
        try:
            checked = record.check_attributes(attrs or {})
            if types is None:
                types = record.infer_types([v.type for v in inputs], checked)
        except ModelError as error:
            raise ModelError(f"node {name!r} ({record.name}-{record.opset}): {error}") from error
        return self._append_own(Node(record, inputs, checked, name, types, origins, lowered))

    def append(
        self,
        op: Op,
        inputs: Sequence[Value],
        attrs: Mapping[str, Any],
        name: str,
        types: Iterable[TensorType],
    ) -> Node:
        """Append a node whose attributes are checked, and types inferred, already."""
        return self._append_own(Node(op, inputs, attrs, self._unique(name), types))

    def instead(
        self, node: Node, inputs: Sequence[Value], attrs: Mapping[str, Any] | None = None,
        op: Op | str | None = None, **more: Any,
    ) -> tuple[Value, ...]:  # fmt: skip
        """Append a replacement of `node` with its name: its operation and attributes, unless others are
        given. A lowered node stays lowered. Returns the outputs."""
        if node.lowered and attrs is None and op is None and not more:
            more = {"types": infer_outputs(node, [v.type for v in inputs]), "lowered": True}
        attrs = node.attrs if attrs is None else attrs
        return self.add(op or node.op, inputs, attrs, name=node.name, origins=node.origins, **more).outputs

    def is_taken(self, name: str) -> bool:
        return not self.follows and name in self._names

    def keep(self, node: Node) -> bool:
        """Append `node` itself. False, without a change, if its name is taken."""
        self.depart()
        if node.name in self._names:
            return False
        self._names.add(node.name)
        self._append(node)
        return True

    def depart(self) -> None:
        """Append the first `before` nodes of `follows`. Called before the first other node is added."""
        if self.follows:
            nodes, self.follows = self.follows[: self.before], ()
            self._names.update([node.name for node in nodes])
            self._nodes += nodes
            self.inputs += [node.output for node in nodes if node.op.role == "parameter"]

    def copy(self, node: Node, inputs: Sequence[Value], types: Iterable[TensorType] | None) -> Node:
        """Append a copy of `node` with other inputs, or `node` itself if they are its own. Attributes are not
        checked again. `types` None: infer them. Raises ModelError, with the node's name."""
        if all(map(operator.is_, node.inputs, inputs)) and self.keep(node):
            return node
        name = self._unique(node.name)
        try:
            types = node.op.infer_types([v.type for v in inputs], node.attrs) if types is None else types
        except ModelError as error:
            raise ModelError(f"node {name!r} ({node.op.name}-{node.op.opset}): {error}") from error
        return self._append_own(Node(node.op, inputs, node.attrs, name, types, node.origins, node.lowered))

    def replace(self, node: Node, inputs: Sequence[Value]) -> None:
        """Record that other nodes compute `node` for `inputs`. They may accept more shapes than `node`, so
        `node` checks the shapes when dynamic dimensions are known."""
        if not all(is_static(v.shape) for v in (*inputs, *node.outputs)):
            self.replaced.append(Replaced(node, inputs))

    def _append(self, node: Node) -> None:
        self._nodes.append(node)
        if node.op.role == "parameter":
            self.inputs.append(node.output)

    def _append_own(self, node: Node) -> Node:
        self._new_nodes.add(node)
        self._append(node)
        return node

    def constant(self, value: Any, dtype: str | None = None, name: str | None = None) -> Value:
        """A Constant. `dtype`: for packed types, which the array's dtype does not determine."""
        value = value if isinstance(value, Unmade) else np.asarray(value)
        return self.add(
            "Constant",
            (),
            {"value": value, "element_type": dtype or dtypes.from_numpy(value.dtype)},
            name=name,
        ).output

    def rename(self, node: Node, name: str) -> None:
        """Rename a node of this builder. Raises ModelError if it is in a graph already."""
        if self._finished or node not in self._new_nodes:
            raise ModelError(f"internal error: {node.name!r} is already in a graph and cannot be renamed")
        node.name = self._unique(name)

    def finish(self, outputs: Iterable[Value], inputs: Iterable[Value] | None = None) -> Graph:
        """The graph of all ancestors of the outputs, and the Parameters (unused ones stay inputs)."""
        outputs = tuple(outputs)
        self._finished = True
        needed = makers((*outputs, *self.inputs), self.nodes)
        inputs = self.inputs if inputs is None else inputs
        replaced = with_sources(self.replaced, self.nodes, needed)
        return Graph(inputs, (n for n in self.nodes if n in needed), outputs, replaced)

    def _unique(self, name: str) -> str:
        self.depart()
        candidate = name
        while candidate in self._names:
            number = self._numbers.get(name, 1)
            candidate, self._numbers[name] = f"{name}_{number}", number + 1
        self._names.add(candidate)
        return candidate


def makers(
    values: Iterable[Value], nodes: Sequence[Node], stops: Callable[[Node], bool] | None = None
) -> set[Node]:
    """The nodes of `nodes`, a list in order, that compute `values`. `stops(node)`: do not follow its
    inputs."""
    needed = {v.node for v in values}
    for node in reversed(nodes):
        if node in needed and (stops is None or not stops(node)):
            needed.update(v.node for v in node.inputs)
    return needed


def with_sources(replaced: Sequence[Node], nodes: Sequence[Node], needed: Collection[Node]) -> list[Node]:
    """`replaced`, preceded by the nodes that they depend on, in order. Nodes in `needed`, constants and
    parameters are left out."""
    producers = {v.node for node in replaced for v in node.inputs}
    sources = []
    for node in reversed(nodes if producers else ()):
        if node in producers and node not in needed and node.inputs:
            sources.append(node)
            producers.update(v.node for v in node.inputs)
    return [*reversed(sources), *replaced]


#: Values that replace a node's outputs; None: the node is copied.
Replacement = Sequence[Value] | None
#: visit(builder, node, new inputs) -> Replacement
Visit = Callable[[Builder, Node, tuple[Value, ...]], Replacement]


def rebuild(
    graph: Graph,
    visit: Visit,
    returned: Callable[[Builder, list[Value]], Iterable[Value]] | None = None,
    context: Any = None,
    passed: Collection[Op] = (),
) -> Graph:
    """`graph` with replacements by `visit`; `graph` itself if there is none. Nodes before the first
    replacement are shared with `graph`. Dead nodes are dropped. `returned(builder, new outputs)` gives the
    final outputs. `context`: see `Builder`. Nodes with one of the operations `passed` are only visited if
    their inputs are replaced."""
    builder = Builder(context, graph.nodes)
    new: dict[Value, Value] = {}  # replaced values only
    for at, node in enumerate(graph.nodes):
        inputs = node.inputs
        if new and not new.keys().isdisjoint(inputs):
            inputs = tuple([new.get(v, v) for v in inputs])
        elif node.op in passed and (builder.follows or builder.keep(node)):
            continue
        builder.before = at if builder.follows else len(builder._nodes)
        outputs = visit(builder, node, inputs)
        if outputs is None:
            if inputs is node.inputs and (builder.follows or builder.keep(node)):
                continue
            outputs = copy_node(builder, node, inputs).outputs
        else:
            builder.depart()
            _check_replaced(node, outputs)
        new.update((old, now) for old, now in zip(node.outputs, outputs, strict=True) if old is not now)
    if not new and returned is None:
        return graph
    if builder.follows:
        builder.before = len(graph.nodes)
        builder.depart()
    copy_replaced(new, builder, graph.replaced)
    result, parameters = ([new.get(v, v) for v in ends] for ends in (graph.outputs, graph.inputs))
    return builder.finish(result if returned is None else returned(builder, result), parameters)


def _check_replaced(node: Node, outputs: Sequence[Value]) -> None:
    """Raise ModelError if a replacement's shapes contradict the node's."""
    for old, new in zip(node.outputs, outputs, strict=True):
        a, b = old.shape, new.shape
        if a is None or b is None or a == b:
            continue
        if len(a) != len(b) or any(merge(x, y) is None for x, y in zip(a, b, strict=True)):
            raise ModelError(
                f"node {node.name!r} ({node.op.name}): its output type is {new.type}, expected {old.type}"
            )


#: Types that a lowered node may have instead of f32.
STORED = dtypes.HALVES | {"u8", "i8"}


def infer_outputs(node: Node, inputs: Sequence[TensorType]) -> tuple[TensorType, ...]:
    """The types of a node's outputs for other types of its inputs. Raises ModelError."""
    if not node.lowered:
        return node.op.infer_types(inputs, node.attrs)
    data = node.op.carried or len(inputs)  # others are indices, of bytes too
    computed = [
        TensorType("f32", t.shape, t.value) if i < data and t.dtype in STORED else t
        for i, t in enumerate(inputs)
    ]
    inferred = node.op.infer_types(computed, node.attrs)
    return tuple(TensorType(v.dtype, t.shape, t.value) for v, t in zip(node.outputs, inferred, strict=True))


def copy_node(builder: Builder, node: Node, inputs: Sequence[Value]) -> Node:
    """Append a copy of `node` with these inputs, or `node` itself if they are its own. Types are inferred
    again if an input's type differs."""
    types: Iterable[TensorType] | None = [v.type for v in node.outputs]
    for old, new in zip(node.inputs, inputs, strict=True):  # all() of a generator takes longer
        a, b = old.type, new.type
        if a is not b and (a != b or a.value is not b.value):
            types = infer_outputs(node, [v.type for v in inputs]) if node.lowered else None
            break
    return builder.copy(node, inputs, types)


def copy_into(new: dict[Value, Value], builder: Builder, node: Node) -> None:
    """Append a copy of `node` with its inputs mapped by `new`, and add its outputs to `new`."""
    copied = copy_node(builder, node, [new[v] for v in node.inputs])
    new.update(zip(node.outputs, copied.outputs, strict=True))


def copy_replaced(new: dict[Value, Value], builder: Builder, replaced: Iterable[Node]) -> None:
    """Add copies of replaced nodes, with their inputs mapped by `new` where it has them."""
    for node in replaced:
        copied = Replaced(node, (new.get(v, v) for v in node.inputs))
        new.update(zip(node.outputs, copied.outputs, strict=True))
        builder.replaced.append(copied)


def walk(outputs: Iterable[Any], inputs_of: Callable[[Any], Iterable[Any]]) -> Iterator[Any]:
    """Yield the nodes that `outputs` depend on, producers first, without recursion. Raises ModelError on a
    cycle."""
    done: set[Any] = set()
    path: set[Any] = set()
    stack: list[tuple[Any, Iterator[Any] | None]] = [(n, None) for n in reversed(list(outputs))]
    while stack:
        node, remaining = stack.pop()
        if remaining is None:
            if node in done:
                continue
            if node in path:
                raise ModelError(f"the graph has a cycle through {getattr(node, 'name', node)!r}")
            producers = list(inputs_of(node))
            if done.issuperset(producers):
                done.add(node)
                yield node
                continue
            path.add(node)
            remaining = iter(producers)
        for producer in remaining:
            if producer not in done:
                stack.append((node, remaining))
                stack.append((producer, None))
                break
        else:
            path.discard(node)
            done.add(node)
            yield node


def verify(graph: Graph) -> None:
    """Check the invariants: order, unique names, types as inferred. Raises ModelError."""
    defined: set[Value] = set()
    names: set[str] = set()
    for node in graph.nodes:
        for value in node.inputs:
            if value not in defined:
                raise ModelError(f"node {node.name!r} uses {value!r} before it is defined")
        if node.name in names:
            raise ModelError(f"two nodes have the name {node.name!r}")
        names.add(node.name)
        defined.update(node.outputs)
    for node in graph.replaced:
        defined.update(node.outputs)
        if not all(v in defined or v.node.op.role == "constant" for v in node.inputs):
            raise ModelError(f"the replaced node {node.name!r} reads values that no node produces")
    for value in (*graph.outputs, *graph.inputs):
        if value not in defined:
            raise ModelError(f"the graph returns {value!r}, which no node produces")


def _show(value: Any) -> str:
    if isinstance(value, np.ndarray | Unmade):
        value = value if isinstance(value, np.ndarray) or value.size > 8 else value.array()
        return f"<{value.dtype}{list(value.shape)}>" if value.size > 8 else str(value.tolist())
    return repr(value)
