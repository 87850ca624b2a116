"""Convolutions on tensor cores of GPUs, as products whose rows are never stored.

    y[m, o] = epilogue(sum over taps t, channels c of x[pixel(m, t), c] w[o, t, c])

Row m of the product is an output pixel: that of the data under each tap, with channels last. A lane that
copies a half of a row (`ovjit_ops.matmul.gpu_products`) finds the pixel's address itself, and zeros where the
window leaves the data. A step along the depth is 32 bytes of one tap. Weights are arranged at compilation as
[outs, taps, channels], with channels padded by zeros to whole steps. Groups of channels are an outer
dimension of items, and small ones are merged.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from ovjit.codegen.kernel_language import *
from ovjit.graph.dtypes import FLOATS, HALVES
from ovjit.graph.graph import Node, Value
from ovjit.graph.windows import resolve_window
from ovjit.planning.launch import launch
from ovjit.planning.lower import ChannelsLast
from ovjit.planning.plan import Constants, NotNative, Planner, ceil_div
from ovjit.planning.views import View, channels_last, product
from ovjit_ops.convolution.cpu_direct import Moves
from ovjit_ops.matmul.gpu_epilogues import WithEpilogue, is_aligned, result_and_operands
from ovjit_ops.matmul.gpu_products import (
    OPERANDS,
    PIECE,
    STEP,
    TILES,
    Tile,
    find_addresses,
    multiply,
    next_stage,
    store_tile,
)

#: Maximum groups of a convolution that are merged to fill a tile: zeros are stored and multiplied, too.
MOST_MERGED = 8


@inline
def find_pixels(first, last, *, x, at, data, height, width, rows_of, columns_of, rows):
    """Set for each piece of 16 rows the first row and column of the window, and the offset there of the half
    of a step that a lane copies. Pixels that are not there repeat the last one, and are not stored."""
    for i in static_range(rows // PIECE):
        pixel = minimum(at["line"] + const[i32](i * PIECE), spread[i32](last)) + spread[i32](first)
        line = pixel / spread[i32](width)
        image = line / spread[i32](height)
        x["row", i] = (line - image * spread[i32](height)) * spread[i32](rows_of.stride)
        x["row", i] = x["row", i] - spread[i32](rows_of.before)
        x["column", i] = (pixel - line * spread[i32](width)) * spread[i32](columns_of.stride)
        x["column", i] = x["column", i] - spread[i32](columns_of.before)
        x[i] = cast[i64](image) * spread[i64](data.stride.i) + cast[i64](at["half"])
        x[i] = x[i] + cast[i64](x["row", i]) * spread[i64](data.stride.h)
        x[i] = x[i] + cast[i64](x["column", i]) * spread[i64](data.stride.w)


@inline
def fetch_step(into, s, *, x, at, data, pd, pb, steps, parts, depth, rows_of, columns_of, rows, columns):
    """Start the copies of step s: pixels under its tap, and weights. Steps from `steps` on are zeros.
    `parts`: steps of a tap; `depth`: bytes of a pixel."""
    tap = s // parts
    part = (s - tap * parts) * STEP
    tap_row = tap // columns_of.taps
    remaining = min(max(steps - s, 0), 1) * (depth - part)
    sizes = minimum(maximum(spread[i32](remaining) - at["half"], const[i32](0)), const[i32](16))
    down = tap_row * rows_of.dilation
    across = (tap - tap_row * columns_of.taps) * columns_of.dilation
    offset_of_tap = down * data.stride.h + across * data.stride.w + part
    for i in static_range(rows // PIECE):
        line = x["row", i] + spread[i32](down)
        column = x["column", i] + spread[i32](across)
        inside = (line >= const[i32](0)) & (line < spread[i32](data.size.h))
        inside = inside & (column >= const[i32](0)) & (column < spread[i32](data.size.w))
        offsets = select(inside, x[i] + spread[i64](offset_of_tap), const[i64](0))
        there = select(inside, sizes, const[i32](0))
        copy_async(into + i * PIECE * STEP, at["copy"], pd, offsets, there)
    whole_steps = const[i32](16) * spread[i32](min(max(steps - s, 0), 1))
    for j in static_range(columns // PIECE):
        copy_async(
            into + (rows + j * PIECE) * STEP, at["copy"], pb + s * STEP, cast[i64](x["outs", j]), whole_steps
        )
    commit_copies()


@inline
def add_pixels(
    c, f, x, at, data, pd, b, pb, row, column, m, n, shared, steps, height, width, parts, depth, rows_of,
    columns_of, *, T, rows, columns, stages,
):  # fmt: skip
    """Set the sums of the tile at this row and column, of m x n results. pd, pb: the data, and the weights of
    its columns."""
    find_pixels(row, m - 1 - row)
    for j in static_range(columns // PIECE):
        line = minimum(at["line"] + const[i32](j * PIECE), spread[i32](n - 1 - column))
        x["outs", j] = line * spread[i32](b.stride.n) + at["half"]
    for i, j, h in np.ndindex(rows // PIECE, columns // PIECE, 2):
        c[i, j, h] = zero_sums[T]()
    for s in static_range(stages - 1):
        into = shared + s * (rows + columns) * STEP
        fetch_step(into, s)
    step = shared
    free = shared + (stages - 1) * (rows + columns) * STEP
    for s in range(stages - 1, steps + stages - 1):
        await_copies(stages - 2)
        warp_barrier()
        multiply(c, f, step, at)
        fetch_step(free, s)
        free = step
        step = next_stage(step, shared)


@kernel(
    over="m/rows n/columns", data="i h w c:1", b="n kb", y="m n", p="m n", q="m n", r="m n", rows_of=Moves,
    columns_of=Moves,
)  # fmt: skip
def tensor_convolution(
    data: Tensor, b: Tensor, y: Tensor, p: Tensor, q: Tensor, r: Tensor, rows_of, columns_of, height, width,
    parts, depth, *, T, sums, out, rows, columns, stages, body, first, second, third,
):  # fmt: skip
    """T, sums, out: element types of the data and weights, of sums, and of y. `height`, `width`: of an output
    image. `parts`: steps of a tap; `depth`: bytes of a pixel, a multiple of 16. p, q, r: operands of the
    epilogue, of the types `first`, `second` and `third` ("": none)."""
    c, f, x, o, at = registers()
    shared = shared_memory(stages * (rows + columns) * STEP)
    find_addresses(at)
    steps = rows_of.taps * columns_of.taps * parts
    for row, column, pb, py, pp, pq, pr in items(b, y, p, q, r):
        add_pixels(
            c, f, x, at, data, data.at(), b, pb, row, column, y.size.m, y.size.n, shared, steps, height,
            width, parts, depth, rows_of, columns_of,
        )  # fmt: skip
        store_tile(c, o, shared, y, p, q, r, row, column, py, pp, pq, pr)


@kernel(
    over="g m/rows n/columns", data="g i h w c:1", b="g n kb", y="g m n", p="g m n", q="g m n", r="g m n",
    rows_of=Moves, columns_of=Moves,
)  # fmt: skip
def grouped_convolution(
    data: Tensor, b: Tensor, y: Tensor, p: Tensor, q: Tensor, r: Tensor, rows_of, columns_of, height, width,
    parts, depth, *, T, sums, out, rows, columns, stages, body, first, second, third,
):  # fmt: skip
    """As `tensor_convolution`, in groups of channels of the data and of y."""
    c, f, x, o, at = registers()
    shared = shared_memory(stages * (rows + columns) * STEP)
    find_addresses(at)
    steps = rows_of.taps * columns_of.taps * parts
    for _, row, column, pd, pb, py, pp, pq, pr in items(data, b, y, p, q, r):
        add_pixels(
            c, f, x, at, data, pd, b, pb, row, column, y.size.m, y.size.n, shared, steps, height, width,
            parts, depth, rows_of, columns_of,
        )  # fmt: skip
        store_tile(c, o, shared, y, p, q, r, row, column, py, pp, pq, pr)


class TensorConvolution(ChannelsLast, WithEpilogue):
    """Convolution of f16 or bf16 in one or two dimensions with constant weights, with an epilogue; also in
    groups of two or more channels."""

    takes = (HALVES,)
    ranks = ((3, 4), (3, 4, 5))
    #: The operations that it takes.
    names: Collection[str] = ("Convolution", "GroupConvolution")

    def set_up(self) -> None:
        self.data, filters = self.node.inputs
        dtype, out, weights = self.data.dtype, self.out.dtype, filters.constant
        self.operands = self.group.operands
        if self.node.op.name not in self.names or weights is None or not weights.size:
            raise NotNative
        if filters.dtype != dtype or out not in FLOATS or len(self.operands) > OPERANDS:
            raise NotNative
        #: The weights as [groups, channels of a group's output, of its data, taps].
        self.weights = weights[None] if self.node.op.name == "Convolution" else merge_groups(weights)
        groups, outs, ins, *_ = self.weights.shape
        if groups > 1 and ins * 2 % 16:
            raise NotNative
        #: Elements of a pixel of a group, padded to a multiple of 16 bytes, and its steps.
        self.padded = ceil_div(ins * 2, 16) * 8
        self.parts = ceil_div(self.padded * 2, STEP)
        source, kind = (grouped_convolution, "grouped") if groups > 1 else (tensor_convolution, "tensor")
        words = f"{kind}_convolution", dtype, out
        self.by_tile = {
            tile: self.make_kernel(source, *words, *tile, sums="f32", **tile._asdict())
            for tile in self._tiles(groups, outs)
        }
        self.kernels = tuple(self.by_tile.values())

    def _tiles(self, groups: int, outs: int) -> Sequence[Tile]:
        """The tiles among which plans choose. An outer dimension of groups and the sums of the largest tile
        do not fit the registers of a thread."""
        pixels = [self.out.shape[0], *self.out.shape[2:]]
        tiles = TILES if groups == 1 else TILES[1:]
        if all(isinstance(d, int) for d in pixels):
            return [min(tiles, key=lambda tile: tile.cost(product(pixels), outs, groups))]
        return tiles

    def pack_operands(self, constants: Constants) -> None:
        """Place the constants among the epilogue's operands."""
        super().pack(constants)

    def pack(self, constants: Constants) -> None:
        self.pack_operands(constants)
        groups, outs, ins, *taps = self.weights.shape
        matrix = np.zeros((groups, outs, product(taps), self.parts * STEP // 2), self.weights.dtype)
        matrix[..., :ins] = self.weights.reshape(groups, outs, ins, -1).swapaxes(2, 3)
        self.matrix = matrix.reshape(groups, outs, -1)
        constants.view(self.matrix, self.data.dtype)

    def plan(self, planner: Planner) -> None:
        y = planner.channels_last_output(self.out)
        if not y.count:
            return
        rows = _rows_of_pixels(y)
        if rows is None:
            y = planner.instead(y)
            rows = _rows_of_pixels(y)
            assert rows is not None
        x = self._pixels(planner)
        b = planner.constants.view(self.matrix, self.data.dtype)
        groups, n, depth = b.shape
        views = [rows, *(self._operand(planner, v, y) for v in self.operands)]
        if groups > 1:
            x, *views = (_by_group(view, groups) for view in (x, *views))
        else:
            b = View(b.buffer, b.shape[1:], b.strides[1:], b.itemsize, b.offset)
        moves = find_moves(planner, self.node, self.weights.shape[3:])
        tensors = {"data": x, "b": b, **result_and_operands(views[0], views[1:], b)}
        m, width = rows.shape[0], y.shape[-1]
        tile = min(self.by_tile, key=lambda tile: tile.cost(m, n, groups))
        launch(
            planner, self.by_tile[tile], tensors, ("y",), work=depth * tile.rows * tile.columns,
            flops=2.0 * groups * m * n * depth, rows=tile.rows, columns=tile.columns, rows_of=moves[0],
            columns_of=moves[1], height=y.shape[2] if len(y.shape) == 4 else 1, width=width,
            parts=self.parts, depth=self.padded * 2,
        )  # fmt: skip

    def _pixels(self, planner: Planner, copies: bool = False) -> View:
        """The data as [images, rows, columns, channels], whose pixels begin at multiples of 16 bytes: a copy
        with zeros after the channels if necessary, or wanted."""
        view, rank = planner.view(self.data), len(self.data.shape)
        ins, padded = view.shape[1], self.padded * len(self.weights)
        order = (0, *range(2, rank), 1)
        if copies or not is_aligned(view.permute(order)) or ins != padded:
            halo = [(0, padded - ins if axis == 1 else 0) for axis in range(rank)]
            view = planner.copy(self.data, channels_last(rank, halo))
        view = view.permute(order)
        if rank == 4:
            return view
        images, width, channels = view.shape
        strides = (view.strides[0], 0, *view.strides[1:])
        return View(view.buffer, (images, 1, width, channels), strides, view.itemsize, view.offset)

    def _operand(self, planner: Planner, value: Value, y: View) -> View:
        """An operand of the epilogue as [pixels, channels]."""
        view = planner.view(value).expand(y.shape)
        rows = _rows_of_pixels(view)
        if rows is None:
            copy = planner.allocate(y.shape, view.itemsize, channels_last(len(y.shape)))
            planner.copy_step(view, copy, "rows of the kernel are contiguous")
            rows = _rows_of_pixels(copy)
            assert rows is not None
        return rows


def find_moves(planner: Planner, node: Node, taps: Sequence[Any]) -> list[Moves]:
    """The windows of a convolution along rows and columns."""
    strides, dilations, begin, _ = resolve_window(node.attrs, planner.shape(node.inputs[0])[2:], taps)
    moves = [Moves(*each) for each in zip(taps, strides, begin, dilations, strict=True)]
    return [*[Moves()] * (2 - len(moves)), *moves]


def merge_groups(weights: np.ndarray) -> np.ndarray:
    """Weights [groups, outs, ins, ...] with so few groups that each has a multiple of 16 bytes of channels,
    and those of a tile if possible: zeros multiply the channels of the other groups that a group is merged
    with. Raises NotNative for one channel per group, and for groups that cannot be merged so."""
    groups, outs, ins, *taps = weights.shape
    if ins == 1 and groups > 1:
        raise NotNative
    count = 1
    if groups == 1:
        return weights
    while count * ins % 8:
        count *= 2
    if groups % count:
        raise NotNative
    while count * outs < PIECE and count < MOST_MERGED and groups % (2 * count) == 0:
        count *= 2
    merged = np.zeros((groups // count, count, outs, count, ins, *taps), weights.dtype)
    for i in range(count):
        merged[:, i, :, i] = weights[i::count]
    return merged.reshape(groups // count, count * outs, count * ins, *taps)


def _by_group(view: View, groups: int) -> View:
    """[..., channels] as [groups, ..., channels of a group]."""
    *shape, channels = view.shape
    each, step = channels // groups, view.strides[-1]
    strides = (each * step, *view.strides)
    return View(view.buffer, (groups, *shape, each), strides, view.itemsize, view.offset)


def _rows_of_pixels(view: View) -> View | None:
    """[N, C, ...] as [pixels, C]; None if strides do not allow it."""
    n, channels, *space = view.shape
    order = (0, *range(2, len(view.shape)), 1)
    rows: View | None = view.permute(order).reshape((n * product(space), channels))
    return rows
