"""Products of activations that are quantized as they come with weights that stay integers.

    x[m, k] ~ q[m, k] * p[m, g]          q of 8 bits with a sign, p = max |x[m, k]| / 127,  g = k // size
    y[m, n] = sum over g of p[m, g] * scale[G, n] * sum of k in g of q[m, k] * (integers[k, n] - zero[G, n])

The inner sums are whole numbers, by `vpdpbusd`: four bytes of depth an instruction, weights without a sign
times activations with one. NEON's `sdot` multiplies bytes with a sign, so there weights of 8 bits have one. A
weight group G has one or more groups g, so what a zero adds is once a group.

    integers [panel][k / 4][width][4] of 8 bits, or [panel][k / 8][width][4] of two times 4: k in the low
             half, k + 4 in the high one
    scales   [panel][group][width] of f16 where it holds them, else of f32
    zeros    [panel][group][width] of u8, where they are not one number
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ovjit.codegen.cpu.formats import Stored
from ovjit.codegen.cpu.ir import Epilogue
from ovjit.codegen.cpu.targets import Target
from ovjit.codegen.function import inline, kernel
from ovjit.codegen.kernel import Kernel
from ovjit.codegen.tensors import Raw
from ovjit.codegen.words import *
from ovjit.graph.converted import Converted, Unmade
from ovjit.planning.plan import Filling, ceil_div
from ovjit.tiles import weave
from ovjit.tiles.compressed import fetch, fetch_group
from ovjit.tiles.pack import Woven, fill_later, flipped, spread_out, tile_width
from ovjit.tiles.rows import ROW_OPERANDS, finish_row

#: Rows of a tile: 6 by two vectors of whole sums and as many of real ones fill the registers.
HEIGHTS = (6, 3, 1)
_BYTE = "i8"
#: Panels that one row is multiplied with at a time, two streams of memory. Of four, those of groups of 32 are
#: slower.
ABREAST = 2
#: Groups with a smaller scale are zeros.
LEAST = 2.0**-126


class GroupSizes(NamedTuple):
    """Rows, elements of a row and of a group, groups; rows of a chunk."""

    rows: int
    depth: int
    size: int
    groups: int
    per_chunk: int


@kernel(sizes=Raw(GroupSizes))
def _quantize(x: Ptr, q: Ptr, p: Ptr, sizes, *, T):
    """q [rows, groups * size] with zeros behind the depth; p [rows, groups] of two f32: scale, sum of q"""
    for row in share(sizes.rows, sizes.per_chunk):
        source = x + row * sizes.depth * SIZE[T]
        target = q + row * sizes.groups * sizes.size
        pair = p + row * sizes.groups * 8
        for g in range(sizes.groups):
            first = g * sizes.size
            peak = const[f32](0.0)
            for i in range(first, first + sizes.size, VL):
                peak = maximum(peak, absolute(loadm[T](source + i * SIZE[T], sizes.depth - i)))
            scale = spread[f32](hmax[f32](peak)) / const[f32](127.0)
            # below that its reciprocal is infinite
            steps = select(scale > const[f32](LEAST), const[f32](1.0) / scale, const[f32](0.0))
            total = const[f32](0.0)
            for i in range(first, first + sizes.size, VL):
                whole = rint(loadm[T](source + i * SIZE[T], sizes.depth - i) * steps)
                total = total + whole
                storem[_BYTE](target + i, cast[_BYTE](whole), VL)
            st[f32](pair + g * 8, lane[f32](scale, 0))
            st[f32](pair + g * 8 + 4, hadd[f32](total))


def quantize_kernel(dtype: str) -> Kernel:
    """Rows of `dtype` to integers with a scale for each group."""
    return _quantize.kernel(f"quantize_groups_{dtype}", T=dtype)


@inline
def multiply_tile(
    row, x, x_w, p, p_w, weights, scales, zeros, bias, w_panel, s_panel, z_panel, b_step, words, groups,
    ratio, height, panels, vectors, lanes, stored,
):  # fmt: skip
    """`height` rows times `panels` panels, whose sums go to scratch."""
    at, made, scale, zero, total, w = registers()
    for n in static_range(panels):
        at["q", n] = weights + n * w_panel
        at["s", n] = scales + n * s_panel
        if stored.zero is None:
            at["z", n] = zeros + n * z_panel
    for r in static_range(height):
        at["x", r] = x + (row + r) * x_w
        at["p", r] = p + (row + r) * p_w
    for r, n, v in np.ndindex(height, panels, vectors):
        made[r, n, v] = load[f32](bias + n * b_step + v * lanes * 4)
    g = 0
    while g < groups:
        stop = min(g + ratio, groups)
        for n in static_range(panels):
            if height == 1:
                fetch_group(at, n, vectors * lanes, SIZE[stored.scale], stored.zero is None, panels)
            for v in static_range(vectors):
                scale[n, v] = load[stored.scale](at["s", n] + v * lanes * SIZE[stored.scale])
                if stored.zero is None:
                    zero[n, v] = -cast[f32](load[u8](at["z", n] + v * lanes))
                    if stored.less:
                        zero[n, v] = zero[n, v] + const[f32](float(stored.less))
                elif stored.zero != stored.less:
                    zero[n, v] = const[f32](float(stored.less - stored.zero))
            at["s", n] += vectors * lanes * SIZE[stored.scale]
            if stored.zero is None:
                at["z", n] += vectors * lanes
        while g < stop:
            for r, n, v in np.ndindex(height, panels, vectors):
                total[r, n, v] = const[i32](0)
            for _ in range(0, words, 4):
                # 16 elements of depth: four words, of which 4 bits have two in each vector
                if height == 1:
                    for n in static_range(panels):
                        fetch(at["q", n], stored.bits // 2 * vectors * lanes * 4, panels)
                for word in static_range(0, 4, 8 // stored.bits):
                    for n, v in np.ndindex(panels, vectors):
                        place = at["q", n] + (word * stored.bits // 8 * vectors + v) * lanes * 4
                        w[0, n, v] = load[i32](place)
                        if stored.bits == 4:
                            w[1, n, v] = (w[0, n, v] >> const[i32](4)) & const[i32](252645135)
                            w[0, n, v] = w[0, n, v] & const[i32](252645135)
                    for half, r in np.ndindex(8 // stored.bits, height):
                        data = splat[i32](at["x", r] + (word + half) * 4)
                        for n, v in np.ndindex(panels, vectors):
                            if stored.signed:
                                total[r, n, v] = dot_signed(total[r, n, v], w[half, n, v], data)
                            else:
                                total[r, n, v] = dot_bytes(total[r, n, v], w[half, n, v], data)
                for n in static_range(panels):
                    at["q", n] += stored.bits // 2 * vectors * lanes * 4
                for r in static_range(height):
                    at["x", r] += 16
            for r in static_range(height):
                by = splat[f32](at["p", r])
                if stored.zero != stored.less:
                    some = splat[f32](at["p", r] + 4)
                for n, v in np.ndindex(panels, vectors):
                    whole = cast[f32](total[r, n, v])
                    if stored.zero != stored.less:
                        whole = fma(some, zero[n, v], whole)
                    made[r, n, v] = fma(whole, by * scale[n, v], made[r, n, v])
                at["p", r] += 8
            g += 1
    place = scratch
    for r, n, v in np.ndindex(height, panels, vectors):
        store[f32](place + ((r * panels + n) * vectors + v) * lanes * 4, made[r, n, v])


class Apart(NamedTuple):
    """Bytes from row to row of x, its scales and y; of a panel of weights, scales, zeros and bias."""

    x_w: int
    p_w: int
    y_w: int
    w_panel: int
    s_panel: int
    z_panel: int
    b_step: int


class Sizes(NamedTuple):
    """Words of a group, groups, groups of a scale; rows and how they are shared out; outputs and panels."""

    words: int
    groups: int
    ratio: int
    rows: int
    rows_per: int
    row_blocks: int
    outs: int
    panels: int
    per_chunk: int


@kernel(apart=Raw(Apart), sizes=Raw(Sizes))
def dynamic_product(
    x: Ptr, p: Ptr, w: Ptr, s: Ptr, z: Ptr, b: Ptr, y: Ptr, apart, sizes, e=ROW_OPERANDS, *, operands,
    body, out, vectors, lanes, stored,
):  # fmt: skip
    """The product of quantized rows. A chunk is a range of rows times a range of weight panels."""
    made = registers()
    first_row = chunk % sizes.row_blocks * sizes.rows_per
    stop_row = min(first_row + sizes.rows_per, sizes.rows)
    c = chunk // sizes.row_blocks * sizes.per_chunk
    stop = min(c + sizes.per_chunk, sizes.panels)
    while c < stop:
        wide = 1
        if sizes.rows == 1 and stop - c >= ABREAST:
            wide = ABREAST
        row = first_row
        while row < stop_row:
            done = row + 1
            if wide == ABREAST:
                multiply_tile(
                    row, x, apart.x_w, p, apart.p_w, w + c * apart.w_panel, s + c * apart.s_panel, z + c *
                    apart.z_panel, b + c * apart.b_step, apart.w_panel, apart.s_panel, apart.z_panel,
                    apart.b_step, sizes.words, sizes.groups, sizes.ratio, 1, ABREAST, vectors, lanes,
                    stored,
                )  # fmt: skip
            else:
                for height in HEIGHTS:
                    if height == 1 or stop_row - row >= height:
                        multiply_tile(
                            row, x, apart.x_w, p, apart.p_w, w + c * apart.w_panel, s + c * apart.s_panel,
                            z + c * apart.z_panel, b + c * apart.b_step, 0, 0, 0, 0, sizes.words,
                            sizes.groups, sizes.ratio, height, 1, vectors, lanes, stored,
                        )  # fmt: skip
                        done = row + height
                        break
            place = scratch
            while row < done:
                for panel in range(c, c + wide):
                    for v in static_range(vectors):
                        made[0, v] = load[f32](place + v * lanes * 4)
                    finish_row(
                        made, 0, e, y, apart.y_w, row, panel, sizes.outs, vectors, lanes, operands, body, out
                    )
                    place += vectors * lanes * 4
                row += 1
        c += wide


def product_kernel(name: str, epilogue: Epilogue, isa: Target, stored: Stored) -> Kernel:
    """The product of quantized rows."""
    return dynamic_product.kernel(
        name, vectors=isa.tile_vectors, lanes=isa.lanes, stored=stored, **epilogue.constants("f32")
    )


class Packed(NamedTuple):
    """Weights, scales and zeros in panels, and the bytes of a panel of each."""

    stored: Stored
    integers: Filling
    scales: Filling
    zeros: Filling | None
    w_panel: int
    s_panel: int
    z_panel: int


def pack_dynamic(
    integers: np.ndarray | Unmade, scale: np.ndarray | Converted, zero: np.ndarray | None, stored: Stored,
    size: int, isa: Target,
) -> Packed:  # fmt: skip
    """integers [K, N] (8 bits, or 0 to 15), scale and zero [groups, N] -> panels; K is filled up to groups of
    `size`."""
    depth = integers.shape[0]
    width = tile_width(isa)
    rows = ceil_div(depth, size) * size
    signed = integers.dtype.kind == "i"
    turned = signed != bool(stored.less)

    def arrange(integers: np.ndarray) -> np.ndarray:
        outs = integers.shape[1]
        panels = ceil_div(outs, width)
        padded = np.zeros((rows, panels * width), np.uint8)
        padded[:depth, :outs] = integers.view(np.uint8) ^ np.uint8(128 * turned)
        fours: np.ndarray = padded.reshape(rows // 4, 4, panels, width)
        if stored.bits == 4:
            twice = padded.reshape(rows // 8, 2, 4, panels, width)
            fours = twice[:, 0] | (twice[:, 1] << 4)
        return fours.transpose(2, 0, 3, 1)

    scales = spread_out(scale, np.float16 if stored.scale == "f16" else np.float32, width)
    zeros, z_panel = None, 0
    if stored.zero is None:
        assert zero is not None
        zeros, z_panel = spread_out(zero, np.uint8, width, 128 * signed)
    panel = rows * width * stored.bits // 8
    woven = None
    if rows == depth and stored.bits == 4:
        woven = Woven(4, 4, weave.SPREAD, flipped(integers, 4))
    elif rows == depth:
        woven = Woven(4, 8, mask=0x80808080 * turned)
    packed = fill_later(integers, width, panel, arrange, woven)
    return Packed(stored, packed, scales.numbers, zeros, panel, scales.panel, z_panel)
