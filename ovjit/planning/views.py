"""Tensors in memory: buffers, strided views of them, and layouts."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from ovjit.codegen.cpu.targets import CACHE_LINE, SET_BYTES
from ovjit.codegen.memory import DIMS
from ovjit.errors import OvjitError
from ovjit.graph.symbolic import alike, statically_known_equal, sym_max
from ovjit.graph.traced import identity, is_traced_number

#: Bases of a job: the arena, the model's constants, the constants of this plan, then inputs, then outputs.
ARENA, CONSTANTS, PLAN_DATA, FIRST_IO = 0, 1, 2, 3


@functools.cache
def _no_halo(rank: int) -> tuple[tuple[int, int], ...]:
    """A single object per rank, so that `is` recognises it."""
    return ((0, 0),) * rank


class Buffer:
    """`size` bytes of memory: in the arena, at an offset from the memory plan, or at a fixed offset of
    another base."""

    __slots__ = ("base", "first", "last", "offset", "size")

    def __init__(self, size: int, base: int = ARENA, offset: int = 0):
        self.size = size
        self.base = base
        self.offset = offset
        self.first = -1  # index of the first and of the last step that uses it
        self.last = -1


class Ptr:
    """An address inside a buffer, resolved to (base, byte offset) when memory has been planned."""

    __slots__ = ("buffer", "offset")

    def __init__(self, buffer: Buffer, offset: int = 0):
        self.buffer = buffer
        self.offset = offset

    def __add__(self, offset: int) -> Ptr:
        return Ptr(self.buffer, self.offset + offset)


class View:
    """A tensor in a buffer: `shape`, byte `strides`, byte `offset` of element 0.

    `halo`: for each dimension the number of readable zero elements before and after it.
    """

    __slots__ = ("buffer", "halo", "itemsize", "offset", "shape", "strides")

    def __init__(
        self,
        buffer: Buffer,
        shape: Sequence[int],
        strides: Sequence[int],
        itemsize: int,
        offset: int = 0,
        halo: Sequence[tuple[int, int]] | None = None,
    ):
        self.buffer = buffer
        self.shape = tuple(shape)
        self.strides = tuple(strides)
        self.itemsize = itemsize
        self.offset = offset
        self.halo = tuple(halo) if halo else _no_halo(len(self.shape))

    @property
    def ptr(self) -> Ptr:
        return Ptr(self.buffer, self.offset)

    @property
    def count(self) -> int:
        n = 1
        for d in self.shape:
            n *= d
        return n

    @property
    def identity(self) -> tuple[Any, ...]:
        """A key of element size, extents, strides and halo, without the offset."""
        halo = () if self.halo is _no_halo(len(self.shape)) else [n for pair in self.halo for n in pair]
        return identity((len(self.shape), self.itemsize, *self.shape, *self.strides, *halo))

    @property
    def reach(self) -> tuple[int, int]:
        """Byte offsets (first, last + 1), halo included. Both are equal for an empty view."""
        low = high = self.offset
        for extent, stride, (before, after) in zip(self.shape, self.strides, self.halo, strict=True):
            if not is_traced_number(extent) and not extent:
                return self.offset, self.offset
            first, last = -before * stride, (extent - 1 + after) * stride
            if stride < 0:
                first, last = last, first
            low += first
            high += last
        return low, high + self.itemsize

    def describe_order(self) -> str:
        """The order of its dimensions in memory, in words. "" for traced strides, which are not compared."""
        shape, strides = self.shape, self.strides
        if not all(isinstance(d, int) for d in (*shape, *strides)):
            return ""
        order = sorted(range(len(shape)), key=lambda a: -strides[a])
        steps = zip(order, row_major([shape[a] for a in order], self.itemsize), strict=True)
        text = in_words(order) + (", expanded" if 0 in strides else "")
        return text + ", with gaps" * any(strides[a] > step and shape[a] > 1 for a, step in steps)

    @property
    def is_contiguous(self) -> bool:
        """Row-major without gaps."""
        plain = row_major(self.shape, self.itemsize)
        return same_strides(self.shape, self.strides, plain) or self.count == 0

    def as_strided(
        self, shape: Sequence[int], strides: Sequence[int], halo: Sequence[tuple[int, int]] | None = None
    ) -> View:
        """The same memory with other dimensions, from the same element on."""
        return View(self.buffer, shape, strides, self.itemsize, self.offset, halo)

    def insert(self, axis: int, count: int = 1, stride: int = 0) -> View:
        """The view with `count` dimensions of 1 before `axis`, which may be the rank."""
        shape, strides = list(self.shape), list(self.strides)
        shape[axis:axis], strides[axis:axis] = [1] * count, [stride] * count
        return self.as_strided(shape, strides)

    def expand(self, shape: Sequence[int]) -> View:
        """Broadcast to `shape` by NumPy's rules, with strides of 0. Raises OvjitError if it does not."""
        lead = len(shape) - len(self.shape)
        pairs = zip(self.shape, shape[lead:], strict=False)
        if lead < 0 or any(not alike(d, s) and d not in (1, s) for d, s in pairs):
            raise OvjitError(
                f"internal error: a view of {list(self.shape)} cannot be broadcast to {list(shape)}"
            )
        strides = [0] * lead + [
            0 if not alike(d, s) and d == 1 and (is_traced_number(s) or s != 1) else st
            for d, s, st in zip(self.shape, shape[lead:], self.strides, strict=True)
        ]
        return self.as_strided(shape, strides)

    def repeat(self, times: Mapping[int, int]) -> View:
        """Repeat each element `times[axis]` times: each axis becomes two, the second with a stride of 0."""
        pairs = [(d, times.get(a, 1)) for a, d in enumerate(self.shape)]
        strides = [s for stride in self.strides for s in (stride, 0)]
        shape = [d for pair in pairs for d in pair]
        return self.as_strided(shape, strides)

    def split_axes(self, times: Mapping[int, int]) -> View:
        """Split each axis in two: groups of `times[axis]` elements (default 1), and the index in a group."""
        counts = [times.get(a, 1) for a in range(len(self.shape))]
        shape = [d for extent, n in zip(self.shape, counts, strict=True) for d in (extent // n, n)]
        strides = [s for stride, n in zip(self.strides, counts, strict=True) for s in (stride * n, stride)]
        return self.as_strided(shape, strides)

    def permute(self, order: Sequence[int]) -> View:
        shape, strides = ([each[i] for i in order] for each in (self.shape, self.strides))
        return self.as_strided(shape, strides, [self.halo[i] for i in order])

    def slice(self, axis: int, start: int, size: int, step: int = 1) -> View:
        """Elements start, start + step, ... along `axis`. The axis loses its halo."""
        shape, strides, halo = list(self.shape), list(self.strides), list(self.halo)
        shape[axis] = size
        if halo[axis] != (0, 0) and (start, size, step) != (0, self.shape[axis], 1):
            halo[axis] = (0, 0)
        offset = self.offset + start * strides[axis]
        strides[axis] *= step
        return View(self.buffer, shape, strides, self.itemsize, offset, halo)

    def reshape(self, shape: Sequence[int]) -> View | None:
        """The same memory as another shape. None if no strides express it."""
        strides = reshape_strides(self.shape, self.strides, shape, self.itemsize)
        return None if strides is None else self.as_strided(shape, strides)

    def split(self, axis: int, outer: int, inner: int) -> View:
        """The same memory with `axis`, of outer * inner elements, as two dimensions."""
        shape, strides = list(self.shape), list(self.strides)
        shape[axis : axis + 1] = outer, inner
        strides[axis : axis + 1] = inner * strides[axis], strides[axis]
        return self.as_strided(shape, strides)

    def as_shape(self, shape: Sequence[int]) -> View:
        """`reshape` for shapes that strides always express: dimensions are split, or have no gaps."""
        view = self.reshape(shape)
        assert view is not None
        return view


#: Rows at a multiple of this distance, in bytes, map to only two sets of the first-level cache. With such
#: rows, depthwise windows of 3x3 pixels took 4 to 7 times as long (Zen 4, f32).
SHARED_SETS = SET_BYTES // 2


class Layout:
    """A memory layout: dimensions from slowest to fastest, and the halo. `gap`: the second fastest
    dimension gets a gap of a cache line if its stride would be a multiple of SHARED_SETS."""

    __slots__ = ("gap", "halo", "order")

    def __init__(
        self, order: Sequence[int], halo: Sequence[tuple[int, int]] | None = None, gap: bool = False
    ):
        self.order = tuple(order)
        self.halo = tuple(halo) if halo else _no_halo(len(self.order))
        self.gap = gap

    def __eq__(self, other: object) -> bool:
        mine = self.order, self.halo, self.gap
        return isinstance(other, Layout) and mine == (other.order, other.halo, other.gap)

    def __hash__(self) -> int:
        return hash(self.order)  # halos rarely differ, and hashing a traced number would specialise the plan

    def __repr__(self) -> str:
        halo = "" if not any(map(any, self.halo)) else f" halo {self.halo}"
        return f"{self.order}{halo}{' gap' * self.gap}"

    def describe(self) -> str:
        """In words, for `Step.why`."""
        return in_words(self.order) + (", with zeros around" if any(map(any, self.halo)) else "")

    def combine(self, other: Layout) -> Layout:
        """This order, with the larger halo of both layouts and the gaps of either."""
        both = zip(self.halo, other.halo, strict=True)
        halo = [(sym_max(a[0], b[0]), sym_max(a[1], b[1])) for a, b in both]
        return Layout(self.order, halo, self.gap or other.gap)

    def allocate(self, shape: Sequence[int], itemsize: int) -> tuple[int, list[int], int]:
        """(bytes, strides, offset of element 0) of a tensor of `shape`."""
        strides = [0] * len(shape)
        step = itemsize
        offset = 0
        for axis in reversed(self.order):
            strides[axis] = step
            offset += self.halo[axis][0] * step
            step *= shape[axis] + sum(self.halo[axis])
            if self.gap and axis == self.order[-1] and isinstance(step, int) and step % SHARED_SETS == 0:
                step += CACHE_LINE
        return step, strides, offset


def in_words(order: Sequence[int]) -> str:
    """An order of dimensions in memory, the slowest first."""
    is_plain = all(a == i for i, a in enumerate(order))
    return "row-major order" if is_plain else f"the memory order {', '.join(map(str, order))}"


def row_major_layout(rank: int) -> Layout:
    """Row-major, no halo."""
    return Layout(range(rank))


def channels_last(rank: int, halo: Sequence[tuple[int, int]] | None = None, gap: bool = False) -> Layout:
    """NHWC for a logical shape N, C, H, W (any number of spatial dimensions)."""
    return Layout((0, *range(2, rank), 1) if rank > 2 else range(rank), halo, gap)


def row_major(shape: Sequence[int], itemsize: int) -> list[int]:
    strides, step = [0] * len(shape), itemsize
    for i in range(len(shape) - 1, -1, -1):
        strides[i] = step
        step *= shape[i]
    return strides


def same_strides(shape: Sequence[int], one: Sequence[int], other: Sequence[int]) -> bool:
    """Whether both strides address this shape equally. Strides of dimensions of 1 are ignored."""
    pairs = zip(shape, one, other, strict=True)
    return all(statically_known_equal(a, b) or d == 1 or a == b for d, a, b in pairs)


def reshape_strides(
    shape: Sequence[int], strides: Sequence[int], new: Sequence[int], itemsize: int
) -> list[int] | None:
    """Strides with which the same memory has the shape `new`. None if there are none."""
    if any(d == 0 for d in new) or all(map(statically_known_equal, strides, row_major(shape, itemsize))):
        return row_major(new, itemsize)
    first = next((i for i, d in enumerate(shape) if is_traced_number(d) or d != 1), len(shape))
    lead = new[0] if first < len(shape) and new else None
    if is_traced_number(lead) and statically_known_equal(shape[first], lead):
        inner = reshape_strides(shape[first + 1 :], strides[first + 1 :], new[1:], itemsize)
        return None if inner is None else [strides[first], *inner]  # right for any extent, 1 included
    if same_strides(shape, strides, row_major(shape, itemsize)):
        return row_major(new, itemsize)
    extents, (steps,) = merge_dims(shape, [strides])
    out: list[int] = [itemsize] * len(new)
    i = len(new) - 1
    for extent, step in zip(reversed(extents), reversed(steps), strict=True):
        while extent > 1:
            if i < 0 or extent % new[i]:
                return None
            out[i] = step
            step *= new[i]
            extent //= new[i]
            i -= 1
    if any(d != 1 for d in new[: i + 1]):
        return None
    return out


def merge_dims(
    shape: Sequence[int], strides: Sequence[Sequence[int]], most: int = 0
) -> tuple[list[int], list[list[int]]]:
    """Drop dimensions of 1, and merge neighbours that are contiguous in all operands (rows of `strides`).

    A traced extent is not compared with 1 if the dimension merges anyway, or is the first of at most `most`
    dimensions. So the trace also serves extents of 1, at no cost: kernels loop over `most` dimensions anyway.
    """
    extents: list[int] = []
    steps: list[list[int]] = [[] for _ in strides]
    keeps_first = False
    for i, extent in enumerate(shape):
        lazy = most > 0 and is_traced_number(extent)
        if lazy and not extents:
            keeps_first = True
        elif not (lazy and _follows(steps, strides, i, extent)) and extent == 1:
            continue
        if extents and all(s[-1] == extent * st[i] for s, st in zip(steps, strides, strict=True)):
            extents[-1] *= extent
            for s, st in zip(steps, strides, strict=True):
                s[-1] = st[i]
        else:
            extents.append(extent)
            for s, st in zip(steps, strides, strict=True):
                s.append(st[i])
    return merge_dims(shape, strides) if keeps_first and len(extents) > most else (extents, steps)


def merge_axes(
    axes: Sequence[int], views: Sequence[View], most: int = 0
) -> tuple[list[int], list[list[int]]]:
    """`merge_dims` for the dimensions `axes` of the views, slowest first."""
    strides = [[v.strides[a] for a in axes] for v in views]
    return merge_dims([views[0].shape[a] for a in axes], strides, most)


def _follows(steps: Sequence[Sequence[int]], strides: Sequence[Sequence[int]], i: int, extent: int) -> bool:
    """Whether dimension i is statically contiguous with the last one in `steps`, in all operands."""
    return all(statically_known_equal(s[-1], extent * st[i]) for s, st in zip(steps, strides, strict=True))


def walking_order(view: View) -> list[int]:
    """The dimensions that are not 1, from the slowest to the fastest stride. A traced dimension 0 is compared
    with 1 only if it is not the slowest."""
    order = sorted(
        (a for a, d in enumerate(view.shape) if (a == 0 and is_traced_number(d)) or d != 1),
        key=lambda a: (-abs(view.strides[a]), a),
    )
    if 0 in order[1:] and view.shape[0] == 1:
        order.remove(0)
    return order


def product(values: Sequence[Any]) -> int:
    out = 1
    for v in values:
        out *= v
    return out


def placed_values(extents: Sequence[int], dims: int = DIMS, /, **strides: Sequence[int]) -> dict[str, int]:
    """The arguments of a kernel's `placed`: `dims` extents and, for each tensor, `dims` byte strides. Missing
    leading dimensions become 1, with strides of 0. Raises ValueError for more than `dims` dimensions."""
    missing = dims - len(extents)
    if missing < 0:
        raise ValueError(f"a kernel with rows along {dims} dimensions was given {len(extents)} extents")
    values = {f"d{d}": 1 if d < missing else extents[d - missing] for d in range(dims)}
    for name, steps in strides.items():
        values |= {f"{name}_{d}": 0 if d < missing else steps[d - missing] for d in range(dims)}
    return values
