"""Decoders: a module with its example, a node of a graph with what it tells of itself, an exported program.

PyTorch is not imported for those who have no module.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import cached_property
from typing import Any

from ovjit.api.model.rt_info import OVAny
from ovjit.api.tensors.convert import type_of
from ovjit.api.tensors.shapes import PartialShape
from ovjit.api.tensors.types import Type
from ovjit.errors import OvjitError, UnsupportedError
from ovjit.readers.torch.patches import divided
from ovjit.readers.torch.trace import as_tensors, quietly
from ovjit.readers.torch.values import element_type, is_complex

#: Element types of what is no tensor, by the kinds of types.
_NUMBERS = {"IntType": "i64", "FloatType": "f32", "BoolType": "boolean"}
#: Operators of packed weights and of memory, which are not what they were in a frozen script.
_NOT_FROZEN = ("quantized", "aten::as_strided")
_FROZEN = ("prim::Uninitialized", "prim::unchecked_cast", "aten::append")


class DecoderType:
    """What a value is that is no tensor of a known element type, as OpenVINO's decoders tell it."""

    class Tensor:
        def __init__(self, element_type: Any):
            self.element_type = element_type

    class List(Tensor):
        pass

    class PyScalar(Tensor):
        pass

    class Complex(Tensor):
        pass

    class Str:
        pass

    class PyNone:
        pass


class TorchScriptPythonDecoder:
    """A PyTorch module with the example that it is traced with: what `convert_model` takes of exporters.

    With a `graph_element` it tells of a node or a graph of the module. `pt_module` is the script, which is
    made when it is asked for.
    """

    def __init__(
        self,
        pt_module: Any,
        graph_element: Any = None,
        example_input: Any = None,
        alias_db: Any = None,
        shared_memory: bool = True,
        skip_freeze: bool = False,
        constant_cache: Any = None,
        module_extensions: Any = None,
        trace_kwargs: Any = None,
    ):
        if graph_element is not None and type(graph_element).__module__.split(".")[0] != "torch":
            raise UnsupportedError("a PyTorch module is expected, not a TorchScript graph")
        self._given = pt_module
        self._element = graph_element
        self._frozen = not skip_freeze
        self._tracing = dict(trace_kwargs or {})
        self.module_extensions = module_extensions
        self.example_input = example_input

    @property
    def module(self) -> Any:
        """What is converted. Raises UnsupportedError for a node."""
        if self._element is not None and not hasattr(self._element, "nodes"):
            raise UnsupportedError("a PyTorch module is expected, not a node of a TorchScript graph")
        return self._given

    @cached_property
    def pt_module(self) -> Any:
        """The script. RuntimeError where the module cannot be traced, or scripted without an example."""
        given = self._given
        if self._element is not None or not _is_plain_module(given):
            return given
        given.eval()
        way = "scripting" if self.example_input is None else "tracing"
        try:
            return self._scripted(given)
        except Exception as error:
            raise OvjitError(f"Couldn't get TorchScript module by {way}.\nException:\n{error}") from error

    def _scripted(self, given: Any) -> Any:
        import torch

        with quietly(), torch.no_grad(), divided():
            if self.example_input is None:
                script = torch.jit.script(given)
            else:
                example = as_tensors(self.example_input)
                script = torch.jit.trace(given, **_tracing(given, example), strict=False, **self._tracing)
            needed = self.example_input is None or _has_operators(script.inlined_graph, _FROZEN)
            if self._frozen and needed and not _has_operators(script.inlined_graph, _NOT_FROZEN):
                return torch.jit.freeze(script)
            return script

    @property
    def graph_element(self) -> Any:
        """The graph of the script, or the node that it tells of."""
        return self.pt_module.inlined_graph if self._element is None else self._element

    @cached_property
    def raw_inputs(self) -> list[Any]:
        return list(self.graph_element.inputs())

    @cached_property
    def raw_outputs(self) -> list[Any]:
        return list(self.graph_element.outputs())

    def inputs(self) -> list[int]:
        return [value.unique() for value in self.raw_inputs]

    def outputs(self) -> list[int]:
        return [value.unique() for value in self.raw_outputs]

    def output(self, index: int) -> int:
        return self.outputs()[index]

    def num_of_outputs(self) -> int:
        return len(self.raw_outputs)

    def get_op_type(self) -> str:
        return self.graph_element.kind()

    def get_schema(self) -> str:
        return self.graph_element.schema()

    def get_input_debug_name(self, index: int) -> str:
        return self.raw_inputs[index].debugName()

    def get_output_debug_name(self, index: int) -> str:
        return self.raw_outputs[index].debugName()

    def get_input_shape(self, index: int) -> PartialShape:
        return _shape_of(self.raw_inputs[index])

    def get_output_shape(self, index: int) -> PartialShape:
        return _shape_of(self.raw_outputs[index])

    def get_input_type(self, index: int) -> OVAny:
        return _told(self.raw_inputs[index].type())

    def get_output_type(self, index: int) -> OVAny:
        return _told(self.raw_outputs[index].type())

    def decoder_type_name(self) -> str:
        return "ts"


class TorchFXPythonDecoder:
    """An ExportedProgram, or a graph module with what its placeholders tell of the inputs.

    `dynamic_shapes`: dimensions of a graph module's inputs are open, also those that are not symbolic.
    """

    def __init__(self, pt_module: Any, *_: Any, dynamic_shapes: bool = False, **__: Any):
        self.pt_module = pt_module
        self.dynamic_shapes = dynamic_shapes
        #: Names of the inputs; exporters set them. The placeholders' own where there are none.
        self._input_signature: list[str] = []

    @classmethod
    def from_exported_program(
        cls, exported_program: Any, dynamic_shapes: bool = True, **__: Any
    ) -> TorchFXPythonDecoder:
        """The decoder of what torch.export gives."""
        return cls(exported_program, dynamic_shapes=dynamic_shapes)


def is_torch(given: Any) -> bool:
    """True for a module, a program that torch.export made, a script, or a decoder of one."""
    torch = sys.modules.get("torch")
    if isinstance(given, (TorchScriptPythonDecoder, TorchFXPythonDecoder)):
        return True
    if torch is None:
        return False
    kinds = (torch.nn.Module, torch.jit.ScriptFunction, torch.export.ExportedProgram)
    return isinstance(given, kinds)


def _is_plain_module(given: Any) -> bool:
    import torch

    return isinstance(given, torch.nn.Module) and not isinstance(given, torch.jit.ScriptModule)


def _tracing(given: Any, example: Any) -> dict[str, Any]:
    """The example as torch.jit.trace takes it: by names, if it is a dict of the arguments."""
    import inspect

    names = inspect.signature(given.forward).parameters
    if isinstance(example, Mapping) and set(example) <= set(names):
        return {"example_kwarg_inputs": dict(example)}
    return {"example_inputs": tuple(example) if isinstance(example, (list, tuple)) else (example,)}


def _has_operators(graph: Any, names: tuple[str, ...]) -> bool:
    return any(
        node.kind().startswith(names) or any(_has_operators(block, names) for block in node.blocks())
        for node in graph.nodes()
    )


def _shape_of(value: Any) -> PartialShape:
    """Only the rank is told, as sizes of an example are not those of other inputs."""
    known = value.isCompleteTensor()
    return PartialShape([-1] * len(value.type().sizes())) if known else PartialShape.dynamic()


def _told(kind: Any) -> OVAny:
    """An element type, or an object of a DecoderType's class; a dynamic type for what is not known."""
    name = kind.kind() if kind is not None else ""
    if name == "TensorType":
        return OVAny(DecoderType.Tensor(_of_dtype(kind.dtype())))
    if name in _NUMBERS:
        return OVAny(DecoderType.PyScalar(OVAny(type_of(_NUMBERS[name]))))
    if name == "ListType":
        return OVAny(DecoderType.List(_told(kind.getElementType())))
    if name in ("StringType", "DeviceObjType"):
        return OVAny(DecoderType.Str())
    return OVAny(DecoderType.PyNone() if name == "NoneType" else Type.dynamic)


def _of_dtype(dtype: Any) -> OVAny:
    if dtype is None:
        return OVAny(Type.dynamic)
    known = OVAny(type_of(element_type(dtype)))
    return OVAny(DecoderType.Complex(known)) if is_complex(dtype) else known
