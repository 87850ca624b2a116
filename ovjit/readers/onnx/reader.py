"""Bytes of an ONNX file -> Model. Operators are read by the rules of the families, see `registry`.

A model is untrusted: names that lead nowhere, cycles, functions that call each other, and sizes are checked.
What a rule stumbles over becomes a ModelError with the node's name.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ovjit import build
from ovjit.build import Constant, Model, Output, Parameter, Result
from ovjit.build.builder import Builder
from ovjit.errors import ModelError, UnsupportedError, unless_of_signal, unreadable
from ovjit.readers.files import name_errors
from ovjit.readers.files.weights import mapped_or_read, open_regular
from ovjit.readers.onnx import tensors
from ovjit.readers.onnx.attributes import AttributeValues, field_of, reads
from ovjit.readers.onnx.checks import (
    check_operators,
    check_schema,
    check_text,
    functions_of,
    in_order,
    last_constants,
    once,
)
from ovjit.readers.onnx.choices import check_choices
from ovjit.readers.onnx.draft import OnnxDraft
from ovjit.readers.onnx.expansion import Expansion
from ovjit.readers.onnx.external import ExternalData
from ovjit.readers.onnx.labels import call_path, first, label, operator_name, resolve_references
from ovjit.readers.onnx.node import OnnxNode
from ovjit.readers.onnx.registry import (
    DEFAULT_DOMAINS,
    Rule,
    Schema,
    converter_key,
    find_rule,
    find_schema,
    function_body,
    prepare_nodes,
)
from ovjit.readers.onnx.scope import (
    MISSING,
    Frame,
    Scope,
    attributes_of,
    opsets_of,
    refuse_stand_in,
    type_bytes,
    version_of,
)
from ovjit.readers.onnx.standard import messages
from ovjit.readers.onnx.values import EMPTY, LoopSequence, OpenOptional, TensorList, of_rows, stack_rows
from ovjit.readers.onnx.wire import cut_out
from ovjit.records import NamedTuple

#: A model may have at most this many nodes once its functions are inlined.
MAX_NODES = 300_000
#: Calls of functions may nest this deep.
MAX_CALLS = 1000
#: The oldest IR version in which a model says which operators it means.
FIRST_OPSETS = 3
#: What reads its inputs' numbers, whatever type they are of: a constant's type may be a wider one.
READS_NUMBERS = frozenset(("Cast", "DequantizeLinear"))


class Opened(NamedTuple):
    """A parsed model: its ModelProto, the reader of its external data, and its name in messages."""

    proto: Any
    external: ExternalData
    where: str


def open_model(model: Any, weights: Any = None, use_mmap: bool = True) -> Opened:
    """Parse a model: the path of a file, its bytes, or a ModelProto.

    `weights` may be a dict with the contents of files with external data by their location, for a model that
    is not given by its path. Other weights are ignored, as in OpenVINO: an ONNX model has its own.
    """
    where, path = "the given model", None
    if isinstance(model, (str, os.PathLike)):
        where = path = os.fsdecode(model)
        with open_regular(path, "file") as file:
            model = mapped_or_read(file, path, use_mmap)
    contents = weights if isinstance(weights, Mapping) else None
    external = ExternalData(path, contents, use_mmap)
    if hasattr(model, "SerializeToString"):
        return Opened(model, external, where)
    content = model if path is not None else np.frombuffer(bytes(model), np.uint8)
    message, external.cut = cut_out(content)
    return Opened(_parse(message, where, None if path is None else where), external, where)


def read_opened(
    parsed_file: Opened, converters: Mapping[str, Rule] | None = None, all_inputs: bool = False
) -> Model:
    """The Model of a parsed file. `converters`: the caller's rules by operator type, before all others. With
    `all_inputs`, inputs stay that no node reads. Raises RuntimeError with the file and the node for an
    invalid model. UnsupportedError, a RuntimeError too, lists all operators that cannot be read."""
    with name_errors(parsed_file.where, TypeError, ValueError, AttributeError):
        model = Reader(parsed_file.proto, parsed_file.external, converters).read(all_inputs)
        if parsed_file.external.has_files:
            build.note_further_files(model)
        return model


def _parse(content: Any, where: str, path: str | None) -> Any:
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        proto = messages().ModelProto.FromString(content)
    except DecodeError as error:
        raise ModelError(unreadable(path, f"{where} is not an ONNX file, or is damaged ({error})")) from None
    if not proto.HasField("graph"):
        raise ModelError(unreadable(path, f"{where} is not an ONNX file, or has no graph"))
    return proto


class Reader(OnnxDraft):
    """Reads one model."""

    def __init__(self, proto: Any, external: ExternalData, converters: Mapping[str, Rule] | None = None):
        super().__init__(proto, external)
        self.converters = dict(converters or {})
        self.functions = functions_of(proto)
        #: What is raised for an operator without a rule.
        self.missing_in_branches: UnsupportedError | None = None

    def read(self, all_inputs: bool = False) -> Model:
        graph = self.proto.graph
        opsets = opsets_of(self.proto.opset_import)
        if not opsets and self.proto.ir_version < FIRST_OPSETS:
            opsets = {"": 1}
        self.missing_in_branches = check_operators(graph, opsets, self.functions, self.converters)
        self.expansion = Expansion(graph, self.functions, self.converters, MAX_NODES)
        scope = Scope(opsets)
        constants = self._initializers(graph, scope)
        inputs_given = [info for info in once(graph.input) if info.name not in constants]
        parameters = [p for info in inputs_given if (p := self._input(info, scope)) is not None]
        self.run(graph, scope)
        results = [result for info in graph.output for result in self._results(info.name, scope)]
        if not results:
            raise ModelError("the graph has no outputs")
        check_text(graph.name, "the name of the graph")
        # other inputs are left out, as OpenVINO leaves them out of ONNX models
        read = {name for node in graph.node for name in reads(node)} | {info.name for info in graph.output}
        model_parameters = [p for p in parameters if all_inputs or build.name_of(p) in read]
        metadata: dict[str, str] = {}
        for entry in self.proto.metadata_props:
            check_text(entry.key, "a key of the metadata")
            check_text(entry.value, "a value of the metadata")
            metadata[entry.key] = entry.value
        notes = {"framework": metadata} if metadata else {}
        return build.make_model(results, model_parameters, graph.name, notes=notes)

    # -- a graph's ends --------------------------------------------------------------------------------------

    def _input(self, info: Any, scope: Scope) -> Parameter | None:
        if info.name in scope.values:
            return None  # an initializer of the same name is what the input holds
        try:
            element_type, shape, is_sequence = tensors.input_type(info.type)
        except (ModelError, UnsupportedError) as error:
            raise type(error)(f"the input {info.name[:200]!r}: {error}") from error
        parameter = build.make_parameter(element_type, shape, info.name, {info.name})
        value = parameter.output(0)
        self._define(scope, info.name, of_rows(value) if is_sequence else value)
        return parameter

    def _results(self, name: str, scope: Scope) -> list[Result]:
        """The outputs of the model for an output of the graph: a sequence gives one output per tensor, with
        numbered names, or one of all rows if its length is dynamic."""
        value = scope.find(name)
        value = value.value if isinstance(value, OpenOptional) else value
        if not isinstance(value, (TensorList, LoopSequence)):
            return [self._make_result(name, value, scope)]
        if isinstance(value, TensorList):
            return [self._make_result(f"{name}_{i}", v, scope) for i, v in enumerate(value)]
        builder = Builder()
        builder.reader, builder.base = self, name
        return [self._make_result(name, stack_rows(builder, value), scope)]

    def _make_result(self, name: str, value: Any, scope: Scope) -> Result:
        """A Result for a graph output. Raises ModelError if nothing produces it."""
        if value is None:
            raise ModelError(
                f'Output tensor "{name[:200]}" was declared as a graph output but is not produced by any '
                "operation"
            )
        if not isinstance(value, Output):
            what = "an empty optional" if value is EMPTY else "a sequence"
            raise UnsupportedError(
                f"the output {name[:200]!r} is {what}: OpenVINO's models have no such values; add nodes "
                "that convert it to tensors"
            )
        node = value.node
        refuse_stand_in(value, scope)
        if not isinstance(node, Parameter):
            node.set_friendly_name(name)
        build.add_names(value, {name})
        return build.make_result(value, f"{name}/sink_port_0")

    # -- nodes -----------------------------------------------------------------------------------------------

    def run(self, graph: Any, scope: Scope) -> None:
        """Read the nodes of a graph (or function) into its scope. Calls of functions are read in place."""
        scope.nodes = nodes = prepare_nodes(in_order(last_constants(graph.node)))
        stack = [Frame(iter(nodes), scope)]
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

    def _read_node(self, proto: Any, scope: Scope) -> Frame | None:
        """Read a node into its scope. Returns the Frame of a function that it calls, else None."""
        domain = "" if proto.domain in DEFAULT_DOMAINS else proto.domain
        inputs = _find_inputs(proto, scope)
        attributes = attributes_of(proto, scope)
        converter = self.converters.get(converter_key(domain, proto.op_type))
        function = self.functions.get((domain, proto.op_type, proto.overload))
        if function is not None and converter is None:
            return self._call(proto, scope, function, inputs, attributes)
        version = version_of(domain, scope)
        rule = converter or find_rule(domain, proto.op_type, version)
        schema = find_schema(domain, proto.op_type, version)
        try:
            if schema is not None and converter is None:
                check_schema(schema, proto, inputs, attributes)
            values = AttributeValues({k: field_of(a) for k, a in attributes.items()}, attributes)
            if converter is None:
                check_choices(domain, proto.op_type, values)
            if rule is None and schema is None and self.missing_in_branches is not None:
                raise self.missing_in_branches
            if rule is None:
                types = [type_bytes(v) for v in inputs]
                function = function_body(
                    domain, proto.op_type, version, resolve_references(proto, attributes), lambda: types
                )
                if function is None:
                    raise UnsupportedError(
                        f"No conversion rule found for operations: {operator_name(proto, version)}"
                    )
                return self._call(proto, scope, function, inputs, attributes, schema)
            if scope.stand_ins and proto.op_type not in READS_NUMBERS:
                for value in inputs:
                    refuse_stand_in(value, scope)
            outputs = rule(OnnxNode(self, scope, proto, version, schema, inputs, values))
        except (ModelError, UnsupportedError) as error:
            raise type(error)(f"{label(proto)}: {error}") from error
        except unless_of_signal(ArithmeticError, LookupError, TypeError, ValueError, AttributeError) as error:
            raise ModelError(f"{label(proto)}: it is not valid ({type(error).__name__}: {error})") from error
        self._bind(proto, scope, outputs if type(outputs) is list else [outputs])
        return None

    def _bind(self, proto: Any, scope: Scope, outputs: Sequence[Any]) -> None:
        """Name the values of a node's outputs as OpenVINO does: by the node's name, else by its last
        output."""
        names = list(proto.output)
        if len(names) > len(outputs) and any(names[len(outputs) :]):
            raise UnsupportedError(f"{label(proto)}: output {len(outputs)} is not supported")
        friendly = scope.prefix + proto.name if proto.name else ""
        if friendly:
            count = scope.labels.get(friendly, 0)
            scope.labels[friendly] = count + 1
            friendly = f"{friendly}_{count}" if count else friendly
        for name, value in zip(names, outputs, strict=False):
            if not name:
                continue
            if value is None:
                raise UnsupportedError(f"{label(proto)}: the output {name[:200]!r} is not supported")
            if isinstance(value, Output):
                node = value.node
                if isinstance(node, Parameter):
                    build.add_names(value, {name})
                elif not isinstance(node, Constant) or not build.names_of(value):
                    build.name_output(value, friendly or scope.prefix + name, scope.prefix + name)
            self._define(scope, name, value)

    # -- functions -------------------------------------------------------------------------------------------

    def _call(
        self, proto: Any, scope: Scope, function: Any, inputs: list[Any], attributes: dict[str, Any],
        schema: Schema | None = None,
    ) -> Frame:  # fmt: skip
        """The Frame in which a called function's nodes are read in place."""
        key = (function.domain, function.name, proto.overload)
        depth, outer = 1, scope.call
        while outer is not None:
            depth += 1
            if outer[0] == key or depth > MAX_CALLS:
                raise ModelError(
                    f"{label(proto)}: the functions call each other: {call_path(key, scope.call)}"
                )
            outer = outer[1]
        bindings = {a.name: a for a in function.attribute_proto}
        if schema is not None:
            bindings.update((name, row[2]) for name, row in schema.attributes.items() if row[2] is not None)
        bindings.update(attributes)
        inner = Scope(
            opsets_of(function.opset_import) or scope.opsets, bindings=bindings, call=(key, scope.call)
        )
        inner.depth = scope.depth
        inner.labels = scope.labels
        inner.stand_ins = scope.stand_ins
        inner.prefix = f"{scope.prefix}{proto.name or first(proto.output) or function.name}/"
        if len(inputs) > len(function.input):
            raise ModelError(f"{label(proto)}: {function.name!r} takes {len(function.input)} inputs")
        if len(set(function.input)) < len(function.input):
            raise ModelError(f"the function {function.name[:200]!r} has two inputs with the same name")
        for i, name in enumerate(function.input):
            inner.values[name] = inputs[i] if i < len(inputs) and inputs[i] is not None else MISSING
        return Frame(iter(in_order(function.node)), inner, proto, function, scope)

    def _return(self, frame: Frame) -> None:
        assert frame.outer is not None
        outputs: list[Any] = []
        for name, output_name in zip(frame.function.output, frame.node.output, strict=False):
            if not output_name:
                outputs.append(None)
                continue
            value = frame.scope.find(name)
            if value is None:
                raise ModelError(f"{label(frame.node)}: the function's output {name[:200]!r} is not computed")
            outputs.append(None if value is MISSING else value)
        self._bind(frame.node, frame.outer, outputs)


def _find_inputs(proto: Any, scope: Scope) -> list[Any]:
    """The values of a node's inputs; None for those that are left out, but for the last ones."""
    inputs: list[Any] = []
    for name in proto.input:
        value = scope.find(name) if name else None
        if name and value is None:
            raise ModelError(
                f"{label(proto)}: Input tensor isn't found for node {name[:200]!r}: no node computes it"
            )
        inputs.append(None if value is MISSING else value)
    while inputs and inputs[-1] is None:
        inputs.pop()
    return inputs
