"""The model that is being read, as rules see it: tensors, variables and subgraphs. Variables are tensors that
are variable, and resources by their names.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from ovjit.build import Constant, Node, Output, Parameter, names_of, set_names
from ovjit.build.builder import Builder, Draft
from ovjit.errors import ModelError, UnsupportedError
from ovjit.graph.shapes import Dim, is_static
from ovjit.readers.tflite.constants import Stored, is_quantized, output_of
from ovjit.readers.tflite.file import GraphRow, LiteFile, TensorRow
from ovjit.readers.tflite.layouts import Layouts
from ovjit.readers.tflite.quantized import fake_quantized


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
        """Context manager in which assignments set initial values of variables."""
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
        """Assigns of the variables that are both read before a write, and written."""
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


#: Subgraphs may call each other this deep.
MAX_NESTING = 40
#: The most operators of subgraphs that are read in place.
MAX_OPERATORS = 300_000


class LiteDraft(Draft):
    """Base class of the reader."""

    def __init__(self, file: LiteFile, plain: bool):
        super().__init__()
        self.file = file
        self.layouts = Layouts(plain)
        self.variables = Variables(file)
        #: Operators of subgraphs that have been read.
        self.operators = 0
        #: Names of tensors that a value has already.
        self.used_names: set[str] = set()

    @abstractmethod
    def _read(self, scope: Scope) -> None:
        """Read the operators of a subgraph whose inputs have values."""

    def inline(self, outer: Scope, index: int, values: Sequence[Output], prefix: str) -> list[Output]:
        """Read a subgraph in place for these values of its inputs, and return its outputs."""
        if not 0 <= index < len(self.file.graphs):
            raise ModelError(f"There is no subgraph with idx {index}")
        if outer.depth >= MAX_NESTING:
            raise ModelError(f"calls of subgraphs are nested more than {MAX_NESTING} deep")
        graph = self.file.graphs[index]
        if len(graph.inputs) != len(values):
            raise ModelError(
                f"the subgraph {index} has {len(graph.inputs)} inputs, but {len(values)} are given"
            )
        self.operators += len(graph.operators)
        if self.operators > MAX_OPERATORS:
            raise UnsupportedError(f"the subgraphs have more than {MAX_OPERATORS} operators in total")
        scope = Scope(graph, prefix, outer.depth + 1)
        scope.values.update(zip(graph.inputs, values, strict=True))
        self._read(scope)
        results = [
            self.value_at(scope, tensor_index, self._builder(prefix)) for tensor_index in graph.outputs
        ]
        for value in results:
            if value not in values and not isinstance(value.node, (Constant, Parameter)):
                set_names(value, ())  # the operator around it gives it its own
        return results

    def value_at(self, scope: Scope, index: int, n: Builder) -> Output:
        """The value of a tensor. ModelError if no earlier operator computes it."""
        if index in scope.values:
            return scope.values[index]
        if scope.graph.tensors[index].variable and index not in scope.stored:
            return self.state_at(scope, index, n)
        if index not in scope.stored:
            name = scope.graph.tensors[index].name
            raise ModelError(
                f"This tensor should be either input, constant or should be already produced by previous "
                f"operators: {name[:200]}"
            )
        constant = scope.stored[index]
        value = output_of(n, constant)
        if isinstance(value.node, Constant):
            self.name_value(value, scope.graph.tensors[index])
        scope.values[index] = value
        return value

    def state_at(self, scope: Scope, index: int, n: Builder) -> Output:
        """Current value of a variable tensor; ModelError if the tensor is not variable."""
        row = scope.graph.tensors[index]
        if not row.variable:
            raise ModelError(f"the tensor {row.name[:200]!r} is not variable")
        return self.variables.state(n, row.name, row.shape, "f32" if is_quantized(row) else row.dtype, scope)

    def round_as_stored(self, n: Builder, value: Output, row: TensorRow) -> Output:
        """Round a value to what the quantized tensor `row` can represent."""
        return fake_quantized(self.layouts, n, value, row) if is_quantized(row) else value

    def _builder(self, base: str) -> Builder:
        n = Builder()
        n.reader, n.base = self, base
        return n

    def name_value(self, value: Output, row: TensorRow) -> None:
        if row.name and row.name not in self.used_names and not names_of(value):
            set_names(value, {row.name})
            self.used_names.add(row.name)
