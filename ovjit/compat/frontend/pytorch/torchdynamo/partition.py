"""What of a graph is compiled, and what stays with PyTorch."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from ovjit.compat.frontend.pytorch.torchdynamo.options import Options
from ovjit.compat.frontend.pytorch.torchdynamo.runner import Runner
from ovjit.errors import OvjitError
from ovjit.readers.torch.graph import Refused
from ovjit.readers.torch.programs.fx import refusal
from ovjit.readers.torch.values import ELEMENT_NAMES, PARTS, name_of

#: How often a graph is divided anew, each time without an operator that was refused.
MOST_TRIALS = 60
#: Operators that refuse tensors without elements, by dimension or as a whole.
OF_SOMETHING = frozenset(
    f"aten::{name}"
    for name in "max min amax amin aminmax argmax argmin median nanmedian mode kthvalue".split()
)
_TOLD: set[str] = set()


def tell(text: str) -> None:
    """Say once why something runs in eager mode."""
    if text not in _TOLD:
        _TOLD.add(text)
        warnings.warn(f"torch.compile(backend='openvino'): {text}; it runs in eager mode", stacklevel=2)


def supported(node: Any, options: Options, refused: Mapping[str, str]) -> str | None:
    """Why a node is not compiled, None if it is."""
    if node.op == "get_attr":
        return None
    if node.op != "call_function":
        return "it calls Python"
    if node.name in refused:
        return refused[node.name]
    reason = refusal(node.target)
    name = _name(node.target)
    overload = getattr(node.target, "_overloadname", "")
    if reason is None and not options.disabled_ops.isdisjoint((name, f"{name}.{overload}")):
        reason = "it is one of disabled_ops"
    if reason is None and _draws(node.target):
        reason = "its numbers come from PyTorch's generator, as torch.manual_seed sets it"
    if reason is None and name in OF_SOMETHING and _is_empty(node.args[0]):
        reason = "PyTorch refuses tensors without elements"
    return reason or _unfit_type(node)


def _is_empty(node: Any) -> bool:
    return 0 in node.meta["val"].shape


def _draws(target: Any) -> bool:
    """Whether an operator always draws random numbers. Dropout and the like do so if an argument says it:
    their rules look at that."""
    return _is_random(target) and not any(
        "dropout" in a.name or "train" in a.name for a in target._schema.arguments
    )


def _name(target: Any) -> str:
    schema = getattr(target, "_schema", None)
    return schema.name if schema is not None else getattr(target, "__name__", str(target))


def _unfit_type(node: Any) -> str | None:
    import torch

    values = node.meta.get("val")
    for value in values if isinstance(values, (list, tuple)) else [values]:
        if isinstance(value, torch.Tensor):
            name = name_of(value.dtype)
            if name not in ELEMENT_NAMES and name not in PARTS:
                return f"it returns tensors of the type {name}"
            if value.device.type not in ("cpu", "meta"):
                return f"it returns tensors on the device {value.device}"
    return None


def compiled_parts(module: Any, options: Options, constants: Mapping[int, Any]) -> Callable[[Any], Any]:
    """A function of the graph's arguments: one compiled part, or PyTorch with compiled parts in it.

    `constants` are tensors for some of the graph's placeholders.
    """
    if not any(_gives_tensors(node) for node in _computing(module)):
        return lambda arguments: module(*arguments)
    refused: dict[str, str] = {}
    for _ in range(MOST_TRIALS):
        found = {node.name: why for node in _computing(module) if (why := supported(node, options, refused))}
        try:
            if not found:
                return Runner(module, constants, options)
            found |= {n.name: _AROUND for n in _computing(module) if _is_of_graphs(n)} | found
            return _divided(module, options, found, constants)
        except Refused as error:
            node = getattr(error, "node", None)
            if node is None or node in refused:
                raise
            refused[node] = str(error)
    raise OvjitError("the graph has too many operators that cannot be compiled")


_AROUND = "the graph around it is not compiled as a whole"


def _is_of_graphs(node: Any) -> bool:
    """Whether a node takes graphs, which a part of a divided graph cannot have as inputs."""
    import torch

    return isinstance(node.target, torch._ops.HigherOrderOperator)


def _computing(module: Any) -> list[Any]:
    return [n for n in module.graph.nodes if n.op not in ("placeholder", "output", "get_attr")]


def _divided(
    module: Any, options: Options, left: Mapping[str, str], constants: Mapping[int, Any]
) -> Callable[[Any], Any]:
    """PyTorch runs the graph, with compiled parts in it."""
    import torch
    from torch.fx.passes.infra.partitioner import CapabilityBasedPartitioner
    from torch.fx.passes.operator_support import OperatorSupportBase

    class Support(OperatorSupportBase):
        def is_node_supported(self, submodules: Any, node: Any) -> bool:
            return node.op == "call_function" and node.name not in left

    copied = torch.fx.GraphModule(module, copy.deepcopy(module.graph))
    partitioner = CapabilityBasedPartitioner(copied, Support(), allows_single_node_partition=True)
    parts = _between_draws(copied, partitioner.propose_partitions())
    parts = [part for part in parts if _is_worth(part)]
    fused = partitioner.fuse_partitions(parts)
    placeholders = [node for node in fused.graph.nodes if node.op == "placeholder"]
    known = {placeholders[i]: tensor for i, tensor in constants.items()}
    runners = {}
    for node in fused.graph.nodes:
        if node.op == "call_module" and str(node.target).startswith("fused_"):
            inner = {i: known[given] for i, given in enumerate(node.args) if given in known}
            runners[node.target] = Runner(getattr(fused, node.target), inner, options)
    for target, runner in runners.items():
        setattr(fused, target, _called(runner))
    fused.recompile()
    for name, why in left.items():
        node = next(n for n in module.graph.nodes if n.name == name)
        tell(f"{_name(node.target)} is not compiled: {why}")

    def run(arguments: Any) -> Any:
        return fused(*arguments)

    return run


def _between_draws(module: Any, parts: list[Any]) -> list[Any]:
    """Parts that are divided where a random operator stands in the graph: so the order of draws stays.

    A part of one stretch between two draws needs nothing of later stretches.
    """
    from torch.fx.passes.infra.partitioner import Partition

    stretches, drawn = {}, 0
    for node in module.graph.nodes:
        stretches[node] = drawn
        drawn += _is_random(node.target)
    if drawn < 2:
        return parts
    divided: dict[tuple[int, int], list[Any]] = {}
    for i, part in enumerate(parts):
        for node in part.nodes:
            divided.setdefault((i, stretches[node]), []).append(node)
    return [Partition(id=i, nodes=nodes) for i, nodes in enumerate(divided.values())]


def _is_random(target: Any) -> bool:
    import torch

    return torch.Tag.nondeterministic_seeded in getattr(target, "tags", ())


def _is_worth(part: Any) -> bool:
    """A part that only takes values out of lists, or computes dimensions, stays with PyTorch."""
    return any(map(_gives_tensors, part.nodes))


def _gives_tensors(node: Any) -> bool:
    import torch

    computes = isinstance(node.target, (torch._ops.OpOverload, torch._ops.HigherOrderOperator))
    return computes and isinstance(node.meta.get("val"), (torch.Tensor, list, tuple))


def _called(runner: Runner) -> Any:
    """A compiled part in the place of a submodule."""
    import torch

    class Called(torch.nn.Module):
        def forward(self, *arguments: Any) -> Any:
            made = runner(arguments)
            return made[0] if len(made) == 1 else tuple(made)

    return Called()
