"""The ports of a compiled model, and the data that they are made of."""

from __future__ import annotations

from collections.abc import Iterable

from ovjit.api.model.boundary import Result, const_port
from ovjit.api.model.node import ConstOutput, Output
from ovjit.graph.ports import PortInfo


def port_info(port: Output | ConstOutput) -> PortInfo:
    """The facts of a port, as they are now."""
    tensor = port._tensor
    names = tuple(sorted(tensor._names))
    node = port.get_node()
    source = node._inputs[0]._node.get_friendly_name() if isinstance(node, Result) and node._inputs else ""
    return PortInfo(node.get_friendly_name(), names, tensor._type.dtype, tensor._type.shape, source)


def make_ports(kind: str, infos: Iterable[PortInfo]) -> tuple[ConstOutput, ...]:
    """Ports with nodes of their own, which no edit of a Model reaches; `kind` is "input" or "output"."""
    return tuple(const_port(kind, i.node, i.dtype, i.shape, i.names, i.source) for i in infos)
