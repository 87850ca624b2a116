"""Native CumSum: a vector of neighbouring sums walks along the axis together."""

from __future__ import annotations

from ovjit.codegen.function import kernel, spaced
from ovjit.codegen.words import *
from ovjit.compiler.launch import launch_or_copy
from ovjit.compiler.lower import AsInput
from ovjit.compiler.plan import NotNative, Planner
from ovjit.compiler.views import View
from ovjit_ops.indexing.cpu_gather import known_axis


@kernel(over="... lanes/VL", x="... n", y="... n")
def cumsum(x: Tensor, y: Tensor, exclusive, *, T):
    """y[k] = x[0] + ... + x[k] for n steps along the axis, or without x[k] when `exclusive`."""
    for j, p, q in items(x, y):
        left = x.size.lanes - j
        total = const[T](0)
        for _ in range(x.size.n):
            if x.stride.lanes == SIZE[T]:
                v = loadm[T](p, left)
            else:
                v = gather[T](p, x.stride.lanes, left)
            after = total + v
            out = after
            if exclusive == 1:
                out = total
            spaced(q, y.stride.lanes, out, left, T)
            total = after
            p += x.stride.n
            q += y.stride.n


class CumSum(AsInput):
    """Sums along one axis."""

    def set_up(self) -> None:
        self.data, axis = self.node.inputs
        if not self.data.shape:
            raise NotNative
        self.axis = known_axis(axis, len(self.data.shape))
        self.kernel = cumsum(T=self.out.dtype)

    def plan(self, planner: Planner) -> None:
        n, attrs = planner.shape(self.data)[self.axis], self.node.attrs

        def seen(view: View) -> View:
            return view.slice(self.axis, n - 1, n, -1) if attrs["reverse"] else view

        launch_or_copy(
            planner, self.kernel, {"x": self.data}, {"y": self.out}, seen,
            axes={"n": self.axis}, work=n * 64, exclusive=int(attrs["exclusive"]),
        )  # fmt: skip
