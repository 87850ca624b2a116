"""Native MVN over dimensions that lie together: one row after the other, while it is in the cache.

    mean, then the sum of (x - mean)^2, then y = (x - mean) / sqrt(variance + eps)

What is normalized over space alone lies strided with channels last; `expand_norm` does it in reductions.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from ovjit.codegen.cpu.ir import literal
from ovjit.codegen.elementwise import SIZE
from ovjit.codegen.kernel import Frame, Kernel
from ovjit.compiler.fuse import Group
from ovjit.compiler.lower import Lowering
from ovjit.compiler.plan import Planner, ceil_div, split
from ovjit.compiler.races import Piece, Rows
from ovjit.compiler.views import Layout, View, merge_dims, product
from ovjit.graph.graph import Node, Value
from ovjit.graph.shapes import normalize_axes

_DIMS = 3


@functools.cache
def mvn_kernel(dtype: str, variance: bool, inside: bool, eps: float) -> Kernel:
    frame = Frame().pointers("x", "y").integers("n", "rows", "per_chunk")
    for d in range(_DIMS):
        frame.integers(f"d{d}", f"x_{d}", f"y_{d}")
    load = f"loadm_{dtype}(p + i * {SIZE[dtype]}, n - i)"
    src = ["@njit(nogil=True)", "def kernel(bases, args, chunk, scratch):", frame.prologue()]
    src += [f"    count = const_{dtype}(n)"]
    src += [f"    zero = const_{dtype}(0.0)", f"    one = const_{dtype}(1.0)"]
    src += [f"    eps = const_{dtype}({literal(float(eps).hex(), dtype)})"]
    src += ["    row = chunk * per_chunk", "    stop = imin(row + per_chunk, rows)", "    while row < stop:"]
    src += ["        a2 = row % d2", "        rest = row // d2"]
    src += ["        a1 = rest % d1", "        a0 = rest // d1"]
    src += [f"        {v} = {a} + a0 * {a}_0 + a1 * {a}_1 + a2 * {a}_2" for v, a in (("p", "x"), ("q", "y"))]
    src += ["        total = zero", "        i = 0", "        while i < n:"]
    src += [f"            total = add(total, {load})", "            i += VL"]
    src += [f"        mean = div(spread_{dtype}(hadd_{dtype}(total)), count)"]
    src += ["        scale = one"]
    if variance:
        src += ["        total = zero", "        i = 0", "        while i < n:"]
        src += [f"            v = blend_{dtype}(n - i, sub({load}, mean), zero)"]
        src += ["            total = fma(v, v, total)", "            i += VL"]
        src += [f"        spread = div(spread_{dtype}(hadd_{dtype}(total)), count)"]
        root = "sqrt(add(spread, eps))" if inside else "add(sqrt(spread), eps)"
        src += [f"        scale = div(one, {root})"]
    src += ["        i = 0", "        while i < n:"]
    src += [f"            storem_{dtype}(q + i * {SIZE[dtype]}, mul(sub({load}, mean), scale), n - i)"]
    src += ["            i += VL", "        row += 1", "    return 0", ""]
    return Kernel(f"mvn_{dtype}", "\n".join(src), frame)


def mvn_axes(node: Node, inputs: Sequence[Value]) -> tuple[int, ...] | None:
    """The normalized axes where a kernel does it: all but leading ones, and not space alone."""
    shape = inputs[0].shape
    if shape is None or inputs[0].dtype not in ("f32", "f64"):
        return None
    rank = len(shape)
    if node.op.opset < 6:
        axes = tuple(range(1 if node.attrs["across_channels"] else 2, rank))
    elif inputs[1].type.value is None:
        return None
    else:
        axes = normalize_axes((int(a) for a in inputs[1].type.value.reshape(-1)), rank)
    if not axes or axes != tuple(range(axes[0], rank)) or (rank > 3 and axes[0] == 2):
        return None
    return axes


class MeanVariance(Lowering):
    """One MVN; the row is all normalized dimensions, in the order in which they lie."""

    def __init__(self, group: Group, axes: tuple[int, ...]):
        super().__init__(group)
        node = group.last
        self.data, self.out, self.axes = node.inputs[0], node.output, axes
        attrs = node.attrs
        inside = attrs.get("eps_mode", "inside_sqrt").lower() == "inside_sqrt"
        self.kernel = mvn_kernel(self.out.dtype, attrs["normalize_variance"], inside, attrs["eps"])
        self.kernels = (self.kernel,)

    def prefers(self, layouts: dict[Value, Layout]) -> Layout | None:
        layout = layouts.get(self.data)
        return Layout(layout.order) if layout else None

    def plan(self, planner: Planner) -> None:
        x = planner.view(self.data)
        y = planner.output(self.out, self._layout(x))
        if y.count and not self._plan(planner, x, y):
            # a concatenation wants it where rows are torn apart, or x has such rows
            plain = planner.allocate(y.shape, y.itemsize)
            self._plan(planner, planner.contiguous(self.data), plain)
            planner.copy_step(plain, y)

    def _layout(self, x: View) -> Layout:
        """The order of dimensions in which x lies, rows before what is inside of them."""
        order = sorted(range(len(x.shape)), key=lambda a: (a in self.axes, -abs(x.strides[a]), a))
        return Layout(order)

    def _plan(self, planner: Planner, x: View, y: View) -> bool:
        """False when a row is not contiguous, or rows have too many dimensions that do not merge."""
        order = self._layout(x).order

        def merged(axes: Sequence[int]) -> tuple[list[int], list[list[int]]]:
            return merge_dims([x.shape[a] for a in axes], [[v.strides[a] for a in axes] for v in (x, y)])

        inner, (xi, yi) = merged([a for a in order if a in self.axes])
        extents, (xs, ys) = merged([a for a in order if a not in self.axes])
        if len(inner) > 1 or (inner and {xi[0], yi[0]} != {x.itemsize}) or len(extents) > _DIMS:
            return False
        n, rows = product(inner), product(extents)
        per_chunk = split(rows, n * 8)
        values: dict[str, Any] = {"x": x.ptr, "y": y.ptr, "n": n, "rows": rows, "per_chunk": per_chunk}
        missing = _DIMS - len(extents)
        for d in range(_DIMS):
            row = (1, 0, 0) if d < missing else (extents[d - missing], xs[d - missing], ys[d - missing])
            values |= dict(zip((f"d{d}", f"x_{d}", f"y_{d}"), row, strict=True))
        both = [Piece(v.ptr, along, (n,), (v.itemsize,), v.itemsize) for v, along in ((x, xs), (y, ys))]
        touches = Rows(extents, per_chunk, both[:1], both[1:])
        chunks, flops = ceil_div(rows, per_chunk), 6.0 * y.count
        planner.step(self.kernel, values, chunks, [x], [y], flops, touches=touches)
        return True


def lower_mvn(group: Group) -> Lowering | None:
    axes = mvn_axes(group.last, group.last.inputs)
    return None if axes is None else MeanVariance(group, axes)
