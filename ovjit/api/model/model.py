"""`Model`: a graph with declared inputs and outputs, that the user may edit and `compile_model` captures."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ovjit import injected
from ovjit.api.arguments import public_name
from ovjit.api.model.boundary import Parameter, Result
from ovjit.api.model.model_forms import (
    ONLY,
    copy_map,
    copy_node,
    model_arguments,
    name_tensor,
    port_index,
    port_key,
    result_of,
    rt_path,
    shape_dims,
)
from ovjit.api.model.node import GRAPH_LOCK, ConstOutput, DescriptorTensor, Node, Output
from ovjit.api.model.rt_info import OVAny, RTMap, lookup, plain_value
from ovjit.api.model.variables import Variable, variable_of
from ovjit.api.tensors.convert import marked_dims_of
from ovjit.api.tensors.shapes import PartialShape
from ovjit.errors import ModelError, no_such_form
from ovjit.graph.graph import Builder, Graph, Value, walk
from ovjit.graph.op import TensorType
from ovjit.graph.shapes import Dim, is_static
from ovjit.graph.symbolic import unmarked

_numbers = itertools.count()


class Model:
    """A model: results, the parameters they need (more may be declared), and a name.

    `Model(results, [sinks,] parameters, [variables,] name="")`, where results is a Node, or a sequence of
    only Results, only Nodes or only Outputs; or `Model(model)`, which shares the nodes. Names that parameters
    and results have now become tensor names where there are none.
    Raises TypeError for other arguments, RuntimeError when an undeclared parameter is needed.
    """

    _parameters: list[Parameter]
    _results: list[Result]
    _sinks: list[Node]
    _variables: list[Any]
    _removed: set[str]

    #: False where the file that it was read from named others, whose data it has.
    _of_one_file = True

    def __init__(self, *args: Any, **kwargs: Any):
        if isinstance(kwargs.get("other", args[0] if args else None), Model) and len(args) + len(kwargs) == 1:
            other: Model = kwargs.get("other") or args[0]
            self._setup(other._results, other._parameters, other._sinks, other._friendly_name)
            return
        results, sinks, parameters, variables, name = model_arguments(args, kwargs)
        self._setup([result_of(r) for r in results], parameters, sinks, name, variables)
        self._checked_walk()
        with GRAPH_LOCK:
            for node in (*self._parameters, *self._results):
                name_tensor(node)

    @classmethod
    def _from_parts(
        cls,
        results: Sequence[Result],
        parameters: Sequence[Parameter],
        sinks: Sequence[Node] = (),
        name: str = "",
    ) -> Model:
        """A model whose tensors get no names but those they have, as one read from a file."""
        model = cls.__new__(cls)
        model._setup(results, parameters, sinks, name)
        model._checked_walk()
        return model

    def _setup(
        self,
        results: Sequence[Result],
        parameters: Sequence[Parameter],
        sinks: Sequence[Node],
        name: str,
        variables: Sequence[Any] = (),
    ) -> None:
        self._results = list(results)
        self._parameters = list(parameters)
        self._sinks = list(sinks)
        self._variables = list(variables)
        self._removed: set[str] = set()  # names of variables that are no longer told of
        self._name = f"Model{next(_numbers)}"
        self._friendly_name = name
        self._rt: dict[str, Any] = {}

    def _checked_walk(self) -> list[Node]:
        """As `_walk`. Raises RuntimeError when a parameter is needed that the model does not declare."""
        nodes, declared = self._walk(), set(self._parameters)
        missing = [n for n in nodes if isinstance(n, Parameter) and n not in declared]
        if missing:
            raise ModelError(f"Model references undeclared parameters: {', '.join(map(repr, missing))}")
        return nodes

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"'Model' object has no attribute {name!r} or attribute is no longer accessible."
        )

    def __enter__(self) -> Model:
        return self

    def __exit__(self, *exc: object) -> None:
        self.__dict__.clear()

    # -- ports ---------------------------------------------------------------------------------------------

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
                    f"{'parameter' if what == 'input' else 'result'}. It has {len(nodes)}: name the one or "
                    "give its index"
                )
            return 0
        if isinstance(key, str):
            for i, node in enumerate(nodes):
                if key in node._tensors[0]._names:
                    return i
            for i, node in enumerate(nodes):  # a Result is found by the names of what it takes as well
                if any(key in source._tensor._names for source in node._inputs):
                    return i
            known = ", ".join(sorted(name for node in nodes for name in node._tensors[0]._names))
            raise ModelError(
                f"{what.capitalize()} for tensor name {key!r} is not found. The names are: {known or 'none'}"
            )
        return port_index(key, len(nodes), what)

    def get_parameters(self) -> list[Parameter]:
        return list(self._parameters)

    def get_results(self) -> list[Result]:
        return list(self._results)

    def get_result(self) -> Result:
        """The only result. Raises RuntimeError if there are several."""
        if len(self._results) != 1:
            raise ModelError(f"the model has {len(self._results)} results, not one")
        return self._results[0]

    def get_sinks(self) -> list[Node]:
        return list(self._sinks)

    def get_variables(self) -> list[Variable]:
        """The variables that were given, and those of nodes, first of the sinks in their order. Without those
        that were removed."""
        with GRAPH_LOCK:
            known = {variable.info.variable_id for variable in self._variables}
            known |= {"", *self._removed}
            users: dict[str, Node] = {}
            for node in self._walk():
                if node._op.role in ("read", "assign"):
                    users.setdefault(node._attrs["variable_id"], node)
            first = (sink._attrs["variable_id"] for sink in self._sinks if sink._op.role == "assign")
            missing = (key for key in dict.fromkeys((*first, *users)) if key not in known)
            self._variables += [variable_of(users[key]) for key in missing]
            return list(self._variables)

    def get_variable_by_id(self, variable_id: str) -> Variable | None:
        if not isinstance(variable_id, str):
            raise no_such_form(f"a variable has a str as its name, not {type(variable_id).__name__}")
        for variable in self.get_variables():
            if variable.info.variable_id == variable_id:
                return variable
        return None

    def get_parameter_index(self, parameter: Parameter) -> int:
        """The index of a parameter, -1 if it is none of this model's."""
        if not isinstance(parameter, Parameter):
            raise no_such_form(f"expected a Parameter, not {type(parameter).__name__}")
        return next((i for i, p in enumerate(self._parameters) if p is parameter), -1)

    def get_result_index(self, value: Any = None, *, result: Any = None) -> int:
        """The index of a Result, of its output or of the output that it takes; -1 if there is none."""
        value = result if value is None else value
        if isinstance(value, Result):
            return next((i for i, r in enumerate(self._results) if r is value), -1)
        if not isinstance(value, (Output, ConstOutput)):
            raise no_such_form(f"expected an Output, not {type(value).__name__}")
        found = (i for i, r in enumerate(self._results) if value in (r.output(0), r.input_value(0)))
        return next(found, -1)

    def get_sink_index(self, value: Any = None, *, sink: Any = None) -> int:
        """The index of a sink or of its output; -1 if it is none of this model's."""
        given = sink if value is None else value
        node = given._node if isinstance(given, Output) else given
        if not isinstance(node, Node):
            raise TypeError("Incorrect argument type. Sink node is expected as argument.")
        return next((i for i, s in enumerate(self._sinks) if s is node), -1)

    def get_output_size(self) -> int:
        return len(self._results)

    def get_output_op(self, index: int) -> Result:
        return self._results[port_index(index, len(self._results), "output")]

    def get_output_element_type(self, index: int) -> Any:
        return self.get_output_op(index).get_output_element_type(0)

    def get_output_shape(self, index: int) -> Any:
        return self.get_output_op(index).get_output_shape(0)

    def get_output_partial_shape(self, index: int) -> Any:
        return self.get_output_op(index).get_output_partial_shape(0)

    def get_name(self) -> str:
        """A name that no other model of this process has."""
        return self._name

    def get_friendly_name(self) -> str:
        return self._friendly_name or self._name

    def set_friendly_name(self, name: str) -> None:
        if not isinstance(name, str):
            raise no_such_form(f"a name is a str, not {type(name).__name__}")
        self._friendly_name = name

    def is_dynamic(self) -> bool:
        """Whether an output of any node has an open dimension."""
        with GRAPH_LOCK:
            return not all(is_static(t._type.shape) for node in self._walk() for t in node._tensors)

    name = property(get_name)
    friendly_name = property(get_friendly_name, set_friendly_name)
    parameters = property(get_parameters)
    results = property(get_results)
    result = property(get_result)
    sinks = property(get_sinks)
    variables = property(get_variables)
    dynamic = property(is_dynamic)

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
            pending, seen = list(reversed(self._ends())), dict[Node, None]()
            while pending:
                node = pending.pop()
                if node not in seen:
                    seen[node] = None
                    pending += [source._node for source in node._inputs]
                    pending += node._after
            return list(seen)

    def _ends(self) -> list[Node]:
        """Parameters, sinks and results, each from the last to the first."""
        ends = (*reversed(self._parameters), *reversed(self._sinks), *reversed(self._results))
        return list(dict.fromkeys(ends))

    def _get_raw_address(self) -> int:
        """A number that stands for this model, as long as it lives."""
        return id(self)

    def add_outputs(self, outputs: Any) -> list[Output]:
        """Make outputs of a tensor name, an (operation name, port) or an Output, or of a list of these.

        An output that a Result takes or gives already is that Result's, even if the model has it no longer.
        Inputs and outputs without a tensor name get their friendly name. Raises RuntimeError for a name that
        is not there, TypeError for another kind of object.
        """
        wanted = outputs if isinstance(outputs, list) else [outputs]
        with GRAPH_LOCK:
            sources = [
                self._find_output(item, f" at index {i}" if isinstance(outputs, list) else "")
                for i, item in enumerate(wanted)
            ]
            added = []
            for source in sources:
                if isinstance(source.get_node(), Result):
                    added.append(source)
                    continue
                takers = (port.get_node() for port in source.get_target_inputs())
                result = next((node for node in takers if isinstance(node, Result)), None)
                if result is None:
                    result = Result._of(source)
                    name_tensor(result)
                    self._results.append(result)
                added.append(result.output(0))
            for node in (*self._parameters, *self._results):
                name_tensor(node)
            return added

    def _find_output(self, item: Any, where: str) -> Output:
        if isinstance(item, Output):
            return item
        if isinstance(item, str):
            for node in self._walk():
                for port, tensor in enumerate(node._tensors):
                    if item in tensor._names and not isinstance(node, Result):
                        return node.output(port)
            raise ModelError(f"Model::add_output. Tensor name {item!r} was not found.")
        if (
            isinstance(item, tuple)
            and len(item) == 2
            and isinstance(item[0], str)
            and isinstance(item[1], int)
        ):
            for node in self._walk():
                if node.get_friendly_name() == item[0]:
                    if not 0 <= item[1] < len(node._tensors):
                        raise ModelError(
                            f"Cannot add output to port {item[1]} operation {item[0]} has only "
                            f"{len(node._tensors)} outputs."
                        )
                    return node.output(item[1])
            raise ModelError(f"Model::add_output. Operation with name {item[0]!r} was not found.")
        raise TypeError(
            f"Incorrect type of a value to add as output{where}. It is {type(item).__name__}, not a str, "
            "(str, int) or Output"
        )

    def add_results(self, results: Sequence[Result]) -> None:
        self._edit(self._results, results, Result)

    def remove_result(self, result: Result) -> None:
        self._remove(self._results, result, Result)

    def add_parameters(self, parameters: Sequence[Parameter]) -> None:
        self._edit(self._parameters, parameters, Parameter)

    def remove_parameter(self, parameter: Parameter) -> None:
        """Drop an input. Nodes that need it make the model invalid until they get another source."""
        self._remove(self._parameters, parameter, Parameter)

    def add_sinks(self, sinks: Sequence[Any]) -> None:
        self._edit(self._sinks, [s._node if isinstance(s, Output) else s for s in sinks], Node)

    def remove_sink(self, sink: Any) -> None:
        self._remove(self._sinks, sink._node if isinstance(sink, Output) else sink, Node)

    def add_variables(self, variables: Sequence[Any]) -> None:
        if any(not isinstance(variable, Variable) for variable in variables):
            raise no_such_form("add_variables takes a list of Variables")
        self._variables.extend(variables)

    def remove_variable(self, variable: Any) -> None:
        """Tell of it no longer. Nodes keep it, and a compiled model has it as long as there is one."""
        self._remove(self._variables, variable, Variable)
        self._removed.add(variable.info.variable_id)

    def _edit(self, into: list[Any], nodes: Sequence[Any], kind: type) -> None:
        if not isinstance(nodes, Sequence):
            raise no_such_form(f"expected a list of {kind.__name__}, not {type(nodes).__name__}")
        for node in nodes:
            if not isinstance(node, kind):
                raise no_such_form(f"expected a {kind.__name__}, not {type(node).__name__}")
        with GRAPH_LOCK:
            into.extend(nodes)

    def _remove(self, from_: list[Any], item: Any, kind: type) -> None:
        if not isinstance(item, kind):
            raise no_such_form(f"expected a {kind.__name__}, not {type(item).__name__}")
        with GRAPH_LOCK:
            from_[:] = [other for other in from_ if other is not item]

    def replace_parameter(self, parameter_index: int, parameter: Parameter) -> None:
        """Put another Parameter in the place of one: its consumers take it, the tensor names go over.

        Raises RuntimeError for an index past the end.
        """
        if not isinstance(parameter, Parameter):
            raise no_such_form(f"expected a Parameter, not {type(parameter).__name__}")
        number = operator.index(parameter_index)
        if number < 0:
            raise no_such_form(f"parameters count from 0, not {number}")
        if not 0 <= number < len(self._parameters):
            raise ModelError(
                f"replace_parameter(): Tried to replace parameter at index {number} but the Model only has "
                f"{len(self._parameters)} parameters."
            )
        with GRAPH_LOCK:
            old = self._parameters[number]
            old.output(0).replace(parameter.output(0))
            self._parameters[number] = parameter

    # -- types ---------------------------------------------------------------------------------------------

    def validate_nodes_and_infer_types(self) -> None:
        """Infer all types anew. Raises RuntimeError naming a node that does not fit, and changes nothing."""
        with GRAPH_LOCK:
            self._settle(self._revalidated())

    def _settle(self, types: dict[DescriptorTensor, TensorType]) -> None:
        """Take over types that have been inferred; bodies of nodes follow."""
        for tensor, new in types.items():
            tensor._type = new
        for node in self._walk():
            node._settle_bodies()

    def _revalidated(self) -> dict[DescriptorTensor, TensorType]:
        """Every tensor's type, inferred from the parameters on, leaving the old types as they are."""
        types: dict[DescriptorTensor, TensorType] = {}
        for node in self._checked_walk():
            if isinstance(node, Result):
                types[node._tensors[0]] = types[node._inputs[0]._tensor]
                continue
            for i, new in enumerate(node._infer([types[source._tensor] for source in node._inputs])):
                if i == len(node._tensors):  # an attribute was changed: there are more outputs now
                    node._tensors.append(DescriptorTensor(new))
                types[node._tensors[i]] = new
        return types

    def reshape(
        self,
        partial_shape: Any = None,
        variables_shapes: dict[str, Any] | None = None,
        *,
        partial_shapes: Any = None,
    ) -> None:
        """Give the inputs other shapes and infer all types anew; if that fails, nothing changes.

        `partial_shape`: a PartialShape, list, tuple or str for the only input, or a dict of these by input
        (Output, index or tensor name); `partial_shapes` is another name of it. `variables_shapes`: shapes of
        variables, by their names. Raises RuntimeError when the shapes do not fit the model or there are
        several inputs and no dict, IndexError for an index past the end, TypeError for other objects.
        """
        partial_shape = partial_shapes if partial_shape is None else partial_shape
        shapes: dict[Parameter, tuple[Dim, ...] | None]
        if isinstance(partial_shape, dict):
            shapes = {self._reshaped(key): shape_dims(shape) for key, shape in partial_shape.items()}
        elif isinstance(partial_shape, (PartialShape, list, tuple, str)):
            only = self._parameters[self._port(ONLY, self._parameters, "input")]
            shapes = {only: marked_dims_of(partial_shape)}
        else:
            raise no_such_form(
                f"reshape takes a PartialShape, list, tuple, str or dict, not {type(partial_shape).__name__}"
            )
        with GRAPH_LOCK:
            variables = self._variable_shapes(variables_shapes or {})
            changed: list[tuple[Node, str, Any]] = [(p, "shape", shape) for p, shape in shapes.items()]
            changed += [(node, "variable_shape", shape) for node, shape in variables.items()]
            before = {node: node._attrs for node, _, _ in changed}
            for node, name, new_shape in changed:
                node._attrs = {**node._attrs, name: new_shape}
            try:
                types = self._revalidated()
            except BaseException:
                for node, attrs in before.items():
                    node._attrs = attrs
                raise
            self._settle(types)
            for variable in self.get_variables() if variables else ():
                wanted = (variables_shapes or {}).get(variable.info.variable_id)
                if wanted is not None:
                    variable.info.data_shape = PartialShape(wanted)

    def _variable_shapes(self, shapes: dict[str, Any]) -> dict[Node, tuple[Dim, ...] | None]:
        """ReadValue node -> the new shape of its variable. A variable that is not there is passed over."""
        if not shapes:
            return {}
        for key in shapes:
            if not isinstance(key, str):
                raise TypeError(
                    f"Incorrect key type <class '{public_name(type(key))}'> to reshape a model, "
                    "expected values as str."
                )
        reads = [node for node in self._walk() if node._op.role == "read"]
        return {
            node: unmarked(shape_dims(shapes[node._attrs["variable_id"]]))
            for node in reads
            if node._attrs["variable_id"] in shapes
        }

    def _reshaped(self, key: Any) -> Parameter:
        if isinstance(key, (Output, ConstOutput)):
            for parameter in self._parameters:
                if parameter is key._node:
                    return parameter
            raise ModelError(f"{key!r} is no input of this model")
        if isinstance(key, str):
            return self._parameters[self._port(key, self._parameters, "input")]
        if isinstance(key, (int, np.integer)):
            if key < 0:
                raise ModelError(f"inputs count from 0, not {key}")
            return self._parameters[port_index(key, len(self._parameters), "input")]
        raise TypeError(
            f"Incorrect key type <class '{public_name(type(key))}'> to reshape a model, "
            "expected keys as openvino.Output, int or str."
        )

    # -- copies and captures -------------------------------------------------------------------------------

    def clone(self) -> Model:
        """A copy with nodes of its own; the constants' data is shared."""
        with GRAPH_LOCK:
            copies: dict[Node, Node] = {}
            tensors: dict[DescriptorTensor, DescriptorTensor] = {}
            for node in self._checked_walk():
                copies[node] = copy_node(node, copies, tensors)
            for node in self._sinks:
                copies[node]._after = tuple(copies[n] for n in node._after if n in copies)
            model = Model.__new__(Model)
            model._setup(
                [copies[r] for r in self._results],  # type: ignore[misc]
                [copies[p] for p in self._parameters],  # type: ignore[misc]
                [copies[s] for s in self._sinks],
                self.get_friendly_name(),
                self._variables,
            )
            model._rt = copy_map(self._rt)
            return model

    def __deepcopy__(self, memo: dict[int, Any]) -> Model:
        return self.clone()

    def __reduce__(self) -> Any:
        """Models pickle as IR, so that other processes get them."""
        return _restore, injected.model_bytes(self)

    def __copy__(self) -> Model:
        raise TypeError("Cannot copy 'openvino.Model'. Please, use deepcopy instead.")

    def _graph(self) -> Graph:
        """The immutable graph of this model as it is now, types inferred anew.

        Inputs in the order of `inputs`, outputs the values that feed the results in the order of `outputs`,
        then those of the Assign nodes.
        Raises RuntimeError naming the node when the graph is not valid.
        """
        with GRAPH_LOCK:
            builder = Builder()
            values: dict[tuple[Node, int], Value] = {}
            for node in self._checked_walk():
                if isinstance(node, Result):  # who takes a result takes its tensor
                    source = node._inputs[0]
                    values[node, 0] = values[source._node, source._index]
                    continue
                inputs = [values[source._node, source._index] for source in node._inputs]
                real = node._stands_for()
                taken = real._graph_inputs(builder, inputs)
                made = builder.add(real._op, taken, real._graph_attrs(), name=node.get_friendly_name())
                values.update(((node, i), value) for i, value in enumerate(made.outputs))
            results = [values[s._node, s._index] for s in (r.input_value(0) for r in self._results)]
            # what is assigned comes after what is returned; as a result, it is the value that is assigned
            results = [v.node.inputs[0] if v.node.op.role == "assign" else v for v in results]
            assigned = [n.output for n in builder.nodes if n.op.role == "assign"]
            from ovjit.rewrite.hoist import hoist  # what is found compiled does without it

            return hoist(builder.finish([*results, *assigned], [values[p, 0] for p in self._parameters]))

    def evaluate(
        self, output_tensors: Sequence[Any], input_tensors: Sequence[Any], evaluation_context: Any = None
    ) -> bool:
        """Run the model by the NumPy references of its operations, from and into Tensors.

        Output tensors take the results' shapes. Raises RuntimeError when the tensors do not fit.
        """
        from ovjit.api.model.boundary import from_storage
        from ovjit.graph.interp import evaluate

        graph = self._graph()
        graph = Graph(graph.inputs, graph.nodes, graph.public_outputs)
        if len(input_tensors) != len(graph.inputs):
            raise ModelError(
                f"Cannot evaluate model! Number of tensors ({len(input_tensors)}) is not equal to number of "
                f"parameters ({len(graph.inputs)})."
            )
        if len(output_tensors) != len(graph.outputs):
            raise ModelError(
                f"evaluate takes {len(graph.outputs)} output tensors, one for each result, not "
                f"{len(output_tensors)}"
            )
        arrays: list[np.ndarray] = []
        for value, tensor in zip(graph.inputs, input_tensors, strict=True):
            name = tensor.element_type._name
            if value.dtype not in (name, "dynamic"):
                raise ModelError(f"input {value.node.name!r} is {value.dtype}, the tensor {name}")
            if is_static(value.shape) and value.shape != tuple(tensor.shape):
                raise ModelError(
                    f"Cannot evaluate model! Tensor input shape and Parameter op with index {len(arrays)} "
                    f"are mismatches. {value.node.name!r} has the shape {list(value.shape)}, the tensor "
                    f"{list(tensor.shape)}"
                )
            arrays.append(from_storage(np.ascontiguousarray(tensor.data), name, tuple(tensor.shape)))
        for tensor, array in zip(output_tensors, evaluate(graph, arrays), strict=True):
            tensor.shape = list(array.shape)
            tensor.data[...] = array.view(tensor.data.dtype) if array.dtype.kind == "V" else array
        return True

    # -- runtime information -------------------------------------------------------------------------------

    def get_rt_info(self, path: str | list[str] | None = None) -> Any:
        """All runtime information as an RTMap, or the value at a path of keys as an OVAny.

        Raises RuntimeError if there is none at the path.
        """
        if path is None:
            return RTMap(self._rt)
        found, value = lookup(self._rt, rt_path(path))
        if not found:
            raise ModelError(
                f"Cannot get runtime attribute. Path to runtime attribute is incorrect. It is {path!r}, "
                f"and the "
                f"model has {', '.join(sorted(self._rt)) or 'none'}"
            )
        return OVAny(value)

    def has_rt_info(self, path: str | list[str]) -> bool:
        return lookup(self._rt, rt_path(path))[0]

    def set_rt_info(self, obj: Any, path: str | list[str]) -> None:
        *folders, last = rt_path(path)
        with GRAPH_LOCK:
            place = self._rt
            for key in folders:
                inner = place.setdefault(key, {})
                if not isinstance(inner, dict):
                    inner = place[key] = {}
                place = inner
            place[last] = plain_value(obj)

    @property
    def rt_info(self) -> RTMap:
        return RTMap(self._rt)

    def __repr__(self) -> str:
        if "_parameters" not in self.__dict__:
            return "<Model: no longer accessible>"
        inputs = ",\n".join(repr(ConstOutput._of(p, 0)) for p in self._parameters)
        outputs = ",\n".join(repr(ConstOutput._of(r, 0)) for r in self._results)
        return f"<Model: {self.get_friendly_name()!r}\ninputs[\n{inputs}\n]\noutputs[\n{outputs}\n]>"


def _before(node: Node) -> list[Node]:
    """The nodes that come before one: of an Assign first its ReadValue, then those whose outputs it takes."""
    return [*node._after, *(source._node for source in node._inputs)]


def _restore(xml: bytes, weights: bytes) -> Model:
    """The model that `Model.__reduce__` has taken apart."""
    return injected.model_of(xml, weights)
