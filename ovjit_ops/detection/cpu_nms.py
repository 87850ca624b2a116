"""Native non-maximum suppression: an item is one class of one image. A second kernel joins the rows.

Each candidate, best first, is compared with vectors of the boxes that were kept before it. All accesses stay
within the shapes, whatever the values of boxes and scores, NaN included.
"""

from __future__ import annotations

from collections.abc import Sequence

from ovjit.codegen import trace as t
from ovjit.codegen.cpu.ir import body_of
from ovjit.codegen.kernel_language import *
from ovjit.planning.lower import Lowering, Planner, View, launch
from ovjit.records import NamedTuple
from ovjit_ops.common.values import INDEX_TYPES
from ovjit_ops.detection.cpu_candidates import (
    COUNTS,
    SELECTING,
    append_box,
    box_iou,
    candidates,
    finish_class,
    intersection_area,
    key_of,
    side_length,
    sorted_pairs,
)
from ovjit_ops.detection.cpu_nms_rotated import BYTES_EACH, nms_select_rotated

#: Encodings of rotated boxes, which have five numbers.
ROTATED = ("clockwise", "counterclockwise")


#: The decay of scores.
DECAY = body_of(t.exp)


class NmsOptions(NamedTuple):
    """Options of a comparison of boxes. `corners`: encoding; `limit`: type of the maximum number of boxes.

    `suppress_equal`: an overlap equal to the limit suppresses. `inclusive`: a score equal to the threshold
    passes. `border`: corners are pixels that belong to the box, so sides are one longer. `adaptive`: each
    kept box multiplies the limit by the number after it, while the limit is above 0.5. `drop_nan`: a box
    with a NaN is not kept.
    """

    corners: str
    limit: str
    suppress_equal: bool = True
    inclusive: bool = False
    border: bool = False
    adaptive: bool = False
    drop_nan: bool = False

    def __str__(self) -> str:
        words = [w for w in ("inclusive", "border", "adaptive", "drop_nan") if getattr(self, w)]
        return "_".join([self.corners, self.limit, *([] if self.suppress_equal else ["apart"]), *words])


@inline
def is_kept(selected, stride, count, limit, y1, x1, y2, x2, area, options):
    """1 if the box overlaps each of the `count` kept boxes by less than the limit, else 0."""
    zero = const[f32](0.0)
    free = 1
    # latest first: boxes that overlap have similar scores
    k = (count + VL - 1) // VL * VL - VL
    any_share = lane[f32](limit, 0) < 1e-30
    bar = limit * const[f32](0.999)
    while k >= 0:
        q = selected + k * 4
        intersection = intersection_area(q, stride, y1, x1, y2, x2, options.border)
        # this product rules out most boxes without the division of a share
        if any_share or hor[boolean](intersection >= (area + load[f32](q + 4 * stride) - intersection) * bar):
            overlap = box_iou(q, stride, intersection, area)
            near = overlap >= limit if options.suppress_equal else overlap > limit
            if hor[boolean](blend[boolean](count - k, near, zero != zero)):
                free = 0
                k = 0
        k -= VL
    return free


@inline
def box_at(at, p, b_k, options):
    """Store the corners of the box at p to at["y1"] and so on, in all lanes."""
    if options.corners == "centre":
        half_w = ld[f32](p + 2 * b_k) * 0.5
        half_h = ld[f32](p + 3 * b_k) * 0.5
        at["y1"] = spread[f32](ld[f32](p + b_k) - half_h)
        at["x1"] = spread[f32](ld[f32](p) - half_w)
        at["y2"] = spread[f32](ld[f32](p + b_k) + half_h)
        at["x2"] = spread[f32](ld[f32](p) + half_w)
    elif options.corners == "corner":
        ya = splat[f32](p)
        xa = splat[f32](p + b_k)
        yb = splat[f32](p + 2 * b_k)
        xb = splat[f32](p + 3 * b_k)
        at["y1"] = minimum(ya, yb)
        at["y2"] = maximum(ya, yb)
        at["x1"] = minimum(xa, xb)
        at["x2"] = maximum(xa, xb)
    else:
        at["y1"] = splat[f32](p)
        at["x1"] = splat[f32](p + b_k)
        at["y2"] = splat[f32](p + 2 * b_k)
        at["x2"] = splat[f32](p + 3 * b_k)


@kernel(**SELECTING)
def nms_select(
    boxes: Tensor, scores: Tensor, max_boxes: Tensor, iou_threshold: Tensor, score_threshold: Tensor,
    chosen: Tensor, values: Tensor, counts: Tensor, top, skip, *, options,
):  # fmt: skip
    """Select the boxes of one class of one image. Stores their indices, scores and number."""
    n = scores.size.i
    capacity = chosen.size.capacity
    stride = (capacity + VL + 1) // 2 * 8
    keep = max(min(ld[options.limit](max_boxes) + 0, capacity), 0)
    selected = scratch + COUNTS
    at = registers()
    for image, label, b, s in items(boxes, scores):
        limit = splat[f32](iou_threshold)
        a = selected + 5 * stride
        number = image * scores.size.label + label
        candidate_count = candidates(
            s, scores.stride.i, n, score_threshold, options.inclusive, a, a + n * 8, scratch
        )
        candidate_count = min(candidate_count, top)
        if label == skip:
            candidate_count = 0
        count = 0
        c = 0
        while c < candidate_count and count < keep:
            one = ld[i64](a + c * 8) & 4294967295
            p = boxes.at(b, i=one)
            box_at(at, p, boxes.stride.k, options)
            y1 = at["y1"]
            x1 = at["x1"]
            y2 = at["y2"]
            x2 = at["x2"]
            area = side_length(y1, y2, options.border) * side_length(x1, x2, options.border)
            free = is_kept(selected, stride, count, limit, y1, x1, y2, x2, area, options)
            if options.drop_nan:
                if hor[boolean](area != area):
                    free = 0
            if free == 1:
                append_box(selected + count * 4, stride, y1, x1, y2, x2, area)
                slot = (number * capacity + count) * 4
                st[i32](chosen + slot, one)
                st[f32](values + slot, ld[f32](scores.at(s, i=one)))
                count += 1
                if options.adaptive:
                    if lane[f32](limit, 0) > 0.5:
                        limit = limit * splat[f32](iou_threshold + 4)
            c += 1
        finish_class(values, number, count, capacity)


@inline
def collect(at, first, scores_at, stride, b, s, bar, *, boxes, scores, options):
    """Store boxes with scores above the limit as candidates at `first`, their scores and indices at
    `scores_at`. Returns how many."""
    count = 0
    for i in range(scores.size.i):
        if ld[f32](scores.at(s, i=i)) > lane[f32](bar, 0):
            box_at(at, boxes.at(b, i=i), boxes.stride.k, options)
            area = (at["y2"] - at["y1"]) * (at["x2"] - at["x1"])
            append_box(first + count * 4, stride, at["y1"], at["x1"], at["y2"], at["x2"], area)
            st[f32](scores_at + count * 4, ld[f32](scores.at(s, i=i)))
            st[i32](scores_at + stride + count * 4, i)
            count += 1
    return count


@kernel(**SELECTING)
def nms_select_soft(
    boxes: Tensor, scores: Tensor, max_boxes: Tensor, iou_threshold: Tensor, score_threshold: Tensor,
    chosen: Tensor, values: Tensor, counts: Tensor, top, skip, *, options,
):  # fmt: skip
    """`nms_select` with soft suppression: each kept box multiplies the other scores by exp(-share^2 / (2
    sigma)).

    `iou_threshold` is the address of sigma. Candidates are seven rows: corners, areas, scores and indices.
    The score of a removed candidate is -infinity. `top` and `skip` are not used: all boxes are candidates.
    """
    n = scores.size.i
    capacity = chosen.size.capacity
    stride = (n + VL + 1) // 2 * 8
    none = -inf
    keep = max(min(ld[options.limit](max_boxes) + 0, capacity), 0)
    first = scratch + VL * 4
    scores_at = first + 5 * stride
    at = registers()
    for i in range(VL):
        st[i32](scratch + i * 4, i)
    lanes = load[i32](scratch)
    bar = splat[f32](score_threshold)
    factor = const[f32](-0.5) / splat[f32](iou_threshold)
    for image, label, b, s in items(boxes, scores):
        number = image * scores.size.label + label
        count = collect(at, first, scores_at, stride, b, s, bar)
        store[f32](scores_at + count * 4, const[f32](none))
        selected_count = 0
        while selected_count < keep:
            best = load[f32](scores_at)
            indices = lanes
            for k in range(VL, count, VL):
                one = load[f32](scores_at + k * 4)
                better = one > best
                indices = select(better, lanes + spread[i32](k), indices)
                best = select(better, one, best)
            top = spread[f32](hmax[f32](best))
            if hor[boolean](top == const[f32](none)):
                break
            c = hmin[i32](select(best == top, indices, const[i32](0x7FFFFFFF))) * 4
            slot = (number * capacity + selected_count) * 4
            st[i32](chosen + slot, ld[i32](scores_at + stride + c))
            st[f32](values + slot, lane[f32](top, 0))
            selected_count += 1
            st[f32](scores_at + c, none)
            q = first + c
            y1 = splat[f32](q)
            x1 = splat[f32](q + stride)
            y2 = splat[f32](q + 2 * stride)
            x2 = splat[f32](q + 3 * stride)
            area = splat[f32](q + 4 * stride)
            for k in range(0, count, VL):
                intersection = intersection_area(first + k * 4, stride, y1, x1, y2, x2, False)
                overlap = box_iou(first + k * 4, stride, intersection, area)
                power = factor * overlap * overlap
                decay = applied(DECAY, power)
                score = load[f32](scores_at + k * 4) * decay
                store[f32](
                    scores_at + k * 4, select((score > bar) & (overlap == overlap), score, const[f32](none))
                )
        finish_class(values, number, selected_count, capacity)


def select_step(
    planner: Planner, kernel: Kernel, inputs: Sequence[View], outputs: Sequence[View], capacity: int,
    top: int = -1, skip: int = -1, each: int = 24,
) -> None:  # fmt: skip
    """Add the step of `nms_select`, or of a kernel with the same parameters.

    inputs: boxes [B, N, 4] or [B, C or 1, N, 4], scores [B, C, N], and the limits. made: indices and f32s of
    the selected boxes, `capacity` for each class, and counts. `top`: maximum number of candidates, -1 for
    all. `skip`: a class that is ignored. `each`: bytes of scratch memory per kept box.
    """
    boxes, scores, *limits = inputs
    images, classes, n = scores.shape
    each_class = (images, classes)
    if len(boxes.shape) == 3:
        boxes = boxes.as_shape((images, 1, *boxes.shape[1:]))
    shapes = ((*each_class, capacity), (*each_class, capacity), each_class)
    chosen, values, counts = (view.as_shape(shape) for view, shape in zip(outputs, shapes, strict=True))
    tensors = {"boxes": boxes.expand((*each_class, *boxes.shape[2:])), "scores": scores}
    tensors |= zip(("max_boxes", "iou_threshold", "score_threshold")[-len(limits) :], limits, strict=True)
    tensors |= {"chosen": chosen, "values": values, "counts": counts}
    planner.need_scratch(COUNTS + each * (capacity + 64) + 2 * n * 8)
    launch(
        planner, kernel, tensors, ("chosen", "values", "counts"), work=n * 40,
        flops=40.0 * images * classes * n, top=n if top < 0 else top, skip=skip,
    )  # fmt: skip


@kernel(
    chosen="n c capacity:1",
    values="n c capacity:1",
    counts="n c:1",
    rows="r three:1",
    scored="r three:1",
    valid="",
)
def nms_join(
    chosen: Tensor, values: Tensor, counts: Tensor, rows: Tensor, scored: Tensor, valid: Tensor, *, T, ordered
):
    """Join the rows of all classes, by descending score if `ordered`. Missing rows are -1."""
    a = scratch + COUNTS
    total = 0
    classes = counts.size.c
    capacity = chosen.size.capacity
    size = rows.size.r
    for i in range(counts.size.n * classes):
        n = ld[i64](counts + i * 8) + 0
        for k in range(n):
            slot = i * capacity + k
            key = key_of(values + slot * 4)
            st[i64](a + total * 8, (key << 32) | slot)
            total += 1
    if ordered:
        sorted_pairs(a, a + size * 8, total, scratch)
    for i in range(total):
        slot = ld[i64](a + i * 8) & 4294967295
        which = slot // capacity
        p = rows + i * (3 * SIZE[T])
        st[T](p, which // classes)
        st[T](p + SIZE[T], which % classes)
        st[T](p + 2 * SIZE[T], ld[i32](chosen + slot * 4))
        q = scored + i * 12
        st[f32](q, which // classes)
        st[f32](q + 4, which % classes)
        st[f32](q + 8, ld[f32](values + slot * 4))
    for k in range(total * 3, size * 3, VL):
        storem[T](rows + k * SIZE[T], const[T](-1), size * 3 - k)
        storem[f32](scored + k * 4, const[f32](-1.0), size * 3 - k)
    st[T](valid, total)


class PaddedNms(Lowering):
    """Two steps: selection in each class, then the join of all rows."""

    takes = (("f32",), ("f32",), INDEX_TYPES, ("f32",))
    ranks = ((3,), (3,))

    def set_up(self) -> None:
        attrs = self.node.attrs
        encoding, limit = attrs["box_encoding"], self.node.inputs[2].dtype
        self.rotated, self.soft = encoding in ROTATED, len(self.node.inputs) > 5
        if self.rotated:
            self.select = nms_select_rotated(clockwise=encoding == "clockwise", limit=limit)
        else:
            options = NmsOptions("centre" if encoding == "center" else "corner", limit)
            self.select = (nms_select_soft if self.soft else nms_select)(options=options)
        self.join = nms_join(T=attrs["output_type"], ordered=attrs["sort_result_descending"])
        self.kernels = (self.select, self.join)

    def plan(self, planner: Planner) -> None:
        boxes, scores, max_boxes, iou_threshold, score_threshold, *sigma = (
            planner.view(v) for v in self.node.inputs
        )
        rows, scored, valid = planner.row_major_outputs(self.node)
        images, classes, _ = scores.shape
        total = images * classes
        size = rows.shape[0]
        capacity = size // total if total else 0
        chosen, values_of = (planner.allocate((size,), 4) for _ in range(2))
        counts = planner.allocate((total,), 8)
        inputs = [boxes, scores, max_boxes, *(sigma or [iou_threshold]), score_threshold]
        if sigma:
            planner.need_scratch(28 * (scores.shape[2] + 64))
        each = BYTES_EACH if self.rotated else 24
        select_step(planner, self.select, inputs, [chosen, values_of, counts], capacity, each=each)
        shape = (images, classes, capacity)
        tensors = {
            "chosen": chosen.as_shape(shape), "values": values_of.as_shape(shape),
            "counts": counts.as_shape(shape[:2]), "rows": rows, "scored": scored, "valid": valid,
        }  # fmt: skip
        planner.need_scratch(COUNTS + 2 * size * 8)
        launch(planner, self.join, tensors, ("rows", "scored", "valid"), flops=20.0 * size)
