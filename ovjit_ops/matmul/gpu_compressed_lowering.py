"""CompressedMatMul on GPUs: few rows with the codes, more rows with weights that a step unpacks."""

from __future__ import annotations

import numpy as np

from ovjit.codegen.warps import LINE, QUADS, STRIP
from ovjit.graph.dtypes import FLOATS, HALVES
from ovjit.planning.lower import Constants, Lowering, NotNative, Planner, View, ceil_div, launch, product
from ovjit_ops.matmul.gpu_block_lowering import ProductOfBlocks, is_loaded_by_eight
from ovjit_ops.matmul.gpu_block_products import FEATURE
from ovjit_ops.matmul.gpu_compressed import COLUMNS, DEEP, ROWS, UNIT, compressed_rows, unpack_weights
from ovjit_ops.matmul.gpu_epilogues import no_operand
from ovjit_ops.matmul.gpu_products import LANES, OPERANDS, TILES

#: Rows up to which the codes are read for each four rows: unpacking reads and writes all weights.
MOST_ROWS = 2 * ROWS


class CompressedOnGpu(ProductOfBlocks):
    """CompressedMatMul of a matrix of 8 or 4 bits."""

    takes = (FLOATS, None)
    ranks = (range(2, 9),)

    def set_up(self) -> None:
        x, codes, scale, *zeros = self.node.inputs
        attrs, codes_of = self.node.attrs, codes.constant
        self.operands = self.group.operands
        self.bits, group = int(attrs["bits"]), int(attrs["group"])
        if (
            codes_of is None
            or scale.constant is None
            or len(zeros) > 1
            or attrs["kind"]
            or attrs["transpose_a"]
        ):
            raise NotNative
        k, self.n = codes_of.shape
        if self.bits not in (4, 8) or attrs["dynamic"] or k % UNIT or not codes_of.size:
            raise NotNative
        self.units, self.shift = k // UNIT, shift_of(group, k)
        if self.shift is None or len(self.operands) > OPERANDS or self.out.dtype not in FLOATS:
            raise NotNative
        self.zeros = zeros[0].constant if zeros else np.zeros(scale.constant.shape, np.float32)
        if self.zeros is None:
            raise NotNative
        self.dtype = x.dtype
        words = f"compressed_rows_{self.bits}", x.dtype, self.out.dtype
        self.rows_kernel = self.make_kernel(
            compressed_rows, *words, width=self.bits, rows=ROWS, columns=COLUMNS
        )
        self.kernels = (self.rows_kernel,)
        self.unpack_kernel = None
        rows = [*self.out.shape[:-1]]
        if x.dtype not in HALVES or all(isinstance(d, int) for d in rows) and product(rows) <= MOST_ROWS:
            return
        self.depth = k * 2
        self.by_blocks = FEATURE in self.target.extras and self.n % 8 == 0
        self.by_blocks &= all(is_loaded_by_eight(v.dtype) for v in (self.out, *self.operands))
        self.unpack_kernel = unpack_weights(T=x.dtype, width=self.bits, image=self.by_blocks)
        if self.by_blocks:
            self.kernels += (self.unpack_kernel, *self.make_block_kernels(computed=True))
            return
        self.by_tile = self.make_tile_kernels(TILES)
        self.kernels += (self.unpack_kernel, *self.by_tile.values())

    def pack(self, constants: Constants) -> None:
        Lowering.pack(self, constants)
        codes, scale = self.node.inputs[1].constant, self.node.inputs[2].constant
        assert codes is not None and scale is not None and self.zeros is not None
        zeros = self.zeros.astype(np.float32)
        if codes.dtype.kind == "i":  # unsigned codes have a larger zero
            codes, zeros = codes.view(np.uint8) ^ np.uint8(0x80), zeros + np.float32(128)
        rows = np.ascontiguousarray(codes.view(np.uint8).T)
        self.codes = rows if self.bits == 8 else rows[:, 0::2] | rows[:, 1::2] << np.uint8(4)
        self.scale = np.ascontiguousarray(scale.astype(np.float32).T)
        self.zero = np.ascontiguousarray(np.broadcast_to(zeros.T, self.scale.shape))
        for array, dtype in ((self.codes, "u8"), (self.scale, "f32"), (self.zero, "f32")):
            constants.view(array, dtype)

    def _weights(self, planner: Planner) -> dict[str, View]:
        """The codes as units, the scales and zeros."""
        q = planner.constants.view(self.codes, "u8")
        size = UNIT * self.bits // 8
        q = View(q.buffer, (self.n, self.units), (q.strides[0], size), size, q.offset)
        scale, zero = (planner.constants.view(array, "f32") for array in (self.scale, self.zero))
        return {"q": q, "scale": scale, "zero": zero}

    def plan(self, planner: Planner) -> None:
        rows = product(planner.shape(self.out)[:-1])
        if self.unpack_kernel is not None and rows > MOST_ROWS:
            weights = self._unpack(planner)
            if self.by_blocks:
                self.plan_blocks(planner, weights)
            else:
                self.plan_product(planner, self._matrix(planner, self.node.inputs[0], False), weights)
            return
        self._plan_rows(planner)

    def _plan_rows(self, planner: Planner) -> None:
        y = planner.row_major_output(self.out)
        if not y.count:
            return
        n, rows = y.shape[-1], product(y.shape[:-1])
        result = y.reshape((rows, n))
        assert result is not None
        x = self._matrix(planner, self.node.inputs[0], False)
        matrix = x.reshape((rows, x.shape[-1]))
        if matrix is None:
            copy = planner.allocate(x.shape, x.itemsize)
            planner.copy_step(x, copy, "rows of the kernel are contiguous")
            matrix = copy.reshape((rows, x.shape[-1]))
            assert matrix is not None
        operands = [self._operand(planner, v, y.shape, result.shape) for v in self.operands]
        operands += [no_operand(result, result.shape)] * (OPERANDS - len(operands))
        tensors = {"x": matrix, **self._weights(planner), "y": result}
        tensors |= dict(zip(("p", "q2", "r"), operands, strict=True))
        launch(
            planner, self.rows_kernel, tensors, ("y",), work=self.units * UNIT * COLUMNS * ROWS,
            flops=2.0 * rows * n * self.units * UNIT, units=self.units, shift=self.shift, rows=ROWS,
            columns=COLUMNS,
        )  # fmt: skip

    def _unpack(self, planner: Planner) -> View:
        """Plan a step that unpacks the weights. Returns them as [n, k], or as the image of
        `block_product`."""
        steps = ceil_div(self.depth, LINE)
        assert self.unpack_kernel is not None
        if self.by_blocks:
            weights = planner.allocate((ceil_div(self.n, QUADS), steps * STRIP), 1)
            filled, step = steps * (LINE // (2 * UNIT)), steps * STRIP
        else:
            weights = planner.allocate((self.n, self.units * UNIT), 2)
            filled, step = self.units, self.depth
        launch(
            planner, self.unpack_kernel, {**self._weights(planner), "y": weights}, ("y",), disjoint=False,
            work=LANES * UNIT * DEEP, units=self.units, shift=self.shift, step=step, filled=filled,
        )  # fmt: skip
        return weights


def shift_of(group: int, depth: int) -> int | None:
    """The binary logarithm of the units in a group; None if groups are not powers of two of units."""
    if group >= depth:
        return 31
    units, odd = divmod(group, UNIT)
    return None if odd or units & (units - 1) or not units else units.bit_length() - 1
