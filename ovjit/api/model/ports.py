"""The ports of a compiled model, and the data that they are made of."""

from __future__ import annotations

from collections.abc import Iterable

from ovjit.api.model.boundary import const_port
from ovjit.api.model.node import ConstOutput, Output
from ovjit.graph.ports import PortInfo


def port_info(port: Output | ConstOutput) -> PortInfo:
    """The facts of a port, as they are now."""
    tensor = port._tensor
    names = tuple(sorted(tensor._names))
    return PortInfo(port.get_node().get_friendly_name(), names, tensor._type.dtype, tensor._type.shape)


def make_ports(kind: str, infos: Iterable[PortInfo]) -> tuple[ConstOutput, ...]:
    """Ports with nodes of their own, which no edit of a Model reaches; `kind` is "input" or "output"."""
    return tuple(const_port(kind, info.node, info.dtype, info.shape, info.names) for info in infos)
