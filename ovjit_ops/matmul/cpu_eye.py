"""Native Eye: zeros, then ones along the diagonal."""

from __future__ import annotations

import numpy as np

from ovjit.graph.dtypes import numpy_dtype
from ovjit.graph.symbolic import sym_int, sym_max, sym_min
from ovjit.planning.copies import fill_kernel, plan_fill
from ovjit.planning.lower import Constants, Lowering, Planner, View, plan_copy


class Identity(Lowering):
    """Both steps are of kernels that many models need, for any element type."""

    def set_up(self) -> None:
        self.one = np.ones(1, numpy_dtype(self.out.dtype))
        self.kernel = fill_kernel(self.one.itemsize)

    def pack(self, constants: Constants) -> None:
        constants.view(self.one, self.out.dtype)

    def plan(self, planner: Planner) -> None:
        above = sym_int(planner.shape_value(self.node.inputs[2]).reshape(-1)[0])
        y = planner.output(self.out)
        if not y.count:
            return
        plan_fill(planner, y)
        first = sym_max(-above, 0)
        count = sym_min(y.shape[-2] - first, y.shape[-1] - above - first)
        if count <= 0:
            return
        *along, down, right = y.strides
        start = y.offset + first * down + (first + above) * right
        diagonal = View(y.buffer, (*y.shape[:-2], count), (*along, down + right), y.itemsize, start)
        one = planner.constants.view(self.one, self.out.dtype)
        plan_copy(planner, one.expand(diagonal.shape), diagonal)
