"""Native bags of embeddings: rows of a table are added up in registers.

A bag is a range of the list of indices, given by offsets, by equal lengths, by runs of equal segment ids, or
by its start and end. Indices, offsets and segment ids are checked before use; an invalid one gives error code
1. Starts and ends are clamped as in Slice, and their invalid indices are rows of zeros.
"""

from __future__ import annotations

import numpy as np

from ovjit.codegen.kernel_language import *
from ovjit.graph.dtypes import FULL
from ovjit.planning.lower import Lowering, Planner, launch, product
from ovjit_ops.indexing.cpu_gather import index_at

#: operation -> how its bags are given
WAYS = {
    "EmbeddingBagOffsetsSum": "offsets", "EmbeddingBagOffsets": "offsets", "EmbeddingBagPackedSum": "packed",
    "EmbeddingBagPacked": "packed", "EmbeddingSegmentsSum": "segments", "EmbeddingBagRanges": "ranges",
}  # fmt: skip
#: Vectors of a row that are added up at a time.
VECTORS = 4
#: The maximum of no elements, as in ReduceMax.
LOWEST = float(np.finfo(np.float32).min)


@inline
def first_of(bags, number, count, index):
    """The position of the first of `count` ascending numbers that is not below `number`."""
    low = 0
    high = count
    while low < high:
        middle = (low + high) // 2
        if ld[index](bags + middle * SIZE[index]) < number:
            low = middle + 1
        else:
            high = middle
    return low


@inline
def bound_at(address, count, index):
    """A bound of a Slice of `count` elements, clamped. Negative bounds count from the end."""
    bound = index_at(address, count, index)
    return min(max(bound, 0), count)


@inline
def fill(a, number, T):
    for v in static_range(VECTORS):
        a[v] = const[T](number)


@inline
def load_row(a, p, count, T):
    for v in static_range(VECTORS):
        a[v] = loadm[T](p + v * VL * SIZE[T], count - v * VL)


@inline
def store_bag(a, target, j, width, scale, T, mean):
    """Store elements of a bag from j on: the totals, for a `mean` multiplied by `scale` or, if integers,
    divided by it."""
    for v in static_range(VECTORS):
        if mean:
            a[v] = a[v] * scale if T in FULL else a[v] / scale
        storem[T](target + (j + v * VL) * SIZE[T], a[v], width - j - v * VL)


@inline
def reduce_row(total, x, f, *, T, weighted, largest):
    """The total with one more row x, multiplied by f if `weighted`; or the maximum of both."""
    return (
        maximum(total, x) if largest
        else fma(x, f, total) if weighted and T in FULL
        else total + x * f if weighted
        else total + x
    )  # fmt: skip


@inline
def rises(count, segments, *, bags, index):
    """1 if segment ids are not negative, do not decrease and are below `segments`, else 0."""
    last = 0
    fine = 1
    for i in range(count):
        number = ld[index](bags + i * SIZE[index]) + 0
        if number < last or number >= segments:
            fine = 0
        last = number
    return fine


@inline
def offset_behind(bag, bag_count, count, *, bags, index):
    """The end of the indices of bag number `bag`: the next bag's offset, or `count` for the last bag."""
    end = count
    if bag + 1 < bag_count:
        end = ld[index](bags + (bag + 1) * SIZE[index]) + 0
    return end


@inline
def find_bag(of, bag, ends, count, *, bags, each, way, index):
    """Store the first position and the end of a bag's indices to `of`. Not for offsets."""
    if way == "packed":
        of["first"] = bag * each
        of["end"] = of["first"] + each
    elif way == "segments":
        of["first"] = first_of(bags, bag, count, index)
        of["end"] = first_of(bags, bag + 1, count, index)
    else:
        of["first"] = bound_at(bags + bag * SIZE[index], count, index)
        of["end"] = bound_at(ends + bag * SIZE[index], count, index)


@inline
def are_rows(at, first, end, rows, index):
    """1 if the indices of a bag are rows of the table, else 0."""
    fine = 1
    for i in range(first, end):
        row = index_at(at + i * SIZE[index], rows, index)
        if row < 0 or row >= rows:
            fine = 0
    return fine


@inline
def scale_of(first, end, T):
    """The factor of totals for the mean, or for integers the divisor."""
    scale = const[T](1)
    if end > first:
        scale = cast[T](spread[i64](end - first))
        scale = const[T](1.0) / scale if T in FULL else scale
    return scale


@inline
def begin_bag(a, table, pick, first, end, j, *, T, largest):
    """Initialize the totals: to those of no rows, or to row `pick` unless it is negative."""
    fill(a, -inf if largest else 0, T)
    if largest and first >= end:
        fill(a, LOWEST, T)
    if pick >= 0:
        p = table.at(row=pick) + j * SIZE[T]
        load_row(a, p, table.size.w - j, T)


@inline
def add_row(a, table, row, j, weights, i, ranges, *, T, weighted, largest):
    """Add elements of a row from j on to the totals, multiplied by the weight of index i. In `ranges`, rows
    out of range are zeros."""
    if weighted:
        f = splat[T](weights + i * SIZE[T])
    p = table.at(row=row) + j * SIZE[T]
    there = table.size.w
    if ranges and (row < 0 or row >= table.size.row):
        there = 0  # no access
    for v in static_range(VECTORS):
        x = loadm[T](p + v * VL * SIZE[T], there - j - v * VL)
        a[v] = reduce_row(a[v], x, f)


@kernel(over="bag", table="row w:1", at="i:1", y="bag w:1", bags="", weights="", other="", ends="")
def bag_rows(
    table: Tensor, at: Tensor, y: Tensor, bags: Tensor, weights: Tensor, other: Tensor, ends: Tensor, each, *,
    T, way, index, weighted, default, mean, largest,
):  # fmt: skip
    """y[bag] = sum of table[index] * weight over the bag's indices, or the maximum. Chunks are ranges of
    bags. Returns 1 for invalid indices, offsets or segments."""
    a, of = registers()
    rows = table.size.row
    width = y.size.w
    count = at.size.i
    bag_count = y.size.bag
    if way == "segments" and chunk == 0:  # checked once
        fine = rises(count, bag_count)
        if fine == 0:
            return 1
    if way == "offsets" and chunk == 0 and count > 0 and ld[index](bags) != 0:
        return 1
    for bag, target in items(y):
        if way != "offsets":
            find_bag(of, bag, ends, count)
            first = of["first"]
            end = of["end"]
        else:
            first = ld[index](bags + bag * SIZE[index]) + 0
            end = offset_behind(bag, bag_count, count)
            if first < 0 or end < first or end > count:
                return 1
        if way != "ranges":
            valid = are_rows(at, first, end, rows, index)
            if valid == 0:
                return 1
        pick = -1
        if default and first == end:
            pick = ld[index](other) + 0
            if pick >= rows:
                return 1
        if mean:
            scale = scale_of(first, end, T)
        for j in range(0, width, VECTORS * VL):
            begin_bag(a, table, pick, first, end, j)
            for i in range(first, end):
                row = index_at(at + i * SIZE[index], rows, index)
                add_row(a, table, row, j, weights, i, way == "ranges")
            store_bag(a, target, j, width, scale, T, mean)


class Bags(Lowering):
    """Sums, means or maxima of rows of a table. All indices have one type."""

    constant_inputs = None

    def set_up(self) -> None:
        self.way = WAYS[self.node.op.name]
        names = self.node.op.input_names
        self.named = dict(zip(names, self.node.inputs, strict=False))
        self.weighted = "per_sample_weights" in self.named
        self.default = "default_index" in self.named
        reduction = self.node.attrs.get("reduction")
        self.kernel = bag_rows(
            T=self.out.dtype, way=self.way, index=self.named["indices"].dtype, weighted=self.weighted,
            default=self.default, mean=reduction == "mean", largest=reduction == "max",
        )  # fmt: skip

    def plan(self, planner: Planner) -> None:
        table, indices = (planner.contiguous(self.named[n]) for n in ("emb_table", "indices"))
        y = planner.row_major_output(self.node.output)
        bag_count = y.shape[0]
        if not y.count:
            return
        width, count = product(y.shape[1:]), indices.count
        tensors = {
            "table": table.as_shape((table.shape[0], width)), "at": indices.as_shape((count,)),
            "y": y.as_shape((bag_count, width)),
        }  # fmt: skip
        for key, name in (("bags", "offsets"), ("bags", "segment_ids"), ("bags", "starts"), ("ends", "ends"),
                          ("weights", "per_sample_weights"), ("other", "default_index")):  # fmt: skip
            if name in self.named:
                tensors[key] = planner.contiguous(self.named[name])
        launch(
            planner, self.kernel, tensors, ("y",), work=width * max(1, count // bag_count) * 4,
            flops=2.0 * count * width, each=indices.shape[-1] if self.way == "packed" else 0,
        )  # fmt: skip
