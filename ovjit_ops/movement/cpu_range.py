"""Native Range with limits that are known when shapes are known."""

from __future__ import annotations

import numpy as np

from ovjit.codegen.kernel_language import *
from ovjit.graph.symbolic import sym_int
from ovjit.graph.traced import is_traced
from ovjit.planning.lower import Lowering, NotNative, Planner, launch

#: Element types with a kernel. Other types run by the reference.
TYPES = ("i32", "i64", "f32", "f64")
#: f64 represents all integers up to this one.
EXACT = 1 << 53


@kernel(over="i", y="i")
def numbers(y: Tensor, start, step, *, T):
    """y[i] = start + i * step."""
    for i, p in items(y):
        st[T](p, start + i * step)


@kernel(over="i/VL", y="i:1", limits="")
def reals(y: Tensor, limits: Tensor, *, T):
    """y[i] = start + i * step, with start and step as f64 at `limits`. Product and sum are rounded in f64, as
    in the reference, before the conversion to T."""
    for k in range(VL):
        st[i64](scratch + k * 8, k)
    lanes = load[i64](scratch)
    first = splat[f64](limits)
    step = splat[f64](limits + 8)
    for i, p in items(y):
        v = cast[f64](lanes + spread[i64](i)) * step + first
        storem[T](p, cast[T](v), y.size.i - i)


class Ranged(Lowering):
    """Range: by integers if this is exact, else in f64."""

    def set_up(self) -> None:
        if self.out.dtype not in TYPES:
            raise NotNative
        self.kernel = numbers(T=self.out.dtype)
        self.kernels = [self.kernel]
        if self.out.dtype[0] == "f":
            self.kernels.append(reals(T=self.out.dtype))

    def plan(self, planner: Planner) -> None:
        node = self.group.last
        start, _, step = (planner.types[v].value for v in node.inputs)
        if start is None or step is None:
            raise NotNative
        n = planner.shape(node.output)[0]
        exact = self.out.dtype[0] != "f" or self._exact(start, step, n)
        out = planner.output(node.output)
        if n == 0:
            return
        if not exact and n > 1 and out.strides[0] != out.itemsize:  # a strided view
            out = planner.instead(out)
        if not exact:
            limits = planner.data.view(np.array([start.item(), step.item()], np.float64), "f64")
            work = 8 * self.target.lanes
            planner.need_scratch(work)
            launch(planner, self.kernels[1], {"y": out, "limits": limits}, ("y",), work=work)
            return
        first, by = (sym_int(v.reshape(-1)[0]) for v in (start, step))
        launch(planner, self.kernel, {"y": out}, ("y",), work=2, start=first, step=by)

    def _exact(self, start: np.ndarray, step: np.ndarray, n: int) -> bool:
        """Whether all numbers are integers that f64 represents exactly. Raises NotNative for traced numbers
        that may not be integers."""
        if is_traced(start) or is_traced(step):
            if all(is_traced(v) or v.dtype.kind in "iu" for v in (start, step)):
                return True
            raise NotNative
        first, by = float(start.item()), float(step.item())
        whole_ones = first.is_integer() and by.is_integer()
        return whole_ones and abs(first) < EXACT and n * abs(by) < EXACT - abs(first)
