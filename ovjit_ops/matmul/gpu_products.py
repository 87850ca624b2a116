"""Matrix products of f16 and bf16 on GPUs, with sums in f32.

    y[m, n] = sum over k of a[m, k] b[k, n]

A lane has a column of `ROWS` rows of the result. Both sides are read in place, with any strides.
"""

from __future__ import annotations

from ovjit.codegen.function import kernel, spaced
from ovjit.codegen.words import *
from ovjit.graph.dtypes import HALVES
from ovjit.graph.graph import Value
from ovjit.planning.launch import launch
from ovjit.planning.lower import Lowering, place_constants
from ovjit.planning.plan import Constants, NotNative, Planner
from ovjit.planning.views import View, product

#: Rows of an item.
ROWS = 8


@kernel(over="... n/wide m/rows", a="... m k", b="... k n", y="... m n")
def half_product(a: Tensor, b: Tensor, y: Tensor, *, T, out, wide, rows):
    """T, out: element types of a and b, and of y."""
    x, c = registers()
    for j, i, pa, pb, py in items(a, b, y):
        count = y.size.n - j
        for r in static_range(rows):
            # rows that are not there repeat the last one, and are not stored
            x[r] = a.at(pa, m=min(r, y.size.m - 1 - i))
            c[r] = const[f32](0)
        for h in range(a.size.k):
            w = gather[T](pb, b.stride.n, count)
            for r in static_range(rows):
                c[r] = fma(splat[T](x[r] + h * a.stride.k), w, c[r])
            pb += b.stride.k
        for r in static_range(rows):
            if i + r < y.size.m:
                spaced(py, y.stride.n, c[r], count, out)
            py += y.stride.m


class HalfProduct(Lowering):
    """MatMul of f16 or bf16 with any number of batch dimensions. Nothing is fused into it."""

    takes = (HALVES,)

    def set_up(self) -> None:
        a, b = self.node.inputs
        if self.group.body or a.dtype != b.dtype or self.out.dtype not in (a.dtype, "f32"):
            raise NotNative
        self.kernel = half_product(T=a.dtype, out=self.out.dtype, wide=self.target.lanes, rows=ROWS)

    def pack(self, constants: Constants) -> None:
        place_constants(constants, self.node.inputs)

    def plan(self, planner: Planner) -> None:
        left, right = self.node.inputs
        a = _matrix(planner.view(left), bool(self.node.attrs["transpose_a"]), 0)
        b = _matrix(planner.view(right), bool(self.node.attrs["transpose_b"]), 1)
        y = planner.row_major_output(self.out)
        if not y.count:
            return
        (m, k), n, lanes = a.shape[-2:], b.shape[-1], self.target.lanes
        batch = y.shape[: len(y.shape) - (len(left.shape) > 1) - (len(right.shape) > 1)]
        tensors = {name: view.expand((*batch, *view.shape[-2:])) for name, view in (("a", a), ("b", b))}
        launch(
            planner, self.kernel, {**tensors, "y": y.as_shape((*batch, m, n))}, ("y",),
            work=k * ROWS * lanes, flops=2.0 * product(batch) * m * n * k, wide=lanes, rows=ROWS,
        )  # fmt: skip


def _matrix(view: View, transposed: bool, axis: int) -> View:
    """An operand as [..., rows, columns]. A vector gets a dimension of 1 at `axis`."""
    rank = len(view.shape)
    if rank == 1:
        shape, strides = [1, view.shape[0]], [0, view.strides[0]]
        turn = slice(None, None, -1 if axis else 1)
        return View(view.buffer, tuple(shape[turn]), tuple(strides[turn]), view.itemsize, view.offset)
    return view.permute((*range(rank - 2), rank - 1, rank - 2)) if transposed else view
