"""Native parts of what proposes regions: grids of anchors, boxes moved by deltas, and tables of those kept.

Boxes are computed a vector of columns of a map at a time, in f32 as the references do.
"""

from __future__ import annotations

from math import nan
from typing import NamedTuple

import numpy as np

from ovjit.codegen.function import inline, kernel
from ovjit.codegen.tensors import Raw
from ovjit.codegen.words import *
from ovjit.forks import made_once
from ovjit.planning.launch import launch
from ovjit.planning.lower import Lowering
from ovjit.planning.plan import NotNative, Planner
from ovjit.planning.views import named_strides
from ovjit_ops.detection.cpu_candidates import COUNTS, candidates


@kernel(over="i j", priors="a k", settings="", y="i j a k")
def anchor_grid(priors: Tensor, settings: Tensor, y: Tensor, high, wide, *, swapped):
    """y[i, j, a] = priors[a] moved to the place (i, j) of a map; see the operation AnchorGrid."""
    middle = ld[f64](settings)
    step_x = ld[f64](settings + 8)
    step_y = ld[f64](settings + 16)
    if step_x == 0.0:
        step_x = wide / max(y.size.j, 1)
    if step_y == 0.0:
        step_y = high / max(y.size.i, 1)
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


class MapSizes(NamedTuple):
    """Anchors of a place, and the extents of the map."""

    many: int
    h: int
    w: int


class PictureSteps(NamedTuple):
    """Bytes from picture to picture and number to number; which number is the last scale."""

    i_n: int
    i_k: int
    last: int


class AnchorSteps(NamedTuple):
    """Bytes along a row and a column of the map, from anchor to anchor and number to number."""

    a_h: int
    a_w: int
    a_a: int
    a_k: int


class DeltaSteps(NamedTuple):
    """Bytes from image to image, number to number and anchor to anchor, along rows and columns."""

    d_n: int
    d_c: int
    d_a: int
    d_h: int
    d_w: int


class ScoreSteps(NamedTuple):
    """Bytes from image to image and anchor to anchor, along rows and columns."""

    s_n: int
    s_c: int
    s_h: int
    s_w: int


@kernel(
    sizes=Raw(MapSizes), pictures=Raw(PictureSteps), at_anchors=Raw(AnchorSteps),
    at_deltas=Raw(DeltaSteps), at_scores=Raw(ScoreSteps),
)  # fmt: skip
def moved_anchors(
    info: Ptr, anchors: Ptr, deltas: Ptr, scores: Ptr, settings: Ptr, boxes: Ptr, values: Ptr, sizes,
    pictures, at_anchors, at_deltas, at_scores, total, per_chunk, *, swapped, scored, clipped, checked,
    marked,
):  # fmt: skip
    """Boxes of all anchors of all images, and their scores; see the operation MovedAnchors. d_c is from one
    delta of an anchor to the next, d_a from one anchor to the next."""
    zero = const[f32](0.0)
    half = const[f32](0.5)
    border = number(settings, 0)
    outer = number(settings, 1)
    inset = number(settings, 2)
    most = number(settings, 3)
    size = number(settings, 4)
    for item in share(total, per_chunk):
        a = item % sizes.many
        i = item // sizes.many % sizes.h
        n = item // sizes.many // sizes.h
        picture = info + n * pictures.i_n
        high = ld[f32](picture) * 1.0
        wide = ld[f32](picture + pictures.i_k) * 1.0
        if scored:
            scale_y = ld[f32](picture + 2 * pictures.i_k) * 1.0
            scale_x = ld[f32](picture + pictures.last * pictures.i_k) * 1.0
            if checked:
                good = high >= 1.0 and wide >= 1.0 and scale_y > 0.0 and scale_x > 0.0
                if not good:
                    return 3
            least_x = spread[f32](ld[f64](settings + 72) * scale_x)
            least_y = spread[f32](ld[f64](settings + 72) * scale_y)
        end_x = spread[f32](high if swapped else wide)
        end_y = spread[f32](wide if swapped else high)
        for j in range(0, sizes.w, VL):
            left = sizes.w - j
            p = anchors + i * at_anchors.a_h + j * at_anchors.a_w + a * at_anchors.a_a
            x1 = gather[f32](p, at_anchors.a_w, left)
            y1 = gather[f32](p + at_anchors.a_k, at_anchors.a_w, left)
            x2 = gather[f32](p + 2 * at_anchors.a_k, at_anchors.a_w, left)
            y2 = gather[f32](p + 3 * at_anchors.a_k, at_anchors.a_w, left)
            if swapped:  # anchors end where the picture does
                x1 = minimum(maximum(x1, zero), end_x)
                y1 = minimum(maximum(y1, zero), end_y)
                x2 = minimum(maximum(x2, zero), end_x)
                y2 = minimum(maximum(y2, zero), end_y)
            side_x = x2 - x1 + border
            side_y = y2 - y1 + border
            d = deltas + n * at_deltas.d_n + a * at_deltas.d_a + i * at_deltas.d_h + j * at_deltas.d_w
            x = x1 + half * side_x + gather[f32](d, at_deltas.d_w, left) / number(settings, 5) * side_x
            y = (
                y1
                + half * side_y
                + gather[f32](d + at_deltas.d_c, at_deltas.d_w, left) / number(settings, 6) * side_y
            )
            grow_x = gather[f32](d + 2 * at_deltas.d_c, at_deltas.d_w, left) / number(settings, 7) * size
            grow_y = gather[f32](d + 3 * at_deltas.d_c, at_deltas.d_w, left) / number(settings, 8) * size
            half_x = half * (libm_exp[f32](minimum(grow_x, most)) * side_x)
            half_y = half * (libm_exp[f32](minimum(grow_y, most)) * side_y)
            x1 = x - half_x
            y1 = y - half_y
            x2 = x + half_x - outer
            y2 = y + half_y - outer
            if clipped:
                x1 = maximum(minimum(x1, end_x - inset), zero)
                y1 = maximum(minimum(y1, end_y - inset), zero)
                x2 = maximum(minimum(x2, end_x - inset), zero)
                y2 = maximum(minimum(y2, end_y - inset), zero)
            place = ((n * sizes.h + i) * sizes.w + j) * sizes.many + a
            q = boxes + place * 16
            if scored:
                large = (x2 - x1 + border >= least_x) & (y2 - y1 + border >= least_y)
                v = gather[f32](
                    scores + n * at_scores.s_n + a * at_scores.s_c + i * at_scores.s_h + j * at_scores.s_w,
                    at_scores.s_w,
                    left,
                )
                if marked:
                    y1 = select(large, y1, const[f32](nan))
                else:
                    v = select(large, v, zero)
                scatter[f32](values + place * 4, sizes.many * 4, v, left)
            scatter[f32](q, sizes.many * 16, x1, left)
            scatter[f32](q + 4, sizes.many * 16, y1, left)
            scatter[f32](q + 8, sizes.many * 16, x2, left)
            scatter[f32](q + 12, sizes.many * 16, y2, left)


class TableSizes(NamedTuple):
    """Anchors, places for kept ones, rows, numbers before a box, bytes between numbers of info, images."""

    anchors: int
    room: int
    rows: int
    lead: int
    i_k: int
    images: int


class KeptAnchors(NamedTuple):
    """All boxes, the numbers of those that are kept of each image, their scores, and how many they are."""

    boxes: Ptr
    numbers: Ptr
    values: Ptr
    counts: Ptr


class Regions(NamedTuple):
    """Rows of the result, and their scores."""

    regions: Ptr
    best: Ptr


@kernel(sizes=Raw(TableSizes), kept=Raw(KeptAnchors), made=Raw(Regions))
def proposal_table(kept, info: Ptr, made, sizes, *, swapped, clipped, normalized):
    """What is kept of each image, in `rows` rows; see the operation ProposalTable. `lead`: 1 where rows begin
    with the image's number."""
    high = ld[f32](info) * 1.0
    wide = ld[f32](info + sizes.i_k) * 1.0
    for k in range(2):
        st[f32](scratch + k * 8, high if swapped else wide)
        st[f32](scratch + k * 8 + 4, wide if swapped else high)
    whole = loadm[f32](scratch, 4)
    for n in share(sizes.images, 1):
        many = min(ld[i64](kept.counts + n * 8) + 0, sizes.rows)
        for r in range(sizes.rows):
            q = made.regions + (n * sizes.rows + r) * (4 + sizes.lead) * 4
            v = const[f32](0.0)
            score = const[f32](0.0)
            if r < many:
                slot = (n * sizes.room + r) * 4
                v = loadm[f32](kept.boxes + (n * sizes.anchors + ld[i32](kept.numbers + slot)) * 16, 4)
                if clipped:
                    v = maximum(minimum(v, whole), const[f32](0.0))
                if normalized:
                    v = v / whole
                score = loadm[f32](kept.values + slot, 1)
            if sizes.lead == 1:
                if r < many:
                    st[f32](q, n)
                elif r == many:
                    st[f32](q, -1.0)
                else:
                    st[f32](q, 0.0)
            storem[f32](q + sizes.lead * 4, v, 4)
            storem[f32](made.best + (n * sizes.rows + r) * 4, score, 1)


class RegionSizes(NamedTuple):
    """Regions, bytes between them and their numbers, bytes between scores, and rows of the result."""

    n: int
    r_n: int
    r_k: int
    s_n: int
    rows: int


@kernel(sizes=Raw(RegionSizes))
def best_regions(rois: Ptr, scores: Ptr, threshold: Ptr, y: Ptr, sizes):
    """The regions of the highest scores, zeros where there are fewer."""
    a = scratch + COUNTS
    many = candidates(scores, sizes.s_n, sizes.n, threshold, True, a, a + sizes.n * 8, scratch)
    for r in range(sizes.rows):
        v = const[f32](0.0)
        if r < many:
            v = gather[f32](rois + (ld[i64](a + r * 8) & 4294967295) * sizes.r_n, sizes.r_k, 4)
        storem[f32](y + r * 16, v, 4)


#: Element types of whatever these operations read.
TYPES = frozenset(("f32", "i32", "i64"))


class AnchorGrid(Lowering):
    takes = (TYPES,)

    kernel = made_once(lambda self: anchor_grid(swapped=self.node.attrs["swapped"]))

    def plan(self, planner: Planner) -> None:
        attrs = self.node.attrs
        priors, maps, image = self.node.inputs
        rows, columns = (attrs[n] or d for n, d in zip("hw", planner.shape(maps)[2:], strict=True))
        high, wide = planner.shape(image)[2:]
        p = planner.view(priors)
        y = planner.row_major_output(self.node.output)
        settings = np.array([attrs["middle"], attrs["stride_x"], attrs["stride_y"]], np.float64)
        if y.count:
            tensors = {"priors": p, "settings": planner.data.view(settings, "f64")}
            tensors["y"] = y.as_shape((rows, columns, *p.shape))
            work = 16 * p.shape[0]
            launch(planner, self.kernel, tensors, ("y",), work=work, flops=y.count, high=high, wide=wide)


class MovedAnchors(Lowering):
    takes = (TYPES,)

    def set_up(self) -> None:
        attrs = self.node.attrs
        self.scored = len(self.node.inputs) > 3
        ways = {name: attrs[name] for name in ("swapped", "clipped", "checked", "marked")}
        self.kernel = moved_anchors(scored=self.scored, **ways)

    def plan(self, planner: Planner) -> None:
        attrs = self.node.attrs
        info, anchors, deltas, *scores = read = [planner.view(v) for v in self.node.inputs]
        images, channels, h, w = deltas.shape
        many = channels // 4
        made = planner.row_major_outputs(self.node)
        settings = [attrs["border"], attrs["outer"], attrs["inset"], attrs["most"], attrs["size"]]
        table_of = np.array([*settings, *attrs["weights"], attrs["min_size"]], np.float64)
        total = images * h * many
        values = {
            "info": info.ptr, "anchors": anchors.ptr, "deltas": deltas.ptr,
            "settings": planner.data.view(table_of, "f64").ptr, "boxes": made[0].ptr, "many": many, "h": h,
            "w": w, "i_n": info.strides[0] if info.shape[0] > 1 else 0, "i_k": info.strides[1],
            "d_a": 4 * deltas.strides[1], "total": total,
            **named_strides(a=(anchors, "hwak"), d=(deltas, "nchw")),
        }  # fmt: skip
        if self.scored:
            s = scores[0]
            values |= named_strides(s=(s, "nchw"))
            first = many * s.strides[1] if attrs["second"] else 0
            values |= {"scores": s.ptr + first, "values": made[1].ptr, "last": min(3, info.shape[1] - 1)}
        if total * w:
            planner.share_step(self.kernel, values, total, w * 40, read, made, 40.0 * total * w)


class ProposalTable(Lowering):
    takes = (TYPES,)

    def set_up(self) -> None:
        attrs = self.node.attrs
        ways = {name: attrs[name] for name in ("swapped", "clipped", "normalized")}
        self.kernel = proposal_table(**ways)

    def plan(self, planner: Planner) -> None:
        attrs = self.node.attrs
        boxes, numbers, values_of, counts, info = read = [planner.contiguous(v) for v in self.node.inputs]
        made = planner.row_major_outputs(self.node)
        images, _, anchors, _ = boxes.shape
        values = {
            "boxes": boxes.ptr, "numbers": numbers.ptr, "values": values_of.ptr, "counts": counts.ptr,
            "info": info.ptr, "regions": made[0].ptr, "best": made[1].ptr, "anchors": anchors,
            "room": numbers.shape[2], "rows": attrs["rows"], "lead": int(attrs["numbered"]),
            "i_k": info.strides[1], "images": images,
        }  # fmt: skip
        planner.need_scratch(64)
        if made[0].count:
            planner.step(self.kernel, values, images, read, made, made[0].count)


class BestRegions(Lowering):
    takes = (("f32",),)

    kernel = made_once(lambda self: best_regions())

    def plan(self, planner: Planner) -> None:
        rois, scores = read = [planner.view(v) for v in self.node.inputs]
        n = rois.shape[0]
        if scores.shape[0] != n:
            raise NotNative
        made = planner.row_major_outputs(self.node)
        values = {
            "rois": rois.ptr, "scores": scores.ptr, "y": made[0].ptr, "n": n,
            "rows": self.node.attrs["max_rois"], **named_strides(r=(rois, "nk"), s=(scores, "n")),
            "threshold": planner.data.view(np.array([-np.inf], np.float32), "f32").ptr,
        }  # fmt: skip
        planner.need_scratch(COUNTS + 2 * n * 8)
        planner.step(self.kernel, values, 1, read, made, 20.0 * n)
