"""Graph modules of ATen operators, as exporters hand them over in a decoder -> Model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ovjit.api.model.model import Model
from ovjit.errors import UnsupportedError
from ovjit.readers.torch.fx import FxReader
from ovjit.readers.torch.values import Number


def is_graph(given: Any) -> bool:
    """Whether a module is a graph whose placeholders tell of the inputs."""
    import torch

    if not isinstance(given, torch.fx.GraphModule):
        return False
    told = [node.meta.get("val") for node in _placeholders(given)]
    return any(isinstance(value, torch.Tensor) for value in told)


def read_graph_module(
    module: Any, converters: Mapping[str, Any] | None, names: Sequence[str], is_open: bool
) -> Model:
    """The Model of a graph module. Where `is_open`, all dimensions of the inputs are open, else the symbolic
    ones. `names` are those of the inputs; the placeholders' own where there are too few."""
    reader = FxReader(converters)
    given = list(_placeholders(module))
    own = [*names, *(node.name for node in given[len(names) :])]
    made = reader.run(
        module, [_input(reader, node, name, is_open) for node, name in zip(given, own, strict=False)]
    )
    nodes = next(node for node in module.graph.nodes if node.op == "output").args[0]
    pairs = list(zip(_leaves(made), _leaves(nodes), strict=True))
    results = [
        reader.result(value, [f"{node.name}:0"] if hasattr(node, "name") else [])
        for value, node in pairs
        if value is not None
    ]
    if not results:
        raise UnsupportedError("the graph returns no tensors")
    return reader.model(results, "Model0")


def _placeholders(module: Any) -> list[Any]:
    return [node for node in module.graph.nodes if node.op == "placeholder"]


def _input(reader: FxReader, node: Any, name: str, is_open: bool) -> Any:
    """A parameter for a tensor or a symbolic number; other arguments are the values that the graph has."""
    import torch

    value = node.meta.get("val")
    if isinstance(value, torch.Tensor):
        shape = [None if is_open or not isinstance(d, int) else d for d in value.shape]
        return reader.parameter(name, value.dtype, shape)
    kinds = {torch.SymInt: torch.int64, torch.SymFloat: torch.float32, torch.SymBool: torch.bool}
    if type(value) in kinds:
        return Number(reader.parameter(name, kinds[type(value)], []))
    return value


def _leaves(given: Any) -> list[Any]:
    if isinstance(given, (list, tuple)):
        return [leaf for item in given for leaf in _leaves(item)]
    if isinstance(given, dict):
        return [leaf for item in given.values() for leaf in _leaves(item)]
    return [given]
