"""Changes of a Model: its outputs, parameters, sinks and variables, and the shapes of its inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from ovjit.api.arguments import ONLY, expect, explain_calls, public_name
from ovjit.api.model.boundary import Parameter, Result
from ovjit.api.model.broadcast_states import broadcast_states
from ovjit.api.model.model_forms import checked_sink, make_result, name_tensor, port_index, shape_dims
from ovjit.api.model.model_parts import ModelParts
from ovjit.api.model.node import GRAPH_LOCK, ConstOutput, DescriptorTensor, Node, Output
from ovjit.api.model.relax_patterns import relax_patterns
from ovjit.api.model.variables import Variable
from ovjit.api.tensors.convert import dims_with_symbols
from ovjit.api.tensors.shapes import PartialShape
from ovjit.errors import ModelError, checked_index, no_such_form
from ovjit.graph.op import TensorType
from ovjit.graph.shapes import Dim
from ovjit.graph.symbolic import without_symbols


@explain_calls
class ModelEdits(ModelParts):
    """A model that may be edited. Only `validate_nodes_and_infer_types` and `reshape` infer types anew."""

    def add_outputs(self, outputs: Any) -> list[Output]:
        """Make outputs of a tensor name, an (operation name, port) or an Output, or of a list of these.

        An output that a Result takes or gives already is that Result's, even if the model has it no longer.
        Inputs and outputs without a tensor name get their friendly name. Raises RuntimeError for a name that
        is not there, TypeError for another kind of object.
        """
        items = outputs if isinstance(outputs, list) else [outputs]
        with GRAPH_LOCK:
            sources = [
                self._find_output(item, f" at index {i}" if isinstance(outputs, list) else "")
                for i, item in enumerate(items)
            ]
            added = []
            for source in sources:
                if isinstance(source.get_node(), Result):
                    added.append(source)
                    continue
                takers = (port.get_node() for port in source.get_target_inputs())
                result = next((node for node in takers if isinstance(node, Result)), None)
                if result is None:
                    result = make_result(source)
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
        if isinstance(item, tuple):
            name, port = item[0], item[1]  # IndexError for fewer, as in OpenVINO
            for node in self._walk():
                if node.get_friendly_name() == name:
                    if port not in range(len(node._tensors)):
                        raise ModelError(
                            f"Cannot add output to port {port} operation {name} has only "
                            f"{len(node._tensors)} outputs."
                        )
                    return node.output(port)
            raise ModelError(f"Model::add_output. Operation with name {name!r} was not found.")
        raise TypeError(
            f"Incorrect type of a value to add as output{where}. It is {type(item).__name__}, not a str, "
            "(str, int) or Output"
        )

    def add_results(self, results: Sequence[Result]) -> None:
        self._edit(self._results, results, Result)

    def remove_result(self, result: Result) -> None:
        self._remove(self._results, result, Result)

    def add_parameters(self, parameters: Sequence[Parameter]) -> None:
        """Declare further inputs. RuntimeError if the model has one of them already."""
        indices = {parameter: i for i, parameter in enumerate(self._parameters)}
        for i, parameter in enumerate(parameters if isinstance(parameters, Sequence) else ()):
            if isinstance(parameter, Parameter) and parameter in indices:
                raise ModelError(
                    f"add_parameters(): Tried to add parameter (index in array {i}) but Model already have "
                    f"the same parameter with index {indices[parameter]}"
                )
        self._edit(self._parameters, parameters, Parameter)

    def remove_parameter(self, parameter: Parameter) -> None:
        """Drop an input. Nodes that need it make the model invalid until they get another source."""
        self._remove(self._parameters, parameter, Parameter)

    def add_sinks(self, sinks: list[Node]) -> None:
        """Nodes that are run though no result needs them. TypeError unless they are a list, RuntimeError for
        what is no sink."""
        expect(sinks, list, "add_sinks takes a list of Nodes")
        for sink in sinks:
            if not isinstance(sink, Node):
                raise ModelError(f"Unable to cast Python instance of type {type(sink)} to a sink")
        self._edit(self._sinks, [checked_sink(sink) for sink in sinks], Node)

    def remove_sink(self, sink: Node) -> None:
        if not isinstance(sink, Node):
            raise TypeError("Incorrect argument type. Sink node is expected as an argument.")
        self._remove(self._sinks, sink, Node)

    def add_variables(self, variables: Sequence[Any]) -> None:
        self._edit(self._variables, variables, Variable)

    def remove_variable(self, variable: Any) -> None:
        """Remove a variable from the model's list. Nodes keep it, and a compiled model has it while a node
        does."""
        self._remove(self._variables, variable, Variable)
        self._removed.add(variable.info.variable_id)

    def _edit(self, into: list[Any], nodes: Sequence[Any], kind: type) -> None:
        if not isinstance(nodes, Sequence) or isinstance(nodes, (str, bytes)):
            raise no_such_form(f"expected a list of {kind.__name__}, not {type(nodes).__name__}")
        for node in nodes:
            expect(node, kind)
        with GRAPH_LOCK:
            into.extend(nodes)

    def _remove(self, from_: list[Any], item: Any, kind: type) -> None:
        expect(item, kind)
        with GRAPH_LOCK:
            from_[:] = [other for other in from_ if other is not item]

    def replace_parameter(self, parameter_index: int, parameter: Parameter) -> None:
        """Replace the Parameter at an index: its consumers and tensor names move to the new one.

        Raises RuntimeError for an index past the end.
        """
        expect(parameter, Parameter)

        def beyond(number: int) -> Exception:
            return ModelError(
                f"replace_parameter(): Tried to replace parameter at index {number} but the Model only has "
                f"{len(self._parameters)} parameters."
            )

        number = checked_index(parameter_index, len(self._parameters), "parameter", beyond)
        with GRAPH_LOCK:
            old = self._parameters[number]
            old.output(0).replace(parameter.output(0))
            self._parameters[number] = parameter

    # -- types ---------------------------------------------------------------------------------------------

    def validate_nodes_and_infer_types(self) -> None:
        """Infer all types anew. Raises RuntimeError naming a node that does not fit, and changes nothing."""
        with GRAPH_LOCK:
            self._settle(self._infer_all_types())

    def _settle(self, types: dict[DescriptorTensor, TensorType]) -> None:
        """Store inferred types in the tensors, and propagate them into bodies. If an interrupt comes in
        between, all are stored nevertheless."""
        try:
            self._take_over(types)
        except BaseException:
            self._take_over(types)
            raise

    def _take_over(self, types: dict[DescriptorTensor, TensorType]) -> None:
        for tensor, new in types.items():
            tensor._type = new
        for node in self._walk():
            node._settle_bodies()

    def _infer_all_types(self) -> dict[DescriptorTensor, TensorType]:
        """The type of every tensor, inferred from the parameters. The stored types do not change."""
        self._read_rest(needed=False)
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
        self, partial_shape: Any = None, variables_shapes: Mapping[str, Any] = MappingProxyType({}), *,
        partial_shapes: Any = None,
    ) -> None:  # fmt: skip
        """Give the inputs other shapes and infer all types anew; if that fails, nothing changes.

        `partial_shape`: a PartialShape, list, tuple or str for the only input, or a dict of these by input
        (Output, index or tensor name); `partial_shapes` is another name of it. `variables_shapes`: shapes of
        variables, by their names. Raises RuntimeError when the shapes do not fit the model or there are
        several inputs and no dict, IndexError for an index past the end, TypeError for other objects.
        """
        partial_shape = partial_shapes if partial_shape is None else partial_shape
        expect(variables_shapes, Mapping, "variables_shapes is a dict")
        shapes: dict[Parameter, tuple[Dim, ...] | None]
        if isinstance(partial_shape, dict):
            # A wrong shape is reported before a wrong key.
            read = ((shape_dims(shape), key) for key, shape in partial_shape.items())
            shapes = {self._find_parameter(key): dims for dims, key in read}
        elif isinstance(partial_shape, (PartialShape, list, tuple, str)):
            dims = dims_with_symbols(partial_shape)
            shapes = {self._parameters[self._port(ONLY, self._parameters, "input")]: dims}
        else:
            raise no_such_form(
                f"reshape takes a PartialShape, list, tuple, str or dict, not {type(partial_shape).__name__}"
            )
        with GRAPH_LOCK:
            variables = self._variable_shapes(variables_shapes)
            changed: list[tuple[Node, str, Any]] = [(p, "shape", shape) for p, shape in shapes.items()]
            changed += [(node, "variable_shape", shape) for node, shape in variables.items()]
            before = {node: node._attrs for node, _, _ in changed}
            is_new = any(node._attrs[name] != shape for node, name, shape in changed)
            relaxed = [*relax_patterns(self._walk()), *broadcast_states(self._walk())] if is_new else []
            try:
                for node, name, new_shape in changed:
                    node._attrs = {**node._attrs, name: new_shape}
                types = self._infer_all_types()
            except BaseException:
                for node, attrs in before.items():
                    node._attrs = attrs
                for node, index, source in reversed(relaxed):
                    node._connect(index, source)
                raise
            self._settle(types)
            for variable in self.get_variables() if variables else ():
                shape = variables_shapes.get(variable.info.variable_id)
                if shape is not None:
                    variable.info.data_shape = PartialShape(shape)

    def _variable_shapes(self, shapes: Mapping[str, Any]) -> dict[Node, tuple[Dim, ...] | None]:
        """ReadValue node -> the new shape of its variable. A variable that is not there is passed over."""
        if not shapes:
            return {}
        dims = {key: without_symbols(shape_dims(shape)) for key, shape in shapes.items()}
        for key in shapes:
            if not isinstance(key, str):
                raise TypeError(
                    f"Incorrect key type <class '{public_name(type(key))}'> to reshape a model, "
                    "expected values as str."
                )
        reads = [node for node in self._walk() if node._op.role == "read"]
        return {
            node: dims[node._attrs["variable_id"]] for node in reads if node._attrs["variable_id"] in dims
        }

    def _find_parameter(self, key: Any) -> Parameter:
        if isinstance(key, (Output, ConstOutput)):
            for parameter in self._parameters:
                if parameter is key._node:
                    return parameter
            raise ModelError(
                f"PartialShape for port {key!r} is not used in ov::Model::reshape: "
                "the port is not an input of this model"
            )
        if isinstance(key, str):
            return self._parameters[self._port(key, self._parameters, "input")]
        if isinstance(key, (int, np.integer)):
            if key < 0:
                raise ModelError(f"input indices start at 0; {key} is given")
            return self._parameters[port_index(key, len(self._parameters), "input")]
        raise TypeError(
            f"Incorrect key type <class '{public_name(type(key))}'> to reshape a model, "
            "expected keys as openvino.Output, int or str."
        )
