"""Graph modules of ATen operators, as exporters hand them over in a decoder -> Model."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from ovjit.api.model.model import Model
from ovjit.errors import UnsupportedError
from ovjit.readers.torch.graph import leaves_of
from ovjit.readers.torch.programs.fx import FxReader, input_of


def is_graph(given: Any) -> bool:
    """Whether a module is a graph whose placeholders tell of the inputs."""
    import torch

    if not isinstance(given, torch.fx.GraphModule):
        return False
    told = [node.meta.get("val") for node in given.graph.find_nodes(op="placeholder")]
    return any(isinstance(value, torch.Tensor) for value in told)


def with_described(given: Any, described: Sequence[tuple[Any, Any]]) -> Any:
    """A graph module whose placeholders tell of shapes and types; others are given back as they are."""
    import torch

    if not described or not isinstance(given, torch.fx.GraphModule) or is_graph(given):
        return given
    result = torch.fx.GraphModule(given, copy.deepcopy(given.graph))
    for node, (shape, kind) in zip(result.graph.find_nodes(op="placeholder"), described, strict=False):
        node.meta["val"] = torch.empty(tuple(shape), dtype=kind, device="meta")
    return result


def read_graph_module(
    module: Any, converters: Mapping[str, Any] | None, names: Sequence[str], is_open: bool
) -> Model:
    """The Model of a graph module. Where `is_open`, all dimensions of the inputs are open, else the symbolic
    ones. `names` are those of the inputs; the placeholders' own where there are too few."""
    reader = FxReader(converters)
    given = module.graph.find_nodes(op="placeholder")
    own = [*names, *(node.name for node in given[len(names) :])]

    def length(dim: Any) -> int | None:
        return dim if isinstance(dim, int) and not is_open else None

    values = [input_of(reader, node, name, length) for node, name in zip(given, own, strict=False)]
    result = leaves_of(reader.run(module, values))
    nodes = leaves_of(module.graph.output_node().args[0])
    results = [
        reader.result(value, [f"{node.name}:0"] if hasattr(node, "name") else [])
        for (_, value), (_, node) in zip(result, nodes, strict=True)
        if value is not None
    ]
    if not results:
        raise UnsupportedError("the graph returns no tensors")
    return reader.model(results, "Model0")
