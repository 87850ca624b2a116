"""Weights that stay integers in memory: a chunk of the driver unpacks its panels into scratch before it uses
them.

    w[k, n] = (integers[k, n] - zero[k // group, n]) * scale[k // group, n]

    integers [panel][group][k][width] of 8 bits, or [panel][group][k / 8][width] words of eight times 4, the
                first k in the lowest bits; groups are filled up with zeros to whole `STEP`s
    scales      [panel][group][width] of f16 where that is exact, else of f32
    zeros       likewise, of u8 or f32; one f32 where it is the same everywhere

In the place of integers there may be numbers of 4 bits that stand for `LEVELS`, floats of 8 bits, and f16.
Where levels are looked up by bytes (`Unpack.by_bytes`), the eight numbers are in [2][4][4] bytes of as many
halves of a vector, elements of depth and lanes of a half: the low 4 bits of the first four elements of depth.
Where bf16 has all levels (`Unpack.short`), they are in [2][2][4][2] bytes: halves of a vector, pairs of
elements of depth, lanes, elements of a pair.

A panel that has been unpacked fits the second-level cache: memory is read as it is stored, once for all rows.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import ml_dtypes
import numpy as np

from ovjit.codegen.cpu.ir import Epilogue
from ovjit.codegen.cpu.isa import Isa
from ovjit.codegen.elementwise import SIZE
from ovjit.codegen.kernel import Frame, Kernel
from ovjit.compiler.plan import aligned_bytes, ceil_div
from ovjit.graph.dtypes import numpy_dtype
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
#: Bits of a number -> elements of depth that a turn of a loop takes: a word of 4 bits, or two rows.
STEP = {4: 8, 8: 2, 16: 2}
#: Rows that one pass over the weights is for. Accumulators are as many times two vectors, of one and two rows
#: twice that.
HEIGHTS = (4, 2, 1)
#: Bytes that the weights of a few rows are fetched ahead: the CPU's own prefetching stops where a page ends.
AHEAD = 2048


class Unpack(NamedTuple):
    """How panels are stored.

    `bits` of an integer (8 or 4), whether bytes are signed; `kind`: the type of what are no integers, see
    `FLOAT_BITS`; the types of scales and of zeros, "one" where all zeros are one f32, "" for no zeros.
    """

    bits: int
    signed: bool
    kind: str = ""
    scale: str = "f32"
    zero: str = ""

    @property
    def name(self) -> str:
        kind = self.kind or ("i8" if self.signed else "u8" if self.bits == 8 else "u4")
        stored = "l4" if kind in LEVELS else kind
        zero = {"": "", "one": "o", "u8": "z", "f32": "zf"}[self.zero]
        return stored + zero + ("h" if self.scale == "f16" else "")

    @property
    def each_zero(self) -> bool:
        """Whether zeros differ."""
        return self.zero in SIZE

    @property
    def step(self) -> int:
        return STEP[self.bits]

    @property
    def shifts_data(self) -> bool:
        """Whether integers stay where they are in their word, and the data is scaled instead."""
        return self.bits == 4 and not self.kind

    def by_bytes(self, isa: Isa) -> bool:
        """Whether levels are put together from bytes: no permutation of 8 lanes reaches all 16 levels."""
        return self.kind in LEVELS and isa.lanes == 8

    @property
    def short(self) -> bool:
        """Whether the levels are numbers of bf16: of an f32 only the upper two bytes need be looked up."""
        return self.kind in LEVELS and not np.any(LEVELS[self.kind].view(np.uint32) & 0xFFFF)

    @property
    def planes(self) -> range:
        """The bytes of an f32 that are looked up (`by_bytes`)."""
        return range(2 if self.short else 0, 4)

    def table(self, isa: Isa) -> np.ndarray | None:
        """What codes are looked up in: the levels, or for each of `planes` a vector with a byte of each level
        in both halves."""
        levels = LEVELS.get(self.kind)
        if levels is None or not self.by_bytes(isa):
            return levels
        bytes_of = levels.view(np.uint8).reshape(16, 1, 4)[..., self.planes.start :]
        return np.tile(bytes_of, (1, 2, 1)).transpose(2, 1, 0).copy()

    def decoded_bytes(self, word: str, half: int, names: list[str]) -> list[str]:
        """Source that names the four elements of depth of a half of each byte (`by_bytes`)."""
        out = [f"codes = and_({f'shr({word}, four)' if half else word}, low_halves)"]
        out += [f"plane{i} = look_up(planes{i}, codes)" for i in self.planes]
        for first, last in ((0, "low"), (2, "high")):
            if self.short:  # pairs of bf16, the one of the first element of depth in the lower half of a word
                out += [f"pairs = zip_bytes_{last}(plane2, plane3)"]
                out += [f"{names[first]} = bits_f32(shl(pairs, sixteen_bits))"]
                out += [f"{names[first + 1]} = bits_f32(and_(pairs, upper_half))"]
                continue
            out += [f"fine = zip_bytes_{last}(plane0, plane1)", f"coarse = zip_bytes_{last}(plane2, plane3)"]
            out += [f"{names[first]} = bits_f32(zip_halves_low(fine, coarse))"]
            out += [f"{names[first + 1]} = bits_f32(zip_halves_high(fine, coarse))"]
        return out

    def fields(self) -> tuple[list[str], list[str]]:
        """(pointers, integers) that the kernel's arguments have for this."""
        pointers = ["q", "s", *(["z"] if self.zero else []), *(["lv"] if self.kind in LEVELS else [])]
        sizes = ["q_panel", "s_panel", *(["z_panel"] if self.each_zero else []), "g_size", "depth"]
        return pointers, sizes

    def load(self, at: str) -> str:
        """What is stored at an address: bytes, words of eight numbers of 4 bits, or f16 as f32."""
        if self.bits == 4:
            return f"load_i32({at})"
        return f"load_{'f16' if self.bits == 16 else 'i8' if self.signed else 'u8'}({at})"

    def real(self, whole: str, isa: Isa) -> str:
        """What has been loaded as f32; of words of 4 bits the lowest."""
        if self.kind in LEVELS:
            if isa.lanes == 16:
                return f"permute_f32(levels, and_({whole}, low_half))"
            return f"take_f32(lv, and_({whole}, low_half))"
        if self.kind in _SHIFTED:
            wide = f"cast_i32({whole})"
            moved = f"or_(shl(and_({wide}, size_bits), up), shl(and_({wide}, sign_bit), sign_up))"
            return f"mul(bits_f32({moved}), bias)"
        if self.bits == 4:
            return f"cast_f32(and_({whole}, low_half))"
        return whole if self.bits == 16 else f"cast_f32({whole})"

    def in_place(self, word: str, i: int, isa: Isa) -> str:
        """The i-th number of a word of 4 bits as f32, of integers 16**i times that (`row_kernel`)."""
        if not self.shifts_data:
            return self.real(f"shr({word}, const_i32({4 * i}))" if i else word, isa)
        if i == self.step - 1:
            return f"cast_f32(bits_i32(shr(bits_u32({word}), const_u32({4 * i}))))"
        return f"cast_f32(and_({word}, const_i32({15 << 4 * i})))"

    def decoding(self, isa: Isa) -> list[str]:
        """Source of what `real` uses."""
        out = ["low_half = const_i32(15)", "four = const_i32(4)"] if self.bits == 4 else []
        if self.kind in LEVELS:
            if isa.lanes == 16:
                out += ["levels = load_f32(lv)"]
            elif self.by_bytes(isa):
                out += [f"planes{p} = load_i32(lv + {32 * i})" for i, p in enumerate(self.planes)]
                out += ["low_halves = const_i32(252645135)"]
                if self.short:
                    out += ["sixteen_bits = const_i32(16)", "upper_half = const_i32(-65536)"]
        if self.kind in _SHIFTED:
            up, bias = _SHIFTED[self.kind]
            out += ["size_bits = const_i32(127)", "sign_bit = const_i32(128)", f"up = const_i32({up})"]
            out += ["sign_up = const_i32(24)", f"bias = const_f32({bias!r})"]
        return out

    def starts(self, panel: str) -> list[str]:
        """Source that finds the integers, scales and zeros of a panel."""
        out = [f"q_at = q + {panel} * q_panel", f"s_at = s + {panel} * s_panel"]
        return out + ([f"z_at = z + {panel} * z_panel"] if self.each_zero else [])

    def next_group(self, width: int) -> list[str]:
        """Source that goes on to the next group's scales and zeros."""
        out = [f"s_at += {width * SIZE[self.scale]}"]
        return out + ([f"z_at += {width * SIZE[self.zero]}"] if self.each_zero else [])

    def load_zero(self, offset: int) -> str:
        """The zeros of a vector that begins at the panel's lane `offset`, with the other sign."""
        if not self.each_zero:
            return "minus_zero"
        loaded = f"load_{self.zero}(z_at + {offset * SIZE[self.zero]})"
        return f"neg({f'cast_f32({loaded})' if self.zero == 'u8' else loaded})"

    def lines(self, form: Format, isa: Isa, tables: int) -> list[str]:
        """Source that unpacks the chunk's panels behind the tables in scratch and lets `w` point there."""
        width, lanes = tile_width(isa), isa.lanes
        vectors = width // lanes
        out = [
            f"unpacked = scratch + {tables}",
            "c = first_panel",
            "while c < stop_panel:",
            *("    " + line for line in self.starts("c")),
            "    t = unpacked + (c - first_panel) * w_panel",
            f"    valid = outs - c * {width}",
            "    e = 0",
            "    while e < depth:",
            "        stop_e = imin(e + g_size, depth)",
        ]
        for v in range(vectors):
            out += [f"        scale{v} = load_{self.scale}(s_at + {v * lanes * SIZE[self.scale]})"]
            if self.zero:
                out += [f"        shift{v} = mul({self.load_zero(v * lanes)}, scale{v})"]
        for n, count in enumerate((vectors, 1)):
            out += [f"        if valid > {lanes}:" if n == 0 else "        else:"]
            out += [" " * 12 + line for line in self._group(form, isa, width, count)]
        out += ["        " + line for line in self.next_group(width)]
        return [*out, "    c += 1", "w = unpacked - first_panel * w_panel"]

    def _group(self, form: Format, isa: Isa, width: int, count: int) -> list[str]:
        """A group's elements of depth, `count` vectors each."""
        step, lanes = self.step, isa.lanes
        rows = 1 if self.bits == 4 else step
        item = 4 if self.bits == 4 else self.bits // 8
        load = [
            f"b{i}_{v} = {self.load(f'q_at + {(i * width + v * lanes) * item}')}"
            for i in range(rows)
            for v in range(count)
        ]
        out = [f"while e + {step} <= stop_e:", *("    " + line for line in load)]
        for i in range(0, step, form.group):
            if self.by_bytes(isa) and i % 4 == 0:
                out += ["    " + line for line in self._decoded_half(count, i // 4)]
            out += ["    " + line for line in self._word(form, isa, count, i)]
        out += [f"    q_at += {rows * width * item}", f"    e += {step}", "if e < stop_e:"]
        out += ["    " + line for line in load]
        if self.by_bytes(isa):
            for i in range(0, step, form.group):
                if i % 4 == 0:
                    out += ["    " + line for line in self._decoded_half(count, i // 4)]
                out += ["    if e < stop_e:", *(" " * 8 + line for line in self._word(form, isa, count, i))]
                out += [f"        e += {form.group}"]
        elif self.bits == 4:
            out += ["    while e < stop_e:", *(" " * 8 + line for line in self._word(form, isa, count, 0))]
            out += [f"        b0_{v} = shr(b0_{v}, const_i32({4 * form.group}))" for v in range(count)]
            out += [f"        e += {form.group}"]
        else:
            out += ["    " + line for line in self._word(form, isa, count, 0)]
        return [*out, f"    q_at += {rows * width * item}", "    e = stop_e"]

    def _decoded_half(self, count: int, half: int) -> list[str]:
        """Source that names `d<element of depth>_<vector>` of a half of the bytes that have been loaded."""
        names = [[f"d{4 * half + i}_{v}" for i in range(4)] for v in range(count)]
        return [line for v in range(count) for line in self.decoded_bytes(f"b0_{v}", half, names[v])]

    def _word(self, form: Format, isa: Isa, count: int, first: int) -> list[str]:
        """A word of depth from the element `first` of what has been loaded on."""
        out = []
        for v in range(count):
            for i in range(form.group):
                whole = f"b{first + i}_{v}"
                if self.bits == 4:
                    whole = f"shr(b0_{v}, const_i32({4 * (first + i)}))" if first + i else f"b0_{v}"
                real = f"d{first + i}_{v}" if self.by_bytes(isa) else self.real(whole, isa)
                real = f"fma({real}, scale{v}, shift{v})" if self.zero else f"mul({real}, scale{v})"
                if form.group == 1:
                    out += [f"store_f32(t + {v * isa.lanes * WORD}, {real})"]
                else:
                    out += [f"r{i} = add(bits_u32({real}), half)"]  # to the nearest, ties up
            if form.group == 2:
                word = "or_(shr(r0, sixteen), and_(r1, high))"
                out += [f"store_u32(t + {v * isa.lanes * WORD}, {word})"]
        return [*out, f"t += {count * isa.lanes * WORD}"]

    def constants(self, form: Format, isa: Isa) -> list[str]:
        """Source of the vectors that `lines` uses."""
        out = self.decoding(isa)
        if self.zero == "one":
            out += ["minus_zero = neg(splat_f32(z))"]
        if form.group == 2:
            out += ["half = const_u32(32768)", "sixteen = const_u32(16)", "high = const_u32(4294901760)"]
        return out


def row_kernel(name: str, epilogue: Epilogue, isa: Isa, dtype: str, unpack: Unpack) -> Kernel:
    """A few rows times compressed weights, which go from memory to registers, once for `HEIGHTS` of rows.

    A chunk is a range of panels. It first writes the rows to scratch, in f32 and with zeros where groups are
    filled up, and the sum of each group, which all panels need. Sums of products of a group are scaled once:

        y[n] = bias[n] + sum over groups g of
               scale[g, n] * (sum of x[k] * integers[k, n] - zero[g, n] * sum of x[k])

    Where 4 bits are taken from a word they stay in their place, if they are integers: the i-th is 16**i times
    what it should be, and scratch has x / 16**i. The highest are shifted down, as they hold the word's sign.
    """
    width, lanes, size = tile_width(isa), isa.lanes, SIZE[dtype]
    vectors = range(width // lanes)
    frame = Frame().pointers("x", "b", "y")
    pointers, integers = unpack.fields()
    frame.pointers(*pointers).integers(*integers)
    if unpack.shifts_data:
        frame.pointers("lower")
    finish = RowEpilogue(epilogue)
    finish.add_fields(frame)
    frame.integers("x_w", "y_w", "b_step", "rows", "outs", "panels", "per_chunk", "filled", "groups")
    src = finish.head(frame)
    src += ["    " + line for line in unpack.decoding(isa)]
    if unpack.zero == "one":
        src += ["    minus_zero = neg(splat_f32(z))"]
    src += ["    sums = scratch + rows * filled * 4"]
    src += ["    " + line for line in _rows_to_scratch(dtype, size, unpack)]
    src += [
        "    c = chunk * per_chunk",
        "    stop = imin(c + per_chunk, panels)",
        "    while c < stop:",
        "        row = 0",
        "        while row < rows:",
    ]
    for n, height in enumerate(HEIGHTS):
        test = "else:" if height == 1 else f"{'el' if n else ''}if rows - row >= {height}:"
        src += [f"            {test}"]
        src += [" " * 16 + line for line in _panel_times_rows(height, width, isa, unpack)]
        for r in range(height):
            values = [f"y{r}_{v}" for v in vectors]
            src += [" " * 16 + line for line in finish.applied(values, f"(row + {r})", width, lanes)]
        src += [f"                row += {height}"]
    src += ["        c += 1", "    return 0", ""]
    return Kernel(name, "\n".join(src), frame)


def _rows_to_scratch(dtype: str, size: int, unpack: Unpack) -> list[str]:
    """Lines that write the rows, and the sums of their groups where there are zeros."""
    store = "mul(some, load_f32(lower + (to - scratch) % 32))" if unpack.shifts_data else "some"
    return [
        "to = scratch",
        "sum_at = sums",
        "row = 0",
        "while row < rows:",
        "    e = 0",
        "    while e < depth:",
        "        stop_e = imin(e + g_size, depth)",
        f"        room = (stop_e - e + {unpack.step - 1}) // {unpack.step} * {unpack.step}",
        "        total = const_f32(0.0)",
        "        while room > 0:",
        f"            some = loadm_{dtype}(x + row * x_w + e * {size}, imax(stop_e - e, 0))",
        *(["            total = add(total, some)"] if unpack.zero else []),
        f"            storem_f32(to, {store}, room)",
        "            to += imin(room, VL) * 4",
        "            room -= VL",
        "            e += VL",
        "        e = stop_e",
        *(["        storem_f32(sum_at, spread_f32(hadd_f32(total)), 1)"] if unpack.zero else []),
        "        sum_at += 4",
        "    row += 1",
    ]


def _panel_times_rows(height: int, width: int, isa: Isa, unpack: Unpack) -> list[str]:
    """Lines that make `y<row>_<vector>` of panel `c`."""
    lanes = isa.lanes
    vectors, rows = range(width // lanes), range(height)
    # The sums of one or two rows are too few to hide how long an addition takes. Of one row, four of each
    # kind do not fit AVX2's registers, and three are no faster.
    several = range(2 if height <= 2 else 1)
    out = unpack.starts("c")
    out += [f"x{r}_at = scratch + (row + {r}) * filled * 4" for r in rows]
    if unpack.zero:
        out += [f"sum{r}_at = sums + (row + {r}) * groups * 4" for r in rows]
    for r in rows:
        out += [f"y{r}_{v} = load_f32(b + c * b_step + {v * lanes * 4})" for v in vectors]
    out += ["e = 0", "while e < depth:", "    stop_e = imin(e + g_size, depth)"]
    for v in vectors:
        if unpack.zero:
            out += [f"    zero = {unpack.load_zero(v * lanes)}"]
        for r in rows:
            first = f"mul(splat_f32(sum{r}_at), zero)" if unpack.zero else "const_f32(0.0)"
            out += [f"    a{r}_{v}_{i} = {'const_f32(0.0)' if i else first}" for i in several]
    out += ["    while e < stop_e:"]
    out += ["        " + line for line in _step_of_rows(height, width, isa, unpack, len(several))]
    for v in vectors:
        out += [f"    scale = load_{unpack.scale}(s_at + {v * lanes * SIZE[unpack.scale]})"]
        for r in rows:
            total = f"add(a{r}_{v}_0, a{r}_{v}_1)" if len(several) > 1 else f"a{r}_{v}_0"
            out += [f"    y{r}_{v} = fma({total}, scale, y{r}_{v})"]
    out += [f"    sum{r}_at += 4" for r in rows] if unpack.zero else []
    return [*out, *("    " + line for line in unpack.next_group(width)), "    e = stop_e"]


def _step_of_rows(height: int, width: int, isa: Isa, unpack: Unpack, several: int) -> list[str]:
    """A step of depth: each vector of weights is decoded once for all rows."""
    step, lanes = unpack.step, isa.lanes
    vectors = range(width // lanes)
    packed = unpack.bits == 4
    item = 4 if packed else unpack.bits // 8
    stored = width * item * (1 if packed else step)
    out = [f"prefetch(q_at + {AHEAD + line})" for line in range(0, stored, 64)]
    if packed:
        out += [f"b{v} = {unpack.load(f'q_at + {v * lanes * item}')}" for v in vectors]
    in_bytes = unpack.by_bytes(isa)
    for v, half in itertools.product(vectors, range(2 if in_bytes else 0)):
        out += unpack.decoded_bytes(f"b{v}", half, [f"w{i}" for i in range(4)])
        for i, r in itertools.product(range(4), range(height)):
            total = f"a{r}_{v}_{i % several}"
            out += [f"{total} = fma(w{i}, splat_f32(x{r}_at + {16 * half + 4 * i}), {total})"]
    for i in range(0 if in_bytes else step):
        for v in vectors:
            if packed:
                out += [f"w{v} = {unpack.in_place(f'b{v}', i, isa)}"]
            else:
                out += [f"w{v} = {unpack.real(unpack.load(f'q_at + {(i * width + v * lanes) * item}'), isa)}"]
        for r in range(height):
            out += [f"data = splat_f32(x{r}_at + {i * 4})"]
            for v in vectors:
                total = f"a{r}_{v}_{i % several}"
                out += [f"{total} = fma(w{v}, data, {total})"]
    out += [f"x{r}_at += {step * 4}" for r in range(height)]
    return [*out, f"q_at += {stored}", f"e += {step}"]


class Compressed(NamedTuple):
    """Packed integers, scales and zeros, the bytes of a panel of each, and elements of depth with those that
    groups are filled up with."""

    integers: np.ndarray
    scales: np.ndarray
    zeros: np.ndarray | None
    integer_panel: int
    scale_panel: int
    zero_panel: int
    filled: int


def how_unpacked(
    integers: np.ndarray, scale: np.ndarray, zero: np.ndarray | None, bits: int, kind: str
) -> Unpack:
    """How weights are packed."""
    stored = ""
    if zero is not None:
        with np.errstate(invalid="ignore"):
            fits = (zero == zero.astype(np.uint8)).all()
        stored = "one" if zero.size and (zero == zero.flat[0]).all() else "u8" if fits else "f32"
    return Unpack(bits, integers.dtype.kind == "i", kind, "f16" if fit_f16(scale) else "f32", stored)


def fit_f16(values: np.ndarray) -> bool:
    """Whether f16 holds them all exactly."""
    half = np.clip(values, -65504, 65504).astype(np.float16).astype(np.float32)
    return bool((half == values).all())


def pack_compressed(
    integers: np.ndarray, scale: np.ndarray, zero: np.ndarray | None, unpack: Unpack, size: int, isa: Isa
) -> Compressed:
    """integers [K, N] (8 or 16 bits, or 0 to 15), scale and zero [groups, N] of `size` elements -> panels."""
    depth, outs = integers.shape
    width, step, groups = tile_width(isa), unpack.step, scale.shape[0]
    panels = ceil_div(outs, width)
    size = min(size, depth)
    room = ceil_div(size, step) * step
    filled = (groups - 1) * room + ceil_div(depth - (groups - 1) * size, step) * step
    padded = np.zeros((groups, room, panels * width), integers.dtype)
    whole = depth // size
    padded[:whole, :size, :outs] = integers[: whole * size].reshape(whole, size, outs)
    if depth % size:
        padded[whole, : depth % size, :outs] = integers[whole * size :]
    by_panel = padded.reshape(-1, panels, width)[:filled].transpose(1, 0, 2)
    if unpack.by_bytes(isa):
        apart = by_panel.reshape(panels, filled // 8, 2, 2, 2, width // 8, 2, 4)
        order = (2, 0, 1, 5, 6, 3, 7, 4) if unpack.short else (2, 0, 1, 5, 6, 3, 4, 7)
        halves = apart.transpose(order)
        by_panel = (halves[0] | halves[1] << 4).astype(np.uint8)
    elif unpack.bits == 4:
        eights = by_panel.reshape(panels, filled // 8, 8, width).astype(np.uint32)
        by_panel = np.bitwise_or.reduce(eights << np.arange(0, 32, 4).astype(np.uint32)[:, None], axis=2)
    packed = aligned_bytes(by_panel.nbytes).view(by_panel.dtype).reshape(by_panel.shape)
    packed[...] = by_panel

    def spread(values: np.ndarray, dtype: str) -> np.ndarray:
        full = np.zeros((groups, panels * width), numpy_dtype(dtype))
        full[:, :outs] = values
        memory = aligned_bytes(full.nbytes).view(full.dtype).reshape(panels, groups, width)
        memory[...] = full.reshape(groups, panels, width).transpose(1, 0, 2)
        return memory

    zeros = None
    if zero is not None:
        zeros = spread(zero, unpack.zero) if unpack.each_zero else zero.ravel()[:1].astype(np.float32)
    scales = spread(scale, unpack.scale)
    zero_panel = 0 if zeros is None or not unpack.each_zero else zeros[0].nbytes
    return Compressed(packed, scales, zeros, packed[0].nbytes, scales[0].nbytes, zero_panel, filled)


def lowering_factors(isa: Isa) -> np.ndarray:
    """1 / 16**i for the i-th number of a word of 4 bits (`row_kernel`), for all words of a vector of rows."""
    place = np.arange(max(8, isa.lanes)) % 8
    return np.where(place < 7, 1 / 16.0**place, 1).astype(np.float32)
