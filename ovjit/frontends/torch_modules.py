"""PyTorch modules as ONNX, by the exporter that comes with PyTorch: `convert_model` reads what comes out.

The exporter is the one that traces, so what holds of `torch.jit.trace` holds here: a module is run once with
an example, and what Python decides while it runs is decided for good. PyTorch is not imported for those who
have no module.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import os
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ovjit.errors import OvjitError, UnsupportedError

#: The newest opset that PyTorch's tracing exporter writes.
OPSET = 20
#: A protobuf message has at most 2 GiB; larger weights are written to files beside the model.
MOST_IN_MEMORY = 1 << 30
_NOT_TRACED = "Couldn't get TorchScript module by tracing.\nException:\n"


class TorchScriptPythonDecoder:
    """A PyTorch module with the example that it is traced with: what `convert_model` takes of exporters."""

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
        if module_extensions:
            raise UnsupportedError("module_extensions are not supported: ovjit traces modules as they are")
        if graph_element is not None:
            raise UnsupportedError("ovjit reads PyTorch modules, not graphs of TorchScript")
        self.pt_module = pt_module
        self.example_input = example_input


class Exported(NamedTuple):
    """An ONNX model: `file` is its path or its bytes; `outputs` are names, None for one that has none."""

    file: Any
    inputs: list[str]
    outputs: list[str | None]


def is_torch(given: Any) -> bool:
    """True for a module, a program that torch.export made, a script, or a decoder of one."""
    torch = sys.modules.get("torch")
    if isinstance(given, TorchScriptPythonDecoder):
        return True
    if torch is None:
        return False
    kinds = (torch.nn.Module, torch.jit.ScriptFunction, torch.export.ExportedProgram)
    return isinstance(given, kinds)


def export(given: Any, example: Any, described: Sequence[tuple[Any, Any, Any]], folder: str) -> Exported:
    """`given` traced with `example` and written as ONNX, into `folder` if it is large.

    Without an example, one is made of `described`, (name, shape, NumPy type) of each input, or of what a
    traced script tells of its inputs. All dimensions are open, as OpenVINO has them; where the exporter needs
    one to be known, all are those of the example.
    """
    import torch

    if isinstance(given, TorchScriptPythonDecoder):
        example = given.example_input if example is None else example
        given = given.pt_module
    keywords: Mapping[str, Any] = {}
    if isinstance(given, torch.export.ExportedProgram):
        if example is None:
            arguments, keywords = given.example_inputs or ((), {})
            example = tuple(arguments)
        given = given.module()
    elif isinstance(given, torch.nn.Module):
        given.eval()
    if example is None and not keywords:
        example = _example(given, described)
    names, leaves, module = _flat(given, example, keywords)
    outputs = module.names
    try:
        with _quietly(), torch.no_grad():
            module(*leaves)
    except Exception as error:
        raise OvjitError(
            f"{_NOT_TRACED}{error}\nPlease check correctness of provided 'example_input'."
        ) from error
    open_axes = {
        name: {axis: f"{name}.{axis}" for axis in range(leaf.dim())}
        for name, leaf in zip(names, leaves, strict=True)
    }
    bytes_of = sum(t.numel() * t.element_size() for t in _weights(given))
    first: Exception | None = None
    for axes_given in (open_axes, None):
        target: Any = io.BytesIO() if bytes_of < MOST_IN_MEMORY else os.path.join(folder, "model.onnx")
        try:
            with _quietly(), torch.no_grad():
                torch.onnx.export(
                    given if _is_script(given) else module,
                    tuple(leaves),
                    target,
                    dynamo=False,
                    opset_version=OPSET,
                    input_names=names,
                    dynamic_axes=axes_given,
                )
        except Exception as error:
            first = first or error
            continue
        file = target.getvalue() if isinstance(target, io.BytesIO) else target
        return Exported(file, names, list(outputs))
    says = "PyTorch does not export the module to ONNX, by which ovjit converts it"
    raise UnsupportedError(f"{says}: {first}") from first


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """What the exporter warns of and prints is not shown; modules run by operations that it knows."""
    import torch

    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def _is_script(given: Any) -> bool:
    import torch

    return isinstance(given, (torch.jit.ScriptModule, torch.jit.ScriptFunction))


def _weights(given: Any) -> list[Any]:
    return [*given.parameters(), *given.buffers()] if hasattr(given, "parameters") else []


def _example(given: Any, described: Sequence[tuple[Any, Any, Any]]) -> Any:
    """An example of zeros, by what is said of the inputs; keywords where they are named."""
    import torch

    if described and all(shape is not None for _, shape, _ in described):
        made = [
            torch.from_numpy(np.zeros([_extent(d) for d in shape], kind or np.float32))
            for _, shape, kind in described
        ]
        named = [name for name, *_ in described]
        return dict(zip(named, made, strict=True)) if all(named) else tuple(made)
    if _is_script(given):
        kinds = [v.type() for v in given.graph.inputs() if isinstance(v.type(), torch.TensorType)]
        if kinds and all(k.sizes() is not None and k.dtype() is not None for k in kinds):
            return tuple(torch.zeros(k.sizes(), dtype=k.dtype()) for k in kinds)
    raise UnsupportedError(
        "example_input is needed, or shapes as input: ovjit traces PyTorch modules, it does not script them"
    )


def _extent(d: Any) -> int:
    """A length that fits what may be a Dimension."""
    if getattr(d, "is_dynamic", False) or (isinstance(d, int) and d < 0):
        return max(1, getattr(d, "min_length", 1))
    return int(d.get_length()) if hasattr(d, "get_length") else int(d)


def _tensors(given: Any) -> Any:
    """The example with arrays, and what holds one as `data`, as PyTorch's tensors."""
    import torch

    if isinstance(given, torch.Tensor):
        return given
    if isinstance(given, Mapping):
        return {k: _tensors(v) for k, v in given.items()}
    if isinstance(given, (list, tuple)) and not hasattr(given, "_fields"):
        return type(given)(map(_tensors, given))
    data = given if isinstance(given, np.ndarray) else getattr(given, "data", None)
    return torch.from_numpy(data.copy()) if isinstance(data, np.ndarray) else given


def _flat(given: Any, example: Any, keywords: Mapping[str, Any]) -> tuple[list[str], list[Any], Any]:
    """Names and tensors of all inputs in the order of the signature, and the module that takes them so."""
    import torch
    from torch.utils import _pytree as tree

    example = _tensors(example)
    arguments: tuple[Any, ...] = ()
    if isinstance(example, dict) and not keywords:
        keywords = example
    else:
        arguments = tuple(example) if isinstance(example, (list, tuple)) else (example,)
        keywords = _tensors(keywords)
    names: list[str] = []
    try:
        bound = inspect.signature(getattr(given, "forward", given)).bind(*arguments, **keywords).arguments
    except ValueError:  # a script may have no signature for Python; it has a graph
        inputs = [v.debugName() for v in given.graph.inputs() if isinstance(v.type(), torch.TensorType)]
        bound = dict(zip(inputs, arguments, strict=False))
    except TypeError as error:
        raise OvjitError(f"{_NOT_TRACED}{error}") from error
    for name, value in bound.items():
        parts = [leaf for leaf in tree.tree_leaves(value) if isinstance(leaf, torch.Tensor)]
        single = parts and parts[0] is value
        if isinstance(value, dict) and name not in keywords:  # what a signature gathers as **kwargs
            inner = [(k, leaf) for k, v in value.items() for leaf in tree.tree_leaves(v)]
            names += [k for k, leaf in inner if isinstance(leaf, torch.Tensor)]
        else:
            names += [name] if single else [f"{name}.{i}" for i in range(len(parts))]
    ordered = _in_order(bound, keywords)
    leaves, shape = tree.tree_flatten((arguments, ordered))
    places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, torch.Tensor)]

    class Flat(torch.nn.Module):
        """The module as a function of tensors alone, to tensors alone."""

        def __init__(self) -> None:
            super().__init__()
            self.names: list[str | None] = []
            self.called = given
            if isinstance(given, torch.nn.Module):
                del self._modules["called"]
                self._modules["self"] = given  # weights are self.layer.weight then, as in OpenVINO

        def train(self, mode: bool = True) -> Any:
            self.training = mode  # the module itself stays as it was made
            return self

        def forward(self, *tensors: Any) -> Any:
            now = list(leaves)
            for place, tensor in zip(places, tensors, strict=True):
                now[place] = tensor
            positional, named = tree.tree_unflatten(now, shape)
            called = self._modules.get("self") or self.called
            made = called(*positional, **named)
            self.names[:], values = _outputs(made)
            return values

    return names, [leaves[i] for i in places], Flat()


def _in_order(bound: Mapping[str, Any], keywords: Mapping[str, Any]) -> dict[str, Any]:
    """Keywords in the order of the signature, those that it gathers last."""
    first = {k: keywords[k] for k in bound if k in keywords}
    return {**first, **{k: v for k, v in keywords.items() if k not in first}}


def _outputs(made: Any) -> tuple[list[str | None], tuple[Any, ...]]:
    """Names and tensors of what a module gives: keys of a dict are names, None is left out."""
    import torch
    from torch.utils import _pytree as tree

    names: list[str | None] = []
    values: list[Any] = []
    items = made.items() if isinstance(made, Mapping) else [(None, made)]
    for key, value in items:
        parts = [v for v in tree.tree_leaves(value) if isinstance(v, (torch.Tensor, bool, int, float))]
        names += [key if len(parts) == 1 else None] * len(parts)
        values += [v if isinstance(v, torch.Tensor) else torch.tensor(v) for v in parts]
    return names, tuple(values)
