"""Assignments to variables of frozen graphs, in which variables are constants.

What is read after an assignment is what was assigned: a tensor of the graph. A branch that assigns gets the
new value as another result, and a loop carries it. A value that depends on what the variable held before the
call is refused, as a model does not keep values from call to call.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

from ovjit.errors import UnsupportedError
from ovjit.readers.frameworks.names import node_of, source_of, with_own_names

_ADDED = {"AssignAddVariableOp": "AddV2", "AssignSubVariableOp": "Sub"}
_ASSIGNMENTS = ("AssignVariableOp", *_ADDED)
_BRANCHES = ("If", "StatelessIf")
_LOOPS = ("While", "StatelessWhile")
#: Names of reads, which are Identity nodes in a frozen graph.
_READ = re.compile(r"(^|/)ReadVariableOp(_\d+)?$")


def without_assignments(graph: Any, outputs: list[str]) -> Any:
    """A frozen graph without nodes that assign to variables. Nodes are in the order of the program.

    Raises UnsupportedError if an output depends on a variable whose value is not known from the call alone.
    """
    functions = {function.signature.name: function for function in graph.library.function}
    inside = any(_assigns(function.node_def) for function in functions.values())
    if not inside and not _assigns(graph.node):
        return graph
    if inside:
        graph = with_own_names(graph)
        functions = {function.signature.name: function for function in graph.library.function}
    body = _Body(graph.node, functions, "{0}:{2}".format)
    body.follow()
    nodes = {node.name: node for node in graph.node}
    for name in needed_nodes(nodes, outputs):
        if name in body.refused:
            raise UnsupportedError(
                f"{name} reads a variable after an assignment to it, and what it held before: variables are "
                "constants in a model. Return the new value, and use that"
            )
    return graph


def _assigns(nodes: Iterable[Any]) -> bool:
    return any(node.op in _ASSIGNMENTS for node in nodes)


class _Body:
    """The nodes of a graph or of a function, and what variables hold.

    `known` are arguments of a function that hold values of the call. `tensor` gives the name of an output, by
    its node, the name of the output and its place.
    """

    def __init__(
        self, nodes: Any, functions: dict[str, Any], tensor: Callable[[str, str, int], str],
        variables: Iterable[str] = (),
    ) -> None:  # fmt: skip
        self.nodes, self.functions, self.tensor = nodes, functions, tensor
        self.by_name = {node.name: node for node in nodes}
        #: Of variables that are assigned to: the tensor that each holds, None where it is not known.
        self.state: dict[str, str | None] = {name: name for name in variables}
        #: Nodes that read what is not known.
        self.refused: set[str] = set()
        self.kinds: dict[str, int] = {}

    def follow(self) -> None:
        """Replace variables by the tensors that they hold, and drop assignments."""
        nodes = [type(node).FromString(node.SerializeToString()) for node in self.nodes]
        assignments = {node.name for node in nodes if node.op in _ASSIGNMENTS}
        del self.nodes[:]
        for node in nodes:
            if node.op in _ASSIGNMENTS:
                self._assign(node)
                continue
            node.input[:] = [value for value in node.input if value.removeprefix("^") not in assignments]
            original_inputs = dict(enumerate(node.input))
            self._read(node)
            result = self.nodes.add()
            result.CopyFrom(node)
            self.by_name[node.name] = result
            if node.op in _BRANCHES:
                self._branch(result, original_inputs)
            elif node.op in _LOOPS:
                self._loop(result, original_inputs)

    def variable(self, tensor: str) -> str:
        """The constant or argument that stands for a variable, from which Identity nodes lead to a tensor.
        What is behind a read of the variable is no variable."""
        return source_of(self.by_name, tensor, _READ.search)

    def _read(self, node: Any) -> None:
        if node.op == "Identity" and not _READ.search(node.name):
            return  # what uses it is led to the variable
        for i, value in enumerate(node.input):
            name = "" if value.startswith("^") else self.variable(value)
            if name not in self.state:
                continue
            tensor = self.state[name]
            if tensor is None:
                self.refused.add(node.name)
            else:
                node.input[i] = tensor

    def _assign(self, node: Any) -> None:
        name = self.variable(node.input[0])
        source = self.variable(node.input[1])
        value = self.state.get(source, node.input[1]) if source in self.state else node.input[1]
        self.kinds[name] = node.attr["dtype"].type
        before = self.state.get(name)
        if value is None or node.op not in _ADDED:
            self.state[name] = value
            return
        if before is not None:
            result = self.nodes.add()
            result.name, result.op = node.name, _ADDED[node.op]
            result.input[:] = [before, value]
            result.attr["T"].type = node.attr["dtype"].type
            self.by_name[result.name] = result
        self.state[name] = None if before is None else self.tensor(node.name, "z", 0)

    def _inner(self, function: Any, values: list[str]) -> _Body:
        """The body of a function whose arguments have the values `values`."""
        arguments = [argument.name for argument in function.signature.input_arg]
        pairs = zip(arguments, values, strict=False)
        variables = [
            argument for argument, value in pairs if self.state.get(self.variable(value)) is not None
        ]
        body = _Body(function.node_def, self.functions, "{0}:{1}:{2}".format, variables)
        body.follow()
        remaining_nodes = {node.name for node in function.node_def}
        for key in [key for key, name in function.control_ret.items() if name not in remaining_nodes]:
            del function.control_ret[key]
            function.signature.control_output.remove(key)
        return body

    def _branch(self, node: Any, inputs: dict[int, str]) -> None:
        values = [inputs[i] for i in range(1, len(inputs)) if not inputs[i].startswith("^")]
        branches = [self.functions[node.attr[key].func.name] for key in ("then_branch", "else_branch")]
        bodies = [self._inner(function, values) for function in branches]
        if any(body.refused for body in bodies):
            self.refused.add(node.name)
        for index, value in enumerate(values):
            name = self.variable(value)
            assigned = [
                (body, function, function.signature.input_arg[index].name)
                for body, function in zip(bodies, branches, strict=True)
            ]
            kinds = [body.kinds[argument] for body, _, argument in assigned if argument in body.kinds]
            if not kinds:
                continue
            self.kinds[name] = kinds[0]
            if any(body.state.get(argument) is None for body, _, argument in assigned):
                self.state[name] = None
                continue
            for body, function, argument in assigned:
                result = function.signature.output_arg.add()
                result.name, result.type = f"{argument}_assigned", kinds[0]
                function.ret[result.name] = body.state[argument]
            self.state[name] = self.tensor(node.name, "output", len(node.attr["Tout"].list.type))
            node.attr["Tout"].list.type.append(kinds[0])
            if node.attr["output_shapes"].list.shape:
                node.attr["output_shapes"].list.shape.add().unknown_rank = True

    def _loop(self, node: Any, inputs: dict[int, str]) -> None:
        values = [inputs[i] for i in range(len(inputs)) if not inputs[i].startswith("^")]
        function = self.functions[node.attr["body"].func.name]
        body = self._inner(function, values)
        if body.refused:
            self.refused.add(node.name)
        for index, value in enumerate(values):
            argument = function.signature.input_arg[index].name
            if argument not in body.kinds:
                continue
            name, tensor = self.variable(value), body.state[argument]
            self.kinds[name] = body.kinds[argument]
            if tensor is None or self.state.get(name) is None:
                # the next turn reads what the call did not assign
                self.state[name] = None
                self.refused.add(node.name)
                continue
            function.ret[function.signature.output_arg[index].name] = tensor
            self.state[name] = self.tensor(node.name, "output", index)


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
