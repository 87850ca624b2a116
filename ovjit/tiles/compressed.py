"""Weights that stay integers in memory: a chunk of the driver unpacks its panels into scratch before it uses
them.

    w[k, n] = integers[k, n] * scale[k // group, n] + offset[k // group, n]        offset = -zero * scale

    integers [panel][k][width] of 8 bits, or [panel][k / 2][width] of two times 4, the even k in the low half
    scales, offsets [panel][group][width] of f32

In the place of integers there may be numbers of 4 bits that stand for `LEVELS`, floats of 8 bits, and f16.

A panel that has been unpacked fits the second-level cache: memory is read as it is stored, once for all rows.
"""

from __future__ import annotations

from typing import NamedTuple

import ml_dtypes
import numpy as np

from ovjit.codegen.cpu.ir import Epilogue
from ovjit.codegen.cpu.isa import Isa
from ovjit.codegen.elementwise import SIZE
from ovjit.codegen.kernel import Frame, Kernel
from ovjit.compiler.plan import aligned_bytes, ceil_div
from ovjit.graph.nf4 import LEVELS as NF4_LEVELS
from ovjit.tiles.formats import WORD, Format
from ovjit.tiles.pack import tile_width
from ovjit.tiles.rows import RowEpilogue

#: Element types of 4 bits -> what their codes stand for.
LEVELS = {
    "nf4": NF4_LEVELS,
    "f4e2m1": np.arange(16, dtype=np.uint8).view(ml_dtypes.float4_e2m1fn).astype(np.float32),
}
#: Floats of 8 bits -> how far exponent and mantissa are shifted to be those of an f32, and what makes up for
#: the other bias. Infinities and NaN come out as numbers: who packs has none.
_SHIFTED = {"f8e4m3": (20, 2.0**120), "f8e5m2": (21, 2.0**112)}
#: The element types besides integers that can be stored, and their bits.
FLOAT_BITS = {**dict.fromkeys(LEVELS, 4), **dict.fromkeys(_SHIFTED, 8), "f16": 16}


class Unpack(NamedTuple):
    """How panels are stored: `bits` of an integer (8 or 4), whether bytes are signed, whether there are
    offsets; `kind`: the type of what are no integers, see `FLOAT_BITS`."""

    bits: int
    signed: bool
    offsets: bool
    kind: str = ""

    @property
    def name(self) -> str:
        kind = self.kind or ("i8" if self.signed else "u8" if self.bits == 8 else "u4")
        return ("l4" if kind in LEVELS else kind) + ("o" if self.offsets else "")

    def fields(self) -> tuple[list[str], list[str]]:
        """(pointers, integers) that the kernel's arguments have for this."""
        pointers = ["q", "s", *(["o"] if self.offsets else []), *(["lv"] if self.kind in LEVELS else [])]
        return pointers, ["q_panel", "s_panel", "g_size", "depth"]

    def load(self, at: str) -> str:
        """What is stored at an address: bytes, two numbers of 4 bits in each as i32, or f16 as f32."""
        if self.bits == 4:  # bytes are widened once for both; x86 shifts none
            return f"cast_i32(load_u8({at}))"
        return f"load_{'f16' if self.bits == 16 else 'i8' if self.signed else 'u8'}({at})"

    def real(self, whole: str, isa: Isa) -> str:
        """What has been loaded as f32."""
        if self.kind in LEVELS:
            return f"permute_f32(levels, {whole})" if isa.lanes == 16 else f"take_f32(lv, {whole})"
        if self.kind in _SHIFTED:
            wide = f"cast_i32({whole})"
            moved = f"or_(shl(and_({wide}, size_bits), up), shl(and_({wide}, sign_bit), sign_up))"
            return f"mul(bits_f32({moved}), bias)"
        return whole if self.bits == 16 else f"cast_f32({whole})"

    def decoding(self, isa: Isa) -> list[str]:
        """Source of what `real` uses, and of what takes two numbers of 4 bits apart."""
        out = ["low_half = const_i32(15)", "four = const_i32(4)"] if self.bits == 4 else []
        if self.kind in LEVELS and isa.lanes == 16:
            out += ["levels = load_f32(lv)"]
        if self.kind in _SHIFTED:
            up, bias = _SHIFTED[self.kind]
            out += ["size_bits = const_i32(127)", "sign_bit = const_i32(128)", f"up = const_i32({up})"]
            out += ["sign_up = const_i32(24)", f"bias = const_f32({bias!r})"]
        return out

    def lines(self, form: Format, isa: Isa, tables: int) -> list[str]:
        """Source that unpacks the chunk's panels behind the tables in scratch and lets `w` point there."""
        width, lanes = tile_width(isa), isa.lanes
        vectors = width // lanes
        out = [
            f"unpacked = scratch + {tables}",
            "c = first_panel",
            "while c < stop_panel:",
            "    q_at = q + c * q_panel",
            "    s_at = s + c * s_panel",
            *(["    o_at = o + c * s_panel"] if self.offsets else []),
            "    t = unpacked + (c - first_panel) * w_panel",
            f"    valid = outs - c * {width}",
            "    e = 0",
            "    while e < depth:",
            "        stop_e = imin(e + g_size, depth)",
        ]
        for v in range(vectors):
            out += [f"        s{v} = load_f32(s_at + {v * lanes * 4})"]
            if self.offsets:
                out += [f"        o{v} = load_f32(o_at + {v * lanes * 4})"]
        for wide, count in ((f"valid > {lanes}", vectors), (f"valid <= {lanes}", 1)):
            step = 2 if self.bits == 4 or form.group == 2 else 1
            out += [f"        while {wide} and e < stop_e:"]
            out += ["            " + line for line in self._step(form, isa, width, count, step)]
        out += [f"        s_at += {width * 4}"]
        out += [f"        o_at += {width * 4}"] if self.offsets else []
        return [*out, "    c += 1", "w = unpacked - first_panel * w_panel"]

    def _step(self, form: Format, isa: Isa, width: int, count: int, step: int) -> list[str]:
        """`step` elements of depth, `count` vectors each."""
        out = []
        lanes, item = isa.lanes, max(1, self.bits // 8)
        rows = 1 if self.bits == 4 else step
        for v in range(count):
            for i in range(rows):
                out += [f"b{i}_{v} = {self.load(f'q_at + {(i * width + v * lanes) * item}')}"]
            for i in range(step):
                if self.bits == 4:
                    whole = f"and_(b0_{v}, low_half)" if i == 0 else f"shr(b0_{v}, four)"
                else:
                    whole = f"b{i}_{v}"
                real = self.real(whole, isa)
                real = f"fma({real}, s{v}, o{v})" if self.offsets else f"mul({real}, s{v})"
                if form.group == 1:
                    out += [f"store_f32(t + {(i * count + v) * lanes * WORD}, {real})"]
                else:
                    out += [f"r{i} = add(bits_u32({real}), half)"]  # to the nearest, ties up
            if form.group == 2:
                word = "or_(shr(r0, sixteen), and_(r1, high))"
                out += [f"store_u32(t + {v * lanes * WORD}, {word})"]
        words = step if form.group == 1 else 1
        out += [f"q_at += {rows * width * item}", f"t += {words * count * lanes * WORD}"]
        return [*out, f"e += {step}"]

    def constants(self, form: Format, isa: Isa) -> list[str]:
        """Source of the vectors that `lines` uses."""
        out = self.decoding(isa)
        if form.group == 2:
            out += ["half = const_u32(32768)", "sixteen = const_u32(16)", "high = const_u32(4294901760)"]
        return out


def row_kernel(name: str, epilogue: Epilogue, isa: Isa, dtype: str, unpack: Unpack) -> Kernel:
    """A few rows times compressed weights, which go from memory to registers: one row after the other.

    A chunk is a range of panels. Sums of a group are scaled once; those of x, which all panels need, are made
    first and kept in scratch:

        y[n] = bias[n] + sum over groups g of  scale[g, n] * sum of x[k] * integers[k, n] + offset[g, n] *
        sum of x[k]
    """
    width, lanes, size = tile_width(isa), isa.lanes, SIZE[dtype]
    vectors = width // lanes
    frame = Frame().pointers("x", "b", "y")
    pointers, integers = unpack.fields()
    frame.pointers(*pointers).integers(*integers)
    finish = RowEpilogue(epilogue)
    finish.add_fields(frame)
    frame.integers("x_w", "y_w", "b_step", "rows", "outs", "panels", "per_chunk")
    src = finish.head(frame)
    src += ["    " + line for line in unpack.decoding(isa)]
    src += _sums_of_groups(dtype, size) if unpack.offsets else []
    src += [
        "    c = chunk * per_chunk",
        "    stop = imin(c + per_chunk, panels)",
        "    while c < stop:",
        "        sum_at = scratch",
        "        row = 0",
        "        while row < rows:",
        "            x_at = x + row * x_w",
        "            q_at = q + c * q_panel",
        "            s_at = s + c * s_panel",
        *(["            o_at = o + c * s_panel"] if unpack.offsets else []),
        *(f"            y{v} = load_f32(b + c * b_step + {v * lanes * 4})" for v in range(vectors)),
        "            e = 0",
        "            while e < depth:",
        "                stop_e = imin(e + g_size, depth)",
        *(f"                a{i}_{v} = const_f32(0.0)" for i in range(2) for v in range(vectors)),
        "                while e + 1 < stop_e:",
        *(" " * 20 + line for line in _row_step(unpack, isa, dtype, size, 2)),
        "                while e < stop_e:",
        *(" " * 20 + line for line in _row_step(unpack, isa, dtype, size, 1)),
    ]
    for v in range(vectors):
        at = v * lanes * 4
        src += [f"                y{v} = fma(add(a0_{v}, a1_{v}), load_f32(s_at + {at}), y{v})"]
        if unpack.offsets:
            src += [f"                y{v} = fma(splat_f32(sum_at), load_f32(o_at + {at}), y{v})"]
    src += ["                sum_at += 4"] if unpack.offsets else []
    src += [f"                s_at += {width * 4}"]
    src += [f"                o_at += {width * 4}"] if unpack.offsets else []
    values = [f"y{v}" for v in range(vectors)]
    src += [" " * 12 + line for line in finish.applied(values, "row", width, lanes)]
    src += ["            row += 1", "        c += 1", "    return 0", ""]
    return Kernel(name, "\n".join(src), frame)


def _sums_of_groups(dtype: str, size: int) -> list[str]:
    """Lines that write the sum of each group of each row of x to scratch."""
    return [
        "    sum_at = scratch",
        "    row = 0",
        "    while row < rows:",
        "        e = 0",
        "        while e < depth:",
        "            stop_e = imin(e + g_size, depth)",
        "            total = const_f32(0.0)",
        "            while e < stop_e:",
        f"                total = add(total, loadm_{dtype}(x + row * x_w + e * {size}, stop_e - e))",
        "                e += VL",
        "            e = stop_e",
        "            storem_f32(sum_at, spread_f32(hadd_f32(total)), 1)",
        "            sum_at += 4",
        "        row += 1",
    ]


def _row_step(unpack: Unpack, isa: Isa, dtype: str, size: int, step: int) -> list[str]:
    """`step` elements of depth; a single one only comes last, where 4-bit integers have an empty half."""
    out = [f"x{i}_ = splat_{dtype}(x_at + (e + {i}) * {size})" for i in range(step)]
    width, lanes, item = tile_width(isa), isa.lanes, max(1, unpack.bits // 8)
    for v in range(width // lanes):
        for i in range(step):
            if unpack.bits == 4:
                if i == 0:
                    out += [f"both = {unpack.load(f'q_at + {v * lanes}')}"]
                whole = "and_(both, low_half)" if i == 0 else "shr(both, four)"
            else:
                out += [f"whole = {unpack.load(f'q_at + {(i * width + v * lanes) * item}')}"]
                whole = "whole"
            out += [f"a{i}_{v} = fma({unpack.real(whole, isa)}, x{i}_, a{i}_{v})"]
    rows = 1 if unpack.bits == 4 else step
    return [*out, f"q_at += {rows * width * item}", f"e += {step}"]


class Compressed(NamedTuple):
    """Packed integers, scales and offsets, and the bytes of a panel of each."""

    integers: np.ndarray
    scales: np.ndarray
    offsets: np.ndarray | None
    integer_panel: int
    scale_panel: int


def pack_compressed(
    integers: np.ndarray, scale: np.ndarray, zero: np.ndarray | None, bits: int, isa: Isa
) -> Compressed:
    """integers [K, N] (8 or 16 bits, or 0 to 15), scale and zero [groups, N] -> panels."""
    depth, outs = integers.shape
    width = tile_width(isa)
    panels = ceil_div(outs, width)
    rows = depth + depth % 2
    padded = np.zeros((rows, panels * width), integers.dtype)
    padded[:depth, :outs] = integers
    by_panel = padded.reshape(rows, panels, width).transpose(1, 0, 2)
    if bits == 4:
        by_panel = by_panel[:, 0::2] | (by_panel[:, 1::2] << 4)
    whole = aligned_bytes(by_panel.nbytes).view(integers.dtype).reshape(by_panel.shape)
    whole[...] = by_panel

    def spread(values: np.ndarray) -> np.ndarray:
        groups = values.shape[0]
        memory = aligned_bytes(groups * panels * width * 4).view(np.float32).reshape(panels, groups, width)
        full = np.zeros((groups, panels * width), np.float32)
        full[:, :outs] = values
        memory[...] = full.reshape(groups, panels, width).transpose(1, 0, 2)
        return memory

    offsets = None if zero is None else spread(-zero.astype(np.float64) * scale)
    groups = scale.shape[0]
    return Compressed(whole, spread(scale), offsets, by_panel[0].nbytes, groups * width * 4)
