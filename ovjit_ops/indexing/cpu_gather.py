"""Native Gather and Scatter: rows copied from or to indexed positions.

An item reads the components of an index, which select a position in the data. It copies a row of elements
from that position to the output ("gather"), or from the updates to it ("scatter"). If each element has its
own index, an item is a run of elements. All indices are checked before use. An index out of range gives zeros
if the operation defines that, else error code 1.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

import numpy as np

from ovjit.codegen.kernel_language import *
from ovjit.graph.dtypes import numpy_dtype
from ovjit.graph.graph import Value
from ovjit.graph.shapes import normalize_axis
from ovjit.graph.symbolic import sym_min
from ovjit.planning.constants import PackedRows
from ovjit.planning.copies import MOVED
from ovjit.planning.lower import Group, Lowering, launch, place_constants, plan_copy, try_launch
from ovjit.planning.plan import Constants, NotNative, Planner
from ovjit.planning.views import CONSTANTS, Buffer, View, merge_dims, product
from ovjit.records import NamedTuple
from ovjit_ops.indexing.scatter import neutral_element
from ovjit_ops.movement.cpu_slices import Viewed, even_step, gather_view

#: Maximum components of an index.
_DEPTH = 6
_DIMS = Table(2 * _DEPTH)
#: Maximum elements of an item, and rows of an item of short ones.
RUN, ROWS = 1024, 256
#: Element types of indices that the kernel reads.
INDICES = frozenset("i8 i16 i32 i64 u8 u16 u32".split())


#: Index type -> type in which vectors of indices are compared with extents below 2**31.
WIDE = dict.fromkeys(("i8", "i16", "i32", "u8", "u16"), "i32") | dict.fromkeys(("i64", "u32"), "i64")


@inline
def merge_values(old, v, combine):
    """The new value of an element `old`."""
    return combine(old, v) if combine else v


@inline
def flip_bits(v, *, T, flip):
    """Invert the bits of `flip`."""
    return v ^ const[T](flip) if flip else v


@inline
def index_at(address, extent, index):
    """Load an index; a negative one counts from the end."""
    position = ld[index](address) + 0
    if position < 0:
        position += extent
    return position


@inline
def take_elements(p, q, a, n, extent, stride, zeros, *, T, index):
    """Gather n elements at p + index * stride, by adjacent indices, and store them to q. Returns the number
    of elements left at the first vector with an index out of range, or 0. With `zeros`, such elements of 4 or
    8 bytes are 0, and it continues. Shorter ones are moved one by one: only their indices are vectors."""
    limit = spread[WIDE[index]](extent)
    none = const[WIDE[index]](0)
    count = n
    here = a
    to = q
    while count > 0:
        position = cast[WIDE[index]](loadm[index](here, count))
        position = select(position < none, position + limit, position)
        there = (position >= none) & (position < limit)
        if not zeros or SIZE[T] < 4:
            if not hand[boolean](there):
                break
        if SIZE[T] < 4:
            store[i32](scratch, cast[i32](position))
            for k in range(0, min(count, VL) - 3, 4):
                for u in static_range(4):
                    st[T](to + (k + u) * SIZE[T], ld[T](p + ld[i32](scratch + (k + u) * 4) * stride))
            for k in range(min(count, VL) // 4 * 4, min(count, VL)):
                st[T](to + k * SIZE[T], ld[T](p + ld[i32](scratch + k * 4) * stride))
        else:
            away = cast[i32](select(there, position, none)) * spread[i32](stride // SIZE[T])
            values = take[T](p, away)
            storem[T](to, select(there, values, const[T](0)) if zeros else values, count)
        to += VL * SIZE[T]
        here += VL * SIZE[index]
        count -= VL
    return count


@inline
def move_row(p, q, n, x_n, y_n, *, T, combine, flip):
    """Copy n elements from p to q with the bits of `flip` inverted, or combine them with those of q."""
    i = 0
    if not combine and not flip and n == 1:  # a row of one element
        st[T](q, ld[T](p))
    elif x_n == SIZE[T] and y_n == SIZE[T]:
        while i + VL <= n:
            v = merge_values(load[T](q + i * SIZE[T]), load[T](p + i * SIZE[T]), combine)
            store[T](q + i * SIZE[T], flip_bits(v))
            i += VL
        if i < n:
            v = merge_values(loadm[T](q + i * SIZE[T], n - i), loadm[T](p + i * SIZE[T], n - i), combine)
            storem[T](q + i * SIZE[T], flip_bits(v), n - i)
    else:
        for i in range(0, n, VL):
            count = n - i
            v = merge_values(gather[T](q + i * y_n, y_n, count), gather[T](p + i * x_n, x_n, count), combine)
            scatter[T](q + i * y_n, y_n, flip_bits(v), count)


@inline
def is_adjacent(at, extent, index):
    """Whether indices have one component, are contiguous, and the indexed extent is not 0."""
    return at.size.k == 1 and at.stride.lanes == SIZE[index] and extent > 0


@inline
def move_elements(p, q, a, n, x_n, y_n, at, dims, direction, zeros, *, T, index, combine):
    """Move n elements, each with its own index. Returns 1 if an index is out of range, else 0."""
    extent = ld(dims, 0)
    stride = ld(dims, 1)
    from_ = p
    to = q
    here = a
    count = n
    wrong = 0
    if direction == "gather":
        near = is_adjacent(at, extent, index)
        near = near and x_n == 0 and y_n == SIZE[T]
        if near and stride >= 0 and stride % SIZE[T] == 0 and extent * stride < SIZE[T] << 31:
            count = take_elements(p, q, a, n, extent, stride, zeros)
            if zeros:  # what is left is moved below
                to += (n - count) * y_n
                here += (n - count) * at.stride.lanes
            elif count > 0:
                count = 0
                wrong = 1
    while count > 0:
        count -= 1
        position = index_at(here, extent, index)
        inside = 1
        if position < 0 or position >= extent:
            inside = 0
        away = position * stride
        for k in range(1, at.size.k):
            extent_k = ld(dims, 2 * k)
            position = index_at(at.at(here, k=k), extent_k, index)
            if position < 0 or position >= extent_k:
                inside = 0
            away += position * ld(dims, 2 * k + 1)
        if inside == 0:
            if not zeros:
                wrong = 1
                break
            st[T](to, 0)
        elif combine:
            st[T](to + away, lane[T](combine(splat[T](to + away), splat[T](from_)), 0))
        elif direction == "gather":
            st[T](to, ld[T](from_ + away))
        else:
            st[T](to + away, ld[T](from_))
        from_ += x_n
        to += y_n
        here += at.stride.lanes
    return wrong


@kernel(over=f"... lanes/{RUN}", x="...", y="...", at="... k")
def indexed(
    x: Tensor, y: Tensor, at: Tensor, dims=_DIMS, *, T, index, direction, combine, zeros, panels, flip,
):  # fmt: skip
    """An item is a row of elements, or up to RUN elements with an index each. `dims`: the extent and byte
    stride of each component of an index."""
    for done, p, q, a in items(x, y, at):
        n = min(y.size.lanes - done, RUN)
        x_n = x.stride.lanes
        y_n = y.stride.lanes
        if at.stride.lanes != 0 or y_n == 0:
            wrong = move_elements(p, q, a, n, x_n, y_n, at, dims, direction, zeros)
            if wrong != 0:
                return 1
        else:
            valid = 1
            for k in range(at.size.k):
                extent = ld(dims, 2 * k)
                position = index_at(at.at(a, k=k), extent, index)
                if position < 0 or position >= extent:
                    valid = 0
                elif panels:  # see `PackedRows`
                    width = ld(dims, 2)
                    if position >= ld(dims, 4):
                        p += done * (ld(dims, 5) - x_n)
                        x_n = ld(dims, 5)
                    p += position // width * ld(dims, 1) + position % width * SIZE[T]
                elif direction == "gather":
                    p += position * ld(dims, 2 * k + 1)
                else:
                    q += position * ld(dims, 2 * k + 1)
            if valid == 1:
                move_row(p, q, n, x_n, y_n)
            elif zeros:
                for i in range(0, n, VL):
                    scatter[T](q + i * y_n, y_n, const[T](0), n - i)
            else:
                return 1


@inline
def store_offsets(to, n, count, row_step, step, size):
    """Write the offset of each lane to `to`, in elements. The first `count` lanes are the elements of rows
    of n elements, the others repeat the first."""
    row = 0
    element = 0
    away = 0
    for k in range(VL):
        st[i32](to + k * 4, away // size)
        element += 1
        away += step
        if element == n:
            element = 0
            row += row_step
            away = row
        if k + 1 >= count:
            away = 0


@kernel(over=f"... rows/{ROWS}", x="... rows n", y="... rows n:1", at="... rows n")
def indexed_rows(x: Tensor, y: Tensor, at: Tensor, extent, step, *, T, index, zeros):
    """Rows of at most a vector of elements, as many at a time as a vector has room for. Each element has an
    index along one dimension of the data, of `extent` elements, which are `step` bytes apart."""
    n = y.size.n
    used = VL // n * n
    ready = 0
    limit = spread[index](extent)
    none = const[index](0)
    for first, p, q, a in items(x, y, at):
        remaining = min(ROWS, y.size.rows - first) * n
        while remaining > 0:
            count = min(used, remaining)
            if count != ready:
                store_offsets(scratch, n, count, x.stride.rows, x.stride.n, SIZE[T])
                store_offsets(scratch + VL * 4, n, count, at.stride.rows, at.stride.n, SIZE[index])
                ready = count
            position = take[index](a, load[i32](scratch + VL * 4))
            position = select(position < none, position + limit, position)
            there = (position >= none) & (position < limit)
            if not zeros:
                if not hand[boolean](there):
                    return 1
            away = cast[i32](select(there, position, none)) * spread[i32](step // SIZE[T])
            values = take[T](p, away + load[i32](scratch))
            storem[T](q, select(there, values, const[T](0)) if zeros else values, count)
            p += VL // n * x.stride.rows
            q += used * SIZE[T]
            a += VL // n * at.stride.rows
            remaining -= used


@functools.cache
def index_kernel(
    direction: str, index: str, dtype: str, combine: str = "", zeros: bool = False, panels: bool = False,
    flip: int = 0,
) -> Kernel:  # fmt: skip
    """`dtype` is moved unchanged, or combined with the existing value by the vector operation `combine`.
    `panels`: rows have the layout of `PackedRows`, and the bits of `flip` are inverted."""
    name = f"{direction}{'_' + combine if combine else ''}{'_panels' * panels}{'_flipped' * bool(flip)}"
    how = Word(combine) if combine else None
    return indexed.kernel(
        f"{name}_{index}_{dtype}", T=dtype, index=index, direction=direction, combine=how, zeros=zeros,
        panels=panels, flip=flip,
    )  # fmt: skip


class Walk(NamedTuple):
    """The loops of an index kernel: extents, and byte strides of source, target and indices. `dims`: the
    extent and byte stride in the data for each component of an index. `scatters`: indices select positions in
    the target. A position may occur twice, and the last item must win."""

    extents: Sequence[int]
    source: Sequence[int]
    target: Sequence[int]
    indices: Sequence[int]
    dims: Sequence[tuple[int, int]]
    at_k: int = 0
    panels: Sequence[tuple[int, int]] = ()
    scatters: bool = False


def plan_indexed(planner: Planner, kernel: Kernel, source: View, target: View, at: View, walk: Walk) -> None:
    """Add the step."""
    if product(walk.extents) == 0:
        return
    size = target.itemsize
    if any(extent == 0 for extent, _ in walk.dims):  # all indices are out of range: no data is accessed
        nowhere = (0,) * len(walk.extents)
        if walk.scatters:
            target, walk = planner.allocate((1,), size), walk._replace(target=nowhere)
        else:
            source, walk = View(at.buffer, (1,), (1,), 1, at.offset), walk._replace(source=nowhere)

    def work(n: int, along: Mapping[str, int]) -> int:
        return n * (size * 2 + (16 if along["at"] else 0)) + 16

    tensors = {
        "x": source.as_strided(walk.extents, walk.source),
        "y": View(target.buffer, walk.extents, walk.target, size, target.offset),
        "at": at.as_strided((*walk.extents, len(walk.dims)), (*walk.indices, walk.at_k)),
    }
    dims = [*walk.dims, *walk.panels, *((0, 0),) * (_DEPTH - len(walk.dims) - len(walk.panels))]
    ends = {f"dims{2 * k + j}": v for k, dim in enumerate(dims) for j, v in enumerate(dim)}
    planner.need_scratch(planner.target.lanes * 4)
    # the positions that a scatter writes depend on data
    launch(planner, kernel, tensors, ("y",), work=work, ordered="at" if walk.scatters else "", **ends)


def plan_rows(planner: Planner, kernel: Kernel, source: View, target: View, at: View, walk: Walk) -> bool:
    """Add a step of `indexed_rows`. Returns False if the loops do not suit it."""
    size, (extent, step) = target.itemsize, walk.dims[0]
    every = [walk.source, walk.target, walk.indices]
    extents, (by_source, by_target, by_index) = merge_dims(walk.extents, every)
    if len(walk.dims) != 1 or product(walk.extents) == 0 or extent == 0 or len(extents) < 2:
        return False
    width = extents[-1]
    if width > planner.target.lanes or by_target[-1] != size or by_target[-2] != width * size:
        return False
    near = max(abs(s) for s in (*by_source[-2:], *by_index[-2:])) * planner.target.lanes < 1 << 30
    if not near or extent * abs(step) >= size << 30 or any(s % size for s in (step, *by_source[-2:])):
        return False
    tensors = {
        "x": source.as_strided(extents, by_source),
        "y": View(target.buffer, (*extents,), (*by_target,), size, target.offset),
        "at": at.as_strided(extents, by_index),
    }
    planner.need_scratch(2 * planner.target.lanes * 4)
    work = extents[-1] * sym_min(ROWS, extents[-2]) * (2 * size + 8)
    return try_launch(planner, kernel, tensors, ("y",), work=work, extent=extent, step=step)


class Indexed(Lowering):
    """A gather. `walk(planner, data, indices, output)` gives its loops. Data is input 0, indices are input
    1."""

    constant_inputs = 2

    def __init__(self, group: Group, zeros: bool = False):
        super().__init__(group)
        self.data, self.indices = self.node.inputs[:2]
        moved, index = MOVED[SIZE[self.out.dtype]], self.indices.dtype
        self.kernel = index_kernel("gather", index, moved, zeros=zeros)
        #: The kernel of rows shorter than a vector, or None.
        self.short: Kernel | None = None
        width = self.out.shape[-1] if self.out.shape else None
        gathers = {moved, index} <= {"i32", "i64"} and self.target.name in (
            "avx512",
            "avx2",
        )  # by instructions
        if gathers and isinstance(width, int) and 0 < width <= self.target.lanes:
            self.short = indexed_rows(T=moved, index=index, zeros=zeros)
            self.kernels = (self.kernel, self.short)

    def walk(self, planner: Planner, data: View, indices: View, out: View) -> Walk:
        raise NotImplementedError

    def plan(self, planner: Planner) -> None:
        data, indices = planner.view(self.data), planner.view(self.indices)
        out = planner.output(self.out)
        walk = self.walk(planner, data, indices, out)
        if self.short is None or not plan_rows(planner, self.short, data, out, indices, walk):
            plan_indexed(planner, self.kernel, data, out, indices, walk)


def known_axis(value: Value, rank: int) -> int:
    """The value of an axis input, counted from 0. Raises NotNative if it depends on data."""
    axis = value.type.value
    if axis is None:
        raise NotNative
    return normalize_axis(int(axis.reshape(-1)[0]), rank)


class Gather(Indexed):
    """Gather along one axis. Data and indices share the first `batch` dimensions.

    If a product has packed the same table, rows are gathered from its panels. So tied embeddings, whose table
    also computes a decoder's logits, are in memory once.
    """

    packs_late = True

    def __init__(self, group: Group, axis: int, batch: int):
        super().__init__(group, True)
        self.axis = axis
        self.batch = batch
        self.rows: PackedRows | None = None

    def pack(self, constants: Constants) -> None:
        table = self.data.stored_array
        if isinstance(table, np.ndarray) and not self.axis and not self.batch:
            self.rows = constants.rows_of(table)
        if self.rows is None:
            super().pack(constants)
            return
        place_constants(constants, [self.indices])
        moved = MOVED[self.rows.word]
        self.kernel = index_kernel(
            "gather", self.indices.dtype, moved, zeros=True, panels=True, flip=self.rows.flip
        )
        self.kernels = (self.kernel,)

    def plan(self, planner: Planner) -> None:
        if self.rows is None:
            super().plan(planner)
            return
        rows, indices, out = self.rows, planner.view(self.indices), planner.output(self.out)
        if not out.count:
            return
        inside, extent = len(indices.shape), self.data.shape[0]
        merged, strides = merge_dims(out.shape[inside:], [out.strides[inside:]])
        if len(merged) > 1 or (merged and strides[0] != [out.itemsize]):
            out = planner.instead(out)
        full, last_width = divmod(extent, rows.width)
        size = full * rows.panel + (rows.panel // rows.width * rows.last if last_width else 0)
        table = View(Buffer(size, CONSTANTS, rows.offset), (size // rows.word,), (rows.word,), rows.word)
        rows_layout = (*out.shape[:inside], rows.words), (*out.strides[:inside], rows.word)
        target = View(out.buffer, *rows_layout, rows.word, out.offset)
        step = (rows.width if full else rows.last) * rows.word  # bytes between words of a row
        walk = Walk(
            target.shape, (*(0,) * inside, step), target.strides, (*indices.strides, 0),
            [(extent, rows.panel)],
            panels=[(rows.width, step), (full * rows.width, rows.last * rows.word)],
        )  # fmt: skip
        plan_indexed(planner, self.kernel, table, target, indices, walk)

    def walk(self, planner: Planner, data: View, indices: View, out: View) -> Walk:
        axis, batch = self.axis, self.batch
        inside, after = len(indices.shape) - batch, len(data.shape) - axis - 1
        source = (*data.strides[:axis], *(0,) * inside, *data.strides[axis + 1 :])
        at = (*indices.strides[:batch], *(0,) * (axis - batch), *indices.strides[batch:], *(0,) * after)
        return Walk(out.shape, source, out.strides, at, [(data.shape[axis], data.strides[axis])])


class GatherElements(Indexed):
    """out[i, j, k] = data[indices[i, j, k], j, k]"""

    takes = (None, INDICES)

    def walk(self, planner: Planner, data: View, indices: View, out: View) -> Walk:
        axis = normalize_axis(self.node.attrs["axis"], len(data.shape))
        source = [0 if a == axis else s for a, s in enumerate(data.strides)]
        dim = (data.shape[axis], data.strides[axis])
        return Walk(out.shape, source, out.strides, indices.strides, [dim])


class GatherND(Indexed):
    """Gather by index tuples: the last dimension of the indices selects a position after the batch
    dimensions."""

    takes = (None, INDICES)

    def __init__(self, group: Group):
        super().__init__(group)
        depth = self.indices.shape[-1] if self.indices.shape else None
        if not isinstance(depth, int) or depth > _DEPTH:
            raise NotNative

    def walk(self, planner: Planner, data: View, indices: View, out: View) -> Walk:
        batch, depth = self.node.attrs["batch_dims"], indices.shape[-1]
        rank = len(indices.shape) - 1
        shape = (*indices.shape[:-1], *data.shape[batch + depth :])
        target = out.as_shape(shape)  # split merged batch dimensions again
        tail = len(data.shape) - batch - depth
        source = (*data.strides[:batch], *(0,) * (rank - batch), *data.strides[batch + depth :])
        at = (*indices.strides[:-1], *(0,) * tail)
        dims = list(zip(data.shape, data.strides, strict=True))[batch : batch + depth]
        return Walk(shape, source, target.strides, at, dims, indices.strides[-1])


class Scatter(Lowering):
    """A copy of the data, into which updates are then written, or combined, at the indexed positions."""

    takes = (None, INDICES, None)
    constant_inputs = 3

    def set_up(self) -> None:
        self.reduction = self.node.attrs.get("reduction", "none")
        boolean = self.node.inputs[0].dtype == "boolean"
        combine = (COMBINE_TRUTH if boolean else COMBINE).get(self.reduction)
        if combine is None:
            raise NotNative
        self.data, self.indices, self.updates = self.node.inputs[:3]
        dtype = self.out.dtype if combine else MOVED[SIZE[self.out.dtype]]
        self.kernel = index_kernel("scatter", self.indices.dtype, dtype, combine)

    def begin(self, planner: Planner, indices: View, out: View, walk: Walk) -> None:
        """Add the steps between the copy of the data and the updates."""

    def walk(self, planner: Planner, updates: View, indices: View, out: View) -> Walk | None:
        """The loops of the updates. None if the updates' shape does not match indices and data."""
        raise NotImplementedError

    def plan(self, planner: Planner) -> None:
        data, indices, updates = (planner.view(v) for v in (self.data, self.indices, self.updates))
        out = planner.output(self.out)
        walk = self.walk(planner, updates, indices, out)
        if walk is not None:
            if out.count:
                plan_copy(planner, data, out)
            self.begin(planner, indices, out, walk)
            plan_indexed(planner, self.kernel, updates, out, indices, walk)
            return
        planner.host_step(self.node, [planner.contiguous(v) for v in self.node.inputs], [out])


class ScatterUpdate(Scatter):
    """Slices along one axis."""

    def set_up(self) -> None:
        super().set_up()
        self.axis = known_axis(self.node.inputs[3], len(self.data.shape))

    def walk(self, planner: Planner, updates: View, indices: View, out: View) -> Walk | None:
        axis, inside = self.axis, len(indices.shape)
        shape = (*out.shape[:axis], *indices.shape, *out.shape[axis + 1 :])
        if updates.shape != shape:
            return None
        target = (*out.strides[:axis], *(0,) * inside, *out.strides[axis + 1 :])
        at = (*(0,) * axis, *indices.strides, *(0,) * (len(out.shape) - axis - 1))
        dim = (out.shape[axis], out.strides[axis])
        return Walk(shape, updates.strides, target, at, [dim], scatters=True)


class ScatterND(Scatter):
    """Slices that index tuples select."""

    def walk(self, planner: Planner, updates: View, indices: View, out: View) -> Walk | None:
        depth = indices.shape[-1]
        shape = (*indices.shape[:-1], *out.shape[depth:])
        if updates.shape != shape or depth > _DEPTH:
            return None
        rank, tail = len(indices.shape) - 1, len(out.shape) - depth
        target = (*(0,) * rank, *out.strides[depth:])
        at = (*indices.strides[:-1], *(0,) * tail)
        dims = list(zip(out.shape, out.strides, strict=True))[:depth]
        return Walk(shape, updates.strides, target, at, dims, indices.strides[-1], scatters=True)


class ScatterElements(Scatter):
    """Single elements along one axis."""

    def set_up(self) -> None:
        super().set_up()
        self.axis = known_axis(self.node.inputs[3], len(self.data.shape))
        #: The initial value of indexed elements before updates are combined; None: the data.
        self.neutral: np.ndarray | None = None
        if self.reduction != "none" and not self.node.attrs["use_init_val"]:
            kind = numpy_dtype(self.out.dtype)
            self.neutral = np.array([neutral_element(self.reduction, kind)]).astype(kind)
            self.fill_kernel = index_kernel("scatter", self.indices.dtype, MOVED[SIZE[self.out.dtype]])
            self.kernels = (self.fill_kernel, self.kernel)

    def pack(self, constants: Constants) -> None:
        super().pack(constants)
        if self.neutral is not None:
            constants.view(self.neutral, self.out.dtype)

    def begin(self, planner: Planner, indices: View, out: View, walk: Walk) -> None:
        if self.neutral is not None:
            one = planner.constants.view(self.neutral, self.out.dtype)
            flat = walk._replace(source=[0] * len(walk.extents))
            plan_indexed(planner, self.fill_kernel, one, out, indices, flat)

    def walk(self, planner: Planner, updates: View, indices: View, out: View) -> Walk | None:
        if updates.shape != indices.shape or any(
            i > d for a, (i, d) in enumerate(zip(indices.shape, out.shape, strict=True)) if a != self.axis
        ):
            return None
        target = [0 if a == self.axis else s for a, s in enumerate(out.strides)]
        dim = (out.shape[self.axis], out.strides[self.axis])
        return Walk(indices.shape, updates.strides, target, indices.strides, [dim], scatters=True)


def lower_gather(group: Group) -> Lowering | None:
    """A slice if the indices are evenly spaced constants, else an index kernel."""
    node = group.last
    data, indices, axes = node.inputs
    axis = known_axis(axes, len(data.shape))
    if indices.dtype not in INDICES:
        return None
    batch = node.attrs.get("batch_dims", 0)
    batch = batch + len(indices.shape) if batch < 0 else batch
    extent = data.shape[axis]
    constant = indices.type.value
    if constant is not None and not batch and isinstance(extent, int) and even_step(constant) is not None:
        same_sign = not constant.size or (0 <= constant.min() and constant.max() < extent)
        if same_sign or (-extent <= constant.min() and constant.max() < 0):
            return Viewed(group, gather_view)
    return Gather(group, axis, batch)


COMBINE = {"none": "", "sum": "add", "sub": "sub", "prod": "mul", "min": "min_", "max": "max_"}
#: Of booleans, a sum is "or" and a difference "exclusive or": the sum of one bit would lose its carry.
COMBINE_TRUTH = {**COMBINE, "sum": "max_", "prod": "min_"}
