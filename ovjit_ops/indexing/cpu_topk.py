"""Native TopK: a heap of the k best elements so far is updated along each row, and then emptied in order.

Few results along a dimension that is not the last are found for vectors of neighbours, and a single result
along a row in vectors of the row. Heap entries are 64-bit integers in the order of the elements, so that one
comparison serves all types: NaN is above all numbers, zeros are equal. Of equal elements the first wins.
Chunks are ranges of rows.
"""

from __future__ import annotations

from ovjit.codegen.kernel_language import *
from ovjit.graph.shapes import bounds, normalize_axis
from ovjit.planning.copies import MOVED
from ovjit.planning.lower import Lowering, NotNative, Planner, View, row_major_layout, try_launch
from ovjit.planning.views import Layout, product

#: Bytes of a heap entry: key and index.
ENTRY = 16
INFINITY = {"f32": 0x7F800000, "f64": 0x7FF0000000000000, "f16": 0x7C00, "bf16": 0x7F80}
MOST = (1 << 63) - 1
#: Size of an element -> an integer type, and a mask of all bits but the sign.
INTEGER = {size: f"i{8 * size}" for size in (1, 2, 4, 8)}
LOW = {size: (1 << (8 * size - 1)) - 1 for size in (1, 2, 4, 8)}
BUILD, SCAN, TAKE = range(3)
#: Vectors of neighbours that `top_1` and `top_few` process at a time.
VECTORS = 4
#: Up to FEW results, or any number of rows of up to SHORT elements, are kept sorted: a new one moves all
#: worse ones. The 50 best of 55 for 846 neighbours took eight times as long with heaps.
FEW, SHORT = 32, 256
#: Maximum elements of rows that are transposed. The three best of 5 in 10,000 rows took 12 times as long with
#: heaps.
SHORT_ROW = 16
#: Up to so many results are kept in registers, for so many vectors of neighbours at a time.
IN_REGISTERS, PAIR = 4, 2


@inline
def key_of(p, T, largest):
    """The element at p as an integer. Better elements have larger integers."""
    if T in INFINITY:
        key = ld[INTEGER[SIZE[T]]](p) + 0
        magnitude = key & LOW[SIZE[T]]
        if magnitude == 0:
            key = 0
        if key < 0:
            key = key ^ LOW[SIZE[T]]
        if magnitude > INFINITY[T]:
            key = MOST
    elif T == "u64":
        key = ld[i64](p) ^ (-MOST - 1)
    else:
        key = ld[T](p) + 0
    if not largest:
        key = ~key
    return key


@inline
def sift(key, at, hole, size):
    """Sift (key, at) down from `hole` in the heap of `size` entries. The worst entry is at the root."""
    here = hole
    while True:
        child = 2 * here + 1
        if child >= size:
            break
        child_key = ld(scratch, 2 * child)
        child_at = ld(scratch, 2 * child + 1)
        if child + 1 < size:
            other_key = ld(scratch, 2 * child + 2)
            other_at = ld(scratch, 2 * child + 3)
            if other_key < child_key or (other_key == child_key and other_at > child_at):
                child += 1
                child_key = other_key
                child_at = other_at
        if key < child_key or (key == child_key and at > child_at):
            break
        st[i64](scratch + here * ENTRY, child_key)
        st[i64](scratch + here * ENTRY + 8, child_at)
        here = child
    st[i64](scratch + here * ENTRY, key)
    st[i64](scratch + here * ENTRY + 8, at)


@inline
def beats(one, other, *, T, largest):
    """Whether `one` is better than `other`. NaN is above all numbers."""
    return (
        ((one > other) if largest else (one < other)) if T not in INFINITY
        else ~(one <= other) & (other == other) if largest
        else ~(one >= other) & (one == one)
    )  # fmt: skip


@inline
def enter_first(row, best, step, *, T, largest):
    """Store the first `best` elements of a row, `step` bytes apart, as entries of the heap in `scratch`: key
    and position. They are not sifted yet."""
    p = row
    for i in range(best):
        key = key_of(p, T, largest)
        st[i64](scratch + i * ENTRY, key)
        st[i64](scratch + i * ENTRY + 8, i)
        p += step


@inline
def behind_worse(row, first, n, *, T, largest):
    """Skip whole vectors from element `first` on while none of their elements is better than the worst entry
    of the heap. Returns the index of the first element that was not skipped."""
    least = splat[T](row + ld(scratch, 1) * SIZE[T])
    i = first
    while i + VL <= n:
        if hor[boolean](beats(load[T](row + i * SIZE[T]), least)):
            break
        i += VL
    return i


@inline
def key_by_index(best):
    """Set the keys of the heap's entries by their indices: later ones are worse."""
    for j in range(best):
        st[i64](scratch + j * ENTRY, -ld(scratch, 2 * j + 1))


@kernel(over="...", x="... n", y="... best", z="... best")
def topk(x: Tensor, y: Tensor, z: Tensor, *, T, index, largest, by_index):
    """Store the `best` elements of each row, in order, and their positions.

    Each iteration sifts one entry. BUILD makes a heap of the first elements. SCAN finds the next element that
    is better than the worst entry. TAKE stores the worst entry.
    """
    n = x.size.n
    best = y.size.best
    for source, values, indices in items(x, y, z):
        enter_first(source, best, x.stride.n)
        p = source + best * x.stride.n
        start = best // 2
        size = best
        state = BUILD
        after = SCAN
        i = best
        while True:
            if state == SCAN:
                worst = ld(scratch, 0)
                hole = -1
                if x.stride.n == SIZE[T] and i >= best * VL:  # most vectors have no better element
                    i = behind_worse(source, i, n)
                    p = source + i * SIZE[T]
                while i < n and hole < 0:
                    key = key_of(p, T, largest)
                    if key > worst:  # an equal element comes later, so it is worse
                        hole = 0
                        at = i
                    p += x.stride.n
                    i += 1
                if hole < 0:
                    if by_index:  # make a heap of the entries by index
                        key_by_index(best)
                        start = best // 2
                        after = BUILD
                    state = after
                    after = TAKE
                    continue
            else:
                if state == BUILD:
                    start -= 1
                    if start < 0:
                        state = after
                        after = TAKE
                        continue
                    hole = start
                else:
                    size -= 1
                    position = ld(scratch, 1)
                    st[MOVED[SIZE[T]]](y.at(values, best=size), ld[MOVED[SIZE[T]]](x.at(source, n=position)))
                    st[index](z.at(indices, best=size), position)
                    if size == 0:
                        break
                    hole = 0
                    start = size
                key = ld(scratch, 2 * start)
                at = ld(scratch, 2 * start + 1)
            sift(key, at, hole, size)


@inline
def replace_beaten(best, at, p, count, here, v, *, T, largest):
    """Replace the elements of vector v of `best` by better ones, at position `here`, of vector v at p."""
    one = loadm[T](p + v * VL * SIZE[T], count - v * VL)
    better = beats(one, best[v])
    at[v] = select(better, here, at[v])
    best[v] = select(better, one, best[v])


@kernel(over=f"... lanes/{VECTORS}VL:1", x="... n", y="... best", z="... best")
def top_1(x: Tensor, y: Tensor, z: Tensor, *, T, index, largest):
    """The best of n elements for vectors of neighbours, in the order of `key_of`. Positions are counted in
    i32."""
    best = registers()
    at = registers()
    for first, p, values, indices in items(x, y, z):
        count = x.size.lanes - first
        for v in static_range(VECTORS):
            best[v] = loadm[T](p + v * VL * SIZE[T], count - v * VL)
            at[v] = spread[i32](0)
        for i in range(1, x.size.n):
            p += x.stride.n
            here = spread[i32](i)
            replace_beaten(best, at, p, count, here, 0)
            if count > VL:
                for v in static_range(1, VECTORS):
                    replace_beaten(best, at, p, count, here, v)
        for v in static_range(VECTORS):
            storem[T](values + v * VL * SIZE[T], best[v], count - v * VL)
            storem[index](indices + v * VL * SIZE[index], cast[index](at[v]), count - v * VL)


@kernel(over="...", x="... n:1", y="... best", z="... best")
def top_1_along(x: Tensor, y: Tensor, z: Tensor, *, T, index, largest):
    """The best of n contiguous elements: first of each lane, then of all lanes. The last vector ends with the
    row, so it may overlap the one before. Positions are counted in i32."""
    for i in range(VL):
        st[i32](scratch + VL * 8 + i * 4, i)
    n = x.size.n
    for source, values, indices in items(x, y, z):
        best = loadm[T](source, n)
        at = spread[i32](0)
        for i in range(VL, n, VL):
            base = min(i, n - VL)
            one = load[T](source + base * SIZE[T])
            better = beats(one, best)
            at = select(better, spread[i32](base), at)
            best = select(better, one, best)
        at = at + load[i32](scratch + VL * 8)
        several = n < VL  # unused lanes, or NaN
        if T in INFINITY:
            if hor[boolean](best != best):
                several = 1
        if several:
            store[T](scratch, best)
            store[i32](scratch + VL * 12, at)
            position = ld[i32](scratch + VL * 12) + 0
            key = key_of(scratch, T, largest)
            for i in range(1, min(n, VL)):
                other = key_of(scratch + i * SIZE[T], T, largest)
                other_at = ld[i32](scratch + VL * 12 + i * 4) + 0
                if other > key or (other == key and other_at < position):
                    key = other
                    position = other_at
        else:
            most = spread[T](hmax[T](best) if largest else hmin[T](best))
            position = hmin[i32](select(best == most, at, spread[i32](LOW[4]))) + 0
        st[MOVED[SIZE[T]]](values, ld[MOVED[SIZE[T]]](source + position * SIZE[T]))
        st[index](indices, position)


@inline
def enter(best, at, first, count, one, here, *, T, largest):
    """Insert a vector of elements, at position `here`, into the `count` sorted ones from `first` on. The
    worst of each lane is `left`."""
    best["left"] = one
    at["left"] = spread[i32](here)
    for j in static_range(count):
        better = beats(one, best[first + j])  # also than all after it
        moved = select(better, best[first + j], best["left"])
        position = select(better, at[first + j], at["left"])
        best[first + j] = select(better, best["left"], best[first + j])
        at[first + j] = select(better, at["left"], at[first + j])
        best["left"] = moved
        at["left"] = position


@inline
def sort_by_index(best, at, first, count):
    """Sort `count` elements from `first` on by their positions."""
    for i in static_range(1, count):
        for j in static_range(count - i):
            swap = at[first + j + 1] < at[first + j]
            moved = select(swap, best[first + j], best[first + j + 1])
            position = select(swap, at[first + j], at[first + j + 1])
            best[first + j] = select(swap, best[first + j + 1], best[first + j])
            at[first + j] = select(swap, at[first + j + 1], at[first + j])
            best[first + j + 1] = moved
            at[first + j + 1] = position


@kernel(over=f"... lanes/{PAIR}VL:1", x="... n", y="... best", z="... best")
def top_in_registers(x: Tensor, y: Tensor, z: Tensor, *, T, index, largest, by_index, count):
    """`top_few` for `count` elements, which are kept in registers."""
    best = registers()
    at = registers()
    for first, p, values, indices in items(x, y, z):
        lanes_left = x.size.lanes - first
        for i in static_range(count):
            for v in static_range(PAIR):
                one = loadm[T](p + v * VL * SIZE[T], lanes_left - v * VL)
                enter(best, at, v * count, i, one, i)
                best[v * count + i] = best["left"]
                at[v * count + i] = at["left"]
            p += x.stride.n
        for i in range(count, x.size.n):
            for v in static_range(PAIR):
                one = loadm[T](p + v * VL * SIZE[T], lanes_left - v * VL)
                enter(best, at, v * count, count, one, i)
            p += x.stride.n
        for v in static_range(PAIR):
            lanes = lanes_left - v * VL
            if by_index:
                sort_by_index(best, at, v * count, count)
            for j in static_range(count):
                storem[T](y.at(values, best=j) + v * VL * SIZE[T], best[v * count + j], lanes)
                position = cast[index](at[v * count + j])
                storem[index](z.at(indices, best=j) + v * VL * SIZE[index], position, lanes)


@kernel(over=f"... lanes/{VECTORS}VL:1", x="... n", y="... best", z="... best")
def top_few(x: Tensor, y: Tensor, z: Tensor, *, T, index, largest, by_index):
    """`top_1` for the `best` elements, which are kept sorted in scratch memory: [best, VECTORS] vectors of
    elements, then as many of positions."""
    best = y.size.best
    step = VECTORS * VL * 8
    high = scratch + best * step
    for first, p, values, indices in items(x, y, z):
        count = x.size.lanes - first
        for i in range(x.size.n):
            sorted_count = min(i, best)
            for v in static_range(VECTORS):
                q = scratch + v * VL * 8
                r = high + v * VL * 8
                one = loadm[T](p + v * VL * SIZE[T], count - v * VL)
                enters = 1
                if count <= v * VL:
                    enters = 0
                elif sorted_count == best:
                    if not hor[boolean](beats(one, load[T](q + (best - 1) * step))):
                        enters = 0
                if enters == 1:
                    moved = one
                    at = spread[i32](i)
                    for _ in range(sorted_count):
                        other = load[T](q)
                        other_at = load[i32](r)
                        better = beats(one, other)  # also than all after it
                        store[T](q, select(better, moved, other))
                        store[i32](r, select(better, at, other_at))
                        moved = select(better, other, moved)
                        at = select(better, other_at, at)
                        q += step
                        r += step
                    if sorted_count < best:
                        store[T](q, moved)
                        store[i32](r, at)
            p += x.stride.n
        for v in static_range(VECTORS):
            k = v * VL
            q = scratch + v * VL * 8
            r = high + v * VL * 8
            if by_index:
                for i in range(1, best):
                    for j in range(best - i):
                        other_at = load[i32](r + j * step)
                        next_at = load[i32](r + (j + 1) * step)
                        one = load[T](q + j * step)
                        other = load[T](q + (j + 1) * step)
                        swap = next_at < other_at
                        store[i32](r + j * step, select(swap, next_at, other_at))
                        store[i32](r + (j + 1) * step, select(swap, other_at, next_at))
                        store[T](q + j * step, select(swap, other, one))
                        store[T](q + (j + 1) * step, select(swap, one, other))
            for j in range(best):
                storem[T](y.at(values, best=j) + k * SIZE[T], load[T](q + j * step), count - k)
                position = cast[index](load[i32](r + j * step))
                storem[index](z.at(indices, best=j) + k * SIZE[index], position, count - k)


class TopK(Lowering):
    """The k best elements of every row along one axis, and their positions."""

    def set_up(self) -> None:
        attrs = self.node.attrs
        dtype, rank = self.node.inputs[0].dtype, len(self.node.inputs[0].shape)
        if not rank:
            raise NotNative
        moved = "u8" if dtype == "boolean" else dtype  # a boolean is a byte, 0 or 1
        kinds = {"T": moved, "index": self.node.outputs[1].dtype, "largest": attrs["mode"] == "max"}
        by_index = attrs["sort"] == "index"
        self.kernel = topk(**kinds, by_index=by_index)
        k_value = self.node.inputs[1].type.value
        k = None if k_value is None else k_value.item()
        axis = normalize_axis(attrs["axis"], rank)
        self.beside = axis < rank - 1
        self.one = top_1(**kinds) if self.beside else top_1_along(**kinds)
        self.kernels = [self.kernel]
        if k in (None, 1):
            self.kernels.append(self.one)
        n = self.node.inputs[0].shape[axis]
        #: Many short rows are transposed, to be searched beside each other.
        lines = product([bounds(d)[0] for d in self.node.inputs[0].shape[:axis]])
        most = bounds(n)[1]
        self.turns = not self.beside and k is not None and k <= IN_REGISTERS and lines >= self.target.lanes
        self.turns = self.turns and most is not None and most <= SHORT_ROW
        if self.turns:
            self.one = top_1(**kinds)
            self.kernels[1:] = [self.one] if k == 1 else []
            self.beside = True
        if self.beside and k is not None and 1 < k <= IN_REGISTERS:
            self.small = top_in_registers(**kinds, by_index=by_index, count=k)
            self.kernels.append(self.small)
        elif self.beside and (k is None or 1 < k <= FEW or (k > 1 and bounds(n)[0] <= SHORT)):
            self.small = top_few(**kinds, by_index=by_index)
            self.kernels.append(self.small)

    def plan(self, planner: Planner) -> None:
        node = self.node
        planner.shape_value(node.inputs[1])  # k: the extent of the outputs
        x = planner.view(node.inputs[0])
        rank = len(x.shape)
        y, z = (planner.output(v, row_major_layout(rank)) for v in node.outputs)
        if self.turns and y.count:
            layout = Layout([rank - 1, *range(rank - 1)])
            x = planner.copy(node.inputs[0], layout)
            y, z = planner.instead(y, layout), planner.instead(z, layout)
        if y.count and not self._plan(planner, x, y, z):
            self._plan(planner, planner.contiguous(node.inputs[0]), planner.instead(y), planner.instead(z))

    def _plan(self, planner: Planner, x: View, y: View, z: View) -> bool:
        """Add a step. Returns False if too many dimensions do not merge."""
        axis = normalize_axis(self.node.attrs["axis"], len(x.shape))
        n, best = x.shape[axis], y.shape[axis]
        in_i32 = n < 1 << 31
        lanes, block = self.target.lanes, VECTORS * self.target.lanes

        def step(kernel: Kernel, work: float, scratch: int) -> bool:
            tensors, axes = {"x": x, "y": y, "z": z}, {"n": axis, "best": axis}
            if not try_launch(planner, kernel, tensors, ("y", "z"), axes=axes, work=work, flops=x.count):
                return False
            planner.need_scratch(scratch)
            return True

        if self.beside and in_i32 and (best <= FEW or n <= SHORT):
            kernel, work, scratch = (self.one, 2, 0) if best == 1 else (self.small, 8, best * block * 16)
            if step(kernel, n * block * work, scratch):
                return True
        if not self.beside and best == 1 and in_i32 and x.strides[axis] == x.itemsize:
            return step(self.one, n * 2, lanes * 16)
        return step(self.kernel, n * 8, best * ENTRY)
