"""Products of activations that are quantized as they come with weights that stay integers.

    x[m, k] ~ q[m, k] * p[m, g]          q of 8 bits with a sign, p = max |x[m, k]| / 127,  g = k // size
    y[m, n] = sum over g of p[m, g] * scale[G, n] * sum of k in g of q[m, k] * (integers[k, n] - zero[G, n])

The inner sums are whole numbers, by `vpdpbusd`: four bytes of depth an instruction, weights without a sign
times activations with one. A weight group G has one or more groups g, so what a zero adds is once a group.

    integers [panel][k / 4][width][4] of 8 bits, or [panel][k / 8][width][4] of two times 4: k in the low
             half, k + 4 in the high one
    scales   [panel][group][width] of f16 where it holds them, else of f32
    zeros    [panel][group][width] of u8, where they are not one number
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ovjit.codegen.cpu.ir import Epilogue
from ovjit.codegen.cpu.isa import Isa
from ovjit.codegen.elementwise import SIZE
from ovjit.codegen.function import kernel
from ovjit.codegen.kernel import Frame, Kernel
from ovjit.codegen.words import (
    VL,
    Ptr,
    absolute,
    cast,
    const,
    f32,
    hadd,
    hmax,
    lane,
    loadm,
    maximum,
    rint,
    select,
    share,
    spread,
    st,
    storem,
)
from ovjit.compiler.plan import aligned_bytes, ceil_div
from ovjit.tiles.compressed import fit_f16
from ovjit.tiles.pack import tile_width
from ovjit.tiles.rows import RowEpilogue

#: What a CPU needs for it.
FEATURES = ("avx512vnni",)
#: Groups of activations are so many elements, or twice that, ...
GROUP_STEP = 16
#: Rows of a tile: 6 by two vectors of whole sums and as many of real ones fill the registers.
HEIGHTS = (6, 3, 1)
_BYTE = "i8"
#: Groups with a smaller scale are zeros.
LEAST = 2.0**-126


@kernel
def _quantize(x: Ptr, q: Ptr, p: Ptr, rows, depth, size, groups, per_chunk, *, T):
    """q [rows, groups * size] with zeros behind the depth; p [rows, groups] of two f32: scale, sum of q"""
    for row in share(rows, per_chunk):
        source = x + row * depth * SIZE[T]
        target = q + row * groups * size
        pair = p + row * groups * 8
        for g in range(groups):
            first = g * size
            peak = const[f32](0.0)
            for i in range(first, first + size, VL):
                peak = maximum(peak, absolute(loadm[T](source + i * SIZE[T], depth - i)))
            scale = spread[f32](hmax[f32](peak)) / const[f32](127.0)
            # below that its reciprocal is infinite
            steps = select(scale > const[f32](LEAST), const[f32](1.0) / scale, const[f32](0.0))
            total = const[f32](0.0)
            for i in range(first, first + size, VL):
                whole = rint(loadm[T](source + i * SIZE[T], depth - i) * steps)
                total = total + whole
                storem[_BYTE](target + i, cast[_BYTE](whole), VL)
            st[f32](pair + g * 8, lane[f32](scale, 0))
            st[f32](pair + g * 8 + 4, hadd[f32](total))


def quantize_kernel(dtype: str) -> Kernel:
    """Rows of `dtype` to integers with a scale for each group."""
    return _quantize.kernel(f"quantize_groups_{dtype}", T=dtype)


class Stored(NamedTuple):
    """How weights are stored: bits of an integer (8 or 4); the zero of all of them, None where they have
    their own; the type of scales."""

    bits: int
    zero: int | None
    scale: str

    @property
    def name(self) -> str:
        zero = "z" if self.zero is None else str(self.zero) if self.zero else ""
        return f"u{self.bits}{zero}_{self.scale}"


def product_kernel(name: str, epilogue: Epilogue, isa: Isa, stored: Stored) -> Kernel:
    """The product of quantized rows. A chunk is a range of rows times a range of weight panels."""
    width, lanes = tile_width(isa), isa.lanes
    frame = Frame().pointers("x", "p", "w", "s")
    if stored.zero is None:
        frame.pointers("z")
    frame.pointers("b", "y")
    finish = RowEpilogue(epilogue)
    finish.add_fields(frame)
    frame.integers("x_w", "p_w", "y_w", "w_panel", "s_panel", "z_panel", "b_step", "words", "groups", "ratio")
    frame.integers("rows", "rows_per", "row_blocks", "outs", "panels", "per_chunk")
    src = finish.head(frame)
    src += ["    low_half = const_i32(252645135)", "    four = const_i32(4)"] if stored.bits == 4 else []
    src += [f"    minus_zero = const_f32({-stored.zero}.0)"] if stored.zero else []
    src += [
        "    first_row = (chunk % row_blocks) * rows_per",
        "    stop_row = imin(first_row + rows_per, rows)",
        "    c = (chunk // row_blocks) * per_chunk",
        "    stop = imin(c + per_chunk, panels)",
        "    while c < stop:",
        "        row = first_row",
        "        while row < stop_row:",
    ]
    for n, height in enumerate(HEIGHTS):
        test = "else:" if height == 1 else f"{'el' if n else ''}if stop_row - row >= {height}:"
        src += [f"            {test}"]
        src += [" " * 16 + line for line in _tile(height, width, lanes, stored)]
    src += ["            r = 0", "            while r < height:"]
    values = [
        f"load_f32(scratch + r * {width * 4} + {v * lanes * 4})" for v in range(width // lanes)
    ]
    src += [" " * 16 + line for line in finish.applied(values, "(row + r)", width, lanes)]
    src += ["                r += 1", "            row += height", "        c += 1", "    return 0", ""]
    return Kernel(name, "\n".join(src), frame)


def _tile(height: int, width: int, lanes: int, stored: Stored) -> list[str]:
    """`height` rows times a panel, whose sums go to scratch."""
    vectors = range(width // lanes)
    rows = range(height)
    scale = SIZE[stored.scale]
    out = [f"height = {height}", "w_at = w + c * w_panel", "s_at = s + c * s_panel"]
    out += ["z_at = z + c * z_panel"] if stored.zero is None else []
    out += [f"q{r} = x + (row + {r}) * x_w" for r in rows]
    out += [f"p{r} = p + (row + {r}) * p_w" for r in rows]
    for v in vectors:
        out += [f"y{r}_{v} = load_f32(b + c * b_step + {v * lanes * 4})" for r in rows]
    out += ["g = 0", "while g < groups:", "    stop_g = imin(g + ratio, groups)"]
    out += [f"    s{v} = load_{stored.scale}(s_at + {v * lanes * scale})" for v in vectors]
    out += [f"    s_at += {width * scale}"]
    if stored.zero is None:
        out += [f"    z{v} = neg(cast_f32(load_u8(z_at + {v * lanes})))" for v in vectors]
        out += [f"    z_at += {width}"]
    out += ["    while g < stop_g:"]
    out += [f"        a{r}_{v} = const_i32(0)" for r in rows for v in vectors]
    out += ["        k = 0", "        while k < words:"]
    # 16 elements of depth: four words, of which 4 bits have two in each vector
    step = 1 if stored.bits == 8 else 2
    for word in range(0, 4, step):
        for v in vectors:
            load = f"load_i32(w_at + {(word // step * width + v * lanes) * 4})"
            if stored.bits == 8:
                out += [f"            w0_{v} = {load}"]
            else:
                out += [f"            both = {load}", f"            w0_{v} = and_(both, low_half)"]
                out += [f"            w1_{v} = and_(shr(both, four), low_half)"]
        for half in range(step):
            for r in rows:
                out += [f"            x_ = splat_i32(q{r} + {(word + half) * 4})"]
                out += [f"            a{r}_{v} = dot_bytes(a{r}_{v}, w{half}_{v}, x_)" for v in vectors]
    out += [f"            w_at += {4 // step * width * 4}", "            k += 4"]
    out += [f"            q{r} += 16" for r in rows]
    zero = "z{v}" if stored.zero is None else "minus_zero"
    for r in rows:
        out += [f"        by = splat_f32(p{r})"]
        if stored.zero != 0:
            out += [f"        total = splat_f32(p{r} + 4)"]
        for v in vectors:
            whole = f"cast_f32(a{r}_{v})"
            if stored.zero != 0:
                whole = f"fma(total, {zero.format(v=v)}, {whole})"
            out += [f"        y{r}_{v} = fma({whole}, mul(by, s{v}), y{r}_{v})"]
        out += [f"        p{r} += 8"]
    out += ["        g += 1"]
    out += [
        f"store_f32(scratch + {r * width * 4 + v * lanes * 4}, y{r}_{v})" for r in rows for v in vectors
    ]
    return out


class Packed(NamedTuple):
    """Weights, scales and zeros in panels, and the bytes of a panel of each."""

    stored: Stored
    integers: np.ndarray
    scales: np.ndarray
    zeros: np.ndarray | None
    w_panel: int
    s_panel: int
    z_panel: int


def how_stored(integers: np.ndarray, scale: np.ndarray, zero: np.ndarray | None, bits: int) -> Stored:
    """How weights are packed. ValueError for zeros that are no bytes."""
    signed = integers.dtype.kind == "i"
    one: int | None = 128 if signed else 0
    if zero is not None:
        whole = zero + 128 * signed
        if not ((whole == np.rint(whole)) & (whole >= 0) & (whole <= 255)).all():
            raise ValueError("zero points should be whole numbers of 8 bits")
        one = int(whole.flat[0]) if whole.size and (whole == whole.flat[0]).all() else None
        one = one if one in (0, 8, 128) else None  # each is a kernel
    return Stored(bits, one, "f16" if fit_f16(scale) else "f32")


def pack_dynamic(
    integers: np.ndarray, scale: np.ndarray, zero: np.ndarray | None, stored: Stored, size: int, isa: Isa
) -> Packed:
    """integers [K, N] (8 bits, or 0 to 15), scale and zero [groups, N] -> panels; K is filled up to groups of
    `size`."""
    depth, outs = integers.shape
    width = tile_width(isa)
    panels = ceil_div(outs, width)
    rows = ceil_div(depth, size) * size
    signed = integers.dtype.kind == "i"
    padded = np.zeros((rows, panels * width), np.uint8)
    padded[:depth, :outs] = integers.view(np.uint8) ^ np.uint8(128 * signed)
    fours: np.ndarray
    if stored.bits == 8:
        fours = padded.reshape(rows // 4, 4, panels, width)
    else:
        twice = padded.reshape(rows // 8, 2, 4, panels, width)
        fours = twice[:, 0] | (twice[:, 1] << 4)
    words = aligned_bytes(fours.size).reshape(panels, fours.shape[0], width, 4)
    words[...] = fours.transpose(2, 0, 3, 1)

    def spread_out(values: np.ndarray, dtype: Any) -> np.ndarray:
        groups = values.shape[0]
        full = np.zeros((groups, panels * width), dtype)
        full[:, :outs] = values
        raw = aligned_bytes(full.nbytes).view(dtype).reshape(panels, groups, width)
        raw[...] = full.reshape(groups, panels, width).transpose(1, 0, 2)
        return raw

    scales = spread_out(scale, np.float16 if stored.scale == "f16" else np.float32)
    zeros = None
    if stored.zero is None:
        assert zero is not None
        zeros = spread_out(zero + 128 * signed, np.uint8)
    sizes = (0 if a is None else a[0].nbytes for a in (words, scales, zeros))
    return Packed(stored, words, scales, zeros, *sizes)
