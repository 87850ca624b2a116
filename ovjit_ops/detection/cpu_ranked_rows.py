"""Native RankedRows: what is kept of all classes of all images, sorted and put into rows."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ovjit.codegen.function import inline, kernel
from ovjit.codegen.tensors import Raw
from ovjit.codegen.words import *
from ovjit.planning.lower import Lowering
from ovjit.planning.plan import Planner
from ovjit_ops.detection.cpu_candidates import COUNTS, key_of, sorted_pairs


@inline
def sorted_by_class(a, b, many, classes, room, counts):
    """Sort the slots at `a`, `room` of each class, by class; equal ones stay in order."""
    for i in range(many):
        slot = ld[i64](a + i * 8) & 4294967295
        st[i64](a + i * 8, (slot // room % classes) << 32 | slot)
    sorted_pairs(a, b, many, counts)


@inline
def sorted_by_score(a, b, many, values, counts):
    """Sort the slots at `a` by the number that each has among the values; equal ones stay in order."""
    for i in range(many):
        slot = ld[i64](a + i * 8) & 4294967295
        key = key_of(values + slot * 4)
        st[i64](a + i * 8, (key << 32) | slot)
    sorted_pairs(a, b, many, counts)


class RankSizes(NamedTuple):
    """Images, classes, rows of a class, and regions."""

    images: int
    classes: int
    room: int
    regions: int


class BoxSteps(NamedTuple):
    """Bytes from image to image of boxes, class to class, box to box and number to number."""

    b_n: int
    b_c: int
    b_i: int
    b_k: int


@kernel(sizes=Raw(RankSizes), at_boxes=Raw(BoxSteps))
def ranked_rows(
    boxes: Ptr, numbers: Ptr, values: Ptr, counts: Ptr, threshold: Ptr, rows: Ptr, places: Ptr, scores: Ptr,
    many_of: Ptr, number: Ptr, sizes, at_boxes, keep, size, every, *, T, lead, order, across, fallen, clipped,
    padded, labels,
):  # fmt: skip
    """See the operation RankedRows; `lead`: the numbers of a row before those of the box."""
    a = scratch + COUNTS
    b = a + every * 8
    bar = ld[f32](threshold) * 1.0
    total = 0
    for image in range(sizes.images):
        here = a + total * 8
        many = 0
        for label in range(sizes.classes):
            item = image * sizes.classes + label
            for r in range(ld[i64](counts + item * 8) + 0):
                slot = item * sizes.room + r
                if not fallen:
                    st[i64](here + many * 8, slot)
                    many += 1
                elif ld[f32](values + slot * 4) > bar:
                    key = label * sizes.regions + ld[i32](numbers + slot * 4)
                    st[i64](here + many * 8, (key << 32) | slot)
                    many += 1
        if fallen:  # in its class, too, each is in another place than it was in before
            sorted_pairs(here, b, many, scratch)
        if fallen or (sizes.classes > 1 and (order == "score" or many > keep)):
            sorted_by_score(here, b, many, values, scratch)
            many = min(many, keep)
            if order == "class" and not across:
                sorted_by_class(here, b, many, sizes.classes, sizes.room, scratch)
        many = min(many, keep)
        st[T](many_of + image * SIZE[T], many)
        total += many
    if across and order == "class":
        sorted_by_class(a, b, total, sizes.classes, sizes.room, scratch)
    if across and order == "score":
        sorted_by_score(a, b, total, values, scratch)
    total = min(total, size)
    for i in range(total):
        slot = ld[i64](a + i * 8) & 4294967295
        item = slot // sizes.room
        image = item // sizes.classes
        label = item % sizes.classes
        box = ld[i32](numbers + slot * 4) + 0
        v = gather[f32](
            boxes + image * at_boxes.b_n + label * at_boxes.b_c + box * at_boxes.b_i, at_boxes.b_k, 4
        )
        if clipped:
            v = maximum(minimum(v, const[f32](1.0)), const[f32](0.0))
        q = rows + i * (4 + lead) * 4
        if lead == 3:
            st[f32](q, image)
        if lead > 0:
            st[f32](q + (lead - 2) * 4, label)
            st[f32](q + (lead - 1) * 4, ld[f32](values + slot * 4))
        storem[f32](q + lead * 4, v, 4)
        st[T](places + i * SIZE[T], label if labels else image * sizes.regions + box)
        st[f32](scores + i * 4, ld[f32](values + slot * 4))
    st[i64](number, total)
    if padded:
        left = size - total
        for k in range(0, left * (4 + lead), VL):
            q = rows + (total * (4 + lead) + k) * 4
            storem[f32](q, const[f32](0.0), left * (4 + lead) - k)
        for k in range(0, left, VL):
            storem[T](places + (total + k) * SIZE[T], const[T](0), left - k)
            storem[f32](scores + (total + k) * 4, const[f32](0.0), left - k)
        if left > 0 and padded == "mark":
            st[f32](rows + total * (4 + lead) * 4, -1.0)


class RankedRows(Lowering):
    takes = (("f32",), ("i32",), ("f32",), ("i64",))

    def set_up(self) -> None:
        attrs = self.node.attrs
        names = ("lead", "order", "across", "fallen", "clipped", "padded", "labels")
        self.kernel = ranked_rows(T=attrs["output_type"], **{name: attrs[name] for name in names})

    def plan(self, planner: Planner) -> None:
        attrs = self.node.attrs
        boxes = planner.view(self.node.inputs[0])
        numbers, values_of, counts = (planner.contiguous(v) for v in self.node.inputs[1:])
        made = planner.row_major_outputs(self.node)
        images, classes, room = numbers.shape
        every = images * classes * room
        limit = planner.data.view(np.array([attrs["threshold"]], np.float32), "f32")
        values: dict[str, Any] = {
            "boxes": boxes.ptr, "numbers": numbers.ptr, "values": values_of.ptr, "counts": counts.ptr,
            "threshold": limit.ptr, "images": images, "classes": classes, "room": room,
            "regions": boxes.shape[-2], "b_n": boxes.strides[0],
            "b_c": boxes.strides[1] if len(boxes.shape) == 4 and boxes.shape[1] > 1 else 0,
            "b_i": boxes.strides[-2], "b_k": boxes.strides[-1],
            "keep": attrs["keep"] if attrs["keep"] >= 0 else every, "size": made[0].shape[0],
            "every": every,
        }  # fmt: skip
        names = ("rows", "places", "scores", "many_of", "number")
        values |= {name: view.ptr for name, view in zip(names, made, strict=True)}
        planner.need_scratch(COUNTS + 2 * every * 8)
        planner.step(self.kernel, values, 1, [boxes, numbers, values_of, counts, limit], made, 20.0 * every)
