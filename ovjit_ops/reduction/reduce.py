"""Reductions over axes that the second input gives.

NaN propagates as in NumPy. Over no elements, a sum, a norm and a mean are 0, a product is 1, a maximum is the
lowest finite number of the type, and a minimum the highest. Integers wrap around; the mean and the L2 norm of
integers truncate.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from ovjit.errors import check
from ovjit.graph import symbolic
from ovjit.graph.op import Bool, Op, TensorType, register
from ovjit.graph.shapes import ANY, Dim, normalize_axis
from ovjit_ops.common.images import images_of
from ovjit_ops.common.values import INTEGERS, length, shape_value, widen_floats, with_partial, with_value
from ovjit_ops.elementwise.arithmetic import NUMBERS, cases, divide


def reduced_shape(shape: tuple[Dim, ...], axes: tuple[int, ...], keep_dims: bool) -> tuple[Dim, ...]:
    if keep_dims:
        return tuple(1 if i in axes else d for i, d in enumerate(shape))
    return tuple(d for i, d in enumerate(shape) if i not in axes)


def infer_reduction(
    node: TensorType, reduction_axes: TensorType, keep_dims: bool, types: list[str]
) -> TensorType:
    """The type of a reduction. Raises ModelError for axes out of range and for element types that do not
    fit."""
    says = "be boolean." if list(types) == ["boolean"] else f"be numeric. Got: {node.dtype}"
    check(node.dtype in (*types, "dynamic"), f"Element type of data input must {says}")
    axes = shape_value(
        reduction_axes,
        "reduction_axes",
        "Element type of axes input must be integer. Got: {type}",
        "Axes input must be a scalar or 1D input. Got: {shape}",
    )
    if node.shape is None:
        return TensorType(node.dtype, None)
    if axes is None:
        if keep_dims:
            return TensorType(node.dtype, (ANY,) * len(node.shape))
        # axes may repeat
        one = length(reduction_axes) == 1
        return TensorType(node.dtype, (ANY,) * (len(node.shape) - 1) if one else None)
    normal = _axes(axes, len(node.shape))
    return TensorType(node.dtype, reduced_shape(node.shape, normal, keep_dims))


def _axes(axes: np.ndarray, rank: int) -> tuple[int, ...]:
    """The axes as non-negative numbers, sorted, without repetitions."""
    return tuple(sorted({normalize_axis(int(a), rank) for a in axes}))


def reduction(
    name: str,
    ref: Callable,
    *,
    opset: int = 1,
    types: list[str] = NUMBERS,
    partially: Callable | None = None,
    ulp: float = 16,
    part: str = "",
) -> Op:
    """Register a reduction. `ref(x, axes, keep_dims)` computes it in the accumulation type. `partially`: the
    reduction of two integers that may be Intervals."""

    def infer(node: TensorType, reduction_axes: TensorType, *, keep_dims: Bool = False) -> TensorType:
        out = infer_reduction(node, reduction_axes, keep_dims, types)
        if partially is not None and node.partial is not None and node.dtype in INTEGERS:
            fold = symbolic.reduction(partially)
            return with_partial(
                out, lambda x, axes: fold(x, _axes(axes.reshape(-1), x.ndim), keep_dims), node, reduction_axes
            )
        return with_value(out, reference, node, reduction_axes, keep_dims=keep_dims)

    def reference(node: np.ndarray, reduction_axes: np.ndarray, *, keep_dims: bool = False) -> np.ndarray:
        axes = _axes(reduction_axes.reshape(-1), node.ndim)
        axes = axes if node.ndim else ()  # scalars accept the axes 0 and -1
        return np.asarray(ref(widen_floats(node), axes, keep_dims)).astype(node.dtype)

    return register(
        Op(
            name, opset, infer, reference,
            lower=".cpu_reduce:Reduce.of", samples=cases(*_CASES, domain=(-3, 3)),
            types=types, ulp=ulp, epilogue=True, prologue=True, part=part, images=images_of(0, along=1),
        )
    )  # fmt: skip


_CASES: list[tuple[Any, ...]] = [
    *(((n,), [0], {"keep_dims": False}) for n in (1, 7, 8, 15, 16, 17, 33, 1000)),
    ((3, 17), [0], {"keep_dims": True}),
    ((3, 17), [1], {"keep_dims": False}),
    ((17, 3), [-1], {"keep_dims": True}),
    ((2, 5, 7, 8), [2, 3], {"keep_dims": False}),
    ((2, 5, 7, 8), [2, 3], {"keep_dims": True}),
    ((2, 5, 7, 8), [1], {"keep_dims": True}),
    ((2, 5, 7, 8), [0, 2], {"keep_dims": False}),
    ((2, 3, 4), [0, 1, 2], {"keep_dims": False}),
    ((2, 3, 4), [], {"keep_dims": False}),
    ((2, 3), 1, {"keep_dims": False}),
    ((), [-1], {"keep_dims": False}),
    ((0, 3), [0], {"keep_dims": False}),
    ((0, 3), [1], {"keep_dims": True}),
]


def _count(x: np.ndarray, axes: tuple[int, ...]) -> int:
    return int(np.prod([x.shape[a] for a in axes], dtype=object)) if axes else 1


def _mean(x: np.ndarray, axes: tuple[int, ...], keep: bool) -> np.ndarray:
    n = max(1, _count(x, axes))
    total = np.sum(x, axis=axes, keepdims=keep)
    if x.dtype.kind == "f":
        return total / x.dtype.type(n)
    return divide(total, np.array(n, total.dtype), m_pythondiv=False)


def _limits(dtype: np.dtype) -> tuple[Any, Any]:
    if dtype.kind in "iu":
        info: Any = np.iinfo(dtype)
    else:
        import ml_dtypes

        info = ml_dtypes.finfo(dtype)
    return info.min, info.max


def _extreme(function: Callable, which: int) -> Callable:
    def ref(x: np.ndarray, axes: tuple[int, ...], keep: bool) -> np.ndarray:
        if _count(x, axes) == 0:
            return function(x, axis=axes, keepdims=keep, initial=_limits(x.dtype)[which])
        return function(x, axis=axes, keepdims=keep)

    return ref


def _l2(x: np.ndarray, axes: tuple[int, ...], keep: bool) -> np.ndarray:
    if x.dtype.kind == "f":
        return np.sqrt(np.sum(x * x, axis=axes, keepdims=keep))
    # saturate at the type's maximum
    return np.minimum(_l2(x.astype(np.float64), axes, keep), _limits(x.dtype)[1])


reduction(
    "ReduceSum",
    lambda x, axes, keep: np.sum(x, axis=axes, keepdims=keep),
    partially=operator.add,
    part="read",
)
reduction(
    "ReduceProd",
    lambda x, axes, keep: np.prod(x, axis=axes, keepdims=keep),
    partially=operator.mul,
)
reduction("ReduceMean", _mean, part="read")
reduction("ReduceMax", _extreme(np.max, 0), partially=symbolic.sym_max, ulp=0, part="read")
reduction("ReduceMin", _extreme(np.min, 1), partially=symbolic.sym_min, ulp=0, part="read")
reduction("ReduceL1", lambda x, axes, keep: np.sum(np.abs(x), axis=axes, keepdims=keep), opset=4, part="read")
reduction("ReduceL2", _l2, opset=4, part="read")
reduction("ReduceLogicalAnd", lambda x, axes, keep: np.all(x, axis=axes, keepdims=keep), types=["boolean"])
reduction("ReduceLogicalOr", lambda x, axes, keep: np.any(x, axis=axes, keepdims=keep), types=["boolean"])
