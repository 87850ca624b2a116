"""The meaning in NumPy of the words for tensor cores and for shared memory on GPUs, for one warp.

A fragment is four registers of each lane, an array [4, lanes]: words of 4 bytes of a factor, or sums. Lane
4 g + t has these elements of a tile, which `mma` multiplies:

    rows of a, 16 x 8 words       words t and t + 4 of the rows g and g + 8
    columns of b, 16 x 8 words    words t and t + 4 of the columns g; and of g + 8
    sums, 16 x 8                  columns 2 t and 2 t + 1 of the rows g and g + 8

`SharedMemory` fails if a kernel reads what has not arrived: a copy whose group was not awaited, or what
another lane has written without a barrier since. It fails, too, if a lane writes what others may still read,
have written without a barrier since, or to what a copy is on its way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ovjit.errors import InferenceError
from ovjit.graph.dtypes import numpy_dtype

#: Bytes that a lane copies at once.
COPIED = 16
#: Who wrote a byte of shared memory, or has read it, if not a single lane.
_NOBODY, _SEVERAL = -1, -2
#: The bits of an f32 that tensor cores multiply.
_TF32 = np.uint32(0xFFFFE000)


class NotArrived(InferenceError):
    """A lane accesses shared memory before it may."""


class SharedMemory:
    """Shared memory of a warp, and the copies to it that are on their way."""

    def __init__(self, size: int):
        self.content = np.zeros(size, np.uint8)
        self.writer = np.full(size, _NOBODY, np.int16)
        self.reader = np.full(size, _NOBODY, np.int16)  # since the last barrier
        self.has_arrived, self.is_seen = np.zeros(size, bool), np.zeros(size, bool)
        self.groups: list[list[tuple[slice, np.ndarray]]] = []
        self.group: list[tuple[slice, np.ndarray]] = []

    def _span(self, address: int, size: int) -> slice:
        if not 0 <= address <= len(self.content) - size or address % size:
            raise NotArrived(f"{size} bytes at {address} are not in the shared memory, or not aligned")
        return slice(address, address + size)

    def take(self, lane: int, address: int, size: int) -> slice:
        """The bytes that a lane is going to write."""
        span = self._span(address, size)
        others = (self.reader[span] != _NOBODY) & (self.reader[span] != lane)
        if others.any():
            raise NotArrived(f"lane {lane} writes byte {address}, which another lane may still read")
        written = self.writer[span] != _NOBODY
        if (written & ~self.has_arrived[span]).any():
            raise NotArrived(f"lane {lane} writes byte {address}, to which a copy is on its way")
        if (written & ~self.is_seen[span] & (self.writer[span] != lane)).any():
            raise NotArrived(f"lane {lane} writes byte {address} without a barrier after another lane")
        self.writer[span], self.has_arrived[span], self.is_seen[span] = lane, False, False
        return span

    def write(self, lane: int, address: int, data: np.ndarray) -> None:
        span = self.take(lane, address, data.nbytes)
        self.content[span], self.has_arrived[span] = data.view(np.uint8), True

    def read(self, lane: int, address: int, size: int) -> np.ndarray:
        """Bytes for a lane; _SEVERAL: for all."""
        span = self._span(address, size)
        if not self.has_arrived[span].all():
            raise NotArrived(f"byte {address} is read before its copy has been awaited")
        if not (self.is_seen[span] | (self.writer[span] == lane)).all():
            raise NotArrived(f"byte {address} is read without a barrier after another lane has written it")
        free = (self.reader[span] == _NOBODY) | (self.reader[span] == lane)
        self.reader[span] = np.where(free, lane, _SEVERAL)
        return self.content[span]

    def wait(self, count: int) -> None:
        """Wait until at most the last `count` groups of copies are on their way."""
        for _ in range(len(self.groups) - count):
            for span, data in self.groups.pop(0):
                self.content[span], self.has_arrived[span] = data, True

    def meet(self) -> None:
        self.is_seen |= self.has_arrived
        self.reader[:] = _NOBODY


def lane_numbers(m: Any, dtype: str) -> np.ndarray:
    return np.arange(m.lanes, dtype=numpy_dtype(dtype))


def shared_memory(m: Any, size: int) -> int:
    """The address of this warp's own shared memory, whose content is undefined."""
    m.shared = SharedMemory(size)
    return 0


def barrier(m: Any) -> None:
    """Let all lanes see what lanes have stored, and the copies that they have awaited."""
    shared = getattr(m, "shared", None)
    if shared is not None:
        shared.meet()


def copy_async(m: Any, to: int, at: np.ndarray, source: int, offsets: np.ndarray, sizes: np.ndarray) -> None:
    """Lane i starts to copy 16 bytes from source + offsets[i] to the shared memory at to + at[i]: sizes[i]
    bytes, 0 or 16, and zeros."""
    lanes = zip(at.tolist(), offsets.tolist(), sizes.tolist(), strict=True)
    for lane, (offset, source_offset, size) in enumerate(lanes):
        span = m.shared.take(lane, to + offset, COPIED)
        data = np.zeros(COPIED, np.uint8)
        if size:
            data[:] = m.memory.at(source + source_offset, COPIED, COPIED)
        m.shared.group.append((span, data))


def commit_copies(m: Any) -> None:
    """The copies since the last call are a group."""
    m.shared.groups.append(m.shared.group)
    m.shared.group = []


def await_copies(m: Any, count: int) -> None:
    m.shared.wait(count)


def read_tiles(m: Any, p: int, at: np.ndarray) -> np.ndarray:
    """Four tiles of 8 rows of 4 words: lane 8 i + r has the address p + at of row r of tile i, and receives
    word lane % 4 of row lane // 4 of each."""
    rows = [m.shared.read(_SEVERAL, p + offset, COPIED).view(np.uint32) for offset in at.tolist()]
    return np.concatenate(rows).reshape(4, m.lanes)


def read_turned(m: Any, p: int, at: np.ndarray) -> np.ndarray:
    """Four tiles of 8 rows of 8 elements of 2 bytes, transposed: lane 8 i + r has the address of row r of
    tile i, as for `read_tiles`, and receives column lane // 4 of the rows 2 (lane % 4) and one more, of
    each."""
    rows = [m.shared.read(_SEVERAL, p + offset, COPIED).view(np.uint16) for offset in at.tolist()]
    tiles = np.concatenate(rows).reshape(4, 8, 8).swapaxes(1, 2)
    return np.ascontiguousarray(tiles).view(np.uint32).reshape(4, m.lanes)


def elements_of(words: np.ndarray, dtype: str) -> np.ndarray:
    """Rows of words as rows of numbers that NumPy multiplies exactly."""
    if dtype == "f32":
        return (words & _TF32).view(np.float32).astype(np.float64)
    is_integer = numpy_dtype(dtype).kind in "iu"
    return words.view(numpy_dtype(dtype)).astype(np.int32 if is_integer else np.float64)


def mma(m: Any, dtype: str, a: np.ndarray, b: np.ndarray, half: int, sums: np.ndarray) -> np.ndarray:
    """sums + the products of 16 rows and of the columns 8 half to 8 half + 7, rounded once. Rows of u8 are
    multiplied with columns of i8."""
    rows = np.ascontiguousarray(a.reshape(2, 2, 8, 4).transpose(1, 2, 0, 3)).reshape(16, 8)
    columns = np.ascontiguousarray(b.reshape(2, 2, 8, 4)[half].transpose(1, 0, 2)).reshape(8, 8)
    products = elements_of(rows, dtype) @ elements_of(columns, "i8" if dtype == "u8" else dtype).T
    lanes = products.reshape(2, 8, 4, 2).transpose(0, 3, 1, 2).reshape(4, m.lanes)
    return (lanes + sums).astype(sums.dtype)


def zero_sums(m: Any, dtype: str) -> np.ndarray:
    return np.zeros((4, m.lanes), np.int32 if dtype[0] in "iu" else np.float32)


def part_of_sums(m: Any, dtype: str, sums: np.ndarray, index: int) -> np.ndarray:
    """Register `index`: column 2 t + index % 2 of the row g, from register 2 on of the row g + 8."""
    part: np.ndarray = sums[index]
    return part


def join_sums(m: Any, dtype: str, *parts: np.ndarray) -> np.ndarray:
    return np.stack(parts)


def pack_sums(m: Any, dtype: str, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Two fragments of sums, of 8 columns each, as rows of 16 elements of 2 bytes for `mma`."""
    elements = np.concatenate([first, second]).astype(numpy_dtype(dtype)).view(np.uint16).astype(np.uint32)
    return elements[0::2] | elements[1::2] << np.uint32(16)


def add_halves(m: Any, dtype: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Sums of pairs of elements of 2 bytes."""
    a, b = (np.ascontiguousarray(v).view(numpy_dtype(dtype)) for v in (x, y))
    total: np.ndarray = a + b
    return total.view(np.int32)


def share_sums(m: Any, dtype: str, p: int, at: np.ndarray, sums: np.ndarray, step: int) -> None:
    """Write a lane's sums of the row g to p + at, and those of the row g + 8 `step` bytes behind."""
    for lane, offset in enumerate(at.tolist()):
        for row in range(2):
            pair = np.ascontiguousarray(sums[2 * row : 2 * row + 2, lane])
            m.shared.write(lane, p + offset + row * step, pair)


def share_elements(m: Any, dtype: str, p: int, at: np.ndarray, elements: np.ndarray) -> None:
    """Lane i writes its element, of 4 or 8 bytes, to p + at[i]."""
    for lane, offset in enumerate(at.tolist()):
        m.shared.write(lane, p + offset, elements[lane : lane + 1])


def read_elements(m: Any, dtype: str, p: int, at: np.ndarray) -> np.ndarray:
    """Lane i reads the element, of 4 or 8 bytes, at p + at[i]."""
    size = numpy_dtype(dtype).itemsize
    parts = [m.shared.read(lane, p + offset, size) for lane, offset in enumerate(at.tolist())]
    return np.concatenate(parts).view(numpy_dtype(dtype))


def read_shared(m: Any, dtype: str, p: int) -> np.ndarray:
    """Elements of 4 bytes of the shared memory, one for each lane."""
    parts: Sequence[np.ndarray] = [m.shared.read(lane, p + 4 * lane, 4) for lane in range(m.lanes)]
    return np.concatenate(parts).view(numpy_dtype(dtype))
