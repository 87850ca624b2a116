"""Plans steps of elementwise kernels, copies and fills: merges dimensions, chooses loops, cuts chunks."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ovjit.codegen.cpu.ir import Body
from ovjit.codegen.cpu.targets import CACHE_LINE, Target
from ovjit.codegen.elementwise import elementwise_kernel
from ovjit.codegen.halos import clear_gaps
from ovjit.codegen.kernel import Kernel
from ovjit.codegen.memory import DIMS
from ovjit.codegen.transpose import interleave_kernel, interleave_sizes, transpose_blocks_kernel
from ovjit.graph.symbolic import statically_known_equal, sym_min
from ovjit.graph.traced import identity, is_traced_number
from ovjit.planning.chunks import CHUNK_WORK, ceil_div, split_for
from ovjit.planning.launch import launch, try_launch
from ovjit.planning.touches import Piece, Rows, Touches, gaps
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
    from ovjit.planning.step_list import StepList


class _Walk(NamedTuple):
    """One step of an elementwise kernel, without the addresses of its tensors."""

    values: dict[str, Any]
    starts: list[Any]  # byte offset of the first element in each view
    extents: Sequence[int]  # of the dimensions that rows are counted along
    strides: Sequence[Sequence[int]]
    inner: int
    per_chunk: int
    chunks: int
    flops: float


def plan_elementwise(
    planner: StepList, kernel: Kernel, modes: str, inputs: Sequence[View], outs: Sequence[View],
    operations: int, type: str | None = None,
) -> None:  # fmt: skip
    """Add the steps of an elementwise kernel: merge dimensions, choose the innermost, cut rows into chunks.
    The loop follows the memory order of the first output."""
    numbers = {f"x{i}": v.ptr for i, (v, m) in enumerate(zip(inputs, modes, strict=True)) if m == "n"}
    out = outs[0]
    views = [*(v for v, mode in zip(inputs, modes, strict=True) if mode != "n"), *outs]
    names = _names(modes, len(outs))
    outer = kernel.frame.dimensions
    # equal layers share the result of `_walks`
    along = tuple(identity((v.itemsize, *v.strides)) for v in views)
    cut = planner.open and bool(modes) and planner.last_is_open  # the planner's state that `_cut_open` reads
    several = outer > 1 and type is None  # whether a partial copy is one row may differ with each shape
    key = ("elementwise", modes, outer, operations, cut, several, identity(out.shape), along)
    walks = planner.shared(key, lambda: _walks(planner, modes, views, names, outer, operations, several))
    if isinstance(walks, int):
        # more dimensions than the kernel supports: one step for each index of the slowest
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
    """The names of a kernel's tensors: those that it reads, then those that it writes."""
    return [*(f"x{i}" for i, mode in enumerate(modes) if mode != "n"), *(f"y{k}" for k in range(outs))]


def _rows(walk: _Walk, views: Sequence[View], starts: Sequence[Any], outs: int) -> Rows:
    row = [
        Piece(start, along[:-1], (walk.inner,), along[-1:], v.itemsize)
        for v, start, along in zip(views, starts, walk.strides, strict=True)
    ]
    return Rows(walk.extents, walk.per_chunk, row[:-outs], row[-outs:])


class _RowsOf(NamedTuple):
    """The common parameters of a walk's rows. `names`, `steps`, `fast_strides`: each tensor's name, its byte
    stride between elements, and the stride that the kernel's fast path expects. `outer`: dimensions that the
    kernel counts rows along. `operations`: instructions per element. `target`: for the size of a chunk."""

    names: Sequence[str]
    steps: Sequence[int]
    fast_strides: Sequence[int]
    outer: int
    operations: int
    target: Target

    def walk(self, extents: Sequence[int], strides: Sequence[Sequence[int]], first: int, inner: int) -> _Walk:
        """The step for rows of `inner` elements, from index `first` of each row on."""
        steps, outer = self.steps, self.outer
        rows = product(extents)
        extents = [1] * (outer - len(extents)) + list(extents)
        strides = [[*[0] * (outer - len(s)), *s, step] for s, step in zip(strides, steps, strict=True)]
        # for rows of one element, both "v" and "s" read the right element with any stride
        general = any(step != want for step, want in zip(steps, self.fast_strides, strict=True)) and inner > 1
        values: dict[str, Any] = {"general": general, "n": inner, "rows": rows}
        for name, along in zip(self.names, strides, strict=True):
            values |= {f"{name}_{d}": s for d, s in enumerate(along)}
        values |= {f"d{d}": e for d, e in enumerate(extents)}
        cost, flops = inner * (1 + self.operations) * 4, rows * inner * self.operations
        values["per_chunk"] = per_chunk = split_for(self.target, rows, cost * 8 if general else cost)
        starts = [first * step for step in steps]
        return _Walk(values, starts, extents, strides, inner, per_chunk, ceil_div(rows, per_chunk), flops)


def _walks(
    planner: StepList, modes: str, views: Sequence[View], names: Sequence[str], outer: int, operations: int,
    several: bool,
) -> list[_Walk] | int:  # fmt: skip
    """The steps for these views, by a kernel that counts rows along `outer` dimensions and writes `y0` and
    the following outputs. If the views have more dimensions, the index of the dimension that needs a step per
    index. `several`: a tensor may be walked as several long rows instead of one."""
    read = names.index("y0")
    out = views[read]
    if out.count == 0:
        return []
    view_modes = modes.replace("n", "") + "v" * (len(views) - read)
    order = walking_order(out)
    shape, along = [out.shape[a] for a in order], [[v.strides[a] for a in order] for v in views]
    extents, strides = merge_dims(shape, along, outer + 1)
    long = modes and len(extents) == 2 and (is_traced_number(extents[1]) or extents[1] >= OPEN_ROW)
    if long and not several:
        extents, strides = merge_dims(shape, along)  # a single long row is cut
    sizes = [v.itemsize for v in views]
    if not extents:
        extents, strides = [1], [[size] for size in sizes]
    at = _innermost(extents, strides, sizes, view_modes)
    inner = extents.pop(at)
    steps = [s.pop(at) for s in strides]
    work = 1 + operations
    parts, piece, leaves = 0, inner, False
    if len(extents) < outer:  # one long row is cut so that threads can share it
        most = max((planner.target.chunk_work or CHUNK_WORK) // (work * 4), SHORTEST_PIECE)
        if not planner.open:
            parts, piece, leaves = _cut(inner, most, bool(extents))
        elif not modes:
            parts, piece, leaves = _cut_filled(out, order, inner)
        elif len(extents) <= several:
            parts, piece, leaves = _cut_open(planner, out, order, inner, most, bool(extents))
    if len(extents) > outer:
        return order[0]
    fast_strides = [{"v": size, "s": 0}[m] for m, size in zip(view_modes, sizes, strict=True)]
    rows = _RowsOf(names, steps, fast_strides, outer, operations, planner.target)
    if not parts:
        return [rows.walk(extents, strides, 0, inner)]
    cut = [[*s, step * piece] for s, step in zip(strides, steps, strict=True)]
    walks = [rows.walk([*extents, parts], cut, 0, piece)]
    if leaves:
        walks.append(rows.walk(extents, strides, parts * piece, inner - parts * piece))
    return walks


def _cut(row: int, most: int, several: bool) -> tuple[int, int, bool]:
    """Cut a row into parts of at most `most` elements: (number of parts, length of one, whether a remainder
    follows). The number is 0 if the row is not cut. `several`: there are more rows, so that a remainder is
    not allowed."""
    parts = ceil_div(row, most)
    if parts < 2:
        return 0, row, False
    for number in range(parts, parts + min(3 * parts, MOST_TRIES) + 1):
        if row % (number * PIECE) == 0:
            return number, row // number, False
    return (0, row, False) if several else (parts, row // parts // PIECE * PIECE, True)


def _cut_open(
    planner: StepList, out: View, order: Sequence[int], row: int, most: int, several: bool
) -> tuple[int, int, bool]:
    """`_cut` for a dynamic shape: the whole tensor as one row, or each of `several` rows. It cuts along the
    last dimension if that is static, else into parts of a fixed length. A search for a divisor would give a
    different result for each shape."""
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
    """`_cut` for a row of a filled region, such as a halo's slab: along the last dimension in memory. The
    only guard is whether that dimension is short. Guards on row sizes would make many traces that serve few
    shapes."""
    last = out.shape[order[-1]] if order else 1
    return (0, row, False) if last < PIECE else (row // last, last, False)


#: Parts of rows are multiples of this many elements: whole cache lines for every element type.
PIECE = 64
#: Smallest limit, in elements, for the parts of a row that `_cut` makes.
SHORTEST_PIECE = 4096
#: Maximum numbers of parts that are tried to find one without a remainder.
MOST_TRIES = 4096
#: Dynamic rows are cut from this many elements on, for any operation: one guard serves all of them.
OPEN_ROW = 1 << 16
#: Contiguous rows up to this many elements are not the vectorised dimension if there is a longer one.
SHORTEST_ROW = 4


def _innermost(
    extents: Sequence[int], strides: Sequence[Sequence[int]], sizes: Sequence[int], modes: str
) -> int:
    """The dimension that is vectorised: the last one, unless it is too short. The limit is SHORTEST_ROW if
    all tensors are contiguous along it, else 16 elements. Then it is the longest dimension."""
    last = len(extents) - 1
    fast_strides = [{"v": size, "s": 0}[m] for m, size in zip(modes, sizes, strict=True)]
    adjacent = all(s[last] == w for s, w in zip(strides, fast_strides, strict=True))
    if extents[last] > SHORTEST_ROW if adjacent else extents[last] >= 16:
        return last
    best = 0
    for i in range(1, len(extents)):  # the last of the longest; one comparison, thus one guard, per dimension
        if sym_min(extents[i], 64) >= sym_min(extents[best], 64):
            best = i
    return best


#: Shortest rows, in elements, into which a contiguous dynamic tensor is cut along its last dimension.
ROW = 256

#: Element size in bytes -> the type with which elements are copied.
MOVED = {1: "u8", 2: "i16", 4: "i32", 8: "i64"}


_COPY_RANK = 5


@functools.cache
def copy_kernel(itemsize: int, aligned: bool = False) -> Kernel:
    """Copies elements of 1, 2, 4 or 8 bytes between tensors of any strides. `aligned`: see
    `elementwise_kernel`."""
    dtype = MOVED[itemsize]
    return elementwise_kernel(f"copy_{dtype}", Body([dtype], [dtype], [], ["x0"]), "v", _COPY_RANK, aligned)


@functools.cache
def fill_kernel(itemsize: int) -> Kernel:
    """Writes zeros of 1, 2, 4 or 8 bytes."""
    dtype = MOVED[itemsize]
    return elementwise_kernel(f"clear_{dtype}", Body([], [dtype], [], [("const", 0, dtype)]), "", 4)


def plan_copy(planner: StepList, source: View, target: View) -> None:
    if _plan_transpose(planner, source, target):
        return
    kernel = copy_kernel(source.itemsize, planner.target.is_gpu)
    plan_elementwise(planner, kernel, "v", [source], [target], 1, "Reorder")


#: Maximum number of rows that are interleaved, or de-interleaved, in registers.
MOST_WOVEN = 8

#: Pixels of an item, at least.
FEWEST_PIXELS = 1024

#: Dimensions shorter than this are not worth transposing in blocks of CPUs.
SHORTEST_TRANSPOSED = 3
#: Bytes that a card reads at once. It gathers rows that are shorter as fast.
SECTOR = 32


def transpose_kernel(size: int, isa: Target) -> Kernel:
    """The transposing kernel of a target for elements of `size` bytes."""
    if isa.is_gpu:
        from ovjit.codegen.transpose_on_cards import transpose_squares_kernel

        return transpose_squares_kernel(size)
    return transpose_blocks_kernel(size)


def shortest_transposed(size: int, isa: Target) -> int:
    """The shortest dimensions that are worth transposing, for elements of `size` bytes. Parts of vectors of
    1 and 2 bytes take a branch for each element where CPUs have no masks for them."""
    if isa.is_gpu:
        return SECTOR // size
    return SHORTEST_TRANSPOSED if size in (*interleave_sizes(isa), 8) else isa.lanes


def _plan_transpose(planner: StepList, source: View, target: View) -> bool:
    """Add a blocked transpose if source and target are contiguous along different dimensions. False if that
    kernel does not apply."""
    size = source.itemsize
    if size not in planner.may_transpose or not target.count:
        return False
    order = walking_order(target)
    if size not in [source.strides[a] for a in order[:-1]]:
        return False  # before `merge_axes` compares dimensions with 1, which adds guards
    extents, (xs, ys) = merge_axes(order, (source, target), DIMS + 2)
    if not extents or ys[-1] != size or size not in xs[:-1] or len(extents) > DIMS + 2:
        return False
    a, b, isa = xs.index(size), len(extents) - 1, planner.target
    shortest = shortest_transposed(size, isa)
    # separate comparisons: the minimum of two traced numbers would add a guard
    if extents[a] < shortest or extents[b] < shortest or xs[b] == 0:
        return False
    if size == 1 and not planner.open and _plan_pixels(planner, source, target, extents, xs, ys, a):
        return True
    side = isa.lanes if isa.is_gpu else max(isa.lanes, CACHE_LINE // size)
    missing = DIMS + 2 - len(extents)
    shape, none = ([1] * missing + extents), [0] * missing
    views = {
        "x": View(source.buffer, shape, none + xs, size, source.offset),
        "y": View(target.buffer, shape, none + ys, size, target.offset),
    }
    launch(
        planner, transpose_kernel(size, isa), views, ("y",), axes={"a": missing + a, "b": missing + b},
        side=side, work=(side if isa.is_gpu else extents[b]) * side * 8, type="Reorder",
    )  # fmt: skip
    return True


def _plan_pixels(
    planner: StepList, source: View, target: View, extents: list[int], xs: list[int], ys: list[int], a: int
) -> bool:
    """Copy pixels of a few adjacent bytes to as many planes, a vector of pixels at a time. See
    `_plan_transpose`. False if pixels are not adjacent, or have too many bytes."""
    rows, count, size = extents[a], extents[-1], source.itemsize
    if rows > MOST_WOVEN or size not in interleave_sizes(planner.target) or xs[-1] != rows * size:
        return False
    blocks = 1  # for threads
    while count % (2 * blocks) == 0 and count >= 2 * blocks * FEWEST_PIXELS:
        blocks *= 2
    outer, each = [i for i in range(len(extents) - 1) if i != a], count // blocks
    shape = [*(extents[i] for i in outer), blocks]
    pixels = [*(xs[i] for i in outer), each * rows * size, rows * size, size]
    planes = [*(ys[i] for i in outer), each * size, ys[a], size]
    x = View(source.buffer, [*shape, each, rows], pixels, size, source.offset)
    y = View(target.buffer, [*shape, rows, each], planes, size, target.offset)
    return plan_interleave(planner, y, x, back=True)


def plan_interleave(planner: StepList, source: View, target: View, back: bool = False) -> bool:
    """Copy [..., rows, n] to [..., n, rows] with the interleaving kernel for this number of rows. `back`:
    copy from `target` to `source`. False unless `source` is contiguous along n and `target` along [n,
    rows]."""
    size, (rows, n) = source.itemsize, source.shape[-2:]
    if source.strides[-1] != size or target.strides[-2:] != (rows * size, size):
        return False
    return try_launch(
        planner, interleave_kernel(size, rows, back), {"x": source, "y": target}, ("x" if back else "y",),
        work=rows * n * 4, type="Reorder",
    )  # fmt: skip


def plan_fill(planner: StepList, view: View) -> None:
    plan_elementwise(planner, fill_kernel(view.itemsize), "", [], [view], 1, "Reorder")


def halo_kernels(itemsize: int) -> tuple[Kernel, ...]:
    """The kernels that `plan_halo` may call for elements of `itemsize` bytes."""
    return fill_kernel(itemsize), clear_gaps()


def plan_halo(planner: StepList, view: View, layout: Layout) -> None:
    """Fill the halo of a view with zeros. The slabs around the innermost dimension are filled separately. One
    step clears the gaps around all slower dimensions, if they merge to at most DIMS."""
    around = [(axis, _slabs(view, layout, axis)) for axis in reversed(layout.order) if any(layout.halo[axis])]
    if around and around[0][0] == layout.order[-1]:
        for slab in around.pop(0)[1]:
            plan_fill(planner, slab)
    if not around:
        return
    slabs = [slab for _, axis_slabs in around for slab in axis_slabs]
    axis = around[0][0]  # from this axis inwards, a row is contiguous
    at = layout.order.index(axis)
    slower = layout.order[:at]
    extents, strides = [view.shape[a] for a in slower], [view.strides[a] for a in slower]
    if at > DIMS:  # merging compares dimensions, and each comparison is a guard
        extents, (strides,) = merge_axes(slower, (view,))
    # an empty view has no writer between this step and its reader, which threads could then start too early
    if len(extents) > DIMS or any(not is_traced_number(d) and d == 0 for d in view.shape):
        for slab in slabs:
            plan_fill(planner, slab)
        return
    size, step = view.buffer.size, view.strides[axis]
    first = view.ptr + -layout.halo[layout.order[-1]][0] * view.itemsize
    run, items = view.shape[axis] * step, product(extents) + 1
    values: dict[str, Any] = {"buffer": Ptr(view.buffer), "y": first, "size": size, "run": run}
    values |= {"items": items, **placed_values(extents, y=strides)}

    def touches(each: int) -> Touches:
        return gaps(first, extents, strides, run, each)

    work = sum(layout.halo[axis]) * step + ROW_WORK
    planner.share_step(clear_gaps(), values, items, work, [], slabs, 0, touches, "Reorder")


def _slabs(view: View, layout: Layout, axis: int) -> list[View]:
    """The parts of the halo before and after `axis`. They exclude the halo of slower dimensions and include
    that of faster ones."""
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


#: Cost of computing a row's address, in bytes that are cleared in the same time.
ROW_WORK = 256
