"""Where a graph is cut because a shape depends on data, or because values are not numbers.

With the input shapes given, most shapes follow. Those behind a NonZero, a Range of computed bounds or the
like do not: they are known when that node has run. Such a node is evaluated on the host, by its reference,
between two native programs: one of all nodes that do not need it, and one of the rest, whose inputs then have
shapes.
Nodes that touch strings are evaluated on the host in the same place.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ovjit.graph.graph import Builder, Graph, Node, Value, copy_node
from ovjit.graph.shapes import ANY, is_static

#: What becomes of a node: it runs after the host, before it, on the host, or its values follow from shapes.
LATER, BEFORE, HOST, KNOWN = range(4)


def needs_cut(types: Mapping[Value, Any]) -> bool:
    """True when a program of one piece cannot be planned with these types."""
    return any(t.dtype == "string" or not is_static(t.shape) for t in types.values())


class Cut:
    """A graph in three parts: the graph `before`, the nodes `hosts`, and what comes `after`.

    `kept` are the values that `before` returns, None when there is nothing to run before; `passed` those that
    the graph after takes, all of them values of the graph that was cut, like `results`, which it returns.
    """

    def __init__(self, graph: Graph, types: Mapping[Value, Any]):
        self.graph = graph
        fate = _fates(graph, types)
        self.hosts = [n for n in graph.nodes if fate[n] == HOST]
        self._later = [n for n in graph.nodes if fate[n] == LATER]
        self._repeated, self.passed = self._needs(fate)
        self.results = [v for v in dict.fromkeys(graph.outputs) if fate[v.node] == LATER]
        read = [*(v for n in self.hosts for v in n.inputs), *self.passed, *graph.outputs]
        made = (v for v in dict.fromkeys(read) if v.node.op.name != "Parameter")
        self.kept = [v for v in made if fate[v.node] in (BEFORE, KNOWN) and v.constant is None]
        self.before = _part(graph, self.kept) if self.kept else None

    def _needs(self, fate: Mapping[Node, int]) -> tuple[list[Node], list[Value]]:
        """The nodes of known values that the later nodes read, to be worked out again there; and the values
        that are handed to both."""
        wanted = {v for n in self._later for v in n.inputs}
        repeated: list[Node] = []
        for node in reversed(self.graph.nodes):
            if fate[node] == KNOWN and any(v in wanted for v in node.outputs):
                repeated.append(node)
                wanted.update(node.inputs)
        passed = [
            v
            for node in self.graph.nodes
            for v in node.outputs
            if v in wanted and fate[node] in (BEFORE, HOST)
        ]
        return repeated[::-1], passed

    def after(self, ranks: Sequence[int]) -> Graph:
        """The graph of the later nodes. Its inputs are `passed`, of these ranks where the rank is unknown."""
        builder = Builder()
        new: dict[Value, Value] = {}
        for value, rank in zip(self.passed, ranks, strict=True):
            shape = (ANY,) * rank if value.shape is None else value.shape
            attrs = {"shape": shape, "element_type": value.dtype}
            new[value] = builder.add("Parameter", (), attrs, name=value.node.name).output
        place = {n: i for i, n in enumerate(self.graph.nodes)}
        for node in sorted((*self._repeated, *self._later), key=place.__getitem__):
            copied = copy_node(builder, node, [new[v] for v in node.inputs])
            new.update(zip(node.outputs, copied.outputs, strict=True))
        return builder.finish(new[v] for v in self.results)


def _fates(graph: Graph, types: Mapping[Value, Any]) -> dict[Node, int]:
    """What becomes of each node."""
    fate: dict[Node, int] = {}
    for node in graph.nodes:
        texts = any(v.dtype == "string" for v in (*node.inputs, *node.outputs))
        sources = {fate[v.node] for v in node.inputs}
        if node.op.name == "Constant":
            fate[node] = KNOWN
        elif LATER in sources or (HOST in sources and not texts):
            fate[node] = LATER
        elif not texts and all(types[v].value is not None for v in node.outputs):
            fate[node] = KNOWN
        elif node.op.name == "Parameter":
            fate[node] = BEFORE
        elif texts or not all(is_static(types[v].shape) for v in node.outputs):
            fate[node] = HOST
        else:
            fate[node] = BEFORE
    return fate


def _part(graph: Graph, outputs: Iterable[Value]) -> Graph:
    """The part of `graph` that `outputs` need, with only the inputs that it reads."""
    outputs = tuple(outputs)
    needed = {v.node for v in outputs}
    for node in reversed(graph.nodes):
        if node in needed:
            needed.update(v.node for v in node.inputs)
    inputs = (v for v in graph.inputs if v.node in needed)
    return Graph(inputs, (n for n in graph.nodes if n in needed), outputs)
