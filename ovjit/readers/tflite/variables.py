"""Variables of a model that is being read: tensors that are variable, and resources by their names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from ovjit.build import Node, Output
from ovjit.build.builder import Builder
from ovjit.errors import ModelError, UnsupportedError
from ovjit.graph.shapes import Dim, is_static
from ovjit.readers.tflite.scope import Handle, Scope

if TYPE_CHECKING:
    from ovjit.readers.tflite.file import LiteFile


class Variables:
    """Values of variables at the operator that is being read, and the Assigns of their final values.

    A variable that is written before it is read needs no memory.
    """

    def __init__(self, file: LiteFile):
        kinds = {op.kind for op in file.graphs[0].operators} if file.graphs else set()
        self.written = "ASSIGN_VARIABLE" in kinds
        self.first: dict[str, Output] = {}
        self.now: dict[str, Output] = {}
        self.read_at_first: set[str] = set()
        self.changed: set[str] = set()
        self.starting = False

    @contextmanager
    def first_values(self) -> Iterator[None]:
        """Context in which assignments set the initial values."""
        before, self.starting = self.starting, True
        yield
        self.starting = before

    def read(self, n: Builder, handle: Handle) -> Output:
        if handle.name not in self.now:
            if handle.name not in self.first:
                raise ModelError(f"the variable {handle.name[:200]!r} is read before it has a value")
            first = self.first[handle.name]
            self.now[handle.name] = self._read(n, handle.name, first) if self.written else first
        return self.now[handle.name]

    def write(self, handle: Handle, value: Output, scope: Scope) -> None:
        if self.starting:
            self.first[handle.name] = value
            return
        self._check_place(scope)
        self.keep(handle.name, value)

    def state(self, n: Builder, name: str, shape: tuple[Dim, ...], dtype: str, scope: Scope) -> Output:
        """Current value of a variable tensor, initially 0."""
        self._check_place(scope)
        if name not in self.now:
            if not is_static(shape):
                raise UnsupportedError(f"the variable {name[:200]!r} has a dynamic dimension")
            self.now[name] = self._read(n, name, n.const(np.zeros(shape), dtype))
        return self.now[name]

    def keep(self, name: str, value: Output) -> None:
        self.now[name] = value
        self.changed.add(name)

    def sinks(self, n: Builder) -> list[Node]:
        """Assign nodes of the variables that are both read at first and changed."""
        return [
            n("Assign", self.now[name], variable_id=name).node
            for name in sorted(self.changed & self.read_at_first)
        ]

    def _read(self, n: Builder, name: str, first: Output) -> Output:
        self.read_at_first.add(name)
        return n(
            "ReadValue", first, variable_id=name, variable_type=n.dtype(first), variable_shape=n.shape(first)
        )

    def _check_place(self, scope: Scope) -> None:
        if scope.depth:
            raise UnsupportedError("variables that subgraphs change are not supported")
