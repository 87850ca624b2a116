"""Modules, scripts and exported programs -> Model.

The ways, each where the one before it cannot: `torch.jit.trace`, whose graph has PyTorch's operators with all
dimensions open and the names of modules, as OpenVINO's models have them; `torch.export`, which takes what
`torch.jit` cannot trace and makes writes to views functional.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from ovjit import logs
from ovjit.build import Model
from ovjit.errors import ConverterError, ModelError, OvjitError, UnsupportedError, unless_of_signal
from ovjit.readers.torch.decoders import TorchFXPythonDecoder, TorchScriptPythonDecoder
from ovjit.readers.torch.graph import Refused
from ovjit.readers.torch.packed import packed_layers
from ovjit.readers.torch.programs.graph_modules import is_graph, read_graph_module, with_described
from ovjit.readers.torch.programs.guards import warn_of_guards
from ovjit.readers.torch.programs.reader import read_program
from ovjit.readers.torch.pytorch import torch
from ovjit.readers.torch.recordings import recordings
from ovjit.readers.torch.scripts.script import ScriptReader, unwrap_single
from ovjit.readers.torch.scripts.script_inputs import check_lists, input_of, inputs_of
from ovjit.readers.torch.scripts.shared_memory import writes_to_constants
from ovjit.readers.torch.scripts.without_example import without_example
from ovjit.readers.torch.tracing.exported import check_open, warn_of_other_sizes
from ovjit.readers.torch.tracing.modules import replace_modules
from ovjit.readers.torch.tracing.plain import BY_VMAP
from ovjit.readers.torch.tracing.recorder import alone
from ovjit.readers.torch.tracing.state import call_unchanged, restore_module
from ovjit.readers.torch.tracing.trace import (
    NOT_TRACED,
    Prepared,
    arguments_of,
    is_open,
    is_plain_module,
    is_script,
    prepare,
    quietly,
    warn_again,
)
from ovjit.readers.torch.values import inline_calls

#: A way to a Model: of a module with its example, a list for what PyTorch warns of, and converters.
Way = Callable[[Prepared, list[Any], Mapping[str, Any] | None], Model]


def convert(
    source: Any, example: Any, described: Sequence[tuple[Any, Any, Any]],
    converters: Mapping[str, Any] | None = None, modules: Mapping[Any, Any] | None = None,
    dynamo: bool = False,
) -> Model:  # fmt: skip
    """The Model of a module with an example, or of an object that describes its inputs itself.

    `described` is (name, shape, element type) of inputs that `input` tells of; `converters` are
    functions for operators, by "aten::add", `modules` extensions for modules. With `dynamo` a module is read
    by torch.export alone, unless there are extensions for its parts. Raises UnsupportedError, which names
    the operator and where it is, for what cannot be read in any way. One thread converts at a time: others
    wait, and see nothing of it.
    """
    with alone():
        return _convert(source, example, described, converters, modules, dynamo)


def _convert(
    source: Any, example: Any, described: Sequence[tuple[Any, Any, Any]],
    converters: Mapping[str, Any] | None, modules: Mapping[Any, Any] | None, dynamo: bool,
) -> Model:  # fmt: skip
    if isinstance(source, TorchScriptPythonDecoder):
        example = source.example_input if example is None else example
        modules = modules or _by_module(source.module_extensions)
        source = source.module
    if isinstance(source, TorchFXPythonDecoder):
        module = with_described(source.pt_module, source.described)
        if is_graph(module):
            with quietly():
                return read_graph_module(module, converters, source.argument_names, source.dynamic_shapes)
        source = source.pt_module
    if isinstance(source, torch.export.ExportedProgram):
        return _program(source, example, converters)
    if example is None and is_script(source):
        check_lists(source, described)
    ready = prepare(source, example, described)
    if ready is None:
        return without_example(source, converters, described)
    with replace_modules(source, modules or {}) as extended, packed_layers(source) as more:
        all_converters = {**more, **(converters or {})}
        if dynamo and not extended and is_plain_module(source):
            return _by_export(ready, described, all_converters)
        ways: tuple[Way, ...] = (_by_trace,) if extended or is_script(source) else (_by_trace, _by_program)
        if example is None and len(ways) > 1:
            ways = _by_script, *ways  # zeros of the described shapes do not tell which branches are taken
        return _by_any_way(ready, all_converters, extended, ways)


def _by_module(extensions: Any) -> Mapping[Any, Any]:
    """Extensions by their modules, from a dict or a list."""
    if isinstance(extensions, Mapping):
        return extensions
    return {extension.module: extension for extension in extensions or ()}


def _program(program: Any, example: Any, converters: Mapping[str, Any] | None) -> Model:
    records: list[Any] = []
    try:
        with quietly(records):
            model = read_program(program, converters)
            warn_of_guards(program)
    except ConverterError:
        raise
    except (Refused, ModelError, UnsupportedError) as error:
        _raise_first(prepare(program, example, ()), error)
    warn_again(records)
    return model


def _by_any_way(
    ready: Prepared, converters: Mapping[str, Any] | None, extended: bool, ways: Sequence[Way]
) -> Model:
    """Try the ways of conversion in order. With `extended` modules only traces are tried, in which operators
    replace these modules; exports would make their example results constants."""
    first: Exception | None = None
    for way in ways:
        records: list[Any] = []
        try:
            model = way(ready, records, converters)
        except ConverterError:
            raise
        except unless_of_signal(Exception) as error:  # whatever the module, tracing or exporting raises
            logs.info("a module is not read by %s: %s", _WAYS[way], error)
            tells = isinstance(error, (ModelError, UnsupportedError)) and not isinstance(first, Refused)
            if first is None or first is BY_VMAP or tells:
                first = error
            continue
        if records and ready.assumed is not None:
            logs.info("a module is not read by %s: %s", _WAYS[way], records[0].message)
            first = first or UnsupportedError(f"{NOT_TRACED}{records[0].message}")
            continue
        warn_again(records)
        return model
    assert first is not None
    if extended or ready.assumed is not None:
        raise first if isinstance(first, OvjitError) else OvjitError(f"{NOT_TRACED}{first}") from first
    _raise_first(ready, first)


def _by_trace(ready: Prepared, records: list[Any], converters: Mapping[str, Any] | None) -> Model:
    """Convert the graph of torch.jit.trace, or of a script."""
    if is_script(ready.source):
        return _read(ready, ready.source, converters)
    if any(isinstance(part, torch.nn.MultiheadAttention) for part in ready.module.modules()):
        try:
            return _by_recordings(ready._replace(fused=True), records, converters)
        except unless_of_signal(Exception) as error:  # padding may make nested tensors, which no rule reads
            logs.info(
                "attention layers are read as they are written, without PyTorch's fused attention: %s", error
            )
    return _by_recordings(ready, records, converters)


def _by_recordings(ready: Prepared, records: list[Any], converters: Mapping[str, Any] | None) -> Model:
    refused: Exception | None = None
    with contextlib.closing(recordings(ready)) as result:
        for each in result:
            try:
                model = _read(ready, each.script, converters)
            except (UnsupportedError, ModelError) as error:
                refused = error
                continue
            records += each.warned
            return model
    assert refused is not None
    raise refused


def _read(ready: Prepared, script: Any, converters: Mapping[str, Any] | None) -> Model:
    is_original = script is ready.source
    graph = inline_calls(script)
    if not is_original and writes_to_constants(graph):
        raise UnsupportedError("the module writes to tensors that the trace holds as constants")
    is_function = isinstance(script, torch.jit.ScriptFunction)
    own_names = is_original or ready.module.is_wrapped
    reader = ScriptReader(None if is_function else script, converters, "self." if own_names else "")
    reader.is_assumed = ready.assumed is not None and not is_original
    # a script's inputs are called as in its graph, as by OpenVINO
    inputs = [value.debugName() for value in graph.inputs()][0 if is_function else 1 :] if is_original else []
    if is_original and len(inputs) == len(schema := arguments_of(ready.source)):
        values = inputs_of(reader, ready, inputs, schema)
    else:
        names = inputs if len(inputs) == len(ready.names) else ready.names
        rows = zip(names, ready.inputs(), strict=True)
        values = [input_of(reader, name, leaf, kind) for name, (_, leaf, kind) in rows]
        alone = {id(value) for value in ready.arguments.values()}
        pairs = zip(reader.parameters, ready.leaves, strict=True)
        reader.parts = {parameter for parameter, leaf in pairs if id(leaf) not in alone}
    result = unwrap_single(reader.run(graph, values))
    return reader.finish(result, None if is_original else _output_names(ready, graph))


def _output_names(ready: Prepared, graph: Any) -> list[str | None]:
    """The names of the outputs, as in OpenVINO: keys if the module returns a dict, else names of variables in
    the traced graph; None without one."""
    values = list(graph.outputs())
    if len(values) == 1 and values[0].node().kind() == "prim::TupleConstruct":
        values = list(values[0].node().inputs())
    if len(values) != len(ready.module.names):
        return list(ready.module.names)
    origins = [_origin(value) for value in values]
    is_named = (v.node().kind() != "prim::Param" and not v.debugName().isdigit() for v in origins)
    variables = [v.debugName() if named else None for v, named in zip(origins, is_named, strict=True)]
    return [key or variable for key, variable in zip(ready.module.names, variables, strict=True)]


def _origin(value: Any) -> Any:
    """The source of a value, through packing into tuples and unpacking."""
    while value.node().kind() == "prim::TupleUnpack":
        result = value.node().input().node()
        if result.kind() != "prim::TupleConstruct":
            break
        value = list(result.inputs())[value.offset()]
    return value


def _by_program(ready: Prepared, records: list[Any], converters: Mapping[str, Any] | None) -> Model:
    """Convert by torch.export. Operators without a rule are decomposed."""
    with quietly(records), torch.no_grad():
        begin = time.perf_counter()
        (result,) = recordings(ready, exports=True)
        seconds = time.perf_counter() - begin
        program = result.script
        records += result.warned
        if ready.assumed:
            check_open(program, ready.assumed)
        model = read_program(program, converters, ready.names, scopes=True)
        warn_of_guards(program)
        if not records:
            warn_of_other_sizes(program, ready, seconds / 2)
    for port, name in zip(model.outputs, ready.module.names, strict=True):
        port.get_tensor().set_names(set() if name is None else {name})
    return model


def _by_script(ready: Prepared, records: list[Any], converters: Mapping[str, Any] | None) -> Model:
    """Convert by torch.jit.script, as OpenVINO does without an example. Inputs are named by the signature."""
    with quietly(records):
        script = torch.jit.script(ready.source)
    schema = arguments_of(script)
    reader = ScriptReader(script, converters)
    values = inputs_of(reader, ready, [argument.name for argument in schema], schema)
    return reader.finish(unwrap_single(reader.run(inline_calls(script), values)), None)


def _by_export(
    ready: Prepared, described: Sequence[tuple[Any, Any, Any]], converters: Mapping[str, Any] | None
) -> Model:
    """Convert by torch.export alone. Only the dimensions that are dynamic in `described` are dynamic."""
    shapes = dict(zip(ready.names, [None] * len(ready.names), strict=True))
    for name, (described_name, shape, _) in zip(ready.names, described, strict=False):
        shapes[described_name if described_name in shapes else name] = shape
    dims = tuple(_open_dims(leaf, shapes[name]) for name, leaf in zip(ready.names, ready.leaves, strict=True))
    records: list[Any] = []
    try:
        with quietly(records), torch.no_grad(), restore_module(ready.module):
            program = torch.export.export(ready.module, tuple(ready.leaves), dynamic_shapes=(dims,))
    except unless_of_signal(Exception) as error:
        raise OvjitError(f"torch.export does not take the module: {error}") from error
    with quietly(records), torch.no_grad():
        model = read_program(program, converters, ready.names)
    for port, key in zip(model.outputs, ready.module.names, strict=True):
        if key is not None:
            port.get_tensor().set_names({key})
    if not described:
        model.reshape({i: list(leaf.shape) for i, leaf in enumerate(ready.leaves)})
    warn_again(records)
    return model


def _open_dims(leaf: Any, shape: Any) -> dict[int, Any]:
    """torch.export's description of a tensor whose shape may have dynamic dimensions."""
    from torch.export import Dim

    lengths = () if shape is None else shape[: leaf.dim()]
    return {i: Dim.AUTO for i, d in enumerate(lengths) if is_open(d)}


_WAYS: dict[Way, str] = {
    _by_script: "torch.jit.script",
    _by_trace: "torch.jit.trace",
    _by_program: "torch.export",
}


def _raise_first(ready: Prepared | None, first: Exception) -> NoReturn:
    """Raise `first`, the error of the first way to convert, or the module's own error if it fails with its
    example."""
    try:
        if ready is not None:
            with quietly(), torch.no_grad():
                call_unchanged(ready.module, ready.module, ready.leaves)
    except unless_of_signal(Exception) as error:
        raise OvjitError(
            f"{NOT_TRACED}{error}\nPlease check correctness of provided 'example_input'."
        ) from error
    raise first if isinstance(first, OvjitError) else UnsupportedError(f"{NOT_TRACED}{first}") from first
