"""Native DeformedColumns: the moved taps of a deformable convolution, read between the data's elements.

Channels last, vectors of channels. A place is checked against the map before it is read, so that no offset,
NaN included, reads anything else.
"""

from __future__ import annotations

import math

from ovjit.codegen.function import kernel
from ovjit.codegen.words import *
from ovjit.compiler.lower import ChannelsLast
from ovjit.compiler.plan import NotNative, Planner
from ovjit.compiler.views import named_strides
from ovjit.graph.windows import resolve_pads, window_attributes


@kernel
def deformed_columns(
    x: Ptr, offsets: Ptr, y: Ptr, mask: Ptr, h, w, kw, sh, sw, dh, dw, ph, pw, oh, ow, run, runs, each,
    per_group, taps, x_n, x_h, x_w, o_n, o_c, o_h, o_w, m_n, m_c, m_h, m_w, y_n, y_h, y_w, rows, per_chunk, *,
    masked, pad,
):  # fmt: skip
    """`pad`: zeros outside, between which one may read; else the last elements stand for them."""
    for row in share(rows, per_chunk):
        img = row // oh
        i = row % oh
        for j in range(ow):
            target = y + img * y_n + i * y_h + j * y_w
            for k in range(taps):
                ky = i * sh - ph + (k // kw) * dh
                kx = j * sw - pw + (k % kw) * dw
                for s in range(runs):
                    c = s * run
                    dg = c // each
                    g = c // per_group
                    at = offsets + img * o_n + (dg * taps + k) * 2 * o_c + i * o_h + j * o_w
                    py = ky + ld[f32](at) * 1.0
                    px = kx + ld[f32](at + o_c) * 1.0
                    q = target + ((g * taps + k) * per_group + c - g * per_group) * 4
                    p = x + img * x_n + c * 4
                    n = 0
                    if pad:
                        there = py > -1.0 and py < h and px > -1.0 and px < w
                    else:
                        there = py >= 0.0 and py < h and px >= 0.0 and px < w
                    if there:
                        fy = py // 1.0
                        fx = px // 1.0
                        i0 = whole(fy)
                        j0 = whole(fx)
                        weight = 1.0
                        if masked:
                            at = mask + img * m_n + (dg * taps + k) * m_c + i * m_h + j * m_w
                            weight = ld[f32](at) * 1.0
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
                        top = p + max(i0, 0) * x_h
                        bottom = p + min(i0 + 1, h - 1) * x_h
                        left = max(j0, 0) * x_w
                        right = min(j0 + 1, w - 1) * x_w
                        while n < run:
                            rest = run - n
                            v = loadm[f32](top + left + n * 4, rest) * w00
                            v = fma(loadm[f32](top + right + n * 4, rest), w01, v)
                            v = fma(loadm[f32](bottom + left + n * 4, rest), w10, v)
                            v = fma(loadm[f32](bottom + right + n * 4, rest), w11, v)
                            storem[f32](q + n * 4, v, rest)
                            n += VL
                    else:
                        while n < run:
                            storem[f32](q + n * 4, const[f32](0.0), run - n)
                            n += VL


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
        n, c, h, w = x.shape
        kernel = attrs["kernel"]
        window = window_attributes(2, attrs)
        begin, _ = resolve_pads(extents=(h, w), kernel=kernel, **window)
        each, per_group = c // attrs["deformable_group"], c // attrs["group"]
        run = math.gcd(each, per_group)
        oh, ow = y.shape[2:]
        taps = math.prod(kernel)
        rows = n * oh
        values = {
            "x": x.ptr, "offsets": offsets.ptr, "y": y.ptr, "h": h, "w": w, "kw": kernel[1],
            "oh": oh, "ow": ow, "run": run, "runs": c // run, "each": each, "per_group": per_group,
            "taps": taps, "rows": rows, **named_strides(x=(x, "n-hw"), y=(y, "n-hw"), o=(offsets, "nchw")),
        }  # fmt: skip
        moves = (*window["strides"], *window["dilations"], *begin)
        values |= dict(zip("sh sw dh dw ph pw".split(), moves, strict=True))
        values |= {"m_n": 0, "m_c": 0, "m_h": 0, "m_w": 0}
        if mask:
            values |= {"mask": mask[0].ptr, **named_strides(m=(mask[0], "nchw"))}
        work = ow * taps * c * 8
        planner.share_step(self.kernel, values, rows, work, [x, offsets, *mask], [y], 8.0 * y.count)
