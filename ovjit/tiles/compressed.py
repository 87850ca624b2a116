"""Compressed weights: packed in memory, and unpacked panel by panel into scratch by each chunk of the driver.

    w[k, n] = (integers[k, n] - zero[k // group, n]) * scale[k // group, n]

    integers [panel][group][k][width] of 8 bits, or [panel][group][k / 8][width] words of eight times 4, the
                first k in the lowest bits; groups are filled up with zeros to whole `STEP`s
    scales      [panel][group][width] of f16 where that is exact, else of f32
    zeros       likewise, of u8 or f32; one f32 if all are equal

Integers of 2, 3, 5 and 6 bits are in steps of 16 elements of depth: words of their low 4 or 2 bits, then of
the remaining bits. Element 4 m + j of a step is in byte j of a lane's word:

    low 4 bits  word m // 2, the low half of a byte if m is even
    low 2 bits  one word, bits 2 m of a byte; so are the high 2 bits of 6
    high bit    one word for both vectors of a panel, bit 4 v + m of a byte

So a shift and a mask per part give a word of four integers, which is multiplied directly.

Scales may have two factors, as in llama.cpp's super-blocks of `SUPER` elements: an f16 for the super-block,
and 8 bits for each group, in one stream. Instead of zeros there may be minima, which are added after scaling.

    scales      [panel][super-block]([width] f16, perhaps [width] f16 for minima, then for each group [width]
                of 8 bits, perhaps [width] of 8 bits for the minimum)

Instead of integers there may be codes of 4 or 8 bits for a table of levels (nf4, f4e2m1, codebooks), floats
of 8 bits, or f16.

If levels are looked up by bytes (`Unpack.by_bytes`), eight elements of depth are in [2][4][4] bytes: parts of
a vector, elements of depth, lanes of a part. The low 4 bits have the first four elements of depth. If bf16
represents all levels (`Unpack.short`), they are in [2][2][4][2] bytes: parts of a vector, pairs of elements
of depth, lanes, elements of a pair. Floats of 8 bits are in pairs of elements of depth, too: [width][2]. So
one shift and one mask give a vector of f16, which the CPU widens.

An unpacked panel fits the second-level cache. Packed weights are read from memory once for all rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ovjit.codegen.cpu.formats import SUPER, WORD, distinct, fit_f16
from ovjit.codegen.cpu.ir import Epilogue
from ovjit.codegen.cpu.targets import Target
from ovjit.codegen.kernel_language import *
from ovjit.graph.converted import Factored, Unmade
from ovjit.graph.dtypes import numpy_dtype
from ovjit.graph.stored_floats import levels_of
from ovjit.planning.plan import Filling, ceil_div
from ovjit.records import NamedTuple
from ovjit.tiles import weave
from ovjit.tiles.mixed import Factor, low_bits, mixed_steps, nested_scales, one_factor
from ovjit.tiles.pack import Woven, fill_later, find_sign_mask, spread_out, tile_width
from ovjit.tiles.rows import ROW_OPERANDS, finish_row

#: Floats of 8 bits -> their shift down from the upper byte of an f16, the mask of kept bits of two f16, and
#: the factor for the other bias. NaN of f8e4m3 becomes a number: packed weights have none.
SHIFTED = {"f8e4m3": (1, ~0x407F407F, 2.0**8), "f8e5m2": (0, ~0x00FF00FF, 1.0)}
#: Kinds of codes: for levels that are any f32, and for levels that bf16 represents. Of the latter only the
#: upper two bytes are looked up.
LOOKED_UP, SHORT = "levels", "short levels"
#: Bits of a number -> elements of depth of an iteration: a word of 4-bit numbers, or two rows.
STEP = {2: 16, 3: 16, 4: 8, 5: 16, 6: 16, 8: 2, 16: 2}
#: The type of a super-block's factor.
_HALF = "f16"
#: Independent accumulators of an output, over alternate elements of depth, to hide the latency of additions.
#: Their number does not depend on the number of rows, so that neither do a row's bits.
SEVERAL = 2
#: Lanes of a vector -> panels that one row is multiplied with at a time: more streams for the CPU's hardware
#: prefetchers. On a Xeon whose core reads 17 GB/s, nf4 reaches 12.5 GB/s with one, 13.0 with two, 13.7 with
#: four.
ABREAST = {16: 4, 8: 2}
#: Prefetch distances of weights in bytes, for the first-level cache and for the second, which allows more
#: requests in flight. Panels that are read together share them. Distances of scales and zeros are divided by
#: SCALES. Weights of 4 bits with first-level prefetches alone reached 0.92 of the speed with both. AVX-512
#: has two ports for vector instructions. A line of 64 bytes arrives from memory every 11 cycles. Instructions
#: per line: i4 in bytes 5, f16 6, f8e4m3 19 (5 for f16, 2 for upper 16 bits, 4 times 2 for f32, 4 products),
#: nf4 and f4e2m1 23 (8 permutations, 7 shifts, 8 products). These take at least 11.5 cycles, and reach 0.80
#: to 0.83 of the memory bandwidth. From the second-level cache nf4 reaches 16.5 GB/s, f8e4m3 19.4 and i4 63.
#: Reads alone reach 17 from memory. 20 instructions (codes at the beginning of a byte loaded from there) were
#: not faster. Neither were eight panels with one accumulator each, or one panel after another.
NEAR, FAR, SCALES = 2048, 16384, 8
#: Maximum elements of a partial sum: longer sums lose accuracy. A multiple of all steps and vectors.
PART = 256


class Unpack(NamedTuple):
    """The storage of panels.

    `bits` of a number; `signed`: bytes are signed. `kind`: the float type, or the kind of codes; "" for
    integers. `scale`: the type of scales; 8 bits mean two factors. `zero`: the type of zeros, "one" for a
    common f32 zero, "" for none, "low" for f16 minima, "lows" for minima with two factors.
    """

    bits: int
    signed: bool
    kind: str = ""
    scale: str = "f32"
    zero: str = ""

    @property
    def name(self) -> str:
        kind = self.kind or ("i8" if self.signed else f"u{self.bits}")
        stored = f"l{self.bits}" if self.looked_up else kind
        zero = {"": "", "one": "o", "u8": "z", "f32": "zf", "low": "m", "lows": "m"}[self.zero]
        return stored + zero + {"f32": "", "f16": "h"}.get(self.scale, "s" + self.scale)

    @property
    def is_mixed(self) -> bool:
        """Whether the integers' bits are split over several words."""
        return not self.kind and self.bits in (2, 3, 5, 6)

    @property
    def low_bits(self) -> int:
        """The number of low bits of an integer, which are in the first words of a step."""
        return low_bits(self.bits)

    @property
    def has_nested_scales(self) -> bool:
        """Whether scales have two factors."""
        return self.scale in ("u8", "i8")

    @property
    def has_low(self) -> bool:
        """Whether minima are added."""
        return self.zero in ("low", "lows")

    @property
    def each_zero(self) -> bool:
        """Whether groups have their own zeros or minima, in a stream of their own."""
        return self.zero in SIZE or self.zero == "low"

    @property
    def zero_bytes(self) -> int:
        """Bytes of an element in the stream of zeros; 0 without one."""
        return SIZE[_HALF] if self.zero == "low" else SIZE.get(self.zero, 0)

    @property
    def scale_bytes(self) -> int:
        """Bytes of a group's scale."""
        return 2 if self.zero == "lows" else SIZE[self.scale]

    @property
    def step(self) -> int:
        return STEP[self.bits]

    @property
    def shifts_data(self) -> bool:
        """Whether integers are used without shifting their word, and the data is scaled instead."""
        return self.bits < 8 and not self.kind

    @property
    def is_paired(self) -> bool:
        """Whether two elements of depth are adjacent: a vector has the pairs of all outputs."""
        return self.kind in SHIFTED

    @property
    def bias(self) -> float:
        """The factor that corrects the exponent bias after conversion to f32."""
        return SHIFTED[self.kind][2] if self.is_paired else 1.0

    @property
    def load_type(self) -> str:
        """The type of a load: bytes, words of several integers or of two pairs, or f16."""
        if self.is_paired or self.is_mixed:
            return "i32"
        return {4: "i32", 8: "i8" if self.signed else "u8", 16: "f16"}[self.bits]

    @property
    def item(self) -> int:
        """Bytes of a load per lane."""
        return SIZE[self.load_type]

    @property
    def stored_rows(self) -> int:
        """The number of loads per lane for a step of depth."""
        return 1 if self.bits == 4 or self.is_paired else self.step

    @property
    def looked_up(self) -> bool:
        """Whether the numbers are codes for levels."""
        return self.kind in (LOOKED_UP, SHORT)

    def is_permuted(self, lanes: int) -> bool:
        """Whether levels are looked up by a permutation of one vector."""
        return self.looked_up and self.bits == 4 and lanes == 16

    def by_bytes(self, lanes: int) -> bool:
        """Whether levels are assembled from byte look-ups: a permutation of 8 lanes cannot select among
        16."""
        return self.looked_up and self.bits == 4 and lanes == 8

    @property
    def short(self) -> bool:
        """Whether bf16 represents all levels."""
        return self.kind == SHORT

    @property
    def planes(self) -> range:
        """The bytes of an f32 that are looked up (`by_bytes`)."""
        return range(2 if self.short else 0, 4)

    @property
    def as_it_is(self) -> bool:
        """Whether rows of f32 are multiplied in place: neither their sums nor scaled copies are needed."""
        return not self.zero and not self.shifts_data

    def abreast(self, lanes: int) -> int:
        """The number of panels that one row is multiplied with at a time."""
        return 1 if self.by_bytes(lanes) else ABREAST.get(lanes, 1)

    def table(self, isa: Target, levels: np.ndarray | None) -> np.ndarray | None:
        """The look-up tables of codes: the levels; or for each of `planes` that byte of the 16 levels, twice,
        for both halves of a vector."""
        if levels is None or not self.by_bytes(isa.lanes):
            return levels
        bytes_of = levels.view(np.uint8).reshape(16, 1, 4)[..., self.planes.start :]
        return np.tile(bytes_of, (1, 2, 1)).transpose(2, 1, 0).copy()

    def stride(self, width: int) -> int:
        """Bytes of a step of depth in a panel."""
        return self.step * width * self.bits // 8


def heights(isa: Target) -> tuple[int, ...]:
    """Numbers of rows for one pass over the weights. A row needs `SEVERAL` times two accumulators: four rows
    take 16 of 32 registers, three rows 12 of 16. Four rows are faster as twice two than as three and one."""
    return (4, 2, 1) if isa.lanes == 16 or isa.is_arm else (3, 2, 1)


@inline
def load_levels(levels, lv, *, unpack, lanes):
    """Load the look-up tables of codes into registers."""
    if unpack.by_bytes(lanes):
        for i, plane in enumerate(unpack.planes):
            levels[plane] = load[i32](lv + 32 * i)
    elif unpack.is_permuted(lanes):
        levels[0] = load[f32](lv)


@inline
def decode_pair(d, word, count, unpack):
    """Decode two elements of depth: d[i, v] in f32, without the bias, for `count` vectors. The conversion
    goes through f16, whose subnormals are converted even if the thread flushes denormals."""
    two = registers()
    for i in static_range(2):
        two[i] = word if i else word << const[i32](8)
        if SHIFTED[unpack.kind][0]:
            two[i] = shr_halves(two[i], const[i32](65537 * SHIFTED[unpack.kind][0]))
        two[i] = two[i] & const[i32](SHIFTED[unpack.kind][1])
        for v in static_range(count):
            d[i, v] = halves_high[f32](two[i]) if v else halves_low[f32](two[i])


@inline
def decode_codes(codes, *, levels, lv, unpack, lanes):
    """Loaded numbers in f32; for words of 4-bit numbers the lowest one."""
    return (
        permute[f32](levels[0], codes) if unpack.is_permuted(lanes)
        else take[f32](lv, cast[i32](codes)) if unpack.looked_up and unpack.bits == 8
        else take[f32](lv, codes & const[i32](15)) if unpack.looked_up
        else cast[f32](codes & const[i32](15)) if unpack.bits == 4
        else codes if unpack.bits == 16 else cast[f32](codes)
    )  # fmt: skip


@inline
def decode_bytes(d, v, word, first, *, levels, unpack):
    """Decode d[first : first + 4, v]: four elements of depth, from the low (first = 0) or high half of each
    byte (`Unpack.by_bytes`)."""
    plane, pair = registers()
    codes = (word >> const[i32](4) if first else word) & const[i32](0x0F0F0F0F)
    for i in unpack.planes:
        plane[i] = look_up(levels[i], codes)
    for at, high in ((first, False), (first + 2, True)):
        coarse = zip_bytes_high(plane[2], plane[3]) if high else zip_bytes_low(plane[2], plane[3])
        if unpack.short:  # pairs of bf16, the one of the first element of depth in the lower half of a word
            d[at, v] = bits[f32](coarse << const[i32](16))
            d[at + 1, v] = bits[f32](coarse & const[i32](-65536))
        else:
            fine = zip_bytes_high(plane[0], plane[1]) if high else zip_bytes_low(plane[0], plane[1])
            d[at, v] = bits[f32](zip_halves_low(fine, coarse))
            d[at + 1, v] = bits[f32](zip_halves_high(fine, coarse))


@inline
def load_words(word, address, v, width, *, lanes, unpack):
    """Load vector `v` of a step. Afterwards the bytes of word[m] are integers 4 m to 4 m + 3."""
    part, high = registers()
    for i in static_range(unpack.low_bits // 2):
        part[i] = load[i32](address + (i * width + v * lanes) * WORD)
    if unpack.bits in (6,):
        high = load[i32](address + (2 * width + v * lanes) * WORD)
    elif unpack.bits in (3, 5):
        high = load[i32](address + unpack.low_bits // 2 * width * WORD)
    for m in static_range(4):
        if unpack.low_bits == 4:
            some = part[m // 2] >> const[i32](4) if m % 2 else part[m // 2]
            some = some & const[i32](0x0F0F0F0F)
        else:
            some = part[0] >> const[i32](2 * m) if m else part[0]
            some = some & const[i32](0x03030303)
        if unpack.bits == 6:
            some = some | (shift_down(high, 2 * m - 4) & const[i32](0x30303030))
        elif unpack.bits == 5:
            some = some | (shift_down(high, 4 * v + m - 4) & const[i32](0x10101010))
        elif unpack.bits == 3:
            some = some | (shift_down(high, 4 * v + m - 2) & const[i32](0x04040404))
        word[m] = some


@inline
def shift_down(word, down):
    """A word shifted down by `down` bits, or up if `down` is negative."""
    return word >> const[i32](down) if down > 0 else word << const[i32](-down) if down else word


@inline
def begin_super(outer, at, e, *, panels, vectors, lanes, unpack):
    """At the beginning of a super-block, load the common factors of scales and minima."""
    if urem(e, SUPER) == 0:
        for n in static_range(panels):
            for v in static_range(vectors):
                outer[n, v] = load[_HALF](at["s", n] + v * lanes * 2)
                if unpack.zero == "lows":
                    outer[n, v, "low"] = load[_HALF](at["s", n] + (vectors + v) * lanes * 2)
            at["s", n] += vectors * lanes * (4 if unpack.zero == "lows" else 2)


@inline
def group_scale(at, n, v, outer, *, lanes, unpack):
    """The scales of a group for a vector."""
    return (
        cast[f32](load[unpack.scale](at["s", n] + v * lanes)) * outer[n, v] if unpack.has_nested_scales
        else load[unpack.scale](at["s", n] + v * lanes * SIZE[unpack.scale])
    )  # fmt: skip


@inline
def group_low(at, n, v, outer, *, vectors, lanes, unpack):
    """The minima of a group for a vector."""
    return (
        cast[f32](load[u8](at["s", n] + (vectors + v) * lanes)) * outer[n, v, "low"]
        if unpack.zero == "lows" else load[_HALF](at["z", n] + v * lanes * 2)
    )  # fmt: skip


@inline
def begin_panels(at, count, c, *, stored, unpack):
    """Set the addresses of integers, scales and zeros for panels `c` to c + count - 1."""
    for n in static_range(count):
        at["q", n] = stored.q + (c + n) * stored.q_panel
        at["s", n] = stored.s + (c + n) * stored.s_panel
        if unpack.each_zero:
            at["z", n] = stored.z + (c + n) * stored.z_panel


@inline
def next_group(at, count, width, unpack):
    """Advance to the next group's scales and zeros."""
    for n in static_range(count):
        at["s", n] += width * unpack.scale_bytes
        if unpack.each_zero:
            at["z", n] += width * unpack.zero_bytes


@inline
def minus_zeros(at, n, zero, lane, unpack):
    """The negated zeros of a vector that begins at lane `lane` of panel `n`. `zero`: the negated common
    zero."""
    return (
        -cast[f32](load[u8](at["z", n] + lane)) if unpack.zero == "u8"
        else -load[unpack.zero](at["z", n] + lane * SIZE[unpack.zero]) if unpack.each_zero
        else zero
    )  # fmt: skip


@inline
def fetch(address, size, part):
    """Prefetch `size` bytes at both prefetch distances ahead of an address. `part` divides the distances."""
    for line in static_range(0, size, 64):
        prefetch(address + (NEAR // part + line))
        prefetch_l2(address + (FAR // part + line))


@inline
def fetch_group(at, n, scale, zero, *, width, panels):
    """`fetch` the scales and zeros of panel `n` of `panels`. `scale`, `zero`: bytes of each; 0: no zeros."""
    fetch(at["s", n], width * scale, SCALES * panels)
    if zero:
        fetch(at["z", n], width * zero, SCALES // zero * 2 * panels)


@inline
def load_step(b, at, count, *, width, lanes, unpack):
    """Load `count` vectors of a step of depth: in stored form, except that pairs are decoded."""
    if unpack.is_paired:
        decode_pair(b, load[i32](at["q", 0]), count, unpack)
    elif unpack.is_mixed:
        word = registers()
        for v in static_range(count):
            load_words(word, at["q", 0], v, width)
            for m in static_range(4):
                b[m, v] = word[m]
    else:
        for i in static_range(unpack.stored_rows):
            for v in static_range(count):
                b[i, v] = load[unpack.load_type](at["q", 0] + (i * width + v * lanes) * unpack.item)


@inline
def store_word(at, b, d, first, scale, shift, count, *, levels, lv, lanes, group, unpack):
    """Scale elements `first` to first + group - 1 of a loaded step, and store them as a word at at["t"]."""
    word = registers()
    for v in static_range(count):
        for i in static_range(first, first + group):
            if unpack.by_bytes(lanes):
                real = d[i, v]
            elif unpack.is_mixed:
                real = cast[f32]((b[i // 4, v] >> const[i32](8 * (i % 4))) & const[i32](255))
            elif unpack.bits == 4:
                real = in_place(b[0, v], i)
            elif unpack.is_paired:
                real = b[i, v] * const[f32](unpack.bias) if unpack.bias != 1 else b[i, v]
            else:
                real = decode_codes(b[i, v])
            if unpack.bits == 4 and unpack.shifts_data and 0 < i and i < unpack.step - 1:
                factor = scale[v] * const[f32](16.0**-i)  # LLVM computes it before the loop
            else:
                factor = scale[v]
            word[i - first] = fma(real, factor, shift[v]) if unpack.zero else real * factor
            if group == 2:  # to the nearest, ties up
                word[i - first] = bits[u32](word[i - first]) + const[u32](32768)
        if group == 1:
            store[f32](at["t"] + v * lanes * WORD, word[0])
        else:
            both = (word[0] >> const[u32](16)) | (word[1] & const[u32](0xFFFF0000))
            store[u32](at["t"] + v * lanes * WORD, both)
    at["t"] += count * lanes * WORD


@inline
def unpack_group(at, stop, scale, shift, levels, lv, count, width, *, lanes, group, unpack):
    """The elements of depth from at["e"] to `stop`, `count` vectors each."""
    b, d = registers()
    while at["e"] + unpack.step <= stop:
        load_step(b, at, count)
        for i in static_range(0, unpack.step, group):
            if unpack.by_bytes(lanes) and i % 4 == 0:
                for v in static_range(count):
                    decode_bytes(d, v, b[0, v], i)
            store_word(at, b, d, i, scale, shift, count)
        at["q", 0] += unpack.stride(width)
        at["e"] += unpack.step
    if at["e"] < stop and not unpack.is_mixed:
        load_step(b, at, count)
        if unpack.by_bytes(lanes):
            for i in static_range(0, unpack.step, group):
                if i % 4 == 0:
                    for v in static_range(count):
                        decode_bytes(d, v, b[0, v], i)
                if at["e"] < stop:
                    store_word(at, b, d, i, scale, shift, count)
                at["e"] += group
        elif unpack.bits == 4:
            while at["e"] < stop:
                store_word(at, b, d, 0, scale, shift, count)
                for v in static_range(count):
                    b[0, v] = b[0, v] >> const[i32](4 * group)
                at["e"] += group
        else:
            store_word(at, b, d, 0, scale, shift, count)
        at["q", 0] += unpack.stride(width)
        at["e"] = stop


@inline
def unpack_panels(unpacked, first_panel, stop_panel, outs, w_panel, vectors, *, stored, unpack, group, lanes):
    """Unpack the chunk's panels to the order of tiles, with words of `group` elements."""
    at, levels, scale, shift, outer = registers()
    load_levels(levels, stored.lv)
    if unpack.zero == "one":
        zero = -splat[f32](stored.z)
    for c in range(first_panel, stop_panel):
        begin_panels(at, 1, c)
        at["t"] = unpacked + (c - first_panel) * w_panel
        valid = outs - c * vectors * lanes
        at["e"] = 0
        while at["e"] < stored.depth:
            stop = min(at["e"] + stored.g_size, stored.depth)
            if unpack.has_nested_scales:
                begin_super(outer, at, at["e"], panels=1)
            for v in static_range(vectors):
                scale[v] = group_scale(at, 0, v, outer)
                if unpack.has_low:
                    shift[v] = group_low(at, 0, v, outer)
                elif unpack.zero:
                    shift[v] = minus_zeros(at, 0, zero, v * lanes, unpack) * scale[v]
            if valid > lanes:
                unpack_group(at, stop, scale, shift, levels, stored.lv, vectors, vectors * lanes)
            else:
                unpack_group(at, stop, scale, shift, levels, stored.lv, 1, vectors * lanes)
            next_group(at, 1, vectors * lanes, unpack)


@inline
def rows_to_scratch(x, x_w, rows, sums, lower, g_size, depth, *, unpack, T):
    """The rows in f32, and the sums of their parts where there are zeros."""
    to = scratch
    sum_at = sums
    for row in range(rows):
        e = 0
        while e < depth:
            stop = min(e + g_size, depth)
            while e < stop:
                end = min(e + PART, stop)
                room = (end - e + (unpack.step - 1)) // unpack.step * unpack.step
                total = const[f32](0.0)
                while room > 0:
                    some = loadm[T](x + row * x_w + e * SIZE[T], max(end - e, 0))
                    if unpack.zero:
                        total = total + some
                    if unpack.shifts_data:
                        some = some * load[f32](lower + (to - scratch) % 32)
                    storem[f32](to, some, room)
                    to += min(room, VL) * 4
                    room -= VL
                    e += VL
                e = end
                if unpack.zero:
                    storem[f32](sum_at, spread[f32](hadd[f32](total)), 1)
                sum_at += 4


@inline
def in_place(word, i, *, levels, lv, lanes, unpack):
    """The i-th number of a word of 4-bit numbers as f32. Integers are not shifted: 16**i times the number."""
    return (
        decode_codes(word >> const[i32](4 * i) if i else word)
        if not unpack.shifts_data
        else cast[f32](bits[i32](bits[u32](word) >> const[u32](4 * i))) if i == unpack.step - 1
        else cast[f32](word & const[i32](15 << 4 * i))
    )  # fmt: skip


@inline
def multiply_step(at, total, *, levels, lv, height, panels, vectors, lanes, unpack):
    """A step of depth: each vector of weights is decoded once for all rows."""
    word, w, d = registers()
    for n in static_range(panels):
        fetch(at["q", n], unpack.stride(vectors * lanes), panels)
    if unpack.is_paired:
        for n in static_range(panels):
            decode_pair(d, load[i32](at["q", n]), vectors, unpack)
            for i, r in np.ndindex(2, height):
                data = splat[f32](at["x", r] + i * 4)
                for v in static_range(vectors):
                    total[r, n, v, i % SEVERAL] = fma(d[i, v], data, total[r, n, v, i % SEVERAL])
    elif unpack.by_bytes(lanes):
        load_integers(word, at)
        for n, v, half in np.ndindex(panels, vectors, 2):
            decode_bytes(d, 0, word[n, v], 4 * half)
            for i, r in np.ndindex(4, height):
                data = splat[f32](at["x", r] + (16 * half + 4 * i))
                total[r, n, v, i % SEVERAL] = fma(d[4 * half + i, 0], data, total[r, n, v, i % SEVERAL])
    elif unpack.is_mixed:
        for n, v in np.ndindex(panels, vectors):
            load_words(word, at["q", n], v, vectors * lanes)
            for m, j in np.ndindex(4, 4):
                d = cast[f32](word[m] & const[i32]((255 << 8 * j) - (1 << 32 if j == 3 else 0)))
                for r in static_range(height):
                    data = splat[f32](at["x", r] + (16 * m + 4 * j))
                    total[r, n, v, j % SEVERAL] = fma(d, data, total[r, n, v, j % SEVERAL])
    else:
        if unpack.bits == 4:
            load_integers(word, at)
        for i in static_range(unpack.step):
            for n, v in np.ndindex(panels, vectors):
                if unpack.bits == 4:
                    w[n, v] = in_place(word[n, v], i)
                else:
                    address = at["q", n] + (i * vectors + v) * lanes * unpack.item
                    w[n, v] = decode_codes(load[unpack.load_type](address))
            for r in static_range(height):
                data = splat[f32](at["x", r] + i * 4)
                for n, v in np.ndindex(panels, vectors):
                    total[r, n, v, i % SEVERAL] = fma(w[n, v], data, total[r, n, v, i % SEVERAL])
    next_step(at, vectors * lanes)


@inline
def load_integers(word, at, *, panels, vectors, lanes):
    for n, v in np.ndindex(panels, vectors):
        word[n, v] = load[i32](at["q", n] + v * lanes * WORD)


@inline
def next_step(at, width, *, height, panels, unpack):
    """Advance the addresses of data and weights to the next step of depth."""
    for r in static_range(height):
        at["x", r] += unpack.step * 4
    for n in static_range(panels):
        at["q", n] += unpack.stride(width)


@inline
def begin_rows(at, data, data_w, sums, parts, *, height, unpack):
    """Set the addresses of each row's data, and of the sums of its parts."""
    for r in static_range(height):
        at["x", r] = data + r * data_w
    if unpack.zero:
        for r in static_range(height):
            at["sum", r] = sums + r * parts * 4


@inline
def multiply_rows(
    at, acc, data, data_w, sums, parts, g_size, depth, bias, b_step, levels, lv, zero, height, panels, *,
    vectors, lanes, unpack,
):  # fmt: skip
    """Add the products of data and decoded weights to acc[row, vector] for one panel, or to acc[panel,
    vector] for one row."""
    total, group, outer = registers()
    begin_rows(at, data, data_w, sums, parts)
    for r, n, v in np.ndindex(height, panels, vectors):
        acc[r + n, v] = load[f32](bias + n * b_step + v * lanes * 4)
    e = 0
    while e < depth:
        stop = min(e + g_size, depth)
        if unpack.has_nested_scales:
            begin_super(outer, at, e)
        for r, n, v in np.ndindex(height, panels, vectors):
            group[r, n, v] = const[f32](0.0)
        while e < stop:
            end = min(e + PART, stop)
            for r, n, v, i in np.ndindex(height, panels, vectors, SEVERAL):
                total[r, n, v, i] = const[f32](0.0)
            while e < end:
                multiply_step(at, total)
                e += unpack.step
            for n, v in np.ndindex(panels, vectors):
                if unpack.has_low:
                    shift = group_low(at, n, v, outer)
                elif unpack.zero:
                    shift = minus_zeros(at, n, zero, v * lanes, unpack)
                for r in static_range(height):
                    part_sum = total[r, n, v, 0] + total[r, n, v, 1]
                    if unpack.has_low:
                        acc[r + n, v] = fma(splat[f32](at["sum", r]), shift, acc[r + n, v])
                    elif unpack.zero:
                        part_sum = fma(splat[f32](at["sum", r]), shift, part_sum)
                    group[r, n, v] = group[r, n, v] + part_sum
            if unpack.zero:
                for r in static_range(height):
                    at["sum", r] += 4
        for n in static_range(panels):
            fetch_group(at, n, unpack.scale_bytes, unpack.zero_bytes, width=vectors * lanes)
        for n, v in np.ndindex(panels, vectors):
            scale = group_scale(at, n, v, outer)
            for r in static_range(height):
                group_sum = group[r, n, v]
                if unpack.bias != 1:
                    group_sum = group_sum * const[f32](unpack.bias)
                acc[r + n, v] = fma(group_sum, scale, acc[r + n, v])
        next_group(at, panels, vectors * lanes, unpack)
        e = stop


class StoredWeights(NamedTuple):
    """Packed integers, scales, zeros and levels; bytes of a panel of the first three; elements of depth of a
    group, and in total."""

    q: Ptr
    s: Ptr
    z: Ptr
    lv: Ptr
    q_panel: int
    s_panel: int
    z_panel: int
    g_size: int
    depth: int


class RowBytes(NamedTuple):
    """Bytes between rows of x and of y, and between panels of the bias."""

    x_w: int
    y_w: int
    b_step: int


class RowSizes(NamedTuple):
    """Rows, outputs, panels, panels of a chunk; padded elements of depth; partial sums of a row."""

    rows: int
    outs: int
    panels: int
    per_chunk: int
    filled: int
    parts: int


@kernel(stored=Raw(StoredWeights), strides=Raw(RowBytes), sizes=Raw(RowSizes))
def compressed_rows(
    x: Ptr, b: Ptr, y: Ptr, stored, lower: Ptr, strides, sizes, e=ROW_OPERANDS, *, T, operands, body, out,
    vectors, lanes, unpack, abreast, heights,
):  # fmt: skip
    """A few rows times compressed weights, which are read from memory once for `heights` rows.

    A chunk is a range of panels. It first writes the rows to scratch, in f32 and padded to whole groups, and
    the sum of each part of a group, which all panels need. This is skipped if rows are multiplied in place.
    Sums of products of a group are scaled once:

        y[n] = bias[n] + sum over groups g of scale[g, n] * sum over the parts of g of
               (sum of x[k] * integers[k, n] - zero[g, n] * sum of x[k])

    4-bit integers are masked out of their word without a shift. So the i-th is too large by 16**i, and
    scratch has x / 16**i. The highest one is shifted down, since it has the word's sign bit.
    """
    at, levels, acc = registers()
    load_levels(levels, stored.lv)
    if unpack.zero == "one":
        zero = -splat[f32](stored.z)
    data = x
    data_w = strides.x_w
    sums = scratch + sizes.rows * sizes.filled * 4
    if T != "f32" or not unpack.as_it_is or sizes.filled != stored.depth:
        rows_to_scratch(x, strides.x_w, sizes.rows, sums, lower, stored.g_size, stored.depth)
        data = scratch
        data_w = sizes.filled * 4
    c = chunk * sizes.per_chunk
    stop = min(c + sizes.per_chunk, sizes.panels)
    while c < stop:
        row = 0
        if sizes.rows == 1 and stop - c >= abreast and abreast > 1:
            begin_panels(at, abreast, c)
            multiply_rows(
                at, acc, data, data_w, sums, sizes.parts, stored.g_size, stored.depth, b + c * strides.b_step,
                strides.b_step, levels, stored.lv, zero, 1, abreast,
            )  # fmt: skip
            for n in static_range(abreast):
                finish_row(acc, n, e, y, strides.y_w, row, c + n, sizes.outs)
            c += abreast
        else:
            while row < sizes.rows:
                begin_panels(at, 1, c)
                for height in heights:
                    remaining = sizes.rows - row
                    if height == 1 or (remaining >= height and (height != 3 or remaining != 4)):
                        multiply_rows(
                            at, acc, data + row * data_w, data_w, sums + row * sizes.parts * 4, sizes.parts,
                            stored.g_size, stored.depth, b + c * strides.b_step, 0, levels, stored.lv, zero,
                            height, 1,
                        )  # fmt: skip
                        for r in static_range(height):
                            finish_row(acc, r, e, y, strides.y_w, row + r, c, sizes.outs)
                        row += height
                        break
            c += 1


class ChosenSizes(NamedTuple):
    """Outputs, panels, panels of a chunk, chunks of a row; padded elements of depth."""

    outs: int
    panels: int
    per_chunk: int
    blocks: int
    filled: int


class Chosen(NamedTuple):
    """The index of each row's matrix, bytes between indices, and the number of matrices."""

    picks: Ptr
    picks_w: int
    kinds: int


@kernel(stored=Raw(StoredWeights), strides=Raw(RowBytes), sizes=Raw(ChosenSizes), chosen=Raw(Chosen))
def chosen_rows(
    x: Ptr, b: Ptr, y: Ptr, stored, lower: Ptr, strides, sizes, chosen, e=ROW_OPERANDS, *, T, operands,
    body, out, vectors, lanes, unpack,
):  # fmt: skip
    """Each row times its own matrix of compressed weights: one of `kinds`, by the index at `picks`. Negative
    indices count from the end; the result is 0 for indices out of range. A chunk is a range of panels for one
    row."""
    at, levels, acc = registers()
    load_levels(levels, stored.lv)
    if unpack.zero == "one":
        zero = -splat[f32](stored.z)
    row = udiv(chunk, sizes.blocks)
    first = urem(chunk, sizes.blocks) * sizes.per_chunk
    kind = ld(chosen.picks + row * chosen.picks_w, 0)
    if kind < 0:
        kind += chosen.kinds
    sums = scratch + sizes.filled * 4
    rows_to_scratch(x + row * strides.x_w, strides.x_w, 1, sums, lower, stored.g_size, stored.depth)
    for c in range(first, min(first + sizes.per_chunk, sizes.panels)):
        for v in static_range(vectors):
            acc[0, v] = load[f32](b + c * strides.b_step + v * lanes * WORD)
        if kind >= 0 and kind < chosen.kinds:
            begin_panels(at, 1, kind * sizes.panels + c)
            multiply_rows(
                at, acc, scratch, 0, sums, 0, stored.g_size, stored.depth, b + c * strides.b_step, 0, levels,
                stored.lv, zero, 1, 1,
            )  # fmt: skip
        finish_row(acc, 0, e, y, strides.y_w, row, c, sizes.outs)


def row_kernel(
    name: str, epilogue: Epilogue, isa: Target, dtype: str, unpack: Unpack, chosen: bool = False
) -> Kernel:
    """The kernel for a few rows of `dtype`. `chosen`: for any number of rows, each times its own matrix."""
    fixed: dict[str, Any] = {"T": dtype, "vectors": isa.tile_vectors, "lanes": isa.lanes, "unpack": unpack}
    fixed |= epilogue.constants("f32")
    if chosen:
        return chosen_rows.kernel(name, **fixed)
    return compressed_rows.kernel(name, abreast=unpack.abreast(isa.lanes), heights=heights(isa), **fixed)


class Compressed(NamedTuple):
    """Packed integers, scales and zeros, the bytes of a panel of each, and the padded elements of depth."""

    integers: Filling
    scales: Filling | np.ndarray
    zeros: Filling | np.ndarray | None
    integer_panel: int
    scale_panel: int
    zero_panel: int
    filled: int


def how_unpacked(
    integers: np.ndarray | Unmade, scale: Factor, zero: Factor | None, bits: int, kind: str
) -> Unpack:
    """The storage of weights in panels."""
    stored, scale_type = "", ""
    if isinstance(scale, Factored):
        inner = scale.factors().inner
        scale_type = "f16" if inner is None else "i8" if inner.dtype.kind == "i" else "u8"
    if isinstance(zero, Factored):
        stored = "low" if zero.factors().inner is None else "lows"
    elif zero is not None:
        zeros = distinct(np.asarray(zero))
        with np.errstate(invalid="ignore"):
            fits = (zeros == zeros.astype(np.uint8)).all()
        stored = "one" if zeros.size and (zeros == zeros.flat[0]).all() else "u8" if fits else "f32"
    levels = levels_of(kind)
    if levels is not None:
        kind = LOOKED_UP if np.any(levels.view(np.uint32) & 0xFFFF) else SHORT
    if not scale_type:
        scale_type = "f16" if fit_f16(np.asarray(scale)) else "f32"
    return Unpack(bits, integers.dtype.kind == "i", kind, scale_type, stored)


def _find_weaving(unpack: Unpack, integers: np.ndarray | Unmade, filled: int, isa: Target) -> Woven | None:
    """The parameters for packing by native code; None if groups are padded, or integers are split over
    words."""
    if filled != integers.shape[0] or unpack.is_mixed:
        return None
    if unpack.by_bytes(isa.lanes):
        return Woven(4, 4, weave.PAIRS if unpack.short else weave.BYTES)
    if unpack.is_paired:
        return Woven(2, 8)
    if unpack.bits == 4:
        return Woven(4, 4, mask=find_sign_mask(integers, 4))
    return Woven(unpack.bits // 8, unpack.bits)


def pack_compressed(
    integers: np.ndarray | Unmade, scale: Factor, zero: Factor | None, unpack: Unpack, size: int,
    isa: Target,
) -> Compressed:  # fmt: skip
    """integers [K, N] (8 or 16 bits, or 0 to 15), scale and zero [groups, N] of `size` elements -> panels."""
    depth = integers.shape[0]
    width, step, groups = tile_width(isa), unpack.step, scale.shape[0]
    size = min(size, depth)
    room = ceil_div(size, step) * step
    filled = (groups - 1) * room + ceil_div(depth - (groups - 1) * size, step) * step

    def arrange(integers: np.ndarray) -> np.ndarray:
        outs = integers.shape[1]
        panels = ceil_div(outs, width)
        padded = np.zeros((groups, room, panels * width), integers.dtype)
        full_groups = depth // size
        padded[:full_groups, :size, :outs] = integers[: full_groups * size].reshape(full_groups, size, outs)
        if depth % size:
            padded[full_groups, : depth % size, :outs] = integers[full_groups * size :]
        by_panel = padded.reshape(-1, panels, width)[:filled].transpose(1, 0, 2)
        if unpack.by_bytes(isa.lanes):
            split = by_panel.reshape(panels, filled // 8, 2, 2, 2, width // 8, 2, 4)
            order = (2, 0, 1, 5, 6, 3, 7, 4) if unpack.short else (2, 0, 1, 5, 6, 3, 4, 7)
            pieces = split.transpose(order)
            return (pieces[0] | pieces[1] << 4).astype(np.uint8)
        if unpack.is_paired:
            return by_panel.reshape(panels, filled // 2, 2, width).transpose(0, 1, 3, 2)
        if unpack.is_mixed:
            return mixed_steps(by_panel.reshape(panels, filled // 16, 4, 4, width), unpack.bits, isa.lanes)
        if unpack.bits == 4:
            eights = by_panel.reshape(panels, filled // 8, 8, width).astype(np.uint32)
            return np.bitwise_or.reduce(eights << np.arange(0, 32, 4).astype(np.uint32)[:, None], axis=2)
        return by_panel

    panel = filled * width * unpack.bits // 8
    zeros: Filling | np.ndarray | None = None
    zero_panel = 0
    scales: Filling | np.ndarray
    if isinstance(scale, Factored) and unpack.has_nested_scales:
        scales = nested_scales(scale, zero, width)
        scale_panel = scales[0].nbytes
    else:
        scales, scale_panel = spread_out(one_factor(scale), numpy_dtype(unpack.scale), width)
    if isinstance(zero, Factored):
        if unpack.zero == "low":
            zeros, zero_panel = spread_out(one_factor(zero), np.dtype(np.float16), width)
    elif zero is not None and unpack.each_zero:
        zeros, zero_panel = spread_out(one_factor(zero), numpy_dtype(unpack.zero), width)
    elif zero is not None:
        zeros = np.asarray(zero).ravel()[:1].astype(np.float32)
    packed = fill_later(integers, width, panel, arrange, _find_weaving(unpack, integers, filled, isa))
    return Compressed(packed, scales, zeros, panel, scale_panel, zero_panel, filled)


def lowering_factors(isa: Target, unpack: Unpack) -> np.ndarray:
    """The factors for data whose integers are not shifted (`Unpack.shifts_data`), for a vector of data.

    1 / 16**i for number i of a word of 4-bit integers, 1 for the last; 1 / 256**i for byte i of a word."""
    index_in_word = np.arange(max(8, isa.lanes)) % 8
    if unpack.is_mixed:
        return (1 / 256.0 ** (index_in_word % 4)).astype(np.float32)
    return np.where(index_in_word < 7, 1 / 16.0**index_in_word, 1).astype(np.float32)
