"""Direct convolution, for types and shapes without tiles: f64, integers, f32 with computed filters of
dynamic shape, and all floats on GPUs.

    y[n, o, p] = sum over taps t, channels c of x[n, c, p * stride - pad + t * dilation] * w[t, c, o]

A vector has output channels; an element of the data is broadcast to all lanes. It supports one to three
spatial dimensions and any layout. Sums are in the element type, so that integers wrap around; those of floats
of 16 bits are f32.
"""

from __future__ import annotations

import numpy as np

from ovjit.codegen.kernel_language import *
from ovjit.graph.dtypes import HALVES
from ovjit.graph.graph import Value
from ovjit.graph.symbolic import sym_max
from ovjit.graph.windows import resolve_window
from ovjit.planning.launch import launch
from ovjit.planning.lower import Lowering
from ovjit.planning.plan import Constants, NotNative, Planner
from ovjit.planning.views import Layout, View, channels_last, product
from ovjit.records import NamedTuple

TYPES = frozenset("f32 f16 bf16 f64 i8 i16 i32 i64 u8 u16 u32 u64".split())


class Moves(NamedTuple):
    """The window along one dimension: taps, stride, padding before the data, dilation."""

    taps: int = 1
    stride: int = 1
    before: int = 0
    dilation: int = 1


@kernel(
    over="n g od oh", x="n g ins id ih iw", w="g kd kh kw ins outs:1", y="n g outs od oh ow", depth=Moves,
    row=Moves, column=Moves,
)  # fmt: skip
def direct_convolution(x: Tensor, w: Tensor, y: Tensor, depth, row, column, *, T, out):
    """T, out: element types of x and w, and of y ("": T)."""
    outs = y.size.outs
    for n, g, z, i, line in items(y):
        source = x.at(n=n, g=g)
        for j in range(y.size.ow):
            target = y.at(line, ow=j)
            for o in range(0, outs, VL):
                acc = const[T](0)
                for a in range(depth.taps):
                    pz = z * depth.stride - depth.before + a * depth.dilation
                    b = 0
                    while b < row.taps and pz >= 0 and pz < x.size.id:
                        py = i * row.stride - row.before + b * row.dilation
                        e = 0
                        while e < column.taps and py >= 0 and py < x.size.ih:
                            px = j * column.stride - column.before + e * column.dilation
                            if px >= 0 and px < x.size.iw:
                                p = x.at(source, id=pz, ih=py, iw=px)
                                q = w.at(g=g, kd=a, kh=b, kw=e, outs=o)
                                for _ in range(x.size.ins):
                                    acc = fma(splat[T](p), loadm[T](q, outs - o), acc)
                                    p += x.stride.ins
                                    q += w.stride.ins
                            e += 1
                        b += 1
                store_spaced(y.at(target, outs=o), y.stride.outs, acc, outs - o, out or T)


def filter_matrix(planner: Planner, filters: Value, grouped: bool, dense: bool = False) -> View:
    """The view of computed filters as [G, taps * C, O], copied if their layout does not allow it. `dense`:
    also without gaps."""
    rank = len(filters.shape)
    order = (*([0] if grouped else []), *range(2 + grouped, rank), 1 + grouped, int(grouped))

    def permute(view: View) -> View | None:
        outs = view.shape[int(grouped)]
        groups = view.shape[0] if grouped else 1
        matrix = view.permute(order).reshape((groups, product(view.shape) // sym_max(1, groups * outs), outs))
        return None if matrix is None or (dense and not matrix.is_contiguous) else matrix

    matrix = permute(planner.view(filters)) or permute(planner.copy(filters, Layout(order)))
    assert matrix is not None
    return matrix


class Direct(Lowering):
    """Convolution or GroupConvolution without an epilogue; its consumers are groups of their own."""

    takes = (TYPES,)
    ranks = ((3, 4, 5),)

    def set_up(self) -> None:
        self.data, filters = self.node.inputs
        dtype = self.data.dtype
        out = "" if self.out.dtype == dtype else self.out.dtype
        if self.group.body or filters.dtype != dtype or (out and not (out == "f32" and dtype in HALVES)):
            raise NotNative
        self.grouped = self.node.op.name == "GroupConvolution"
        self.weights: np.ndarray | None = None  # [G, *taps, C, O]
        weights = filters.constant
        if weights is not None:
            if not weights.size:
                raise NotNative
            weights = weights if self.grouped else weights[None]
            axes = (0, *range(3, weights.ndim), 2, 1)
            self.weights = np.ascontiguousarray(weights.transpose(axes))
        self.kernel = direct_convolution(T=dtype, out=out)

    def pack(self, constants: Constants) -> None:
        if self.weights is not None:
            constants.view(self.weights, self.data.dtype)

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
            w = planner.constants.view(self.weights, self.data.dtype)
        strides, dilations, begin, _ = resolve_window(self.node.attrs, x.shape[2:], taps)
        moves = [Moves(*each) for each in zip(taps, strides, begin, dilations, strict=True)]
        depth, row, column = [*[Moves()] * (3 - rank), *moves]
        tensors = {
            "x": _grouped_volume(x, groups), "w": w.as_shape((groups, *kernel, ins, outs)),
            "y": _grouped_volume(y, groups),
        }  # fmt: skip
        each = product(taps) * ins
        launch(
            planner, self.kernel, tensors, ("y",), work=y.shape[-1] * outs * each, flops=2.0 * y.count * each,
            depth=depth, row=row, column=column,
        )  # fmt: skip


def _grouped_volume(view: View, groups: int) -> View:
    """[N, G * C, ...] as [N, G, C, D, H, W]."""
    return view.split(1, groups, view.shape[1] // groups).insert(3, 5 - len(view.shape))
