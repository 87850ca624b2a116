"""The model that is being read, as rules see it: its constants, names and bodies."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

from ovjit import build
from ovjit.build import Output
from ovjit.build.builder import Draft
from ovjit.build.tensors import encode_strings
from ovjit.errors import ModelError, UnsupportedError
from ovjit.readers.onnx import tensors
from ovjit.readers.onnx.checks import check_text, constant_names, last_initializers, once, warn_twice
from ovjit.readers.onnx.expansion import Expansion
from ovjit.readers.onnx.external import ExternalData
from ovjit.readers.onnx.scope import Scope

#: Bodies of If, Loop and Scan may nest this deep.
MAX_NESTING = 40


class OnnxDraft(Draft):
    """Base class of the reader."""

    def __init__(self, proto: Any, external: ExternalData):
        super().__init__()
        self.proto = proto
        self.external = external
        #: Made by `read`, which counts the nodes before it reads any.
        self.expansion: Expansion = None  # type: ignore[assignment]
        #: Facts about the model as a whole, each by a name of the rule that notes it.
        self.memo: dict[str, Any] = {}

    @abstractmethod
    def run(self, graph: Any, scope: Scope) -> None:
        """Read the nodes of a graph (or function) into its scope. Calls of functions are read in place."""

    def inner_scope(self, scope: Scope, captures: bool) -> Scope:
        """The scope of a graph inside of another's."""
        inner = Scope(scope.opsets, scope, captures, scope.bindings, scope.call)
        if inner.depth > MAX_NESTING:
            raise ModelError(f"the graphs are nested more than {MAX_NESTING} levels deep")
        return inner

    def subgraph(
        self, graph: Any, scope: Scope, inputs: Mapping[str, Any], captures: bool
    ) -> tuple[list[Any], Scope]:
        """(values of the outputs, the scope) of a body; `inputs` are the values of its inputs by name."""
        inner = self.inner_scope(scope, captures)
        self._initializers(graph, inner)
        for info in once(graph.input):
            check_text(info.name, "the name of an input")
        inner.values.update(inputs)
        self.run(graph, inner)
        values = []
        for info in graph.output:
            value = inner.find(info.name)
            if value is None:
                raise ModelError(f"the output {info.name[:200]!r} of a body is not computed by a node")
            values.append(value)
        return values, inner

    def constant(self, tensor: Any, name: str | None = None, scope: Scope | None = None) -> Output:
        """The constant of a TensorProto. With `scope`, an element type that OpenVINO lacks is replaced by a
        wider one, for rules that read values and not types."""
        value, element_type, _ = tensors.decode(tensor, self.external, scope is not None)
        value = encode_strings(value) if element_type == "string" else value
        constant = build.make_constant(value, element_type, None, name)
        if scope is not None and tensor.data_type in tensors.STAND_INS:
            scope.stand_ins[constant.node] = tensor.data_type
        return constant

    def sparse_constant(self, sparse: Any, name: str | None = None) -> Output:
        """The dense constant of a SparseTensorProto."""
        return build.make_constant(*tensors.dense(sparse, self.external), name=name)

    def name(self, base: str, op: str) -> str:
        self.expansion.count_made()
        return super().name(base, op)

    def _initializers(self, graph: Any, scope: Scope) -> set[str]:
        """Define the initializers, and return the names of Constant nodes. Of one name, a Constant node
        precedes an initializer, and a sparse initializer a dense one."""
        constants = constant_names(graph.node)
        sparse = [s for s in graph.sparse_initializer if s.values.name not in constants]
        hidden = constants.union(s.values.name for s in sparse)
        for name, tensor in last_initializers(graph.initializer).items():
            if name in hidden:
                warn_twice(name, "the Constant node" if name in constants else "the sparse initializer")
                continue
            try:
                value = self.constant(tensor, name, scope)
            except (ModelError, UnsupportedError) as error:
                raise type(error)(f"the initializer {name[:200]!r}: {error}") from error
            build.set_names(value, {name})
            self._define(scope, name, value)
        for one in sparse:
            name = one.values.name
            check_text(name, "the name of an initializer")
            value = self.sparse_constant(one, name)
            build.set_names(value, {name})
            self._define(scope, name, value)
        return constants

    def _define(self, scope: Scope, name: str, value: Any) -> None:
        check_text(name, "the name of a tensor")
        if name in scope.values:
            raise ModelError(f"the name {name[:200]!r} is defined twice")
        scope.values[name] = value
