"""Native DeformedColumns: bilinear interpolation of the data at the moved taps of a deformable convolution.

Vectors run along channels, which are last. Positions are compared with the map's extents before a read, so
that no offset, NaN included, reads out of bounds.
"""

from __future__ import annotations

import math

from ovjit.codegen.kernel_language import *
from ovjit.graph.windows import resolve_pads, window_attributes
from ovjit.planning.lower import ChannelsLast, NotNative, Planner, launch
from ovjit.records import NamedTuple


class Taps(NamedTuple):
    """A 2-D window: the columns of its taps, strides, dilations, and the padding before the data."""

    columns: int
    sh: int
    sw: int
    dh: int
    dw: int
    ph: int
    pw: int


class Runs(NamedTuple):
    """Numbers of channels: of a run (channels with equal offsets and filters), runs, channels per deformable
    group and per group of filters."""

    run: int
    runs: int
    each: int
    per_group: int


@inline
def move_run(q, x, p, py, px, weight, run, pad):
    """Write `run` channels of the bilinear interpolation at (py, px), times `weight`, to q. `pad`: elements
    outside are 0, else the border is repeated."""
    h = x.size.h
    w = x.size.w
    fy = py // 1.0
    fx = px // 1.0
    i0 = to_int(fy)
    j0 = to_int(fx)
    a1 = py - fy
    b1 = px - fx
    a0 = 1.0 - a1
    b0 = 1.0 - b1
    if pad:
        if i0 < 0:
            a0 = 0.0
        if i0 + 1 > h - 1:
            a1 = 0.0
        if j0 < 0:
            b0 = 0.0
        if j0 + 1 > w - 1:
            b1 = 0.0
    a0 = a0 * weight
    a1 = a1 * weight
    w00 = cast[f32](spread[f64](a0 * b0))
    w01 = cast[f32](spread[f64](a0 * b1))
    w10 = cast[f32](spread[f64](a1 * b0))
    w11 = cast[f32](spread[f64](a1 * b1))
    top = x.at(p, h=max(i0, 0))
    bottom = x.at(p, h=min(i0 + 1, h - 1))
    left = max(j0, 0) * x.stride.w
    right = min(j0 + 1, w - 1) * x.stride.w
    n = 0
    while n < run:
        valid = run - n
        v = loadm[f32](top + left + n * 4, valid) * w00
        v = fma(loadm[f32](top + right + n * 4, valid), w01, v)
        v = fma(loadm[f32](bottom + left + n * 4, valid), w10, v)
        v = fma(loadm[f32](bottom + right + n * 4, valid), w11, v)
        storem[f32](q + n * 4, v, valid)
        n += VL


@kernel(
    over="n oh", x="n c:1 h w", offsets="n moves oh ow", mask="n taps oh ow", y="n columns:1 oh ow",
    window=Taps, of=Runs,
)  # fmt: skip
def deformed_columns(x: Tensor, offsets: Tensor, y: Tensor, mask: Tensor, window, of, taps, *, masked, pad):
    """An item is an output row. `pad`: the map is surrounded by zeros, with which positions up to 1 outside
    are interpolated. Otherwise the border elements are repeated."""
    h = x.size.h
    w = x.size.w
    run = of.run
    per_group = of.per_group
    for img, i, targets, moves in items(y, offsets):
        for j in range(y.size.ow):
            target = y.at(targets, ow=j)
            for k in range(taps):
                ky = i * window.sh - window.ph + (k // window.columns) * window.dh
                kx = j * window.sw - window.pw + (k % window.columns) * window.dw
                for s in range(of.runs):
                    c = s * run
                    dg = c // of.each
                    g = c // per_group
                    at = offsets.at(moves, moves=(dg * taps + k) * 2, ow=j)
                    py = ky + ld[f32](at) * 1.0
                    px = kx + ld[f32](offsets.at(at, moves=1)) * 1.0
                    q = target + ((g * taps + k) * per_group + c - g * per_group) * 4
                    p = x.at(n=img, c=c)
                    if pad:
                        there = py > -1.0 and py < h and px > -1.0 and px < w
                    else:
                        there = py >= 0.0 and py < h and px >= 0.0 and px < w
                    if there:
                        weight = 1.0
                        if masked:
                            at = mask.at(n=img, taps=dg * taps + k, oh=i, ow=j)
                            weight = ld[f32](at) * 1.0
                        move_run(q, x, p, py, px, weight, run, pad)
                    else:
                        for n in range(0, run, VL):
                            storem[f32](q + n * 4, const[f32](0.0), run - n)


class DeformedColumns(ChannelsLast):
    takes = (("f32",),)
    ranks = ((4,),) * 3

    def set_up(self) -> None:
        self.data, self.offsets, *self.mask = self.node.inputs
        self.kernel = deformed_columns(
            masked=bool(self.mask), pad=self.node.attrs["bilinear_interpolation_pad"]
        )

    def plan(self, planner: Planner) -> None:
        attrs = self.node.attrs
        x = planner.with_halo(self.data, [(0, 0)] * 4)
        offsets = planner.view(self.offsets)
        mask = [planner.view(v) for v in self.mask]
        if not x.count:
            raise NotNative
        y = planner.channels_last_output(self.out)
        if not y.count:
            return
        _, c, h, w = x.shape
        kernel = attrs["kernel"]
        window = window_attributes(2, attrs)
        begin, _ = resolve_pads(extents=(h, w), kernel=kernel, **window)
        each, per_group = c // attrs["deformable_group"], c // attrs["group"]
        run = math.gcd(each, per_group)
        taps = math.prod(kernel)
        tensors = {"x": x, "offsets": offsets, "y": y}
        if mask:
            tensors["mask"] = mask[0]
        launch(
            planner, self.kernel, tensors, ("y",), work=y.shape[3] * taps * c * 8, flops=8.0 * y.count,
            window=Taps(kernel[1], *window["strides"], *window["dilations"], *begin),
            of=Runs(run, c // run, each, per_group), taps=taps,
        )  # fmt: skip
