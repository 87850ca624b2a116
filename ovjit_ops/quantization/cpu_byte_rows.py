"""Native QuantizeRows, written in place, and DequantizeRows, only for consumers that read floats."""

from __future__ import annotations

import functools

from ovjit.codegen.kernel_language import *
from ovjit.graph.byte_rows import HEAD, LEAST, ByteRows
from ovjit.planning.lower import Lowering, Planner, View, launch, row_major_layout

_BYTE = "u8"


@kernel(over="...", x="... m:1", y="... n:1")
def quantize_rows(x: Tensor, y: Tensor, size, *, bits):
    """y = scales, zeros and numbers of each row of m elements, in groups of `size`"""
    for p, head in items(x, y):
        q = head + x.size.m // size * HEAD
        for _ in range(0, x.size.m, size):
            low = loadm[f32](p, size)
            low = blend[f32](size, low, spread[f32](lane[f32](low, 0)))
            high = low
            for i in range(0, size, VL):
                v = loadm[f32](p + i * 4, size - i)
                low = blend[f32](size - i, minimum(low, v), low)
                high = blend[f32](size - i, maximum(high, v), high)
            low = spread[f32](hmin[f32](low))
            scale = (spread[f32](hmax[f32](high)) - low) * const[f32](1 / ((1 << bits) - 1))
            steps = select(scale > const[f32](LEAST), const[f32](1.0) / scale, const[f32](0.0))
            st[f32](head, lane[f32](scale, 0))
            st[f32](head + 4, lane[f32](low, 0))
            for i in range(0, size * bits // 8, VL):
                remaining = size * bits // 8 - i
                v = rint((loadm[f32](p + i * 4, remaining) - low) * steps)
                if bits == 4:  # the high bits, times 16
                    other = rint((loadm[f32](p + (size // 2 + i) * 4, remaining) - low) * steps)
                    v = fma(other, const[f32](16.0), v)
                storem[_BYTE](q + i, cast[_BYTE](v), remaining)
            p += size * 4
            q += size * bits // 8
            head += HEAD


@kernel(over="...", x="... m:1", y="... n:1")
def dequantize_rows(x: Tensor, y: Tensor, size, *, bits, T):
    """y = scale * number + zero for each row of n numbers, in groups of `size`"""
    for head, q in items(x, y):
        p = head + y.size.n // size * HEAD
        for _ in range(0, y.size.n, size):
            scale = splat[f32](head)
            zero = splat[f32](head + 4)
            for i in range(0, size * bits // 8, VL):
                remaining = size * bits // 8 - i
                if bits == 4:
                    both = cast[i32](loadm[_BYTE](p + i, remaining))
                    v = cast[f32](both & const[i32](15))
                    other = cast[f32](both >> const[i32](4))
                    storem[T](q + (size // 2 + i) * SIZE[T], fma(other, scale, zero), remaining)
                else:
                    v = cast[f32](loadm[_BYTE](p + i, remaining))
                storem[T](q + i * SIZE[T], fma(v, scale, zero), remaining)
            p += size * bits // 8
            q += size * SIZE[T]
            head += HEAD


@functools.cache
def dequantize_kernel(rows: ByteRows, dtype: str = "f32") -> Kernel:
    """The kernel that converts rows of bytes to `dtype`."""
    return dequantize_rows(bits=rows.bits, T=dtype)


def plan_rows(planner: Planner, made_by: Kernel, group: int, x: View, y: View) -> None:
    """Add the step that converts the rows of `x` to those of `y`, in groups of `group` numbers; 0: one group.
    Elements of a row are adjacent in both."""
    if y.count:
        numbers = x if x.itemsize > 1 else y
        n, flops = numbers.shape[-1], 2.0 * numbers.count
        launch(planner, made_by, {"x": x, "y": y}, ("y",), work=n * 8, flops=flops, size=group or n)


class QuantizedRows(Lowering):
    """Quantization writes into a concatenation's output. Dequantization is deferred until a consumer reads
    floats, as attention reads bytes."""

    def set_up(self) -> None:
        self.data = self.node.inputs[0]
        self.fresh = self.node.inputs[1:]
        self.reads = self.data.dtype == _BYTE
        self.rows = ByteRows(self.node.attrs["bits"], self.node.attrs["group"])
        self.kernel = dequantize_kernel(self.rows) if self.reads else quantize_rows(bits=self.rows.bits)

    def plan(self, planner: Planner) -> None:
        if self.reads:
            for fresh in self.fresh:  # keep it for the deferred step
                planner.pinned.add(planner.view(fresh).buffer)
            planner.defer(self.out, lambda: self._convert_rows(planner), self.data)
        else:
            self._convert_rows(planner)

    def _convert_rows(self, planner: Planner) -> View:
        order = row_major_layout(len(planner.shape(self.out)))
        y = planner.output(self.out, order)
        for fresh in self.fresh:
            if planner.shape(fresh) == planner.shape(self.out):
                planner.copy_step(planner.view(fresh), y, "")
                return y
        x = planner.with_layout(self.data, order)
        target = y if y.strides[-1] == y.itemsize else planner.allocate(y.shape, y.itemsize)
        plan_rows(planner, self.kernel, self.rows.group, x, target)
        if target is not y:
            planner.copy_step(target, y, "the kernel cannot write the result's memory order")
        return y
