"""PyTorch modules as ONNX, by the exporter that comes with PyTorch: for what can be read in no other way."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ovjit.build import Model, graph_of, make_node, make_parameter
from ovjit.errors import UnsupportedError
from ovjit.graph.graph import Graph
from ovjit.graph.interp import evaluate
from ovjit.graph.shapes import ANY
from ovjit.readers.torch.naming import TRACED, known_label, label
from ovjit.readers.torch.tracing.agreement import agrees
from ovjit.readers.torch.tracing.patches import patch
from ovjit.readers.torch.tracing.state import call_unchanged, trace_module
from ovjit.readers.torch.tracing.trace import (
    Prepared,
    attempt,
    is_script,
    quietly,
    weight_names,
    weights_of,
)
from ovjit.readers.torch.values import element_type
from ovjit.records import NamedTuple

#: The newest opset that PyTorch's tracing exporter writes.
OPSET = 20
#: A protobuf message has at most 2 GiB; larger weights are written to files beside the model.
MOST_IN_MEMORY = 1 << 30
#: Bytes of weights and inputs up to which what is exported is compared with the module.
MOST_CHECKED = 1 << 24
#: The pass in which the exporter names nodes.
_NAMING = "_jit_pass_onnx_assign_scoped_names_for_node_and_value"


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


def takes(operator: str) -> bool:
    """Whether the exporter knows an operator such as "aten::add"."""
    try:
        import torch.onnx.utils
        from torch.onnx._internal.torchscript_exporter.registration import registry
    except ImportError:
        return True
    del torch
    return bool(registry.is_registered_op(operator, OPSET))


def _no_dumps() -> contextlib.AbstractContextManager[None]:
    """Suppress the graphs that the exporter prints from C++ when it fails."""
    import torch

    return patch((torch._C, "_jit_onnx_log", lambda *_: None))


def export(ready: Prepared, folder: str, records: list[Any]) -> Exported:
    """A module traced with its example and written as ONNX, into `folder` if it is large.

    All dimensions are open, as OpenVINO has them; where the exporter needs one to be known, all are those of
    the example. What PyTorch warns may be incorrect is added to `records`.
    """
    import torch

    original, names, leaves, module, *_ = ready
    outputs = module.names
    open_axes = {
        name: {axis: f"{name}.{axis}" for axis in range(leaf.dim())}
        for name, leaf in zip(names, leaves, strict=True)
    }
    bytes_of = sum(t.numel() * t.element_size() for t in weights_of(original))
    first: Exception | None = None
    for axes_given in (open_axes, None):
        for source, kinds in _sources(original, module, leaves):
            target: Any = io.BytesIO() if bytes_of < MOST_IN_MEMORY else os.path.join(folder, "model.onnx")
            warned: list[Any] = []
            try:
                with _no_dumps(), quietly(warned), torch.no_grad(), _label_nodes(kinds) as (labels, made_by):
                    torch.onnx.export(
                        source, tuple(leaves), target, dynamo=False, opset_version=OPSET, input_names=names,
                        dynamic_axes=axes_given,
                    )  # fmt: skip
            except Exception as error:
                first = first or error
                continue
            records += warned
            file = target.getvalue() if isinstance(target, io.BytesIO) else target
            weights = {n: f"{TRACED}.{n}" for n in (weight_names(original) if is_script(original) else ())}
            return Exported(file, names, list(outputs), frozenset(labels), made_by, weights)
    says = "PyTorch does not export the module to ONNX, by which ovjit converts it"
    raise UnsupportedError(f"{says}: {first}") from first


def gives(model: Any, ready: Prepared, expected: Sequence[Any]) -> bool:
    """Whether a model gives what the module gives of its example, as far as that is found quickly. PyTorch's
    exporter takes lists of a script for those of other lengths."""
    import torch

    sizes = sum(t.numel() * t.element_size() for t in (*weights_of(ready.source), *ready.leaves))
    if sizes > MOST_CHECKED:
        return True
    with quietly(), torch.no_grad():
        if not agrees(expected, call_unchanged(ready.module, ready.module, ready.leaves)):
            return True  # random numbers
    result: list[Any] = []
    with attempt("evaluating what the ONNX exporter gives"):
        graph = graph_of(model)
        inputs = [leaf.detach().numpy() for leaf in ready.leaves]
        result = evaluate(Graph(graph.inputs, graph.nodes, graph.public_outputs), inputs)
    if len(result) != len(expected):
        return True
    return all(_is_close(want, got) for want, got in zip(expected, result, strict=True))


def _is_close(want: Any, got: Any) -> bool:
    """Whether an array has the numbers of a tensor, which may be of another type."""
    import torch

    if want.is_complex():
        return True
    other = torch.from_numpy(np.array(got))
    return want.shape == other.shape and agrees([want.detach().double()], [other.double()])


def _sources(original: Any, module: Any, leaves: Sequence[Any]) -> Iterator[tuple[Any, dict[str, str]]]:
    """Yield sources for the exporter, the preferred one first, each with the labels of its values by name.

    The first one is a script, whose labels are known: the exporter keeps the names of the values that it
    translates, whereas it forgets scopes. The second one is the module itself, without labels.
    """
    with attempt("making a script for the exporter"):
        script = _script(original, module, leaves)
        yield script, _label_values(script)
    yield original if is_script(original) else module, {}


def _script(source: Any, module: Any, leaves: Sequence[Any]) -> Any:
    """A script of the module whose graph may be changed."""
    import torch

    if not is_script(source):
        with quietly(), torch.no_grad():
            return trace_module(module, leaves)
    # types are copied too, so that the graph of the script that was given stays as it is
    clone = torch._C._hack_do_not_use_clone_module_with_class(source._c, [], [])
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


@contextlib.contextmanager
def _label_nodes(kinds: Mapping[str, str]) -> Iterator[tuple[set[str], dict[str, str]]]:
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
        named_nodes: list[tuple[Any, str]] = []
        waiting: list[Any] = []
        for node in _nodes(graph):
            if node.kind() not in ("onnx::Constant", "onnx::Identity"):  # Identity: of weights that are equal
                waiting.append(node)
            label = next((kinds[n] for v in node.outputs() if (n := v.debugName()) in kinds), None)
            if label is not None:
                named_nodes += [(each, label) for each in waiting]
                waiting = []
                made_by.update((v.debugName(), label) for v in node.outputs())
        naming(graph)
        for node, label in named_nodes:
            if node.kind().startswith("onnx::"):
                node.s_("onnx_name", label)
                labels.add(label)

    with patch((torch._C, _NAMING, name_all)):
        yield labels, made_by


def with_all_inputs(model: Model, ready: Prepared) -> Model:
    """The model with one input for each of the module's, in their order: the exporter drops unused ones."""
    parameters = {parameter.get_friendly_name(): parameter for parameter in model.get_parameters()}
    if list(parameters) == ready.names:
        return model
    for name, leaf in zip(ready.names, ready.leaves, strict=True):
        if name not in parameters:
            parameters[name] = make_parameter(element_type(leaf.dtype), (ANY,) * leaf.dim(), name)
            parameters[name].output(0).get_tensor().set_names({name})
    return Model(model.get_results(), [parameters[name] for name in ready.names], model.get_friendly_name())


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
    for node, node_label in list(labels.items()):
        if node_label is not None and node_label.rsplit("/", 1)[-1] in ("aten::silu", "aten::silu_"):
            _make_swish(node, labels)
    counts: dict[str, int] = {}
    for node in model.get_ordered_ops():
        node_label = labels.get(node)
        if node_label is not None:
            name = f"{node_label}/{node.get_type_name()}"
            count = counts.get(name, 0)
            counts[name] = count + 1
            node.set_friendly_name(f"{name}_{count}" if count else name)


def _make_swish(node: Any, labels: dict[Any, str | None]) -> None:
    """Replace x * sigmoid(x) that was written for one operator."""
    if node.get_type_name() != "Multiply":
        return
    sources = [node.input_value(i) for i in range(2)]
    for x, gate in (sources, sources[::-1]):
        sigmoid = gate.get_node()
        if sigmoid.get_type_name() == "Sigmoid" and sigmoid.input_value(0) == x:
            swish = make_node("Swish", [x], {})
            swish.output(0).get_tensor().set_names(node.output(0).get_names())
            for reader in list(node.output(0).get_target_inputs()):
                reader.replace_source_output(swish.output(0))
            labels[swish] = labels[node]
            return


#: Functions that PyTorch computes of integers as of f32, for which its exporter writes the bare operator.
_OF_REALS = {
    "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Cos", "Cosh", "Erf", "Exp", "Log", "Sigmoid", "Sin",
    "Sinh", "Sqrt", "Tan", "Tanh",
}  # fmt: skip


def promote_integers(model: Any) -> None:
    """Let those functions take f32 where they are given integers, as PyTorch does."""
    changed = False
    for node in model.get_ordered_ops():
        if node.get_type_name() in _OF_REALS:
            source = node.input_value(0)
            kind = source.get_element_type()
            if kind.is_static() and not kind.is_real():
                real = make_node("Convert", [source], {"destination_type": "f32"}).output(0)
                node.input(0).replace_source_output(real)
                node.validate_and_infer_types()
                changed = True
    if changed:
        model.validate_nodes_and_infer_types()
