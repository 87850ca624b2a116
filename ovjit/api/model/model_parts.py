"""Parts of a Model: its inputs, outputs, variables and nodes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from ovjit.api.accessors import accessor
from ovjit.api.arguments import ONLY, expect, explain_calls
from ovjit.api.model.boundary import Parameter, Result
from ovjit.api.model.model_forms import index_of, port_index, port_key
from ovjit.api.model.node import GRAPH_LOCK, ConstOutput, Node, Output
from ovjit.api.model.variables import Variable, variable_of
from ovjit.errors import ModelError
from ovjit.graph.graph import walk
from ovjit.graph.shapes import is_static

if TYPE_CHECKING:
    from ovjit.api.tensors.shapes import PartialShape
    from ovjit.api.tensors.types import Type
    from ovjit.api.tensors.vectors import Shape


@explain_calls
class ModelParts:
    """Results, the parameters they need, sinks, variables and a name; nothing here changes them."""

    _parameters: list[Parameter]
    _results: list[Result]
    _sinks: list[Node]
    _variables: list[Any]
    _removed: set[str]  # names of variables that are no longer told of
    _name: str
    _friendly_name: str
    #: Reads parts that wait for the types of inputs. It takes the model, and whether they are needed now.
    _complete: Callable[[Any, bool], None] | None = None

    @property
    def inputs(self) -> list[Output]:
        return [p.output(0) for p in self._parameters]

    @property
    def outputs(self) -> list[Output]:
        return [r.output(0) for r in self._results]

    def input(self, key: int | str = ONLY, /, **named: Any) -> Output:
        """The input at an index or with a tensor name; without either, the only one.

        Raises RuntimeError for an unknown name or several inputs, IndexError for an index past the end,
        TypeError for a negative index or another kind of key.
        """
        return self._parameters[self._port(port_key(key, named), self._parameters, "input")].output(0)

    def output(self, key: int | str = ONLY, /, **named: Any) -> Output:
        """The output at an index or with a tensor name; without either, the only one. Raises as `input`."""
        return self._results[self._port(port_key(key, named), self._results, "output")].output(0)

    def _port(self, key: Any, nodes: Sequence[Node], what: str) -> int:
        if key is ONLY:
            if len(nodes) != 1:
                raise ModelError(
                    f"{what}() must be called on a Model with exactly one "
                    f"{'parameter' if what == 'input' else 'result'}. It has {len(nodes)}: pass an "
                    "index or a tensor name"
                )
            return 0
        if isinstance(key, str):
            for i, node in enumerate(nodes):
                if key in node._tensors[0]._names:
                    return i
            for i, node in enumerate(nodes):  # a Result is found by the names of what it takes as well
                if any(key in source._tensor._names for source in node._inputs):
                    return i
            available = ", ".join(sorted(name for node in nodes for name in node._tensors[0]._names))
            raise ModelError(
                f"{what.capitalize()} for tensor name {key!r} is not found. Available names: "
                f"{available or 'none'}"
            )
        return port_index(key, len(nodes), what)

    def _read_rest(self, needed: bool) -> None:
        """Read what waits for the types of inputs, as far as these are known. Raises RuntimeError for what is
        needed and cannot be read."""
        if self._complete is not None:
            self._complete(self, needed)

    def get_parameters(self) -> list[Parameter]:
        return list(self._parameters)

    def get_results(self) -> list[Result]:
        return list(self._results)

    def get_result(self) -> Result:
        """The only result. Raises RuntimeError if there are several."""
        if len(self._results) != 1:
            raise ModelError(f"the model has {len(self._results)} results; exactly one is expected")
        return self._results[0]

    def get_sinks(self) -> list[Node]:
        return list(self._sinks)

    def get_variables(self) -> list[Variable]:
        """The variables that were given, and those of nodes, first of the sinks in their order. Without those
        that were removed."""
        with GRAPH_LOCK:
            excluded = {variable.info.variable_id for variable in self._variables}
            excluded |= {"", *self._removed}
            users: dict[str, Node] = {}
            for node in self._walk():
                if node._op.role in ("read", "assign"):
                    users.setdefault(node._attrs["variable_id"], node)
            first = (sink._attrs["variable_id"] for sink in self._sinks if sink._op.role == "assign")
            missing = (key for key in dict.fromkeys((*first, *users)) if key not in excluded)
            self._variables += [variable_of(users[key]) for key in missing]
            return list(self._variables)

    def get_variable_by_id(self, variable_id: str) -> Variable | None:
        expect(variable_id, str, "a variable has a str as its name")
        for variable in self.get_variables():
            if variable.info.variable_id == variable_id:
                return variable
        return None

    def get_parameter_index(self, parameter: Parameter) -> int:
        """The index of a parameter, -1 if it is none of this model's."""
        expect(parameter, Parameter)
        return index_of(parameter, self._parameters)

    def get_result_index(self, value: Any = None, *, result: Any = None) -> int:
        """The index of a Result, of its output or of the output that it takes; -1 if there is none."""
        value = result if value is None else value
        if isinstance(value, Result):
            return index_of(value, self._results)
        expect(value, (Output, ConstOutput), "expected an Output")
        indices = (i for i, r in enumerate(self._results) if value in (r.output(0), r.input_value(0)))
        return next(indices, -1)

    def get_sink_index(self, value: Any = None, *, sink: Any = None) -> int:
        """The index of a sink or of its output; -1 if it is none of this model's."""
        end = sink if value is None else value
        node = end._node if isinstance(end, Output) else end
        if not isinstance(node, Node):
            raise TypeError("Incorrect argument type. Sink node is expected as argument.")
        return index_of(node, self._sinks)

    def get_output_size(self) -> int:
        return len(self._results)

    def get_output_op(self, index: int) -> Result:
        return self._results[port_index(index, len(self._results), "output")]

    def get_output_element_type(self, index: int) -> Type:
        return self.get_output_op(index).get_output_element_type(0)

    def get_output_shape(self, index: int) -> Shape:
        return self.get_output_op(index).get_output_shape(0)

    def get_output_partial_shape(self, index: int) -> PartialShape:
        return self.get_output_op(index).get_output_partial_shape(0)

    def get_name(self) -> str:
        """A name that no other model of this process has."""
        return self._name

    def get_friendly_name(self) -> str:
        return self._friendly_name or self._name

    def set_friendly_name(self, name: str) -> None:
        self._friendly_name = expect(name, str, "a name is a str")

    def is_dynamic(self) -> bool:
        """Whether an output of any node has a dynamic dimension."""
        with GRAPH_LOCK:
            return not all(is_static(t._type.shape) for node in self._walk() for t in node._tensors)

    name = accessor(get_name)
    friendly_name = accessor(get_friendly_name, set_friendly_name)
    parameters = accessor(get_parameters)
    results = accessor(get_results)
    result = accessor(get_result)
    sinks = accessor(get_sinks)
    variables = accessor(get_variables)
    dynamic = accessor(is_dynamic)

    # -- nodes ---------------------------------------------------------------------------------------------

    def _walk(self) -> list[Node]:
        """All nodes, producers first, parameters before all others."""
        return self._walk_from((*self._parameters, *self._results, *self._sinks))

    @staticmethod
    def _walk_from(ends: Iterable[Node]) -> list[Node]:
        """All nodes that the given ones need, and these, producers first."""
        return list(walk(dict.fromkeys(ends), _before))

    def get_ordered_ops(self) -> list[Node]:
        """All nodes, producers first: parameters, then the branches of the results, the last one's first.
        Raises RuntimeError if there is a cycle."""
        with GRAPH_LOCK:
            return list(walk(self._ends(), _before))

    def get_ops(self) -> list[Node]:
        """All nodes: parameters, then each result before its producers, the last one's branch first."""
        with GRAPH_LOCK:
            pending, visited = list(reversed(self._ends())), dict[Node, None]()
            while pending:
                node = pending.pop()
                if node not in visited:
                    visited[node] = None
                    pending += [source._node for source in node._inputs]
                    pending += node._after
            return list(visited)

    def _ends(self) -> list[Node]:
        """Parameters, sinks and results, each from the last to the first."""
        ends = (*reversed(self._parameters), *reversed(self._sinks), *reversed(self._results))
        return list(dict.fromkeys(ends))

    def _get_raw_address(self) -> int:
        """A number that stands for this model, as long as it lives."""
        return id(self)

    def _checked_walk(self) -> list[Node]:
        """As `_walk`. Raises RuntimeError when a parameter is needed that the model does not declare."""
        nodes, declared = self._walk(), set(self._parameters)
        missing = [n for n in nodes if isinstance(n, Parameter) and n not in declared]
        if missing:
            raise ModelError(f"Model references undeclared parameters: {', '.join(map(repr, missing))}")
        return nodes

    def _check_variables(self) -> None:
        """Raises RuntimeError when a variable is needed that the model does not declare."""
        declared = {variable.info.variable_id for variable in self._variables}
        stateful = (node for node in self._walk() if node._op.role in ("read", "assign"))
        missing = {str(node._attrs["variable_id"]) for node in stateful} - declared
        if missing:
            raise ModelError(f"Model references undeclared variables: {', '.join(sorted(missing))}")


def _before(node: Node) -> list[Node]:
    """The nodes that come before one: of an Assign first its ReadValue, then those whose outputs it takes."""
    return [*node._after, *(source._node for source in node._inputs)]
