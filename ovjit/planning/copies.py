"""Plans steps of elementwise kernels, copies and fills: merges dimensions, chooses loops, cuts chunks."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ovjit.codegen.cpu.ir import Body
from ovjit.codegen.cpu.targets import CACHE_LINE
from ovjit.codegen.elementwise import elementwise_kernel
from ovjit.codegen.halos import clear_gaps
from ovjit.codegen.kernel import Kernel
from ovjit.codegen.memory import DIMS
from ovjit.codegen.transpose import interleave_kernel, interleave_sizes, transpose_kernel
from ovjit.graph.symbolic import statically_known_equal, sym_min
from ovjit.graph.traced import identity, is_traced_number
from ovjit.planning.chunks import CHUNK_WORK, ceil_div, split
from ovjit.planning.launch import launch, try_launch
from ovjit.planning.races import Piece, Rows, Touches, gaps
from ovjit.planning.views import (
    Layout,
    Ptr,
    View,
    merge_axes,
    merge_dims,
    placed_values,
    product,
    walking_order,
)
from ovjit.records import NamedTuple

if TYPE_CHECKING:
    from ovjit.planning.value_views import ValueViews


class _Walk(NamedTuple):
    """One step of an elementwise kernel, but for where its tensors begin."""

    values: dict[str, Any]
    starts: list[Any]  # of each view that is walked, in bytes from its own beginning
    extents: Sequence[int]  # of the rows
    strides: Sequence[Sequence[int]]
    inner: int
    per_chunk: int
    chunks: int
    flops: float


def plan_elementwise(
    planner: ValueViews, kernel: Kernel, modes: str, inputs: Sequence[View], outs: Sequence[View],
    operations: int, type: str | None = None,
) -> None:  # fmt: skip
    """Add the step of an elementwise kernel: merge dimensions, choose the innermost, cut rows into chunks.
    The first of its outputs says in which order."""
    numbers = {f"x{i}": v.ptr for i, (v, m) in enumerate(zip(inputs, modes, strict=True)) if m == "n"}
    out = outs[0]
    views = [*(v for v, mode in zip(inputs, modes, strict=True) if mode != "n"), *outs]
    names = _names(modes, len(outs))
    outer = kernel.frame.dimensions
    # equal layers walk alike
    along = tuple(identity((v.itemsize, *v.strides)) for v in views)
    cut = planner.open and bool(modes) and planner.last_is_open  # what `_cut_open` asks
    several = outer > 1 and type is None  # of a partial copy it is unknown in how many shapes it is one row
    key = ("elementwise", modes, outer, operations, cut, several, identity(out.shape), along)
    walks = planner.shared(key, lambda: _walks(planner, modes, views, names, outer, operations, several))
    if isinstance(walks, int):
        # more dimensions than the kernel has: one step for each index of the slowest
        for i in range(out.shape[walks]):
            some = [v if m == "n" else v.slice(walks, i, 1) for v, m in zip(inputs, modes, strict=True)]
            written = [v.slice(walks, i, 1) for v in outs]
            plan_elementwise(planner, kernel, modes, some, written, operations, type)
        return
    for walk in walks:
        starts = [v.ptr + first for v, first in zip(views, walk.starts, strict=True)]
        values = {**walk.values, **numbers}
        for name, start in zip(names, starts, strict=True):
            values[name] = start
        touches = _rows(walk, views, starts, len(outs)) if planner.trace is not None else None
        planner.step(kernel, values, walk.chunks, inputs, outs, walk.flops, type, touches)


def _names(modes: str, outs: int) -> list[str]:
    """What a kernel calls the tensors that it walks: what it reads, then what it writes."""
    return [*(f"x{i}" for i, mode in enumerate(modes) if mode != "n"), *(f"y{k}" for k in range(outs))]


def _rows(walk: _Walk, views: Sequence[View], starts: Sequence[Any], outs: int) -> Rows:
    row = [
        Piece(start, along[:-1], (walk.inner,), along[-1:], v.itemsize)
        for v, start, along in zip(views, starts, walk.strides, strict=True)
    ]
    return Rows(walk.extents, walk.per_chunk, row[:-outs], row[-outs:])


class _RowsOf(NamedTuple):
    """What the rows of a walk share: for each tensor its name, the bytes between elements and those that its
    kernel expects; the dimensions of rows; operations for each element."""

    names: Sequence[str]
    steps: Sequence[int]
    wanted: Sequence[int]
    outer: int
    operations: int

    def walk(self, extents: Sequence[int], strides: Sequence[Sequence[int]], first: int, inner: int) -> _Walk:
        """The step for rows of `inner` elements, of which each begins at its element `first`."""
        steps, outer = self.steps, self.outer
        rows = product(extents)
        extents = [1] * (outer - len(extents)) + list(extents)
        strides = [[*[0] * (outer - len(s)), *s, step] for s, step in zip(strides, steps, strict=True)]
        # of a row of one element what "v" reads is right for any stride, "s" too
        general = any(step != want for step, want in zip(steps, self.wanted, strict=True)) and inner > 1
        values: dict[str, Any] = {"general": general, "n": inner, "rows": rows}
        for name, along in zip(self.names, strides, strict=True):
            values |= {f"{name}_{d}": s for d, s in enumerate(along)}
        values |= {f"d{d}": e for d, e in enumerate(extents)}
        cost, flops = inner * (1 + self.operations) * 4, rows * inner * self.operations
        values["per_chunk"] = per_chunk = split(rows, cost * 8 if general else cost)
        starts = [first * step for step in steps]
        return _Walk(values, starts, extents, strides, inner, per_chunk, ceil_div(rows, per_chunk), flops)


def _walks(
    planner: ValueViews, modes: str, views: Sequence[View], names: Sequence[str], outer: int, operations: int,
    several: bool,
) -> list[_Walk] | int:  # fmt: skip
    """The steps for these views, by a kernel of `outer` dimensions of rows that writes `y0` and the outputs
    behind it; or the dimension for whose indices separate steps are needed. `several` long rows may be walked
    in place of one."""
    read = names.index("y0")
    out = views[read]
    if out.count == 0:
        return []
    wide = modes.replace("n", "") + "v" * (len(views) - read)
    order = walking_order(out)
    shape, along = [out.shape[a] for a in order], [[v.strides[a] for a in order] for v in views]
    extents, strides = merge_dims(shape, along, outer + 1)
    long = modes and len(extents) == 2 and (is_traced_number(extents[1]) or extents[1] >= OPEN_ROW)
    if long and not several:
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
        elif not modes:
            parts, piece, leaves = _cut_filled(out, order, inner)
        elif len(extents) <= several:
            parts, piece, leaves = _cut_open(planner, out, order, inner, most, bool(extents))
    if len(extents) > outer:
        return order[0]
    wanted = [{"v": size, "s": 0}[m] for m, size in zip(wide, sizes, strict=True)]
    rows = _RowsOf(names, steps, wanted, outer, operations)
    if not parts:
        return [rows.walk(extents, strides, 0, inner)]
    cut = [[*s, step * piece] for s, step in zip(strides, steps, strict=True)]
    found = [rows.walk([*extents, parts], cut, 0, piece)]
    if leaves:
        found.append(rows.walk(extents, strides, parts * piece, inner - parts * piece))
    return found


def _cut(row: int, most: int, several: bool) -> tuple[int, int, bool]:
    """(number, length) of the parts of at most `most` elements that a row is cut into, and whether they leave
    elements behind them. The number is 0 where none are made. `several`: there are other rows, of which
    nothing may be left."""
    parts = ceil_div(row, most)
    if parts < 2:
        return 0, row, False
    for number in range(parts, parts + min(3 * parts, MOST_TRIES) + 1):
        if row % (number * PIECE) == 0:
            return number, row // number, False
    return (0, row, False) if several else (parts, row // parts // PIECE * PIECE, True)


def _cut_open(
    planner: ValueViews, out: View, order: Sequence[int], row: int, most: int, several: bool
) -> tuple[int, int, bool]:
    """The same for all elements of a tensor of an open shape, or for each of its `several` rows: along its
    last dimension if that is known, else into parts of one length. The divisor of a row differs each time."""
    if not planner.last_is_open:
        last = out.shape[order[-1]] if order else 1
        inside = not statically_known_equal(row, last)
        if ROW <= last < OPEN_ROW and inside and (not several or row >= OPEN_ROW):
            return row // last if several else product([out.shape[a] for a in order[:-1]]), last, False
    if row < OPEN_ROW:
        return 0, row, False
    piece = most // PIECE * PIECE
    return (row - 1) // piece, piece, True


def _cut_filled(out: View, order: Sequence[int], row: int) -> tuple[int, int, bool]:
    """The same for a row of a filled region, such as the slabs of halos: along the last dimension in memory.
    Its only guard is whether it is short. A guard on each row's size would give many plans of few sizes."""
    last = out.shape[order[-1]] if order else 1
    return (0, row, False) if last < PIECE else (row // last, last, False)


#: Parts of rows are multiples of this many elements: cache lines, whatever the type.
PIECE = 64
#: Nor is a row cut into parts of fewer.
SHORTEST_PIECE = 4096
#: So many numbers of parts are tried for one that leaves nothing.
MOST_TRIES = 4096
#: Rows of open extents are cut from so many elements on, whatever is done with them: one guard for all.
OPEN_ROW = 1 << 16
#: Rows up to this many elements are not walked one by one if a longer dimension is there.
SHORTEST_ROW = 4


def _innermost(
    extents: Sequence[int], strides: Sequence[Sequence[int]], sizes: Sequence[int], wide: str
) -> int:
    """The dimension that runs in vectors: the last one as a rule. Not if its short rows are not contiguous
    anyway, or if steps between rows cost more than gathered elements."""
    last = len(extents) - 1
    wanted = [{"v": size, "s": 0}[m] for m, size in zip(wide, sizes, strict=True)]
    adjacent = all(s[last] == w for s, w in zip(strides, wanted, strict=True))
    if extents[last] > SHORTEST_ROW if adjacent else extents[last] >= 16:
        return last
    best = 0
    for i in range(1, len(extents)):  # the last of the longest; one comparison each, as a trace keeps them
        if sym_min(extents[i], 64) >= sym_min(extents[best], 64):
            best = i
    return best


#: Rows of a tensor that is one piece are not shorter than this where threads are to share it.
ROW = 256

#: By size of an element: as what elements are moved.
MOVED = {1: "u8", 2: "i16", 4: "i32", 8: "i64"}


_COPY_RANK = 5


@functools.cache
def copy_kernel(itemsize: int) -> Kernel:
    """Copies elements of 1, 2, 4 or 8 bytes between any strides."""
    dtype = MOVED[itemsize]
    return elementwise_kernel(f"copy_{dtype}", Body([dtype], [dtype], [], ["x0"]), "v", _COPY_RANK)


@functools.cache
def fill_kernel(itemsize: int) -> Kernel:
    """Writes zeros of 1, 2, 4 or 8 bytes."""
    dtype = MOVED[itemsize]
    return elementwise_kernel(f"clear_{dtype}", Body([], [dtype], [], [("const", 0, dtype)]), "", 4)


def plan_copy(planner: ValueViews, source: View, target: View) -> None:
    if not _plan_transpose(planner, source, target):
        plan_elementwise(planner, copy_kernel(source.itemsize), "v", [source], [target], 1, "Reorder")


#: Rows up to which they are woven together, or apart, in registers.
MOST_WOVEN = 8

#: Dimensions shorter than this are not worth transposing in blocks.
SHORTEST_TRANSPOSED = 3


def _plan_transpose(planner: ValueViews, source: View, target: View) -> bool:
    """Transpose in blocks where another dimension is adjacent in the target; False where that can't be."""
    size = source.itemsize
    if size not in planner.may_transpose or not target.count:
        return False
    order = walking_order(target)
    if size not in [source.strides[a] for a in order[:-1]]:
        return False  # before anybody asks which dimensions are 1
    extents, (xs, ys) = merge_axes(order, (source, target), DIMS + 2)
    if not extents or ys[-1] != size or size not in xs[:-1] or len(extents) > DIMS + 2:
        return False
    a, b = xs.index(size), len(extents) - 1
    # parts of vectors of elements of 1 and 2 bytes take a branch for each where there are no masks for them
    shortest = SHORTEST_TRANSPOSED
    if size not in (*interleave_sizes(planner.target), 8):
        shortest = planner.target.lanes
    # each by itself: which of two traced numbers is the smaller would be a guard
    if extents[a] < shortest or extents[b] < shortest or xs[b] == 0:
        return False
    side, missing = max(planner.target.lanes, CACHE_LINE // size), DIMS + 2 - len(extents)
    shape, none = ([1] * missing + extents), [0] * missing
    views = {
        "x": View(source.buffer, shape, none + xs, size, source.offset),
        "y": View(target.buffer, shape, none + ys, size, target.offset),
    }
    launch(
        planner, transpose_kernel(size), views, ("y",), axes={"a": missing + a, "b": missing + b}, side=side,
        work=extents[b] * side * 8, type="Reorder",
    )  # fmt: skip
    return True


def plan_interleave(planner: ValueViews, source: View, target: View, back: bool = False) -> bool:
    """Copy [..., rows, n] to [..., n, rows], where n is adjacent in the source and all of a target's pixel
    is, by the kernel for as many rows; False where they lie otherwise. `back`: from target to source."""
    size, (rows, n) = source.itemsize, source.shape[-2:]
    if source.strides[-1] != size or target.strides[-2:] != (rows * size, size):
        return False
    return try_launch(
        planner, interleave_kernel(size, rows, back), {"x": source, "y": target}, ("x" if back else "y",),
        work=rows * n * 4, type="Reorder",
    )  # fmt: skip


def plan_fill(planner: ValueViews, view: View) -> None:
    plan_elementwise(planner, fill_kernel(view.itemsize), "", [], [view], 1, "Reorder")


def halo_kernels(itemsize: int) -> tuple[Kernel, ...]:
    """What `plan_halo` may need for elements of so many bytes."""
    return fill_kernel(itemsize), clear_gaps()


def plan_halo(planner: ValueViews, view: View, layout: Layout) -> None:
    """Zero all of the view's buffer that is not inside, dimension by dimension from the fastest on; but all
    dimensions above it in one step, if they are few enough."""
    around = [(axis, _slabs(view, layout, axis)) for axis in reversed(layout.order) if any(layout.halo[axis])]
    if around and around[0][0] == layout.order[-1]:
        for slab in around.pop(0)[1]:
            plan_fill(planner, slab)
    if not around:
        return
    slabs = [slab for _, found in around for slab in found]
    axis = around[0][0]  # along it and the faster ones a row is one piece
    at = layout.order.index(axis)
    slower = layout.order[:at]
    extents, strides = [view.shape[a] for a in slower], [view.strides[a] for a in slower]
    if at > DIMS:  # else nothing is asked about them: what they are would be a guard
        extents, (strides,) = merge_axes(slower, (view,))
    # with nothing inside the next step may be a reader already, which threads would begin too early
    if len(extents) > DIMS or any(not is_traced_number(d) and d == 0 for d in view.shape):
        for slab in slabs:
            plan_fill(planner, slab)
        return
    size, step = view.buffer.size, view.strides[axis]
    first = view.ptr + -layout.halo[layout.order[-1]][0] * view.itemsize
    run, items = view.shape[axis] * step, product(extents) + 1
    values: dict[str, Any] = {"whole": Ptr(view.buffer), "y": first, "size": size, "run": run, "items": items}
    values |= placed_values(extents, y=strides)

    def touches(each: int) -> Touches:
        return gaps(first, extents, strides, run, each)

    work = sum(layout.halo[axis]) * step + ROW_WORK
    planner.share_step(clear_gaps(), values, items, work, [], slabs, 0, touches, "Reorder")


def _slabs(view: View, layout: Layout, axis: int) -> list[View]:
    """The parts of the halo before and after `axis`: inside along the slower dimensions, as long as the
    buffer along the faster ones."""
    out = []
    for start, size in zip((-layout.halo[axis][0], view.shape[axis]), layout.halo[axis], strict=True):
        if size:
            shape, offset = list(view.shape), view.offset + start * view.strides[axis]
            shape[axis] = size
            for other in layout.order[layout.order.index(axis) + 1 :]:
                low, high = layout.halo[other]
                shape[other] += low + high
                offset -= low * view.strides[other]
            out.append(View(view.buffer, shape, view.strides, view.itemsize, offset))
    return out


#: What finding a row's place costs, in bytes that are cleared meanwhile.
ROW_WORK = 256
