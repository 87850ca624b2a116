"""CompressedMatMul on GPUs: few rows with the codes, more rows with weights that a step unpacks.

    y[m, n] = epilogue(sum over k of x[m, k] (codes[n, k] - zero[n, g]) scale[n, g])        g = k // group

Few rows read the codes alone: by `code_tiles` on tensor cores, or, for the types, zeros and groups that it
does not take, by `compressed_rows`. A lane has units of eight elements along the depth there, whose codes are
one or two words of 32 bits. For more rows, `unpack_weights` stores the weights in 16 bits, as
`tensor_product` or `block_product` read them.
"""

from __future__ import annotations

import numpy as np

from ovjit.codegen.kernel_language import *
from ovjit.codegen.warps import LINE, QUADS, STRIP
from ovjit.graph.dtypes import FLOATS, HALVES
from ovjit.planning.lower import Constants, Lowering, NotNative, Planner, View, ceil_div, launch, product
from ovjit_ops.matmul.gpu_block_lowering import ProductOfBlocks, is_loaded_by_eight
from ovjit_ops.matmul.gpu_block_products import FEATURE
from ovjit_ops.matmul.gpu_code_tiles import (
    MOST_ROWS,
    PIECE,
    TEAM,
    TILE,
    UNIT,
    arrange_codes,
    code_tiles,
    pack_words,
    parts_of_group,
    takes_codes,
)  # fmt: skip
from ovjit_ops.matmul.gpu_epilogues import result_and_operands
from ovjit_ops.matmul.gpu_products import LANES, OPERANDS, TILES, store_lanes

#: Rows and columns of an item of `compressed_rows`, and vectors of units that are read together.
ROWS, COLUMNS, DEEP = 4, 2, 4
#: The bits of the f32 2**23, whose last bits are those of an integer that is added, and that number.
_MAGIC, _MAGIC_NUMBER = 0x4B000000, 8388608.0


@inline
def decode(d, low, high, *, width):
    """Set d[i] to the codes of a unit as f32."""
    for i in static_range(UNIT):
        word = low if width == 4 or i < 4 else high
        code = (word >> const[i32](i * width % 32 // (2 * width) * width + i % 2 * 16)) & const[i32](
            (1 << width) - 1
        )
        d[i] = bits[f32](code | const[i32](_MAGIC)) - const[f32](_MAGIC_NUMBER)


@inline
def load_codes(w, q, unit, count, *, width, slot):
    """Load the words of `count` units, one in each lane, from number `unit` on."""
    if width == 4:
        w[slot, 0] = loadm[i32](q + unit * 4, count)
        w[slot, 1] = w[slot, 0]
    else:
        w[slot, 0] = gather[i32](q + unit * 8, 8, count)
        w[slot, 1] = gather[i32](q + unit * 8 + 4, 8, count)


@inline
def load_tiled(w, codes, column, unit, pieces, *, width):
    """Load the words of a column's units, one in each lane, from the order of `code_tiles`."""
    each = 3 if width == 4 else 2
    start = codes + (column // TILE * pieces) * PIECE + column % 8 * 64 + column % TILE // 8 * 4
    word = ((unit >> const[i32](each)) << const[i32](7)) + ((unit & const[i32](3)) << const[i32](2))
    if width == 4:
        word = word + ((unit & const[i32](4)) >> const[i32](1))
    w[0, 0] = take[i32](start, word)
    w[0, 1] = take[i32](start, word + const[i32](0 if width == 4 else 2))


@kernel(
    over="m/rows n/columns", x="m k", codes="n u", scale="n g", zero="n g", y="m n", p="m n", q="m n",
    r="m n",
)  # fmt: skip
def compressed_rows(
    x: Tensor, codes: Tensor, scale: Tensor, zero: Tensor, y: Tensor, p: Tensor, q: Tensor, r: Tensor, units,
    shift,
    *, T, out, width, rows, columns, body, first, second, third,
):  # fmt: skip
    """T, out: element types of x and y. `units`: of a row; 2**`shift` of them are a group. p, q, r:
    operands of the epilogue, of the types `first`, `second` and `third` ("": none)."""
    c, w, o, at, d, v, e, s = registers()
    lane = lane_numbers[i32]()
    for row, column, px, pc, ps, pz, py, pp, pq, pr in items(x, codes, scale, zero, y, p, q, r):
        for i, j in np.ndindex(rows, columns):
            c[i, j] = const[f32](0)
        for j in static_range(columns):  # columns and rows that are not there repeat the last one
            there = min(j, y.size.n - 1 - column)
            at["codes", j] = codes.at(pc, n=there)
            at["s", j] = scale.at(ps, n=there)
            at["z", j] = zero.at(pz, n=there)
        for h in range(0, units, DEEP * VL):
            for n in static_range(DEEP):
                for j in static_range(columns):
                    load_codes(w, at["codes", j], h + n * VL, units - h - n * VL, slot=n * columns + j)
            for n in static_range(DEEP):
                unit = lane + spread[i32](h + n * VL)
                is_there = unit < spread[i32](units)
                group = minimum(unit, spread[i32](units - 1)) >> spread[i32](shift)
                for j in static_range(columns):
                    s["s", j] = take[f32](at["s", j], group * spread[i32](scale.stride.g // 4))
                    s["z", j] = take[f32](at["z", j], group * spread[i32](zero.stride.g // 4))
                for i in static_range(rows):
                    e[i] = load_eight[T](
                        x.at(px, m=min(i, y.size.m - 1 - row)),
                        cast[i64](unit) * const[i64](UNIT * SIZE[T]),
                        is_there,
                    )
                    total = const[f32](0)
                    for k in static_range(UNIT):
                        v[i, k] = part_of_eight[T](e[i], k)
                        total = total + v[i, k]
                    s["x", i] = total
                for j in static_range(columns):
                    decode(d, w[n * columns + j, 0], w[n * columns + j, 1])
                    for i in static_range(rows):
                        total = s["x", i] * -s["z", j]
                        for k in static_range(UNIT):
                            total = fma(v[i, k], d[k], total)
                        c[i, j] = fma(total, s["s", j], c[i, j])
        count = min(y.size.n - column, columns)
        for i in static_range(rows):
            if row + i < y.size.m:
                store_lanes(c, o, i, count, y, p, q, r, py, pp, pq, pr)


@kernel(over="n filled/VL", codes="n u", scale="n g", zero="n g", y="")
def unpack_weights(
    codes: Tensor, scale: Tensor, zero: Tensor, y: Tensor, units, shift, step, filled, pieces,
    *, T, width, image, tiled,
):  # fmt: skip
    """The weights in 16 bits. `units`: of a row; those up to `filled` are zeros. `step`: bytes of a row of
    y; with `image`, of a strip of 32 columns in the order of `block_product`. `tiled`: codes are those of
    `code_tiles`, in `pieces` for each of its items."""
    w, d = registers()
    lane = lane_numbers[i32]()
    for column, first, pc, ps, pz in items(codes, scale, zero):
        unit = lane + spread[i32](first)
        if tiled:
            load_tiled(w, codes, column, minimum(unit, spread[i32](units - 1)), pieces)
        else:
            load_codes(w, pc, first, units - first, slot=0)
        group = minimum(unit, spread[i32](units - 1)) >> spread[i32](shift)
        scales = take[f32](ps, group * spread[i32](scale.stride.g // 4))
        zeros = take[f32](pz, group * spread[i32](zero.stride.g // 4))
        decode(d, w[0, 0], w[0, 1])
        is_there = unit < spread[i32](units)
        for i in static_range(UNIT):
            d[i] = select(is_there, (d[i] - zeros) * scales, const[f32](0))
        offset = cast[i64](unit) * const[i64](UNIT * SIZE[T]) + spread[i64](column * step)
        if image:
            position = (column // 2 % 4) * 8 + (column // 8 % 4) * 2 + column % 2
            part = (unit & const[i32](7)) ^ spread[i32](position % 8)
            offset = cast[i64](unit >> const[i32](3)) * const[i64](STRIP) + cast[i64](part << const[i32](4))
            offset = offset + spread[i64](column // QUADS * step + position * LINE)
        store_eight[T](y, offset, join_eight[T](*(d[i] for i in range(8))), unit < spread[i32](filled))


def _find_zero(zero: np.ndarray | None, codes: np.ndarray) -> np.ndarray:
    """The zero of unsigned codes in f32, [1, 1] if all are equal. Raises NotNative if it is computed."""
    if zero is None:
        raise NotNative
    zero = zero.astype(np.float32) + np.float32(128 if codes.dtype.kind == "i" else 0)
    return zero[:1, :1] if (zero == zero[:1, :1]).all() else zero


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
        self.zero = _find_zero(zeros[0].constant if zeros else np.zeros((1, 1), np.float32), codes_of)
        units = 1 << self.shift
        self.tiled = takes_codes(x.dtype, self.bits, min(self.units, units), self.zero)
        self.rows_kernel = self._make_rows_kernel(x.dtype, units)
        self.kernels = (self.rows_kernel,)
        self.unpack_kernel = None
        rows = [*self.out.shape[:-1]]
        if x.dtype not in HALVES or all(isinstance(d, int) for d in rows) and product(rows) <= MOST_ROWS:
            return
        self.depth = k * 2
        self.by_blocks = FEATURE in self.target.extras and self.n % 8 == 0
        self.by_blocks &= all(is_loaded_by_eight(v.dtype) for v in (self.out, *self.operands))
        self.unpack_kernel = unpack_weights(
            T=x.dtype, width=self.bits, image=self.by_blocks, tiled=self.tiled
        )
        if self.by_blocks:
            self.kernels += (self.unpack_kernel, *self.make_block_kernels(computed=True))
            return
        self.by_tile = self.make_tile_kernels(TILES)
        self.kernels += (self.unpack_kernel, *self.by_tile.values())

    def _make_rows_kernel(self, dtype: str, units: int) -> Kernel:
        """The kernel of few rows of this type. `units`: those of a group."""
        words = dtype, self.out.dtype
        if self.tiled:
            parts = parts_of_group(self.bits, units)
            name = "_".join(map(str, ("code_tiles", self.bits, *parts.values())))
            return self.make_kernel(code_tiles, name, *words, width=self.bits, warps=TEAM, **parts)
        name = f"compressed_rows_{self.bits}"
        return self.make_kernel(compressed_rows, name, *words, width=self.bits, rows=ROWS, columns=COLUMNS)

    def pack(self, constants: Constants) -> None:
        Lowering.pack(self, constants)
        codes, scale = self.node.inputs[1].constant, self.node.inputs[2].constant
        assert codes is not None and scale is not None
        if codes.dtype.kind == "i":
            codes = codes.view(np.uint8) ^ np.uint8(0x80)
        words = pack_words(np.ascontiguousarray(codes.view(np.uint8).T), self.bits)
        self.codes = (arrange_codes(words) if self.tiled else words).view(np.uint8)
        self.scale = scale.astype(np.float32)
        for array, dtype in ((self.codes, "u8"), (self.scale, "f32"), (self.zero, "f32")):
            constants.view(array, dtype)

    @property
    def _pieces(self) -> int:
        """The number of pieces that an item of `code_tiles` has."""
        return ceil_div(self.units, 32 // self.bits)

    def _weights(self, planner: Planner) -> dict[str, View]:
        """The codes as units, the scales and zeros."""
        codes = planner.constants.view(self.codes, "u8")
        size = UNIT * self.bits // 8
        codes = View(codes.buffer, (self.n, self.units), (self.units * size, size), size, codes.offset)
        scale, zero = (planner.constants.view(array, "f32") for array in (self.scale, self.zero))
        scale, zero = (view.expand(self.scale.shape).permute((1, 0)) for view in (scale, zero))
        return {"codes": codes, "scale": scale, "zero": zero}

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
        weights, more = self._weights(planner), result_and_operands(result, operands, result)
        flops = 2.0 * rows * n * self.units * UNIT
        if self.tiled:
            part, codes = planner.allocate((ceil_div(n, TILE), TEAM, 4, LANES), 4), weights.pop("codes")
            launch(
                planner, self.rows_kernel, {**weights, **more, "x": matrix, "part": part}, ("y", "part"),
                work=inf, flops=flops, disjoint=False, codes=codes, units=self.units,
                pieces=self._pieces, shift=self.shift, columns=TILE,
            )  # fmt: skip
            return
        tensors = {"x": matrix, **weights, **more}
        launch(
            planner, self.rows_kernel, tensors, ("y",), work=self.units * UNIT * COLUMNS * ROWS,
            flops=flops, units=self.units, shift=self.shift, rows=ROWS, columns=COLUMNS,
        )  # fmt: skip

    def _unpack(self, planner: Planner) -> View:
        """Add a step that unpacks the weights. Returns them as [n, k], or in the tiled layout of
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
            pieces=self._pieces,
        )  # fmt: skip
        return weights


def shift_of(group: int, depth: int) -> int | None:
    """The binary logarithm of the units in a group; None if groups are not powers of two of units."""
    if group >= depth:
        return 31
    units, odd = divmod(group, UNIT)
    return None if odd or units & (units - 1) or not units else units.bit_length() - 1
