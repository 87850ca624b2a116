"""Native parts of region proposals: grids of anchors, boxes moved by deltas, and tables of kept boxes.

Boxes are computed for a vector of columns of a map at a time, in f32 as in the references.
"""

from __future__ import annotations

from math import nan

import numpy as np

from ovjit.codegen.kernel_language import *
from ovjit.forks import made_once
from ovjit.planning.lower import Lowering, NotNative, Planner, View, launch, product
from ovjit_ops.detection.cpu_candidates import COUNTS, candidates


@kernel(over="i j", priors="a k", settings="", y="i j a k")
def anchor_grid(priors: Tensor, settings: Tensor, y: Tensor, height, width, *, swapped):
    """y[i, j, a] = priors[a] shifted to position (i, j) of a map; see the operation AnchorGrid."""
    middle = ld[f64](settings)
    step_x = ld[f64](settings + 8)
    step_y = ld[f64](settings + 16)
    if step_x == 0.0:
        step_x = width / max(y.size.j, 1)
    if step_y == 0.0:
        step_y = height / max(y.size.i, 1)
    for i, j, boxes in items(y):
        down = (i + middle) * step_y
        right = (j + middle) * step_x
        for k in range(4):
            here = right
            if k % 2 == (0 if swapped else 1):
                here = down
            move = spread[f32](here)
            for a in range(0, y.size.a, VL):
                v = gather[f32](priors.at(a=a, k=k), priors.stride.a, y.size.a - a) + move
                scatter[f32](y.at(boxes, a=a, k=k), y.stride.a, v, y.size.a - a)


@inline
def number(settings, i):
    """A setting, in all lanes."""
    return spread[f32](ld[f64](settings + i * 8))


@kernel(
    over="n h a", info="n k", anchors="h w a four", deltas="n a four h w", scores="n a h w", settings="",
    boxes="n h w a four:1", values="n h w a",
)  # fmt: skip
def moved_anchors(
    info: Tensor, anchors: Tensor, deltas: Tensor, scores: Tensor, settings: Tensor, boxes: Tensor,
    values: Tensor, last, *, swapped, scored, clipped, checked, marked,
):  # fmt: skip
    """Boxes of all anchors of all images, and their scores; see the operation MovedAnchors. `last`: the index
    of a picture's last scale."""
    zero = const[f32](0.0)
    half = const[f32](0.5)
    border = number(settings, 0)
    outer = number(settings, 1)
    inset = number(settings, 2)
    most = number(settings, 3)
    size = number(settings, 4)
    at, end, least = registers()
    for n, i, a, picture in items(info):
        height = ld[f32](picture) * 1.0
        width = ld[f32](info.at(picture, k=1)) * 1.0
        if scored:
            scale_y = ld[f32](info.at(picture, k=2)) * 1.0
            scale_x = ld[f32](info.at(picture, k=last)) * 1.0
            if checked:
                good = height >= 1.0 and width >= 1.0 and scale_y > 0.0 and scale_x > 0.0
                if not good:
                    return 3
            least[0] = spread[f32](ld[f64](settings + 72) * scale_x)
            least[1] = spread[f32](ld[f64](settings + 72) * scale_y)
        end[0] = spread[f32](height if swapped else width)
        end[1] = spread[f32](width if swapped else height)
        for j in range(0, anchors.size.w, VL):
            remaining = anchors.size.w - j
            p = anchors.at(h=i, w=j, a=a)
            d = deltas.at(n=n, a=a, h=i, w=j)
            for k in static_range(4):
                at[k] = gather[f32](anchors.at(p, four=k), anchors.stride.w, remaining)
                if swapped:  # anchors are clamped to the picture
                    at[k] = minimum(maximum(at[k], zero), end[k % 2])
            for k in static_range(2):
                side = at[k + 2] - at[k] + border
                move = gather[f32](deltas.at(d, four=k), deltas.stride.w, remaining)
                middle = at[k] + half * side + move / number(settings, 5 + k) * side
                grow = gather[f32](deltas.at(d, four=k + 2), deltas.stride.w, remaining)
                grow = grow / number(settings, 7 + k) * size
                reach = half * (libm_exp[f32](minimum(grow, most)) * side)
                at[k] = middle - reach
                at[k + 2] = middle + reach - outer
            for k in static_range(4 if clipped else 0):
                at[k] = maximum(minimum(at[k], end[k % 2] - inset), zero)
            if scored:
                large = (at[2] - at[0] + border >= least[0]) & (at[3] - at[1] + border >= least[1])
                v = gather[f32](scores.at(n=n, a=a, h=i, w=j), scores.stride.w, remaining)
                if marked:
                    at[1] = select(large, at[1], const[f32](nan))
                else:
                    v = select(large, v, zero)
                scatter[f32](values.at(n=n, h=i, w=j, a=a), values.stride.w, v, remaining)
            for k in static_range(4):
                scatter[f32](boxes.at(n=n, h=i, w=j, a=a, four=k), boxes.stride.w, at[k], remaining)


@kernel(
    over="n", boxes="n i four:1", numbers="n capacity:1", values="n capacity:1", counts="n", info="m k",
    regions="n r five:1", best="n r",
)  # fmt: skip
def proposal_table(
    boxes: Tensor, numbers: Tensor, values: Tensor, counts: Tensor, info: Tensor, regions: Tensor,
    best: Tensor, lead, *, swapped, clipped, normalized,
):  # fmt: skip
    """Rows of each image's kept boxes; see the operation ProposalTable. `lead`: 1 if rows begin with the
    image's index, else 0."""
    height = ld[f32](info) * 1.0
    width = ld[f32](info.at(k=1)) * 1.0
    for k in range(2):
        st[f32](scratch + k * 8, height if swapped else width)
        st[f32](scratch + k * 8 + 4, width if swapped else height)
    extents = loadm[f32](scratch, 4)
    for n, image_boxes, slots, scores, count_at, rows, best_at in items(
        boxes, numbers, values, counts, regions, best
    ):
        count = min(ld[i64](count_at) + 0, regions.size.r)
        for r in range(regions.size.r):
            q = regions.at(rows, r=r)
            v = const[f32](0.0)
            score = const[f32](0.0)
            if r < count:
                v = loadm[f32](boxes.at(image_boxes, i=ld[i32](slots + r * 4)), 4)
                if clipped:
                    v = maximum(minimum(v, extents), const[f32](0.0))
                if normalized:
                    v = v / extents
                score = loadm[f32](scores + r * 4, 1)
            if lead == 1:
                if r < count:
                    st[f32](q, n)
                elif r == count:
                    st[f32](q, -1.0)
                else:
                    st[f32](q, 0.0)
            storem[f32](q + lead * 4, v, 4)
            storem[f32](best.at(best_at, r=r), score, 1)


@kernel(rois="n k", scores="n", threshold="", y="r four:1")
def best_regions(rois: Tensor, scores: Tensor, threshold: Tensor, y: Tensor):
    """The regions of the highest scores. Missing rows are zeros."""
    a = scratch + COUNTS
    n = rois.size.n
    count = candidates(scores, scores.stride.n, n, threshold, True, a, a + n * 8, scratch)
    for r in range(y.size.r):
        v = const[f32](0.0)
        if r < count:
            v = gather[f32](rois.at(n=ld[i64](a + r * 8) & 0xFFFFFFFF), rois.stride.k, 4)
        storem[f32](y.at(r=r), v, 4)


#: Element types of all inputs.
TYPES = frozenset(("f32", "i32", "i64"))


class AnchorGrid(Lowering):
    takes = (TYPES,)

    kernel = made_once(lambda self: anchor_grid(swapped=self.node.attrs["swapped"]))

    def plan(self, planner: Planner) -> None:
        attrs = self.node.attrs
        priors, maps, image = self.node.inputs
        rows, columns = (attrs[n] or d for n, d in zip("hw", planner.shape(maps)[2:], strict=True))
        height, width = planner.shape(image)[2:]
        p = planner.view(priors)
        y = planner.row_major_output(self.node.output)
        settings = np.array([attrs["middle"], attrs["stride_x"], attrs["stride_y"]], np.float64)
        if y.count:
            tensors = {"priors": p, "settings": planner.data.view(settings, "f64")}
            tensors["y"] = y.as_shape((rows, columns, *p.shape))
            work = 16 * p.shape[0]
            launch(
                planner, self.kernel, tensors, ("y",), work=work, flops=y.count, height=height, width=width
            )


class MovedAnchors(Lowering):
    takes = (TYPES,)

    def set_up(self) -> None:
        attrs = self.node.attrs
        self.scored = len(self.node.inputs) > 3
        ways = {name: attrs[name] for name in ("swapped", "clipped", "checked", "marked")}
        self.kernel = moved_anchors(scored=self.scored, **ways)

    def plan(self, planner: Planner) -> None:
        attrs = self.node.attrs
        info, anchors, deltas, *scores = [planner.view(v) for v in self.node.inputs]
        images, channels, h, w = deltas.shape
        anchors_per_cell = channels // 4
        outputs = planner.row_major_outputs(self.node)
        settings = [attrs["border"], attrs["outer"], attrs["inset"], attrs["most"], attrs["size"]]
        table_of = np.array([*settings, *attrs["weights"], attrs["min_size"]], np.float64)
        grid = (images, h, w, anchors_per_cell)
        by_image, by_channel, *by_place = deltas.strides
        steps = (by_image, 4 * by_channel, by_channel, *by_place)
        tensors = {
            "info": info.expand((images, info.shape[1])), "anchors": anchors,
            "deltas": View(deltas.buffer, (images, anchors_per_cell, 4, h, w), steps, 4, deltas.offset),
            "boxes": outputs[0].as_shape((*grid, 4)),
            "settings": planner.data.view(table_of, "f64"),
        }  # fmt: skip
        if self.scored:
            first = anchors_per_cell if attrs["second"] else 0
            tensors |= {
                "scores": scores[0].slice(1, first, anchors_per_cell),
                "values": outputs[1].as_shape(grid),
            }
        if outputs[0].count:
            launch(
                planner, self.kernel, tensors, ("boxes", "values")[: 1 + self.scored], work=w * 40,
                flops=40.0 * product(grid), last=min(3, info.shape[1] - 1),
            )  # fmt: skip


class ProposalTable(Lowering):
    takes = (TYPES,)

    def set_up(self) -> None:
        attrs = self.node.attrs
        ways = {name: attrs[name] for name in ("swapped", "clipped", "normalized")}
        self.kernel = proposal_table(**ways)

    def plan(self, planner: Planner) -> None:
        attrs = self.node.attrs
        boxes, numbers, values, counts, info = (planner.contiguous(v) for v in self.node.inputs)
        regions, best = planner.row_major_outputs(self.node)
        images, _, anchors, _ = boxes.shape
        rows, lead = attrs["rows"], int(attrs["numbered"])
        tensors = {
            "boxes": boxes.as_shape((images, anchors, 4)), "info": info, "counts": counts.as_shape((images,)),
            "numbers": numbers.as_shape((images, numbers.shape[2])),
            "values": values.as_shape((images, numbers.shape[2])),
            "regions": regions.as_shape((images, rows, 4 + lead)), "best": best.as_shape((images, rows)),
        }  # fmt: skip
        planner.need_scratch(64)
        if regions.count:
            flops = regions.count
            launch(
                planner, self.kernel, tensors, ("regions", "best"), work=rows * 100, flops=flops, lead=lead
            )


class BestRegions(Lowering):
    takes = (("f32",),)

    kernel = made_once(lambda self: best_regions())

    def plan(self, planner: Planner) -> None:
        rois, scores = (planner.view(v) for v in self.node.inputs)
        n = rois.shape[0]
        if scores.shape[0] != n:
            raise NotNative
        tensors = {
            "rois": rois, "scores": scores, "y": planner.row_major_output(self.node.output),
            "threshold": planner.data.view(np.array([-np.inf], np.float32), "f32"),
        }  # fmt: skip
        planner.need_scratch(COUNTS + 2 * n * 8)
        launch(planner, self.kernel, tensors, ("y",), flops=20.0 * n)
