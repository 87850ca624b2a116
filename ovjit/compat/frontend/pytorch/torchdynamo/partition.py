"""Partition of a graph into parts to compile and nodes that stay with PyTorch."""

from __future__ import annotations

import copy
import operator
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from ovjit.api.run.core import why_missing
from ovjit.compat.frontend.pytorch.torchdynamo.options import Options, is_on
from ovjit.compat.frontend.pytorch.torchdynamo.runner import Runner
from ovjit.compat.frontend.pytorch.torchdynamo.support import is_random, name_of_target, why_unsupported
from ovjit.errors import OvjitError
from ovjit.readers.torch.graph import Refused
from ovjit.readers.torch.pytorch import torch

#: How often a graph is divided anew, each time without an operator that was refused.
MOST_TRIALS = 60
_WARNINGS: set[str] = set()


def warn_once(text: str) -> None:
    """Warn once that something runs in eager mode, and why."""
    if text not in _WARNINGS:
        _WARNINGS.add(text)
        warnings.warn(f"torch.compile(backend='openvino'): {text}; it runs in eager mode", stacklevel=2)


def compiled_parts(module: Any, options: Options, constants: Mapping[int, Any]) -> Callable[[Any], Any]:
    """A function of the graph's arguments: one compiled model, or PyTorch's code that calls several.

    `constants` are tensors for some of the graph's placeholders. PyTorch runs all of it, with a warning, on
    a machine without the device.
    """
    if missing := why_missing(options.device):
        warn_once(f"the device is missing: {missing}")
    if missing or not any(_gives_tensors(node) for node in _computing(module)):
        return lambda arguments: module(*arguments)
    refused: dict[str, str] = {}
    for _ in range(MOST_TRIALS):
        excluded = {n.name: why for n in _computing(module) if (why := why_unsupported(n, options, refused))}
        try:
            if not excluded:
                return Runner(module, constants, options)
            excluded |= {n.name: _AROUND for n in _computing(module) if _is_of_graphs(n)} | excluded
            return _compile_partitions(module, options, excluded, constants)
        except Refused as error:
            node = getattr(error, "node", None)
            if node is None or node in refused:
                raise
            refused[node] = str(error)
    raise OvjitError("the graph has too many operators that cannot be compiled")


_AROUND = "the graph around it is not compiled as a whole"


def _is_of_graphs(node: Any) -> bool:
    """Whether a node has graphs as arguments, which cannot be inputs of a partition."""
    return isinstance(node.target, torch._ops.HigherOrderOperator)


def _computing(module: Any) -> list[Any]:
    return [n for n in module.graph.nodes if n.op not in ("placeholder", "output", "get_attr")]


def _compile_partitions(
    module: Any, options: Options, excluded: Mapping[str, str], constants: Mapping[int, Any]
) -> Callable[[Any], Any]:
    """Compile the parts of the graph that can be compiled; PyTorch runs the rest."""
    from torch.fx.passes.infra.partitioner import CapabilityBasedPartitioner
    from torch.fx.passes.operator_support import OperatorSupportBase

    class Support(OperatorSupportBase):
        def is_node_supported(self, submodules: Any, node: Any) -> bool:
            return node.op == "call_function" and node.name not in excluded

    copied = torch.fx.GraphModule(module, copy.deepcopy(module.graph))
    partitioner = CapabilityBasedPartitioner(copied, Support(), allows_single_node_partition=True)
    parts = _between_draws(copied, partitioner.propose_partitions())
    parts = [part for part in parts if _is_worth(part)]
    fused = partitioner.fuse_partitions(parts)
    placeholders = fused.graph.find_nodes(op="placeholder")
    tensors = {placeholders[i]: tensor for i, tensor in constants.items()}
    runners = {}
    for node in fused.graph.nodes:
        if node.op == "call_module" and str(node.target).startswith("fused_"):
            inner = {i: tensors[argument] for i, argument in enumerate(node.args) if argument in tensors}
            runners[node.target] = Runner(getattr(fused, node.target), inner, options)
    for target, runner in runners.items():
        setattr(fused, target, _as_module(runner))
    fused.recompile()
    for name, why in excluded.items():
        node = next(n for n in module.graph.nodes if n.name == name)
        warn_once(f"{name_of_target(node.target)} is not compiled: {why}")

    def run(arguments: Any) -> Any:
        return fused(*arguments)

    return run


def _between_draws(module: Any, parts: list[Any]) -> list[Any]:
    """Split partitions at random operators, so that numbers are drawn in the graph's order.

    A part of one stretch between two draws needs nothing of later stretches. What is taken out of a list is
    in the part that gives the list: parts give tensors alone.
    """
    from torch.fx.passes.infra.partitioner import Partition

    stretches: dict[Any, int] = {}
    drawn = 0
    for node in module.graph.nodes:
        stretches[node] = stretches[node.args[0]] if node.target is operator.getitem else drawn
        drawn += is_random(node.target)
    if drawn < 2:
        return parts
    divided: dict[tuple[int, int], list[Any]] = {}
    for i, part in enumerate(parts):
        for node in part.nodes:
            divided.setdefault((i, stretches[node]), []).append(node)
    return [Partition(id=i, nodes=nodes) for i, nodes in enumerate(divided.values())]


def _is_worth(part: Any) -> bool:
    """False for a partition that only unpacks lists or computes dimensions, which PyTorch runs."""
    return any(map(_gives_tensors, part.nodes))


def _gives_tensors(node: Any) -> bool:
    computes = isinstance(node.target, (torch._ops.OpOverload, torch._ops.HigherOrderOperator))
    return computes and isinstance(node.meta.get("val"), (torch.Tensor, list, tuple))


def _as_module(runner: Runner) -> Any:
    """Wrap a compiled part as a module that can replace a submodule."""

    class Called(torch.nn.Module):
        def forward(self, *arguments: Any) -> Any:
            result = runner(arguments)
            return result[0] if len(result) == 1 else tuple(result)

    return Called()


class Partitioner:
    """Replaces partitions of graphs by compiled modules `fused_0`, `fused_1`, with OpenVINO's names.

    `options` are those of torch.compile.
    """

    def __init__(self, options: Mapping[str, Any] | None):
        from ovjit.compat.frontend.pytorch.torchdynamo.op_support import OperatorSupport

        self.supported_ops = OperatorSupport(options)

    def fx_serialize(self, graph_module: Any, *args: Any, **kwargs: Any) -> Any:
        """The graph module as a graph of ATen operators, traced with these arguments."""
        from torch.fx.experimental.proxy_tensor import make_fx

        return make_fx(graph_module)(*args)

    def add_get_attr_inputs(self, partitions: list[Any]) -> None:
        """Move constants into the partition that reads them, if it is the only one."""
        owners = {node: part for part in partitions for node in part.nodes}
        read = {source for node in owners for source in node.all_input_nodes if source.op == "get_attr"}
        for node in read:
            parts = {id(owners.get(user)): owners.get(user) for user in node.users}
            part = next(iter(parts.values()))
            if len(parts) == 1 and part is not None:
                part.add_node(node)

    def check_fully_supported(self, graph_module: Any) -> bool:
        """Whether a partitioned graph is one compiled module."""
        inner = [node for node in graph_module.graph.nodes if node.op not in ("placeholder", "output")]
        return len(inner) == 1 and inner[0].op == "call_module" and "fused_" in inner[0].name

    def make_partitions(self, graph_module: Any, options: Mapping[str, Any] | None) -> Any:
        """The graph with compiled modules. Partitions of one operator are compiled only with the option
        `testing`."""
        from torch.fx.passes.infra.partitioner import CapabilityBasedPartitioner

        partitioner = CapabilityBasedPartitioner(
            graph_module, self.supported_ops, allows_single_node_partition=is_on(options or {}, "testing")
        )
        parts = partitioner.propose_partitions()
        self.add_get_attr_inputs(parts)
        return partitioner.fuse_partitions(parts)
