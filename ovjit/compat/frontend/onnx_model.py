"""An InputModel of ONNX and its places: edits change the graph of the file, which `convert` reads."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ovjit.api.model.model import Model
from ovjit.api.tensors.shapes import PartialShape
from ovjit.api.tensors.types import TYPES, Type
from ovjit.compat.frontend.failures import (
    GeneralFailure,
    NotImplementedFailure,
    OpConversionFailure,
    as_failures,
)
from ovjit.compat.frontend.input_model import InputModel, Place, data_of, of_several, places_to_cut
from ovjit.compat.frontend.onnx_graph import Graph, Operation, Tensor
from ovjit.errors import ModelError, OvjitError
from ovjit.readers.onnx.reader import open_model, read_opened
from ovjit.readers.onnx.standard import messages
from ovjit.readers.onnx.tensors import element_code
from ovjit.readers.registry import Reader, Request, Source

#: Reads the graph's ModelProto, None for the file as it is.
ReadProto = Callable[[Any], Model]


class OnnxPlace(Place):
    """A tensor, a node, or an input or output port of one, of an ONNX graph."""

    __slots__ = ("_graph",)

    def __init__(self, graph: Graph, kind: str, of: Any, index: int = 0):
        super().__init__(kind, of, index)
        self._graph = graph

    def _place_of(self, kind: str, of: Any, index: int = 0) -> Place:
        return OnnxPlace(self._graph, kind, of, index)

    def _tensor_of(self, data: Tensor) -> Place:
        return self._place_of("tensor", data)

    def _inputs(self) -> Sequence[Tensor | None]:
        return self._of.inputs

    def _outputs(self) -> Sequence[Tensor | None]:
        return self._of.outputs

    def _data(self) -> Tensor:
        if self._kind == "tensor":
            return self._of
        ports = self._of.inputs if self._kind == "input" else self._of.outputs
        if self._kind != "operation":
            return ports[self._index]
        result = [tensor for tensor in ports if tensor is not None]
        if len(result) != 1:
            raise of_several(self._of.name)
        return result[0]

    def _is_called(self, data: Tensor, name: str) -> bool:
        return data.name == name

    def _producer(self, data: Tensor) -> tuple[Operation, int] | None:
        return self._graph.producer(data)

    def _consumers(self, data: Tensor) -> Sequence[tuple[Operation, int]]:
        return self._graph.consumers(data)

    def get_names(self) -> list[str]:
        """A tensor's names, first its own, or that of an operation. Ports have none."""
        if self._kind == "tensor":
            return [self._of.name, *sorted(self._of.more)]
        return [self._of.name] if self._kind == "operation" else []

    def is_input(self) -> bool:
        return self._kind in ("tensor", "input") and self._data() in self._graph.inputs

    def is_output(self) -> bool:
        return self._kind in ("tensor", "output") and self._data() in self._graph.outputs


class OnnxInputModel(InputModel):
    """An ONNX graph that can be edited."""

    def __init__(self, proto: Any, read: ReadProto, extensions: Callable[[], int] = int):
        self._graph = Graph(proto)
        self._proto_read = read
        super().__init__(lambda: read(None), extensions)
        self._ports: dict[str, Any] = {}  # of the file as it is, by names of tensors

    @classmethod
    def _load(cls, reader: Reader, model: Any, request: Request, extensions: Callable[[], int]) -> InputModel:
        model = Source(model).model
        is_proto = hasattr(model, "SerializeToString")
        if not is_proto and not isinstance(model, (str, os.PathLike, bytes, bytearray)):
            return InputModel._load(reader, model, request, extensions)
        parsed_file = as_failures(lambda: open_model(model, None, request.use_mmap))

        def read(proto: Any) -> Model:
            one = parsed_file if proto is None else parsed_file._replace(proto=proto)
            return as_failures(lambda: read_opened(one, request.converters))

        return cls(parsed_file.proto, read, extensions)

    # -- places ----------------------------------------------------------------------------------------------

    def _of_tensor(self, tensor: Tensor) -> OnnxPlace:
        return OnnxPlace(self._graph, "tensor", tensor)

    def get_inputs(self) -> list[Place]:
        return [self._of_tensor(tensor) for tensor in self._graph.inputs]

    def get_outputs(self) -> list[Place]:
        return [self._of_tensor(tensor) for tensor in self._graph.outputs]

    def get_place_by_tensor_name(self, tensor_name: str) -> Place | None:
        tensor = self._graph.named(tensor_name)
        return None if tensor is None else self._of_tensor(tensor)

    def get_place_by_operation_name(self, operation_name: str) -> Place | None:
        node = next((o for o in self._graph.operations if operation_name and o.name == operation_name), None)
        return None if node is None else OnnxPlace(self._graph, "operation", node)

    # -- types and shapes ------------------------------------------------------------------------------------

    def _descriptor(self, tensor: Tensor) -> Any:
        """The output of the edited graph for a tensor, None if the graph cannot be converted."""
        if not self._edited and self._current is not None:
            if not self._ports:
                ports = (port for node in self._current._walk() for port in node.outputs())
                self._ports = {name: port for port in ports for name in port._tensor._names}
            return self._ports.get(tensor.name)
        state = self._graph.state()
        self._graph.outputs = [tensor]
        self._graph.drop_unused()
        proto = self._graph.to_proto()
        self._graph.restore(state)
        try:
            return self._proto_read(proto).output(0)
        except (OpConversionFailure, GeneralFailure):
            return None

    def get_partial_shape(self, place: Place) -> PartialShape:
        tensor = _tensor_of(place)
        declared = tensor.declared_shape()
        if declared is not None:
            return declared
        descriptor = self._descriptor(tensor)
        return PartialShape.dynamic() if descriptor is None else descriptor.get_partial_shape()

    def get_element_type(self, place: Place) -> Type:
        tensor = _tensor_of(place)
        name = tensor.declared_type() if tensor in (*self._graph.inputs, *self._graph.outputs) else None
        return Type.dynamic if name is None else TYPES[name]

    def _set(self, place: Place, shape: PartialShape | None, type: Type | None) -> None:
        tensor = self._input(place)
        if type is not None:
            element_code(type.get_type_name())
            tensor.type = type.get_type_name()
        if shape is not None:
            tensor.shape = PartialShape(shape)
        self._forget_model()

    def _input(self, place: Place) -> Tensor:
        tensor = _tensor_of(place)
        if tensor not in self._graph.inputs:
            raise GeneralFailure(f"the tensor {tensor.name!r} is not an input of the model")
        return tensor

    # -- cuts ------------------------------------------------------------------------------------------------

    def set_tensor_value(self, place: Place, value: np.ndarray) -> None:
        old, value = _tensor_of(place), np.ascontiguousarray(value)
        result = messages().TensorProto()
        result.dims.extend(value.shape)
        result.data_type = element_code(Type(value.dtype).get_type_name())
        result.raw_data = value.tobytes()
        if old in self._graph.inputs:
            self._graph.inputs.remove(old)
            new = old
        else:
            new = self._replace_reads(old, old.name)
            self._graph.outputs = [new if tensor is old else tensor for tensor in self._graph.outputs]
            self._graph.drop_unused()
        new.value, new.shape = result, None
        self._forget_model()

    def _replace_reads(self, old: Tensor, name: str) -> Tensor:
        """Make the operations that read `old` read a new tensor, which may get its name. Returns the new
        tensor."""
        new = self._like(old, name)
        if name == old.name:
            old.name = f"{name}/replaced"
        for operation, index in self._graph.consumers(old):
            operation.inputs[index] = new
        for operation in self._graph.operations:
            operation.captured = [new if tensor is old else tensor for tensor in operation.captured]
        return new

    def _like(self, old: Tensor, name: str) -> Tensor:
        """A new tensor with the type and shape of another one, as far as known."""
        new, descriptor = Tensor(name), self._descriptor(old)
        new.shape, new.type = old.declared_shape(), old.declared_type()
        if descriptor is not None:
            new.shape = descriptor.get_partial_shape() if new.shape is None else new.shape
            new.type = descriptor.get_element_type().get_type_name() if new.type is None else new.type
        return new

    def cut_and_add_new_input(self, place: Place, new_name: str = "") -> None:
        for one in places_to_cut(place):
            self._cut(one, new_name)
        self._graph.drop_unused()
        self._forget_model()

    def _cut(self, place: Place, name: str = "") -> Tensor:
        old = _tensor_of(place)
        if place._kind != "input":
            if old in self._graph.inputs or not self._graph.consumers(old):
                return old
            free = old.name if old not in self._graph.outputs else f"{old.name}/placeholder"
            new = self._replace_reads(old, name or free)
        else:
            first = next(tensor.name for tensor in place._of.outputs if tensor is not None)
            new = self._like(old, name or f"{first}/placeholder_port_{place._index}")
            place._of.inputs[place._index] = new
        self._graph.inputs.append(new)
        return new

    def add_output(self, place: Place) -> Place | None:  # type: ignore[override]
        """Make a tensor an output too. Returns its place; None for an input."""
        tensor = _tensor_of(place)
        if tensor in self._graph.inputs:
            return None
        if tensor not in self._graph.outputs:
            self._graph.outputs.append(tensor)
            self._forget_model()
        return self._of_tensor(tensor)

    def remove_output(self, place: Place) -> None:
        tensor = _tensor_of(place)
        if tensor in self._graph.outputs:
            self._graph.outputs = [other for other in self._graph.outputs if other is not tensor]
            self._graph.drop_unused()
            self._forget_model()

    def override_all_outputs(self, outputs: Sequence[Place]) -> None:
        tensors = [_tensor_of(place) for place in outputs]
        if not tensors:
            return
        self._graph.outputs = tensors
        self._graph.drop_unused()
        self._forget_model()

    def override_all_inputs(self, inputs: Sequence[Place]) -> None:
        """Make these tensors the inputs. Inputs that are still needed besides come first, as in OpenVINO."""
        if not inputs:
            return
        for place in inputs:
            for one in places_to_cut(place):
                self._cut(one)
        self._graph.drop_unused()
        self._forget_model()

    def cut_and_add_new_output(self, place: Place, new_name: str = "") -> None:
        self.override_all_outputs([place])
        if new_name:
            self.set_name_for_tensor(place, new_name)

    # -- names -----------------------------------------------------------------------------------------------

    def set_name_for_tensor(self, tensor: Place, new_name: str) -> None:
        """Rename a tensor. RuntimeError for an empty name, and for one that another tensor has."""
        of = _tensor_of(tensor)
        if not new_name:
            raise ModelError("name must not be empty")
        other = self._graph.named(new_name)
        if other is not None and other is not of:
            raise ModelError(f"The name {new_name!r} is already used by another tensor")
        of.name = new_name
        self._forget_model()

    def add_name_for_tensor(self, tensor: Place, new_name: str) -> None:
        _tensor_of(tensor).more.add(new_name)
        self._forget_model()

    def free_name_for_tensor(self, name: str) -> None:
        """Remove an added name. NotImplementedFailure for a tensor's own name."""
        tensor = self._graph.named(name)
        if tensor is not None and tensor.name == name:
            raise NotImplementedFailure(
                "free_name_for_tensor is not applicable for ONNX model: a tensor's name is its identifier"
            )
        if tensor is not None:
            tensor.more.discard(name)
            self._forget_model()

    def set_name_for_operation(self, operation: Place, new_name: str) -> None:
        if operation._kind != "operation":
            raise GeneralFailure(f"{operation.get_names()} is not an operation")
        assert isinstance(operation, OnnxPlace)
        operation._of.name = new_name
        self._forget_model()

    def free_name_for_operation(self, name: str) -> None:
        for operation in self._graph.operations:
            if operation.name == name:
                operation.name = ""
        self._forget_model()

    def set_name_for_dimension(self, place: Place, dim_index: int, dim_name: str) -> None:
        """Make a dimension of a declared tensor dynamic, with a name: ONNX has named dimensions."""
        tensor = _tensor_of(place)
        if not dim_name:
            raise ModelError("name must not be empty")
        if tensor.value is not None:
            raise ModelError("ONNX initializer shape dimension cannot be dynamic.")
        declared = tensor.declared_shape()
        if declared is None or declared.rank.is_dynamic:
            raise ModelError(f"the file does not tell the shape of the tensor {tensor.name!r}")
        dims: list[Any] = list(declared)
        dims += [-1] * (dim_index + 1 - len(dims))
        dims[dim_index] = -1
        tensor.shape = PartialShape(dims)
        self._forget_model()

    # -- reading ---------------------------------------------------------------------------------------------

    def _forget_model(self) -> None:
        self._edited, self._current = True, None

    def _read_now(self) -> Model:
        """The model of the edited graph."""
        if not self._edited:
            return self._model
        if self._current is None or self._read_extensions != self._extensions():
            self._read_extensions = self._extensions()
            self._current = self._proto_read(self._graph.to_proto())
            self._finish(self._current)
        return self._current

    def _finish(self, model: Model) -> None:
        """Apply edits that an ONNX file cannot express: shapes of inputs, and further tensor names."""
        shaped = False
        for parameter in model.get_parameters():
            tensor = self._graph.named(parameter.get_friendly_name())
            if tensor is not None and tensor.shape is not None:
                shaped |= parameter.get_partial_shape() != tensor.shape
                parameter.set_partial_shape(tensor.shape)
        more = {tensor.name: tensor.more for tensor in self._graph.tensors() if tensor.more}
        for node in model._walk() if more else ():
            for port in node.outputs():
                for name in port._tensor._names & more.keys():
                    port._tensor._names = port._tensor._names | more[name]
        if shaped:
            model.validate_nodes_and_infer_types()

    def _check(self) -> Model:
        if not self._edited:
            return super()._check()
        try:
            return self._read_now()
        except OvjitError as error:
            raise OpConversionFailure(str(error)) from error


def _tensor_of(place: Place) -> Tensor:
    tensor: Tensor = data_of(place)
    return tensor
