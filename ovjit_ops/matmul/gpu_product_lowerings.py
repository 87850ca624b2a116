"""Matrix products on GPUs, with epilogues: kernels and steps of `gpu_products`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from ovjit.codegen.kernel import Kernel
from ovjit.codegen.memory import SIZE
from ovjit.graph.dtypes import FLOATS, HALVES
from ovjit.graph.graph import Value
from ovjit.graph.shapes import bounds, is_static
from ovjit.planning.launch import launch
from ovjit.planning.lower import Lowering, place_constants
from ovjit.planning.plan import Constants, NotNative, Planner
from ovjit.planning.views import Layout, View, product
from ovjit_ops.matmul.gpu_depth_parts import (
    MOST_PARTS,
    DepthParts,
    choose_parts,
    may_have_parts,
    parts_of_rows,
)  # fmt: skip
from ovjit_ops.matmul.gpu_epilogues import WithEpilogue, is_aligned, result_and_operands
from ovjit_ops.matmul.gpu_products import (
    COLUMNS,
    ITEM_ROWS,
    MOST_ROWS,
    OPERANDS,
    SUMS,
    TILES,
    Tile,
    add_parts,
    half_product,
    row_product,
    tensor_product,
)  # fmt: skip

#: More parts than there are: the number depends on shapes, and may be 1.
EITHER = MOST_PARTS + 1


class ProductOnTensorCores(WithEpilogue):
    """A product on tensor cores with an epilogue: kernels and steps. Subclasses set up `operands`."""

    permutes = True
    by_tile: Mapping[Tile, Kernel]
    row_kernel: Kernel | None = None
    #: Products of parts of the depth, for few rows and columns.
    parts: DepthParts | None = None
    #: Constant operands as [..., rows, k].
    matrices: Mapping[Value, Any] = {}

    def make_tile_kernels(self, tiles: Sequence[Tile]) -> dict[Tile, Kernel]:
        """`tensor_product` for each of the tiles."""
        types = dtype, _ = self.node.inputs[0].dtype, self.out.dtype
        return {
            tile: self.make_kernel(
                tensor_product, "tensor_product", *types, *tile, sums=SUMS[dtype], **tile._asdict()
            )
            for tile in tiles
        }

    def plan_product(self, planner: Planner, a: View, b: View) -> None:
        """Plan the product of a [..., m, k] and b [..., n, k]."""
        y = planner.row_major_output(self.out)
        if not y.count:
            return
        (m, k), n = a.shape[-2:], b.shape[-2]
        batch, size = y.shape[:-2], a.itemsize
        operands = [planner.view(v).expand(y.shape) for v in self.operands]
        tensors = {name: view.expand((*batch, *view.shape[-2:])) for name, view in (("a", a), ("b", b))}
        tensors |= result_and_operands(y, operands, b)
        count = product(batch)
        flops = 2.0 * count * m * n * k
        by_rows = self.row_kernel is not None and m <= MOST_ROWS
        tile, parts = min(self.by_tile, key=lambda tile: tile.cost(m, n)), 1
        if self.parts is not None and by_rows:
            parts = parts_of_rows(n, k * size, count)
        elif self.parts is not None:
            tile, parts = choose_parts(list(self.parts.by_tile), m, n, k * size, count)
        if self.parts is not None and parts > 1:
            self.parts.plan(planner, tensors, None if by_rows else tile, parts, flops)
            return
        if by_rows:
            assert self.row_kernel is not None
            launch(
                planner, self.row_kernel, tensors, ("y",), work=k * m * COLUMNS, flops=flops,
                columns=COLUMNS, depth=k,
            )  # fmt: skip
            return
        launch(
            planner, self.by_tile[tile], tensors, ("y",), work=k * tile.rows * tile.columns, flops=flops,
            rows=tile.rows, columns=tile.columns, depth=k * size,
        )  # fmt: skip

    def _matrix(self, planner: Planner, value: Value, turn: bool) -> View:
        """An operand as [..., rows, k] whose rows begin at multiples of 16 bytes, by a copy if necessary."""
        if value in self.matrices:
            return planner.constants.view(self.matrices[value], value.dtype)
        rank = len(value.shape)
        order = (*range(rank - 2), rank - 1, rank - 2) if turn else (*range(rank),)
        view = planner.view(value).permute(order)
        return view if is_aligned(view) else planner.copy(value, Layout(order)).permute(order)


class TensorProduct(ProductOnTensorCores):
    """MatMul on tensor cores, of matrices whose rows are multiples of 16 bytes, with an epilogue."""

    takes: Sequence[Collection[str] | None] = (SUMS.keys(),)
    ranks: Sequence[Collection[int]] = (range(2, 9), range(2, 9))

    def set_up(self) -> None:
        a, b = self.node.inputs
        turned_a, turned_b = self.node.attrs["transpose_a"], self.node.attrs["transpose_b"]
        self.operands = self.group.operands
        self.m, self.n = a.shape[-1 if turned_a else -2], b.shape[-2 if turned_b else -1]
        row_bytes = self._check_rows(a.shape[-2 if turned_a else -1], b.shape[-1 if turned_b else -2])
        dtype, out = a.dtype, self.out.dtype
        if dtype in FLOATS:
            self.row_kernel = self.make_kernel(
                row_product, "row_product", dtype, out, rows=MOST_ROWS, columns=COLUMNS
            )
        low, high = bounds(self.m)
        by_rows = self.row_kernel is not None and low <= MOST_ROWS
        by_tiles = self.row_kernel is None or high is None or high > MOST_ROWS
        tiles, parts = self._choose(row_bytes, by_tiles)
        self.by_tile = self.make_tile_kernels(tiles)
        self.kernels = []
        if parts > 1:
            add = self.make_kernel(add_parts, "add_parts", out, T=SUMS[dtype])
            self.parts = DepthParts(tiles if by_tiles else (), by_rows, dtype, add)
            self.kernels += self.parts.kernels
        if parts < EITHER and parts > 1:
            return
        self.kernels += [self.row_kernel] if by_rows else []
        self.kernels += self.by_tile.values() if by_tiles else ()

    def _check_rows(self, *depths: object) -> int:
        """The bytes of a row of the operands, of which `depths` are the known and unknown lengths. NotNative
        for types, rows and operands that the kernels do not take."""
        dtype, other = (value.dtype for value in self.node.inputs)
        if other != ("i8" if dtype == "u8" else dtype) or self.out.dtype not in (*FLOATS, "i32"):
            raise NotNative
        if dtype == "f32" and not self.group.context.options.tf32:
            raise NotNative
        row_bytes = next((d for d in depths if isinstance(d, int)), 0) * SIZE[dtype]
        if not row_bytes or row_bytes % 16 or len(self.operands) > OPERANDS:
            raise NotNative
        return row_bytes

    def _choose(self, depth: int, by_tiles: bool) -> tuple[Sequence[Tile], int]:
        """The tiles among which plans choose, and the number of parts of `depth` bytes; EITHER if that is
        known for shapes alone."""
        batch = self.out.shape[:-2]
        if not isinstance(self.m, int) or not isinstance(self.n, int):
            return TILES, EITHER if may_have_parts(self.n, depth, 1) else 1
        if not is_static(batch):
            tile = min(TILES, key=lambda tile: tile.cost(self.m, self.n))
            return [tile], EITHER if may_have_parts(self.n, depth, 1) else 1
        if not by_tiles:
            return TILES[-1:], parts_of_rows(self.n, depth, product(batch))
        tile, parts = choose_parts(TILES, self.m, self.n, depth, product(batch))
        return [tile], parts

    def pack(self, constants: Constants) -> None:
        super().pack(constants)
        turns = zip(self.node.inputs, self._turns(), strict=True)
        self.matrices = {v: _transpose(v.constant, turn) for v, turn in turns if v.constant is not None}
        for value, matrix in self.matrices.items():
            constants.view(matrix, value.dtype)

    def _turns(self) -> tuple[bool, bool]:
        """Whether the operands' matrices have to be transposed to [..., rows, k]."""
        return bool(self.node.attrs["transpose_a"]), not self.node.attrs["transpose_b"]

    def plan(self, planner: Planner) -> None:
        a, b = (
            self._matrix(planner, value, turn)
            for value, turn in zip(self.node.inputs, self._turns(), strict=True)
        )
        self.plan_product(planner, a, b)


class HalfProduct(Lowering):
    """MatMul of f16 or bf16 with any number of batch dimensions. Nothing is fused into it."""

    takes = (HALVES,)

    def set_up(self) -> None:
        a, b = self.node.inputs
        if self.group.body or a.dtype != b.dtype or self.out.dtype not in (a.dtype, "f32"):
            raise NotNative
        self.kernel = half_product(T=a.dtype, out=self.out.dtype, width=self.target.lanes, rows=ITEM_ROWS)

    def pack(self, constants: Constants) -> None:
        place_constants(constants, self.node.inputs)

    def plan(self, planner: Planner) -> None:
        x, w = self.node.inputs
        a = _matrix(planner.view(x), bool(self.node.attrs["transpose_a"]), 0)
        b = _matrix(planner.view(w), bool(self.node.attrs["transpose_b"]), 1)
        y = planner.row_major_output(self.out)
        if not y.count:
            return
        (m, k), n, lanes = a.shape[-2:], b.shape[-1], self.target.lanes
        batch = y.shape[: len(y.shape) - (len(x.shape) > 1) - (len(w.shape) > 1)]
        tensors = {name: view.expand((*batch, *view.shape[-2:])) for name, view in (("a", a), ("b", b))}
        launch(
            planner, self.kernel, {**tensors, "y": y.as_shape((*batch, m, n))}, ("y",),
            work=k * ITEM_ROWS * lanes, flops=2.0 * product(batch) * m * n * k, width=lanes, rows=ITEM_ROWS,
        )  # fmt: skip


def _transpose(array: np.ndarray, turn: bool) -> np.ndarray:
    return np.ascontiguousarray(array.swapaxes(-1, -2)) if turn else array


def _matrix(view: View, transposed: bool, axis: int) -> View:
    """An operand as [..., rows, columns]. For a vector, a dimension of length 1 is inserted at `axis`."""
    rank = len(view.shape)
    if rank == 1:
        shape, strides = [1, view.shape[0]], [0, view.strides[0]]
        turn = slice(None, None, -1 if axis else 1)
        return View(view.buffer, tuple(shape[turn]), tuple(strides[turn]), view.itemsize, view.offset)
    return view.permute((*range(rank - 2), rank - 1, rank - 2)) if transposed else view
