"""Constants that are packed again at each start: the table of constant memory in their blobs.

    {"place": "file" or "weights", "size": bytes,
     "literal": [[offset, bytes, offset in `packed`], ...],
     "filled": [[offset, bytes,
                 [function, arguments] or [function, arguments, `Converting`]
                 or [function, arguments, `Converting`, places of `scaled_integers`],
                 [offset in the file or section, type, shape, strides]], ...]}

Constants packed from a mapped file (`Constants.of_files`) are packed again by the same function, one of
`_functions`, from that file or from the section `weights` (`stored_constants`). All others are in the section
`packed`. Arrays of the graph of a program whose weights stay in a file are places in the file. They
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
    Recipe,
    align_up,
    aligned_bytes,
    fill_copy,
    in_threads,
    release_pages,
)
from ovjit.storage import tags
from ovjit.storage.container import Container, Pieces, refuse_invalid
from ovjit.storage.graph_format import Arrays, dump, encode_graph
from ovjit.storage.origins import SMALLEST, Origin, origin_of, place_in
from ovjit.storage.scaled_integers import read_scaled
from ovjit.storage.stored_program import encode_program, encode_starts

#: The name of the function that also reads other constants.
_SORTED = "sorted"
#: (function, type of the source) that write in calls of microseconds. Threads would wait for the
#: interpreter's lock after each: two took 1.8 times the CPU time of one, and 1.2 times its time.
_IN_SHORT_CALLS = (("planes", "i8"), (_SORTED, "i8"))


@functools.cache
def _functions() -> dict[str, Callable[..., None]]:
    """Name in tables of a blob -> packing function. Imported on demand, as starts of small models seldom need
    them."""
    from ovjit.storage.sorted_words import fill_sorted
    from ovjit.tiles.pack import fill_panels, fill_woven
    from ovjit.tiles.winograd import fill_planes

    functions: Any = fill_copy, fill_panels, fill_planes, fill_woven, fill_sorted
    return dict(zip(("copy", "panels", "planes", "woven", _SORTED), functions, strict=True))


@functools.cache
def _names() -> dict[Callable[..., None], str]:
    return {function: name for name, function in _functions().items()}


def sections(executable: Any, origin: Origin, encode_start: Callable[[Any], Any]) -> dict[str, Any]:
    """The sections of a blob, except its header, with code that this process has loaded. Bytes of the file
    `origin` are left out: the graph's, and packed ones with a recipe. `encode_start`: as for `encode_starts`.
    Raises TypeError for content that cannot be stored."""
    state = getattr(executable.program, "variables", None)
    inner = executable.main

    def in_file(array: np.ndarray) -> Sequence[Any] | None:
        span = origin_of(array) if array.nbytes >= SMALLEST else None
        return None if span is None or span[0] != origin else ("file", span[1])

    weights = Arrays("weights", in_file)
    graph = dump(encode_graph(executable.graph, weights))
    starts = None if state is None else encode_starts(executable.program, encode_start)
    packed, table = table_of(inner.program, origin)
    hashed = tags.needs_kernel(max(weights.size, len(packed)))
    program = encode_program(inner, state, True, table, starts, hashed)
    return {"graph": graph, "weights": weights.content(), "packed": packed.join(), **program}


def table_of(program: Any, origin: Origin | None) -> tuple[Pieces, dict[str, Any]]:
    """(pieces of constant memory that no recipe can compute, the table of all constant memory)."""
    rows: list[Any] = []
    recipes = {offset: source for offset, _, *source in program.constants.of_files}
    steering = {offset for offset, _ in program.constants.steering}
    for offset, size in sorted(program.constants.sizes.items()):
        array, recipe = recipes.get(offset, (None, None))
        at = None if array is None or origin is None else place_in(array, origin)
        # tables that kernels use unchecked are in the blob, where they are authenticated
        if at is not None and has_function(recipe) and offset not in steering:
            rows.append(encode_recipe_row(offset, size, recipe, array, at))
    table = memory_table("file", program, rows)
    return literal_pieces(program.memory, table), table


def memory_table(section: str, program: Any, rows: Sequence[Any]) -> dict[str, Any]:
    """The table of constant memory. `rows`: the rows of constants that an import packs again, from the
    weights in "file" or a `section`. The other constants are in the section `packed`, in order."""
    literal: list[list[int]] = []
    size = int(program.memory.size)
    at = begin = 0
    for offset, nbytes in [*sorted((row[0], row[1]) for row in rows), (size, 0)]:
        if begin < offset:
            literal.append([begin, offset - begin, at])
            at += offset - begin
        begin = align_up(offset + nbytes)
    return {"place": section, "size": size, "literal": literal, "filled": list(rows)}


def literal_pieces(memory: np.ndarray, table: Mapping[str, Any]) -> Pieces:
    """The content of the section `packed`, from constant memory."""
    return Pieces(memory[begin:][:size].data for begin, size, _ in table["literal"])


def has_function(recipe: Recipe) -> bool:
    """True if a file can name the function of the recipe."""
    return recipe.function in _names()


def encode_recipe_row(
    offset: int, size: int, recipe: Recipe, source: np.ndarray, at: int, scaled: Sequence[Any] = ()
) -> list[Any]:
    """A row of the table: an import computes `size` bytes at `offset` of constant memory by `recipe` from
    `source`, whose first element is at `at` in the weights. `scaled`: the places of its zero points and
    factors; the recipe then has a conversion."""
    converting = [] if recipe.converting is None else [list(recipe.converting)]
    function = [_names()[recipe.function], dict(recipe.arguments), *converting, *([scaled] if scaled else ())]
    view = [at, dtypes.from_numpy(source.dtype), list(source.shape), list(source.strides)]
    return [offset, size, function, view]


def fill_memory(tables: Mapping[str, Any], container: Container, file: np.ndarray) -> np.ndarray:
    """Fill constant memory by authenticated tables, on all cores, but for `_IN_SHORT_CALLS`. Raises BlobError
    for invalid tables."""
    with refuse_invalid("the blob's memory is"):
        memory = aligned_bytes(tables["size"])
        container.copy("packed", ((memory[begin:][:size], at) for begin, size, at in tables["literal"]))
        tasks = [(row, functools.partial(_fill, memory, file, row)) for row in tables["filled"]]
        in_threads([(row[1] * ((row[2][0], row[3][1]) not in _IN_SHORT_CALLS), run) for row, run in tasks])
        return memory


def _fill(memory: np.ndarray, file: np.ndarray, row: Sequence[Any]) -> None:
    offset, size, (name, arguments, *converting), (at, kind, shape, strides) = row
    source: np.ndarray = np.ndarray(shape, dtypes.numpy_dtype(kind), file, at, strides)
    view = source
    if converting:
        scaled = read_scaled(source, file, converting[1]) if len(converting) > 1 else source
        view = Converting(*converting[0]).apply(scaled)
    constants = {"constants": memory} if name == _SORTED else {}
    _functions()[name](memory[offset : offset + size], view, **constants, **arguments)
    memory[offset + size : align_up(offset + size)] = 0
    release_pages(source)
