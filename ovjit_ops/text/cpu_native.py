"""Arguments of native routines by operations on strings, and their errors."""

from __future__ import annotations

from typing import Any

import numpy as np

from ovjit.codegen.native_routines import address
from ovjit.errors import InferenceError
from ovjit.forks import ForkLock
from ovjit_ops.text.packed import check_shapes, check_skips


def as_i32(x: Any) -> np.ndarray:
    """x as a contiguous array of i32."""
    return np.ascontiguousarray(x, np.int32)


def as_bytes(x: Any) -> np.ndarray:
    return np.ascontiguousarray(x, np.uint8)


def ranges_of(begins: Any, ends: Any) -> list[np.ndarray]:
    """The begins and ends of ranges as i32. Raises InferenceError if their shapes differ."""
    check_shapes(begins, ends)
    return [as_i32(begins), as_i32(ends)]


def strings_of(begins: Any, ends: Any, chars: Any) -> tuple[list[np.ndarray], list[int]]:
    """(arrays that must stay alive, their addresses and sizes) of packed strings."""
    arrays = [*ranges_of(begins, ends), as_bytes(chars)]
    return arrays, [*map(address, arrays), arrays[0].size, arrays[2].size]


def marks_at(skips: np.ndarray | None, arrays: list[np.ndarray]) -> int:
    """The address of the marks (u8) of strings that are kept; 0 without `skips`. `arrays`: the strings
    (`strings_of`), to which the marks are added."""
    if skips is None:
        return 0
    check_skips(skips, arrays[0].size)
    arrays.append(as_bytes(skips.view(np.uint8)))
    return address(arrays[-1])


def refuse(code: int, name: str) -> None:
    """Raise InferenceError for a negative result of a routine."""
    if code == OUTSIDE:
        raise InferenceError(f"{name}: a string or a row is outside of its elements")
    if code == TOO_LONG:
        raise InferenceError(f"{name}: the strings have 2 GiB or more in total")


#: Results of routines that are errors; the last two ask for more memory, for results and for a string.
OUTSIDE, TOO_LONG, FULL, LONG = -1, -2, -3, -4
#: Less than all of these.
OTHER = -16


class Slices:
    """Parts of one new array of i32, so that one address is asked for."""

    def __init__(self, *sizes: int):
        self._array = np.empty(sum(sizes), np.int32)
        self._sizes = sizes
        at = address(self._array)
        self.args = []
        for size in sizes:
            self.args.append(at)
            at += 4 * size

    def arrays(self) -> list[np.ndarray]:
        out, at = [], 0
        for size in self._sizes:
            out.append(self._array[at : at + size])
            at += size
        return out


class Scratch:
    """Memory that a routine of one node may overwrite, for one thread at a time; others get their own."""

    def __init__(self) -> None:
        self.lock = ForkLock("words")
        self._memory = np.empty(0, np.int64)

    def of(self, count: int) -> np.ndarray:
        """At least `count` int64s. The caller holds the lock."""
        if self._memory.size < count:
            self._memory = np.empty(count + count // 2, np.int64)
        return self._memory
