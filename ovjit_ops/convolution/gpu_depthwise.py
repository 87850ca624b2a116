"""Depthwise convolutions on GPUs: lanes have channels, and an item is some pixels of a row.

    y[n, i, j, c] = epilogue(sum over taps a, b of x[n, i stride - pad + a dilation, ..., c] w[a, b, c])

Sums are f32. Weights of a tap are read once for all pixels of an item. Layouts are arbitrary; with channels
last, a warp reads adjacent elements.
"""

from __future__ import annotations

import numpy as np

from ovjit.codegen.kernel_language import *
from ovjit.graph.dtypes import HALVES
from ovjit.planning.lower import ChannelsLast, Constants, NotNative, Planner, View, launch, product
from ovjit_ops.convolution.cpu_direct import Moves
from ovjit_ops.convolution.gpu_convolution import find_moves
from ovjit_ops.matmul.gpu_epilogues import WithEpilogue, result_and_operands
from ovjit_ops.matmul.gpu_products import LANES, OPERANDS, store_results

#: Element types of data, weights and results.
TYPES = ("f32", *HALVES)
#: Pixels of an item.
PIXELS = 4


@inline
def add_taps(c, data, source, w, weights, i, j, count, rows_of, columns_of, *, T, pixels):
    """Add to c[k] the products of all taps for pixel j + k of row i."""
    for a in range(rows_of.taps):
        line = i * rows_of.stride - rows_of.before + a * rows_of.dilation
        b = 0
        while b < columns_of.taps and line >= 0 and line < data.size.h:
            factor = loadm[T](weights + a * w.stride.a + b * w.stride.b, count)
            for k in static_range(pixels):
                at = (j + k) * columns_of.stride - columns_of.before + b * columns_of.dilation
                if at >= 0 and at < data.size.w:
                    here = data.at(source, h=line, w=at)
                    c[k] = fma(gather[T](here, data.stride.c, count), factor, c[k])
            b += 1


@kernel(
    over="n i j/pixels c/width", data="n h w c", w="a b c:1", y="n i j c", p="n i j c", q="n i j c",
    r="n i j c", rows_of=Moves, columns_of=Moves,
)  # fmt: skip
def depthwise_convolution(
    data: Tensor, w: Tensor, y: Tensor, p: Tensor, q: Tensor, r: Tensor, rows_of, columns_of, *, T, out,
    pixels, width, body, first, second, third,
):  # fmt: skip
    """T, out: element types of the data and weights, and of y. p, q, r: operands of the epilogue, of the
    types `first`, `second` and `third` ("": none)."""
    c, o = registers()
    for _, i, j, channel, source, weights, py, pp, pq, pr in items(data, w, y, p, q, r):
        count = y.size.c - channel
        for k in static_range(pixels):
            c[k] = const[f32](0)
        add_taps(c, data, source, w, weights, i, j, count, rows_of, columns_of)
        for k in static_range(pixels):
            if j + k < y.size.j:
                store_results(
                    o, c[k], count, y.at(py, j=k), y.stride.c, p.at(pp, j=k), p.stride.c, q.at(pq, j=k),
                    q.stride.c, r.at(pr, j=k), r.stride.c,
                )  # fmt: skip


class GpuDepthwise(ChannelsLast, WithEpilogue):
    """GroupConvolution of one channel per group in one or two dimensions with constant weights, with an
    epilogue."""

    takes = (TYPES,)
    ranks = ((3, 4), (4, 5))

    def set_up(self) -> None:
        self.data, filters = self.node.inputs
        dtype, out, weights = self.data.dtype, self.out.dtype, filters.constant
        self.operands = self.group.operands
        if self.node.op.name != "GroupConvolution" or weights is None or not weights.size:
            raise NotNative
        if weights.shape[1:3] != (1, 1) or filters.dtype != dtype or out not in TYPES:
            raise NotNative
        if len(self.operands) > OPERANDS:
            raise NotNative
        self.kernel = self.make_kernel(
            depthwise_convolution, "depthwise_convolution", dtype, out, pixels=PIXELS, width=LANES
        )

    def pack(self, constants: Constants) -> None:
        super().pack(constants)
        weights = self.node.inputs[1].constant
        assert weights is not None
        channels, _, _, *taps = weights.shape
        by_tap = weights.reshape(channels, *(1,) * (2 - len(taps)), *taps).transpose(1, 2, 0)
        self.taps = np.ascontiguousarray(by_tap)
        constants.view(self.taps, self.data.dtype)

    def plan(self, planner: Planner) -> None:
        y = planner.channels_last_output(self.out)
        if not y.count:
            return
        w = planner.constants.view(self.taps, self.data.dtype)
        pixels = _last_channels(y)
        operands = [_last_channels(planner.view(v).expand(y.shape)) for v in self.operands]
        tensors = {"data": _last_channels(planner.view(self.data)), "w": w}
        tensors |= result_and_operands(pixels, operands, w)
        rows_of, columns_of = find_moves(planner, self.node, self.node.inputs[1].shape[3:])
        taps = product(w.shape[:2])
        launch(
            planner, self.kernel, tensors, ("y",), work=taps * PIXELS * LANES, flops=2.0 * y.count * taps,
            rows_of=rows_of, columns_of=columns_of, pixels=PIXELS, width=LANES,
        )  # fmt: skip


def _last_channels(view: View) -> View:
    """[N, C, H, W] or [N, C, W] as [N, H, W, C]."""
    n, channels, *space = view.shape
    n_step, step, *steps = view.strides
    missing = 2 - len(space)
    shape, strides = (n, *(1,) * missing, *space, channels), (n_step, *(0,) * missing, *steps, step)
    return View(view.buffer, shape, strides, view.itemsize, view.offset)
