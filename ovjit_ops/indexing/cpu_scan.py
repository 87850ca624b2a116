"""Native CumSum: a vector of neighbouring sums walks along the axis together."""

from __future__ import annotations

import functools
from typing import Any

from ovjit.codegen.cpu.isa import host_isa
from ovjit.codegen.elementwise import SIZE
from ovjit.codegen.kernel import Frame, Kernel
from ovjit.compiler.fuse import Group
from ovjit.compiler.lower import Lowering
from ovjit.compiler.plan import Planner, ceil_div, split
from ovjit.compiler.races import Piece, Rows
from ovjit.compiler.views import Layout, View, merge_dims, product
from ovjit.graph.graph import Value
from ovjit.graph.shapes import normalize_axis

_DIMS = 3


@functools.cache
def cumsum_kernel(dtype: str) -> Kernel:
    """y[k] = x[0] + ... + x[k] for n steps along the axis, or without x[k] when `exclusive`.

    Lanes are another dimension, of m elements, at any stride.
    """
    frame = Frame().pointers("x", "y").integers("n", "x_n", "y_n", "m", "x_m", "y_m", "exclusive")
    frame.integers("items", "per_chunk", "blocks")
    for d in range(_DIMS):
        frame.integers(f"d{d}", f"x_{d}", f"y_{d}")
    size = SIZE[dtype]
    src = ["@njit(nogil=True)", "def kernel(bases, args, chunk, scratch):", frame.prologue()]
    src += ["    item = chunk * per_chunk", "    stop = imin(item + per_chunk, items)"]
    src += ["    while item < stop:"]
    src += ["        j = (item % blocks) * VL", "        rest = item // blocks"]
    src += ["        a2 = rest % d2", "        rest = rest // d2"]
    src += ["        a1 = rest % d1", "        a0 = rest // d1"]
    for v, p in (("p", "x"), ("q", "y")):
        src += [f"        {v} = {p} + a0 * {p}_0 + a1 * {p}_1 + a2 * {p}_2 + j * {p}_m"]
    src += [f"        total = const_{dtype}(0)", "        k = 0", "        while k < n:"]
    src += [f"            if x_m == {size}:", f"                v = loadm_{dtype}(p, m - j)"]
    src += ["            else:", f"                v = gather_{dtype}(p, x_m, m - j)"]
    src += ["            after = add(total, v)", "            out = after"]
    src += ["            if exclusive == 1:", "                out = total"]
    src += [f"            if y_m == {size}:", f"                storem_{dtype}(q, out, m - j)"]
    src += ["            else:", f"                scatter_{dtype}(q, y_m, out, m - j)"]
    src += ["            total = after", "            p += x_n", "            q += y_n", "            k += 1"]
    src += ["        item += 1", "    return 0", ""]
    return Kernel(f"cumsum_{dtype}", "\n".join(src), frame)


class CumSum(Lowering):
    """Sums along one axis."""

    def __init__(self, group: Group, axis: int):
        super().__init__(group)
        self.node = group.last
        self.data: Value = self.node.inputs[0]
        self.out = self.node.output
        self.axis = axis
        self.kernel = cumsum_kernel(self.out.dtype)
        self.kernels = (self.kernel,)

    def prefers(self, layouts: dict[Value, Layout]) -> Layout | None:
        layout = layouts.get(self.data)
        return Layout(layout.order) if layout else None

    def plan(self, planner: Planner) -> None:
        x, y = planner.view(self.data), planner.output(self.out)
        if not y.count:
            return
        if not self._plan(planner, x, y):
            plain = planner.allocate(y.shape, y.itemsize)
            self._plan(planner, planner.contiguous(self.data), plain)
            planner.copy_step(plain, y)

    def _plan(self, planner: Planner, x: View, y: View) -> bool:
        """False when there are too many dimensions that do not merge."""
        n = x.shape[self.axis]
        others = [a for a in range(len(x.shape)) if a != self.axis]
        others.sort(key=lambda a: (-abs(y.strides[a]), a))
        extents, (xs, ys) = merge_dims(
            [x.shape[a] for a in others], [[v.strides[a] for a in others] for v in (x, y)]
        )
        m, x_m, y_m = (extents.pop(), xs.pop(), ys.pop()) if extents else (1, x.itemsize, y.itemsize)
        if len(extents) > _DIMS:
            return False
        x_n, y_n = x.strides[self.axis], y.strides[self.axis]
        source, target = x.ptr, y.ptr
        if self.node.attrs["reverse"]:
            source, target = source + (n - 1) * x_n, target + (n - 1) * y_n
            x_n, y_n = -x_n, -y_n
        blocks = ceil_div(m, host_isa().lanes)
        items = product(extents) * blocks
        per_chunk = split(items, n * 64)
        values: dict[str, Any] = {
            "x": source, "y": target, "n": n, "x_n": x_n, "y_n": y_n, "m": m, "x_m": x_m, "y_m": y_m,
            "exclusive": int(self.node.attrs["exclusive"]), "items": items, "per_chunk": per_chunk,
            "blocks": blocks,
        }  # fmt: skip
        missing = _DIMS - len(extents)
        for d in range(_DIMS):
            row = (1, 0, 0) if d < missing else (extents[d - missing], xs[d - missing], ys[d - missing])
            values |= dict(zip((f"d{d}", f"x_{d}", f"y_{d}"), row, strict=True))
        # an item is a vector of the rows' innermost dimension; the last one may be short
        lanes = host_isa().lanes
        both = [
            Piece(start, (*along, step), (n,), (step_n,), x.itemsize)
            for start, along, step, step_n in ((source, xs, x_m, x_n), (target, ys, y_m, y_n))
        ]
        touches = Rows(
            (*extents, m), per_chunk, both[:1], both[1:],
            lambda item: item // blocks * m + min(item % blocks * lanes, m),
        )  # fmt: skip
        chunks, flops = ceil_div(items, per_chunk), y.count
        planner.step(self.kernel, values, chunks, [x], [y], flops, touches=touches)
        return True


def lower_cumsum(group: Group) -> Lowering | None:
    """Native where the axis is known."""
    data, axis = group.last.inputs
    known = axis.type.value
    if known is None or not data.shape:
        return None
    return CumSum(group, normalize_axis(int(known.reshape(-1)[0]), len(data.shape)))
