"""CompressedMatMul with dynamic quantization of the rows, in two steps: see `ovjit.tiles.dynamic`."""

from __future__ import annotations

from typing import Any

import numpy as np

from ovjit.codegen.cpu.formats import WORD, how_stored, quantizes_rows
from ovjit.codegen.kernel import Kernel
from ovjit.graph.converted import Factored
from ovjit.graph.stored_floats import integer_levels
from ovjit.graph.symbolic import sym_min
from ovjit.planning.fuse import Group
from ovjit.planning.launch import launch
from ovjit.planning.plan import Constants, Planner, ceil_div, split
from ovjit.planning.views import Layout, View, product, row_major_layout
from ovjit.tiles.compressed import Unpack, how_unpacked
from ovjit.tiles.dynamic import (
    HEIGHTS,
    groups_of_part,
    pack_dynamic,
    product_kernel,
    quantize_kernel,
    scratch_bytes,
    stored_in_blocks,
    stored_with_levels,
    table_of_levels,
    unpacks,
    vectors_of_group,
)
from ovjit.tiles.nested import group_words, quantize_nested
from ovjit.tiles.pack import tile_width
from ovjit_ops.matmul.cpu_stored import StoredWeights

#: Maximum bytes of quantized rows in a chunk, which reads them once per panel.
ROW_BYTES = 256 * 1024
#: Maximum words of a group that has code of its own.
MOST_WORDS = 8
#: Rows of a chunk whose rows are longer than that: panels are unpacked for each chunk.
LEAST_ROWS = 96
#: Maximum rows of a chunk, whose sums are in scratch memory.
MOST_ROWS = 512
#: The highest bits of four bytes, as an i32: i8 differ from u8 with another zero point by these.
SIGNS = 0x80808080 - (1 << 32)
#: Four-byte dot products in a chunk: about 10 us.
CHUNK_DOTS = 1_500_000


class DynamicProduct(StoredWeights):
    """CompressedMatMul of quantized rows. A step of its own quantizes them; all products of these rows share
    it."""

    @property
    def sum_words(self) -> int:
        return 0  # the kernel sums per group

    def read_weights(self) -> None:
        super().read_weights()
        attrs = self.node.attrs
        self.size = int(attrs["dynamic"])
        self.groups_of_rows = ceil_div(self.depth, self.size)
        group = int(attrs["group"])
        self.ratio = ceil_div(group, self.size)
        self.inner = group if group < min(self.size, self.depth) else 0
        stored, bits = (self.integers, self.scale, self.zero), int(attrs["bits"])
        self.blocks: Unpack | None = None
        self.levels: np.ndarray | None = None
        if attrs["kind"]:
            levels = integer_levels(attrs["kind"])
            assert levels is not None
            self.blocks = how_unpacked(*stored, bits, "")
            self.how = stored_with_levels(self.blocks, *levels, self.target, self.size)
            self.levels = table_of_levels(levels[0], self.how, self.target)
        elif isinstance(self.scale, Factored) or isinstance(self.zero, Factored) or bits not in (4, 8):
            self.blocks = how_unpacked(*stored, bits, "")
            self.how = stored_in_blocks(self.blocks, self.zero, self.target, self.size, self.inner)
        else:
            self.how = how_stored(*stored, bits, self.target, self.size)
        if quantizes_rows(self.target) and self.size // WORD <= MOST_WORDS:
            shared = self.ratio > 1 and self.blocks is None and not self.target.is_arm
            if shared or self.ratio == 1:
                self.how = self.how._replace(words=self.size // WORD, shared=shared)

    def __init__(self, group: Group):
        super().__init__(group)
        if self.inner:
            self.quantize = quantize_nested(self.data.dtype, self.how)
        else:
            vectors = vectors_of_group(self.depth, self.size, self.target)
            self.quantize = quantize_kernel(self.data.dtype, self.how, vectors)
        self.kernels = (self.quantize, *self.kernels)

    def make_kernel(self, names: str) -> Kernel:
        name = f"matmul_i8_{self.how.name}_{self.target.name}{'_' + names if names else ''}"
        return product_kernel(name, self.epilogue, self.target, self.how, self.blocks)

    def pack(self, constants: Constants) -> None:
        self.place_operands(constants)
        packed = pack_dynamic(
            self.integers, self.scale, self.zero, self.how, self.size, self.target, self.blocks
        )
        zeros = packed.zeros if self.levels is None else self.levels
        arrays: dict[str, Any] = {"w": packed.integers, "s": packed.scales, "z": zeros}
        self.place_arrays(constants, arrays, self.how, self.size, self.blocks)
        if self.how.bits == 8:
            flipped = self.integers.dtype != (np.int8 if self.how.less else np.uint8)
            self.note_rows(constants, self.offsets["w"], packed.w_panel, WORD, SIGNS * flipped)
        self.panels = {"w_panel": packed.w_panel, "s_panel": packed.s_panel, "z_panel": packed.z_panel}
        self.bias_at = self.pack_bias(constants, self.bias)
        self.stored: int = sum(a.nbytes for a in arrays.values() if a is not None)

    def quantize_rows(self, planner: Planner) -> tuple[View, View]:
        """The quantized rows, and the scale and sum of each group."""

        def make() -> tuple[View, View]:
            x = planner.contiguous(self.data)
            rows = product(x.shape[:-1])
            # rows of a tile should not share the sets of the first-level cache
            q = planner.allocate((rows, self.groups_of_rows * self.size), 1, Layout((0, 1), gap=True))
            words = group_words(self.how)
            p = planner.allocate((rows, self.groups_of_rows * words), 4, Layout((0, 1), gap=True))
            pairs = p.as_shape((rows, self.groups_of_rows, words))
            tensors = {"x": x.as_shape((rows, self.depth)), "q": q, "p": pairs}
            sizes = {"inner": self.inner} if self.inner else {"size": self.size}
            launch(
                planner, self.quantize, tensors, ("q", "p"), **sizes, work=4 * self.depth, flops=4.0 * x.count
            )
            return q, p

        return planner.shared(("quantized", self.data, self.size, self.inner, self.quantize.name), make)

    def plan(self, planner: Planner) -> None:
        rows = product(planner.shape(self.data)[:-1])
        y = planner.output(self.out, row_major_layout(len(self.out.shape)))
        if not rows:
            return
        q, p = self.quantize_rows(planner)
        operands, reads = self.operand_rows(planner)
        if not y.is_contiguous:  # a view of a concatenation's output
            y = planner.instead(y)
        panels = ceil_div(self.outs, tile_width(self.target))
        width = q.shape[1]
        height = HEIGHTS[0]
        tiles = ceil_div(rows, height)
        blocks = ceil_div(tiles, max(LEAST_ROWS, min(ROW_BYTES // width, MOST_ROWS)) // height)
        rows_per = ceil_div(tiles, blocks) * height
        row_blocks = ceil_div(rows, rows_per)
        per_chunk = split(
            panels, sym_min(rows, rows_per) * width * (tile_width(self.target) // 4), CHUNK_DOTS
        )
        nested = self.inner > 0 or (self.blocks is not None and self.blocks.has_nested_scales)
        part = groups_of_part(self.size, self.ratio, self.groups_of_rows, nested, self.target)
        values = {
            "x": q.ptr, "p": p.ptr, "y": y.ptr, "b": planner.constants.at(self.bias_at[0]),
            "b_step": self.bias_at[1], "x_w": q.strides[0], "p_w": p.strides[0],
            "y_w": self.outs * y.itemsize, "words": self.size // 4, "groups": self.groups_of_rows,
            "ratio": self.ratio, "part": part, "rows": rows, "rows_per": rows_per, "outs": self.outs,
            "panels": panels, "per_chunk": per_chunk, **self.panels, **operands,
        }  # fmt: skip
        values |= self.bind_constants(planner)
        unpacked = (part * self.size // WORD, ceil_div(part, self.ratio) + 1)
        if not unpacks(self.how, self.blocks):
            unpacked = (0, 0)
        planner.need_scratch(scratch_bytes(self.target, rows_per, *unpacked, self.how))
        chunks = ceil_div(panels, per_chunk) * row_blocks
        flops = 2.0 * rows * self.depth * self.outs
        planner.step(self.kernel, values, chunks, [q, p, *reads], [y], flops)
        planner.steps[-1].bytes += self.stored
