"""Native GridSample in f32: a vector of grid points at a time.

The taps of a vector of points are computed once, into scratch memory: the offset of each element, -1 for an
ignored one, and its weight. All channels then use them. If channels are adjacent, vectors go along them.
"""

from __future__ import annotations

from ovjit.codegen.kernel_language import *
from ovjit.graph.graph import Value
from ovjit.planning.lower import Layout, Lowering, NotNative, Planner, Shapes, channels_last, launch

_A = -0.75
#: The attributes that select the kernel.
SETTINGS = ("align_corners", "mode", "padding_mode")
_TAPS = {"nearest": 1, "bilinear": 2, "bicubic": 4}
#: Maximum offset of an element: offsets are i32, in elements.
_MOST = 2**31 - 1


@inline
def index_of(x, last, *, align, padding):
    """A valid index for x, an integer in f32. `last`: the largest index."""
    at = x
    if padding == "reflection":
        if align:
            period = maximum(const[f32](1.0), const[f32](2.0) * last)
        else:
            period = const[f32](2.0) * (last + const[f32](1.0))
        at = fma(-floor(at / period), period, at)
        at = select(at > last, (period if align else period - const[f32](1.0)) - at, at)
    at = select(at > const[f32](0.0), at, const[f32](0.0))  # NaN becomes 0 when it is cast
    return cast[i32](minimum(at, last))


@inline
def keys(s, outer):
    """The weight of Keys' cubic kernel at distance s, which is 0 ... 1, or with `outer` 1 ... 2."""
    if outer:
        v = fma(fma(const[f32](_A), s, const[f32](-5 * _A)), s, const[f32](8 * _A))
        v = fma(v, s, const[f32](-4 * _A))
    else:
        v = fma(fma(const[f32](_A + 2), s, const[f32](-_A - 3)) * s, s, const[f32](1.0))
    return v


@inline
def add_tap(v, weight, acc, n, side):
    """acc + v * weight; without acc for the first tap, and without a weight for a single tap."""
    return v if side == 1 else v * weight if n == 0 else fma(v, weight, acc)


@inline
def find_taps(index, inside, spot, last, a, *, side, align, padding):
    """Along axis a: indices of the taps. With zeros as padding, also whether they are inside of the image."""
    for i in static_range(side):
        index[a, i] = index_of(spot[a, i], last[a])
        if padding == "zeros":
            inside[a, i] = (spot[a, i] >= const[f32](0.0)) & (spot[a, i] <= last[a])


@inline
def find_place(spot, f, last, g, a, valid, *, grid, side, align):
    """Along axis a, for a vector of points at g: the positions of taps, integers in f32, and their
    weights."""
    one = const[f32](1.0)
    if grid.stride.ow == 8 and valid > VL:  # reads an element more
        position = evens[f32](grid.at(g, k=a))
    else:
        position = gather[f32](grid.at(g, k=a), grid.stride.ow, valid)
    if align:
        position = (position + one) * (last[a] * const[f32](0.5))
    else:
        position = fma(position + one, last[a] + one, -one) * const[f32](0.5)
    if side == 1:
        spot[a, 0] = rint(position)
    else:
        low = floor(position)
        t = position - low
        for i in static_range(side):
            spot[a, i] = low + const[f32](i - side / 2 + 1)
    if side == 2:
        f[a, 0] = one - t
        f[a, 1] = t
    elif side == 4:
        for i in static_range(4):
            s = t + const[f32](1.0 - i) if i < 2 else const[f32](i - 1.0) - t
            f[a, i] = keys(s, i in (0, 3))


@kernel(over="n oh", x="n c h w", grid="n oh ow k", y="n c oh ow")
def grid_sample(x: Tensor, grid: Tensor, y: Tensor, *, side, padding, align, adjacent):
    """side x side taps. Axis 0 is along rows, axis 1 across them. `adjacent`: vectors go along channels."""
    last, spot, index, inside, f, count, p, acc = registers()
    last[0] = cast[f32](spread[i64](x.size.w - 1))
    last[1] = cast[f32](spread[i64](x.size.h - 1))
    row_step = cast[i32](spread[i64](x.stride.h // 4))
    column_step = cast[i32](spread[i64](x.stride.w // 4))
    c = x.size.c
    for img, _, points, targets in items(grid, y):
        source = x.at(n=img)
        for j in range(0, y.size.ow, VL):
            valid = y.size.ow - j
            g = grid.at(points, ow=j)
            target = y.at(targets, ow=j)
            for a in static_range(2):
                find_place(spot, f, last, g, a, valid)
                find_taps(index, inside, spot, last, a)
            for n in static_range(side**2):
                at = index[1, n // side] * row_step + index[0, n % side] * column_step
                if padding == "zeros":
                    at = select(inside[1, n // side] & inside[0, n % side], at, const[i32](-1))
                store[i32](scratch + n * VL * 4, at)
                if side > 1:
                    store[f32](scratch + (side**2 + n) * VL * 4, f[1, n // side] * f[0, n % side])
            for k in () if adjacent else range(c):
                for n in static_range(side**2):
                    at = load[i32](scratch + n * VL * 4)
                    if padding == "zeros":
                        v = take[f32](x.at(source, c=k), maximum(at, const[i32](0)))
                        v = select(at < const[i32](0), const[f32](0.0), v)
                    else:
                        v = take[f32](x.at(source, c=k), at)
                    acc[0] = add_tap(v, load[f32](scratch + (side**2 + n) * VL * 4), acc[0], n, side)
                store_spaced(y.at(target, c=k), y.stride.ow, acc[0], valid, f32)
            for e in range(min(VL, valid)) if adjacent else ():
                for n in static_range(side**2):
                    offset = ld[i32](scratch + (n * VL + e) * 4) + 0
                    count[n] = c
                    if padding == "zeros" and offset < 0:
                        count[n] = 0
                        offset = 0
                    p[n] = source + offset * 4
                    if side > 1:
                        f[n] = splat[f32](scratch + ((side**2 + n) * VL + e) * 4)
                for k in range(0, c, VL):
                    for n in static_range(side**2):
                        v = loadm[f32](p[n] + k * 4, max(count[n] - k, 0) if padding == "zeros" else c - k)
                        acc[0] = add_tap(v, f[n], acc[0], n, side)
                    storem[f32](y.at(target, ow=e) + k * 4, acc[0], c - k)


class GridSample(Lowering):
    """GridSample of f32 data and grids in any layout."""

    takes = (("f32",),)
    ranks = ((4,),)

    def set_up(self) -> None:
        self.data, self.grid = self.node.inputs
        self.align, self.mode, self.padding = (self.node.attrs[name] for name in SETTINGS)
        ways = {"side": _TAPS[self.mode], "padding": self.padding, "align": self.align}
        self.kernels = tuple(grid_sample(**ways, adjacent=last) for last in (False, True))

    @property
    def by_channels(self) -> bool:
        """Whether there are provably enough channels for vectors along them."""
        channels = self.data.shape[1]
        return isinstance(channels, int) and self.adjacent(channels)

    def adjacent(self, channels: int) -> bool:
        """Whether vectors go along channels. A transpose costs less than gathering every tap of every
        channel: 160 us instead of 330 us for nearest, 64 x 56 x 56, on a Zen 3."""
        return channels >= self.target.lanes // 2

    def input_layouts(self, shape: Shapes) -> list[tuple[Value, Layout]]:
        return [(self.data, channels_last(4))] if self.by_channels else []

    def output_layout(self, layouts: dict[Value, Layout]) -> Layout | None:
        """The layout of the data."""
        layout = layouts.get(self.data)
        return channels_last(4) if self.by_channels else None if layout is None else Layout(layout.order)

    def plan(self, planner: Planner) -> None:
        x, grid = planner.view(self.data), planner.view(self.grid)
        _, c, h, w = x.shape
        reach = (h - 1) * abs(x.strides[2]) + (w - 1) * abs(x.strides[3])
        if not x.count or reach // 4 > _MOST or min(x.strides) < 0 or max(h, w) > 1 << 24:
            raise NotNative
        adjacent = self.adjacent(c)
        if adjacent and x.strides[1] != 4:
            x = planner.copy(self.data, channels_last(4))
        y = planner.channels_last_output(self.out, 1 if adjacent else 3)
        taps = _TAPS[self.mode] ** 2
        planner.need_scratch(2 * taps * self.target.lanes * 4)
        if y.count:
            launch(
                planner, self.kernels[adjacent], {"x": x, "grid": grid, "y": y}, ("y",),
                work=grid.shape[2] * c * taps * 2, flops=2.0 * y.count * taps,
            )  # fmt: skip
