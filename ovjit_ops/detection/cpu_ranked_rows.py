"""Native RankedRows: sorts the kept boxes of all classes of all images into rows."""

from __future__ import annotations

import numpy as np

from ovjit.codegen.kernel_language import *
from ovjit.planning.lower import Lowering, Planner, launch
from ovjit_ops.detection.cpu_candidates import COUNTS, key_of, sorted_pairs


@inline
def sorted_by_class(a, b, count, classes, capacity, counts):
    """Sort the slots at `a`, `capacity` per class, by class. The sort is stable."""
    for i in range(count):
        slot = ld[i64](a + i * 8) & 4294967295
        st[i64](a + i * 8, (slot // capacity % classes) << 32 | slot)
    sorted_pairs(a, b, count, counts)


@inline
def sorted_by_score(a, b, count, values, counts):
    """Sort the slots at `a` by descending value. The sort is stable."""
    for i in range(count):
        slot = ld[i64](a + i * 8) & 4294967295
        key = key_of(values + slot * 4)
        st[i64](a + i * 8, (key << 32) | slot)
    sorted_pairs(a, b, count, counts)


@inline
def list_slots(here, image, values, classes, capacity, regions, bar, *, numbers, counts, decayed):
    """Write the slots of an image's boxes to `here`. With `decayed`, only boxes with values above `bar`, with
    their position among the image's boxes as the sort key. Returns the number of slots."""
    count = 0
    for label in range(classes):
        item = image * classes + label
        for r in range(ld[i64](counts + item * 8) + 0):
            slot = item * capacity + r
            if not decayed:
                st[i64](here + count * 8, slot)
                count += 1
            elif ld[f32](values + slot * 4) > bar:
                key = label * regions + ld[i32](numbers + slot * 4)
                st[i64](here + count * 8, (key << 32) | slot)
                count += 1
    return count


@inline
def fill_up(rows, indices, total, missing, width, *, scores, T):
    """Write zeros to `missing` rows of the outputs (rows of `width` numbers, indices, scores), from row
    `total` on."""
    for k in range(0, missing * width, VL):
        storem[f32](rows + (total * width + k) * 4, const[f32](0.0), missing * width - k)
    for k in range(0, missing, VL):
        storem[T](indices + (total + k) * SIZE[T], const[T](0), missing - k)
        storem[f32](scores + (total + k) * 4, const[f32](0.0), missing - k)


@kernel(
    boxes="n c i k", numbers="n c capacity:1", values="n c capacity:1", counts="n c:1", threshold="",
    rows="r width:1", indices="", scores="", row_counts="n", number="",
)  # fmt: skip
def ranked_rows(
    boxes: Tensor, numbers: Tensor, values: Tensor, counts: Tensor, threshold: Tensor, rows: Tensor,
    indices: Tensor, scores: Tensor, row_counts: Tensor, number: Tensor, keep, *, T, prefix, order,
    across_batch, decayed, clipped, padded, labels,
):  # fmt: skip
    """See the operation RankedRows. `prefix`: elements of a row before the box."""
    a = scratch + COUNTS
    classes = numbers.size.c
    capacity = numbers.size.capacity
    regions = boxes.size.i
    size = rows.size.r
    b = a + numbers.size.n * classes * capacity * 8
    bar = ld[f32](threshold) * 1.0
    total = 0
    for image in range(numbers.size.n):
        here = a + total * 8
        count = list_slots(here, image, values, classes, capacity, regions, bar)
        if decayed:  # decay changes the order within classes; equal scores are ordered by class and box
            sorted_pairs(here, b, count, scratch)
        if decayed or (classes > 1 and (order == "score" or count > keep)):
            sorted_by_score(here, b, count, values, scratch)
            count = min(count, keep)
            if order == "class" and not across_batch:
                sorted_by_class(here, b, count, classes, capacity, scratch)
        count = min(count, keep)
        st[T](row_counts + image * SIZE[T], count)
        total += count
    if across_batch and order == "class":
        sorted_by_class(a, b, total, classes, capacity, scratch)
    if across_batch and order == "score":
        sorted_by_score(a, b, total, values, scratch)
    total = min(total, size)
    for i in range(total):
        slot = ld[i64](a + i * 8) & 4294967295
        item = slot // capacity
        image = item // classes
        label = item % classes
        box = ld[i32](numbers + slot * 4) + 0
        v = gather[f32](boxes.at(n=image, c=label, i=box), boxes.stride.k, 4)
        if clipped:
            v = maximum(minimum(v, const[f32](1.0)), const[f32](0.0))
        q = rows + i * (4 + prefix) * 4
        if prefix == 3:
            st[f32](q, image)
        if prefix > 0:
            st[f32](q + (prefix - 2) * 4, label)
            st[f32](q + (prefix - 1) * 4, ld[f32](values + slot * 4))
        storem[f32](q + prefix * 4, v, 4)
        st[T](indices + i * SIZE[T], label if labels else image * regions + box)
        st[f32](scores + i * 4, ld[f32](values + slot * 4))
    st[i64](number, total)
    if padded:
        fill_up(rows, indices, total, size - total, 4 + prefix)
        if size > total and padded == "mark":
            st[f32](rows + total * (4 + prefix) * 4, -1.0)


class RankedRows(Lowering):
    takes = (("f32",), ("i32",), ("f32",), ("i64",))

    def set_up(self) -> None:
        attrs = self.node.attrs
        names = ("prefix", "order", "across_batch", "decayed", "clipped", "padded", "labels")
        self.kernel = ranked_rows(T=attrs["output_type"], **{name: attrs[name] for name in names})

    def plan(self, planner: Planner) -> None:
        attrs = self.node.attrs
        boxes = planner.view(self.node.inputs[0])
        numbers, values, counts = (planner.contiguous(v) for v in self.node.inputs[1:])
        images, classes, capacity = numbers.shape
        every = images * classes * capacity
        if len(boxes.shape) == 3:
            boxes = boxes.as_shape((images, 1, *boxes.shape[1:]))
        threshold = planner.data.view(np.array([attrs["threshold"]], np.float32), "f32")
        names = ("rows", "indices", "scores", "row_counts", "number")
        tensors = dict(zip(names, planner.row_major_outputs(self.node), strict=True))
        tensors |= {
            "boxes": boxes.expand((images, classes, *boxes.shape[2:])), "numbers": numbers, "values": values,
            "counts": counts, "threshold": threshold,
        }  # fmt: skip
        planner.need_scratch(COUNTS + 2 * every * 8)
        keep = attrs["keep"] if attrs["keep"] >= 0 else every
        launch(planner, self.kernel, tensors, names, flops=20.0 * every, keep=keep)
