"""Native rows of bytes: they are written to where they belong, and made floats for those who read floats."""

from __future__ import annotations

import functools

from ovjit.codegen.function import DIMS, kernel
from ovjit.codegen.kernel import Kernel
from ovjit.codegen.words import *
from ovjit.compiler.lower import Lowering
from ovjit.compiler.plan import Planner
from ovjit.compiler.races import Piece, Rows
from ovjit.compiler.views import View, merge_dims, placed_values, plain, product
from ovjit.graph.byte_rows import HEAD, LEAST, TOP

_BYTE = "u8"


@kernel
def quantize_rows(x: Ptr, y: Ptr, n, rows, per_chunk):
    """y = scale, zero and the bytes of each row of n elements"""
    for row in share(rows, per_chunk):
        p, q = placed(row, x, y)
        low = loadm[f32](p, n)
        low = blend[f32](n, low, spread[f32](lane[f32](low, 0)))
        high = low
        for i in range(0, n, VL):
            v = loadm[f32](p + i * 4, n - i)
            low = blend[f32](n - i, minimum(low, v), low)
            high = blend[f32](n - i, maximum(high, v), high)
        low = spread[f32](hmin[f32](low))
        scale = (spread[f32](hmax[f32](high)) - low) * const[f32](1 / TOP)
        steps = select(scale > const[f32](LEAST), const[f32](1.0) / scale, const[f32](0.0))
        st[f32](q, lane[f32](scale, 0))
        st[f32](q + 4, lane[f32](low, 0))
        for i in range(0, n, VL):
            v = rint((loadm[f32](p + i * 4, n - i) - low) * steps)
            storem[_BYTE](q + HEAD + i, cast[_BYTE](v), n - i)


@kernel
def dequantize_rows(x: Ptr, y: Ptr, n, rows, per_chunk, *, T):
    """y = scale * byte + zero of each row of n bytes"""
    for row in share(rows, per_chunk):
        p, q = placed(row, x, y)
        scale = splat[f32](p)
        zero = splat[f32](p + 4)
        for i in range(0, n, VL):
            v = cast[f32](loadm[_BYTE](p + HEAD + i, n - i))
            storem[T](q + i * SIZE[T], fma(v, scale, zero), n - i)


@functools.cache
def dequantize_kernel(dtype: str = "f32") -> Kernel:
    """Makes rows of `dtype` of bytes."""
    return dequantize_rows(T=dtype)


def plan_rows(planner: Planner, made_by: Kernel, x: View, y: View) -> None:
    """Add the step that makes the rows of `y` of those of `x`: elements of either are adjacent."""
    if not y.count:
        return
    extents, (xs, ys) = merge_dims(y.shape[:-1], [v.strides[:-1] for v in (x, y)], DIMS)
    if len(extents) > DIMS:
        axis = next(a for a, extent in enumerate(y.shape) if extent > 1)
        for i in range(y.shape[axis]):
            plan_rows(planner, made_by, x.slice(axis, i, 1), y.slice(axis, i, 1))
        return
    n = min(x.shape[-1], y.shape[-1])
    rows = product(extents)
    values = {"x": x.ptr, "y": y.ptr, "n": n, "rows": rows, **placed_values(extents, x=xs, y=ys)}
    pieces = [Piece(v.ptr, s, (v.shape[-1],), (v.itemsize,), v.itemsize) for v, s in ((x, xs), (y, ys))]

    def touches(each: int) -> Rows:
        return Rows(extents, each, pieces[:1], pieces[1:])

    planner.share_step(made_by, values, rows, n * 8, [x], [y], 2.0 * rows * n, touches)


class QuantizedRows(Lowering):
    """Rows to bytes where a concatenation wants them; rows of floats only for those that ask for them:
    attention reads bytes."""

    def set_up(self) -> None:
        self.given = self.node.inputs[0]
        self.fresh = self.node.inputs[1:]
        self.reads = self.given.dtype == _BYTE
        self.kernel = dequantize_kernel() if self.reads else quantize_rows()

    def plan(self, planner: Planner) -> None:
        if self.reads:
            for fresh in self.fresh:  # as it is, for who asks later
                planner.pinned.add(planner.view(fresh).buffer)
            planner.defer(self.out, lambda: self._made(planner), self.given)
        else:
            self._made(planner)

    def _made(self, planner: Planner) -> View:
        order = plain(len(planner.shape(self.out)))
        y = planner.output(self.out, order)
        for fresh in self.fresh:
            if planner.shape(fresh) == planner.shape(self.out):
                planner.copy_step(planner.view(fresh), y)
                return y
        x = planner.with_layout(self.given, order)
        target = y if y.strides[-1] == y.itemsize else planner.allocate(y.shape, y.itemsize)
        plan_rows(planner, self.kernel, x, target)
        if target is not y:
            planner.copy_step(target, y)
        return y
