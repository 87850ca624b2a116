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

from ovjit.api.model.node import make_node
from ovjit.errors import OvjitError, UnsupportedError

#: The newest opset that PyTorch's tracing exporter writes.
OPSET = 20
#: A protobuf message has at most 2 GiB; larger weights are written to files beside the model.
MOST_IN_MEMORY = 1 << 30
#: The child of what is traced that is the module itself: weights are self.layer.weight then, as in OpenVINO.
TRACED = "self"
#: The pass in which the exporter names nodes.
_NAMING = "_jit_pass_onnx_assign_scoped_names_for_node_and_value"
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
    """An ONNX model: `file` is its path or its bytes; `outputs` are names, None for one that has none.

    `labels` are those names of its nodes that say what they were in PyTorch, "__module.layer/aten::linear";
    `made_by` has them for the tensors that are the graph's outputs. `weights` are OpenVINO's names of
    weights, by those in the model, where they differ.
    """

    file: Any
    inputs: list[str]
    outputs: list[str | None]
    labels: frozenset[str] = frozenset()
    made_by: Mapping[str, str] = {}
    weights: Mapping[str, str] = {}


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
        for source, kinds in _sources(given, module, leaves):
            target: Any = io.BytesIO() if bytes_of < MOST_IN_MEMORY else os.path.join(folder, "model.onnx")
            try:
                with _quietly(), torch.no_grad(), _labelled(kinds) as (labels, made_by):
                    torch.onnx.export(
                        source,
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
            own = {} if not _is_script(given) else {name: f"{TRACED}.{name}" for name in _weight_names(given)}
            return Exported(file, names, list(outputs), frozenset(labels), made_by, own)
    says = "PyTorch does not export the module to ONNX, by which ovjit converts it"
    raise UnsupportedError(f"{says}: {first}") from first


def _sources(given: Any, module: Any, leaves: Sequence[Any]) -> Iterator[tuple[Any, dict[str, str]]]:
    """What the exporter may be given, with the labels of its values by their names.

    First a script, of which labels are known: the exporter keeps the names of the values that it translates,
    whereas it forgets scopes. Then, for what cannot be one, the module as it is, without labels.
    """
    with contextlib.suppress(Exception):
        script = _script(given, module, leaves)
        yield script, _label_values(script)
    yield given if _is_script(given) else module, {}


def _script(given: Any, module: Any, leaves: Sequence[Any]) -> Any:
    """A script of the module whose graph may be changed."""
    import torch

    if not _is_script(given):
        with _quietly(), torch.no_grad():
            return torch.jit.trace(module, tuple(leaves), strict=False, check_trace=False)
    # types are copied too, so that the graph of the script that was given stays as it is
    clone = torch._C._hack_do_not_use_clone_module_with_class(given._c, [], [])
    return torch.jit._recursive.wrap_cpp_module(clone)


def _label_values(script: Any) -> dict[str, str]:
    """Labels by the names that the values of the script's graph are given here."""
    import torch

    graph = script.forward.graph
    torch._C._jit_pass_inline(graph)
    kinds: dict[str, str] = {}
    for node in _nodes(graph):
        if not node.kind().startswith("prim::"):
            for value in node.outputs():
                name = f"value_{len(kinds)}_of_torch"
                value.setDebugName(name)
                kinds[name] = label(node.scopeName(), node.kind())
    return kinds


def _nodes(graph: Any) -> Iterator[Any]:
    """All nodes of a graph or block, those of inner blocks before the one that has them."""
    for node in graph.nodes():
        for block in node.blocks():
            yield from _nodes(block)
        yield node


def label(scope: str, kind: str) -> str:
    """What OpenVINO's names of nodes begin with: the innermost module of a scope, and the operator.

    A traced scope is "__module.a/__module.a.0". `TRACED` is the child of what is traced here that is the
    module itself.
    """
    path = scope.rsplit("/", 1)[-1].split(".")
    if path[1:2] == [TRACED]:
        del path[1]
    return f"{'.'.join(path)}/{kind}" if len(path) > 1 else kind


@contextlib.contextmanager
def _labelled(kinds: Mapping[str, str]) -> Iterator[tuple[set[str], dict[str, str]]]:
    """Labels that nodes of the exported model get as names, and those of its outputs, by their names.

    The exporter names nodes in a pass of its own, with the graph as it will be written. A label is that of
    the values by their names before the pass; nodes before one that has a label were written for it.
    """
    import torch

    labels: set[str] = set()
    made_by: dict[str, str] = {}
    naming = getattr(torch._C, _NAMING, None)
    if not kinds or naming is None:
        yield labels, made_by
        return

    def name_all(graph: Any) -> None:
        found: list[tuple[Any, str]] = []
        waiting: list[Any] = []
        for node in _nodes(graph):
            if node.kind() not in ("onnx::Constant", "onnx::Identity"):  # Identity: of weights that are equal
                waiting.append(node)
            own = next((kinds[n] for v in node.outputs() if (n := v.debugName()) in kinds), None)
            if own is not None:
                found += [(each, own) for each in waiting]
                waiting = []
                made_by.update((v.debugName(), own) for v in node.outputs())
        naming(graph)
        for node, own in found:
            if node.kind().startswith("onnx::"):
                node.s_("onnx_name", own)
                labels.add(own)

    setattr(torch._C, _NAMING, name_all)
    try:
        yield labels, made_by
    finally:
        setattr(torch._C, _NAMING, naming)


def name_nodes(model: Any, exported: Exported) -> None:
    """Give nodes the names that OpenVINO gives them: label, slash, type, and a number if there are several.

    What the exporter writes as several nodes is one, named so, where OpenVINO has a node for it.
    """
    labels = {}
    for node in model.get_ordered_ops():
        name = node.get_friendly_name()
        if node.get_type_name() == "Result":
            node.set_friendly_name("")  # it would be called after a value of the exporter's
        elif node.get_type_name() == "Constant" and name in exported.weights:
            node.set_friendly_name(exported.weights[name])
            node.output(0).get_tensor().set_names({exported.weights[name]})
        elif node.get_type_name() != "Parameter":
            labels[node] = exported.made_by.get(name) or known_label(name, exported.labels)
    for node, own in list(labels.items()):
        if own is not None and own.rsplit("/", 1)[-1] in ("aten::silu", "aten::silu_"):
            _make_swish(node, labels)
    taken: dict[str, int] = {}
    for node in model.get_ordered_ops():
        own = labels.get(node)
        if own is not None:
            name = f"{own}/{node.get_type_name()}"
            count = taken.get(name, 0)
            taken[name] = count + 1
            node.set_friendly_name(f"{name}_{count}" if count else name)


def _make_swish(node: Any, labels: dict[Any, str | None]) -> None:
    """Replace x * sigmoid(x) that was written for one operator."""
    if node.get_type_name() != "Multiply":
        return
    sources = [node.input_value(i) for i in range(2)]
    for x, gate in (sources, sources[::-1]):
        sigmoid = gate.get_node()
        if sigmoid.get_type_name() == "Sigmoid" and sigmoid.input_value(0) == x:
            whole = make_node("Swish", [x], {})
            whole.output(0).get_tensor().set_names(node.output(0).get_names())
            for reader in list(node.output(0).get_target_inputs()):
                reader.replace_source_output(whole.output(0))
            labels[whole] = labels[node]
            return


def known_label(name: str, labels: frozenset[str]) -> str | None:
    """The label that a name is made of: itself, with a number, or with what is said of an inner node."""
    while name and name not in labels:
        cut = max(name.rfind("/"), name.rfind("_"))
        name = name[:cut] if cut > 0 else ""
    return name or None


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


def _weight_names(given: Any) -> list[str]:
    named = [*given.named_parameters(), *given.named_buffers()] if hasattr(given, "named_buffers") else []
    return [name for name, _ in named]


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
                self._modules[TRACED] = given

        def train(self, mode: bool = True) -> Any:
            self.training = mode  # the module itself stays as it was made
            return self

        def forward(self, *tensors: Any) -> Any:
            now = list(leaves)
            for place, tensor in zip(places, tensors, strict=True):
                now[place] = tensor
            positional, named = tree.tree_unflatten(now, shape)
            called = self._modules.get(TRACED) or self.called
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
