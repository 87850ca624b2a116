"""Epilogues in kernels that iterate over rows of results, without tiles."""

from __future__ import annotations

from typing import Any

from ovjit.codegen.function import inline
from ovjit.codegen.memory import SIZE
from ovjit.codegen.words import Each, applied, loadm, registers, splat, static_range, storem
from ovjit.graph.symbolic import statically_known_equal
from ovjit.graph.traced import is_traced_number
from ovjit.planning.views import View

#: A kernel's parameter for the operands: addresses, and the bytes between rows of those that have rows.
ROW_OPERANDS: Any = Each("operands", "w", unless="shared")


@inline
def finish_row(sums, r, e, y, y_w, row, c, outs, *, vectors, lanes, operands, body, out):
    """Store panel `c` of the row `row`, of whose `outs` columns sums[r, 0], sums[r, 1] ... are vectors."""
    x = registers()
    for v in static_range(vectors):
        k = c * (vectors * lanes) + v * lanes
        remaining = outs - k
        if remaining > 0:
            for n, o in enumerate(operands):
                base = e[n] if o.shared else e[n] + row * e[n, "w"]
                if o.kind in ("scalar", "number"):
                    x[n + 1] = splat[o.dtype](base)
                else:
                    x[n + 1] = loadm[o.dtype](base + k * SIZE[o.dtype], remaining)
            result = applied(body, sums[r, v], *x)
            storem[out](y + row * y_w + k * SIZE[out], result, remaining)


def row_step(view: View) -> int | None:
    """The bytes between rows along the last dimension; None if this distance is not constant. The first
    dimension is not compared with 1 where the distance is right for any extent."""
    step: int | None = None
    span = 0  # bytes that the dimensions so far span
    for axis in range(len(view.shape) - 2, -1, -1):
        extent, stride = view.shape[axis], view.strides[axis]
        fits = step is None or statically_known_equal(stride, span)
        if not (fits and axis == 0 and is_traced_number(extent)) and extent == 1:
            continue
        if step is None:
            step = stride
        elif stride != span:
            return None
        span = stride * extent
    return 0 if step is None else step
