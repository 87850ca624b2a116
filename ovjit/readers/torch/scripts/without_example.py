"""Scripts of whose inputs there is no example."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from ovjit import logs
from ovjit.api.model.model import Model
from ovjit.errors import OvjitError
from ovjit.graph.op import TensorType
from ovjit.readers.torch.recording.trace import arguments_of, is_script, quietly
from ovjit.readers.torch.scripts import deferred
from ovjit.readers.torch.scripts.script import ScriptReader, one_or_all
from ovjit.readers.torch.scripts.script_inputs import ANYHOW, EXAMPLE, Read, read_as, unknown_input
from ovjit.readers.torch.values import inlined
from ovjit.records import NamedTuple


def _told(described: Sequence[tuple[Any, Any, Any]]) -> Mapping[Any, Read]:
    """Types and ranks by names, or by places where there are none."""
    told = {}
    for i, (name, shape, kind) in enumerate(described):
        told[name or i] = Read(None if shape is None else len(shape), kind or "dynamic")
    return told


def without_example(
    given: Any, converters: Mapping[str, Any] | None, described: Sequence[tuple[Any, Any, Any]]
) -> Model:
    """By torch.jit.script: of the inputs nothing is known but their names and what is `described`."""
    import torch

    told = _told(described)

    try:
        with quietly():
            script = given if is_script(given) else torch.jit.script(given)
    except Exception as error:
        raise OvjitError(
            "Couldn't get TorchScript module by scripting. With exception:\n"
            f"{error}\n{EXAMPLE} for tracing, or a TorchScript module."
        ) from error
    read = partial(_read_untold, script, script is given, converters, told)
    try:
        return deferred.retyped(read(), read)
    except Exception as error:
        count = deferred.number_of_tensors(list(inlined(script).outputs()))
        if not deferred.is_unknown(error) or not count:
            raise
        inputs = _untold(script, script is given, converters, told)
        if any(isinstance(value, Mapping) for value in inputs.values):
            raise
        logs.info("a script is read when the types of its inputs are known: %s", error)
        return deferred.deferred(inputs.reader.parameters, count, read)


class _Untold(NamedTuple):
    """A script's graph and inputs of which there is no example."""

    reader: ScriptReader
    graph: Any
    values: list[Any]


def _untold(
    script: Any, own: bool, converters: Mapping[str, Any] | None, told: Mapping[Any, Read],
    known: Sequence[TensorType] = (),
) -> _Untold:  # fmt: skip
    """A given script's inputs are called as in its graph, those of a module as in its signature. `told` says
    what is known of them, by names or places."""
    import torch

    graph = inlined(script)
    is_function = isinstance(script, torch.jit.ScriptFunction)
    reader = ScriptReader(None if is_function else script, converters)
    reader.known = known
    inputs = list(graph.inputs())[0 if is_function else 1 :]
    schema = arguments_of(script)
    schema = schema if len(schema) == len(inputs) else [None] * len(inputs)
    values = []
    for value, a in zip(inputs, schema, strict=True):
        name = value.debugName() if a is None or own else a.name
        read = told.get(name) or told.get(len(reader.parameters)) or ANYHOW
        values.append(unknown_input(reader, name, value.type(), a, read.over(read_as(value, script))))
    return _Untold(reader, graph, values)


def _read_untold(
    script: Any, own: bool, converters: Mapping[str, Any] | None, told: Mapping[Any, Read],
    known: Sequence[TensorType] = (),
) -> Model:  # fmt: skip
    reader, graph, values = _untold(script, own, converters, told, known)
    return reader.finish(one_or_all(reader.run(graph, values)), None)
