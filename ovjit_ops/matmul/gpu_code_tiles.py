"""Products of few rows with weights of 8 and 4 bits, on tensor cores of GPUs.

An item of `code_tiles` is 16 columns for a block of warps, each of which has a part of the depth. So the time
is that of reading the codes. They lie in memory as lanes load them: 16 bytes of a lane 4 g + t are two words
of codes of each of the columns g and g + 8, of units (eight elements along the depth) whose elements of x the
lane loads. They are the rows of `mma`, and up to eight rows of x are its columns.

A code becomes a number of 16 bits by the upper bits of 1024 (128 for bf16), whose last bits it is. Its sum
with -1024 - zero is exact for zeros that are integers. The sums of a group of the depth are scaled in f32.
Those of the warps pass through memory.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ovjit.codegen.kernel_language import *
from ovjit.planning.chunks import ceil_div
from ovjit_ops.matmul.gpu_products import store_results

#: Elements of a unit, columns and warps of an item, maximum rows of x, and items that a multiprocessor runs
#: at a time: half of the registers suffice for an item.
UNIT, TILE, TEAM, MOST_ROWS, BLOCKS = 8, 16, 8, 8, 2
#: Bytes of codes that a warp loads at once, and the number of such pieces that are read together.
PIECE, AHEAD = 512, 4
#: Minimum units of a group, which are scaled together.
LEAST_GROUP = 4
#: Element type -> the number whose last bits become a code's, and the bits of a pair of it.
BASES = {"f16": (1024, 0x64006400), "bf16": (128, 0x43004300)}
#: The codes of a unit in the order of their bits: pairs of neighbours are 16 bits apart.
ORDER = {4: (0, 2, 4, 6, 1, 3, 5, 7), 8: (0, 2, 1, 3, 4, 6, 5, 7)}


@inline
def pair_of(word, i, less, *, T, width):
    """Codes 2 i and 2 i + 1 of a word as numbers of 16 bits, minus the zero. `less`: -base - zero, twice."""
    return add_halves[T](
        ((word >> const[i32](i * width)) & const[i32](((1 << width) - 1) * 0x10001))
        | const[i32](BASES[T][1]),
        less,
    )


@inline
def load_scales(s, at, scales, zeros, *, T):
    """Set the scales of a lane's two columns, and the pairs that are added to their codes."""
    for i in static_range(2):
        s[i] = take[f32](scales, at["scale", i])
        s["less", i] = const[f32](-BASES[T][0]) - take[f32](zeros, at["zero", i])
    sums = join_sums[f32](s["less", 0], s["less", 0], s["less", 1], s["less", 1])
    pairs = pack_sums[T](sums, sums)
    s["pair", 0] = part_of_sums[i32](pairs, 0)
    s["pair", 1] = part_of_sums[i32](pairs, 1)


@inline
def add_piece(c, f, s, at, x, codes, scale, ps, zero, pz, unit, end, shift, d, *, T, width, steps, spans):
    """Add the products of piece d of some, from `unit` on, to c. `end`: of the warp's units. `steps`: parts
    of a piece that are scaled apart; `spans`: pieces that are scaled together."""
    for e in static_range(2):
        first = unit + (4 * e if width == 4 else 0)
        if width == 4 or e == 0:
            is_there = at["is_row"] & (at["unit"] < spread[i32](end - first))
            f["x"] = load_fragment(x + first * UNIT * 2, at["x"], is_there)
        if e < steps and d % spans == 0:
            group = min(first >> shift, scale.size.g - 1)
            load_scales(s, at, scale.at(ps, g=group), zero.at(pz, g=group))
            f["sums"] = zero_sums[T]()
        for h in static_range(2 if width == 4 else 1):
            low = part_of_sums[i32](codes, 2 * e)
            high = part_of_sums[i32](codes, 2 * e + 1)
            rows = join_sums[i32](
                pair_of(low, 2 * h, s["pair", 0]), pair_of(high, 2 * h, s["pair", 1]),
                pair_of(low, 2 * h + 1, s["pair", 0]), pair_of(high, 2 * h + 1, s["pair", 1]),
            )  # fmt: skip
            f["sums"] = mma[T](rows, f["x"], h if width == 4 else e, f["sums"])
        if steps == 2 or (e == 1 and d % spans == spans - 1):
            for i in static_range(4):
                c[i] = fma(part_of_sums[f32](f["sums"], i), s[i // 2], c[i])


@kernel(
    over="n/columns", x="m k", scale="n g", zero="n g", y="m n", p="m n", q="m n", r="m n",
    part="tile w i lane",
)  # fmt: skip
def code_tiles(
    x: Tensor, codes: Ptr, scale: Tensor, zero: Tensor, y: Tensor, p: Tensor, q: Tensor, r: Tensor,
    part: Tensor, units, pieces, shift, columns, *, T, out, width, warps, steps, spans, body, first, second,
    third,
):  # fmt: skip
    """T, out: element types of x and y. `units`: of a row of x, in `pieces` pieces; 2**`shift` of them are a
    group. `part`: each warp's sums. p, q, r: operands of the epilogue, of the types `first`, `second` and
    `third` ("": none)."""
    c, f, o, s, at, w = registers()
    each = (pieces + block_warps(warps, BLOCKS) * AHEAD - 1) // (warps * AHEAD) * AHEAD
    begin = warp_number() * each
    end = min(begin + each, pieces)
    lane = lane_numbers[i32]()
    number = lane >> const[i32](2)
    at["unit"] = lane & const[i32](3)
    at["line"] = lane_numbers[i64]() * const[i64](16)
    at["is_row"] = number < spread[i32](y.size.m)
    at["x"] = cast[i64](number) * spread[i64](x.stride.m) + cast[i64](at["unit"]) * const[i64](UNIT * 2)
    for column, ps, pz, py, pp, pq, pr in items(scale, zero, y, p, q, r):
        tile = column // columns
        for i in static_range(2):  # columns that are not there repeat the last one
            there = minimum(number + const[i32](8 * i), spread[i32](y.size.n - 1 - column))
            at["scale", i] = there * spread[i32](scale.stride.n // 4)
            at["zero", i] = there * spread[i32](zero.stride.n // 4)
        for i in static_range(4):
            c[i] = const[f32](0)
        for piece in range(begin, end, AHEAD):
            for d in static_range(AHEAD):
                source = codes + (tile * pieces + piece + d) * PIECE
                w[d] = load_fragment(source, at["line"], spread[i64](piece + d) < spread[i64](end))
            for d in static_range(AHEAD):
                last = min(units, end * (32 // width))
                add_piece(
                    c, f, s, at, x, w[d], scale, ps, zero, pz, (piece + d) * (32 // width), last, shift, d
                )  # fmt: skip
        for i in static_range(4):
            store[f32](part.at(tile=tile, w=warp_number(), i=i), c[i])
        meet_block()
        index = ((lane & const[i32](7)) << const[i32](2)) + ((lane & const[i32](8)) << const[i32](3))
        for row in range(warp_number(), y.size.m, warps):
            total = const[f32](0)
            for v in static_range(warps):
                source = part.at(tile=tile, w=v) + row % 2 * 128 + row // 2 * 4
                total = total + take[f32](source, index)
            store_results(
                o, total, min(y.size.n - column, columns), y.at(py, m=row), y.stride.n, p.at(pp, m=row),
                p.stride.n, q.at(pq, m=row), q.stride.n, r.at(pr, m=row), r.stride.n,
            )  # fmt: skip


def parts_of_group(width: int, group: int) -> dict[str, int]:
    """The constants of `code_tiles` for groups of so many units: parts of a piece that are scaled apart, and
    pieces that are scaled together."""
    pieces = group * width // 32
    return {"steps": 1 if pieces else 2, "spans": min(max(pieces, 1), AHEAD)}


def takes_codes(dtype: str, width: int, group: int, zeros: np.ndarray) -> bool:
    """True if `code_tiles` takes codes with these zeros, from 0 on. `group`: units of a group."""
    most = {"f16": 255, "bf16": 127}.get(dtype, -1)
    is_exact = width == 4 or most == 255
    return (
        group >= LEAST_GROUP and is_exact and bool(((zeros >= 0) & (zeros <= most) & (zeros % 1 == 0)).all())
    )


def pack_words(rows: np.ndarray, width: int) -> np.ndarray:
    """Codes [n, k] as words [n, units, words of a unit]."""
    n, k = rows.shape
    units = rows.reshape(n, k // UNIT, UNIT)[..., ORDER[width]]
    if width == 4:  # the code of the next place is in the upper half of a byte
        units = units[..., 0::2] | units[..., 1::2] << np.uint8(4)
    words: np.ndarray = np.ascontiguousarray(units).view(np.uint32)
    return words


def arrange_codes(words: np.ndarray) -> np.ndarray:
    """Words of codes in the order of `code_tiles`."""
    n, units, count = words.shape
    each = 8 // count
    room = ((0, -n % TILE), (0, -units % each), (0, 0))
    tiles, pieces = ceil_div(n, TILE), ceil_div(units, each)
    # [tile, half, g, piece, step, t, word] -> [tile, piece, g, t, step, word, half]
    parts: Any = np.pad(words, room).reshape(tiles, 2, 8, pieces, each // 4, 4, count)
    return np.ascontiguousarray(parts.transpose(0, 3, 2, 5, 4, 6, 1))
