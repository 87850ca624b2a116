"""ONNX's graphs as front ends edit them: operations, tensors by their names, and places in them.

The graph is edited, and read after that. So places are those of the file, whatever operations are made of
theirs, and extensions that are added after an edit are used.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ovjit.api.tensors.shapes import PartialShape
from ovjit.readers.onnx.attributes import reads
from ovjit.readers.onnx.standard import messages
from ovjit.readers.onnx.tensors import element_code, element_type


class Tensor:
    """A tensor of a graph: its name, further names, and its type, shape or value in the file."""

    def __init__(self, name: str):
        self.name = self.first = name
        self.more: set[str] = set()
        self.info: Any = None  # a ValueInfoProto
        self.value: Any = None  # a TensorProto, of an initializer
        self.shape: PartialShape | None = None  # that was set
        self.type: str | None = None

    def declared_shape(self) -> PartialShape | None:
        if self.shape is not None:
            return self.shape
        if self.value is not None:
            return PartialShape(list(self.value.dims))
        if self.info is None or not self.info.type.tensor_type.HasField("shape"):
            return None
        dims = self.info.type.tensor_type.shape.dim
        return PartialShape([d.dim_value if d.HasField("dim_value") else -1 for d in dims])

    def declared_type(self) -> str | None:
        if self.type is not None or self.info is None:
            return self.type
        return element_type(self.info.type.tensor_type.elem_type)

    def to_proto(self) -> Any:
        """A ValueInfoProto with the type and shape that the tensor has now."""
        result = messages().ValueInfoProto()
        if self.info is not None:
            result.CopyFrom(self.info)
        result.name = self.name
        if self.type is not None:
            result.type.tensor_type.elem_type = element_code(self.type)
        if self.shape is not None:
            result.type.tensor_type.ClearField("shape")
            if self.shape.rank.is_static:
                result.type.tensor_type.shape.SetInParent()
                for d in self.shape:
                    dim = result.type.tensor_type.shape.dim.add()
                    if d.is_static:
                        dim.dim_value = d.get_length()
        return result


class Operation:
    """A node: its name, the names of its input tensors (None for absent optional ones) and of its outputs."""

    def __init__(self, proto: Any, tensor: Any):
        self.proto = proto
        self.name: str = proto.name
        self.inputs: list[Tensor | None] = [tensor(name) if name else None for name in proto.input]
        self.outputs: list[Tensor | None] = [tensor(name) if name else None for name in proto.output]
        input_names = {name for name in proto.input if name}
        #: What bodies take from the graph around them.
        self.captured: list[Tensor] = [
            tensor(name) for name in dict.fromkeys(reads(proto)) if name not in input_names
        ]

    def to_proto(self, target: Any) -> None:
        target.CopyFrom(self.proto)
        target.name = self.name
        for names, tensors in ((target.input, self.inputs), (target.output, self.outputs)):
            del names[:]
            names.extend("" if tensor is None else tensor.name for tensor in tensors)
        renamed = {t.first: t.name for t in self.captured if t.first != t.name}
        if renamed:
            _rename(target, renamed)


def _rename(node: Any, renamed: Mapping[str, str]) -> None:
    """Rename the tensors that the bodies of a node capture."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            for inner in attribute.g.node:
                inner.input[:] = [renamed.get(name, name) for name in inner.input]
                _rename(inner, renamed)
            for info in attribute.g.output:
                info.name = renamed.get(info.name, info.name)


class Graph:
    """A graph that can be edited."""

    def __init__(self, proto: Any):
        self._proto = proto
        self._tensors: dict[str, Tensor] = {}
        graph = proto.graph
        for infos in (graph.value_info, graph.output, graph.input):
            for info in infos:
                self._tensor(info.name).info = info
        for value in graph.initializer:
            self._tensor(value.name).value = value
        self.operations = [Operation(node, self._tensor) for node in graph.node]
        sparse = {value.values.name for value in graph.sparse_initializer}
        listed = [self._tensor(info.name) for info in graph.input if info.name not in sparse]
        self.inputs = [tensor for tensor in listed if tensor.value is None]
        self.outputs = [self._tensor(info.name) for info in graph.output]

    def _tensor(self, name: str) -> Tensor:
        return self._tensors.setdefault(name, Tensor(name))

    def state(self) -> tuple[Any, ...]:
        """A snapshot of operations, inputs and outputs for `restore`."""
        operations = [(operation, list(operation.inputs)) for operation in self.operations]
        return operations, list(self.inputs), list(self.outputs)

    def restore(self, state: tuple[Any, ...]) -> None:
        operations, self.inputs, self.outputs = state
        self.operations = [operation for operation, _ in operations]
        for operation, inputs in operations:
            operation.inputs = inputs

    def tensors(self) -> list[Tensor]:
        """The tensors of the current graph."""
        tensors = [*self.inputs, *self.outputs]
        for operation in self.operations:
            tensors += [t for t in (*operation.inputs, *operation.outputs, *operation.captured) if t]
        return list(dict.fromkeys(tensors))

    def named(self, name: str) -> Tensor | None:
        return next((t for t in self.tensors() if name == t.name or name in t.more), None)

    def producer(self, tensor: Tensor) -> tuple[Operation, int] | None:
        for operation in self.operations:
            if tensor in operation.outputs:
                return operation, operation.outputs.index(tensor)
        return None

    def consumers(self, tensor: Tensor) -> list[tuple[Operation, int]]:
        return [(o, i) for o in self.operations for i, source in enumerate(o.inputs) if source is tensor]

    def drop_unused(self) -> None:
        """Remove operations and inputs that no output needs."""
        needed, waiting = set[Operation](), list(self.outputs)
        read = set(waiting)
        while waiting:
            maker, _ = self.producer(waiting.pop()) or (None, 0)
            if maker is None or maker in needed:
                continue
            needed.add(maker)
            more = [t for t in (*maker.inputs, *maker.captured) if t is not None and t not in read]
            read.update(more)
            waiting += more
        self.operations = [operation for operation in self.operations if operation in needed]
        self.inputs = [tensor for tensor in self.inputs if tensor in read]

    def to_proto(self) -> Any:
        result = type(self._proto)()
        result.CopyFrom(self._proto)
        graph = result.graph
        for field in ("node", "input", "output", "value_info", "initializer"):
            graph.ClearField(field)
        for operation in self.operations:
            operation.to_proto(graph.node.add())
        graph.input.extend(tensor.to_proto() for tensor in self.inputs)
        graph.output.extend(tensor.to_proto() for tensor in self.outputs)
        for tensor in self.tensors():
            if tensor.value is not None and tensor not in self.inputs:
                value = graph.initializer.add()
                value.CopyFrom(tensor.value)
                value.name = tensor.name
        return result
