"""Native KeptBoxes and MatrixDecay: an item is one class of one image."""

from __future__ import annotations

from ovjit.codegen.kernel_language import *
from ovjit.planning.lower import Lowering, Planner
from ovjit_ops.common.values import INDEX_TYPES
from ovjit_ops.detection.cpu_candidates import (
    COUNTS,
    append_box,
    box_iou,
    candidates,
    finish_class,
    intersection_area,
    side_length,
)
from ovjit_ops.detection.cpu_nms import NmsOptions, nms_select, select_step


@kernel(
    over="image label", boxes="image label i k", scores="image label i", score_threshold="",
    chosen="image label capacity:1", values="image label capacity:1", counts="image label",
)  # fmt: skip
def matrix_decay(
    boxes: Tensor, scores: Tensor, score_threshold: Tensor, chosen: Tensor, values: Tensor,
    counts: Tensor, top, skip, *, border, gaussian,
):  # fmt: skip
    """Store the sorted candidates of one class, and the decay of each; see the operation MatrixDecay."""
    n = scores.size.i
    capacity = chosen.size.capacity
    stride = (capacity + VL + 1) // 2 * 8
    zero = const[f32](0.0)
    pixel = const[f32](1.0)
    selected = scratch + COUNTS
    for image, label, b, s in items(boxes, scores):
        a = selected + 6 * stride
        number = image * scores.size.label + label
        candidate_count = candidates(s, scores.stride.i, n, score_threshold, False, a, a + n * 8, scratch)
        candidate_count = min(min(candidate_count, top), capacity)
        if label == skip:
            candidate_count = 0
        for c in range(candidate_count):
            one = ld[i64](a + c * 8) & 4294967295
            p = boxes.at(b, i=one)
            y1 = splat[f32](p)
            x1 = splat[f32](p + boxes.stride.k)
            y2 = splat[f32](p + 2 * boxes.stride.k)
            x2 = splat[f32](p + 3 * boxes.stride.k)
            area = side_length(y1, y2, border) * side_length(x1, x2, border)
            largest = zero
            least = zero if gaussian else pixel
            for k in range(0, c, VL):
                q = selected + k * 4
                intersection = intersection_area(q, stride, y1, x1, y2, x2, border)
                overlap = box_iou(q, stride, intersection, area)
                disjoint = (load[f32](q) > y2) | (load[f32](q + stride) > x2)
                disjoint = disjoint | (y1 > load[f32](q + 2 * stride)) | (x1 > load[f32](q + 3 * stride))
                overlap = select(disjoint, zero, overlap)
                largest_overlaps = load[f32](q + 5 * stride)
                drop = (
                    largest_overlaps * largest_overlaps - overlap * overlap
                    if gaussian
                    else (pixel - overlap) / (pixel - largest_overlaps)
                )
                largest = blend[f32](c - k, maximum(largest, overlap), largest)
                least = blend[f32](c - k, minimum(least, drop), least)
            append_box(selected + c * 4, stride, y1, x1, y2, x2, area)
            st[f32](selected + c * 4 + 5 * stride, hmax[f32](largest))
            slot = (number * capacity + c) * 4
            st[i32](chosen + slot, one)
            st[f32](values + slot, hmin[f32](least))
        finish_class(values, number, candidate_count, capacity)


class Choice(Lowering):
    """One step for KeptBoxes or MatrixDecay."""

    ranks = ((3, 4), (3,))

    def plan(self, planner: Planner) -> None:
        inputs = [planner.view(v) for v in self.node.inputs]
        outputs = planner.row_major_outputs(self.node)
        attrs = self.node.attrs
        select_step(planner, self.kernel, inputs, outputs, outputs[0].shape[2], attrs["top"], attrs["skip"])


class KeptBoxes(Choice):
    takes = (("f32",), ("f32",), INDEX_TYPES, ("f32",))

    def set_up(self) -> None:
        attrs = self.node.attrs
        names = ("suppress_equal", "inclusive", "border", "adaptive", "drop_nan")
        options = NmsOptions(attrs["corners"], self.node.inputs[2].dtype, *(attrs[name] for name in names))
        self.kernel = nms_select(options=options)


class MatrixDecay(Choice):
    takes = (("f32",),) * 3

    def set_up(self) -> None:
        self.kernel = matrix_decay(border=self.node.attrs["border"], gaussian=self.node.attrs["gaussian"])
