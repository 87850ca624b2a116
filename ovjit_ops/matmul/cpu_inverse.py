"""Native Inverse: Gauss-Jordan elimination in f64 with partial pivoting."""

from __future__ import annotations

from typing import Any

from ovjit.codegen.kernel_language import *
from ovjit.forks import made_once
from ovjit.graph.dtypes import FULL
from ovjit.planning.lower import Lowering, Planner, ceil_div, launch, try_launch


@kernel(over="...", x="... i j", y="... i j")
def inverse(x: Tensor, y: Tensor, width, *, T):
    """A chunk is a range of n x n matrices. [matrix, identity] is in scratch memory, in rows of `width`
    bytes. Singular matrices, which have a column whose pivots are all 0, give NaN."""
    n = y.size.i
    for p, q in items(x, y):
        for i in range(n):
            for j in range(n):
                st[f64](scratch + i * width + j * 8, ld[T](x.at(p, i=i, j=j)) * 1.0)
                st[f64](scratch + i * width + (n + j) * 8, 0.0)
            st[f64](scratch + i * width + (n + i) * 8, 1.0)
        none = 0.0
        for c in range(n):
            pivot_row = scratch + c * width
            best = 0.0
            at = c
            for r in range(c, n):
                size = ld[f64](scratch + r * width + c * 8) * 1.0
                if size < 0.0:
                    size = 0.0 - size
                if size > best:
                    best = size
                    at = r
            if best > 0.0:
                other = scratch + at * width
                if at != c:
                    for k in range(0, width, VL * 8):
                        v = load[f64](pivot_row + k)
                        store[f64](pivot_row + k, load[f64](other + k))
                        store[f64](other + k, v)
                pivot = ld[f64](pivot_row + c * 8) * 1.0
                for r in range(n):
                    # a quotient, not a reciprocal: equal rows then cancel to exactly 0
                    factor = ld[f64](scratch + r * width + c * 8) / pivot
                    if r != c and factor != 0.0:
                        row = scratch + r * width
                        f = spread[f64](factor)
                        for k in range(0, width, VL * 8):
                            store[f64](row + k, fma(-f, load[f64](pivot_row + k), load[f64](row + k)))
            else:
                none = 1.0
        for i in range(n):
            for j in range(n):
                v = ld[f64](scratch + i * width + (n + j) * 8) / ld[f64](scratch + i * width + i * 8)
                if none > 0.0:
                    v = (none - 1.0) / (none - 1.0)
                st[T](y.at(q, i=i, j=j), v)


class Inverses(Lowering):
    """Inverses of the matrices of the last two dimensions."""

    takes = (FULL,)

    kernel = made_once(lambda self: inverse(T=self.out.dtype))

    def plan(self, planner: Planner) -> None:
        data = self.node.inputs[0]
        y = planner.row_major_output(self.node.output)
        if not y.count:
            return
        n, rank = y.shape[-1], len(y.shape)
        if self.node.attrs["adjoint"]:
            y = y.permute((*range(rank - 2), rank - 1, rank - 2))
        line = self.target.lanes * 8
        width = ceil_div(16 * n, line) * line
        planner.need_scratch(n * width)
        options: dict[str, Any] = {"work": 2.0 * n * n * width, "flops": 2.0 * y.count * n, "width": width}
        if not try_launch(planner, self.kernel, {"x": planner.view(data), "y": y}, ("y",), **options):
            launch(planner, self.kernel, {"x": planner.contiguous(data), "y": y}, ("y",), **options)
