"""Native Inverse: Gauss and Jordan's elimination in f64, with the largest pivot of each column."""

from __future__ import annotations

from ovjit.codegen.cpu.isa import host_isa
from ovjit.codegen.function import DIMS, kernel
from ovjit.codegen.words import *
from ovjit.forks import made_once
from ovjit.graph.dtypes import FULL
from ovjit.planning.lower import Lowering
from ovjit.planning.plan import Planner, ceil_div, split
from ovjit.planning.races import Piece, Rows
from ovjit.planning.views import merge_axes, placed_values, product


@kernel
def inverse(x: Ptr, y: Ptr, n, x_i, x_j, y_i, y_j, width, items, per_chunk, *, T):
    """A chunk is a range of matrices of n x n. The matrix and the identity beside it are rows of `width`
    bytes in scratch; where no pivot is left but 0, all elements are NaN."""
    for item in share(items, per_chunk):
        p, q = placed(item, x, y)
        for i in range(n):
            for j in range(n):
                st[f64](scratch + i * width + j * 8, ld[T](p + i * x_i + j * x_j) * 1.0)
                st[f64](scratch + i * width + (n + j) * 8, 0.0)
            st[f64](scratch + i * width + (n + i) * 8, 1.0)
        none = 0.0
        for c in range(n):
            own = scratch + c * width
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
                        v = load[f64](own + k)
                        store[f64](own + k, load[f64](other + k))
                        store[f64](other + k, v)
                pivot = ld[f64](own + c * 8) * 1.0
                for r in range(n):
                    # rows that are equal leave exactly 0 of each other
                    factor = ld[f64](scratch + r * width + c * 8) / pivot
                    if r != c and factor != 0.0:
                        row = scratch + r * width
                        f = spread[f64](factor)
                        for k in range(0, width, VL * 8):
                            store[f64](row + k, fma(-f, load[f64](own + k), load[f64](row + k)))
            else:
                none = 1.0
        for i in range(n):
            for j in range(n):
                v = ld[f64](scratch + i * width + (n + j) * 8) / ld[f64](scratch + i * width + i * 8)
                if none > 0.0:
                    v = (none - 1.0) / (none - 1.0)
                st[T](q + i * y_i + j * y_j, v)


class Inverses(Lowering):
    """The inverse of each matrix of the last two dimensions."""

    takes = (FULL,)

    kernel = made_once(lambda self: inverse(T=self.out.dtype))

    def plan(self, planner: Planner) -> None:
        x = planner.view(self.node.inputs[0])
        y = planner.row_major_output(self.node.output)
        if y.count:
            n = y.shape[-1]
            batch = range(len(x.shape) - 2)
            extents, (xs, ys) = merge_axes(batch, (x, y))
            if len(extents) > DIMS:
                x = planner.contiguous(self.node.inputs[0])
                extents, (xs, ys) = merge_axes(batch, (x, y))
            whole = host_isa().lanes * 8
            width = ceil_div(16 * n, whole) * whole
            planner.need_scratch(n * width)
            items = product(extents)
            per_chunk = split(items, 2.0 * n * n * width)
            y_i, y_j = y.strides[-2:][:: -1 if self.node.attrs["adjoint"] else 1]
            values = {
                "x": x.ptr, "y": y.ptr, "n": n, "x_i": x.strides[-2], "x_j": x.strides[-1], "y_i": y_i,
                "y_j": y_j, "width": width, "items": items, "per_chunk": per_chunk,
            }  # fmt: skip
            values |= placed_values(extents, x=xs, y=ys)
            read, written = (
                [Piece(v.ptr, along, (n, n), v.strides[-2:], v.itemsize)] for v, along in ((x, xs), (y, ys))
            )
            touches = Rows(extents, per_chunk, read, written)
            chunks, flops = ceil_div(items, per_chunk), 2.0 * y.count * n
            planner.step(self.kernel, values, chunks, [x], [y], flops, touches=touches)
