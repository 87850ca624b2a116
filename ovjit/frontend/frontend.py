"""Formats that models are read from, one by one: `FrontEndManager` finds a `FrontEnd`, which loads an
`InputModel`, which can be cut and given other shapes before it is converted to a Model.

As the reader of each format makes a Model at once, an InputModel is a Model that is edited; places are its
tensors and operations.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ovjit.api.model.boundary import Constant, Parameter, Result, constant_node
from ovjit.api.model.custom import Extension
from ovjit.api.model.model import Model
from ovjit.api.model.node import Node, Output
from ovjit.api.model.node_ports import target_inputs
from ovjit.api.run.core import Core
from ovjit.api.tensors.shapes import PartialShape
from ovjit.api.tensors.types import Type
from ovjit.errors import OvjitError
from ovjit.frontend.failures import (
    GeneralFailure,
    InitializationFailure,
    NotImplementedFailure,
    OpConversionFailure,
)

#: Framework -> endings of its files.
FORMATS = {"ir": (".xml",), "onnx": (".onnx", ".prototxt", ".pbtxt")}


class Place:
    """A tensor or an operation of an InputModel; `None` stands for what is not there."""

    def __init__(self, output: Output | None = None, node: Node | None = None):
        self._output = output
        self._node = node

    def get_names(self) -> list[str]:
        """A tensor's names, or that of an operation."""
        if self._output is None:
            return [self._node.get_friendly_name()]  # type: ignore[union-attr]
        return sorted(self._output._tensor._names) or [self._output._node.get_friendly_name()]

    def get_producing_operation(self, input_name: Any = None, input_port_index: Any = None) -> Place:
        """The operation that a tensor comes from, or an input of an operation."""
        return Place(node=self._source(input_port_index)._node)

    def get_consuming_operations(self, output_name: Any = None, output_port_index: Any = None) -> list[Place]:
        """The operations that take a tensor, or an output of an operation."""
        targets = (t for o in self._outputs(output_port_index) for t in target_inputs(o._node, o._index))
        return [Place(node=node) for node in dict.fromkeys(target._node for target in targets)]

    def get_target_tensor(self, output_name: Any = None, output_port_index: Any = None) -> Place:
        """The tensor that an operation makes."""
        return Place(self._outputs(output_port_index)[0])

    def get_source_tensor(self, input_name: Any = None, input_port_index: Any = None) -> Place:
        """The tensor that an operation takes."""
        return Place(self._source(input_port_index))

    def get_input_port(self, input_name: Any = None, input_port_index: Any = None) -> Place:
        """The tensor that an operation takes at an index."""
        return Place(self._source(input_port_index))

    def get_output_port(self, output_name: Any = None, output_port_index: Any = None) -> Place:
        """The tensor that an operation makes at an index."""
        return Place(self._outputs(output_port_index)[0])

    def get_producing_port(self) -> Place:
        """The tensor itself."""
        return Place(self._source(None))

    def get_consuming_ports(self) -> list[Place]:
        """The operations that take the tensor."""
        return self.get_consuming_operations()

    def is_input(self) -> bool:
        """Whether it is an input of the model."""
        return self._output is not None and isinstance(self._output._node, Parameter)

    def is_output(self) -> bool:
        """Whether it is an output of the model."""
        return any(isinstance(place._node, Result) for place in self.get_consuming_operations())

    def is_equal(self, other: Place) -> bool:
        """Whether two places are the same."""
        return isinstance(other, Place) and (self._output, self._node) == (other._output, other._node)

    is_equal_data = is_equal

    def _outputs(self, index: Any) -> list[Output]:
        if self._output is not None:
            return [self._output]
        outputs = self._node.outputs()  # type: ignore[union-attr]
        return outputs if index is None else [outputs[index]]

    def _source(self, index: Any) -> Output:
        if self._output is not None:
            return self._output
        return self._node.input_value(0 if index is None else index)  # type: ignore[union-attr]


class InputModel:
    """A model that was loaded and not yet converted."""

    def __init__(self, model: Model):
        self._model = model

    def _tensors(self) -> list[Output]:
        return [
            n.output(i)
            for n in self._model._walk()
            for i in range(len(n._tensors))
            if not isinstance(n, Result)
        ]

    def get_inputs(self) -> list[Place]:
        """The inputs."""
        return [Place(p.output(0)) for p in self._model.get_parameters()]

    def get_outputs(self) -> list[Place]:
        """The tensors that are outputs."""
        return [Place(r.input_value(0)) for r in self._model.get_results()]

    def get_place_by_tensor_name(self, tensor_name: str) -> Place | None:
        """The tensor of a name, or None."""
        return next((Place(o) for o in self._tensors() if tensor_name in o._tensor._names), None)

    def get_place_by_operation_name(self, operation_name: str) -> Place | None:
        """The operation of a name, or None."""
        nodes = (n for n in self._model._walk() if not isinstance(n, Result))
        return next((Place(node=n) for n in nodes if n.get_friendly_name() == operation_name), None)

    def get_place_by_operation_name_and_input_port(
        self, operation_name: str, input_port_index: int
    ) -> Place | None:
        """An input of the operation of a name, or None."""
        place = self.get_place_by_operation_name(operation_name)
        return None if place is None else place.get_input_port(None, input_port_index)

    def get_place_by_operation_name_and_output_port(
        self, operation_name: str, output_port_index: int
    ) -> Place | None:
        """An output of the operation of a name, or None."""
        place = self.get_place_by_operation_name(operation_name)
        return None if place is None else place.get_output_port(None, output_port_index)

    def get_place_by_input_index(self, input_idx: int) -> Place:
        """The input at an index."""
        return self.get_inputs()[input_idx]

    def set_partial_shape(self, place: Place, shape: PartialShape) -> None:
        """Give an input another shape."""
        self._parameter(place).set_partial_shape(shape)
        self._validate()

    def get_partial_shape(self, place: Place) -> PartialShape:
        """The shape of a tensor."""
        return place._source(None).get_partial_shape()

    def set_element_type(self, place: Place, type: Type) -> None:
        """Give an input another element type."""
        self._parameter(place).set_element_type(type)
        self._validate()

    def get_element_type(self, place: Place) -> Type:
        """The element type of a tensor."""
        return place._source(None).get_element_type()

    def set_tensor_value(self, place: Place, value: np.ndarray) -> None:
        """Put a constant in the place of a tensor."""
        self._replace(place._source(None), constant_node(np.asarray(value)))
        self._validate()

    def cut_and_add_new_input(self, place: Place, new_name: str = "") -> None:
        """Make a tensor an input; what it was made of goes, unless something else needs it."""
        old = place._source(None)
        type_ = old._tensor._type
        parameter = Parameter._of(type_.dtype, type_.shape, new_name or None)
        names = {new_name} if new_name else set(old._tensor._names)
        self._replace(old, parameter)
        parameter._tensors[0]._names = names
        self._model.add_parameters([parameter])
        self._drop_unused()

    def cut_and_add_new_output(self, place: Place, new_name: str = "") -> None:
        """Make a tensor an output, the only one that is left of what follows it."""
        self.override_all_outputs([place])
        if new_name:
            place._source(None)._tensor._names = {new_name}

    def add_output(self, place: Place) -> Place:
        """Make a tensor an output too."""
        self._model.add_outputs(place._source(None))
        return place

    def remove_output(self, place: Place) -> None:
        """No longer give back a tensor."""
        wanted = place._source(None)
        for result in self._model.get_results():
            if result.input_value(0) == wanted:
                self._model.remove_result(result)

    def override_all_outputs(self, outputs: Sequence[Place]) -> None:
        """Let these tensors be the outputs, in this order."""
        wanted = [place._source(None) for place in outputs]
        have = {result.input_value(0): result for result in self._model.get_results()}
        for result in self._model.get_results():
            self._model.remove_result(result)
        self._model.add_results([have.get(output) or Result._of(output) for output in wanted])
        self._drop_unused()

    def override_all_inputs(self, inputs: Sequence[Place]) -> None:
        """Let these tensors be the inputs, in this order. GeneralFailure if the model needs others too."""
        for place in inputs:
            if not place.is_input():
                self.cut_and_add_new_input(place)
        self._drop_unused()
        wanted = [place.get_names() for place in inputs]
        known = {tuple(sorted(p._tensors[0]._names)): p for p in self._model.get_parameters()}
        chosen = [known[tuple(names)] for names in wanted if tuple(names) in known]
        if len(chosen) != len(known):
            raise GeneralFailure(f"the model needs {len(known)} inputs, and {len(chosen)} of them were given")
        self._model._parameters[:] = chosen

    def extract_subgraph(self, inputs: Sequence[Place], outputs: Sequence[Place]) -> None:
        """Keep what is between these tensors."""
        if outputs:
            self.override_all_outputs(outputs)
        if inputs:
            self.override_all_inputs(inputs)

    def set_name_for_tensor(self, tensor: Place, new_name: str) -> None:
        """Let a tensor have one name."""
        tensor._source(None)._tensor.set_names({new_name})

    def add_name_for_tensor(self, tensor: Place, new_name: str) -> None:
        """Give a tensor a further name."""
        tensor._source(None)._tensor.add_names({new_name})

    def free_name_for_tensor(self, name: str) -> None:
        """Take a name away from the tensor that has it."""
        for output in self._tensors():
            output._tensor._names = output._tensor._names - {name}

    def set_name_for_operation(self, operation: Place, new_name: str) -> None:
        """Rename an operation."""
        (operation._node or operation._source(None)._node).set_friendly_name(new_name)

    def free_name_for_operation(self, name: str) -> None:
        """Take a name away from the operation that has it."""
        for node in self._model._walk():
            if node.get_friendly_name() == name:
                node._friendly_name = ""

    def set_name_for_dimension(self, place: Place, dim_index: int, dim_name: str) -> None:
        """NotImplementedFailure: dimensions have no names here."""
        raise NotImplementedFailure("set_name_for_dimension is not implemented for this FrontEnd class")

    def _parameter(self, place: Place) -> Parameter:
        node = place._source(None)._node
        if not isinstance(node, Parameter):
            raise GeneralFailure(f"the tensor {place.get_names()} is no input of the model")
        return node

    def _replace(self, old: Output, node: Parameter | Constant) -> None:
        old.replace(node.output(0))
        if isinstance(old._node, Parameter):
            self._model.remove_parameter(old._node)

    def _validate(self) -> None:
        try:
            self._model.validate_nodes_and_infer_types()
        except OvjitError as error:
            raise GeneralFailure(str(error)) from error

    def _drop_unused(self) -> None:
        ends = [*self._model._results, *self._model._sinks]
        needed = set(Model._walk_from(ends))
        self._model._parameters[:] = [p for p in self._model._parameters if p in needed]
        self._validate()


class FrontEnd:
    """The reader of one format."""

    def __init__(self, fe: FrontEnd | str):
        self._name: str = fe if isinstance(fe, str) else fe._name
        self._core: Core = Core() if isinstance(fe, str) else fe._core

    def get_name(self) -> str:
        """The format."""
        return self._name

    def supported(self, model: Any) -> bool:
        """Whether a file has an ending of this format. GeneralFailure if there is no such file."""
        return _existing(model, self._name).suffix.lower() in FORMATS[self._name]

    def load(self, path: Any, enable_mmap: bool = True) -> InputModel:
        """Read a file. GeneralFailure for one that is not there or not valid, OpConversionFailure for one
        with operators that nothing converts."""
        files = path if isinstance(path, (list, tuple)) else [path]
        if isinstance(files[0], (str, os.PathLike)):
            _existing(files[0], self._name)
        try:
            config = {"ENABLE_MMAP": bool(enable_mmap)}
            model = self._core.read_model(files[0], files[1] if len(files) > 1 else None, config)
        except OvjitError as error:
            unknown = "No conversion rule found" in str(error)
            raise (OpConversionFailure if unknown else GeneralFailure)(str(error)) from error
        return InputModel(model)

    def convert(self, model: InputModel | Model) -> Model:
        """The Model. One that is converted already stays as it is."""
        if isinstance(model, Model):
            return model
        if not isinstance(model, InputModel):
            raise TypeError(f"convert takes an InputModel or a Model, not {type(model).__name__}")
        return model._model

    def convert_partially(self, model: InputModel) -> Model:
        """The Model. An operation that cannot be converted was an error when the file was read."""
        return self.convert(model)

    def decode(self, model: InputModel) -> Model:
        """The Model: there is no form of it that is read and not yet converted."""
        return self.convert(model)

    def normalize(self, model: Model) -> None:
        """Nothing: what is converted is whole."""

    def add_extension(self, extension: Any) -> None:
        """Let models have operations written in Python. GeneralFailure for the path of a library."""
        for item in extension if isinstance(extension, (list, tuple)) else [extension]:
            if isinstance(item, (Extension, type)):
                self._core.add_extension(item)
            else:
                raise GeneralFailure(f"{item!r} is no extension: ovjit loads no native libraries")

    def __repr__(self) -> str:
        return f"<FrontEnd {self._name!r}>"


class FrontEndManager:
    """Finds front ends by their names or for a file."""

    def get_available_front_ends(self) -> list[str]:
        """The formats that can be read."""
        return list(FORMATS)

    def load_by_framework(self, framework: str) -> FrontEnd:
        """The front end of a format. InitializationFailure if there is none."""
        if framework not in FORMATS:
            raise InitializationFailure(
                f"FrontEnd for Framework {framework} is not found; there are: {', '.join(FORMATS)}"
            )
        return FrontEnd(framework)

    def load_by_model(self, model: Any) -> FrontEnd | None:
        """The front end of a file, or None. GeneralFailure if there is no such file."""
        path = _existing(model, "ir")
        return next((FrontEnd(name) for name, ends in FORMATS.items() if path.suffix.lower() in ends), None)

    def register_front_end(self, name: str, library_path: Any) -> None:
        """GeneralFailure: a front end in a native library is not loaded."""
        raise GeneralFailure(
            f"{library_path!r} cannot be registered as {name!r}: ovjit loads no native libraries"
        )

    def __repr__(self) -> str:
        return "<FrontEndManager>"


def _existing(model: Any, name: str) -> Path:
    if not isinstance(model, (str, os.PathLike)):
        raise TypeError(f"a file's path is expected, not {type(model).__name__}")
    path = Path(os.fspath(model))
    if not path.exists():
        raise GeneralFailure(f'{name}: Could not open the file: "{path}"')
    return path


#: The classes below in OpenVINO's native part; here they are one.
FrontEndBase, FrontEndManagerBase = FrontEnd, FrontEndManager

__all__ = ["FrontEnd", "FrontEndManager", "InputModel", "Place"]
