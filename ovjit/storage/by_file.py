"""Programs whose weights stay in the model's file: the table of constant memory in their blobs.

    {"size": bytes,
     "literal": [[offset, bytes, offset in `packed`], ...],
     "filled": [[offset, bytes, [function, arguments] or [function, arguments, `Converting`],
                 [offset in the file, type, shape, strides]], ...]}

Constants packed from a mapped file (`Constants.of_files`) are packed from it again, by the same function, one
of `_functions`. All others are in the section `packed`. Arrays of the graph are places in the file. They
decide about reads and writes. So they are used only if authenticated, and only with the bytes for which they
were made: `file_models.Source` checks that a file is the same.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ovjit.graph import dtypes
from ovjit.planning.constants import (
    Converting,
    aligned,
    aligned_bytes,
    fill_copy,
    in_threads,
    release_pages,
)
from ovjit.storage import tags
from ovjit.storage.container import BlobError
from ovjit.storage.graph_format import Arrays, dump, encode_graph
from ovjit.storage.origins import SMALLEST, Origin, origin_of, place_in
from ovjit.storage.stored_program import encode_program, encode_starts


@functools.cache
def _functions() -> dict[str, Callable[..., None]]:
    """name in a table -> function. Few starts of small models need them, and their imports."""
    from ovjit.tiles.pack import fill_panels, fill_woven
    from ovjit.tiles.winograd import fill_planes

    return {"copy": fill_copy, "panels": fill_panels, "planes": fill_planes, "woven": fill_woven}


@functools.cache
def _names() -> dict[Callable[..., None], str]:
    return {function: name for name, function in _functions().items()}


def sections(executable: Any, origin: Origin | None, whole: bool = False) -> dict[str, Any]:
    """The sections of a blob, except its header, with code that this process has loaded. Bytes of the file
    `origin` are left out: the graph's, and, unless `whole`, packed ones with a recipe. Raises TypeError for
    content that cannot be stored."""
    state = getattr(executable.program, "variables", None)
    inner = executable.main
    memory = inner.program.memory

    def in_file(array: np.ndarray) -> Sequence[Any] | None:
        place = origin_of(array) if array.nbytes >= SMALLEST else None
        return None if place is None or place[0] != origin else ("file", place[1])

    weights = Arrays("weights", in_file)
    graph = dump(encode_graph(executable.graph, weights))
    starts = None if state is None else encode_starts(executable.program, lambda x: sections(x, None, True))
    packed, table = (memoryview(memory).cast("B"), None) if whole else _table_of(inner.program, origin)
    hashed = tags.needs_kernel(max(weights.size, len(packed)))
    program = encode_program(inner, state, True, table, starts, hashed)
    return {"graph": graph, "weights": weights.content(), "packed": packed, **program}


def _table_of(program: Any, origin: Origin | None) -> tuple[bytes, dict[str, Any]]:
    """The bytes of constant memory that have no recipe, and the table of all."""
    rows: list[Any] = []
    literal: list[Any] = []
    packed = Arrays("packed")
    recipes = {offset: source for offset, _, *source in program.constants.of_files}
    steering = {offset for offset, _ in program.constants.steering}
    for offset, size in sorted(program.constants.sizes.items()):
        array, recipe = recipes.get(offset, (None, None))
        at = None if array is None or origin is None else place_in(array, origin)
        # tables that kernels use unchecked are in the blob, where they are authenticated
        if at is None or recipe.function not in _names() or offset in steering:
            literal.append([offset, size, packed.add(program.memory[offset : offset + size])[1]])
            continue
        converting = [] if recipe.converting is None else [list(recipe.converting)]
        function = [_names()[recipe.function], dict(recipe.arguments), *converting]
        view = [at, dtypes.from_numpy(array.dtype), list(array.shape), list(array.strides)]
        rows.append([offset, size, function, view])
    return packed.content(), {"size": int(program.memory.size), "literal": literal, "filled": rows}


def literal_bytes(program: Any, origin: Origin | None) -> int:
    """The bytes of constant memory that have no recipe."""
    sizes = dict(program.constants.sizes)
    for offset, _, array, recipe in program.constants.of_files:
        if origin is not None and recipe.function in _names() and place_in(array, origin) is not None:
            sizes.pop(offset, None)
    return sum(sizes.values())


def filled(tables: Mapping[str, Any], packed: Any, file: np.ndarray) -> np.ndarray:
    """Fill constant memory by authenticated tables, on all cores. Raises BlobError for invalid tables."""
    try:
        memory = aligned_bytes(tables["size"])
        pieces = np.frombuffer(packed, np.uint8)
        for offset, size, at in tables["literal"]:
            memory[offset : offset + size] = pieces[at : at + size]
            memory[offset + size : aligned(offset + size)] = 0
        in_threads([(row[1], functools.partial(_fill, memory, file, row)) for row in tables["filled"]])
        return memory
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise BlobError(f"the blob's memory is not valid: {type(error).__name__}: {error}") from error


def _fill(memory: np.ndarray, file: np.ndarray, row: Sequence[Any]) -> None:
    offset, size, (name, arguments, *converting), (at, kind, shape, strides) = row
    source: np.ndarray = np.ndarray(shape, dtypes.numpy_dtype(kind), file, at, strides)
    view = Converting(*converting[0]).apply(source) if converting else source
    _functions()[name](memory[offset : offset + size], view, **arguments)
    memory[offset + size : aligned(offset + size)] = 0
    release_pages(source)
