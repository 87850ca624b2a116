"""Products of parts of the depth, and their sum, on GPUs.

A product with few rows and columns has fewer tiles than a card has warps. Where its depth is long, each warp
has a part of the depth of a tile. A further step adds the parts up in order, so results do not vary, and
applies the epilogue. An estimate of the time chooses the tile and the number of parts; one part is the
direct way.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ovjit.codegen.kernel import Kernel
from ovjit.planning.launch import launch
from ovjit.planning.plan import Planner, ceil_div
from ovjit.planning.views import View
from ovjit_ops.matmul.gpu_epilogues import result_and_operands
from ovjit_ops.matmul.gpu_products import (
    AT_ONCE,
    COLUMNS,
    LANES,
    MOST_ROWS,
    READ,
    STEP,
    SUMS,
    Tile,
    row_product,
    tensor_product,
)  # fmt: skip

#: Maximum parts, and minimum bytes of a row in a part: of tiles, and of few rows.
MOST_PARTS, LEAST_PART, LEAST_ROW_PART = 16, 1024, 4096
#: Products that a warp multiplies in the time of a further launch, some 2 us.
LAUNCH = 1_250_000
#: Estimated times of one part and of several, as a ratio, from which on there are several.
GAIN = 1.25
#: Warps that read few rows' columns at the bandwidth of a card's memory.
READERS = 1056
#: The constants of a kernel without an epilogue.
PLAIN: dict[str, Any] = dict.fromkeys(("body", "first", "second", "third"), "")


def counts_of_parts(depth: int, least: int) -> Iterator[int]:
    """Yield the numbers of parts of `depth` bytes, from 1 on: parts are whole steps of `least` bytes or
    more."""
    parts = 1
    while parts <= MOST_PARTS and (parts == 1 or depth % (parts * STEP) == 0 and depth // parts >= least):
        yield parts
        parts *= 2


def time_of(tile: Tile, parts: int, m: int, n: int, depth: int, count: int) -> float:
    """The estimated time of `count` products, in products of a warp. `depth`: bytes."""
    time = tile.cost(m, n, count * parts) * (depth / parts / 2)
    if parts > 1:  # numbers of 4 bytes are written, read, and written
        time += LAUNCH + READ * 2 * (2 * parts + 1) * count * m * n / AT_ONCE
    return time


def choose_parts(tiles: Sequence[Tile], m: int, n: int, depth: int, count: int) -> tuple[Tile, int]:
    """The tile and the number of parts with the least estimated time. Several parts of all tiles are
    multiplied at a time."""
    one, *several = counts_of_parts(depth, LEAST_PART)

    def time(choice: tuple[Tile, int]) -> float:
        return time_of(*choice, m, n, depth, count)

    direct = min(tiles, key=lambda tile: tile.cost(m, n)), one
    choices = ((tile, parts) for tile in tiles for parts in several)
    at_once = (choice for choice in choices if choice[0].tiles_of(m, n) * choice[1] * count <= AT_ONCE)
    best = min(at_once, key=time, default=direct)
    return best if time(best) * GAIN < time(direct) else direct


def parts_of_rows(n: int, depth: int, count: int) -> int:
    """The number of parts for few rows: more until enough warps read columns."""
    items = ceil_div(n, COLUMNS) * count
    return max(p for p in counts_of_parts(depth, LEAST_ROW_PART) if p == 1 or items * p <= READERS)


class DepthParts:
    """The kernels of products of parts of the depth. `dtype`: the type of factors; `sum_kernel`: see
    `add_parts`."""

    def __init__(self, tiles: Sequence[Tile], has_rows: bool, dtype: str, sum_kernel: Kernel):
        sums = SUMS[dtype]
        self.sum_kernel = sum_kernel
        self.by_tile = {
            tile: tensor_product.kernel(
                "_".join(map(str, ("tensor_product_parts", dtype, *tile))), T=dtype, sums=sums, out=sums,
                **tile._asdict(), **PLAIN,
            )
            for tile in tiles
        }  # fmt: skip
        self.row_kernel = (
            row_product.kernel(
                f"row_product_parts_{dtype}", T=dtype, out=sums, rows=MOST_ROWS, columns=COLUMNS, **PLAIN
            )
            if has_rows
            else None
        )
        rows = [] if self.row_kernel is None else [self.row_kernel]
        self.kernels = [*rows, *self.by_tile.values(), sum_kernel]

    def plan(
        self, planner: Planner, tensors: Mapping[str, View], tile: Tile | None, parts: int, flops: float
    ) -> None:
        """Plan the product of a [..., m, k] and b [..., n, k] in `parts` parts. None: by few rows."""
        a, b, y = (tensors[name] for name in "aby")
        (*batch, m, n), depth = y.shape, a.shape[-1] // parts
        part = planner.allocate((*batch, m, parts, n), 4)
        rank = len(batch)
        result = part.permute((*range(rank), rank + 1, rank, rank + 2))
        views = {"a": _cut(a, parts), "b": _cut(b, parts), **result_and_operands(result, (), b)}
        if tile is None:
            assert self.row_kernel is not None
            launch(
                planner, self.row_kernel, views, ("y",), work=depth * m * COLUMNS, flops=flops,
                columns=COLUMNS, depth=depth,
            )  # fmt: skip
        else:
            launch(
                planner, self.by_tile[tile], views, ("y",), work=depth * tile.rows * tile.columns,
                flops=flops, rows=tile.rows, columns=tile.columns, depth=depth * a.itemsize,
            )  # fmt: skip
        operands = {name: tensors[name] for name in "ypqr"}
        launch(planner, self.sum_kernel, {"part": part, **operands}, ("y",), work=parts * LANES)


def _cut(view: View, parts: int) -> View:
    """[..., r, k] as [..., parts, r, k / parts]."""
    *batch, rows, depth = view.shape
    *outer, row, element = view.strides
    shape, strides = (*batch, parts, rows, depth // parts), (*outer, depth // parts * element, row, element)
    return View(view.buffer, shape, strides, view.itemsize, view.offset)


def may_have_parts(n: object, depth: int, count: int) -> bool:
    """True if a product of unknown rows may have several parts."""
    several = depth >= 2 * LEAST_PART and depth % (2 * STEP) == 0
    return several and (not isinstance(n, int) or ceil_div(n, LANES) * count < AT_ONCE)
