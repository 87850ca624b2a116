"""Constant memory: of a model, what its kernels read as it is or packed; of a plan, tables for its shapes."""

from __future__ import annotations

import collections
import contextlib
import functools
import mmap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ovjit import cores, os_threads
from ovjit.codegen.memory import SIZE
from ovjit.errors import OvjitError
from ovjit.graph import dtypes
from ovjit.graph.dtypes import flush_subnormals
from ovjit.graph.traced import Traced
from ovjit.planning.views import CONSTANTS, Buffer, Ptr, View, row_major
from ovjit.records import NamedTuple

ALIGNMENT = 64
#: Bytes of a table that are looked at before their pages are given back.
_LOOKED_AT = 1 << 22
#: Larger arrays of bytes are weights.
_SMALL_TABLE = 4096


class Panels(NamedTuple):
    """Place and form of a constant that is rearranged for the tile kernel.

    At `offset`, each of G groups has panels of `widths[0]` outputs, [depth, width] each, the last of
    `widths[1]` (0: none). Seen as [G, depth, O] the constant is
    `reshape(dims).transpose(order).reshape(matrix)`.
    """

    offset: int
    matrix: Sequence[int]
    widths: tuple[int, int]
    dims: Sequence[int]
    order: Sequence[int]


class PackedRows(NamedTuple):
    """The layout of a packed table at `offset`: panels of `width` rows, `panel` bytes each. A row has `words`
    words. A panel has the first `word` bytes of each of its rows, then the second, and so on. The last panel
    has `last` rows."""

    offset: int
    word: int
    words: int
    panel: int
    width: int
    last: int


class Recipe(NamedTuple):
    """How to fill memory, in a form that a file can store: `function(bytes, source, **arguments)`. Arguments
    are JSON. `ovjit.storage.by_file` lists the functions that have a name there."""

    function: Callable[..., None]
    arguments: Mapping[str, Any]


class Filling(NamedTuple):
    """`nbytes` of constant memory that `fill(bytes)` writes when there is memory, from `source` if that is
    one array, and as `recipe` says if there is one."""

    nbytes: int
    fill: Callable[[np.ndarray], None]
    source: np.ndarray | None = None
    recipe: Recipe | None = None

    @classmethod
    def by(cls, nbytes: int, source: np.ndarray, function: Callable[..., None], **arguments: Any) -> Filling:
        """What `function(bytes, source, **arguments)` fills."""
        fill = functools.partial(function, source=source, **arguments)
        return cls(nbytes, fill, source, Recipe(function, arguments))


def fill_copy(memory: np.ndarray, source: np.ndarray, shared: bool = False) -> None:
    """A copy of `source`, row-major. Of a large one no more than a part has pages in this process; `shared`:
    nor has the copy, which lies in a file that is mapped."""
    target = memory.view(source.dtype).reshape(source.shape)
    if source.nbytes <= _LOOKED_AT or not source.ndim:
        np.copyto(target, source)
        return
    few = max(1, _LOOKED_AT // max(1, source[:1].nbytes))
    for n in range(0, len(source), few):
        np.copyto(target[n : n + few], source[n : n + few])
        release_pages(source[n : n + few])
        if shared:
            release_pages(target[n : n + few], shared)


class Constants:
    """Constant memory: arrays at 64-byte aligned offsets, each once."""

    def __init__(self, base: int = CONSTANTS) -> None:
        self.base = base
        self.size = 0
        self.arrays: list[tuple[int, np.ndarray | Filling]] = []
        self.sizes: dict[int, int] = {}  # offset -> bytes
        self.asked: list[int] = []  # what `place` has given, in order
        self.steering: list[tuple[int, int]] = []  # (offset, bytes) of what kernels may follow without a look
        self._known: dict[Any, int] = {}
        self._panels: dict[int, Panels] = {}
        self._rows: dict[int, PackedRows] = {}
        self._alive: list[Any] = []
        #: (offset, bytes, array, recipe) of what was made of arrays in mapped files, for `kept_models`
        self.of_files: list[tuple[int, int, np.ndarray, Recipe]] = []
        #: (offset, bytes, number) of elements that are traced
        self.traced: list[tuple[int, int, Traced]] = []

    def place(self, array: np.ndarray | Filling, key: Any = None) -> Ptr:
        """The address of a copy of `array`, or of what fills itself; the same `key` (or object) is placed
        once."""
        named = key is not None
        key = key if named else id(array)
        offset = self._known.get(key)
        if offset is None:
            if not named:
                self._alive.append(array)  # an id is only good while its object lives
            offset = self._known[key] = self.size
            self.arrays.append((offset, array))
            self.sizes[offset] = array.nbytes
            if steers(array):
                self.steering.append((offset, array.nbytes))
            self.size = aligned(self.size + array.nbytes)
        self.asked.append(offset)
        return self.at(offset)

    def at(self, offset: int) -> Ptr:
        return Ptr(Buffer(0, self.base), offset)

    def piece(self, offset: int) -> tuple[int, int]:
        """(offset, bytes) of the array in which `offset` lies."""
        start = max((o for o in self.sizes if o <= offset), default=0)
        return start, self.sizes.get(start, 0)

    def holds(self, array: np.ndarray) -> bool:
        return id(array) in self._known

    def offset_of(self, array: np.ndarray) -> int | None:
        """Where a copy of `array` as it is has been placed, None if none has."""
        return self._known.get(id(array))

    def note_panels(self, array: np.ndarray, panels: Panels) -> None:
        """`array` lies in this memory as `panels`, so that a blob need not hold it twice."""
        self._panels[id(array)] = panels
        self._alive.append(array)

    def panels_of(self, array: np.ndarray) -> Panels | None:
        return self._panels.get(id(array))

    def note_rows(self, table: np.ndarray, rows: PackedRows) -> None:
        """The rows of `table` lie in this memory as `rows`, but for subnormal numbers that have become 0."""
        if rows.words > 1:
            self._rows[id(table)] = rows
            self._alive.append(table)

    def rows_of(self, table: np.ndarray) -> PackedRows | None:
        """The position of the rows of `table`, bit by bit; None if they are in no other array."""
        rows = self._rows.get(id(table))
        return None if rows is None or self.holds(table) or _has_subnormals(table) else rows

    def view(self, array: np.ndarray, dtype: str) -> View:
        offset = self.place(array).offset
        size = SIZE.get(dtype, array.itemsize)
        home = Buffer(array.size * size, self.base, offset)
        if home.size != array.nbytes:
            raise OvjitError(f"internal error: a constant of {dtype} is an array of {array.dtype}")
        return View(home, array.shape, row_major(array.shape, size), size)

    def traced_view(self, array: np.ndarray, dtype: str) -> View:
        """As `view`, of an object array with traced numbers."""
        numbers = array.reshape(-1).tolist()
        here = [x.value if type(x) is Traced else x for x in numbers]
        view = self.view(np.array(here, dtypes.numpy_dtype(dtype)).reshape(array.shape), dtype)
        at, size = view.buffer.offset, view.itemsize
        self.traced += [(at + i * size, size, x) for i, x in enumerate(numbers) if type(x) is Traced]
        return view

    def materialize(self, memory: np.ndarray | None = None) -> np.ndarray:
        """One aligned byte array with everything in it: `memory`, if that is given, which may be a file's.

        The addresses stay. The arrays are let go, but for those in mapped files: `of_files` has them from now
        on, and the pages that were read are given back.
        """
        shared = memory is not None and is_mapped(memory)
        memory = aligned_bytes(self.size) if memory is None else memory
        tasks = []
        for offset, array in self.arrays:
            place = memory[offset : offset + array.nbytes]
            if isinstance(array, Filling):
                tasks.append((array.nbytes, functools.partial(array.fill, place)))
            elif array.size:  # tables, as a rule, of which few rows are read
                tasks.append((array.nbytes, functools.partial(fill_copy, place, array, shared)))
        in_threads(tasks)
        for offset, array in self.arrays:
            # gaps are the same in every process; now that threads have touched the pages around them
            memory[offset + array.nbytes : aligned(offset + array.nbytes)] = 0
            source = array.source if isinstance(array, Filling) else array
            if source is not None and is_mapped(source):
                release_pages(source)
                recipe = array.recipe if isinstance(array, Filling) else Recipe(fill_copy, {})
                if recipe is not None:
                    self.of_files.append((offset, array.nbytes, source, recipe))
        self.arrays = []
        return memory


#: Bytes from which on constant memory is filled by several threads, and of what a thread takes for itself.
_MANY, _PIECE = 1 << 23, 1 << 17


def in_threads(tasks: Sequence[tuple[int, Callable[[], None]]]) -> None:
    """Run all tasks (bytes that are written, function), the large ones by as many threads as there are cores.
    The first exception is raised once no task is running."""
    large = sorted((task for task in tasks if task[0] >= _PIECE), key=lambda task: -task[0])
    left, errors = collections.deque(run for _, run in large), list[BaseException]()

    def work() -> None:
        while not errors:
            try:
                run = left.popleft()
            except IndexError:
                return
            try:
                run()
            except BaseException as error:
                errors.append(error)

    helpers = []
    if sum(size for size, _ in large) >= _MANY:
        with contextlib.suppress(RuntimeError):  # no more threads: those that there are do it
            for _ in range(min(cores.usable_cores()[0], len(large)) - 1):
                helpers.append(os_threads.start(work, (), "ovjit-packing"))
    try:
        for size, run in tasks:
            if size < _PIECE:
                run()
        work()
    except BaseException as error:
        errors.append(error)
    for helper in helpers:
        helper.join(os_threads.FOREVER)
    if errors:
        raise errors[0]


def steers(array: np.ndarray | Filling) -> bool:
    """Whether kernels may use the elements as addresses, counts or orders without range checks.

    True for all integers, except large arrays of 8-bit ones, which are weights. Packed weights are
    `Filling`s. Indices computed from floats or 8-bit integers are clamped where they are used."""
    if isinstance(array, Filling) or array.dtype.kind not in "iub":
        return False
    return array.dtype.itemsize > 1 or array.nbytes <= _SMALL_TABLE


def mapping_of(array: np.ndarray) -> Any:
    """The mapped file that an array's memory is of, None for other memory."""
    home: Any = array
    while isinstance(home, np.ndarray):
        home = home.base
    home = home.obj if isinstance(home, memoryview) else home
    return home if isinstance(home, mmap.mmap) else None


def is_mapped(array: np.ndarray) -> bool:
    """True for an array in a mapped file."""
    return mapping_of(array) is not None


def release_pages(array: np.ndarray, shared: bool = False) -> None:
    """Return the pages of a mapped file that only this array uses. A later reader finds them in the system's
    cache.

    Unchanged are arrays in other memory, and those with pages of their own. So are writable mappings unless
    they are `shared`, since changes of a private mapping exist only there."""
    home = mapping_of(array)
    if home is None or not hasattr(mmap, "MADV_DONTNEED") or not array.size:
        return
    if not (memoryview(home).readonly or shared) or getattr(home, "pinned", False):
        return
    low, high = np.lib.array_utils.byte_bounds(array)
    begin = np.frombuffer(home, np.uint8, 1).ctypes.data
    first = -(-(low - begin) // mmap.PAGESIZE) * mmap.PAGESIZE
    behind = (high - begin) // mmap.PAGESIZE * mmap.PAGESIZE
    if first < behind:
        home.madvise(mmap.MADV_DONTNEED, first, behind - first)


def _has_subnormals(table: np.ndarray) -> bool:
    few = max(1, _LOOKED_AT // max(1, table[:1].nbytes))
    for n in range(0, len(table), few):
        if flush_subnormals(table[n : n + few].copy()):
            return True
        release_pages(table[n : n + few])
    return False


def is_native(dtype: str) -> bool:
    """True for element types that kernels know; all others are only seen by host steps."""
    return dtype in SIZE


def element_size(dtype: str) -> int:
    """Bytes of an element in memory; elements of packed types have a byte each."""
    size = SIZE.get(dtype)
    if size is None:
        natural = dtypes.ELEMENT_TYPES[dtype].numpy
        size = 1 if natural is None else natural.itemsize
    return size


def aligned_bytes(size: int) -> np.ndarray:
    """Uninitialised bytes that start at a multiple of ALIGNMENT."""
    raw = np.empty(size + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + size]


def aligned(n: int, alignment: int = ALIGNMENT) -> int:
    return (n + alignment - 1) // alignment * alignment
