"""MatMul with constant weights on GPUs of compute capability 9.0: plans `block_product`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ovjit.codegen.kernel import Kernel
from ovjit.codegen.warps import LINE
from ovjit.graph.dtypes import HALVES
from ovjit.graph.graph import Value
from ovjit.planning.lower import Constants, Lowering, NotNative, Planner, View, ceil_div, launch, product
from ovjit.planning.views import FIRST_IO
from ovjit_ops.matmul.gpu_block_products import (
    FEATURE,
    LEAST_STEPS,
    MOST_PARTS,
    PROCESSORS,
    TILES,
    BlockTile,
    arrange,
    block_product,
)  # fmt: skip
from ovjit_ops.matmul.gpu_depth_parts import GAIN, PLAIN
from ovjit_ops.matmul.gpu_epilogues import is_aligned, repeated_steps, result_and_operands
from ovjit_ops.matmul.gpu_product_lowerings import ProductOnTensorCores, TensorProduct
from ovjit_ops.matmul.gpu_products import LANES, OPERANDS, SUMS, add_parts

#: Work of a tile: more than that of a chunk, so that a chunk has the tiles that planning wants.
LARGE = 1 << 30
#: Columns of the widest tile.
MOST_COLUMNS = max(tile.columns for tile in TILES)
#: Element types of results and of operands that lanes load and store eight at a time.
_STORED = (*HALVES, "f32", "i32")


def describe_boxes(view: View | None) -> View | None:
    """A view of adjacent elements for the driver's description of a tensor, with steps that it takes, also of
    dimensions of 1: a step is a multiple of the one before. None for views that a copy has to replace: whose
    rows are not multiples of 16 bytes apart, repeated, reversed, or in another order; and for the caller's
    memory: graphs have the address."""
    if view is None or view.buffer.base >= FIRST_IO or view.offset % 16:
        return None
    size = view.shape[-1] * view.itemsize
    steps: list[int] = [view.itemsize]
    for count, step in zip(reversed(view.shape[:-1]), reversed(view.strides[:-1]), strict=True):
        steps.append(size if count == 1 else step)
        if steps[-1] % 16 or steps[-1] < size or steps[-1] % steps[-2]:
            return None
        size = count * steps[-1]
    return View(view.buffer, view.shape, steps[::-1], view.itemsize, view.offset)


def is_loaded_by_eight(dtype: str) -> bool:
    """True if lanes load and store eight adjacent elements of this type at a time."""
    return dtype in _STORED


class ProductOfBlocks(ProductOnTensorCores):
    """A product with arranged weights [k, n], with an epilogue, n a multiple of 8: kernels and steps.
    Subclasses set up `operands`, `n` and `depth`."""

    n: Any
    #: Bytes of a row of the data.
    depth: int
    #: Parts of the depth, whose sums `sum_kernel` adds up.
    block_parts = 1
    sum_kernel: Kernel

    def make_block_kernels(self, computed: bool = False) -> tuple[Kernel, ...]:
        """The kernels for the tiles among which plans choose. `computed`: a step writes the weights."""
        dtype, out = self.node.inputs[0].dtype, self.out.dtype
        tiles, self.block_parts = self._choose_blocks()
        further: dict[str, Any] = {"computed": computed, "sums": SUMS[dtype]}
        words: tuple[str, ...] = ("block_product", dtype, out)
        if self.block_parts > 1:
            self.sum_kernel = self.make_kernel(add_parts, "add_parts", out, T=SUMS[dtype])
            words, further = ("block_product_parts", dtype), {**further, **PLAIN, "out": SUMS[dtype]}
        self.by_block = {
            tile: self.make_kernel(
                block_product, *words, *tile, rows=tile.rows, columns=tile.columns, stages=tile.stages,
                **further,
            )
            for tile in tiles
        }  # fmt: skip
        return (*self.by_block.values(), *([self.sum_kernel] if self.block_parts > 1 else ()))

    def _choose_blocks(self) -> tuple[Sequence[BlockTile], int]:
        """The tiles among which plans choose, and the number of parts of the depth: several for few tiles of
        known sizes."""
        rows = [*self.out.shape[:-1]]
        # with three operands, the registers of a thread do not suffice for 128 sums
        tiles = [tile for tile in TILES if tile.columns < MOST_COLUMNS or len(self.operands) < OPERANDS]
        if not all(isinstance(d, int) for d in rows):
            return tiles, 1
        m, steps = product(rows), ceil_div(self.depth, LINE)
        several = [p for p in range(2, MOST_PARTS + 1) if steps % p == 0 and steps // p >= LEAST_STEPS]

        def time(choice: tuple[BlockTile, int]) -> int:
            tile, parts = choice
            return tile.cost(m, self.n, self.depth, parts)

        direct = min(((tile, 1) for tile in tiles), key=time)
        best = min(((tile, parts) for tile in tiles for parts in several), key=time, default=direct)
        tile, parts = best if time(best) * GAIN < time(direct) else direct
        return [tile], parts

    def plan_blocks(self, planner: Planner, b: View) -> None:
        """Plan the product with weights b, which are arranged."""
        result = planner.row_major_output(self.out)
        if not result.count:
            return
        y = _as_rows(result)
        y = y if is_aligned(y) else _as_rows(planner.instead(result))
        assert y is not None
        a = self._rows_of_data(planner, y.shape[0])
        operands = [self._operand(planner, v, result.shape, y.shape) for v in self.operands]
        (m, n), parts = y.shape, self.block_parts
        tile = min(self.by_block, key=lambda tile: tile.cost(m, n, self.depth, parts))
        tiles = parts * ceil_div(m, tile.rows) * ceil_div(n, tile.columns)
        tensors = result_and_operands(y, operands, b)
        part = View(y.buffer, (1, m, n), (0, *y.strides), y.itemsize, y.offset)
        if parts > 1:
            sums = planner.allocate((m, parts, n), 4)
            part = sums.permute((1, 0, 2))
        launch(
            planner, self.by_block[tile], {**tensors, "a": a, "y": part}, ("y",), b=b, work=LARGE,
            unit=ceil_div(tiles, PROCESSORS), flops=2.0 * m * n * self.depth / a.itemsize, depth=self.depth,
            each=ceil_div(self.depth, LINE) // parts, rows=tile.rows, columns=tile.columns,
        )  # fmt: skip
        if parts > 1:
            launch(planner, self.sum_kernel, {"part": sums, **tensors}, ("y",), work=parts * LANES)

    def _rows_of_data(self, planner: Planner, rows: int) -> View:
        """The data as [rows, k] in the arena, whose rows begin at multiples of 16 bytes."""
        view = self._matrix(planner, self.node.inputs[0], False)
        matrix = describe_boxes(view.reshape((rows, view.shape[-1])))
        if matrix is None:
            copy = planner.allocate(view.shape, view.itemsize)
            planner.copy_step(view, copy, "rows of boxes follow each other at multiples of 16 bytes")
            matrix = describe_boxes(copy.reshape((rows, view.shape[-1])))
            assert matrix is not None
        return matrix

    def _operand(self, planner: Planner, value: Value, shape: Sequence[int], rows: Sequence[int]) -> View:
        """An operand of the epilogue as [rows, n], whose rows are adjacent elements at multiples of 16
        bytes: a row for all rows if it has one."""
        view = planner.view(value).expand(shape)
        matrix = _as_rows(view)
        if matrix is not None and is_aligned(matrix) and view.buffer.base < FIRST_IO:
            return matrix
        if not any(repeated_steps(view)):
            for axis in range(len(shape) - 1):
                view = view.slice(axis, 0, 1)
        copy = planner.allocate(view.shape, view.itemsize)
        planner.copy_step(view, copy, "rows begin at multiples of 16 bytes")
        matrix = copy.expand(shape).reshape(rows)
        assert matrix is not None
        return matrix


class BlockProduct(ProductOfBlocks, TensorProduct):
    """MatMul with constant weights [k, n], with an epilogue, n a multiple of 8."""

    def set_up(self) -> None:
        super().set_up()
        weights = self.node.inputs[1]
        n = self.n
        if FEATURE not in self.target.extras or weights.constant is None or weights.constant.ndim != 2:
            raise NotNative
        if self.node.attrs["transpose_a"] or not isinstance(n, int) or n % 8:
            raise NotNative
        if not all(is_loaded_by_eight(v.dtype) for v in (self.out, *self.operands)):
            raise NotNative
        depths = weights.constant.shape[1 if self.node.attrs["transpose_b"] else 0]
        self.depth = depths * weights.constant.itemsize
        self.kernels = self.make_block_kernels()

    def pack(self, constants: Constants) -> None:
        Lowering.pack(self, constants)
        weights = self.node.inputs[1].constant
        assert weights is not None
        self.matrices = {}
        self.image = arrange(weights if self.node.attrs["transpose_b"] else weights.swapaxes(0, 1))
        constants.view(self.image, "u8")

    def plan(self, planner: Planner) -> None:
        self.plan_blocks(planner, planner.constants.view(self.image, "u8"))


def _as_rows(view: View) -> View | None:
    """[..., n] as [rows, n]; None if strides do not allow it."""
    return view.reshape((product(view.shape[:-1]), view.shape[-1]))
