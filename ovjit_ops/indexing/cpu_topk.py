"""Native TopK: a heap of the k best so far walks along each row, and is then taken apart in order.

One alone along a dimension that is not the last is found for vectors of neighbours.
Elements become 64-bit integers in the same order, so that one comparison serves all types: NaN is above all
numbers, zeros are equal. Of equals the first comes first. Rows are shared out.
"""

from __future__ import annotations

from ovjit.codegen.cpu.isa import host_isa
from ovjit.codegen.function import DIMS, inline, kernel
from ovjit.codegen.words import *
from ovjit.compiler.copies import MOVED
from ovjit.compiler.lower import Lowering
from ovjit.compiler.plan import NotNative, Planner, ceil_div
from ovjit.compiler.races import Piece, Rows
from ovjit.compiler.views import View, merge_axes, placed_values, plain, product
from ovjit.graph.shapes import normalize_axis

#: Bytes of a heap entry: key and index.
ENTRY = 16
INFINITY = {"f32": 0x7F800000, "f64": 0x7FF0000000000000, "f16": 0x7C00, "bf16": 0x7F80}
MOST = (1 << 63) - 1
#: By size of an element: an integer type, and all bits but the sign.
INTEGER = {size: f"i{8 * size}" for size in (1, 2, 4, 8)}
LOW = {size: (1 << (8 * size - 1)) - 1 for size in (1, 2, 4, 8)}
BUILD, SCAN, TAKE = range(3)
#: Vectors of neighbours whose single best elements are found at a time.
VECTORS = 4


@inline
def key_of(p, T, largest):
    """The element at p, as an integer that is larger the better it is."""
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
    """Put (key, at) into the heap of `size` entries from the hole down; the worst is at the root."""
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


@kernel
def topk(x: Ptr, y: Ptr, z: Ptr, n, x_n, y_n, z_n, best, rows, per_chunk, *, T, index, largest, by_index):
    """Each turn of the loop moves an entry to its place: BUILD makes a heap of the first elements, SCAN finds
    the next one that is better than the worst kept one, TAKE writes the worst one out."""
    for row in share(rows, per_chunk):
        source, values, places = placed(row, x, y, z)
        p = source
        for i in range(best):
            key = key_of(p, T, largest)
            st[i64](scratch + i * ENTRY, key)
            st[i64](scratch + i * ENTRY + 8, i)
            p += x_n
        start = best // 2
        size = best
        state = BUILD
        after = SCAN
        i = best
        while True:
            if state == SCAN:
                worst = ld(scratch, 0)
                hole = -1
                while i < n and hole < 0:
                    key = key_of(p, T, largest)
                    if key > worst:  # an equal comes later, and so is worse
                        hole = 0
                        at = i
                    p += x_n
                    i += 1
                if hole < 0:
                    if by_index:  # the entries as a heap in which a later index is worse
                        for j in range(best):
                            st[i64](scratch + j * ENTRY, -ld(scratch, 2 * j + 1))
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
                    found = ld(scratch, 1)
                    st[MOVED[SIZE[T]]](values + size * y_n, ld[MOVED[SIZE[T]]](source + found * x_n))
                    st[index](places + size * z_n, found)
                    if size == 0:
                        break
                    hole = 0
                    start = size
                key = ld(scratch, 2 * start)
                at = ld(scratch, 2 * start + 1)
            sift(key, at, hole, size)


@kernel
def top_1(x: Ptr, y: Ptr, z: Ptr, n, width, x_n, blocks, items, per_chunk, *, T, index, largest):
    """The best of n elements (32 bits count them) that lie x_n bytes apart, for `width` neighbours at a time:
    the same order as `key_of` has."""
    best = registers()
    at = registers()
    for item in share(items, per_chunk):
        row = item // blocks
        source, values, places = placed(row, x, y, z)
        first = item % blocks * (VECTORS * VL)
        rest = width - first
        p = source + first * SIZE[T]
        for v in static_range(VECTORS):
            best[v] = loadm[T](p + v * VL * SIZE[T], rest - v * VL)
            at[v] = spread[i32](0)
        for i in range(1, n):
            p += x_n
            here = spread[i32](i)
            for v in static_range(VECTORS):
                one = loadm[T](p + v * VL * SIZE[T], rest - v * VL)
                if T in INFINITY:  # a NaN is above all numbers, and not below any
                    worse = one <= best[v] if largest else one >= best[v]
                    number = best[v] == best[v] if largest else one == one
                    better = ~worse & number
                else:
                    better = one > best[v] if largest else one < best[v]
                at[v] = select(better, here, at[v])
                best[v] = select(better, one, best[v])
        for v in static_range(VECTORS):
            k = first + v * VL
            storem[T](values + k * SIZE[T], best[v], width - k)
            storem[index](places + k * SIZE[index], cast[index](at[v]), width - k)


class TopK(Lowering):
    """The k best of every row along one axis, and where they were."""

    def set_up(self) -> None:
        attrs = self.node.attrs
        dtype, rank = self.node.inputs[0].dtype, len(self.node.inputs[0].shape)
        if not rank:
            raise NotNative
        moved = "u8" if dtype == "boolean" else dtype  # a truth value is a byte of 0 or 1
        kinds = {"T": moved, "index": self.node.outputs[1].dtype, "largest": attrs["mode"].lower() == "max"}
        self.kernel = topk(**kinds, by_index=attrs["sort"].lower() == "index")
        many = self.node.inputs[1].type.value
        one = many is None or many.item() == 1
        self.beside = one and normalize_axis(attrs["axis"], rank) < rank - 1
        if self.beside:
            self.best = top_1(**kinds)
            self.kernels = (self.kernel, self.best)

    def plan(self, planner: Planner) -> None:
        node = self.node
        planner.known(node.inputs[1])  # how many: the extent of the outputs
        x = planner.view(node.inputs[0])
        rank = len(x.shape)
        y, z = (planner.output(v, plain(rank)) for v in node.outputs)
        if y.count and not self._plan(planner, x, y, z):
            self._plan(planner, planner.contiguous(node.inputs[0]), planner.instead(y), planner.instead(z))

    def _plan(self, planner: Planner, x: View, y: View, z: View) -> bool:
        """False when there are too many dimensions that do not merge."""
        axis = normalize_axis(self.node.attrs["axis"], len(x.shape))
        others = [a for a in range(len(x.shape)) if a != axis]
        inner: int | None = None
        if self.beside and y.shape[axis] == 1 and x.shape[axis] < 1 << 31:
            if all(v.strides[others[-1]] == v.itemsize for v in (x, y, z)):
                inner = others.pop()
        extents, strides = merge_axes(others, (x, y, z))
        if len(extents) > DIMS:
            return False
        n, best, rows = x.shape[axis], y.shape[axis], product(extents)
        places = placed_values(extents, x=strides[0], y=strides[1], z=strides[2])
        if inner is not None:
            width = x.shape[inner]
            block = VECTORS * host_isa().lanes
            blocks = ceil_div(width, block)
            items = rows * blocks
            told = {
                "x": x.ptr, "y": y.ptr, "z": z.ptr, "n": n, "width": width, "x_n": x.strides[axis],
                "blocks": blocks, "items": items, **places,
            }  # fmt: skip
            planner.share_step(self.best, told, items, n * block * 2, [x], [y, z], x.count)
            return True
        values = {
            "x": x.ptr, "y": y.ptr, "z": z.ptr, "n": n, "best": best, "rows": rows,
            "x_n": x.strides[axis], "y_n": y.strides[axis], "z_n": z.strides[axis],
        }  # fmt: skip
        values |= places
        planner.need_scratch(best * ENTRY)
        read, *written = (
            Piece(v.ptr, along, (v.shape[axis],), (v.strides[axis],), v.itemsize)
            for v, along in zip((x, y, z), strides, strict=True)
        )
        planner.share_step(
            self.kernel, values, rows, n * 8, [x], [y, z], x.count,
            lambda each: Rows(extents, each, [read], written),
        )  # fmt: skip
        return True
