"""The constants of a program in a blob: each weight once, as kernels read it or as the graph has it.

Packed weights from which the graph's can be restored (`panels`) are in the section `packed`, and the graph
refers to them. Others with a packing function of `by_file` are in `weights`, as the graph has them, and an
import packs them again, such as Winograd's filters, or f32 from f16. All other constants are in `packed`, and
their weights in both.
"""

from __future__ import annotations

import collections
from bisect import bisect_right
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ovjit.graph.converted import Unpacked
from ovjit.graph.graph import Graph
from ovjit.planning.constants import Converting, Recipe, fill_copy, has_subnormals
from ovjit.storage.arrangements import Layouts
from ovjit.storage.by_file import encode_recipe_row, has_function, literal_pieces, memory_table
from ovjit.storage.container import BlobError
from ovjit.storage.graph_format import Arrays, raw_bytes
from ovjit.storage.panels import inverse_of, panel_bytes
from ovjit.storage.scaled import find_factors
from ovjit.storage.scaled_integers import ScaledIntegers, scaled_integers_in
from ovjit.storage.sorted_words import find_sorted

if TYPE_CHECKING:
    from ovjit.codegen.cpu.targets import Target

#: Minimum bytes that an import packs again. Constants that are all stored are mapped instead of copied.
WORTH = 1 << 20
#: Bytes that are compared at a time, so that they stay in the cache.
_COMPARED = 1 << 16
#: Minimum bytes of an array that is stored once, and the number of constants that it is compared with.
SMALLEST, _TRIED = 4096, 4
#: (address, bytes) of an array.
_Span = tuple[int, int] | None


class StoredConstants:
    """The constants of one program. `table`: how an import makes constant memory, see `by_file`; None if it
    is the section `packed`."""

    def __init__(self, program: Any, weights: Arrays, graph: Graph | None):
        """`graph`: find weights of this graph that are packed again, and add them to `weights`. None:
        constant memory is stored whole."""
        self._memory: np.ndarray = program.memory
        self._constants = program.constants
        #: Bytes of the graph's arrays -> (offset of the packed form, row of `panels`).
        self._packed: dict[_Span, tuple[int, Any]] = {}
        #: Bytes of the graph's arrays -> the location of those that are packed again.
        self._filled: dict[_Span, list[Any]] = {}
        arrays = {} if graph is None else dict(_arrays_in(graph))
        derived = _find_derived(arrays, program.graph)
        #: Bytes of derived arrays -> the integers that they are computed from.
        self._scaled = {} if graph is None else _find_scaled_integers(graph, derived)
        self._scales: dict[_Span, list[Any]] = {}
        rows = self._divide(weights, set(arrays), derived) if arrays else []
        for source, offset, recipe in find_sorted(program.lowerings) if arrays else ():
            span = _span_of(source)
            if span in arrays and span not in self._packed:
                row = offset, self._constants.sizes[offset], span, source, recipe
                rows.append(self._fill_again(weights, *row))
        table = memory_table("weights", program, rows)
        self.table = table if rows else None
        self._literal: list[list[int]] = table["literal"]
        #: The content of the section `packed`.
        self.pieces = literal_pieces(self._memory, table)
        #: Bytes of the graph's arrays -> their location, or None.
        self._locations: dict[_Span, Sequence[Any] | None] = {}
        self._locations = {span: self.place_of(array) for span, array in arrays.items()}
        if arrays:
            self._find_others(arrays, {row[0] for row in rows}, program.context.target)
            self._find_scaled(arrays, derived, weights)

    def _divide(self, weights: Arrays, spans: set[_Span], derived: Collection[_Span]) -> list[Any]:
        """Find the constants that can be unpacked. Returns the rows of those that an import packs again.
        `spans`: of the graph's arrays; `derived`: of arrays computed from them, which are packed again where
        they are much smaller than the constant."""
        ignored = {offset for offset, _ in self._constants.steering}
        recorded, uninvertible = [], set()
        for offset, size, source, recipe in self._constants.recipes():
            span = _span_of(source)
            plain = recipe.function is fill_copy and recipe.converting is None
            scaled = self._integers_of(span, recipe) is not None
            worth = span in spans or scaled or (span in derived and 4 * source.nbytes < 3 * size)
            if not worth or offset in ignored or plain or not has_function(recipe):
                continue
            ignored.add(offset)
            row = None if scaled else inverse_of(recipe, source, size)
            row = None if row is None or not _is_exact(source) else row
            recorded.append((row, (offset, size, span, source, recipe)))
            if row is None:
                uninvertible.add(span)  # stored as the graph has it, so all of its constants are packed again
        self._packed = {one[2]: (one[0], row) for row, one in recorded if one[2] not in uninvertible}
        again = [one for _, one in recorded if one[2] in uninvertible]
        if sum(size for _, size, *_ in again) < WORTH:
            self._packed.update((one[2], (one[0], row)) for row, one in recorded if row is not None)
            return []
        return [self._fill_again(weights, *one) for one in again]

    def _fill_again(
        self, weights: Arrays, offset: int, size: int, span: _Span, source: np.ndarray, recipe: Recipe
    ) -> list[Any]:
        """Store the source as it is in the graph, or the integers that it is computed from. Returns the row
        of the constant that an import packs again from it."""
        scaled = self._integers_of(span, recipe)
        if scaled is None:
            return encode_recipe_row(offset, size, recipe, source, self._store(weights, span, source))
        if span not in self._scales:
            self._scales[span] = scaled.store(weights)
        recipe = recipe._replace(converting=Converting("f32", 0, source.shape, source.strides))
        at = self._store(weights, _span_of(scaled.integers), scaled.integers)
        return encode_recipe_row(offset, size, recipe, scaled.integers, at, self._scales[span])

    def _integers_of(self, span: _Span, recipe: Recipe) -> ScaledIntegers | None:
        """The integers of the graph that the source of a recipe is computed from."""
        return self._scaled.get(span) if recipe.converting is None else None

    def _store(self, weights: Arrays, span: _Span, array: np.ndarray) -> int:
        """Store an array that constants are packed from, once. Returns its offset in the weights."""
        if span not in self._filled:
            self._filled[span] = weights.store(raw_bytes(_in_memory_order(array)))
        return self._filled[span][1]

    def _find_others(
        self, arrays: Mapping[_Span, np.ndarray], filled: Collection[int], target: Target
    ) -> None:
        """Find constants that have the bytes of `arrays` without a location, reordered. `filled`: offsets
        of constants that are packed again."""
        used_offsets = {
            *filled,
            *(offset for offset, _ in (*self._packed.values(), *self._constants.steering)),
        }
        unclaimed = collections.defaultdict(list)
        for offset, size in self._constants.sizes.items():
            if offset not in used_offsets:
                unclaimed[size].append(offset)
        layouts = Layouts([target.lanes * vectors for vectors in (target.tile_vectors, 4, 2, 1)])
        for span, array in arrays.items():
            if self._locations[span] is not None:
                continue
            offsets = unclaimed.get(array.nbytes, [])
            for offset in offsets[:_TRIED]:
                row = layouts.row_of(array, self._memory[offset : offset + array.nbytes])
                if row is not None:
                    self._locations[span] = "packed", self._at(offset), row
                    offsets.remove(offset)
                    break

    def _find_scaled(
        self, arrays: Mapping[_Span, np.ndarray], derived: Mapping[_Span, np.ndarray], weights: Arrays
    ) -> None:
        """Find products of `arrays` without a location, and factors, among `derived` arrays. Factors are
        added to `weights`."""
        products = collections.defaultdict(list)
        for span, array in derived.items():
            location = None if array.dtype != np.float32 else self._filled.get(span) or self._place_of(array)
            if location is not None:
                products[array.shape].append((array, [*location, None][:3]))
        for span, array in arrays.items():
            if self._locations[span] is not None or array.dtype != np.float32:
                continue
            candidates = products.get(array.shape, [])
            for candidate in candidates[:_TRIED]:
                parts = find_factors(array, candidate[0])
                if parts is not None:
                    stored = [weights.store(part) for part in parts]
                    self._locations[span] = [*candidate[1], [len(array), *(offset for _, offset in stored)]]
                    candidates.remove(candidate)
                    break

    def place_of(self, array: np.ndarray) -> Sequence[Any] | None:
        """The location of an array of the graph that is stored already."""
        span = _span_of(array) if array.nbytes >= SMALLEST else None
        if span in self._locations:
            location = self._locations[span]
        elif span in self._filled:
            location = self._filled[span]
        elif span in self._packed:
            offset, row = self._packed[span]
            location = "packed", self._at(offset), row
        else:
            location = self._place_of(array)
        fits = location is None or len(location) == 2 or location[2] is None or _fits(location[2], array)
        return location if fits else None

    def _place_of(self, array: np.ndarray) -> Sequence[Any] | None:
        """The location of an array that `Constants` has noted."""
        offset = self._constants.offset_of(array)
        if offset is not None:
            plain, at = raw_bytes(array), self._at(offset)
            same = at is not None and _are_equal(self._memory[offset : offset + plain.size], plain)
            return ("packed", at) if same else None
        panels = self._constants.panels_of(array)
        if panels is None or self._at(panels.offset) is None or not _is_exact(array):
            return None
        matrix, widths, dims, order = (list(map(int, part)) for part in panels[1:])
        return "packed", self._at(panels.offset), [matrix, [*widths, 1], dims, order]

    def _at(self, offset: int) -> int | None:
        """The offset in the section of a constant; None if it is not stored."""
        number = bisect_right(self._literal, offset, key=lambda run: run[0]) - 1
        begin, size, at = self._literal[number] if number >= 0 else (0, 0, 0)
        return at + offset - begin if offset < begin + size else None


def _fits(row: Any, array: np.ndarray) -> bool:
    """Whether `array` has the number and size of elements that the panels of `row` have."""
    try:
        return panel_bytes(row, array.itemsize, array.size) > 0
    except BlobError:
        return False


def _are_equal(a: np.ndarray, b: np.ndarray) -> bool:
    """True if two arrays of bytes are equal."""
    parts = range(0, a.size, _COMPARED)
    return a.size == b.size and all(
        a[n : n + _COMPARED].tobytes() == b[n : n + _COMPARED].tobytes() for n in parts
    )


def _arrays_in(graph: Graph) -> Iterator[tuple[_Span, np.ndarray]]:
    """Yield the large arrays among the attributes of nodes, and their bytes."""
    for node in graph.nodes:
        for value in node.attrs.values():
            if not isinstance(value, (np.ndarray, Unpacked)):
                continue
            array = value.source if isinstance(value, Unpacked) else value
            if array.nbytes < SMALLEST or not array.flags.c_contiguous or array.dtype.hasobject:
                continue
            if array is not value and not array.size % len(value):
                array = array.reshape(len(value), -1)
            yield (array.__array_interface__["data"][0], array.nbytes), array


def _find_derived(arrays: Mapping[_Span, np.ndarray], graph: Graph) -> dict[_Span, np.ndarray]:
    """The arrays of the compiled `graph` that may be `arrays` multiplied by factors, or converted."""
    shapes = {array.shape for array in arrays.values()}
    return {
        span: array
        for span, array in (_arrays_in(graph) if shapes else ())
        if span not in arrays and array.shape in shapes
    }


def _find_scaled_integers(graph: Graph, derived: Mapping[_Span, np.ndarray]) -> dict[_Span, ScaledIntegers]:
    """The `derived` f32 arrays that are integers of the `graph`, shifted and scaled, by their bytes."""
    unclaimed = collections.defaultdict(list)
    for span, array in derived.items():
        if array.dtype == np.float32:
            unclaimed[array.shape].append((span, array))
    result = {}
    for scaled in scaled_integers_in(graph) if unclaimed else ():
        candidates = unclaimed.get(scaled.integers.shape, [])
        for candidate in candidates[:_TRIED]:
            # products in f16 may have been computed in f32
            ways = {way.factors.dtype: way for way in (scaled, scaled.in_f32())}.values()
            way = next((way for way in ways if way.equals(candidate[1])), None)
            if way is not None:
                result[candidate[0]] = way
                candidates.remove(candidate)
                break
    return result


def _in_memory_order(array: np.ndarray) -> np.ndarray:
    """The array with its axes in the order of memory."""
    return array.transpose(sorted(range(array.ndim), key=lambda axis: -array.strides[axis]))


def _span_of(array: np.ndarray) -> _Span:
    """The bytes of an array, in whatever order of its axes; None if they are not contiguous."""
    if not array.flags.c_contiguous and not _in_memory_order(array).flags.c_contiguous:
        return None
    return array.__array_interface__["data"][0], array.nbytes


def _is_exact(array: np.ndarray) -> bool:
    """True if packing changes no element: subnormal numbers become zeros."""
    return array.dtype.kind in "iub" or not has_subnormals(_in_memory_order(array).reshape(-1))
