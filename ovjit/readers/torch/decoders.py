"""Decoders: a module with its example, a node of a graph with its types and constants, an exported program.

PyTorch is not imported for those who have no module.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from ovjit.errors import OvjitError, UnsupportedError, unless_of_signal
from ovjit.readers.torch.pytorch import torch
from ovjit.readers.torch.tracing.patches import allow_divmod
from ovjit.readers.torch.tracing.trace import as_tensors, is_plain_module, quietly

#: Operators of packed weights and of memory, which are not what they were in a frozen script.
_NOT_FROZEN = ("quantized", "aten::as_strided")
_FROZEN = ("prim::Uninitialized", "prim::unchecked_cast", "aten::append")


class TorchScriptPythonDecoder:
    """A PyTorch module and the example for its trace, as exporters pass it to `convert_model`.

    With a `graph_element` it tells of a node or a graph of the module. `pt_module` is the script, which is
    made when it is asked for.
    """

    def __init__(
        self, pt_module: Any, graph_element: Any = None, example_input: Any = None, alias_db: Any = None,
        shared_memory: bool = True, skip_freeze: bool = False, constant_cache: Any = None,
        module_extensions: Any = None, trace_kwargs: Any = None,
    ):  # fmt: skip
        if graph_element is not None and type(graph_element).__module__.split(".")[0] != "torch":
            raise UnsupportedError("a PyTorch module is expected, not a TorchScript graph")
        self._module = pt_module
        self._element = graph_element
        self._script: Any = None
        self._frozen = not skip_freeze
        self._tracing = dict(trace_kwargs or {})
        self.module_extensions = module_extensions
        self.example_input = example_input

    @property
    def module(self) -> Any:
        """The object to convert. Raises UnsupportedError for a node of a TorchScript graph."""
        if self._element is not None and not hasattr(self._element, "nodes"):
            raise UnsupportedError("a PyTorch module is expected, not a node of a TorchScript graph")
        return self._module

    @property
    def pt_module(self) -> Any:
        """The script. RuntimeError where the module cannot be traced, or scripted without an example."""
        if self._element is not None or not is_plain_module(self._module):
            return self._module
        if self._script is None:
            way = "scripting" if self.example_input is None else "tracing"
            try:
                self._script = self._make_script(self._module.eval())
            except unless_of_signal(Exception) as error:
                raise OvjitError(f"Couldn't get TorchScript module by {way}.\nException:\n{error}") from error
        return self._script

    def _make_script(self, module: Any) -> Any:
        with quietly(), torch.no_grad(), allow_divmod():
            if self.example_input is None:
                script = torch.jit.script(module)
            else:
                example = as_tensors(self.example_input)
                script = torch.jit.trace(module, **_tracing(module, example), strict=False, **self._tracing)
            needed = self.example_input is None or _has_operators(script.inlined_graph, _FROZEN)
            if self._frozen and needed and not _has_operators(script.inlined_graph, _NOT_FROZEN):
                return torch.jit.freeze(script)
            return script


class TorchFXPythonDecoder:
    """An ExportedProgram, or a graph module whose placeholders describe the inputs.

    `dynamic_shapes`: dimensions of a graph module's inputs are open, also those that are not symbolic.
    `input_shapes` and `input_types` are of inputs of which the graph module tells nothing.
    """

    def __init__(
        self, pt_module: Any, *_: Any, dynamic_shapes: bool = False, input_shapes: Sequence[Any] = (),
        input_types: Sequence[Any] = (), **__: Any,
    ):  # fmt: skip
        self.pt_module = pt_module
        self.described = list(zip(input_shapes or (), input_types or (), strict=False))
        self.dynamic_shapes = dynamic_shapes
        #: Names of the inputs that exporters set.
        self.argument_names: list[str] = []

    @property
    def _input_signature(self) -> list[str]:
        """Names of the inputs: those that exporters set, else those of the module's arguments."""
        return self.argument_names or names_of_arguments(self.pt_module)

    @_input_signature.setter
    def _input_signature(self, names: list[str]) -> None:
        self.argument_names = names

    @classmethod
    def from_exported_program(
        cls, exported_program: Any, dynamic_shapes: bool = True, **__: Any
    ) -> TorchFXPythonDecoder:
        """The decoder of an ExportedProgram."""
        return cls(exported_program, dynamic_shapes=dynamic_shapes)


def is_torch(source: Any) -> bool:
    """True for a module, a program that torch.export made, a script, or a decoder of one."""
    torch = sys.modules.get("torch")
    if isinstance(source, (TorchScriptPythonDecoder, TorchFXPythonDecoder)):
        return True
    if torch is None:
        return False
    kinds = (torch.nn.Module, torch.jit.ScriptFunction, torch.export.ExportedProgram)
    return isinstance(source, kinds)


def names_of_arguments(module: Any) -> list[str]:
    """The names of the arguments of a module's `forward` or of a graph; [] if they are unknown to Python."""
    codegen = getattr(getattr(module, "graph", None), "_codegen", None)
    names = getattr(getattr(codegen, "pytree_info", None), "orig_args", None)
    if names is not None:  # a graph of torch.export, which was called with trees of tensors
        return [name for name in names if name != "self"]
    try:
        return list(inspect.signature(getattr(module, "forward", module)).parameters)
    except (TypeError, ValueError):
        return []


def _tracing(module: Any, example: Any) -> dict[str, Any]:
    """The example in the form of torch.jit.trace: keyword arguments, if it is a dict of argument names."""
    names = inspect.signature(module.forward).parameters
    if isinstance(example, Mapping) and set(example) <= set(names):
        return {"example_kwarg_inputs": dict(example)}
    return {"example_inputs": tuple(example) if isinstance(example, (list, tuple)) else (example,)}


def _has_operators(graph: Any, names: tuple[str, ...]) -> bool:
    return any(
        node.kind().startswith(names) or any(_has_operators(block, names) for block in node.blocks())
        for node in graph.nodes()
    )
