"""The ports of a compiled model, and the data that they are made of."""

from __future__ import annotations

from collections.abc import Iterable

from ovjit.api.model.boundary import Result, const_port
from ovjit.api.model.node import ConstOutput, Output
from ovjit.graph.graph import Value
from ovjit.graph.ports import PortInfo


def port_infos(ports: Iterable[Output], values: Iterable[Value]) -> tuple[PortInfo, ...]:
    """The facts of a model's ports, with the types of a graph's `values`: those are inferred anew, while a
    Parameter may have been given another type since the model was validated. Further values are left out."""
    return tuple(map(_port_info, ports, values))


def _port_info(port: Output, value: Value) -> PortInfo:
    tensor = port._tensor
    names = tuple(sorted(tensor._names))
    node = port.get_node()
    source = node._inputs[0]._node.get_friendly_name() if isinstance(node, Result) and node._inputs else ""
    shape = tensor._type.shape  # an equal one may have Symbols
    shape = shape if shape == value.shape else value.shape
    return PortInfo(node.get_friendly_name(), names, value.dtype, shape, source)


def make_ports(kind: str, infos: Iterable[PortInfo]) -> tuple[ConstOutput, ...]:
    """Ports with nodes of their own, which no edit of a Model reaches; `kind` is "input" or "output"."""
    return tuple(const_port(kind, i.node, i.dtype, i.shape, i.names, i.source) for i in infos)
