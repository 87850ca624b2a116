"""Decoder of a PyTorch module with its example, and of its graph node by node, for `convert_model`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ovjit
from ovjit.api.model.node import Output
from ovjit.api.tensors.shapes import PartialShape
from ovjit.api.tensors.types import Type
from ovjit.compat.frontend.extensions import _IDecoder
from ovjit.compat.frontend.pytorch.py_pytorch_frontend import _Type
from ovjit.compat.frontend.pytorch.utils import constant_of, pt_to_ov_type_map
from ovjit.readers.torch import decoders
from ovjit.readers.torch.pytorch import torch
from ovjit.readers.torch.tracing.trace import is_plain_module


class TorchScriptPythonDecoder(decoders.TorchScriptPythonDecoder, _IDecoder):
    """A PyTorch module, or a graph or node of its script, with the types, constants and names in it."""

    _graph: Any = None

    @property
    def graph_element(self) -> Any:
        """The node or graph; that of the module's script where none was given."""
        if self._element is not None:
            return self._element
        if self._graph is None:
            self._graph = _explicit(self.pt_module.inlined_graph)
        return self._graph

    @property
    def raw_inputs(self) -> list[Any]:
        """PyTorch's input values."""
        return list(self.graph_element.inputs())

    @property
    def raw_outputs(self) -> list[Any]:
        """PyTorch's output values."""
        return list(self.graph_element.outputs())

    def inputs(self) -> list[int]:
        """The unique numbers of the input values."""
        return [value.unique() for value in self.raw_inputs]

    def outputs(self) -> list[int]:
        """The unique numbers of the output values."""
        return [value.unique() for value in self.raw_outputs]

    def output(self, index: int) -> int:
        """The unique number of an output value."""
        return self.raw_outputs[index].unique()

    def num_of_outputs(self) -> int:
        """The number of output values."""
        return len(self.raw_outputs)

    def get_input_debug_name(self, index: int) -> str:
        """The name of an input of the node."""
        return self.raw_inputs[index].debugName()

    def get_output_debug_name(self, index: int) -> str:
        """The name of an output of the node."""
        return self.raw_outputs[index].debugName()

    def get_input_signature_name(self, index: int) -> str:
        """The name of an input of a traced module in its `forward`, else in the graph."""
        if is_plain_module(self._module):
            names = ["self", *decoders.names_of_arguments(self._module)]
            if index < len(names):
                return names[index]
        return self.get_input_debug_name(index)

    def get_input_shape(self, index: int) -> PartialShape:
        """The shape of an input with dynamic dimensions; of dynamic rank if the rank is unknown."""
        return self.get_shape_for_value(self.raw_inputs[index])

    def get_output_shape(self, index: int) -> PartialShape:
        """The shape of an output with dynamic dimensions; of dynamic rank if the rank is unknown."""
        return self.get_shape_for_value(self.raw_outputs[index])

    def get_input_strides(self, index: int) -> list[int]:
        """The strides of an input; an empty list if they are unknown."""
        kind = self.raw_inputs[index].type()
        return list((hasattr(kind, "strides") and kind.strides()) or [])

    def get_input_type(self, index: int) -> Any:
        """The type of an input as an OVAny."""
        return self.get_type_for_value(self.raw_inputs[index])

    def get_output_type(self, index: int) -> Any:
        """The type of an output as an OVAny."""
        return self.get_type_for_value(self.raw_outputs[index])

    def get_shape_for_value(self, value: Any) -> PartialShape:
        """The shape of a value with dynamic dimensions; of dynamic rank if the rank is unknown."""
        if value.isCompleteTensor():
            return PartialShape([-1] * len(value.type().sizes()))
        return PartialShape.dynamic()

    def get_type_for_value(self, value: Any) -> Any:
        """The type of a value, as an OVAny."""
        return _describe_type(value.type())

    def get_subgraphs(self) -> list[Any]:
        """The graphs inside of a node."""
        element = self.graph_element
        return list(element.blocks()) if hasattr(element, "blocks") else []

    def get_subgraph_size(self) -> int:
        """The number of graphs inside a node; 1 for a graph."""
        return len(self.get_subgraphs()) if hasattr(self.graph_element, "kind") else 1

    def get_subgraph_decoder(self, index: int) -> TorchScriptPythonDecoder:
        """The decoder of a graph inside of a node."""
        return TorchScriptPythonDecoder(self.pt_module, self.get_subgraphs()[index])

    def visit_subgraph(self, node_visitor: Callable[[TorchScriptPythonDecoder], Any]) -> None:
        """Call a function with the decoder of each node in the order of the graph."""
        for node in self.graph_element.nodes():
            node_visitor(TorchScriptPythonDecoder(self.pt_module, node))

    def decoder_type_name(self) -> str:
        """The kind of graph: TorchScript."""
        return "ts"

    def get_op_type(self) -> str:
        """The operator of a node."""
        assert hasattr(self.graph_element, "kind"), "a graph is no operator: give a node of it"
        return self.graph_element.kind()

    def get_schema(self) -> str:
        """The operator's schema."""
        return self.graph_element.schema()

    def mark_node(self, node: Any) -> Any:
        """Return the node unchanged."""
        return node

    def as_constant(self) -> list[Output] | None:
        """The value of a constant; None for another operator, or a constant that is no number."""
        if not hasattr(self.graph_element, "kind") or self.get_op_type() != "prim::Constant":
            return None
        result = constant_of(self.raw_outputs[0].toIValue())
        if result is None:
            return None
        result.get_node().set_friendly_name(self.get_output_debug_name(0))
        return [result]

    def as_string(self) -> str | None:
        """The text of a constant, or the name of its device; None for another value."""
        if self.get_op_type() != "prim::Constant":
            return None
        value = self.raw_outputs[0].toIValue()
        if type(value).__name__ == "device":
            return str(value.type)
        return value if isinstance(value, str) else None

    def input_is_none(self, index: int) -> bool:
        """Whether an input is None or absent."""
        inputs = self.raw_inputs
        return index >= len(inputs) or str(inputs[index].type()).endswith("NoneType")

    def may_produce_alias(self, in_index: int, out_index: int) -> bool:
        """Whether an output may share memory with an input, by the operator's schema."""
        schema = torch._C.parse_schema(self.get_schema())
        ends = schema.arguments[in_index], schema.returns[out_index]
        return all(end.alias_info is not None for end in ends)

    def is_input_inlined(self, index: int) -> bool:
        """Always False: inputs are values of the graph."""
        return False

    def get_inlined_input_decoder(self, index: int) -> None:
        """Always None: inputs are values of the graph."""

    def get_attribute(self, name: str) -> Any:
        """An OVAny of None: operators have arguments instead of attributes."""
        return ovjit.OVAny(None)

    def get_named_input(self, name: str) -> int:
        """Raise RuntimeError: inputs have no names."""
        raise RuntimeError(f"inputs of TorchScript's operators have no names, such as {name!r}")

    def get_rt_info(self) -> dict[str, Any]:
        """An empty dict: there is no further information."""
        return {}


def _describe_type(kind: Any) -> Any:
    """A type of PyTorch's as an OVAny of an element type or of a `_Type`."""
    name = str(kind)
    if kind is None:
        described: Any = Type.dynamic
    elif name in ("int", "float", "bool"):
        described = _Type.PyScalar(ovjit.OVAny(pt_to_ov_type_map[name]))
    elif name in pt_to_ov_type_map:
        described = pt_to_ov_type_map[name]
    elif isinstance(kind, torch.ComplexType):
        described = _Type.Tensor(ovjit.OVAny(_Type.Complex(ovjit.OVAny(Type.dynamic))))
    elif isinstance(kind, torch.TensorType):
        described = _Type.Tensor(_describe_type(kind.dtype()))
    elif isinstance(kind, torch.ListType):
        described = _Type.List(_describe_type(kind.getElementType()))
    elif isinstance(kind, (torch.StringType, torch.DeviceObjType)):
        described = _Type.Str()
    else:
        described = _Type.PyNone() if isinstance(kind, torch.NoneType) else Type.dynamic
    return ovjit.OVAny(described)


def _explicit(graph: Any) -> Any:
    """The graph with lists of constant tensors built from its constants, and None where an optional value is
    None."""
    for node in graph.findAllNodes("prim::Constant"):
        value, output = node.output().toIValue(), node.output()
        with graph.insert_point_guard(node):
            if isinstance(output.type(), torch.ListType) and _is_of_tensors(output.type()):
                parts = [graph.insertConstant(part) for part in value]
                result = graph.create("prim::ListConstruct", parts, 1).output()
                result.setType(torch.ListType(torch.TensorType.get()))
                graph.insertNode(result.node())
            elif isinstance(output.type(), torch.OptionalType) and value is None:
                result = graph.insertConstant(None)
            else:
                continue
        output.replaceAllUsesWith(result)
    return graph


def _is_of_tensors(kind: Any) -> bool:
    """Whether a type of lists is one of tensors, or of tensors and None."""
    inner = kind.getElementType()
    inner = inner.getElementType() if isinstance(inner, torch.OptionalType) else inner
    return isinstance(inner, torch.TensorType)


__all__ = ["TorchScriptPythonDecoder", "pt_to_ov_type_map"]
