"""Reductions, scans, searches and comparisons of all elements."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import paddle  # type: ignore[import-not-found]

from .parts import Rule, constant_of, of_one_axis, same_everywhere, scan


def _of_all(function: Callable[..., Any]) -> Rule:
    """The exporter refuses reductions of all elements, or gives them a dimension."""

    def rule(op: Any) -> Any:
        if op.result(0).shape or not op.operand_source(0).shape:
            return None
        return of_one_axis(function, paddle.reshape(op.operand_source(0), [-1]))

    return rule


def _cumprod(op: Any) -> Any:
    attrs = op.attrs()
    if attrs["exclusive"] or attrs["reverse"]:
        return None
    return scan(op.operand_source(0), attrs["dim"], 1, paddle.multiply)


def _log_of_sum(x: Any, y: Any) -> Any:
    return paddle.maximum(x, y) + paddle.log1p(paddle.exp(-paddle.abs(x - y)))


def _logcumsumexp(op: Any) -> Any:
    x, attrs = op.operand_source(0), op.attrs()
    if attrs["exclusive"] or attrs["reverse"]:
        return None
    x = paddle.reshape(x, [-1]) if attrs["flatten"] else x
    return scan(x, 0 if attrs["flatten"] else attrs["axis"], -1e30, _log_of_sum)


def _extreme(join: Callable[..., Any], first: float) -> Rule:
    def rule(op: Any) -> Any:
        if not op.result(1).use_empty() or "float" not in str(op.operand_source(0).dtype):
            return None
        return scan(op.operand_source(0), op.attrs()["axis"], first, join)

    return rule


def _search_sorted(op: Any) -> Any:
    ordered, values = op.operands_source()
    attrs = op.attrs()
    compare = paddle.less_equal if attrs["right"] else paddle.less_than
    values = paddle.unsqueeze(values, -1)
    ordered = paddle.unsqueeze(ordered, -2) if len(ordered.shape) > 1 else ordered
    before = paddle.cast(compare(ordered, values), "int32" if attrs["out_int32"] else "int64")
    return paddle.sum(before, axis=[-1])


def _kthvalue(op: Any) -> Any:
    x, attrs = op.operand_source(0), op.attrs()
    axis, index = attrs["axis"] % len(x.shape), attrs["k"] - 1
    smallest = paddle.topk(x, attrs["k"], axis=axis, largest=False)
    parts = [paddle.slice(part, [axis], [index], [index + 1]) for part in smallest]
    return parts if attrs["keepdim"] else [paddle.squeeze(part, axis=[axis]) for part in parts]


def _near(op: Any) -> Any:
    x, y, *limits = op.operands_source()
    relative, absolute = (constant_of(limit) for limit in limits)
    if relative is None or absolute is None or op.attrs()["equal_nan"]:
        return None
    near = paddle.abs(x - y) <= paddle.abs(y) * float(relative[0]) + float(absolute[0])
    return paddle.logical_or(near, x == y)


def _allclose(op: Any) -> Any:
    near = _near(op)
    return None if near is None else same_everywhere(op.operand_source(0), op.operand_source(1), near)


RULES: dict[str, Rule] = {
    "all": _of_all(paddle.all),
    "any": _of_all(paddle.any),
    "mean": _of_all(paddle.mean),
    "sum": _of_all(paddle.sum),
    "logsumexp": _of_all(paddle.logsumexp),
    "isclose": _near,
    "max": _of_all(paddle.max),
    "min": _of_all(paddle.min),
    "prod": _of_all(lambda x, axis, keepdim: paddle.prod(x, axis[0], keepdim)),
    "cumprod": _cumprod,
    "logcumsumexp": _logcumsumexp,
    "cummax": _extreme(paddle.maximum, -math.inf),
    "cummin": _extreme(paddle.minimum, math.inf),
    "searchsorted": _search_sorted,
    "kthvalue": _kthvalue,
    "equal_all": lambda op: same_everywhere(
        op.operand_source(0), op.operand_source(1), paddle.equal(*op.operands_source())
    ),
    "allclose": _allclose,
}
