"""Running graph modules of ATen operators, by the names of OpenVINO's functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ovjit.compat.frontend.pytorch.torchdynamo import options as compile_options
from ovjit.compat.frontend.pytorch.torchdynamo.compile import openvino_compile
from ovjit.compat.frontend.pytorch.torchdynamo.partition import compiled_parts
from ovjit.readers.torch.pytorch import torch

#: What was compiled, by the graph module and what its arguments are like. The module is kept, too: its
#: identity stands for it.
compiled_cache: dict[Any, tuple[Any, Callable[..., Any]]] = {}


def execute(
    gm: Any,
    *args: Any,
    executor: str = "openvino",
    executor_parameters: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
) -> Any:
    """Run a graph module: by parts, where some operators stay with PyTorch ("openvino"), or as one compiled
    model ("strictly_openvino")."""
    if executor == "openvino":
        return openvino_execute_partitioned(
            gm, *args, executor_parameters=executor_parameters, options=options
        )
    if executor == "strictly_openvino":
        return openvino_execute(gm, *args, executor_parameters=executor_parameters, options=options)
    raise ValueError(f"executor is 'openvino' or 'strictly_openvino', not {executor!r}")


def execute_cached(compiled_model: Any, *args: Any) -> list[Any]:
    """Run a compiled model, with inputs in reverse order."""
    results = compiled_model([x.detach().cpu().numpy() for x in reversed(args)])
    return [torch.from_numpy(results[port]) for port in compiled_model.outputs]


def openvino_execute(
    gm: Any,
    *args: Any,
    executor_parameters: Mapping[str, Any] | None = None,
    partition_id: int = 0,
    options: Mapping[str, Any] | None = None,
) -> Any:
    """Run a graph module as one compiled model. Returns a single result by itself, several as a list."""
    from torch.utils._pytree import tree_flatten

    leaves, _ = tree_flatten(args)
    key = ("whole", partition_id, *_key(gm, leaves, options))
    name = (executor_parameters or {}).get("model_hash_str")

    def compile_whole() -> Callable[..., Any]:
        request = openvino_compile(gm, *args, model_hash_str=name, options=options).create_infer_request()

        def run(tensors: list[Any]) -> list[Any]:
            outputs = request.infer([x.detach().cpu().numpy() if _is_tensor(x) else x for x in tensors])
            return [torch.from_numpy(outputs[port].copy()) for port in request.model_outputs]

        return run

    results = _once(key, gm, compile_whole)(leaves)
    return results[0] if len(results) == 1 else results


def openvino_execute_partitioned(
    gm: Any,
    *args: Any,
    executor_parameters: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
) -> Any:
    """Run a graph module: unsupported operators by PyTorch, the others as compiled models."""

    from torch.fx.experimental.proxy_tensor import make_fx

    def compile_parts() -> Callable[..., Any]:
        chosen = compile_options.read(options)
        module = make_fx(gm)(*args)
        call = compiled_parts(module, chosen, {})
        is_one = not isinstance(module.graph.output_node().args[0], (list, tuple))

        def run(arguments: list[Any]) -> Any:
            outputs = call(arguments)
            if is_one:
                return outputs[0] if isinstance(outputs, list) else outputs
            return tuple(outputs)

        return run

    return _once(("parts", *_key(gm, args, options)), gm, compile_parts)(list(args))


def clear_caches() -> None:
    """Drop all compiled models."""
    compiled_cache.clear()


def _is_tensor(value: Any) -> bool:
    return isinstance(value, torch.Tensor)


def _key(gm: Any, arguments: Any, options: Mapping[str, Any] | None) -> tuple[Any, ...]:
    kinds = ((x.dtype, tuple(x.shape)) if _is_tensor(x) else (type(x), x) for x in arguments)
    return id(gm), repr(options), *kinds


def _once(key: Any, gm: Any, build: Callable[[], Callable[..., Any]]) -> Callable[..., Any]:
    if key not in compiled_cache:
        compiled_cache[key] = (gm, build())
    return compiled_cache[key][1]


__all__ = [
    "clear_caches",
    "compiled_cache",
    "execute",
    "execute_cached",
    "openvino_execute",
    "openvino_execute_partitioned",
]
