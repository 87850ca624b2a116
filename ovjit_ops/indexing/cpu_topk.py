"""Native TopK: a heap of the k best so far walks along each row, and is then taken apart in order.

Elements become 64-bit integers in the same order, so that one comparison serves all types: NaN is above all
numbers, zeros are equal. Of equals the first comes first. Rows are shared out.
"""

from __future__ import annotations

import functools
from typing import Any

from ovjit.codegen.elementwise import SIZE
from ovjit.codegen.kernel import Frame, Kernel
from ovjit.compiler.fuse import Group
from ovjit.compiler.lower import Host, Lowering
from ovjit.compiler.plan import Planner, ceil_div, split
from ovjit.compiler.races import Piece, Rows
from ovjit.compiler.views import View, merge_dims, plain, product
from ovjit.graph.dtypes import ELEMENT_TYPES
from ovjit.graph.shapes import normalize_axis

_DIMS = 3
#: Bytes of a heap entry: key and index.
_ENTRY = 16
_INFINITY = {"f32": 0x7F800000, "f64": 0x7FF0000000000000, "f16": 0x7C00, "bf16": 0x7F80}
_MOST = (1 << 63) - 1


def _key(dtype: str, largest: bool) -> list[str]:
    """key = the element at p, as an integer that is larger the better it is."""
    kind, bits = ELEMENT_TYPES[dtype].kind, SIZE[dtype] * 8
    if kind == "f":
        mask = (1 << (bits - 1)) - 1
        lines = [f"key = ld_i{bits}(p) + 0", f"magnitude = key & {mask}", "if magnitude == 0:", "    key = 0"]
        lines += ["if key < 0:", f"    key = key ^ {mask}"]
        lines += [f"if magnitude > {_INFINITY[dtype]}:", f"    key = {_MOST}"]
    elif dtype == "u64":
        lines = [f"key = ld_i64(p) ^ {-_MOST - 1}"]
    else:
        lines = [f"key = ld_{dtype}(p) + 0"]
    return lines if largest else [*lines, "key = ~key"]


#: Put (key, at) into the heap of `size` entries from the hole down; the worst is at the root.
_SIFT = f"""
while True:
    child = 2 * hole + 1
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
    st_i64(scratch + hole * {_ENTRY}, child_key)
    st_i64(scratch + hole * {_ENTRY} + 8, child_at)
    hole = child
st_i64(scratch + hole * {_ENTRY}, key)
st_i64(scratch + hole * {_ENTRY} + 8, at)
"""

#: One row. Each turn of the loop moves one entry to its place: BUILD makes a heap of the first elements, SCAN
#: looks for the next one that is better than the worst kept one, TAKE writes the worst one out.
_ROW = f"""
p = source
i = 0
while i < best:
    @key
    st_i64(scratch + i * {_ENTRY}, key)
    st_i64(scratch + i * {_ENTRY} + 8, i)
    p += x_n
    i += 1
start = best // 2
size = best
state = BUILD
after = SCAN
while True:
    if state == SCAN:
        worst = ld(scratch, 0)
        hole = -1
        while i < n and hole < 0:
            @key
            # an equal comes later, and so is worse
            if key > worst:
                hole = 0
                at = i
            p += x_n
            i += 1
        if hole < 0:
            @reorder
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
            st_@moved(values + size * y_n, ld_@moved(source + found * x_n))
            st_@index(places + size * z_n, found)
            if size == 0:
                break
            hole = 0
            start = size
        key = ld(scratch, 2 * start)
        at = ld(scratch, 2 * start + 1)
    @sift
"""

#: The entries as a heap in which a later index is worse.
_BY_INDEX = f"""
i = 0
while i < best:
    st_i64(scratch + i * {_ENTRY}, -ld(scratch, 2 * i + 1))
    i += 1
start = best // 2
after = BUILD
"""


def _filled(template: str, parts: dict[str, list[str]], names: dict[str, str]) -> list[str]:
    """The template's lines: `@part` alone on a line stands for lines, names for texts."""
    out = []
    for line in template.strip().splitlines():
        text = line.lstrip()
        if text[:1] == "@":
            out += [line[: -len(text)] + inner for inner in parts[text[1:]]]
            continue
        for name, by in names.items():
            line = line.replace(name, by)
        out.append(line)
    return out


@functools.cache
def topk_kernel(dtype: str, index: str, largest: bool, by_index: bool) -> Kernel:
    frame = Frame().pointers("x", "y", "z").integers("n", "x_n", "y_n", "z_n", "best", "rows", "per_chunk")
    for d in range(_DIMS):
        frame.integers(f"d{d}", f"x_{d}", f"y_{d}", f"z_{d}")
    moved = {1: "u8", 2: "i16", 4: "i32", 8: "i64"}[SIZE[dtype]]
    names = {"BUILD": "0", "SCAN": "1", "TAKE": "2", "@moved": moved, "@index": index}
    reorder = _filled(_BY_INDEX, {}, names) if by_index else []
    parts = {"key": _key(dtype, largest), "reorder": reorder, "sift": _filled(_SIFT, {}, {})}
    body = ["a2 = row % d2", "rest = row // d2", "a1 = rest % d1", "a0 = rest // d1"]
    for v, p in (("source", "x"), ("values", "y"), ("places", "z")):
        body += [f"{v} = {p} + a0 * {p}_0 + a1 * {p}_1 + a2 * {p}_2"]
    body += _filled(_ROW, parts, names)
    src = ["@njit(nogil=True)", "def kernel(bases, args, chunk, scratch):", frame.prologue()]
    src += ["    row = chunk * per_chunk", "    stop = imin(row + per_chunk, rows)", "    while row < stop:"]
    src += [" " * 8 + line for line in body]
    src += ["        row += 1", "    return 0", ""]
    name = f"top{'_max' if largest else '_min'}{'_by_index' if by_index else ''}_{dtype}_{index}"
    return Kernel(name, "\n".join(src), frame)


class TopK(Lowering):
    """The k best of every row along one axis, and where they were."""

    def __init__(self, group: Group):
        super().__init__(group)
        self.node = group.last
        attrs = self.node.attrs
        self.kernel = topk_kernel(
            self.node.inputs[0].dtype, self.node.outputs[1].dtype, attrs["mode"].lower() == "max",
            attrs["sort"].lower() == "index",
        )  # fmt: skip
        self.kernels = (self.kernel,)

    def plan(self, planner: Planner) -> None:
        node = self.node
        if planner.types[node.inputs[1]].value is None:
            Host(self.group).plan(planner)
            return
        x = planner.view(node.inputs[0])
        rank = len(x.shape)
        y, z = (planner.output(v, plain(rank)) for v in node.outputs)
        if y.count and not self._plan(planner, x, y, z):
            results = [planner.allocate(v.shape, v.itemsize) for v in (y, z)]
            self._plan(planner, planner.contiguous(node.inputs[0]), *results)
            for made, view in zip(results, (y, z), strict=True):
                planner.copy_step(made, view)

    def _plan(self, planner: Planner, x: View, y: View, z: View) -> bool:
        """False when there are too many dimensions that do not merge."""
        axis = normalize_axis(self.node.attrs["axis"], len(x.shape))
        others = [a for a in range(len(x.shape)) if a != axis]
        extents, strides = merge_dims(
            [x.shape[a] for a in others], [[v.strides[a] for a in others] for v in (x, y, z)]
        )
        if len(extents) > _DIMS:
            return False
        n, best, rows = x.shape[axis], y.shape[axis], product(extents)
        per_chunk = split(rows, n * 8)
        values: dict[str, Any] = {
            "x": x.ptr, "y": y.ptr, "z": z.ptr, "n": n, "best": best, "rows": rows, "per_chunk": per_chunk,
            "x_n": x.strides[axis], "y_n": y.strides[axis], "z_n": z.strides[axis],
        }  # fmt: skip
        missing = _DIMS - len(extents)
        for d in range(_DIMS):
            row = (1, 0, 0, 0) if d < missing else (extents[d - missing], *(s[d - missing] for s in strides))
            values |= dict(zip((f"d{d}", f"x_{d}", f"y_{d}", f"z_{d}"), row, strict=True))
        planner.need_scratch(best * _ENTRY)
        read, *written = (
            Piece(v.ptr, along, (v.shape[axis],), (v.strides[axis],), v.itemsize)
            for v, along in zip((x, y, z), strides, strict=True)
        )
        touches = Rows(extents, per_chunk, [read], written)
        chunks, flops = ceil_div(rows, per_chunk), x.count
        planner.step(self.kernel, values, chunks, [x], [y, z], flops, touches=touches)
        return True


def lower_topk(group: Group) -> Lowering | None:
    return TopK(group) if group.last.inputs[0].shape else None
