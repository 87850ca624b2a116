"""Scripts of whose inputs there is no example, and whose graphs may depend on their ranks and element types.

A script that can be read without them is read again whenever they change. For another one a node stands until
it can be read. Both happen when types are inferred, or when the model is compiled or saved.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from ovjit import build, logs
from ovjit.build import Model, Output, Parameter
from ovjit.build.builder import Unknown
from ovjit.build.custom import Op
from ovjit.build.tensors import PartialShape, Type
from ovjit.errors import OvjitError, unless_of_signal
from ovjit.graph.op import TensorType
from ovjit.readers.torch.graph import Refused
from ovjit.readers.torch.pytorch import torch
from ovjit.readers.torch.scripts.script import ScriptReader, unwrap_single
from ovjit.readers.torch.scripts.script_inputs import EXAMPLE, UNKNOWN, Read, infer_from_uses, unknown_input
from ovjit.readers.torch.tracing.trace import arguments_of, is_script, quietly
from ovjit.readers.torch.values import inline_calls
from ovjit.records import NamedTuple

#: Reads the script: of its inputs these element types and shapes are known.
ReadTyped = Callable[[Sequence[TensorType]], Model]
#: What a script makes instead of one tensor, by the nodes that make it.
_CONTAINERS = {"prim::TupleConstruct": 0, "prim::ListConstruct": 0, "prim::DictConstruct": 1}


def is_unknown(error: BaseException | None) -> bool:
    """Whether reading failed because a rank or an element type is unknown. Tables and NumPy raise their own
    errors for an unknown type."""
    while error is not None:
        if isinstance(error, Unknown) or not isinstance(error, OvjitError):
            return True
        error = error.__cause__
    return False


class TorchScript(Op):
    """A node for a script that is not read yet. It has the script's outputs, with unknown types."""

    def __init__(self, inputs: Sequence[Output], count: int, read: ReadTyped):
        self.count, self.read_typed = count, read
        super().__init__(self, list(inputs))

    def validate_and_infer_types(self) -> None:
        for i in range(self.count):
            self.set_output_type(i, Type.dynamic, PartialShape.dynamic())


def number_of_tensors(values: Sequence[Any]) -> int | None:
    """Return the maximum number of tensors in the values that a script returns, or None if it is unknown."""
    total = 0
    for value in values:
        first = _CONTAINERS.get(value.node().kind())
        if first is None:
            count = _tensors_of_type(value.type())
        else:
            count = number_of_tensors([*value.node().inputs()][first :: first + 1])
        if count is None:
            return None
        total += count
    return total


def _tensors_of_type(kind: Any) -> int | None:
    if kind.kind() == "OptionalType":
        return _tensors_of_type(kind.getElementType())
    if kind.kind() == "TupleType":
        counts = [_tensors_of_type(part) for part in kind.elements()]
        return None if None in counts else sum(count for count in counts if count)
    return None if kind.kind() in ("ListType", "DictType") else int(kind.kind() != "NoneType")


def defer(parameters: Sequence[Any], count: int, read: ReadTyped) -> Model:
    """The model of a script that is read once the types of its inputs are known."""
    node = TorchScript([parameter.output(0) for parameter in parameters], count, read)
    model = build.make_model(node.outputs()[:count], list(parameters), "Model0")
    build.read_later(model, complete)
    return model


def reread_on_new_types(model: Model, read: ReadTyped) -> Model:
    """A model of a script that is read again when element types or ranks of its inputs change.

    Operators of values of several types depend on them. This holds for its copies too, and ends where nodes
    were added or taken away.
    """
    structure, read_with = _structure(model), _kinds(model)

    def again(target: Model, needed: bool) -> None:
        kinds = _kinds(target)
        if kinds == read_with:
            return
        if _structure(target) != structure:
            build.read_later(target, None)
            return
        types = [_type_of(parameter.output(0)) for parameter in target.get_parameters()]
        try:
            result = read(types)
        except Exception as error:
            if needed or all(map(_is_known, types)) or not is_unknown(error):
                raise
            return
        _connect(result, [parameter.output(0) for parameter in target.get_parameters()])
        _take_results(target, result)
        build.set_ends(target, sinks=result.get_sinks())
        reread_on_new_types(target, read)

    build.read_later(model, again)
    return model


def _take_results(model: Model, read_model: Model) -> None:
    """Set the results of a model to those of `read_model`. Their number differs if tensors are optional."""
    if len(model.get_results()) != len(read_model.get_results()):
        build.set_ends(model, results=read_model.get_results())
        return
    for result, new in zip(model.get_results(), read_model.get_results(), strict=True):
        old, value = result.input_value(0), new.input_value(0)
        if not isinstance(value.node, Parameter):
            build.set_names(value, build.names_of(old))
        result.input(0).replace_source_output(value)


def _kinds(model: Model) -> list[tuple[str, int | None]]:
    """Return the element types and ranks of a model's inputs, which the reading of scripts depends on."""
    types = (_type_of(parameter.output(0)) for parameter in model.get_parameters())
    return [(kind.dtype, None if kind.shape is None else len(kind.shape)) for kind in types]


def _structure(model: Model) -> list[Any]:
    """Return the structure that copies of a model share: types, edges, order of inputs and of results."""
    index_by_node = {node: i for i, node in enumerate(model.get_ordered_ops())}
    edges = [
        (node.get_type_name(), [(index_by_node[v.node], v.index) for v in node.input_values()])
        for node in index_by_node
    ]
    ends = model.get_parameters(), model.get_results()
    return [edges, *([index_by_node[node] for node in nodes] for nodes in ends)]


def complete(model: Model, needed: bool) -> None:
    """Read the scripts in a model that are still placeholder nodes, as far as possible. Raises OvjitError for
    a `needed` one that cannot be read."""
    is_incomplete, read_again = False, None
    for node in list(_unread(model)):
        types = [_type_of(source) for source in node.input_values()]
        if not needed and all(kind.dtype == "dynamic" and kind.shape is None for kind in types):
            is_incomplete = True
            continue
        try:
            result = node.read_typed(types)
        except Exception as error:
            if needed or all(map(_is_known, types)) or not is_unknown(error):
                raise
            is_incomplete = True
            continue
        read_again = node.read_typed if _is_whole(model, node) else None
        _connect(result, node.input_values())
        _replace(model, node, result)
    build.read_later(model, complete if is_incomplete else None)
    if read_again is not None:
        reread_on_new_types(model, read_again)


def _is_whole(model: Model, node: TorchScript) -> bool:
    """Whether a model consists of one unread script only."""
    values = [result.input_value(0) for result in model.get_results()]
    return values == node.outputs() and node.input_values() == [p.output(0) for p in model.get_parameters()]


def _replace(model: Model, node: TorchScript, read_model: Model) -> None:
    outputs = [result.input_value(0) for result in read_model.get_results()]
    if len(outputs) > node.count:
        raise Refused("prim::Return", f"the script gives {len(outputs)} tensors, and not {node.count}")
    optional_outputs = [node.output(i) for i in range(len(outputs), node.count)]  # of what was optional
    remaining = [result for result in model.get_results() if result.input_value(0) not in optional_outputs]
    for i, (new, source_result) in enumerate(zip(outputs, read_model.get_results(), strict=True)):
        names = set(build.names_of(source_result.output(0)))
        for result in remaining:
            if result.input_value(0) == node.output(i):
                result.set_friendly_name(build.name_of(source_result))
        node.output(i).replace(new)
        build.add_names(new, names)
    build.set_ends(model, remaining, [*model.get_sinks(), *read_model.get_sinks()])


def _connect(read_model: Model, sources: Sequence[Output]) -> None:
    """Connect the inputs of a model that was read to `sources`."""
    for parameter, source in zip(read_model.get_parameters(), sources, strict=True):
        names = set(build.names_of(source))
        parameter.output(0).replace(source)
        build.set_names(source, names)


def _unread(model: Model) -> Iterator[TorchScript]:
    for node in build.walk_model(model):
        if isinstance(node, TorchScript):
            yield node


def _type_of(source: Output) -> TensorType:
    attrs = build.attributes_of(source.node)
    if isinstance(source.node, Parameter):
        return TensorType(attrs["element_type"], attrs["shape"])
    return build.tensor_type(source)


def _is_known(kind: TensorType) -> bool:
    return kind.dtype != "dynamic" and kind.shape is not None


def _describe_inputs(described: Sequence[tuple[Any, Any, Any]]) -> Mapping[Any, Read]:
    """Types and ranks by name, or by index for unnamed inputs."""
    descriptions = {}
    for i, (name, shape, kind) in enumerate(described):
        descriptions[name or i] = Read(None if shape is None else len(shape), kind or "dynamic")
    return descriptions


def without_example(
    module: Any, converters: Mapping[str, Any] | None, described: Sequence[tuple[Any, Any, Any]]
) -> Model:
    """Convert by torch.jit.script, from the inputs' names and their descriptions alone."""
    descriptions = _describe_inputs(described)

    try:
        with quietly(fused=None):
            script = module if is_script(module) else torch.jit.script(module)
    except unless_of_signal(Exception) as error:
        raise OvjitError(
            "Couldn't get TorchScript module by scripting. With exception:\n"
            f"{error}\n{EXAMPLE} for tracing, or a TorchScript module."
        ) from error
    read = partial(_read_open, script, script is module, converters, descriptions)
    try:
        return reread_on_new_types(read(), read)
    except Exception as error:
        count = number_of_tensors(list(inline_calls(script).outputs()))
        if not is_unknown(error) or not count:
            raise
        inputs = _declare_inputs(script, script is module, converters, descriptions)
        if any(isinstance(value, Mapping) for value in inputs.values):
            raise
        logs.info("a script is read when the types of its inputs are known: %s", error)
        return defer(inputs.reader.parameters, count, read)


class _UntypedInputs(NamedTuple):
    """A script's graph and its inputs, without an example."""

    reader: ScriptReader
    graph: Any
    values: list[Any]


def _declare_inputs(
    script: Any, is_script: bool, converters: Mapping[str, Any] | None, descriptions: Mapping[Any, Read],
    types: Sequence[TensorType] = (),
) -> _UntypedInputs:  # fmt: skip
    """(reader, graph, inputs) of a script whose types are unknown.

    Inputs of a script have the names of its graph, those of a module the names of its signature.
    `descriptions` has types and ranks by name or index.
    """
    graph = inline_calls(script)
    is_function = isinstance(script, torch.jit.ScriptFunction)
    reader = ScriptReader(None if is_function else script, converters)
    reader.input_types = types
    inputs = list(graph.inputs())[0 if is_function else 1 :]
    schema = arguments_of(script)
    schema = schema if len(schema) == len(inputs) else [None] * len(inputs)
    values = []
    for value, a in zip(inputs, schema, strict=True):
        name = value.debugName() if a is None or is_script else a.name
        read = descriptions.get(name) or descriptions.get(len(reader.parameters)) or UNKNOWN
        values.append(unknown_input(reader, name, value.type(), a, read.over(infer_from_uses(value, script))))
    return _UntypedInputs(reader, graph, values)


def _read_open(
    script: Any, is_script: bool, converters: Mapping[str, Any] | None, descriptions: Mapping[Any, Read],
    types: Sequence[TensorType] = (),
) -> Model:  # fmt: skip
    reader, graph, values = _declare_inputs(script, is_script, converters, descriptions, types)
    return reader.finish(unwrap_single(reader.run(graph, values)), None)
