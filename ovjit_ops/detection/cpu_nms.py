"""Native non-maximum suppression: one class of one image is a chunk, a second kernel puts them together.

Candidates are sorted by score with a radix sort (stable, so that equal scores keep their order). Each is
compared with a vector of boxes that were kept before it. Whatever boxes and scores are, NaN included, only
what the shapes say is read and written: a NaN score is no candidate, a NaN box overlaps nothing.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

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


#: How the two corners of a box are read; `p` is where it lies, its numbers are `b_k` apart.
_CORNERS = {
    "centre": """
        half_w = ld_f32(p + 2 * b_k) * 0.5
        half_h = ld_f32(p + 3 * b_k) * 0.5
        y1 = spread_f32(ld_f32(p + b_k) - half_h)
        x1 = spread_f32(ld_f32(p) - half_w)
        y2 = spread_f32(ld_f32(p + b_k) + half_h)
        x2 = spread_f32(ld_f32(p) + half_w)""",
    "corner": """
        ya = splat_f32(p)
        xa = splat_f32(p + b_k)
        yb = splat_f32(p + 2 * b_k)
        xb = splat_f32(p + 3 * b_k)
        y1 = min_(ya, yb)
        y2 = max_(ya, yb)
        x1 = min_(xa, xb)
        x2 = max_(xa, xb)""",
    "plain": """
        y1 = splat_f32(p)
        x1 = splat_f32(p + b_k)
        y2 = splat_f32(p + 2 * b_k)
        x2 = splat_f32(p + 3 * b_k)""",
}


class Way(NamedTuple):
    """How boxes are compared. `touching`: overlap equal to the limit is enough. `inclusive`: so is a score.
    `border`: corners are whole pixels, which belong to the box. `falling`: the limit is multiplied by the
    number behind it with each box that is kept, while it is above 0.5."""

    corners: str
    limit: str
    touching: bool = True
    inclusive: bool = False
    border: bool = False
    falling: bool = False

    def name(self) -> str:
        words = [w for w in ("inclusive", "border", "falling") if getattr(self, w)]
        return "_".join([self.corners, self.limit, *([] if self.touching else ["apart"]), *words])


def candidates(inclusive: bool) -> str:
    """Text: the pairs (key, number) of the scores at `s` that pass the bar, sorted, at `a`: `many`."""
    above, word = (">=", "ge") if inclusive else (">", "gt")
    return f"""
        many = 0
        k = 0
        while k < n:
            if hor_boolean({word}(gather_f32(s + k * s_i, s_i, n - k), bar)):
                one = k
                while one < imin(k + VL, n):
                    if ld_f32(s + one * s_i) {above} bar_one:
{_indented(_KEY.replace("AT", "s + one * s_i"), 24)}
                        st_i64(a + many * 8, (key << 32) | one)
                        many += 1
                    one += 1
            k += VL
{_indented(_SORT, 8)}
        many = imin(many, top)"""


@functools.cache
def select_kernel(way: Way) -> Kernel:
    """The boxes of one class of one image that are kept: their numbers and scores, and how many."""
    frame = Frame().pointers("boxes", "scores", "most", "iou", "threshold", "chosen", "values", "counts")
    frame.integers("n", "classes", "room", "b_n", "b_c", "b_i", "b_k", "s_n", "s_c", "s_i", "total")
    frame.integers("per_chunk", "top", "skip")
    extent = "add(sub({}, {}), pixel)" if way.border else "sub({}, {})"
    fall = """
                if lane_f32(limit, 0) > 0.5:
                    limit = mul(limit, splat_f32(iou + 4))""" if way.falling else ""  # fmt: skip
    source = f"""@njit(nogil=True)
def kernel(bases, args, chunk, scratch):
{frame.prologue()}
    stride = room * 4 + VL * 4
    zero = const_f32(0.0)
    pixel = const_f32(1.0)
    bar = splat_f32(threshold)
    bar_one = ld_f32(threshold)
    keep = imax(imin(ld_{way.limit}(most) + 0, room), 0)
    h = scratch
    kept = scratch + 2048
    item = chunk * per_chunk
    stop = imin(item + per_chunk, total)
    while item < stop:
        limit = splat_f32(iou)
        a = kept + 5 * stride
        b = a + n * 8
        image = item // classes
        label = item % classes
        s = scores + image * s_n + label * s_c{candidates(way.inclusive)}
        if label == skip:
            many = 0
        count = 0
        c = 0
        while c < many and count < keep:
            one = ld_i64(a + c * 8) & 4294967295
            p = boxes + image * b_n + label * b_c + one * b_i
{_indented(_CORNERS[way.corners], 4)}
            area = mul({extent.format("y2", "y1")}, {extent.format("x2", "x1")})
            alive = gt(area, zero)
            free = 1
            k = 0
            while k < count:
                q = kept + k * 4
                areas = load_f32(q + 4 * stride)
                low_y = max_(y1, load_f32(q))
                low_x = max_(x1, load_f32(q + stride))
                high = max_({extent.format("min_(y2, load_f32(q + 2 * stride))", "low_y")}, zero)
                wide = max_({extent.format("min_(x2, load_f32(q + 3 * stride))", "low_x")}, zero)
                common = mul(high, wide)
                share = div(common, sub(add(area, areas), common))
                share = select(and_(alive, gt(areas, zero)), share, zero)
                near = {"ge" if way.touching else "gt"}(share, limit)
                if hor_boolean(blend_boolean(count - k, near, ne(zero, zero))):
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
                slot = (item * room + count) * 4
                st_i32(chosen + slot, one)
                st_f32(values + slot, ld_f32(s + one * s_i))
                count += 1{fall}
            c += 1
        st_i64(counts + item * 8, count)
        while count < room:
            slot = (item * room + count) * 4
            storem_i32(chosen + slot, const_i32(0), room - count)
            storem_f32(values + slot, zero, room - count)
            count += VL
        item += 1
    return 0
"""
    return Kernel(f"nms_select_{way.name()}", source, frame)


def select_step(
    planner: Planner, kernel: Kernel, inputs: Sequence[View], made: Sequence[View], room: int, top: int = -1,
    skip: int = -1,
) -> None:  # fmt: skip
    """Plan `select_kernel`, or one with its arguments. inputs: boxes [B, N, 4] or [B, C or 1, N, 4], scores
    [B, C, N], and the limits; made: numbers and f32s of what is chosen, `room` for each class, and counts;
    `top`: so many candidates are looked at, -1 for all; `skip`: a class that is none."""
    boxes, scores, *limits = inputs
    images, classes, n = scores.shape
    total = images * classes
    per_chunk = split(total, n * 40)
    b_c = boxes.strides[1] if len(boxes.shape) == 4 and boxes.shape[1] > 1 else 0
    names = ("most", "iou", "threshold")[-len(limits) :]
    values: dict[str, Any] = {
        "boxes": boxes.ptr, "scores": scores.ptr, "n": n,
        **{name: view.ptr for name, view in zip(("chosen", "values", "counts"), made, strict=True)},
        "classes": classes, "room": room, "b_n": boxes.strides[0], "b_c": b_c, "b_i": boxes.strides[-2],
        "b_k": boxes.strides[-1], "s_n": scores.strides[0], "s_c": scores.strides[1],
        "s_i": scores.strides[2], "total": total, "per_chunk": per_chunk, "top": n if top < 0 else top,
        "skip": skip, **{name: view.ptr for name, view in zip(names, limits, strict=True)},
    }  # fmt: skip
    planner.need_scratch(2048 + 6 * (room * 4 + 256) + 2 * n * 8)
    planner.step(kernel, values, ceil_div(total, per_chunk), inputs, list(made), 40.0 * total * n)


@functools.cache
def join_kernel(sort: bool, dtype: str) -> Kernel:
    """All rows together, by falling score or as they come; the rest is filled with -1."""
    frame = Frame().pointers("chosen", "values", "counts", "rows", "scored", "valid")
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
{_indented(_KEY.replace("AT", "values + slot * 4"), 12)}
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
        st_{dtype}(p + {2 * item}, ld_i32(chosen + slot * 4))
        p = scored + i * 12
        st_f32(p, which // classes)
        st_f32(p + 4, which % classes)
        st_f32(p + 8, ld_f32(values + slot * 4))
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
        corners = "centre" if attrs["box_encoding"].lower() == "center" else "corner"
        self.select = select_kernel(Way(corners, self.node.inputs[2].dtype))
        self.join = join_kernel(attrs["sort_result_descending"], attrs["output_type"])
        self.kernels = (self.select, self.join)

    def plan(self, planner: Planner) -> None:
        boxes, scores, most, iou, threshold = (planner.view(v) for v in self.node.inputs)
        rows, scored, valid = made = [row_major_output(planner, v) for v in self.node.outputs]
        images, classes, _ = scores.shape
        total = images * classes
        size = rows.shape[0]
        room = size // total if total else 0
        chosen, values_of = (planner.allocate((max(size, 1),), 4) for _ in range(2))
        counts = planner.allocate((max(total, 1),), 8)
        inputs = [boxes, scores, most, iou, threshold]
        select_step(planner, self.select, inputs, [chosen, values_of, counts], room)
        values: dict[str, Any] = {
            "chosen": chosen.ptr, "values": values_of.ptr, "counts": counts.ptr,
            "rows": rows.ptr, "scored": scored.ptr,
            "valid": valid.ptr, "classes": max(classes, 1), "room": max(room, 1), "total": total,
            "size": size,
        }  # fmt: skip
        planner.need_scratch(2048 + 2 * size * 8)
        planner.step(self.join, values, 1, [chosen, values_of, counts], made, 20.0 * size)
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
