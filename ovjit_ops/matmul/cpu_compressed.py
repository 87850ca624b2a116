"""CompressedMatMul by the tile kernel: panels are unpacked chunk by chunk, see `ovjit.tiles.compressed`."""

from __future__ import annotations

from typing import Any

from ovjit.codegen.kernel import Kernel
from ovjit.compiler.fuse import Group
from ovjit.compiler.lower import Lowering
from ovjit.compiler.plan import Constants, Planner, ceil_div, split
from ovjit.compiler.views import plain, product
from ovjit.tiles.compressed import (
    HEIGHTS,
    how_unpacked,
    lowering_factors,
    pack_compressed,
    row_kernel,
)
from ovjit.tiles.driver import ROWS, tile_kernel
from ovjit.tiles.formats import product_format
from ovjit.tiles.lowering import Weights
from ovjit.tiles.pack import panel_sizes, tile_width
from ovjit_ops.matmul.cpu_dynamic import DynamicProduct
from ovjit_ops.matmul.cpu_stored import StoredWeights


class CompressedProduct(StoredWeights):
    """Rows are pixels; the weights that tiles read are in scratch."""

    def read_weights(self) -> None:
        super().read_weights()
        attrs = self.node.attrs
        self.size = int(attrs["group"])
        self.unpack = how_unpacked(self.integers, self.scale, self.zero, int(attrs["bits"]), attrs["kind"])

    def __init__(self, group: Group):
        super().__init__(group)
        name = f"rows_{self.unpack.name}_{self.data.dtype}_{self.isa.name}"
        names = [n.op.name.lower() for n in group.body[self.bias is not None :][:4]]
        self.by_rows = row_kernel(
            "_".join((name, *names)), self.epilogue, self.isa, self.data.dtype, self.unpack
        )
        self.kernels = (*self.kernels, self.by_rows)

    def make_kernel(self, names: str) -> Kernel:
        rows, width = ROWS[self.isa.name][0], tile_width(self.isa)
        name = f"matmul_{self.unpack.name}_{self.form.name}_{rows}x{width}_{self.isa.name}"
        name += f"_{names}" if names else ""
        return tile_kernel(name, self.epilogue, self.isa, self.form, unpack=self.unpack)

    def make_blocked(self, name: str) -> Kernel:
        return tile_kernel(name, self.epilogue, self.isa, self.form, True, self.unpack)

    def pack(self, constants: Constants) -> None:
        self.place_operands(constants)
        packed = pack_compressed(self.integers, self.scale, self.zero, self.unpack, self.size, self.isa)
        arrays = {
            "q": packed.integers, "s": packed.scales, "z": packed.zeros, "lv": self.unpack.table(self.isa),
        }  # fmt: skip
        self.place(constants, arrays)
        self.lower_at = None
        if self.unpack.shifts_data:
            self.lower_at = constants.place(lowering_factors(self.isa), "place of 4 bits").offset
        self.sizes = {
            "q_panel": packed.integer_panel, "s_panel": packed.scale_panel, "g_size": self.size,
            "depth": self.depth,
        }  # fmt: skip
        if self.unpack.each_zero:
            self.sizes["z_panel"] = packed.zero_panel
        self.filled = packed.filled
        sizes = panel_sizes(self.form.words(self.depth), self.outs, self.isa)
        self.weights = Weights(1, self.outs, sizes, self.places["q"], *self.pack_bias(constants))
        self.stored: int = sum(a.nbytes for a in arrays.values() if a is not None)

    def unpacking(self, planner: Planner) -> dict[str, Any]:
        return self.placed(planner) | self.sizes

    def plan(self, planner: Planner) -> None:
        shape = planner.shape(self.data)
        rows = product(shape[:-1]) if not self.transposed else FEW_ROWS + 1
        lead = [d for d in shape[:-1] if d != 1]
        if rows > FEW_ROWS or len(lead) > 1 or not rows:
            super().plan(planner)
            return
        x = planner.contiguous(self.data)
        y = planner.output(self.out, plain(len(self.out.shape)))
        panels = ceil_div(self.outs, self.weights.sizes.width)
        per_chunk = split(panels, self.sizes["q_panel"] * ceil_div(rows, HEIGHTS[0]), CHUNK_BYTES)
        groups = ceil_div(self.depth, self.size)
        values: dict[str, Any] = {
            "x": x.ptr, "b": planner.constants.at(self.weights.bias), "y": y.ptr,
            "x_w": x.shape[-1] * x.itemsize, "y_w": y.shape[-1] * y.itemsize,
            "b_step": self.weights.bias_step, "rows": rows, "outs": self.outs, "panels": panels,
            "per_chunk": per_chunk, "filled": self.filled, "groups": groups, **self.unpacking(planner),
        }  # fmt: skip
        if self.lower_at is not None:
            values["lower"] = planner.constants.at(self.lower_at)
        operands, reads = self.operand_rows(planner)
        flops = 2.0 * rows * self.depth * self.outs
        chunks = ceil_div(panels, per_chunk)
        planner.need_scratch(rows * (self.filled + groups) * 4)
        planner.step(self.by_rows, values | operands, chunks, [x, *reads], [y], flops)
        planner.steps[-1].bytes += self.stored


#: Rows up to which the weights go straight to registers.
FEW_ROWS = 8
#: Bytes of weights that a chunk of few rows reads, some 10 us of memory's bandwidth.
CHUNK_BYTES = 1 << 17


def lower_compressed(group: Group) -> Lowering | None:
    """Native where the weights are constant, and x has dimensions and a type that tiles multiply."""
    anchor = group.node
    data = anchor.inputs[0]
    if any(v.constant is None for v in anchor.inputs[1:]) or product_format(data.dtype, data.dtype) is None:
        return None
    integers = anchor.inputs[1].constant
    assert integers is not None
    depth, size = integers.shape[0], int(anchor.attrs["group"])
    if not anchor.attrs["dynamic"] and data.dtype == "bf16" and size % 2 and size < depth:
        return None  # two elements of depth are unpacked at a time, of one group
    if not data.shape or not integers.size:
        return None
    if anchor.attrs["dynamic"]:
        return DynamicProduct(group)
    return CompressedProduct(group)
