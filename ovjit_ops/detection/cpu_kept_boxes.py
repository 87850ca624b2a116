"""Native KeptBoxes and MatrixFalls: a class of an image is what a thread does at a time."""

from __future__ import annotations

import functools

from ovjit.codegen.kernel import Frame, Kernel
from ovjit.compiler.fuse import Group
from ovjit.compiler.lower import Lowering
from ovjit.compiler.plan import Planner
from ovjit_ops.detection.cpu_nms import Way, candidates, row_major_output, select_kernel, select_step


@functools.cache
def falls_kernel(border: bool, gaussian: bool) -> Kernel:
    """Sorted candidates of one class, and how far each falls; see the operation MatrixFalls."""
    frame = Frame().pointers("boxes", "scores", "threshold", "chosen", "values", "counts")
    frame.integers("n", "classes", "room", "b_n", "b_c", "b_i", "b_k", "s_n", "s_c", "s_i", "total")
    frame.integers("per_chunk", "top", "skip")
    extent = "add(sub({}, {}), pixel)" if border else "sub({}, {})"
    if gaussian:
        first, fall = "zero", "sub(mul(theirs, theirs), mul(share, share))"
    else:
        first, fall = "pixel", "div(sub(pixel, share), sub(pixel, theirs))"
    source = f"""@njit(nogil=True)
def kernel(bases, args, chunk, scratch):
{frame.prologue()}
    stride = room * 4 + VL * 4
    zero = const_f32(0.0)
    pixel = const_f32(1.0)
    bar = splat_f32(threshold)
    bar_one = ld_f32(threshold)
    h = scratch
    kept = scratch + 2048
    item = chunk * per_chunk
    stop = imin(item + per_chunk, total)
    while item < stop:
        a = kept + 6 * stride
        b = a + n * 8
        image = item // classes
        label = item % classes
        s = scores + image * s_n + label * s_c{candidates(False)}
        many = imin(many, room)
        if label == skip:
            many = 0
        c = 0
        while c < many:
            one = ld_i64(a + c * 8) & 4294967295
            p = boxes + image * b_n + label * b_c + one * b_i
            y1 = splat_f32(p)
            x1 = splat_f32(p + b_k)
            y2 = splat_f32(p + 2 * b_k)
            x2 = splat_f32(p + 3 * b_k)
            area = mul({extent.format("y2", "y1")}, {extent.format("x2", "x1")})
            alive = gt(area, zero)
            largest = zero
            least = {first}
            k = 0
            while k < c:
                q = kept + k * 4
                other_y = load_f32(q)
                other_x = load_f32(q + stride)
                end_y = load_f32(q + 2 * stride)
                end_x = load_f32(q + 3 * stride)
                areas = load_f32(q + 4 * stride)
                theirs = load_f32(q + 5 * stride)
                high = max_({extent.format("min_(y2, end_y)", "max_(y1, other_y)")}, zero)
                wide = max_({extent.format("min_(x2, end_x)", "max_(x1, other_x)")}, zero)
                common = mul(high, wide)
                share = div(common, sub(add(area, areas), common))
                apart = or_(or_(gt(other_y, y2), gt(other_x, x2)), or_(gt(y1, end_y), gt(x1, end_x)))
                share = select(and_(alive, gt(areas, zero)), share, zero)
                share = select(apart, zero, share)
                fall = {fall}
                largest = blend_f32(c - k, max_(largest, share), largest)
                least = blend_f32(c - k, min_(least, fall), least)
                k += VL
            q = kept + c * 4
            st_f32(q, lane_f32(y1, 0))
            st_f32(q + stride, lane_f32(x1, 0))
            st_f32(q + 2 * stride, lane_f32(y2, 0))
            st_f32(q + 3 * stride, lane_f32(x2, 0))
            st_f32(q + 4 * stride, lane_f32(area, 0))
            st_f32(q + 5 * stride, hmax_f32(largest))
            slot = (item * room + c) * 4
            st_i32(chosen + slot, one)
            st_f32(values + slot, hmin_f32(least))
            c += 1
        st_i64(counts + item * 8, many)
        while many < room:
            slot = (item * room + many) * 4
            storem_i32(chosen + slot, const_i32(0), room - many)
            storem_f32(values + slot, zero, room - many)
            many += VL
        item += 1
    return 0
"""
    name = f"nms_falls_{'gaussian' if gaussian else 'linear'}{'_border' if border else ''}"
    return Kernel(name, source, frame)


class LoweredChoice(Lowering):
    """One step for KeptBoxes or MatrixFalls."""

    def __init__(self, group: Group, kernel: Kernel):
        super().__init__(group)
        self.node = group.last
        self.kernels = (kernel,)

    def plan(self, planner: Planner) -> None:
        inputs = [planner.view(v) for v in self.node.inputs]
        made = [row_major_output(planner, v) for v in self.node.outputs]
        attrs = self.node.attrs
        select_step(planner, self.kernels[0], inputs, made, made[0].shape[2], attrs["top"], attrs["skip"])
        for value, view in zip(self.node.outputs, made, strict=True):
            if value in planner.placed:
                planner.alias_or_copy(value, view)


def _plain(group: Group) -> bool:
    boxes, scores, *limits = group.last.inputs
    floats = [boxes, scores, limits[-1]]
    return all(v.dtype == "f32" for v in floats) and len(boxes.shape) in (3, 4) and len(scores.shape) == 3


def lower_kept(group: Group) -> Lowering | None:
    attrs, most = group.last.attrs, group.last.inputs[2]
    if not _plain(group) or most.dtype not in ("i32", "i64"):
        return None
    words = (attrs[name] for name in ("touching", "inclusive", "border", "falling"))
    return LoweredChoice(group, select_kernel(Way(attrs["corners"], most.dtype, *words)))


def lower_falls(group: Group) -> Lowering | None:
    attrs = group.last.attrs
    return LoweredChoice(group, falls_kernel(attrs["border"], attrs["gaussian"])) if _plain(group) else None
