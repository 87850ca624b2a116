"""Modules, scripts and exported programs -> Model.

The ways, each where the one before it cannot: `torch.jit.trace`, whose graph has PyTorch's operators with all
dimensions open and the names of modules, as OpenVINO's models have them; `torch.export`, which takes what
`torch.jit` cannot trace and makes writes to views functional; PyTorch's exporter to ONNX.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Generator, Mapping, Sequence
from functools import partial
from typing import Any

from ovjit import logs
from ovjit.api.model.model import Model
from ovjit.errors import ConverterError, ModelError, OvjitError, UnsupportedError
from ovjit.graph.op import TensorType
from ovjit.readers.torch import exporter
from ovjit.readers.torch.decoders import TorchFXPythonDecoder, TorchScriptPythonDecoder
from ovjit.readers.torch.graph import Refused
from ovjit.readers.torch.packed import packed_layers
from ovjit.readers.torch.programs.decompose import decomposed
from ovjit.readers.torch.programs.fx import read_exported
from ovjit.readers.torch.programs.graph_modules import is_graph, read_graph_module, with_described
from ovjit.readers.torch.programs.plain import is_plain, views_of, written_beside
from ovjit.readers.torch.recording import rolled, specialized, strides
from ovjit.readers.torch.recording.differences import gradient
from ovjit.readers.torch.recording.modules import replaced
from ovjit.readers.torch.recording.patches import divided, patched, plain_modules, plain_scripts
from ovjit.readers.torch.recording.selected import agrees, depends_on_mask, for_any_mask
from ovjit.readers.torch.recording.sizes import MOST_ROUNDS, Followed, files_asking, ordering, rounding
from ovjit.readers.torch.recording.state import called, traced
from ovjit.readers.torch.recording.trace import (
    NOT_TRACED,
    Prepared,
    arguments_of,
    is_open,
    is_plain_module,
    is_script,
    prepared,
    quietly,
    warn_again,
)
from ovjit.readers.torch.scripts import deferred
from ovjit.readers.torch.scripts.script import ScriptReader
from ovjit.readers.torch.scripts.script_inputs import (
    ANYHOW,
    EXAMPLE,
    Read,
    check_lists,
    input_of,
    inputs_of,
    read_as,
    unknown_input,
)
from ovjit.readers.torch.scripts.shared_memory import loses_writes, writes_to_constants
from ovjit.readers.torch.values import inlined
from ovjit.records import NamedTuple

#: How many operators are decomposed that have rules.
MOST_REFUSED = 8
#: Turns the bytes or the path of an ONNX file into a Model.
ReadOnnx = Callable[[Any], Model]
#: A way to a Model: of a module with its example, a list for what PyTorch warns of, and converters.
Way = Callable[[Prepared, list[Any], Mapping[str, Any] | None], Model]


def convert(
    given: Any, example: Any, described: Sequence[tuple[Any, Any, Any]], read_onnx: ReadOnnx,
    converters: Mapping[str, Any] | None = None, modules: Mapping[Any, Any] | None = None,
    dynamo: bool = False,
) -> Model:  # fmt: skip
    """The Model of a module with an example, or of what tells of its inputs itself.

    `described` is (name, shape, element type) of inputs that `input` tells of; `converters` are
    functions for operators, by "aten::add", `modules` extensions for modules. With `dynamo` a module is read
    by torch.export alone, unless there are extensions for its parts. Raises UnsupportedError, which names
    the operator and where it is, for what cannot be read in any way.
    """
    import torch

    if isinstance(given, TorchScriptPythonDecoder):
        example = given.example_input if example is None else example
        modules = modules or _by_module(given.module_extensions)
        given = given.module
    if isinstance(given, TorchFXPythonDecoder):
        module = with_described(given.pt_module, given.described)
        if is_graph(module):
            with quietly():
                return read_graph_module(module, converters, given.told, given.dynamic_shapes)
        given = given.pt_module
    if isinstance(given, torch.export.ExportedProgram):
        return _program(given, example, read_onnx, converters)
    if example is None and is_script(given):
        check_lists(given, described)
    ready = prepared(given, example, described)
    if ready is None:
        return _without_example(given, converters, _told(described))
    with replaced(given, modules or {}) as extended, packed_layers(given) as more:
        known = {**more, **(converters or {})}
        if dynamo and not extended and is_plain_module(given):
            return _by_export(ready, described, known)
        ways: tuple[Way, ...] = (_traced,) if extended or is_script(given) else (_traced, _functional)
        if example is None and len(ways) > 1:
            ways = _scripted, *ways  # zeros of the described shapes do not tell which branches are taken
        return _by_any_way(ready, read_onnx, known, extended, ways)


def _by_module(extensions: Any) -> Mapping[Any, Any]:
    """Extensions by their modules: exporters hand over a dict or a list."""
    if isinstance(extensions, Mapping):
        return extensions
    return {extension.module: extension for extension in extensions or ()}


def _program(program: Any, example: Any, read_onnx: ReadOnnx, converters: Mapping[str, Any] | None) -> Model:
    kept: list[Any] = []
    try:
        with quietly(kept):
            model = read_program(program, converters)
    except ConverterError:
        raise
    except (Refused, ModelError, UnsupportedError) as error:
        return _exported(prepared(program, example, ()), read_onnx, error)
    warn_again(kept)
    return model


def _by_any_way(
    ready: Prepared, read_onnx: ReadOnnx, converters: Mapping[str, Any] | None, extended: bool,
    ways: Sequence[Way],
) -> Model:  # fmt: skip
    """`extended`: operators stand for modules, which only a trace has. Exporters take their example's results
    for constants."""
    first: Exception | None = None
    for way in ways:
        kept: list[Any] = []
        try:
            model = way(ready, kept, converters)
        except ConverterError:
            raise
        except (Refused, ModelError, UnsupportedError) as error:
            logs.info("a module is not read by %s: %s", _WAYS[way], error)
            first = error if not isinstance(first, Refused) else first
            continue
        except Exception as error:  # whatever the module, tracing or exporting raises
            logs.info("a module is not read by %s: %s", _WAYS[way], error)
            if first is None or first is _VMAP:
                first = error
            continue
        if kept and ready.assumed is not None:
            logs.info("a module is not read by %s: %s", _WAYS[way], kept[0].message)
            first = first or UnsupportedError(f"{NOT_TRACED}{kept[0].message}")
            continue
        warn_again(kept)
        return model
    assert first is not None
    if extended or ready.assumed is not None:
        raise first if isinstance(first, OvjitError) else OvjitError(f"{NOT_TRACED}{first}") from first
    return _exported(ready, read_onnx, first)


def _traced(ready: Prepared, kept: list[Any], converters: Mapping[str, Any] | None) -> Model:
    """By the graph of torch.jit.trace, or of a script."""
    import torch

    if is_script(ready.given):
        return _read(ready, ready.given, converters)
    if any(isinstance(part, torch.nn.MultiheadAttention) for part in ready.module.modules()):
        try:
            return _by_trace(ready._replace(fused=True), kept, converters)
        except Exception as error:  # padding may make nested tensors, which no rule reads
            logs.info(
                "attention layers are read as they are written, without PyTorch's fused attention: %s", error
            )
    return _by_trace(ready, kept, converters)


def _by_trace(ready: Prepared, kept: list[Any], converters: Mapping[str, Any] | None) -> Model:
    refused: Exception | None = None
    with contextlib.closing(_recordings(ready)) as made:
        for each in made:
            try:
                model = _read(ready, each.script, converters)
            except (UnsupportedError, ModelError) as error:
                refused = error
                continue
            kept += each.warned
            return model
    assert refused is not None
    raise refused


def _read(ready: Prepared, script: Any, converters: Mapping[str, Any] | None) -> Model:
    import torch

    given = script is ready.given
    graph = inlined(script)
    if not given and writes_to_constants(graph):
        raise UnsupportedError("the module writes to tensors that the trace holds as constants")
    is_function = isinstance(script, torch.jit.ScriptFunction)
    own_names = given or ready.module.is_wrapped
    reader = ScriptReader(None if is_function else script, converters, "self." if own_names else "")
    reader.is_assumed = ready.assumed is not None and not given
    # a script's inputs are called as in its graph, as by OpenVINO
    own = [value.debugName() for value in graph.inputs()][0 if is_function else 1 :] if given else []
    if given and len(own) == len(schema := arguments_of(ready.given)):
        values = inputs_of(reader, ready, own, schema)
    else:
        names = own if len(own) == len(ready.names) else ready.names
        given_ones = zip(names, ready.inputs(), strict=True)
        values = [input_of(reader, name, leaf, kind) for name, (_, leaf, kind) in given_ones]
        alone = {id(value) for value in ready.arguments.values()}
        pairs = zip(reader.parameters, ready.leaves, strict=True)
        reader.parts = {parameter for parameter, leaf in pairs if id(leaf) not in alone}
    made = _alone(reader.run(graph, values))
    return reader.finish(made, None if given else _output_names(ready, graph))


def _alone(made: list[Any]) -> Any:
    """What a graph gives: one value, such as a dict with the names of outputs, or a list of several."""
    return made[0] if len(made) == 1 else made


class Recorded(NamedTuple):
    """A trace, and what PyTorch warned of while it was made."""

    script: Any
    warned: list[Any]


class _Example:
    """The outputs of a module for its example. The module runs at most once for all comparisons.

    While it is traced, a module may give what is equal in another order: detections with equal scores, for
    which torchvision has two ways. So what the plain trace gives is right, too.
    """

    def __init__(self, ready: Prepared, plain: Any):
        self._ready = ready
        self._plain = plain
        self._made: Any = None
        self._traced: Any = None
        self._assumes = False

    def _called(self, function: Any) -> Any:
        return called(function, self._ready.module, self._ready.leaves)

    def _run(self) -> None:
        import torch

        if self._made is None:
            with quietly(), torch.no_grad(), for_any_mask(changes=False) as noted:
                self._made = self._called(self._ready.module)
            self._assumes = noted.any

    def assumes(self) -> bool:
        """Whether a trace for any mask may differ from the trace of the example."""
        self._run()
        return self._assumes

    def is_of(self, script: Any) -> bool:
        """Whether a trace has the module's outputs for the example, or those of the plain trace."""
        import torch

        self._run()
        with quietly(), torch.no_grad():
            made = self._called(script)
            if agrees(self._made, made):
                return True
            if self._traced is None:
                self._traced = self._called(self._plain)
            return agrees(self._traced, made)


def _recordings(ready: Prepared) -> Generator[Recorded, None, None]:
    """Yield traces of a module, the most general first. The caller takes the first that can be read.

    If the module selects elements by a mask, and a trace for any mask has the example's outputs, it is the
    only one. Else the first trace is valid for other sizes than the example's, if Python computes with sizes.
    The last one records loops over dynamic dimensions as loops, and takes sizes from the example.
    """
    warned: list[Any] = []
    noted, ordered = rolled.Found(), rolled.Found()
    made = plain = Recorded(_trace(ready, warned, noted, ordered), warned)
    example = _Example(ready, plain.script)
    masked = depends_on_mask(inlined(plain.script), warned) and example.assumes()
    asking = files_asking(warned)
    followed = Followed(asking, ordered)
    first = chosen = best = None
    with contextlib.ExitStack() as loops:
        has_loops = bool(noted.lines) and _enter_loops(loops, noted)
        if has_loops and asking and not masked:  # both at once: each trace takes as long as the first one
            first = _for_sizes(ready, followed, example)
        if has_loops and first is None:
            made = _with_loops(ready, loops, plain, example)
            asking = files_asking(made.warned)
        if masked and depends_on_mask(inlined(made.script), made.warned):
            chosen = _for_any_mask(ready, example, followed if asking else None)
        if chosen is None and (asking or writes_to_constants(inlined(made.script))):
            best = _for_any_sizes(ready, followed, first, example)
    if chosen is not None:
        yield chosen
        return
    if best is not None:
        yield best
    if first is not None:
        with contextlib.ExitStack() as loops:
            _enter_loops(loops, noted)
            made = _with_loops(ready, loops, plain, example)
    yield made


def _for_any_mask(ready: Prepared, example: _Example, followed: Followed | None) -> Recorded | None:
    """The trace for any mask; None if tracing fails, or if its outputs differ from the module's.

    Sizes are followed if there are some to follow and that trace is right, too.
    """
    for sizes in (True, False) if followed is not None else (False,):
        warned: list[Any] = []
        with contextlib.suppress(Exception):
            with contextlib.ExitStack() as recording:
                assumed = recording.enter_context(for_any_mask())
                if sizes and followed is not None:
                    recording.enter_context(followed.sizes(ready.module))
                script = _trace(ready, warned)
            if assumed.any and example.is_of(script):
                return Recorded(script, warned)
    return None


def _enter_loops(loops: contextlib.ExitStack, noted: rolled.Found) -> bool:
    """Record loops over open dimensions as such as long as `loops` is open. False where there are none."""
    with contextlib.suppress(Exception):
        if loops.enter_context(rolled.recorded(noted)):
            return True
    loops.close()
    return False


def _with_loops(ready: Prepared, loops: contextlib.ExitStack, plain: Recorded, example: _Example) -> Recorded:
    """The trace that has loops over open dimensions as such; the plain one where it gives something else than
    the module for the example. Then `loops` are closed."""
    warned: list[Any] = []
    with contextlib.suppress(Exception):
        script = _trace(ready, warned)
        if example.is_of(script):
            return Recorded(script, warned)
    loops.close()
    return plain


def _for_sizes(ready: Prepared, followed: Followed, example: _Example) -> Recorded | None:
    """One trace in which numbers that are computed from sizes are followed; None where it gives something
    else than the module for the example."""
    warned: list[Any] = []
    with contextlib.suppress(Exception):
        with followed.sizes(ready.module):
            script = _trace(ready, warned)
        if example.is_of(script):
            return Recorded(script, warned)
    return None


def _for_any_sizes(
    ready: Prepared, followed: Followed, first: Recorded | None, example: _Example
) -> Recorded | None:
    """The best trace of some in which numbers that are computed from sizes are followed, where `first` is the
    first one if it has been made; None where all give something else than the module for the example."""
    best = first
    found = first if first is not None else _for_sizes(ready, followed, example)
    for _ in range(MOST_ROUNDS - 1):
        best = found or best
        if not followed.again(failed=found is None):
            break
        found = _for_sizes(ready, followed, example)
    return found or best


def _trace(
    ready: Prepared, kept: list[Any], noted: rolled.Found | None = None, ordered: rolled.Found | None = None
) -> Any:
    import torch
    from torch._functorch import vmap

    others = patched(
        (vmap, "_vmap_increment_nesting", _not_traced),
        (vmap, "_vmap_decrement_nesting", lambda: None),
        # attention is not fused where tensors have functions of their own: a mode that follows is none
        (torch.overrides, "has_torch_function", _of_other_classes),
        (torch, "gradient", gradient),
    )
    with plain_scripts(), quietly(kept, ready.fused), torch.no_grad(), others, divided():
        with rounding(), ordering(ordered), strides.followed(), rolled.found(noted), plain_modules():
            return traced(ready.module, ready.leaves)


_VMAP = UnsupportedError("torch.vmap is not supported by tracing")


def _of_other_classes(values: Sequence[Any]) -> bool:
    """Whether some are tensors of classes that have functions of their own."""
    import torch

    plain = torch.Tensor, torch.nn.Parameter
    return any(hasattr(type(v), "__torch_function__") and type(v) not in plain for v in values)


def _not_traced(*_: Any) -> Any:
    """In the place of what begins torch.vmap: traces of it have the sizes of the example."""
    raise _VMAP


def _output_names(ready: Prepared, graph: Any) -> list[str | None]:
    """Keys of a dict, and for other outputs the variables that a trace has found them in, as in OpenVINO."""
    values = list(graph.outputs())
    if len(values) == 1 and values[0].node().kind() == "prim::TupleConstruct":
        values = list(values[0].node().inputs())
    if len(values) != len(ready.module.names):
        return list(ready.module.names)
    found = [_origin(value) for value in values]
    is_named = (v.node().kind() != "prim::Param" and not v.debugName().isdigit() for v in found)
    variables = [v.debugName() if named else None for v, named in zip(found, is_named, strict=True)]
    return [key or variable for key, variable in zip(ready.module.names, variables, strict=True)]


def _origin(value: Any) -> Any:
    """A value before it was put into tuples and taken out of them."""
    while value.node().kind() == "prim::TupleUnpack":
        made = value.node().input().node()
        if made.kind() != "prim::TupleConstruct":
            break
        value = list(made.inputs())[value.offset()]
    return value


def _functional(ready: Prepared, kept: list[Any], converters: Mapping[str, Any] | None) -> Model:
    """By torch.export, its operators decomposed as far as there are no rules for them."""
    import torch

    with quietly(kept), torch.no_grad():
        program = specialized.exported(ready)
        if ready.assumed:
            specialized.check_open(program, ready.assumed)
        model = read_program(program, converters, ready.names, scopes=True)
    for port, name in zip(model.outputs, ready.module.names, strict=True):
        port.get_tensor().set_names(set() if name is None else {name})
    return model


def _scripted(ready: Prepared, kept: list[Any], converters: Mapping[str, Any] | None) -> Model:
    """By torch.jit.script, as by OpenVINO without an example. Inputs are called as in the signature."""
    import torch

    with quietly(kept):
        script = torch.jit.script(ready.given)
    schema = arguments_of(script)
    reader = ScriptReader(script, converters)
    values = inputs_of(reader, ready, [argument.name for argument in schema], schema)
    return reader.finish(_alone(reader.run(inlined(script), values)), None)


def _by_export(
    ready: Prepared, described: Sequence[tuple[Any, Any, Any]], converters: Mapping[str, Any] | None
) -> Model:
    """By torch.export alone: open are the dimensions that `described` opens, others are the example's."""
    import torch

    shapes = dict(zip(ready.names, [None] * len(ready.names), strict=True))
    for name, (told, shape, _) in zip(ready.names, described, strict=False):
        shapes[told if told in shapes else name] = shape
    dims = tuple(_open_dims(leaf, shapes[name]) for name, leaf in zip(ready.names, ready.leaves, strict=True))
    kept: list[Any] = []
    try:
        with quietly(kept), torch.no_grad():
            program = torch.export.export(ready.module, tuple(ready.leaves), dynamic_shapes=(dims,))
    except Exception as error:
        raise OvjitError(f"torch.export does not take the module: {error}") from error
    with quietly(kept), torch.no_grad():
        model = read_program(program, converters, ready.names)
    for port, key in zip(model.outputs, ready.module.names, strict=True):
        if key is not None:
            port.get_tensor().set_names({key})
    if not described:
        model.reshape({i: list(leaf.shape) for i, leaf in enumerate(ready.leaves)})
    warn_again(kept)
    return model


def _open_dims(leaf: Any, shape: Any) -> dict[int, Any]:
    """torch.export's description of a tensor whose shape may have open dimensions."""
    from torch.export import Dim

    told = () if shape is None else shape[: leaf.dim()]
    return {i: Dim.AUTO for i, d in enumerate(told) if is_open(d)}


_WAYS: dict[Way, str] = {
    _scripted: "torch.jit.script",
    _traced: "torch.jit.trace",
    _functional: "torch.export",
}


def read_program(
    program: Any,
    converters: Mapping[str, Any] | None,
    names: Sequence[str] | None = None,
    scopes: bool = False,
) -> Model:
    """A program as it is where that can be read, else as it is after decomposition. Operators that their
    rules refuse are decomposed, too.

    Raises ModelError where PyTorch cannot decompose the program, as one of a damaged file.
    """
    beside = written_beside(program.graph_module)
    if not converters and is_plain(program.graph_module, beside):
        with contextlib.suppress(ModelError, UnsupportedError):
            return read_exported(program, converters, names, scopes, writes=True)
    refused = views_of(beside)
    most = len(refused) + MOST_REFUSED
    while True:
        try:
            ready = decomposed(program, converters, refused)
        except Exception as error:
            raise ModelError(f"PyTorch cannot decompose the program: {error}") from error
        try:
            return read_exported(ready, converters, names, scopes)
        except Refused as error:
            if error.operator in refused or len(refused) >= most:
                raise
            refused |= {error.operator}


def _exported(ready: Prepared | None, read_onnx: ReadOnnx, first: Exception) -> Model:
    """By PyTorch's exporter to ONNX. `first` says why nothing else takes the module."""
    import torch

    if ready is None:
        raise first
    kept: list[Any] = []
    try:
        with quietly(), torch.no_grad():
            called(ready.module, ready.module, ready.leaves)
    except Exception as error:
        raise OvjitError(
            f"{NOT_TRACED}{error}\nPlease check correctness of provided 'example_input'."
        ) from error
    if isinstance(first, Refused) and "::" in first.operator and not exporter.takes(first.operator):
        raise first
    if loses_writes(inlined(ready.given if is_script(ready.given) else _trace(ready, []))):
        raise first
    try:
        with tempfile.TemporaryDirectory() as folder:
            made = exporter.export(ready, folder, kept)
            model = exporter.with_all_inputs(read_onnx(made.file), ready)
    except Exception as error:
        raise UnsupportedError(
            f"{first}" if isinstance(first, OvjitError) else f"{NOT_TRACED}{first}"
        ) from error
    logs.warning("a module is read through PyTorch's ONNX exporter, because the other ways failed: %s", first)
    exporter.name_nodes(model, made)
    exporter.promote_integers(model)
    for port, name in zip(model.outputs, made.outputs, strict=True):
        port.get_tensor().set_names(set() if name is None else {name})
    warn_again(kept)
    return model


def _told(described: Sequence[tuple[Any, Any, Any]]) -> Mapping[Any, Read]:
    """Types and ranks by names, or by places where there are none."""
    told = {}
    for i, (name, shape, kind) in enumerate(described):
        told[name or i] = Read(None if shape is None else len(shape), kind or "dynamic")
    return told


def _without_example(given: Any, converters: Mapping[str, Any] | None, told: Mapping[Any, Read]) -> Model:
    """By torch.jit.script: of the inputs nothing is known but their names and what is `told`."""
    import torch

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
    return reader.finish(_alone(reader.run(graph, values)), None)
