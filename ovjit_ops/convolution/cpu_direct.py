"""Convolution that no tile does: of f64 and integers, and of f32 by computed filters of open shape.

    y[n, o, p] = sum over taps t, channels c of x[n, c, p * stride - pad + t * dilation] * w[t, c, o]

Directly from the definition: vectors of output channels, elements of the data in all lanes, one to three
spatial dimensions, any layout. Sums are made in the element type, so that integers wrap around.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ovjit.codegen.function import kernel, spaced
from ovjit.codegen.words import *
from ovjit.compiler.lower import Lowering
from ovjit.compiler.plan import Constants, NotNative, Planner
from ovjit.compiler.views import Layout, View, channels_last, product
from ovjit.graph.graph import Value
from ovjit.graph.traced import most
from ovjit.graph.windows import resolve_pads

TYPES = frozenset("f32 f64 i8 i16 i32 i64 u8 u16 u32 u64".split())
_SPACE = ("d", "h", "w")


@kernel
def direct_convolution(
    x: Ptr, w: Ptr, y: Ptr, groups, ins, outs, x_n, x_c, y_n, y_c, id, od, kd, sd, pd, td, x_d, y_d, ih, oh,
    kh, sh, ph, th, x_h, y_h, iw, ow, kw, sw, pw, tw, x_w, y_w, rows, per_chunk, *, T,
):  # fmt: skip
    for row in share(rows, per_chunk):
        i = row % oh
        rest = row // oh
        z = rest % od
        rest = rest // od
        g = rest % groups
        n = rest // groups
        source = x + n * x_n + g * ins * x_c
        filters = w + g * kd * kh * kw * ins * outs * SIZE[T]
        for j in range(ow):
            target = y + n * y_n + g * outs * y_c + z * y_d + i * y_h + j * y_w
            for o in range(0, outs, VL):
                acc = const[T](0)
                for a in range(kd):
                    pz = z * sd - pd + a * td
                    b = 0
                    while b < kh and pz >= 0 and pz < id:
                        py = i * sh - ph + b * th
                        e = 0
                        while e < kw and py >= 0 and py < ih:
                            px = j * sw - pw + e * tw
                            if px >= 0 and px < iw:
                                p = source + pz * x_d + py * x_h + px * x_w
                                q = filters + (((a * kh + b) * kw + e) * ins * outs + o) * SIZE[T]
                                for _ in range(ins):
                                    acc = fma(splat[T](p), loadm[T](q, outs - o), acc)
                                    p += x_c
                                    q += outs * SIZE[T]
                            e += 1
                        b += 1
                spaced(target + o * y_c, y_c, acc, outs - o, T)


def filter_matrix(planner: Planner, filters: Value, grouped: bool, dense: bool = False) -> View:
    """Computed filters as [G, taps * C, O], copied where they do not lie so; `dense`: without gaps, too."""
    rank = len(filters.shape)
    order = (*([0] if grouped else []), *range(2 + grouped, rank), 1 + grouped, int(grouped))

    def turned(view: View) -> View | None:
        outs = view.shape[int(grouped)]
        groups = view.shape[0] if grouped else 1
        matrix = view.permute(order).reshape((groups, product(view.shape) // most(1, groups * outs), outs))
        return None if matrix is None or (dense and not matrix.is_contiguous) else matrix

    matrix = turned(planner.view(filters)) or turned(planner.copy(filters, Layout(order)))
    assert matrix is not None
    return matrix


class Direct(Lowering):
    """Convolution or GroupConvolution without what follows it: that becomes a group of its own."""

    takes = (TYPES,)
    ranks = ((3, 4, 5),)

    def set_up(self) -> None:
        self.data, filters = self.node.inputs
        same = self.data.dtype == filters.dtype == self.out.dtype
        if self.group.body or not same:
            raise NotNative
        self.grouped = self.node.op.name == "GroupConvolution"
        self.weights: np.ndarray | None = None  # G, taps, C, O
        weights = filters.constant
        if weights is not None:
            if not weights.size:
                raise NotNative
            weights = weights if self.grouped else weights[None]
            axes = (0, *range(3, weights.ndim), 2, 1)
            self.weights = np.ascontiguousarray(weights.transpose(axes))
        self.kernel = direct_convolution(T=self.out.dtype)

    def pack(self, constants: Constants) -> None:
        if self.weights is not None:
            constants.view(self.weights, self.out.dtype)

    def output_layout(self, layouts: dict[Value, Layout]) -> Layout | None:
        return channels_last(len(self.out.shape))

    def plan(self, planner: Planner) -> None:
        x, y = planner.view(self.data), planner.output(self.out)
        filters = self.node.inputs[1]
        shape = tuple(planner.shape(filters))
        groups, outs, ins, *taps = shape if self.grouped else (1, *shape)
        if not y.count:
            return
        rank = len(x.shape) - 2
        kernel = (*(1,) * (3 - rank), *taps)
        if self.weights is None:
            w = filter_matrix(planner, filters, self.grouped, dense=True)
        else:
            w = planner.constants.view(self.weights, self.out.dtype)
        attrs = self.node.attrs
        ones, none = (1,) * rank, (0,) * rank
        strides, dilations = attrs["strides"] or ones, attrs["dilations"] or ones
        begin, _ = resolve_pads(
            attrs["auto_pad"], x.shape[2:], taps, strides, dilations,
            attrs["pads_begin"] or none, attrs["pads_end"] or none,
        )  # fmt: skip
        rows = y.shape[0] * groups
        values: dict[str, Any] = {
            "x": x.ptr, "w": w.ptr, "y": y.ptr, "groups": groups, "ins": ins, "outs": outs,
            "x_n": x.strides[0], "x_c": x.strides[1], "y_n": y.strides[0], "y_c": y.strides[1],
        }  # fmt: skip
        for i, s in enumerate(_SPACE):
            at = i - 3 + rank
            names = [f"{letter}{s}" for letter in "ioksp"] + [f"t{s}", f"x_{s}", f"y_{s}"]
            row = (1, 1, 1, 1, 0, 1, 0, 0)
            if at >= 0:
                row = (
                    x.shape[2 + at], y.shape[2 + at], kernel[i], strides[at], begin[at],
                    dilations[at], x.strides[2 + at], y.strides[2 + at],
                )  # fmt: skip
            values |= dict(zip(names, row, strict=True))
        rows *= values["od"] * values["oh"]
        depth = product(taps) * ins
        values["rows"] = rows
        work, flops = values["ow"] * outs * depth, 2.0 * y.count * depth
        planner.share_step(self.kernel, values, rows, work, [x, w], [y], flops)
