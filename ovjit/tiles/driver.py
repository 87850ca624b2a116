"""The driver around the micro-kernel: a kernel that walks the pixels and weight panels of a chunk.

Pixels (N x OH x OW of a convolution, rows of a matrix product) are numbered through; a chunk is a range of
pixels times a range of weight panels. For every tile of pixels the driver writes their addresses into a
small table, which all panels then share.
"""

from __future__ import annotations

import functools
from typing import Any

from ovjit.codegen.cpu.formats import F32, WORD, Format
from ovjit.codegen.cpu.ir import Epilogue, Operand
from ovjit.codegen.cpu.isa import Isa
from ovjit.codegen.function import inline, kernel
from ovjit.codegen.kernel import Kernel
from ovjit.codegen.words import *
from ovjit.compiler.copies import CACHE_LINE
from ovjit.tiles.compressed import Unpack, unpack_panels
from ovjit.tiles.micro import TABLE, make_tile
from ovjit.tiles.narrow import RUN_BITS, WAYS

#: Bytes of pixels from which on some are not in the second-level cache when their tile begins. Batches of six
#: lines of text, whose layers have two and more megabytes, gain some 5 % of their convolutions. From 64 KB on
#: bytes of depth 64 gain 3 % from cold caches, and layers of 7x7 pixels, whose weights come late, lose 20.
FAR_PIXELS = 384 * 1024
#: Tile heights for each instruction set: the full one, then what covers the rest of a chunk. Every height
#: costs some 40 ms of compilation; with 10 and 2 as well nothing but the last tile of a chunk was faster.
ROWS = {"avx512": (14, 7, 4, 1), "avx2": (6, 3, 1), "generic": (4, 2, 1)}

tile = Word("tile")
#: The epilogue's operands: addresses, and the bytes from image to image, row to row, column to column and
#: group to group of those that have pixels.
_OPERANDS: Any = Each("operands", "n h w g", unless="shared")


def _shared(operands: tuple[Operand, ...]) -> list[int]:
    return [n for n, o in enumerate(operands) if o.shared]


@inline
def begin_row(at, first, rows):
    """Addresses worked out anew."""
    for row in static_range(rows):
        at[row] = (
            first[row] + at["img"] * first[row, "n"] + at["i"] * first[row, "h"] + at["j"] * first[row, "w"]
        )


@inline
def next_pixel(at, first, rows, oh, ow):
    """Addresses go on by a pixel's stride, and begin anew where a row of pixels ends."""
    at["j"] += 1
    for row in static_range(rows):
        at[row] += first[row, "w"]
    if at["j"] == ow:
        at["j"] = 0
        at["i"] += 1
        if at["i"] == oh:
            at["i"] = 0
            at["img"] += 1
        begin_row(at, first, rows)


@inline
def offsets_over_runs(offsets, places, words, starts, runs, each, run, s1, n2, s2):
    """The byte offset of each word, where there are several runs of `each` bytes, into `offsets`: places name
    runs, whose strides belong to the plan. There runs of `run` bytes are adjacent, which may be several of
    these; where each begins goes into `starts`."""
    n = 0
    at = 0
    run_i = 0
    run_j = 0
    while n < runs:
        st[i64](starts + n * 8, run_i * s1 + run_j * s2 + at)
        n += 1
        at += each
        if at >= run:
            at = 0
            run_j += 1
            if run_j == n2:
                run_j = 0
                run_i += 1
    n = 0
    while n < words:
        place = ld(places, n)
        st[i64](offsets + n * 8, ld(starts, place >> RUN_BITS) + (place & ((1 << RUN_BITS) - 1)))
        n += 1


@inline
def begin_at(first, row, begin, n, h, w):
    """Where a tensor begins, and its strides."""
    first[row] = begin
    first[row, "n"] = n
    first[row, "h"] = h
    first[row, "w"] = w


@inline
def gather_windows(to, pixels, lines, line_step, line, packed):
    """Put the windows of the table's pixels together, and their new places into it. Two pixels by two: line
    by line half of what this gains was lost."""
    target = to
    for m in range(0, pixels, 2):
        source = ld(scratch, m)
        other = ld(scratch, m + 1)
        st[i64](scratch + m * 8, target)
        st[i64](scratch + m * 8 + 8, target + packed)
        place = target
        for _ in range(lines):
            store[i16](place, load[i16](source))
            store[i16](place + packed, load[i16](other))
            source += line_step
            other += line_step
            place += line
        target += 2 * packed


@kernel
def tiles(
    x: Ptr, w: Ptr, b: Ptr, y: Ptr, places: Ptr, steps: Ptr, runs, q: Ptr, s: Ptr, z: Ptr,
    lv: Ptr, q_panel, s_panel, z_panel, g_size, depth, y_g, c_g, b_step, x_n, x_h, x_w, y_n, y_h, y_w,
    oh, ow, pixels, x_g, w_g, w_panel, outs, panels, n1, s1, n2, s2, k, px_per, by_pixels, run, pn_per,
    pn_blocks, ahead_step, tile_ahead, picks: Ptr, none: Ptr, picks_g, kinds, lines, line_step, line, packed,
    e=_OPERANDS, *, operands, rows, heights, vectors, lanes, group, listed, ways, unpack, picked, gathered,
):  # fmt: skip
    """One chunk. `run` of them follow one another with the same panels, or `by_pixels` with the same pixels.
    `rows`: of a table; `group` elements are a word; `listed`: words have an order, of so many `ways`, see
    `ovjit.tiles.narrow`; `unpack`: how the weights are stored, where not as tiles read them, or None.
    `picked`: the weights of a group are those of `kinds` that `picks` names for it, from the end where it is
    negative, and out of range `none`: a panel of zeros. `gathered`: a pixel's window are `lines` of `line`
    bytes, two for a lane at most, which are put together first, `packed` bytes for a pixel."""
    first, at, order = registers()
    shared = _shared(operands)
    # the chunk's group, panels and pixels
    px_block = urem(chunk, run)
    rest = udiv(chunk, run)
    if by_pixels:
        px_block = rest
        rest = urem(chunk, run)
    part = udiv(rest, pn_blocks)
    first_panel = urem(rest, pn_blocks) * pn_per
    stop_panel = min(first_panel + pn_per, panels)
    p = px_block * px_per
    stop = min(p + px_per, pixels)
    at["img"] = udiv(p, oh * ow)
    rest = urem(p, oh * ow)
    at["i"] = udiv(rest, ow)
    at["j"] = urem(rest, ow)
    if picked:
        kind = ld(picks + part * picks_g, 0)
        if kind < 0:
            kind += kinds
        if kind < 0 or kind >= kinds:
            w = none
            w_panel = 0
        else:
            w += kind * w_g
    else:
        w += part * w_g
    begin_at(first, 0, x + part * x_g, x_n, x_h, x_w)
    begin_at(first, 1, y + part * y_g, y_n, y_h, y_w)
    for n, o in enumerate(operands):
        if not o.shared:
            first[o.where] = e[n] + part * e[n, "g"]
            for along in "nhw":
                first[o.where, along] = e[n, along]
    if unpack:
        unpacked = scratch + rows * TABLE * 8
        unpack_panels(
            unpacked, first_panel, stop_panel, q, s, z, lv, q_panel, s_panel, z_panel, g_size, depth, outs,
            w_panel, unpack, group, vectors, lanes,
        )  # fmt: skip
        w = unpacked - first_panel * w_panel
    if listed:
        words = n1 * n2 * k * vectors
        offsets = places + (part * panels + first_panel) * words * 8
        if runs > 1:
            given = offsets
            starts = scratch + rows * TABLE * 8
            offsets = starts + runs * 8
            count = (stop_panel - first_panel) * words
            each = udiv(n1 * n2 * k, runs) * WORD
            offsets_over_runs(offsets, given, count, starts, runs, each, k * WORD, s1, n2, s2)
    begin_row(at, first, rows)
    while p < stop:
        count = min(heights[0], stop - p)
        # One by one: made by vectors, they come late to tiles of 16 channels in f32, which then take 1.19
        # of the time (and bytes of depth 64, 0.98). A tile of too few pixels repeats the last one.
        m = 0
        while m < heights[0]:
            for row in static_range(rows):
                st[i64](scratch + row * TABLE * 8 + m * 8, at[row])
            m += 1
            if m < count:
                next_pixel(at, first, rows, oh, ow)
        next_pixel(at, first, rows, oh, ow)
        if gathered:
            gather_windows(scratch + rows * TABLE * 8, heights[0], lines, line_step, line, packed)
        # this tile's share of the weights that come next
        ahead = w + pn_per * w_panel + udiv(p, heights[0]) * tile_ahead
        soon = ahead + first_panel * w_panel
        soon_step = ahead_step
        if lanes == 16 and stop_panel - first_panel > 1 and pixels * k >= FAR_PIXELS // WORD:
            # while it sums its first panel, the pixels that come next
            soon = at[0]
            soon_step = CACHE_LINE
        for c in range(first_panel, stop_panel):
            valid = outs - c * vectors * lanes
            if listed:
                order["offsets"] = offsets + (c - first_panel) * words * 8
                order["steps"] = steps + (part * panels + c) * (8 * vectors * ways)
            lists = ("offsets", "steps") if listed else ()
            for wide in (vectors, 1):
                if wide == 1 or valid > lanes:
                    for size, less in zip(heights, (*heights[1:], 0), strict=True):
                        if less == 0 or count > less:
                            tile[size, wide](
                                scratch, w + c * w_panel, b + (part * panels + c) * b_step, n1, s1, n2, s2, k,
                                part * c_g + c * vectors * lanes, valid, soon, soon_step,
                                *(order[name] for name in lists), *(e[n] for n in shared),
                            )  # fmt: skip
                            break
                    break
            soon = ahead + (c + 1) * w_panel
            soon_step = ahead_step
        p += heights[0]


@functools.lru_cache(512)
def _driver(
    operands: tuple[Operand, ...], rows: int, isa: Isa, group: int, listed: bool, unpack: Unpack | None,
    picked: bool, gathered: bool,
) -> Kernel:
    """The kernel without its tiles."""
    return tiles.kernel(
        "", operands=operands, rows=rows, heights=ROWS[isa.name], vectors=isa.tile_vectors, lanes=isa.lanes,
        group=group, listed=listed, ways=len(WAYS), unpack=unpack, picked=picked, gathered=gathered,
    )  # fmt: skip


def tile_kernel(
    name: str,
    epilogue: Epilogue,
    isa: Isa,
    form: Format = F32,
    blocked: bool = False,
    unpack: Unpack | None = None,
    picked: bool = False,
    gathered: bool = False,
) -> Kernel:
    """The driver for one epilogue and format. Everything else about the problem is in its arguments.

    `blocked`: sums in blocks, see `make_tile`. `unpack`: how the weights are stored, where not as tiles read
    them. `picked`: indices name the weights of each group. `gathered`: windows are put together before they
    are multiplied.
    """
    made = _driver(
        tuple(epilogue.operands),
        epilogue.table_rows,
        isa,
        form.group if unpack else 1,
        form.listed,
        unpack,
        picked,
        gathered,
    )

    def intrinsics(target: Isa) -> dict[str, Any]:
        return {
            f"tile_{r}_{v}": make_tile(target, r, v, epilogue, form, blocked, less + 1)
            for r, less in zip(ROWS[isa.name], (*ROWS[isa.name][1:], 0), strict=True)
            for v in (isa.tile_vectors, 1)
        }

    how = (" in blocks" if blocked else "") + (" in an order" if form.listed else "")
    return Kernel(name, made.source, made.frame, intrinsics, f"{form.name}{how} {epilogue.text()}", form.name)
