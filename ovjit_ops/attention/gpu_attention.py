"""Attention on GPUs: on tensor cores, or a row at a time by dot products (`cpu_attention_few`).

Tensor cores multiply f16 and bf16, of up to 160 elements a head in rows of a multiple of 16 bytes. Other
types, f32, and keys and values as bytes are computed as few rows on CPUs are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ovjit.codegen.function import name_of
from ovjit.codegen.kernel import Kernel
from ovjit.codegen.warps import MOST_SHARED
from ovjit.graph.dtypes import FLOATS, HALVES
from ovjit.graph.graph import Value
from ovjit.planning.copies import fill_kernel, plan_fill
from ovjit.planning.launch import launch
from ovjit.planning.plan import Planner, ceil_div, element_size
from ovjit.planning.views import Layout, View, product
from ovjit_ops.attention.cpu_attention import AttentionOfTensors, rows_of_groups
from ovjit_ops.attention.cpu_attention_few import RowNumbers
from ovjit_ops.attention.cpu_attention_kernels import AttentionMode
from ovjit_ops.attention.gpu_attention_kernels import combine_parts, shared_bytes, tensor_attention
from ovjit_ops.matmul.gpu_products import LANES, PIECE, STEP

#: Maximum bytes of a row of q, k and v on tensor cores: their fragments and sums are in registers.
MOST_ROW = 320
#: Warps that a card has room for, maximum parts of the keys, and the number of keys from which on they are
#: parted.
WARPS_AT_ONCE, MOST_PARTS, LEAST_KEYS = 528, 32, 256
#: Maximum bytes of a row with which a warp takes 32 keys at a time, for the sake of registers.
WIDE_ROW = 160


class GpuAttention(AttentionOfTensors):
    """Attention of f16, bf16 or f32 tensors, with keys and values of these types, or rows of bytes."""

    def set_up(self) -> None:
        mode = self.name_inputs()
        self.row_kernel = self.make_few_kernel(mode)
        self.tensor_kernel = self._make_tensor_kernel(mode)
        kernel = self.row_kernel if self.tensor_kernel is None else self.tensor_kernel
        self.kernels = (kernel, fill_kernel(element_size(self.out.dtype)))
        #: The kernel for a part of the keys; None where rows see other keys each.
        self.part_kernel = None
        if self.tensor_kernel is not None and not self.causal and "sink" not in self.named:
            self.part_kernel = self._make_tensor_kernel(mode._replace(split=True))
            self.combine_kernel = combine_parts(out=self.out.dtype)
            assert self.part_kernel is not None
            self.kernels += (self.part_kernel, self.combine_kernel)

    def _make_tensor_kernel(self, mode: AttentionMode) -> Kernel | None:
        """The kernel for tensor cores; None if types or sizes do not fit it."""
        q, k, v = (self.named[n] for n in "qkv")
        sizes = q.shape[-1], v.shape[-1]
        if q.dtype not in HALVES or any(x.dtype != q.dtype for x in (k, v)) or self.out.dtype not in FLOATS:
            return None
        if any(not isinstance(n, int) or n % 8 or not 0 < 2 * n <= MOST_ROW for n in sizes):
            return None
        depth_steps, value_steps = (ceil_div(2 * n, STEP) for n in sizes)
        keys = 2 * PIECE if 2 * max(sizes) <= WIDE_ROW else PIECE
        size = shared_bytes(keys, depth_steps, value_steps)
        assert size <= MOST_SHARED
        mode = mode._replace(keys="", values="", masked="mask" in self.named and not self.causal)
        return tensor_attention.kernel(
            name_of("tensor_attention", {"": mode, "depth": sizes[0], "width": sizes[1]}),
            mode=mode._replace(out="f32") if mode.split else mode, rows=PIECE, keys=keys,
            depth_steps=depth_steps, value_steps=value_steps,
            columns=ceil_div(value_steps * PIECE, LANES) * LANES, size=size,
        )  # fmt: skip

    def plan(self, planner: Planner) -> None:
        y = planner.channels_last_output(self.out, -1)
        if not y.count:
            return
        rows, depth = planner.shape(self.named["q"])[-2:]
        columns, value_size = planner.shape(self.named["v"])[-2:]
        if not columns:  # empty sums
            plan_fill(planner, y)
            return
        batch = y.shape[:-2]
        mask = self._mask(planner, (*batch, rows, columns))
        sink = planner.view(self.named["sink"]).expand((*batch, rows, 1)) if "sink" in self.named else None
        views = {n: self._rows(planner, self._as_it_lies(n)) for n in "qkv"}
        scale = self._scale(planner, depth)
        tensors = {n: view.expand((*batch, *view.shape[-2:])) for n, view in views.items()}
        tensors |= {"y": y, "mask": mask} | ({} if sink is None else {"sink": sink})
        numbers: dict[str, Any] = {"scale": scale.ptr, "unseen": planner.constants.at(self.unseen), "cap": 0}
        if self.cap is not None:
            numbers["cap"] = planner.constants.at(self.cap_at)
        work = columns * (depth + value_size)
        flops = 2.0 * product(batch) * rows * work
        if self.tensor_kernel is not None:
            tensors = rows_of_groups(tensors, self.causal)
            options = {"reads": [scale], "flops": flops, "rows": PIECE, "numbers": RowNumbers(**numbers)}
            parts = self._parts(tensors["y"].shape, columns)
            if parts > 1:
                self._plan_parts(planner, tensors, parts, columns, work, options)
                return
            tensors["y"] = with_parts(tensors["y"], 1)
            launch(planner, self.tensor_kernel, tensors, ("y",), work=work * PIECE, part=0, **options)
            return
        self.plan_few(planner, tensors, numbers, scale)

    def _parts(self, shape: Sequence[int], columns: int) -> int:
        """The number of parts of the keys: several if there are fewer rows than a card has warps."""
        if (
            self.part_kernel is None
            or not all(isinstance(d, int) for d in shape[:-1])
            or columns < LEAST_KEYS
        ):
            return 1
        items = product(shape[:-2]) * ceil_div(shape[-2], PIECE)
        return min(MOST_PARTS, ceil_div(WARPS_AT_ONCE, items)) if 2 * items <= WARPS_AT_ONCE else 1

    def _plan_parts(
        self, planner: Planner, tensors: dict[str, View], parts: int, columns: int, work: int, options: Any
    ) -> None:
        """Plan the results of parts of the keys, and their sum."""
        y, kernel = tensors["y"], self.part_kernel
        assert kernel is not None
        batch, (rows, width) = y.shape[:-2], y.shape[-2:]
        results = planner.allocate((*batch, parts, rows, width), 4)
        stat = planner.allocate((*batch, parts, rows, 2), 4)
        keys = 2 * PIECE if 2 * max(width, tensors["q"].shape[-1]) <= WIDE_ROW else PIECE
        part = ceil_div(ceil_div(columns, parts), keys) * keys
        launch(
            planner, kernel, {**tensors, "y": results, "stat": stat}, ("y", "stat"), work=work * PIECE,
            part=part,
            **options,
        )  # fmt: skip
        launch(
            planner, self.combine_kernel, {"part": results, "stat": stat, "y": y}, ("y",), work=parts * LANES,
            unseen=planner.constants.at(self.unseen),
        )  # fmt: skip

    def _rows(self, planner: Planner, value: Value) -> View:
        """The view of an operand whose rows have adjacent elements; on tensor cores, they begin at multiples
        of 16 bytes, too."""
        order = Layout(range(len(value.shape)))
        if self.tensor_kernel is None:
            return planner.with_layout(value, order)
        view = planner.view(value)
        steps = (*view.strides[:-1], view.offset)
        aligned = view.strides[-1] == view.itemsize and all(step % 16 == 0 for step in steps)
        return view if aligned else planner.copy(value, order)


def with_parts(view: View, parts: int) -> View:
    """[..., r, w] as [..., parts, r, w], the same in all parts."""
    *batch, rows, width = view.shape
    strides = (*view.strides[:-2], 0, *view.strides[-2:])
    return View(view.buffer, (*batch, parts, rows, width), strides, view.itemsize, view.offset)
