"""Native MaxPool and AdaptiveMaxPool with the indices of the maxima, for vectors of channels.

Of equal elements the first one is the maximum; NaN is greater than all numbers. A chunk is a range of output
rows. Windows are clipped to the input. There are up to three spatial dimensions.
"""

from __future__ import annotations

from ovjit.codegen.kernel_language import *
from ovjit.graph.dtypes import FLOATS
from ovjit.graph.shapes import normalize_axis
from ovjit.planning.lower import ChannelsLast, NotNative, Planner, View, ceil_div, launch, product
from ovjit.records import NamedTuple
from ovjit_ops.pooling.cpu_windows import Window, first_tap, lowest, taps, windows_of


class Steps(NamedTuple):
    """Index strides: the difference of flat indices of neighbours along each dimension."""

    image: int
    channel: int
    depth: int
    row: int
    column: int


@inline
def start_of(o, window, adaptive):
    """The first input position of output o's window."""
    start = o * window.extent // window.outputs if adaptive else o * window.stride - window.before
    return start


@inline
def first_of(start, window, adaptive):
    """The first tap of a window inside the input."""
    first = 0
    if not adaptive:
        first = first_tap(start, window.dilation)
    return first


@inline
def end_of(o, start, window, adaptive):
    """The end of the taps of a window inside the input."""
    if adaptive:
        end = ((o + 1) * window.extent + window.outputs - 1) // window.outputs - start
    else:
        end = taps(start, window.dilation, window.kernel, window.extent)
    return end


@kernel(
    over="n od oh", x="n c:1 d h w", y="n c:1 od oh ow", where="n c:1 od oh ow",
    depth=Window, row=Window, column=Window, by=Steps,
)  # fmt: skip
def max_pool_indices(
    x: Tensor, y: Tensor, where: Tensor, depth, row, column, by, *, T, index, adaptive, least
):
    """The maximum of each window and its index, per channel. `adaptive`: windows split each dimension into as
    many parts as there are outputs. `least`: the initial maximum."""
    for k in range(VL):
        st[i64](scratch + k * 8, k * by.channel)
    channels = load[i64](scratch)
    for img, oz, oy, targets, wheres in items(y, where):
        front = start_of(oz, depth, adaptive)
        top = start_of(oy, row, adaptive)
        z0 = first_of(front, depth, adaptive)
        z1 = end_of(oz, front, depth, adaptive)
        y0 = first_of(top, row, adaptive)
        y1 = end_of(oy, top, row, adaptive)
        for ox in range(y.size.ow):
            left = start_of(ox, column, adaptive)
            x0 = first_of(left, column, adaptive)
            x1 = end_of(ox, left, column, adaptive)
            source = x.at(n=img, d=front, h=top, w=left)
            corner = front * by.depth + top * by.row + left * by.column
            target = y.at(targets, ow=ox)
            indices = where.at(wheres, ow=ox)
            for k in range(0, x.size.c, VL):
                channels_left = x.size.c - k
                best = const[T](least)
                which = spread[i64](0)
                fresh = 1
                for e in range(z0, z1):
                    for i in range(y0, y1):
                        z = e * depth.dilation
                        r = i * row.dilation
                        c = x0 * column.dilation
                        p = x.at(source, d=z, h=r, w=c) + k * SIZE[T]
                        offset = corner + z * by.depth + r * by.row + c * by.column
                        for _ in range(x0, x1):
                            v = loadm[T](p, channels_left)
                            here = spread[i64](offset)
                            p += column.dilation * x.stride.w
                            offset += column.dilation * by.column
                            if fresh == 1:
                                which = here
                                best = v
                                fresh = 0
                            else:
                                better = v > best
                                if T in FLOATS:
                                    better = better | ((v != v) & (best == best))
                                which = select(better, here, which)
                                best = select(better, v, best)
                if fresh == 0:
                    which = which + (channels + spread[i64](img * by.image + k * by.channel))
                storem[T](target + k * SIZE[T], best, channels_left)
                storem[index](indices + k * SIZE[index], cast[index](which), channels_left)


def as_volume(view: View) -> View:
    """The view of [N, C, W] or [N, C, H, W] as [N, C, D, H, W]."""
    return view.insert(2, 5 - len(view.shape))


class PoolIndices(ChannelsLast):
    def set_up(self) -> None:
        self.data = self.node.inputs[0]
        self.index = self.node.outputs[1]
        self.adaptive = self.node.op.name == "AdaptiveMaxPool"
        dtype = self.out.dtype
        self.kernel = max_pool_indices(
            T=dtype, index=self.index.dtype, adaptive=self.adaptive, least=lowest(dtype)
        )

    def plan(self, planner: Planner) -> None:
        shape, out = planner.shape(self.data), planner.shape(self.out)
        rank = len(shape)
        x = planner.with_halo(self.data, [(0, 0)] * rank)
        if self.adaptive and any(e == 0 for e in shape[2:]):  # empty windows raise an error
            raise NotNative
        y, z = planner.channels_last_output(self.out), planner.channels_last_output(self.index)
        if not y.count:
            return
        if self.adaptive:
            windows = [Window(e, o, ceil_div(e, o)) for e, o in zip(shape[2:], out[2:], strict=True)]
        else:
            windows = windows_of(self.node, shape[2:], out[2:])
        axis = 2 if self.adaptive else normalize_axis(self.node.attrs["axis"], rank)
        steps = [0] * rank  # index strides within the dimensions from `axis` on
        inside = 1
        for a in range(rank - 1, axis - 1, -1):
            steps[a] = inside
            inside = inside * shape[a]
        missing = 5 - rank
        depth, row, column = [Window(1, 1, 1)] * missing + windows
        planner.need_scratch(256)
        taps = product([w.kernel for w in windows])
        tensors = {"x": as_volume(x), "y": as_volume(y), "where": as_volume(z)}
        launch(
            planner, self.kernel, tensors, ("y", "where"),
            work=out[-1] * shape[1] * taps * 3, flops=y.count * taps, depth=depth, row=row, column=column,
            by=Steps(*steps[:2], *[0] * missing, *steps[2:]),
        )  # fmt: skip
