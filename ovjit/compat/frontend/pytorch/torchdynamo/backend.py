"""torch.compile(model, backend="openvino", options={...}): graphs of ATen operators, compiled by ovjit.

The graph comes from aot_autograd, so writes to buffers and inputs are functional and views are known. Without
the option `aot_autograd` only inference is compiled: results have no gradients, as with OpenVINO's backend.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch._dynamo.backends.common import aot_autograd
from torch._dynamo.backends.registry import register_backend

from ovjit.api.run.properties_table import PropertyError
from ovjit.compat.frontend.pytorch.torchdynamo import options as compile_options
from ovjit.compat.frontend.pytorch.torchdynamo.checks import with_checks
from ovjit.compat.frontend.pytorch.torchdynamo.execute import clear_caches
from ovjit.compat.frontend.pytorch.torchdynamo.frozen import Frozen
from ovjit.compat.frontend.pytorch.torchdynamo.options import Options
from ovjit.compat.frontend.pytorch.torchdynamo.partition import compiled_parts, warn_once
from ovjit.compat.frontend.pytorch.torchdynamo.views import beside_views
from ovjit.errors import unless_of_signal
from ovjit.readers.torch.programs.decompose import more_decompositions

NAMES = ("openvino", "ovjit")
#: Options for all graphs, instead of those that torch.compile is given, if there are any.
openvino_options: dict[str, Any] = {}


def openvino(
    subgraph: Any, example_inputs: Any, options: Mapping[str, Any] | None = None, **_: Any
) -> Callable[..., Any]:
    """The backend that torch.compile calls for each captured graph."""
    chosen = compile_options.read(openvino_options or options)
    table = _decompositions(chosen)
    if chosen.aot_autograd:
        exact = chosen._replace(config={"INFERENCE_PRECISION_HINT": "f32", **chosen.config})
        compilers = {"fw_compiler": _training(exact), "bw_compiler": _training(exact)}
        return aot_autograd(**compilers, inference_compiler=_inference(chosen), decompositions=table)(
            subgraph, example_inputs
        )
    _keep_gradients_within(subgraph)
    with torch.no_grad():
        inner = aot_autograd(
            fw_compiler=_training(chosen), inference_compiler=_inference(chosen), decompositions=table
        )(subgraph, example_inputs)

    return _without_gradients(inner)


def _without_gradients(inner: Callable[..., Any]) -> Callable[..., Any]:
    """`inner` called without gradients, by few Python frames: a small graph takes a few microseconds."""
    # Dynamo disables itself in what a backend returns, so it need not be disabled within that again.
    inner = getattr(inner, "_torchdynamo_orig_callable", inner)
    enabled, enable = torch.is_grad_enabled, torch._C._set_grad_enabled

    def run(*arguments: Any) -> Any:
        if not enabled():
            return inner(*arguments)
        enable(False)
        try:
            return inner(*arguments)
        finally:
            enable(True)

    return run


def ovjit(
    subgraph: Any, example_inputs: Any, options: Mapping[str, Any] | None = None, **more: Any
) -> Callable[..., Any]:
    """The backend `openvino` under the name "ovjit"."""
    return openvino(subgraph, example_inputs, options, **more)


def reset() -> None:
    """Drop all compiled graph modules."""
    clear_caches()


def register() -> None:
    """Register the backends with torch.compile, unless they are registered."""
    from torch._dynamo.backends import registry

    for name, function in zip(NAMES, (openvino, ovjit), strict=True):
        if registry._COMPILER_FNS.get(name) is None:
            register_backend(compiler_fn=function, name=name)


def _decompositions(chosen: Options) -> dict[Any, Any]:
    """The operators that PyTorch decomposes: those without a rule here, and those in the options."""
    from torch._decomp import get_decompositions

    table = more_decompositions()
    table.update(get_decompositions(list(chosen.decompositions)))
    return table


def _keep_gradients_within(module: Any) -> None:
    """Enable gradients within a graph that computes some itself, by torch.func.grad and the like.

    It is set from where the outermost of them begins to where it ends: the graph is read without.
    """
    levels = {torch._C._functorch._grad_increment_nesting: 1, torch._C._functorch._grad_decrement_nesting: -1}
    for part in module.modules():
        if not isinstance(part, torch.fx.GraphModule):
            continue
        depth = 0
        for node in list(part.graph.nodes):
            step = levels.get(node.target, 0) if callable(node.target) else 0
            if (step, depth) == (1, 0):
                with part.graph.inserting_before(node):
                    part.graph.call_function(torch._C._set_grad_enabled, (True,))
            depth += step
            if (step, depth) == (-1, 0):
                with part.graph.inserting_after(node):
                    part.graph.call_function(torch._C._set_grad_enabled, (False,))
        part.recompile()


def _as_boxed(call: Callable[[Any], Any]) -> Callable[[Any], Any]:
    call._boxed_call = True  # type: ignore[attr-defined]
    return call


def _training(chosen: Options) -> Callable[..., Any]:
    """A compiler of graphs with weights as arguments, for training."""

    def compile_graph(module: Any, example_inputs: Any) -> Callable[[Any], Any]:
        return _as_boxed(_compile_graph(module, chosen, {}))

    return compile_graph


def _inference(chosen: Options) -> Callable[..., Any]:
    """A compiler of graphs with weights as constants, until these are written."""
    chosen = chosen._replace(aot_autograd=False)  # no graph of gradients follows

    def compile_graph(module: Any, example_inputs: Any) -> Callable[[Any], Any]:
        weight_indices = _weights(module)
        if not weight_indices:
            return _as_boxed(_compile_graph(module, chosen, {}))
        return Frozen(weight_indices, lambda tensors: _compile_graph(module, chosen, tensors))

    return compile_graph


def _weights(module: Any) -> list[int]:
    """The indices of parameters and buffers among the arguments, except those that the graph writes."""
    context = torch._guards.TracingContext.try_get()
    metadata = None if context is None else context.fw_metadata
    if metadata is None:
        return []
    written = {i for i, info in enumerate(metadata.input_info) if info.mutates_data or info.mutates_metadata}
    placeholders = module.graph.find_nodes(op="placeholder")
    return [
        i
        for i in metadata.static_input_indices
        if i not in written
        and i < len(placeholders)
        and isinstance(placeholders[i].meta.get("val"), torch.Tensor)
    ]


def _by_parts(module: Any, chosen: Options, constants: Mapping[int, Any]) -> Callable[[Any], Any]:
    return beside_views(module, lambda inner: compiled_parts(inner, chosen, constants))


def _compile_graph(module: Any, chosen: Options, constants: Mapping[int, Any]) -> Callable[[Any], Any]:
    """The compiled graph; if nothing can be compiled, the graph in eager mode, with a warning.

    Raises PropertyError for a wrong `config`.
    """
    from torch._subclasses.fake_tensor import unset_fake_temporarily

    try:
        with unset_fake_temporarily():  # constants of the graph are tensors with values
            return with_checks(module, lambda checked: _by_parts(checked, chosen, constants))
    except PropertyError:
        raise
    except unless_of_signal(Exception) as error:
        warn_once(f"a graph is not compiled: {type(error).__name__}: {error}")
        return lambda arguments: module(*arguments)
