"""Checks of graphs before compilation."""

from __future__ import annotations

from ovjit.errors import ModelError, UnsupportedError
from ovjit.graph.bodies import bodies_of
from ovjit.graph.dtypes import WITHOUT_DTYPE
from ovjit.graph.graph import Graph


def check_graph(graph: Graph) -> None:
    """Raise ModelError for an input of unknown rank or element type. See also `check_types`."""
    check_types(graph)
    for value in graph.inputs:
        if value.dtype == "dynamic":
            raise ModelError(
                f"input {value.node.name!r} has the element type dynamic: set a static "
                "element type before compilation"
            )
        if value.shape is None:
            raise ModelError(
                "CPU plug-in doesn't support Parameter operation with dynamic rank. Operation name: "
                f"{value.node.name}. Set the rank with model.reshape first"
            )


def check_types(graph: Graph) -> None:
    """Raise UnsupportedError for computed values of an element type without arrays, and for conversions to
    dynamic."""
    for node in graph.nodes:
        if node.attrs.get("destination_type") == "dynamic":
            what = f"node {node.name!r} ({node.op.name})"
            raise UnsupportedError(f"{what} converts to the element type dynamic, which has no values")
        for value in node.outputs:
            if node.op.role != "constant" and value.dtype in WITHOUT_DTYPE:
                what = f"node {node.name!r} ({node.op.name}) has an output of type {value.dtype}"
                raise UnsupportedError(f"{what}, which only constants can have")
        for body in bodies_of(node.attrs):
            check_types(body)
