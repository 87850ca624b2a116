"""Constants that are lazy conversions of another array, in another type or order."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ovjit.graph.dtypes import ELEMENT_TYPES, HALVES, from_numpy, numpy_dtype, unpack_low_first
from ovjit.records import NamedTuple

#: Elements of blocks that are converted at a time, which bounds temporary memory.
_AT_ONCE = 1 << 21


class Unmade:
    """Elements that are converted from `source` on demand, and cached while a caller has a reference."""

    __slots__ = ("_cached", "dtype", "shape", "source")
    source: np.ndarray
    shape: tuple[int, ...]
    dtype: np.dtype
    _cached: Any

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def make(self) -> np.ndarray:
        raise NotImplementedError

    def array(self) -> np.ndarray:
        """The converted elements: the same array while a caller has a reference to it."""
        result = self._cached and self._cached()
        if result is None:
            result = self.make()
            result.flags.writeable = False
            self._cached = weakref.ref(result)
        array: np.ndarray = result
        return array

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        array = self.array()
        return array if dtype is None else array.astype(dtype)

    def __repr__(self) -> str:
        return f"<{self.dtype}{list(self.shape)} of {self.source.dtype}>"


class Arranged(Unmade):
    """The array `arrange(source)`, of this shape and type. `transposed`: it is the bit-exact transpose of the
    source as a matrix. `by_rows`: `arrange` of n rows of the source gives n columns."""

    __slots__ = ("_stored", "arrange", "by_rows", "transposed")

    def __init__(
        self, source: np.ndarray | Unmade, shape: tuple[int, ...], dtype: np.dtype,
        arrange: Callable[[np.ndarray], np.ndarray], transposed: bool = False, by_rows: bool = False,
    ):  # fmt: skip
        self.shape, self.dtype, self.arrange, self.transposed = shape, dtype, arrange, transposed
        self._stored, self._cached, self.by_rows = source, None, by_rows
        self.source = source.source if isinstance(source, Unmade) else source

    def make(self) -> np.ndarray:
        return self.arrange(np.asarray(self._stored))

    def columns(self, first: int, end: int) -> np.ndarray:
        """Columns `first` to `end`; other columns are only converted if `by_rows` is False."""
        if not self.by_rows:
            return self.array()[:, first:end]
        stored = self._stored
        if isinstance(stored, (Unpacked, InBlocks)):
            return self.arrange(stored.rows(first, end))
        return self.arrange(np.asarray(stored)[first:end])

    @property
    def stored_type(self) -> str:
        """The element type of a source with less than 8 bits per element, else ""."""
        return self._stored.element_type if isinstance(self._stored, Unpacked) else ""

    def stored_rows(self) -> tuple[np.ndarray, int] | None:
        """(source bytes of each column [columns, bytes], bits of an element). None if columns are not rows of
        the source, or do not begin at a byte."""
        stored, outs = self._stored, self.shape[1]
        if not self.by_rows or not self.size:
            return None
        if isinstance(stored, Unpacked):
            bits = ELEMENT_TYPES[stored.element_type].bits
            each = self.shape[0] * bits
            raw = stored.source.reshape(-1)
            if each % 8 or raw.dtype.itemsize != 1 or raw.size * 8 < each * outs:
                return None
            return raw.view(np.uint8)[: each * outs // 8].reshape(outs, each // 8), bits
        if not isinstance(stored, np.ndarray) or not stored.flags.c_contiguous or stored.size != self.size:
            return None
        return stored.reshape(outs, -1).view(np.uint8), 8 * stored.itemsize


class Unpacked(Unmade):
    """Elements of 2 or 4 bits, of the type `element_type`, packed in the bytes `source`."""

    __slots__ = ("element_type",)

    def __init__(self, source: np.ndarray, shape: Sequence[int], element_type: str):
        self.source, self.shape, self.element_type = source, tuple(shape), element_type
        self.dtype = numpy_dtype(element_type)
        self._cached = None

    def make(self) -> np.ndarray:
        return self._unpack(self.source, self.shape)

    def reshape(self, shape: Sequence[int]) -> Unpacked:
        """The same elements in another shape."""
        return type(self)(self.source, shape, self.element_type)

    def rows(self, first: int, end: int) -> np.ndarray:
        """The elements from `first` to `end` along the first dimension."""
        bits = ELEMENT_TYPES[self.element_type].bits
        each = math.prod(self.shape[1:])
        start = first * each * bits // 8  # a row may begin within a byte
        part = self.source.reshape(-1)[start : -(-end * each * bits // 8)]
        skip = first * each - start * 8 // bits
        flat = self._unpack(part, (skip + (end - first) * each,))[skip:]
        return flat.reshape(end - first, *self.shape[1:])

    def _unpack(self, source: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        return unpack_low_first(source, ELEMENT_TYPES[self.element_type].bits, shape, self.dtype)


class Codes(Unpacked):
    """Integers of 4 or 8 bits of a file's blocks, in memory of their own. Products with them may round rows
    to 8 bits on CPUs where those with other integers do not."""

    __slots__ = ()

    def _unpack(self, source: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        if ELEMENT_TYPES[self.element_type].is_packed:
            return super()._unpack(source, shape)
        return source.view(self.dtype)[: math.prod(shape)].reshape(shape)


class InBlocks(Unmade):
    """The elements `read(rows)` of a file's blocks, `source` [rows, bytes], with rows permuted by `order`.

    Codes take `bits` bits each. For scales and minima, `factors` maps rows to `Factors`.
    """

    __slots__ = ("bits", "factors", "order", "read")
    source: np.ndarray

    def __init__(
        self, source: np.ndarray, shape: Sequence[int], dtype: np.dtype,
        read: Callable[[np.ndarray], np.ndarray], order: np.ndarray | None = None, bits: int = 0,
        factors: Callable[[np.ndarray], Factors] | None = None,
    ):  # fmt: skip
        self.source, self.shape, self.dtype, self.read = source, tuple(shape), np.dtype(dtype), read
        self.order, self.bits, self.factors, self._cached = order, bits, factors, None

    def reshape(self, shape: Sequence[int]) -> InBlocks:
        """The same elements in another shape."""
        return InBlocks(self.source, shape, self.dtype, self.read, self.order, self.bits, self.factors)

    def make(self) -> np.ndarray:
        return self.rows(0, len(self.source)).reshape(self.shape)

    def raw(self, first: int, end: int) -> np.ndarray:
        """The bytes of some rows."""
        return self.source[first:end] if self.order is None else self.source[self.order[first:end]]

    def rows(self, first: int, end: int) -> np.ndarray:
        """The elements of rows `first` to `end`, as [rows, elements of a row]."""
        each = self.size // max(1, len(self.source))
        result = np.empty((end - first, each), self.dtype)
        some = max(1, _AT_ONCE // max(1, each))
        for start in range(first, end, some):
            stop = min(start + some, end)
            result[start - first : stop - first] = self.read(self.raw(start, stop)).reshape(
                stop - start, each
            )
        return result


class Factors(NamedTuple):
    """Factors of scales: `outer` [rows, runs] in f16, `inner` [rows, groups] of 8 bits. `inner` None: each
    group has an outer factor of its own."""

    outer: np.ndarray
    inner: np.ndarray | None


class Factored(Unmade):
    """Scales or zeros [groups, outs] with their factors. Zeros encode minima: `zero * scale` is the negated
    minimum."""

    __slots__ = ("blocks",)

    def __init__(self, blocks: InBlocks, shape: Sequence[int]):
        self.source, self.blocks, self.shape, self._cached = blocks.source, blocks, tuple(shape), None
        self.dtype = np.dtype(np.float32)

    def make(self) -> np.ndarray:
        return np.ascontiguousarray(np.asarray(self.blocks).reshape(self.shape[::-1]).T.astype(np.float32))

    @property
    def is_nested(self) -> bool:
        """Whether groups have integers of their own, times a common factor."""
        assert self.blocks.factors is not None
        return self.blocks.factors(self.blocks.raw(0, 1)).inner is not None

    def factors(self) -> Factors:
        assert self.blocks.factors is not None
        return self.blocks.factors(self.blocks.raw(0, len(self.source)))


class Converted(Unmade):
    """`source`, converted through the element types `through`, in this order; the last one is the result's.

    A consumer that reads it once, in another order, uses `source` and `convert`.
    """

    __slots__ = ("through",)

    def __init__(self, source: np.ndarray | Converted, through: Sequence[np.dtype]):
        first, before = (source.source, source.through) if isinstance(source, Converted) else (source, ())
        self.source, self.shape = first, first.shape
        steps = (*before, *through)
        if len(steps) > 1 and steps[0] == np.float32 and from_numpy(first.dtype) in HALVES:
            steps = steps[1:]  # f32 has all numbers of f16 and bf16
        self.through: tuple[np.dtype, ...] = steps
        self.dtype = self.through[-1]
        self._cached = None

    @property
    def is_exact(self) -> bool:
        """Whether the conversion is exact: from f16 or bf16 to f32."""
        return self.through == (np.dtype(np.float32),) and from_numpy(self.source.dtype) in HALVES

    def convert(self, part: np.ndarray) -> np.ndarray:
        """Convert a part of the source."""
        for dtype in self.through:
            part = part.astype(dtype)
        return part

    def make(self) -> np.ndarray:
        result = self.convert(self.source)
        return remember_conversion(result, self.source) if len(self.through) == 1 else result


class WeakView:
    """A view of an array that it does not keep alive."""

    def __init__(self, view: np.ndarray) -> None:
        owner = view
        while isinstance(owner.base, np.ndarray):
            owner = owner.base
        self._owner = weakref.ref(owner)
        self._dtype, self._shape, self._strides = view.dtype, view.shape, view.strides
        self._offset = view.ctypes.data - owner.ctypes.data

    def restore(self) -> np.ndarray | None:
        """The view. None if its array does not exist any more, or is not contiguous."""
        owner = self._owner()
        if owner is None or not owner.flags.c_contiguous:
            return None
        plain = owner.reshape(-1).view(np.uint8)
        return np.ndarray(self._shape, self._dtype, plain, self._offset, self._strides)


_conversions: dict[int, tuple[weakref.ref[np.ndarray], Callable[[], np.ndarray | None]]] = {}


def remember_conversion(result: np.ndarray, source: np.ndarray) -> np.ndarray:
    """Record that `result` has the elements of `source`, converted to its type, in the same order; or those
    of the array that `source` is an exact conversion of. Returns `result`. A source that has its own memory
    is not kept alive."""
    owner = _owner(result)
    first = conversion_of(source) if source.dtype == np.float32 and source.flags.c_contiguous else None
    if first is not None and source.size == first[0].size and from_numpy(first[0].dtype) in HALVES:
        source = first[0]
    if owner.size == source.size and owner.flags.c_contiguous and source.flags.c_contiguous:
        number = id(owner)
        reference = weakref.ref(owner, lambda _: _conversions.pop(number, None))
        _conversions[number] = reference, (lambda: source) if stays(source) else WeakView(source).restore
    return result


def conversion_of(array: np.ndarray) -> tuple[np.ndarray, int] | None:
    """The source of the converted array that `array` is a view of, and the view's offset in bytes. None for
    other arrays, and for a source that does not exist any more."""
    owner = _owner(array)
    entry = _conversions.get(id(owner))
    source = None if entry is None or entry[0]() is not owner else entry[1]()
    return None if source is None else (source, array.ctypes.data - owner.ctypes.data)


def _owner(array: np.ndarray) -> np.ndarray:
    return array.base if isinstance(array.base, np.ndarray) else array


#: Minimum elements of a lazy conversion.
SMALLEST = 1 << 14


def is_worth(array: np.ndarray | Converted) -> bool:
    """Whether a lazy conversion of the array saves memory."""
    return isinstance(array, Converted) or (array.size >= SMALLEST and stays(array))


def in_f32(array: np.ndarray) -> np.ndarray | Converted:
    """`array` in f32, converted lazily if that saves memory."""
    kind = np.dtype(np.float32)
    return Converted(array, [kind]) if is_worth(array) else array.astype(kind)


def stays(array: np.ndarray) -> bool:
    """Whether an array's memory belongs to a file or to the caller, and so is not freed by a conversion."""
    base: Any = array
    while isinstance(base, np.ndarray):
        array, base = base, base.base
    return not array.flags.owndata
