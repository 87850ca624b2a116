"""Names in a graph of TensorFlow, for its exporter.

The exporter puts functions into the graph that uses them: it binds their arguments to names of that graph,
and renames their nodes one by one. Where a function has a name of the graph around it, an argument may be
bound to the function's own node. The order of the nodes decides, which may differ between processes.
It also changes the function itself, so that a second use finds what the first one left.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ovjit.errors import UnsupportedError

#: The domain of TensorFlow's operators that the exporter leaves as they are.
MARKED = "tensorflow"
#: The functions of a graph have at most this many nodes, counted once for each use.
MOST_NODES = 1 << 20


def with_own_names(graph: Any) -> Any:
    """The GraphDef with one copy of a function for each call. Names of nodes and arguments are unique."""
    if not graph.library.function:
        return graph
    return _Copies(graph).graph


class _Copies:
    def __init__(self, graph: Any) -> None:
        self.functions_by_name = {function.signature.name: function for function in graph.library.function}
        #: How often a name is used, of nodes and of functions.
        self.used = Counter(node.name for node in graph.node)
        self.functions: Counter[str] = Counter()
        self.active: list[str] = []
        self.nodes = 0
        self.graph = type(graph)()
        self.graph.CopyFrom(graph)
        self.graph.ClearField("library")
        for node in self.graph.node:
            self._follow(node)

    def _follow(self, node: Any) -> None:
        """Give a node its own copies of the functions that it calls. Recursive calls stay as they are."""
        if node.op in self.functions_by_name and node.op not in self.active:
            node.op = self._copy(node.op)
        for function in _functions(node):
            if function.name in self.functions_by_name and function.name not in self.active:
                function.name = self._copy(function.name)

    def _copy(self, name: str) -> str:
        function = self.graph.library.function.add()
        function.CopyFrom(self.functions_by_name[name])
        self.nodes += len(function.node_def)
        if self.nodes > MOST_NODES:
            raise UnsupportedError("functions of the graph are used too often")
        function.signature.name = _new_name(name, self.functions)
        # TensorFlow's optimiser takes results and nodes of one name for each other
        self.used.update(result.name for result in function.signature.output_arg)
        new_names = {one.name: _new_name(one.name, self.used) for one in _owners(function)}
        for one in _owners(function):
            one.name = new_names[one.name]
        for node in function.node_def:
            node.input[:] = [rename_tensor(value, new_names) for value in node.input]
            node.attr.pop("_class", None)  # names of nodes beside which it is placed
        for ends in (function.ret, function.control_ret):
            for key in list(ends):
                ends[key] = rename_tensor(ends[key], new_names)
        self.active.append(name)
        for node in function.node_def:
            self._follow(node)
        self.active.pop()
        return str(function.signature.name)


def _owners(function: Any) -> Iterator[Any]:
    """Yields the named parts of a function: its arguments and its nodes."""
    yield from function.signature.input_arg
    yield from function.node_def


def _functions(node: Any) -> Iterator[Any]:
    """The references of a node to functions."""
    for key in sorted(node.attr):
        attribute = node.attr[key]
        if attribute.HasField("func"):
            yield attribute.func
        yield from attribute.list.func


def node_of(tensor: str) -> str:
    """The node that gives a tensor."""
    return tensor.partition(":")[0]


def source_of(nodes: Mapping[str, Any], tensor: str, ends: Callable[[str], Any] = lambda name: False) -> str:
    """The node that a tensor comes from, through Identity nodes. A node whose name fits `ends` ends the
    search."""
    name = node_of(tensor)
    while name in nodes and nodes[name].op == "Identity" and not ends(name):
        name = node_of(nodes[name].input[0])
    return name


def node_before(name: str) -> str:
    """The node that an input refers to: the source of its tensor, or of a control dependency."""
    return node_of(name.removeprefix("^"))


def read_nodes(graph: Any) -> set[str]:
    """The names of nodes that others read or have as control dependencies."""
    return {node_before(name) for node in graph.node for name in node.input}


def rename_tensor(tensor: str, new_names: dict[str, str]) -> str:
    """The new name of a tensor, or of a control dependency."""
    waits = "^" * tensor.startswith("^")
    name, colon, port = tensor.removeprefix("^").partition(":")
    return f"{waits}{new_names.get(name, name)}{colon}{port}"


def _new_name(name: str, used: Counter[str]) -> str:
    """An unused name, which is added to `used`."""
    result = name
    while result in used:
        result = f"{name}_{used[name]}"
        used[name] += 1
    used[result] += 1
    return result
