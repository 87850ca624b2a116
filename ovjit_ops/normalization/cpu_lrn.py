"""Native LRN along one axis, with the data in place. LRN over space expands to an average pooling of squares.

If the axis is adjacent, a row is one pixel's channels. The window's sum for a vector of channels is a sum of
shifted loads. They are masked at the row's end. At its beginning they read a copy of the row's first vector
with a border of zeros. Otherwise vectors are along the dimensions after the axis, and the window's planes are
added.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np

from ovjit.codegen import trace as t
from ovjit.codegen.cpu.ir import body_of
from ovjit.codegen.kernel_language import *
from ovjit.graph.dtypes import numpy_dtype
from ovjit.graph.graph import Node, Value
from ovjit.graph.shapes import bounds, is_static, normalize_axes
from ovjit.graph.symbolic import sym_min
from ovjit.graph.windows import LARGEST
from ovjit.planning.lower import Layout, Lowering, NotNative, Planner, launch, product, row_major_layout
from ovjit.rewrite.writer import Writer

#: Columns of a block: all planes are computed for it before the next block.
BLOCK = 256


def divide_power(x: t.Tracer, base: t.Tracer, beta: float) -> t.Tracer:
    """x / base ** beta. Common powers take one or two square roots."""
    if beta == 0.75:
        root = t.sqrt(base)
        return x / (root * t.sqrt(root))
    if beta in (0.5, 1.0):
        return x / (base if beta == 1.0 else t.sqrt(base))
    return x * t.exp(t.log(base) * -beta)


@kernel(over="...", x="... n:1", y="... n:1")
def lrn(x: Tensor, y: Tensor, *, half, body):
    """y = body(x[c], sum of x[c + s]^2 for -half <= s <= half)"""
    store[f32](scratch, const[f32](0.0))
    n = x.size.n
    for p, q in items(x, y):
        # scratch has the channels -VL to VL - 1; the window of the first vector reaches no further
        store[f32](scratch + VL * 4, loadm[f32](p, n))
        for k in range(0, n, VL):
            v = loadm[f32](p + k * 4, n - k)
            total = v * v
            here = p + k * 4
            if k == 0:
                here = scratch + VL * 4
            for s in static_range(1, half + 1):
                low = loadm[f32](here - s * 4, n - k + s)
                high = loadm[f32](p + (k + s) * 4, n - k - s)
                total = fma(high, high, fma(low, low, total))
            result = applied(body, v, total)
            storem[f32](q + k * 4, result, n - k)


@inline
def some(p, n, part):
    """A full vector at p, or n elements if `part`."""
    return loadm[f32](p, n) if part else load[f32](p)


@kernel(over=f"... lanes/{BLOCK}:1", x="... n", y="... n")
def lrn_planes(x: Tensor, y: Tensor, *, half, body):
    """`lrn` for adjacent elements in each of the n planes. An item is a block of them, so that the blocks of
    a window's planes stay in the first-level cache."""
    for first, p, q in items(x, y):
        count = min(x.size.lanes - first, BLOCK)
        for k in range(x.size.n):
            i = 0
            for part in static_range(2):  # full vectors, then the remainder
                while i < count - (0 if part else VL - 1):
                    here = p + i * 4
                    v = some(here, count - i, part)
                    total = v * v
                    for s in static_range(1, half + 1):
                        if k >= s:
                            low = some(here - s * x.stride.n, count - i, part)
                            total = fma(low, low, total)
                        if k + s < x.size.n:
                            high = some(here + s * x.stride.n, count - i, part)
                            total = fma(high, high, total)
                    result = applied(body, v, total)
                    if part:
                        storem[f32](q + i * 4, result, count - i)
                    else:
                        store[f32](q + i * 4, result)
                    i += VL
            p += x.stride.n
            q += y.stride.n


@functools.cache
def lrn_kernel(half: int, scale: float, bias: float, beta: float, planes: bool) -> Kernel:
    """The kernel of y = x / (bias + scale * total) ^ beta in f32. `planes`: `lrn_planes`, else `lrn`."""
    body = body_of(lambda x, total: divide_power(x, total * scale + bias, beta), 2)
    way = lrn_planes if planes else lrn
    return way.kernel(f"{way.function.__name__}_{2 * half + 1}_f32", half=half, body=body)


class LocalResponse(Lowering):
    """LRN along one axis. Raises NotNative if half of the window exceeds a vector."""

    takes = (("f32",), None)

    def set_up(self) -> None:
        self.data, axes = self.node.inputs
        value, rank = axes.type.value, len(self.data.shape)
        too_large = (self.node.attrs["size"] - 1) // 2 > self.target.lanes
        if value is None or value.size != 1 or not rank or too_large:
            raise NotNative
        self.axis = axis = int(value.reshape(-1)[0]) % rank
        self.layout = Layout((*(a for a in range(rank) if a != axis), axis))  # the axis is adjacent
        self.is_adjacent = True

    def output_layout(self, layouts: dict[Value, Layout]) -> Layout | None:
        """The layout with an adjacent axis if the data have it."""
        return self.layout if self._adjacent(layouts) else None

    def _adjacent(self, layouts: dict[Value, Layout]) -> bool:
        have = layouts.get(self.data)
        return (row_major_layout(len(self.data.shape)) if have is None else have).order == self.layout.order

    def finalize(self, layouts: dict[Value, Layout]) -> None:
        self.is_adjacent = self._adjacent(layouts)
        attrs = self.node.attrs
        half = (attrs["size"] - 1) // 2
        scale = attrs["alpha"] / attrs["size"]
        self.kernel = lrn_kernel(half, scale, attrs["bias"], attrs["beta"], not self.is_adjacent)

    def plan(self, planner: Planner) -> None:
        order = self.layout if self.is_adjacent else row_major_layout(len(self.data.shape))
        x = planner.with_layout(self.data, order)
        y = planner.channels_last_output(self.out, order.order[-1])
        if not y.count:
            return
        planner.need_scratch(2 * 4 * self.target.lanes)
        width = 1 if self.is_adjacent else sym_min(product(x.shape[self.axis + 1 :]), BLOCK)
        launch(
            planner, self.kernel, {"x": x, "y": y}, ("y",), axes={"n": self.axis},
            work=x.shape[self.axis] * 12 * width, flops=20.0 * y.count,
        )  # fmt: skip


def expand_lrn(w: Writer, node: Node, inputs: tuple[Value, ...]) -> Sequence[Value] | None:
    """LRN(x) -> x / (bias + alpha / size^n * taps * AvgPool(x^2 with the n axes last))^beta

    LRN along one axis is only expanded if the kernel does not support it.
    """
    x, axes = inputs
    if x.shape is None or axes.type.value is None or not 0 < axes.type.value.size < 4:
        return None
    rank, attrs = len(x.shape), node.attrs
    along = normalize_axes((int(a) for a in axes.type.value.reshape(-1)), rank)
    half, count = (attrs["size"] - 1) // 2, len(along)
    if count == 1 and x.dtype == "f32" and half <= w.b.context.target.lanes:
        return None
    if is_static(x.shape):
        half = min(half, max(*(x.shape[a] for a in along), 1))  # the window ends at the border
    if 2 * half >= LARGEST:
        return None
    order = (*(a for a in range(rank) if a not in along), *along)
    squares = w("Multiply", x, x)
    in_place = order == tuple(range(rank)) and rank == count + 2
    if not in_place:
        squares = w("Transpose", squares, order)
        dims = w.shape(squares)
        squares = w("Reshape", squares, (math.prod(dims[:-count]), 1, *dims[-count:]), special_zero=False)
    window, ones, pads = (2 * half + 1,) * count, (1,) * count, (half,) * count
    empty = any(bounds(d)[0] < 1 for d in squares.shape[2:])
    if empty:  # AvgPool rejects images without pixels, LRN does not: a row and a column are added
        zero = np.zeros((), numpy_dtype(x.dtype))
        before, after = (0, 0, *pads), (0, 0, *(half + 1,) * count)
        squares, pads = w("Pad", squares, before, after, zero, pad_mode="constant"), (0,) * count
    mean = w(
        "AvgPool", squares, kernel=window, strides=ones, pads_begin=pads, pads_end=pads, exclude_pad=False
    )
    if empty:
        mean = w("Slice", mean, (0,) * count, (-1,) * count, ones, tuple(range(2, count + 2)))
    if not in_place:
        mean = w("Reshape", mean, dims, special_zero=False)
        mean = w("Transpose", mean, tuple(order.index(a) for a in range(rank)))
    scale = attrs["alpha"] / attrs["size"] ** count * (2 * half + 1) ** count
    base = w("Add", w("Multiply", mean, scale), attrs["bias"])
    root = w("Sqrt", base) if attrs["beta"] in (0.5, 0.75) else base  # as in `divide_power`
    if attrs["beta"] == 0.75:
        root = w("Multiply", root, w("Sqrt", root))
    elif root is base and attrs["beta"] != 1:
        root = w("Power", base, attrs["beta"])
    return [w("Divide", x, root)]
