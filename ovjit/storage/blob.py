"""Compiled models as blobs: what `export_model` writes and `import_model` reads. See docs/blob_format.md.

The graph in a blob suffices to compile the model again on any machine. Object code and the plan that calls it
are used only if this user's key authenticates them, and if versions and CPU are the same.
"""

from __future__ import annotations

import enum
import functools
import os
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ovjit import debug, logs
from ovjit.disk.keys import user_key
from ovjit.errors import ORDINARY, OvjitError, unless_of_signal
from ovjit.graph import dtypes
from ovjit.graph.op import TensorType
from ovjit.graph.ports import PortInfo
from ovjit.records import NamedTuple
from ovjit.storage import tags
from ovjit.storage.container import BlobError, Container, Pieces, refuse_invalid, write_container
from ovjit.storage.graph_format import Arrays, Reader, dump, encode_dims, encode_graph, parse, read_dims
from ovjit.storage.origins import Elsewhere, Origin, bytes_of
from ovjit.version import __version__

if TYPE_CHECKING:
    from ovjit.execution.executable import Executable

#: Properties that code depends on. If they differ from those at the export, the graph is compiled again.
COMPILING = (
    "EXECUTION_MODE_HINT", "INFERENCE_PRECISION_HINT", "DYNAMIC_QUANTIZATION_GROUP_SIZE", "caches",
    "OVJIT_MATRIX_UNIT",
)  # fmt: skip
#: Properties of the process rather than of the model. They are not exported.
LOCAL = frozenset(
    ("CACHE_DIR", "CACHE_ENCRYPTION_CALLBACKS", "CACHE_MODE", "DEVICE_PROPERTIES", "ENABLE_MMAP",
     "LOG_LEVEL", "MODEL_DISTRIBUTION_POLICY", "OVJIT_KEY", "WEIGHTS_PATH")
)  # fmt: skip


#: In the header of a kept model (`kept_models`), the prefix of the name of its file's record.
KEPT = "file:"

#: Executables whose programs have all traces that blobs store.
_traced_ahead: weakref.WeakSet[Executable] = weakref.WeakSet()

#: The properties in a blob -> all properties, with the ones that are given now in their place.
Merge = Callable[[Mapping[str, Any]], dict[str, Any]]


class Imported(NamedTuple):
    """A model read from a blob. `used`: whether the blob's code is used; else its graph was compiled."""

    executable: Executable
    inputs: tuple[PortInfo, ...]
    outputs: tuple[PortInfo, ...]
    config: dict[str, Any]  # all properties, and the model's own "name"
    used: bool


def save_blob(
    executable: Executable, inputs: Sequence[PortInfo], outputs: Sequence[PortInfo],
    config: Mapping[str, Any], source: str = "",
) -> bytes:  # fmt: skip
    """A compiled model as a blob: the same bytes for the same model, versions, CPU, properties and key.

    `config`: all properties. `source`: the digest of the graph in a cache's header. Raises BlobError for a
    model with content that blobs cannot store.
    """
    stored = getattr(executable.program, "sections", None)
    if stored is not None:
        header, program = (parse(stored[kind], kind) for kind in ("header", "program"))
        # it only has the code that one start needs
        if header["source"].startswith(KEPT) or "file" in program:
            from ovjit.engine import compile_graph

            stored, executable = None, compile_graph(executable.graph, executable.config)
        elif "kernels" in program:
            from ovjit.storage.stored_program import code_in_parts

            stored = {**stored, "code": code_in_parts(stored["code"], program["kernels"])}
    sections = sections_of(executable, once=True) if stored is None else stored
    return write_container(
        {**sections, "header": header_for(source, inputs, outputs, config)}, key_of(config)
    )


def sections_of(
    executable: Any, elsewhere: Elsewhere | None = None, once: bool = False, loaded: bool = False
) -> dict[str, Any]:
    """All sections but the header. `elsewhere`: returns the place in a file of weights that stay there.
    `once`: each weight is stored once. `loaded`: only code that this process has loaded. Raises BlobError for
    a model with content that blobs cannot store."""
    try:
        if executable.config.get("card") is not None:
            from ovjit.storage.card_blobs import encode_for_card

            return encode_for_card(executable, elsewhere)
        return _encode(executable, elsewhere, once, loaded)
    except TypeError as error:
        raise BlobError(f"the model cannot be exported: {error}") from error


def _encode(
    executable: Any, elsewhere: Elsewhere | None = None, once: bool = False, loaded: bool = False
) -> dict[str, Any]:
    from ovjit.codegen.cpu.host import host_target
    from ovjit.storage.stored_constants import StoredConstants
    from ovjit.storage.stored_program import encode_program, encode_starts

    if executable not in _traced_ahead and not loaded:
        executable.program.trace_more_ahead()
        _traced_ahead.add(executable)
    # of a model with variables, the program without them, and their names and types beside it
    variables = getattr(executable.program, "variables", None)
    inner = executable.main

    def place_of(array: np.ndarray) -> Sequence[Any] | None:
        there = None if elsewhere is None else elsewhere(array)
        return constants.place_of(array) if there is None else there

    arrays = Arrays("weights", place_of)
    constants = StoredConstants(inner.program, arrays, executable.graph if once else None)
    graph = dump(encode_graph(executable.graph, arrays))
    encode = functools.partial(encode_start, loaded=loaded)
    starts = None if variables is None else encode_starts(executable.program, encode)
    weights, packed = arrays.pieces(), constants.pieces
    hashed = tags.needs_kernel(max(len(weights), len(packed)))
    origin = None if elsewhere is None else elsewhere.origin
    program = encode_program(
        inner, variables, loaded, memory=constants.table, starts=starts, hashed=hashed, origin=origin,
        installed=host_target() if once and not loaded else None,
    )  # fmt: skip
    return {"graph": graph, "weights": weights, "packed": packed, **program}


def encode_start(executable: Any, loaded: bool = True) -> dict[str, Any]:
    """The sections of a program that computes initial values, as bytes."""
    sections = _encode(executable, loaded=loaded)
    return {k: s.join() if isinstance(s, Pieces) else s for k, s in sections.items()}


def header_for(
    source: str, inputs: Sequence[PortInfo], outputs: Sequence[PortInfo], config: Mapping[str, Any]
) -> bytes:
    """Every property that distinguishes this compilation from others, so that equal headers mean equal blobs.

    `source`: the digest of the graph, or ""; `config`: all properties, from `properties_table.resolve`.
    """
    return dump(
        {
            "machine": machine(config),
            "source": source,
            "name": config.get("name", ""),
            "inputs": [_encode_port(info) for info in inputs],
            "outputs": [_encode_port(info) for info in outputs],
            "properties": portable(config),
            "compiling": compiling(config),
        }
    )


def key_of(settings: Mapping[str, Any]) -> bytes:
    """The key in the property OVJIT_KEY, else this user's."""
    return user_key(settings.get("OVJIT_KEY") or None)


def machine(config: Mapping[str, Any] | None = None) -> dict[str, str]:
    """The facts that object code depends on: versions, code generators, the CPU, switches that change
    code. For a card also the "device"."""
    from ovjit.codegen.cpu.host import host_target
    from ovjit.codegen.versions import code_digest, versions

    if config is not None and config.get("card") is not None:  # PTX runs on all cards with these features
        from ovjit.engine import context_of

        isa = context_of(config).target
        where = {"device": "GPU", "features": ",".join((*isa.features, *isa.extras))}
    else:
        isa = host_target()
        system = os.uname().sysname if hasattr(os, "uname") else os.name
        where = {"features": isa.llvm_features, "platform": f"{system}-{isa.machine}"}
    numba, llvmlite = versions()
    return {
        "ovjit": __version__, "numba": numba, "llvmlite": llvmlite, "generators": code_digest(),
        "isa": isa.name, "cpu": isa.cpu, "switches": " ".join(debug.program_flags()), **where,
    }  # fmt: skip


def compiling(config: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _to_json(config.get(name)) for name in COMPILING}


def portable(config: Mapping[str, Any]) -> dict[str, Any]:
    """The properties that the user has set, as JSON values, without those of the process."""
    return {
        name: _to_json(value)
        for name, value in config.get("given", {}).items()
        if name not in LOCAL and isinstance(_to_json(value), (bool, int, float, str))
    }


def _to_json(value: Any) -> Any:
    """A property's value for JSON: enumerators and element types become their names."""
    if isinstance(value, enum.Enum):
        return value.name
    name = getattr(value, "_name", None)
    return name if isinstance(name, str) else value


def _encode_port(info: PortInfo) -> list[Any]:
    shape = None if info.shape is None else encode_dims(info.shape)
    return [info.node, list(info.names), info.dtype, shape, info.source, *([True] if info.written else [])]


# --- reading


def load_blob(data: memoryview, merge: Merge) -> Imported:
    """Read a blob. If its code cannot be used here, its graph is compiled, and the log says why.

    Raises BlobError, a RuntimeError, for a blob that is damaged or not valid.
    """
    return load_container(Container(data), merge)


def load_container(container: Container, merge: Merge, file: np.ndarray | None = None) -> Imported:
    """As `load_blob`, for a parsed blob. `file`: the bytes of the weights' file, for a blob without weights,
    see `kept_models`."""
    header = parse(container.sections["header"], "header")
    with refuse_invalid("the blob's header is"):
        name = header["name"]
        inputs = tuple(map(_read_port, header["inputs"]))
        outputs = tuple(map(_read_port, header["outputs"]))
        config = merge({k: v for k, v in header["properties"].items() if k not in LOCAL})
        _check_device(header, config)
        reason = container.why_foreign(key_of(config)) or _why_unfit(header, config)
        if not isinstance(name, str):
            raise BlobError("the blob is not valid: its name is not a string")
    config["name"] = name
    if reason:
        logs.warning("the blob's object code is not used, its model is compiled again: %s", reason)
        return Imported(_compile(container, inputs, outputs, config), inputs, outputs, config, False)
    if config.get("card") is not None:
        from ovjit.storage.card_blobs import provide_ptx

        provide_ptx(container.sections)
        return Imported(_compile(container, inputs, outputs, config), inputs, outputs, config, True)
    return Imported(_load(container, inputs, outputs, config, file), inputs, outputs, config, True)


def _check_device(header: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Raises BlobError for a blob of another device."""
    of_card, for_card = "device" in header["machine"], config.get("card") is not None
    if of_card != for_card:
        source, target = ("GPU", "the CPU") if of_card else ("the CPU", "GPU")
        raise BlobError(
            f"the blob is of a model that was compiled for {source}, and cannot be imported for {target}: "
            f"name the device in import_model, or compile the model for {target}"
        )


def _why_unfit(header: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """The reason why the object code cannot run here; "" if it can."""
    here, there = machine(config), header["machine"]
    for what, text in here.items():
        if there.get(what) != text:
            if what == "features":
                return f"it was compiled for another CPU: {_difference(str(there.get(what)), text)}"
            return f"it was compiled for {what} {there.get(what)!r}, this is {text!r}"
    for what, value in compiling(config).items():
        if header["compiling"].get(what) != value:
            return f"it was compiled with {what} {header['compiling'].get(what)}, but {value} is requested"
    return ""


def _difference(there: str, here: str) -> str:
    changed = sorted(set(there.split(",")) ^ set(here.split(",")))
    return "features " + " ".join(changed[:8]) + (" ..." if len(changed) > 8 else "")


def _load(
    container: Container, inputs: Sequence[PortInfo], outputs: Sequence[PortInfo],
    config: Mapping[str, Any], file: np.ndarray | None,
) -> Any:  # fmt: skip
    """An executable of the stored program."""
    from ovjit.storage.stored_program import hashing_code, stored_executable

    sections = container.sections
    memory_by_section: dict[str, Any] = {}
    for kind in ("weights", "packed"):
        if not sections[kind].readonly:
            sections[kind] = memoryview(bytes(sections[kind]))
    tables = parse(sections["program"], "program")
    provided = hashing_code(tables, sections)
    if provided:
        tags.function(provided)
    kinds = ["weights"]
    if "memory" in tables:
        memory, packed = _fill_memory(container, tables["memory"], file)
        kinds.append("packed")
        memory_by_section["packed"] = sections["packed"]
        sections = {**sections, "packed": packed}  # an export writes bytes that no change of a file reaches
    else:
        if "file" in tables:
            file = _weights_file(tables["file"], bool(config.get("ENABLE_MMAP", True)))
        memory = _memory(container, tables)
    types, result = ([TensorType(info.dtype, info.shape) for info in infos] for infos in (inputs, outputs))
    if file is not None:
        memory_by_section["file"] = file

    def check() -> None:
        for kind in kinds:
            container.verify(kind)

    return stored_executable(tables, sections, memory, types, result, config, memory_by_section, check)


def _fill_memory(
    container: Container, table: Mapping[str, Any], file: np.ndarray | None
) -> tuple[np.ndarray, Pieces]:
    """Constant memory by its table, from the weights in `file` or in the blob, and the section `packed` as
    parts of that memory."""
    from ovjit.storage.by_file import fill_memory, literal_pieces

    if table.get("place") == "weights":
        container.verify("weights")
        file = np.frombuffer(container.sections["weights"], np.uint8)
    elif file is None:
        raise BlobError("the blob keeps its weights in a separate file")
    memory = fill_memory(table, container, file)
    return memory, literal_pieces(memory, table)


class Moved(BlobError):
    """The file with a blob's weights has changed, or was removed."""


def _weights_file(row: Sequence[Any], mapped: bool) -> np.ndarray:
    """The bytes of the file with the weights of a cached model's graph."""
    path, *state = row
    if not isinstance(path, str) or not all(type(n) is int for n in state):
        raise BlobError("the blob is not valid: the path of its weights file is missing")
    content = bytes_of(Origin(path, tuple(state)), mapped)
    if content is None:
        raise Moved(f"{path} has changed since the model was compiled")
    return content


def _memory(container: Container, tables: Mapping[str, Any]) -> np.ndarray:
    """The packed constants. Tables that kernels use unchecked are protected from later changes of the
    file."""
    with refuse_invalid("the blob's program is"):
        spans = [(int(offset), int(size)) for offset, size in tables["steering"]]
        return container.memory("packed", spans)


def _compile(
    container: Container, inputs: Sequence[PortInfo], outputs: Sequence[PortInfo], config: Mapping[str, Any]
) -> Any:
    """Compile the graph of a blob, which is checked as an untrusted model."""
    sections = {}
    for kind in ("weights", "packed"):
        section = container.sections[kind]
        container.sections[kind] = sections[kind] = (
            section if section.readonly else memoryview(bytes(section))
        )
        container.verify(kind)
    graph = Reader(sections).graph(parse(container.sections["graph"], "graph"))
    for what, infos, values in (("input", inputs, graph.inputs), ("output", outputs, graph.public_outputs)):
        if [(i.dtype, i.shape) for i in infos] != [(v.dtype, v.shape) for v in values]:
            raise BlobError(f"the blob is not valid: its {what}s differ from those of its graph")
    from ovjit.engine import compile_graph

    try:
        return compile_graph(graph, config)
    except OvjitError:
        raise
    except unless_of_signal(*ORDINARY) as error:
        raise BlobError(f"the blob's model cannot be compiled: {type(error).__name__}: {error}") from error


def _read_port(row: Any) -> PortInfo:
    node, names, dtype, shape, source, *written = row
    if not isinstance(node, str) or not isinstance(source, str) or dtype not in dtypes.ELEMENT_TYPES:
        raise BlobError(f"the blob is not valid: {row!r} is not a port")
    if not isinstance(names, list) or not all(isinstance(n, str) for n in names):
        raise BlobError(f"the blob is not valid: {names!r} are not names")
    dims = None if shape is None else read_dims(shape)
    return PortInfo(node, tuple(names), dtype, dims, source, written == [True])
