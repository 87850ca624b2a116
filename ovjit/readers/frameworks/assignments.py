"""Assignments to variables of frozen graphs: those that no result depends on are left out."""

from __future__ import annotations

import re
from typing import Any

from ovjit.errors import UnsupportedError
from ovjit.readers.frameworks.names import node_of, source_of

_ASSIGNMENTS = ("AssignVariableOp", "AssignAddVariableOp", "AssignSubVariableOp")
#: Names of reads, which are Identity nodes in a frozen graph.
_READ = re.compile(r"(^|/)ReadVariableOp(_\d+)?$")


def without_assignments(graph: Any, outputs: list[str]) -> Any:
    """A frozen graph without nodes that assign to variables, which are constants now: a model does not keep
    their new values for the next call.

    Nodes are in the order of the program. Raises UnsupportedError if an output depends on what a variable
    holds after an assignment.
    """
    nodes = {node.name: node for node in graph.node}
    places = {name: i for i, name in enumerate(nodes)}
    assignments = {name: node for name, node in nodes.items() if node.op in _ASSIGNMENTS}
    if not assignments:
        return graph
    first: dict[str, int] = {}
    for name, node in assignments.items():
        first.setdefault(_variable(nodes, node.input[0]), places[name])
    for name in needed_nodes(nodes, outputs):
        for value in nodes[name].input:
            if places[name] > first.get(_variable(nodes, value), len(nodes)):
                raise UnsupportedError(
                    f"{name} reads a variable after an assignment to it: variables are constants in a model. "
                    "Return the new value, and use that"
                )
    for i in reversed(range(len(graph.node))):
        node = graph.node[i]
        if node.name in assignments:
            del graph.node[i]
        else:
            kept = [value for value in node.input if value.removeprefix("^") not in assignments]
            node.input[:] = kept
    return graph


def _variable(nodes: dict[str, Any], tensor: str) -> str:
    """The constant that stands for a variable, from which Identity nodes lead to a tensor. What is behind a
    read of the variable is no variable."""
    return source_of(nodes, tensor, _READ.search)


def needed_nodes(nodes: dict[str, Any], outputs: list[str]) -> list[str]:
    """The nodes whose values outputs are computed from."""
    needed: dict[str, None] = {}
    queue = [node_of(name) for name in outputs]
    while queue:
        name = queue.pop()
        if name in nodes and name not in needed:
            needed[name] = None
            queue += [node_of(value) for value in nodes[name].input if not value.startswith("^")]
    return list(needed)
