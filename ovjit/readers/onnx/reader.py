"""Bytes of an ONNX file -> Model. Operators are read by the rules of the families, see `registry`.

A model is untrusted: names that lead nowhere, cycles, functions that call each other, and sizes are checked;
what a
rule stumbles over becomes a ModelError with the node's name.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ovjit.api.model.boundary import Constant, Parameter, Result
from ovjit.api.model.model import Model
from ovjit.api.model.node import Output
from ovjit.errors import ModelError, UnsupportedError, unreadable
from ovjit.graph.dtypes import ELEMENT_TYPES
from ovjit.graph.graph import walk
from ovjit.graph.shapes import ANY, Dim
from ovjit.readers.build import FOLD_BUDGET, Draft, encoded
from ovjit.readers.failures import told
from ovjit.readers.ir.weights import mapped_or_read, open_regular
from ovjit.readers.onnx import tensors
from ovjit.readers.onnx.expansion import Expansion
from ovjit.readers.onnx.external import ExternalData
from ovjit.readers.onnx.node import (
    EMPTY,
    OnnxNode,
    Rows,
    TensorList,
    read_attribute,
    reads,
)
from ovjit.readers.onnx.registry import (
    DEFAULT_DOMAINS,
    Rule,
    Schema,
    find_rule,
    find_schema,
    function_body,
    prepared,
)
from ovjit.readers.onnx.standard import messages, newest_opset
from ovjit.readers.onnx.wire import cut_out

#: A model may have at most this many nodes once its functions are inlined.
MAX_NODES = 300_000
#: Bodies of If, Loop and Scan may nest this deep, and calls of functions that deep.
MAX_NESTING, MAX_CALLS = 40, 1000
#: The oldest IR version in which a model says which operators it means.
FIRST_OPSETS = 3
#: Domains that may be used without an import.
_LENIENT = "com.microsoft"
#: What reads its inputs' numbers, whatever type they are of: a constant's type may be a wider one.
READS_NUMBERS = frozenset(("Cast", "DequantizeLinear"))


def read_onnx(
    model: Any,
    weights: Any = None,
    use_mmap: bool = True,
    shapes: Mapping[str, Any] | None = None,
    converters: Mapping[str, Rule] | None = None,
) -> Model:
    """The Model of an ONNX file.

    `model` is a path, the file's bytes, or a ModelProto. `weights` may be a dict with the contents of files
    with external data by their location, for a model that is not given by its path. Other weights are
    ignored, as in OpenVINO: an ONNX model has its own. `shapes` overrides the inputs' (element type or None,
    shape or None). `converters` are the caller's rules by operator type, before all others. Raises
    RuntimeError with the file and the node for an invalid model. UnsupportedError, a RuntimeError too, lists
    all operators that cannot be read.
    """
    where, path = "the given model", None
    if isinstance(model, (str, os.PathLike)):
        path = Path(os.fsdecode(model))
        where = str(path)
        with open_regular(path, "file") as file:
            model = mapped_or_read(file, path, use_mmap)
    contents = weights if isinstance(weights, Mapping) else None
    external = ExternalData(path, contents, use_mmap)
    if hasattr(model, "SerializeToString"):
        proto = model
    else:
        content = model if path is not None else np.frombuffer(bytes(model), np.uint8)
        message, external.cut = cut_out(content)
        proto = _parse(message, where, None if path is None else where)
    with told(where, TypeError, ValueError, AttributeError):
        model = Reader(proto, external, shapes, converters).read()
        model._of_one_file = not external.used
        return model


def _parse(content: Any, where: str, path: str | None) -> Any:
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        proto = messages().ModelProto.FromString(content)
    except DecodeError as error:
        raise ModelError(unreadable(path, f"{where} is no ONNX file, or a damaged one ({error})")) from None
    if not proto.HasField("graph"):
        raise ModelError(unreadable(path, f"{where} is no ONNX file, or one without a graph"))
    return proto


class Scope:
    """The names of one graph and their values: Outputs, TensorLists, or EMPTY.

    A body's scope finds other names in the graph around it (`outer`). If it `captures`, these become
    Parameters of
    the body, which `captured` lists with their sources; constants are repeated. `bindings` are the attributes
    of
    the function that is being inlined, `call` the (function, outer call) chain that led to it.
    """

    def __init__(
        self,
        opsets: Mapping[str, int],
        outer: Scope | None = None,
        captures: bool = False,
        bindings: Mapping[str, Any] | None = None,
        call: Any = None,
    ):
        self.values: dict[str, Any] = {}
        self.nodes: Sequence[Any] = ()  # those that are read into it
        self.opsets = opsets
        self.outer = outer
        self.captures = captures
        self.captured: list[tuple[Parameter, Output]] = []
        #: Constants whose type stands in for another, here and around -> that TensorProto.DataType.
        self.stand_ins: dict[Any, int] = {} if outer is None else outer.stand_ins
        self.bindings = bindings if bindings is not None else {}
        self.call = call
        self.depth: int = 0 if outer is None else outer.depth + 1
        self.prefix: str = outer.prefix if outer is not None else ""
        #: How often a node's name has been given in this graph.
        self.labels: dict[str, int] = {} if outer is None or captures else outer.labels

    def find(self, name: str) -> Any:
        """The value of a name, None where there is none."""
        if name in self.values:
            return self.values[name]
        value = None if self.outer is None else self.outer.find(name)
        if value is None or not self.captures:
            return value
        if isinstance(value, TensorList):
            value = TensorList([self.capture(v) for v in value], value.element_type)
        elif isinstance(value, Rows):
            first = TensorList([self.capture(v) for v in value.first], value.first.element_type)
            value = Rows(first, self.capture(value.rows))
        elif isinstance(value, Output):
            value = self.capture(value)
        self.values[name] = value
        return value

    def capture(self, source: Output) -> Output:
        """A value from around the body, as one of the body's own."""
        known = source._tensor._type
        if known.value is not None:
            shape = None if ELEMENT_TYPES[known.dtype].numpy is not None else known.shape
            name = source._node.get_friendly_name()
            node = Constant._of(np.asarray(known.value), known.dtype, shape, name)
            if source._node in self.stand_ins:
                self.stand_ins[node] = self.stand_ins[source._node]
            return Output._of(node, 0)
        for parameter, other in self.captured:
            if other._node is source._node and other._index == source._index:
                return Output._of(parameter, 0)
        parameter = Parameter._of(known.dtype, known.shape, None)
        parameter._tensors[0]._names = {min(source._tensor._names)} if source._tensor._names else set()
        parameter._friendly_name = min(source._tensor._names, default="")
        self.captured.append((parameter, source))
        return Output._of(parameter, 0)


class _Frame:
    """Nodes that are being read; at their end, the outputs of a call get their values."""

    __slots__ = ("function", "node", "nodes", "outer", "scope")

    def __init__(self, nodes: Iterator[Any], scope: Scope, node: Any = None, function: Any = None,
                 outer: Scope | None = None):  # fmt: skip
        self.nodes = nodes
        self.scope = scope
        self.node = node
        self.function = function
        self.outer = outer


class Reader(Draft):
    """Reads one model."""

    def __init__(
        self,
        proto: Any,
        external: ExternalData,
        shapes: Mapping[str, Any] | None = None,
        converters: Mapping[str, Rule] | None = None,
    ):
        super().__init__()
        self.converters = dict(converters or {})
        self.proto = proto
        self.external = external
        self.shapes = dict(shapes or {})
        self.functions = _functions(proto)
        #: Made by `read`, which counts the nodes before it reads any.
        self.expansion: Expansion = None  # type: ignore[assignment]
        #: What rules have found out about the model as a whole, by a name of theirs.
        self.memo: dict[str, Any] = {}

    def read(self) -> Model:
        graph = self.proto.graph
        opsets = _opsets(self.proto.opset_import)
        if not opsets and self.proto.ir_version < FIRST_OPSETS:
            opsets = {"": 1}
        self._check_operators(graph, opsets)
        self.expansion = Expansion(graph, self.functions, self.converters, MAX_NODES)
        scope = Scope(opsets)
        self._initializers(graph, scope)
        parameters = [p for info in _once(graph.input) if (p := self._input(info, scope)) is not None]
        self.run(graph, scope)
        results = [self._result(info.name, scope) for info in graph.output]
        if not results:
            raise ModelError("the graph has no outputs")
        _check_text(graph.name, "the name of the graph")
        # inputs that no node reads are left out, as OpenVINO leaves them out
        read = {name for node in graph.node for name in reads(node)} | {info.name for info in graph.output}
        model = Model._from_parts(
            results, [p for p in parameters if p._friendly_name in read], (), graph.name
        )
        model._rt = {}
        for entry in self.proto.metadata_props:
            _check_text(entry.key, "a key of the metadata")
            _check_text(entry.value, "a value of the metadata")
            metadata = model._rt.setdefault("framework", {})
            metadata[entry.key] = entry.value
        return model

    # -- a graph's ends --------------------------------------------------------------------------------------

    def _initializers(self, graph: Any, scope: Scope) -> None:
        for tensor in graph.initializer:
            _check_text(tensor.name, "the name of an initializer")
            try:
                value = self.constant(tensor, tensor.name, scope)
            except (ModelError, UnsupportedError) as error:
                raise type(error)(f"the initializer {tensor.name[:200]!r}: {error}") from error
            value._tensor._names = {tensor.name}
            self._define(scope, tensor.name, value)
        for sparse in graph.sparse_initializer:
            name = sparse.values.name
            _check_text(name, "the name of an initializer")
            value = self.sparse_constant(sparse, name)
            value._tensor._names = {name}
            self._define(scope, name, value)

    def _input(self, info: Any, scope: Scope) -> Parameter | None:
        if info.name in scope.values:
            return None  # an initializer of the same name is what the input holds
        try:
            element_type, shape = self.tensor_type(info.type)
        except (ModelError, UnsupportedError) as error:
            raise type(error)(f"the input {info.name[:200]!r}: {error}") from error
        if info.name in self.shapes:
            other_type, other_shape = self.shapes[info.name]
            element_type, shape = other_type or element_type, shape if other_shape is None else other_shape
        parameter = Parameter._of(element_type, shape, info.name)
        parameter._tensors[0]._names = {info.name}
        self._define(scope, info.name, Output._of(parameter, 0))
        return parameter

    def tensor_type(self, info: Any) -> tuple[str, tuple[Dim, ...] | None]:
        """(element type, shape) of a TypeProto; an optional tensor counts as one that is there,
        a sparse one as dense."""
        kind = info.WhichOneof("value")
        if kind == "optional_type":
            return self.tensor_type(info.optional_type.elem_type)
        if kind not in ("tensor_type", "sparse_tensor_type"):
            what = (kind or "nothing").removesuffix("_type")
            raise UnsupportedError(
                f"it should be a tensor, not {what}: OpenVINO's models have no such values"
            )
        tensor = getattr(info, kind)
        element_type = tensors.element_type(tensor.elem_type)
        if not tensor.HasField("shape"):
            return element_type, None
        dims: list[Dim] = []
        for dim in tensor.shape.dim:
            static = dim.WhichOneof("value") == "dim_value" and dim.dim_value >= 0
            dims.append(int(dim.dim_value) if static else ANY)
        if len(dims) > tensors.MAX_RANK:
            raise ModelError(f"its shape has {len(dims)} dimensions; {tensors.MAX_RANK} are the most")
        return element_type, tuple(dims)

    def _result(self, name: str, scope: Scope) -> Result:
        value = scope.find(name)
        if value is None:
            raise ModelError(f"the output {name[:200]!r} is computed by no node")
        if not isinstance(value, Output):
            what = "an empty optional" if value is EMPTY else "a sequence"
            raise UnsupportedError(
                f"the output {name[:200]!r} is {what}: OpenVINO's models have no such values; add nodes that "
                "turn it into tensors"
            )
        node = value._node
        _refuse_stand_in(value, scope)
        if not isinstance(node, Parameter):
            node._friendly_name = name
        value._tensor._names = value._tensor._names | {name}
        return Result._of(value, f"{name}/sink_port_0")

    def _define(self, scope: Scope, name: str, value: Any) -> None:
        _check_text(name, "the name of a tensor")
        if name in scope.values:
            raise ModelError(f"the name {name[:200]!r} is given twice")
        scope.values[name] = value

    # -- constants -------------------------------------------------------------------------------------------

    def constant(self, tensor: Any, name: str | None = None, scope: Scope | None = None) -> Output:
        """The constant of a TensorProto. In a `scope`, one whose element type OpenVINO does not have is of
        the type that stands in for it, for those who read numbers and not types."""
        value, element_type, _ = tensors.decode(tensor, self.external, scope is not None)
        value = encoded(value) if element_type == "string" else value
        node = Constant._of(value, element_type, None, name)
        if scope is not None and tensor.data_type in tensors.STAND_INS:
            scope.stand_ins[node] = tensor.data_type
        return Output._of(node, 0)

    def sparse_constant(self, sparse: Any, name: str | None = None) -> Output:
        """The dense constant of a SparseTensorProto."""
        values, element_type, _ = tensors.decode(sparse.values, self.external)
        indices, _, _ = tensors.decode(sparse.indices, self.external)
        shape = tuple(sparse.dims)
        count = math.prod(shape)
        if any(d < 0 for d in shape) or len(shape) > tensors.MAX_RANK or not tensors.fits(shape):
            raise ModelError(f"the dimensions {list(shape)[:8]} of a sparse tensor are not valid")
        if count * max(values.itemsize, 1) > FOLD_BUDGET:
            raise ModelError(f"a sparse tensor of {list(shape)[:8]} is too large to be made dense")
        if indices.dtype.kind not in "iu" or indices.ndim > 2:
            raise ModelError("the indices of a sparse tensor should be integers in one or two dimensions")
        flat = indices.reshape(-1)
        if indices.ndim == 2:
            if indices.shape[1] != len(shape):
                wrong = indices.shape[1]
                raise ModelError(f"a sparse tensor of {len(shape)} dimensions has indices of {wrong}")
            if not ((indices >= 0) & (indices < np.array(shape, np.int64))).all():
                raise ModelError("a sparse tensor has indices that lie outside")
            flat = np.zeros(len(indices), np.int64)
            if indices.size:
                flat = np.ravel_multi_index(tuple(indices.T), shape)
        if flat.size != values.size or (flat.size and (flat.min() < 0 or flat.max() >= count)):
            raise ModelError("a sparse tensor has indices that lie outside, or not one for each value")
        dense = np.zeros(count, values.dtype)
        dense[flat.astype(np.int64)] = values.reshape(-1)
        return Output._of(Constant._of(dense.reshape(shape), element_type, None, name), 0)

    def name(self, base: str, op: str) -> str:
        self.expansion.count_made()
        return super().name(base, op)

    # -- nodes -----------------------------------------------------------------------------------------------

    def run(self, graph: Any, scope: Scope) -> None:
        """Read the nodes of a graph (or function) into its scope. Calls of functions are read in place."""
        scope.nodes = nodes = prepared(_in_order(graph.node))
        stack = [_Frame(iter(nodes), scope)]
        while stack:
            frame = stack[-1]
            node = next(frame.nodes, None)
            if node is None:
                stack.pop()
                if frame.function is not None:
                    self._return(frame)
                continue
            self.expansion.count_read()
            call = self._read_node(node, frame.scope)
            if call is not None:
                stack.append(call)

    def inner_scope(self, scope: Scope, captures: bool) -> Scope:
        """The scope of a graph inside of another's."""
        inner = Scope(scope.opsets, scope, captures, scope.bindings, scope.call)
        if inner.depth > MAX_NESTING:
            raise ModelError(f"the graphs nest deeper than {MAX_NESTING} levels")
        return inner

    def subgraph(
        self, graph: Any, scope: Scope, inputs: Mapping[str, Any], captures: bool
    ) -> tuple[list[Any], Scope]:
        """(values of the outputs, the scope) of a body; `inputs` are the values of its inputs by name."""
        inner = self.inner_scope(scope, captures)
        self._initializers(graph, inner)
        for info in _once(graph.input):
            _check_text(info.name, "the name of an input")
        inner.values.update(inputs)
        self.run(graph, inner)
        values = []
        for info in graph.output:
            value = inner.find(info.name)
            if value is None:
                raise ModelError(f"the output {info.name[:200]!r} of a body is computed by no node")
            values.append(value)
        return values, inner

    def _read_node(self, proto: Any, scope: Scope) -> _Frame | None:
        """Read a node into its scope, or give the frame of the function that it calls."""
        domain = "" if proto.domain in DEFAULT_DOMAINS else proto.domain
        inputs: list[Any] = []
        for name in proto.input:
            value = scope.find(name) if name else None
            if name and value is None:
                raise ModelError(f"{_label(proto)}: its input {name[:200]!r} is computed by no node")
            inputs.append(None if value is _MISSING else value)
        while inputs and inputs[-1] is None:
            inputs.pop()
        attributes = _attributes(proto, scope)
        own = self.converters.get(proto.op_type)
        function = self.functions.get((domain, proto.op_type, proto.overload))
        if function is not None and own is None:
            return self._call(proto, scope, function, inputs, attributes)
        version = _version(domain, scope)
        rule = own or find_rule(domain, proto.op_type, version)
        schema = find_schema(domain, proto.op_type, version)
        try:
            if schema is not None and own is None:
                _check_schema(schema, proto, inputs, attributes)
            if rule is None:
                types = [_type_bytes(v) for v in inputs]
                function = function_body(
                    domain, proto.op_type, version, _resolved(proto, attributes), lambda: types
                )
                if function is None:
                    raise UnsupportedError(
                        f"No conversion rule found for operations: {_operator(proto, version)}"
                    )
                return self._call(proto, scope, function, inputs, attributes, schema)
            if proto.op_type not in READS_NUMBERS:
                for value in inputs:
                    _refuse_stand_in(value, scope)
            values = {name: read_attribute(attribute) for name, attribute in attributes.items()}
            outputs = rule(OnnxNode(self, scope, proto, version, schema, inputs, values))
        except (ModelError, UnsupportedError) as error:
            raise type(error)(f"{_label(proto)}: {error}") from error
        except (ArithmeticError, LookupError, TypeError, ValueError, AttributeError) as error:
            raise ModelError(f"{_label(proto)}: it is not valid ({type(error).__name__}: {error})") from error
        self._bind(proto, scope, outputs if type(outputs) is list else [outputs])
        return None

    def _bind(self, proto: Any, scope: Scope, outputs: Sequence[Any]) -> None:
        """Give the values of a node's outputs their names, as OpenVINO gives them: the node's own name, else
        that
        of its last output."""
        names = list(proto.output)
        if len(names) > len(outputs) and any(names[len(outputs) :]):
            raise UnsupportedError(f"{_label(proto)}: output {len(outputs)} is not supported")
        label = scope.prefix + proto.name if proto.name else ""
        if label:
            count = scope.labels.get(label, 0)
            scope.labels[label] = count + 1
            label = f"{label}_{count}" if count else label
        for name, value in zip(names, outputs, strict=False):
            if not name:
                continue
            if value is None:
                raise UnsupportedError(f"{_label(proto)}: the output {name[:200]!r} is not supported")
            if isinstance(value, Output):
                node, tensor = value._node, value._tensor
                if isinstance(node, Parameter):
                    tensor._names = tensor._names | {name}
                elif not isinstance(node, Constant) or not tensor._names:
                    node._friendly_name = label or scope.prefix + name
                    tensor._names = {scope.prefix + name}
            self._define(scope, name, value)

    # -- functions -------------------------------------------------------------------------------------------

    def _call(
        self, proto: Any, scope: Scope, function: Any, inputs: list[Any], attributes: dict[str, Any],
        schema: Schema | None = None,
    ) -> _Frame:  # fmt: skip
        """The frame in which a function's nodes are read in place of the node that calls it."""
        key = (function.domain, function.name, proto.overload)
        depth, outer = 1, scope.call
        while outer is not None:
            depth += 1
            if outer[0] == key or depth > MAX_CALLS:
                raise ModelError(f"{_label(proto)}: the functions call each other: {_path(key, scope.call)}")
            outer = outer[1]
        bindings = {a.name: a for a in function.attribute_proto}
        if schema is not None:
            bindings.update((name, row[2]) for name, row in schema.attributes.items() if row[2] is not None)
        bindings.update(attributes)
        inner = Scope(
            _opsets(function.opset_import) or scope.opsets, bindings=bindings, call=(key, scope.call)
        )
        inner.depth = scope.depth
        inner.labels = scope.labels
        inner.stand_ins = scope.stand_ins
        inner.prefix = f"{scope.prefix}{proto.name or _first(proto.output) or function.name}/"
        if len(inputs) > len(function.input):
            raise ModelError(f"{_label(proto)}: {function.name!r} takes {len(function.input)} inputs")
        if len(set(function.input)) < len(function.input):
            raise ModelError(f"the function {function.name[:200]!r} has two inputs of one name")
        for i, name in enumerate(function.input):
            inner.values[name] = inputs[i] if i < len(inputs) and inputs[i] is not None else _MISSING
        return _Frame(iter(_in_order(function.node)), inner, proto, function, scope)

    def _return(self, frame: _Frame) -> None:
        assert frame.outer is not None
        outputs: list[Any] = []
        for name, wanted in zip(frame.function.output, frame.node.output, strict=False):
            if not wanted:
                outputs.append(None)
                continue
            value = frame.scope.find(name)
            if value is None:
                raise ModelError(
                    f"{_label(frame.node)}: the function's output {name[:200]!r} is not computed"
                )
            outputs.append(None if value is _MISSING else value)
        self._bind(frame.node, frame.outer, outputs)

    # -- what there is ---------------------------------------------------------------------------------------

    def _check_operators(self, graph: Any, opsets: Mapping[str, int]) -> None:
        """Raise UnsupportedError that lists all operators without a rule, wherever they stand."""
        newest = newest_opset()
        missing: dict[str, list[str]] = {}
        seen: set[tuple[str, str, str]] = set()
        waiting: list[tuple[Any, Mapping[str, int]]] = [(graph, opsets)]
        while waiting:
            part, imports = waiting.pop()
            for node in part.node:
                _check_text(node.op_type, "the type of a node")
                _check_text(node.domain, "the domain of a node")
                _check_text(node.name, "the name of a node")
                for name in node.output:
                    _check_text(name, "the name of a tensor")
                for attribute in node.attribute:
                    if attribute.type == 5:
                        waiting.append((attribute.g, imports))
                    elif attribute.type == 10:
                        waiting.extend((g, imports) for g in attribute.graphs)
                domain = "" if node.domain in DEFAULT_DOMAINS else node.domain
                key = (domain, node.op_type, node.overload)
                if key in self.functions:
                    if key not in seen:
                        seen.add(key)
                        function = self.functions[key]
                        waiting.append((function, _opsets(function.opset_import) or imports))
                    continue
                version = imports.get(domain, 1 if domain else newest)
                if node.op_type in self.converters or find_rule(domain, node.op_type, version) is not None:
                    continue
                schema = find_schema(domain, node.op_type, version)
                if schema is None or not schema.function:
                    label = _operator(node, version)
                    missing.setdefault(label, []).append(node.name or _first(node.output))
        if missing:
            names = ", ".join(sorted(missing))
            listed = "; ".join(
                f"{what}, {len(nodes)} times ({_some(nodes)})" for what, nodes in sorted(missing.items())
            )
            raise UnsupportedError(
                f"Model wasn't fully converted. No conversion rule found for operations: {names}. "
                f"The nodes are: {listed}"
            )


class _Missing:
    """An input of a function that the caller leaves out."""

    def __repr__(self) -> str:
        return "a missing input"


_MISSING = _Missing()


def _refuse_stand_in(value: Any, scope: Scope) -> None:
    if isinstance(value, Output) and value._node in scope.stand_ins:
        tensors.element_type(scope.stand_ins[value._node])  # says that there is no such type


def _check_text(text: Any, what: str) -> None:
    """Raise ModelError for what is no UTF-8: protobuf gives such fields as bytes."""
    if not isinstance(text, str):
        raise ModelError(f"{what}, {text[:40]!r}, is no UTF-8")


def _once(infos: Sequence[Any]) -> Sequence[Any]:
    """A graph's inputs. Raises ModelError where two have one name."""
    seen: set[str] = set()
    for info in infos:
        if info.name in seen:
            raise ModelError(f"two inputs have the name {info.name[:200]!r}")
        seen.add(info.name)
    return infos


def _functions(proto: Any) -> dict[tuple[str, str, str], Any]:
    functions: dict[tuple[str, str, str], Any] = {}
    for function in proto.functions:
        domain = "" if function.domain in DEFAULT_DOMAINS else function.domain
        key = (domain, function.name, function.overload)
        if key in functions:
            raise ModelError(f"the function {function.name[:200]!r} is given twice")
        functions[key] = function
    return functions


def _opsets(imports: Iterable[Any]) -> dict[str, int]:
    opsets = {"" if row.domain in DEFAULT_DOMAINS else row.domain: int(row.version) for row in imports}
    newest = newest_opset(opsets.get("", 0))
    if opsets.get("", 1) < 1 or opsets.get("", 1) > newest:
        raise ModelError(
            f"the model needs opset {opsets['']} of ai.onnx; the installed package onnx knows those from 1 "
            f"to {newest}"
        )
    return opsets


def _version(domain: str, scope: Scope) -> int:
    version = scope.opsets.get(domain)
    if version is not None:
        return version
    if domain:
        return 1
    if scope.call is None and not scope.opsets:
        raise ModelError("the model imports no opset of ai.onnx, so that its operators have no meaning")
    return newest_opset()


def _attributes(proto: Any, scope: Scope) -> dict[str, Any]:
    """name -> AttributeProto, references of a function's attributes resolved."""
    out: dict[str, Any] = {}
    for attribute in proto.attribute:
        if attribute.name in out:
            raise ModelError(f"{_label(proto)}: the attribute {attribute.name[:80]!r} is given twice")
        if attribute.ref_attr_name:
            bound = scope.bindings.get(attribute.ref_attr_name)
            if bound is not None:
                out[attribute.name] = bound
        else:
            out[attribute.name] = attribute
    return out


def _resolved(proto: Any, attributes: Mapping[str, Any]) -> Any:
    """The node with the attributes that its function's references stand for."""
    if not any(attribute.ref_attr_name for attribute in proto.attribute):
        return proto
    out = type(proto)()
    out.CopyFrom(proto)
    del out.attribute[:]
    for name, attribute in attributes.items():
        copy = out.attribute.add()
        copy.CopyFrom(attribute)
        copy.name = name
    return out


def _check_schema(schema: Schema, proto: Any, inputs: Sequence[Any], attributes: Mapping[str, Any]) -> None:
    if len(inputs) > schema.max_inputs or len(proto.input) < schema.min_inputs:  # "": left out
        wanted = _range(schema.min_inputs, schema.max_inputs)
        raise ModelError(f"it has {len(inputs)} inputs, {wanted} are right")
    outputs = len(proto.output)
    if not schema.min_outputs <= outputs <= schema.max_outputs:
        raise ModelError(
            f"it has {outputs} outputs, {_range(schema.min_outputs, schema.max_outputs)} are right"
        )
    for name, attribute in attributes.items():
        row = schema.attributes.get(name)
        if row is None:
            known = ", ".join(schema.attributes) or "none"
            raise ModelError(
                f"it has the attribute {name[:80]!r}, which version {schema.since} has not ({known})"
            )
        if attribute.type != row[0]:
            raise ModelError(f"the attribute {name!r} has the kind {attribute.type}, not {row[0]}")
    for name, (_, required, _default) in schema.attributes.items():
        if required and name not in attributes:
            raise ModelError(f"the attribute {name!r} is missing")


def _range(low: int, high: int) -> str:
    return str(low) if low == high else f"{low} to {high}" if high < 1 << 30 else f"{low} or more"


def _in_order(nodes: Sequence[Any]) -> Sequence[Any]:
    """The nodes, producers first: as they stand if that is so, else sorted. Raises ModelError for a cycle."""
    producers = {name: i for i, node in enumerate(nodes) for name in node.output if name}
    made: set[str] = set()
    for node in nodes:
        if any(name in producers and name not in made for name in reads(node)):
            break
        made.update(node.output)
    else:
        return nodes

    def sources(i: int) -> list[int]:
        return [producers[name] for name in reads(nodes[i]) if name in producers]

    try:
        return [nodes[i] for i in walk(range(len(nodes)), sources)]
    except ModelError as error:
        place = next((w for w in str(error).split() if w.isdecimal()), "")
        label = _label(nodes[int(place)]) if place else "a node"
        raise ModelError(f"the graph has a cycle through {label}") from error


def _type_bytes(value: Any) -> bytes:
    """The TypeProto of a value, serialised; of no type where the input is left out."""
    out = messages().TypeProto()
    if isinstance(value, TensorList):
        inner = out.sequence_type.elem_type
        first = next((v for v in value if isinstance(v, Output)), None)
        name = first._tensor._type.dtype if first is not None else value.element_type
        if name:
            inner.tensor_type.elem_type = tensors.NUMBERS[name]
    elif isinstance(value, Output):
        known = value._tensor._type
        out.tensor_type.elem_type = tensors.NUMBERS[known.dtype]
        if known.shape is not None:
            out.tensor_type.shape.SetInParent()
            for d in known.shape:
                dim = out.tensor_type.shape.dim.add()
                if isinstance(d, int):
                    dim.dim_value = d
    return out.SerializeToString()


def _label(proto: Any) -> str:
    name = (proto.name or _first(proto.output))[:200]
    return f"While validating ONNX node '<Node({proto.op_type[:80]}): {name}>'"


def _operator(proto: Any, version: int) -> str:
    """What messages call an operator: with its version, or with the domain that it is of."""
    if proto.domain in DEFAULT_DOMAINS:
        return f"{proto.op_type[:80]}-{version}"
    return f"{proto.domain}.{proto.op_type[:80]}"


def _path(key: Any, call: Any) -> str:
    names = [key[1]]
    while call is not None and len(names) < 12:
        names.append(call[0][1])
        if call[0] == key:
            break
        call = call[1]
    return " -> ".join(name[:80] for name in reversed(names))


def _first(names: Iterable[str]) -> str:
    return next((name for name in names if name), "")


def _some(names: list[str]) -> str:
    return ", ".join(repr(name[:80]) for name in names[:5]) + (", ..." if len(names) > 5 else "")


__all__ = ["EMPTY", "Reader", "Scope", "read_onnx"]
