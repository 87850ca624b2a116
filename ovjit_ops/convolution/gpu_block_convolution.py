"""Convolutions on GPUs of compute capability 9.0, as products of blocks
(`ovjit_ops.matmul.gpu_block_products`).

    y[pixel, o] = epilogue(sum over taps t, channels c of x[pixel + t, c] w[o, t, c])

A tile's rows are a box of output pixels: images x lines x pixels. The data under one tap are a box, too,
which a copy fetches with zeros where the window leaves the data. A step along the depth is 128 bytes of one
tap. Weights are arranged at compilation, with the channels of each tap padded by zeros to whole steps.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ovjit.codegen.kernel_language import *
from ovjit.codegen.warps import GROUP_ROWS, LINE, QUADS, STRIP
from ovjit_ops.convolution.cpu_direct import Moves
from ovjit_ops.matmul.gpu_block_products import (
    FEW,
    MANY,
    begin_ring,
    begin_step,
    copy_weights,
    multiply_steps,
    next_slot,
)


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
    """The offset of this lane's pixel."""
    return at["n"] * spread[i64](step_n) + at["h"] * spread[i64](step_h) + at["w"] * spread[i64](step_w)


@inline
def load_pixels(o, p, offset, channel, step, valid, *, T, which):
    """Load eight channels of an operand of the epilogue."""
    e = load_eight[T](p, offset + channel * spread[i64](step), valid)
    for i in static_range(8):
        o[which, i] = part_of_eight[T](e, i)


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
            if first:
                load_pixels(o, p, at["p"], channel, p.stride.o, valid, T=first, which=1)
            if second:
                load_pixels(o, q, at["q"], channel, q.stride.o, valid, T=second, which=2)
            if third:
                load_pixels(o, r, at["r"], channel, r.stride.o, valid, T=third, which=3)
            for i in static_range(8):
                total = part_of_group[columns, sums](c["sums"], quad * 16 + i // 2 * 4 + half * 2 + i % 2)
                for which in (1, 2, 3):
                    if (first, second, third)[which - 1]:
                        v[which] = o[which, i]
                if body:
                    total = applied(body, total, *v)
                o[0, i] = total
            store_eight[out](
                y,
                at["y"] + channel * spread[i64](y.stride.o),
                join_eight[out](*(o[0, i] for i in range(8))),
                valid,
            )


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
