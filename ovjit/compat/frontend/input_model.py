"""Models that were loaded and not yet converted, and places in them.

As the readers of most formats make a Model at once, an InputModel is a Model that is edited; places are its
tensors and operations. ONNX's are edited in the file's graph: see `onnx_model`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ovjit.api.arguments import explain_calls
from ovjit.api.model.boundary import Constant, Parameter, Result, constant_node
from ovjit.api.model.model import Model
from ovjit.api.model.node import Output
from ovjit.api.model.node_ports import target_inputs
from ovjit.api.tensors.shapes import PartialShape
from ovjit.api.tensors.types import Type
from ovjit.compat.frontend.failures import (
    GeneralFailure,
    NotImplementedFailure,
    OpConversionFailure,
    as_failures,
)
from ovjit.errors import OvjitError
from ovjit.readers.registry import Reader, Request, Source, read_model


class Place:
    """A tensor, an operation, or an input or output port of one, of an InputModel.

    Where a place is asked for that is not there, or not the only one of its kind, the answer is None.
    """

    __slots__ = ("_index", "_kind", "_model", "_of")

    def __init__(self, kind: str, of: Any, index: int = 0, model: Any = None):
        self._kind = kind  # "tensor", "operation", "input" or "output"
        self._of = of  # an operation; of a tensor, the operation whose output `index` it is
        self._index = index
        self._model = model  # stays as long as the place: operations do not keep what takes their results

    @classmethod
    def _tensor(cls, output: Output, model: Any = None) -> Place:
        return cls("tensor", output._node, output._index, model)

    # -- what a model tells: other graphs have places that answer these otherwise ----------------------------

    def _place_of(self, kind: str, of: Any, index: int = 0) -> Place:
        return Place(kind, of, index, self._model)

    def _tensor_of(self, data: Any) -> Place:
        return Place._tensor(data, self._model)

    def _inputs(self) -> Sequence[Any]:
        """The inputs of the operation; None for omitted ones."""
        return self._of._inputs

    def _outputs(self) -> Sequence[Any]:
        return self._of.outputs()

    def _data(self) -> Any:
        """The tensor of a place. GeneralFailure for an operation with several outputs."""
        if self._kind == "input":
            return self._of.input_value(self._index)
        if self._kind == "operation" and len(self._of._tensors) != 1:
            raise of_several(self.get_names()[0])
        return self._of.output(self._index)

    def _is_called(self, data: Any, name: str) -> bool:
        return name in data._tensor._names

    def _producer(self, data: Any) -> tuple[Any, int] | None:
        """(operation, output port) that computes the data; None for inputs and constants."""
        return None if isinstance(data._node, (Constant, Parameter)) else (data._node, data._index)

    def _consumers(self, data: Any) -> Sequence[tuple[Any, int]]:
        targets = target_inputs(data._node, data._index)
        return [(target._node, target._index) for target in targets if not isinstance(target._node, Result)]

    def get_names(self) -> list[str]:
        """A tensor's names, or that of an operation. Ports have none."""
        if self._kind == "operation":
            return [self._of.get_friendly_name()]
        if self._kind != "tensor":
            return []
        return sorted(self._data()._tensor._names) or [self._of.get_friendly_name()]

    def is_input(self) -> bool:
        """Whether it is an input of the model."""
        return self._kind == "tensor" and isinstance(self._of, Parameter)

    def is_output(self) -> bool:
        """Whether it is an output of the model."""
        targets = target_inputs(self._of, self._index) if self._kind == "tensor" else []
        return any(isinstance(target._node, Result) for target in targets)

    # -- places beside this one ------------------------------------------------------------------------------

    def get_producing_operation(
        self, input_name: str | None = None, input_port_index: int | None = None
    ) -> Place | None:
        """The operation that computes a tensor, or that a port or an operation's input reads."""
        source = self._source(input_name, input_port_index)
        result = None if source is None else self._producer(source)
        return None if result is None else self._place_of("operation", result[0])

    def get_consuming_operations(
        self, output_name: str | None = None, output_port_index: int | None = None
    ) -> list[Place]:
        """The operations that read a tensor, or an operation's outputs, once per reading port. For an input
        port it is the port's operation."""
        if self._kind == "input":
            return [self._place_of("operation", self._of)]
        return [self._place_of("operation", of) for of, _ in self._targets(output_name, output_port_index)]

    def get_target_tensor(
        self, output_name: str | None = None, output_port_index: int | None = None
    ) -> Place | None:
        """The tensor that an operation or output port computes."""
        data = self._data_at(output_name, output_port_index) if self._kind in ("operation", "output") else []
        return self._tensor_of(data[0]) if len(data) == 1 else None

    def get_source_tensor(
        self, input_name: str | None = None, input_port_index: int | None = None
    ) -> Place | None:
        """The tensor that an operation or input port reads."""
        is_taker = self._kind in ("operation", "input")
        source = self._source(input_name, input_port_index) if is_taker else None
        return None if source is None else self._tensor_of(source)

    def get_input_port(
        self, input_name: str | None = None, input_port_index: int | None = None
    ) -> Place | None:
        """An operation's input, by the name of its tensor or by index; the only one, if neither is given."""
        index = self._input_index(input_name, input_port_index) if self._kind == "operation" else None
        return None if index is None else self._place_of("input", self._of, index)

    def get_output_port(
        self, output_name: str | None = None, output_port_index: int | None = None
    ) -> Place | None:
        """An operation's output, by the name of its tensor or by index; the only one, if neither is given."""
        indices = self._output_indices(output_name, output_port_index) if self._kind == "operation" else []
        return self._place_of("output", self._of, indices[0]) if len(indices) == 1 else None

    def get_producing_port(self) -> Place | None:
        """The output port that computes a tensor, or that an input port reads."""
        port = self._producer(self._data()) if self._kind in ("tensor", "input") else None
        return None if port is None else self._place_of("output", *port)

    def get_consuming_ports(self) -> list[Place]:
        """The input ports that read a tensor or an operation's outputs."""
        ports = [] if self._kind == "input" else self._targets(None, None)
        return [self._place_of("input", *port) for port in ports]

    def is_equal(self, other: Place) -> bool:
        """Whether two places are the same."""
        mine = self._kind, self._of, self._index
        return isinstance(other, Place) and mine == (other._kind, other._of, other._index)

    def is_equal_data(self, other: Place) -> bool:
        """Whether two places refer to the same data: a tensor, and the ports that compute or read it."""
        if not isinstance(other, type(self)) or "operation" in (self._kind, other._kind):
            return False
        return bool(self._data() == other._data())

    def _data_at(self, name: str | None, index: int | None) -> list[Any]:
        if self._kind != "operation":
            return [self._data()]
        return [self._outputs()[i] for i in self._output_indices(name, index)]

    def _output_indices(self, name: str | None, index: int | None) -> list[int]:
        ports = {i: data for i, data in enumerate(self._outputs()) if data is not None}
        if name is not None:
            return [i for i, data in ports.items() if self._is_called(data, name)]
        return [i for i in ports if index is None or i == index]

    def _targets(self, name: str | None, index: int | None) -> list[tuple[Any, int]]:
        return [port for data in self._data_at(name, index) for port in self._consumers(data)]

    def _input_index(self, name: str | None, index: int | None) -> int | None:
        ports = {i: data for i, data in enumerate(self._inputs()) if data is not None}
        if name is not None:
            return next((i for i, data in ports.items() if self._is_called(data, name)), None)
        if index is None:
            index = 0 if len(self._inputs()) == 1 else None
        return index if index in ports else None

    def _source(self, name: str | None, index: int | None) -> Any:
        if self._kind != "operation":
            return self._data()
        input_index = self._input_index(name, index)
        return None if input_index is None else self._inputs()[input_index]


def of_several(name: str) -> GeneralFailure:
    return GeneralFailure(f"the operation {name!r} has several outputs: give the output's index")


def data_of(place: Any) -> Any:
    """The tensor of a place. GeneralFailure for None, the result of a search for an unknown name."""
    if place is None:
        raise GeneralFailure("a place of the model is expected, not None: there is no such name")
    return place._data()


@explain_calls
class InputModel:
    """A model that was loaded and not yet converted. Its file was read; what of its operations cannot be
    converted is an error of `convert`, or of whatever else needs them."""

    #: Whether inputs are kept that the model needs and that were not chosen.
    _adds_inputs = False

    def __init__(
        self,
        read: Callable[[], Model],
        extensions: Callable[[], int] = int,
        read_editable: Callable[[], Model] | None = None,
    ):
        self._read = read
        self._read_editable = read_editable or read  # reads the form of the model that is edited
        self._original: Model | None = None  # the model as it was read, where another form is edited
        self._extensions = extensions  # how many have been added that reading depends on
        self._read_extensions = extensions()
        self._current: Model | None = None
        self._unfit = False  # edits have left shapes or types that do not fit, so far
        self._edited = False
        with contextlib.suppress(OpConversionFailure):
            if read_editable is None:
                self._current = read()
            else:
                self._original = read()

    @classmethod
    def _load(cls, reader: Reader, model: Any, request: Request, extensions: Callable[[], int]) -> InputModel:
        """The InputModel of a file or of contents."""

        def read(by: Callable[[Source, Request], Model]) -> Callable[[], Model]:
            return lambda: as_failures(lambda: read_model(model, request, by))

        read_editable = read(reader.read_editable) if reader.edits_apart else None
        return cls(read(reader.read_for_front_end), extensions, read_editable)

    @property
    def _model(self) -> Model:
        if self._current is None:  # what can convert the rest may have been added meanwhile
            self._read_extensions = self._extensions()
            self._current = self._read_editable()
        return self._current

    def _tensors(self) -> list[Output]:
        return [
            n.output(i)
            for n in self._model._walk()
            for i in range(len(n._tensors))
            if not isinstance(n, Result)
        ]

    def get_inputs(self) -> list[Place]:
        """The inputs."""
        return [Place._tensor(p.output(0), self) for p in self._model.get_parameters()]

    def get_outputs(self) -> list[Place]:
        """The tensors that are outputs."""
        return [Place._tensor(r.input_value(0), self) for r in self._model.get_results()]

    def get_place_by_tensor_name(self, tensor_name: str) -> Place | None:
        """The tensor with this name, or None."""
        named = (o for o in self._tensors() if tensor_name in o._tensor._names)
        return next((Place._tensor(o, self) for o in named), None)

    def get_place_by_operation_name(self, operation_name: str) -> Place | None:
        """The operation with this name, or None."""
        nodes = (n for n in self._model._walk() if not isinstance(n, Result))
        named = (n for n in nodes if n.get_friendly_name() == operation_name)
        return next((Place("operation", n, model=self) for n in named), None)

    def get_place_by_operation_name_and_input_port(
        self, operation_name: str, input_port_index: int
    ) -> Place | None:
        """An input port of the operation with this name, or None."""
        place = self.get_place_by_operation_name(operation_name)
        return None if place is None else place.get_input_port(input_port_index=input_port_index)

    def get_place_by_operation_name_and_output_port(
        self, operation_name: str, output_port_index: int
    ) -> Place | None:
        """An output port of the operation with this name, or None."""
        place = self.get_place_by_operation_name(operation_name)
        return None if place is None else place.get_output_port(output_port_index=output_port_index)

    def get_place_by_input_index(self, input_idx: int) -> Place:
        """The input at an index."""
        return self.get_inputs()[input_idx]

    def set_partial_shape(self, place: Place, shape: PartialShape) -> None:
        """Set the shape of an input."""
        self._set(place, shape, None)

    def get_partial_shape(self, place: Place) -> PartialShape:
        """The shape of a tensor: as set for an input, as inferred after the last valid edit for others."""
        data = data_of(place)
        if isinstance(data._node, Parameter):
            return data._node.get_partial_shape()
        return data.get_partial_shape()

    def set_element_type(self, place: Place, type: Type) -> None:
        """Set the element type of an input."""
        self._set(place, None, type)

    def get_element_type(self, place: Place) -> Type:
        """The element type of a tensor; dynamic for inner tensors whose type the file does not declare, which
        is inferred at conversion."""
        data = data_of(place)
        if isinstance(data._node, Parameter):
            return data._node.get_element_type()
        stated = self._read_editable is not self._read or Place._tensor(data).is_output()
        return data.get_element_type() if stated else Type.dynamic

    def set_tensor_value(self, place: Place, value: np.ndarray) -> None:
        """Replace a tensor by a constant."""
        self._replace(data_of(place), constant_node(np.asarray(value)))
        self._follow()

    def cut_and_add_new_input(self, place: Place, new_name: str = "") -> None:
        """Make a tensor an input, and remove its producers that nothing else needs."""
        old = data_of(place)
        type_ = old._tensor._type
        old_name = Place._tensor(old).get_names()[0]
        parameter = Parameter._of(type_.dtype, type_.shape, new_name or old_name)
        names = {new_name} if new_name else set(old._tensor._names)
        if place._kind == "input":  # this edge alone
            place._of.input(place._index).replace_source_output(parameter.output(0))
        else:
            self._replace(old, parameter)
        parameter._tensors[0]._names = names
        self._model.add_parameters([parameter])
        self._drop_unused()

    def cut_and_add_new_output(self, place: Place, new_name: str = "") -> None:
        """Make a tensor an output, and remove all that follows it."""
        self.override_all_outputs([place])
        self._drop_unused()
        if new_name:
            data_of(place)._tensor._names = {new_name}

    def add_output(self, place: Place) -> Place:
        """Make a tensor an output too."""
        self._edited = True
        self._model.add_outputs(data_of(place))
        return place

    def remove_output(self, place: Place) -> None:
        """Remove a tensor from the outputs."""
        self._edited = True
        output = data_of(place)
        for result in self._model.get_results():
            if result.input_value(0) == output:
                self._model.remove_result(result)

    def override_all_outputs(self, outputs: Sequence[Place]) -> None:
        """Set the outputs, in this order. The inputs stay, also unused ones."""
        tensors = [data_of(place) for place in outputs]
        have: dict[Output, list[Result]] = {}
        for result in self._model.get_results():
            have.setdefault(result.input_value(0), []).append(result)
            self._model.remove_result(result)
        results = [have[output].pop(0) if have.get(output) else Result._of(output) for output in tensors]
        self._model.add_results(results)
        self._follow()

    def override_all_inputs(self, inputs: Sequence[Place]) -> None:
        """Set the inputs, in this order. If the model needs others too, they follow for TensorFlow; for other
        frameworks it is a GeneralFailure."""
        cut_places = [port for place in inputs for port in places_to_cut(place)]
        chosen = []
        for place in cut_places:
            parameter = data_of(place)._node
            if isinstance(parameter, Parameter) and place._kind != "input":
                chosen.append(parameter)
            else:
                self.cut_and_add_new_input(place)
                chosen.append(self._model._parameters[-1])
        self._drop_unused()
        needed = self._model.get_parameters()
        if {*needed} - {*chosen} and not self._adds_inputs:
            raise GeneralFailure(
                f"Unexpected number of inputs after override_all_inputs: the model needs {len(needed)}, "
                f"{len(cut_places)} are given"
            )
        self._model._parameters[:] = dict.fromkeys([*chosen, *needed])

    def extract_subgraph(self, inputs: Sequence[Place], outputs: Sequence[Place]) -> None:
        """Keep only the graph between these tensors."""
        if outputs:
            self.override_all_outputs(outputs)
        if inputs:
            self.override_all_inputs(inputs)

    def set_name_for_tensor(self, tensor: Place, new_name: str) -> None:
        """Set the only name of a tensor."""
        self._edited = True
        data_of(tensor)._tensor.set_names({new_name})

    def add_name_for_tensor(self, tensor: Place, new_name: str) -> None:
        """Add a name to a tensor."""
        self._edited = True
        data_of(tensor)._tensor.add_names({new_name})

    def free_name_for_tensor(self, name: str) -> None:
        """Remove a name from the tensor that has it."""
        self._edited = True
        for output in self._tensors():
            output._tensor._names = output._tensor._names - {name}

    def set_name_for_operation(self, operation: Place, new_name: str) -> None:
        """Rename an operation."""
        self._edited = True
        operation._of.set_friendly_name(new_name)

    def free_name_for_operation(self, name: str) -> None:
        """Remove a name from the operation that has it."""
        self._edited = True
        for node in self._model._walk():
            if node.get_friendly_name() == name:
                node._friendly_name = ""

    def set_name_for_dimension(self, place: Place, dim_index: int, dim_name: str) -> None:
        """NotImplementedFailure: dimensions have no names here."""
        raise NotImplementedFailure("set_name_for_dimension is not implemented for this FrontEnd class")

    def _set(self, place: Place, shape: PartialShape | None, type: Type | None) -> None:
        parameter = self._parameter(place)
        if shape is not None:
            parameter.set_partial_shape(shape)
        if type is not None:
            parameter.set_element_type(type)
        edited = self._edited
        if self._model._complete is None:
            self._follow()
        else:  # it is read again when all that is set is known
            self._unfit = self._edited = True
        if self._read_editable is not self._read:  # the inputs of what was read are given the same
            self._edited = edited

    def _parameter(self, place: Place) -> Parameter:
        node = data_of(place)._node
        if not isinstance(node, Parameter):
            raise GeneralFailure(f"the tensor {place.get_names()} is not an input of the model")
        return node

    def _replace(self, old: Output, node: Parameter | Constant) -> None:
        old.replace(node.output(0))
        if isinstance(old._node, Parameter):
            self._model.remove_parameter(old._node)

    def _follow(self) -> None:
        """Infer shapes and types after an edit, if they fit. They may fit only after further edits: `_check`
        raises if not."""
        self._unfit = self._edited = True
        with contextlib.suppress(OvjitError):
            self._model.validate_nodes_and_infer_types()
            self._unfit = False

    def _check(self) -> Model:
        """The edited model. OpConversionFailure if its shapes or types do not fit."""
        model = self._model if self._edited else self._reread()
        if self._unfit:
            try:
                model.validate_nodes_and_infer_types()
            except OvjitError as error:
                raise OpConversionFailure(str(error)) from error
        return model

    def _reread(self) -> Model:
        """The model as read, with the set shapes and types of its inputs. It is read again if extensions were
        added since."""
        newer = self._read_extensions != self._extensions()
        if self._read_editable is self._read:
            self._current = None if newer else self._current
            return self._model
        if self._original is None or newer:
            self._read_extensions = self._extensions()
            self._original = self._read()
        if self._current is not None:
            for new, old in zip(self._current.get_parameters(), self._original.get_parameters(), strict=True):
                old.set_partial_shape(new.get_partial_shape())
                old.set_element_type(new.get_element_type())
            self._unfit = True
        return self._original

    def _drop_unused(self) -> None:
        needed = set(Model._walk_from([*self._model._results, *self._model._sinks]))
        self._model._parameters[:] = [p for p in self._model._parameters if p in needed]
        self._follow()


class TensorFlowInputModel(InputModel):
    """A model of TensorFlow's, whose tensors have names with the number of an operation's output."""

    _adds_inputs = True

    def get_place_by_tensor_name(self, tensor_name: str) -> Place | None:
        """The tensor with this name, else the first output of the operation with this name, else None."""
        place = super().get_place_by_tensor_name(tensor_name)
        return super().get_place_by_tensor_name(f"{tensor_name}:0") if place is None else place


def places_to_cut(place: Place) -> list[Place]:
    """The places to cut to make `place` an input: all inputs of an operation, else `place` itself."""
    if place is None or place._kind != "operation":
        return [place]
    ports = [i for i, data in enumerate(place._inputs()) if data is not None]
    return [place._place_of("input", place._of, i) for i in ports]
