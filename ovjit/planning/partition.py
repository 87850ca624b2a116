"""Graph breaks: splits a graph where a shape depends on data, or where elements are strings.

Most shapes follow from the input shapes. Shapes after a NonZero, or a Range with computed bounds, are known
only after that node has run. The host evaluates such a node by its reference, between two native programs.
The first program has all nodes that do not depend on it. The second has the others, whose input shapes are
then known.

A slice whose few bounds depend on data does not run on the host. The bounds are *run-time extents* of the
second program, passed as dimensions of empty inputs, and the slice is a view there. So its plan is a function
of the bounds, as of shapes. Later slices with the same bounds cause no further break.

Nodes that read or write strings are evaluated on the host at the same break, and so are nodes of operations
with `host` (such as those of tokenizers) and the integers between them: a tokenizer is one break.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ovjit.graph.graph import Builder, Graph, Node, Value, copy_node, copy_replaced, makers, with_sources
from ovjit.graph.shapes import ANY, is_static

#: Where a node runs: after the break, before it, on the host at the break; or its values follow from shapes.
LATER, BEFORE, HOST, KNOWN = range(4)

#: Element types of nodes that may run on the host between others.
INTEGERS = frozenset(("i32", "i64", "u8", "boolean"))
#: Maximum elements of a value that is passed as run-time extents.
MOST_EXTENTS = 8
#: Run-time extents are clamped to +-FARTHEST: no index exceeds it, and traced arithmetic does not overflow.
FARTHEST = 1 << 55


def needs_cut(types: Mapping[Value, Any]) -> bool:
    """True if the graph cannot be planned in one piece with these types."""
    if any(t.dtype == "string" or not is_static(t.shape) for t in types.values()):
        return True
    return any(types[v].value is None for n in _of_open_rank(v.node for v in types) for v in n.outputs)


def _of_open_rank(nodes: Iterable[Node]) -> set[Node]:
    """The nodes with bodies whose results have a rank that is known only when they have run, and are read by
    operations other than elementwise ones: what follows is native in a graph of its own, for that rank."""
    sources: dict[Value, Node] = {}  # a value of open rank -> the node that it derives from
    producers: set[Node] = set()
    for node in nodes:
        if node.op.runs_body:
            sources.update((v, node) for v in node.outputs if v.shape is None)
        elif sources:
            reached = {sources[v] for v in node.inputs if v in sources}
            if not node.op.scalar:
                producers |= reached
            else:
                sources.update((v, origin) for v in node.outputs for origin in reached)
    return producers


class Cut:
    """A graph in three parts: the graph `before`, the nodes `hosts`, and the graph `after`.

    `before` is None if nothing has to run before the hosts. `early`: values that `before` returns. `passed`:
    values that `after` takes as inputs. `results`: values that `after` returns. `extents`: values that
    `after` takes as run-time extents, in the dimensions of further inputs (`extent_shapes`). All are values
    of the original graph. `with_extents` False: no run-time extents.
    """

    def __init__(self, graph: Graph, types: Mapping[Value, Any], with_extents: bool = True):
        self.graph = graph
        hosted = _find_hosts(graph)
        #: Nodes of integers between operations with `host`.
        self.between = {node for node in hosted if node.op.host is None}
        fate = _fates(graph, types, with_extents, hosted, _of_open_rank(graph.nodes))
        self.hosts = [n for n in graph.nodes if fate[n] == HOST]
        self._later = [n for n in graph.nodes if fate[n] == LATER]
        #: (later node, input index) -> a bound that is computed before the later nodes run
        self._bounds = {
            (n, i): v
            for n in self._later
            for i, v in _bounds(n)
            if with_extents and fate[v.node] in (BEFORE, HOST) and _fits_extents(v, types)
        }
        late = _replaced_later(graph, fate)
        self._replaced = with_sources(late, graph.replaced, set(late))
        self.extents = list(dict.fromkeys(self._bounds.values()))
        self.extents_of = {v: types[v].shape for v in self.extents}
        self._repeated, self.passed = self._needs(fate)
        self.results = [v for v in dict.fromkeys(graph.outputs) if fate[v.node] == LATER]
        read = [*(v for n in self.hosts for v in n.inputs), *self.extents, *self.passed, *graph.outputs]
        result = (v for v in dict.fromkeys(read) if v.node.op.role != "parameter")
        self.early = [v for v in result if fate[v.node] in (BEFORE, KNOWN) and v.constant is None]
        checked = [n for n in graph.replaced if n not in late]
        self.before = _part(graph, self.early, checked) if self.early or checked else None
        #: The constants that the hosts read.
        self.constants = {v: v.constant for n in self.hosts for v in n.inputs if v.constant is not None}

    def distribute(self, targets: Sequence[Sequence[int]]) -> tuple[list[tuple[Value, int]], list[list[int]]]:
        """Distribute `targets`, the destinations of each output of the graph. Returns (value, destination)
        pairs for values that are computed before the later nodes, and the destinations of each of
        `results`."""
        later: dict[Value, list[int]] = {v: [] for v in self.results}
        here = []
        for value, indices in zip(self.graph.outputs, targets, strict=True):
            if value in later:
                later[value] += indices
            else:
                here += [(value, i) for i in indices]
        return here, list(later.values())

    def _needs(self, fate: Mapping[Node, int]) -> tuple[list[Node], list[Value]]:
        """(KNOWN nodes that the later nodes depend on, which `after` has again; values that `after`
        takes)."""
        needed = {v for n in self._later for i, v in enumerate(n.inputs) if (n, i) not in self._bounds}
        needed.update(v for n in self._replaced for v in n.inputs if v not in self.extents_of)
        repeated: list[Node] = []
        for node in reversed(self.graph.nodes):
            if fate[node] == KNOWN and any(v in needed for v in node.outputs):
                repeated.append(node)
                needed.update(node.inputs)
        passed = [
            v
            for node in self.graph.nodes
            for v in node.outputs
            if v in needed and fate[node] in (BEFORE, HOST)
        ]
        return repeated[::-1], passed

    def after(self, ranks: Sequence[int]) -> Graph:
        """The graph of the later nodes. Its inputs are `passed`, with `ranks` for unknown ranks, and an empty
        one for each run-time extent."""
        builder = Builder()
        new: dict[Value, Value] = {}
        for value, rank in zip(self.passed, ranks, strict=True):
            shape = (ANY,) * rank if value.shape is None else value.shape
            attrs = {"shape": shape, "element_type": value.dtype}
            new[value] = builder.add("Parameter", (), attrs, name=value.node.name).output
        extents = {value: _from_extents(builder, value, shape) for value, shape in self.extents_of.items()}
        position = {n: i for i, n in enumerate(self.graph.nodes)}
        for node in sorted((*self._repeated, *self._later), key=position.__getitem__):
            inputs = [
                extents[self._bounds[node, i]] if (node, i) in self._bounds else new[v]
                for i, v in enumerate(node.inputs)
            ]
            copied = copy_node(builder, node, inputs)
            new.update(zip(node.outputs, copied.outputs, strict=True))
        copy_replaced(new | extents, builder, self._replaced)
        return builder.finish(new[v] for v in self.results)


def extent_shapes(array: np.ndarray) -> list[tuple[int, int, int]]:
    """Encode each integer n of `array` as the shape (0, max(n, 0), max(-n, 0)) of an empty input."""
    numbers = (max(-FARTHEST, min(FARTHEST, n)) for n in array.reshape(-1).tolist())
    return [(0, max(n, 0), max(-n, 0)) for n in numbers]


def _from_extents(builder: Builder, value: Value, shape: Sequence[int]) -> Value:
    """Add the empty inputs that encode `value`, and the nodes that compute `value` from their dimensions."""
    from ovjit.rewrite.writer import Writer  # imported late: programs from files need no rewrites

    w, attrs = Writer(builder, value.node), {"shape": (0, ANY, ANY), "element_type": "u8"}
    parts: list[Value] = []
    for _ in range(math.prod(shape)):
        empty = builder.add("Parameter", (), attrs, name=f"{value.node.name}/extent").output
        _, above, below = w.shape(empty)
        parts.append(w("Subtract", above.value, below.value))
    elements = parts[0] if len(parts) == 1 else w("Concat", *parts, axis=0)
    if len(shape) != 1:
        elements = w("Reshape", elements, shape, special_zero=False)
    return elements if value.dtype == "i64" else w("Convert", elements, destination_type=value.dtype)


def _bounds(node: Node) -> list[tuple[int, Value]]:
    """(input index, value) of each input that is a bound."""
    return [(i, node.inputs[i]) for i in node.op.bounds if i < len(node.inputs)]


def _fits_extents(value: Value, types: Mapping[Value, Any]) -> bool:
    """Whether `value` has few enough integers to be passed as run-time extents."""
    shape = types[value].shape
    return value.dtype in ("i32", "i64") and is_static(shape) and 0 < math.prod(shape) <= MOST_EXTENTS


def _fates(
    graph: Graph,
    types: Mapping[Value, Any],
    with_extents: bool,
    hosted: Collection[Node],
    open_rank: Collection[Node],
) -> dict[Node, int]:
    """Assigns each node a stage: LATER, BEFORE, HOST or KNOWN.

    `hosted`: nodes that run on the host together. `open_rank`: nodes after which a rank becomes known.
    """
    fate: dict[Node, int] = {}
    for node in graph.nodes:
        strings = any(v.dtype == "string" for v in (*node.inputs, *node.outputs))
        texts = strings or node in hosted
        sources = {fate[v.node] for v in node.inputs}
        if node.op.role == "constant":
            fate[node] = KNOWN
        elif node.op.role == "parameter":  # also an empty one, whose value would count as known
            fate[node] = BEFORE
        elif LATER in sources or (HOST in sources and not texts):
            fate[node] = LATER
        elif not texts and all(types[v].value is not None for v in node.outputs):
            fate[node] = KNOWN
        elif texts or node in open_rank or not all(is_static(types[v].shape) for v in node.outputs):
            unknown = [v for _, v in _bounds(node) if fate[v.node] != KNOWN]
            takes = with_extents and not texts and unknown and all(_fits_extents(v, types) for v in unknown)
            fate[node] = LATER if takes else HOST
        else:
            fate[node] = BEFORE
    return fate


def _find_hosts(graph: Graph) -> set[Node]:
    """The nodes of operations with `host`, and those between them that compute integers."""
    hosts = {node for node in graph.nodes if node.op.host is not None}
    if not hosts:
        return hosts
    dependents: set[Node] = set()  # what depends on one of them, or on strings
    for node in graph.nodes:
        if any(v.node in hosts or v.node in dependents or v.dtype == "string" for v in node.inputs):
            dependents.add(node)
    needed = {v.node for node in hosts for v in node.inputs}
    for node in reversed(graph.nodes):
        if node in needed and node in dependents and node not in hosts and _is_of_integers(node):
            hosts.add(node)
            needed.update(v.node for v in node.inputs)
    return hosts


def _is_of_integers(node: Node) -> bool:
    """Whether a node, which has no role, reads and writes integers only."""
    return not node.op.role and all(v.dtype in INTEGERS for v in (*node.inputs, *node.outputs))


def _replaced_later(graph: Graph, fate: Mapping[Node, int]) -> list[Node]:
    """The replaced nodes whose inputs are known only when the later nodes run."""
    nodes: dict[Node, None] = {}
    for node in graph.replaced:
        late = (v.node in nodes or fate.get(v.node) in (HOST, LATER) for v in node.inputs)
        if any(late) and all(v.dtype != "string" for v in node.inputs):  # strings exist on the host only
            nodes[node] = None
    return list(nodes)


def _part(graph: Graph, outputs: Iterable[Value], replaced: Sequence[Node]) -> Graph:
    """The part of `graph` that computes `outputs`, with only the inputs that it and `replaced` nodes read."""
    outputs = tuple(outputs)
    needed = makers(outputs, graph.nodes)
    replaced = with_sources(replaced, graph.nodes, needed)
    needed.update(v.node for node in replaced for v in node.inputs if v.node.op.role == "parameter")
    inputs = (v for v in graph.inputs if v.node in needed)
    return Graph(inputs, (n for n in graph.nodes if n in needed), outputs, replaced)
