"""The tensors of a subgraph that is being read."""

from __future__ import annotations

from dataclasses import dataclass

from ovjit.build import Output, Parameter
from ovjit.readers.tflite.constants import Stored
from ovjit.readers.tflite.file import GraphRow


@dataclass(frozen=True)
class Handle:
    """A resource: the name of its variable."""

    name: str


class Scope:
    """The tensors of one subgraph that is being read: constants and values by their index."""

    def __init__(self, graph: GraphRow, prefix: str = "", depth: int = 0):
        self.graph = graph
        self.prefix = prefix
        self.depth = depth
        self.values: dict[int, Output] = {}
        self.stored: dict[int, Stored] = {}
        self.handles: dict[int, Handle] = {}
        self.parameters: list[Parameter] = []
