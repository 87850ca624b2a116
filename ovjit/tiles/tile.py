"""Tiles as intrinsics of kernels. Each target has the tiles that suit its multiply instructions."""

from __future__ import annotations

import functools
from typing import Any

from ovjit.codegen.cpu.formats import F32, Format, wide_heights
from ovjit.codegen.cpu.ir import Epilogue
from ovjit.codegen.cpu.targets import Target
from ovjit.tiles.in_python import run_tile
from ovjit.tiles.micro import Tile, WideTile, arguments, functions


def make_tile(
    isa: Target,
    rows: int,
    vectors: int,
    epilogue: Epilogue,
    form: Format = F32,
    blocked: bool = False,
    fewest: int = 1,
) -> Any:
    """The Numba intrinsic of one tile size. `epilogue` gets accumulators of type `form.acc`; `k` counts
    words.

    `blocked`: `n2` counts blocks of `BLOCK` words of the depth k. Each is summed by itself and then added,
    since the rounding error of a sum grows with the length of its chain. `fewest`: at least so many pixels
    are given, and the last of them is repeated for all missing ones.

    The address table holds `TABLE` int64s for each of: input pixels, output pixels, pixel operands. The tile
    is a function of its own, printed as text. Code that depends on types is in functions that are inlined
    into it.
    """
    from ovjit.codegen.cpu import llvm_parts

    name = f"tile_{rows}_{vectors}"
    text = _printer(isa, form, rows)(isa, rows, vectors, epilogue, form, blocked, fewest).text(name)
    count = len(arguments(isa, form)) + epilogue.shared_operands
    tile = llvm_parts.calling(name, count, {**functions(isa, epilogue, form), name: text})
    tile.in_python = functools.partial(
        run_tile, rows, vectors, epilogue, form, blocked, rows in wide_heights(isa, form)
    )
    return tile


def _printer(isa: Target, form: Format, rows: int) -> type[Tile]:
    """The class that prints tiles of `rows` rows for an instruction set."""
    if rows in wide_heights(isa, form):
        return WideTile
    if isa.name != "neon":
        return Tile
    if form.has_matrix and rows % 2 == 0:
        from ovjit.tiles.by_pairs import PackedPairTile, PairTile

        return PackedPairTile if form.paired else PairTile
    if form.paired:
        from ovjit.tiles.by_pairs import PackedLaneTile

        return PackedLaneTile
    if "high" in dict(form.more):
        from ovjit.tiles.by_halves import HalfTile

        return HalfTile
    from ovjit.tiles.by_lane import LaneTile

    return LaneTile
