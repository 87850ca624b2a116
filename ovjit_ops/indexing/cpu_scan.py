"""Native CumSum: a vector of neighbouring sums walks along the axis together."""

from __future__ import annotations

from ovjit.codegen.cpu.isa import host_isa
from ovjit.codegen.function import DIMS, kernel, spaced
from ovjit.codegen.words import *
from ovjit.compiler.lower import AsInput
from ovjit.compiler.plan import NotNative, Planner, ceil_div
from ovjit.compiler.races import Piece, Rows
from ovjit.compiler.views import View, merge_axes, placed_values, product
from ovjit_ops.indexing.cpu_gather import known_axis


@kernel
def cumsum(x: Ptr, y: Ptr, n, x_n, y_n, m, x_m, y_m, exclusive, items, per_chunk, blocks, *, T):
    """y[k] = x[0] + ... + x[k] for n steps along the axis, or without x[k] when `exclusive`.

    Lanes are another dimension, of m elements, at any stride.
    """
    for item in share(items, per_chunk):
        j = (item % blocks) * VL
        p, q = placed(item // blocks, x, y)
        p += j * x_m
        q += j * y_m
        total = const[T](0)
        for _ in range(n):
            if x_m == SIZE[T]:
                v = loadm[T](p, m - j)
            else:
                v = gather[T](p, x_m, m - j)
            after = total + v
            out = after
            if exclusive == 1:
                out = total
            spaced(q, y_m, out, m - j, T)
            total = after
            p += x_n
            q += y_n


class CumSum(AsInput):
    """Sums along one axis."""

    def set_up(self) -> None:
        self.data, axis = self.node.inputs
        if not self.data.shape:
            raise NotNative
        self.axis = known_axis(axis, len(self.data.shape))
        self.kernel = cumsum(T=self.out.dtype)

    def plan(self, planner: Planner) -> None:
        x, y = planner.view(self.data), planner.output(self.out)
        if not y.count:
            return
        if not self._plan(planner, x, y):
            self._plan(planner, planner.contiguous(self.data), planner.instead(y))

    def _plan(self, planner: Planner, x: View, y: View) -> bool:
        """False when there are too many dimensions that do not merge."""
        n = x.shape[self.axis]
        others = [a for a in range(len(x.shape)) if a != self.axis]
        others.sort(key=lambda a: (-abs(y.strides[a]), a))
        extents, (xs, ys) = merge_axes(others, (x, y))
        m, x_m, y_m = (extents.pop(), xs.pop(), ys.pop()) if extents else (1, x.itemsize, y.itemsize)
        if len(extents) > DIMS:
            return False
        x_n, y_n = x.strides[self.axis], y.strides[self.axis]
        source, target = x.ptr, y.ptr
        if self.node.attrs["reverse"]:
            source, target = source + (n - 1) * x_n, target + (n - 1) * y_n
            x_n, y_n = -x_n, -y_n
        blocks = ceil_div(m, host_isa().lanes)
        items = product(extents) * blocks
        values = {
            "x": source, "y": target, "n": n, "x_n": x_n, "y_n": y_n, "m": m, "x_m": x_m, "y_m": y_m,
            "exclusive": int(self.node.attrs["exclusive"]), "items": items, "blocks": blocks,
        }  # fmt: skip
        values |= placed_values(extents, x=xs, y=ys)
        # an item is a vector of the rows' innermost dimension; the last one may be short
        lanes = host_isa().lanes
        both = [
            Piece(start, (*along, step), (n,), (step_n,), x.itemsize)
            for start, along, step, step_n in ((source, xs, x_m, x_n), (target, ys, y_m, y_n))
        ]
        planner.share_step(
            self.kernel, values, items, n * 64, [x], [y], y.count,
            lambda each: Rows(
                (*extents, m), each, both[:1], both[1:],
                lambda item: item // blocks * m + min(item % blocks * lanes, m),
            ),
        )  # fmt: skip
        return True
