"""Graph modules of ATen operators, as exporters hand them over in a decoder -> Model."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from ovjit.build import Model
from ovjit.errors import UnsupportedError
from ovjit.readers.torch.graph import leaves_of
from ovjit.readers.torch.programs.fx import FxReader, input_of, result_names
from ovjit.readers.torch.pytorch import torch


def is_graph(module: Any) -> bool:
    """Whether a module is a graph whose placeholders describe the inputs."""
    if not isinstance(module, torch.fx.GraphModule):
        return False
    examples = [node.meta.get("val") for node in module.graph.find_nodes(op="placeholder")]
    return any(isinstance(value, torch.Tensor) for value in examples)


def with_described(module: Any, described: Sequence[tuple[Any, Any]]) -> Any:
    """A graph module with the described shapes and types in its placeholders; other modules unchanged."""
    if not described or not isinstance(module, torch.fx.GraphModule) or is_graph(module):
        return module
    result = torch.fx.GraphModule(module, copy.deepcopy(module.graph))
    for node, (shape, kind) in zip(result.graph.find_nodes(op="placeholder"), described, strict=False):
        node.meta["val"] = torch.empty(tuple(shape), dtype=kind, device="meta")
    return result


class _GraphReader(FxReader):
    """Reads graphs that end with writes to inputs and buffers, as `ExportedProgram.module()` gives. A Model
    has no such effects: the written values are used where the graph returns them."""

    def _convert_function(self, node: Any, env: Mapping[Any, Any]) -> Any:
        if node.target is torch.ops.aten.copy_.default and len(node.args) > 1:
            written, value = node.args[:2]
            if written.op in ("placeholder", "get_attr") and all(user <= node for user in written.users):
                return self._arguments(value, env)
        return super()._convert_function(node, env)


def read_graph_module(
    module: Any, converters: Mapping[str, Any] | None, names: Sequence[str], is_open: bool
) -> Model:
    """The Model of a graph module. Where `is_open`, all dimensions of the inputs are open, else the symbolic
    ones. `names` are those of the inputs; the placeholders' own where there are too few."""
    reader = _GraphReader(converters)
    placeholders = module.graph.find_nodes(op="placeholder")
    input_names = [*names, *(node.name for node in placeholders[len(names) :])]

    def length(dim: Any) -> int | None:
        return dim if isinstance(dim, int) and not is_open else None

    values = [
        input_of(reader, node, name, length) for node, name in zip(placeholders, input_names, strict=False)
    ]
    result = leaves_of(reader.run(module, values))
    nodes = leaves_of(module.graph.output_node().args[0])
    results = [
        reader.result(value, result_names(node, value))
        for (_, value), (_, node) in zip(result, nodes, strict=True)
        if value is not None
    ]
    if not results:
        raise UnsupportedError("the graph returns no tensors")
    return reader.model(results, "Model0")
