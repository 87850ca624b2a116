"""Graph breaks: places where a shape depends on data, or values are not numbers.

With the input shapes given, most shapes follow. Shapes behind a NonZero, a Range of computed bounds or the
like do not: they are known after that node has run. The host evaluates such a node by its reference, between
two native programs. The first has all nodes that do not need it. The second has the remainder, whose inputs
then have shapes.

A slice with few bounds that depend on data does not run on the host. The bounds are *run-time extents* of the
second program, passed as dimensions of inputs without elements, and the slice is a view there. So that plan
is a function of the bounds as of shapes. Later slices by the same bounds cause no further break.

Nodes that touch strings are evaluated on the host in the same place.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ovjit.graph.graph import Builder, Graph, Node, Value, copy_node, copy_replaced, makers, with_sources
from ovjit.graph.shapes import ANY, is_static

#: What becomes of a node: it runs after the host, before it, on the host, or its values follow from shapes.
LATER, BEFORE, HOST, KNOWN = range(4)

#: Values of more elements than this are not told.
MOST_TOLD = 8
#: Numbers are told up to here: no place lies beyond, and traces compute with them.
FARTHEST = 1 << 55


def needs_cut(types: Mapping[Value, Any]) -> bool:
    """True when a program of one piece cannot be planned with these types."""
    return any(t.dtype == "string" or not is_static(t.shape) for t in types.values())


class Cut:
    """A graph in three parts: the graph `before`, the nodes `hosts`, and what comes `after`.

    `kept` are the values that `before` returns, None when there is nothing to run before; `passed` those that
    the graph after takes, all of them values of the graph that was cut, like `results`, which it returns.
    `told` are those whose numbers are dimensions of its other inputs, see `told_shapes`; `may_tell`: False
    for none.
    """

    def __init__(self, graph: Graph, types: Mapping[Value, Any], may_tell: bool = True):
        self.graph = graph
        fate = _fates(graph, types, may_tell)
        self.hosts = [n for n in graph.nodes if fate[n] == HOST]
        self._later = [n for n in graph.nodes if fate[n] == LATER]
        #: Those of the later nodes' bounds that are known when the parts before have run.
        self._bounds = {
            (n, i): v
            for n in self._later
            for i, v in _bounds(n)
            if may_tell and fate[v.node] in (BEFORE, HOST) and _may_be_told(v, types)
        }
        late = _replaced_later(graph, fate)
        self._replaced = with_sources(late, graph.replaced, set(late))
        self.told = list(dict.fromkeys(self._bounds.values()))
        self._told_shapes = {v: types[v].shape for v in self.told}
        self._repeated, self.passed = self._needs(fate)
        self.results = [v for v in dict.fromkeys(graph.outputs) if fate[v.node] == LATER]
        read = [*(v for n in self.hosts for v in n.inputs), *self.told, *self.passed, *graph.outputs]
        made = (v for v in dict.fromkeys(read) if v.node.op.role != "parameter")
        self.kept = [v for v in made if fate[v.node] in (BEFORE, KNOWN) and v.constant is None]
        asked = [n for n in graph.replaced if n not in late]
        self.before = _part(graph, self.kept, asked) if self.kept or asked else None

    def places(self, wanted: Sequence[Sequence[int]]) -> tuple[list[tuple[Value, int]], list[list[int]]]:
        """Of `wanted`, the places that want each output of the graph: (a value that is known before the later
        nodes run, a place that wants it), and the places that want each of `results`."""
        later: dict[Value, list[int]] = {v: [] for v in self.results}
        here = []
        for value, places in zip(self.graph.outputs, wanted, strict=True):
            if value in later:
                later[value] += places
            else:
                here += [(value, i) for i in places]
        return here, list(later.values())

    def _needs(self, fate: Mapping[Node, int]) -> tuple[list[Node], list[Value]]:
        """The nodes of known values that the later nodes read, to be worked out again there; and the values
        that are handed to both."""
        wanted = {v for n in self._later for i, v in enumerate(n.inputs) if (n, i) not in self._bounds}
        wanted.update(v for n in self._replaced for v in n.inputs if v not in self._told_shapes)
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
        """The graph of the later nodes. Its inputs are `passed`, of these ranks where the rank is unknown,
        and one for each number that is told."""
        builder = Builder()
        new: dict[Value, Value] = {}
        for value, rank in zip(self.passed, ranks, strict=True):
            shape = (ANY,) * rank if value.shape is None else value.shape
            attrs = {"shape": shape, "element_type": value.dtype}
            new[value] = builder.add("Parameter", (), attrs, name=value.node.name).output
        told = {value: _told(builder, value, shape) for value, shape in self._told_shapes.items()}
        place = {n: i for i, n in enumerate(self.graph.nodes)}
        for node in sorted((*self._repeated, *self._later), key=place.__getitem__):
            inputs = [
                told[self._bounds[node, i]] if (node, i) in self._bounds else new[v]
                for i, v in enumerate(node.inputs)
            ]
            copied = copy_node(builder, node, inputs)
            new.update(zip(node.outputs, copied.outputs, strict=True))
        copy_replaced(new | told, builder, self._replaced)
        return builder.finish(new[v] for v in self.results)


def told_shapes(array: np.ndarray) -> list[tuple[int, int, int]]:
    """The shapes of the inputs that tell the numbers of `array`: without elements, what is above 0 in the
    second dimension and what is below in the third."""
    numbers = (max(-FARTHEST, min(FARTHEST, n)) for n in array.reshape(-1).tolist())
    return [(0, max(n, 0), max(-n, 0)) for n in numbers]


def _told(builder: Builder, value: Value, shape: Sequence[int]) -> Value:
    """The numbers of `value`, of this shape, made of the dimensions of inputs."""
    from ovjit.rewrite.writer import Writer  # what has been compiled is cut without any passes

    w, attrs = Writer(builder, value.node), {"shape": (0, ANY, ANY), "element_type": "u8"}
    parts: list[Value] = []
    for _ in range(math.prod(shape)):
        told = builder.add("Parameter", (), attrs, name=f"{value.node.name}/told").output
        _, above, below = w.shape(told)
        parts.append(w("Subtract", above.value, below.value))
    whole = parts[0] if len(parts) == 1 else w("Concat", *parts, axis=0)
    if len(shape) != 1:
        whole = w("Reshape", whole, shape, special_zero=False)
    return whole if value.dtype == "i64" else w("Convert", whole, destination_type=value.dtype)


def _bounds(node: Node) -> list[tuple[int, Value]]:
    """The inputs that are bounds, and their numbers."""
    return [(i, node.inputs[i]) for i in node.op.bounds if i < len(node.inputs)]


def _may_be_told(value: Value, types: Mapping[Value, Any]) -> bool:
    """Whether this is so few integers that they can be told to a plan."""
    shape = types[value].shape
    return value.dtype in ("i32", "i64") and is_static(shape) and 0 < math.prod(shape) <= MOST_TOLD


def _fates(graph: Graph, types: Mapping[Value, Any], may_tell: bool) -> dict[Node, int]:
    """What becomes of each node."""
    fate: dict[Node, int] = {}
    for node in graph.nodes:
        texts = any(v.dtype == "string" for v in (*node.inputs, *node.outputs))
        sources = {fate[v.node] for v in node.inputs}
        if node.op.role == "constant":
            fate[node] = KNOWN
        elif node.op.role == "parameter":  # also one without elements, all of which would be known
            fate[node] = BEFORE
        elif LATER in sources or (HOST in sources and not texts):
            fate[node] = LATER
        elif not texts and all(types[v].value is not None for v in node.outputs):
            fate[node] = KNOWN
        elif texts or not all(is_static(types[v].shape) for v in node.outputs):
            unknown = [v for _, v in _bounds(node) if fate[v.node] != KNOWN]
            told = may_tell and not texts and unknown and all(_may_be_told(v, types) for v in unknown)
            fate[node] = LATER if told else HOST
        else:
            fate[node] = BEFORE
    return fate


def _replaced_later(graph: Graph, fate: Mapping[Node, int]) -> list[Node]:
    """The replaced nodes that can be asked when the later nodes run, and no sooner."""
    found: dict[Node, None] = {}
    for node in graph.replaced:
        late = (v.node in found or fate.get(v.node) in (HOST, LATER) for v in node.inputs)
        if any(late) and all(v.dtype != "string" for v in node.inputs):  # those are the host's alone
            found[node] = None
    return list(found)


def _part(graph: Graph, outputs: Iterable[Value], replaced: Sequence[Node]) -> Graph:
    """The part of `graph` that `outputs` need, with only the inputs that it and `replaced` nodes read."""
    outputs = tuple(outputs)
    needed = makers(outputs, graph.nodes)
    replaced = with_sources(replaced, graph.nodes, needed)
    needed.update(v.node for node in replaced for v in node.inputs if v.node.op.role == "parameter")
    inputs = (v for v in graph.inputs if v.node in needed)
    return Graph(inputs, (n for n in graph.nodes if n in needed), outputs, replaced)
