"""The bytes that each step of a plan reads and writes, for the check of `ovjit.planning.races`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import repeat
from typing import TYPE_CHECKING, Any

import numpy as np

from ovjit.graph.traced import as_found_number
from ovjit.planning.views import Buffer, Ptr, View
from ovjit.records import NamedTuple

if TYPE_CHECKING:
    from ovjit.graph.graph import Value


class Piece(NamedTuple):
    """The bytes of a tensor that one row touches: a box of `shape` and byte `strides` at `ptr`. `along`: byte
    steps for each index of the rows' dimensions."""

    ptr: Ptr
    along: Sequence[int]
    shape: Sequence[int]
    strides: Sequence[int]
    itemsize: int

    def offsets(self, indices: Sequence[np.ndarray]) -> np.ndarray:
        """Byte offsets in the buffer that the rows with these indices touch."""
        out = np.full(1, as_found_number(self.ptr.offset), np.int64)
        for index, stride in zip(indices, self.along, strict=True):
            out = out + index * as_found_number(stride)
        return _expand_boxes(out, (*self.shape, self.itemsize), (*self.strides, 1))


def without_traces(numbers: Sequence[int]) -> tuple[int, ...]:
    """The numbers, without traces."""
    return tuple(map(as_found_number, numbers))


def _expand_boxes(starts: np.ndarray, shape: Sequence[int], strides: Sequence[int]) -> np.ndarray:
    """Offsets of the elements of a box of this shape and strides, for a box at each of `starts`."""
    for extent, stride in zip(without_traces(shape), without_traces(strides), strict=True):
        starts = (starts[:, None] + np.arange(extent) * stride).reshape(-1)
    return starts


#: (buffer, byte offsets in it)
Accesses = list[tuple[Buffer, np.ndarray]]
#: chunk -> (bytes that it reads, bytes that it writes)
Touches = Callable[[int], tuple[Accesses, Accesses]]


class Rows:
    """The bytes of chunks of `per_chunk` items. Items tile the index space `extents`, last dimension fastest.
    An item has `sizes[d]` indices along dimension d; the last item along d may have fewer."""

    def __init__(
        self,
        extents: Sequence[int],
        per_chunk: int,
        reads: Sequence[Piece],
        writes: Sequence[Piece],
        sizes: Sequence[int] = (),
    ):
        self.extents = without_traces(extents) or (1,)
        self.per_chunk = as_found_number(per_chunk)
        self.reads = reads
        self.writes = writes
        self.sizes = tuple(map(min, without_traces(sizes) or repeat(1), self.extents))

    def __call__(self, chunk: int) -> tuple[Accesses, Accesses]:
        counts = [-(-n // size) if size else 0 for n, size in zip(self.extents, self.sizes, strict=True)]
        first, end = (min((chunk + i) * self.per_chunk, int(np.prod(counts))) for i in (0, 1))
        positions = np.unravel_index(np.arange(first, end), counts)
        inside = np.indices(self.sizes).reshape(len(counts), 1, -1)
        rows = np.multiply(positions, np.array(self.sizes)[:, None])[:, :, None] + inside
        indices = tuple(rows[:, (rows < np.array(self.extents)[:, None, None]).all(0)])
        read, written = (
            [(o.ptr.buffer, o.offsets(indices if o.along else ())) for o in operands]
            for operands in (self.reads, self.writes)
        )
        return read, written


def gaps(ptr: Ptr, extents: Sequence[int], strides: Sequence[int], run: int, per_chunk: int) -> Touches:
    """The bytes of chunks of `per_chunk` gaps between rows of `run` bytes. Gaps include the one before the
    first row and the one after the last, up to the buffer's ends. `ptr`: the first row."""

    def touches(chunk: int) -> tuple[Accesses, Accesses]:
        offset, size, length, each = without_traces((ptr.offset, ptr.buffer.size, run, per_chunk))
        starts = _expand_boxes(np.full(1, offset, np.int64), extents, strides)
        edges = np.stack([np.append(0, starts + length), np.append(starts, size)], axis=1)
        some = edges[chunk * each : (chunk + 1) * each]
        return [], [(ptr.buffer, np.concatenate([np.arange(*gap) for gap in some]))]

    return touches


class Trace:
    """The steps of a planning in order, their groups, and after which step each value is complete."""

    def __init__(self) -> None:
        self.steps: list[tuple[Sequence[View], Sequence[View], Touches | None]] = []
        self.groups: list[tuple[int, Any]] = []  # first step, group; None: its inputs are not checked
        self.done: dict[Value, int] = {}  # value -> the number of steps after which it is complete

    def step(self, reads: Sequence[View], writes: Sequence[View], touches: Touches | None = None) -> None:
        self.steps.append((tuple(reads), tuple(writes), touches))

    def begin(self, group: Any, views: Mapping[Value, View]) -> None:
        """Steps from now on belong to `group`. All values that have views by now are complete."""
        self.settle(views)
        self.groups.append((len(self.steps), group))

    def settle(self, views: Mapping[Value, View]) -> None:
        """Note that all values with views are complete. A view of an input is complete when the input is."""
        first, group = self.groups[-1] if self.groups else (0, None)
        written = {id(view.buffer) for _, writes, _ in self.steps[first:] for view in writes}
        for value, view in views.items():
            if value not in self.done:
                alias = group is not None and value in group.outputs and id(view.buffer) not in written
                sources = [v for v in group.inputs if v in self.done] if group is not None and alias else ()
                ends = [self.done[v] for v in sources if views[v].buffer is view.buffer]
                self.done[value] = max(ends, default=len(self.steps))

    def enter(self, group: Any) -> bool:
        """Steps from now on belong to `group`, a deferred one that the current group asks for. Returns
        whether the current one has steps."""
        first, asking = self.groups[-1]
        self.groups.append((len(self.steps), group))
        return asking is None or first < len(self.steps)

    def leave(self, asking: Any, begun: bool) -> None:
        """Steps from now on belong to `asking` again, whose inputs are checked here unless it has `begun`."""
        self.groups.append((len(self.steps), None if begun else asking))
