"""Weights that stay integers in memory: a chunk of the driver unpacks its panels into scratch before it uses
them.

    w[k, n] = integers[k, n] * scale[k // group, n] + offset[k // group, n]        offset = -zero * scale

    integers [panel][k][width] of 8 bits, or [panel][k / 2][width] of two times 4, the even k in the low half
    scales, offsets [panel][group][width] of f32

A panel that has been unpacked fits the second-level cache: memory is read as it is stored, once for all rows.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ovjit.codegen.cpu.ir import Body, Epilogue
from ovjit.codegen.cpu.isa import Isa
from ovjit.codegen.elementwise import SIZE
from ovjit.codegen.kernel import Frame, Kernel
from ovjit.compiler.plan import aligned_bytes, ceil_div
from ovjit.tiles.formats import WORD, Format
from ovjit.tiles.pack import tile_width


class Unpack(NamedTuple):
    """How panels are stored: `bits` of an integer (8 or 4), whether bytes are signed, whether there are
    offsets."""

    bits: int
    signed: bool
    offsets: bool

    @property
    def name(self) -> str:
        kind = "i8" if self.signed else "u8" if self.bits == 8 else "u4"
        return kind + ("o" if self.offsets else "")

    def fields(self) -> tuple[list[str], list[str]]:
        """(pointers, integers) that the kernel's arguments have for this."""
        return ["q", "s", "o"] if self.offsets else ["q", "s"], ["q_panel", "s_panel", "g_size", "depth"]

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
            out += ["            " + line for line in self._step(form, width, lanes, count, step)]
        out += [f"        s_at += {width * 4}"]
        out += [f"        o_at += {width * 4}"] if self.offsets else []
        return [*out, "    c += 1", "w = unpacked - first_panel * w_panel"]

    def _step(self, form: Format, width: int, lanes: int, count: int, step: int) -> list[str]:
        """`step` elements of depth, `count` vectors each."""
        out = []
        rows = 1 if self.bits == 4 else step
        for v in range(count):
            for i in range(rows):
                at = f"q_at + {i * width + v * lanes}"
                out += [f"b{i}_{v} = load_{'i8' if self.signed else 'u8'}({at})"]
            for i in range(step):
                if self.bits == 4:
                    whole = f"and_(b0_{v}, low_half)" if i == 0 else f"shr(b0_{v}, four)"
                else:
                    whole = f"b{i}_{v}"
                real = f"cast_f32({whole})"
                real = f"fma({real}, s{v}, o{v})" if self.offsets else f"mul({real}, s{v})"
                if form.group == 1:
                    out += [f"store_f32(t + {(i * count + v) * lanes * WORD}, {real})"]
                else:
                    out += [f"r{i} = add(bits_u32({real}), half)"]  # to the nearest, ties up
            if form.group == 2:
                word = "or_(shr(r0, sixteen), and_(r1, high))"
                out += [f"store_u32(t + {v * lanes * WORD}, {word})"]
        words = step if form.group == 1 else 1
        return [*out, f"q_at += {rows * width}", f"t += {words * count * lanes * WORD}", f"e += {step}"]

    def constants(self, form: Format) -> list[str]:
        """Source of the vectors that `lines` uses."""
        out = ["low_half = const_u8(15)", "four = const_u8(4)"] if self.bits == 4 else []
        if form.group == 2:
            out += ["half = const_u32(32768)", "sixteen = const_u32(16)", "high = const_u32(4294901760)"]
        return out


def row_kernel(name: str, epilogue: Epilogue, isa: Isa, dtype: str, unpack: Unpack) -> Kernel:
    """A few rows times compressed weights, which go from memory to registers: one row after the other.

    A chunk is a range of panels. Sums of a group are scaled once:

        y[n] = bias[n] + sum over groups g of  scale[g, n] * sum of x[k] * integers[k, n] + offset[g, n] *
        sum of x[k]
    """
    width, lanes, size = tile_width(isa), isa.lanes, SIZE[dtype]
    vectors = width // lanes
    frame = Frame().pointers("x", "b", "y")
    pointers, integers = unpack.fields()
    frame.pointers(*pointers).integers(*integers)
    for n, operand in enumerate(epilogue.operands):
        frame.pointers(f"e{n}")
        if not operand.shared:
            frame.integers(f"e{n}_w")
    frame.integers("x_w", "y_w", "b_step", "rows", "outs", "panels", "per_chunk")
    body = epilogue.body or Body(["f32"], [epilogue.out], [], ["x0"])
    lines, constants = body.source("")
    result = body.result_names(constants)[0]
    src = ["@njit(nogil=True)", "def kernel(bases, args, chunk, scratch):"]
    src += [f"    # {line}" for line in epilogue.text().splitlines()]
    src += [frame.prologue(), *(f"    {k} = {e}" for k, e in constants.values())]
    src += ["    low_half = const_u8(15)", "    four = const_u8(4)"] if unpack.bits == 4 else []
    src += [
        "    c = chunk * per_chunk",
        "    stop = imin(c + per_chunk, panels)",
        "    while c < stop:",
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
        *(["                total = const_f32(0.0)"] if unpack.offsets else []),
        "                while e + 1 < stop_e:",
        *(" " * 20 + line for line in _row_step(unpack, dtype, size, width, lanes, vectors, 2)),
        "                while e < stop_e:",
        *(" " * 20 + line for line in _row_step(unpack, dtype, size, width, lanes, vectors, 1)),
    ]
    for v in range(vectors):
        at = v * lanes * 4
        src += [f"                y{v} = fma(add(a0_{v}, a1_{v}), load_f32(s_at + {at}), y{v})"]
        if unpack.offsets:
            src += [f"                y{v} = fma(total, load_f32(o_at + {at}), y{v})"]
    src += [f"                s_at += {width * 4}"]
    src += [f"                o_at += {width * 4}"] if unpack.offsets else []
    for v in range(vectors):
        src += [f"            k = c * {width} + {v * lanes}", "            left = outs - k"]
        src += ["            if left > 0:"]
        inner = []
        for n, operand in enumerate(epilogue.operands):
            base = f"e{n}" if operand.shared else f"e{n} + row * e{n}_w"
            if operand.kind in ("scalar", "number"):
                inner += [f"x{n + 1} = splat_{operand.dtype}({base})"]
            else:
                inner += [f"x{n + 1} = loadm_{operand.dtype}({base} + k * {SIZE[operand.dtype]}, left)"]
        inner += [f"x0 = y{v}", *lines]
        inner += [f"storem_{epilogue.out}(y + row * y_w + k * {SIZE[epilogue.out]}, {result}, left)"]
        src += [" " * 16 + line for line in inner]
    src += ["            row += 1", "        c += 1", "    return 0", ""]
    return Kernel(name, "\n".join(src), frame)


def _row_step(
    unpack: Unpack, dtype: str, size: int, width: int, lanes: int, vectors: int, step: int
) -> list[str]:
    """`step` elements of depth; a single one only comes last, where 4-bit integers have an empty half."""
    out = [f"x{i}_ = splat_{dtype}(x_at + (e + {i}) * {size})" for i in range(step)]
    load = "load_i8" if unpack.signed else "load_u8"
    for v in range(vectors):
        for i in range(step):
            if unpack.bits == 4:
                if i == 0:
                    out += [f"both = {load}(q_at + {v * lanes})"]
                whole = "and_(both, low_half)" if i == 0 else "shr(both, four)"
            else:
                whole = f"{load}(q_at + {i * width + v * lanes})"
            out += [f"a{i}_{v} = fma(cast_f32({whole}), x{i}_, a{i}_{v})"]
    if unpack.offsets:
        out += ["total = add(total, add(x0_, x1_))" if step == 2 else "total = add(total, x0_)"]
    rows = 1 if unpack.bits == 4 else step
    return [*out, f"q_at += {rows * width}", f"e += {step}"]


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
    """integers [K, N] (8 bits, or 0 to 15), scale and zero [groups, N] -> panels."""
    depth, outs = integers.shape
    width = tile_width(isa)
    panels = ceil_div(outs, width)
    rows = depth + depth % 2
    padded = np.zeros((rows, panels * width), integers.dtype)
    padded[:depth, :outs] = integers
    by_panel = padded.reshape(rows, panels, width).transpose(1, 0, 2)
    if bits == 4:
        by_panel = by_panel[:, 0::2] | (by_panel[:, 1::2] << 4)
    whole = aligned_bytes(by_panel.size).view(integers.dtype).reshape(by_panel.shape)
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
    return Compressed(whole, spread(scale), offsets, by_panel[0].size, groups * width * 4)
