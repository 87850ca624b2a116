"""Finds packed constants that have the bytes of a graph's array in another order, by their content.

Few packing functions are recorded (`Constants.of_files`). For the others this tries the layouts that `panels`
can invert, first on the beginning of a constant, then on all of it. So a row is exact for whatever function
has packed the constant.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ovjit.storage.panels import unpack

#: Maximum number of axes whose permutations are tried.
_MOST_AXES = 3
#: Elements that a layout is tried on first.
_TRIED = 64
#: [size of a word, [change, mask]] of compressed weights, see `panels`.
_WORDS = ((1, (0, 0)), (4, (0, 0)), (4, (0, 0x88888888)), (4, (0, 0x80808080)), (2, (0, 0)), (4, (1, 0)),
          (4, (1, 0x88888888)), (4, (4, 0)), (4, (5, 0)))  # fmt: skip


class Layouts:
    """Finds layouts of row-major arrays. `widths`: possible widths of panels. The last layout that fitted is
    tried first, as layers are alike."""

    def __init__(self, widths: Sequence[int]):
        self._widths = widths
        self._last: dict[str, Any] = {}

    def row_of(self, array: np.ndarray, packed: np.ndarray) -> Any:
        """The row from which `unpack` restores `array` out of the bytes `packed`. None if no layout fits."""
        kind = array.dtype.str
        array = array.view(f"u{array.itemsize}")  # bits: -0.0 differs from 0.0
        there = packed.view(array.dtype)
        makers = self._list_woven if array.itemsize == 1 else self._list_permuted
        if array.itemsize > 1 and there[0] != array.flat[0]:  # the first element of all such layouts
            return None
        tried = makers(array)
        if kind in self._last:
            tried = itertools.chain((row for row in makers(array) if _key(row) == self._last[kind]), tried)
        for row in tried:
            if _begins_with(array, there, row) and np.array_equal(unpack(there, row), array.reshape(-1)):
                self._last[kind] = _key(row)
                return row
        return None

    def _list_woven(self, array: np.ndarray) -> Iterator[Any]:
        """Layouts of bytes as compressed weights."""
        outs, length = len(array), array.size // len(array)
        for (size, change), width in itertools.product(_WORDS, self._widths):
            if not (outs % width or length % size or (any(change) and width * size % 16)):
                yield [[outs, length], [width, size], list(change)]

    def _list_permuted(self, array: np.ndarray) -> Iterator[Any]:
        """Layouts as panels of a matrix without padding."""
        dims = [d for d in array.shape if d > 1]
        if not 2 <= len(dims) <= _MOST_AXES:
            return
        for order in itertools.permutations(range(len(dims))):
            sizes = [dims[axis] for axis in order]
            for axes in range(len(sizes) - 1):
                matrix = [math.prod(sizes[:axes]), math.prod(sizes[axes:-1]), sizes[-1]]
                for width in (*self._widths, sizes[-1]):
                    if not sizes[-1] % width:
                        yield [matrix, [width, 0, 1], dims, list(order)]


def _key(row: Any) -> Any:
    """The part of a layout that layers of different sizes share."""
    return row[1:] if len(row) == 3 else [row[1], row[3], len(row[2])]


def _begins_with(array: np.ndarray, packed: np.ndarray, row: Any) -> bool:
    """True if the first elements of `packed` are those of `array` in this layout."""
    if len(row) == 3:
        (_, length), (width, size), change = row
        first = unpack(packed[: width * length], [[width, length], [width, size], change])
        return np.array_equal(first, array.reshape(-1)[: width * length])
    _, (width, *_), dims, order = row
    ordered = array.reshape(dims).transpose(order)
    corner = ordered[(0,) * (ordered.ndim - 2)][: max(1, _TRIED // width), :width]
    return np.array_equal(corner.reshape(-1), packed[: corner.size])
