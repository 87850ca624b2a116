"""What a compiled model knows of its inputs and outputs: data, from which its ports are made."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from ovjit.api.model.boundary import const_port
from ovjit.api.model.node import ConstOutput, Output
from ovjit.graph import shapes


class PortInfo(NamedTuple):
    """One input or output: the node's friendly name, the tensor's names (sorted), type and dimensions."""

    node: str
    names: tuple[str, ...]
    dtype: str
    shape: tuple[shapes.Dim, ...] | None

    @property
    def label(self) -> str:
        """The name by which error messages call it."""
        return self.names[0] if self.names else self.node

    def __str__(self) -> str:
        return f"{self.dtype} of shape {shapes.text(self.shape)}"


def port_info(port: Output | ConstOutput) -> PortInfo:
    """The facts of a port, as they are now."""
    tensor = port._tensor
    names = tuple(sorted(tensor._names))
    return PortInfo(port.get_node().get_friendly_name(), names, tensor._type.dtype, tensor._type.shape)


def make_ports(kind: str, infos: Iterable[PortInfo]) -> tuple[ConstOutput, ...]:
    """Ports with nodes of their own, which no edit of a Model reaches; `kind` is "input" or "output"."""
    return tuple(const_port(kind, info.node, info.dtype, info.shape, info.names) for info in infos)
