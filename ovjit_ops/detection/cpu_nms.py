"""Native non-maximum suppression: one class of one image is a chunk, a second kernel puts them together.

Candidates are sorted by score with a radix sort (stable, so that equal scores keep their order). Each is
compared with a vector of boxes that were kept before it. Whatever boxes and scores are, NaN included, only
what the shapes say is read and written: a NaN score is no candidate, a NaN box overlaps nothing.
"""

from __future__ import annotations

import functools
from typing import Any

from ovjit.codegen.elementwise import SIZE
from ovjit.codegen.kernel import Frame, Kernel
from ovjit.compiler.fuse import Group
from ovjit.compiler.lower import Lowering
from ovjit.compiler.plan import Planner, ceil_div, element_size, split
from ovjit.compiler.views import View, plain
from ovjit.graph.graph import Value

#: Sorts `many` pairs (key << 32 | number) at `a` by key, rising; `b` is as large, `h` holds 256 counts.
_SORT = """
shift = 32
while shift < 64:
    i = 0
    while i < 256:
        st_i64(h + i * 8, 0)
        i += 1
    i = 0
    while i < many:
        d = h + ((ld_i64(a + i * 8) >> shift) & 255) * 8
        st_i64(d, ld_i64(d) + 1)
        i += 1
    before = 0
    i = 0
    while i < 256:
        bin = ld_i64(h + i * 8) + 0
        st_i64(h + i * 8, before)
        before += bin
        i += 1
    i = 0
    while i < many:
        pair = ld_i64(a + i * 8) + 0
        d = h + ((pair >> shift) & 255) * 8
        bin = ld_i64(d) + 0
        st_i64(b + bin * 8, pair)
        st_i64(d, bin + 1)
        i += 1
    swap = a
    a = b
    b = swap
    shift += 8
"""
#: `key`: rises when the f32 whose bits are at `at` falls; both zeros are one.
_KEY = """
key = ld_i32(AT) & 4294967295
if key == 2147483648:
    key = 0
if key < 2147483648:
    key = 2147483647 - key
"""


def _indented(text: str, depth: int) -> str:
    return "\n".join(" " * depth + line for line in text.strip("\n").splitlines())


@functools.cache
def select_kernel(centre: bool, limit: str) -> Kernel:
    """The boxes of one class of one image that are kept: their numbers and scores, and how many."""
    frame = Frame().pointers("boxes", "scores", "most", "iou", "threshold", "chosen", "counts")
    frame.integers("n", "classes", "room", "b_n", "b_i", "b_k", "s_n", "s_c", "s_i", "total", "per_chunk")
    if centre:
        corner = """
        half_w = ld_f32(p + 2 * b_k) * 0.5
        half_h = ld_f32(p + 3 * b_k) * 0.5
        y1 = spread_f32(ld_f32(p + b_k) - half_h)
        x1 = spread_f32(ld_f32(p) - half_w)
        y2 = spread_f32(ld_f32(p + b_k) + half_h)
        x2 = spread_f32(ld_f32(p) + half_w)"""
    else:
        corner = """
        ya = splat_f32(p)
        xa = splat_f32(p + b_k)
        yb = splat_f32(p + 2 * b_k)
        xb = splat_f32(p + 3 * b_k)
        y1 = min_(ya, yb)
        y2 = max_(ya, yb)
        x1 = min_(xa, xb)
        x2 = max_(xa, xb)"""
    source = f"""@njit(nogil=True)
def kernel(bases, args, chunk, scratch):
{frame.prologue()}
    stride = room * 4 + VL * 4
    zero = const_f32(0.0)
    limit = splat_f32(iou)
    bar = splat_f32(threshold)
    bar_one = ld_f32(threshold)
    keep = imax(imin(ld_{limit}(most) + 0, room), 0)
    h = scratch
    kept = scratch + 2048
    item = chunk * per_chunk
    stop = imin(item + per_chunk, total)
    while item < stop:
        a = kept + 5 * stride
        b = a + n * 8
        image = item // classes
        s = scores + image * s_n + (item % classes) * s_c
        many = 0
        k = 0
        while k < n:
            if hor_boolean(gt(gather_f32(s + k * s_i, s_i, n - k), bar)):
                one = k
                while one < imin(k + VL, n):
                    if ld_f32(s + one * s_i) > bar_one:
{_indented(_KEY.replace("AT", "s + one * s_i"), 24)}
                        st_i64(a + many * 8, (key << 32) | one)
                        many += 1
                    one += 1
            k += VL
{_indented(_SORT, 8)}
        count = 0
        c = 0
        while c < many and count < keep:
            one = ld_i64(a + c * 8) & 4294967295
            p = boxes + image * b_n + one * b_i
{_indented(corner, 4)}
            area = mul(sub(y2, y1), sub(x2, x1))
            alive = gt(area, zero)
            free = 1
            k = 0
            while k < count:
                q = kept + k * 4
                areas = load_f32(q + 4 * stride)
                high = max_(sub(min_(y2, load_f32(q + 2 * stride)), max_(y1, load_f32(q))), zero)
                wide = max_(sub(min_(x2, load_f32(q + 3 * stride)), max_(x1, load_f32(q + stride))), zero)
                common = mul(high, wide)
                share = div(common, sub(add(area, areas), common))
                share = select(and_(alive, gt(areas, zero)), share, zero)
                if hor_boolean(blend_boolean(count - k, ge(share, limit), ne(zero, zero))):
                    free = 0
                    k = count
                k += VL
            if free == 1:
                q = kept + count * 4
                st_f32(q, lane_f32(y1, 0))
                st_f32(q + stride, lane_f32(x1, 0))
                st_f32(q + 2 * stride, lane_f32(y2, 0))
                st_f32(q + 3 * stride, lane_f32(x2, 0))
                st_f32(q + 4 * stride, lane_f32(area, 0))
                slot = chosen + (item * room + count) * 8
                st_i32(slot, one)
                st_f32(slot + 4, ld_f32(s + one * s_i))
                count += 1
            c += 1
        st_i64(counts + item * 8, count)
        item += 1
    return 0
"""
    return Kernel(f"nms_select_{'centre' if centre else 'corner'}_{limit}", source, frame)


@functools.cache
def join_kernel(sort: bool, dtype: str) -> Kernel:
    """All rows together, by falling score or as they come; the rest is filled with -1."""
    frame = Frame().pointers("chosen", "counts", "rows", "scored", "valid")
    frame.integers("classes", "room", "total", "size")
    item = SIZE[dtype]
    source = f"""@njit(nogil=True)
def kernel(bases, args, chunk, scratch):
{frame.prologue()}
    h = scratch
    a = scratch + 2048
    b = a + size * 8
    many = 0
    i = 0
    while i < total:
        n = ld_i64(counts + i * 8) + 0
        k = 0
        while k < n:
            slot = i * room + k
{_indented(_KEY.replace("AT", "chosen + slot * 8 + 4"), 12)}
            st_i64(a + many * 8, (key << 32) | slot)
            many += 1
            k += 1
        i += 1
{_indented(_SORT, 4) if sort else ""}
    i = 0
    while i < many:
        slot = ld_i64(a + i * 8) & 4294967295
        which = slot // room
        p = rows + i * {3 * item}
        st_{dtype}(p, which // classes)
        st_{dtype}(p + {item}, which % classes)
        st_{dtype}(p + {2 * item}, ld_i32(chosen + slot * 8))
        p = scored + i * 12
        st_f32(p, which // classes)
        st_f32(p + 4, which % classes)
        st_f32(p + 8, ld_f32(chosen + slot * 8 + 4))
        i += 1
    k = many * 3
    while k < size * 3:
        storem_{dtype}(rows + k * {item}, const_{dtype}(-1), size * 3 - k)
        storem_f32(scored + k * 4, const_f32(-1.0), size * 3 - k)
        k += VL
    st_{dtype}(valid, many)
    return 0
"""
    return Kernel(f"nms_join_{'sorted_' if sort else ''}{dtype}", source, frame)


class PaddedNms(Lowering):
    """Two steps: the classes one by one, then all rows together."""

    def __init__(self, group: Group):
        super().__init__(group)
        self.node = group.last
        attrs = self.node.attrs
        self.select = select_kernel(attrs["box_encoding"].lower() == "center", self.node.inputs[2].dtype)
        self.join = join_kernel(attrs["sort_result_descending"], attrs["output_type"])
        self.kernels = (self.select, self.join)

    def plan(self, planner: Planner) -> None:
        boxes, scores, most, iou, threshold = (planner.view(v) for v in self.node.inputs)
        rows, scored, valid = made = [row_major_output(planner, v) for v in self.node.outputs]
        images, classes, n = scores.shape
        total = images * classes
        size = rows.shape[0]
        room = size // total if total else 0
        chosen = planner.allocate((max(size, 1), 2), 4)
        counts = planner.allocate((max(total, 1),), 8)
        per_chunk = split(total, n * 40)
        values: dict[str, Any] = {
            "boxes": boxes.ptr, "scores": scores.ptr, "most": most.ptr, "iou": iou.ptr,
            "threshold": threshold.ptr, "chosen": chosen.ptr, "counts": counts.ptr, "n": n,
            "classes": classes, "room": room, "b_n": boxes.strides[0], "b_i": boxes.strides[1],
            "b_k": boxes.strides[2],
            "s_n": scores.strides[0], "s_c": scores.strides[1], "s_i": scores.strides[2], "total": total,
            "per_chunk": per_chunk,
        }  # fmt: skip
        planner.need_scratch(2048 + 5 * (room * 4 + 256) + 2 * n * 8)
        reads = [boxes, scores, most, iou, threshold]
        planner.step(
            self.select, values, ceil_div(total, per_chunk), reads, [chosen, counts], 40.0 * total * n
        )
        values = {
            "chosen": chosen.ptr, "counts": counts.ptr, "rows": rows.ptr, "scored": scored.ptr,
            "valid": valid.ptr, "classes": max(classes, 1), "room": max(room, 1), "total": total,
            "size": size,
        }  # fmt: skip
        planner.need_scratch(2048 + 2 * size * 8)
        planner.step(self.join, values, 1, [chosen, counts], made, 20.0 * size)
        for value, view in zip(self.node.outputs, made, strict=True):
            if value in planner.placed:
                planner.alias_or_copy(value, view)


def row_major_output(planner: Planner, value: Value) -> View:
    """Where `value` is written row by row; to be copied by `alias_or_copy` where it has a place elsewhere."""
    shape = planner.shape(value)
    if value in planner.placed:
        return planner.allocate(shape, element_size(value.dtype))
    return planner.output(value, plain(len(shape)))


def lower_padded(group: Group) -> Lowering | None:
    boxes, scores, most, iou, threshold = group.last.inputs
    if any(v.dtype != "f32" for v in (boxes, scores, iou, threshold)) or most.dtype not in ("i32", "i64"):
        return None
    if len(boxes.shape) != 3 or len(scores.shape) != 3:
        return None
    return PaddedNms(group)
