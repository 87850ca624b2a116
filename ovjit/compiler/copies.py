"""Steps of elementwise kernels, and of copies and fills among them: over any strides, cut into chunks."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ovjit.codegen.cpu.ir import Body
from ovjit.codegen.cpu.isa import host_isa
from ovjit.codegen.elementwise import elementwise_kernel
from ovjit.codegen.function import DIMS
from ovjit.codegen.kernel import Kernel
from ovjit.codegen.transpose import interleave_kernel, turn_kernel
from ovjit.compiler.chunks import CHUNK_WORK, ceil_div
from ovjit.compiler.races import Piece, Rows
from ovjit.compiler.views import View, merge_axes, merge_dims, placed_values, product, walking_order
from ovjit.graph.traced import is_traced_number, least

if TYPE_CHECKING:
    from ovjit.compiler.plan import Planner


def plan_elementwise(
    planner: Planner, kernel: Kernel, modes: str, inputs: Sequence[View], out: View, operations: int,
    type: str | None = None,
) -> None:  # fmt: skip
    """Add the step of an elementwise kernel: merge dimensions, choose the innermost, cut rows into chunks."""
    if out.count == 0:
        return
    numbers = {f"x{i}p": v.ptr for i, (v, m) in enumerate(zip(inputs, modes, strict=True)) if m == "n"}
    names = [f"x{i}" for i, mode in enumerate(modes) if mode != "n"] + ["y0"]
    views = [*(v for v, mode in zip(inputs, modes, strict=True) if mode != "n"), out]
    wide = modes.replace("n", "") + "v"
    outer = sum(name.startswith("d") and name[1:].isdigit() for name, _ in kernel.frame.fields)
    order = walking_order(out)
    shape, along = [out.shape[a] for a in order], [[v.strides[a] for a in order] for v in views]
    extents, strides = merge_dims(shape, along, outer + 1)
    if inputs and len(extents) == 2 and (is_traced_number(extents[1]) or extents[1] >= OPEN_ROW):
        extents, strides = merge_dims(shape, along)  # a single long row is cut
    sizes = [v.itemsize for v in views]
    if not extents:
        extents, strides = [1], [[size] for size in sizes]
    at = _innermost(extents, strides, sizes, wide)
    inner = extents.pop(at)
    steps = [s.pop(at) for s in strides]
    work = 1 + operations
    parts, piece, leaves = 0, inner, False
    if len(extents) < outer:  # one long row is cut so that threads can share it
        most = max(CHUNK_WORK // (work * 4), SHORTEST_PIECE)
        if not planner.open:
            parts, piece, leaves = _cut(inner, most, bool(extents))
        elif not inputs:
            parts, piece, leaves = _cut_filled(out, order, inner)
        elif not extents:
            parts, piece, leaves = _cut_open(planner, out, order, inner, most)
    if len(extents) > outer:
        # more dimensions than the kernel has: one step for each index of the slowest
        axis = order[0]
        for i in range(out.shape[axis]):
            some = [v if m == "n" else v.slice(axis, i, 1) for v, m in zip(inputs, modes, strict=True)]
            plan_elementwise(planner, kernel, modes, some, out.slice(axis, i, 1), operations, type)
        return
    wanted = [{"v": size, "s": 0}[m] for m, size in zip(wide, sizes, strict=True)]

    def emit(extents: Sequence[int], strides: Sequence[Sequence[int]], first: int, inner: int) -> None:
        """The step for rows of `inner` elements, of which each begins at its element `first`."""
        rows = product(extents)
        extents = [1] * (outer - len(extents)) + list(extents)
        strides = [[0] * (outer - len(s)) + list(s) for s in strides]
        # of a row of one element what "v" reads is right for any stride, "s" too
        general = any(step != want for step, want in zip(steps, wanted, strict=True)) and inner > 1
        values: dict[str, Any] = {"general": general, "n": inner, "rows": rows, **numbers}
        starts = [v.ptr + first * step for v, step in zip(views, steps, strict=True)]
        for i, (name, start) in enumerate(zip(names, starts, strict=True)):
            values[f"{name}p"] = start
            values |= {f"{name}_s{d}": s for d, s in enumerate([*strides[i], steps[i]])}
        values |= {f"d{d}": e for d, e in enumerate(extents)}

        def touches(each: int) -> Rows:
            row = [
                Piece(start, along, (inner,), (step,), v.itemsize)
                for v, start, along, step in zip(views, starts, strides, steps, strict=True)
            ]
            return Rows(extents, each, row[:-1], row[-1:])

        cost, flops = inner * work * (8 if general else 1) * 4, rows * inner * operations
        planner.share_step(kernel, values, rows, cost, inputs, [out], flops, touches, type)

    if not parts:
        emit(extents, strides, 0, inner)
        return
    cut = [[*s, step * piece] for s, step in zip(strides, steps, strict=True)]
    emit([*extents, parts], cut, 0, piece)
    if leaves:
        emit(extents, strides, parts * piece, inner - parts * piece)


def _cut(row: int, most: int, several: bool) -> tuple[int, int, bool]:
    """(number, length) of the parts of at most `most` elements that a row is cut into, and whether they leave
    elements behind them. The number is 0 where none are made. `several`: there are other rows, of which
    nothing may be left."""
    parts = ceil_div(row, most)
    if parts < 2:
        return 0, row, False
    for number in range(parts, 4 * parts + 1):
        if row % (number * PIECE) == 0:
            return number, row // number, False
    return (0, row, False) if several else (parts, row // parts // PIECE * PIECE, True)


def _cut_open(
    planner: Planner, out: View, order: Sequence[int], row: int, most: int
) -> tuple[int, int, bool]:
    """The same for all elements of a tensor of an open shape: along its last dimension where that is known,
    else into parts of one length. What a row divides by is different every time."""
    if not planner.last_is_open:
        last = out.shape[order[-1]] if order else 1
        if ROW <= last < OPEN_ROW and row != last:
            return product([out.shape[a] for a in order[:-1]]), last, False
    if row < OPEN_ROW:
        return 0, row, False
    piece = most // PIECE * PIECE
    return (row - 1) // piece, piece, True


def _cut_filled(out: View, order: Sequence[int], row: int) -> tuple[int, int, bool]:
    """The same for a row of what is filled, as the slabs of the halos are: along the last dimension in memory
    if that is known, else not at all. A guard on the size of each would make many plans of few sizes."""
    last = out.shape[order[-1]] if order else 1
    if is_traced_number(last) or last < PIECE or row == last:
        return 0, row, False
    return row // last, last, False


#: Parts of rows are multiples of this many elements: cache lines, whatever the type.
PIECE = 64
#: Nor is a row cut into parts of fewer.
SHORTEST_PIECE = 4096
#: Rows of open extents are cut from so many elements on, whatever is done with them: one guard for all.
OPEN_ROW = 1 << 16
#: Rows up to this many elements are not walked one by one if a longer dimension is there.
SHORTEST_ROW = 4


def _innermost(
    extents: Sequence[int], strides: Sequence[Sequence[int]], sizes: Sequence[int], wide: str
) -> int:
    """The dimension that runs in vectors: the last one, unless its short rows are not contiguous anyway, or
    so short that walking from one to the next costs more than to take elements from here and there."""
    last = len(extents) - 1
    wanted = [{"v": size, "s": 0}[m] for m, size in zip(wide, sizes, strict=True)]
    adjacent = all(s[last] == w for s, w in zip(strides, wanted, strict=True))
    if extents[last] > SHORTEST_ROW if adjacent else extents[last] >= 16:
        return last
    best = 0
    for i in range(1, len(extents)):  # the last of the longest; one comparison each, as a trace keeps them
        if least(extents[i], 64) >= least(extents[best], 64):
            best = i
    return best


#: Rows of a tensor that is one piece are not shorter than this where threads are to share it.
ROW = 256

_COPY_TYPES = {1: "u8", 2: "i16", 4: "i32", 8: "i64"}


_COPY_RANK = 5


@functools.cache
def copy_kernel(itemsize: int) -> Kernel:
    """Copies elements of 1, 2, 4 or 8 bytes between any strides."""
    dtype = _COPY_TYPES[itemsize]
    return elementwise_kernel(f"copy_{dtype}", Body([dtype], [dtype], [], ["x0"]), "v", _COPY_RANK)


@functools.cache
def fill_kernel(itemsize: int) -> Kernel:
    """Writes zeros of 1, 2, 4 or 8 bytes."""
    dtype = _COPY_TYPES[itemsize]
    return elementwise_kernel(f"clear_{dtype}", Body([], [dtype], [], [("const", 0, dtype)]), "", 4)


def plan_copy(planner: Planner, source: View, target: View) -> None:
    if not _plan_turn(planner, source, target):
        plan_elementwise(planner, copy_kernel(source.itemsize), "v", [source], target, 1, "Reorder")


#: Bytes.
CACHE_LINE = 64

#: Rows up to which they are woven together, or apart, in registers.
MOST_WOVEN = 8

#: Dimensions shorter than this are not worth turning in blocks.
SHORTEST_TURN = 3


def _plan_turn(planner: Planner, source: View, target: View) -> bool:
    """Turn in blocks where source and target differ in the adjacent dimension; False where that can't be."""
    size = source.itemsize
    if size not in planner.may_turn or not target.count:
        return False
    order = walking_order(target)
    if size not in [source.strides[a] for a in order[:-1]]:
        return False  # before anybody asks which dimensions are 1
    extents, (xs, ys) = merge_axes(order, (source, target), DIMS + 2)
    if not extents or ys[-1] != size or size not in xs[:-1] or len(extents) > DIMS + 2:
        return False
    nb, x_b = extents.pop(), xs.pop()
    ys.pop()
    at = xs.index(size)
    na, y_a = extents.pop(at), ys.pop(at)
    xs.pop(at)
    # each by itself: which of two traced numbers is the smaller would be a guard
    if na < SHORTEST_TURN or nb < SHORTEST_TURN or x_b == 0:
        return False
    side = max(host_isa().lanes, CACHE_LINE // size)
    blocks = ceil_div(na, side)
    items = product(extents) * blocks
    values: dict[str, Any] = {
        "x": source.ptr, "y": target.ptr, "x_b": x_b, "y_a": y_a, "na": na, "nb": nb, "blocks": blocks,
        "side": side, "items": items,
    }  # fmt: skip
    values |= placed_values(extents, x=xs, y=ys)

    def touches(each: int) -> Rows:
        return Rows(  # an item is a side of the dimension adjacent in the source; the last one may be short
            (*extents, na), each,
            [Piece(source.ptr, (*xs, size), (nb,), (x_b,), size)],
            [Piece(target.ptr, (*ys, y_a), (nb,), (size,), size)],
            lambda item: item // blocks * na + min(item % blocks * side, na),
        )  # fmt: skip

    kernel, cost = turn_kernel(size), nb * side * 8
    planner.share_step(kernel, values, items, cost, [source], [target], 0, touches, "Reorder")
    return True


def plan_interleave(planner: Planner, source: View, target: View, back: bool = False) -> bool:
    """Copy [..., rows, n] to [..., n, rows], where n is adjacent in the source and all of a target's pixel
    is, by the kernel for as many rows; False where they lie otherwise. `back`: from target to source."""
    size, (rows, n) = source.itemsize, source.shape[-2:]
    if source.strides[-1] != size or target.strides[-2:] != (rows * size, size):
        return False
    extents, (xs, ys) = merge_axes(range(len(source.shape) - 2), (source, target))
    if len(extents) > DIMS:
        return False
    items = product(extents)
    apart = source.strides[-2]
    values: dict[str, Any] = {"x": source.ptr, "y": target.ptr, "apart": apart, "n": n, "items": items}
    values |= placed_values(extents, x=xs, y=ys)

    def touches(each: int) -> Rows:
        pieces = [
            [Piece(source.ptr, xs, (rows, n), (apart, size), size)],
            [Piece(target.ptr, ys, (rows * n,), (size,), size)],
        ]
        read, written = reversed(pieces) if back else pieces
        return Rows(extents, each, read, written)

    kernel, cost = interleave_kernel(size, rows, back), rows * n * 4
    reads, writes = ([target], [source]) if back else ([source], [target])
    planner.share_step(kernel, values, items, cost, reads, writes, 0, touches, "Reorder")
    return True


def plan_fill(planner: Planner, view: View) -> None:
    plan_elementwise(planner, fill_kernel(view.itemsize), "", [], view, 1, "Reorder")
