"""Programs whose weights stay in the model's file: the table of constant memory in their blobs.

    {"size": bytes, or null for dynamic shapes, for which the compiler fills it again,
     "literal": [[offset, bytes, offset in `packed`], ...],
     "filled": [[offset, bytes, [function, arguments], [offset in the file, type, shape, strides]], ...]}

Constants packed from a mapped file (`Constants.of_files`) are packed from it again, by the same function, one
of `_FUNCTIONS`. All others are in the section `packed`. Arrays of the graph are places in the file. They
decide about reads and writes. So they are used only if authenticated, and only with the bytes for which they
were made: `file_models.Source` checks that a file is the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ovjit.graph import dtypes
from ovjit.planning.constants import aligned_bytes, fill_copy, release_pages
from ovjit.storage import tags
from ovjit.storage.container import BlobError
from ovjit.storage.graph_format import Arrays, dump, encode_graph
from ovjit.storage.origins import SMALLEST, Origin, origin_of, place_in
from ovjit.storage.stored_program import encode_program, encode_starts
from ovjit.tiles.pack import fill_panels
from ovjit.tiles.winograd import fill_planes

_FUNCTIONS: dict[str, Callable[..., None]] = {"copy": fill_copy, "panels": fill_panels, "planes": fill_planes}
_NAMES = {function: name for name, function in _FUNCTIONS.items()}


def sections(executable: Any, origin: Origin | None, whole: bool) -> dict[str, Any]:
    """The sections of a blob, except its header, with code that this process has loaded. Bytes of the file
    `origin` are left out: the graph's, and, unless `whole`, the packed ones. Raises TypeError for content
    that cannot be stored."""
    state = getattr(executable.program, "variables", None)
    inner = executable.main
    program = inner.program
    rows: list[Any] = []
    literal: list[Any] = []
    packed = Arrays("packed")
    result = {offset: found for offset, _, *found in program.constants.of_files}
    steering = {offset for offset, _ in program.constants.steering}
    # for dynamic shapes the compiler fills it again, with the plans
    sizes = sorted(program.constants.sizes.items()) if inner.static and not whole else []
    for offset, size in sizes:
        array, recipe = result.get(offset, (None, None))
        at = None if array is None or origin is None else place_in(array, origin)
        # tables that kernels use unchecked are in the blob, where they are authenticated
        if at is None or recipe.function not in _NAMES or offset in steering:
            literal.append([offset, size, packed.add(program.memory[offset : offset + size])[1]])
            continue
        function = [_NAMES[recipe.function], dict(recipe.arguments)]
        view = [at, dtypes.from_numpy(array.dtype), list(array.shape), list(array.strides)]
        rows.append([offset, size, function, view])

    def in_file(array: np.ndarray) -> Sequence[Any] | None:
        found = origin_of(array) if array.nbytes >= SMALLEST else None
        return None if found is None or found[0] != origin else ("file", found[1])

    weights = Arrays("weights", in_file)
    graph = dump(encode_graph(executable.graph, weights))
    starts = None if state is None else encode_starts(executable.program, lambda x: sections(x, None, True))
    if whole:  # as kernels read it, for a mapping
        content = memoryview(program.memory).cast("B")
        rest = encode_program(inner, state, True, None, starts, _is_hashed(weights.size, len(content)))
        return {"graph": graph, "weights": weights.content(), "packed": content, **rest}
    size = int(program.memory.size) if inner.static else None
    memory = {"size": size, "literal": literal, "filled": rows}
    rest = encode_program(inner, state, True, memory, starts, _is_hashed(weights.size, packed.size))
    return {"graph": graph, "weights": weights.content(), "packed": packed.content(), **rest}


def _is_hashed(*sizes: int) -> bool:
    return tags.needs_kernel(max(sizes))


def filled(tables: Mapping[str, Any], packed: Any, file: np.ndarray) -> np.ndarray | None:
    """Fill constant memory by authenticated tables. None if the compiler must fill it. Raises BlobError for
    invalid tables."""
    try:
        if tables["size"] is None:
            return None
        memory = aligned_bytes(tables["size"])
        pieces = np.frombuffer(packed, np.uint8)
        for offset, size, at in tables["literal"]:
            memory[offset : offset + size] = pieces[at : at + size]
        for offset, size, (name, arguments), (at, kind, shape, strides) in tables["filled"]:
            source: np.ndarray = np.ndarray(shape, dtypes.numpy_dtype(kind), file, at, strides)
            _FUNCTIONS[name](memory[offset : offset + size], source, **arguments)
            release_pages(source)
        return memory
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise BlobError(f"the blob's memory is not valid: {type(error).__name__}: {error}") from error
