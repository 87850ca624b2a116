"""CompressedMatMul by the tile kernel. Each chunk unpacks panels to scratch memory
(`ovjit.tiles.compressed`). Few rows are multiplied without unpacking to memory; one row with 4-bit integers
uses `ovjit.tiles.digits`."""

from __future__ import annotations

from typing import Any

from ovjit.codegen.cpu.formats import Format, find_format, matrix_format
from ovjit.codegen.kernel import Kernel
from ovjit.graph.stored_floats import levels_of
from ovjit.planning.fuse import Group
from ovjit.planning.lower import Lowering, place_constants
from ovjit.planning.plan import Constants, Planner, ceil_div, split
from ovjit.planning.views import View, product, row_major_layout
from ovjit.tiles.compressed import (
    PART,
    heights,
    how_unpacked,
    lowering_factors,
    pack_compressed,
    row_kernel,
)
from ovjit.tiles.digits import DIGITS, LANE_ORDER, digits_kernel, product_kernel, takes_digits
from ovjit.tiles.driver_choice import driver_kernel, tile_kernel
from ovjit.tiles.pack import panel_sizes, tile_width
from ovjit.tiles.rows import row_step
from ovjit.tiles.sharing import Weights
from ovjit_ops.matmul.cpu_dynamic import DynamicProduct
from ovjit_ops.matmul.cpu_stored import StoredWeights


class CompressedProduct(StoredWeights):
    """CompressedMatMul by tiles: rows are pixels, and weights are unpacked to scratch memory."""

    unpacks = True

    def read_weights(self) -> None:
        super().read_weights()
        attrs = self.node.attrs
        self.size = int(attrs["group"])
        if attrs["kind"]:
            self.zero = None
        self.unpack = how_unpacked(self.integers, self.scale, self.zero, int(attrs["bits"]), attrs["kind"])

    def __init__(self, group: Group):
        super().__init__(group)
        name = f"rows_{self.unpack.name}_{self.data.dtype}_{self.target.name}"
        names = [n.op.name.lower() for n in group.body[self.bias is not None :][:4]]
        self.by_rows = row_kernel(
            "_".join((name, *names)), self.epilogue, self.target, self.data.dtype, self.unpack
        )
        self.kernels = (*self.kernels, self.by_rows)
        self.by_digits = None
        if takes_digits(self.unpack, self.target):
            self.to_digits = digits_kernel(self.data.dtype)
            self.by_digits = product_kernel(
                "_".join((f"row_{self.unpack.name}_{self.target.name}", *names)),
                self.epilogue, self.target, self.unpack,
            )  # fmt: skip
            self.kernels = (*self.kernels, self.to_digits, self.by_digits)

    def suits_matrices(self, form: Format) -> bool:
        return form.words(self.depth) % matrix_format(form, self.target).step == 0

    def make_kernel(self, names: str) -> Kernel:
        rows, width = self.tile_pixels, tile_width(self.target)
        name = f"matmul_{self.unpack.name}_{self.form.name}_{rows}x{width}_{self.target.name}"
        name += f"_{names}" if names else ""
        return driver_kernel(name, self.epilogue, self.target, self.form, unpack=self.unpack)

    def make_blocked(self, name: str) -> Kernel:
        return tile_kernel(name, self.epilogue, self.target, self.form, True, self.unpack)

    def pack(self, constants: Constants) -> None:
        self.place_operands(constants)
        place_constants(constants, self.node.inputs[4:])
        packed = pack_compressed(self.integers, self.scale, self.zero, self.unpack, self.size, self.target)
        levels = self.unpack.table(self.target, levels_of(self.node.attrs["kind"]))
        arrays: dict[str, Any] = {
            "q": packed.integers, "s": packed.scales, "z": packed.zeros, "lv": levels,
        }  # fmt: skip
        self.place_arrays(constants, arrays, self.unpack, self.size)
        if self.unpack.bits >= 8 and not self.unpack.is_paired:
            if self.size >= self.depth or self.size % self.unpack.step == 0:
                self.note_rows(constants, self.offsets["q"], packed.integer_panel, self.unpack.bits // 8)
        self.lower_at = None
        if self.unpack.shifts_data:
            factors = lowering_factors(self.target, self.unpack)
            self.lower_at = constants.add(factors, ("place of bits", self.unpack.is_mixed)).offset
        if self.by_digits:
            self.lane_order_at = constants.add(LANE_ORDER, "order of digits").offset
        self.sizes = {
            "q_panel": packed.integer_panel, "s_panel": packed.scale_panel, "g_size": self.size,
            "depth": self.depth,
        }  # fmt: skip
        if self.unpack.each_zero:
            self.sizes["z_panel"] = packed.zero_panel
        self.filled = packed.filled
        sizes = panel_sizes(self.form.words(self.depth), self.outs, self.target)
        self.weights = Weights(1, self.outs, sizes, self.offsets["q"], *self.pack_bias(constants, self.bias))
        self.stored: int = sum(a.nbytes for a in arrays.values() if a is not None)

    def unpacking(self, planner: Planner) -> dict[str, Any]:
        return self.bind_constants(planner) | self.sizes

    def plan(self, planner: Planner) -> None:
        shape = planner.shape(self.data)
        limit = FEW_ROWS
        if len(shape) > 2 and shape[-2] == 1:
            limit = FEW_SEQUENCES.get(self.target.name, FEW_ROWS)
        rows = product(shape[:-1]) if not self.transposed else limit + 1
        lead = [d for d in shape[:-1] if d != 1]
        if rows > limit or len(lead) > 1 or not rows:
            super().plan(planner)
            return
        kernel, inputs = self.by_rows, []
        values: dict[str, Any] = {}
        if self.by_digits and rows == 1:
            kernel, inputs = self.by_digits, self.digits(planner)
            values |= {"x": inputs[0].ptr, "p": inputs[1].ptr}
        else:
            x = planner.contiguous(self.data)
            # rounded up: the last group may be shorter
            parts = ceil_div(self.depth, self.size) * ceil_div(min(self.size, self.depth), PART)
            inputs = [x]
            values |= {
                "x": x.ptr, "x_w": x.shape[-1] * x.itemsize, "rows": rows, "filled": self.filled,
                "parts": parts,
            }  # fmt: skip
            if self.lower_at is not None:
                values["lower"] = planner.constants.at(self.lower_at)
            planner.need_scratch(rows * (self.filled + parts) * 4)
        y = planner.output(self.out, row_major_layout(len(self.out.shape)))
        if y.strides[-1] != y.itemsize:  # a view of a concatenation's output
            y = planner.instead(y)
        panels = ceil_div(self.outs, self.weights.sizes.width)
        passes = ceil_div(rows, heights(self.target)[0])
        per_chunk = split(panels, self.sizes["q_panel"] * passes, CHUNK_BYTES)
        abreast = self.unpack.abreast(self.target.lanes)
        if rows == 1 and panels >= LEAST_CHUNKS * abreast:
            per_chunk = ceil_div(per_chunk, abreast) * abreast
        values |= {
            "b": planner.constants.at(self.weights.bias), "y": y.ptr, "y_w": row_step(y),
            "b_step": self.weights.bias_step, "outs": self.outs, "panels": panels, "per_chunk": per_chunk,
            **self.unpacking(planner),
        }  # fmt: skip
        operands, reads = self.operand_rows(planner)
        flops = 2.0 * rows * self.depth * self.outs
        planner.step(kernel, values | operands, ceil_div(panels, per_chunk), [*inputs, *reads], [y], flops)
        planner.steps[-1].bytes += self.stored

    def digits(self, planner: Planner) -> list[View]:
        """The row as digits, and the scale and sums of each group. All products of the row share this
        step."""

        def make() -> list[View]:
            x = planner.contiguous(self.data)
            groups = ceil_div(self.depth, self.size)
            q = planner.allocate((DIGITS * self.filled,), 1)
            p = planner.allocate((groups, DIGITS + 1), 4)
            per_chunk = split(groups, 8 * self.size)
            values: dict[str, Any] = {
                "x": x.ptr, "q": q.ptr, "p": p.ptr, "lane_order": planner.constants.at(self.lane_order_at),
                "depth": self.depth, "size": self.size, "groups": groups, "per_chunk": per_chunk,
            }  # fmt: skip
            planner.step(self.to_digits, values, ceil_div(groups, per_chunk), [x], [q, p], 8.0 * x.count)
            return [q, p]

        return planner.shared(("digits", self.data, self.size), make)


class ChosenProduct(CompressedProduct):
    """Gathered CompressedMatMul: an index selects the matrix of each row. The matrices are stored side by
    side."""

    def __init__(self, group: Group):
        StoredWeights.__init__(self, group)
        self.by_digits = None

    @property
    def sum_words(self) -> int:
        return 0  # the kernel sums per group

    def read_weights(self) -> None:
        super().read_weights()
        self.kinds = int(self.node.attrs["kinds"])
        self.outs //= self.kinds

    def make_kernel(self, names: str) -> Kernel:
        name = f"chosen_{self.unpack.name}_{self.data.dtype}_{self.target.name}{'_' + names if names else ''}"
        return row_kernel(name, self.epilogue, self.target, self.data.dtype, self.unpack, chosen=True)

    def plan(self, planner: Planner) -> None:
        y = planner.output(self.out, row_major_layout(2))
        rows = y.shape[0]
        if not y.count:
            return
        if y.strides[-1] != y.itemsize:  # a view of a concatenation's output
            y = planner.instead(y)
        x = planner.contiguous(self.data).expand((rows, self.depth))
        picks = planner.view(self.node.inputs[4]).expand((rows,))
        panels = ceil_div(self.outs, self.weights.sizes.width)
        per_chunk = split(panels, self.sizes["q_panel"], CHUNK_BYTES)
        blocks = ceil_div(panels, per_chunk)
        parts = ceil_div(self.depth, self.size) * ceil_div(min(self.size, self.depth), PART)
        planner.need_scratch((self.filled + parts) * 4)
        values: dict[str, Any] = {
            "x": x.ptr, "x_w": x.strides[0], "y": y.ptr, "y_w": y.strides[0], "outs": self.outs,
            "panels": panels, "per_chunk": per_chunk, "blocks": blocks, "filled": self.filled,
            "b": planner.constants.at(self.weights.bias), "b_step": self.weights.bias_step,
            "picks": picks.ptr, "picks_w": picks.strides[0], "kinds": self.kinds, **self.unpacking(planner),
        }  # fmt: skip
        if self.lower_at is not None:
            values["lower"] = planner.constants.at(self.lower_at)
        operands, reads = self.operand_rows(planner)
        flops = 2.0 * rows * self.depth * self.outs
        planner.step(self.kernel, values | operands, rows * blocks, [x, picks, *reads], [y], flops)
        planner.steps[-1].bytes += self.stored // self.kinds * rows


#: Maximum rows for which weights are unpacked to registers. A token then has the same bits whether it is
#: computed alone or in a draft.
FEW_ROWS = 8
#: The same limit for tokens of as many sequences. With 16 registers weights are unpacked for each 3 rows, so
#: tiles of 6 rows are faster, by 10 % for 6 rows and by 20 to 27 % for 8.
FEW_SEQUENCES = {"avx2": 5}


#: Bytes of weights that a chunk of few rows reads: about 10 us of memory bandwidth.
CHUNK_BYTES = 1 << 17
#: Minimum number of chunks that must remain if chunks are enlarged to whole sets of parallel panels.
LEAST_CHUNKS = 4


def lower_compressed(group: Group) -> Lowering | None:
    """The lowering for constant weights, if x has dimensions and a type with tiles; else None."""
    anchor = group.node
    if group.context.target.is_gpu:
        from ovjit_ops.matmul.gpu_compressed import CompressedOnGpu

        return CompressedOnGpu.of(group)
    data = anchor.inputs[0]
    form = find_format(data.dtype, data.dtype, group.context.target)
    if any(v.stored_array is None for v in anchor.inputs[1:4]) or form is None:
        return None
    integers = anchor.inputs[1].stored_array
    assert integers is not None
    depth, size = integers.shape[0], int(anchor.attrs["group"])
    if not anchor.attrs["dynamic"] and data.dtype == "bf16" and size % 2 and size < depth:
        return None  # two elements of depth are unpacked at a time, and must be of one group
    if not data.shape or not integers.size:
        return None
    if len(anchor.inputs) > 4:
        return ChosenProduct(group)
    if anchor.attrs["dynamic"]:
        return DynamicProduct(group)
    return CompressedProduct(group)
