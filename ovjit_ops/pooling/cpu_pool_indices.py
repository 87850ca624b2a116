"""Native MaxPool and AdaptiveMaxPool that also say where each maximum is, a vector of channels at a time.

The first of equals counts, and a NaN is the largest. A chunk is a range of output rows; windows are clipped
to the input, over up to three spatial dimensions.
"""

from __future__ import annotations

from typing import Any

from ovjit.codegen.function import kernel
from ovjit.codegen.words import *
from ovjit.compiler.lower import ChannelsLast
from ovjit.compiler.plan import NotNative, Planner, ceil_div
from ovjit.compiler.views import product
from ovjit.graph.dtypes import FLOATS
from ovjit.graph.shapes import normalize_axis
from ovjit_ops.pooling.cpu_windows import Window, first_tap, lowest, taps, windows_of

#: Three dimensions of space, of which the first ones may be 1, and with that of the images.
_SPACE, _PLACES = Table(3), Table(4)


@kernel
def max_pool_indices(
    x: Ptr, y: Ptr, where: Ptr, c, by_image, by_channel, rows, per_chunk, extent=_SPACE,
    outputs=_SPACE, size=_SPACE, stride=_SPACE, dilation=_SPACE, before=_SPACE, by=_SPACE, xs=_PLACES,
    ys=_PLACES, zs=_PLACES, *, T, index, adaptive, least,
):  # fmt: skip
    """The largest of each window and where it is, for each of c channels. Adaptive windows split the input
    into as many parts as there are outputs. `by`: what a step along each dimension adds to an index."""
    at = registers()
    for k in range(VL):
        st[i64](scratch + k * 8, k * by_channel)
    channels = load[i64](scratch)
    for row in share(rows, per_chunk):
        slab = udiv(row, ld(outputs, 1))
        img = udiv(slab, ld(outputs, 0))
        for column in range(ld(outputs, 2)):
            source = x + img * ld(xs, 0)
            target = y + img * ld(ys, 0)
            places = where + img * ld(zs, 0)
            first = 0
            for k in static_range(3):
                o = column
                if k == 0:
                    o = slab - img * ld(outputs, 0)
                elif k == 1:
                    o = row - slab * ld(outputs, 1)
                if adaptive:
                    start = o * ld(extent, k) // ld(outputs, k)
                    at[k, 0] = 0
                    at[k, 1] = ((o + 1) * ld(extent, k) + ld(outputs, k) - 1) // ld(outputs, k) - start
                else:
                    start = o * ld(stride, k) - ld(before, k)
                    at[k, 0] = first_tap(start, ld(dilation, k))
                    at[k, 1] = taps(start, ld(dilation, k), ld(size, k), ld(extent, k))
                at[k, 2] = ld(dilation, k) * ld(xs, k + 1)  # from tap to tap: bytes, and in an index
                at[k, 3] = ld(dilation, k) * ld(by, k)
                source += start * ld(xs, k + 1)
                first += start * ld(by, k)
                target += o * ld(ys, k + 1)
                places += o * ld(zs, k + 1)
            for k in range(0, c, VL):
                rest = c - k
                best = const[T](least)
                which = spread[i64](0)
                fresh = 1
                for e in range(at[0, 0], at[0, 1]):
                    for i in range(at[1, 0], at[1, 1]):
                        p = source + e * at[0, 2] + i * at[1, 2] + at[2, 0] * at[2, 2] + k * SIZE[T]
                        place = first + e * at[0, 3] + i * at[1, 3] + at[2, 0] * at[2, 3]
                        for _ in range(at[2, 0], at[2, 1]):
                            v = loadm[T](p, rest)
                            here = spread[i64](place)
                            p += at[2, 2]
                            place += at[2, 3]
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
                    which = which + (channels + spread[i64](img * by_image + k * by_channel))
                storem[T](target + k * SIZE[T], best, rest)
                storem[index](places + k * SIZE[index], cast[index](which), rest)


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
        if self.adaptive and any(e == 0 for e in shape[2:]):  # windows of nothing are refused
            raise NotNative
        y, z = planner.channels_last_output(self.out), planner.channels_last_output(self.index)
        if not y.count:
            return
        if self.adaptive:
            windows = [Window(e, o, ceil_div(e, o)) for e, o in zip(shape[2:], out[2:], strict=True)]
        else:
            windows = windows_of(self.node, shape[2:], out[2:])
        axis = 2 if self.adaptive else normalize_axis(self.node.attrs["axis"], rank)
        steps = [0] * rank  # what a step along each dimension adds to an index over those from `axis` on
        inside = 1
        for a in range(rank - 1, axis - 1, -1):
            steps[a] = inside
            inside = inside * shape[a]
        values: dict[str, Any] = {"by_image": steps[0], "by_channel": steps[1], "c": shape[1]}
        values |= {"x": x.ptr, "y": y.ptr, "where": z.ptr}
        missing = 5 - rank
        for k, window in enumerate([Window(1, 1, 1)] * missing + windows):
            values |= {f"extent{k}": window.extent, f"outputs{k}": window.outputs, f"size{k}": window.kernel}
            values |= {f"stride{k}": window.stride, f"dilation{k}": window.dilation}
            values |= {f"before{k}": window.before}
        values |= {f"by{k}": step for k, step in enumerate([0] * missing + steps[2:])}
        for name, view in (("xs", x), ("ys", y), ("zs", z)):
            strides = [view.strides[0], *[0] * missing, *view.strides[2:]]
            values |= {f"{name}{k}": stride for k, stride in enumerate(strides)}
        planner.need_scratch(256)
        values["rows"] = rows = product(out[:1] + out[2:-1])
        taps = product([w.kernel for w in windows])
        work = out[-1] * shape[1] * taps * 3
        planner.share_step(self.kernel, values, rows, work, [x], [y, z], y.count * taps)
