"""The driver around the micro-kernel: a kernel that loops over the pixels and weight panels of a chunk.

Pixels are N x OH x OW of a convolution, or rows of a matrix product. A chunk is a range of pixels times a
range of weight panels. For each tile of pixels the driver writes their addresses into a small table, which
all panels share.
"""

from __future__ import annotations

import functools
from typing import Any

from ovjit.codegen.cpu.formats import BF16, F32, SIGNS, WORD, Format, tile_heights, wide_heights
from ovjit.codegen.cpu.ir import Epilogue, Operand
from ovjit.codegen.cpu.targets import CACHE_LINE, SET_BYTES, Target
from ovjit.codegen.kernel_language import *
from ovjit.records import NamedTuple
from ovjit.tiles.compressed import StoredWeights, Unpack, unpack_panels
from ovjit.tiles.sizes import RUN_BITS, TABLE, WAYS

#: Minimum bytes of pixels for prefetches of the next tile's pixels, which may not be in the second-level
#: cache. Convolutions on batches of six text lines, with layers of 2 MB and more, take about 5 % less time.
#: With a minimum of 64 KB, products of bytes of depth 64 would gain 3 % with cold caches. Layers of 7x7
#: pixels would lose 20 %, as the requests delay their weights.
FAR_PIXELS = 384 * 1024
#: Minimum bytes of a product's weights that are not in the second-level cache at its begin.
FAR_WEIGHTS = 1 << 20

tile = Word("tile")
#: The epilogue's operands: addresses; for operands with pixels also the byte strides of image, row, column
#: and group.
OPERANDS: Any = Each("operands", "n h w g", unless="shared")


def _shared(operands: tuple[Operand, ...]) -> list[int]:
    return [n for n, o in enumerate(operands) if o.shared]


@inline
def begin_row(at, first, rows):
    """Compute the addresses of the current pixel from its indices."""
    for row in static_range(rows):
        at[row] = (
            first[row] + at["img"] * first[row, "n"] + at["i"] * first[row, "h"] + at["j"] * first[row, "w"]
        )


@inline
def next_pixel(at, first, rows, oh, ow):
    """Advance to the next pixel: addresses are incremented, and computed again at the end of a row."""
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
def offsets_over_runs(offsets, word_offsets, words, starts, each, run, *, sorting, sums):
    """Write the byte offset of each word into `offsets`, if words are in several runs of `each` bytes.
    `word_offsets` refer to runs; the plan has the strides of runs of `run` bytes, which may contain several
    of these. The begin of each run is written to `starts`."""
    n = 0
    at = 0
    run_i = 0
    run_j = 0
    while n < sorting.runs:
        st[i64](starts + n * 8, run_i * sums.s1 + run_j * sums.s2 + at)
        n += 1
        at += each
        if at >= run:
            at = 0
            run_j += 1
            if run_j == sums.n2:
                run_j = 0
                run_i += 1
    n = 0
    while n < words:
        word_offset = ld(word_offsets, n)
        st[i64](offsets + n * 8, ld(starts, word_offset >> RUN_BITS) + (word_offset & ((1 << RUN_BITS) - 1)))
        n += 1


@inline
def begin_at(first, row, begin, n, h, w):
    """Store a tensor's address and strides."""
    first[row] = begin
    first[row, "n"] = n
    first[row, "h"] = h
    first[row, "w"] = w


@inline
def gather_windows(to, pixels, gathering):
    """Copy the windows of the table's pixels to contiguous memory, and write their new addresses to the
    table. Two pixels at a time: one at a time, half of the gain was lost."""
    target = to
    for m in range(0, pixels, 2):
        source = ld(scratch, m)
        other = ld(scratch, m + 1)
        st[i64](scratch + m * 8, target)
        st[i64](scratch + m * 8 + 8, target + gathering.packed)
        destination = target
        for _ in range(gathering.lines):
            store[i16](destination, load[i16](source))
            store[i16](destination + gathering.packed, load[i16](other))
            source += gathering.line_step
            other += gathering.line_step
            destination += gathering.line
        target += 2 * gathering.packed


@inline
def pair_pixels(to, height, sums, flips):
    """Copy the windows of the table's pixels for a tile of `height` rows that reads two pixels at a time: two
    words of each pixel, then the next two, padded with zeros to whole steps. `flips`: the sign of each byte
    changes. The table's first entry then has the address of the copy."""
    m = 0
    while m < height:
        destination = to + m * 8
        line = ld(scratch, m)
        other = ld(scratch, m + 1) - line
        i = 0
        while i < sums.n1:
            run = line
            j = 0
            while j < sums.n2:
                p = run
                remaining = sums.k
                while remaining >= 4:
                    first = ld(p, 0)
                    second = ld(p, 1)
                    third = ld(p + other, 0)
                    fourth = ld(p + other, 1)
                    if flips:
                        first = first ^ SIGNS
                        second = second ^ SIGNS
                        third = third ^ SIGNS
                        fourth = fourth ^ SIGNS
                    st[i64](destination, first)
                    st[i64](destination + 8, third)
                    destination += height * 8
                    st[i64](destination, second)
                    st[i64](destination + 8, fourth)
                    destination += height * 8
                    p += 16
                    remaining -= 4
                if remaining > 0:
                    first = ld(p, 0)
                    third = ld(p + other, 0)
                    if flips:
                        first = first ^ SIGNS
                        third = third ^ SIGNS
                    st[i64](destination, first)
                    st[i64](destination + 8, third)
                    destination += height * 8
                run += sums.s2
                j += 1
            line += sums.s1
            i += 1
        if sums.n1 * sums.n2 * sums.k & 2 != 0:
            st[i64](destination, 0)
            st[i64](destination + 8, 0)
        m += 2
    st[i64](scratch, to)


@inline
def widen_pixels(to, pitch, count, tall, sums, *, half, in_blocks):
    """Copy the windows of the table's first `count` pixels of type `half` to adjacent f32, `pitch` bytes
    apart, and write their new addresses to the table. `in_blocks`: taps are blocks of a run of words."""
    target = to
    for m in range(count):
        line = ld(scratch, m)
        st[i64](scratch + m * 8, target)
        destination = target
        for _i in range(1 if in_blocks else sums.n1):
            run = line
            for _j in range(1 if in_blocks else sums.n2):
                for k in range(0, 2 * sums.k, VL):
                    n = 2 * sums.k - k
                    storem[f32](destination + k * 4, loadm[half](run + k * 2, n), n)
                destination += 8 * sums.k
                run += sums.s2
            line += sums.s1
        target += pitch
    for m in range(count, tall):
        st[i64](scratch + m * 8, target - pitch)


class GroupStrides(NamedTuple):
    """Strides of groups and of panels. Kernels name these fields, and those below, in their source."""

    x_g: int  # bytes between groups of x
    w_g: int  # bytes between groups of weights
    w_panel: int  # bytes between panels of weights
    y_g: int  # bytes between groups of y
    outs_g: int  # output channels between groups
    b_step: int  # bytes between panels of the bias


class Pixels(NamedTuple):
    """Byte strides of image, row and column of x and y, and the extents of the output."""

    x_n: int
    x_h: int
    x_w: int
    y_n: int
    y_h: int
    y_w: int
    oh: int  # output rows
    ow: int  # output columns
    pixels: int


class Sums(NamedTuple):
    """The reduction: an outer and an inner loop over runs of words that are contiguous in x."""

    n1: int  # outer iterations
    s1: int  # bytes between them
    n2: int  # inner iterations
    s2: int  # bytes between them
    k: int  # words of a run


class Shares(NamedTuple):
    """The division of the work into chunks, and prefetching."""

    pixels_per_chunk: int  # pixels of a chunk
    by_pixels: int  # whether chunks of a run share their pixels, not their panels
    run: int  # consecutive chunks that share them
    panels_per_chunk: int  # weight panels of a chunk
    panel_chunks: int  # chunks along the panels
    ahead_step: int  # bytes of weights that a word prefetches
    tile_ahead: int  # bytes of weights that a tile prefetches


class ChosenWeights(NamedTuple):
    """Weights that each group selects by an index."""

    picks: Ptr  # the indices
    none: Ptr  # a panel of zeros
    picks_g: int  # bytes between indices
    kinds: int  # the number of weights


class SortedWords(NamedTuple):
    """Words of weights that are permuted, see `ovjit.tiles.narrow`."""

    word_offsets: Ptr  # the run of each word, and its offset there
    steps: Ptr  # the numbers of words of each variant of the product
    runs: int


class Gathering(NamedTuple):
    """Windows that are copied to contiguous memory."""

    lines: int  # lines of a window
    line_step: int  # bytes between lines
    line: int  # bytes of a line
    packed: int  # bytes of a window without gaps
    wide_at: int  # offset in scratch memory of windows that are widened to f32
    wide_pitch: int  # bytes between those


@inline
def begin_chunk(at, first, x, y, w, e, *, panels, strides, grid, shares, chosen, operands, picked):
    """Compute the ranges of a chunk: at["part"], its group; panels from at["panel"] on, weights at at["w"],
    with at["w_panel"] bytes between panels; pixels from at["p"] to at["stop"], the first in row at["i"] and
    column at["j"] of image at["img"]. `first`: the tensors' addresses."""
    block = urem(chunk, shares.run)
    panel_block = udiv(chunk, shares.run)
    if shares.by_pixels:
        block = panel_block
        panel_block = urem(chunk, shares.run)
    part = udiv(panel_block, shares.panel_chunks)
    at["part"] = part
    at["panel"] = urem(panel_block, shares.panel_chunks) * shares.panels_per_chunk
    at["stop_panel"] = min(at["panel"] + shares.panels_per_chunk, panels)
    at["p"] = block * shares.pixels_per_chunk
    at["stop"] = min(at["p"] + shares.pixels_per_chunk, grid.pixels)
    at["img"] = udiv(at["p"], grid.oh * grid.ow)
    pixel = urem(at["p"], grid.oh * grid.ow)
    at["i"] = udiv(pixel, grid.ow)
    at["j"] = urem(pixel, grid.ow)
    at["w_panel"] = strides.w_panel
    if picked:
        kind = ld(chosen.picks + part * chosen.picks_g, 0)
        if kind < 0:
            kind += chosen.kinds
        if kind < 0 or kind >= chosen.kinds:
            at["w"] = chosen.none
            at["w_panel"] = 0
        else:
            at["w"] = w + kind * strides.w_g
    else:
        at["w"] = w + part * strides.w_g
    begin_at(first, 0, x + part * strides.x_g, grid.x_n, grid.x_h, grid.x_w)
    begin_at(first, 1, y + part * strides.y_g, grid.y_n, grid.y_h, grid.y_w)
    for n, o in enumerate(operands):
        if not o.shared:
            first[o.where] = e[n] + part * e[n, "g"]
            for along in "nhw":
                first[o.where, along] = e[n, along]


@kernel(
    stored=Raw(StoredWeights), strides=Raw(GroupStrides), grid=Raw(Pixels), sums=Raw(Sums),
    shares=Raw(Shares), chosen=Raw(ChosenWeights), gathering=Raw(Gathering), sorting=Raw(SortedWords),
)  # fmt: skip
def tiles(
    x: Ptr, w: Ptr, b: Ptr, y: Ptr, stored, strides, grid, outs, panels, sums, shares, chosen, gathering,
    sorting, e=OPERANDS, *, operands, rows, heights, vectors, lanes, group, listed, ways, unpack, picked,
    gathered, paired, flips, tall_wide, half, in_blocks,
):  # fmt: skip
    """Compute one chunk. `run` consecutive chunks have the same panels, or with `by_pixels` the same pixels.

    `rows`: rows of the address table. `group`: elements of a word. `listed`: words are permuted, and each has
    one of `ways` variants of the product (`ovjit.tiles.narrow`). `unpack`: the storage of compressed weights,
    or None. `picked`: `picks` has the index of each group's weights among `kinds`. Negative indices count
    from the end. Indices out of range select `none`, a panel of zeros. `gathered`: a pixel's window has
    `lines` lines of `line` bytes, which are first copied to `packed` contiguous bytes. `paired`: the windows
    of two pixels are first copied side by side. `flips`: 128 is subtracted from each of their bytes.
    `tall_wide`: heights of tiles whose pixels are first widened to f32."""
    first, at, order = registers()
    shared = _shared(operands)
    begin_chunk(at, first, x, y, w, e)
    w = at["w"]
    panel_bytes = at["w_panel"]
    part = at["part"]
    first_panel = at["panel"]
    stop_panel = at["stop_panel"]
    p = at["p"]
    stop = at["stop"]
    if unpack:
        unpacked = scratch + rows * TABLE * 8
        unpack_panels(unpacked, first_panel, stop_panel, outs, panel_bytes, vectors)
        w = unpacked - first_panel * panel_bytes
    if listed:
        words = sums.n1 * sums.n2 * sums.k * vectors
        offsets = sorting.word_offsets + (part * panels + first_panel) * words * 8
        if sorting.runs > 1:
            offsets_in_runs = offsets
            starts = scratch + rows * TABLE * 8
            offsets = starts + sorting.runs * 8
            count = (stop_panel - first_panel) * words
            each = udiv(sums.n1 * sums.n2 * sums.k, sorting.runs) * WORD
            offsets_over_runs(offsets, offsets_in_runs, count, starts, each, sums.k * WORD)
    begin_row(at, first, rows)
    tall = heights[0]
    splits = lanes == 8 and not gathered and not paired
    lowers = lanes == 16 and not gathered and not paired
    if lanes == 16 and not gathered and not tall_wide:
        pitch = grid.x_w
        if grid.ow == 1:
            pitch = grid.x_h
        if pitch & (SET_BYTES - 1) == 0:
            # 14 rows in the same set of the cache evict one another. On a Zen 4, products of depth 1,024 in
            # f32 take 0.76 of the time in tiles of fewer rows.
            tall = heights[1]
    while p < stop:
        remaining = stop - p
        if splits and remaining > heights[0] and remaining <= 2 * heights[1]:
            # two equal tiles for the last rows: 8 rows of weights in 4 bits take 0.93 of the time on AVX2
            tall = heights[1]
        if lowers and remaining > heights[1] and remaining <= heights[1] + heights[2]:
            # Two lower tiles for the last 8 to 11 rows: 64 rows take 0.93 of the time, 22 rows 0.83. The
            # first tile of a chunk waits for large weights anyway: there 8 rows took 1.05 to 1.3 of the time.
            if p > at["p"] or panels * panel_bytes < FAR_WEIGHTS:
                tall = heights[1]
                if remaining <= 2 * heights[2]:
                    tall = heights[2]  # a tile of one row waits for its sums as long as one of four
        count = min(tall, remaining)
        # Addresses are stored one by one. After vector stores, the tile's loads wait for them: 16 channels in
        # f32 take 1.19 of the time, bytes of depth 64 take 0.98. An incomplete tile repeats the last pixel.
        m = 0
        while m < tall:
            for row in static_range(rows):
                st[i64](scratch + row * TABLE * 8 + m * 8, at[row])
            m += 1
            if m < count:
                next_pixel(at, first, rows, grid.oh, grid.ow)
        next_pixel(at, first, rows, grid.oh, grid.ow)
        if gathered:
            gather_windows(scratch + rows * TABLE * 8, heights[0], gathering)
        if paired:
            for size, less in choices(heights):
                if less == 0 or count > less:
                    pair_pixels(scratch + rows * TABLE * 8, size, sums, flips)
                    break
        if tall_wide and count > heights[len(tall_wide)]:
            widen_pixels(scratch + gathering.wide_at, gathering.wide_pitch, count, tall, sums)
        # The part of the next chunk's weights that this tile prefetches. Behind unpacked panels the scratch
        # memory ends: prefetches of addresses without memory made products of 32,000 columns 20 times slower.
        ahead = w + udiv(p + (heights[0] - tall), heights[0]) * shares.tile_ahead
        if not unpack:
            ahead += shares.panels_per_chunk * panel_bytes
        soon = ahead + first_panel * panel_bytes
        soon_step = shares.ahead_step
        if lanes == 16 and stop_panel - first_panel > 1 and grid.pixels * sums.k >= FAR_PIXELS // WORD:
            # the first panel prefetches the next pixels instead
            soon = at[0]
            soon_step = CACHE_LINE
        for c in range(first_panel, stop_panel):
            valid = outs - c * vectors * lanes
            if listed:
                order["offsets"] = offsets + (c - first_panel) * words * 8
                order["steps"] = sorting.steps + (part * panels + c) * (8 * vectors * ways)
            lists = ("offsets", "steps") if listed else ()
            for width in (vectors, 1):
                if width == 1 or valid > lanes:
                    for size, less in choices(heights):
                        if less == 0 or count > less:
                            tile[size, width](
                                scratch, w + c * panel_bytes, b + (part * panels + c) * strides.b_step,
                                sums.n1, sums.s1, sums.n2, sums.s2, sums.k,
                                part * strides.outs_g + c * vectors * lanes, valid, soon, soon_step,
                                *(order[name] for name in lists), *(e[n] for n in shared),
                            )  # fmt: skip
                            break
                    break
            soon = ahead + (c + 1) * panel_bytes
            soon_step = shares.ahead_step
        p += tall


@functools.lru_cache(512)
def _driver(
    operands: tuple[Operand, ...], rows: int, isa: Target, heights: tuple[int, ...], group: int, listed: bool,
    unpack: Unpack | None, picked: bool, gathered: bool, paired: bool, flips: bool,
    wide_rows: tuple[int, ...], in_blocks: bool,
) -> Kernel:  # fmt: skip
    """The driver's kernel, without the tile functions that it calls."""
    return tiles.kernel(
        "", operands=operands, rows=rows, heights=heights, vectors=isa.tile_vectors,
        lanes=isa.lanes, group=group, listed=listed, ways=len(WAYS), unpack=unpack, picked=picked,
        gathered=gathered, paired=paired, flips=flips, tall_wide=wide_rows, half=BF16.a, in_blocks=in_blocks,
    )  # fmt: skip


def choices(heights: tuple[int, ...]) -> list[tuple[int, int]]:
    """(height, number of rows up to which the next smaller height suffices) of each tile."""
    return list(zip(heights, (*heights[1:], 0), strict=True))


def tile_kernel(
    name: str, epilogue: Epilogue, isa: Target, form: Format = F32, blocked: bool = False,
    unpack: Unpack | None = None, picked: bool = False, gathered: bool = False,
) -> Kernel:  # fmt: skip
    """The driver for one epilogue and format. Everything else about the problem is in its arguments.

    `blocked`: sums in blocks, see `make_tile`. `unpack`: the storage of compressed weights. `picked`: indices
    select the weights of each group. `gathered`: windows are copied to contiguous memory before the products.
    """
    heights = tile_heights(isa, form)
    text = _driver(
        tuple(epilogue.operands), epilogue.table_rows, isa, heights, form.group if unpack else 1, form.listed,
        unpack, picked, gathered, form.paired, form.paired and form.flips, wide_heights(isa, form),
        form.widens and blocked,
    )  # fmt: skip

    def intrinsics(target: Target) -> dict[str, Any]:
        from ovjit.tiles.tile import make_tile  # where the kernel is compiled

        return {
            f"tile_{r}_{v}": make_tile(target, r, v, epilogue, form, blocked, less + 1)
            for r, less in choices(heights)
            for v in (isa.tile_vectors, 1)
        }

    how = (" in blocks" if blocked else "") + (" in an order" if form.listed else "")
    how += " flipped" * form.flips + " in pairs" * form.paired + " widened" * form.widens
    return Kernel(name, text.source, text.frame, intrinsics, f"{form.name}{how} {epilogue.text()}", form.name)
