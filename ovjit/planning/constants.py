"""Constant memory: a model's constants, packed or not, and the tables of a plan for its shapes."""

from __future__ import annotations

import collections
import contextlib
import functools
import mmap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import Any

import numpy as np

from ovjit import cores, os_threads
from ovjit.codegen.memory import SIZE
from ovjit.errors import OvjitError
from ovjit.file_maps import owner_of
from ovjit.graph import dtypes
from ovjit.graph.converted import WeakView, conversion_of
from ovjit.graph.dtypes import subnormals_in
from ovjit.graph.traced import Traced
from ovjit.planning.views import CONSTANTS, Buffer, Ptr, View, row_major
from ovjit.records import NamedTuple

ALIGNMENT = 64
#: Bytes of a mapped table that are read before their pages are released.
_LOOKED_AT = 1 << 22
#: Arrays of 8-bit integers with more bytes are weights.
_SMALL_TABLE = 4096
#: Constants of fewer bytes have no recipe, unless their source is in a file.
_SMALL_CONSTANT = 4096


class Panels(NamedTuple):
    """Position and form of a constant that is packed for a tile kernel.

    `offset` is in bytes. Each of G groups has panels [depth, widths[0]], then one of `widths[1]` outputs
    (0: none). `constant.reshape(dims).transpose(order).reshape(matrix)` is [G, depth, O].
    """

    offset: int
    matrix: Sequence[int]
    widths: tuple[int, int]
    dims: Sequence[int]
    order: Sequence[int]


class PackedRows(NamedTuple):
    """The layout of a packed table at byte `offset`: panels of `width` rows and `panel` bytes. A row is
    `words` words of `word` bytes. A panel has word 0 of all of its rows, then word 1, and so on. The last
    panel has `last` rows. The bits of `flip` are inverted in each word, as those of a signed type."""

    offset: int
    word: int
    words: int
    panel: int
    width: int
    last: int
    flip: int = 0


class Converting(NamedTuple):
    """A view of an array after its conversion: the element type, the view's offset in bytes, its shape and
    strides."""

    dtype: str
    offset: int
    shape: Sequence[int]
    strides: Sequence[int]

    def apply(self, source: np.ndarray) -> np.ndarray:
        """The view of the converted `source`."""
        dtype = dtypes.numpy_dtype(self.dtype)
        return np.ndarray(self.shape, dtype, source.astype(dtype), self.offset, self.strides)


class Recipe(NamedTuple):
    """Serializable call that fills memory: `function(bytes, source, **arguments)`, with JSON arguments.

    `ovjit.storage.by_file` lists the functions that files can name. `converting` is applied to the source
    first, if there is one.
    """

    function: Callable[..., None]
    arguments: Mapping[str, Any]
    converting: Converting | None = None


class Filling(NamedTuple):
    """`nbytes` of constant memory that `fill(bytes)` writes once the memory is allocated. `source`: the only
    array that it reads, if there is one. `recipe`: the same function in storable form, if there is one."""

    nbytes: int
    fill: Callable[[np.ndarray], None]
    source: np.ndarray | None = None
    recipe: Recipe | None = None

    @classmethod
    def by(cls, nbytes: int, source: np.ndarray, function: Callable[..., None], **arguments: Any) -> Filling:
        """A Filling by `function(bytes, source, **arguments)`, with its recipe."""
        fill = functools.partial(function, source=source, **arguments)
        return cls(nbytes, fill, source, Recipe(function, arguments))


def fill_copy(memory: np.ndarray, source: np.ndarray, shared: bool = False) -> None:
    """Copy `source` to `memory`, row-major. A large mapped source is read in parts, whose pages are released.
    `shared`: `memory` is in a mapped file, and its pages are released too."""
    target = memory.view(source.dtype).reshape(source.shape)
    if source.nbytes <= _LOOKED_AT or not source.ndim:
        np.copyto(target, source)
        return
    rows = max(1, _LOOKED_AT // max(1, source[:1].nbytes))
    for n in range(0, len(source), rows):
        np.copyto(target[n : n + rows], source[n : n + rows])
        release_pages(source[n : n + rows])
        if shared:
            release_pages(target[n : n + rows], shared)


class Constants:
    """Constant memory: each distinct array once, at a 64-byte aligned offset."""

    def __init__(self, base: int = CONSTANTS) -> None:
        self.base = base
        self.size = 0
        self.arrays: list[tuple[int, np.ndarray | Filling]] = []
        self.sizes: dict[int, int] = {}  # offset -> bytes
        self.placed_offsets: list[int] = []  # offsets that `add` has returned, in order
        self.steering: list[tuple[int, int]] = []  # (offset, bytes) of arrays that kernels use unchecked
        self._offset_by_key: dict[Any, int] = {}
        self._panels: dict[int, Panels] = {}
        self._rows: dict[int, PackedRows] = {}
        self._alive: list[Any] = []
        #: (offset, bytes, array, recipe) of constants that derive from arrays in mapped files, for
        #: `kept_models`
        self.of_files: list[tuple[int, int, np.ndarray, Recipe]] = []
        self._of_arrays: list[tuple[int, int, WeakView, Recipe]] = []
        #: (offset, bytes, number) of elements that are traced
        self.traced: list[tuple[int, int, Traced]] = []

    def add(self, array: np.ndarray | Filling, key: Any = None) -> Ptr:
        """The address of `array` in constant memory. Equal keys are placed once. The default key is the
        object's identity."""
        named = key is not None
        key = key if named else id(array)
        offset = self._offset_by_key.get(key)
        if offset is None:
            if not named:
                self._alive.append(array)  # an id is only good while its object lives
            offset = self._offset_by_key[key] = self.size
            self.arrays.append((offset, array))
            self.sizes[offset] = array.nbytes
            if steers(array):
                self.steering.append((offset, array.nbytes))
            self.size = align_up(self.size + array.nbytes)
        self.placed_offsets.append(offset)
        return self.at(offset)

    def at(self, offset: int) -> Ptr:
        return Ptr(Buffer(0, self.base), offset)

    def piece(self, offset: int) -> tuple[int, int]:
        """(offset, bytes) of the array in which `offset` lies."""
        start = max((o for o in self.sizes if o <= offset), default=0)
        return start, self.sizes.get(start, 0)

    def holds(self, array: np.ndarray) -> bool:
        return id(array) in self._offset_by_key

    def offset_of(self, array: np.ndarray) -> int | None:
        """The offset of an unpacked copy of `array`, None if there is none."""
        return self._offset_by_key.get(id(array))

    def note_panels(self, array: np.ndarray, panels: Panels) -> None:
        """Record that `array` is stored as `panels`, so that a blob need not store it again."""
        self._panels[id(array)] = panels
        self._alive.append(array)

    def panels_of(self, array: np.ndarray) -> Panels | None:
        return self._panels.get(id(array))

    def note_rows(self, table: np.ndarray, rows: PackedRows) -> None:
        """Record that the rows of `table` are stored as `rows`, with subnormal numbers flushed to 0."""
        if rows.words > 1:
            self._rows[id(table)] = rows
            self._alive.append(table)

    def rows_of(self, table: np.ndarray) -> PackedRows | None:
        """The packed layout that has the exact bits of `table`. None if there is none, or if an unpacked copy
        exists."""
        rows = self._rows.get(id(table))
        return None if rows is None or self.holds(table) or has_subnormals(table) else rows

    def view(self, array: np.ndarray, dtype: str) -> View:
        offset = self.add(array).offset
        size = SIZE.get(dtype, array.itemsize)
        home = Buffer(array.size * size, self.base, offset)
        if home.size != array.nbytes:
            raise OvjitError(f"internal error: a constant of {dtype} is an array of {array.dtype}")
        return View(home, array.shape, row_major(array.shape, size), size)

    def traced_view(self, array: np.ndarray, dtype: str) -> View:
        """Like `view`, for an object array with traced numbers."""
        numbers = array.reshape(-1).tolist()
        here = [x.value if type(x) is Traced else x for x in numbers]
        view = self.view(np.array(here, dtypes.numpy_dtype(dtype)).reshape(array.shape), dtype)
        at, size = view.buffer.offset, view.itemsize
        self.traced += [(at + i * size, size, x) for i, x in enumerate(numbers) if type(x) is Traced]
        return view

    def materialize(self, memory: np.ndarray | None = None, in_background: bool = False) -> np.ndarray:
        """Write all constants into one aligned byte array and return it: `memory` if given, which may be a
        mapped file's. `in_background`: they may be incomplete until the end of a `pack_in_background`.

        Offsets do not change. References to the arrays are dropped. Arrays in mapped files move to
        `of_files`, and the pages that were read are released.
        """
        shared = memory is not None and is_mapped(memory)
        memory = aligned_bytes(self.size) if memory is None else memory
        tasks = []
        for offset, array in self.arrays:
            target = memory[offset : offset + array.nbytes]
            if isinstance(array, Filling):
                tasks.append((array.nbytes, functools.partial(array.fill, target)))
            elif array.size:
                tasks.append((array.nbytes, functools.partial(fill_copy, target, array, shared)))
        delayed = _delayed.get() if in_background else None
        work = Tasks(tasks, delayed is not None)
        arrays, self.arrays = self.arrays, []

        def complete() -> None:
            work.finish()
            for offset, array in arrays:
                # padding is deterministic; written last, when threads have touched the pages
                memory[offset + array.nbytes : align_up(offset + array.nbytes)] = 0
                self._release(offset, array)

        if delayed is None or not work.is_parallel:
            complete()
        else:
            delayed.append((work, complete))
        return memory

    def _release(self, offset: int, array: np.ndarray | Filling) -> None:
        """Release the pages of a mapped file that a written constant was made from, and note its recipe."""
        source = array.source if isinstance(array, Filling) else array
        recipe = array.recipe if isinstance(array, Filling) else Recipe(fill_copy, {})
        if source is None:
            return
        direct, recorded = source, recipe
        if recipe is not None and not is_mapped(source):
            source, recipe = _before_conversion(source, recipe)
        if is_mapped(source):
            release_pages(source)
            if recipe is not None:
                self.of_files.append((offset, array.nbytes, source, recipe))
        elif recipe is not None and array.nbytes >= _SMALL_CONSTANT and not source.dtype.hasobject:
            self._of_arrays.append((offset, array.nbytes, WeakView(source), recipe))
            if source is not direct and recorded is not None:
                self._of_arrays.append((offset, array.nbytes, WeakView(direct), recorded))

    def recipes(self) -> Iterator[tuple[int, int, np.ndarray, Recipe]]:
        """Yield (offset, bytes, array, recipe) of constants that derive from arrays that still exist. A
        constant may have several; the first is that from before a conversion."""
        yield from self.of_files
        for offset, nbytes, view, recipe in self._of_arrays:
            source = view.restore()
            if source is not None:
                yield offset, nbytes, source, recipe


def _before_conversion(source: np.ndarray, recipe: Recipe) -> tuple[np.ndarray, Recipe]:
    """The array that `source` was converted from, and the recipe with the conversion; both unchanged if it
    was not."""
    conversion = conversion_of(source)
    if conversion is None:
        return source, recipe
    converting = Converting(dtypes.from_numpy(source.dtype), conversion[1], source.shape, source.strides)
    return conversion[0], recipe._replace(converting=converting)


#: Bytes from which on several threads fill constant memory, and minimum bytes of a task that a thread claims.
_MANY, _PIECE = 1 << 23, 1 << 17


_written: Callable[[int, int], object] | None = None


def tell_written(callback: Callable[[int, int], object] | None) -> Callable[[int, int], object] | None:
    """Call `callback(bytes written, bytes in all)` after each large constant that is written, from the thread
    that wrote it. None: no callback. Returns the previous callback."""
    global _written
    before, _written = _written, callback
    return before


#: Constants that wait for the end of `pack_in_background`: their tasks, and what completes them.
_delayed: ContextVar[list[tuple[Tasks, Callable[[], None]]] | None] = ContextVar("delayed", default=None)


@contextlib.contextmanager
def pack_in_background() -> Iterator[None]:
    """Context manager in which other threads write the constants that are materialized `in_background`, while
    the caller goes on. All are complete when it ends; until then nothing may read them."""
    delayed: list[tuple[Tasks, Callable[[], None]]] = []
    token = _delayed.set(delayed)
    try:
        yield
        for _, complete in delayed:
            complete()
    finally:
        _delayed.reset(token)
        for work, _ in delayed:
            work.stop()


class Tasks:
    """Tasks (bytes that are written, function). Large ones run on as many threads as there are cores; the
    last of these is the caller of `finish`, which may be busy until then."""

    def __init__(self, tasks: Sequence[tuple[int, Callable[[], None]]], busy: bool = False):
        large = sorted((task for task in tasks if task[0] >= _PIECE), key=lambda task: -task[0])
        self._queue, self._errors = collections.deque(large), list[BaseException]()
        self._total, self._done = sum(size for size, _ in large), list[int]()
        self._threads: list[Any] = []
        count = min(cores.usable_cores()[0], len(large) + busy) - 1
        try:
            if self._total >= _MANY:
                with contextlib.suppress(RuntimeError):  # a thread cannot be started: fewer do the work
                    for _ in range(count):
                        os_threads.start(self._work, (), "ovjit-packing", self._threads.append)
            for size, run in tasks:
                if size < _PIECE:
                    run()
        except BaseException:
            self.stop()
            raise

    @property
    def is_parallel(self) -> bool:
        return bool(self._threads)

    def _work(self) -> None:
        while not self._errors:
            try:
                size, run = self._queue.popleft()
            except IndexError:
                return
            try:
                run()
                self._done.append(size)
                if _written is not None:
                    _written(sum(self._done), self._total)
            except BaseException as error:
                self._errors.append(error)

    def finish(self) -> None:
        """Run the tasks that no thread has begun, and wait for the others. Raises the first exception when no
        task is running any more."""
        try:
            self._work()
        finally:
            self.stop()
        if self._errors:
            raise self._errors[0]

    def stop(self) -> None:
        """Wait for the tasks that are running; no others begin."""
        self._queue.clear()
        for thread in self._threads:
            thread.join(os_threads.FOREVER)


def in_threads(tasks: Sequence[tuple[int, Callable[[], None]]]) -> None:
    """Run all tasks, see `Tasks`. The first exception is raised when no task is running any more."""
    Tasks(tasks).finish()


def steers(array: np.ndarray | Filling) -> bool:
    """Whether kernels may use the elements as addresses, counts or orders without range checks.

    True for all integers, except large arrays of 8-bit ones, which are weights. Packed weights are
    `Filling`s. Indices computed from floats or 8-bit integers are clamped where they are used."""
    if isinstance(array, Filling) or array.dtype.kind not in "iub":
        return False
    return array.dtype.itemsize > 1 or array.nbytes <= _SMALL_TABLE


def mapping_of(array: np.ndarray) -> Any:
    """The mapped file that an array's memory belongs to, None for other memory."""
    owner = owner_of(array)
    return owner if isinstance(owner, mmap.mmap) else None


def is_mapped(array: np.ndarray) -> bool:
    """True for an array in a mapped file."""
    return mapping_of(array) is not None


def release_pages(array: np.ndarray, shared: bool = False) -> None:
    """Release the pages of a mapped file that lie wholly inside of this array. A later read gets them from
    the system's page cache.

    Has no effect on arrays in other memory, or on pinned mappings. Nor on writable mappings unless `shared`:
    changes to a private mapping exist only in its pages."""
    home = mapping_of(array)
    if home is None or not hasattr(mmap, "MADV_DONTNEED") or not array.size:
        return
    if not (memoryview(home).readonly or shared) or getattr(home, "pinned", False):
        return
    low, high = np.lib.array_utils.byte_bounds(array)
    begin = np.frombuffer(home, np.uint8, 1).ctypes.data
    first = -(-(low - begin) // mmap.PAGESIZE) * mmap.PAGESIZE
    end = (high - begin) // mmap.PAGESIZE * mmap.PAGESIZE
    if first < end:
        home.madvise(mmap.MADV_DONTNEED, first, end - first)


def has_subnormals(table: np.ndarray) -> bool:
    """Whether an array has numbers that packing replaces by zeros. Mapped parts are released."""
    rows = max(1, _LOOKED_AT // max(1, table[:1].nbytes))
    for n in range(0, len(table), rows):
        if any(True for _ in subnormals_in(np.ascontiguousarray(table[n : n + rows]))):
            return True
        release_pages(table[n : n + rows])
    return False


def is_native(dtype: str) -> bool:
    """True for element types that kernels support. Only host steps read and write other types."""
    return dtype in SIZE


def element_size(dtype: str) -> int:
    """Bytes of an element in memory. Elements of packed types take a byte each."""
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


def align_up(n: int, alignment: int = ALIGNMENT) -> int:
    return (n + alignment - 1) // alignment * alignment
