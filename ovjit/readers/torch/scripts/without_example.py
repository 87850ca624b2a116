"""Scripts of whose inputs there is no example."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from ovjit import logs
from ovjit.build import Model
from ovjit.errors import OvjitError, unless_of_signal
from ovjit.graph.op import TensorType
from ovjit.readers.torch.pytorch import torch
from ovjit.readers.torch.scripts import deferred
from ovjit.readers.torch.scripts.script import ScriptReader, one_or_all
from ovjit.readers.torch.scripts.script_inputs import EXAMPLE, UNKNOWN, Read, infer_from_uses, unknown_input
from ovjit.readers.torch.tracing.trace import arguments_of, is_script, quietly
from ovjit.readers.torch.values import inline_calls
from ovjit.records import NamedTuple


def _describe_inputs(described: Sequence[tuple[Any, Any, Any]]) -> Mapping[Any, Read]:
    """Types and ranks by names, or by places where there are none."""
    descriptions = {}
    for i, (name, shape, kind) in enumerate(described):
        descriptions[name or i] = Read(None if shape is None else len(shape), kind or "dynamic")
    return descriptions


def without_example(
    module: Any, converters: Mapping[str, Any] | None, described: Sequence[tuple[Any, Any, Any]]
) -> Model:
    """Convert by torch.jit.script; only the names of the inputs and what is `described` are known."""
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
        return deferred.reread_on_new_types(read(), read)
    except Exception as error:
        count = deferred.number_of_tensors(list(inline_calls(script).outputs()))
        if not deferred.is_unknown(error) or not count:
            raise
        inputs = _declare_inputs(script, script is module, converters, descriptions)
        if any(isinstance(value, Mapping) for value in inputs.values):
            raise
        logs.info("a script is read when the types of its inputs are known: %s", error)
        return deferred.defer(inputs.reader.parameters, count, read)


class _OpenInputs(NamedTuple):
    """A script's graph and inputs of which there is no example."""

    reader: ScriptReader
    graph: Any
    values: list[Any]


def _declare_inputs(
    script: Any, is_script: bool, converters: Mapping[str, Any] | None, descriptions: Mapping[Any, Read],
    types: Sequence[TensorType] = (),
) -> _OpenInputs:  # fmt: skip
    """The reader, the graph and the inputs of a script whose types are not known.

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
    return _OpenInputs(reader, graph, values)


def _read_open(
    script: Any, is_script: bool, converters: Mapping[str, Any] | None, descriptions: Mapping[Any, Read],
    types: Sequence[TensorType] = (),
) -> Model:  # fmt: skip
    reader, graph, values = _declare_inputs(script, is_script, converters, descriptions, types)
    return reader.finish(one_or_all(reader.run(graph, values)), None)
