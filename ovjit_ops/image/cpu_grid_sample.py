"""Native GridSample in f32: a vector of places at a time.

The taps of a vector of places (offset of each element, -1 for one that does not count, and weight) are worked
out once and lie in scratch; all channels then use them. Where channels are adjacent, vectors go along them.
"""

from __future__ import annotations

import functools
from typing import Any

from ovjit.codegen.cpu.isa import host_isa
from ovjit.codegen.kernel import Frame, Kernel
from ovjit.compiler.fuse import Group
from ovjit.compiler.lower import Host, Lowering
from ovjit.compiler.plan import Planner, ceil_div, split
from ovjit.compiler.views import Layout, channels_last
from ovjit.graph.graph import Value
from ovjit_ops.image.grid_settings import settings

_A = -0.75
_TAPS = {"nearest": 1, "bilinear": 2, "bicubic": 4}
#: Offsets of elements are i32, in elements.
_MOST = 2**31 - 1


def _index(name: str, extent: str, align: bool, padding: str) -> list[str]:
    """Lines that make `name` (whole floats) a valid i32 index `{name}i`, and the mask `{name}m`."""
    v = [f"{name}t = {name}"]
    if padding == "reflection":
        if align:
            v += [f"period = max_(const_f32(1.0), mul(const_f32(2.0), {extent}m1))"]
            mirrored = f"sub(period, {name}t)"
        else:
            v += [f"period = mul(const_f32(2.0), add({extent}m1, const_f32(1.0)))"]
            mirrored = f"sub(sub(period, const_f32(1.0)), {name}t)"
        v += [f"{name}t = sub({name}t, mul(floor(div({name}t, period)), period))"]
        v += [f"{name}t = select(gt({name}t, {extent}m1), {mirrored}, {name}t)"]
    if padding == "zeros":
        v += [f"{name}m = and_(ge({name}, const_f32(0.0)), le({name}, {extent}m1))"]
    # NaN becomes 0 when it is cast
    v += [f"{name}t = select(gt({name}t, const_f32(0.0)), {name}t, const_f32(0.0))"]
    v += [f"{name}i = cast_i32(min_({name}t, {extent}m1))"]
    return v


def _cubic(t: str) -> list[str]:
    """Lines that make the weights {t}w0 ... {t}w3 of the fraction `t`."""

    def const(x: float) -> str:
        return f"const_f32({x})"

    def outer(s: str) -> str:
        inner = f"mul(sub(mul({const(_A)}, {s}), {const(5 * _A)}), {s})"
        return f"sub(mul(add({inner}, {const(8 * _A)}), {s}), {const(4 * _A)})"

    def near(s: str) -> str:
        return f"add(mul(mul(sub(mul({const(_A + 2)}, {s}), {const(_A + 3)}), {s}), {s}), one)"

    lines = [f"one = {const(1.0)}", f"r = sub(one, {t})", f"s = add({t}, one)", "q1 = add(r, one)"]
    weights = (outer("s"), near(t), near("r"), outer("q1"))
    return lines + [f"{t}w{i} = {w}" for i, w in enumerate(weights)]


@functools.cache
def grid_kernel(mode: str, padding: str, align: bool, adjacent: bool) -> Kernel:
    """`adjacent`: vectors go along the channels."""
    frame = Frame().pointers("x", "grid", "y")
    frame.integers("h", "w", "c", "ow", "oh", "x_n", "x_c", "x_h", "x_w", "g_n", "g_h", "g_w", "g_k")
    frame.integers("y_n", "y_c", "y_h", "y_w", "rows", "per_chunk")
    side = _TAPS[mode]
    place = []
    for axis, k in (("u", 0), ("v", 1)):
        extent = "w" if axis == "u" else "h"
        place += [f"{axis} = gather_f32(g + {k} * g_k, g_w, left)"]
        if align:
            place += [f"{axis} = mul(add({axis}, const_f32(1.0)), mul({extent}m1, const_f32(0.5)))"]
        else:
            wide = f"mul(add({axis}, const_f32(1.0)), add({extent}m1, const_f32(1.0)))"
            place += [f"{axis} = mul(sub({wide}, const_f32(1.0)), const_f32(0.5))"]
        if mode == "nearest":
            place += [f"{axis}0 = rint({axis})"]
        else:
            place += [f"{axis}f = floor({axis})", f"{axis}t = sub({axis}, {axis}f)"]
            first = 1 if mode == "bicubic" else 0
            place += [f"{axis}{i} = add({axis}f, const_f32({i - first}.0))" for i in range(side)]
            if mode == "bilinear":
                place += [f"{axis}tw0 = sub(const_f32(1.0), {axis}t)", f"{axis}tw1 = {axis}t"]
            else:
                place += _cubic(f"{axis}t")
        for i in range(side):
            place += _index(f"{axis}{i}", extent, align, padding)
    taps = []
    for i in range(side):
        for j in range(side):
            n = i * side + j
            taps += [f"at = add(mul(v{i}i, row_step), mul(u{j}i, column_step))"]
            if padding == "zeros":
                taps += [f"at = select(and_(v{i}m, u{j}m), at, const_i32(-1))"]
            taps += [f"store_i32(scratch + {n} * VL * 4, at)"]
            if mode != "nearest":
                taps += [f"store_f32(scratch + ({side * side} + {n}) * VL * 4, mul(vtw{i}, utw{j}))"]
    body = [
        "@njit(nogil=True)",
        "def kernel(bases, args, chunk, scratch):",
        frame.prologue(),
        "    row = chunk * per_chunk",
        "    stop = imin(row + per_chunk, rows)",
        "    wm1 = cast_f32(spread_i64(w - 1))",
        "    hm1 = cast_f32(spread_i64(h - 1))",
        "    row_step = cast_i32(spread_i64(x_h // 4))",
        "    column_step = cast_i32(spread_i64(x_w // 4))",
        "    while row < stop:",
        "        img = row // oh",
        "        i = row % oh",
        "        j = 0",
        "        while j < ow:",
        "            left = ow - j",
        "            g = grid + img * g_n + i * g_h + j * g_w",
        "            source = x + img * x_n",
        "            target = y + img * y_n + i * y_h + j * y_w",
        *(" " * 12 + line for line in (*place, *taps)),
    ]
    loop = (
        _along_channels(side * side, mode, padding) if adjacent else _along_places(side * side, mode, padding)
    )
    body += [" " * 12 + line for line in loop]
    body += ["            j += VL", "        row += 1", "    return 0", ""]
    kind = f"{mode}_{padding}{'_corners' if align else ''}{'_channels' if adjacent else ''}"
    return Kernel(f"grid_sample_{kind}", "\n".join(body), frame)


def _along_places(taps: int, mode: str, padding: str) -> list[str]:
    out = ["k = 0", "while k < c:", "    p = source + k * x_c"]
    for n in range(taps):
        out += [f"    at = load_i32(scratch + {n} * VL * 4)"]
        if padding == "zeros":
            out += [
                "    v = select(lt(at, const_i32(0)), const_f32(0.0), take_f32(p, max_(at, const_i32(0))))"
            ]
        else:
            out += ["    v = take_f32(p, at)"]
        weight = f"load_f32(scratch + {taps + n} * VL * 4)"
        if mode == "nearest":
            out += ["    acc = v"]
        else:
            out += [f"    acc = mul(v, {weight})" if n == 0 else f"    acc = fma(v, {weight}, acc)"]
    out += ["    if y_w == 4:", "        storem_f32(target + k * y_c, acc, left)"]
    out += ["    else:", "        scatter_f32(target + k * y_c, y_w, acc, left)", "    k += 1"]
    return out


def _along_channels(taps: int, mode: str, padding: str) -> list[str]:
    out = ["one = 0", "while one < imin(VL, left):"]
    for n in range(taps):
        out += [f"    at{n} = ld_i32(scratch + ({n} * VL + one) * 4) + 0"]
        if padding == "zeros":
            out += [f"    c{n} = c", f"    if at{n} < 0:", f"        c{n} = 0", f"        at{n} = 0"]
        out += [f"    p{n} = source + at{n} * 4"]
        if mode != "nearest":
            out += [f"    w{n} = splat_f32(scratch + (({taps} + {n}) * VL + one) * 4)"]
    out += ["    q = target + one * y_w", "    k = 0", "    while k < c:"]
    for n in range(taps):
        count = f"c{n} - k" if padding == "zeros" else "c - k"
        if padding == "zeros":
            count = f"imax({count}, 0)"
        v = f"loadm_f32(p{n} + k * 4, {count})"
        if mode == "nearest":
            out += [f"        acc = {v}"]
        else:
            out += [f"        acc = mul({v}, w{n})" if n == 0 else f"        acc = fma({v}, w{n}, acc)"]
    return [*out, "        storem_f32(q + k * 4, acc, c - k)", "        k += VL", "    one += 1"]


class GridSample(Lowering):
    """Data and grid in f32, in any layout."""

    def __init__(self, group: Group):
        super().__init__(group)
        self.node = group.last
        self.data, self.grid = self.node.inputs
        self.out = self.node.output
        self.align, self.mode, self.padding = settings(self.node.attrs)
        self.kernels = tuple(grid_kernel(self.mode, self.padding, self.align, last) for last in (False, True))

    @property
    def turned(self) -> bool:
        """True where there are surely enough channels to have them adjacent."""
        channels = self.data.shape[1]
        return self.mode != "nearest" and isinstance(channels, int) and channels >= host_isa().lanes // 2

    def wishes(self) -> list[tuple[Value, Layout]]:
        return [(self.data, channels_last(4))] if self.turned else []

    def prefers(self, layouts: dict[Value, Layout]) -> Layout | None:
        """As the data lies."""
        layout = layouts.get(self.data)
        return channels_last(4) if self.turned else None if layout is None else Layout(layout.order)

    def plan(self, planner: Planner) -> None:
        x, grid = planner.view(self.data), planner.view(self.grid)
        n, c, h, w = x.shape
        oh, ow = grid.shape[1:3]
        reach = (h - 1) * abs(x.strides[2]) + (w - 1) * abs(x.strides[3])
        if not x.count or reach // 4 > _MOST or min(x.strides) < 0 or max(h, w) > 1 << 24:
            Host(self.group).plan(planner)
            return
        lanes = host_isa().lanes
        # gathering every tap of every channel costs more than turning the data
        adjacent = c >= lanes // 2 and (x.strides[1] == 4 or self.mode != "nearest")
        if adjacent and x.strides[1] != 4:
            x = planner.copy(self.data, channels_last(4))
        y = planner.channels_last_output(self.out, 1 if adjacent else 3)
        taps = _TAPS[self.mode] ** 2
        rows = n * oh
        per_chunk = split(rows, ow * c * taps * 2)
        values: dict[str, Any] = {
            "x": x.ptr, "grid": grid.ptr, "y": y.ptr, "h": h, "w": w, "c": c, "ow": ow, "oh": oh,
            "rows": rows, "per_chunk": per_chunk,
        }  # fmt: skip
        values |= dict(zip(("x_n", "x_c", "x_h", "x_w"), x.strides, strict=True))
        values |= dict(zip(("y_n", "y_c", "y_h", "y_w"), y.strides, strict=True))
        values |= dict(zip(("g_n", "g_h", "g_w", "g_k"), grid.strides, strict=True))
        planner.need_scratch(2 * taps * lanes * 4)
        if y.count:
            chunks = ceil_div(rows, per_chunk)
            planner.step(self.kernels[adjacent], values, chunks, [x, grid], [y], 2.0 * y.count * taps)


def lower_grid_sample(group: Group) -> Lowering | None:
    data, grid = group.last.inputs
    if data.dtype != "f32" or grid.dtype != "f32" or len(data.shape) != 4:
        return None
    return GridSample(group)
