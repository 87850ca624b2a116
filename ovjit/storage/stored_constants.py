"""The constants of a program in a blob: each weight once, as kernels read it or as the graph has it.

Packed weights from which the graph's can be restored (`panels`) are in the section `packed`, and the graph
refers to them. Others with a packing function of `by_file` are in `weights`, as the graph has them, and an
import packs them again, such as Winograd's filters, or f32 from f16. All other constants are in `packed`, and
their weights in both.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ovjit.graph.converted import Unpacked
from ovjit.graph.graph import Graph
from ovjit.planning.constants import fill_copy, has_subnormals
from ovjit.storage.by_file import encode_filling, has_function, literal_pieces, memory_table
from ovjit.storage.graph_format import Arrays, raw_bytes
from ovjit.storage.panels import inverse_of, panel_bytes

#: Minimum bytes that an import packs again. Constants that are all stored are mapped instead of copied.
WORTH = 1 << 20
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
        #: Bytes of the graph's arrays -> the place of those that are packed again.
        self._filled: dict[_Span, list[Any]] = {}
        rows = []
        if graph is not None and self._constants.of_files:
            rows = self._divide(weights, set(_spans_in(graph)))
        table = memory_table("weights", program, rows)
        self.table = table if rows else None
        self._literal: list[list[int]] = table["literal"]
        #: The content of the section `packed`.
        self.pieces = literal_pieces(self._memory, table)

    def _divide(self, weights: Arrays, spans: set[_Span]) -> list[Any]:
        """Find the constants that can be unpacked, and return the rows of those that are packed again.
        `spans`: of the graph's arrays."""
        steering = {offset for offset, _ in self._constants.steering}
        again = []
        for offset, size, source, recipe in self._constants.of_files:
            span = _span_of(source)
            plain = recipe.function is fill_copy and recipe.converting is None
            if span not in spans or offset in steering or plain or not has_function(recipe):
                continue
            row = inverse_of(recipe, source, size)
            if row is not None and _is_exact(source):
                self._packed[span] = offset, row
            else:
                again.append((offset, size, span, source, recipe))
        again = [one for one in again if one[2] not in self._packed]
        if sum(size for _, size, *_ in again) < WORTH:
            return []
        rows = []
        for offset, size, span, source, recipe in again:
            if span not in self._filled:
                self._filled[span] = weights.store(raw_bytes(_in_memory_order(source)))
            rows.append(encode_filling(offset, size, recipe, source, self._filled[span][1]))
        return rows

    def place_of(self, array: np.ndarray) -> Sequence[Any] | None:
        """The place of an array of the graph that is stored already."""
        if self._filled or self._packed:
            span = _span_of(array)
            if span in self._filled:
                return self._filled[span]
            if span in self._packed:
                offset, row = self._packed[span]
                return "packed", self._at(offset), row
        offset = self._constants.offset_of(array)
        if offset is not None:
            plain, at = raw_bytes(array), self._at(offset)
            same = self._memory[offset : offset + plain.size].tobytes() == plain.tobytes()
            return ("packed", at) if same and at is not None else None
        panels = self._constants.panels_of(array)
        if panels is None or self._at(panels.offset) is None or not _is_exact(array):
            return None
        matrix, widths, dims, order = (list(map(int, part)) for part in panels[1:])
        row = [matrix, [*widths, 1], dims, order]
        panel_bytes(row, array.itemsize, array.size)
        return "packed", self._at(panels.offset), row

    def _at(self, offset: int) -> int | None:
        """The offset in the section of a constant; None if it is not stored."""
        number = bisect_right(self._literal, offset, key=lambda run: run[0]) - 1
        begin, size, at = self._literal[number] if number >= 0 else (0, 0, 0)
        return at + offset - begin if offset < begin + size else None


def _spans_in(graph: Graph) -> Iterator[_Span]:
    """Yield the bytes of the arrays among the attributes of nodes."""
    for node in graph.nodes:
        for value in node.attrs.values():
            array = value.source if isinstance(value, Unpacked) else value
            if isinstance(array, np.ndarray) and array.flags.c_contiguous:
                yield array.__array_interface__["data"][0], array.nbytes


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
