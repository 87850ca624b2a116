"""Operations that combine all elements up to each one along an axis."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ovjit.graph.op import Bool, Op, TensorType, register
from ovjit.graph.shapes import normalize_axis
from ovjit_ops.common.checks import check_type
from ovjit_ops.common.values import shape_scalar, widen_floats
from ovjit_ops.elementwise.arithmetic import NUMBERS, cases
from ovjit_ops.indexing.cpu_scan import lower_scan


def scan_op(
    name: str,
    *,
    ref: Callable[..., np.ndarray],
    combine: Callable[[Any, Any], Any],
    first: Callable[[str], float | int],
    opset: int = 1,
    types: tuple[str, ...] = (*NUMBERS,),
    **options: Any,
) -> Op:
    """Register y[k] = combine(... combine(first, x[0]) ..., x[k]) along the axis that is the second input.

    `ref(x, axis=...)`: the NumPy function (`np.cumsum`, `np.minimum.accumulate`). `combine`: the same of two
    traced numbers. `first(dtype)`: its neutral element. Attributes of the operation: `exclusive` excludes
    x[k] from y[k]; `reverse` scans from the axis' end.
    """

    def infer(arg: Any, axis: Any, *, exclusive: Bool = False, reverse: Bool = False) -> TensorType:
        says = "axis element type must be either int64_t or int32_t but got ({type})."
        along = shape_scalar(axis, "axis", says)
        if along is not None and arg.rank is not None:
            normalize_axis(along, arg.rank)
        check_type(arg, types)
        return TensorType(arg.dtype, arg.shape)

    def reference(
        arg: np.ndarray, axis: np.ndarray, *, exclusive: bool = False, reverse: bool = False
    ) -> np.ndarray:
        along = normalize_axis(int(axis.reshape(-1)[0]), arg.ndim)
        lines = np.atleast_1d(arg)
        x = widen_floats(np.flip(lines, along) if reverse else lines)
        out = ref(x, axis=along).astype(x.dtype)
        if exclusive:
            out = np.roll(out, 1, along)
            out[(slice(None),) * along + (slice(0, 1),)] = first(str(arg.dtype))
        return (np.flip(out, along) if reverse else out).astype(arg.dtype).reshape(arg.shape)

    samples = cases(
        ((7,), 0),
        ((3, 17), 1),
        ((16, 3), 0),
        ((2, 3, 5), -1),
        ((3, 7, 37), 2),
        each=[{"exclusive": e, "reverse": r} for e in (False, True) for r in (False, True)],
    )
    lower = lower_scan(combine, first)
    return register(Op(name, opset, infer, reference, types=types, samples=samples, lower=lower, **options))


def _of_booleans(w: Any, node: Any, inputs: Any) -> Any:
    """CumSum(x: boolean) -> NotEqual(CumSum(Convert(x, i32)), 0)"""
    arg, axis = inputs
    if arg.dtype != "boolean":
        return None
    numbers = w("Convert", arg, destination_type="i32")
    return [w("NotEqual", w("CumSum", numbers, axis, **node.attrs), 0)]


scan_op(
    "CumSum",
    ref=lambda x, axis: np.cumsum(x, axis, dtype=x.dtype),
    combine=lambda total, x: total + x,
    first=lambda dtype: 0,
    opset=3,
    types=(*NUMBERS, "boolean"),
    expand=_of_booleans,
    doc="Sums of all elements up to each one along `axis`, itself included unless `exclusive`. A sum of "
    "booleans tells whether any of them is true.",
)
