"""The ports of a compiled model, and the data that they are made of."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

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


def port_index(ports: tuple[ConstOutput, ...], key: Any) -> int | None:
    """Index of the port in `ports` that `key` selects; None if there is none.

    A port of another model selects by its node's type and friendly name. Friendly names of Results are often
    generated, so a Result also matches by equal tensor names and type.
    """
    for i, port in enumerate(ports):
        if port is key or port == key:
            return i
    node = key.get_node()
    kind, name = node.get_type_name(), node.get_friendly_name()
    for i, other in enumerate(port.get_node() for port in ports):
        if other.get_type_name() == kind and other.get_friendly_name() == name:
            return i
    if kind == "Parameter":
        return None
    type_, names = key.get_tensor()._type, key.get_names()
    for i, port in enumerate(ports):
        if names and names == port.get_names() and type_ == port.get_tensor()._type:
            return i
    return None
