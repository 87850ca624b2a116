"""Convolutions on GPUs of compute capability 9.0, as products of blocks
(`ovjit_ops.matmul.gpu_block_products`).

    y[pixel, o] = epilogue(sum over taps t, channels c of x[pixel + t, c] w[o, t, c])

A tile's rows are a box of output pixels: images x lines x pixels. The data under one tap are a box, too,
which a copy fetches with zeros where the window leaves the data. A step along the depth is 128 bytes of one
tap. Weights are arranged at compilation, with the channels of each tap padded by zeros to whole steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ovjit.codegen.kernel_language import *
from ovjit.codegen.warps import GROUP_ROWS, LINE, QUADS, STRIP
from ovjit.graph.graph import Value
from ovjit.planning.launch import launch
from ovjit.planning.plan import Constants, NotNative, Planner, ceil_div
from ovjit.planning.views import FIRST_IO, View, channels_last, product
from ovjit.records import NamedTuple
from ovjit_ops.convolution.cpu_direct import Moves
from ovjit_ops.convolution.gpu_convolution import TensorConvolution, find_moves
from ovjit_ops.matmul.gpu_block_lowering import LARGE, MOST_COLUMNS, describe_boxes, is_loaded_by_eight
from ovjit_ops.matmul.gpu_block_products import (
    FEATURE,
    FEW,
    MANY,
    PROCESSORS,
    TILES,
    BlockTile,
    arrange,
    begin_ring,
    begin_step,
    copy_weights,
    multiply_steps,
    next_slot,
    store_eight_sums,
)
from ovjit_ops.matmul.gpu_epilogues import is_aligned, repeated_steps, result_and_operands


@inline
def find_pixel(at, n, h, w, row, y, images, lines, pixels):
    """Set the image, line and column of the output pixel of this lane's row, and whether there is one."""
    i = (lane_numbers[i32]() >> const[i32](2)) + spread[i32](row)
    line = i / spread[i32](pixels)
    image = line / spread[i32](lines)
    at["w"] = cast[i64](i - line * spread[i32](pixels)) + spread[i64](w)
    at["h"] = cast[i64](line - image * spread[i32](lines)) + spread[i64](h)
    at["n"] = cast[i64](image) + spread[i64](n)
    inside = (image < spread[i32](images)) & (at["w"] < spread[i64](y.size.w))
    at["inside"] = inside & (at["h"] < spread[i64](y.size.h)) & (at["n"] < spread[i64](y.size.n))


@inline
def find_offset(at, step_n, step_h, step_w):
    """The offset in bytes of this lane's pixel (at["n"], at["h"], at["w"]) in a tensor with these strides."""
    return at["n"] * spread[i64](step_n) + at["h"] * spread[i64](step_h) + at["w"] * spread[i64](step_w)


@inline
def store_pixels(
    c, o, v, at, y, p, q, r, n, h, w, column, warp, images, lines, pixels, *, T, sums, out, columns, body,
    first, second, third,
):  # fmt: skip
    """Store a tile of sums, with the epilogue applied."""
    for half in static_range(2):
        find_pixel(at, n, h, w, warp * 16 + half * 8, y, images, lines, pixels)
        at["y"] = find_offset(at, y.stride.n, y.stride.h, y.stride.w)
        if first:
            at["p"] = find_offset(at, p.stride.n, p.stride.h, p.stride.w)
        if second:
            at["q"] = find_offset(at, q.stride.n, q.stride.h, q.stride.w)
        if third:
            at["r"] = find_offset(at, r.stride.n, r.stride.h, r.stride.w)
        for quad in static_range(columns // QUADS):
            channel = cast[i64]((lane_numbers[i32]() & const[i32](3)) << const[i32](3))
            channel = channel + spread[i64](column + quad * QUADS)
            valid = at["inside"] & (channel < spread[i64](y.size.o))
            store_eight_sums(
                c, o, v, quad, half, valid, y, at["y"] + channel * spread[i64](y.stride.o), p,
                at["p"] + channel * spread[i64](p.stride.o), q, at["q"] + channel * spread[i64](q.stride.o),
                r, at["r"] + channel * spread[i64](r.stride.o),
            )  # fmt: skip


@kernel(
    over="n/images h/lines w/pixels o/columns", data="i u v c:1", y="n h w o", p="n h w o", q="n h w o",
    r="n h w o", rows_of=Moves, columns_of=Moves,
)  # fmt: skip
def block_convolution(
    data: Tensor, b: Ptr, y: Tensor, p: Tensor, q: Tensor, r: Tensor, rows_of, columns_of, parts, depth,
    boxed,
    images, lines, pixels, *, T, sums, out, rows, columns, stages, body, first, second, third,
):  # fmt: skip
    """T, sums, out: element types of the data and weights, of sums, and of y. `parts`: steps of a tap;
    `depth`: bytes of a pixel, a multiple of 16. A tile has `boxed` = images * lines * pixels rows, at most
    `rows`. b: see `arrange`. p, q, r: operands of the epilogue, of the types `first`, `second` and `third`
    ("": none)."""
    c, o, v, at, ring = registers()
    start_followers()
    begin_ring(ring)
    steps = rows_of.taps * columns_of.taps * parts
    if ring["warp"] < rows // 16:
        if rows > GROUP_ROWS:
            take_registers(MANY)
        await_leaders()
        for n, h, w, column in items():
            multiply_steps(c, ring, steps)
            store_pixels(c, o, v, at, y, p, q, r, n, h, w, column, ring["warp"], images, lines, pixels)
    else:
        if rows > GROUP_ROWS:
            leave_registers(FEW)
        if ring["warp"] == rows // 16:
            ring["early"] = -1
            for n, h, w, column in items():
                pb = b + column // QUADS * (steps * STRIP)
                last = (y.size.o - 1 - column) // QUADS
                if ring["early"] < 0:
                    ring["early"] = min(steps, stages)
                    for s in range(ring["early"]):
                        copy_weights(ring, pb, s, s, steps, last, boxed)
                    await_leaders()
                s = 0
                for tap_row in range(rows_of.taps):
                    for tap in range(columns_of.taps):
                        for part in range(parts):
                            begin_step(ring, pb, s, steps, last, boxed)
                            full = ring["full"] + ring["slot"] * 8
                            copy_pixels(
                                ring["shared"] + ring["slot"] * ((rows + columns) * LINE), data,
                                data.stride.v, data.stride.u, data.stride.i, depth, data.size.v,
                                data.size.u, data.size.i, pixels, lines, images,
                                columns_of.stride, rows_of.stride, part * LINE,
                                w * columns_of.stride - columns_of.before + tap * columns_of.dilation,
                                h * rows_of.stride - rows_of.before + tap_row * rows_of.dilation, n, rows,
                                full,
                            )  # fmt: skip
                            s += 1
                            next_slot(ring)


def matrix_of_filters(weights: np.ndarray, parts: int) -> np.ndarray:
    """Filters [outs, channels, taps ...] as a matrix [outs, taps * parts * 128 bytes]."""
    outs, ins = weights.shape[:2]
    taps = weights.reshape(outs, ins, -1).swapaxes(1, 2)
    matrix: Any = np.zeros((outs, taps.shape[1], parts * LINE // weights.itemsize), weights.dtype)
    matrix[..., :ins] = taps
    return matrix.reshape(outs, -1)


#: Maximum elements of a box along a dimension for the driver, and its maximum stride.
MOST_BOXED, MOST_STRIDE = 256, 8
#: Channels of each tap are padded to whole steps: at most so many times the bytes.
MOST_PADDED = 1.5


class Box(NamedTuple):
    """Output pixels of a tile."""

    images: int
    lines: int
    pixels: int

    def tiles(self, space: Sequence[int]) -> int:
        """The number of boxes of an output [images, lines, pixels]."""
        return product([ceil_div(d, each) for d, each in zip(space, self, strict=True)])


def find_box(space: Sequence[int], rows: int, strides: Sequence[int]) -> Box:
    """The box of at most `rows` output pixels with the fewest tiles; of equal ones the one with long
    lines."""
    best, fewest = Box(1, 1, 1), 1 << 62
    for pixels in range(min(space[2], rows, MOST_BOXED // strides[1]), 0, -1):
        lines = min(space[1], rows // pixels, MOST_BOXED // strides[0])
        for used in {lines, max(1, lines // 2), 1}:
            box = Box(max(1, min(space[0], rows // (pixels * used), MOST_BOXED)), used, pixels)
            tiles = box.tiles(space)
            if tiles < fewest:
                best, fewest = box, tiles
    return best


class BlockConvolution(TensorConvolution):
    """Convolution of f16 or bf16 with constant weights and static shapes, with an epilogue."""

    names = ("Convolution",)

    def set_up(self) -> None:
        super().set_up()
        weights = self.node.inputs[1].constant
        assert weights is not None
        shapes = (*self.data.shape, *self.out.shape)
        if (
            FEATURE not in self.target.extras
            or weights.shape[0] % 8
            or not all(isinstance(d, int) for d in shapes)
        ):
            raise NotNative
        if not product(shapes) or not all(is_loaded_by_eight(v.dtype) for v in (self.out, *self.operands)):
            raise NotNative
        #: Steps of a tap.
        self.parts = ceil_div(self.padded * 2, LINE)
        if self.parts * LINE > MOST_PADDED * self.padded * 2:
            raise NotNative
        strides = self._strides()
        if max(strides) > MOST_STRIDE:
            raise NotNative
        space = self._space()
        # beside the addresses of pixels, the registers of a thread do not suffice for 128 sums
        tiles = [tile for tile in TILES if tile.columns < MOST_COLUMNS]
        depth = product(weights.shape[2:]) * self.parts * LINE
        outs = weights.shape[0]

        def cost(tile: BlockTile) -> int:
            # a box has the time of a whole tile
            return tile.cost(find_box(space, tile.rows, strides).tiles(space) * tile.rows, outs, depth)

        self.tile = min(tiles, key=cost)
        self.box = find_box(space, self.tile.rows, strides)
        self.kernel = self.make_kernel(
            block_convolution, "block_convolution", self.data.dtype, self.out.dtype, *self.tile, sums="f32",
            rows=self.tile.rows, columns=self.tile.columns, stages=self.tile.stages,
        )  # fmt: skip
        self.kernels = (self.kernel,)

    def _tiles(self, groups: int, outs: int) -> Sequence[Any]:
        return ()  # those of kernels for warps

    def _strides(self) -> tuple[int, int]:
        """Strides along rows and columns."""
        strides = self.node.attrs["strides"] or (1,) * (len(self.out.shape) - 2)
        return (1, *strides)[-2:]

    def _is_flat(self) -> bool:
        """True if output pixels are those of the data: then they are one line."""
        attrs, weights = self.node.attrs, self.node.inputs[1].constant
        pads = [*(attrs["pads_begin"] or ()), *(attrs["pads_end"] or ())]
        assert weights is not None
        same = self.data.shape[2:] == self.out.shape[2:]
        return product(weights.shape[2:]) == 1 and max(self._strides()) == 1 and same and not any(pads)

    def _space(self) -> tuple[int, int, int]:
        """Output images, rows and columns."""
        images, _, *space = self.out.shape
        if self._is_flat():
            return 1, 1, images * product(space)
        rows, columns = (1, *space)[-2:]
        return images, rows, columns

    def pack(self, constants: Constants) -> None:
        self.pack_operands(constants)
        weights = self.node.inputs[1].constant
        assert weights is not None
        self.image = arrange(matrix_of_filters(weights, self.parts))
        constants.view(self.image, "u8")

    def plan(self, planner: Planner) -> None:
        y = planner.channels_last_output(self.out)
        rank = len(y.shape)
        if not is_aligned(self._pixels_of(y)):
            y = planner.instead(y, channels_last(rank))
        b = planner.constants.view(self.image, "u8")
        result = self._pixels_of(y)
        assert result is not None
        operands = [self._operand_pixels(planner, v, y) for v in self.operands]
        moves = find_moves(planner, self.node, self.node.inputs[1].shape[2:])
        x = self._boxes(planner)
        tiles = self.box.tiles(result.shape[:3]) * ceil_div(result.shape[3], self.tile.columns)
        depth = product(self.node.inputs[1].shape[1:])
        launch(
            planner, self.kernel, {"data": x, **result_and_operands(result, operands, b)}, ("y",),
            b=b, work=LARGE, unit=ceil_div(tiles, PROCESSORS), flops=2.0 * result.count * depth,
            columns=self.tile.columns, rows_of=moves[0], columns_of=moves[1], parts=self.parts,
            depth=self.padded * 2, boxed=product(self.box), **self.box._asdict(),
        )  # fmt: skip

    def _boxes(self, planner: Planner) -> View:
        """The data as [images, rows, columns, channels] for a tensor map, by a copy if necessary."""
        for copies in (False, True):
            x = self._pixels(planner, copies)
            flat = (1, 1, product(x.shape[:3]), x.shape[3])
            described = describe_boxes(x.reshape(flat) if self._is_flat() else x)
            if described is not None:
                return described
        raise AssertionError("a copy has pixels that a tensor map describes")

    def _pixels_of(self, view: View) -> View | None:
        """[N, C, ...] as [images, rows, columns, C], as one line if pixels are those of the data. None if
        strides do not allow it."""
        rank = len(view.shape)
        view = view.permute((0, *range(2, rank), 1))
        if self._is_flat():
            return view.reshape((1, 1, product(view.shape[:-1]), view.shape[-1]))
        if rank == 4:
            return view
        images, width, channels = view.shape
        strides = (view.strides[0], 0, *view.strides[1:])
        return View(view.buffer, (images, 1, width, channels), strides, view.itemsize, view.offset)

    def _operand_pixels(self, planner: Planner, value: Value, y: View) -> View:
        """An operand of the epilogue as [images, rows, columns, channels], whose channels are adjacent: one
        pixel for all if it has one."""
        view = planner.view(value).expand(y.shape)
        pixels = self._pixels_of(view)
        if is_aligned(pixels) and view.buffer.base < FIRST_IO:
            assert pixels is not None
            return pixels
        part = view
        if not any(repeated_steps(view.permute((0, *range(2, len(view.shape)), 1)))):
            for axis in (0, *range(2, len(view.shape))):
                part = part.slice(axis, 0, 1)
        copy = planner.allocate(part.shape, part.itemsize, channels_last(len(part.shape)))
        planner.copy_step(part, copy, "pixels begin at multiples of 16 bytes")
        pixels = self._pixels_of(copy.expand(y.shape))
        assert pixels is not None
        return pixels
