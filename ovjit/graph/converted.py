"""Constants that are another array in another type, without a copy of it."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np


class Converted:
    """`source` in the element types `through`, one after the other, the last of which is its own.

    `array` makes the values, and keeps them only as long as somebody holds them. Who reads them once, and in
    another order, takes `source` and `convert`.
    """

    __slots__ = ("_made", "dtype", "source", "through")

    def __init__(self, source: np.ndarray | Converted, through: Sequence[np.dtype]):
        first, before = (source.source, source.through) if isinstance(source, Converted) else (source, ())
        self.source: np.ndarray = first
        self.through: tuple[np.dtype, ...] = (*before, *through)
        self.dtype = self.through[-1]
        self._made: Any = None

    @property
    def shape(self) -> tuple[int, ...]:
        return self.source.shape

    @property
    def ndim(self) -> int:
        return self.source.ndim

    @property
    def size(self) -> int:
        return self.source.size

    @property
    def nbytes(self) -> int:
        return self.source.size * self.dtype.itemsize

    def convert(self, part: np.ndarray) -> np.ndarray:
        """A part of the source in the types."""
        for dtype in self.through:
            part = part.astype(dtype)
        return part

    def array(self) -> np.ndarray:
        """The values: the same array as long as somebody holds it."""
        made = self._made and self._made()
        if made is None:
            made = self.convert(self.source)
            made.flags.writeable = False
            self._made = weakref.ref(made)
        known: np.ndarray = made
        return known

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        array = self.array()
        return array if dtype is None else array.astype(dtype)

    def __repr__(self) -> str:
        return f"<{self.dtype}{list(self.shape)} of {self.source.dtype}>"


#: Constants of fewer elements are converted at once.
SMALLEST = 1 << 14


def is_worth(array: np.ndarray | Converted) -> bool:
    """Whether not to convert an array at once saves memory."""
    return isinstance(array, Converted) or (array.size >= SMALLEST and stays(array))


def stays(array: np.ndarray) -> bool:
    """Whether the memory of an array is a file's or somebody else's, and so is there in any case."""
    base: Any = array
    while isinstance(base, np.ndarray):
        array, base = base, base.base
    return not array.flags.owndata
