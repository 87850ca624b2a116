"""Shared by the rules, which import this whole: sizes, constants, reductions, scans."""

from __future__ import annotations

import math  # noqa: F401
from collections.abc import Callable
from typing import Any

import numpy as np  # noqa: F401
import paddle  # type: ignore[import-not-found]

#: What gives the value of an operator's first result, by other operators; None leaves the operator as it is.
Rule = Callable[[Any], Any]


def sizes_of(x: Any) -> list[Any]:
    """The sizes of a tensor: ints if static, else scalars."""
    if all(size >= 0 for size in x.shape):
        return list(x.shape)
    shape = paddle.shape(x)
    return [size if size >= 0 else shape[axis] for axis, size in enumerate(x.shape)]


def numbers_below(size: Any) -> Any:
    """0, 1, ..., size - 1 as i64."""
    return paddle.arange(0, size, 1, dtype="int64")


def constant_of(value: Any) -> list[Any] | None:
    """Values of a constant operand as a list; None if it is not a constant."""
    result = value.get_defining_op()
    if result.name() not in ("pd_op.full", "pd_op.full_int_array"):
        return None
    stated = result.attrs()["value"]
    return list(stated) if isinstance(stated, (list, tuple)) else [stated]


def parts_of(value: Any) -> list[Any]:
    """The tensors of a list that the program builds."""
    return list(value.get_defining_op().operands_source())


def of_one_axis(function: Callable[..., Any], x: Any) -> Any:
    """`function` of a tensor, reduced to a scalar by way of a tensor [1]: only then does the exporter remove
    the dimension."""
    return paddle.squeeze(function(x, axis=[0], keepdim=True), axis=[0])


def along(function: Callable[..., Any]) -> Callable[..., Any]:
    """The rule of a reduction along axes, or to a scalar."""

    def reduce(x: Any, axis: list[int], keepdim: bool, **_: Any) -> Any:
        if axis or keepdim:
            return function(x, axis=axis or [*range(len(x.shape))], keepdim=keepdim)
        return of_one_axis(function, paddle.reshape(x, [-1]))

    return reduce
