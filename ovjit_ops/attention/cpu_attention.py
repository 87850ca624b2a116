"""Native attention: tiles for q k^T and p v, with the softmax between them in blocks of columns.

The full matrix of scores is never stored. A chunk takes several rows of a head, and computes for each block
of columns

    s = q k^T + mask               by tiles, from keys packed as panels
    m' = max(m, row maxima of s)   p = exp(s - m')     l' = l exp(m - m') + row sums of p
    o' = o exp(m - m') + p v       by tiles, from values packed as panels

in its scratch memory; then out = o / l. Both products use the same tile, whose epilogue adds the mask, or o.
Heads are addressed by strides, so heads that share keys read the same panels. For few rows, as in text
generation, packing does not pay: they use dot products, with keys and values in place.

q, k and v are f32 or bf16. Scores, softmax and sums are f32 (`cpu_attention_kernels`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ovjit.codegen.cpu.formats import WORD, find_format, matrix_format, tile_heights
from ovjit.codegen.cpu.ir import Body
from ovjit.codegen.elementwise import elementwise_kernel
from ovjit.codegen.function import DIMS
from ovjit.codegen.kernel import Kernel
from ovjit.graph.byte_rows import ByteRows
from ovjit.graph.graph import Value
from ovjit.graph.shapes import bounds
from ovjit.graph.symbolic import sym_min
from ovjit.planning.copies import copy_kernel, fill_kernel, plan_elementwise, plan_fill
from ovjit.planning.lower import Lowering, launch, place_constants
from ovjit.planning.plan import ALIGNMENT, Constants, NotNative, Planner, ceil_div, element_size
from ovjit.planning.views import Buffer, Layout, View, product
from ovjit_ops.attention.cpu_attention_few import RowMemory, RowNumbers, few_kernel, heights_of
from ovjit_ops.attention.cpu_attention_kernels import (
    TABLE_BYTES,
    AttentionMode,
    Memory,
    Numbers,
    attention_kernel,
)
from ovjit_ops.matmul.cpu_products import matrix_order, pack_kernels, plan_panels

#: Tiles of rows in a chunk.
TILES = 2
#: Columns of a block. Its scores take 86 KB with AVX-512. Each block costs passes over o and the maxima.
COLUMNS = 768
#: Fewer rows than this use dot products.
FEW_ROWS = 6
#: The same limit for a dynamic number of rows with earlier keys, so that a token has the same bits whether it
#: is computed alone or in a draft of several tokens.
DRAFT_ROWS = 9
#: Multiplications of tiles in the time of one multiplication of dot products.
ONE_BY_ONE = 4
#: Operation -> results of a row whose columns are all masked, and of a row with a NaN score.
UNSEEN = {
    "ScaledDotProductAttention": (0, math.nan), "GuardedAttention": (0, 0),
    "SoftmaxAttention": (math.nan, math.nan), "CappedAttention": (math.nan, math.nan),
}  # fmt: skip


class AttentionOfTensors(Lowering):
    """Attention of q, k, v, and perhaps a mask, a scale and sinks: the inputs and constants that CPUs and
    cards share."""

    takes = (*[("f32", "bf16", "f16")] * 3, ("f32",))
    ranks = (range(DIMS + 3),)
    #: The kernel of few rows.
    row_kernel: Kernel

    def name_inputs(self) -> AttentionMode:
        """Set the inputs by name. Returns the constants that all kernels have."""
        self.causal = bool(self.node.attrs["causal"])
        self.cap = self.node.attrs.get("cap")
        named = dict(zip(("q", "k", "v", "mask", "scale", "sink"), self.node.inputs, strict=False))
        if "mask" in named and _is_zero(named["mask"].constant):
            del named["mask"]  # a zero that only precedes the input `scale`
        self.named = named
        #: "k" or "v" -> the form of its rows of bytes, if it has one
        self.rows = {n: ByteRows(**v.node.attrs) for n, v in named.items() if n in "kv" and _is_of_bytes(v)}
        keys, values = (f"u{self.rows[n].bits}" if n in self.rows else named[n].dtype for n in "kv")
        return AttentionMode(
            named["q"].dtype, keys, values, self.out.dtype, self.causal, "sink" in named, self.cap is not None
        )

    def make_few_kernel(self, mode: AttentionMode) -> Kernel:
        """The kernel of few rows."""
        values, size = self.rows.get("v"), self.named["v"].shape[-1]
        width = size if isinstance(size, int) else 0
        if values is not None:
            width = (values.group or width) * values.bits // 8
        return few_kernel(self.target, width, mode)

    def pack(self, constants: Constants) -> None:
        place_constants(constants, self.node.inputs)
        self.zeros = constants.add(np.zeros(COLUMNS, np.float32), "attention zeros").offset
        self.ones = constants.add(np.ones(1, np.float32), "attention ones").offset
        unseen = np.array(UNSEEN[self.node.op.name], np.float32)
        self.unseen = constants.add(unseen, "rows without weights").offset
        if self.cap is not None:
            self.cap_at = constants.add(np.full(1, self.cap, np.float32), "cap of scores").offset

    def _scale(self, planner: Planner, depth: int) -> View:
        if "scale" in self.named:
            return planner.view(self.named["scale"])
        scale = 1 / math.sqrt(max(depth, 1))
        view: View = planner.shared(  # equal layers have one
            ("scale", scale), lambda: planner.data.view(np.full(1, scale, np.float32), "f32")
        )
        return view

    def _mask(self, planner: Planner, shape: tuple[int, ...]) -> View:
        """The mask, broadcast to all scores, with adjacent columns. Without a mask, zeros."""
        if self.causal or "mask" not in self.named:
            zeros = Buffer(COLUMNS * 4, planner.constants.base, self.zeros)
            return View(zeros, shape, [0] * len(shape), 4)
        view = planner.view(self.named["mask"])
        if not view.shape or (view.shape[-1] == 1 and shape[-1] != 1):
            lead = view.shape[:-1] if view.shape else ()
            expanded = planner.allocate((*lead, shape[-1]), 4)
            planner.copy_step(view.expand((*lead, shape[-1])), expanded, "a small operand is expanded")
            view = expanded
        elif view.shape[-1] > 1 and view.strides[-1] != 4:
            view = planner.contiguous(self.named["mask"])
        return view.expand(shape)

    def plan_few(
        self, planner: Planner, tensors: dict[str, View], numbers: Mapping[str, Any], scale: View
    ) -> None:
        """Launch the kernel of few rows. On CPUs, heads of one row each that share keys are its rows."""
        shape = tensors["y"].shape
        flops = 2.0 * product(shape[:-1]) * tensors["mask"].shape[-1]
        height = heights_of(self.target)[0]
        if height > 1:
            tensors = rows_of_groups(tensors, self.causal)
        (rows, depth), columns = tensors["q"].shape[-2:], tensors["mask"].shape[-1]
        value_size = shape[-1]
        block = 1 if self.causal or height == 1 else ceil_div(rows, ceil_div(rows, height))
        k_size, v_size = (self.rows[n].group if n in self.rows else 0 for n in "kv")
        vector = self.target.lanes * 4
        align = max(vector, ALIGNMENT)
        at, values = 0, dict[str, Any]()
        groups = depth // (k_size or depth) if "k" in self.rows else 0
        for name, size in (("q", depth * 4), ("sums", groups * vector), ("s", columns * 4)):
            row = ceil_div(size, align) * align
            values |= {f"{name}_at": at, f"{name}_row": row}
            at += block * row
        values["products_at"] = at
        planner.need_scratch(at + (height * self.target.lanes * vector if height > 1 else 0))
        row = columns * (depth + value_size)
        launch(
            planner, self.row_kernel, tensors, ("y",), work=row * block * ONE_BY_ONE,
            reads=[tensors["q"], scale], flops=flops * (depth + value_size), block=block,
            k_size=k_size or depth, v_size=v_size or value_size, numbers=RowNumbers(**numbers),
            memory=RowMemory(**values),
        )  # fmt: skip

    def _as_it_lies(self, name: str) -> Value:
        """The stored value of k or v: its rows of bytes, if it has such."""
        value = self.named[name]
        return value.node.inputs[0] if name in self.rows else value


class Attention(AttentionOfTensors):
    """Attention of f32 or bf16 tensors, with keys and values of these types, f16 or rows of bytes. An
    optional f32 mask is added. bf16 needs a CPU that multiplies it."""

    def set_up(self) -> None:
        mode = self.name_inputs()
        named, elem, out = self.named, self.named["q"].dtype, self.out.dtype
        self.row_kernel = self.make_few_kernel(mode)
        if self.target.slow_dots and elem == "bf16":
            elem = "f32"  # multiply-adds: 1,024 rows of 64 elements take 0.7 of the time of dot products
        form = find_format(elem, elem, self.target)
        if form is None:
            raise NotNative
        self.form = form = matrix_format(form, self.target)
        #: Rows of a tile, and columns of a block.
        self.tall, self.columns = tile_heights(self.target, form)[0], COLUMNS
        if form.on_unit:
            from ovjit_ops.attention import cpu_attention_unit as on_unit  # few CPUs have a matrix unit

            self.tall, self.columns = on_unit.ROWS, on_unit.COLUMNS
            self.tiles = on_unit.unit_attention_kernel(self.target, form, mode)
        else:
            self.tiles = attention_kernel(self.target, form, mode)
        low, high = bounds(named["q"].shape[-2])
        self.open = low != high
        kernels = [self.row_kernel] if low < FEW_ROWS else []
        least = 2 if any(len(named[n].node.inputs) > 1 for n in self.rows) else FEW_ROWS
        kernels += [self.tiles, *pack_kernels(self.target, form)] if high is None or high >= least else []
        #: type of q, k or v -> kernel that converts it to the tiles' type
        self.narrow: dict[ByteRows | str, Kernel] = {
            named[n].dtype: _convert_kernel(named[n].dtype, elem) for n in "qkv" if named[n].dtype != elem
        }
        if self.rows:
            from ovjit_ops.quantization.cpu_byte_rows import dequantize_kernel

            self.narrow |= {rows: dequantize_kernel(rows, elem) for rows in self.rows.values()}
        kernels += self.narrow.values()
        kernels += [fill_kernel(element_size(out))] if not bounds(named["v"].shape[-2])[0] else []
        self.kernels = (*kernels, copy_kernel(WORD))
        self.pads = (named["q"],) if form.group > 1 and not form.on_unit else ()

    def plan(self, planner: Planner) -> None:
        y = planner.channels_last_output(self.out, -1, any_order=True)
        if not y.count:
            return
        q = self._words(planner, self.named["q"])
        rows, depth = q.shape[-2:]
        # also if values are stored as bytes
        columns, value_size = planner.shape(self.named["v"])[-2:]
        if not columns:  # empty sums
            plan_fill(planner, y)
            return
        batch = y.shape[:-2]
        fresh = self._fresh(planner, rows)
        by_rows = not fresh and (rows < FEW_ROWS or (self.open and rows < DRAFT_ROWS and rows < columns))
        sources = {n: fresh.get(n) or self._as_it_lies(n) for n in "kv"}
        k, v = (self._words(planner, value, False) for value in sources.values())
        scale, mask = self._scale(planner, depth), self._mask(planner, (*batch, rows, columns))
        tensors = {"q": q.expand((*batch, rows, depth)), "y": y, "mask": mask}
        if "sink" in self.named:
            tensors["sink"] = planner.view(self.named["sink"]).expand((*batch, rows, 1))
        numbers: dict[str, Any] = {"scale": scale.ptr, "unseen": planner.constants.at(self.unseen), "cap": 0}
        if self.cap is not None:
            numbers["cap"] = planner.constants.at(self.cap_at)
        if by_rows:
            tensors |= {n: view.expand((*batch, *view.shape[-2:])) for n, view in (("k", k), ("v", v))}
            self.plan_few(planner, tensors, numbers, scale)
            return
        k, v = (self._convert(planner, n, view, sources[n].dtype) for n, view in (("k", k), ("v", v)))
        q = self._convert(planner, "q", q, self.named["q"].dtype)
        tensors["q"] = q.expand((*batch, rows, depth))
        k, keys = plan_panels(
            planner, k.permute(matrix_order(len(k.shape))), self.form, self.named["k"].shape[-1]
        )
        v, values = plan_panels(planner, v, self.form, self.named["v"].shape[-2])
        numbers |= {n: planner.constants.at(at) for n, at in (("zeros", self.zeros), ("ones", self.ones))}
        more: dict[str, Any] = {"numbers": Numbers(**numbers), "k_panel": keys.panel, "v_panel": values.panel}
        more |= self._scratch(planner, rows, depth, value_size)
        tensors |= {n: view.expand((*batch, view.shape[-1])) for n, view in (("k", k), ("v", v))}
        row = columns * (depth + value_size)
        launch(
            planner, self.tiles, tensors, ("y",), work=row * more["block"], reads=[q, scale],
            flops=2.0 * product(batch) * rows * row, **more,
        )  # fmt: skip

    def _scratch(self, planner: Planner, rows: int, depth: int, value_size: int) -> dict[str, Any]:
        """The rows of an item, and the layout of its scratch memory."""
        tall, columns = self.tall, self.columns
        block = sym_min(TILES * tall, ceil_div(rows, tall) * tall)
        tables = 0 if self.form.on_unit else ceil_div(block, tall) * TABLE_BYTES
        at, values = tables, {"columns_per": columns}
        for name, n in (("q", depth), ("s", columns), ("o", value_size)):
            row = ceil_div(n * 4, ALIGNMENT)
            row = (row | 1 if name == "s" else row) * ALIGNMENT  # strides of a power of 2 share cache sets
            values |= {f"{name}_at": at, f"{name}_row": row}
            at += block * row
        for name in ("m", "f", "l"):
            values[f"{name}_at"] = at
            at += ceil_div(block * 4, ALIGNMENT) * ALIGNMENT
        planner.need_scratch(at)
        return {"block": block, "memory": Memory(**values)}

    def _fresh(self, planner: Planner, rows: int) -> dict[str, Value]:
        """Keys and values before quantization to bytes, if there are several rows without earlier ones.
        OpenVINO also reads these."""
        named = {n: self.named[n] for n in self.rows}
        fresh = {n: v.node.inputs[1] for n, v in named.items() if rows > 1 and len(v.node.inputs) > 1}
        all_new = all(planner.shape(v) == planner.shape(named[n]) for n, v in fresh.items())
        return fresh if all_new and len(fresh) == len(named) else {}

    def _convert(self, planner: Planner, name: str, view: View, dtype: str) -> View:
        """q, k or v, converted to the tiles' type."""
        if dtype == self.form.a:
            return view
        n = planner.shape(self.named[name])[-1]
        target = planner.allocate((*view.shape[:-1], n), element_size(self.form.a))
        if dtype == "u8":
            from ovjit_ops.quantization.cpu_byte_rows import plan_rows

            rows = self.rows[name]
            plan_rows(planner, self.narrow[rows], rows.group, view, target)
        else:
            plan_elementwise(planner, self.narrow[dtype], "v", [view], [target], 1)
        return target

    def _words(self, planner: Planner, value: Value, filled: bool = True) -> View:
        """The view of an input with a contiguous last dimension. `filled`: padded with zeros to whole
        words."""
        rank = len(value.shape)
        padded = filled and value.dtype == self.form.a and not self.form.on_unit  # which copies rows
        odd = -planner.shape(value)[-1] % self.form.group if padded else 0
        return planner.with_layout(value, Layout(range(rank), [*[(0, 0)] * (rank - 1), (0, odd)]))


def rows_of_groups(tensors: dict[str, View], causal: bool) -> dict[str, View]:
    """The tensors with the heads that share keys as rows, if each head has a single row."""
    k, v, y = (tensors[n] for n in "kvy")
    if causal or len(y.shape) < 3 or y.shape[-2] != 1 or k.strides[-3] or v.strides[-3]:
        return tensors
    lead = len(y.shape) - 3
    order = (*range(lead), lead + 1, lead, lead + 2)
    # the number of rows may be a traced 1, which is not the 1 of the keys' heads
    swapped = {n: view.slice(lead + 1, 0, 1).permute(order) for n, view in tensors.items() if n not in "kv"}
    return swapped | {n: tensors[n].slice(lead, 0, 1) for n in "kv"}


def _is_of_bytes(value: Value) -> bool:
    """Whether the value is stored as rows of bytes."""
    return value.node.op.name == "DequantizeRows"


def _is_zero(constant: np.ndarray | None) -> bool:
    """Whether a constant is a single 0, whose addition has no effect."""
    return constant is not None and constant.size == 1 and not constant.any()


def _convert_kernel(source: str, to: str) -> Kernel:
    """The kernel that converts elements to another type."""
    return elementwise_kernel(f"convert_{to}", Body([source], [to], [], ["x0"]), "v", DIMS + 1)
