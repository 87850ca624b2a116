"""The driver of a matrix unit: products of blocks of 32 pixels and 32 channels, up to 16 words of depth
at once.

    for each tile of pixels
        copy its windows, unless the unit reads them in place
        for each weight panel
            sums = bias + windows * panel        four blocks of 16 x 16 in tile registers
            out = epilogue(sums, operands...)    row by row, from scratch memory

The epilogue of a tile runs after the products of the next tile are issued. So the unit has work meanwhile.

Arguments, panels and epilogues are those of `ovjit.tiles.driver`. A *line* is what the unit loads for one
pixel: at most 64 bytes of its window. It loads the lines of 16 pixels, at a constant distance. It reads
windows in place if each run of adjacent elements divides into lines of equal length. A block then covers
pixels of several image rows, and the input pixels between them, whose sums are discarded. Otherwise windows
are copied to contiguous memory, with zeros at the end.
"""

from __future__ import annotations

from typing import Any

from ovjit.codegen.cpu.amx import ROW_BYTES, ROWS, intrinsics
from ovjit.codegen.cpu.formats import WORD, Format
from ovjit.codegen.cpu.ir import Epilogue
from ovjit.codegen.cpu.targets import CACHE_LINE, Target
from ovjit.codegen.kernel_language import *
from ovjit.planning.plan import ceil_div
from ovjit.tiles.compressed import StoredWeights, Unpack, unpack_panels
from ovjit.tiles.driver import (
    OPERANDS,
    ChosenWeights,
    GroupStrides,
    Pixels,
    Shares,
    Sums,
    begin_chunk,
    begin_row,
)

#: Pixels of a tile, and words of a line.
PIXELS, LINE = 2 * ROWS, ROW_BYTES // WORD
#: Lines that the unit multiplies by a panel in the time that one line is copied.
IN_PLACE = 4
#: Bytes of a row of the address table, of a row of sums, and of all sums.
TABLE_ROW, SUMS_ROW = PIXELS * 8, 2 * ROW_BYTES
SUMS_BYTES = PIXELS * SUMS_ROW


def scratch_bytes(rows: int, words: Any) -> Any:
    """Scratch memory of the kernel: `rows` of the address table, `words` of a window."""
    return 2 * (rows + 1) * TABLE_ROW + SUMS_BYTES + PIXELS * (ceil_div(words, LINE) + 1) * ROW_BYTES


@inline
def set_line(a, at, sums, panels):
    """Set at["line"]: the words of a line if pixels are read in place, 0 if windows are copied.

    Bytes after a run must not be read, so a run must divide into lines of at most 16 words. Short lines take
    the unit as long as full ones. But if few panels read a window, copying it takes longer. a["line"] is the
    length of lines in both cases, and a["lines"] their number in each of a["n1"] times a["n2"] runs."""
    runs = sums.n1 * sums.n2
    a["n1"] = 1
    a["n2"] = 1
    a["line"] = LINE
    a["lines"] = udiv(runs * sums.k + LINE - 1, LINE)
    at["line"] = 0
    count = max(1, udiv(sums.k + LINE - 1, LINE))  # products may have no depth
    last = count + udiv(count, 3)
    most = a["lines"] * panels + IN_PLACE * runs * count
    while count <= last and at["line"] == 0:
        line = udiv(sums.k, count)
        if line * count == sums.k and runs * count * panels <= most:
            at["line"] = line
            a["n1"] = sums.n1
            a["n2"] = sums.n2
            a["line"] = line
            a["lines"] = count
        count += 1


@inline
def set_pitch(at, grid, sums):
    """Set at["pitch"]: pixels between image rows of the input, if these have at most a quarter more pixels
    than are computed; else 0. The pixels in between are multiplied, too, and their sums dropped, which takes
    less time than copying windows. at["joined"]: whether images follow one another without a gap.
    at["steady"]: whether windows may be read in place: distances between pixels are never less than the pitch
    implies."""
    at["pitch"] = 0
    at["joined"] = 0
    at["steady"] = 0
    if at["line"] > 0:
        if grid.pixels <= grid.ow:
            at["pitch"] = grid.ow
            at["steady"] = 1
        elif grid.x_w > 0 and grid.x_h >= grid.ow * grid.x_w:
            pitch = udiv(grid.x_h, grid.x_w)
            if pitch * grid.x_w == grid.x_h and pitch * 4 <= grid.ow * 5:
                at["pitch"] = pitch
            if grid.pixels <= grid.oh * grid.ow or grid.x_n >= grid.oh * grid.x_h:
                at["steady"] = 1
            if pitch == grid.ow and grid.x_n == grid.oh * grid.x_h:
                at["joined"] = 1


@inline
def list_pixels(at, first, table, rows, grid):
    """List the pixels of the next tile in a table: their addresses, and the offsets of their rows of sums.
    at["count"]: their number; at["low"]: the number in the first block. at["room"]: pixels that may be read
    in place from the first one on, including those whose sums are dropped."""
    at["room"] = (grid.oh - 1 - at["i"]) * at["pitch"] + grid.ow - at["j"]
    if at["joined"]:
        at["room"] = grid.pixels - at["p"]
    at["count"] = 0
    at["low"] = 0
    v = 0
    while v < PIXELS and at["p"] < at["stop"]:
        stop = v + min(min(PIXELS - v, grid.ow - at["j"]), at["stop"] - at["p"])
        at["j"] += stop - v
        at["p"] += stop - v
        if v < ROWS:
            at["low"] = at["count"] + min(stop, ROWS) - v
        while v < stop:
            for row in static_range(rows):
                st[i64](table + row * TABLE_ROW + at["count"] * 8, at[row])
                at[row] += first[row, "w"]
            st[i64](table + rows * TABLE_ROW + at["count"] * 8, v * SUMS_ROW)
            at["count"] += 1
            v += 1
        if at["j"] == grid.ow:
            at["j"] = 0
            at["i"] += 1
            if at["pitch"] > 0:
                v += at["pitch"] - grid.ow
            if at["i"] == grid.oh:
                at["i"] = 0
                at["img"] += 1
                if at["pitch"] > 0 and at["joined"] == 0:
                    v = PIXELS
            begin_row(at, first, rows)
    if at["pitch"] == 0:
        at["room"] = at["count"]


@inline
def find_block(a, at, r, begin, stop, to, row, table, rows, grid, sums):
    """Set the addresses of block `r`, which has the table's pixels from `begin` to `stop`: the first at a[r,
    "first"], a[r, "row"] bytes between pixels. After a run, a[r, "j"] is added to the address, and after n2
    runs a[r, "i"]. If the block cannot be read in place, its windows are copied; each takes `row` bytes."""
    a[r, "row"] = 0
    if begin < stop and at["steady"] and at["room"] >= ROWS * (r + 1):
        offsets_row = table + rows * TABLE_ROW
        low = udiv(ld(offsets_row, begin), SUMS_ROW)
        high = udiv(ld(offsets_row, stop - 1), SUMS_ROW)
        if ld(table, stop - 1) - ld(table, begin) == (high - low) * grid.x_w:
            a[r, "first"] = ld(table, begin) - (low - r * ROWS) * grid.x_w
            a[r, "row"] = grid.x_w
            a[r, "j"] = sums.s2 - sums.k * WORD
            a[r, "i"] = sums.s1 - sums.n2 * sums.s2
    if a[r, "row"] == 0:
        a[r, "first"] = to + r * ROWS * row
        a[r, "row"] = row
        a[r, "j"] = 0
        a[r, "i"] = 0
        remainder = sums.k & (LINE - 1)
        m = begin
        while m < stop:
            target = to + udiv(ld(table + rows * TABLE_ROW, m), SUMS_ROW) * row
            copy_window(target, ld(table, m), sums, remainder)
            m += 1


@inline
def copy_window(to, window, sums, remainder):
    """Copy a window's runs to contiguous memory, with zeros at the end. `rest`: words of a run after its full
    vectors. All stores are of full vectors: the next run overwrites the excess."""
    target = to
    outer = window
    i = 0
    while i < sums.n1:
        run = outer
        j = 0
        while j < sums.n2:
            p = run
            end = run + (sums.k - remainder) * WORD
            while p < end:
                store[u32](target, load[u32](p))
                target += ROW_BYTES
                p += ROW_BYTES
            if remainder > 0:
                store[u32](target, loadm[u32](p, remainder))
                target += remainder * WORD
            run += sums.s2
            j += 1
        outer += sums.s1
        i += 1
    store[u32](target, const[u32](0))


@inline
def multiply(a, weights, bias, soon, soon_step, height, width):
    """Compute `height` times `width` blocks of 16 x 16 sums in tile registers: a["n1"] times a["n2"] runs of
    a["lines"] lines, at the addresses from `find_block`. Prefetches `soon_step` bytes per line, from `soon`
    on."""
    p = registers()
    for r in static_range(height):
        p[r] = a[r, "first"]
        for v in static_range(width):
            tile_load[2 * r + v](bias + v * ROW_BYTES, 0)
    panel = weights
    ahead = soon
    i = 0
    while i < a["n1"]:
        j = 0
        while j < a["n2"]:
            s = 0
            while s < a["lines"]:
                for v in static_range(width):
                    tile_load[6 + v](panel + v * ROW_BYTES, width * ROW_BYTES)
                for r in static_range(height):
                    tile_load[4 + r](p[r], a[r, "row"])
                    p[r] += a["line"] * WORD
                    for v in static_range(width):
                        tile_multiply[2 * r + v, 4 + r, 6 + v]()
                panel += width * a["line"] * ROW_BYTES
                stop = ahead + soon_step
                while ahead < stop:
                    prefetch_l2(ahead)
                    ahead += CACHE_LINE
                s += 1
            for r in static_range(height):
                p[r] += a[r, "j"]
            j += 1
        for r in static_range(height):
            p[r] += a[r, "i"]
        i += 1


@inline
def finish_tile(totals, of, rows, e, width, full, acc, *, lanes, operands, body, out):
    """Apply the epilogue to sums, and store the results of of["count"] pixels of of["table"]. Channels begin
    at of["channel"], and of["valid"] of them exist. `full`: all channels of the panel exist."""
    x, shared = registers()
    for n, o in enumerate(operands):
        for v in static_range(width):
            if o.kind == "number":
                shared[n, v] = splat[o.dtype](e[n])
            elif o.kind == "channel":
                address = e[n] + (of["channel"] + v * lanes) * SIZE[o.dtype]
                if full:
                    shared[n, v] = load[o.dtype](address)
                else:
                    shared[n, v] = loadm[o.dtype](address, of["valid"] - v * lanes)
    m = 0
    while m < of["count"]:
        line = totals + ld(of["table"] + rows * TABLE_ROW, m)
        target = ld(of["table"] + TABLE_ROW, m) + of["channel"] * SIZE[out]
        for v in static_range(width):
            for n, o in enumerate(operands):
                if o.shared:
                    x[n + 1] = shared[n, v]
                elif o.kind == "scalar":
                    x[n + 1] = splat[o.dtype](ld(of["table"] + o.where * TABLE_ROW, m))
                else:
                    address = (
                        ld(of["table"] + o.where * TABLE_ROW, m) + (of["channel"] + v * lanes) * SIZE[o.dtype]
                    )
                    if full:
                        x[n + 1] = load[o.dtype](address)
                    else:
                        x[n + 1] = loadm[o.dtype](address, of["valid"] - v * lanes)
            total = load[acc](line + v * ROW_BYTES)
            result = applied(body, total, *x)
            if full:
                store[out](target + v * lanes * SIZE[out], result)
            else:
                storem[out](target + v * lanes * SIZE[out], result, of["valid"] - v * lanes)
        m += 1


@kernel(
    stored=Raw(StoredWeights), strides=Raw(GroupStrides), grid=Raw(Pixels), sums=Raw(Sums),
    shares=Raw(Shares), chosen=Raw(ChosenWeights),
)  # fmt: skip
def matrix_tiles(
    x: Ptr, w: Ptr, b: Ptr, y: Ptr, stored, strides, grid, outs, panels, sums, shares,
    chosen, e=OPERANDS, *, operands, body, out, acc, rows, lanes, group, unpack, picked,
):  # fmt: skip
    """One chunk, see `ovjit.tiles.driver.tiles`. `acc`: the type of sums."""
    first, at, a, of = registers()
    totals = scratch + 2 * (rows + 1) * TABLE_ROW
    together = totals + SUMS_BYTES
    lines = udiv(sums.n1 * sums.n2 * sums.k + LINE - 1, LINE)
    window = (lines + 1) * ROW_BYTES
    begin_chunk(at, first, x, y, w, e)
    if unpack:
        unpacked = together + PIXELS * window
        unpack_panels(unpacked, at["panel"], at["stop_panel"], outs, strides.w_panel, 2)
        at["w"] = unpacked - at["panel"] * strides.w_panel
    set_line(a, at, sums, panels)
    set_pitch(at, grid, sums)
    begin_row(at, first, rows)
    of["count"] = 0
    of["valid"] = 0
    of["channel"] = 0
    of["table"] = scratch
    table = scratch
    c = at["stop_panel"]
    live = 1
    share = 0
    soon_step = (a["line"] * shares.ahead_step) & -CACHE_LINE
    tile_begin(a["line"])
    while live > 0:
        if c == at["stop_panel"]:
            live = 0
            if at["p"] < at["stop"]:
                live = 1
                # this tile's share of the weights that come next
                share = at["w"] + udiv(at["p"], PIXELS) * shares.tile_ahead
                if not unpack:  # see `driver`
                    share += shares.panels_per_chunk * at["w_panel"]
                table = 2 * scratch + (rows + 1) * TABLE_ROW - table
                list_pixels(at, first, table, rows, grid)
                find_block(a, at, 0, 0, at["low"], together, window, table, rows, grid, sums)
                find_block(a, at, 1, at["low"], at["count"], together, window, table, rows, grid, sums)
                c = at["panel"]
        valid = outs - c * 2 * lanes
        if live > 0:
            weights = at["w"] + c * at["w_panel"]
            bias = b + (at["part"] * panels + c) * strides.b_step
            soon = share + c * at["w_panel"]
            for width in (2, 1):
                if width == 1 or valid > lanes:
                    for height in (2, 1):
                        if height == 1 or at["count"] > at["low"]:
                            multiply(a, weights, bias, soon, soon_step, height, width)
                            break
                    break
        if of["count"] > 0:
            for width in (2, 1):
                if width == 1 or of["valid"] > lanes:
                    for full in (True, False):
                        if not full or of["valid"] >= width * lanes:
                            finish_tile(totals, of, rows, e, width, full, acc)
                            break
                    break
        if live > 0:
            for n in static_range(4):
                tile_store[n](totals + n // 2 * ROWS * SUMS_ROW + n % 2 * ROW_BYTES, SUMS_ROW)
            of["count"] = at["count"]
            of["table"] = table
            of["valid"] = valid
            of["channel"] = at["part"] * strides.outs_g + c * 2 * lanes
            c += 1
    tile_end()


def unit_kernel(
    name: str, epilogue: Epilogue, isa: Target, form: Format, unpack: Unpack | None, picked: bool
) -> Kernel:
    """The driver for one epilogue and format of a matrix unit: see `ovjit.tiles.driver_choice`."""

    def words(target: Target) -> dict[str, Any]:
        return intrinsics(form.name.removeprefix("amx_"))

    return matrix_tiles.kernel(
        name, words, form.name, form.name, rows=epilogue.table_rows, lanes=isa.lanes, group=form.group,
        unpack=unpack, picked=picked, acc=form.acc, **epilogue.constants(form.acc),
    )  # fmt: skip
