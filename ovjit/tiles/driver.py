"""The driver around the micro-kernel: a kernel that walks the pixels and weight panels of a chunk.

Pixels (N x OH x OW of a convolution, rows of a matrix product) are numbered through; a chunk is a range of
pixels times a range of weight panels. For every tile of pixels the driver writes their addresses into a
small table, which all panels then share.
"""

from __future__ import annotations

import functools
from typing import Any

from ovjit.codegen.cpu.ir import Epilogue
from ovjit.codegen.cpu.isa import Isa
from ovjit.codegen.kernel import Frame, Kernel
from ovjit.tiles.compressed import Unpack
from ovjit.tiles.formats import F32, WORD, Format
from ovjit.tiles.micro import TABLE, make_tile
from ovjit.tiles.narrow import BIN, SOURCES
from ovjit.tiles.pack import tile_width

#: Tile heights for each instruction set: the full one, then what covers the rest of a chunk. Every height
#: costs some 40 ms of compilation; with 10 and 2 as well nothing but the last tile of a chunk was faster.
ROWS = {"avx512": (14, 7, 4, 1), "avx2": (6, 3, 1), "generic": (4, 2, 1)}


@functools.lru_cache(512)
def _frame(operands: str, unpack: Unpack | None, narrow: bool) -> Frame:
    """`operands` has one letter an epilogue operand: p by pixel, c shared by all pixels. `narrow`: there is a
    rest of the weights, see `ovjit.tiles.narrow`."""
    frame = Frame().pointers("x", "w", "b", "y")
    if narrow:
        frame.pointers("rest_words", "rest_places", "rest_firsts")
    if unpack is not None:
        pointers, integers = unpack.fields()
        frame.pointers(*pointers).integers(*integers)
    for i, kind in enumerate(operands):
        frame.pointers(f"e{i}")
        if kind != "c":
            frame.integers(f"e{i}_n", f"e{i}_h", f"e{i}_w", f"e{i}_g")
    frame.integers("y_g", "c_g", "b_step")
    frame.integers("x_n", "x_h", "x_w", "y_n", "y_h", "y_w", "oh", "ow", "pixels", "x_g", "w_g", "w_panel")
    frame.integers("outs", "panels", "n1", "s1", "n2", "s2", "k")
    return frame.integers("px_per", "px_blocks", "pn_per", "pn_blocks", "ahead_step", "tile_ahead")


def tile_kernel(
    name: str,
    epilogue: Epilogue,
    isa: Isa,
    form: Format = F32,
    blocked: bool = False,
    unpack: Unpack | None = None,
) -> Kernel:
    """The driver for one epilogue and format. Everything else about the problem is in its arguments.

    `blocked`: sums in blocks, see `make_tile`. `unpack`: how the weights are stored, where not as tiles read
    them.
    """
    rows = ROWS[isa.name]
    letters = "".join("c" if o.shared else "p" for o in epilogue.operands)
    frame = _frame(letters, unpack, bool(form.span))
    tables = epilogue.table_rows * TABLE * 8
    out = ["@njit(nogil=True)", "def kernel(bases, args, chunk, scratch):"]
    out += [f"    # {line}" for line in epilogue.text().splitlines()]
    out += [frame.prologue()]
    if unpack is not None:
        out += ["    " + line for line in unpack.constants(form, isa)]
    out += ["    " + line for line in _part_of_chunk(epilogue)]
    if unpack is not None:
        out += ["    " + line for line in unpack.lines(form, isa, tables)]
    if form.span:
        out += ["    " + line for line in _rest_offsets(isa.tile_vectors, tables)]
    out += ["    " + line for line in _over_pixels(epilogue, rows[0])]
    out += ["        # this tile's share of the weights that come next",
            f"        ahead = w + pn_per * w_panel + udiv(p, {rows[0]}) * tile_ahead"]  # fmt: skip
    out += ["        " + line for line in _over_panels(epilogue, isa, form)]
    out += [f"        p += {rows[0]}", "    return 0", ""]

    def intrinsics(target: Isa) -> dict[str, Any]:
        return {
            f"tile_{r}_{v}": make_tile(target, r, v, epilogue, form, blocked)
            for r in rows
            for v in (isa.tile_vectors, 1)
        }

    narrow = f" by {form.span} in 16 bits, rest of {form.window}" if form.span else ""
    how = (" in blocks" if blocked else "") + narrow
    text = f"{form.name}{how} {epilogue.text()}"
    return Kernel(name, "\n".join(out), frame, intrinsics, text, form.name)


def _part_of_chunk(epilogue: Epilogue) -> list[str]:
    """Lines that find the chunk's group, panels and pixels, and the place of its first pixel."""
    return [
        "px_block = urem(chunk, px_blocks)",
        "rest = udiv(chunk, px_blocks)",
        "group = udiv(rest, pn_blocks)",
        "first_panel = urem(rest, pn_blocks) * pn_per",
        "stop_panel = imin(first_panel + pn_per, panels)",
        "p = px_block * px_per",
        "stop = imin(p + px_per, pixels)",
        "img = udiv(p, oh * ow)",
        "rest = urem(p, oh * ow)",
        "i = udiv(rest, ow)",
        "j = urem(rest, ow)",
        "x += group * x_g",
        "w += group * w_g",
        "y += group * y_g",
        *(f"e{n} += group * e{n}_g" for n, o in enumerate(epilogue.operands) if not o.shared),
    ]


def _over_pixels(epilogue: Epilogue, height: int) -> list[str]:
    """Lines that go from tile to tile, and at each fill its table. Addresses go on by a pixel's stride and
    are worked out anew where a row ends; a tile of too few pixels repeats the last one."""
    walked = [("x", 0), ("y", 1)]
    walked += [(f"e{n}", o.where) for n, o in enumerate(epilogue.operands) if not o.shared]
    fresh = [f"{name}_at = {name} + img * {name}_n + i * {name}_h + j * {name}_w" for name, _ in walked]
    advance = ["j += 1", *(f"{name}_at += {name}_w" for name, _ in walked)]
    advance += ["if j == ow:", "    j = 0", "    i += 1"]
    advance += ["    if i == oh:", "        i = 0", "        img += 1"]
    advance += ["    " + line for line in fresh]
    return [
        *fresh,
        "while p < stop:",
        f"    rows = imin({height}, stop - p)",
        "    m = 0",
        f"    while m < {height}:",
        *(f"        st_i64(scratch + {row * TABLE * 8} + m * 8, {name}_at)" for name, row in walked),
        "        m += 1",
        "        if m < rows:",
        *(" " * 12 + line for line in advance),
        *(" " * 4 + line for line in advance),
    ]


def _over_panels(epilogue: Epilogue, isa: Isa, form: Format) -> list[str]:
    """Lines that call the tile of the pixels' height for each panel of the chunk."""
    rows, width = ROWS[isa.name], tile_width(isa)
    out = [
        "c = first_panel",
        *(["firsts = chunk_firsts"] if form.span else []),
        "while c < stop_panel:",
        f"    valid = outs - c * {width}",
    ]
    rest = ""
    if form.span:
        counts = [f"bins{v}" for v in range(isa.tile_vectors)]
        out += ["    at = ld(firsts, 0)"]
        out += [f"    {name} = ld(firsts, {v + 1}) - ld(firsts, {v})" for v, name in enumerate(counts)]
        out += [f"    firsts += {8 * isa.tile_vectors}"]
        one, windows = (SOURCES + 1) * BIN * isa.lanes * WORD, SOURCES * BIN
        rest = f", rest_words + at * {one}, places + (at - first_bin) * {windows * 8}, {', '.join(counts)}"
    channels = "".join(f", e{n}" for n, o in enumerate(epilogue.operands) if o.shared)
    call = (
        f"(scratch, w + c * w_panel, b + (group * panels + c) * b_step, n1, s1, n2, s2, k, "
        f"group * c_g + c * {width}, valid, ahead + c * w_panel, ahead_step{rest}{channels})"
    )
    for vectors, condition in ((isa.tile_vectors, f"if valid > {isa.lanes}:"), (1, "else:")):
        out += [f"    {condition}"]
        for n, size in enumerate(rows):
            test = "else:" if n == len(rows) - 1 else f"{'if' if n == 0 else 'elif'} rows > {rows[n + 1]}:"
            out += [f"        {test}", f"            tile_{size}_{vectors}{call}"]
    return [*out, "    c += 1"]


def _rest_offsets(vectors: int, tables: int) -> list[str]:
    """Lines that find the byte offset of each window of the rest for the panels of a chunk. They are counted
    over runs, whose strides belong to the plan: where there is more than one, they are worked out here."""
    return [
        f"chunk_firsts = rest_firsts + (group * panels + first_panel) * {8 * vectors}",
        "first_bin = ld(chunk_firsts, 0)",
        f"windows = (ld(chunk_firsts, (stop_panel - first_panel) * {vectors}) - first_bin) * {SOURCES * BIN}",
        f"places = rest_places + first_bin * {SOURCES * BIN * 8}",
        "if n1 * n2 > 1:",
        *("    " + line for line in _over_runs(tables)),
    ]


def _over_runs(tables: int) -> list[str]:
    """The same where there are several runs, into scratch memory."""
    return [
        "counted = places",
        f"places = scratch + {tables}",
        f"run = k * {WORD}",
        "n = 0",
        "begin = 0",
        "run_i = 0",
        "run_j = 0",
        "while n < windows:",
        "    at = ld(counted, n)",
        "    if at < begin:  # of another vector",
        "        begin = 0",
        "        run_i = 0",
        "        run_j = 0",
        "    while at >= begin + run:",
        "        begin += run",
        "        run_j += 1",
        "        if run_j == n2:",
        "            run_j = 0",
        "            run_i += 1",
        "    st_i64(places + n * 8, run_i * s1 + run_j * s2 + at - begin)",
        "    n += 1",
    ]
